"""`surgeon bench --interface`: what a key costs, as a table or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..text import one_line, plural
from .table import say

if TYPE_CHECKING:
    from ..bench.interface import ModelCosts


def bench_interface(donors: tuple[Path, Path] | None, runs: int, as_json: bool) -> None:
    """Measure and print."""
    from .. import data
    from ..bench.interface import SIZE, measure_all

    demo = data.folder("demo")
    given = (donors[0].absolute(), donors[1].absolute()) if donors else None
    found = []
    for costs in measure_all(given, demo if demo.is_dir() else None, runs, _tell):
        found.append(costs)
        if not as_json:
            for line in lines(costs):
                say(line)
    if as_json:
        print(json.dumps({"columns": SIZE[0], "rows": SIZE[1], "models": [one.to_dict() for one in found]}, indent=2))


def _tell(name: str) -> None:
    print(f"measuring {one_line(name)}", file=sys.stderr, flush=True)


def lines(costs: ModelCosts) -> Iterator[str]:
    """The costs of one model as text."""
    yield f"{one_line(costs.model)}: {plural(costs.tensors, 'tensor')} in {plural(costs.layers, 'layer')}"
    yield f"  {'key':<12}{'CPU ms':>10}{'bytes':>10}{'times':>8}"
    yield f"  {'start':<12}{costs.start_ms:>10.0f}{costs.start_bytes:>10,}{1:>8}"
    for key in costs.keys:
        yield f"  {key.key:<12}{key.cpu_ms:>10.1f}{key.bytes:>10,}{key.times:>8}"
    yield ""
