"""Donors' tensors without copies: views of memory-mapped safetensors files, each made once."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..assemble.compute.arithmetic import PLAIN, Arithmetic, whole
from ..checkpoint import TensorEntry
from ..checkpoint.dtypes import BITS, TORCH_NAMES
from ..errors import InputError
from ..methods import find
from ..methods.cast import convert
from ..plan.model import PlannedTensor
from ..plan.operands import Adapted, Blend, Convert, Copy, Operand, Rows, TensorSource
from ..statefile import open_regular

if TYPE_CHECKING:
    import torch

    Computed = Mapping[Hashable, torch.Tensor]

ALIGNMENT = 16
"""Bytes. MKL's float32 matrix-vector product rounds differently if the weights' address is no multiple of it."""

_ALIGNED = frozenset({"F32", "F64"})


class FileState(NamedTuple):
    """Identifies the content of a file as far as its status does."""

    path: str
    device: int
    inode: int
    size: int
    modified: int
    changed: int


def file_states(paths: Iterable[Path]) -> tuple[FileState, ...]:
    """The states of files, in the order of their paths; InputError if one is missing."""
    found = []
    for path in sorted(paths):
        try:
            state = path.stat()
        except OSError as error:
            raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from error
        found.append(
            FileState(str(path), state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        )
    return tuple(found)


class Weights:
    """Maps each file and makes each tensor once; equal sources share one tensor. Blends are computed.

    Args:
        how: how blends are computed.
        earlier: the `computed` tensors of other models, which are used instead of computing them again.

    Attributes:
        computed: the tensors that are no views of a file, by everything that they depend on.
    """

    def __init__(self, how: Arithmetic = PLAIN, earlier: Sequence[Computed] = ()) -> None:
        self._how, self._earlier = how, earlier
        self._maps: dict[Path, mmap.mmap] = {}
        self._states: dict[Path, tuple[FileState, ...]] = {}
        self._copied: dict[TensorSource, torch.Tensor] = {}
        self.computed: dict[Hashable, torch.Tensor] = {}

    def planned(self, tensor: PlannedTensor) -> torch.Tensor:
        """An output tensor of a plan: a view of the donor's bytes, or a converted or blended tensor."""
        source = tensor.source
        if isinstance(source, Copy):
            if source not in self._copied:
                self._copied[source] = self.entry(source.entry)
            return self._copied[source]
        thresholds = tuple(self._how.trims.get(tensor.name, ()))
        states = tuple(self._state(entry.file) for entry in source.entries())
        key = (tensor.dtype, _seedless(source) if isinstance(source, Blend) else source, thresholds, states)
        if key not in self.computed:
            found = next((tensors[key] for tensors in self._earlier if key in tensors), None)
            if found is None and isinstance(source, Convert):
                found = convert(self.entry(source.entry), tensor.dtype, source.factor)
            self.computed[key] = whole(tensor, self._how) if found is None else found
        return self.computed[key]

    def _state(self, path: Path) -> tuple[FileState, ...]:
        if path not in self._states:
            self._states[path] = file_states([path])
        return self._states[path]

    def entry(self, entry: TensorEntry) -> torch.Tensor:
        """A read-only tensor of a file; writing to it crashes the process.

        Raises:
            InputError: torch has no such dtype, or the file cannot be read.
        """
        import torch

        dtype = getattr(torch, TORCH_NAMES.get(entry.dtype, ""), None)
        if dtype is None:
            raise InputError(f"torch cannot hold tensors of dtype {entry.dtype}", where=f"{entry.file}, {entry.name}")
        if not entry.numel:
            return torch.empty(entry.shape, dtype=dtype)
        mapped = self._map(entry.file)
        if len(mapped) < entry.offset + entry.nbytes:
            raise InputError(f"the file has shrunk: {entry.name} is no longer in it", where=str(entry.file))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            flat = torch.frombuffer(mapped, dtype=dtype, count=entry.numel, offset=entry.offset)
        step = ALIGNMENT if entry.dtype in _ALIGNED else BITS[entry.dtype] // 8
        return (flat.clone() if flat.data_ptr() % step else flat).view(entry.shape)

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            try:
                with open_regular(path, follow=True) as file:
                    self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise InputError("cannot map the file into memory", where=str(path), why=str(error)) from error
        return self._maps[path]


def _seedless(source: Operand) -> Operand:
    """The source without seeds that its result does not depend on: they change when a layer gets another index."""
    match source:
        case Blend():
            method = find(source.method)
            seeds = source.seeds if method is None or method.random else ()
            return replace(source, seeds=seeds, inputs=tuple(map(_seedless, source.inputs)))
        case Adapted():
            return replace(source, whole=_seedless(source.whole))
        case Rows():
            return replace(source, parts=tuple(map(_seedless, source.parts)))
    return source
