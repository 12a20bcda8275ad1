"""Vision-language models: the text tower is spliced, everything else is left as it was. And what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from surgeon.plan import Donors, Plan, resolve
from surgeon.recipe.document import parse
from tests.support.assembling import assemble
from tests.support.planning import plan_of, stack_of

TEXT = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": {**TEXT, "model_type": "gemma3_text", "head_dim": 8, "sliding_window": 16},
        "vision_config": {**VISION, "model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4,
        "image_token_index": 5,
    },
    "llava": {
        "text_config": {**TEXT, "model_type": "llama"},
        "vision_config": {**VISION, "model_type": "clip_vision_model", "projection_dim": 32},
        "image_token_index": 5,
    },
    "mistral3": {
        "text_config": {**TEXT, "model_type": "mistral", "head_dim": 8},
        "vision_config": {**VISION, "model_type": "pixtral", "head_dim": 8},
        "image_token_index": 5,
    },
}
ORDER = [0, 1, 2, 3, 1, 2, 3, 4, 5]


def grown(folder: Path) -> Plan:
    text = "slices:\n- sources: [{model: ./d, layer_range: [0, 4]}]\n- sources: [{model: ./d, layer_range: [1, 6]}]\n"
    document = parse(text, folder / "r.yml")
    return resolve(document, Donors(document.roots))


@pytest.mark.parametrize("kind", MODELS)
def test_the_text_tower_is_spliced(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    torch.manual_seed(0)
    donor = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, **copy.deepcopy(MODELS[kind]))).eval()
    donor.save_pretrained(tmp_path / "d")
    plan = grown(tmp_path)
    assert plan.ok, plan.errors
    assert len(plan.layers) == len(ORDER) and plan.extra
    assemble(plan, tmp_path / "out")
    written, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info

    tower = next(module for name, module in donor.named_modules() if name.endswith("language_model"))
    layers = [copy.deepcopy(tower.layers[index]) for index in ORDER]
    for index, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    if getattr(tower.config, "layer_types", None):
        tower.config.layer_types = [tower.config.layer_types[index] for index in ORDER]
    tower.layers = torch.nn.ModuleList(layers)
    tower.config.num_hidden_layers = len(ORDER)
    ids = torch.tensor([[7, 8, 9, 10, 11]])
    with torch.inference_mode():
        ours, theirs = (m(input_ids=ids, use_cache=False).logits for m in (written.eval(), donor))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("t5", {"vocab_size": 320, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 6, "num_heads": 4}),
        ("distilbert", {"vocab_size": 320, "dim": 32, "hidden_dim": 64, "n_layers": 6, "n_heads": 4}),
    ],
)  # fmt: skip
def test_what_is_no_decoder_is_refused_with_its_reason(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **config)).save_pretrained(tmp_path / "d")
    plan = grown(tmp_path)
    assert not plan.ok
    finding = plan.errors[0]
    assert finding.code == "not-spliceable", plan.errors
    assert finding.why and finding.remedy


def test_an_encoder_with_the_layout_of_a_decoder_is_spliced(tmp_path: Path) -> None:
    """ModernBERT: its windows and layer kinds move with the layers, and its first layer stays the first."""
    import torch
    from transformers import ModernBertConfig, ModernBertModel

    from tests.families import matrix

    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    config = ModernBertConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_hidden_layers=6,
        max_position_embeddings=64, local_attention=4, **ids,
    )  # fmt: skip
    made = ModernBertModel(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3 + (parameter.ndim == 1))
    made.save_pretrained(tmp_path / "a")

    def load(folder: Path) -> Any:
        return ModernBertModel.from_pretrained(folder, attn_implementation="eager").eval()

    def states(model: Any) -> Any:
        with torch.no_grad():
            return model(torch.tensor([[3, 17, 5, 80, 41, 9, 64, 23, 7, 55, 31, 90]])).last_hidden_state

    for name, ranges in matrix.SPLICES.items():
        plan = plan_of(tmp_path, stack_of(*(("a", start, stop) for start, stop in ranges)))
        assert not assemble(plan, tmp_path / name, check=True, fsync=False).warnings
        order = [index for start, stop in ranges for index in range(start, stop)]
        wanted = states(matrix.rearranged(load(tmp_path / "a"), order))
        assert torch.equal(states(load(tmp_path / name)), wanted)
    assert not plan_of(tmp_path, stack_of(("a", 1, 4))).ok
