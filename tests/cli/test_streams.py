"""Standard streams that are closed or full, and readers that have gone: the work is done, without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tui import donors

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")

RECIPE = "slices:\n- sources: [{model: ./a, layer_range: [0, 2]}]\n"
ASSEMBLE = ["assemble", "r.yaml", "out", "--no-check"]
VERBS = (
    ["inspect", "a", "--tensors"], ["inspect", "a", "--json"], ["plan", "r.yaml"], ["plan", "r.yaml", "--json"],
    ["methods"], ["export", "r.yaml", "--mergekit"], ["edit", "r.yaml", "--op", "delete 0", "-o", "-"], ASSEMBLE,
    [*ASSEMBLE, "--json"], ["verify", "a"], ["jobs"], ["--help"], ["--version"],
)  # fmt: skip


@pytest.fixture
def folder(in_tmp: Path) -> Path:
    donors(in_tmp, "a")
    (in_tmp / "r.yaml").write_text(RECIPE)
    return in_tmp


def surgeon(words: list[str], how: str) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", f'exec "$@" {how}', "sh", sys.executable, "-m", "surgeon", *words]
    return subprocess.run(command, capture_output=True, timeout=120)


def whole(words: list[str], folder: Path) -> bool:
    return words[0] != "assemble" or (folder / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
class TestAllVerbs:
    @pytest.mark.parametrize("how", [">&-", ">/dev/full"])
    def test_what_cannot_be_printed_is_a_sentence(self, folder: Path, words: list[str], how: str) -> None:
        found = surgeon(words, how)
        said = found.stderr.decode().splitlines()
        assert found.returncode == 1 and whole(words, folder)
        assert said[-1].startswith("surgeon: the output could not be printed, because ")
        assert "Traceback" not in found.stderr.decode() and "Exception ignored" not in found.stderr.decode()

    @pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
    def test_messages_that_nobody_sees_change_nothing(self, folder: Path, words: list[str], how: str) -> None:
        expected = surgeon(words, "")
        if words[0] == "assemble":
            words = [*words, "--force"]
        found = surgeon(words, how)
        assert (found.returncode, len(found.stdout) > 0) == (expected.returncode, True)
        assert whole(words, folder)

    def test_a_reader_that_has_gone(self, folder: Path, words: list[str]) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "surgeon", *words]
        found = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=120)
        os.close(writing)
        assert found.returncode == (0 if words != ["verify", "a"] else found.returncode)
        assert b"Traceback" not in found.stderr and b"printed" not in found.stderr and b"ignored" not in found.stderr
        assert whole(words, folder)


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_the_exit_code_is_that_of_the_error(folder: Path, how: str) -> None:
    assert surgeon(["plan", "nowhere.yaml"], how).returncode == 2


def test_weights_do_not_take_the_number_of_a_closed_stream(folder: Path) -> None:
    """What a library prints there would be written into them."""
    assert surgeon(ASSEMBLE, "").returncode == 0
    expected = (folder / "out" / "model.safetensors").read_bytes()
    code = (
        "import os, sys\n"
        "from surgeon.assemble.io import byte_copy as copy\n"
        "real = os.preadv\n"
        "def printing(*args):\n"
        "    for number in (0, 1, 2):\n"
        "        try:\n"
        "            os.write(number, b'printed by a library')\n"
        "        except OSError:\n"
        "            pass\n"
        "    return real(*args)\n"
        "os.preadv = printing\n"
        "from surgeon.__main__ import main\n"
        "main()\n"
    )
    for how in (">&-", "<&- >&- 2>&-"):
        command = ["sh", "-c", f'exec "$@" {how}', "sh", sys.executable, "-c", code, *ASSEMBLE, "--force"]
        subprocess.run(command, capture_output=True, timeout=120)
        assert (folder / "out" / "model.safetensors").read_bytes() == expected
