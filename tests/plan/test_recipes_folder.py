"""Every recipe that people can start from is planned, over donors of the right size; those of the demo are carried out.

What a recipe's comment says of its model (layers, parameters, scores) is read from the comment and held against it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint import open_checkpoint
from surgeon.methods import every
from surgeon.plan import Donors, Plan, resolve
from surgeon.plan.load import load_document
from surgeon.probe.probe_set import read_probes
from surgeon.probe.subject import Subject, from_plan
from surgeon.recipe.document import load
from tests.support.assembling import assemble
from tests.support.paths import ROOT
from tests.support.sparse import LLAMA2_70B, LLAMA3_8B, LLAMA3_70B, MISTRAL_7B, sparse_llama

RECIPES = sorted((ROOT / "recipes").glob("*.yml"))
DEMO = ROOT / "assets" / "demo"
DEMO_RECIPES = [path for path in RECIPES if path.stem.startswith("demo")]

MISTRAL = {**MISTRAL_7B, "model_type": "mistral"}
LLAMA2_7B = {**LLAMA3_8B, "kv_heads": 32, "intermediate": 11008, "vocab": 32000}
QWEN2 = {"kv_heads": 8, "vocab": 152064, "bias": True, "model_type": "qwen2"}
QWEN2_14B = {**QWEN2, "layers": 48, "hidden": 5120, "heads": 40, "intermediate": 13824}
QWEN2_72B = {**QWEN2, "layers": 80, "hidden": 8192, "heads": 64, "intermediate": 29568}
SHAPES: dict[str, tuple[dict[str, Any], int, str]] = {
    "daredevil-7b": (MISTRAL, 32, "7.24B"),
    "goliath-120b": (LLAMA2_70B, 137, "117.7B"),
    "gradient-slerp": (MISTRAL, 32, "7.24B"),
    "lamarck-style": (QWEN2_14B, 48, "14.77B"),
    "llama-3-120b-self-merge": (LLAMA3_70B, 140, "121.9B"),
    "llama-pro": (LLAMA2_7B, 40, "8.36B"),
    "prune": (LLAMA3_8B, 27, "6.94B"),
    "rys": (QWEN2_72B, 87, "78.8B"),
    "solar-10.7b": (MISTRAL, 48, "10.73B"),
    "venus-120b": (LLAMA2_70B, 140, "120.3B"),
}
"""By recipe: the shape of its donors, and the layers and parameters that its comment speaks of."""

VOCABULARIES = {"gradient-slerp": (32000, 32002), "lamarck-style": (152064,) * 5}
"""By recipe: the rows of each donor's embedding, where the recipe speaks of tokenizers; a hundred fewer are tokens."""


def donors_of(name: str, folder: Path) -> list[str]:
    """Sparse donors for a recipe, and the `--set` values that name them."""
    shape = SHAPES[name][0]
    document = load(ROOT / "recipes" / f"{name}.yml")
    recipes = [*(stage.recipe for stage in document.stages), document.recipe]
    made = {recipe.name for recipe in recipes}
    refs = [ref for recipe in recipes for ref in recipe.model_refs() if ref not in made]
    sets = []
    for number, ref in enumerate(dict.fromkeys(refs)):
        rows = VOCABULARIES[name][number] if name in VOCABULARIES else shape["vocab"]
        words = [f"w{index}" for index in range(rows - 100)] if name in VOCABULARIES else None
        sparse_llama(folder / str(number), **{**shape, "vocab": rows}, tokenizer=words)
        sets.append(f"{ref}={folder / str(number)}")
    return sets


def test_there_are_recipes() -> None:
    assert set(SHAPES) <= {path.stem for path in RECIPES}
    assert all(path.stem in SHAPES or path in DEMO_RECIPES for path in RECIPES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_known_model_has_its_known_size(name: str, tmp_path: Path) -> None:
    _, layers, billions = SHAPES[name]
    path = ROOT / "recipes" / f"{name}.yml"
    document = load_document(path, donors_of(name, tmp_path))
    plan = resolve(document, Donors(document.roots))
    assert [finding.sentence() for finding in plan.findings if finding.severity != "note"] == []
    assert len(plan.layers) == layers
    digits = len(billions.rstrip("B").partition(".")[2])
    assert f"{plan.estimates.parameters / 1e9:.{digits}f}B" == billions
    said = comment(path)
    assert f"{layers} layers" in said
    assert f"{billions} parameters" in said


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_begins_with_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) <= 120
    document = load(path)
    assert not any(part.key_problems for part in (document, *document.stages))


def test_the_demo_has_a_recipe_for_every_family_of_methods() -> None:
    documents = [load(path) for path in DEMO_RECIPES]
    recipes = [part.recipe for document in documents for part in (document, *document.stages)]
    used = {recipe.merge_method for recipe in recipes}
    used |= {part.merge_method for recipe in recipes for part in recipe.slices or () if part.merge_method}
    relatives = {
        "breadcrumbs_ties": "breadcrumbs", "dare_linear": "dare_ties", "della_linear": "della", "ramplus_tl": "ram",
    }  # fmt: skip
    assert {relatives.get(name, name) for name in every()} <= used


@pytest.mark.parametrize("path", DEMO_RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_the_demo_is_carried_out(path: Path, tmp_path: Path) -> None:
    plan = demo_plan(path)
    assert [finding.sentence() for finding in plan.findings if finding.severity != "note"] == []
    assemble(plan, tmp_path / "out", recipe=path.read_text(), fsync=False)
    written = open_checkpoint(str(tmp_path / "out"))
    assert not written.problems
    assert written.depth == len(plan.layers)
    assert set(scores_said(path)) == {"reverse", "sort", "add3"}


SCORED = ["curves", "dare-plain", "dare-rescaled", "methods-per-slice", "model-stock", "negate", "no-taper", "stages"]
SCORED += ["taper", "ties"]


@pytest.mark.parametrize("name", SCORED)
def test_a_recipe_of_the_demo_scores_what_its_comment_says(name: str) -> None:
    path = ROOT / "recipes" / f"demo-{name}.yml"
    subject = from_plan(demo_plan(path), "cpu")
    for skill, said in scores_said(path).items():
        # Prompts at a time instead of one by one: rounding differs, and now and then an answer.
        assert share_right(subject, skill) == pytest.approx(said, abs=0.08), skill


def share_right(subject: Subject, skill: str) -> float:
    """The share of a skill's prompts that a model answers right: its likeliest token is the right one everywhere."""
    import torch

    probes = read_probes(DEMO / "probes" / f"{skill}.jsonl").probes
    by_length: dict[int, list[tuple[list[int], list[int]]]] = {}
    for probe in probes:
        prompt = subject.encode(probe.prompt)
        whole = subject.encode(f"{probe.prompt} {probe.expected}")
        answer = [*whole[len(prompt) :], *subject.stops]
        by_length.setdefault(len(prompt), []).append((prompt, answer))
    right = 0
    for length, pairs in by_length.items():
        ids = torch.tensor([prompt + answer for prompt, answer in pairs])
        with torch.inference_mode():
            likeliest = subject.model(ids[:, :-1]).logits[:, length - 1 :].argmax(-1)
        right += int((likeliest == ids[:, length:]).all(1).sum())
    return right / len(probes)


def demo_plan(path: Path) -> Plan:
    return resolve(load(path), Donors((DEMO,)))


def comment(path: Path) -> str:
    """The comment that a recipe begins with, as one line."""
    lines = path.read_text().splitlines()
    return " ".join(line[2:] for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])


def scores_said(path: Path) -> dict[str, float]:
    """What a recipe's comment says of the demo's skills."""
    said = re.search(r"Exact match: ([^;:.]+(?:\.\d+[^;:.]*)+)", comment(path))
    assert said is not None, path.stem
    return {skill: float(value) for skill, value in re.findall(r"(reverse|sort|add3) (\d\.\d{3})", said[1])}
