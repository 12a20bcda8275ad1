"""A pytest plugin that records, for every test, which lines of surgeon it runs and how long it takes.

Children that a test starts are recorded, too: a `sitecustomize` starts coverage in them, under the test that
is running. A fixture that several tests share is recorded by itself, and each of them is said to use it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage


class Recorder:
    """Switches coverage's context with the tests."""

    def __init__(self, settings: Path, results: Path) -> None:
        os.environ["COVERAGE_PROCESS_START"] = str(settings)
        os.environ["MUTATION_TEST"] = ""
        self._results = results
        self._tests: dict[str, dict[str, Any]] = {}
        self._coverage = Coverage(config_file=str(settings), context=None)
        self._coverage.start()
        self._context = ""

    def _switch(self, context: str) -> None:
        self._context = os.environ["MUTATION_TEST"] = context
        self._coverage.switch_context(context)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """A test with its own fixtures is one context."""
        shared = {
            f"fixture|{d.baseid}|{d.argname}"
            for found in item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
            for d in found
            if d.scope != "function"
        }
        self._tests[item.nodeid] = {"seconds": 0.0, "passed": True, "fixtures": sorted(shared)}
        self._switch(item.nodeid)
        result = yield
        self._switch("")
        return result  # type: ignore[return-value]

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """A fixture of several tests is a context, too."""
        before = self._context
        if fixturedef.scope != "function":
            self._switch(f"fixture|{fixturedef.baseid}|{fixturedef.argname}")
        try:
            return (yield)  # type: ignore[return-value]
        finally:
            self._switch(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """How long it took, and whether it can be used."""
        test = self._tests[report.nodeid]
        test["seconds"] += report.duration
        test["passed"] &= report.outcome == "passed"

    def pytest_sessionfinish(self) -> None:
        """Everything into files."""
        self._coverage.stop()
        self._coverage.save()
        self._results.write_text(json.dumps(self._tests))


def pytest_configure(config: pytest.Config) -> None:
    """Recording begins where the environment says so."""
    settings, results = os.environ["MUTATION_SETTINGS"], os.environ["MUTATION_RESULTS"]
    config.pluginmanager.register(Recorder(Path(settings), Path(results)))
