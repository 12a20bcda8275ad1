"""Probe sets, suites and results of any content are read or refused with a sentence."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.cli.results import lines
from surgeon.cli.table import Style
from surgeon.errors import InputError
from surgeon.evaluate.results import read_results
from surgeon.evaluate.suite import read_suite
from surgeon.probe.probe_set import KINDS, read_probes

TEXTS = st.sampled_from(["", " ", "a", "1", "all", "held-out", "p ", "(", "\x1b[2J", *KINDS])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
_OPTIONAL = ("pattern", "choices", "tolerance", "tokens", "group", "chat", "system", "kind", "other")
PROBES = st.fixed_dictionaries(
    {"prompt": TEXTS | VALUES, "expected": TEXTS | VALUES},
    optional=dict.fromkeys(
        ("pattern", "choices", "tolerance", "tokens", "group", "chat", "system", "kind", "other"), VALUES | TEXTS
    ),
)
SUITES = st.dictionaries(st.sampled_from(["texts", "probes", "bundled", "lm_eval", "limit", "split", "x"]), VALUES)
ROWS = st.fixed_dictionaries(
    {"version": st.just(1)},
    optional=dict.fromkeys(("name", "time", "what", "measures", "recipe", "prompt", "answer", "split"), VALUES),
)


def written(value: Any, name: str, folder: str) -> Path:
    path = Path(folder) / name
    path.write_text(json.dumps(value) + "\n")
    return path


@settings(deadline=None, max_examples=200)
@given(PROBES)
def test_probes(probe: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, value in (("a.jsonl", probe), ("a.yml", [probe])):
            try:
                (found,) = read_probes(written(value, name, folder)).probes
            except InputError as error:
                assert "\x1b" not in error.sentence()
            else:
                assert isinstance(found.prompt, str) and found.expected.strip() and found.kind in KINDS


@settings(deadline=None, max_examples=100)
@given(SUITES)
def test_suites(suite: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            read_suite(written(suite, "s.yml", folder))
        except InputError as error:
            assert "\x1b" not in error.sentence()


@settings(deadline=None, max_examples=100)
@given(ROWS)
def test_rows(row: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows, bad = read_results(written(row, "r.jsonl", folder))
        assert len(rows) == 1 and bad == 0
        assert "\x1b" not in "".join(lines(rows, Style()))
