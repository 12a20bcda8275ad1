"""`surgeon methods` and `surgeon plan --values`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from surgeon.cli.app import run
from surgeon.methods.catalogue import every
from tests.support.blending import donors

LINEAR = """\
merge_method: linear
models:
- {model: a, parameters: {weight: 0.6}}
- {model: b, parameters: {weight: [{filter: mlp, value: [0, 1]}, {value: 0.3}]}}
"""


def test_every_method_is_listed_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in every())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", sorted(every()))
def test_one_method_in_full(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    method = every()[name]
    assert run(["methods", name]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "Source: " in out and method.source
    for parameter in method.parameters.values():
        assert parameter.help, parameter.name
        assert re.search(rf"^  {re.escape(parameter.name)} ", out, re.MULTILINE)


def test_methods_as_json_and_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "slerp", "--json"]) == 0
    (method,) = json.loads(capsys.readouterr().out)
    assert method["donors"] == {"least": 2, "most": 2}
    assert [(p["name"], p["required"], p["default"]) for p in method["parameters"]] == [("t", True, None)]
    assert run(["methods", "slrep"]) == 2
    assert "Try slerp" in capsys.readouterr().err


def test_values_say_number_donor_and_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(donors(tmp_path))
    Path("r.yml").write_text(LINEAR)
    assert run(["plan", "r.yml", "--values"]) == 0
    out = capsys.readouterr().out
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    found = [line[1] for line in lines if line[:1] == ["mlp.up_proj.weight"]]
    assert found[3] == "normalize true (default); weight A 0.6 (its source); weight B 1 (its source, filter mlp)"
    assert any("weight A 0.6, B 0.3 (its source)" in line for line in out.splitlines())
    assert "  embeddings  A~B" in out
    assert run(["plan", "r.yml", "--values", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["layers"][3]["values"]
    mine = [row for row in rows if row["tensor"].endswith("3.mlp.up_proj.weight") and row["parameter"] == "weight"]
    assert [(row["donor"], row["value"], row["filter"]) for row in mine] == [("A", 0.6, None), ("B", 1.0, "mlp")]
