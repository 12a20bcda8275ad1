"""Fuzzing of everything that reads what others made: `.venv/bin/python -m tests.fuzz --count 100000 --seed 1`.

An input passes when it is accepted or refused with a SurgeonError, nothing is written outside the output, nothing is
opened that a file in a checkpoint has no business with, and time and memory stay within bounds. Inputs run in forked
processes that the kernel holds to limits. Each is made from (seed, number) alone: `--only N` runs one again, and
`--replay FOLDER` one that was saved, both with the traceback; the exit code is 1 where an input failed.

They are drawn from a seed and not by a search for new lines of code (atheris) or for the smallest example
(hypothesis): a hundred thousand take a quarter of an hour, and every one of them is on the record.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgeon.errors import SurgeonError
from tests.fuzz import inputs
from tests.fuzz import watch as limits
from tests.fuzz.cases import ALIKE, BY_COMMAND, KINDS, OTHERS, Commands, World, command, preload, takes

BATCH = 1_000
"""Inputs that one process takes."""
PASSED = ("accepted", "refused")
ABOUT = "input.json"
"""What is noted of a case: its kind, its command lines, and where it was."""


@dataclass
class Outcome:
    """What became of one input: `accepted`, `refused`, or what is wrong.

    Attributes:
        seconds: processor time that it took.
        grown: bytes that memory grew by at the most while it ran.
        peak: bytes of memory of the whole process then.
        by_command: command lines that were tried.
    """

    target: str
    number: int
    kind: str
    what: str = ""
    where: str = ""
    seconds: float = 0.0
    grown: int = 0
    peak: int = 0
    by_command: int = 0

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return self.kind in PASSED


class Runner:
    """Makes inputs and runs them, in the process that it is called in."""

    def __init__(self, seed: int, folder: Path, only: str | None = None, arithmetic: bool = False) -> None:
        from surgeon.methods.catalogue import every

        methods = {name: takes(method) for name, method in every().items()}
        for name in ("home", "tmp", "world"):
            (folder / name).mkdir()
        self.root = folder.resolve()
        self.world = World(self.root / "world", inputs.RecipeMaker(ALIKE, OTHERS, methods), arithmetic)
        self.seed = seed
        self._targets = [only] if only else list(KINDS)
        preload(arithmetic)

    def target(self, number: int) -> tuple[str, random.Random]:
        """The kind of an input, and the numbers that it is made from."""
        rng = random.Random(f"{self.seed} {number}")
        return rng.choices(self._targets, [KINDS[name].share for name in self._targets])[0], rng

    def make(self, number: int) -> tuple[str, Commands]:
        """Put an input into the case's folder; gives its kind and command lines."""
        target, rng = self.target(number)
        usual = sys.getrecursionlimit()
        sys.setrecursionlimit(50_000)  # what is made may be nested deeper than the code under test can follow
        commands = KINDS[target].make(rng, self.world)
        sys.setrecursionlimit(usual)
        if not KINDS[target].always and rng.random() >= BY_COMMAND:
            commands = []
        about = {"target": target, "commands": commands, "seed": self.seed, "number": number}
        (self.root / ABOUT).write_text(json.dumps({**about, "root": str(self.world.folder)}))
        return target, commands

    def enter(self) -> limits.Watch:
        """Make this process one that inputs run in, for good."""
        home = str(self.root / "home")
        os.environ.update({name: home for name in os.environ if name.startswith("XDG_")})
        os.environ.update({"HOME": home, "HF_HOME": home, "XDG_STATE_HOME": home, "TMPDIR": str(self.root / "tmp")})
        tempfile.tempdir = None
        sys.dont_write_bytecode = True
        limits.limit_process()
        return limits.Watch()

    def run(self, target: str, number: int, commands: Commands, watch: limits.Watch, *, trace: bool = False) -> Outcome:
        """Run the input in the case's folder."""
        case, found = self.world.case, Outcome(target, number, "")
        os.chdir(case)
        before = limits.snapshot(self.root, case)
        limits.forget_peak()
        held, begun = limits.resident("VmRSS"), time.process_time()
        try:
            with limits.bounded_time(), watch.over(case, None if KINDS[target].free else self.world.secret):
                self._tried(target, commands, found)
        except (Exception, limits.TooSlow) as error:
            found.kind, found.what, found.where = type(error).__name__, str(error)[:300], _place(error)
            if trace:
                traceback.print_exc()
        found.seconds, found.peak = time.process_time() - begun, limits.resident("VmHWM")
        found.grown = max(0, found.peak - held)
        changed = limits.difference(before, limits.snapshot(self.root, case))
        if watch.violations or changed:
            found.kind, found.what = "outside OUT", (watch.violations or [changed])[0]
        elif found.passed and found.grown > limits.MEMORY:
            found.kind, found.what = "memory", f"{found.grown:,} bytes more"
        return found

    def _tried(self, target: str, commands: Commands, found: Outcome) -> None:
        try:
            found.kind = "accepted" if KINDS[target].check(self.world) else "refused"
        except SurgeonError as error:
            found.kind, sentence = "refused", error.sentence()
            assert sentence.strip() and not {"\x1b", "\n", "\r"} & set(sentence), f"no sentence: {sentence!r}"
        passed = []
        for words in commands:
            passed.append(command(words))
            found.by_command += 1
        if KINDS[target].always:
            found.kind = "accepted" if all(passed) else "refused"


def _place(error: BaseException) -> str:
    """The innermost line of surgeon's that an error passed through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/surgeon/" in frame.filename]
    return f"{frames[-1].filename.rsplit('/surgeon/', 1)[1]}:{frames[-1].lineno}" if frames else ""


def outcomes(runner: Runner, numbers: Iterable[int]) -> Iterator[Outcome]:
    """What becomes of these inputs, run in forked processes one at a time.

    A process ends with the first input that fails, whose files are then still in the case's folder.
    """
    waiting = list(numbers)
    while waiting:
        batch = waiting[:BATCH]
        done = 0
        for outcome in _in_child(runner, batch):
            yield outcome
            done += 1
        del waiting[:done]


def _in_child(runner: Runner, batch: list[int], *, replayed: tuple[str, Commands] | None = None) -> Iterator[Outcome]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                _work(runner, batch, pipe, replayed)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    done, last = 0, None
    with os.fdopen(reading) as pipe:
        for line in pipe:
            last = Outcome(**json.loads(line))
            done += 1
            yield last
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    if done < len(batch) and (last is None or last.passed):
        name = signal.Signals(-ended).name if ended < 0 else f"exit code {ended}"
        target = replayed[0] if replayed else runner.target(batch[done])[0]
        yield Outcome(target, batch[done], "died", name)


def _work(runner: Runner, batch: list[int], pipe: Any, replayed: tuple[str, Commands] | None) -> None:
    watch = runner.enter()
    for number in batch:
        target, commands = replayed or runner.make(number)
        found = runner.run(target, number, commands, watch, trace=replayed is not None or len(batch) == 1)
        pipe.write(json.dumps(vars(found)) + "\n")
        pipe.flush()
        if not found.passed:
            return


@dataclass
class Summary:
    """Counts of what became of inputs, the extremes, and one of each kind of failure with where it is saved."""

    keep: Path
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: Outcome = field(default_factory=lambda: Outcome("", -1, ""))
    largest: Outcome = field(default_factory=lambda: Outcome("", -1, ""))
    peak: int = 0
    by_command: int = 0
    failures: dict[tuple[str, str, str], tuple[Outcome, Path]] = field(default_factory=dict)

    def add(self, found: Outcome, runner: Runner) -> None:
        """Count an outcome; the first input that fails in its way is saved."""
        column = found.kind if found.passed else "outside" if found.kind == "outside OUT" else "crashed"
        self.counts[found.target, column] += 1
        self.slowest = max(self.slowest, found, key=lambda one: one.seconds)
        self.largest = max(self.largest, found, key=lambda one: one.grown)
        self.peak = max(self.peak, found.peak)
        self.by_command += found.by_command
        way = (found.target, found.kind, found.where)
        if not found.passed and way not in self.failures:
            self.failures[way] = found, save(runner, self.keep, found)

    def lines(self) -> Iterator[str]:
        """The summary as text."""
        columns = ("accepted", "refused", "crashed", "outside")
        yield f"{'':<22}{'inputs':>10}" + "".join(f"{name:>10}" for name in columns)
        targets = [target for target in KINDS if any(self.counts[target, name] for name in columns)]
        for target in [*targets, None]:
            row = [sum(self.counts[one, name] for one in ([target] if target else targets)) for name in columns]
            yield f"{KINDS[target].label if target else 'all':<22}" + "".join(f"{n:>10,}" for n in [sum(row), *row])
        slow, large = self.slowest, self.largest
        yield f"command lines run whole: {self.by_command:,}"
        yield f"slowest: {slow.seconds:.2f} s of processor ({slow.target} {slow.number}; bound {limits.SECONDS:g} s)"
        yield (
            f"most memory: {large.grown / 1e6:.0f} MB for one input ({large.target} {large.number}; bound "
            f"{limits.MEMORY / 1e6:.0f} MB), {self.peak / 1e6:.0f} MB at the most in a process"
        )
        outside = sum(count for (_, column), count in self.counts.items() if column == "outside")
        yield (
            f"written outside OUT, or opened where no file may lead: {outside or 'nothing'} (every call seen, and all "
            "around OUT compared before and after each input)"
        )
        for found, where in self.failures.values():
            yield f"FAILED {found.target} {found.number}: {found.kind} {found.where} {found.what}"
            yield f"  again: python -m tests.fuzz --replay {where}"


def save(runner: Runner, keep: Path, found: Outcome) -> Path:
    """Copy the case at hand, paths into the sandbox made independent of where that was; gives the folder."""
    folder = keep / f"{found.target}-{runner.seed}-{found.number}"
    shutil.rmtree(folder, ignore_errors=True)
    hidden = [limits.OUT, f"{limits.OUT}.yaml", f".{limits.OUT}.*"]
    shutil.copytree(runner.world.case, folder / "case", symlinks=True, ignore=shutil.ignore_patterns(*hidden))
    shutil.copy(runner.root / ABOUT, folder)
    return folder


def restore(runner: Runner, saved: Path) -> tuple[int, str, Commands]:
    """Put a saved input into the case's folder; gives its number, kind and command lines."""
    about = json.loads((saved / ABOUT).read_text())
    shutil.rmtree(runner.world.case, ignore_errors=True)
    shutil.copytree(saved / "case", runner.world.case, symlinks=True)
    old, new = about["root"], str(runner.world.folder)
    for path in runner.world.case.rglob("*"):
        if path.is_symlink():
            goal = str(path.readlink()).replace(old, new)
            path.unlink()
            path.symlink_to(goal)
        elif path.suffix in (".json", ".yaml"):
            path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    return about["number"], about["target"], about["commands"]


@contextlib.contextmanager
def sandbox() -> Iterator[Path]:
    """A folder for a run, in memory where there is such a place."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="surgeon-fuzz-", dir=fast) as folder:
        yield Path(folder)


def main(words: list[str] | None = None) -> int:
    """Run the command line; 0 when every input passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=KINDS, help="inputs of this kind only")
    parser.add_argument("--arithmetic", action="store_true", help="write blends too (imports torch)")
    parser.add_argument("--only", type=int, metavar="N", help="run one input again, and save it")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="run a saved input")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", default=Path(tempfile.gettempdir()) / "surgeon-fuzz")
    options = parser.parse_args(words)
    with sandbox() as folder:
        runner = Runner(options.seed, folder, options.target, options.arithmetic)
        if options.replay is not None:
            number, target, commands = restore(runner, options.replay.resolve())
            found = next(_in_child(runner, [number], replayed=(target, commands)))
            print(found)
            return int(not found.passed)
        if options.only is not None:
            found = next(outcomes(runner, [options.only]))
            print(found, f"\nsaved: {save(runner, options.keep.resolve(), found)}")
            return int(not found.passed)
        summary = Summary(options.keep.resolve())
        for found in outcomes(runner, range(options.count)):
            summary.add(found, runner)
        print("\n".join(summary.lines()))
        return int(bool(summary.failures))
