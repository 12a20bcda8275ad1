"""The models that the resident child keeps loaded; models share tensors, and the least recently used ones make room."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint, open_checkpoint
from ..errors import SurgeonError
from ..machine import memory
from ..plan import Donors, Plan, resolve
from ..plan.operands import Copy
from ..recipe import document as documents
from .subject import Subject, from_checkpoint, from_plan
from .weights import file_states

KEPT = 4
"""Models that stay loaded: as many as are compared side by side."""
SHARE = 0.5
"""Share of the machine's memory that all models together may use, mapped files included; one may use more."""
_UNKNOWN = 8_000_000_000
"""Bytes that they may use if the machine's memory is unknown."""


class ModelCache:
    """Loaded models by everything that they depend on, in the order of their last use.

    Args:
        limit: bytes of all models together.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.models: dict[Any, Subject] = {}
        self.limit = limit if limit is not None else int((memory()[0] or 2 * _UNKNOWN) * SHARE)

    def of_recipe(self, recipe: Path, root: Path | None, device: str) -> Subject:
        """The model of a recipe; `root` is the folder of its relative model paths, if not the recipe's own."""
        document = documents.load(recipe)
        plan = resolve(document, Donors((root,) if root else document.roots))
        return self._get(
            lambda: (device, _plan_key(plan)),
            _plan_bytes(plan),
            lambda: from_plan(plan, device, tuple(self.models.values())),
        )

    def of_checkpoint(self, ref: str, device: str) -> Subject:
        """The model of a checkpoint on disk."""
        checkpoint = open_checkpoint(ref)
        size = sum(entry.nbytes for entry in checkpoint.tensors.values())
        return self._get(
            lambda: (device, _checkpoint_key(checkpoint)), size, lambda: from_checkpoint(checkpoint, device)
        )

    def clear(self) -> None:
        """Drop all models."""
        self.models.clear()
        gc.collect()

    def _get(self, key_of: Callable[[], Any], size: int, load: Callable[[], Subject]) -> Subject:
        """A kept model, or the result of `load`, which needs about `size` bytes."""
        key = key_of()
        subject = self.models.pop(key, None)
        if subject is None:
            self._make_room(size)
            subject = self._loaded(load)
            if key_of() != key:
                # A file changed in the meantime, so nobody knows which of its contents was read.
                return subject
        self.models[key] = subject
        return subject

    def _make_room(self, size: int) -> None:
        while self.models and (len(self.models) >= KEPT or self._held() + size > self.limit):
            del self.models[next(iter(self.models))]
        gc.collect()

    def _held(self) -> int:
        """Bytes of all models; memory that several share counts once."""
        storages: dict[int, int] = {}
        for subject in self.models.values():
            storages |= subject.storages()
        return sum(storages.values())

    def _loaded(self, load: Callable[[], Subject]) -> Subject:
        """Load a model; if memory is short, drop the kept models and try again."""
        try:
            return load()
        except SurgeonError as error:
            if not self.models or "OutOfMemory" not in type(error.__cause__).__name__:
                raise
        self.clear()
        return load()


def _plan_key(plan: Plan) -> Any:
    """Everything that a model in memory depends on: tensors' sources, files' states, config and small files."""
    sources = tuple((tensor.name, tensor.dtype, tensor.source) for tensor in plan.tensors)
    files = {entry.file for tensor in plan.tensors for entry in tensor.source.entries()} | set(plan.files.values())
    files |= {path for donor in plan.donors.values() for path in donor.checkpoint.tokenizer.files}
    made = json.dumps([plan.config, dict(plan.made), sorted(plan.files)], sort_keys=True) + repr(plan.tokenizer)
    return sources, file_states(files), hashlib.sha256(made.encode("utf-8", "backslashreplace")).digest()


def _checkpoint_key(checkpoint: Checkpoint) -> Any:
    small = {*checkpoint.folder.glob("*.json"), *checkpoint.tokenizer.files}
    return str(checkpoint.path), file_states({*checkpoint.files, *small})


def _plan_bytes(plan: Plan) -> int:
    """An upper estimate of the model's memory; a tensor that several layers share counts once."""
    sizes = {(tensor.dtype, tensor.source): tensor.nbytes for tensor in plan.tensors}
    # A blend is kept for other models too, where this one needs it in another form.
    return sum(size if isinstance(source, Copy) else 2 * size for (_, source), size in sizes.items())
