"""The load-back check: what transformers would make otherwise than planned is found, and named by layer and key."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from surgeon.assemble import Cancelled, load_back
from surgeon.assemble.load_back import LoadBack, LoadBackOutcome, Mismatch, expectation, expectation_of, summary
from surgeon.checkpoint import open_checkpoint
from surgeon.errors import SurgeonError
from surgeon.verify.layer_comparison import compare
from surgeon.verify.load_back_child import check, main
from surgeon.verify.resolved_model import Resolved
from tests.support.assembling import assemble, donor, passthrough, plan_of
from tests.support.models import tiny_model
from tests.support.paths import ROOT

RIGHT = ["llama", "gemma2", "gemma3_text", "qwen3_moe", "mixtral", "gpt2", "falcon", "smollm3"]
MORE: dict[str, dict[str, Any]] = {"qwen3_moe": {"mlp_only_layers": [1]}, "gemma3_text": {"sliding_window_pattern": 2}}


class Case:
    """A tiny donor's plan (layers 0-2, then 1-3), its config and what is expected, each free to be spoilt."""

    def __init__(self, folder: Path, plan: Any) -> None:
        self.folder, self.plan = folder, plan
        self.config = copy.deepcopy(plan.config)
        self.expected = json.loads(json.dumps(expectation(plan)))

    def check(self) -> LoadBackOutcome:
        (self.folder / "config.json").write_text(json.dumps(self.config))
        return check(self.folder, self.expected)

    def found(self) -> dict[tuple[int | None, str], Mismatch]:
        outcome = self.check()
        assert outcome.checked, outcome.why
        return {(item.layer, item.key): item for item in outcome.errors}

    def alone(self) -> Case:
        """Without the donors: surgeon's own reading of the layers decides."""
        self.expected |= {"donors": {}, "base": None}
        return self


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def of(family: str) -> Any:
        if family not in made:
            folder = tiny_model(tmp_path_factory.mktemp(family) / "a", family, 4, **MORE.get(family, {}))
            made[family] = plan_of(passthrough((folder, 0, 3), (folder, 1, 4)))
            assert made[family].ok
        return made[family]

    return of


@pytest.fixture
def case(plans: Callable[[str], Any], tmp_path: Path) -> Callable[[str], Case]:
    return lambda family: Case(tmp_path, plans(family))


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("family", RIGHT)
def test_what_is_planned_is_right(case: Callable[[str], Case], family: str, alone: bool) -> None:
    one = case(family).alone() if alone else case(family)
    outcome = one.check()
    assert (outcome.checked, outcome.mismatches) == (True, ())
    assert outcome.model == one.plan.config["architectures"][0]
    assert outcome.transformers


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_a_stale_order_of_layer_types(case: Callable[[str], Case], family: str, alone: bool) -> None:
    one = case(family).alone() if alone else case(family)
    kinds = one.config["layer_types"]
    moved = one.config["layer_types"] = [kinds[0], *kinds[:-1]]
    wrong = {index for index in range(6) if kinds[index] != moved[index]}
    found = one.found()
    assert wrong and set(found) == {(index, "layer_types") for index in wrong}
    first = found[min(wrong), "layer_types"]
    assert {first.wanted, first.found} == {"full", "sliding"}
    assert f"layer {first.layer}, layer_types: the attention should be {first.wanted}" in first.sentence()


@pytest.mark.parametrize(("family", "key"), [("llama", "num_hidden_layers"), ("gpt2", "n_layer")])
def test_a_wrong_depth(case: Callable[[str], Case], family: str, key: str) -> None:
    one = case(family)
    one.config[key] = 4
    found = one.found()
    assert (found[None, key].wanted, found[None, key].found) == (6, 4)
    assert {layer for layer, name in found if name != key} == {4, 5}
    one.config[key] = 7
    found = one.found()
    assert (None, key) in found
    assert all("lack it" in item.message for item in found.values() if item.layer == 6)


def test_a_missing_tensor(case: Callable[[str], Case]) -> None:
    one = case("llama")
    del one.expected["tensors"]["model.layers.4.mlp.up_proj.weight"]
    found = one.found()
    assert list(found) == [(4, "model.layers.4.mlp.up_proj.weight")]
    assert "the files lack it" in next(iter(found.values())).message


def test_an_unexpected_tensor(case: Callable[[str], Case]) -> None:
    one = case("llama")
    one.expected["tensors"]["model.layers.3.self_attn.q_norm.weight"] = ["F32", [8]]
    found = one.found()
    assert list(found) == [(3, "model.layers.3.self_attn.q_norm.weight")]
    assert "does not have it" in next(iter(found.values())).message


def test_a_tensor_of_another_shape(case: Callable[[str], Case]) -> None:
    one = case("falcon")
    name = "transformer.h.2.mlp.dense_h_to_4h.weight"
    one.expected["tensors"][name][1] = [64, 32]
    found = one.found()
    assert found[2, name].wanted == [64, 32]
    assert found[2, name].found == [128, 32]
    assert len(found) == 1


def test_a_missing_expert_and_one_of_another_shape(case: Callable[[str], Case]) -> None:
    one = case("mixtral")
    fewer = copy.deepcopy(one.expected)
    for name in ("w1", "w3"):
        del fewer["tensors"][f"model.layers.2.block_sparse_moe.experts.3.{name}.weight"]
    one.expected, whole = fewer, one.expected
    found = one.found()
    assert [layer for layer, _ in found] == [2]
    assert "gate_up_proj" in next(iter(found))[1]
    whole["tensors"]["model.layers.5.block_sparse_moe.experts.1.w1.weight"][1] = [8, 8]
    one.expected = whole
    found = one.found()
    assert [layer for layer, _ in found] == [5]
    assert "cannot combine it" in next(iter(found.values())).message


@pytest.mark.parametrize(("family", "tie"), [("llama", True), ("gemma2", False)])
def test_a_head_tied_or_untied_by_accident(case: Callable[[str], Case], family: str, tie: bool) -> None:
    one = case(family)
    one.config["tie_word_embeddings"] = tie
    item = one.found()[None, "tie_word_embeddings"]
    assert (item.wanted, item.found) == (not tie, tie)
    if tie:
        # Written without its head, nothing is missing to transformers: only this tells.
        del one.expected["tensors"]["lm_head.weight"]
        assert list(one.found()) == [(None, "tie_word_embeddings")]


@pytest.mark.parametrize("alone", [False, True])
def test_dense_layers_in_the_wrong_places(case: Callable[[str], Case], alone: bool) -> None:
    one = case("qwen3_moe").alone() if alone else case("qwen3_moe")
    assert one.config["mlp_only_layers"] == [1, 3]
    one.config["mlp_only_layers"] = [1]
    found = one.found()
    item = found[3, "mlp_only_layers"]
    assert (item.wanted, item.found) == ("dense", "experts")
    assert {layer for layer, _ in found} == {3}
    assert one.check().errors[0] == item


def test_a_window_and_a_rope(case: Callable[[str], Case]) -> None:
    one = case("gemma2").alone()
    one.config["sliding_window"] = 8
    sliding = {index for index, kind in enumerate(one.config["layer_types"]) if kind == "sliding_attention"}
    assert set(one.found()) == {(index, "sliding_window") for index in sliding}
    two = case("smollm3")
    assert two.config["no_rope_layers"] == [1, 1, 1, 1, 1, 0]
    two.config["no_rope_layers"] = [1, 1, 1, 0, 1, 1]
    assert set(two.found()) == {(3, "no_rope_layers"), (5, "no_rope_layers")}


def test_a_setting_that_takes_tensors_along(case: Callable[[str], Case]) -> None:
    one = case("llama")
    one.config["attention_bias"] = True
    assert {layer for layer, _ in one.found()} == set(range(6))


def test_what_transformers_refuses_is_an_error_with_its_key(case: Callable[[str], Case]) -> None:
    one = case("gemma2")
    one.config["layer_types"] = one.config["layer_types"][:4]
    (item,) = one.found().values()
    assert item.key in {"layer_types", "num_hidden_layers"}
    assert "transformers refuses the config" in item.message


def test_what_it_cannot_do_with_the_donor_either_is_not_checked(case: Callable[[str], Case]) -> None:
    one = case("llama")
    for config in (one.config, one.expected["donors"]["A"]):
        config["hidden_act"] = "never heard of"
    outcome = one.check()
    assert not outcome.checked
    assert "never heard of" in outcome.why
    one.expected["donors"]["A"]["hidden_act"] = "silu"
    assert one.check().errors


def test_an_unknown_model_type_is_not_checked(case: Callable[[str], Case]) -> None:
    one = case("llama")
    one.config |= {"model_type": "brand_new", "auto_map": {"AutoConfig": "code.Config"}}
    outcome = one.check()
    assert (outcome.checked, outcome.errors) == (False, ())
    (warning,) = outcome.warnings
    assert "'brand_new'" in warning and "never run" in warning
    del one.config["auto_map"]
    (warning,) = one.check().warnings
    assert "'brand_new'" in warning and "never run" not in warning


def test_a_checkpoint_by_itself(plans: Callable[[str], Any], tmp_path: Path) -> None:
    folder = plans("qwen3_moe").donors["A"].checkpoint.folder
    assert check(folder, expectation_of(open_checkpoint(str(folder)))).mismatches == ()


class TestAgainstTheDonor:
    """The comparison that knows no family, on made-up layers."""

    LAYERS = ({"attributes": {}, "donor": "A", "layer": 1}, {"attributes": {}, "donor": "A", "layer": 0})

    def resolved(self, name: str, *values: Any) -> Resolved:
        rows = tuple({} for _ in values)  # type: ignore[var-annotated]
        return Resolved(len(values), rows, {}, tuple({name: value} for value in values))

    def differs(self, name: str, theirs: list[Any], ours: list[Any], base: str = "A") -> list[Mismatch]:
        donors = {"A": self.resolved(name, *theirs)}
        return compare(self.resolved(name, *ours), self.LAYERS, donors, base, {})

    def test_a_value_that_came_along(self) -> None:
        assert not self.differs("attn.sliding_window", [16, None], [None, 16])
        assert not self.differs("scale", [0.1, 0.2], [0.2 + 1e-12, 0.1])

    def test_a_value_that_stayed(self) -> None:
        (item,) = self.differs("attn.sliding_window", [16, None], [16, None])
        assert (item.layer, item.key, item.wanted, item.found) == (0, "attn.sliding_window", None, 16)
        assert item.severity == "error"
        assert "layer 1 of A has none, but transformers makes it 16; layer 1 too" in item.message

    def test_what_depends_on_the_place_is_a_warning(self) -> None:
        (item,) = self.differs("self_attn.lambda_init", [0.2, 0.3], [0.2, 0.3])
        assert item.severity == "warning"

    def test_a_setting_of_the_whole_model_is_the_plans(self) -> None:
        assert not self.differs("norm.eps", [1e-5, 1e-5], [1e-6, 1e-6])
        assert not self.differs("sliding_window", [None, None], [4096, 4096])

    def test_another_size_between_donors(self) -> None:
        assert not self.differs("sliding_window", [512, 4], [8, 1024], base="B")
        assert self.differs("sliding_window", [512, 4], [8, 1024], base="A")
        assert self.differs("sliding_window", [512, None], [8, 1024], base="B")

    def test_values_of_a_foreign_donor_may_become_one_but_none_may_become_two(self) -> None:
        assert not self.differs("kind", ["a", "b"], ["q", "q"], base="B")
        assert self.differs("kind", ["a", "a"], ["p", "q"], base="B")

    def test_lists_of_the_config(self) -> None:
        donors = {"A": Resolved(2, ({}, {}), {"block_kinds": ["a", "b"]})}
        for ours, key in (({"block_kinds": ["b", "a"]}, None), ({"block_kinds": ["a", "b"]}, 0), ({}, "gone")):
            found = compare(Resolved(2, ({}, {}), ours), self.LAYERS, donors, "A", {})
            assert [item.key for item in found] == ([] if key is None else ["block_kinds"])
            assert key is None or found[0].layer == (None if key == "gone" else key)

    def test_surgeons_reading_is_not_held_against_the_donors(self) -> None:
        layers = [{"attributes": {"attention": "full"}, "donor": "A", "layer": 0}]
        kind = {"attention": "linear"}
        assert not compare(Resolved(1, (kind,)), layers, {"A": Resolved(1, (kind,))}, "A", {})
        assert compare(Resolved(1, (kind,)), layers, {}, "A", {})


def test_an_outcome_survives_json() -> None:
    mismatches = (
        Mismatch(3, "layer_types", "full", "sliding", "wrong"),
        Mismatch(None, "x", None, 1, "odd", "warning"),
    )
    outcome = LoadBackOutcome(True, "", "LlamaForCausalLM", "5", mismatches)
    assert LoadBackOutcome.loads(outcome.dumps()) == outcome
    assert outcome.errors == mismatches[:1]
    assert outcome.warnings == ("x: odd.",)
    assert summary(mismatches[:1]) == "layer 3, layer_types: wrong"
    assert summary((*mismatches, mismatches[0])).endswith("wrong (and 2 more, in layer 3)")


def test_the_entry_prints_one_line_of_json(case: Callable[[str], Case], capsys: pytest.CaptureFixture[str]) -> None:
    one = case("llama")
    (one.folder / "config.json").write_text(json.dumps(one.config))
    (one.folder / "expected.json").write_text(json.dumps(one.expected))
    assert main([str(one.folder), "--expect", str(one.folder / "expected.json")]) == 0
    assert LoadBackOutcome.loads(capsys.readouterr().out).mismatches == ()
    (one.folder / "config.json").write_text("{")
    main([str(one.folder), "--expect", str(one.folder / "expected.json")])
    assert not LoadBackOutcome.loads(capsys.readouterr().out).checked


class TestChild:
    """The child process; stand-ins take the place of the module that imports transformers."""

    @pytest.fixture
    def stand_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        def put(code: str) -> None:
            (tmp_path / "path").mkdir(exist_ok=True)
            (tmp_path / "path" / "stand_in.py").write_text(code)
            monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
            monkeypatch.setattr(load_back, "MODULE", "stand_in")

        return put

    @pytest.fixture
    def plan(self, tmp_path: Path) -> Any:
        return plan_of(passthrough((donor(tmp_path / "a"), 0, 3)))

    def answer(self, *mismatches: Mismatch) -> str:
        return f"print({LoadBackOutcome(True, mismatches=mismatches).dumps()!r})"

    def test_the_real_one_refuses_to_publish(self, plan: Any, tmp_path: Path) -> None:
        spoilt = replace(plan, config={**plan.config, "attention_bias": True})
        events: list[dict[str, Any]] = []
        with pytest.raises(SurgeonError) as caught:
            assemble(spoilt, tmp_path / "out" / "model", check=True, on_event=events.append)
        assert caught.value.exit_code == 1
        assert "layer 0, model.layers.0.self_attn.k_proj.bias: the files lack it" in str(caught.value)
        assert "layer 0-2" in str(caught.value) and "--no-check" in str(caught.value)
        assert not (tmp_path / "out" / "model").exists()
        assert [event["event"] for event in events][-2:] == ["check", "error"]
        # What the message offers costs no second writing.
        assemble(spoilt, tmp_path / "out" / "model", resume=True, on_event=events.append)
        assert (events[-1]["event"], events[-1]["earlier"]) == ("done", plan.estimates.nbytes)

    def test_it_is_given_config_and_expectation(self, stand_in: Any, plan: Any, tmp_path: Path) -> None:
        stand_in(
            "import json, os, sys\n"
            "assert sys.argv[2] == '--expect' and os.getcwd() == os.path.realpath(sys.argv[1])\n"
            "depth = json.load(open(sys.argv[1] + '/config.json'))['num_hidden_layers']\n"
            "tensors = json.load(open(sys.argv[3]))['tensors']\n"
            "item = dict(layer=depth, key=max(tensors), wanted=0, found=0, message='seen', severity='warning')\n"
            "print(json.dumps(dict(checked=True, mismatches=[item])))\n"
        )
        result = assemble(plan, tmp_path / "out", check=True)
        assert result.warnings == ("layer 3, model.norm.weight: seen.",)

    def test_a_warning_publishes_and_an_error_does_not(self, stand_in: Any, plan: Any, tmp_path: Path) -> None:
        stand_in(self.answer(Mismatch(1, "layer_types", "full", "sliding", "wrong")))
        with pytest.raises(SurgeonError, match="layer 1, layer_types: wrong"):
            assemble(plan, tmp_path / "out", check=True)
        assert not (tmp_path / "out").exists()
        assert assemble(plan, tmp_path / "out", restart=True).warnings == ()

    def test_the_process_that_assembles_imports_neither(self, stand_in: Any, tmp_path: Path) -> None:
        stand_in(self.answer())
        (tmp_path / "recipe.yaml").write_text(passthrough((donor(tmp_path / "a"), 0, 3)))
        code = (
            "import sys\nfrom surgeon.assemble import load_back\nfrom surgeon.cli.app import run\n"
            f"load_back.MODULE = 'stand_in'\nassert run(['assemble', {str(tmp_path / 'recipe.yaml')!r}, 'out']) == 0\n"
            "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
        )
        path = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True
        )
        assert (done.returncode, (tmp_path / "out").is_dir()) == (0, True), done.stderr

    def test_an_output_that_is_replaced_stays_when_it_fails(self, stand_in: Any, plan: Any, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("kept")
        stand_in(self.answer(Mismatch(1, "layer_types", "full", "sliding", "wrong")))
        with pytest.raises(SurgeonError):
            assemble(plan, tmp_path / "out", check=True, force=True)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]

    @pytest.mark.parametrize(
        ("code", "why"),
        [
            ("raise ValueError('bad luck')", "exit code 1 (ValueError: bad luck)"),
            ("print('no json')", "exit code 0"),
            ("print('{}')", "exit code 0"),
            ("print('[]')", "exit code 0"),
            ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ],
    )
    def test_one_that_fails_is_a_warning(self, stand_in: Any, plan: Any, tmp_path: Path, code: str, why: str) -> None:
        stand_in(code)
        (warning,) = assemble(plan, tmp_path / "out", check=True).warnings
        assert why in warning and "was not checked" in warning
        assert (tmp_path / "out" / "model.safetensors").exists()

    def test_one_that_cannot_be_started_is_a_warning(self, plan: Any, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(load_back, "sys", SimpleNamespace(executable=str(tmp_path / "no python")))
        (warning,) = assemble(plan, tmp_path / "out", check=True).warnings
        assert "could not be started" in warning

    def test_one_that_never_answers(self, stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        stand_in("import time; time.sleep(600)")
        monkeypatch.setattr(load_back, "PATIENCE", 0.2)
        with LoadBack({}, {}) as child:
            outcome = child.outcome()
        assert (outcome.checked, "did not answer" in outcome.why) == (False, True)

    def test_a_cancel_ends_it(self, stand_in: Any, plan: Any, tmp_path: Path) -> None:
        stand_in(
            f"import os, time, pathlib\npathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
            "time.sleep(600)"
        )
        stop = threading.Event()

        def seen(event: dict[str, Any]) -> None:
            if event["event"] == "check":
                while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                    time.sleep(0.01)
                stop.set()

        with pytest.raises(Cancelled):
            assemble(plan, tmp_path / "out", check=True, on_event=seen, cancelled=stop)
        assert not (tmp_path / "out").exists()
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    def test_nothing_is_left_behind(self, stand_in: Any, plan: Any, tmp_path: Path, monkeypatch: Any) -> None:
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr(load_back.tempfile, "tempdir", str(tmp_path / "tmp"))
        stand_in(self.answer())
        assert assemble(plan, tmp_path / "out", check=True).warnings == ()
        assert not list((tmp_path / "tmp").iterdir())

    def test_the_working_directory_is_not_on_its_path(self, plan: Any, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "hostile.py").write_text("print('imported')")
        monkeypatch.setattr(load_back, "MODULE", "hostile")
        with LoadBack({}, {}) as child:
            assert "No module named hostile" in child.outcome().why
