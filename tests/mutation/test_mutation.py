"""The mutation tester's changes: each is a program, another one, and only what it says."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.mutation.operators import mutants
from tests.support.paths import ROOT

PROGRAM = '''\
"""Words."""
from functools import cache

LIMIT = 3


@cache
def table(n: int = 2) -> list[int]:
    """More words."""
    return [n]


def of(a, b, *, c=True) -> int:
    assert a > 1
    for x in range(a):
        if x < b and not c:
            continue
        b.y = f(a, b, key=x[1:])
    return (a +
            b)
'''


def changed(tmp_path: Path) -> list[tuple[str, str, bool]]:
    (tmp_path / "a.py").write_text(PROGRAM)
    found = []
    for mutant in mutants(tmp_path, "a.py"):
        minus, plus = (part.strip() for part in mutant.shown(PROGRAM.encode()).split("\n+", 1))
        found.append((minus.removeprefix("-").strip(), " ".join(plus.split()), mutant.late))
    return found


def test_what_is_changed_and_what_is_not(tmp_path: Path) -> None:
    found = changed(tmp_path)
    assert {plus for minus, plus, _ in found if minus == "if x < b and not c:"} == {
        "if x <= b and not c:", "if x >= b and not c:", "if x < b or not c:", "if x < b and (c):", "if True:",
        "if False:",
    }  # fmt: skip
    assert {plus for minus, plus, _ in found if minus == "b.y = f(a, b, key=x[1:])"} == {
        "pass", "b.y = f(b, a, key=x[1:])", "b.y = f(a, b, )", "b.y = f(a, b, key=x[(1 + 1):])",
        "b.y = f(a, b, key=x[(1 - 1):])", "b.y = f(a, b, key=x[(1) + 1:])", "b.y = f(a, b, key=x[(1) - 1:])",
    }  # fmt: skip
    assert {plus for minus, plus, _ in found if minus == "continue"} == {"break"}
    assert {plus for minus, plus, _ in found if minus.startswith("return (a")} == {"return (a -", "return (0)"}
    assert not any("assert" in minus or "ords" in minus or "import" in minus for minus, _, _ in found)


def test_lines_that_run_at_import_or_once_are_known(tmp_path: Path) -> None:
    late = {minus: late for minus, _, late in changed(tmp_path)}
    assert (late["LIMIT = 3"], late["return [n]"], late["continue"]) == (False, False, True)


@pytest.mark.parametrize(
    "path", ["surgeon/methods/kernel.py", "surgeon/plan/layers/blending.py", "surgeon/recipe/yaml/patch.py"]
)
def test_every_change_is_another_program(path: str) -> None:
    source = (ROOT / path).read_bytes()
    found = mutants(ROOT, path)
    before = ast.dump(ast.parse(source))
    assert len(Counter(mutant.name for mutant in found)) == len(found) > 100
    for mutant in found[::7]:
        assert ast.dump(ast.parse(mutant.apply(source))) != before, mutant.name
        assert mutant.span[0] <= source[: mutant.start].count(b"\n") + 1 <= mutant.span[1], mutant.name


def test_the_known_wrong_programs_can_be_made() -> None:
    from tests.mutation.run import KNOWN

    for known in KNOWN:
        assert known.old in (ROOT / known.path).read_text(), known.path
        assert all((ROOT / test).is_file() for test in known.tests)
