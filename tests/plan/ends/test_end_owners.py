"""The ends of the network: every mixture of tied and untied donors with what a recipe says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgeon.checkpoint import open_checkpoint
from surgeon.plan import Convert, Plan
from tests.support.planning import codes, found, plan_of, stack_of
from tests.support.sparse import llama_tensors, mark, sparse_checkpoint, sparse_llama

AB = stack_of(("a", 0, 2), ("b", 2, 4), base_model="a")


def folder_with(tmp_path: Path, *, a: bool, b: bool) -> Path:
    sparse_llama(tmp_path / "a", tied=a)
    mark(sparse_llama(tmp_path / "b", tied=b), "model.embed_tokens.weight")
    return tmp_path


def ends(plan: Plan) -> dict[str, tuple[str | None, str]]:
    return {role: (end.donor, end.how) for role, end in plan.ends.items()}


@pytest.mark.parametrize(
    ("a", "b", "keys", "head", "tied", "finding"),
    [
        (False, False, "", ("B", "copied"), False, None),
        (True, True, "", ("B", "materialised"), False, "head-materialised"),
        (True, False, "", ("B", "copied"), False, "tied-mixed"),
        (False, True, "", ("B", "materialised"), False, "head-materialised"),
        (True, True, "lm_head: {model: a}\n", ("A", "tied"), True, None),
        (True, True, "embeddings: {model: b}\n", ("B", "tied"), True, None),
        (False, False, "lm_head: {tie: true}\n", ("A", "tied"), True, "head-tied"),
        (True, False, "lm_head: {tie: true}\n", ("A", "tied"), True, None),
        (False, True, "lm_head: {tie: true}\n", ("A", "tied"), True, "head-tied"),
        (True, False, "lm_head: {model: a}\n", ("A", "tied"), True, None),
        (False, True, "lm_head: {model: a}\n", ("A", "copied"), False, None),
        (False, True, "embeddings: {model: b}\nlm_head: {model: a}\n", ("A", "copied"), False, "tied-mixed"),
        (True, False, "embeddings: {model: b}\nlm_head: {model: a}\n", ("A", "materialised"), False,
         "head-materialised"),
        (False, True, "embeddings: {model: b}\n", ("B", "tied"), True, None),
        (True, True, "embeddings: {model: b}\nfinal_norm: {model: a}\n", ("B", "tied"), True, None),
    ],
)  # fmt: skip
def test_heads(
    tmp_path: Path, a: bool, b: bool, keys: str, head: tuple[str, str], tied: bool, finding: str | None
) -> None:
    plan = plan_of(folder_with(tmp_path, a=a, b=b), AB + keys)
    assert plan.ok
    assert ends(plan)["lm_head"] == head
    assert [f.code for f in plan.findings] == ([finding] if finding else [])
    assert plan.config is not None
    assert bool(plan.config.get("tie_word_embeddings", False)) == tied == plan.tied
    written = [tensor for tensor in plan.tensors if tensor.name == "lm_head.weight"]
    assert len(written) == (0 if tied else 1)
    if written:
        source = written[0].source.entry
        assert source.file.parent.name == str(head[0]).lower()
        assert source.name == ("model.embed_tokens.weight" if head[1] == "materialised" else "lm_head.weight")


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_head_stays_tied_where_both_embeddings_are_one(tmp_path: Path, where: str) -> None:
    """Untying would cost a second table of the same numbers. One other row is enough to need it."""
    for name in "ab":
        sparse_llama(tmp_path / name, tied=True, vocab=5000, hidden=64)
    plan = plan_of(tmp_path, AB)
    assert ends(plan)["lm_head"] == ("B", "tied")
    assert plan.config is not None and plan.config["tie_word_embeddings"]
    assert "lm_head.weight" not in {tensor.name for tensor in plan.tensors}
    entry = open_checkpoint(str(tmp_path / "b")).tensors["model.embed_tokens.weight"]
    with entry.file.open("r+b") as file:
        # Between the pages that a look at some of them takes.
        file.seek(entry.offset + (5100 if where == "start" else entry.nbytes - 5100))
        file.write(b"x")
    plan = plan_of(tmp_path, AB)
    assert ends(plan)["lm_head"] == ("B", "materialised")
    finding = found(plan, "head-materialised")
    assert finding.severity == "warning"
    assert "320.0k parameters, 640.0 kB more" in finding.what
    tied = plan_of(tmp_path, AB + "lm_head: {tie: true}\n")
    assert ends(tied)["lm_head"] == ("A", "tied")


def test_a_scaled_head_is_not_tied_to_an_embedding_that_is_not(tmp_path: Path) -> None:
    for name in "ab":
        sparse_llama(tmp_path / name, tied=True)
    plan = plan_of(tmp_path, AB + "parameters: {scale: [{filter: lm_head, value: 0.5}]}\n")
    assert ends(plan)["lm_head"] == ("B", "materialised")


@pytest.mark.parametrize("key", ["final_norm: {model: b}", "final_norm: {parameters: {scale: 2}}"])
def test_a_key_for_an_end_that_its_donor_does_not_have(tmp_path: Path, key: str) -> None:
    for name in "ab":
        sparse_llama(tmp_path / name, extra_config={"model_type": "novel", "architectures": ["NovelForCausalLM"]})
        path = tmp_path / name / "model.safetensors"
        path.write_bytes(path.read_bytes().replace(b'"model.norm.weight"', b'"model.nrom.weight"'))
    finding = found(plan_of(tmp_path, AB + key + "\n"), "end-missing")
    assert finding.severity == "error"
    assert "`final_norm` has no effect: " in finding.sentence()


def test_embeddings_and_norm_follow_the_outer_slices_or_the_recipe(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a=False, b=False)
    assert ends(plan_of(folder, AB)) == {
        "embeddings": ("A", "copied"), "final_norm": ("B", "copied"), "lm_head": ("B", "copied"),
    }  # fmt: skip
    swapped = "embeddings: {model: b}\nfinal_norm: {model: a}\n"
    assert ends(plan_of(folder, AB + swapped))["embeddings"] == ("B", "copied")
    assert ends(plan_of(folder, AB + swapped))["final_norm"] == ("A", "copied")


def test_a_donor_may_give_an_end_and_no_layer(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a=False, b=False)
    plan = plan_of(folder, stack_of(("a", 0, 4), lm_head="{model: b}"))
    assert ends(plan)["lm_head"] == ("B", "copied")
    assert codes(plan) == ["note:base"]


def test_a_head_stored_beside_a_tied_embedding_is_left_out(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    plan = plan_of(tmp_path, stack_of(("a", 0, 4)))
    assert ends(plan)["lm_head"] == ("A", "tied")
    assert found(plan, "head-ignored").severity == "note"


def test_a_head_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", tied=True)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    finding = found(plan_of(tmp_path, stack_of(("a", 0, 4))), "head-missing")
    assert finding.severity == "error"
    assert finding.remedy


def test_what_a_recipe_says_of_ends_and_cannot_mean(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a=False, b=False)
    both = found(plan_of(folder, AB + "lm_head: {model: b, tie: true}\n"), "head-both")
    assert (both.severity, both.line) == ("error", 6)
    tie = found(plan_of(folder, AB + "embeddings: {tie: true}\n"), "tie")
    assert (tie.severity, tie.line) == ("error", 6)
    assert "error:donor" in codes(plan_of(folder, AB + "lm_head: {model: gone}\n"))


def test_ends_of_another_shape_than_the_config_says(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a=False, b=False)
    spec = llama_tensors(layers=4, hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)
    spec["model.norm.bias"] = ("BF16", (16,))
    sparse_checkpoint(folder / "b", spec, json.loads((folder / "a" / "config.json").read_text()))
    finding = found(plan_of(folder, AB), "end-shape")
    assert "norm.bias is [16] in B and missing in A" in finding.why


def test_scales_of_the_ends_are_those_of_the_outer_slices_at_their_start(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a=False, b=False)
    text = (
        "base_model: a\nslices:\n"
        "- sources: [{model: a, layer_range: [0, 4]}]\n  parameters: {scale: [{filter: embed, value: [2, 9]}]}\n"
        "- sources: [{model: b, layer_range: [0, 4]}]\n"
        "  parameters: {scale: [{filter: lm_head, value: [3, 9]}, {filter: model.norm, value: [4, 9]}]}\n"
    )
    plan = plan_of(folder, text)
    factors = {t.name: t.source.factor for t in plan.tensors if isinstance(t.source, Convert)}
    assert factors == {"model.embed_tokens.weight": 2, "lm_head.weight": 3, "model.norm.weight": 4}
    own = plan_of(folder, text + "embeddings: {model: a}\nlm_head: {parameters: {scale: 5}}\n")
    factors = {t.name: t.source.factor for t in own.tensors if isinstance(t.source, Convert)}
    assert factors == {"lm_head.weight": 5, "model.norm.weight": 4}


def test_a_materialised_head_answers_to_its_own_name(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a=True, b=True)
    scaled = AB + "parameters: {scale: [{filter: lm_head, value: 0.5}]}\n"
    plan = plan_of(folder, scaled)
    factors = {t.name: t.source.factor for t in plan.tensors if isinstance(t.source, Convert)}
    assert factors == {"lm_head.weight": 0.5}


def test_scales_of_layers_match_the_name_in_the_donor(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a=False, b=False)
    text = (
        "slices:\n- sources:\n  - model: a\n    layer_range: [2, 4]\n"
        "    parameters: {scale: [{filter: layers.3.mlp, value: 2}]}\n"
        "  parameters: {scale: [{filter: up_proj, value: 3}, {filter: layers.0, value: 5}]}\n"
        "parameters: {scale: [{filter: down_proj, value: [7, 8]}]}\n"
    )
    plan = plan_of(folder, text)
    factors = {t.name: t.source.factor for t in plan.tensors if isinstance(t.source, Convert)}
    assert factors == {
        "model.layers.0.mlp.up_proj.weight": 3,
        "model.layers.0.mlp.down_proj.weight": 7,
        "model.layers.1.mlp.up_proj.weight": 2,
        "model.layers.1.mlp.gate_proj.weight": 2,
        "model.layers.1.mlp.down_proj.weight": 2,
    }
    assert "'layers.0'" in found(plan, "filter").what


def test_an_empty_outer_slice_chooses_an_end_as_in_mergekit(tmp_path: Path) -> None:
    plan = plan_of(folder_with(tmp_path, a=False, b=False), stack_of(("b", 0, 0), ("a", 0, 4), ("b", 4, 4)))
    assert plan.ok and len(plan.layers) == 4
    assert [code for code in codes(plan) if code.startswith("warning")] == ["warning:range-empty"] * 2
    assert {donor for donor, _ in ends(plan).values()} == {"A"} and plan.donors["A"].ref.endswith("b")


def test_a_tied_head_blended_with_a_model_that_has_none(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", tied=True)
    folder = sparse_llama(tmp_path / "b", tied=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    plan = plan_of(
        tmp_path,
        "merge_method: linear\nslices:\n  - sources:\n"
        "      - {model: a, layer_range: [0, 2], parameters: {weight: 1}}\n"
        "      - {model: b, layer_range: [0, 2], parameters: {weight: 1}}\n",
    )
    assert "error:end-tensors" in codes(plan)
