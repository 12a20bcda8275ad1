"""What an output tensor is made from: stored tensors, adapters on them, token rows, blends; copied or cast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from ..checkpoint import TensorEntry
from ..methods.registry import Word


@dataclass(frozen=True)
class Stored:
    """An operand: a stored tensor of a donor."""

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
        """Every stored tensor that it is made from."""
        yield self.entry


@dataclass(frozen=True)
class Adapted:
    """An operand: a tensor with a low-rank adapter on it, `whole + factor * up @ down` (LoRA, arXiv:2106.09685).

    Attributes:
        whole: the tensor below the adapter, (out, in).
        down: A, (rank, in).
        up: B, (out, rank).
        factor: the adapter's scaling, without a unit.
        transposed: `whole` is (in, out), and the product is added transposed (`fan_in_fan_out`, embeddings).
        magnitude: DoRA's norms, (out,), to which the rows of the sum are scaled (arXiv:2402.09353); None for LoRA.
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
        """The safetensors code of the tensor below the adapter."""
        return self.whole.dtype

    @cached_property
    def leaves(self) -> int:
        """The number of tensors that `entries` yields, computed without iterating."""
        return self.whole.leaves + 2 + (self.magnitude is not None)

    def entries(self) -> Iterator[TensorEntry]:
        """Every stored tensor that it is made from."""
        yield from self.whole.entries()
        yield from (self.down, self.up, *([self.magnitude] if self.magnitude else []))


@dataclass(frozen=True)
class Rows:
    """An operand: a table of token rows, composed of the rows of other tables.

    Row r is the mean of the rows `take[p][r]` of all parts p whose number is not negative; it is zero if all numbers
    are negative. If the first part's number is `MEAN`, row r is the mean of all result rows whose number is not `MEAN`.

    Attributes:
        parts: the tables, (rows, width) or (rows,) each; only their numbers of rows may differ.
        take: for each part a packed array of native int32, with one number for each row of the result.
    """

    parts: tuple[Operand, ...]
    take: tuple[bytes, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return (len(self.take[0]) // 4, *self.parts[0].shape[1:])

    @property
    def dtype(self) -> str:
        """The safetensors code of its first part."""
        return self.parts[0].dtype

    @cached_property
    def leaves(self) -> int:
        """The number of tensors that `entries` yields, computed without iterating."""
        return sum(part.leaves for part in self.parts)

    def entries(self) -> Iterator[TensorEntry]:
        """Every stored tensor that it is made from."""
        for part in self.parts:
            yield from part.entries()


MEAN = -2
"""A number in `Rows.take`: the mean of all other rows, for tokens and padding that no donor has a row for."""


Settings = tuple[tuple[str, Word], ...]
"""Pairs of parameter name and value; the order has no meaning."""


@dataclass(frozen=True)
class Blend:
    """Operands merged by a method: the source of an output tensor, or an operand of another blend.

    Attributes:
        method: the method's name in `surgeon.methods`.
        inputs: the donors' tensors, all of one shape.
        base: index of the base model's tensor in `inputs`; None without one.
        one: values of the parameters that all inputs share.
        each: for every input, in order and without a subtracted base, the values of its own parameters.
        seeds: a 64-bit random seed for each input.
        code: safetensors code of the result if it is an operand.
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
        """The number of tensors that `entries` yields, computed without iterating: stages may multiply it."""
        return sum(operand.leaves for operand in self.inputs)

    def entries(self) -> Iterator[TensorEntry]:
        """Every stored tensor that it is made from."""
        for operand in self.inputs:
            yield from operand.entries()


def random_seed(seed: int, source: int, name: str) -> int:
    """A 64-bit seed that depends only on the recipe's seed, the index of the source, and the tensor's name."""
    return int.from_bytes(blake2b(f"{seed}\0{source}\0{name}".encode(), digest_size=8).digest(), "little")


Operand = Stored | Adapted | Rows | Blend


@dataclass(frozen=True)
class Copy:
    """A stored tensor's bytes, unchanged."""

    entry: TensorEntry
    leaves = 1

    def entries(self) -> Iterator[TensorEntry]:
        """Every stored tensor that it is made from."""
        yield self.entry


@dataclass(frozen=True)
class Convert:
    """One tensor times `factor`, cast to the output's dtype and rounded once.

    The product is computed in float32 for 16-bit types, and in float64 for F64 and for a scaled F32.
    """

    entry: TensorEntry
    factor: float = 1.0
    leaves = 1

    def entries(self) -> Iterator[TensorEntry]:
        """Every stored tensor that it is made from."""
        yield self.entry


TensorSource = Copy | Convert | Blend
