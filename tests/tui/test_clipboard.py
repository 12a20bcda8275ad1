"""Copying to the clipboard of the terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from surgeon.tui import clipboard
from tests.support.tui import app


async def test_tmux_is_given_the_text_itself(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
