"""The table of models against measures: values, verdicts with intervals, a base that can be chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from surgeon.evaluate.intervals import Difference, Unit
from surgeon.evaluate.measures import Measure
from surgeon.tui.try_model.column_models import ColumnModel
from surgeon.tui.try_model.model_scores import ScoredModel, Scores, Source
from surgeon.tui.try_model.prompt_area import PromptArea
from surgeon.tui.try_model.score_table import TOO_FEW, ScoreTable
from surgeon.tui.try_model.scoring import bundled_names
from tests.support.trying import Requests, opened, screen_of, until
from tests.support.tui import app, command, donors, keys, line


@pytest.fixture
def texts(in_tmp: Path) -> Path:
    (in_tmp / "texts").mkdir()
    (in_tmp / "texts" / "prose.txt").write_text("It was a bright cold day in April, and the clocks struck. " * 12)
    (in_tmp / "probes").mkdir()
    probes = [{"prompt": f"{n} =", "expected": str(n)} for n in range(8)]
    (in_tmp / "probes" / "digits.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes))
    return in_tmp


async def test_texts_and_sets_fill_one_table(chats: list[str], texts: Path) -> None:
    from surgeon.checkpoint import open_checkpoint
    from surgeon.evaluate.intervals import paired_difference
    from surgeon.evaluate.losses import score_text
    from surgeon.probe.subject import from_checkpoint

    async with opened(chats, size=(80, 24)) as (application, pilot, screen):
        scores = screen.conversation.scores
        await keys(pilot, "escape x")
        await until(pilot, lambda: not screen.table.measuring and not screen.conversation.busy)
        await keys(pilot, "s")
        await until(pilot, lambda: not screen.table.measuring and not screen.conversation.busy)
        rows = [name for _, name in scores.rows()]
        assert rows == ["prose loss", "digits accuracy", "digits log-probability"]
        assert [model.model.name for model in scores.ordered] == ["A ./a", "this recipe", "B ./b"]
        # The recipe is A's three layers, so it measures the same; B is another model. As computed directly:
        text = (texts / "texts" / "prose.txt").read_text()
        units = [
            score_text(from_checkpoint(open_checkpoint(ref), "cpu"), [text], "prose").losses for ref in ("./a", "./b")
        ]
        for model, own in zip(scores.ordered, (units[0], *units), strict=True):
            assert list(model.measures[scores.sources[0]][0].units) == own
        found = {pair[1]: one for pair, one in scores.differences.items() if pair[::3] == (scores.base, "prose loss")}
        same, other = (found[model.model.key] for model in scores.ordered[1:])
        assert same is not None and same.verdict == "equal"
        assert other == paired_difference(units[0], units[1], "lower")
        screen._redraw()
        shown = screen.query_one("#table").text  # type: ignore[attr-defined]
        notes = " ".join(shown.split())
        verdict = {"better": "worse", "worse": "better"}.get(other.verdict, other.verdict)
        assert "prose perplexity: this recipe is equal to A ./a; " in notes and f"{verdict} than B ./b" in notes
        assert "prose perplexity" in shown and "equal" in shown and "base" in shown and "tok/s" in shown
        assert all(cell_len(row) <= 80 for row in shown.split("\n"))
        await keys(pilot, "v")
        await until(pilot, lambda: not screen.conversation.busy)
        assert scores.ordered[0].model.name == "B ./b" and "compared with B ./b" in line(pilot, "status")
        await until(
            pilot, lambda: len([one for pair, one in scores.differences.items() if pair[0] == scores.base]) == 6
        )
        await keys(pilot, "tab")
        assert screen.query_one("#answers").display and not screen.query_one("#table").display
        await keys(pilot, "tab y")
        assert "copied 5 lines" in line(pilot, "status") and application.clipboard.startswith("measure\t")


async def test_what_is_known_is_not_measured_again_after_an_edit(chats: list[str], texts: Path) -> None:
    async with opened(chats) as (_, pilot, screen):
        await keys(pilot, "escape x")
        await until(pilot, lambda: not screen.table.measuring and not screen.conversation.busy)
        before = {key: model.number for key, model in screen.conversation.scores.models.items()}
        await keys(pilot, "escape")
        await command(pilot, "delete 0")
        await keys(pilot, "T escape b enter x")
        again = screen_of(pilot.app)  # type: ignore[arg-type]
        scores = again.conversation.scores
        await until(pilot, lambda: len(scores.models) == 4 and not again.table.measuring)
        names = [model.model.name for model in scores.ordered]
        assert names == ["1 step back", "this recipe", "A ./a", "B ./b"], "the verdicts are about the recipe"
        assert {key: scores.models[key].number for key in before} == before
        assert scores.ordered[0].model.key in before, "the earlier state keeps its scores"


@pytest.mark.slow
async def test_bundled_sets_are_added_by_name(chats: list[str], in_tmp: Path) -> None:
    async with opened(chats) as (application, pilot, screen):
        box = screen.query_one(PromptArea)
        box.load_text(":bundled nothing")
        await keys(pilot, "enter")
        assert "there is no bundled set" in line(pilot, "status")
        box.load_text(":bundled arithmetic-1 chat")
        await keys(pilot, "enter")
        assert "arithmetic-1, chat" in line(pilot, "status") and application.try_state.bundled == [
            "arithmetic-1",
            "chat",
        ]
        await keys(pilot, "escape s")
        await until(pilot, lambda: not screen.table.measuring and not screen.conversation.busy, 120)
        rows = [name for _, name in screen.conversation.scores.rows()]
        assert "arithmetic-1 accuracy" in rows and "arithmetic-1 log-odds" in rows and "chat accuracy" in rows
        text = "\n".join("".join(part for part, _ in row) for row in screen.table.lines(119))
        assert "working half" in text and "chat template" in text, "B has none"


async def test_stopping_stops_all_models(in_tmp: Path, requests: Requests) -> None:
    application = app(donors(in_tmp, "ab"))
    (in_tmp / "texts").mkdir()
    (in_tmp / "texts" / "prose.txt").write_text("It was.")
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-2")
        await keys(pilot, "T escape x")
        screen = screen_of(application)
        await until(pilot, lambda: any("score" in request for request in requests.sent))
        await keys(pilot, "c")
        requests.sinks[-1]({"event": "cancelled"})
        await until(pilot, lambda: all(model.state == "stopped" for model in screen.conversation.scores.ordered))
        assert sum("score" in request for request in requests.sent) == 1


async def test_the_written_output_is_a_row(in_tmp: Path, monkeypatch: pytest.MonkeyPatch, requests: Requests) -> None:
    from surgeon.jobs import job_list

    class Done:
        out = in_tmp / "b"

        def state(self) -> Any:
            return type("State", (), {"kind": "done"})()

    monkeypatch.setattr(job_list, "of_recipe", lambda recipe, folder: [Done()])
    application = app(donors(in_tmp, "a") + donors(in_tmp, "b"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-2")
        await keys(pilot, "T")
        names = [model.name for model in screen_of(application).conversation.scored_models()]
        assert names == ["this recipe", "written: b", "A ./a"], "B is the output"


async def test_without_texts_there_is_a_sentence(in_tmp: Path, requests: Requests) -> None:
    application = app(donors(in_tmp, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-2")
        for key, word in (("x", ":text FILE"), ("s", ":bundled"), ("tab", "x measures"), ("v", "x measures")):
            await keys(pilot, f"T escape {key}")
            assert word in line(pilot, "status") and len(line(pilot, "status")) <= 80
            await keys(pilot, "escape")


def table(models: int, measures: int, *, better: str = "lower") -> ScoreTable:
    """A table of made-up scores; the first model is the base."""
    scores = Scores(sources=[Source("text", f"/t/a text with a long name {n}.txt") for n in range(measures)])
    for number in range(models):
        key = f"k{number}"
        found = {
            source: [Measure(f"{Path(source.name).stem} loss", better, (Unit("a", 2.0 + number, "a"),), "loss")]
            for source in scores.sources
        }
        name = f"{number} /somewhere/far/away/模型/model"
        scores.models[key] = ScoredModel(ColumnModel(key, name, key, None), measures=found, state="")
        scores.shown.append(key)
    scores.base = "k0"
    return ScoreTable(scores)


def text_of(made: ScoreTable, width: int = 79) -> str:
    return "\n".join("".join(text for text, _ in row) for row in made.lines(width))


@pytest.mark.parametrize("width", [40, 79, 119, 199])
@pytest.mark.parametrize("models", [1, 2, 7])
def test_many_models_and_long_names_fit(width: int, models: int) -> None:
    made = table(models, 3)
    for key in made.scores.shown[1:]:
        for source, name in made.scores.rows():
            one = Difference(-1.25, -100.125, 0.5, "within noise", 1234, 9)
            made.scores.differences["k0", key, source, name] = one
    lines = text_of(made, width).split("\n")
    assert max(map(cell_len, lines)) <= width
    blocks = sum(row.startswith(" a ") for row in lines) // 3
    assert sum(row.split()[:1] == ["base"] for row in lines) == blocks, "the base is in each block"
    if models > 1:
        assert width == 40 or "[-1e+02,+0.500]" in text_of(made, width)
        assert "needs about 1,234 items" in " ".join(text_of(made, 199).split())


def test_words_of_the_cells() -> None:
    made = table(5, 1)
    ((source, name),) = made.scores.rows()
    for key, one in {
        "k1": Difference(-0.1, -0.2, -0.05, "better", None, 40),
        "k2": Difference(0.1, 0.05, 0.2, "worse", None, 40),
        "k3": Difference(0.0, 0.0, 0.0, "equal", None, 40),
        "k4": Difference(-0.1, -0.2, -0.05, "within noise", None, 4),
    }.items():
        made.scores.differences["k0", key, source, name] = one
    text = text_of(made, 119)
    assert "20.09 better" in text and "54.6 worse" in text and "148.4 equal" in text and f"403.4 {TOO_FEW}" in text
    assert "[-0.200,-0.050]" in text and "[+0.050,+0.200]" in text
    assert "against 0 /somewhere" in text


def test_what_is_not_finite_or_failed_is_said() -> None:
    made = table(2, 1)
    (source, name), (first, second) = made.scores.rows()[0], made.scores.ordered
    first.measures[source] = [Measure(name, "lower", (Unit("a", float("nan"), "a"),), "loss")]
    second.measures.clear()
    second.take({"event": "error", "message": "there is no checkpoint\x1b at B."}, {})
    text = text_of(made)
    assert "not finite" in text and "failed" in text and "there is no checkpoint\\x1b at B." in text


def test_models_that_split_a_text_differently_are_not_compared() -> None:
    made = table(2, 1)
    for model, count in zip(made.scores.ordered, (40, 44), strict=True):
        model.tokens[made.scores.sources[0]] = count
    assert "cannot be compared" in " ".join(text_of(made).split())


def test_a_changed_file_is_another_source(in_tmp: Path) -> None:
    (in_tmp / "a.txt").write_text("one")
    before = Source.of_file("text", in_tmp / "a.txt")
    (in_tmp / "a.txt").write_text("three")
    assert before != Source.of_file("text", in_tmp / "a.txt") and before.key == f"text:{in_tmp / 'a.txt'}"


def test_bundled_names_are_found_by_their_beginning() -> None:
    assert bundled_names("arithmetic") == ["arithmetic-1", "arithmetic-2"]
    assert len(bundled_names("all")) >= 5


@pytest.mark.parametrize(
    "event",
    [
        {"name": 3},
        {"name": "x", "better": "up", "kind": "loss"},
        {"name": "x", "better": "", "kind": "loss", "units": 3},
    ],
)
def test_events_that_make_no_sense_are_noted(event: dict[str, Any]) -> None:
    model, source = ScoredModel(ColumnModel("k", "k", "k", None)), Source("text", "/t")
    assert model.take({"event": "measure", "source": "text:/t", **event}, {"text:/t": source}) == []
    assert len(model.notes) == 1 and not model.find(source, "x")
