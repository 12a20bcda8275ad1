"""The registry of actions: complete, unambiguous, and on a par with the command line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from surgeon.recipe.edits import EDITS
from surgeon.tui.action_screen import ActionScreen
from surgeon.tui.actions import ACTIONS, ScreenName, footer, keymap, of_screen, perform
from surgeon.tui.app import SurgeonApp
from surgeon.tui.blend.blend_screen import BlendScreen
from surgeon.tui.commands import COMMANDS
from surgeon.tui.curves.curve_screen import CurveScreen
from surgeon.tui.keys import Keys
from surgeon.tui.plan.plan_screen import PlanScreen
from surgeon.tui.results.results_screen import ResultsScreen
from surgeon.tui.run.run_screen import RunScreen
from surgeon.tui.session import Session
from surgeon.tui.try_model.try_screen import TryScreen
from surgeon.tui.try_model.try_state import TryState

SCREENS: tuple[ScreenName, ...] = ("surgery", "plan", "run", "try", "results", "blend", "curves")


@pytest.fixture(scope="module")
def screens() -> dict[str, ActionScreen]:
    """One screen of each kind, none of them on a terminal."""
    application = SurgeonApp(Session())
    session, anything = application.session, MagicMock()
    surgery = application.get_default_screen()
    assert isinstance(surgery, ActionScreen)
    return {
        "surgery": surgery,
        "plan": PlanScreen(session, anything),
        "run": RunScreen(None, application),
        "try": TryScreen(session, TryState(), application),
        "results": ResultsScreen(session, Path("results.jsonl")),
        "blend": BlendScreen(anything),
        "curves": CurveScreen(session, anything),
    }


@pytest.mark.parametrize("name", SCREENS)
def test_every_action_has_one_method(name: ScreenName, screens: dict[str, ActionScreen]) -> None:
    parts = screens[name].parts
    found = {action.name: sum(int(hasattr(part, f"do_{action.name}")) for part in parts) for action in of_screen(name)}
    assert {action: count for action, count in found.items() if count != 1} == {}


@pytest.mark.parametrize("name", SCREENS)
def test_every_method_is_in_the_registry(name: ScreenName, screens: dict[str, ActionScreen]) -> None:
    methods = {method[3:] for part in screens[name].parts for method in dir(part) if method.startswith("do_")}
    assert methods <= {action.name for action in of_screen(name)} | {"back", "help"}


def test_an_action_is_performed_by_the_part_that_has_it() -> None:
    screen, editor = SimpleNamespace(do_help=MagicMock()), SimpleNamespace(do_delete=MagicMock())
    perform((screen, editor), "delete", 3)
    editor.do_delete.assert_called_once_with(3)
    perform((screen, editor), "help")
    screen.do_help.assert_called_once_with(None)


@pytest.mark.parametrize("name", SCREENS)
def test_no_key_means_two_things(name: ScreenName) -> None:
    keys = [key for action in of_screen(name) for key in action.keys]
    assert len(keys) == len(set(keys))
    sequences = [key for key in keys if " " in key]
    assert not {key.split()[0] for key in sequences} & set(keys)


def test_what_changes_a_recipe_has_a_verb_of_the_command_line() -> None:
    verbs = {edit.verb for edit in EDITS}
    assert {action.verb for action in ACTIONS if action.verb} <= verbs
    # dtype and base are typed; every other edit has a key.
    assert verbs - {action.verb for action in ACTIONS} == {"dtype", "base"}
    assert not verbs & set(COMMANDS)


def test_keys_that_terminals_and_multiplexers_take_are_not_used() -> None:
    taken = {"ctrl+a", "ctrl+b", "ctrl+s", "ctrl+z", "ctrl+i", "ctrl+m", "ctrl+j", "ctrl+h", "ctrl+enter"}
    assert not {key for action in ACTIONS for key in action.keys} & taken
    by_plain_key = {action.name for action in ACTIONS if any("+" not in key for key in action.keys)}
    assert by_plain_key >= {action.name for action in ACTIONS if action.verb}


def test_the_footer_fits_80_columns_with_its_first_entries() -> None:
    for name in SCREENS:
        width = sum(len(action.show.split()[0]) + len(action.short) + 3 for action in footer(name)[:8])
        assert width <= 79


def feed(keys: Keys, text: list[str]) -> tuple[str, int | None] | None:
    press = None
    for key in text:
        press = keys.feed(key)
    return (press.action.name, press.count) if press else None


def test_counts_and_sequences() -> None:
    assert feed(Keys("surgery", counts=True), ["j"]) == ("down", None)
    assert feed(Keys("surgery", counts=True), ["1", "5", "j"]) == ("down", 15)
    assert feed(Keys("surgery", counts=True), ["1", "0", "G"]) == ("bottom", 10)
    assert feed(Keys("surgery", counts=True), ["0", "G"]) == ("bottom", 0)
    assert feed(Keys("surgery", counts=True), ["g", "g"]) == ("top", None)
    assert feed(Keys("surgery", counts=True), ["g", "x"]) is None
    assert feed(Keys("surgery", counts=True), ["9"] * 9 + ["j"]) == ("down", 100_000)
    keys = Keys("surgery", counts=True)
    assert feed(keys, ["3", "escape"]) == ("escape", 3)
    assert keys.typed == ""


def test_screens_without_counts_take_no_digits() -> None:
    keys = Keys("plan", counts=False)
    assert keys.feed("3") is None
    assert keys.typed == ""
    assert keymap("plan")["tab"].name == "view"
