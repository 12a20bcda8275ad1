"""A few pictures of the interface; most of what it shows is checked as text elsewhere.

After a wanted change: `pytest tests/tui/test_snapshots.py --snapshot-update`, and look at the pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from surgeon.tui.app import SurgeonApp
from tests.support.tui import SIZES, app, donors

RECIPE = """\
# Eight layers of two donors.
merge_method: passthrough
base_model: ./a
slices:
  - sources: [{model: ./a, layer_range: [0, 4]}]
  - sources: [{model: ./b, layer_range: [3, 7]}]
"""


def opened(folder: Path) -> SurgeonApp:
    donors(folder)
    (folder / "r.yaml").write_text(RECIPE)
    return app(["./c"], folder / "r.yaml")


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40", "200x60"])
def test_surgery(in_tmp: Path, snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    keys = ["apostrophe", "b", "1", "G", "v", "j", "p", "escape", "k"]
    assert snap_compare(opened(in_tmp), press=keys, terminal_size=size)


def test_without_colour(in_tmp: Path, snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(opened(in_tmp), press=["v", "j"], terminal_size=(80, 24))


def test_plan(in_tmp: Path, snap_compare: Callable[..., bool]) -> None:
    application = opened(in_tmp)
    (in_tmp / "r.yaml").write_text(RECIPE.replace("[3, 7]", "[5, 9]"))
    application = app(["./c"], in_tmp / "r.yaml")
    assert snap_compare(application, press=["f"], terminal_size=(80, 24))


def test_curves(in_tmp: Path, snap_compare: Callable[..., bool]) -> None:
    keys = ["1", "G", "v", "5", "j", "b", "enter", "m", "g", "tab", "2", "l", "v", "2", "l", "k"]
    assert snap_compare(opened(in_tmp), press=keys, terminal_size=(80, 24))


def test_blend(in_tmp: Path, snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(opened(in_tmp), press=["1", "G", "v", "j", "b", "j", "j"], terminal_size=(80, 24))
