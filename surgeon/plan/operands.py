"""What an output tensor is made of: stored tensors, adapters on them, token rows, blends; copied or cast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..checkpoint import TensorEntry
from ..methods.registry import Word


@dataclass(frozen=True)
class Stored:
    """An operand: a donor's tensor as it lies on disk."""

    entry: TensorEntry

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.entry.shape

    @property
    def dtype(self) -> str:
        """Its safetensors code."""
        return self.entry.dtype

    leaves = 1

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        yield self.entry


@dataclass(frozen=True)
class Adapted:
    """An operand: a tensor with a low-rank adapter on it, `whole + factor * up @ down`.

    Attributes:
        down: A, (rank, in).
        up: B, (out, rank).
        transposed: the tensor is (in, out), so that the product is added transposed (`fan_in_fan_out`, embeddings).
        magnitude: DoRA's norms, one per output feature: the sum is scaled to them.
    """

    whole: Operand
    down: TensorEntry
    up: TensorEntry
    factor: float
    transposed: bool = False
    magnitude: TensorEntry | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.whole.shape

    @property
    def dtype(self) -> str:
        """Its safetensors code, that of the tensor below the adapter."""
        return self.whole.dtype

    @cached_property
    def leaves(self) -> int:
        """How many tensors `entries` gives, told without going through them."""
        return self.whole.leaves + 2 + (self.magnitude is not None)

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        yield from self.whole.entries()
        yield from (self.down, self.up, *([self.magnitude] if self.magnitude else []))


@dataclass(frozen=True)
class Rows:
    """An operand: a table of token rows put together from the rows of others.

    Row r is the mean of row `take[p][r]` of every part p where that is not negative; zeros where all are. Where the
    first part's number is `MEAN`, it is the mean of all rows of the result for which it is not.

    Attributes:
        take: one packed array of native int32 per part, of as many numbers as the result has rows.
    """

    parts: tuple[Operand, ...]
    take: tuple[bytes, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return (len(self.take[0]) // 4, *self.parts[0].shape[1:])

    @property
    def dtype(self) -> str:
        """Its safetensors code, that of its first part."""
        return self.parts[0].dtype

    @cached_property
    def leaves(self) -> int:
        """How many tensors `entries` gives, told without going through them."""
        return sum(part.leaves for part in self.parts)

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        for part in self.parts:
            yield from part.entries()


MEAN = -2
"""Among the numbers of `Rows.take`: a row made of all others, for tokens and padding that no donor has a row for."""


Settings = tuple[tuple[str, Word], ...]
"""Parameters by name, in an order that does not matter."""


@dataclass(frozen=True)
class Blend:
    """These operands merged by a method. A source of an output tensor, and an operand of another blend.

    Attributes:
        method: its name in `surgeon.methods`.
        inputs: the donors' tensors; those without elements of their own are left out.
        base: which of them is the base; None without one.
        one: values of the parameters that all share.
        each: for every input (in order, without a base that is subtracted) the values of its own parameters.
        seeds: per input, for what is random.
        code: safetensors code of the result where it is an operand.
    """

    method: str
    inputs: tuple[Operand, ...]
    base: int | None
    one: Settings
    each: tuple[Settings, ...]
    seeds: tuple[int, ...]
    code: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.inputs[0].shape

    @property
    def dtype(self) -> str:
        """Its safetensors code."""
        return self.code

    @cached_property
    def leaves(self) -> int:
        """How many tensors `entries` gives, told without going through them: a stage may use another several times."""
        return sum(operand.leaves for operand in self.inputs)

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        for operand in self.inputs:
            yield from operand.entries()


Operand = Stored | Adapted | Rows | Blend


@dataclass(frozen=True)
class Copy:
    """These bytes, unchanged."""

    entry: TensorEntry
    leaves = 1

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        yield self.entry


@dataclass(frozen=True)
class Convert:
    """One tensor times `factor`, in the output's dtype: computed one step wider than the
    tensor (float32 for 16-bit types, float64 for F32 scaled and for F64), rounded once."""

    entry: TensorEntry
    factor: float = 1.0
    leaves = 1

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        yield self.entry


TensorSource = Copy | Convert | Blend
