"""Donors with a LoRA adapter: `model+adapter`, or an adapter alone, applied to the recipe's base model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from ...checkpoint import Checkpoint, TensorEntry
from ...checkpoint.adapter.adapter_targets import Change, fitted
from ...checkpoint.adapter.lora import WEIGHTS, Adapter, is_adapter, open_adapter
from ...checkpoint.checkpoint import assembled
from ...checkpoint.dtypes import nbytes
from ...checkpoint.families.model_config import ModelConfig
from ...checkpoint.locate import find
from ...errors import InputError
from ..operands import Adapted, Blend, Operand, Stored

Open = Callable[[str], Checkpoint]
Found = tuple[Checkpoint, Mapping[str, Operand], Adapter]


def open_adapted(ref: str, roots: tuple[Path, ...], base_ref: str | None, open_base: Open) -> Found | None:
    """A donor with an adapter, the operands of its changed tensors, and the adapter; None if `ref` names no adapter.

    Args:
        ref: the reference in the recipe.
        roots: folders in which to look for relative references.
        base_ref: the base model of a reference to an adapter alone; None for the one that its config names.
        open_base: opens the checkpoint below the adapter.

    Raises:
        InputError: the adapter cannot be read, its base model cannot be found, or the two do not fit.
    """
    alone = _folder(ref, roots)
    if alone is not None:
        if not is_adapter(alone):
            return None
        adapter = open_adapter(alone)
        name = base_ref if base_ref and base_ref != ref else adapter.base
        if not name:
            raise InputError(
                f"{ref} is a LoRA adapter, and its base is not known",
                why="its adapter_config.json names no base model",
                remedy=f"set base_model to the model it was trained on, or write BASE+{ref}",
            )
        return _merged(ref, adapter, open_base(name))
    for place in (index for index, letter in enumerate(ref) if letter == "+"):
        base, folder = ref[:place], _folder(ref[place + 1 :], roots)
        if base and folder is not None and is_adapter(folder):
            return _merged(ref, open_adapter(folder), open_base(base))
    for base, _, rest in (ref.partition("+"), ref.rpartition("+")):
        if rest and _folder(base, roots) is not None:
            raise InputError(
                f"there is no LoRA adapter at {rest}",
                where=ref,
                why="it is not in the recipe's folder, the working directory or the Hub cache",
                remedy="write the path of the folder with its adapter_config.json",
            )
    return None


def _folder(ref: str, roots: tuple[Path, ...]) -> Path | None:
    try:
        path = find(ref, roots)
    except InputError:
        return None
    return path if path.is_dir() else None


def _merged(ref: str, adapter: Adapter, base: Checkpoint) -> Found:
    changes = fitted(adapter, base)
    dtype = next(iter(base.dtypes), "F32")
    tensors, overlay = dict(base.tensors), {}
    for name, change in changes.items():
        own = base.tensors.get(name)
        operand = _operand(change, own, own.dtype if own else dtype)
        overlay[name] = operand
        count = nbytes(operand.dtype, prod(operand.shape))
        assert count is not None
        tensors[name] = TensorEntry(name, operand.dtype, operand.shape, Path(f"<{ref}>"), 0, count)
    table = base.token_embedding
    rows = tensors[table.name].shape[0] if table else 0
    grown = table is not None and rows != table.shape[0]
    config = base.config
    if grown and config is not None:
        config = ModelConfig.of(_resized(config.raw, rows))
    folder = adapter.folder if grown and adapter.tokenizer.digest else base.folder
    made = assembled(ref, folder, tensors, config)
    head = base.tied and any(entry.name in changes for entry in made.ends["lm_head"].values())
    return (
        replace(
            made,
            path=base.path,
            files=(*base.files, adapter.folder / WEIGHTS),
            warnings=base.warnings,
            metadata=base.metadata,
            head_differs=base.head_differs or head,
        ),
        overlay,
        adapter,
    )


def _operand(change: Change, own: TensorEntry | None, dtype: str) -> Operand:
    if isinstance(change, TensorEntry):
        operand: Operand = Stored(change)
    else:
        whole = change.whole or own
        assert whole is not None, "a sum needs a tensor of the base or of the adapter"
        operand = Adapted(Stored(whole), change.down, change.up, change.factor, change.transposed, change.magnitude)
    if operand.dtype == dtype:
        return operand
    # Adapters often have a wider dtype than their base, whose dtype the model keeps.
    return Blend("passthrough", (operand,), None, (), ((("scale", 1.0),),), (0,), dtype)


def _resized(raw: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The config with another number of token rows."""
    found = dict(raw)
    if "vocab_size" in found or not isinstance(found.get("text_config"), Mapping):
        found["vocab_size"] = rows
    if isinstance(found.get("text_config"), Mapping):
        found["text_config"] = {**found["text_config"], "vocab_size": rows}
    return found
