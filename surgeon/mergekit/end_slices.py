"""Embeddings, norm and head in mergekit's way: slices without layers, before all others and behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..methods.registry import REQUIRED, Word
from ..plan.model import Plan, PlannedTensor
from ..plan.planned_slices import PlannedSlice, single
from ..recipe.schema import End, Recipe, Slice, Source
from .copied_layers import Partner
from .facts import METHODS, RESCALE, WEIGHTED_DELTAS
from .refusal import Refusal
from .stack_pieces import base_of
from .written_parameters import written

ByTensor = dict[str, Word]
"""A parameter's values by the tensor's name."""


@dataclass(frozen=True)
class Blended:
    """What gives some tensors of the ends, in terms of one method.

    Attributes:
        refs: the donors, the base among them.
        base: the one that the method takes for the base.
        each: values by donor and parameter.
        shared: values by parameter.
        copied: the only donor that has any effect; None where several have.
        names: the tensors.
    """

    refs: tuple[str, ...]
    base: str | None
    each: Mapping[tuple[str, str], ByTensor]
    shared: Mapping[str, ByTensor]
    copied: str | None
    names: tuple[str, ...] = field(default=())

    def slice(self) -> Slice:
        """It as a slice without layers."""
        sources = []
        for ref in self.refs:
            own = {name: written(values) for (of, name), values in self.each.items() if of == ref}
            source = Source(model=ref, layer_range=(0, 0))
            sources.append(source.model_copy(update={"parameters": own}) if own else source)
        part = Slice(sources=tuple(sources))
        update: dict[str, object] = {"base_model": self.base} if self.base else {}
        if self.shared:
            update["parameters"] = {name: written(values) for name, values in self.shared.items()}
        return part.model_copy(update=update)


def first_end(recipe: Recipe, plan: Plan, planned: Sequence[PlannedSlice], method: str, partner: Partner) -> Blended:
    """What gives the embeddings.

    Raises:
        Refusal: the method cannot.
    """
    return _end(recipe, plan, planned[0], "embeddings", method, partner)


def last_end(recipe: Recipe, plan: Plan, planned: Sequence[PlannedSlice], method: str, partner: Partner) -> Blended:
    """What gives the final norm and the head, which mergekit takes from one slice.

    Raises:
        Refusal: the method cannot give both.
    """
    norm = _end(recipe, plan, planned[-1], "final_norm", method, partner)
    head = _end(recipe, plan, planned[-1], "lm_head", method, partner)
    return _united(norm, head, method) if head.names else norm


def widened(end: Blended, refs: Sequence[str], method: str) -> Blended:
    """The end with as many donors as there are `refs`, those without effect added.

    mergekit gives norm and head as many donors as the first slice has.
    """
    more = [ref for ref in refs if ref not in end.refs][: max(0, len(refs) - len(end.refs))]
    if not more:
        return end
    if method != "linear" and method not in WEIGHTED_DELTAS:
        raise Refusal(f"mergekit takes norm and head from {len(end.refs)} of the {len(refs)} donors")
    each = {**end.each, **{(ref, "weight"): _all(end.names, 0) for ref in more}}
    return replace(end, refs=(*end.refs, *more), each=each)


def _end(recipe: Recipe, plan: Plan, part: PlannedSlice, end: End, method: str, partner: Partner) -> Blended:
    """One end in terms of a method: from the part, or from a donor of its own."""
    own, tensors = recipe.end(end), plan.ends[end].tensors
    if own is not None and own.model is not None:
        part = single(own.model)
    if part.name == method:
        return _as_it_is(recipe, part, tensors)
    if part.name == "passthrough":
        return _copied(part.sources[0].model, tensors, method, partner)
    raise Refusal(f"{end} is blended by {part.name}, and the layers by {method}")


def _as_it_is(recipe: Recipe, part: PlannedSlice, tensors: Sequence[PlannedTensor]) -> Blended:
    each: dict[tuple[str, str], ByTensor] = {}
    shared: dict[str, ByTensor] = {}
    for tensor in tensors:
        for value in tensor.values:
            if value.donor is None:
                shared.setdefault(value.name, {})[tensor.name] = value.value
            else:
                each.setdefault((part.sources[value.donor].model, value.name), {})[tensor.name] = value.value
    refs = tuple(source.model for source in part.sources)
    names = tuple(tensor.name for tensor in tensors)
    return Blended(
        refs,
        base_of(part),
        {key: values for key, values in each.items() if _said(recipe, part, key[1], values)},
        {name: values for name, values in shared.items() if _said(recipe, part, name, values)},
        refs[0] if len(refs) == 1 else None,
        names,
    )


def _said(recipe: Recipe, part: PlannedSlice, name: str, values: ByTensor) -> bool:
    """Whether values must be written: they are not what the method takes anyway."""
    if name not in METHODS[part.name]:
        return False
    default = METHODS[part.name][name]
    return name in recipe.parameters or any(RESCALE.get(str(value), value) != default for value in values.values())


def _copied(ref: str, tensors: Sequence[PlannedTensor], method: str, partner: Partner) -> Blended:
    """A donor's ends, in terms of a method that blends."""
    names = tuple(tensor.name for tensor in tensors)
    scales = {tensor.name: next((v.value for v in tensor.values if v.name == "scale"), 1) for tensor in tensors}
    scaled = any(scale != 1 for scale in scales.values())
    if method == "linear":
        shared = {"normalize": _all(names, False)} if scaled else {}
        return Blended((ref,), None, {(ref, "weight"): dict(scales)}, shared, ref, names)
    if scaled:
        raise Refusal(f"{method} cannot multiply a copied end")
    if method in ("slerp", "nearswap"):
        other = partner(ref, 0).model
        return Blended((ref, other), ref, {}, {"t": _all(names, 0)}, ref, names)
    if method in WEIGHTED_DELTAS:
        other = partner(ref, 0).model
        each = {(other, "weight"): _all(names, 0), (other, "density"): _all(names, 1)}
        return Blended((ref, other), ref, each, {}, ref, names)
    raise Refusal(f"no parameters of {method} copy an end to the bit")


def _all(names: Sequence[str], value: Word) -> ByTensor:
    return dict.fromkeys(names, value)


def _united(norm: Blended, head: Blended, method: str) -> Blended:
    """Both from one slice, told apart by filters."""
    if method == "passthrough" and norm.refs != head.refs:
        raise Refusal("passthrough takes norm and head from one donor")
    if method in ("slerp", "nearswap"):
        norm, head = _on_one_arc(norm, head, method)
    elif norm.base != head.base and norm.copied is not None and head.copied is None:
        norm = _on_base_of(head, norm)
    elif norm.base != head.base:
        head = _on_base_of(norm, head)
    refs = tuple(dict.fromkeys([*norm.refs, *head.refs]))
    each: dict[tuple[str, str], ByTensor] = {}
    shared: dict[str, ByTensor] = {}
    for part in (norm, head):
        for key, values in part.each.items():
            each.setdefault(key, {}).update(values)
        for name, values in part.shared.items():
            shared.setdefault(name, {}).update(values)
        if method == "linear" or method in WEIGHTED_DELTAS:
            for ref in refs:
                if ref not in part.refs:
                    each.setdefault((ref, "weight"), {}).update(_all(part.names, 0))
    for named in (*each.items(), *shared.items()):
        _complete(named[0] if isinstance(named[0], str) else named[0][1], named[1], method, (*norm.names, *head.names))
    both = norm.copied if norm.copied == head.copied else None
    return Blended(refs, norm.base, each, shared, both, (*norm.names, *head.names))


def _complete(name: str, values: ByTensor, method: str, tensors: Sequence[str]) -> None:
    """Give the tensors that have no value for a parameter the one that the method takes without."""
    default = METHODS[method][name]
    if default != REQUIRED:
        for tensor in tensors:
            values.setdefault(tensor, default)


def _on_one_arc(norm: Blended, head: Blended, method: str) -> tuple[Blended, Blended]:
    """Both between the same two donors: a copied one is an end of the other's arc."""
    if norm.copied is None and head.copied is None:
        if (norm.base, set(norm.refs)) != (head.base, set(head.refs)):
            raise Refusal(f"norm and head lie between different donors, and mergekit's {method} has one pair for both")
        return norm, head
    if norm.copied is not None and head.copied is not None and norm.copied != head.copied:
        arc: tuple[str, ...] = (norm.copied, head.copied)
    else:
        arc = norm.refs if head.copied is not None and norm.copied is None else head.refs
    base = norm.base if norm.copied is None else head.base if head.copied is None else arc[0]
    return _on_arc(norm, arc, base, method), _on_arc(head, arc, base, method)


def _on_arc(end: Blended, arc: tuple[str, ...], base: str | None, method: str) -> Blended:
    if end.copied is None:
        return end
    if end.copied not in arc or (end.copied != base and method != "slerp"):
        raise Refusal(f"norm and head come from different donors, and mergekit's {method} has one pair for both")
    at = 0 if end.copied == base else 1
    return replace(end, refs=arc, base=base, shared={"t": _all(end.names, at)})


def _on_base_of(other: Blended, end: Blended) -> Blended:
    """A copied end in terms of another's donors; only their base can be copied among them."""
    if end.copied is None or end.copied != other.base:
        raise Refusal("norm and head come from different donors, and mergekit takes both relative to one base")
    each = {(ref, "weight"): _all(end.names, 0) for ref in other.refs if ref != other.base}
    return Blended(other.refs, other.base, each, {}, end.copied, end.names)
