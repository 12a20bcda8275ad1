"""What the words after `surgeon open` are taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from surgeon.cli import open_tui
from surgeon.cli.app import run
from tests.support.assembling import donor, passthrough


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    sessions: list[Any] = []
    monkeypatch.setattr(open_tui, "launch", lambda session, **_: sessions.append(session))
    return sessions


def test_a_recipe_is_one_with_or_without_its_flag(tmp_path: Path, opened: list[Any]) -> None:
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(passthrough((donor(tmp_path / "a"), 0, 3)))
    assert run(["open", str(recipe)]) == run(["open", "-r", str(recipe)]) == 0
    assert [session.document.path for session in opened] == [recipe, recipe]


def test_a_folder_is_a_checkpoint_whatever_its_name(tmp_path: Path, opened: list[Any]) -> None:
    assert run(["open", str(donor(tmp_path / "model.yml"))]) == 0
    assert opened[0].document.path is None and opened[0].donors.checkpoint(str(tmp_path / "model.yml")).depth == 3
