"""What surgeon has noted in files of its own, changed: a kind of input of `tests/fuzz/run.py`."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.errors import SurgeonError
from tests.fuzz import inputs
from tests.fuzz.watch import OUT

if TYPE_CHECKING:
    from tests.fuzz.cases import Commands, World

MADE = "made"
STATE = "state"
_DEAD = {"pid": 2**22 - 3, "birth": "no boot:1", "host": "", "space": ""}
_EVENTS: tuple[dict[str, Any], ...] = (
    {"event": "start", "bytes": 3000, "tensors": 30, "layers": 4, "shards": 2, "out": "/x/out"},
    {"event": "layer", "index": 1},
    {"event": "end", "role": "lm_head"},
    {"event": "progress", "bytes": 50, "total": 200, "rate": 10, "eta": 15.0, "layer": 1, "memory": 40_000_000,
     "files": {"model-00002-of-00003.safetensors": [5, 20]}, "files_done": 1},
    {"event": "check"},
    {"event": "done", "out": "/x/out", "seconds": 1.5, "bytes": 3000, "files": ["a"], "earlier": 0, "warnings": ["w"]},
    {"event": "error", "message": "the disk is full."},
    {"event": "cancelled", "message": "cancelled."},
)  # fmt: skip
_WORDS = (
    "event", "progress", "done", "start", "layer", "bytes", "total", "pid", "birth", "host", "out", "recipe", "cwd",
    "arguments", "letters", "layers", "text", "refs", "recipe_path", "written", "format", "hash", "tensors", "shards",
    "sources", "files", "copy", "source", "shard", "header", "shard_size", "programs", "companions", "../x", "/", ".",
)  # fmt: skip


def _resumable(world: World) -> tuple[Any, Path]:
    """The plan that the unfinished output of a case was begun from, and that output."""
    from surgeon.plan import Donors, resolve
    from surgeon.recipe import document as documents

    text = f"slices: [{{sources: [{{model: {world.donors / 'a'}, layer_range: [0, 3]}}]}}]\n"
    return resolve(documents.parse(text), Donors()), world.case / OUT


def prepare(world: World) -> None:
    """A whole output with its manifest, and an unfinished one."""
    from surgeon.assemble.resume import journal
    from tests.support.assembling import assemble

    plan, _ = _resumable(world)
    assemble(plan, world.folder / MADE / "whole", fsync=False, workers=1)
    real = journal.Journal.add

    def add(self: journal.Journal, line: journal.JournalLine) -> None:
        if len(self.lines) == 10:
            raise RuntimeError("killed")
        real(self, line)

    journal.Journal.add = add  # type: ignore[method-assign]
    try:
        with contextlib.suppress(RuntimeError):
            assemble(plan, world.folder / MADE / OUT, fsync=False, workers=1)
    finally:
        journal.Journal.add = real  # type: ignore[method-assign]


def state(rng: random.Random, world: World) -> Commands:
    """Jobs, a swap file, an unfinished output and a manifest, one or more of their files changed."""
    case = world.fresh()
    for name in ("jobs", "swap", "try"):
        (case / STATE / "surgeon" / name).mkdir(parents=True, mode=0o700)
    for folder in (case / STATE, case / STATE / "surgeon"):
        folder.chmod(0o700)
    shutil.copytree(world.folder / MADE / "whole", case / "whole")
    shutil.copytree(world.folder / MADE / f".{OUT}.surgeon", case / f".{OUT}.surgeon")
    files = _sound(rng, world)
    chosen = rng.sample(sorted(files), rng.choice((1, 1, 1, 2, 4)))
    for path, values in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if str(path) not in map(str, chosen):
            path.write_bytes(_text(path, values))
            continue
        kind = rng.random()
        path.unlink(missing_ok=True)
        if kind < 0.02:
            os.mkfifo(path)
        elif kind < 0.04 and path.name != "surgeon.json":
            path.symlink_to(rng.choice((world.secret / "x.json", path.parent / "nowhere", path)))
        elif kind < 0.06:
            path.mkdir()
        elif kind < 0.07:
            path.write_bytes(b"")
            os.truncate(path, rng.choice((0, 5_000_000, 45_000_000)))
        elif kind > 0.09:
            path.write_bytes(_changed(path, values, rng))
    return [["jobs"], ["jobs", "--json"], ["cancel", "1"]]


def _sound(rng: random.Random, world: World) -> dict[Path, Any]:
    """The files of surgeon's state in a case, with their values."""
    case, job = world.case, world.case / STATE / "surgeon" / "jobs" / "1"
    whole, out, made = case / "whole", case / f".{OUT}.surgeon", world.folder / MADE
    letters = list("AAA")
    return {
        job / "about.json": {
            "verb": "assemble", "out": str(case / OUT), "recipe": None, "cwd": str(case), "started": 1.5,
            "arguments": [str(case / OUT)], "layers": 3, "letters": letters, "bytes": 10, "tensors": 3,
        },
        job / "process.json": dict(_DEAD),
        job / "events.jsonl": rng.sample(_EVENTS, rng.randint(1, len(_EVENTS))),
        case / STATE / "surgeon" / "swap" / "1.json": {
            **_DEAD, "recipe_path": None, "folder": str(case), "refs": ["./a"], "text": "slices: []\n", "written": 1.5,
        },
        out / "begun.json": json.loads((made / out.name / "begun.json").read_bytes()),
        out / "journal": [
            line.split(b" ", 1)[1] for line in (made / out.name / "journal").read_bytes().splitlines()
        ],
        out / "lock": dict(_DEAD),
        whole / "surgeon.json": json.loads((made / "whole" / "surgeon.json").read_bytes()),
    }  # fmt: skip


def _text(path: Path, values: Any) -> bytes:
    if path.name == "journal":
        return b"".join(b"%08x %s\n" % (zlib.crc32(body), body) for body in values)
    if path.suffix == ".jsonl":
        return b"".join(inputs.text_of(value) + b"\n" for value in values)
    return inputs.text_of(values)


def _changed(path: Path, values: Any, rng: random.Random) -> bytes:
    words = (*_WORDS, *inputs.PATHS)
    if path.name == "journal":
        # The sum of a line's bytes is right: only then is it looked at.
        parts = [(body[:1], json.loads(body[1:])) for body in values]
        place = rng.randrange(len(parts))
        parts[place] = rng.choice(b"+=-x".decode()).encode(), inputs.mutated(parts[place][1], rng, words)
        bodies = [kind + inputs.perhaps_broken(inputs.text_of(value), rng, 0.05) for kind, value in parts]
        return inputs.perhaps_broken(_text(path, [body.replace(b"\n", b"") for body in bodies]), rng, 0.1)
    if path.suffix == ".jsonl":
        values = [inputs.mutated(copy.deepcopy(value), rng, words) for value in values]
    else:
        values = inputs.mutated(values, rng, words)
    if rng.random() < 0.03:
        depth = rng.choice((150, 1_500, 100_000))
        return b'{"pid":' + b"[" * depth + b"]" * depth + b"}"
    return inputs.perhaps_broken(_text(path, values), rng, 0.1)


def read_back(world: World) -> bool:
    """All that the command line and the interface do with these files; whether all of them were taken."""
    os.environ["XDG_STATE_HOME"] = str(world.case / STATE)
    taken = [_jobs(world), _swaps(world), _manifest()]
    # The engine makes a sentence of what the system refuses.
    with contextlib.suppress(SurgeonError, OSError):
        taken.append(_resumed(world))
    return all(taken) and len(taken) == 4


def _jobs(world: World) -> bool:
    from surgeon.cli.jobs import _values, lines
    from surgeon.cli.progress import words
    from surgeon.jobs import job_list
    from surgeon.jobs.job import Job
    from surgeon.tui.run.job_progress import JobProgress

    job_list.of_recipe(None, world.case)
    found = job_list.every()
    assert [job.number for job in found] == [1]
    for job in found:
        told = lines(job, job.state())
        assert not any("\x1b" in line for line in told)
        json.dumps(_values(job, job.state()), allow_nan=False)
        job_list.find(None), job_list.unfinished(job), job.cancel()
        # One that was watched from the start, and what the interface shows of it.
        progress, watched = JobProgress(), Job(job.folder)
        for event in watched.poll():
            progress.take(event)
            if event["event"] == "progress":
                words(event, 3, 2)
        progress.numbers(), progress.file_lines()
        with contextlib.suppress(SurgeonError):
            _again(job)
    return all(job.state().kind in ("done", "failed", "cancelled") for job in found)


def _again(job: Any) -> None:
    """Resuming a job, up to the process."""
    from surgeon.jobs import job_list

    real = job_list.start
    job_list.start = lambda verb, arguments, *_rest, **_more: [verb, *arguments].index("--resume")  # type: ignore[assignment]
    try:
        job_list.again(job)
    finally:
        job_list.start = real


def _swaps(world: World) -> bool:
    from surgeon.recipe import document as documents
    from surgeon.text import duration
    from surgeon.tui import swap
    from surgeon.tui.session import Session

    left = swap.left_behind(None)
    if left is None:
        return False
    duration(left.age)
    try:
        found = documents.parse(left.text)
    except SurgeonError:
        return False
    session = Session()
    try:
        session.recover(found, left.refs)
    except SurgeonError:
        return False
    return bool(session.plan)


def _manifest() -> bool:
    from surgeon.assemble.files import manifest
    from surgeon.checkpoint import open_checkpoint
    from surgeon.verify.rehash import file_problems, hash_problems, name_problems

    checkpoint = open_checkpoint("whole")
    try:
        found = manifest.read(checkpoint.folder)
    except SurgeonError as error:
        assert len(error.sentence()) < 2_000
        return False
    if found is None:
        return False
    problems = [*file_problems(checkpoint, found), *name_problems(checkpoint, found)]
    return not problems and not list(hash_problems(checkpoint, found, workers=1))


def _resumed(world: World) -> bool:
    from surgeon.assemble.compute.arithmetic import Arithmetic
    from surgeon.assemble.layout import lay_out
    from surgeon.assemble.resume.fingerprint import fingerprint
    from surgeon.assemble.resume.unfinished import Terms, begin, look
    from surgeon.assemble.resume.workspace import Workspace

    plan, out = _resumable(world)
    look(out)
    with Workspace(out) as workspace:
        terms = Terms(lambda size: fingerprint(plan, size or 5_000_000_000, Arithmetic()), resume=True, restart=False)
        lines, begun = begin(workspace, terms, flush=False)
        lay_out(plan.tensors, begun.shard_size)
        lines.close()
        workspace.keep(True)
    return True
