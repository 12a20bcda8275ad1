"""Faults that are really injected: kills, full disks, failing calls, power losses, donors that change.

`python -m tests.faults` tries them all for some minutes, counts them, and ends at the first output that is not whole;
the tests take a few of each. After every fault a resumed run must write exactly the bytes of an undisturbed one.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from surgeon.assemble.io import byte_copy
from surgeon.assemble.resume.workspace import hidden
from surgeon.assemble.write import sink
from surgeon.errors import SurgeonError
from surgeon.plan import Plan
from tests.support.assembling import (
    CONFIG,
    HIDDEN,
    INNER,
    VOCAB,
    assemble,
    donor,
    passthrough,
    plan_of,
    shapes,
    snapshot,
    write_file,
)

WRITING = ("pwrite", "fdatasync", "fsync", "ftruncate", "open", "rename", "replace", "mkdir", "unlink", "rmdir")
"""Calls of the system by which an output comes about."""


@dataclass
class Case:
    """A plan and what it gives undisturbed.

    Attributes:
        plan: the plan.
        options: how it is assembled.
        whole: its files.
    """

    plan: Plan
    options: dict[str, Any]
    whole: dict[str, bytes] = field(default_factory=dict)

    def run(self, out: Path, **more: Any) -> None:
        """Go on with it, or begin it."""
        assemble(self.plan, out, **{**self.options, "resume": True, **more})

    def check(self, out: Path) -> None:
        """It is whole, to the byte, and nothing lies beside it."""
        assert snapshot(out) == self.whole
        assert [path.name for path in out.parent.iterdir()] == [out.name]


def case(folder: Path, more: str = "", **options: Any) -> Case:
    """Two donors (once made), and a plan over both; small pieces and frequent syncs make many moments to stop at."""
    a, b = folder / "donors" / "a", folder / "donors" / "b"
    if not b.exists():
        donor(a, 3, seed=1)
        donor(b, 4, seed=2)
    plan = plan_of(passthrough((a, 0, 3), (b, 1, 4), more=more))
    found = Case(plan, {"shard_size": 2000, "workers": 1, **options})
    reference = folder / f"whole-{len(list(folder.iterdir()))}" / "model"
    assemble(plan, reference, **found.options)
    found.whole = snapshot(reference)
    return found


@contextlib.contextmanager
def small_steps() -> Iterator[None]:
    """Buffers and syncs a thousand times smaller than they are."""
    before = byte_copy.BUFFER, sink.SYNC, sink.KICK
    byte_copy.BUFFER, sink.SYNC, sink.KICK = 256, 1000, 500
    try:
        yield
    finally:
        byte_copy.BUFFER, sink.SYNC, sink.KICK = before


@contextlib.contextmanager
def before_calls(names: tuple[str, ...], act: Callable[[str, tuple[Any, ...]], Any]) -> Iterator[None]:
    """Calls `act(name, arguments)` before each of these functions of `os`; what it gives but None is the result."""
    real = {name: getattr(os, name) for name in names}

    def wrap(name: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            found = act(name, args)
            return real[name](*args, **named) if found is None else found

        return call

    for name in names:
        setattr(os, name, wrap(name))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def forked(work: Callable[[], None]) -> int:
    """Do something in a child process; gives how it ended, as a wait status."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(number: int, run: Callable[[], None], torn: bool = False) -> bool:
    """Whether a child was killed (kill -9) before its call of that number, or, `torn`, in the middle of a write."""

    def work() -> None:
        calls = itertools.count()

        def act(name: str, args: tuple[Any, ...]) -> None:
            if next(calls) == number:
                if torn and name == "pwrite":
                    fd, data, offset = args
                    real_pwrite(fd, memoryview(data)[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)

        real_pwrite = os.pwrite
        with before_calls(WRITING, act):
            run()

    status = forked(work)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0, f"it ended with {status}"
    return False


def kill_everywhere(one: Case, folder: Path, step: int = 1, start: int = 0) -> int:
    """Kill a run before every `step`-th call that writes, each in a folder of its own, and resume it; how many."""
    with small_steps():
        for number in itertools.count(start, step):
            out = folder / f"kill-{number}" / "model"
            killed = killed_at(number, lambda out=out: one.run(out), torn=number % 2 == 1)  # type: ignore[misc]
            assert forked(lambda out=out: one.run(out)) == 0  # type: ignore[misc]
            one.check(out)
            shutil.rmtree(out.parent)
            if not killed:
                return (number - start) // step
    raise AssertionError("unreachable")


def kill_chain(one: Case, folder: Path, dice: random.Random, most: int, kills: int = 12) -> int:
    """Kill the same output again and again, so often at most, until it is done; how many kills."""
    out, done = folder / "chain" / "model", 0
    with small_steps():
        while done < kills and killed_at(dice.randrange(5, most), lambda: one.run(out), torn=dice.random() < 0.5):
            done += 1
        assert forked(lambda: one.run(out)) == 0
    one.check(out)
    shutil.rmtree(out.parent)
    return done


class PowerLoss(Exception):
    """The moment at which the lights go out."""


class Disk:
    """What of a run's writes would be on the disk after a power loss: what was synced, and of the rest any part."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.pending: dict[str, list[tuple[int, bytes]]] = {}
        self.durable: dict[str, bytes] = {}

    def act(self, name: str, args: tuple[Any, ...]) -> None:
        """Note a call."""
        if name == "pwrite":
            fd, data, offset = args
            self.pending.setdefault(self._path(fd), []).append((offset, bytes(data)))
        elif name in ("fdatasync", "fsync"):
            path = self._path(args[0])
            if Path(path).is_file():
                self.durable[path] = Path(path).read_bytes()
                self.pending.pop(path, None)

    @staticmethod
    def _path(fd: int) -> str:
        return str(Path(f"/proc/self/fd/{fd}").readlink())

    def lose(self, folder: Path) -> int:
        """Make the files below `folder` what they would be; gives the bytes that are gone or garbage."""
        lost = 0
        for path in [path for path in folder.rglob("*") if path.is_file() and path.name not in ("lock", "begun.json")]:
            now, content = path.read_bytes(), bytearray(self.durable.get(str(path), b""))
            if str(path) not in self.durable and self.dice.random() < 0.3:
                path.unlink()
                lost += len(now)
                continue
            if self.dice.random() < 0.5:
                # The length has reached the disk, the data has not: zeros.
                content.extend(bytes(max(0, len(now) - len(content))))
            for offset, data in self.pending.get(str(path), []):
                # A page, half a page, or nothing of a write may be there, in any order.
                kept = self.dice.choice((0, len(data) // 2, len(data)))
                content.extend(bytes(max(0, offset + kept - len(content))))
                content[offset : offset + kept] = data[:kept]
            path.write_bytes(content)
            lost += sum(one != other for one, other in zip(now, content, strict=False)) + abs(len(now) - len(content))
        return lost


def power_loss(one: Case, out: Path, dice: random.Random, after: int) -> int:
    """Lose power before the `after`-th write or sync, then resume; gives the bytes that were lost, -1 for no loss."""
    disk, calls = Disk(dice), itertools.count()

    def act(name: str, args: tuple[Any, ...]) -> None:
        if next(calls) >= after:
            raise PowerLoss
        disk.act(name, args)

    lost = -1
    with small_steps():
        try:
            with before_calls(("pwrite", "fdatasync", "fsync"), act):
                one.run(out)
        except PowerLoss:
            lost = disk.lose(hidden(out))
            one.run(out)
    one.check(out)
    shutil.rmtree(out.parent)
    return lost


def failing(one: Case, out: Path, name: str, number: int, code: int, times: int = 10**9) -> bool:
    """Let a call and those after it fail with an error number, then resume; whether it was reached."""
    calls, reached = itertools.count(), False

    def act(_: str, args: tuple[Any, ...]) -> None:
        nonlocal reached
        if number <= next(calls) < number + times:
            reached = True
            raise OSError(code, os.strerror(code))

    with small_steps():
        try:
            with before_calls((name,), act):
                one.run(out)
        except SurgeonError as error:
            assert reached, str(error)
            one.run(out)
        if hidden(out).exists():
            # What could not be removed at the end of a whole run is removed by the next.
            assert reached and snapshot(out) == one.whole
            one.run(out)
    one.check(out)
    shutil.rmtree(out.parent)
    return reached


# -- the long run


def command(recipe: Path, out: Path, *flags: str) -> list[str]:
    """The command that a user gives; what it computes is worth processes, as it is in larger models."""
    main = "import sys; import surgeon.assemble.write.workers as w; w.WORTH = 1; "
    main += "from surgeon.__main__ import main; sys.exit(main())"
    return [sys.executable, "-c", main, "assemble", str(recipe), str(out), "--no-check", "--quiet", *flags]


def large(folder: Path, layers: int, hidden_size: int) -> Path:
    """Donors of many megabytes and a recipe that copies and blends."""
    dice = random.Random(5)
    wide = {HIDDEN: hidden_size, INNER: 2 * hidden_size, VOCAB: 1000}
    config = CONFIG | {"hidden_size": hidden_size, "intermediate_size": 2 * hidden_size, "vocab_size": 1000}
    for name in "ab":
        specs = [
            (
                tensor,
                "BF16",
                tuple(wide[size] for size in shape),
                _weights(dice, 2 * prod(wide[size] for size in shape)),
            )
            for tensor, shape in shapes(layers).items()
        ]
        (folder / name).mkdir(parents=True)
        write_file(folder / name / "model.safetensors", specs)
        (folder / name / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    half = layers // 2
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "merge_method: passthrough\nbase_model: ./a\nslices:\n"
        f"- sources: [{{model: ./a, layer_range: [0, {half}]}}]\n"
        "- merge_method: linear\n  sources:\n"
        f"  - {{model: ./a, layer_range: [{half}, {layers}], parameters: {{weight: 0.3}}}}\n"
        f"  - {{model: ./b, layer_range: [{half}, {layers}], parameters: {{weight: 0.7}}}}\n"
    )
    return recipe


def _weights(dice: random.Random, count: int) -> bytes:
    """So many bytes of small bfloat16 numbers."""
    one = dice.randbytes(8192)
    block = b"".join(bytes((one[index], 0x3D + one[index + 1] % 2)) for index in range(0, 8192, 2))
    return (block * (count // len(block) + 1))[:count]


def signalled(
    recipe: Path, out: Path, whole: dict[str, bytes], dice: random.Random, number: int, seconds: float
) -> int:
    """Signal the real command at random moments until it gets through; gives how often it was stopped."""
    stopped = 0
    while True:
        process = subprocess.Popen(command(recipe, out, "--resume", "--shard-size", "8MB"), stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0.2, seconds))
        if process.poll() is not None:
            break
        process.send_signal(number)
        code = process.wait()
        # Before the command listens, a signal does what it does to any program.
        assert code in (-number, 130, 0), code
        stopped += code != 0
        # It has its name when it is whole, and not before.
        assert not out.exists() or snapshot(out) == whole
        if stopped >= 6:
            process = subprocess.Popen(command(recipe, out, "--resume", "--shard-size", "8MB"))
            process.wait()
            break
    assert process.returncode == 0
    assert snapshot(out) == whole
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    shutil.rmtree(out.parent)
    return stopped


def worker_killed(recipe: Path, out: Path, whole: dict[str, bytes], dice: random.Random, seconds: float) -> bool:
    """Kill one worker process of the real command at a random moment, go on from there; whether there was one."""
    words = command(recipe, out, "--resume", "--shard-size", "8MB")
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    children, workers = Path(f"/proc/{process.pid}/task/{process.pid}/children"), list[str]()
    while process.poll() is None and not workers:
        with contextlib.suppress(OSError):
            workers = children.read_text().split()
    time.sleep(dice.uniform(0, seconds))
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(int(dice.choice(workers)), signal.SIGKILL)
    said = process.communicate(timeout=30)[1]
    killed = process.returncode != 0
    if killed:
        assert process.returncode == 1 and "a worker process was ended by SIGKILL" in said, said
        assert not out.exists()
        subprocess.run(words, check=True)
    assert snapshot(out) == whole
    shutil.rmtree(out.parent)
    return killed


def full_tmpfs(recipe: Path, whole: dict[str, bytes], folder: Path, share: float) -> bool:
    """Fill a small tmpfs, make it larger, resume; whether the disk was full."""
    need = sum(map(len, whole.values()))
    mount = folder / "tmpfs"
    mount.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(need * share)}", "tmpfs", str(mount)], check=True)
    try:
        # The check of free space would refuse it at once; here the disk fills up meanwhile.
        lie = "import shutil; from types import SimpleNamespace as N; shutil.disk_usage = lambda p: N(free=10**15)\n"
        words = command(recipe, mount / "out" / "model", "--resume", "--shard-size", "8MB")
        words[2] = lie + words[2]
        first = subprocess.run(words, capture_output=True, text=True)
        assert first.returncode == 1 and "the disk is full" in first.stderr and "Traceback" not in first.stderr, first
        subprocess.run(["mount", "-o", f"remount,size={int(need * 2.5)}", str(mount)], check=True)
        subprocess.run(words, check=True)
        assert snapshot(mount / "out" / "model") == whole
        return "--resume" in first.stderr
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def main() -> None:
    """Try everything and print the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20, help="kill -9 of the real command, outputs in all")
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="surgeon-faults-") as name:
        folder = Path(name)
        begun = time.monotonic()

        def tell(what: str, count: int) -> None:
            print(f"{time.monotonic() - begun:6.0f}s  {count:>6}  {what}: all outputs whole", flush=True)

        kinds = {
            "copies": case(folder), "converted": case(folder, "dtype: float32\nparameters: {scale: 0.5}"),
            "copies, no fsync": case(folder, fsync=False), "copies, three workers": case(folder, workers=3),
        }  # fmt: skip
        for kind, one in kinds.items():
            tell(f"kill -9 before, or half way through, a call that writes ({kind})", kill_everywhere(one, folder))
        chains = [kill_chain(kinds["copies"], folder, dice, 120) for _ in range(20)]
        tell(f"kill -9 of {len(chains)} outputs again and again", sum(chains))
        for kind, one in kinds.items():
            rounds = [power_loss(one, folder / "power" / "model", dice, after) for after in range(1, 400, 3)]
            losses = [lost for lost in rounds if lost >= 0]
            tell(f"power lost with {sum(losses):,} unsynced bytes ({kind})", len(losses))
        for call, code in itertools.product(
            ("pwrite", "preadv", "fdatasync", "rename", "open"), (errno.EIO, errno.ENOSPC, errno.EROFS, errno.ESTALE)
        ):
            reached = [
                failing(kinds["copies"], folder / "fail" / "model", call, number, code, times)
                for number in range(0, 200, 7)
                for times in (1, 10**9)
            ]
            tell(f"{call} failing with {errno.errorcode[code]}", sum(reached))
        recipe = large(folder / "large", 24, 512)
        subprocess.run(command(recipe, folder / "large" / "whole" / "model", "--shard-size", "8MB"), check=True)
        whole = snapshot(folder / "large" / "whole" / "model")
        start = time.monotonic()
        subprocess.run(command(recipe, folder / "large" / "timed" / "model", "--shard-size", "8MB"), check=True)
        seconds = time.monotonic() - start
        size = sum(map(len, whole.values()))
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            rounds = options.kills if number == signal.SIGKILL else 5  # type: ignore[assignment]
            out = folder / "signal" / "model"
            stops = [signalled(recipe, out, whole, dice, number, seconds) for _ in range(rounds)]  # type: ignore[call-overload]
            tell(
                f"{number.name} at random moments of {rounds} outputs of {size / 1e6:.0f} MB ({seconds:.1f} s)",
                sum(stops),
            )
        found = [worker_killed(recipe, out, whole, dice, seconds / 2) for _ in range(2 * options.kills)]
        tell(f"SIGKILL of one worker process of {len(found)} outputs", sum(found))
        if os.geteuid() == 0:
            shares = [dice.uniform(0.05, 0.98) for _ in range(8)]
            full = [full_tmpfs(recipe, whole, folder, share) for share in shares]
            tell("tmpfs that was full, made larger", len(full))
