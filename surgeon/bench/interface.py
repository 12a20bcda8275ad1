"""Measure the interface from outside: CPU time and bytes on the terminal for each kind of key.

The interface runs on a pseudo-terminal, as a user runs it. A key's cost is the CPU time of the process, all its threads
included, and what it writes, from the key to the next time that it waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ..checkpoint import open_checkpoint
from ..errors import InputError, SurgeonError
from ..text import plural
from .sparse_donors import DENSE, EXPERTS, SparseShape, make_sparse

SIZE = (120, 40)
KINDS = ("move", "paste", "delete", "undo", "duplicate", "blend", "cut", "replace")

_FEWEST = 8

_STEP = 0.05
"""Seconds between two looks at a process that may be waiting."""

_IDLE = 0.002
"""Seconds of CPU time in a step below which a process waits: timers of the interface take some."""

_LATE = 1.0
"""Seconds after which a key that caused neither output nor work is taken for one that does nothing."""

_ESCAPE = 0.2
"""Seconds after escape in which the next key would be taken for a part of it."""

_LIMIT = 120.0
"""Most seconds for one key."""


@dataclass(frozen=True)
class KeyCost:
    """What a kind of key costs, as medians: milliseconds of CPU time, and bytes written to the terminal."""

    key: str
    cpu_ms: float
    bytes: int
    times: int


@dataclass(frozen=True)
class ModelCosts:
    """The costs of all kinds of keys with one model.

    Attributes:
        model: its name.
        tensors: the number of its tensors.
        start_ms: milliseconds of CPU time until the first keys are awaited.
        start_bytes: bytes written until then.
    """

    model: str
    tensors: int
    layers: int
    start_ms: float
    start_bytes: int
    keys: tuple[KeyCost, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class _Terminal:
    """The interface on a pseudo-terminal."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self._process, self._master = process, master

    def press(self, keys: str) -> tuple[float, int]:
        """Seconds of CPU time and bytes for these keys, sent at once."""
        before = self._cpu()
        os.write(self._master, keys.encode())
        return self.settle(before)

    def settle(self, before: float | None = None) -> tuple[float, int]:
        """Wait until the process has done its work and waits; seconds of CPU time since `before` and bytes written.

        `before` None is the start, whose work ends with a first frame.
        """
        written, begin, idle, last = 0, time.monotonic(), 0, self._cpu()
        while idle < 2:
            if (spent := time.monotonic() - begin) > _LIMIT:
                raise SurgeonError(f"the interface did not come to rest in {_LIMIT:.0f} s")
            got = 0
            while select.select([self._master], [], [], 0 if got else _STEP)[0]:
                got += len(self._read())
            written += got
            now = self._cpu()
            # On a busy machine the work may begin late.
            begun = written or (before is not None and (now - before > _IDLE or spent > _LATE))
            idle = idle + 1 if begun and not got and now - last < _IDLE else 0
            last = now
        return last - (before or 0.0), written

    def _read(self) -> bytes:
        with contextlib.suppress(OSError):
            if data := os.read(self._master, 1 << 16):
                return data
        raise SurgeonError(f"the interface ended with code {self._process.wait()}")

    def _cpu(self) -> float:
        """Seconds of CPU time of all threads that live."""
        total = 0
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{self._process.pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9


@contextlib.contextmanager
def _interface(arguments: Sequence[str], folder: Path) -> Iterator[_Terminal]:
    """The interface, started in a folder with a state folder of its own."""
    if not Path("/proc/self/schedstat").exists():
        raise SurgeonError("the interface can only be measured on Linux", why="/proc/PID/schedstat has the CPU time")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
    left = {name: value for name, value in os.environ.items() if name not in {"COLORTERM", "NO_COLOR", "TMUX"}}
    wanted = {"TERM": "xterm-256color", "PYTHONUTF8": "1", "XDG_STATE_HOME": str(folder / "state")}
    process = subprocess.Popen(
        [sys.executable, "-m", "surgeon", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env={**left, **wanted},
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield _Terminal(process, master)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(master)


def measure(name: str, donors: tuple[Path, Path], folder: Path, runs: int) -> ModelCosts:
    """The costs of all kinds of keys on a stack of half of one donor and half of another.

    Args:
        name: the model's name in the report.
        donors: two checkpoints of at least 8 layers and of one shape.
        folder: an empty folder for the recipe and the state of the interface.
        runs: rounds of keys; each is at other layers, so that none finds its result kept.
    """
    first, second = (open_checkpoint(str(path)) for path in donors)
    half = first.depth // 2
    recipe = folder / "stack.yml"
    recipe.write_text(
        "merge_method: passthrough\nslices:\n"
        f"- sources: [{{model: {donors[0]}, layer_range: [0, {half}]}}]\n"
        f"- sources: [{{model: {donors[1]}, layer_range: [{half}, {second.depth}]}}]\n",
        encoding="utf-8",
    )
    costs: dict[str, list[tuple[float, int]]] = {kind: [] for kind in KINDS}
    with _interface(["--recipe", recipe.name, *map(str, donors)], folder) as terminal:
        start = terminal.settle()
        for run in range(runs):
            for kind, cost in _round(terminal, run, second.depth, half):
                costs[kind].append(cost)
    found = tuple(
        KeyCost(kind, 1000 * median(cpu for cpu, _ in of), round(median(count for _, count in of)), len(of))
        for kind, of in costs.items()
    )
    return ModelCosts(name, len(first.tensors), first.depth, 1000 * start[0], start[1], found)


def _round(terminal: _Terminal, run: int, depth: int, half: int) -> Iterator[tuple[str, tuple[float, int]]]:
    """Press keys of all kinds, and give the kind and cost of those that are measured."""
    # Rows of a pane begin with the embeddings.
    room = max(1, half - 3)
    there, here = (1 + run * 5) % room, (2 + run * 3) % room

    def at(layer: int) -> None:
        terminal.press("\x1b")
        time.sleep(_ESCAPE)
        terminal.press(f"gg{layer + 1}j")

    def edit(kind: str, key: str) -> Iterator[tuple[str, tuple[float, int]]]:
        yield kind, terminal.press(key)
        yield "undo", terminal.press("u")

    terminal.press("'b")
    terminal.press(f"gg{there + 1}j{min(3, depth)}y")
    terminal.press("''")
    at(here)
    for _ in range(3):
        yield "move", terminal.press("j")
    yield from edit("paste", "p")
    at(here)
    yield from edit("delete", "d")
    at(here)
    yield from edit("duplicate", "D")
    at(here)
    yield from edit("cut", "x")
    at(min(here + 2, half - 1))
    yield from edit("replace", "r")
    last = min(here + 1, half - 1)
    terminal.press(f":blend {here}-{last} B:{here}-{last} method=linear weight={0.3 + run / 50:.2f}")
    yield from edit("blend", "\r")


def models(
    folder: Path, donors: tuple[Path, Path] | None, demo: Path | None
) -> Iterator[tuple[str, Callable[[], tuple[Path, Path]]]]:
    """What is measured: the name, and how its two donors are had.

    Args:
        folder: for the donors that are made.
        donors: donors of the user; None for none.
        demo: the folder of the demo's donors; None if it is not there.
    """

    def made(name: str, shape: SparseShape) -> tuple[Path, Path]:
        return make_sparse(folder / name / "a", shape), make_sparse(folder / name / "b", shape)

    if demo is not None:
        yield "demo", lambda: (demo / "reverse", demo / "sort")
    if donors is not None:
        yield donors[0].name, lambda: donors
    yield "70B dense", lambda: made("dense", DENSE)
    yield "experts", lambda: made("experts", EXPERTS)


def measure_all(
    donors: tuple[Path, Path] | None, demo: Path | None, runs: int, tell: Callable[[str], object]
) -> Iterator[ModelCosts]:
    """Measure every model, one after the other; `tell` is called with the name of each before.

    Raises:
        InputError: a donor cannot be opened, or has too few layers.
        SurgeonError: the interface ended, or this system does not tell the CPU time.
    """
    for path in donors or ():
        if (depth := open_checkpoint(str(path)).depth) < _FEWEST:
            raise InputError(f"{path.name} has {plural(depth, 'layer')}", why=f"the keys need {_FEWEST} layers")
    with tempfile.TemporaryDirectory(prefix="surgeon-bench-") as made:
        for number, (name, get) in enumerate(models(Path(made), donors, demo)):
            tell(name)
            work = Path(made) / f"work-{number}"
            work.mkdir()
            yield measure(name, get(), work, runs)
