"""Block expansion: the recipe it makes, the families it is the identity in, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from surgeon.checkpoint.families.residual_outputs import RESIDUAL_OUTPUTS
from surgeon.cli.app import app
from surgeon.errors import InputError
from surgeon.plan import Donors
from surgeon.plan.layers.block_expansion import completed
from surgeon.recipe.document import parse
from surgeon.recipe.edits import Expand, grammar
from surgeon.recipe.schema import Recipe
from tests.families.matrix import CASES, make_donor
from tests.support.models import tiny_model
from tests.support.planning import found, plan_of, stack_of
from tests.support.sparse import sparse_llama

BIASED: dict[str, dict[str, Any]] = {
    "arcee": {"mlp_bias": True},
    "cohere": {"attention_bias": True},
    "gpt_neox": {"use_parallel_residual": False},
    "llama": {"attention_bias": True, "mlp_bias": True},
    "starcoder2": {"use_bias": True},
}
"""Settings over those of the matrix: biases on, where a family leaves them off."""


def donor(folder: Path, kind: str, **config: Any) -> None:
    """A tiny checkpoint of a family in `folder/a`."""
    case = next(case for case in CASES.values() if case.kind == kind)
    make_donor(replace(case, config={**case.config, **config}), folder / "a")


def expanded(folder: Path, text: str, edit: str) -> Recipe:
    """The recipe after an edit, done as the command line does it."""
    document = parse(text, folder / "recipe.yml")
    donors = Donors(document.roots)
    change = completed(grammar.parse(edit, document.recipe.model_refs()), document.recipe, donors)
    return change.apply(document.recipe, donors.depth)


def planned(folder: Path, text: str, edit: str) -> Any:
    document = parse(text, folder / "recipe.yml")
    return plan_of(folder, document.with_recipe(expanded(folder, text, edit)).text)


# gemma3 is gemma3_text inside a vision model.
@pytest.mark.parametrize("kind", sorted(set(RESIDUAL_OUTPUTS) - {"gemma3"}))
def test_an_expanded_layer_is_the_identity_bit_for_bit(tmp_path: Path, kind: str) -> None:
    from surgeon.probe.layer_identity import is_identity

    donor(tmp_path, kind, **BIASED.get(kind, {}))
    plan = planned(tmp_path, stack_of(("a", 0, 6)), "expand 0-5 every=3")
    assert [layer.label for layer in plan.layers] == ["A00", "A01", "A02", "A02", "A03", "A04", "A05", "A05"]
    assert found(plan, "layer-identity").layers == (3, 7)
    # Some families' patterns cannot be described after an expansion, which is another matter.
    assert all(finding.code == "config" for finding in plan.errors)
    plan = replace(plan, findings=())
    assert is_identity(plan, 3)
    assert not is_identity(plan, 2)


@pytest.mark.parametrize(
    ("kind", "config", "filters"),
    [
        ("opt", {"do_layer_norm_before": False}, RESIDUAL_OUTPUTS["opt"]),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, RESIDUAL_OUTPUTS["bloom"]),
        ("doge", {}, ("o_proj", "down_proj")),
        ("recurrent_gemma", {}, ("o_proj", "down_proj")),
    ],
)
def test_what_is_refused_would_not_be_the_identity(
    tmp_path: Path, kind: str, config: dict[str, Any], filters: tuple[str, ...]
) -> None:
    from surgeon.probe.layer_identity import is_identity

    donor(tmp_path, kind, **config)
    with pytest.raises(InputError, match="cannot be made the identity"):
        expanded(tmp_path, stack_of(("a", 0, 6)), "expand 0-5 every=2")
    rules = ", ".join(f"{{filter: {name}, value: 0}}" for name in filters)
    plan = plan_of(tmp_path, stack_of(("a", 0, 6)) + f"  parameters: {{scale: [{rules}]}}\n")
    assert plan.ok, plan.errors
    assert not is_identity(plan, 1)


def test_an_expanded_model_computes_the_same(tmp_path: Path) -> None:
    import torch

    from surgeon.probe import unwritten_model

    tiny_model(tmp_path / "a", "qwen2", layers=4, dtype="bfloat16")
    plan = planned(tmp_path, stack_of(("a", 0, 4)), "expand 0-3 every=1")
    assert len(plan.layers) == 8
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        wanted = unwritten_model.build(plan_of(tmp_path, stack_of(("a", 0, 4))))(input_ids=ids).logits
        assert torch.equal(unwritten_model.build(plan)(input_ids=ids).logits, wanted)


def test_the_recipe_is_plain_yaml(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a")
    recipe = expanded(tmp_path, stack_of(("a", 0, 4)), "expand 0-3 every=3")
    ranges = [part.sources[0].layer_range for part in recipe.slices or ()]
    assert ranges == [(0, 3), (2, 3), (3, 4)]
    zero = [{"filter": "o_proj", "value": 0.0}, {"filter": "down_proj", "value": 0.0}]
    assert [part.parameters for part in recipe.slices or ()] == [{}, {"scale": zero}, {}]


@pytest.mark.parametrize(
    "more",
    [
        "  parameters: {scale: [{filter: o_proj, value: 0.5}, {value: 3}]}\n",
        "parameters: {scale: [{filter: down_proj, value: 0.5}, {value: 3}]}\n",
    ],
)
def test_factors_that_are_there_already_do_not_undo_it(tmp_path: Path, more: str) -> None:
    sparse_llama(tmp_path / "a")
    plan = planned(tmp_path, stack_of(("a", 0, 4)) + more, "expand 0-3 every=4")
    factors = {tensor.place.suffix: tensor.source.factor for tensor in plan.layers[4].tensors}
    assert factors["self_attn.o_proj.weight"] == factors["mlp.down_proj.weight"] == 0
    assert factors["mlp.up_proj.weight"] == 3


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "jetmoe"}, "a layer of jetmoe cannot be made the identity"),
        ({"model_type": "opt"}, "not named 'out_proj'"),
        ({"model_type": "opt", "extra_config": {"do_layer_norm_before": False}}, "do_layer_norm_before"),
    ],
)
def test_families_it_would_be_wrong_in_are_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    sparse_llama(tmp_path / "a", **config)
    with pytest.raises(InputError) as caught:
        expanded(tmp_path, stack_of(("a", 0, 4)), "expand 0-3 every=2")
    assert said in caught.value.sentence()
    assert "duplicate" in caught.value.sentence()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("expand 0-3 every=5", "every=5 makes no group"),
        ("expand 0-3 every=0", "every=0 makes no group"),
        ("expand 0-7 every=2", "no layers 0-7"),
        ("expand 0-3", "every= is missing"),
        ("expand 0-3 every=2 zero=up_proj", "does not make a layer of these donors the identity"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, edit: str, said: str) -> None:
    sparse_llama(tmp_path / "a")
    with pytest.raises(InputError) as caught:
        expanded(tmp_path, stack_of(("a", 0, 4)), edit)
    assert said in caught.value.sentence()


def test_the_edit_alone_does_not_guess() -> None:
    with pytest.raises(InputError, match="not known"):
        Expand(0, 4, 2).apply(Recipe.model_validate({"slices": [SLICE]}), lambda model: 4)


SLICE = {"sources": [{"model": "a", "layer_range": [0, 4]}]}


def test_on_the_command_line(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a")
    (tmp_path / "r.yml").write_text(stack_of(("a", 0, 4)))
    result = CliRunner().invoke(app, ["edit", str(tmp_path / "r.yml"), "--op", "expand 0-3 every=4"])
    assert result.exit_code == 0, result.output
    assert "filter: o_proj" in (tmp_path / "r.yml").read_text()
    assert len(plan_of(tmp_path, (tmp_path / "r.yml").read_text()).layers) == 5
