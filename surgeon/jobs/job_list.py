"""All jobs of this user: start, list, find by number or output, clean up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import InputError, SurgeonError
from ..files import expanded, write_atomic
from ..process import recorded
from ..statefile import read_bytes
from .job import Job
from .state_folder import state_folder, state_folder_there

if TYPE_CHECKING:
    from ..assemble.resume.unfinished import Unfinished

_ROOT = Path(__file__).resolve().parents[2]
_DIGITS = 10
_MAIN = "import sys; from surgeon.__main__ import main; sys.exit(main())"


def start(
    verb: str,
    arguments: Sequence[str],
    recipe_text: str,
    *,
    out: Path | None = None,
    recipe: Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> Job:
    """Start `surgeon VERB RECIPE ARGUMENTS...` as a job. RECIPE is a file with `recipe_text` in the job's folder.

    The process has its own session and ignores SIGHUP, so it outlives this process, its terminal and its connection.

    Args:
        verb: a command of surgeon that takes a recipe and `--events`.
        arguments: the arguments after the recipe; paths are absolute.
        recipe_text: the user's YAML, unchanged, because it is copied to the output; see `rooted` for relative paths.
        out: the output folder.
        recipe: the file of the recipe.
        about: further entries of about.json.

    Raises:
        SurgeonError: the job cannot be started; its folder is removed.
    """
    jobs = state_folder("jobs")
    try:
        folder = _number(jobs)
    except OSError as error:
        raise SurgeonError(f"cannot create a job: {error.strerror or error}", where=str(jobs)) from error
    try:
        return _started(folder, verb, arguments, recipe_text, out, recipe, about or {})
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise SurgeonError(f"cannot start the job: {error.strerror or error}", where=str(folder)) from error
        raise


def _started(
    folder: Path,
    verb: str,
    arguments: Sequence[str],
    recipe_text: str,
    out: Path | None,
    recipe: Path | None,
    about: Mapping[str, Any],
) -> Job:
    """Write the files of a job and start its process."""
    write_atomic(folder / "recipe.yaml", recipe_text, own=True)
    record = {
        "verb": verb,
        "out": str(out) if out else None,
        "recipe": str(recipe.resolve()) if recipe else None,
        "cwd": str(Path.cwd()),
        "started": time.time(),
        "arguments": list(arguments),
        **about,
    }
    write_atomic(folder / "about.json", json.dumps(record), own=True)
    command = [sys.executable, "-c", _MAIN, verb, str(folder / "recipe.yaml"), *arguments, "--events"]
    with _created(folder / "events.jsonl") as events, _created(folder / "log.txt") as log:
        process = subprocess.Popen(
            # The command replaces the shell and inherits that SIGHUP is ignored.
            ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=events,
            stderr=log,
            start_new_session=True,
            # A folder without files of the user, which Python could import as modules.
            cwd=folder,
            env=child_environment(),
        )
    try:
        write_atomic(folder / "process.json", json.dumps(recorded(process.pid).record()), own=True)
    except SurgeonError:
        # Without process.json the job could not be watched or cancelled.
        process.kill()
        process.wait()
        raise
    return Job(folder, _process=process)


def _created(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def rooted(roots: Iterable[Path]) -> list[str]:
    """Options that make a job resolve relative paths from `roots` and the working directory, like this process."""
    return [word for root in (*roots, Path.cwd()) for word in ("--root", str(root.absolute()))]


def _number(jobs: Path) -> Path:
    """Create a folder named by the next number."""
    number = max(map(int, filter(_is_number, (path.name for path in jobs.iterdir()))), default=0)
    while True:
        number += 1
        folder = jobs / str(number)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return folder


def child_environment() -> dict[str, str]:
    """This process's environment, so changed that the child imports the same surgeon and logs crashes."""
    paths = [str(Path(part).absolute()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(_ROOT)]), "PYTHONFAULTHANDLER": "1"}


def every() -> list[Job]:
    """All jobs, oldest first."""
    folder = state_folder_there("jobs")
    if folder is None:
        return []
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_number(entry.name) and entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise SurgeonError(f"cannot read the jobs: {error.strerror or error}", where=str(folder)) from error
    return [Job(folder / name) for name in sorted(names, key=int)]


def _is_number(name: str) -> bool:
    """Whether a folder name is one that `_number` creates."""
    return name.isascii() and name.isdigit() and len(name) < _DIGITS and not name.startswith("0")


def find(which: str | None) -> Job:
    """The job with a number, or the last job of an output folder; for None the running job, or the last one.

    Raises:
        InputError: there is no such job, or `which` is None and several jobs run.
    """
    jobs = every()
    if which is not None:
        found = [job for job in jobs if which.isdecimal() and job.number == int(which)]
        found = found or of_output(jobs, Path(which))
        if not found:
            raise InputError(f"there is no job {which}", remedy="`surgeon jobs` lists them")
        return found[-1]
    running = [job for job in jobs if job.running]
    if len(running) > 1:
        numbers = ", ".join(str(job.number) for job in running)
        raise InputError(f"several jobs are running: {numbers}", remedy="give the number of one")
    if not jobs:
        raise InputError(
            "there are no jobs", remedy="start one with `surgeon assemble --detach`, or from the interface"
        )
    return (running or jobs)[-1]


def of_output(jobs: Iterable[Job], out: Path) -> list[Job]:
    """The jobs whose output is this folder."""
    # Path.resolve raises on loops of symbolic links; this does not.
    final = os.path.realpath(expanded(out))
    return [job for job in jobs if job.out is not None and os.path.realpath(job.out) == final]


def of_recipe(recipe: Path | None, folder: Path) -> list[Job]:
    """The last job of each output that was started from a recipe's file (for None: from an unsaved recipe in `folder`),
    oldest first."""
    name = str(recipe.resolve()) if recipe else None
    last: dict[Path, Job] = {}
    for job in every():
        if job.out is not None:
            last.pop(job.out, None)
            last[job.out] = job
    return [job for job in last.values() if job.about["recipe"] == name and (name or job.about["cwd"] == str(folder))]


def again(job: Job) -> Job:
    """Start a new job that resumes an unfinished one.

    Raises:
        SurgeonError: the job's files are missing or damaged.
    """
    try:
        text = read_bytes(job.folder / "recipe.yaml").decode("utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SurgeonError("cannot read the job's recipe", where=str(job.folder / "recipe.yaml"), why=why) from error
    about = job.about
    if about["verb"] != "assemble" or job.out is None or about["arguments"][:1] != [str(job.out)]:
        raise SurgeonError(
            f"job {job.number} cannot be resumed",
            where=str(job.folder / "about.json"),
            why="the file does not name the output and its arguments",
            remedy="resume it with `surgeon assemble RECIPE OUT --resume`",
        )
    arguments = [word for word in about["arguments"] if word not in ("--restart", "--resume")]
    more: dict[str, Any] = {name: about[name] for name in ("layers", "letters", "bytes", "tensors") if name in about}
    recipe = Path(about["recipe"]) if about["recipe"] else None
    return start("assemble", [*arguments, "--resume"], text, out=job.out, recipe=recipe, about=more)


def unfinished(job: Job) -> Unfinished | None:
    """The unfinished output of an ended job; None if there is nothing to resume."""
    from ..assemble.resume.unfinished import look

    left = look(job.out) if job.out else None
    return left if left is not None and not left.holder else None


def finished_by(job: Job) -> Job | None:
    """The later job that has completed the output of this one."""
    later = [other for other in of_output(every(), job.out) if other.number > job.number] if job.out else []
    return next((other for other in reversed(later) if other.state().kind == "done"), None)


def clean() -> int:
    """Remove the folders of all ended jobs, not their outputs; returns how many."""
    over = [job for job in every() if not job.running]
    for job in over:
        shutil.rmtree(job.folder, ignore_errors=True)
    return len(over)
