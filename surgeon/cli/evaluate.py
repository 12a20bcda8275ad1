"""`surgeon evaluate PATH|RECIPE...`: score models on the same items and say which is better."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, SurgeonError
from ..text import duration, one_line, safe, size
from .common import JsonOption
from .table import Style, TableRow, say, table

if TYPE_CHECKING:
    from ..evaluate.evaluation import Evaluation, ModelScores
    from ..evaluate.suite import Suite


def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(help="Checkpoints (folder, .safetensors file, Hub id) and recipes.", metavar="PATH|RECIPE..."),
    ],
    suite: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A suite in YAML: texts, probes, bundled, lm_eval, limit, split."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Compare with this model; default: the first, or a single recipe's base."),
    ] = None,
    text: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A text for loss and perplexity; may be repeated.")
    ] = None,
    probe: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A probe set; may be repeated.")] = None,
    bundled: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Bundled sets, separated by commas; all for every one.")
    ] = None,
    lm_eval: Annotated[
        str | None, typer.Option("--lm-eval", metavar="TASKS", help="Tasks of lm-evaluation-harness.")
    ] = None,
    lm_eval_tasks: Annotated[
        Path | None,
        typer.Option("--lm-eval-tasks", metavar="DIR", help="A folder of further tasks. Its files can run code."),
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Score the half that is kept for the verdict (the default).")
    ] = False,
    working: Annotated[
        bool, typer.Option("--working", help="Score the half that is for choosing between models.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Score both halves.")] = False,
    donors: Annotated[bool, typer.Option(help="Evaluate the donors of recipes too.")] = True,
    limit: Annotated[
        int | None, typer.Option("-n", "--limit", min=1, help="Maximum number of items of each set.")
    ] = None,
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of text.")] = False,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The results file; default: surgeon-results.jsonl beside the recipe."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep/--no-results", help="Keep the scores in the results file.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Score models on the same items, with a paired interval and a verdict against the base."""
    if as_json and as_markdown:
        raise InputError("--json and --markdown exclude each other", remedy="leave one of them out")
    if results is not None and not keep:
        raise InputError("--results has no meaning with --no-results", remedy="leave one of them out")
    from dataclasses import replace

    from ..evaluate.evaluation import evaluate as run
    from ..evaluate.evaluation import targets_of
    from ..evaluate.results import results_file
    from ..plan.load import is_recipe

    recipes = [Path(ref) for ref in targets if is_recipe(ref)]
    wanted = _suite(suite, text, probe, bundled, lm_eval, recipes)
    chosen = [name for name, on in (("held-out", held_out), ("working", working), ("all", every)) if on]
    if len(chosen) > 1:
        raise InputError("--held-out, --working and --all exclude each other", remedy="leave all but one of them out")
    wanted = replace(wanted, split=chosen[0] if chosen else wanted.split, limit=limit or wanted.limit)
    models = targets_of(targets, base, donors=donors)
    loaded = wanted.load()
    kept = _Keeper(results or results_file(recipes) if keep else None, models[0].name, wanted.split)
    found = run(models, loaded, device=device, tasks_from=lm_eval_tasks, say=_say, done=kept)
    _print(found, as_json, as_markdown)
    if kept.failed is not None:
        raise kept.failed


class _Keeper:
    """Keeps the scores of each model when they are complete, so that an interrupted evaluation loses none.

    Attributes:
        failed: the first error; the evaluation goes to its end in spite of it.
    """

    def __init__(self, file: Path | None, base: str, split: str) -> None:
        self._file, self._base, self._split = file, base, split
        self.failed: SurgeonError | None = None

    def __call__(self, model: ModelScores) -> None:
        from ..evaluate.report import model_row
        from ..evaluate.results import append

        memory = "" if model.peak_memory is None else f", peak memory {size(model.peak_memory)}"
        _say(f"{model.target.name}: {duration(model.seconds)}{memory}")
        if self._file is None:
            return
        try:
            append(self._file, [model_row(model, self._base, self._split, self._file)])
        except SurgeonError as error:
            self.failed = self.failed or error


def _print(found: Evaluation, as_json: bool, as_markdown: bool) -> None:
    from ..evaluate.report import markdown, to_dict

    if as_json:
        print(json.dumps(to_dict(found), indent=2))
    else:
        for line in markdown(found) if as_markdown else lines(found, Style.of(sys.stdout)):
            say(line)


def _suite(
    suite: Path | None,
    text: list[Path] | None,
    probe: list[Path] | None,
    bundled: str | None,
    lm_eval: str | None,
    recipes: list[Path],
) -> Suite:
    """The suite file with the options added; without any of them the default suite."""
    from dataclasses import replace

    from ..evaluate.suite import Suite, default_suite, read_suite

    if suite is None and not (text or probe or bundled or lm_eval):
        return default_suite(recipes[0].parent if recipes else Path())
    made = read_suite(suite) if suite is not None else Suite()
    return replace(
        made,
        texts=(*made.texts, *(text or ())),
        probes=(*made.probes, *(probe or ())),
        bundled=(*made.bundled, *_split(bundled)),
        lm_eval=(*made.lm_eval, *_split(lm_eval)),
    )


def _split(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def lines(done: Evaluation, style: Style) -> list[str]:
    """The evaluation as text: the base's validity first, then the measures of all models, then what was retained."""
    from ..evaluate.report import cells, heads, label_of, retained_heads, retained_rows

    half = {"all": "all items", "working": "the working half", "held-out": "the held-out half"}[done.suite.split]
    found = [f"base: {one_line(done.models[0].target.name)}; {half}"]
    found += [f"warning: {note}" for note in done.notes]
    found += [f"note: {note}" for model in done.models for note in model.notes]
    names = sorted(done.measures, key=lambda name: not name.endswith((" coverage", " accuracy")))
    rows = [TableRow(label_of(done, name), tuple(cells(done, name)), ()) for name in names]
    found += ["", *table(rows, heads(done), style)]
    if kept := retained_rows(done):
        found += ["", "against the best checkpoint:"]
        found += table([TableRow(label, tuple(texts), ()) for label, texts in kept], retained_heads(done), style)
    if len(done.models) > 1:
        found += [
            "",
            "Differences to the base with 95 % intervals, paired by item; of perplexities, in nats per token.",
        ]
    return found


def _say(text: str) -> None:
    print(safe(text), file=sys.stderr, flush=True)
