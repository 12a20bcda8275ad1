"""Open each checkpoint that a recipe names, once."""

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
    """An unwritten stage as a donor.

    Attributes:
        checkpoint: the checkpoint that it would be on disk.
        overlay: the operands that its tensors are computed from, by name.
        refs: the donors that it is made from.
        key: identifies its recipe and stages, to detect changes.
        findings: the findings of its plan.
        taken: number of donors' layers that it takes.
        serial: a unique number, by which later stages detect that it was planned again.
    """

    checkpoint: Checkpoint
    overlay: Mapping[str, Operand]
    refs: tuple[str, ...]
    key: object
    findings: tuple[Finding, ...] = ()
    taken: int = 0
    serial: int = field(default_factory=count().__next__)


class Donors:
    """Opens donors by reference and caches them; a failure is cached too, until `forget`.

    Args:
        roots: folders in which to look for relative references before the working directory.
        first: references that get the first letters, independent of the recipe.
    """

    def __init__(self, roots: Iterable[Path] = (), first: Iterable[str] = ()) -> None:
        self.roots = tuple(roots)
        self.first = tuple(dict.fromkeys(first))
        self._open: dict[str, Checkpoint | InputError] = {}
        self._lent: dict[str, Lent] = {}
        self._overlays: dict[str, Mapping[str, Operand]] = {}
        self._base: str | None = None

    def adapt(self, base: str | None) -> None:
        """Set the base model for references to an adapter alone; None to use the one that its config names."""
        if base != self._base:
            self._base = base
            for ref in [ref for ref in self._open if self._depends_on_base(ref)]:
                del self._open[ref]

    def _depends_on_base(self, ref: str) -> bool:
        # The failure may be due to a missing base.
        return ref in self._overlays or isinstance(self._open[ref], InputError)

    def lend(self, name: str, lent: Lent) -> None:
        """Make an unwritten stage available as a donor under its name."""
        self._lent[name] = lent

    def lent(self, name: str) -> Lent | None:
        """The unwritten stage of that name; None if there is none."""
        return self._lent.get(name)

    def checkpoint(self, ref: str) -> Checkpoint:
        """The checkpoint of a reference.

        Raises:
            InputError: it cannot be opened.
        """
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
        """The checkpoint that an adapter is applied to."""
        return open_checkpoint(ref, self.roots)

    def depth(self, ref: str) -> int:
        """Number of layers of a donor; raises InputError if it cannot be opened."""
        return self.checkpoint(ref).depth

    def forget(self) -> None:
        """Clear the cache, because files may have changed."""
        self._open.clear()
        self._lent.clear()

    def lettered(self, refs: Iterable[str]) -> tuple[dict[str, Donor], dict[str, InputError], Mapping[str, str]]:
        """Donors by letter, errors by reference, and the letter of every reference, including those of `first`."""
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
    """The document as saved at `path`: relative donor paths are changed so that they still name the same donors.

    Args:
        document: the recipe; its paths are relative to `roots`, then to the working directory.
        roots: usually the folder of the file that it came from.
        path: the path of the saved file. Hub ids and references that are valid from there stay unchanged; if its folder
            is one of `roots`, so do references relative to the working directory.
    """
    folder = path.absolute().parent
    rename: dict[str, str] = {}
    refs = dict.fromkeys((*document.model_refs, *document.tokenizer_refs))
    taken = set(refs)
    for ref in refs:
        name = located(ref, roots, folder)
        if name in taken and name != ref:
            # Two spellings of one donor stay different, because the number of donors must not change.
            name = os.path.realpath(folder / name)
        if name not in taken:
            rename[ref] = name
            taken.add(name)
    changed = document.with_models(rename) if rename else document
    return replace(changed, path=path)


def absolute(document: Document, roots: Sequence[Path]) -> Document:
    """The document with absolute donor paths, for a process with another working directory.

    Relative paths are resolved against `roots`, then the working directory. Hub ids stay unchanged.
    """
    refs = (*document.model_refs, *document.tokenizer_refs)
    rename = {ref: name for ref in refs if (name := _in_full(ref, roots)) != ref}
    return document.with_models(rename) if rename else document


def _in_full(ref: str, roots: Sequence[Path]) -> str:
    plain = expanded(ref)
    found = next((root / plain for root in (*roots, Path.cwd()) if exists(root / plain)), None)
    if found is None and "+" in ref:
        # A donor with an adapter: its two references separately.
        return "+".join(_in_full(part, roots) if part else part for part in ref.split("+"))
    return os.path.abspath(found) if found is not None else ref  # noqa: PTH100 - links are kept


def located(ref: str, roots: Sequence[Path], folder: Path) -> str:
    """The reference for a recipe in `folder` to the donor that `ref` names in `roots` or the working directory."""
    plain = expanded(ref)
    if plain.is_absolute():
        return ref
    same_folder = any(_same(root, folder) for root in roots)
    places = roots if same_folder else (*roots, Path.cwd())
    found = next((root / plain for root in places if exists(root / plain)), None)
    if found is None and "+" in ref:
        # A donor with an adapter: its two references separately.
        return "+".join(located(part, roots, folder) if part else part for part in ref.split("+"))
    if found is None or _same(folder / plain, found):
        return ref
    # The donor's own name is kept even if it is a link; the folders above it are resolved.
    whole = Path(os.path.realpath(found.parent)) / found.name if found.name not in ("", "..") else found.resolve()
    name = os.path.relpath(whole, os.path.realpath(folder))
    name = name if name.startswith("..") or not ref.startswith("./") else f"./{name}"
    return name if _same(folder / name, found) else str(whole)


def _same(one: Path, other: Path) -> bool:
    return exists(one) and exists(other) and one.samefile(other)
