"""Passthrough recipes against what mergekit wrote for them: the same tensors, in name, shape, dtype and source."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.checkpoint import TensorEntry, read_header
from surgeon.plan import Convert, Copy, Donors, resolve
from surgeon.recipe.document import load
from tests.support.paths import CONFORMANCE

RECIPES = sorted(CONFORMANCE.glob("recipes/*passthrough*.yml"))

pytestmark = pytest.mark.skipif(not RECIPES, reason="the conformance cases do not lie beside the repository")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_plan_is_what_mergekit_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFORMANCE)
    document = load(path)
    plan = resolve(document, Donors(document.roots))
    assert plan.ok, [finding.sentence() for finding in plan.findings]
    entries, _ = read_header(CONFORMANCE / "expected" / f"{path.stem}.safetensors")
    expected = {entry.name: entry for entry in entries}
    assert {tensor.name: (tensor.dtype, tensor.shape) for tensor in plan.tensors} == {
        name: (entry.dtype, entry.shape) for name, entry in expected.items()
    }
    for tensor in plan.tensors:
        if isinstance(tensor.source, Copy):
            assert stored(tensor.source.entry) == stored(expected[tensor.name]), tensor.name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_factors_give_the_numbers_mergekit_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors import safe_open

    monkeypatch.chdir(CONFORMANCE)
    document = load(path)
    scaled = [t for t in resolve(document, Donors(document.roots)).tensors if isinstance(t.source, Convert)]
    with safe_open(CONFORMANCE / "expected" / f"{path.stem}.safetensors", "pt") as expected:
        for tensor in scaled:
            assert isinstance(tensor.source, Convert)
            with safe_open(tensor.source.entry.file, "pt") as donor:
                value = donor.get_tensor(tensor.source.entry.name) * tensor.source.factor
            assert torch.allclose(value, expected.get_tensor(tensor.name), rtol=1e-5, atol=1e-6), tensor.name


def stored(entry: TensorEntry) -> bytes:
    """The bytes of a tensor."""

    with entry.file.open("rb") as file:
        file.seek(entry.offset)
        return file.read(entry.nbytes)
