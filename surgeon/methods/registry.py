"""The registry of methods. A method is a function that returns a kernel; its signature declares its parameters.

    @method(donors=2, base="start", source="Shoemake 1985")
    def slerp(*, t: float = one(help="0 is the base, 1 the other")) -> Kernel:
        \"\"\"Point at `t` on the arc between two tensors.\"\"\"
        return Combination(lambda gram: ...)

To add a method, define such a function in a module of `formulas/`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .kernel import Kernel

Base = Literal["none", "member", "start", "optional", "required"]
"""The role of `base_model` in a method.

* `none`: it only gives the config (if a slice lists it, it is an ordinary donor)
* `member`: it is one more donor
* `start`: it is the donor at the lower end of the parameter, and comes first
* `optional`: it is subtracted from the donors if a slice has it
* `required`: it is subtracted from the donors and must be given
"""

Word = bool | float | str
REQUIRED = "required"


LARGEST = 1e15
"""Largest magnitude of a parameter. Sums and products of such numbers stay in the range of float32."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        name: its name in recipes.
        each: whether it has a value per donor (a base that is subtracted has none) instead of one for all.
        kind: `float`, `int`, `bool` or `word`.
        default: its value if a recipe does not set it; `REQUIRED` if a recipe must set it.
        low, high: the smallest and largest allowed value; None without a bound.
        words: the allowed words; `true` and `false` in a recipe mean the first and the second.
        help: its effect, as a clause.
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
        """Whether a recipe must set it."""
        return self.default is REQUIRED

    def typed(self, value: Word) -> Word:
        """A recipe's value, converted to the parameter's kind.

        Raises:
            ValueError: the value is of another kind or out of bounds.
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
            raise ValueError(f"{number:g} exceeds {LARGEST:g}, and sums of such numbers overflow")
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
    """Declare a parameter with one value for all donors; used as the default of a method's argument."""
    return _declared(False, default, help, low, high, words)


def each(default: Word = REQUIRED, *, help: str = "", low: float | None = None, high: float | None = None) -> Any:
    """Declare a parameter with a value per donor; the method gets a tuple."""
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
        name: its name in recipes.
        summary: its effect, in a sentence.
        donors: the fewest and the most donors (None: no limit), not counting a base that is subtracted.
        base: the role of `base_model`.
        parameters: by name.
        source: the source of the formula.
        make: makes the kernel for given parameters.
        random: whether the result depends on the donors' seeds.
    """

    name: str
    summary: str
    donors: tuple[int, int | None]
    base: Base
    parameters: Mapping[str, Parameter]
    source: str
    make: Callable[..., Kernel]
    random: bool = False

    @property
    def subtracts(self) -> bool:
        """Whether the base, if there is one, is subtracted from the donors."""
        return self.base in ("optional", "required")

    def kernel(self, one: Mapping[str, Word], each: Sequence[Mapping[str, Word]]) -> Kernel:
        """The kernel for one tensor.

        Args:
            one: the values of parameters for all donors, by name.
            each: for every donor (without a base that is subtracted), the values of per-donor parameters by name.
        """
        values: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            value = tuple(table[name] for table in each) if parameter.each else one[name]
            values[_argument(name)] = value
        return self.make(**values)


def _argument(name: str) -> str:
    return f"{name}_" if name == "lambda" else name


METHODS: dict[str, Method] = {}
"""Every method by name; `find` and `every` fill it."""


def method(
    *, donors: int | tuple[int, int | None], base: Base = "none", source: str, random: bool = False
) -> Callable[[Callable[..., Kernel]], Callable[..., Kernel]]:
    """Register a function as a method; its keyword arguments declare the parameters with `one` and `each`."""
    count = (donors, donors) if isinstance(donors, int) else donors

    def register(function: Callable[..., Kernel]) -> Callable[..., Kernel]:
        found = dict(_parameters(function))
        name = function.__name__
        summary = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
        METHODS[name] = Method(name, summary, count, base, found, source, function, random)
        return function

    return register


def _parameters(function: Callable[..., Kernel]) -> Iterator[tuple[str, Parameter]]:
    for argument in inspect.signature(function).parameters.values():
        declared, name = argument.default, argument.name.rstrip("_")
        assert isinstance(declared, Parameter), f"{function.__name__}: {name} is not declared with one() or each()"
        yield name, Parameter(name, *list(vars(declared).values())[1:])
