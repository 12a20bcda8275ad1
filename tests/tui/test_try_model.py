"""The Try screen: one process for all of them, prompts of several lines, chats, the table of perplexities."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from textual import events
from textual.pilot import Pilot

from surgeon.tui import clipboard
from surgeon.tui.app import SurgeonApp
from surgeon.tui.commands import TRY_COMMANDS
from surgeon.tui.try_model.answers import AT_ONCE, Answer
from surgeon.tui.try_model.model_process import ModelProcess
from surgeon.tui.try_model.perplexity_table import Measure, PerplexityTable, TableRow, fitted
from surgeon.tui.try_model.prompt_area import PromptArea
from surgeon.tui.try_model.try_screen import TryScreen
from surgeon.tui.try_model.try_state import _COMMANDS, TryState
from tests.support.chats import chat_model
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.tui import app, command, donors, keys, line


async def until(pilot: Pilot[None], ready: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a child process to get somewhere."""
    for _ in range(int(seconds / 0.05)):
        await pilot.pause()
        if ready():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never happened")


def screen_of(application: SurgeonApp) -> TryScreen:
    screen = application.screen
    assert isinstance(screen, TryScreen)
    return screen


@asynccontextmanager
async def opened(
    refs: list[str], edit: str = "insert A:0-2", size: tuple[int, int] = (120, 40)
) -> AsyncIterator[tuple[SurgeonApp, Pilot[None], TryScreen]]:
    """The Try screen of a stack, with its model loaded."""
    application = app(refs)
    async with application.run_test(size=size) as pilot:
        await command(pilot, edit)
        await keys(pilot, "T")
        screen = screen_of(application)
        await until(pilot, lambda: not screen.conversation.busy and bool(screen.conversation.left.answers))
        yield application, pilot, screen


@pytest.fixture
def chats(in_tmp: Path) -> list[str]:
    endless: dict[str, Any] = {"max_position_embeddings": 100_000, "eos_token_id": None}
    chat_model(in_tmp / "a", seed=0, **endless)
    tiny_tokenizer(tiny_model(in_tmp / "b", layers=3, seed=1, **endless))
    return ["./a", "./b"]


class Requests:
    """Notes what is sent to the process instead of sending it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sent: list[dict[str, Any]] = []
        self.sinks: list[Callable[[dict[str, Any]], None]] = []
        patch.setattr(ModelProcess, "send", self.send)

    async def send(self, request: dict[str, Any], on_event: Callable[[dict[str, Any]], None]) -> int:
        self.sent.append(request)
        self.sinks.append(on_event)
        return len(self.sent)

    @property
    def prompts(self) -> list[str]:
        return [request["prompt"] for request in self.sent if request.get("prompt") is not None]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    return Requests(monkeypatch)


class TestOneProcess:
    """The process belongs to the application: it is there again for the next screen, and ends with the interface."""

    async def test_the_second_screen_finds_the_model_loaded(self, chats: list[str]) -> None:
        async with opened(chats) as (application, pilot, screen):
            process = application.try_state.process.process
            assert process is not None
            assert screen.conversation.left.answers[0].state.startswith("ready after ")
            await keys(pilot, "escape escape")
            assert application.screen is application.surgery and process.returncode is None
            await keys(pilot, "T")
            again = screen_of(application)
            await until(pilot, lambda: again.conversation.left.answers[0].state.startswith("ready after "))
            assert application.try_state.process.process is process
            await keys(pilot, "escape escape")
            await command(pilot, "delete 0")
            await keys(pilot, "T")
            last = screen_of(application)
            await until(pilot, lambda: last.conversation.left.answers[0].state.startswith("ready after "))
            assert application.try_state.process.process is process
            given = Path(last.conversation.left.target)
            assert given.is_file()
        assert not given.exists()
        for _ in range(100):
            if process.returncode is not None:
                break
            await asyncio.sleep(0.1)
        assert process.returncode == -signal.SIGTERM

    async def test_the_time_is_that_since_the_screen_was_opened(self, in_tmp: Path, requests: Requests) -> None:
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=(80, 24)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T")
            screen = screen_of(application)
            await until(pilot, lambda: bool(requests.sent))
            screen.conversation.left.answers[0].since -= 7
            requests.sinks[0]({"event": "loaded", "seconds": 0.1, "layers": 3, "chat": False})
            requests.sinks[0]({"event": "done", "text": None, "load_seconds": 0.1})
            assert screen.conversation.left.answers[0].state.startswith("ready after 7.")

    async def test_it_ends_when_it_is_idle_for_long_and_starts_again(self, in_tmp: Path) -> None:
        tiny_tokenizer(tiny_model(in_tmp / "a", layers=1))
        process, found = ModelProcess(idle=0.5), list[dict[str, Any]]()
        request = {"target": str(in_tmp / "a"), "kind": "path", "prompt": "Hi", "n": 2, "device": "cpu"}
        pids = []
        for _ in range(2):
            found.clear()
            await process.send(request, found.append)
            assert process.process is not None
            pids.append(process.process.pid)
            child = process.process
            while not found or found[-1]["event"] != "done":
                await asyncio.sleep(0.05)
            await asyncio.wait_for(child.wait(), 20)
            assert process.process is None and child.returncode == -signal.SIGTERM
        assert pids[0] != pids[1]

    async def test_a_process_that_is_killed_is_reported_and_the_next_prompt_starts_another(
        self, chats: list[str]
    ) -> None:
        async with opened(chats) as (application, pilot, screen):
            process = application.try_state.process.process
            assert process is not None
            await keys(pilot, "escape")
            application.try_state.settings.tokens = 100_000
            await keys(pilot, "i H i enter")
            await until(pilot, lambda: screen.conversation.busy)
            os.kill(process.pid, signal.SIGKILL)
            await until(pilot, lambda: screen.conversation.left.answers[-1].bad)
            assert "the model's process ended" in screen.conversation.left.answers[-1].state
            application.try_state.settings.tokens = 2
            await keys(pilot, "enter")
            await until(pilot, lambda: "2 tokens" in screen.conversation.left.answers[-1].state)

    async def test_leaving_stops_what_was_asked(self, chats: list[str]) -> None:
        async with opened(chats) as (application, pilot, screen):
            application.try_state.settings.tokens = 100_000
            await keys(pilot, "H i enter enter")
            await until(pilot, lambda: bool(screen.conversation.left.answers[1].text))
            numbers = [answer.number for answer in screen.conversation.left.answers[1:]]
            await keys(pilot, "escape escape")
            process = application.try_state.process
            await until(pilot, lambda: not process.is_open(number for number in numbers if number is not None))
            assert process.running

    async def test_it_imports_no_module_of_the_working_folder(self, chats: list[str]) -> None:
        for name in ("torch", "json", "transformers"):
            Path(f"{name}.py").write_text("raise SystemExit('imported')\n")
        async with opened(chats) as (_, _, screen):
            assert screen.conversation.left.answers[0].state.startswith("ready after ")


class TestPrompts:
    """Prompts have any number of lines."""

    async def test_enter_sends_and_ctrl_j_begins_a_line(self, in_tmp: Path, requests: Requests) -> None:
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=(80, 24)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T a ctrl+j space b enter")
            await until(pilot, lambda: bool(requests.prompts))
            assert requests.prompts == ["a\n b"]
            screen = screen_of(application)
            await until(pilot, lambda: "> a" in screen.query_one("#left").text)
            assert " > a\n    b\n" in screen.query_one("#left").text

    @pytest.mark.parametrize("size", [(80, 24), (120, 40)])
    async def test_a_long_prompt_of_a_probe_set_leaves_the_screen_whole(
        self, in_tmp: Path, requests: Requests, size: tuple[int, int]
    ) -> None:
        prompt = "def f(x):\n\tif x:\n" + "".join(f"        return {n}\n" for n in range(30))
        (in_tmp / "probes").mkdir()
        (in_tmp / "probes" / "code.jsonl").write_text(json.dumps({"prompt": prompt, "expected": "1"}) + "\n")
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=size) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T")
            screen = screen_of(application)
            box = screen.query_one(PromptArea)
            assert box.text == prompt and 1 < box.size.height <= 6
            assert screen.query_one("#footer").region.bottom == size[1] and screen.query_one("#left").size.height > 5
            await keys(pilot, "enter")
            await until(pilot, lambda: bool(requests.prompts))
            assert requests.prompts == [prompt]

    async def test_a_pasted_text_keeps_its_lines_and_typing_replaces_what_was_sent(
        self, in_tmp: Path, requests: Requests
    ) -> None:
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=(80, 24)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T")
            box = screen_of(application).query_one(PromptArea)
            application.post_message(events.Paste("one\ntwo\x1b[31m"))
            await pilot.pause()
            await pilot.pause()
            assert box.text == "one\ntwo\x1b[31m"
            shown = "\n".join("".join(segment.text for segment in strip) for strip in box.render_lines(box.size.region))
            assert "two" in shown and "\x1b" not in shown
            await keys(pilot, "enter n e w enter")
            await until(pilot, lambda: len(requests.prompts) == 2)
            assert requests.prompts[1] == "new"
            await keys(pilot, "up")
            assert box.text == "one\ntwo\x1b[31m"
            await keys(pilot, "down")
            assert box.text == "new"
            await keys(pilot, "down down x")
            assert box.text == "x"

    async def test_tab_stays_and_escape_leaves(self, in_tmp: Path, requests: Requests) -> None:
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=(80, 24)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T x tab shift+tab ctrl+u pageup s")
            screen = screen_of(application)
            box = screen.query_one(PromptArea)
            assert screen.focused is box and box.text == "s" and not requests.prompts
            await keys(pilot, "escape")
            assert screen.focused is not box and application.screen is screen
            await keys(pilot, "escape")
            assert application.screen is application.surgery


class TestChat:
    """A prompt is a message where there is a chat template."""

    async def test_chats_and_raw_text(self, chats: list[str]) -> None:
        async with opened(chats) as (application, pilot, screen):
            application.try_state.settings.tokens = 4
            await until(pilot, lambda: " chat " in line(pilot, "header"))
            await keys(pilot, "H i enter")
            await until(pilot, lambda: "tok/s" in screen.conversation.left.answers[-1].state)
            assert screen.conversation.left.answers[-1].state.startswith("chat, 4 tokens")
            await keys(pilot, "escape r")
            assert "raw text" in line(pilot, "status")
            await until(pilot, lambda: " raw " in line(pilot, "header"))
            await keys(pilot, "i enter")
            await until(pilot, lambda: "tok/s" in screen.conversation.left.answers[-1].state)
            assert screen.conversation.left.answers[-1].state.startswith("raw, 4 tokens")
            # Its own columns say what was done: B has no template.
            await keys(pilot, "escape r b b i enter")
            right = screen.conversation.right
            assert right is not None and right.name == "B ./b"
            await until(pilot, lambda: bool(right.answers) and "tok/s" in right.answers[-1].state)
            assert right.answers[-1].state.startswith("raw, ")
            assert screen.conversation.left.answers[-1].state.startswith("chat, ")

    async def test_a_model_without_a_template_says_so(self, chats: list[str]) -> None:
        async with opened(chats, "insert B:0-2") as (_, pilot, _):
            await until(pilot, lambda: " raw " in line(pilot, "header"))
            await keys(pilot, "escape r")
            assert "no chat template" in line(pilot, "status") and " raw " in line(pilot, "header")

    async def test_typed_settings_go_with_every_prompt(self, in_tmp: Path, requests: Requests) -> None:
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=(80, 24)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T")
            box = screen_of(application).query_one(PromptArea)
            for text in ("temperature 0.7", "top_p 0.9", "seed 3", "n 12", "system Be brief."):
                box.load_text(f":{text}")
                await keys(pilot, "enter")
                assert "error" not in line(pilot, "status") and box.text == ""
            await keys(pilot, "H i enter")
            await until(pilot, lambda: bool(requests.prompts))
            wanted = {"prompt": "Hi", "n": 12, "temperature": 0.7, "top_p": 0.9, "seed": 3, "chat": True}
            assert wanted.items() <= requests.sent[-1].items() and requests.sent[-1]["system"] == "Be brief."
            await keys(pilot, "escape escape T H i enter")
            await until(pilot, lambda: len(requests.prompts) == 2)
            assert wanted.items() <= requests.sent[-1].items()

    async def test_a_text_that_begins_with_a_colon(self, in_tmp: Path, requests: Requests) -> None:
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=(80, 24)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T")
            box = screen_of(application).query_one(PromptArea)
            box.load_text(":temprature 1")
            await keys(pilot, "enter")
            assert "did you mean :temperature?" in line(pilot, "status") and not requests.prompts
            box.load_text("::temperature")
            await keys(pilot, "enter")
            await until(pilot, lambda: bool(requests.prompts))
            assert requests.prompts == [":temperature"]

    async def test_every_command_is_listed_with_the_keys(self, in_tmp: Path, requests: Requests) -> None:
        assert set(_COMMANDS) == set(TRY_COMMANDS)
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=(80, 60)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T escape question_mark")
            shown = application.screen.query_one("#body").text
            for word in TRY_COMMANDS:
                assert f":{word} " in shown
            assert "^j" in shown

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("n", "write :n N"),
            ("n -1", "write :n N"),
            ("n ²", "write :n N"),
            ("temperature hot", "write :temperature T"),
            ("temperature nan", "from 0 to 100"),
            ("top_p 2", "from 0 to 1"),
            ("seed 1.5", "write :seed N"),
            ("probe", "write :probe FILE"),
            ("text /nowhere", "there is no file"),
            ("", "there is no command"),
        ],
    )
    def test_what_is_wrong_changes_nothing(self, text: str, message: str) -> None:
        state = TryState()
        said, severity = state.command(text)
        assert message in said and severity == "error"
        assert state == TryState(process=state.process)

    def test_an_answer_without_a_token_says_so(self) -> None:
        answer = Answer("Hi")
        answer.take({"event": "loaded", "layers": 3})
        answer.take({"event": "done", "text": "", "tokens": 0, "stop": "eos", "chat": True, "finite": True})
        assert AT_ONCE in answer.state and "ready" not in answer.state and not answer.bad


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

    @pytest.mark.parametrize(("text", "width"), [("short", 9), ("a rather long name", 9), ("模型模型模型", 7)])
    def test_fitted(self, text: str, width: int) -> None:
        found = fitted(text, width)
        assert cell_len(found) <= width and found[0] == text[0] and found[-1] == text[-1]
        assert cell_len(fitted(text, width, pad=True)) == width


class TestClipboard:
    """`y` copies by OSC 52, or through tmux."""

    async def test_the_answers(self, in_tmp: Path, requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TMUX", raising=False)
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=(80, 24)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T H i enter")
            await until(pilot, lambda: bool(requests.prompts))
            requests.sinks[-1]({"event": "token", "text": "one\ntwo\x1b]0;"})
            await keys(pilot, "escape y")
            assert "OSC 52" in line(pilot, "status")
            copied = application.clipboard
            assert "> Hi\none\ntwo\\x1b]0;\n" in copied and "\x1b" not in copied

    async def test_tmux_is_given_the_text_itself(self, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = in_tmp / "tmux"
        without_w = '[ "$2" = -w ] && exit 1'
        program.write_text(f'#!/bin/sh\n{without_w}\necho "$@" > {in_tmp}/words\ncat > {in_tmp}/given\n')
        program.chmod(0o755)
        monkeypatch.setenv("TMUX", "/tmp/x,1,0")
        monkeypatch.setenv("PATH", f"{in_tmp}:{os.environ['PATH']}")
        application = app([])
        async with application.run_test(size=(80, 24)):
            assert "copied 2 lines, to tmux" in clipboard.copy(application, "one\nzwö\n")
            assert (in_tmp / "given").read_text() == "one\nzwö\n"
            assert (in_tmp / "words").read_text() == "load-buffer -\n"
            assert application.clipboard == ""
            program.write_text("#!/bin/sh\nexit 1\n")
            assert "OSC 52" in clipboard.copy(application, "one") and application.clipboard == "one"
            assert "nothing is copied" in clipboard.copy(application, "x" * (clipboard.LIMIT + 1))
            assert "nothing to copy" in clipboard.copy(application, "\n")
            assert application.clipboard == "one"


async def test_the_wait_for_a_cancelled_request_is_short(in_tmp: Path) -> None:
    """A forward pass over a long text is left at once."""
    tiny_tokenizer(tiny_model(in_tmp / "a", layers=24, max_position_embeddings=40_000))
    (in_tmp / "long.txt").write_text("some words " * 1700)
    process, found = ModelProcess(), list[dict[str, Any]]()
    request = {"target": str(in_tmp / "a"), "kind": "path", "prompt": None, "device": "cpu"}
    await process.send(request, found.append)
    while not found or found[-1]["event"] != "done":
        await asyncio.sleep(0.02)
    found.clear()
    number = await process.send({**request, "texts": [str(in_tmp / "long.txt")]}, found.append)
    while not any(event["event"] == "loaded" for event in found):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    before = time.monotonic()
    await process.cancel([number])
    while found[-1]["event"] not in {"cancelled", "done"}:
        await asyncio.sleep(0.02)
    took = time.monotonic() - before
    await process.end()
    assert found[-1]["event"] == "cancelled", took
