"""What stays from one Try screen to the next: the models' process, conversations, files that were typed, settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...files import expanded, is_file
from ...text import nearest, one_line
from ..commands import TRY_COMMANDS
from ..session import Session
from .model_process import ModelProcess

if TYPE_CHECKING:
    from .conversation import Conversation
    from .tried_history import TriedHistory

TOKENS = 64
"""Most tokens of an answer, until `:n` says otherwise."""
MAX_TOKENS = 100_000
_LARGEST_SEED = 2**63 - 1


@dataclass
class Settings:
    """How prompts are answered.

    Attributes:
        raw: prompts are raw text even where there is a chat template.
        system: the system's message of a chat; None for none.
        tokens: most tokens of an answer.
    """

    raw: bool = False
    system: str | None = None
    tokens: int = TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def request(self, prompt: str) -> dict[str, Any]:
        """The request that generates from a prompt."""
        return {
            "prompt": prompt,
            "n": self.tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "chat": not self.raw,
            "system": None if self.raw else self.system,
        }

    def sentence(self) -> str:
        """All settings in one line."""
        system = f", system {one_line(self.system)!r}" if self.system else ""
        if self.temperature == 0:
            return f"up to {self.tokens} tokens, the likeliest each time (:temperature samples){system}"
        sampling = f"temperature {self.temperature:g}, top_p {self.top_p:g}, seed {self.seed}"
        return f"up to {self.tokens} tokens, {sampling}{system}"


@dataclass
class TryState:
    """Shared by all Try screens of the application.

    Attributes:
        probes: probe sets that were given or typed.
        texts: texts that were typed.
        bundled: names of bundled sets that `s` scores too.
        prompts: prompts that were sent, oldest first.
        conversations: answers and scores, by the recipe's file and the output that is tried.
        history: keeps what is tried; None before it is needed.
        keep_history: whether it does.
    """

    probes: list[Path] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    bundled: list[str] = field(default_factory=list)
    settings: Settings = field(default_factory=Settings)
    prompts: list[str] = field(default_factory=list)
    process: ModelProcess = field(default_factory=ModelProcess)
    conversations: dict[tuple[Path | None, Path | None], Conversation] = field(default_factory=dict)
    history: TriedHistory | None = None
    keep_history: bool = True

    def conversation(self, session: Session, output: Path | None, on_problem: Callable[[str], None]) -> Conversation:
        """The conversation with a recipe or an output: the earlier one, or a new one."""
        from .conversation import Conversation

        history = self.history_of(session)
        history.on_problem = on_problem
        key = (session.document.path, output)
        if key not in self.conversations and (unsaved := self.conversations.pop((None, output), None)) is not None:
            # The recipe was saved for the first time.
            self.conversations[key] = unsaved
        if key not in self.conversations:
            self.conversations[key] = Conversation(session, output, self.process, history)
        self.conversations[key].on_problem = on_problem
        return self.conversations[key]

    def history_of(self, session: Session) -> TriedHistory:
        """What keeps the rows of the results file."""
        from .tried_history import TriedHistory

        if self.history is None:
            self.history = TriedHistory(session)
            self.history.on = self.keep_history
        return self.history

    def command(self, text: str) -> tuple[str, str]:
        """Carry out a typed command without its colon; returns what to say, and its severity."""
        word, _, rest = text.strip().partition(" ")
        run = _COMMANDS.get(word)
        if run is None:
            meant = nearest(word, _COMMANDS)
            hint = f"did you mean :{meant}?" if meant else "? lists them; begin with :: to send text"
            return f"there is no command :{one_line(word)} here: {hint}", "error"
        try:
            return run(self, rest.strip()), ""
        except ValueError as error:
            return str(error) or f"write :{TRY_COMMANDS[word][0]}", "error"


def _tokens(state: TryState, value: str) -> str:
    state.settings.tokens = max(1, min(_integer(value), MAX_TOKENS))
    return state.settings.sentence()


def _temperature(state: TryState, value: str) -> str:
    state.settings.temperature = _number(value, 0.0, 100.0)
    return state.settings.sentence()


def _top_p(state: TryState, value: str) -> str:
    state.settings.top_p = _number(value, 0.0, 1.0)
    if state.settings.temperature == 0:
        return f"top_p {state.settings.top_p:g}, which has an effect from a :temperature above 0 on"
    return state.settings.sentence()


def _seed(state: TryState, value: str) -> str:
    state.settings.seed = min(_integer(value), _LARGEST_SEED)
    return state.settings.sentence()


def _system(state: TryState, value: str) -> str:
    state.settings.system = value or None
    if value and state.settings.raw:
        return "kept for chats: prompts are raw text now (esc, then r switches)"
    return f"the system's message is {one_line(value)!r}" if value else "no system's message"


def _probe(state: TryState, value: str) -> str:
    return f"added {one_line(_add(state.probes, value))}: esc, then s scores it"


def _text(state: TryState, value: str) -> str:
    return f"added {one_line(_add(state.texts, value))}: esc, then x measures it"


def _bundled(state: TryState, value: str) -> str:
    from .scoring import bundled_names

    try:
        names = bundled_names(value)
    except InputError as error:
        raise ValueError(error.what) from None
    if not names:
        raise ValueError
    state.bundled = list(dict.fromkeys([*state.bundled, *names]))
    return f"added {', '.join(names)}: esc, then s scores it"


def _history(state: TryState, value: str) -> str:
    if value not in {"on", "off"}:
        raise ValueError
    state.keep_history = value == "on"
    if state.history is not None:
        state.history.on = state.keep_history
    return "what you try is kept in the results file" if state.keep_history else "what you try is not kept"


_COMMANDS: dict[str, Callable[[TryState, str], str]] = {
    "system": _system,
    "temperature": _temperature,
    "top_p": _top_p,
    "seed": _seed,
    "n": _tokens,
    "probe": _probe,
    "text": _text,
    "bundled": _bundled,
    "history": _history,
}


def _integer(value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 20:
        raise ValueError
    return int(value)


def _number(value: str, low: float, high: float) -> float:
    try:
        found = float(value)
    except ValueError:
        raise ValueError from None
    if not low <= found <= high:
        raise ValueError(f"write a number from {low:g} to {high:g}")
    return found


def _add(paths: list[Path], value: str) -> Path:
    if not value:
        raise ValueError
    path = expanded(value)
    if not is_file(path):
        raise ValueError(f"there is no file {one_line(path)}")
    path = path.absolute()
    if path not in paths:
        paths.append(path)
    return path
