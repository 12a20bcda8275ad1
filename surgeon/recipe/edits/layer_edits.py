"""Edits of the stack of layers, of the ends, the dtype and the base.

Positions are output layers counted from 0; ranges are half-open. Edits hold models by reference, never by letter, so
that an edit has the same meaning in another session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...errors import InputError
from ...text import plural
from .. import stack
from ..schema import DTYPES, End, EndSource, Recipe, Slice
from .edit import DepthOf, Edit, check_donor, check_range
from .parameter_tables import Setting, with_end


@dataclass(frozen=True)
class Insert(Edit):
    """Inserts copies of a donor's layers before output layer `at` (at the end if None)."""

    model: str
    start: int
    stop: int
    at: int | None = None
    verb = "insert"
    usage = "insert B:8-23 [@14]"
    help = "insert layers 8 to 23 of donor B before layer 14 (at the end without @)"

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        check_donor(self.model, self.start, self.stop, depth_of)
        total = stack.depth(slices)
        at = total if self.at is None else self.at
        if not 0 <= at <= total:
            raise InputError(f"there is no position {at}", why=f"the stack has {plural(total, 'layer')}")
        return stack.splice(slices, at, at, [stack.run(self.model, self.start, self.stop)])

    def touched(self) -> tuple[int, int] | None:
        return None if self.at is None else (self.at, self.at + self.stop - self.start)

    def moved_to(self, start: int, stop: int) -> Edit:
        return replace(self, at=stop)


@dataclass(frozen=True)
class InsertRuns(Edit):
    """Inserts several runs of donors' layers, each `(model, start, stop)`, in order before output layer `at`."""

    runs: tuple[tuple[str, int, int], ...]
    at: int | None = None
    verb = "insert"
    usage = "insert A:0-3 B:8-23 [@14]"
    help = "insert several runs of layers, one after the other"

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        at = stack.depth(slices) if self.at is None else self.at
        for model, start, stop in self.runs:
            slices = Insert(model, start, stop, at).stack(slices, depth_of)
            at += stop - start
        return tuple(slices)

    def touched(self) -> tuple[int, int] | None:
        return None if self.at is None else (self.at, self.at + sum(stop - start for _, start, stop in self.runs))

    def moved_to(self, start: int, stop: int) -> Edit:
        return replace(self, at=stop)


@dataclass(frozen=True)
class Delete(Edit):
    """Removes output layers `[start, stop)`."""

    start: int
    stop: int
    verb = "delete"
    usage = "delete 16-17"
    help = "remove layers 16 to 17 from the stack"

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        check_range(self.start, self.stop, stack.depth(slices))
        return stack.splice(slices, self.start, self.stop, [])

    def moved_to(self, start: int, stop: int) -> Edit:
        return Delete(start, start + self.stop - self.start)


@dataclass(frozen=True)
class Move(Edit):
    """Moves output layers `[start, stop)` before the layer that is now layer `to`."""

    start: int
    stop: int
    to: int
    verb = "move"
    usage = "move 16-23 @4"
    help = "move layers 16 to 23 before the current layer 4"

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        total = stack.depth(slices)
        check_range(self.start, self.stop, total)
        if not 0 <= self.to <= total:
            raise InputError(f"there is no position {self.to}", why=f"the stack has {plural(total, 'layer')}")
        if self.start <= self.to <= self.stop:
            return tuple(slices)
        moved = stack.take(slices, self.start, self.stop)
        rest = stack.splice(slices, self.start, self.stop, [])
        to = self.to if self.to < self.start else self.to - (self.stop - self.start)
        return stack.splice(rest, to, to, moved)

    def touched(self) -> tuple[int, int] | None:
        count = self.stop - self.start
        if self.start <= self.to <= self.stop:
            return self.start, self.stop
        start = self.to if self.to < self.start else self.to - count
        return start, start + count

    def moved_to(self, start: int, stop: int) -> Edit:
        shift = self.to - self.start if self.to < self.start else self.to - self.stop
        to = start + shift if shift < 0 else stop + shift
        return Move(start, stop, to)


@dataclass(frozen=True)
class Duplicate(Edit):
    """Inserts `times` more copies of output layers `[start, stop)` directly after them."""

    start: int
    stop: int
    times: int = 1
    verb = "duplicate"
    usage = "duplicate 16-23 [x2]"
    help = "insert two more copies of layers 16 to 23 after them (one without x)"

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        check_range(self.start, self.stop, stack.depth(slices))
        if not 1 <= self.times <= 1000:
            raise InputError(f"{self.times} is not a valid number of copies", remedy="give 1 to 1000")
        if (self.stop - self.start) * self.times > stack.MAX_LAYERS:
            raise InputError("the stack would have too many layers", why=f"the limit is {stack.MAX_LAYERS:,}")
        return stack.splice(slices, self.stop, self.stop, stack.take(slices, self.start, self.stop) * self.times)

    def touched(self) -> tuple[int, int] | None:
        return self.stop, self.stop + (self.stop - self.start) * self.times

    def moved_to(self, start: int, stop: int) -> Edit:
        return Duplicate(start, start + self.stop - self.start, self.times)


@dataclass(frozen=True)
class Replace(Edit):
    """Replaces output layers `[start, stop)` by a donor's `[from_start, from_stop)`; lengths may differ."""

    start: int
    stop: int
    model: str
    from_start: int
    from_stop: int
    verb = "replace"
    usage = "replace 16-23 B:8-15"
    help = "replace layers 16 to 23 by layers 8 to 15 of donor B"

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        check_range(self.start, self.stop, stack.depth(slices))
        check_donor(self.model, self.from_start, self.from_stop, depth_of)
        return stack.splice(slices, self.start, self.stop, [stack.run(self.model, self.from_start, self.from_stop)])

    def touched(self) -> tuple[int, int] | None:
        return self.start, self.start + self.from_stop - self.from_start

    def moved_to(self, start: int, stop: int) -> Edit:
        return replace(self, start=start, stop=start + self.stop - self.start)


@dataclass(frozen=True)
class Reverse(Edit):
    """Reverses the order of output layers `[start, stop)`; each becomes a slice of one layer."""

    start: int
    stop: int
    verb = "reverse"
    usage = "reverse 4-7"
    help = "reverse the order of layers 4 to 7"

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        check_range(self.start, self.stop, stack.depth(slices))
        single = stack.singles(stack.take(slices, self.start, self.stop))
        return stack.splice(slices, self.start, self.stop, single[::-1])

    def touched(self) -> tuple[int, int] | None:
        return self.start, self.stop

    def moved_to(self, start: int, stop: int) -> Edit:
        return Reverse(start, start + self.stop - self.start)


@dataclass(frozen=True)
class SetEnd(Edit):
    """Sets the donor of an end. With `model` None the slices decide again; `tie` ties the head to the embedding.

    With `settings` the end is blended as the slices are, except for these parameters.
    """

    end: End
    model: str | None = None
    tie: bool = False
    settings: tuple[Setting, ...] = ()
    verb = "end"
    usage = "end lm_head B|tie|auto|t=0.5"
    help = (
        "take embeddings, final_norm or lm_head from donor B (tie: share the embedding; auto: follow the slices; "
        "t=0.5: blend with that parameter)"
    )

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        if self.settings:
            return with_end(recipe, self.end, self.settings)
        if self.model is not None:
            depth_of(self.model)
        if self.tie and self.end != "lm_head":
            raise InputError(f"{self.end} cannot be tied", remedy="only lm_head can")
        old = recipe.end(self.end)
        value = EndSource(tie=True) if self.tie else EndSource(model=self.model) if self.model else None
        if value and old and old.parameters and not self.tie:
            value = value.model_copy(update={"parameters": old.parameters})
        return recipe.model_copy(update={self.end: value})


@dataclass(frozen=True)
class Upscale(Edit):
    """Depth up-scaling: a copy of a donor without its last `drop` layers, then one without its first `drop` layers.

    Source: SOLAR 10.7B, arXiv 2312.15166 (n = 32, m = 8 gives 2 (n - m) = 48 layers).
    """

    model: str
    drop: int
    depth: int | None = None
    verb = "upscale"
    usage = "upscale A m=8 [n=32]"
    help = "SOLAR's depth up-scaling: the stack becomes layers [0, n-m) and [m, n) of donor A"

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        depth = depth_of(self.model) if self.depth is None else self.depth
        check_donor(self.model, 0, depth, depth_of)
        if not 0 <= self.drop < depth:
            raise InputError(f"m={self.drop} leaves no layers", why=f"n is {depth}", remedy="give m from 0 to n-1")
        return stack.run(self.model, 0, depth - self.drop), stack.run(self.model, self.drop, depth)

    def moved_to(self, start: int, stop: int) -> Edit:
        return self


@dataclass(frozen=True)
class Interleave(Edit):
    """Makes a stack of blocks of `block` layers, one every `stride` layers, taken from `models` in turn.

    Block 20 and stride 10 of one 80-layer model give the ranges of the 120B self-merges. Block 1 and stride 1 of two
    models alternate their layers.
    """

    models: tuple[str, ...]
    block: int = 1
    stride: int = 1
    verb = "interleave"
    usage = "interleave A B [block=16 stride=8]"
    help = "make the stack from blocks of the donors in turn (block 1, stride 1 alternates layer by layer)"

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        if not self.models or self.block < 1 or not 1 <= self.stride <= self.block:
            raise InputError(
                f"block={self.block} stride={self.stride} would omit layers",
                remedy="give block >= stride >= 1",
            )
        depth = min(depth_of(model) for model in self.models)
        if depth < 1:
            raise InputError("a donor without layers cannot be stacked")
        out: list[Slice] = []
        start = 0
        while True:
            model = self.models[len(out) % len(self.models)]
            stop = min(start + self.block, depth)
            out.append(stack.run(model, start, stop))
            if stop == depth:
                return tuple(out)
            start += self.stride


@dataclass(frozen=True)
class SelfStack(Edit):
    """Makes a stack of overlapping blocks of one donor (see `Interleave`)."""

    model: str
    block: int
    step: int
    verb = "selfstack"
    usage = "selfstack A block=20 stride=10"
    help = "make the stack from overlapping blocks of one donor"

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        return Interleave((self.model,), self.block, self.step).stack(slices, depth_of)


@dataclass(frozen=True)
class SetDtype(Edit):
    """Sets the dtype of the output; None keeps each donor's dtype."""

    dtype: str | None
    verb = "dtype"
    usage = "dtype bfloat16|keep"
    help = "cast to this dtype (keep: copy the donors' bytes)"

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise InputError(f"{self.dtype!r} is not a dtype", remedy=f"give one of {', '.join(DTYPES)} or keep")
        # out_dtype would override dtype in the output.
        clear = {"out_dtype": None} if recipe.out_dtype else {}
        return recipe.model_copy(update={"dtype": self.dtype, **clear})


@dataclass(frozen=True)
class SetBase(Edit):
    """Sets the donor of config and tokenizer; with None it is the first slice's donor."""

    model: str | None
    verb = "base"
    usage = "base A|auto"
    help = "take config and tokenizer from donor A (auto: from the first slice's donor)"

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        if self.model is not None:
            depth_of(self.model)
        return recipe.model_copy(update={"base_model": self.model})
