"""Tasks of lm-evaluation-harness on a model in memory, through the harness's own Python API.

The package is optional: `pip install 'surgeon[lm-eval]'`. Data sets are not downloaded.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, SurgeonError
from ..probe.environment import transformers
from ..probe.subject import Subject
from ..text import one_line
from .intervals import Unit
from .measures import Measure


def check_installed() -> None:
    """Raise InputError if lm-evaluation-harness is not installed."""
    import importlib.util

    if importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "tasks of lm-evaluation-harness need its package",
            why="lm_eval is not installed",
            remedy="install surgeon[lm-eval], or leave the tasks out",
        )


def task_measures(
    subject: Subject,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    include: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Measure]:
    """Evaluate tasks, with every metric that the harness keeps per item.

    Args:
        limit: most items of each task.
        include: a folder with YAML files of further tasks. Such files run code, so they must be trusted.
        say: shows a sentence.

    Raises:
        InputError: the package is missing, a task is unknown, or the model has no tokenizer.
        SurgeonError: the harness fails, for instance because a data set is not on this machine.
    """
    check_installed()
    if subject.tokenizer is None:
        raise InputError("the model cannot read text", why=subject.why_no_tokenizer)
    transformers()
    # The harness prints to stdout, where the command's result goes.
    with contextlib.redirect_stdout(sys.stderr):
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        try:
            manager = TaskManager(include_path=str(include) if include else None)
            unknown = [task for task in tasks if not manager.match_tasks([task])]
            if unknown:
                raise InputError(f"{one_line(unknown[0])!r} is not a task of lm-evaluation-harness")
            say(f"lm-evaluation-harness: {', '.join(map(one_line, tasks))}")
            found = lm_eval.simple_evaluate(
                model=HFLM(pretrained=subject.model, tokenizer=subject.tokenizer, batch_size=1),
                tasks=list(tasks),
                task_manager=manager,
                limit=limit,
                bootstrap_iters=0,
                log_samples=True,
                num_fewshot=None,
            )
        except SurgeonError:
            raise
        except Exception as error:
            first = (str(error).splitlines() or [""])[0].rstrip(".")
            raise SurgeonError(
                "lm-evaluation-harness failed",
                why=f"{type(error).__name__}: {first}",
                remedy="its data sets must be on this machine; run the task once with HF_HUB_OFFLINE=0 to get them",
            ) from error
    return _measures(found or {})


def _measures(found: dict[str, Any]) -> list[Measure]:
    """Measures of the samples: numbers that the harness keeps per item, under the names of the task's metrics."""
    measures = []
    for task, samples in sorted(found.get("samples", {}).items()):
        directions = found.get("higher_is_better", {}).get(task, {})
        for metric, higher in directions.items():
            values = {str(one["doc_id"]): _number(one.get(metric)) for one in samples}
            units = tuple(Unit(name, value, name) for name, value in values.items() if value is not None)
            if units and len(units) == len(values):
                better = {True: "higher", False: "lower"}.get(higher, "")
                measures.append(Measure(f"{task} {metric}", better, units, "task"))
    return measures


def _number(value: Any) -> float | None:
    """A metric of one item; None for those that are pairs of sums, or not finite."""
    if hasattr(value, "item"):
        value = value.item()
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
