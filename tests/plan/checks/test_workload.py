"""Short recipes that ask for very much: refused in a sentence, or done in time that grows with the text alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from surgeon.errors import InputError
from surgeon.mergekit import export, localised
from surgeon.plan import Donors, resolve
from surgeon.plan.checks import workload
from surgeon.recipe import document as documents
from surgeon.recipe import stack, unknown_keys
from surgeon.recipe.document import parse
from surgeon.recipe.edits import Expand, Reverse
from surgeon.recipe.schema import Recipe
from surgeon.text import aligned
from surgeon.tui.session import Session
from tests.support.assembling import donor
from tests.support.planning import codes, found, plan_of


def linear(*refs: str, name: str = "") -> str:
    entries = "".join(f"- {{model: {ref}, parameters: {{weight: 1}}}}\n" for ref in refs)
    return (f"name: {name}\n" if name else "") + "merge_method: linear\nmodels:\n" + entries


def slices(count: int) -> str:
    rows = "".join(f"- sources: [{{model: a, layer_range: [{i % 3}, {i % 3 + 1}]}}]\n" for i in range(count))
    return "merge_method: passthrough\nslices:\n" + rows


def doubled(count: int) -> str:
    """Stages that each use the two before."""
    stages = [linear("a", "b", name="s0"), linear("s0", "b", name="s1")]
    stages += [linear(f"s{i - 1}", f"s{i - 2}", name=f"s{i}") for i in range(2, count)]
    return "---\n".join([*stages, linear(f"s{count - 1}", f"s{count - 2}")])


def chain(count: int) -> str:
    """Stages that each use the one before."""
    stages = [linear("a", "b", name="s0"), *(linear(f"s{i - 1}", "b", name=f"s{i}") for i in range(1, count - 1))]
    return "---\n".join([*stages, linear(f"s{count - 2}", "a")])


HOSTILE = {
    "doubled stages": doubled(60),
    "chained stages": chain(3000),
    "unknown keys": slices(1) + "".join(f"key{i}: 1\n" for i in range(60_000)),
    "fewer unknown keys": slices(1) + "".join(f"key{i}: 1\n" for i in range(40_000)),
    "many documents": "---\n" * 200_000 + slices(1),
    "donors": "merge_method: passthrough\nslices:\n"
    + "".join(f"- sources: [{{model: d{i}, layer_range: [0, 1]}}]\n" for i in range(9_000)),
    "aliases": "".join(f"p{i}: &p{i} [{','.join([f'*p{i - 1}' if i else '1'] * 10)}]\n" for i in range(12)),
    "edge gradient": slices(3_000)
    + f"first_layers: {{count: 3000, parameters: {{scale: [{','.join(['0.5'] * 9_000)}]}}}}\n",
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("limits")
    donor(folder / "a", 3)
    donor(folder / "b", 3, seed=1)
    return folder


def surgeon(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs it, for as long as a slow machine may take."""
    command = [sys.executable, "-m", "surgeon", *words]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_is_answered_in_sentences(name: str, here: Path) -> None:
    (here / "r.yml").write_text(HOSTILE[name])
    done = surgeon(here, "plan", "r.yml")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("\n") + done.stderr.count("\n") < 500


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["export --mergekit", "generate", "verify", "edit --op delete_0"])
def test_the_other_verbs_refuse_it_too(verb: str, here: Path) -> None:
    (here / "r.yml").write_text(HOSTILE["doubled stages"])
    target = "r.yml"
    if verb == "verify":
        target = "model"
        donor(here / target, 3)
        (here / target / "surgeon_recipe.yaml").write_text(HOSTILE["doubled stages"].replace(": a,", ": ../a,"))
    done = surgeon(
        here, *(word.replace("_", " ") for word in verb.split()), target, *["-o", "-"][: 2 * ("edit" in verb)]
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1, 2)


def test_every_stage_is_planned_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Recipe] = []
    real = workload.too_much

    def counting(recipe: Recipe, *rest: Any) -> Any:
        planned.append(recipe)
        return real(recipe, *rest)

    monkeypatch.setattr(workload, "too_much", counting)
    assert plan_of(here, doubled(12)).ok
    assert len(planned) == 13


def test_what_is_known_of_stages_is_told_again_when_nothing_is_planned_anew(here: Path) -> None:
    document = parse(chain(4), here / "r.yml")
    donors = Donors(document.roots)
    assert resolve(document, donors).findings == resolve(document, donors).findings


def test_a_stage_that_fails_is_told_of_once(here: Path) -> None:
    plan = plan_of(here, "---\n".join([linear("nothing", name="s0"), *chain(20).split("---\n")[1:]]))
    assert codes(plan).count("error:donor") == 2  # The stage's, and the result's that is made of it.


def test_the_most_stages_are_planned_and_exported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    text = chain(30)
    read: list[str] = []
    real = documents.build
    monkeypatch.setattr(documents, "build", lambda text: read.append(text) or real(text))
    document = localised(parse(text, here / "r.yml"), here)
    export(document, Donors(document.roots))
    assert len(read) <= 2 * 30 + 2
    with pytest.raises(InputError, match="more than 32 documents"):
        parse(chain(33))


def test_layers_of_donors_are_counted_over_all_stages(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "MAX_TAKEN", 20)
    assert plan_of(here, chain(3)).ok
    finding = found(plan_of(here, chain(4)), "too-large")
    assert "24 layers of donors, with those of the stages" in finding.what


def test_few_words_are_guessed_and_few_findings_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(unknown_keys, "nearest", lambda word, known: asked.append(word))
    plan = plan_of(here, slices(1) + "".join(f"key{i}: 1\n" for i in range(500)))
    assert len(asked) == unknown_keys.MAX_GUESSES
    keys = [finding for finding in plan.findings if finding.code == "unknown-key"]
    assert len(keys) == workload.MAX_FINDINGS + 1
    assert "400 more findings of the kind unknown-key" in keys[-1].what


@pytest.mark.parametrize("change", [Reverse(0, 1500), Expand(0, 1500, 1, ("o_proj",))], ids=lambda edit: edit.verb)
def test_edits_look_at_each_slice_a_few_times(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse(slices(1500)).recipe
    calls = 0
    real: Callable[[Any], int] = stack.length

    def counting(part: Any) -> int:
        nonlocal calls
        calls += 1
        return real(part)

    monkeypatch.setattr(stack, "length", counting)
    change.apply(recipe, lambda ref: 3)
    assert calls < 60 * 1500


def test_long_lists_are_aligned_without_comparing_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    import difflib

    old, new = ["x", "y"] * 6000, ["y", "x", "x"] * 4000
    monkeypatch.setattr(difflib, "SequenceMatcher", None)
    pairs = aligned(old, new)
    assert all(old[there] == new[here] for here, there in pairs.items())
    assert len(pairs) > 6000
    assert sorted(pairs.values()) == [pairs[here] for here in sorted(pairs)]
    document = parse(slices(3000))
    session = Session((), document)
    session.donors.depth = lambda ref: 3  # type: ignore[method-assign]
    session.history = session.history.apply(Reverse(0, 2998), session.donors.depth)
    assert len(session.markers) == 3000


def test_a_long_list_of_slices_is_patched(here: Path) -> None:
    document = parse(slices(1200), here / "r.yml")
    changed = document.with_recipe(Reverse(0, 1199).apply(document.recipe, lambda ref: 3))
    assert changed.recipe.slices is not None
    assert [part.sources[0].layer_range for part in changed.recipe.slices[:2]] == [(1, 2), (0, 1)]
