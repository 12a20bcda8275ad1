"""Tensors outside layers and ends: whole models are blended whole, and heads follow the last layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from tests.families import matrix_pairs
from tests.support.assembling import assemble
from tests.support.models import one_thread
from tests.support.planning import codes, found, plan_of, stack_of

SHAPE: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 4, "max_position_embeddings": 64,
}  # fmt: skip
TINY_VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
HALVES = stack_of(("a", 0, 2), ("b", 2, 4))


def config_of(name: str) -> tuple[str, Any]:
    """The class of a case, and its tiny config."""
    import transformers as t

    if name == "qwen2_5_vl":
        vision = {
            "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 14, "fullatt_block_indexes": [1],
        }  # fmt: skip
        text = {**SHAPE, **MROPE, "bos_token_id": 1, "eos_token_id": 2}
        ids = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
        return "Qwen2_5_VLForConditionalGeneration", t.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    if name == "llava":
        vision = t.CLIPVisionConfig(**TINY_VISION, projection_dim=16)
        text = t.LlamaConfig(**SHAPE)
        return "LlavaForConditionalGeneration", t.LlavaConfig(text_config=text, vision_config=vision)
    if name == "gemma3":
        text = {**SHAPE, "head_dim": 8, "sliding_window": 8, "tie_word_embeddings": False}
        vision = {"model_type": "siglip_vision_model", **TINY_VISION}
        made = t.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, tie_word_embeddings=False)
        return "Gemma3ForConditionalGeneration", made
    if name == "modernbert":
        plain = {key: value for key, value in SHAPE.items() if key != "num_key_value_heads"}
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
        return "ModernBertForMaskedLM", t.ModernBertConfig(**plain, **ids)
    tied = {"pad_token_id": 0, "tie_word_embeddings": "tied" in name.split()}
    if name.startswith("classifier"):
        return "LlamaForSequenceClassification", t.LlamaConfig(**SHAPE, **tied, num_labels=1)
    if name == "tagger":
        return "Qwen2ForTokenClassification", t.Qwen2Config(**SHAPE, **tied, num_labels=3)
    assert name.startswith("bare")
    return "Qwen3Model", t.Qwen3Config(**SHAPE, **tied, head_dim=8)


def donors(folder: Path, name: str) -> None:
    """Two donors of a case, every tensor of them random."""
    import torch
    import transformers

    kind, config = config_of(name)
    for seed, letter in enumerate("ab"):
        model = getattr(transformers, kind)(config)
        generator = torch.Generator().manual_seed(seed)
        kept = model.state_dict()
        with torch.no_grad():
            for path, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if path in kept and tensor.is_floating_point():
                    tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.15 + (tensor.ndim == 1))
        model.save_pretrained(folder / letter)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    from transformers import logging

    logging.disable_progress_bar()
    with one_thread():
        yield


VISION = ("qwen2_5_vl", "llava", "gemma3")
HEADLESS = ("classifier tied", "classifier untied", "tagger", "bare tied", "bare untied")


@pytest.mark.parametrize("name", [*VISION, *HEADLESS, "modernbert"])
def test_a_blend_of_whole_models_leaves_no_tensor_behind(tmp_path: Path, name: str) -> None:
    donors(tmp_path, name)
    plan = plan_of(tmp_path, matrix_pairs.BLEND)
    assert [code for code in codes(plan) if not code.startswith("note")] == []
    # With the check that it loads: no name may be missing or left over.
    assert not assemble(plan, tmp_path / "out", fsync=False, workers=1).warnings
    outcome = matrix_pairs.compare_means(*(matrix_pairs.tensors_of(tmp_path / part) for part in ("a", "b", "out")))
    assert outcome.state == "right", outcome.why
    base = "task_arithmetic", "base_model: a\nparameters: {weight: 1}\nmodels: [{model: a}, {model: b}]\n"
    plan = plan_of(tmp_path, f"merge_method: {base[0]}\n{base[1]}")
    assemble(plan, tmp_path / "task", fsync=False, workers=1, check=False)
    wanted, made = (matrix_pairs.tensors_of(tmp_path / part) for part in ("b", "task"))
    for tensor, values in made.items():
        assert (values - wanted[tensor]).abs().max() < 1e-6, f"{tensor} is not base + (b - base)"


@pytest.mark.parametrize("name", HEADLESS)
def test_a_stack_of_two_models_without_a_language_head(tmp_path: Path, name: str) -> None:
    """A head of another kind follows the last layers; `lm_head: {model: ...}` says whose it is."""
    donors(tmp_path, name)
    plan = plan_of(tmp_path, HALVES)
    assert [code for code in codes(plan) if not code.startswith("note")] == []
    assert not assemble(plan, tmp_path / "out", fsync=False, workers=1).warnings
    one, other, made = (matrix_pairs.tensors_of(tmp_path / part) for part in ("a", "b", "out"))
    assert made.keys() == one.keys()
    for tensor, values in made.items():
        layer = tensor.partition("layers.")[2].partition(".")[0]
        first = layer in {"0", "1"} or "embed_tokens" in tensor
        assert (values == (one if first else other)[tensor]).all(), tensor
    if "bare" not in name:
        swapped = plan_of(tmp_path, HALVES + "lm_head: {model: a}\n")
        assert {tensor.donor for tensor in swapped.extra} == {"A"}


@pytest.mark.parametrize("name", VISION)
def test_a_stack_of_two_vision_models_says_whose_tower_it_has(tmp_path: Path, name: str) -> None:
    donors(tmp_path, name)
    finding = found(plan_of(tmp_path, HALVES), "other-tensors-differ")
    assert finding.severity == "warning"
    assert "come from A alone: the values of B differ" in finding.sentence()
    assert found(plan_of(tmp_path, "base_model: b\n" + HALVES), "other-tensors-differ").what.endswith("from B alone")
    path = tmp_path / "b" / "model.safetensors"
    save_file({**load_file(path), **_outside(load_file(tmp_path / "a" / "model.safetensors"))}, path)
    assert [code for code in codes(plan_of(tmp_path, HALVES)) if code.startswith("warning")] == []


def _outside(tensors: dict[str, Any]) -> dict[str, Any]:
    """Tensors of a vision tower and its projector."""
    return {name: tensor for name, tensor in tensors.items() if "vision" in name or "visual" in name or "proj" in name}


def value_head(folder: Path, letters: str) -> None:
    """Give plain donors a value head, as reward models have it."""
    import numpy as np

    for seed, letter in enumerate(letters, 1):
        path = folder / letter / "model.safetensors"
        head = np.random.default_rng(seed).standard_normal((1, 32)).astype("float32")
        save_file({**load_file(path), "v_head.summary.weight": head}, path)


def plain_pair(folder: Path) -> None:
    from tests.support.models import tiny_model

    for seed, letter in enumerate("ab"):
        tiny_model(folder / letter, seed=seed)


def test_value_heads_are_blended_and_follow_the_last_layers(tmp_path: Path) -> None:
    plain_pair(tmp_path)
    value_head(tmp_path, "ab")
    a, b = (load_file(tmp_path / letter / "model.safetensors")["v_head.summary.weight"] for letter in "ab")
    for text, wanted in ((matrix_pairs.BLEND, (a + b) / 2), (HALVES, b), (HALVES + "lm_head: {model: a}\n", a)):
        plan = plan_of(tmp_path, text)
        assemble(plan, tmp_path / "out", fsync=False, workers=1, check=False, force=True)
        made = load_file(tmp_path / "out" / "model.safetensors")
        assert (made["v_head.summary.weight"] == wanted).all(), text


def test_a_head_that_only_one_donor_has_is_told(tmp_path: Path) -> None:
    plain_pair(tmp_path)
    value_head(tmp_path, "b")
    for text in (matrix_pairs.BLEND, HALVES):
        finding = found(plan_of(tmp_path, text), "other-tensors-left")
        assert finding.severity == "warning"
        assert "v_head.summary.weight of B is left out: A, the donor of the config" in finding.sentence()
    for text in (matrix_pairs.BLEND, stack_of(("b", 0, 2), ("a", 2, 4))):
        plan = plan_of(tmp_path, f"base_model: b\n{text}")
        assert "v_head.summary.weight" in {tensor.name for tensor in plan.extra}
        finding = found(plan, "other-tensors-missing")
        assert finding.severity == "warning"
        assert "has no such tensor" in finding.why


def test_filters_reach_tensors_outside_the_layers(tmp_path: Path) -> None:
    plain_pair(tmp_path)
    value_head(tmp_path, "ab")
    text = """
merge_method: linear
models:
- {model: a, parameters: {weight: [{filter: v_head, value: 1}, {value: 0.5}]}}
- {model: b, parameters: {weight: [{filter: v_head, value: 0}, {value: 0.5}]}}
"""
    plan = plan_of(tmp_path, text)
    assert "warning:filter" not in codes(plan)
    assemble(plan, tmp_path / "out", fsync=False, workers=1, check=False)
    made, one = (load_file(tmp_path / part / "model.safetensors") for part in ("out", "a"))
    assert (made["v_head.summary.weight"] == one["v_head.summary.weight"]).all()


def test_eight_bit_weights_are_never_called_buffers(tmp_path: Path) -> None:
    """Without a quantisation config nothing says that they are packed: they must not be copied from one donor."""
    import torch
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    plain_pair(tmp_path)
    for letter in "ab":
        path = tmp_path / letter / "model.safetensors"
        save({n: t.to(torch.float8_e4m3fn) if "proj" in n else t for n, t in load(path).items()}, path)
    plan = plan_of(tmp_path, matrix_pairs.BLEND)
    finding = found(plan, "blend-dtype")
    assert finding.severity == "error"
    assert "8 bits" in finding.why


def test_a_vocabulary_that_changes_needs_every_table_by_token(tmp_path: Path) -> None:
    from tests.support.models import tiny_tokenizer

    plain_pair(tmp_path)
    for letter in "ab":
        tiny_tokenizer(tmp_path / letter)
    path = tmp_path / "a" / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "model.embed_tokens_per_layer.weight": tensors["model.embed_tokens.weight"]}, path)
    words = json.loads((tmp_path / "b" / "tokenizer.json").read_text())
    words["model"]["vocab"]["new"] = len(words["model"]["vocab"])
    (tmp_path / "b" / "tokenizer.json").write_text(json.dumps(words))
    finding = found(plan_of(tmp_path, matrix_pairs.BLEND + "tokenizer_source: union\n"), "token-table")
    assert finding.severity == "error"


SLICES = {
    "one slice": ([("a", 0, 4), ("b", 0, 4)],),
    "two slices": ([("a", 0, 1), ("b", 0, 1)], [("b", 1, 4), ("a", 1, 4)]),
    "a slice that copies": ([("a", 0, 1)], [("a", 1, 4), ("b", 1, 4)]),
    "other layers": ([("a", 0, 3), ("b", 1, 4)],),
    "fewer layers": ([("a", 0, 3), ("b", 0, 3)],),
    "moved layers": ([("a", 0, 2), ("b", 2, 4)], [("a", 2, 4), ("b", 0, 2)]),
}


@pytest.mark.parametrize("name", SLICES)
def test_slices_that_blend_whole_models_blend_the_rest_too(tmp_path: Path, name: str) -> None:
    plain_pair(tmp_path)
    for seed, letter in enumerate("ab"):
        path = tmp_path / letter / "model.safetensors"
        tensors = load_file(path)
        save_file({**tensors, "vision_tower.weight": tensors["model.norm.weight"] + seed}, path)
    lines = ["merge_method: linear", "parameters: {weight: 1}", "slices:"]
    for part in SLICES[name]:
        sources = ", ".join(f"{{model: {model}, layer_range: [{start}, {stop}]}}" for model, start, stop in part)
        lines.append(f"- sources: [{sources}]" + ("\n  merge_method: passthrough" if len(part) == 1 else ""))
    plan = plan_of(tmp_path, "\n".join(lines))
    blended = name in ("one slice", "two slices")
    assert ("warning:other-tensors-differ" in codes(plan)) != blended
    assemble(plan, tmp_path / "out", fsync=False, workers=1, check=False)
    a, b, made = (load_file(tmp_path / x / "model.safetensors")["vision_tower.weight"] for x in ("a", "b", "out"))
    assert (made == ((a + b) / 2 if blended else a)).all()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [0, 1])
def test_a_tensor_that_the_class_ignores_is_no_mistake(tmp_path: Path, rows: int) -> None:
    """A value head of a reward model, or an empty tensor: transformers ignores it in the donor too."""
    import numpy as np

    from surgeon.assemble.load_back import LoadBack, expectation_of
    from surgeon.checkpoint import open_checkpoint

    plain_pair(tmp_path)
    for letter in "ab":
        path = tmp_path / letter / "model.safetensors"
        save_file({**load_file(path), "v_head.summary.weight": np.ones((rows, 32), "float32")}, path)
    result = assemble(plan_of(tmp_path, HALVES), tmp_path / "out", fsync=False, workers=1, check=True)
    (warning,) = result.warnings
    assert "v_head.summary.weight" in warning and "transformers ignores it" in warning
    donor = open_checkpoint(str(tmp_path / "a"))
    assert donor.config is not None
    with LoadBack(donor.config.raw, expectation_of(donor)) as child:
        outcome = child.outcome()
    assert outcome.checked and not outcome.errors and len(outcome.warnings) == 1
