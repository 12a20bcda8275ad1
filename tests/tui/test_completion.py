"""Completion of the command line, with tab."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input

from surgeon.recipe.edits import EDITS
from surgeon.tui.commands import COMMANDS
from surgeon.tui.completion import _WORDS, PATHS, Completer, Completion, usage
from tests.support.tui import app, cells, command, donors, keys, line, rows

DONORS = {"./a": ("A", 8), "./some model": ("B", 30)}


@pytest.mark.parametrize(
    ("typed", "completed", "choices"),
    [
        ("ins", "insert ", ""),
        ("un", "unblend ", ""),
        ("ex", "expand ", ""),
        ("e", "e", "edges edit end expand"),
        ("in", "in", "insert interleave"),
        ("me", "me", "messages method"),
        ("insert ", "insert ", "@end A: B:"),
        ("insert b", "insert B:", ""),
        ("insert B:", "insert B:0-29 ", ""),
        ("insert A:0-7 @", "insert A:0-7 @end ", ""),
        ("replace 0-3 a", "replace 0-3 A:", ""),
        ("blend 0-3 B:0-3 meth", "blend 0-3 B:0-3 method=", ""),
        ("blend 0-3 B:0-3 method=sl", "blend 0-3 B:0-3 method=slerp ", ""),
        ("blend 0-3 B:0-3 method=dare", "blend 0-3 B:0-3 method=dare_", "dare_linear dare_ties"),
        ("blend 0-3 B:0-3 method=slerp t", "blend 0-3 B:0-3 method=slerp t=", ""),
        ("blend 0-3 B:0-3 base=", "blend 0-3 B:0-3 base=", "A B"),
        ("param 0-3 t=.5 filter=self", "param 0-3 t=.5 filter=self_attn ", ""),
        ("method 0-3 tie", "method 0-3 ties ", ""),
        ("end ", "end ", "embeddings final_norm lm_head"),
        ("end lm_head ti", "end lm_head tie ", ""),
        ("edges f", "edges first ", ""),
        ("edges first 2 mod", "edges first 2 model=", ""),
        ("edges first 2 model=A ta", "edges first 2 model=A taper ", ""),
        ("upscale A ", "upscale A ", "m= n="),
        ("interleave A B bl", "interleave A B block=", ""),
        ("base au", "base auto ", ""),
        ("base ./so", "base './some model' ", ""),
        ("dtype bf", "dtype bfloat16 ", ""),
        ("scale 0-3 o_", "scale 0-3 o_proj=", ""),
        ("dup", "duplicate ", ""),
        ("mouse o", "mouse o", "off on"),
        ("nothing ", "nothing ", ""),
        ("delete ", "delete ", ""),
    ],
)
def test_what_is_typed_is_completed(typed: str, completed: str, choices: str) -> None:
    assert Completer(DONORS).complete(typed) == Completion(completed, tuple(choices.split()))


def test_paths_are_completed(in_tmp: Path) -> None:
    (in_tmp / "models").mkdir()
    (in_tmp / "models" / "one two").mkdir()
    (in_tmp / "models" / "one.safetensors").write_text("")
    (in_tmp / "models" / ".hidden").write_text("")
    (in_tmp / "models" / "one\x1b[31m").write_text("")
    for verb in PATHS:
        complete = Completer(DONORS).complete
        assert complete(f"{verb} mo") == Completion(f"{verb} models/")
        assert complete(f"{verb} models/") == Completion(f"{verb} models/one", ("one two/", "one.safetensors"))
        assert complete(f"{verb} models/one t") == Completion(f"{verb} models/one two/")
        assert complete(f"{verb} {in_tmp}/mo") == Completion(f"{verb} {in_tmp}/models/")
        assert complete(f"{verb} nowhere/x") == Completion(f"{verb} nowhere/x")


def test_every_command_with_words_is_known_and_has_a_usage() -> None:
    assert set(_WORDS) <= {kind.verb for kind in EDITS} | set(COMMANDS)
    assert usage("delete 3") == "delete 16-17   remove layers 16 to 17 from the stack"
    assert usage("dup") == usage("duplicate") != "" == usage("nothing")
    assert usage("open ./x").startswith("open [PATH]")


async def test_tab_completes_and_never_moves_the_focus(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await keys(pilot, "colon tab")
        box = application.surgery.query_one("#line", Input)
        assert "upscale write yaml" in " ".join(line(pilot, "detail").split())
        assert "yaml" in rows(application)[21], "all of them are on the screen"
        await keys(pilot, "i n s tab b tab tab shift+tab")
        assert application.focused is box and box.value == "insert B:0-7 "
        await keys(pilot, "enter")
        assert len(cells(application)) == 12
        assert "insert" not in line(pilot, "detail")
        await keys(pilot, "slash tab shift+tab")
        assert application.focused is box
        await keys(pilot, "escape")
        assert application.focused is not box


async def test_tab_completes_before_the_cursor(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "colon i n s A left tab")
        assert application.surgery.query_one("#line", Input).value == "insert A"


async def test_tab_stays_in_the_lines_of_other_screens(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-7")
        await keys(pilot, "apostrophe apostrophe 0 G v 3 j b d tab shift+tab")
        assert isinstance(application.focused, Input)
        await keys(pilot, "escape enter f tab shift+tab")
        assert isinstance(application.focused, Input) and application.focused.id == "typed"
