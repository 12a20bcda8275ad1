"""Donors' tensors without copies: views of memory-mapped safetensors files, each made once."""

from __future__ import annotations

import mmap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..assemble.compute.arithmetic import PLAIN, Arithmetic, whole
from ..checkpoint import TensorEntry
from ..checkpoint.dtypes import BITS, TORCH_NAMES
from ..errors import InputError
from ..methods.cast import convert
from ..plan.model import PlannedTensor
from ..plan.operands import Blend, Convert, Copy, TensorSource

if TYPE_CHECKING:
    import torch

ALIGNMENT = 16
"""Bytes. MKL's float32 matrix-vector product rounds differently if the weights' address is no multiple of it."""

_ALIGNED = frozenset({"F32", "F64"})


class Weights:
    """Maps each file and makes each tensor once; equal sources share one tensor. Blends are computed."""

    def __init__(self, how: Arithmetic = PLAIN) -> None:
        """`how`: how blends are computed."""
        self._how = how
        self._maps: dict[Path, mmap.mmap] = {}
        self._tensors: dict[tuple[str, TensorSource], torch.Tensor] = {}

    def planned(self, tensor: PlannedTensor) -> torch.Tensor:
        """An output tensor of a plan: a view of the donor's bytes, or a converted or blended tensor."""
        key = (tensor.dtype, tensor.source)
        if key not in self._tensors:
            match tensor.source:
                case Copy(entry):
                    self._tensors[key] = self.entry(entry)
                case Convert(entry, factor):
                    self._tensors[key] = convert(self.entry(entry), tensor.dtype, factor)
                case Blend():
                    self._tensors[key] = whole(tensor, self._how)
        return self._tensors[key]

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
                with path.open("rb") as file:
                    self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise InputError("cannot map the file into memory", where=str(path), why=str(error)) from error
        return self._maps[path]
