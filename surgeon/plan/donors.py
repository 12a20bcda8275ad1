"""The checkpoints a recipe names, opened once each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..checkpoint import Checkpoint, open_checkpoint
from ..errors import InputError
from ..recipe.letters import letters
from .types import Donor


class Donors:
    """Opens donors by their reference and remembers them; what failed once is told again until `forget`.

    Args:
        roots: folders that relative references are looked for in before the working directory.
        first: references that get the first letters, whatever a recipe says.
    """

    def __init__(self, roots: Iterable[Path] = (), first: Iterable[str] = ()) -> None:
        self.roots = tuple(roots)
        self.first = tuple(dict.fromkeys(first))
        self._open: dict[str, Checkpoint | InputError] = {}

    def checkpoint(self, ref: str) -> Checkpoint:
        """The donor of that reference; InputError when it cannot be opened."""
        if ref not in self._open:
            self._open[ref] = _try_open(ref, self.roots)
        found = self._open[ref]
        if isinstance(found, InputError):
            raise found
        return found

    def depth(self, ref: str) -> int:
        """Number of layers of a donor."""
        return self.checkpoint(ref).depth

    def forget(self) -> None:
        """Open everything afresh the next time (files may have changed)."""
        self._open.clear()

    def lettered(self, refs: Iterable[str]) -> tuple[dict[str, Donor], dict[str, InputError], Mapping[str, str]]:
        """Donors by letter, errors by reference, and the letter of every reference."""
        names = letters([*self.first, *refs])
        donors: dict[str, Donor] = {}
        failed: dict[str, InputError] = {}
        for ref, letter in names.items():
            try:
                donors[letter] = Donor(letter, ref, self.checkpoint(ref))
            except InputError as error:
                failed[ref] = error
        return donors, failed, names


def _try_open(ref: str, roots: tuple[Path, ...]) -> Checkpoint | InputError:
    try:
        return open_checkpoint(ref, roots)
    except InputError as first:
        if "+" not in ref:
            return first
        return InputError(
            f"{ref} names a LoRA adapter",
            why="adapters as donors are not supported",
            remedy="merge it into its base",
        )
