"""Which methods there are. A method is a function of its parameters, declared by its signature, that gives a kernel.

    @method(donors=2, base="start", source="Shoemake 1985")
    def slerp(*, t: float = one(help="0 is the base, 1 the other")) -> Kernel:
        \"\"\"Point at `t` on the arc between two tensors.\"\"\"
        return Combination(lambda gram: ...)

One in a module of `formulas/` is all there is to adding one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .kernel import Kernel

Base = Literal["none", "member", "start", "optional", "required"]
"""What `base_model` is to a method.

* `none`: nothing, it only gives the config (a donor like any other where a slice lists it)
* `member`: one more donor
* `start`: the donor that the parameter's lower end means; it comes first
* `optional`: subtracted from the donors where a slice has it
* `required`: subtracted from the donors, and there must be one
"""

Word = bool | float | str
REQUIRED = "required"


LARGEST = 1e15
"""Parameters may be as large as this: their sums and products stay in float32's range."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        name: as recipes write it.
        each: it has a value per donor (never for the base, where donors are subtracted from it), not one for all.
        kind: `float`, `int`, `bool` or `word`.
        default: its value where a recipe says nothing; `REQUIRED` where it must say something.
        low, high: the smallest and largest value that make sense, None where there is no bound.
        words: what else than a number it may be, with the words that `true` and `false` stand for first.
        help: what it does, as a clause.
    """

    name: str
    each: bool
    kind: Literal["float", "int", "bool", "word"]
    default: Word
    low: float | None
    high: float | None
    words: tuple[str, ...]
    help: str

    @property
    def required(self) -> bool:
        """Whether a recipe must give it."""
        return self.default is REQUIRED

    def typed(self, value: Word) -> Word:
        """A recipe's value as the method takes it.

        Raises:
            ValueError: it is not of the kind, or out of bounds; says what would be right.
        """
        if self.kind == "word":
            if isinstance(value, bool):
                value = self.words[0 if value else 1]
            if value not in self.words:
                raise ValueError(f"{value} is not one of {', '.join(self.words)}")
            return value
        if isinstance(value, str):
            raise ValueError(f"{value!r} is not a number")
        if self.kind == "bool":
            if value not in (0, 1):
                raise ValueError(f"{value:g} is neither true nor false")
            return bool(value)
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError(f"{number} is not a finite number")
        if abs(number) > LARGEST:
            raise ValueError(f"{number:g} is beyond {LARGEST:g}, and sums of such numbers overflow")
        if self.kind == "int" and not number.is_integer():
            raise ValueError(f"{number:g} is not a whole number")
        if self.low is not None and number < self.low:
            raise ValueError(f"{number:g} is below {self.low:g}")
        if self.high is not None and number > self.high:
            raise ValueError(f"{number:g} is above {self.high:g}")
        return int(number) if self.kind == "int" else number


def one(
    default: Word = REQUIRED,
    *,
    help: str = "",
    low: float | None = None,
    high: float | None = None,
    words: Sequence[str] = (),
) -> Any:
    """Declares a parameter that has one value for all donors, as the default of an argument of a method."""
    return _declared(False, default, help, low, high, words)


def each(default: Word = REQUIRED, *, help: str = "", low: float | None = None, high: float | None = None) -> Any:
    """Declares a parameter with a value per donor; the method gets them as a tuple."""
    return _declared(True, default, help, low, high, ())


def _declared(
    every: bool, default: Word, help: str, low: float | None, high: float | None, words: Sequence[str]
) -> Parameter:
    kind: Literal["float", "int", "bool", "word"]
    kind = "word" if words else "bool" if isinstance(default, bool) else "int" if type(default) is int else "float"
    return Parameter("", every, kind, default, low, high, tuple(words), help)


@dataclass(frozen=True)
class Method:
    """A merge method.

    Attributes:
        name: as recipes write it.
        summary: what it does, in a sentence.
        donors: the fewest and the most donors (None: no limit). Where the base is subtracted it is not counted.
        base: what `base_model` is to it.
        parameters: by name.
        source: where the formula is from.
        make: the kernel for given parameters.
    """

    name: str
    summary: str
    donors: tuple[int, int | None]
    base: Base
    parameters: Mapping[str, Parameter]
    source: str
    make: Callable[..., Kernel]

    @property
    def subtracts(self) -> bool:
        """Whether donors are taken relative to the base where there is one."""
        return self.base in ("optional", "required")

    def kernel(self, one: Mapping[str, Word], each: Sequence[Mapping[str, Word]]) -> Kernel:
        """The kernel for one tensor.

        Args:
            one: the values of parameters that all donors share, by name.
            each: for every donor (without a base that is subtracted) the values of its own parameters.
        """
        values: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            value = tuple(table[name] for table in each) if parameter.each else one[name]
            values[_argument(name)] = value
        return self.make(**values)


def _argument(name: str) -> str:
    return f"{name}_" if name == "lambda" else name


METHODS: dict[str, Method] = {}
"""Every method by its name; filled by `find` and `every`."""


def method(
    *, donors: int | tuple[int, int | None], base: Base = "none", source: str
) -> Callable[[Callable[..., Kernel]], Callable[..., Kernel]]:
    """Makes a method of a function whose keyword arguments declare its parameters (with `one` and `each`)."""
    count = (donors, donors) if isinstance(donors, int) else donors

    def register(function: Callable[..., Kernel]) -> Callable[..., Kernel]:
        found = dict(_parameters(function))
        name = function.__name__
        summary = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
        METHODS[name] = Method(name, summary, count, base, found, source, function)
        return function

    return register


def _parameters(function: Callable[..., Kernel]) -> Iterator[tuple[str, Parameter]]:
    for argument in inspect.signature(function).parameters.values():
        declared, name = argument.default, argument.name.rstrip("_")
        assert isinstance(declared, Parameter), f"{function.__name__}: {name} is not declared with one() or each()"
        yield name, Parameter(name, *list(vars(declared).values())[1:])
