"""Embeddings, norm and head for mergekit: slices without layers before the first and after the last slice."""

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
"""Tensor name -> value of a parameter."""


@dataclass(frozen=True)
class Blended:
    """Some tensors of the ends as a blend by one method.

    Attributes:
        refs: the donors, the base included.
        base: the donor that is the base of the method.
        each: values by donor and parameter.
        shared: values by parameter.
        copied: the only donor that has an effect; None if several have.
        names: the tensors.
    """

    refs: tuple[str, ...]
    base: str | None
    each: Mapping[tuple[str, str], ByTensor]
    shared: Mapping[str, ByTensor]
    copied: str | None
    names: tuple[str, ...] = field(default=())

    def slice(self) -> Slice:
        """The blend as a slice without layers."""
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
    """The embeddings as a blend.

    Raises:
        Refusal: the method cannot express them.
    """
    return _end(recipe, plan, planned[0], "embeddings", method, partner)


def last_end(recipe: Recipe, plan: Plan, planned: Sequence[PlannedSlice], method: str, partner: Partner) -> Blended:
    """The final norm and the head as one blend, because mergekit takes both from one slice.

    Raises:
        Refusal: the method cannot express both.
    """
    norm = _end(recipe, plan, planned[-1], "final_norm", method, partner)
    head = _end(recipe, plan, planned[-1], "lm_head", method, partner)
    return _combined(norm, head, method) if head.names else norm


def widened(end: Blended, refs: Sequence[str], method: str) -> Blended:
    """The end with as many donors as `refs`; added donors have no effect.

    mergekit gives norm and head as many donors as the first slice has.

    Raises:
        Refusal: the method cannot have donors without effect.
    """
    more = [ref for ref in refs if ref not in end.refs][: max(0, len(refs) - len(end.refs))]
    if not more:
        return end
    if method != "linear" and method not in WEIGHTED_DELTAS:
        raise Refusal(f"mergekit takes norm and head from only {len(end.refs)} of the {len(refs)} donors")
    each = {**end.each, **{(ref, "weight"): _all(end.names, 0) for ref in more}}
    return replace(end, refs=(*end.refs, *more), each=each)


def _end(recipe: Recipe, plan: Plan, part: PlannedSlice, end: End, method: str, partner: Partner) -> Blended:
    """One end as a blend by a method: from the slice, or from the donor that the recipe sets for the end."""
    own, tensors = recipe.end(end), plan.ends[end].tensors
    if own is not None and own.model is not None:
        part = single(own.model)
    if part.name == method:
        return _unchanged(recipe, part, tensors)
    if part.name == "passthrough":
        return _copied(part.sources[0].model, tensors, method, partner)
    raise Refusal(f"{end} is blended by {part.name}, and the layers by {method}")


def _unchanged(recipe: Recipe, part: PlannedSlice, tensors: Sequence[PlannedTensor]) -> Blended:
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
        {key: values for key, values in each.items() if _must_be_written(recipe, part, key[1], values)},
        {name: values for name, values in shared.items() if _must_be_written(recipe, part, name, values)},
        refs[0] if len(refs) == 1 else None,
        names,
    )


def _must_be_written(recipe: Recipe, part: PlannedSlice, name: str, values: ByTensor) -> bool:
    """Whether values must be written because they differ from the method's default or the recipe's value."""
    if name not in METHODS[part.name]:
        return False
    default = METHODS[part.name][name]
    return name in recipe.parameters or any(RESCALE.get(str(value), value) != default for value in values.values())


def _copied(ref: str, tensors: Sequence[PlannedTensor], method: str, partner: Partner) -> Blended:
    """The ends of one donor, expressed by a blend method."""
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
    raise Refusal(f"no parameters of {method} copy an end exactly")


def _all(names: Sequence[str], value: Word) -> ByTensor:
    return dict.fromkeys(names, value)


def _combined(norm: Blended, head: Blended, method: str) -> Blended:
    """Norm and head as one blend; filters separate their parameters."""
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
    """Give tensors without a value for a parameter the method's default."""
    default = METHODS[method][name]
    if default != REQUIRED:
        for tensor in tensors:
            values.setdefault(tensor, default)


def _on_one_arc(norm: Blended, head: Blended, method: str) -> tuple[Blended, Blended]:
    """Norm and head between the same two donors; a copied one is an endpoint of the other's arc."""
    if norm.copied is None and head.copied is None:
        if (norm.base, set(norm.refs)) != (head.base, set(head.refs)):
            raise Refusal(f"norm and head blend different donors, but mergekit's {method} has one pair for both")
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
        raise Refusal(f"norm and head come from different donors, but mergekit's {method} has one pair for both")
    at = 0 if end.copied == base else 1
    return replace(end, refs=arc, base=base, shared={"t": _all(end.names, at)})


def _on_base_of(other: Blended, end: Blended) -> Blended:
    """A copied end expressed with the donors of another end; this is possible only for their base."""
    if end.copied is None or end.copied != other.base:
        raise Refusal("norm and head come from different donors, but mergekit uses one base for both")
    each = {(ref, "weight"): _all(end.names, 0) for ref in other.refs if ref != other.base}
    return Blended(other.refs, other.base, each, {}, end.copied, end.names)
