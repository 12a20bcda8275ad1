"""Read any range of a stored tensor as numbers, through a small staging buffer."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Protocol

from ...checkpoint import TensorEntry
from ...checkpoint.dtypes import BITS, TORCH_NAMES
from ...errors import SurgeonError
from ...text import one_line
from ..io.byte_copy import Sources, read_exactly

if TYPE_CHECKING:
    import torch


class Reader(Protocol):
    """Reads ranges of one tensor.

    Attributes:
        shape: the tensor's shape.
        numel: its number of elements.
    """

    shape: tuple[int, ...]
    numel: int

    def read(self, start: int, out: torch.Tensor) -> None:
        """Fill the flat CPU tensor `out` of the working dtype with the elements from `start` on."""
        ...


class StoredReader:
    """Reads a tensor on disk.

    Attributes:
        dtype: the dtype on disk.
    """

    def __init__(
        self,
        entry: TensorEntry,
        sources: Sources,
        allow_nonfinite: bool = False,
        staged: dict[str, Staging] | None = None,
    ) -> None:
        """`staged`: staging buffers by dtype, shared by readers that are used in turn, to keep them in the cache."""
        import torch

        self.shape, self.numel = entry.shape, entry.numel
        self._entry, self._sources, self._allow = entry, sources, allow_nonfinite
        self._width = BITS[entry.dtype] // 8
        self.dtype: torch.dtype = getattr(torch, TORCH_NAMES[entry.dtype])
        self._staging = ({} if staged is None else staged).setdefault(entry.dtype, Staging(self.dtype))

    def read(self, start: int, out: torch.Tensor) -> None:
        """See `Reader`. SurgeonError if the file is too short, or a value is not finite."""
        if out.dtype == self.dtype:
            self._fill(start, raw(out))
        else:
            staged = self._staging.take(out.numel())
            self._fill(start, self._staging.raw)
            out.copy_(staged)
        if not self._allow:
            self.look(start, out, out.sum().item())

    def fill(self, start: int, out: torch.Tensor) -> None:
        """Fill the flat CPU tensor `out` of the dtype on disk with the elements from `start` on, without checks of the
        values; SurgeonError if the file is too short."""
        self._fill(start, raw(out))

    def _fill(self, start: int, piece: memoryview) -> None:
        read_exactly(self._sources.get(self._entry.file), piece, self._entry.offset + start * self._width)

    @property
    def looks(self) -> bool:
        """Whether the values must be checked with `look`."""
        return not self._allow

    def look(self, start: int, values: torch.Tensor, total: float) -> None:
        """Raise SurgeonError if any of the elements from `start` on is not finite; `total` is their sum."""
        # The sum is not finite if an element is not, or if the sum overflows; only then all elements are checked.
        if isfinite(total) or bool(values.isfinite().all()):
            return
        place = start + int((~values.isfinite()).nonzero()[0])
        value = float(values[place - start])
        raise SurgeonError(
            f"tensor {one_line(self._entry.name)} holds {'NaN' if value != value else 'infinity'} (element {place:,})",
            where=str(self._entry.file),
            why="a merge would spread such values",
            remedy="repair the donor, or merge it anyway with --allow-nonfinite",
        )


def raw(tensor: torch.Tensor) -> memoryview:
    """The bytes of a flat CPU tensor, as a writable view."""
    import torch

    data: memoryview = tensor.view(torch.uint8).numpy().data
    return data


class Staging:
    """A staging buffer for chunks, which is reused."""

    def __init__(self, dtype: torch.dtype, device: torch.device | None = None) -> None:
        """`device`: where the memory is; None for the CPU."""
        import torch

        self._all = self._now = torch.empty(0, dtype=dtype, device=device)
        self._raw: memoryview | None = None

    def take(self, count: int, size: int = 0) -> torch.Tensor:
        """A flat tensor of `count` elements; if the buffer is too small, it grows to at least `size` elements."""
        if self._now.numel() != count:
            self._raw = None
            if self._all.numel() < count:
                self._all = self._now = self._all.new_empty(0)  # release the old memory first
                self._all = self._all.new_empty(max(count, size))
            self._now = self._all[:count]
        return self._now

    @property
    def raw(self) -> memoryview:
        """The bytes of the last taken tensor, which must be on the CPU."""
        if self._raw is None:
            self._raw = raw(self._now)
        return self._raw
