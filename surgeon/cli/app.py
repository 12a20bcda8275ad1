"""The Typer application: all commands. A first word that is no command opens the TUI."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__, address_space
from ..errors import SurgeonError
from ..files import exists
from ..text import one_line
from . import (
    assemble,
    attach,
    bench,
    cancel,
    demo,
    edit,
    evaluate,
    export,
    generate,
    inspect,
    jobs,
    methods,
    open_tui,
    plan,
    results,
    streams,
    verify,
)
from .common import fail
from .doctor import doctor


class _PathsOpenTheTui(TyperGroup):
    """`surgeon ./A ./B` and `surgeon --recipe FILE` mean `surgeon open ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {"--help", "--version", "--install-completion", "--show-completion"}
        if not args or (args[0] not in self.commands and args[0] not in own and _opens(args[0])):
            args = ["open", *args]
        return super().parse_args(ctx, args)


def _opens(word: str) -> bool:
    return word.startswith("-") or os.sep in word or exists(word)


app = typer.Typer(
    cls=_PathsOpenTheTui,
    name="surgeon",
    help="Layer surgery on language models: see, splice, try, assemble.\n\n"
    "`surgeon PATH... [--recipe FILE]` opens the terminal interface.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"surgeon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command("open", help="Open checkpoints and a recipe in the terminal interface (the default).")(open_tui.open_tui)
app.command("demo", help="Copy the demo checkpoints to a folder and open them, or run them with --no-tui.")(demo.demo)
app.command("inspect", help="Show what is in checkpoints, several side by side.")(inspect.inspect)
app.command("edit", help="Change a recipe with named edits.")(edit.edit)
app.command("plan", help="Show what a recipe would write, and all errors and warnings.")(plan.plan)
app.command("methods", help="List the merge methods: parameters, and the source of each formula.")(methods.methods)
app.command("export", help="Write a recipe in the form that mergekit runs.")(export.export)
app.command("assemble", help="Write the model of a recipe to disk.")(assemble.assemble)
app.command("jobs", help="List the jobs that write in the background, running and ended.")(jobs.jobs)
app.command("attach", help="Show the progress of a job.")(attach.attach)
app.command("cancel", help="Stop a job; it can be resumed.")(cancel.cancel)
app.command("verify", help="Compare a checkpoint with its config, its recipe and its donors.")(verify.verify)
app.command("generate", help="Smoke-test a checkpoint or an unwritten recipe by generating text.")(generate.generate)
app.command("evaluate", help="Score models and recipes on the same items, and say which is better.")(evaluate.evaluate)
app.command("results", help="List what was evaluated and tried, and its scores.")(results.results)
app.command("bench", help="Measure the speed of surgeon, cp and, if it is installed, mergekit.")(bench.bench)
app.command("doctor", help="Check the terminal, tmux, SSH, torch and the disk.")(doctor.doctor)


def run(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    code, raised = 0, None
    address_space.watch()
    try:
        code = _run(args)
    except OSError as error:
        raised = error
    failed = streams.finish(raised)
    if failed is not None:
        fail(failed)
    return code or (failed.exit_code if failed else 0)


def _run(args: list[str] | None) -> int:
    try:
        code = app(args, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SurgeonError as error:
        return fail(error)
    except KeyboardInterrupt:
        print("surgeon: interrupted", file=sys.stderr)
        return 130
    except typer.Abort:
        return 130
    except SystemExit:
        # typer exits with an error when the reader of a pipe has closed it (head, less). That is no failure here.
        if isinstance(streams.lost(sys.stdout), BrokenPipeError):
            return 0
        raise
    except OSError:
        raise
    except Exception as error:
        if (sentence := _lacks_memory(error)) is not None:
            return fail(sentence)
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return int(getattr(error, "exit_code", 2))


_NO_MEMORY = (
    "cannot allocate memory", "failed to map segment", "can't allocate memory", "not enough memory",
    "can't start new thread", "std::bad_alloc",
)  # fmt: skip


def _lacks_memory(error: Exception) -> SurgeonError | None:
    """The error to show when a library could not be loaded or memory not be allocated; None for other failures."""
    text = isinstance(error, (ImportError, OSError, RuntimeError)) and str(error).lower()
    if not isinstance(error, MemoryError) and not (text and any(words in text for words in _NO_MEMORY)):
        return None
    return SurgeonError(
        "there is too little memory",
        why=one_line(str(error).splitlines()[0]) if str(error) else "an allocation failed",
        remedy=address_space.REMEDY,
    )
