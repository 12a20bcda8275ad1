"""`surgeon bench --interface`: what it presses, measures and refuses. Nothing is timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from surgeon.bench import interface
from surgeon.bench.interface import KINDS, measure_all
from surgeon.bench.sparse_donors import DENSE, EXPERTS, SparseShape, make_sparse
from surgeon.checkpoint import open_checkpoint
from surgeon.cli.app import run
from surgeon.errors import InputError, SurgeonError

SMALL = SparseShape(8, 16, 4, 2, 4, 8, 32)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return make_sparse(tmp_path / "first", SMALL), make_sparse(tmp_path / "second", SMALL)


def test_sparse_donors_have_published_shapes_and_take_no_room(tmp_path: Path) -> None:
    dense = open_checkpoint(str(make_sparse(tmp_path / "dense", DENSE)))
    assert (len(dense.tensors), dense.depth, dense.problems) == (723, 80, ())
    assert dense.numel == 68_976_648_192  # Llama-2-70B's parameters
    assert len(EXPERTS.tensors()) == 91_089
    held = make_sparse(tmp_path / "few", SparseShape(2, 16, 4, 2, 4, 8, 32, experts=3))
    experts = open_checkpoint(str(held))
    assert experts.config is not None and experts.config.experts == 3 and not experts.problems
    for folder in ("dense", "few"):
        assert sum(file.stat().st_blocks for file in (tmp_path / folder).iterdir()) * 512 < 1_000_000


@pytest.fixture
def only_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The large models are not measured."""
    every = interface.models

    def given(*arguments: object) -> Iterator[object]:
        yield from (one for one in every(*arguments) if one[0] not in ("70B dense", "experts"))  # type: ignore[arg-type]

    monkeypatch.setattr(interface, "models", given)


def test_every_kind_of_key_is_measured(two: tuple[Path, Path], only_given: None) -> None:
    said: list[str] = []
    (costs,) = measure_all(two, None, 1, said.append)
    assert said == ["first"] and (costs.model, costs.tensors, costs.layers) == ("first", 75, 8)
    assert {key.key: key.times for key in costs.keys} == {**dict.fromkeys(KINDS, 1), "move": 3, "undo": 6}
    by_kind = {key.key: key for key in costs.keys}
    assert costs.start_bytes > 5_000 and costs.start_ms > 0
    for kind in KINDS:
        # A refused key would write a sentence and nothing else; a move writes two heads of lines and the detail.
        assert by_kind[kind].bytes > (50 if kind == "move" else 500), kind
        assert by_kind[kind].cpu_ms > 0


def test_the_report_is_text_or_json(
    two: tuple[Path, Path], only_given: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("surgeon.data.folder", lambda name: two[0].parent / "no demo")
    arguments = ["bench", "--interface", "--donors", *map(str, two), "--runs", "1"]
    assert run([*arguments, "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert [key["key"] for key in model["keys"]] == list(KINDS)
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert "first: 75 tensors in 8 layers" in shown and all(f"  {kind} " in shown for kind in KINDS)
    assert max(map(len, shown.splitlines())) <= 80


def test_bad_donors_are_refused_before_anything_is_measured(two: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(InputError, match="there is no checkpoint"):
        next(measure_all((two[0], tmp_path / "none"), two[0].parent, 1, said.append))
    flat = make_sparse(tmp_path / "flat", SparseShape(4, 16, 4, 2, 4, 8, 32))
    with pytest.raises(InputError, match="flat has 4 layers"):
        next(measure_all((two[0], flat), two[0].parent, 1, said.append))
    assert said == [] and run(["bench", "--donors", *map(str, two)]) == 2


def test_an_interface_that_ends_is_an_error(two: tuple[Path, Path], only_given: None, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with (
        interface._interface(["--no-such-option"], work) as terminal,
        pytest.raises(SurgeonError, match="ended with code 2"),
    ):
        terminal.settle()
