"""Blends in the plan: methods, bases, parameters with their origin, edge policies and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.plan import Plan
from surgeon.plan.operands import Blend, Copy
from tests.support.blending import donors, merged, plan_of, stored
from tests.support.planning import codes, found

SLERP = """\
merge_method: slerp
base_model: a
slices:
- sources:
  - {model: a, layer_range: [0, 4]}
  - {model: b, layer_range: [0, 4]}
"""
T = "parameters: {t: [0, 1]}\n"


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return donors(tmp_path)


def values(plan: Plan, parameter: str, suffix: str = "mlp.up_proj.weight") -> list[object]:
    """A parameter's value for one tensor of every layer; None where the layer is a copy."""
    out: list[object] = []
    for layer in plan.layers:
        (tensor,) = (tensor for tensor in layer.tensors if tensor.place.suffix == suffix)
        out.append(next((value.value for value in tensor.values if value.name == parameter), None))
    return out


def test_a_gradient_runs_over_the_slice(three: Path) -> None:
    plan = plan_of(three, SLERP + T)
    assert values(plan, "t") == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [layer.label for layer in plan.layers] == ["A00~B00", "A01~B01", "A02~B02", "A03~B03"]
    tensor = plan.layers[1].tensors[0]
    assert isinstance(tensor.source, Blend)
    assert tensor.source.base == 0


def test_the_base_is_the_start_wherever_it_stands(three: Path) -> None:
    other = SLERP.replace("base_model: a", "base_model: b") + "parameters: {t: 0}\n"
    tensors = merged(plan_of(three, other))
    name = "model.layers.2.mlp.up_proj.weight"
    assert tensors[name].equal(stored(three, "b")[name])


def test_ends_are_blended_at_the_first_value_of_gradients_and_the_plan_says_so(three: Path) -> None:
    plan = plan_of(three, SLERP + "parameters: {t: [0.25, 1]}\n")
    for end in ("embeddings", "final_norm", "lm_head"):
        assert plan.ends[end].how == "blended"
        assert [value.value for value in plan.ends[end].tensors[0].values] == [0.25]
    assert codes(plan).count("note:end-gradient") == 2


def test_ends_whose_own_value_does_not_move_are_not_told_of(three: Path) -> None:
    rules = "parameters: {t: [{filter: self_attn, value: [0, 1]}, {filter: lm_head, value: [0, 1]}, {value: 0.5}]}\n"
    plan = plan_of(three, SLERP + rules)
    assert found(plan, "end-gradient").what.startswith("lm_head is blended")


def test_an_end_with_parameters_or_a_donor_of_its_own(three: Path) -> None:
    more = "embeddings: {parameters: {t: 0.75}}\nlm_head: {model: b}\nfinal_norm: {parameters: {t: [1, 0]}}\n"
    plan = plan_of(three, SLERP + T + more)
    (value,) = plan.ends["embeddings"].tensors[0].values
    assert (value.value, value.origin) == (0.75, "embeddings")
    assert plan.ends["final_norm"].tensors[0].values[0].value == 1
    assert isinstance(plan.ends["lm_head"].tensors[0].source, Copy)
    assert plan.ends["lm_head"].donor == "B"


def test_where_a_value_is_from_and_by_which_filter(three: Path) -> None:
    text = """\
merge_method: linear
parameters: {normalize: false, weight: [{filter: mlp, value: 2}]}
slices:
- parameters: {weight: [{filter: q_proj, value: 3}]}
  sources:
  - {model: a, layer_range: [0, 4], parameters: {weight: [{filter: k_proj, value: 4}]}}
  - {model: b, layer_range: [0, 4], parameters: {weight: 5}}
"""
    plan = plan_of(three, text + "embeddings: {model: a}\nfinal_norm: {model: a}\nlm_head: {model: a}\n")
    assert found(plan, "parameter").what == "linear needs the parameter `weight` for a"
    plan = plan_of(three, text.replace("value: 2}", "value: 2}, {value: 7}"))
    assert plan.ok
    by_name = {tensor.place.suffix: tensor.values for tensor in plan.layers[0].tensors}
    told = {
        name: [(v.value, v.origin, v.rule) for v in found if v.name == "weight" and v.donor == 0]
        for name, found in by_name.items()
    }
    assert told["self_attn.k_proj.weight"] == [(4, "source", "k_proj")]
    assert told["self_attn.q_proj.weight"] == [(3, "slice", "q_proj")]
    assert told["mlp.up_proj.weight"] == [(2, "recipe", "mlp")]
    assert told["self_attn.v_proj.weight"] == [(7, "recipe", "*")]
    assert [v.value for v in by_name["mlp.up_proj.weight"] if v.donor == 1] == [5]
    assert next(v for v in by_name["mlp.up_proj.weight"] if v.name == "normalize").value is False


def test_filters_of_a_donor_see_its_own_layer_numbers_and_shared_ones_the_outputs(three: Path) -> None:
    text = """\
merge_method: linear
parameters: {normalize: [{filter: layers.0., value: true}, {value: false}]}
slices:
- sources:
  - {model: a, layer_range: [0, 1], parameters: {weight: 1}}
  - {model: b, layer_range: [3, 4], parameters: {weight: [{filter: layers.3., value: 6}, {value: 9}]}}
"""
    (tensor,) = (t for t in plan_of(three, text).layers[0].tensors if t.place.suffix == "mlp.up_proj.weight")
    assert {(v.name, v.donor): v.value for v in tensor.values} == {
        ("weight", 0): 1,
        ("weight", 1): 6,
        ("normalize", None): True,
    }


def test_wrong_methods_numbers_and_words(three: Path) -> None:
    def finding(text: str, code: str = "parameter") -> str:
        return found(plan_of(three, text), code).sentence()

    assert "between" not in finding(SLERP)
    assert "needs the parameter `t`" in finding(SLERP)
    assert "'high' is not a number" in finding(SLERP + "parameters: {t: high}\n")
    assert "exactly 2 donors, and the slice has 1" in finding(
        "merge_method: slerp\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]\nparameters: {t: 1}\n", "donors"
    )
    assert "There is no method 'slrep'" in finding(SLERP.replace("slerp", "slrep") + T, "method")
    assert "did you mean `slerp`?" in finding(SLERP.replace("slerp", "slrep") + T, "method").lower()
    plan = plan_of(three, SLERP + "parameters: {t: 0.5, weight: 1, tt: 2}\n")
    assert [f.severity for f in plan.findings if f.code == "parameter"] == ["error", "warning"]
    assert "true nor false" in finding(SLERP.replace("slerp", "linear") + "parameters: {weight: 1, normalize: 3}\n")


def test_layers_of_one_donor_may_be_averaged_with_each_other(three: Path) -> None:
    text = """\
merge_method: linear
slices:
- sources:
  - {model: a, layer_range: [0, 2]}
  - {model: a, layer_range: [2, 4]}
parameters: {weight: 1}
"""
    plan = plan_of(three, text)
    assert [layer.label for layer in plan.layers] == ["A00~A02", "A01~A03"]
    mine, theirs = merged(plan), stored(three, "a")
    name = "mlp.up_proj.weight"
    expected = (theirs[f"model.layers.1.{name}"].double() + theirs[f"model.layers.3.{name}"].double()) / 2
    assert mine[f"model.layers.1.{name}"].double().allclose(expected, atol=1e-6)


def test_a_method_per_slice(three: Path) -> None:
    text = """\
base_model: a
slices:
- {sources: [{model: a, layer_range: [0, 1]}]}
- merge_method: slerp
  sources: [{model: a, layer_range: [1, 3]}, {model: b, layer_range: [1, 3]}]
  parameters: {t: 0.5}
- {sources: [{model: b, layer_range: [3, 4]}]}
"""
    plan = plan_of(three, text)
    assert plan.ok
    assert [layer.method for layer in plan.layers] == ["passthrough", "slerp", "slerp", "passthrough"]
    assert plan.ends["embeddings"].donor == "A"
    assert plan.ends["lm_head"].donor == "B"


class TestEdges:
    def test_one_donors_layers(self, three: Path) -> None:
        plan = plan_of(three, SLERP + T + "first_layers: {count: 1, model: a}\nlast_layers: {count: 2, model: b}\n")
        assert [layer.label for layer in plan.layers] == ["A00", "A01~B01", "B02", "B03"]
        assert all(isinstance(tensor.source, Copy) for tensor in plan.layers[0].tensors)

    def test_a_donor_that_the_slices_do_not_have_gives_its_own_outermost(self, three: Path) -> None:
        donors(three / "deep", ("c",), depth=7)
        plan = plan_of(three, SLERP + T + "last_layers: {count: 2, model: deep/c}\nbase_model: a\n".replace(
            "base_model: a\n", ""))  # fmt: skip
        assert [layer.label for layer in plan.layers][2:] == ["C05", "C06"]

    def test_a_layer_that_the_slice_takes_from_the_donor_is_that_one(self, three: Path) -> None:
        text = SLERP.replace("{model: b, layer_range: [0, 4]}", "{model: b, layer_range: [0, 2]}").replace(
            "{model: a, layer_range: [0, 4]}", "{model: a, layer_range: [2, 4]}"
        )
        plan = plan_of(three, text + T + "first_layers: {count: 1, model: a}\n")
        assert [layer.label for layer in plan.layers] == ["A02", "A03~B01"]

    def test_other_parameters_win_over_everything(self, three: Path) -> None:
        text = SLERP + "  parameters: {t: 0.5}\n" + "last_layers: {count: 2, parameters: {t: [0.5, 0.0]}}\n"
        plan = plan_of(three, text)
        assert values(plan, "t") == [0.5, 0.5, 0.5, 0.0]
        assert {v.origin for v in plan.layers[3].tensors[0].values} == {"last_layers"}

    def test_a_taper_leads_into_the_slices_own_values(self, three: Path) -> None:
        text = SLERP + "parameters: {t: 0.8}\nfirst_layers: {count: 2, parameters: {t: 0.0}, taper: true}\n"
        assert values(plan_of(three, text), "t") == pytest.approx([0.0, 0.4, 0.8, 0.8])
        text = SLERP + "parameters: {t: 0.8}\nlast_layers: {count: 3, parameters: {t: 0.2}, taper: true}\n"
        assert values(plan_of(three, text), "t") == pytest.approx([0.8, 0.6, 0.4, 0.2])

    @pytest.mark.parametrize(
        "edge",
        [
            "first_layers: {count: 3, model: a}\nlast_layers: {count: 2, model: a}",
            "first_layers: {count: 1}",
            "first_layers: {count: 1, model: a, taper: true}",
        ],
    )
    def test_what_makes_no_sense(self, three: Path, edge: str) -> None:
        plan = plan_of(three, SLERP + T + edge + "\n")
        assert "error:edges" in codes(plan)

    def test_a_count_of_none_changes_nothing(self, three: Path) -> None:
        plan = plan_of(three, SLERP + T + "first_layers: {count: 0, model: b}\n")
        assert plan.layers[0].label == "A00~B00"


def test_donors_that_pad_their_vocabulary_differently_are_blended_over_the_rows_they_share(tmp_path: Path) -> None:
    import json

    from safetensors.torch import load_file, save_file

    folder = donors(tmp_path)
    vocabulary = {f"t{index}": index for index in range(10)}
    for name, rows in (("a", 16), ("b", 12)):
        path = folder / name / "model.safetensors"
        tensors = load_file(path)
        for key in ("lm_head.weight", "model.embed_tokens.weight"):
            tensors[key] = tensors[key][:rows].clone()
        save_file(tensors, path)
        tokenizer = {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
        (folder / name / "tokenizer.json").write_text(json.dumps(tokenizer))
    plan = plan_of(folder, SLERP + T)
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    assert plan.ends["embeddings"].tensors[0].shape == (12, 8)
    assert plan.ends["lm_head"].tensors[0].shape == (12, 8)
    assert plan.config is not None
    assert plan.config["vocab_size"] == 12
    assert merged(plan)["lm_head.weight"].shape == (12, 8)


def test_tied_donors_stay_tied_and_mixed_ones_get_a_head(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = donors(tmp_path, tie_word_embeddings=True)
    for name in ("a", "b"):
        path = folder / name / "model.safetensors"
        tensors = load_file(path)
        del tensors["lm_head.weight"]
        save_file(tensors, path)
    plan = plan_of(folder, SLERP + T)
    assert plan.ends["lm_head"].how == "tied"
    config = folder / "b" / "config.json"
    config.write_text(config.read_text().replace("true", "false"))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2
    save_file(tensors, folder / "b" / "model.safetensors")
    plan = plan_of(folder, SLERP + "parameters: {t: 1}\n")
    assert plan.ends["lm_head"].how == "blended"
    assert merged(plan)["lm_head.weight"].equal(tensors["lm_head.weight"])
    assert plan.config is not None
    assert plan.config["tie_word_embeddings"] is False


def test_sizes_that_differ_are_refused(tmp_path: Path) -> None:
    folder = donors(tmp_path, ("base", "a"))
    donors(tmp_path / "more", ("b",), depth=4)
    plan = plan_of(folder, SLERP.replace("model: b", "model: more/b") + T)
    assert plan.ok
    from safetensors.torch import load_file, save_file

    path = tmp_path / "more" / "b" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.2.mlp.up_proj.weight"] = tensors["model.layers.2.mlp.up_proj.weight"][:5].clone()
    save_file(tensors, path)
    plan = plan_of(folder, SLERP.replace("model: b", "model: more/b") + T)
    finding = found(plan, "blend-shapes")
    assert "[12, 8] in A, [5, 8] in B" in finding.why
    assert finding.layers == (2,)


def test_tensors_of_whole_numbers_are_copied_from_the_base(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = donors(tmp_path)
    for number, name in enumerate(("base", "a", "b")):
        path = folder / name / "model.safetensors"
        tensors = load_file(path)
        tensors |= {f"model.layers.{index}.self_attn.steps": torch.tensor([number, 7]) for index in range(4)}
        save_file(tensors, path)
    text = (
        "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
    )
    plan = plan_of(folder, text)
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    assert merged(plan)["model.layers.1.self_attn.steps"].tolist() == [0, 7]
    assert found(plan, "buffers-copied").layers == (0, 1, 2, 3)
