"""Open each checkpoint that a recipe names, once."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from ...checkpoint import Checkpoint, open_checkpoint
from ...checkpoint.adapter.lora import Adapter
from ...errors import InputError
from ...files import exists, expanded
from ...recipe.document import Document
from ...recipe.letters import letters
from ..findings import Finding
from ..layer_cache import LayerCache
from ..model import Donor
from ..operands import Operand
from .adapters import open_adapted


@dataclass(frozen=True)
class OpenedDonor:
    """A donor on disk.

    Attributes:
        checkpoint: its files.
        overlay: tensors that an adapter changes, by name.
        adapter: that adapter.
    """

    checkpoint: Checkpoint
    overlay: Mapping[str, Operand] = field(default_factory=dict)
    adapter: Adapter | None = None


@dataclass(frozen=True)
class StageDonor:
    """An unwritten stage as a donor.

    Attributes:
        checkpoint: the checkpoint that it would be on disk.
        overlay: the operands that its tensors are computed from, by name.
        refs: the donors that it is made from.
        key: all that its plan and findings depend on, to detect changes.
        findings: the findings of its plan.
        taken: number of donors' layers that it takes.
        layer_labels: the sources of each layer, such as `B16~C16`.
        serial: a unique number, by which later stages detect that it was planned again.
    """

    checkpoint: Checkpoint
    overlay: Mapping[str, Operand]
    refs: tuple[str, ...]
    key: object
    findings: tuple[Finding, ...] = ()
    taken: int = 0
    layer_labels: tuple[str, ...] = ()
    serial: int = field(default_factory=count().__next__)


class Donors:
    """Opens donors by reference and caches them; a failure is cached too, until `forget`.

    The cache holds results, not settings: the recipe's stages and its base are arguments, so that planning one recipe
    does not change the plan of another.

    Args:
        roots: folders in which to look for relative references before the working directory.
        first: references that get the first letters, independent of the recipe.

    Attributes:
        layers: planned layers of these donors.
    """

    def __init__(self, roots: Iterable[Path] = (), first: Iterable[str] = ()) -> None:
        self.roots = tuple(roots)
        self.first = tuple(dict.fromkeys(first))
        self._files: dict[str, OpenedDonor | InputError] = {}
        self._adapted: dict[tuple[str, str | None], OpenedDonor | InputError] = {}
        self._stages: dict[str, StageDonor] = {}
        self.layers = LayerCache()

    def open(self, ref: str, base: str | None = None) -> OpenedDonor:
        """The donor of a reference; raises InputError if it cannot be opened.

        Args:
            base: the recipe's base, for a reference to an adapter alone.
        """
        if ref not in self._files:
            self._files[ref] = self._from_file(ref)
        found = self._files[ref]
        if isinstance(found, InputError):
            if (ref, base) not in self._adapted:
                self._adapted[ref, base] = self._with_adapter(ref, base, found)
            found = self._adapted[ref, base]
        if isinstance(found, InputError):
            raise found
        return found

    def _from_file(self, ref: str) -> OpenedDonor | InputError:
        try:
            return OpenedDonor(open_checkpoint(ref, self.roots))
        except InputError as error:
            return error

    def _with_adapter(self, ref: str, base: str | None, first: InputError) -> OpenedDonor | InputError:
        """A donor with an adapter; `first` is the error of opening the reference as a checkpoint."""
        try:
            adapted = open_adapted(ref, self.roots, base, lambda below: open_checkpoint(below, self.roots))
        except InputError as error:
            return error
        return OpenedDonor(*adapted) if adapted is not None else first

    def checkpoint(self, ref: str) -> Checkpoint:
        """The checkpoint of a reference: on disk, with an adapter, or the stage last planned under that name.

        Raises:
            InputError: it cannot be opened.
        """
        if ref in self._stages:
            return self._stages[ref].checkpoint
        known = [
            opened for (name, _), opened in self._adapted.items() if name == ref and isinstance(opened, OpenedDonor)
        ]
        return known[-1].checkpoint if known else self.open(ref).checkpoint

    def depth(self, ref: str) -> int:
        """Number of layers of a donor, as `checkpoint` finds it."""
        return self.checkpoint(ref).depth

    def planned_stage(self, name: str, key: object) -> StageDonor | None:
        """The cached stage of that name; None if it was planned from another `key`."""
        known = self._stages.get(name)
        return known if known is not None and known.key == key else None

    def keep_stage(self, name: str, stage: StageDonor) -> None:
        """Cache a planned stage."""
        self._stages[name] = stage

    def keep_stages(self, names: Collection[str]) -> None:
        """Drop the cached stages of other names: the recipe does not have them any more."""
        self._stages = {name: stage for name, stage in self._stages.items() if name in names}

    def forget(self) -> None:
        """Clear the cache, because files may have changed."""
        self._files.clear()
        self._adapted.clear()
        self._stages.clear()
        self.layers.clear()

    def lettered(
        self, refs: Iterable[str], base: str | None, stages: Mapping[str, StageDonor]
    ) -> tuple[dict[str, Donor], dict[str, InputError], Mapping[str, str]]:
        """Donors by letter, errors by reference, and the letter of every reference, including those of `first`.

        Args:
            base: the recipe's base, as for `open`.
            stages: earlier stages, by their names.
        """
        names = letters([*self.first, *refs])
        donors: dict[str, Donor] = {}
        failed: dict[str, InputError] = {}
        for ref, letter in names.items():
            try:
                if (stage := stages.get(ref)) is not None:
                    donors[letter] = Donor(letter, ref, stage.checkpoint, stage.overlay, stage.layer_labels)
                else:
                    found = self.open(ref, base)
                    donors[letter] = Donor(letter, ref, found.checkpoint, found.overlay, adapter=found.adapter)
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
