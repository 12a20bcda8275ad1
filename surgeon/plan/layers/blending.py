"""Plan blended tensors: look up their parameters and collect the donors' tensors that they are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...checkpoint import dtypes
from ...methods import Method, Parameter
from ...methods.registry import Word
from ...recipe.parameters import first_of
from ...text import one_line, plural
from ..model import Value
from ..operands import Blend, Operand, Settings, random_seed
from ..planned_slices import PlannedSlice, Scope, Table
from ..planning_notes import PlanningNotes

_PRECISION = {"BF16": 0, "F16": 0, "F32": 1, "F64": 2}


@dataclass(frozen=True)
class Chosen:
    """The parameters of one tensor: those shared by all donors, those of each donor without a subtracted base model,
    and all of them with their origins."""

    one: Settings
    each: tuple[Settings, ...]
    values: tuple[Value, ...]


@dataclass
class Chooser:
    """Looks up parameters, and records their errors by layer.

    Attributes:
        notes: the records.
        sound: by method and values, why it refuses them; empty if it accepts them.
    """

    notes: PlanningNotes
    sound: dict[tuple[str, Settings, tuple[Settings, ...]], str]

    def choose(self, part: PlannedSlice, scope: Scope, name: str, names: Sequence[str], layer: int) -> Chosen | None:
        """The parameters of a blended tensor; None if they have an error, or the number of donors is wrong.

        Args:
            part: its slice, whose method is known.
            scope: the tables in which its parameters are looked up.
            name: its name in the output, which the filters of shared parameters match.
            names: its name in each source, which the filters of a donor's parameters match.
            layer: the output layer; -1 for an end.
        """
        method = part.method
        assert method is not None
        donors = [index for index in source_order(part) if not (method.subtracts and index == part.base)]
        low, high = method.donors
        if not low <= len(donors) <= (high or len(donors)):
            return None  # `method_checks` reports it; a formula may rely on its number of donors

        def table(source: int | None, filtered: str) -> dict[str, Value | None]:
            wanted = (p for p in method.parameters.values() if p.each == (source is not None))
            return {p.name: self._value(p, scope, source, filtered, part, layer) for p in wanted}

        shared, own = table(None, name), [table(index, names[index]) for index in donors]
        found = [*shared.values(), *(value for table in own for value in table.values())]
        if any(value is None for value in found):
            return None
        one = tuple((key, value.value) for key, value in shared.items() if value)
        each = tuple(tuple((key, value.value) for key, value in table.items() if value) for table in own)
        if why := self._unsound(method, one, each):
            self._note(f"{method.name} cannot use these parameters together", why, part, layer)
            return None
        if _cancels(dict(one), [dict(table) for table in each]):
            self.notes.cancelling.setdefault((method.name, part.number), []).append(layer)
        return Chosen(one, each, tuple(value for value in found if value))

    def _value(
        self, parameter: Parameter, scope: Scope, source: int | None, name: str, part: PlannedSlice, layer: int
    ) -> Value | None:
        try:
            return _looked_up(parameter, scope, source, name)
        except ValueError as error:
            self._note(f"A value of {parameter.name} cannot be used", one_line(error), part, layer)
        except LookupError:
            whose = "" if source is None else f" for {one_line(part.sources[source].model)}"
            what = f"{part.name} needs the parameter `{parameter.name}`{whose}"
            self._note(what, f"the recipe sets no value for {one_line(name)}", part, layer)
        return None

    def _unsound(self, method: Method, one: Settings, each: tuple[Settings, ...]) -> str:
        """Why the method refuses these values together; empty if it accepts them."""
        key = (method.name, one, each)
        if key not in self.sound:
            try:
                method.kernel(dict(one), [dict(table) for table in each])
                self.sound[key] = ""
            except ValueError as error:
                self.sound[key] = one_line(error)
        return self.sound[key]

    def _note(self, what: str, why: str, part: PlannedSlice, layer: int) -> None:
        # One finding per slice and parameter is enough, with the first tensor's reason.
        self.notes.problems.setdefault((what, part.number), (why, part.name, []))[2].append(layer)


def _cancels(one: Mapping[str, Word], each: Sequence[Mapping[str, Word]]) -> bool:
    """Whether the weights are to be normalised although their sum is 0."""
    if not (one.get("normalize") or one.get("normalize_weights")):
        return False
    weights = [table["weight"] for table in each if "weight" in table]
    return bool(weights) and any(weights) and abs(sum(map(float, weights))) < 1e-8


def _looked_up(parameter: Parameter, scope: Scope, source: int | None, name: str) -> Value:
    """The value of a parameter.

    Raises:
        ValueError: the value is not of the parameter's kind.
        LookupError: no table has a value, and the parameter is required.
    """
    below = _first(parameter, scope.levels(source), source, name)
    if scope.taper is None:
        if below is None:
            raise LookupError
        return below
    outer = _first(parameter, [scope.taper.table], source, name, default=False)
    if outer is None or below is None or parameter.kind not in ("float",):
        if below is None and outer is None:
            raise LookupError
        return below or outer  # type: ignore[return-value]
    assert isinstance(outer.value, (int, float)) and isinstance(below.value, (int, float))
    weight = scope.taper.weight
    mixed = weight * outer.value + (1 - weight) * below.value
    return Value(parameter.name, mixed, source, f"{outer.origin} into {below.origin}", outer.rule or below.rule)


def _first(
    parameter: Parameter, tables: Sequence[Table], source: int | None, name: str, *, default: bool = True
) -> Value | None:
    found = first_of(parameter.name, ((table.parameters, name, table.t) for table in tables))
    if found is not None:
        (value, rule), number = found
        return Value(parameter.name, parameter.typed(value), source, tables[number].origin, rule)
    if parameter.required or not default:
        return None
    return Value(parameter.name, parameter.default, source, "default")


def is_moving(value: Value, scope: Scope, name: str) -> bool:
    """Whether a value that was looked up at the start of a gradient differs from the one at its end."""
    tables = [table for table in scope.levels(value.donor) if table is not scope.edge]
    later = first_of(value.name, ((table.parameters, name, 1.0) for table in tables))
    return value.origin in ("source", "slice", "recipe") and later is not None and later[0].value != value.value


def source_order(part: PlannedSlice) -> list[int]:
    """The sources in the method's order: as in the slice, but a base model that is the start comes first."""
    indices = list(range(len(part.sources)))
    if part.method is not None and part.method.base == "start" and part.base is not None:
        indices.sort(key=lambda index: index != part.base)
    return indices


def blend(
    part: PlannedSlice, chosen: Chosen, operands: Sequence[Operand], seed: int, name: str, dtype: str | None
) -> Blend:
    """The blend of one tensor.

    Args:
        part: the slice, with its method.
        chosen: the method's parameters for this tensor.
        operands: the donors' tensors, in the order of the slice's sources.
        seed: the recipe's seed.
        name: the tensor's name in the output.
        dtype: safetensors code of the result; None for the donors' widest.
    """
    order = source_order(part)
    base = None if part.base is None else order.index(part.base)
    return Blend(
        method=part.name,
        inputs=tuple(operands[index] for index in order),
        base=base,
        one=chosen.one,
        each=chosen.each,
        seeds=tuple(random_seed(seed, index, name) for index in order),
        code=dtype or promoted([operand.dtype for operand in operands]),
    )


def promoted(codes: Sequence[str]) -> str:
    """The dtype that can represent the values of all: the widest, or F32 for BF16 with F16."""
    widest = max(codes, key=lambda code: _PRECISION[code])
    return "F32" if _PRECISION[widest] == 0 and len(set(codes)) > 1 else widest


def computable(operands: Sequence[Operand]) -> bool:
    """Whether all operands have floating-point numbers of 16 bits or more."""
    return all(operand.dtype in dtypes.ARITHMETIC for operand in operands)


def counted(donors: tuple[int, int | None]) -> str:
    """The number of donors that a method takes, in words."""
    low, high = donors
    if high is None:
        return f"at least {plural(low, 'donor')}"
    return f"exactly {plural(low, 'donor')}" if low == high else f"{low} to {plural(high, 'donor')}"


def shown(value: Word) -> str:
    """A parameter's value as text."""
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}"
