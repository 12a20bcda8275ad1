"""Keys to actions: counts (`15j`), sequences (`g g`), one register of keys for every screen."""

from __future__ import annotations

from dataclasses import dataclass

from .actions import Action, ScreenName, keymap

MAX_COUNT = 100_000


@dataclass(frozen=True)
class Press:
    """A completed key: the action and the count typed before it (None without one)."""

    action: Action
    count: int | None


class Keys:
    """Collects digits and sequences; `feed` gives a Press when an action is complete."""

    def __init__(self, screen: ScreenName, *, counts: bool = True) -> None:
        self.map = keymap(screen)
        self.starts = {key.split()[0] for key in self.map if " " in key}
        self.counts = counts
        self.digits = ""
        self.pending = ""
        self.unknown = ""

    def clear(self) -> None:
        """Forget a half-typed count or sequence."""
        self.digits = self.pending = ""

    @property
    def typed(self) -> str:
        """What has been typed so far, for the status line."""
        return self.digits + self.pending

    def sequences(self) -> list[tuple[str, Action]]:
        """What can follow the keys of a sequence that has begun: the next key, and what it completes."""
        start = f"{self.pending} "
        return [(key[len(start) :], action) for key, action in self.map.items() if key.startswith(start)]

    def feed(self, key: str) -> Press | None:
        """Take one key; None while more is needed, or when it means nothing: then `unknown` has it."""
        self.unknown = ""
        if self.counts and not self.pending and key.isdigit() and (key != "0" or self.digits):
            self.digits = (self.digits + key)[:6]
            return None
        if self.counts and not self.pending and key == "0" and not self.digits:
            # `0G` means layer 0: a lone zero is a count as well.
            self.digits = "0"
            return None
        name = f"{self.pending} {key}" if self.pending else key
        action = self.map.get(name)
        if action is None and not self.pending and key in self.starts:
            self.pending = key
            return None
        count = min(int(self.digits), MAX_COUNT) if self.digits else None
        self.clear()
        self.unknown = "" if action else name
        return Press(action, count) if action else None
