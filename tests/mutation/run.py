"""What the tests do not notice: `.venv/bin/python -m tests.mutation --seed 1 --each 60`, as root on Linux.

A sample of small changes is drawn from each package. Every one is made in a process of its own, which runs the tests
that run the changed lines, until one fails. What survives is listed with its change: a test is missing there, or the
change means nothing (`tests/mutation/SURVIVORS.md` says which). `--check` tries three wrong programs that must be
found and a change that is none. Needs coverage (`pip install -e '.[mutation]'`).

What is done is kept in the scratch folder: the same command goes on where it was ended.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutation.cell import ROOT, Cell, enclose, settle
from tests.mutation.operators import Mutant, mutants
from tests.mutation.touched import Touched

PACKAGES = ("plan", "methods", "assemble", "probe", "recipe")
BUDGET = 40.0
"""Seconds of tests, as recorded, that a mutant is given."""
LONGEST = 120.0
"""Seconds that a test is given where it is not known how long it takes."""
VERDICTS = {
    1: "survived",
    2: "killed",
    3: "killed",
    4: "killed",
    128 + signal.SIGALRM: "timeout",
    0: "timeout",
    6: "untested",
}
"""By the code of a cell: pytest's own and one."""


@dataclass(frozen=True)
class Known:
    """A change whose verdict is known, with the tests that are to decide."""

    path: str
    old: str
    new: str
    tests: tuple[str, ...]
    verdict: str = "killed"


KNOWN = (
    Known("surgeon/tui/surgery/editor.py", "return stop if behind else start", "return start if behind else stop",
          ("tests/tui/surgery/test_surgery_screen.py",)),
    Known("surgeon/plan/operands.py", "{seed}\\0{source}\\0{name}", "{seed}\\0{name}",
          ("tests/assemble/compute/test_blends.py",)),
    Known("surgeon/probe/unwritten_model.py", "key = tuple((tensor.place.suffix, tensor.dtype, tensor.source) for "
          "tensor in layer.tensors)", "key = layer.sources",
          ("tests/probe/test_unwritten_model.py", "tests/probe/test_blends.py")),
    Known("surgeon/probe/unwritten_model.py", "position.append(numbers[key])", "position.append(numbers[(key)])",
          ("tests/probe/test_unwritten_model.py", "tests/probe/test_blends.py"), "survived"),
)  # fmt: skip


class Runner:
    """Runs mutants in cells, some at once."""

    def __init__(self, scratch: Path, jobs: int, seconds: Mapping[str, float] | None = None) -> None:
        """`seconds` are given to each test of a file."""
        self._scratch, self._jobs, self._seconds = scratch, jobs, seconds or {}
        self._sound: set[str] = set()
        self.unsound: set[str] = set()
        self._running: dict[int, tuple[Path, Any]] = {}
        self._number = 0

    def run(self, work: Iterable[tuple[Any, str, bytes | None, list[list[str]]]]) -> Iterator[tuple[Any, str, str]]:
        """For every (key, path, content, tests) the key, the verdict, and the test that failed."""
        for key, path, content, tests in work:
            if not tests:
                yield key, "untested", ""
                continue
            while len(self._running) >= self._jobs:
                yield self._next()
            self._start(key, path, content, tests)
        while self._running:
            yield self._next()

    def _start(self, key: Any, path: str, content: bytes | None, tests: list[list[str]]) -> None:
        self._number += 1
        share = self._scratch / "runs" / str(self._number)
        shutil.rmtree(share, ignore_errors=True)
        share.mkdir(parents=True)
        swapped = None
        if content is not None:
            mutated = share.with_suffix(".py")
            mutated.write_bytes(content)
            swapped = (path, mutated)
        process = Cell(share, 1200.0, swapped).start(lambda: _pytest(share, tests, self._seconds))
        self._running[process] = (share, key)

    def _next(self) -> tuple[Any, str, str]:
        done, status, process = 0, 0, 0
        while not done:
            time.sleep(0.02)
            for process in self._running:
                done, status = os.waitpid(process, os.WNOHANG)
                if done:
                    break
        share, key = self._running.pop(process)
        verdict = VERDICTS.get(os.waitstatus_to_exitcode(status), "crashed")
        failed = share / "failed"
        return key, verdict, failed.read_text() if failed.is_file() else ""

    def unsound_among(self, tests: Iterable[str]) -> set[str]:
        """Those that fail in a cell without any change, too: they kill nothing."""
        wanted = {test for test in tests if "::" in test}
        new = sorted(wanted - self._sound - self.unsound)
        work = [(test, "", None, [[test]]) for test in new] if len(new) < 3 else [("", "", None, [new])]
        for test, verdict, failed in list(self.run(work)):
            if test:
                (self._sound if verdict == "survived" else self.unsound).add(test)
            elif verdict == "survived":
                self._sound.update(new)
            elif failed in new:
                self.unsound.add(failed)
                return self.unsound_among(wanted)
            else:
                raise RuntimeError(f"tests without a change: {verdict} {failed}")
        return self.unsound & wanted


class _Watch:
    """A pytest plugin that notes the first test that fails, and ends the process where one takes too long."""

    def __init__(self, share: Path, seconds: Mapping[str, float]) -> None:
        """`seconds` are given to each test of a file."""
        self._note, self._seconds = share / "failed", seconds
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._seconds.get(nodeid.split("::")[0], LONGEST))

    def pytest_sessionfinish(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self._note.exists():
            self._note.write_text(report.nodeid)


def _pytest(share: Path, groups: list[list[str]], seconds: Mapping[str, float]) -> int:
    """Run groups of tests in this process, which is a cell's, until one fails; pytest's exit code."""
    import pytest

    out = os.open(share / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    empty = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, empty), (1, out), (2, out)):
        os.dup2(source, target)
    words = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short"]
    code = 5
    for group in groups:
        code = int(pytest.main([*words, *group], plugins=[_Watch(share, seconds)]))
        if code not in (0, 5):
            break
    return code


def preload() -> None:
    """Import what tests need and is slow to import, so that it is in memory already when a cell begins."""
    import importlib

    for name in ("hypothesis", "numpy", "pytest", "pytest_asyncio", "pydantic", "rich.progress", "ruamel.yaml",
                 "safetensors.torch", "textual.app", "textual.widgets", "torch", "transformers", "typer"):  # fmt: skip
        importlib.import_module(name)
    import transformers

    for part in ("PreTrainedModel", "GenerationMixin", "AutoTokenizer", "AutoModelForCausalLM", "LlamaForCausalLM"):
        getattr(transformers, part)
    assert "surgeon" not in sys.modules


def sample(packages: Iterable[str], each: int, seed: int) -> list[Mutant]:
    """Mutants of each package, no two of one line, in turn."""
    columns = []
    for package in packages:
        files = sorted((ROOT / "surgeon" / package).rglob("*.py"))
        found = [mutant for path in files for mutant in mutants(ROOT, str(path.relative_to(ROOT)))]
        random.Random(f"{seed} {package}").shuffle(found)
        one_a_line: dict[tuple[str, int], Mutant] = {}
        for mutant in found:
            one_a_line.setdefault((mutant.path, mutant.span[0]), mutant)
        columns.append(list(one_a_line.values())[:each])
    return [column[index] for index in range(each) for column in columns if index < len(column)]


def check(runner: Runner) -> int:
    """The known changes."""
    work = []
    for known in KNOWN:
        source = (ROOT / known.path).read_text()
        assert source.count(known.old) == 1, known
        work.append((known, known.path, source.replace(known.old, known.new).encode(), [[*known.tests]]))
    wrong = 0
    done = list(runner.run(work))
    unsound = runner.unsound_among(test for _, _, test in done)
    for known, verdict, test in done:
        sound = verdict == known.verdict and test not in unsound
        wrong += not sound
        print(f"{'as it should' if sound else 'WRONG'}: {known.path}: {known.new}: {verdict} {test}", flush=True)
    return wrong


def trial(runner: Runner, chosen: list[Mutant], touched: Touched, results: Path) -> dict[str, dict[str, Any]]:
    """Run what has no result yet, and note the results; all of them by mutant."""
    lines = results.read_text().splitlines() if results.is_file() else []
    found = {line["mutant"]: line for line in map(json.loads, lines)}
    while left := [mutant for mutant in chosen if mutant.name not in found]:
        with results.open("a") as file:
            for mutant, verdict, test in runner.run(_work(left, touched, runner)):
                line = {"mutant": mutant.name, "verdict": verdict, "test": test}
                found[mutant.name] = line
                file.write(json.dumps(line) + "\n")
                file.flush()
                print(f"{len(found):4} {verdict:9} {mutant.name}  {test}", flush=True)
        unsound = runner.unsound_among(found[mutant.name]["test"] for mutant in chosen)
        for mutant in chosen:
            if found[mutant.name]["test"] in unsound:
                print(f"once more, because {found.pop(mutant.name)['test']} fails without a change", flush=True)
    return {mutant.name: found[mutant.name] for mutant in chosen}


def forget(results: Path) -> None:
    """Take what was not killed out of the results."""
    lines = results.read_text().splitlines(keepends=True) if results.is_file() else []
    results.write_text("".join(line for line in lines if json.loads(line)["verdict"] in ("killed", "timeout")))


def _work(
    chosen: list[Mutant], touched: Touched, runner: Runner
) -> Iterator[tuple[Mutant, str, bytes, list[list[str]]]]:
    for mutant in chosen:
        groups = touched.tests(mutant, BUDGET)
        tests = [kept for group in groups if (kept := [test for test in group if test not in runner.unsound])]
        yield mutant, mutant.path, mutant.apply((ROOT / mutant.path).read_bytes()), tests


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=60, help="mutants of each package")
    parser.add_argument("--packages", default=",".join(PACKAGES))
    parser.add_argument("--jobs", type=int, default=1, help="mutants at once")
    parser.add_argument("--only", default="", help="only mutants whose name contains this")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp/surgeon-mutation"))
    parser.add_argument("--check", action="store_true", help="try changes whose verdict is known")
    parser.add_argument("--again", action="store_true", help="run once more what survived, for tests that are new")
    parser.add_argument("--list", action="store_true", help="list the sample and run nothing")
    given = parser.parse_args()
    chosen = [m for m in sample(given.packages.split(","), given.each, given.seed) if given.only in m.name]
    if given.list:
        for mutant in chosen:
            print(mutant.name, mutant.shown((ROOT / mutant.path).read_bytes()), sep="\n")
        return 0
    if given.scratch.is_relative_to("/tmp"):
        parser.error("--scratch cannot be in /tmp, which is empty in a cell")
    enclose(given.scratch)
    os.nice(15)
    settle(given.scratch)
    if given.check:
        preload()
        return min(check(Runner(given.scratch, given.jobs)), 1)
    touched = Touched(given.scratch)
    touched.record()
    results = given.scratch / f"results-{given.seed}-{touched.program}.jsonl"
    if given.again:
        forget(results)
    preload()
    runner = Runner(given.scratch, given.jobs, touched.patience())
    found = trial(runner, chosen, touched, results)
    print()
    for mutant in chosen:
        if found[mutant.name]["verdict"] in ("survived", "untested"):
            print(f"{found[mutant.name]['verdict']}: {mutant.name}")
            print(mutant.shown((ROOT / mutant.path).read_bytes()))
    for package in given.packages.split(","):
        counts = Counter(found[m.name]["verdict"] for m in chosen if m.path.startswith(f"surgeon/{package}/"))
        print(package, dict(counts))
    return 0
