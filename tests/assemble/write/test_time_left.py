"""The time that is left of a run: not told before it can be, and not far off after that."""

from __future__ import annotations

from typing import Any

import pytest

from surgeon.assemble import progress_tracker
from surgeon.assemble.progress_tracker import INTERVAL, Reporter, Tracker

TOTAL = 2_000_000_000


def etas(monkeypatch: pytest.MonkeyPatch, startup: float, rate: float, earlier: int = 0) -> list[tuple[float, float]]:
    """(told, true) seconds left of a run that begins to write after `startup` seconds."""
    now = 0.0
    monkeypatch.setattr(progress_tracker.time, "monotonic", lambda: now)
    counts, events = Tracker({"x": 0}), list[dict[str, Any]]()
    reporter = Reporter(counts, TOTAL, events.append)
    counts.done = counts.earlier = earlier
    found = []
    while counts.done < TOTAL:
        now += INTERVAL
        written = max(0.0, now - startup) * rate
        counts.done = min(TOTAL, earlier + int(written))
        reporter.tick()
        if events[-1]["eta"] is not None:
            found.append((events[-1]["eta"], (TOTAL - earlier) / rate + startup - now))
    return found


@pytest.mark.parametrize("startup", [0.5, 4.0, 20.0])
@pytest.mark.parametrize("earlier", [0, TOTAL // 2])
def test_starting_is_no_part_of_the_rate(startup: float, earlier: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = etas(monkeypatch, startup, 1e8, earlier)
    assert len(found) > 20
    assert all(abs(told - true) <= 0.1 * max(true, 1) for told, true in found), found[:3]


def test_nothing_is_told_while_the_rate_still_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress_tracker.time, "monotonic", lambda: now)
    counts, events = Tracker({"x": 0}), list[dict[str, Any]]()
    reporter = Reporter(counts, TOTAL, events.append)
    for second in range(1, 9):
        now = float(second)
        counts.done = 1_000_000 * 2**second
        reporter.tick()
    assert all(event["eta"] is None for event in events)
