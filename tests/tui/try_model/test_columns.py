"""Models side by side on the Try screen: which can be a column, aligned answers, answers that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from surgeon.errors import InputError
from surgeon.tui.picker import Picker
from surgeon.tui.session import Session
from surgeon.tui.try_model.answer_lines import MARK, Shown, first_difference, lines_of
from surgeon.tui.try_model.answers import Answer, Turn
from surgeon.tui.try_model.column_models import ColumnModels
from tests.support.trying import Requests, answer, opened, screen_of, until
from tests.support.tui import app, command, donors, keys, line


def specs(models: ColumnModels) -> list[str]:
    return [choice.value for choice in models.choices()]


class TestWhatCanBeAColumn:
    """This recipe, its earlier states, donors, other recipes."""

    def test_the_previous_state_is_offered_first(self, in_tmp: Path) -> None:
        session = Session(donors(in_tmp, "ab"))
        models = ColumnModels(session)
        assert specs(models) == ["donor:./a", "donor:./b"], "an empty recipe is no model"
        session.command("insert A:0-3")
        assert specs(models)[0] == "donor:./a"
        session.command("delete 1")
        session.command("delete 0")
        assert specs(models) == ["undo:1", "donor:./a", "donor:./b", "undo:2"]
        assert models.choices()[0].remark == "before delete 0"
        back = models.find("undo:1")
        session.undo()
        assert models.find("recipe").key == back.key, "the state is what it was"
        with pytest.raises(InputError, match="only 2 steps"):
            models.find("undo:3")

    def test_saved_states_and_recipes_beside_it(self, in_tmp: Path) -> None:
        session = Session(donors(in_tmp, "ab"))
        session.command("insert A:0-3")
        session.save(in_tmp / "mine.yaml")
        (in_tmp / "sub").mkdir()
        (in_tmp / "other.yaml").write_text("slices:\n- sources: [{model: ./b, layer_range: [0, 2]}]\n")
        session.command("delete 0")
        models = ColumnModels(session)
        assert "saved" in specs(models) and f"file:{in_tmp / 'other.yaml'}" in specs(models)
        assert f"file:{in_tmp / 'mine.yaml'}" not in specs(models)
        saved, other = models.find("saved"), models.find(f"file:{in_tmp / 'other.yaml'}")
        assert saved.key == models.find("undo:1").key
        assert str(in_tmp / "b") in other.text and "model: ./b" in other.document

    def test_a_recipe_of_another_folder_names_its_donors_from_here(self, in_tmp: Path) -> None:
        session = Session(donors(in_tmp, "a"))
        session.command("insert A:0-3")
        session.save(in_tmp / "mine.yaml")
        (in_tmp / "sub").mkdir()
        (in_tmp / "sub" / "far.yaml").write_text("slices:\n- sources: [{model: ../a, layer_range: [0, 2]}]\n")
        found = ColumnModels(session).find(f"file:{in_tmp / 'sub' / 'far.yaml'}")
        assert "../a" not in found.document and str(in_tmp / "a") in found.text


def made(text: str, *, ended: bool = True) -> Answer:
    return Answer(text=text, ended=ended, state="raw")


class TestAligned:
    """Turns begin at the same height, and a difference is marked without colour too."""

    @pytest.mark.parametrize(
        ("first", "other", "place"),
        [
            ("the red fox", "the red fox", None),
            ("the red fox", "the ready fox", 4),
            ("foobar", "foo bar", 3),
            ("the", "the end", 3),
            ("the end", "the", 3),
            ("", "a", 0),
        ],
    )
    def test_the_first_word_that_differs(self, first: str, other: str, place: int | None) -> None:
        assert first_difference(made(first), made(other)) == place

    def test_a_text_that_is_still_coming_is_not_different_yet(self) -> None:
        assert first_difference(made("the end"), made("the", ended=False)) is None
        assert first_difference(made("the", ended=False), made("the end")) is None
        assert first_difference(made("the end", ended=False), made("then", ended=False)) == 0

    @pytest.mark.parametrize("width", [79, 119, 199])
    def test_lines(self, width: int) -> None:
        shown = [Shown("recipe", "k1"), Shown("undo:1", "k2")]
        states = {"recipe": "k1", "undo:1": "k2"}
        turns = [
            Turn(
                "one",
                {},
                {"k1": made(f"long {MARK} words " * 20 + "end"), "k2": made(f"long {MARK} words " * 20 + "!")},
                states,
            ),
            Turn("two", {}, {"k1": made("模型 same"), "k2": made("模型 same")}, states),
        ]
        lines = ["".join(text for text, _ in pieces) for pieces in lines_of(turns, shown, width)]
        assert max(map(cell_len, lines)) <= width
        text = "\n".join(lines)
        assert f"{MARK}!" in text and "the first column's text" in text
        bars = {cell_len(row.partition("│")[0]) for row in lines if "│" in row}
        assert len(bars) == 1, "columns are straight"
        second = lines.index(" > two")
        assert lines[second + 1].count("模型 same") == 2, "both answers begin under their prompt"

    def test_an_answer_of_an_earlier_state_is_marked(self) -> None:
        turn = Turn("one", {}, {"old": made("before")}, {"recipe": "old"})
        lines = ["".join(text for text, _ in pieces) for pieces in lines_of([turn], [Shown("recipe", "new")], 79)]
        assert " (an earlier state of it)" in lines and " before" in lines


async def test_two_columns_get_the_same_prompt_seed_and_settings(in_tmp: Path, requests: Requests) -> None:
    application = app(donors(in_tmp, "ab"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "delete 0")
        await keys(pilot, "T escape b")
        picker = application.screen
        assert isinstance(picker, Picker) and picker.shown[0].value == "undo:1"
        await keys(pilot, "enter")
        screen = screen_of(application)
        assert [column.model.spec for column in screen.conversation.columns] == ["recipe", "undo:1"]
        application.try_state.settings.temperature, application.try_state.settings.seed = 0.5, 7
        await keys(pilot, "i H i enter")
        await until(pilot, lambda: len(requests.prompts) == 2)
        first, second = ({**request, "target": ""} for request in requests.sent[-2:])
        assert first == second and first["seed"] == 7 and first["temperature"] == 0.5
        assert requests.sent[-2]["target"] != requests.sent[-1]["target"]
        requests.sinks[-2]({"event": "token", "text": "the red"})
        requests.sinks[-1]({"event": "token", "text": "the blue"})
        screen._redraw()
        assert f"the {MARK}blue" in screen.query_one("#answers").text  # type: ignore[attr-defined]
        names = line(pilot, "names")
        assert "this recipe" in names and "1 step back" in names and len(names) <= 80


async def test_more_columns_than_fit_are_turned_and_the_first_stays(in_tmp: Path, requests: Requests) -> None:
    application = app(donors(in_tmp, "abc"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await keys(pilot, "T escape b enter b enter b enter")
        screen = screen_of(application)
        names = [column.name for column in screen.conversation.columns]
        assert names == ["this recipe", "A ./a", "B ./b", "C ./c"]
        seen = []
        for _ in range(3):
            screen._redraw()
            seen.append(line(pilot, "names").split("│")[1].strip())
            assert "this recipe" in line(pilot, "names")
            await keys(pilot, "right_square_bracket")
        assert sorted(seen) == names[1:]
        await keys(pilot, "b")
        assert "4 columns: B removes one" in line(pilot, "status")
        await keys(pilot, "B")
        await keys(pilot, "down enter")
        assert [column.name for column in screen.conversation.columns] == ["this recipe", "A ./a", "C ./c"]
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        screen._redraw()
        assert line(pilot, "names").count("│") == 2


async def test_answers_stay_and_know_their_state(chats: list[str]) -> None:
    """After an edit the old answer is that of `1 step back`, without asking again."""
    async with opened(chats) as (application, pilot, screen):
        application.try_state.settings.tokens = 3
        await keys(pilot, "H i enter")
        await until(pilot, lambda: answer(screen).ended)
        said = answer(screen).text
        await keys(pilot, "escape escape")
        await command(pilot, "write mine.yaml")
        await command(pilot, "delete 0")
        await keys(pilot, "T")
        again = screen_of(application)
        again._redraw()
        assert "(an earlier state of it)" in again.query_one("#answers").text  # type: ignore[attr-defined]
        await keys(pilot, "escape b enter")
        column = again.conversation.columns[1]
        found, old = again.conversation.turns[0].of(column.model.spec, column.model.key)
        assert column.model.spec == "undo:1" and found is not None and found.text == said and not old


async def test_a_column_whose_state_is_gone_is_left_out_with_a_sentence(in_tmp: Path, requests: Requests) -> None:
    application = app(donors(in_tmp, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "delete 0")
        await keys(pilot, "T escape b enter escape u u T")
        screen: Any = screen_of(application)
        assert [column.name for column in screen.conversation.columns] == ["this recipe"]
        assert "there are only 0 steps" in line(pilot, "status")
