"""Encoders: sentence encoders, classifiers and masked language models are spliced like decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint import open_checkpoint
from surgeon.checkpoint.families.model_config import ModelConfig
from surgeon.checkpoint.families.naming import find_naming
from surgeon.errors import InputError
from surgeon.probe.subject import from_checkpoint, from_plan
from surgeon.verify.run import verify_model
from tests.families import matrix_pairs
from tests.support.assembling import assemble
from tests.support.models import one_thread
from tests.support.planning import found, plan_of, stack_of

ORDER = [0, 1, 2, 1, 2, 3]
KINDS = [
    ("BertModel", ""),
    ("BertForMaskedLM", "bert."),
    ("BertForPreTraining", "bert."),
    ("BertForSequenceClassification", "bert."),
    ("RobertaForMaskedLM", "roberta."),
    ("XLMRobertaForTokenClassification", "roberta."),
    ("ElectraForMaskedLM", "electra."),
    ("BartForConditionalGeneration", "model.decoder."),
    ("BartModel", "decoder."),
]


def made(folder: Path, name: str, seed: int) -> Any:
    """A tiny model of that class, saved, with no two tensors alike."""
    import torch
    import transformers

    kind = getattr(transformers, name)
    sizes: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
                             "num_attention_heads": 4, "max_position_embeddings": 64, "embedding_size": 32}  # fmt: skip
    if name.startswith("Bart"):
        sizes = {"vocab_size": 96, "d_model": 32, "encoder_layers": 4, "decoder_layers": 4, "encoder_ffn_dim": 48,
                 "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
                 "max_position_embeddings": 64}  # fmt: skip
    model = kind(kind.config_class(**sizes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *(each for each in model.buffers() if each.is_floating_point())]:
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(("name", "base"), KINDS)
def test_layers_of_an_encoder_are_spliced(tmp_path: Path, name: str, base: str) -> None:
    import torch
    import transformers

    with one_thread():
        donor = made(tmp_path / "a", name, 0)
        plan = plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 1, 4)))
        assert plan.ok, plan.errors
        assemble(plan, tmp_path / "out", fsync=False, workers=1)
        model, info = getattr(transformers, name).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    prefix = base + ("layers." if "decoder" in base else "encoder.layer.")
    theirs = donor.state_dict()
    for key, tensor in model.state_dict().items():
        if key.startswith(prefix):
            place, _, rest = key[len(prefix) :].partition(".")
            key = f"{prefix}{ORDER[int(place)]}.{rest}"
        assert torch.equal(tensor, theirs[key]), key
    assert len(open_checkpoint(str(tmp_path / "out")).layers) == 6


def test_the_encoder_of_an_encoder_decoder_keeps_its_depth(tmp_path: Path) -> None:
    made(tmp_path / "a", "BartForConditionalGeneration", 0)
    plan = plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 1, 4)))
    assert plan.config is not None
    assert (plan.config["decoder_layers"], plan.config["encoder_layers"]) == (6, 4)
    assert plan.config.get("num_hidden_layers", 4) == 4


@pytest.mark.parametrize("name", [name for name, _ in KINDS])
def test_every_tensor_of_two_encoders_is_blended(tmp_path: Path, name: str) -> None:
    with one_thread():
        for seed, folder in enumerate("ab"):
            made(tmp_path / folder, name, seed)
        assemble(plan_of(tmp_path, matrix_pairs.BLEND), tmp_path / "out", fsync=False, workers=1)
    first, second, out = (matrix_pairs.tensors_of(tmp_path / folder) for folder in ("a", "b", "out"))
    outcome = matrix_pairs.compare_means(first, second, out)
    assert outcome.state == "right", outcome.why


def test_a_head_that_is_written_out_takes_its_bias_along(tmp_path: Path) -> None:
    """transformers reads the bias under another name where the head is not tied."""
    for seed, folder in enumerate("ab"):
        made(tmp_path / folder, "BertForMaskedLM", seed)
    plan = plan_of(tmp_path, stack_of(("a", 0, 2), ("b", 2, 4)))
    assert found(plan, "head-materialised")
    names = {tensor.name for tensor in plan.tensors if tensor.name.startswith("cls.predictions.")}
    assert {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "cls.predictions.bias"} <= names
    assert {tensor.donor for tensor in plan.tensors if tensor.name in names} == {"B"}


def test_the_table_of_tokens_is_not_that_of_positions(tmp_path: Path) -> None:
    made(tmp_path / "a", "BertModel", 0)
    table = open_checkpoint(str(tmp_path / "a")).token_embedding
    assert table is not None and table.name == "embeddings.word_embeddings.weight"


def test_a_layout_is_chosen_by_what_occurs() -> None:
    names = ["bert.encoder.layer.0.w", "bert.embeddings.word_embeddings.weight"]
    heads = {"cls.predictions.bias": "cls.predictions.decoder.", "lm_head.bias": "lm_head.decoder."}
    for head, first in heads.items():
        naming = find_naming([*names, head])
        assert naming is not None and naming.layout.lm_head[0] == first
        for name in [*names, head, "cls.predictions.transform.dense.weight", "lm_head.dense.weight"]:
            assert naming.name(naming.place(name)) == name
    trocr = find_naming(["model.decoder.layers.0.w", "model.decoder.embed_tokens.weight"], "trocr")
    assert trocr is not None and trocr.layout.lm_head == ("output_projection.",)


@pytest.mark.parametrize(
    ("name", "headless"), [("MarianMTModel", False), ("MarianModel", True), ("BertLMHeadModel", False)]
)
def test_a_class_whose_name_ends_with_model_may_have_a_head(name: str, headless: bool) -> None:
    assert ModelConfig.of({"architectures": [name]}).headless == headless


def test_an_encoder_runs_a_forward_pass_and_generates_no_text(tmp_path: Path) -> None:
    with one_thread():
        made(tmp_path / "a", "BertModel", 0)
        plan = plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 1, 4)))
        assemble(plan, tmp_path / "out", fsync=False, workers=1)
        audit, _ = verify_model(str(tmp_path / "out"), smoke=True)
        assert not audit.problems
        assert "a forward pass on cpu: finite numbers" in audit.checked
        for load in (
            lambda: from_checkpoint(open_checkpoint(str(tmp_path / "out")), "cpu"),
            lambda: from_plan(plan, "cpu"),
        ):
            with pytest.raises(InputError, match="BertModel has no language-model head"):
                load()
