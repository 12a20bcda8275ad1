"""The user's settings: theme and keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.color import Color

from surgeon.cli.app import run
from surgeon.errors import InputError
from surgeon.tui import actions, theme
from surgeon.tui.actions import ACTIONS, footer
from surgeon.tui.app import SurgeonApp
from surgeon.tui.session import Session
from surgeon.tui.settings import Settings, key_name, load_settings
from tests.support.tui import app, cells, command, donors, keys, line

KEYS = """\
theme: light
keys:
  surgery:
    delete: x
    cut: ['ctrl+k', 'g x']
    undo: ','
"""


@pytest.fixture(autouse=True)
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The default keys and colours again after each test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield
    actions.use(ACTIONS)
    theme.use("dark")


def _settings(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_settings(path)


def test_without_a_file_or_with_an_empty_one_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "nope.yaml") == Settings()
    assert _settings(tmp_path, "# nothing\n") == Settings()
    assert Settings().actions() == ACTIONS


@pytest.mark.asyncio
async def test_keys_of_the_settings_work_and_are_shown(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path, "theme: light\nkeys:\n  surgery:\n    delete: x\n    cut: ['ctrl+k', 'g x']\n    undo: ','\n"
    )
    application = SurgeonApp(Session(donors(tmp_path, "a")), settings=settings)
    async with application.run_test(size=(120, 40)) as pilot:
        await command(pilot, "insert A:0-3")
        await keys(pilot, "apostrophe apostrophe 1 G x")
        assert cells(application) == ["A00", "A02", "A03"]
        await keys(pilot, "comma")
        assert len(cells(application)) == 4
        await keys(pilot, "d")
        assert len(cells(application)) == 4
        await keys(pilot, "g x")
        assert len(cells(application)) == 3
        shown = {action.name: action.show for action in footer("surgery")}
        assert (shown["delete"], shown["undo"]) == ("x", ",")
        assert " x delete" in line(pilot, "footer")
        assert application.theme == "surgeon-light"


@pytest.mark.parametrize(("text", "said", "number"), [
    ("theme: blue\n", "no theme 'blue'", 1),
    ("themes: dark\n", "Did you mean theme", 1),
    ("keys:\n  surgury:\n    delete: x\n", "Did you mean surgery", 2),
    ("keys:\n  surgery:\n    delet: x\n", "Did you mean delete", 3),
    ("keys:\n  surgery:\n    delete: nokey\n", "'nokey' is no key", 3),
    ("keys:\n  surgery:\n    delete: y\n", "the key y of the screen surgery would do yank and delete", 3),
    ("keys:\n  surgery:\n    delete: g\n", "would do top and delete", 3),
    ("keys:\n  surgery:\n    delete: []\n", "keys are texts", 3),
    ("keys: 5\n", "is a table", 1),
    ("- a\n", "a table with", None),
    ("keys: [\n", "not valid YAML", None),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, said: str, number: int | None) -> None:
    with pytest.raises(InputError) as raised:
        _settings(tmp_path, text)
    assert said in raised.value.sentence()
    if number:
        assert f"line {number}" in raised.value.where


def test_a_settings_file_that_is_too_large_or_no_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError):
        load_settings(path)
    path.write_bytes(b"#" * 200_000)
    with pytest.raises(InputError):
        load_settings(path)


def test_every_key_of_the_registry_has_a_name_that_a_person_writes() -> None:
    assert key_name(".") == "full_stop"
    assert key_name("g g") == "g g"
    assert key_name("ctrl+K") == "ctrl+K"
    assert key_name("é") == "é"
    assert key_name("a b c") is None
    for action in ACTIONS:
        for key in action.keys:
            assert key_name(key) == key


@pytest.mark.parametrize("palette", theme.PALETTES.values(), ids=list(theme.PALETTES))
def test_colours_can_be_read_on_their_background(palette: theme.Palette) -> None:
    def luminance(colour: str) -> float:
        parts = [value / 255 for value in Color.parse(colour).rgb]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    assert palette.theme.background and palette.theme.panel and palette.theme.foreground
    for colour in (*palette.hues, palette.dim, palette.title, palette.added, palette.removed, palette.warning,
                   palette.theme.foreground):  # fmt: skip
        for ground in (palette.theme.background, palette.theme.panel):
            assert contrast(colour, ground) >= 4.0, (colour, ground)
    assert contrast(*palette.selected) >= 4.5
    assert len(set(palette.hues)) == 6


def test_auto_follows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORFGBG", "0;15")
    assert theme.use("auto") == "surgeon-light"
    assert theme.hue("A").color == theme.Style(color=theme.LIGHT.hues[0]).color
    monkeypatch.delenv("COLORFGBG")
    assert theme.use("auto") == "surgeon"


@pytest.mark.asyncio
async def test_the_theme_changes_while_it_runs(tmp_path: Path) -> None:
    application = app(donors(tmp_path, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "theme light")
        assert application.theme == "surgeon-light"
        await command(pilot, "theme blue")
        assert "write `theme`" in line(pilot, "status")


@pytest.mark.asyncio
async def test_a_picture_of_the_screen(tmp_path: Path) -> None:
    application = app(donors(tmp_path, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "f12")
        assert "wrote surgeon-surgery-1.svg" in line(pilot, "status")
        await keys(pilot, "f12 f f12")
        assert {path.name for path in tmp_path.glob("*.svg")} == {
            "surgeon-surgery-1.svg", "surgeon-surgery-2.svg", "surgeon-plan-1.svg",
        }  # fmt: skip
        text = (tmp_path / "surgeon-surgery-1.svg").read_text()
        assert "STACK" in text
        assert str(tmp_path) not in text
        await keys(pilot, "escape")
        await command(pilot, "picture surgeon-plan-1.svg")
        assert "exists" in line(pilot, "status")
        await command(pilot, "picture nowhere/x")
        assert "cannot write" in line(pilot, "status")


def test_wrong_settings_end_the_program_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from surgeon.cli import open_tui

    (tmp_path / "config/surgeon").mkdir(parents=True)
    (tmp_path / "config/surgeon/config.yaml").write_text("theme: blue\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(open_tui, "_on_a_terminal", lambda: True, raising=False)
    assert run(["open"]) == 2
    assert "no theme 'blue'" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["1", "'0'", "[x, 7]", "'1 g'", "['3 4']"])
@pytest.mark.parametrize(("screen", "action"), [("surgery", "delete"), ("curves", "undo"), ("any", "help")])
def test_a_digit_is_a_count_and_begins_no_key(tmp_path: Path, screen: str, action: str, key: str) -> None:
    with pytest.raises(InputError, match="digits before a key are a count") as caught:
        _settings(tmp_path, f"keys:\n  {screen}:\n    {action}: {key}\n")
    assert "line 3" in str(caught.value.where)


def test_a_digit_after_a_key_or_on_a_screen_without_counts_is_a_key(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "keys:\n  surgery:\n    delete: g 1\n  plan:\n    copy: 1\n")
    assert settings.keys == {("surgery", "delete"): ("g 1",), ("plan", "copy"): ("1",)}


def test_the_screens_with_counts_are_those_that_take_them() -> None:
    from surgeon.tui.action_screen import ActionScreen
    from surgeon.tui.blend.blend_screen import BlendScreen
    from surgeon.tui.curves.curve_screen import CurveScreen
    from surgeon.tui.plan.plan_screen import PlanScreen
    from surgeon.tui.run.run_screen import RunScreen
    from surgeon.tui.surgery.surgery_screen import SurgeryScreen
    from surgeon.tui.try_model.try_screen import TryScreen

    screens: list[type[ActionScreen]] = [BlendScreen, CurveScreen, PlanScreen, RunScreen, SurgeryScreen, TryScreen]
    assert {screen.kind for screen in screens if screen.counts} == actions.COUNTED
