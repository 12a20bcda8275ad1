"""Every recipe that people can start from is planned, over donors of the right size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sparse import LLAMA2_70B, LLAMA3_8B, LLAMA3_70B, MISTRAL_7B, sparse_llama

from surgeon.cli.common import load_document
from surgeon.plan import Donors, resolve
from surgeon.recipe.document import load

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yml"))
DEMO = ROOT / "assets" / "demo"

QWEN2_72B = {"layers": 80, "hidden": 8192, "heads": 64, "kv_heads": 8, "intermediate": 29568, "vocab": 152064}
SHAPES: dict[str, tuple[dict[str, Any], int, str]] = {
    "goliath-120b": (LLAMA2_70B, 137, "117.7B"),
    "llama-3-120b-self-merge": (LLAMA3_70B, 140, "121.9B"),
    "prune": (LLAMA3_8B, 27, "6.94B"),
    "rys": ({**QWEN2_72B, "bias": True, "model_type": "qwen2"}, 87, "78.8B"),
    "solar-10.7b": ({**MISTRAL_7B, "model_type": "mistral"}, 48, "10.73B"),
}
"""By recipe: the shape of its donors, and the layers and parameters that its comment speaks of."""


def test_there_are_recipes() -> None:
    assert set(SHAPES) <= {path.stem for path in RECIPES}
    assert all(path.stem in SHAPES or path.stem.startswith("demo") for path in RECIPES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_known_model_has_its_known_size(name: str, tmp_path: Path) -> None:
    shape, layers, billions = SHAPES[name]
    path = ROOT / "recipes" / f"{name}.yml"
    sets = []
    for letter, ref in zip("AB", load(path).recipe.model_refs(), strict=False):
        sparse_llama(tmp_path / letter, **shape)
        sets.append(f"{letter if letter == 'A' else ref}={tmp_path / letter}")
    document = load_document(path, sets)
    plan = resolve(document, Donors(document.roots))
    assert [finding.code for finding in plan.findings if finding.severity != "note"] == []
    assert len(plan.layers) == layers
    digits = len(billions.rstrip("B").partition(".")[2])
    assert f"{plan.estimates.parameters / 1e9:.{digits}f}B" == billions
    comment = re.sub(r"\n# ", " ", path.read_text())
    assert f"{layers} layers" in comment
    assert f"{billions} parameters" in comment


@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem.startswith("demo")], ids=lambda path: path.stem)
def test_recipes_of_the_demo_are_planned_over_the_demo(path: Path) -> None:
    if not any(DEMO.glob("*/config.json")):
        pytest.skip("assets/demo holds no checkpoints yet")
    plan = resolve(load(path), Donors((DEMO,)))
    assert plan.ok, [finding.sentence() for finding in plan.findings]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_begins_with_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) <= 120
    assert not load(path).key_problems
