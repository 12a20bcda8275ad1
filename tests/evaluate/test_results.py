"""The results file: rows are appended whole, private, and read as untrusted."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from surgeon.errors import InputError, SurgeonError
from surgeon.evaluate import results
from surgeon.evaluate.intervals import Unit
from surgeon.evaluate.measures import Measure
from surgeon.evaluate.results import append, read_results, results_file, row


def one(file: Path, name: str = "m", **more: Any) -> dict[str, Any]:
    return row("evaluated", name, file, **more)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "r.jsonl"


def test_rows_are_read_back_with_every_item(file: Path) -> None:
    units = (Unit("line 1", 1.0, "g"), Unit("line 2", 0.0, "g"))
    text = (Unit("t:0", 12.5, "t:0", 5.0), Unit("t:1", math.inf, "t:1", 2.0))
    measures = [Measure("p accuracy", "higher", units, "accuracy"), Measure("t loss", "lower", text, "loss")]
    append(file, [one(file, measures=measures, recipe="models: []\n", prompt="a", answer="b")])
    (found,), bad = read_results(file)
    assert bad == 0 and found.number == 1 and found.recipe == "models: []\n"
    assert (
        found.measures == {"p accuracy": 0.5} and found.shown("p accuracy") == "0.500" and found.shown("t loss") == "-"
    )
    assert found.values["items"]["p accuracy"] == {
        "name": ["line 1", "line 2"], "value": [1.0, 0.0], "cluster": ["g", "g"]
    }  # fmt: skip
    assert found.values["items"]["t loss"] == {"name": ["t:0", "t:1"], "value": [12.5, None], "weight": [5.0, 2.0]}
    assert found.text("prompt") == "a" and found.text("answer") == "b"


def test_the_file_is_private_and_lies_beside_the_recipe(tmp_path: Path) -> None:
    file = results_file([tmp_path / "r.yml"])
    append(file, [one(file)])
    assert file.parent == tmp_path and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert results_file([]) == Path(results.NAME)


def test_a_torn_line_is_ignored_and_removed_by_the_next_append(file: Path) -> None:
    append(file, [one(file, "a"), one(file, "b")])
    whole = file.read_bytes()
    for cut in (1, 20, len(whole.splitlines()[1])):
        file.write_bytes(whole[:-cut])
        rows, bad = read_results(file)
        assert [found.text("name") for found in rows] == ["a"] and bad == 0
        append(file, [one(file, "c")])
        rows, bad = read_results(file)
        assert [found.text("name") for found in rows] == ["a", "c"] and bad == 0


def test_a_file_that_is_no_results_file_is_not_cut(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_LINE", 1000)
    file.write_bytes(b"x" * 5000)
    with pytest.raises(SurgeonError, match="not a results file"):
        append(file, [one(file)])
    assert file.read_bytes() == b"x" * 5000


def _append_many(file: Path, name: str) -> None:
    for number in range(40):
        append(file, [one(file, f"{name}{number}", answer="x" * 5000)])


def test_processes_that_append_at_once_lose_nothing(file: Path) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_append_many, args=(file, name)) for name in "abc"]
    for child in children:
        child.start()
    for child in children:
        child.join()
    rows, bad = read_results(file)
    assert bad == 0 and {found.text("name") for found in rows} == {f"{a}{n}" for a in "abc" for n in range(40)}


def test_lines_that_are_no_rows_are_counted_and_left_out(file: Path) -> None:
    append(file, [one(file, "a")])
    lines = ["{", "[1]", "NaN", '{"version": 99}', "", "[" * 5000, json.dumps({"version": 1, "measures": 3, "name": 4})]
    with file.open("a") as out:
        out.write("\n".join(lines) + "\n")
    rows, bad = read_results(file)
    assert [found.number for found in rows] == [1, 8] and bad == 5
    assert rows[1].measures == {} and rows[1].text("name") == "" and rows[1].recipe is None


def test_values_of_a_wrong_type_are_missing(file: Path) -> None:
    measures = {"a": {"value": "1"}, "b": 3, "c": {"value": 1e300}, "d": {"value": 2, "kind": 7}}
    file.write_text(json.dumps({"version": 1, "measures": measures, "recipe": ["x"]}) + "\n")
    ((found,), _) = read_results(file)
    assert found.measures == {"d": 2} and found.shown("a") == "-" and found.shown("d") == "2.000"


def test_links_and_pipes_are_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("keep")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "none/file"):
        with pytest.raises(SurgeonError, match=r"cannot write the results.*--no-results"):
            append(tmp_path / name, [one(tmp_path / name)])
    assert (tmp_path / "other").read_text() == "keep"
    with pytest.raises(InputError, match="cannot read the results"):
        read_results(tmp_path / "pipe")


def test_no_row_names_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "alice"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    inside, outside = home / "work" / "r.jsonl", tmp_path / "data" / "r.jsonl"
    assert one(inside, path=home / "models" / "m")["path"] == "../models/m"
    assert one(outside, path=home / "models" / "m")["path"] == "~/models/m"
    assert one(inside, path=tmp_path / "models" / "m")["path"] == "../../../models/m"
