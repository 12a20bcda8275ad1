"""The checkpoints a recipe names, opened once each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from ...checkpoint import Checkpoint, open_checkpoint
from ...errors import InputError
from ...files import exists, expanded
from ...recipe.document import Document
from ...recipe.letters import letters
from ..findings import Finding
from ..model import Donor
from ..operands import Operand
from .adapters import open_adapted


@dataclass(frozen=True)
class Lent:
    """An unwritten merge as a donor.

    Attributes:
        checkpoint: what it would be on disk.
        overlay: what its tensors are computed from, by name.
        refs: the donors it is made of.
        key: what it was made from, to tell whether it still is that.
        findings: what was found when it was planned.
        taken: layers of donors that it takes.
        serial: its own number, by which later stages tell it from what it was before.
    """

    checkpoint: Checkpoint
    overlay: Mapping[str, Operand]
    refs: tuple[str, ...]
    key: object
    findings: tuple[Finding, ...] = ()
    taken: int = 0
    serial: int = field(default_factory=count().__next__)


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
        self._lent: dict[str, Lent] = {}
        self._overlays: dict[str, Mapping[str, Operand]] = {}
        self._base: str | None = None

    def adapt(self, base: str | None) -> None:
        """Say which donor adapters that stand alone belong on: the recipe's base."""
        if base != self._base:
            self._base = base
            for ref in [ref for ref in self._open if self._depends_on_base(ref)]:
                del self._open[ref]

    def _depends_on_base(self, ref: str) -> bool:
        # A failure may have been for want of a base.
        return ref in self._overlays or isinstance(self._open[ref], InputError)

    def lend(self, name: str, lent: Lent) -> None:
        """Make an unwritten merge a donor under its name."""
        self._lent[name] = lent

    def lent(self, name: str) -> Lent | None:
        """The unwritten merge of that name."""
        return self._lent.get(name)

    def checkpoint(self, ref: str) -> Checkpoint:
        """The donor of that reference; InputError when it cannot be opened."""
        if ref in self._lent:
            return self._lent[ref].checkpoint
        if ref not in self._open:
            self._open[ref] = self._try_open(ref)
        found = self._open[ref]
        if isinstance(found, InputError):
            raise found
        return found

    def _try_open(self, ref: str) -> Checkpoint | InputError:
        try:
            return open_checkpoint(ref, self.roots)
        except InputError as first:
            self._overlays.pop(ref, None)
            try:
                adapted = open_adapted(ref, self.roots, self._base, self._below)
            except InputError as error:
                return error
            if adapted is None:
                return first
            checkpoint, self._overlays[ref] = adapted
            return checkpoint

    def _below(self, ref: str) -> Checkpoint:
        """The checkpoint that an adapter belongs on."""
        return open_checkpoint(ref, self.roots)

    def depth(self, ref: str) -> int:
        """Number of layers of a donor."""
        return self.checkpoint(ref).depth

    def forget(self) -> None:
        """Open everything afresh the next time (files may have changed)."""
        self._open.clear()
        self._lent.clear()

    def lettered(self, refs: Iterable[str]) -> tuple[dict[str, Donor], dict[str, InputError], Mapping[str, str]]:
        """Donors by letter, errors by reference, and the letter of every reference; `first` ones are among them."""
        names = letters([*self.first, *refs])
        donors: dict[str, Donor] = {}
        failed: dict[str, InputError] = {}
        for ref, letter in names.items():
            try:
                checkpoint, lent = self.checkpoint(ref), self._lent.get(ref)
                overlay = lent.overlay if lent else self._overlays.get(ref, {})
                donors[letter] = Donor(letter, ref, checkpoint, overlay)
            except InputError as error:
                failed[ref] = error
        return donors, failed, names


def rebased(document: Document, roots: Sequence[Path], path: Path) -> Document:
    """The document as it is to be saved at `path`, its relative donor paths naming what they named before.

    Args:
        document: paths in it are looked for in `roots`, then in the working directory.
        roots: usually the folder of the file it came from.
        path: where it will lie. References found alike from there, and Hub ids, stay as they are; so do those found
            from the working directory when the folder is one of `roots`.
    """
    folder = path.absolute().parent
    rename: dict[str, str] = {}
    refs = dict.fromkeys((*document.model_refs, *document.tokenizer_refs))
    taken = set(refs)
    for ref in refs:
        name = located(ref, roots, folder)
        if name in taken and name != ref:
            # Two spellings of one donor stay two, so that nothing that counts donors is put out.
            name = os.path.realpath(folder / name)
        if name not in taken:
            rename[ref] = name
            taken.add(name)
    changed = document.with_models(rename) if rename else document
    return replace(changed, path=path)


def absolute(document: Document, roots: Sequence[Path]) -> Document:
    """The document with every donor's relative path, looked for in `roots` and then in the working directory, written
    in full: for a process that works elsewhere. Hub ids stay as they are."""
    refs = (*document.model_refs, *document.tokenizer_refs)
    rename = {ref: name for ref in refs if (name := _in_full(ref, roots)) != ref}
    return document.with_models(rename) if rename else document


def _in_full(ref: str, roots: Sequence[Path]) -> str:
    plain = expanded(ref)
    found = next((root / plain for root in (*roots, Path.cwd()) if exists(root / plain)), None)
    if found is None and "+" in ref:
        # A donor with an adapter on it: each of the two by itself.
        return "+".join(_in_full(part, roots) if part else part for part in ref.split("+"))
    return os.path.abspath(found) if found is not None else ref  # noqa: PTH100 - links are kept


def located(ref: str, roots: Sequence[Path], folder: Path) -> str:
    """How a recipe in `folder` names the donor that `ref` names from `roots`, then from the working directory."""
    plain = expanded(ref)
    if plain.is_absolute():
        return ref
    same_folder = any(_same(root, folder) for root in roots)
    places = roots if same_folder else (*roots, Path.cwd())
    found = next((root / plain for root in places if exists(root / plain)), None)
    if found is None and "+" in ref:
        # A donor with an adapter on it: each of the two by itself.
        return "+".join(located(part, roots, folder) if part else part for part in ref.split("+"))
    if found is None or _same(folder / plain, found):
        return ref
    # The donor's own name is kept, even where it is a link; the folders to it are the real ones.
    whole = Path(os.path.realpath(found.parent)) / found.name if found.name not in ("", "..") else found.resolve()
    name = os.path.relpath(whole, os.path.realpath(folder))
    name = name if name.startswith("..") or not ref.startswith("./") else f"./{name}"
    return name if _same(folder / name, found) else str(whole)


def _same(one: Path, other: Path) -> bool:
    return exists(one) and exists(other) and one.samefile(other)
