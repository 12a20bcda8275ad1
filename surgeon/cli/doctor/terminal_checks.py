"""Checks of the terminal: colours, size, encoding, tmux, screen, SSH. Nothing is written to the terminal itself."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .check import Check, ask

LEAST = (80, 24)
_SLOW_ESCAPE = 100
_TMUX_COLOURS = "tmux set -as terminal-features ',*:RGB', then detach and attach again"

Ask = Callable[[Sequence[str]], str | None]


@dataclass(frozen=True)
class TerminalFacts:
    """What is known of the terminal without writing to it. `size` is (columns, rows)."""

    env: Mapping[str, str]
    attached: bool
    size: tuple[int, int] | None
    encoding: str
    ask: Ask = ask

    @classmethod
    def here(cls, env: Mapping[str, str]) -> TerminalFacts:
        """The terminal of this process."""
        size: tuple[int, int] | None = None
        for stream in (sys.__stdout__, sys.__stderr__, sys.__stdin__):
            try:
                if stream is not None and stream.isatty():
                    columns, rows = os.get_terminal_size(stream.fileno())
                    size = columns, rows
                    break
            except (OSError, ValueError):
                continue
        return cls(env, size is not None, size, (sys.stdout.encoding or "").lower())

    @property
    def colours(self) -> int:
        """The number of colours that will be used: 0, 16, 256 or 2**24, by the rules of Rich and Textual."""
        env = self.env
        term = env.get("TERM", "")
        if env.get("NO_COLOR") or term in {"", "dumb", "unknown"}:
            return 0
        chosen = {"truecolor": 2**24, "256": 256, "standard": 16}.get(env.get("TEXTUAL_COLOR_SYSTEM", ""))
        if chosen:
            return chosen
        if env.get("COLORTERM", "").strip().lower() in {"truecolor", "24bit"}:
            return 2**24
        return 2**24 if term.endswith("-direct") else 256 if "256color" in term else 16


def terminal_checks(terminal: TerminalFacts) -> Iterator[Check]:
    """All checks of the terminal."""
    yield _term(terminal)
    yield _colours(terminal)
    yield _encoding(terminal)
    yield _size(terminal)
    if terminal.env.get("SSH_CONNECTION") or terminal.env.get("SSH_TTY"):
        yield _ssh(terminal)
    if terminal.env.get("TMUX"):
        yield from _tmux(terminal)
    elif terminal.env.get("STY"):
        yield Check(
            "screen",
            "warn",
            "GNU screen: no clipboard, no true colour",
            "use tmux, which has both",
        )
    yield _mouse(terminal)


def _term(terminal: TerminalFacts) -> Check:
    term = terminal.env.get("TERM", "")
    if not terminal.attached:
        return Check("terminal", "ok", f"none here: the output is a pipe or a file (TERM={term or 'not set'})")
    if term in {"", "dumb", "unknown"}:
        return Check(
            "terminal", "FAIL", f"TERM={term or 'not set'}: it cannot show screens", "export TERM=xterm-256color"
        )
    return Check("terminal", "ok", f"TERM={term}")


def _colours(terminal: TerminalFacts) -> Check:
    env = terminal.env
    colorterm = env.get("COLORTERM", "not set")
    if env.get("NO_COLOR"):
        return Check("colours", "ok", "none: NO_COLOR is set", "unset NO_COLOR to get colours")
    names = {0: "none", 16: "16", 256: "256", 2**24: "16 million"}
    found = f"{names[terminal.colours]} (COLORTERM={colorterm})"
    if terminal.colours == 2**24 or not terminal.attached:
        return Check("colours", "ok", found)
    if terminal.colours == 256:
        return Check("colours", "ok", found, "export COLORTERM=truecolor if your terminal shows 16 million")
    return Check("colours", "warn", found, "export TERM=xterm-256color, which most terminals understand")


def _encoding(terminal: TerminalFacts) -> Check:
    env = terminal.env
    locale = next((env[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if env.get(name)), "")
    utf = terminal.encoding.replace("-", "").startswith("utf8")
    found = f"{terminal.encoding or 'unknown encoding'}, locale {locale or 'not set'}"
    if utf and ("utf" in locale.lower() or not terminal.attached):
        return Check("encoding", "ok", found)
    return Check("encoding", "warn", found, "export LANG=C.UTF-8, or lines and marks may be drawn wrongly")


def _size(terminal: TerminalFacts) -> Check:
    if terminal.size is None:
        return Check("size", "ok", "no terminal here")
    width, height = terminal.size
    found = f"{width}x{height}"
    if width >= LEAST[0] and height >= LEAST[1]:
        return Check("size", "ok", found)
    return Check("size", "FAIL", found, f"make the window at least {LEAST[0]}x{LEAST[1]}, or the font smaller")


def _ssh(terminal: TerminalFacts) -> Check:
    if terminal.env.get("COLORTERM") or terminal.env.get("TMUX"):
        return Check("ssh", "ok", "over SSH")
    return Check(
        "ssh",
        "warn",
        "over SSH without COLORTERM, so at most 256 colours are used",
        "connect with `ssh -o SendEnv=COLORTERM HOST` (the server needs AcceptEnv COLORTERM), "
        "or export COLORTERM=truecolor",
    )


def _mouse(terminal: TerminalFacts) -> Check:
    if terminal.env.get("SSH_CONNECTION"):
        return Check("mouse", "ok", "never needed; leave it off over SSH, so that selecting text works")
    return Check("mouse", "ok", "never needed; hold Shift (Option on macOS) to select text as usual")


def _tmux(terminal: TerminalFacts) -> Iterator[Check]:
    version = terminal.ask(["tmux", "-V"])
    if version is None:
        yield Check("tmux", "warn", "TMUX is set, but tmux does not answer", "put tmux on the PATH")
        return
    number = re.search(r"(\d+)\.(\d+)", version)
    old = number is not None and (int(number[1]), int(number[2])) < (3, 2)
    yield Check(
        "tmux", "warn" if old else "ok", version, "install tmux 3.2 or newer: older ones lack features" if old else ""
    )
    clipboard = terminal.ask(["tmux", "show", "-sv", "set-clipboard"])
    if clipboard == "on":
        yield Check("tmux clipboard", "ok", "set-clipboard on")
    else:
        yield Check(
            "tmux clipboard",
            "warn",
            f"set-clipboard {clipboard or 'unknown'}: what programs copy does not reach your clipboard",
            "tmux set -s set-clipboard on",
        )
    yield _escape_time(terminal.ask(["tmux", "show", "-sv", "escape-time"]))
    features = terminal.ask(["tmux", "display", "-p", "#{client_termfeatures}"])
    if features is not None and "RGB" in features.split(","):
        yield Check("tmux colours", "ok", "16 million reach the terminal (RGB)")
    else:
        yield Check("tmux colours", "warn", f"256 at most (features: {features or 'unknown'})", _TMUX_COLOURS)


def _escape_time(answer: str | None) -> Check:
    if answer is None or not answer.isdigit():
        return Check("tmux escape-time", "warn", "unknown", "tmux set -s escape-time 20")
    if int(answer) > _SLOW_ESCAPE:
        return Check("tmux escape-time", "warn", f"{answer} ms: Esc reacts late", "tmux set -s escape-time 20")
    return Check("tmux escape-time", "ok", f"{answer} ms")
