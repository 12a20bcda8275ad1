"""`surgeon verify OUT`: compare a checkpoint with its config, its recipe and its donors."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SurgeonError
from ..text import one_line, plural
from .common import JsonOption, SetOption

if TYPE_CHECKING:
    from ..assemble.progress_tracker import OnEvent
    from ..checkpoint import Checkpoint
    from ..verify.audit import Audit

SHOWN = 20
"""Maximum number of problems printed; `--json` lists all."""


def verify(
    out: Annotated[str, typer.Argument(help="A checkpoint, usually one that surgeon has written.", metavar="OUT")],
    deep: Annotated[bool, typer.Option("--deep", help="Also read the donors, and compare every byte.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Also load it and run a forward pass.")] = False,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a checkpoint with its config, its recipe and its donors."""
    from ..verify.run import verify_model

    audit, checkpoint = verify_model(out, deep=deep, smoke=smoke, sets=sets, progress=_progress)
    if as_json:
        print(json.dumps({"out": out, "ok": not audit.problems, **asdict(audit)}, indent=2))
    else:
        _print(out, checkpoint, audit)
    if audit.problems:
        raise SurgeonError(f"{plural(len(audit.problems), 'thing')} wrong", where=out)


def _progress(layers: int) -> AbstractContextManager[OnEvent]:
    """A progress line on a terminal, else nothing."""
    from .progress import bar

    return bar(layers) if sys.stderr.isatty() else nullcontext(lambda event: None)


def _print(out: str, checkpoint: Checkpoint | None, audit: Audit) -> None:
    from ..verify.audit import summary

    if checkpoint is not None:
        print(f"{one_line(out)}: {summary(checkpoint)}")
    for line in audit.checked:
        print(f"  ok           {one_line(line)}")
    for line in audit.unchecked:
        print(f"  not checked  {one_line(line)}")
    for problem in audit.problems[:SHOWN]:
        print(f"  WRONG        {problem.sentence()}")
    if len(audit.problems) > SHOWN:
        print(f"  and {len(audit.problems) - SHOWN} more (--json lists all)")
    sys.stdout.flush()
