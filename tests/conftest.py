"""Fixtures that several test files use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

QUICK = ("checkpoint", "methods/test_registry.py", "plan", "recipe", "tui/curves/test_drafts.py", "tui/test_actions.py")
"""Folders and files of the tests that `-m quick` runs; those that are slow among them are left out."""

NOT_QUICK = (
    "adapter_values", "derived", "document", "end_to_end", "expand", "family_compatibility", "history", "lints",
    "naming", "output_config", "recipes_folder", "row_rules", "saving", "test_plan.py", "token_rows",
    "unplaced_tensors", "workload",
)  # fmt: skip
"""Parts of the names of test files in those folders that load models or take long."""


SLOW = (
    "bench", "cli/test_streams.py", "families/test_vision.py", "faults", "fuzz", "jobs/test_no_state.py", "mutation",
    "recipe/test_saving.py", "tui/test_budget.py", "tui/test_shutdown.py", "verify/test_verify.py",
)  # fmt: skip
"""Folders and files of the tests that only `tests/release.sh` runs: most start processes that take seconds each."""


def is_quick(path: Path) -> bool:
    name = path.relative_to(Path(__file__).parent).as_posix()
    return name.startswith(QUICK) and not any(word in name for word in NOT_QUICK)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m quick` other files are not even imported: some import torch."""
    if config.option.markexpr == "quick" and collection_path.name.startswith("test_"):
        return not is_quick(collection_path) or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if is_quick(item.path) and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.quick)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Jobs, swap files and the demo's default folder go into a folder of the test's own, also after a test has taken
    back its own changes of the environment."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(home / name.lower()))
        for name in ("SSH_CONNECTION", "NO_COLOR"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
