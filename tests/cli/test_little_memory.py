"""Too little address space for torch: a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.assembling import donor


@pytest.mark.parametrize("limit", [400_000, 450_000, 550_000, 600_000, 700_000])
def test_generate_says_that_memory_lacks(limit: int, tmp_path: Path) -> None:
    donor(tmp_path / "a", 2)
    command = [sys.executable, "-m", "surgeon", "generate", str(tmp_path / "a"), "-n", "2", "--device", "cpu"]
    done = subprocess.run(
        ["sh", "-c", f'ulimit -v {limit}; exec "$@"', "sh", *command],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "surgeon: " in done.stderr
