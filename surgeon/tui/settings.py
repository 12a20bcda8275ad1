"""The user's settings of the interface: theme and keys, from a YAML file in the user's configuration folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from ..errors import InputError
from ..recipe.yaml.nodes import Place, TextError, build, lines, plain
from ..statefile import read_bytes
from ..text import nearest, one_line
from .actions import ACTIONS, COUNTED, Action, ScreenName

MAX_BYTES = 100_000
THEMES = ("dark", "light", "auto")
_KEY_NAMES = {
    "solidus": "slash", "reverse_solidus": "backslash", "commercial_at": "at", "hyphen_minus": "minus",
    "plus_sign": "plus", "low_line": "underscore",
}  # fmt: skip
"""Where Textual names a key otherwise than Unicode does."""
_MODIFIERS = ("ctrl+", "alt+", "shift+")


@dataclass(frozen=True)
class Settings:
    """What a user may choose.

    Attributes:
        theme: `dark`, `light`, or `auto`.
        keys: keys by (screen, action), in the place of the registry's.
    """

    theme: str = "auto"
    keys: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def actions(self) -> tuple[Action, ...]:
        """The registry with the user's keys."""
        from dataclasses import replace

        found = []
        for action in ACTIONS:
            keys = self.keys.get((action.screen, action.name))
            if keys is not None:
                action = replace(action, keys=keys, show=" ".join(_shown(key) for key in keys))
            found.append(action)
        return tuple(found)


def settings_path() -> Path | None:
    """The file of the settings; None if the user's home is unknown."""
    import platformdirs

    try:
        folder = platformdirs.user_config_path("surgeon", appauthor=False)
    except RuntimeError:
        return None
    return folder / "config.yaml" if folder.is_absolute() else None


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings; the defaults if there is no file.

    Raises:
        InputError: the file is not valid; with its line.
    """
    path = path or settings_path()
    if path is None:
        return Settings()
    try:
        text = read_bytes(path, MAX_BYTES, follow=True).decode("utf-8-sig")
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        raise InputError(
            f"the settings cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)
        ) from error
    try:
        trees = build(text)
        data = plain(trees[0]) if trees else {}
    except TextError as error:
        where = f"{path}, line {error.line}" if error.line else str(path)
        raise InputError("the settings are not valid YAML", where=where, why=one_line(error)) from error
    return _Reader(path, dict(lines(trees[0])) if trees else {}).settings(data)


class _Reader:
    """Checks the data of a settings file; every error has its line."""

    def __init__(self, path: Path, places: Mapping[Place, int]) -> None:
        self._path, self._places = path, places

    def _bad(self, what: str, *place: str | int, remedy: str = "") -> InputError:
        line = self._places.get(place)
        return InputError(what, where=f"{self._path}, line {line}" if line else str(self._path), remedy=remedy)

    def settings(self, data: Any) -> Settings:
        if data is None:
            return Settings()
        if not isinstance(data, dict):
            raise self._bad("the settings are a table with `theme` and `keys`")
        for key in data:
            if key not in ("theme", "keys"):
                raise self._bad(f"there is no setting {key!r}", key, remedy=_advice(key, ("theme", "keys")))
        theme = data.get("theme", "auto")
        if theme not in THEMES:
            raise self._bad(f"there is no theme {one_line(theme)!r}", "theme", remedy=f"use {', '.join(THEMES)}")
        keys = data.get("keys") or {}
        if not isinstance(keys, dict):
            raise self._bad("`keys` is a table of screens", "keys")
        settings = Settings(theme, dict(entry for screen in keys for entry in self._screen(screen, keys[screen])))
        self._check_conflicts(settings)
        return settings

    def _screen(self, screen: str, table: Any) -> list[tuple[tuple[str, str], tuple[str, ...]]]:
        screens = get_args(ScreenName)
        if screen not in screens:
            raise self._bad(f"there is no screen {screen!r}", "keys", screen, remedy=_advice(screen, screens))
        if not isinstance(table, dict):
            raise self._bad("a screen's keys are a table of actions", "keys", screen)
        found = []
        names = [action.name for action in ACTIONS if action.screen == screen]
        for name, keys in table.items():
            if name not in names:
                raise self._bad(
                    f"the screen {screen} has no action {name!r}", "keys", screen, name, remedy=_advice(name, names)
                )
            words = keys if isinstance(keys, list) else [keys]
            # YAML reads an unquoted digit as a number.
            texts = [str(word) if isinstance(word, int) and not isinstance(word, bool) else word for word in words]
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise self._bad("keys are texts such as x, ctrl+k or `g g`", "keys", screen, name)
            named = []
            for text in texts:
                if (sequence := key_name(text)) is None:
                    raise self._bad(f"{one_line(text)!r} is no key", "keys", screen, name, remedy="name it as in x, "
                                    "ctrl+k, f5, left, or two keys as in `g g`")  # fmt: skip
                if screen in (*COUNTED, "any") and sequence[0].isdigit():
                    raise self._bad(
                        f"{one_line(text)!r} cannot be a key of the screen {screen}: digits before a key are a count",
                        "keys", screen, name, remedy="begin with another key, as in `g 1`",
                    )  # fmt: skip
                named.append(sequence)
            found.append(((screen, name), tuple(named)))
        return found

    def _check_conflicts(self, settings: Settings) -> None:
        """Refuse two actions of a screen on one key, and a key that begins another one's sequence."""
        actions = settings.actions()
        for screen in get_args(ScreenName):
            here = [action for action in actions if action.screen in (screen, "any")]
            mine = [action for action in here if (action.screen, action.name) in settings.keys]
            for action in mine:
                for other in here:
                    if other is not action and (key := _common_key(action, other)) is not None:
                        raise self._bad(
                            f"the key {_shown(key)} of the screen {screen} would do {other.name} and {action.name}",
                            "keys", action.screen, action.name, remedy=f"give {other.name} another key too",
                        )  # fmt: skip


def _common_key(one: Action, other: Action) -> str | None:
    """A key of one action that is a key of the other too, or with which one of them would never be reached."""
    for key in one.keys:
        for also in other.keys:
            if key == also or key.split()[0] == also or key == also.split()[0]:
                return key
    return None


def _advice(word: object, known: tuple[str, ...] | list[str]) -> str:
    guess = nearest(str(word), known)
    return f"did you mean {guess}" if guess else f"use one of {', '.join(sorted(set(known)))}"


def key_name(text: str) -> str | None:
    """Textual's name of a key, or of two keys in turn, written as a person would: `.`, `ctrl+k`, `g g`; else None."""
    words = text.split() if text.strip() else []
    names = [_one_key(word) for word in words]
    return " ".join(name for name in names if name) if 1 <= len(names) <= 2 and all(names) else None


_NAMED = {
    "enter", "escape", "tab", "space", "backspace", "delete", "insert", "home", "end", "pageup", "pagedown", "up",
    "down", "left", "right", *(f"f{number}" for number in range(1, 13)),
}  # fmt: skip


def _one_key(word: str) -> str | None:
    lead = ""
    while (modifier := next((m for m in _MODIFIERS if word.startswith(m) and len(word) > len(m)), None)) is not None:
        lead, word = lead + modifier, word[len(modifier) :]
    if len(word) == 1 and word.isprintable():
        if not word.isalnum():
            name = unicodedata.name(word, "").lower().replace("-", "_").replace(" ", "_")
            word = _KEY_NAMES.get(name, name)
        return lead + word if word else None
    known = _NAMED | {key for action in ACTIONS for keys in action.keys for key in keys.split()}
    return lead + word if word in known else None


def _shown(key: str) -> str:
    """A key as the screen shows it."""
    return "".join(_shown_key(one) for one in key.split())


def _shown_key(key: str) -> str:
    for modifier, sign in (("ctrl+", "^"), ("shift+", "S-"), ("alt+", "M-")):
        if key.startswith(modifier):
            return sign + _shown_key(key.removeprefix(modifier))
    plain_names = {value: name for name, value in _KEY_NAMES.items()}
    name = plain_names.get(key, key).replace("_", " ").upper()
    for candidate in (name, name.replace(" ", "-"), name.replace("MINUS", "-MINUS")):
        try:
            return unicodedata.lookup(candidate)
        except KeyError:
            continue
    return {"escape": "esc"}.get(key, key)
