"""Small changes of a program, each of which a test should notice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARE: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Eq: ("!=",), ast.NotEq: ("==",), ast.Lt: ("<=", ">="), ast.LtE: ("<", ">"), ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"), ast.Is: ("is not",), ast.IsNot: ("is",), ast.In: ("not in",), ast.NotIn: ("in",),
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "//", ast.Pow: "*",
    ast.LShift: ">>", ast.RShift: "<<",
}  # fmt: skip
_EMPTY = {"bool": "False", "int": "0", "float": "0.0", "str": '""', "bytes": 'b""', "list": "[]", "tuple": "()",
          "dict": "{}", "set": "set()", "frozenset": "frozenset()", "Iterator": "iter(())"}  # fmt: skip
_CACHES = ("cache", "lru_cache", "cached_property")


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        path: of the file, below the repository.
        span: first and last line of the statement that is changed.
        start: first byte that is replaced.
        stop: the byte behind the last one.
        text: what stands there instead.
        kind: the operator.
        late: whether the statement runs when the test that depends on it runs: not when a module is imported, nor once
            for all callers.
        within: first and last line of the function around it, or of the statement.
    """

    path: str
    span: tuple[int, int]
    start: int
    stop: int
    text: str
    kind: str
    late: bool = True
    within: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """What it is called in lists."""
        return f"{self.path}:{self.span[0]} {self.kind} -> {self.text or 'nothing'} @{self.start}"

    def apply(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.text.encode() + source[self.stop :]

    def shown(self, source: bytes) -> str:
        """The changed lines, before and after."""
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.stop)
        after = self.apply(source[:last])[first:].decode()
        return f"-{source[first:last].decode()}\n+{after}"


def mutants(root: Path, path: str) -> list[Mutant]:
    """Every change of one file, in the order of the file."""
    source = (root / path).read_bytes()
    return list(_File(path, source).found())


class _File:
    def __init__(self, path: str, source: bytes) -> None:
        self._path, self._source = path, source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def found(self) -> Iterator[Mutant]:
        yield from self._block(ast.parse(self._source).body, None, False)

    def _at(self, node: ast.AST) -> tuple[int, int]:
        start = self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _text(self, node: ast.AST) -> str:
        start, stop = self._at(node)
        return self._source[start:stop].decode()

    def _block(self, body: list[ast.stmt], inside: ast.FunctionDef | None, late: bool) -> Iterator[Mutant]:
        for statement in body:
            if isinstance(statement, (ast.Import, ast.ImportFrom, ast.Assert, ast.Pass, ast.Global)):
                continue
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                cached = any(name in ast.unparse(d) for d in statement.decorator_list for name in _CACHES)
                function = statement if isinstance(statement, ast.FunctionDef) else inside
                runs = isinstance(statement, ast.FunctionDef) and not cached
                yield from self._block(statement.body, function, runs)
                continue
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue  # a docstring
            if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
                continue
            header = _header(statement)
            last = max((part.end_lineno or 0 for part in header), default=statement.lineno)
            span = (statement.lineno, max(statement.lineno, last if hasattr(statement, "body") else
                                          statement.end_lineno or 0))  # fmt: skip
            for start, stop, text, kind in self._changes(statement, header, inside):
                within = (inside.body[0].lineno, inside.end_lineno or 0) if inside else span
                yield Mutant(self._path, span, start, stop, text, kind, late, within)
            for field in ("body", "orelse", "finalbody"):
                yield from self._block(getattr(statement, field, []), inside, late)
            for handler in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
                yield from self._block(handler.body, inside, late)

    def _changes(
        self, statement: ast.stmt, header: list[ast.expr], inside: ast.FunctionDef | None
    ) -> Iterator[tuple[int, int, str, str]]:
        whole = self._at(statement)
        if isinstance(statement, ast.Return) and statement.value is not None:
            empty = _EMPTY.get(_annotated(inside), "None")
            if self._text(statement.value) != empty:
                yield *self._at(statement.value), empty, "return empty"
        if isinstance(statement, (ast.Continue, ast.Break)):
            yield *whole, "break" if isinstance(statement, ast.Continue) else "continue", "loop"
        kept = isinstance(statement, ast.Assign) and all(isinstance(t, ast.Name) for t in statement.targets)
        if isinstance(statement, (ast.Expr, ast.AugAssign, ast.Raise, ast.Delete, ast.Assign)) and not kept:
            yield *whole, "pass", "drop statement"
        if isinstance(statement, (ast.If, ast.While)):
            for text in ("True", "False"):
                yield *self._at(statement.test), text, "condition"
        for part in header:
            yield from self._expression(part)

    def _expression(self, node: ast.AST) -> Iterator[tuple[int, int, str, str]]:
        if isinstance(node, (ast.JoinedStr, ast.Lambda)):  # the places within an f-string are not known in Python 3.11
            return
        yield from self._operator(node)
        yield from self._value(node)
        if isinstance(node, ast.Call):
            yield from self._call(node)
        for child in ast.iter_child_nodes(node):
            yield from self._expression(child)

    def _operator(self, node: ast.AST) -> Iterator[tuple[int, int, str, str]]:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            for text in _COMPARE[type(node.ops[0])]:
                yield *self._between(node.left, node.comparators[0]), f" {text} ", "comparison"
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _is_text(node):
            yield *self._between(node.left, node.right), f" {_ARITHMETIC[type(node.op)]} ", "arithmetic"
        if isinstance(node, ast.BoolOp):
            for one, two in zip(node.values, node.values[1:], strict=False):
                yield *self._between(one, two), " or " if isinstance(node.op, ast.And) else " and ", "and/or"
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            yield *self._at(node), f"({self._text(node.operand)})", "sign"
        if isinstance(node, ast.IfExp):
            for text in ("True", "False"):
                yield *self._at(node.test), text, "condition"
        if isinstance(node, ast.comprehension):
            for test in node.ifs:
                yield *self._at(test), "True", "condition"

    def _between(self, one: ast.AST, two: ast.AST) -> tuple[int, int]:
        """The place of an operator; brackets around its operands stay."""
        start, stop = self._at(one)[1], self._at(two)[0]
        while self._source[start : start + 1] in b") \n" and self._source[start : start + 1]:
            start += 1
        while self._source[stop - 1 : stop] in b"( \n":
            stop -= 1
        return start, stop

    def _value(self, node: ast.AST) -> Iterator[tuple[int, int, str, str]]:
        if isinstance(node, ast.Constant) and type(node.value) is bool:
            yield *self._at(node), str(not node.value), "constant"
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            for step in ("+ 1", "- 1"):
                yield *self._at(node), f"({self._text(node)} {step})", "constant"
        if isinstance(node, ast.Subscript):
            parts = [node.slice.lower, node.slice.upper] if isinstance(node.slice, ast.Slice) else [node.slice]
            for part in parts:
                numeric = isinstance(node.slice, ast.Slice) or not isinstance(part, (ast.Constant, ast.Tuple))
                if part is not None and numeric and not isinstance(part, (ast.JoinedStr, ast.Slice)):
                    for step in ("+ 1", "- 1"):
                        yield *self._at(part), f"({self._text(part)}) {step}", "index"

    def _call(self, node: ast.Call) -> Iterator[tuple[int, int, str, str]]:
        for one, two in zip(node.args, node.args[1:], strict=False):
            if type(one) is type(two) and not isinstance(one, (ast.Starred, ast.JoinedStr)):
                texts = self._text(one), self._text(two)
                middle = self._source[self._at(one)[1] : self._at(two)[0]].decode()
                yield self._at(one)[0], self._at(two)[1], f"{texts[1]}{middle}{texts[0]}", "swap arguments"
        for keyword in node.keywords:
            if keyword.arg is None:
                continue
            start, stop = self._at(keyword)
            while self._source[stop : stop + 1] in b" ,\n" and self._source[stop : stop + 1]:
                stop += 1
            if not _is_generator(node):
                yield start, stop, "", "drop keyword"


def _header(statement: ast.stmt) -> list[ast.expr]:
    """The expressions of a statement that are not in a block of it, without annotations."""
    found: list[ast.expr] = []
    for field, value in ast.iter_fields(statement):
        if field == "annotation":
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.expr):
                found.append(part)
            elif isinstance(part, ast.withitem):
                found.append(part.context_expr)
    return found


def _annotated(function: ast.FunctionDef | None) -> str:
    return ast.unparse(function.returns).split("[")[0] if function and function.returns else ""


def _is_text(node: ast.BinOp) -> bool:
    """Whether it is surely text that is added or formatted."""
    sides = (node.left, node.right)
    return any(isinstance(s, ast.JoinedStr) or (isinstance(s, ast.Constant) and isinstance(s.value, (str, bytes)))
               for s in sides)  # fmt: skip


def _is_generator(node: ast.Call) -> bool:
    return any(isinstance(argument, ast.GeneratorExp) for argument in node.args)
