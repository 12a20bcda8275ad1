"""The Try screen: prompts of several lines, chats and raw text, typed settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from textual import events

from surgeon.tui.commands import TRY_COMMANDS
from surgeon.tui.try_model.answers import AT_ONCE, Answer
from surgeon.tui.try_model.prompt_area import PromptArea
from surgeon.tui.try_model.try_state import _COMMANDS, TryState
from tests.support.trying import Requests, answer, opened, screen_of, until
from tests.support.tui import app, command, donors, keys, line


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
            await until(pilot, lambda: "> a" in screen.query_one("#answers").text)
            assert " > a\n    b\n" in screen.query_one("#answers").text

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
            assert screen.query_one("#footer").region.bottom == size[1] and screen.query_one("#answers").size.height > 5
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
            await until(pilot, lambda: "tok/s" in answer(screen).state)
            assert answer(screen).state.startswith("chat, 4 tokens")
            await keys(pilot, "escape r")
            assert "raw text" in line(pilot, "status")
            await until(pilot, lambda: " raw " in line(pilot, "header"))
            await keys(pilot, "i enter")
            await until(pilot, lambda: "tok/s" in answer(screen).state)
            assert answer(screen).state.startswith("raw, 4 tokens")
            # Its own columns say what was done: B has no template.
            await keys(pilot, "escape r b B enter i enter")
            assert screen.conversation.columns[1].name == "B ./b"
            await until(pilot, lambda: "tok/s" in answer(screen, 1).state)
            assert answer(screen, 1).state.startswith("raw, ")
            assert answer(screen).state.startswith("chat, ")

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
        made = Answer()
        made.take({"event": "loaded", "layers": 3})
        made.take({"event": "done", "text": "", "tokens": 0, "stop": "eos", "chat": True, "finite": True})
        assert AT_ONCE in made.state and "ready" not in made.state and not made.bad


async def test_the_answers_are_copied(in_tmp: Path, requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert "> Hi\n\nthis recipe:\none\ntwo\\x1b]0;\n" in copied and "\x1b" not in copied
