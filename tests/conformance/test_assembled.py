"""Every conformance case, end to end: the assembled files against what mergekit wrote for the same recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.plan import Copy, Donors, resolve
from surgeon.recipe.document import load
from tests.support.assembling import assemble
from tests.support.paths import CONFORMANCE

RECIPES = sorted(CONFORMANCE.glob("recipes/*.yml"))

pytestmark = pytest.mark.skipif(not RECIPES, reason="the conformance cases do not lie beside the repository")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_tensors_are_those_that_mergekit_writes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    monkeypatch.chdir(CONFORMANCE)
    document = load(path)
    plan = resolve(document, Donors(document.roots))
    assert plan.ok, [finding.sentence() for finding in plan.findings]
    assemble(plan, tmp_path / "out", recipe=document.text, fsync=False)
    expected = load_file(CONFORMANCE / "expected" / f"{path.stem}.safetensors")
    mine = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: (t.dtype, t.shape) for name, t in mine.items()} == {
        name: (t.dtype, t.shape) for name, t in expected.items()
    }
    copied = {tensor.name for tensor in plan.tensors if isinstance(tensor.source, Copy)}
    for name, tensor in mine.items():
        if name in copied:
            assert tensor.equal(expected[name]), name
        # Within one unit in the last place where the case computes in 16 bits, else within float32's rounding.
        bound = expected[name].double().abs() * (2**-7 if str(tensor.dtype) == "torch.bfloat16" else 1e-5) + 1e-6
        worst = ((tensor.double() - expected[name].double()).abs() / bound).max()
        assert worst <= 1, (name, float(worst))
