"""Which tests run which lines, recorded once and kept until the program or the tests change."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .cell import ROOT, Cell
from .operators import Mutant

LEFT_OUT = ("tui", "fuzz", "bench", "doctor", "imports")
"""Words in the names of test files that are about other packages, or run for very long."""

FIRST = 4
"""Test files that a mutant is tried on before all others are imported."""

SETTINGS = """\
[run]
source = {root}/surgeon
data_file = {folder}/data
parallel = true
context = ${{MUTATION_TEST-}}
patch = fork, _exit
disable_warnings = no-data-collected, couldnt-parse, module-not-measured, already-imported, module-not-imported
"""
"""Settings of coverage, for the tests' process and those it starts."""


class Touched:
    """Tests by the lines that they run.

    Attributes:
        seconds: how long each test takes; only those that pass are known.
        program: a hash of surgeon's files.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` keeps what is recorded."""
        self._folder = folder
        self.program = ""
        self.seconds: dict[str, float] = {}
        self._lines: dict[str, dict[int, set[str]]] = {}

    def record(self) -> None:
        """Run what is not recorded of this program; tests that have changed alone, if the program has not."""
        program = self.program = _hash((ROOT / "surgeon").rglob("*.py"))
        every = [path for path in sorted((ROOT / "tests").rglob("*.py")) if path.parent.name != "mutation"]
        helpers = _hash(path for path in every if not path.name.startswith("test_"))
        files = {path.relative_to(ROOT).as_posix(): path for path in every if path.name.startswith("test_")}
        wanted = {name: _hash([path]) for name, path in files.items() if not any(word in name for word in LEFT_OUT)}
        self._folder.mkdir(parents=True, exist_ok=True)
        store = self._folder / "touched.json"
        kept: dict[str, Any] = json.loads(store.read_text()) if store.is_file() else {}
        if kept.get("program") != program or kept.get("helpers") != helpers:
            kept = {"program": program, "helpers": helpers, "files": {}}
        stale = [name for name, digest in wanted.items() if kept["files"].get(name, {}).get("hash") != digest]
        if stale:
            print(f"recording which lines {len(stale)} test files run", flush=True)
            found = self._recorded(stale)
            for name in stale:
                kept["files"][name] = {"hash": wanted[name], "tests": found.get(name, {})}
            store.write_text(json.dumps(kept))
        self._read({name: kept["files"][name]["tests"] for name in wanted})

    def _recorded(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        folder = self._folder / "recorded"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        (folder / "sitecustomize.py").write_text("import coverage\ncoverage.process_startup()\n")
        settings, results = folder / "settings", folder / "results.json"
        settings.write_text(SETTINGS.format(root=ROOT, folder=folder))

        def work() -> int:
            os.environ.update(MUTATION_SETTINGS=str(settings), MUTATION_RESULTS=str(results))
            os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
            words = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "", "-p", "no:cacheprovider"]
            words += ["-p", "tests.mutation.recorder"]
            os.execv(sys.executable, [*words, *names])

        os.waitpid(Cell(folder, 3600).start(work), 0)
        return tests_of(folder, json.loads(results.read_text()))

    def _read(self, files: dict[str, dict[str, Any]]) -> None:
        lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for tests in files.values():
            for test, about in tests.items():
                if not about["passed"]:
                    continue
                self.seconds[test] = about["seconds"]
                for path, numbers in about["lines"].items():
                    for number in numbers:
                        lines[path][number].add(test)
        self._lines = dict(lines)

    def patience(self) -> dict[str, float]:
        """Seconds for any one test of each file: more than the slowest of them took, and time to import things."""
        found: dict[str, float] = {}
        for test, seconds in self.seconds.items():
            found[_file(test)] = max(found.get(_file(test), 0.0), 20 + 6 * seconds)
        return found

    def tests(self, mutant: Mutant, budget: float) -> list[list[str]]:
        """Tests that run the mutant's lines, as many as take `budget` seconds. First those that run lines of its
        function which few others run: a test that passes through it on its way to something else notices little.
        They come in two groups: of the files that are most about these lines, and all others.

        Where the lines run at import or once for all, tests that run anything of the file.
        """
        table = self._lines.get(mutant.path, {})
        wanted = range(mutant.span[0], mutant.span[1] + 1) if mutant.late else table
        found: set[str] = set().union(*(table.get(line, set()) for line in wanted))
        if not found and mutant.late:  # a process that was forked, or nothing
            found = set().union(*table.values())
        if not found:  # nothing but tables of constants
            beside = (path for path in self._lines if Path(path).parent == Path(mutant.path).parent)
            found = set().union(*(tests for path in beside for tests in self._lines[path].values()))
        company: dict[str, int] = {}
        for line in range(mutant.within[0], mutant.within[1] + 1) if mutant.late else table:
            for test in table.get(line, ()):
                company[test] = min(company.get(test, len(self.seconds)), len(table[line]))
        by_file: dict[str, list[str]] = defaultdict(list)
        spent = 0.0
        for test in sorted(found, key=lambda test: (company.get(test, len(self.seconds)), self.seconds[test], test)):
            spent += self.seconds[test] + 0.01
            if spent > budget and by_file:
                spent -= self.seconds[test]
                continue
            by_file[_file(test)].append(test)
        size = Counter(map(_file, self.seconds))
        order = sorted(by_file, key=lambda file: (-len(by_file[file]) / size[file], file))
        groups = [[test for file in files for test in by_file[file]] for files in (order[:FIRST], order[FIRST:])]
        return [group for group in groups if group]


def _file(test: str) -> str:
    return test.split("::")[0]


def tests_of(folder: Path, results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By test file and test: seconds, whether it passed, and the lines by file; from coverage's files."""
    from coverage import CoverageData

    lines: dict[str, dict[str, list[int]]] = defaultdict(dict)
    together = CoverageData(basename=str(folder / "together"))
    for path in sorted(folder.glob("data.*")):
        one = CoverageData(basename=str(path))
        one.read()
        together.update(one)
    for path in together.measured_files():
        name = str(Path(path).relative_to(ROOT))
        for number, contexts in together.contexts_by_lineno(path).items():
            for context in contexts:
                if context:
                    lines[context].setdefault(name, []).append(number)
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for test, about in results.items():
        own: dict[str, set[int]] = defaultdict(set)
        for context in (test, *about["fixtures"]):
            for path, numbers in lines.get(context, {}).items():  # type: ignore[assignment]
                own[path].update(numbers)  # type: ignore[index]
        found[_file(test)][test] = {
            "seconds": about["seconds"],
            "passed": about["passed"],
            "lines": {path: sorted(numbers) for path, numbers in own.items()},
        }
    return found


def _hash(paths: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
