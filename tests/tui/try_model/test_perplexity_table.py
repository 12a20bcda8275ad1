"""The table of models against texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from surgeon.tui.try_model.perplexity_table import Measure, PerplexityTable, TableRow
from surgeon.tui.try_model.prompt_area import PromptArea
from tests.support.trying import Requests, opened, screen_of, until
from tests.support.tui import app, command, donors, keys, line


class TestPerplexity:
    """`x` measures texts with the recipe, its output and the donors."""

    async def test_the_table(self, chats: list[str], in_tmp: Path) -> None:
        from surgeon.probe.requests import Request, run, text_in
        from surgeon.probe.subject import from_checkpoint

        (in_tmp / "texts").mkdir()
        (in_tmp / "texts" / "prose.txt").write_text("It was a bright cold day in April.")
        (in_tmp / "other.txt").write_text("def f(x): return x")
        async with opened(chats, size=(80, 24)) as (application, pilot, screen):
            box = screen.query_one(PromptArea)
            box.load_text(":text other.txt")
            await keys(pilot, "enter")
            assert "x measures it" in line(pilot, "status")
            await keys(pilot, "escape x")
            table = screen.conversation.table
            assert table is not None
            await until(pilot, lambda: all(row.state == "" for row in table.rows))
            assert [row.name for row in table.rows] == ["the recipe (unwritten)", "A ./a", "B ./b"]
            assert [path.name for path in table.texts] == ["other.txt", "prose.txt"]
            assert [measure.tokens for measure in table.rows[0].found] == [19, 35]
            # The recipe is A's three layers, so it measures the same; B is another model.
            assert table.rows[0].found == table.rows[1].found != table.rows[2].found
            from surgeon.checkpoint import open_checkpoint

            alone = from_checkpoint(open_checkpoint("./a"), "cpu")
            done = list(run(alone, Request(texts=tuple(text_in(path) for path in table.texts))))[-1]
            assert [text["value"] for text in done["perplexity"]] == [found.value for found in table.rows[1].found]
            await until(pilot, lambda: "19 tok" in screen.query_one("#table").text)
            assert all(cell_len(row) <= 80 for row in screen.query_one("#table").text.split("\n"))
            await keys(pilot, "tab")
            assert screen.query_one("#left").display and not screen.query_one("#table").display
            await keys(pilot, "tab y")
            assert screen.query_one("#table").display and "copied 4 lines" in line(pilot, "status")
            assert application.clipboard.startswith("model\t")

    async def test_the_written_output_is_a_row(
        self, chats: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch, requests: Requests
    ) -> None:
        from surgeon.jobs import job_list

        class Done:
            out = in_tmp / "b"

            def state(self) -> Any:
                return type("State", (), {"kind": "done"})()

        monkeypatch.setattr(job_list, "of_recipe", lambda recipe, folder: [Done()])
        (in_tmp / "texts").mkdir()
        (in_tmp / "texts" / "prose.txt").write_text("It was a bright cold day in April.")
        application = app(chats)
        async with application.run_test(size=(80, 24)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T escape x")
            await until(pilot, lambda: len(requests.sent) == 5)
            table = screen_of(application).conversation.table
            assert table is not None and [row.name for row in table.rows][1] == "written: b"
            assert requests.sent[2]["target"] == str(in_tmp / "b")

    async def test_without_texts_there_is_a_sentence(self, in_tmp: Path, requests: Requests) -> None:
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=(80, 24)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T escape x")
            assert ":text FILE" in line(pilot, "status") and len(line(pilot, "status")) <= 80
            await keys(pilot, "tab")
            assert "x measures" in line(pilot, "status")

    @staticmethod
    def table(*rows: tuple[str, list[Measure]], texts: int = 1, **more: Any) -> PerplexityTable:
        paths = [Path(f"/t/a text with a long name {number}.txt") for number in range(texts)]
        return PerplexityTable(paths, [TableRow(name, found=found, state="", **more) for name, found in rows])

    def shown(self, table: PerplexityTable, width: int = 80) -> str:
        return "\n".join("".join(text for text, _ in line) for line in table.lines(width))

    def test_the_lowest_is_marked_where_models_can_be_compared(self) -> None:
        alike = self.table(("A", [Measure(9.5, 40, 100)]), ("B", [Measure(8.25, 40, 100)]))
        assert "8.25*" in self.shown(alike) and "9.5*" not in self.shown(alike) and "40 tok" in self.shown(alike)
        other = self.table(("A", [Measure(9.5, 40, 100)]), ("B", [Measure(8.25, 44, 100)]))
        text = " ".join(self.shown(other).split())
        assert "*" not in text and "40 tok" in text and "44 tok" in text and "cannot be compared" in text

    def test_what_is_not_finite_or_failed_is_said(self) -> None:
        table = self.table(("A", [Measure(None, 40, 100)]), ("B", []))
        table.rows[1].take({"event": "error", "message": "there is no checkpoint\x1b at B."})
        text = self.shown(table)
        assert "not finite" in text and "failed" in text and "B: there is no checkpoint\\x1b at B." in text

    def test_a_text_that_cannot_be_measured_has_its_own_error(self) -> None:
        table = self.table(("A", []), ("B", []), texts=2)
        for row, value in zip(table.rows, (9.5, 8.25), strict=True):
            row.take({"event": "perplexity", "name": "0", "value": None, "error": "/t/0: the file is\x1b empty."})
            row.take({"event": "perplexity", "name": "1", "value": value, "tokens": 40, "window": 100})
        text = self.shown(table)
        assert [line.split()[1:] for line in text.split("\n") if line[:3] in {" A ", " B "}] == [
            ["error", "9.5"],
            ["error", "8.25*"],
        ]
        assert text.count("the file is\\x1b empty.") == 1 and "cannot be compared" not in text and " 0 tok" not in text

    @pytest.mark.parametrize("width", [40, 80, 120])
    def test_many_texts_and_long_names_fit(self, width: int) -> None:
        row = [Measure(12.345 * 10**n, 1000, 100) for n in range(9)]
        table = self.table(("A /somewhere/far/away/模型/model", row), ("B", row[:4]), texts=9)
        lines = self.shown(table, width).split("\n")
        assert max(map(cell_len, lines)) <= width
        assert sum("A /some" in text for text in lines) == -(-9 // max(1, (width - 29) // 12))

    def test_a_long_text_says_how_far_it_is(self) -> None:
        table = self.table(("A", []))
        table.rows[0].take({"event": "loaded"})
        table.rows[0].take({"event": "reading", "name": "t", "tokens": 2048, "total": 10_000})
        assert "2,048 of 10,000 tokens" in self.shown(table)
        table.rows[0].take({"event": "perplexity", "value": 2.0, "tokens": 10_000, "window": 2048})
        assert "2,048 of" not in self.shown(table) and "windows of 2,048" in self.shown(table)
