"""The plan screen: findings and their places, the YAML and its editor."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest

from surgeon.tui.app import SurgeonApp
from surgeon.tui.plan.plan_screen import PlanScreen
from tests.support.tui import app, donors, keys, line

RECIPE = """\
slices:
  - sources: [{model: ./a, layer_range: [0, 4]}]
  - sources: [{model: ./a, layer_range: [2, 8]}]
dtype: bfloat16
parameters:
  weird: 5
surprise: 1
"""


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SurgeonApp:
    """The interface on a recipe with findings of every kind of place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    donors(tmp_path, "a")
    (tmp_path / "r.yaml").write_text(RECIPE)
    return app([], tmp_path / "r.yaml")


def _screen(application: SurgeonApp) -> PlanScreen:
    assert isinstance(application.screen, PlanScreen)
    return application.screen


@pytest.mark.asyncio
async def test_j_and_k_move_by_finding(application: SurgeonApp) -> None:
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "f")
        screen = _screen(application)
        count = len(application.session.plan.findings)
        assert count > 1
        seen = []
        for _ in range(count):
            seen.append(screen._finding)
            await keys(pilot, "j")
        assert seen == list(application.session.plan.findings)
        await keys(pilot, "k")
        assert screen._finding == application.session.plan.findings[-2]


@pytest.mark.asyncio
async def test_enter_on_a_finding_with_a_line_shows_that_line(application: SurgeonApp) -> None:
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "f")
        screen = _screen(application)
        findings = application.session.plan.findings
        number = next(i for i, finding in enumerate(findings) if finding.line == 6)
        await keys(pilot, " ".join("j" * number) + " enter" if number else "enter")
        assert screen.view == "yaml"
        assert "weird" in "".join(text for text, _ in screen.body.lines[screen.body.cursor])


@pytest.mark.asyncio
async def test_a_finding_without_a_place_says_so(application: SurgeonApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async with application.run_test(size=(80, 24)) as pilot:
        from dataclasses import replace

        plan = application.session.plan
        application.session.__dict__["plan"] = replace(
            plan, findings=tuple(replace(finding, line=None, layers=()) for finding in plan.findings)
        )
        await keys(pilot, "f enter")
        assert _screen(application).view == "findings"
        assert "no line or layer" in line(pilot, "status")


@pytest.mark.asyncio
async def test_the_yaml_is_beside_the_findings_on_a_wide_terminal(application: SurgeonApp) -> None:
    async with application.run_test(size=(200, 60)) as pilot:
        await keys(pilot, "f")
        from surgeon.tui.widgets.text_pane import TextPane

        assert "weird: 5" in application.screen.query_one("#beside", TextPane).text


def _editor(application: SurgeonApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    path = tmp_path / "editor.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(path))
    monkeypatch.setattr(application, "suspend", contextlib.nullcontext)


@pytest.mark.asyncio
async def test_the_editor_changes_the_recipe_as_one_edit_and_comments_stay(
    application: SurgeonApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _editor(application, monkeypatch, tmp_path, "sed -i -e 's/\\[2, 8\\]/[4, 8]/' -e '1i # mine' -e '/weird/d' \"$1\"\n"
            "sed -i -e '/^parameters/d' -e '/^surprise/d' \"$1\"")  # fmt: skip
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "f E")
        assert "is the recipe now" in line(pilot, "status")
        session = application.session
        assert len(session.plan.layers) == 8
        assert session.plan.ok
        await keys(pilot, "escape w")
        assert (tmp_path / "r.yaml").read_text().startswith("# mine\n")
        await keys(pilot, "u")
        assert len(session.plan.layers) == 10


@pytest.mark.asyncio
async def test_a_wrong_text_is_not_taken_and_is_opened_again(
    application: SurgeonApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _editor(application, monkeypatch, tmp_path, 'cp "$1" seen.txt; echo "slices: [" >> "$1"')
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "f E")
        assert "not taken" in line(pilot, "status")
        assert not application.session.dirty
        await keys(pilot, "E")
        assert (tmp_path / "seen.txt").read_text().endswith("slices: [\n")


@pytest.mark.asyncio
@pytest.mark.parametrize(("editor", "said"), [("/nowhere/editor", "cannot be started"), ("false", "failed with exit"),
                                              ("'", "no command"), ("true", "changed nothing")])  # fmt: skip
async def test_an_editor_that_does_not_work(
    application: SurgeonApp, monkeypatch: pytest.MonkeyPatch, editor: str, said: str
) -> None:
    monkeypatch.setattr(application, "suspend", contextlib.nullcontext)
    monkeypatch.setenv("VISUAL", editor)
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "f E")
        assert said in line(pilot, "status")


@pytest.mark.asyncio
async def test_a_stage_that_is_added_in_the_editor_can_be_edited(
    application: SurgeonApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _editor(application, monkeypatch, tmp_path,
            "printf 'name: half\\nslices:\\n- sources: [{model: ./a, layer_range: [0, 4]}]\\n---\\n"
            "slices:\\n- sources: [{model: half, layer_range: [0, 2]}]\\n' > \"$1\"")  # fmt: skip
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "f E escape")
        session = application.session
        assert session.stages == ["half", ""]
        assert session.dirty
        session.edit_stage("half")
        assert len(session.plan.layers) == 4
        assert session.markers == ["+"] * 4


@pytest.mark.asyncio
@pytest.mark.parametrize("script", [
    'echo "# work" >> "$1"; kill -9 $$', 'printf "# caf\\351" >> "$1"',
    'head -c 1100000 /dev/zero | tr "\\0" "#" >> "$1"',
], ids=["killed", "latin-1", "too large"])  # fmt: skip
async def test_what_an_editor_left_is_kept_where_it_cannot_be_taken(
    application: SurgeonApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    _editor(application, monkeypatch, tmp_path, script)
    async with application.run_test(size=(200, 60)) as pilot:
        await keys(pilot, "f E")
        (kept,) = tmp_path.glob("surgeon-*")
        assert str(kept) in line(pilot, "status")
        assert (kept / "r.yaml").read_bytes().startswith(RECIPE.encode())
        assert not application.session.dirty
