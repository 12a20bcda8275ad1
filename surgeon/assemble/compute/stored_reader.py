"""A donor's tensor as numbers: any range of it, read through a small buffer."""

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
    """Gives ranges of one tensor.

    Attributes:
        shape: the tensor's.
        numel: its elements.
    """

    shape: tuple[int, ...]
    numel: int

    def read(self, start: int, out: torch.Tensor) -> None:
        """Fill the flat CPU tensor `out`, of the working dtype, with the elements from `start` on."""
        ...


class StoredReader:
    """A tensor on disk, read through a small buffer.

    Attributes:
        dtype: of its elements on disk.
    """

    def __init__(
        self,
        entry: TensorEntry,
        sources: Sources,
        allow_nonfinite: bool = False,
        staged: dict[str, Staging] | None = None,
    ) -> None:
        """`staged`: by dtype, what readers that are used in turn share: the less memory, the more of it is in cache."""
        import torch

        self.shape, self.numel = entry.shape, entry.numel
        self._entry, self._sources, self._allow = entry, sources, allow_nonfinite
        self._width = BITS[entry.dtype] // 8
        self.dtype: torch.dtype = getattr(torch, TORCH_NAMES[entry.dtype])
        self._staging = ({} if staged is None else staged).setdefault(entry.dtype, Staging(self.dtype))

    def read(self, start: int, out: torch.Tensor) -> None:
        """See `Reader`. SurgeonError when the file does not hold them, or they are not finite."""
        if out.dtype == self.dtype:
            self._fill(start, raw(out))
        else:
            staged = self._staging.take(out.numel())
            self._fill(start, self._staging.raw)
            out.copy_(staged)
        if not self._allow:
            self.look(start, out, out.sum().item())

    def fill(self, start: int, out: torch.Tensor) -> None:
        """Fill the flat CPU tensor `out`, of the dtype on disk, with the elements from `start` on, whatever they are;
        SurgeonError when the file does not hold them."""
        self._fill(start, raw(out))

    def _fill(self, start: int, piece: memoryview) -> None:
        read_exactly(self._sources.get(self._entry.file), piece, self._entry.offset + start * self._width)

    @property
    def looks(self) -> bool:
        """Whether `look` is to be called."""
        return not self._allow

    def look(self, start: int, values: torch.Tensor, total: float) -> None:
        """SurgeonError where elements from `start` on are not finite; `total` is their sum."""
        # A sum is finite unless an element is not, or the sum itself is too large: only then is there a closer look.
        if isfinite(total) or bool(values.isfinite().all()):
            return
        place = start + int((~values.isfinite()).nonzero()[0])
        value = float(values[place - start])
        raise SurgeonError(
            f"tensor {one_line(self._entry.name)} holds {'NaN' if value != value else 'infinity'} (element {place:,})",
            where=str(self._entry.file),
            why="a merge of it would spread such values",
            remedy="mend the donor, or merge it as it is with --allow-nonfinite",
        )


def raw(tensor: torch.Tensor) -> memoryview:
    """The bytes of a flat CPU tensor, to be written to."""
    import torch

    data: memoryview = tensor.view(torch.uint8).numpy().data
    return data


class Staging:
    """Memory for a chunk, kept from chunk to chunk."""

    def __init__(self, dtype: torch.dtype, device: torch.device | None = None) -> None:
        """`device`: the CPU if not given."""
        import torch

        self._all = self._now = torch.empty(0, dtype=dtype, device=device)
        self._raw: memoryview | None = None

    def take(self, count: int, size: int = 0) -> torch.Tensor:
        """A flat tensor of so many elements; where there is less memory, `size` elements are kept from now on."""
        if self._now.numel() != count:
            self._raw = None
            if self._all.numel() < count:
                self._all = self._now = self._all.new_empty(0)  # before there is more
                self._all = self._all.new_empty(max(count, size))
            self._now = self._all[:count]
        return self._now

    @property
    def raw(self) -> memoryview:
        """The bytes of what was taken last, on the CPU."""
        if self._raw is None:
            self._raw = raw(self._now)
        return self._raw
