"""Cast and scale: the formula of a passthrough that is not a plain copy.

out = round(x * factor), computed in float32 and rounded to nearest even at the end. It is computed in float64 if source
or target is F64, and if an F32 result is scaled: float32 would round the factor and the product, an error of over one
ulp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checkpoint.dtypes import ARITHMETIC, BITS, FROM_TORCH, TORCH_NAMES
from ..errors import SurgeonError

if TYPE_CHECKING:
    import torch

CHUNK = 128 * 1024
"""Elements per chunk. Source, scratch and result of this size stay in a core's second-level cache."""


class Converter:
    """Converts chunks of one tensor. It allocates three buffers once and no other memory.

    Fill `source` with the bytes of up to CHUNK elements, call `run`, and use the returned bytes before the next call.

    Attributes:
        source: writable bytes for CHUNK elements of the source dtype.
        source_width: bytes per source element.
        target_width: bytes per target element.
        overflowed: number of finite elements so far that became infinite because F16 cannot hold them.
    """

    def __init__(self, source: str, target: str, factor: float = 1.0) -> None:
        """`source` and `target` are the safetensors codes F64, F32, F16 or BF16; SurgeonError for any other."""
        import torch

        for code in (source, target):
            if code not in ARITHMETIC:
                raise SurgeonError(f"tensors of dtype {code} can be copied, but not cast or scaled")
        self.factor = factor
        self.source_width, self.target_width = BITS[source] // 8, BITS[target] // 8
        source_bytes, target_bytes = bytearray(CHUNK * self.source_width), bytearray(CHUNK * self.target_width)
        self.source = memoryview(source_bytes)
        self._target = memoryview(target_bytes)
        self._in = torch.frombuffer(source_bytes, dtype=getattr(torch, TORCH_NAMES[source]))
        self._out = torch.frombuffer(target_bytes, dtype=getattr(torch, TORCH_NAMES[target]))
        self._scratch = torch.empty(CHUNK, dtype=_working(source, target, factor))
        self._narrow = target == "F16"
        self.overflowed = 0

    def run(self, count: int) -> memoryview:
        """The target bytes of the first `count` elements of `source`, valid until the next call."""
        scratch, out = self._scratch[:count], self._out[:count]
        scratch.copy_(self._in[:count])
        if self.factor != 1.0:
            scratch.mul_(self.factor)
        out.copy_(scratch)
        if self._narrow:
            self.overflowed += int(out.isinf().sum()) - int(scratch.isinf().sum())
        return self._target[: count * self.target_width]


def convert(tensor: torch.Tensor, target: str, factor: float = 1.0) -> torch.Tensor:
    """Convert a tensor in memory; the result has the same bits as that of `Converter`.

    Args:
        tensor: any shape; float64, float32, float16 or bfloat16.
        target: safetensors code of the result's dtype.
        factor: every element is multiplied by it.
    """
    import torch

    dtype = getattr(torch, TORCH_NAMES[target])
    out = torch.empty(tensor.shape, dtype=dtype, device=tensor.device)
    working = _working(FROM_TORCH[str(tensor.dtype).removeprefix("torch.")], target, factor)
    source, result = tensor.reshape(-1), out.view(-1)
    for start in range(0, source.numel(), CHUNK):
        chunk = source[start : start + CHUNK].to(working, copy=True)
        if factor != 1.0:
            chunk.mul_(factor)
        result[start : start + CHUNK].copy_(chunk)
    return out


def _working(source: str, target: str, factor: float) -> torch.dtype:
    import torch

    wide = "F64" in (source, target) or (target == "F32" and factor != 1.0)
    return torch.float64 if wide else torch.float32
