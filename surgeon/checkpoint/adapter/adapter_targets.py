"""Maps each tensor of an adapter to the tensor of the base that it changes, and checks that the two fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...errors import InputError
from ...text import one_line
from ..checkpoint import Checkpoint
from ..dtypes import ARITHMETIC
from ..families.layouts import LAYOUTS
from ..families.naming import FAMILIES
from ..header import TensorEntry, quoted
from ..tensor_equality import alike
from .lora import Adapter, Factors

CONV1D = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"})
"""Model types whose layers use transformers' Conv1D, which stores matrices as (in, out)."""

_WRAPPERS = frozenset(word for layout in LAYOUTS for base in layout.bases for word in base.split(".")) | {
    "base_model", "module", "_orig_mod",
}  # fmt: skip
"""First parts of names that come from a wrapper of the model and do not identify a tensor."""

_HEADS = frozenset(head for layout in LAYOUTS for head in layout.lm_head)
"""Names of heads; some differ between the files and the model that was trained."""


@dataclass(frozen=True)
class Patch:
    """A low-rank sum on one tensor: `whole + factor * up @ down`.

    Attributes:
        down: A, (rank, in); for an embedding (rank, tokens).
        up: B, (out, rank); for an embedding (width, rank).
        factor: alpha / rank, or alpha / sqrt(rank).
        transposed: the tensor is (in, out) or (tokens, width), so the product is transposed before it is added.
        magnitude: DoRA's norms, one per output feature; None without DoRA.
        whole: the tensor that replaces the base's (stored in the adapter, or the embedding that a head was tied to);
            None if the base's tensor is used.
    """

    down: TensorEntry
    up: TensorEntry
    factor: float
    transposed: bool
    magnitude: TensorEntry | None = None
    whole: TensorEntry | None = None


Change = Patch | TensorEntry
"""The change of a tensor: a low-rank sum, or a replacement."""


@dataclass(frozen=True)
class _Found:
    """The content of an adapter for one tensor of the base: factors, a replacement, or both."""

    module: str
    factors: Factors | None = None
    stored: TensorEntry | None = None


def fitted(adapter: Adapter, checkpoint: Checkpoint) -> Mapping[str, Change]:
    """The changes that the adapter makes to tensors of this base, by tensor name; other tensors stay unchanged.

    The result is the model that peft runs with the active adapter. peft's merge gives the same, with one exception: if
    the base ties its head to its embedding and one of them is adapted, the merge changes both, which differs from the
    trained model. Here the result contains a tied head (by its name, even if the base stores no such tensor) only if
    it is no longer equal to the embedding. Embedding and head may have another number of rows than the base if both
    have the same.

    Raises:
        InputError: a tensor has no target in the base, or its shape does not fit; names the first one.
    """
    try:
        return _fitted(adapter, checkpoint)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=one_line(error.filename)) from error


def _fitted(adapter: Adapter, checkpoint: Checkpoint) -> Mapping[str, Change]:
    places = _Places(adapter, checkpoint)
    found: dict[str, _Found] = {}
    for module, factors in adapter.factors.items():
        _add(adapter, found, places.find(f"{module}.weight", factors.down), _Found(module, factors=factors))
    for stored, entry in adapter.stored.items():
        _add(adapter, found, places.find(stored, entry), _Found(_module(stored), stored=entry))
    if places.tie is not None:
        originals = {places.find(name, entry): entry for name, entry in adapter.originals.items()}
        found = _untied(adapter, found, originals, *places.tie)
    changes = {name: _change(adapter, checkpoint, name, places.base[name], one) for name, one in found.items()}
    _check_rows(adapter, checkpoint, changes)
    return changes


class _Places:
    """Looks up tensors of a base by name, independent of wrapper prefixes; includes a tied head.

    Attributes:
        base: every tensor by name.
        tie: name and entry of the embedding, and name of the head, if the base ties them; else None.
    """

    def __init__(self, adapter: Adapter, checkpoint: Checkpoint) -> None:
        self._adapter, self._checkpoint = adapter, checkpoint
        self.base = dict(checkpoint.tensors)
        self.tie: tuple[str, TensorEntry, str] | None = None
        naming, table = checkpoint.naming, checkpoint.token_embedding
        if naming is not None and table is not None and checkpoint.tied:
            head = naming.name(naming.head_for(naming.place(table.name).suffix))
            self.base.setdefault(head, table)
            self.tie = (table.name, table, head)
        self._cores: dict[str, list[str]] = {}
        for name in self.base:
            self._cores.setdefault(_core(name), []).append(name)

    def find(self, name: str, entry: TensorEntry) -> str:
        """The base's name for `name`, the target of `entry`; InputError if there is none or more than one."""
        if name in self.base:
            return name
        candidates = self._cores.get(_core(name), [])
        if len(candidates) == 1:
            return candidates[0]
        what = f"{quoted(entry.name)} of the adapter"
        if candidates:
            raise _misfit(
                self._adapter, f"{what} could be for {' or for '.join(map(quoted, candidates[:2]))} of the base"
            )
        if self._checkpoint.quantisation:
            raise _quantised(self._adapter, self._checkpoint, entry)
        raise _misfit(self._adapter, f"{what} matches no tensor of {quoted(self._checkpoint.ref)}")


def _core(name: str) -> str:
    """A name without the wrapper parts, so that names of a model and of the same model in a wrapper are equal."""
    parts = name.split(".")
    first = 0
    while len(parts) - first > 2 and parts[first] in _WRAPPERS:
        first += 1
    parts = parts[first:]
    return ".".join(["lm_head", *parts[1:]] if len(parts) == 2 and f"{parts[0]}." in _HEADS else parts)


def _role(checkpoint: Checkpoint, name: str) -> str:
    return checkpoint.naming.place(name).role if checkpoint.naming else "other"


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _add(adapter: Adapter, found: dict[str, _Found], name: str, one: _Found) -> None:
    known = found.get(name, one)
    for mine, theirs in ((one.factors, known.factors), (one.stored, known.stored)):
        if mine and theirs and mine is not theirs:
            first, second = (each.down if isinstance(each, Factors) else each for each in (theirs, mine))
            raise _misfit(
                adapter, f"{quoted(first.name)} and {quoted(second.name)} are both for {quoted(name)} of the base"
            )
    found[name] = replace(known, factors=known.factors or one.factors, stored=known.stored or one.stored)


def _untied(
    adapter: Adapter,
    found: Mapping[str, _Found],
    originals: Mapping[str, TensorEntry],
    table: str,
    base: TensorEntry,
    head: str,
) -> dict[str, _Found]:
    """`found` with separate entries for a tied embedding and head, as peft runs them.

    A module that was trained in full is a separate copy. Any other full tensor is loaded into the tensor that both
    share. A sum changes only its own target, unless the adapter ties its factors too (`ensure_weight_tying`).
    """
    pair = {name: found[name] for name in (table, head) if name in found}
    stored = {name: one.stored for name, one in pair.items() if one.stored is not None}
    own = {name for name in stored if pair[name].factors is None and adapter.config.saves(pair[name].module)}
    loaded = [entry for name, entry in stored.items() if name not in own]
    if len(loaded) == 2 and not alike(*loaded):
        own, loaded = set(stored), []
    shared = loaded + [originals[name] for name in (table, head) if name in originals]
    common = shared[0] if shared else base

    result = {name: one for name, one in found.items() if name not in pair}
    for name, one in pair.items():
        if name in own:
            result[name] = one
        elif one.factors:
            result[name] = replace(one, stored=common if shared or name == head else None)
    if adapter.config.tied and table in pair:
        result.pop(head, None)
    elif table in result and head not in result and (result[table].stored or base).shape == common.shape:
        result[head] = _Found(_module(head), stored=common)
    if shared and table not in result:
        result[table] = _Found(_module(table), stored=common)
    return result


def _change(adapter: Adapter, checkpoint: Checkpoint, name: str, base: TensorEntry, one: _Found) -> Change:
    role = _role(checkpoint, name)
    if base.dtype not in ARITHMETIC:
        raise _quantised(adapter, checkpoint, one.factors.down if one.factors else base)
    rest = slice(1 if _has_token_rows(checkpoint, role, base) else 0, None)
    if one.stored is not None and (len(one.stored.shape), one.stored.shape[rest]) != (
        len(base.shape),
        base.shape[rest],
    ):
        raise _shapes(adapter, one.stored, one.stored.shape, name, base.shape)
    if one.factors is None:
        assert one.stored is not None
        return one.stored
    _check_rank(adapter, one.factors, adapter.config.rank_of(one.module))
    shape = (one.stored or base).shape
    down, up, magnitude = one.factors.down, one.factors.up, one.factors.magnitude
    stores = (True,) if one.factors.embedding else _orientations(adapter, checkpoint, role)
    shapes = {each: (down.shape[1], up.shape[0])[:: 1 if each else -1] for each in stores}
    transposed = next((each for each in stores if shapes[each] == shape), None)
    if transposed is None:
        raise _shapes(adapter, down, shapes[stores[0]], name, shape)
    if magnitude is not None and magnitude.shape != up.shape[:1]:
        raise _shapes(adapter, magnitude, magnitude.shape, name, shape)
    return Patch(down, up, adapter.config.factor_of(one.module), transposed, magnitude, one.stored)


def _has_token_rows(checkpoint: Checkpoint, role: str, entry: TensorEntry) -> bool:
    """Whether a tensor of the base has a row (or an element) per token: the embedding, a head, a head's bias."""
    table = checkpoint.token_embedding
    return entry is table or (role == "lm_head" and table is not None and entry.shape[:1] == table.shape[:1])


def _orientations(adapter: Adapter, checkpoint: Checkpoint, role: str) -> tuple[bool, ...]:
    """Possible values of `transposed` for a matrix; the first one whose shape fits applies.

    peft uses the class of the module. Its flag describes only the last module, so it is used only if neither the shape
    nor the model type decides.
    """
    kind = checkpoint.config.model_type if checkpoint.config else ""
    if kind in FAMILIES or kind in CONV1D:
        return (kind in CONV1D and role == "layer",)
    return (True, False) if adapter.config.fan_in_fan_out else (False, True)


def _check_rank(adapter: Adapter, factors: Factors, rank: int) -> None:
    for entry, axis in ((factors.down, 0), (factors.up, 1)):
        what = f"{quoted(entry.name)} of the adapter has shape {list(entry.shape)}"
        if len(entry.shape) != 2:
            raise _misfit(adapter, what, why="only matrices are merged, not convolutions", own=False)
        if entry.shape[axis] != rank:
            why = "its weights and its config do not match"
            raise _misfit(adapter, f"{what}, but its config states rank {rank}", why=why, own=False)


def _check_rows(adapter: Adapter, checkpoint: Checkpoint, changes: Mapping[str, Change]) -> None:
    """InputError if embedding and head would have different numbers of rows: each needs one row per token."""
    table = checkpoint.token_embedding
    if table is None:
        return
    rows = {table.name: table.shape[0]}
    if not checkpoint.tied:
        heads = checkpoint.ends["lm_head"].values()
        rows |= {each.name: each.shape[0] for each in heads if _has_token_rows(checkpoint, "lm_head", each)}
    before = dict(rows)
    for name, change in changes.items():
        whole = change.whole if isinstance(change, Patch) else change
        untied = _role(checkpoint, name) == "lm_head" and whole is not None and whole.shape[1:] == table.shape[1:]
        if whole is not None and (name in rows or untied):
            rows[name] = whole.shape[0]
    for name, count in rows.items():
        if count != before.get(name, table.shape[0]):
            other = next((each for each, number in rows.items() if number != count), None)
            if other is not None:
                raise _misfit(
                    adapter,
                    f"the adapter gives {quoted(name)} {count:,} rows, but {quoted(other)} has {rows[other]:,}",
                    why="embedding and head need one row per token each",
                )


def _shapes(
    adapter: Adapter, entry: TensorEntry, shape: tuple[int, ...], name: str, base: tuple[int, ...]
) -> InputError:
    for_shape = f"is for shape {list(shape)}" if shape != entry.shape else f"has shape {list(shape)}"
    return _misfit(
        adapter, f"{quoted(entry.name)} of the adapter {for_shape}, but {quoted(name)} of the base has {list(base)}"
    )


def _quantised(adapter: Adapter, checkpoint: Checkpoint, entry: TensorEntry) -> InputError:
    return InputError(
        f"{quoted(entry.name)} cannot be merged into {quoted(checkpoint.ref)}",
        where=one_line(adapter.folder),
        why=f"the tensor there is quantised ({one_line(checkpoint.quantisation or entry.dtype)})",
        remedy="use the base in 16 bits, from before it was quantised",
    )


def _misfit(adapter: Adapter, what: str, why: str = "adapter and base do not match", own: bool = True) -> InputError:
    remedy = f"the adapter was trained on {quoted(adapter.base)}" if own and adapter.base else ""
    return InputError(what, where=one_line(adapter.folder), why=why, remedy=remedy)
