"""No file that a user names is waited for: a pipe without a writer, or a device, is an error at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from surgeon.assemble.files.model_card import license_of
from surgeon.assemble.io.byte_copy import Sources
from surgeon.checkpoint import open_checkpoint
from surgeon.checkpoint.header import read_header
from surgeon.checkpoint.locate import read_json
from surgeon.checkpoint.tokenizer.vocabulary_digest import merges_digest
from surgeon.errors import SurgeonError
from surgeon.evaluate.suite import read_suite
from surgeon.files import write_atomic
from surgeon.plan.tokenizer.chat_template import _text
from surgeon.probe.probe_set import read_probes
from surgeon.probe.requests import text_in
from surgeon.recipe.document import load
from tests.support.sparse import TINY, sparse_llama


@pytest.fixture(autouse=True)
def not_forever() -> Iterator[None]:
    """Fail after 20 seconds, where the code under test waits for a pipe."""

    def late(*_: object) -> None:
        raise AssertionError("this waits for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


READERS: dict[str, Callable[[Path], Any]] = {
    "recipe.yaml": load,
    "suite.yaml": read_suite,
    "text.txt": text_in,
    "probes.jsonl": read_probes,
    "weights.safetensors": read_header,
    "config.json": read_json,
    "tokenizer.json": merges_digest,
    "chat_template.jinja": _text,
    "copied.safetensors": Sources().get,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_is_no_regular_file_is_refused(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(SurgeonError, match="not a regular file"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_and_a_missing_file_are_named_as_such(name: str, tmp_path: Path) -> None:
    with pytest.raises(SurgeonError, match="No such file or directory"):
        READERS[name](tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(SurgeonError, match="Is a directory"):
        READERS[name](tmp_path / name)


def test_weights_in_a_folder_that_are_a_pipe_are_refused(tmp_path: Path) -> None:
    sparse_llama(tmp_path, **TINY)
    (tmp_path / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(SurgeonError, match="not a regular file"):
        open_checkpoint(str(tmp_path))


def test_a_model_card_that_is_a_pipe_states_no_license(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "README.md")
    assert license_of(tmp_path) is None
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").write_bytes(b"---\r\nlicense: mit\r\n---\r\n")
    assert license_of(tmp_path) == "mit"


def test_a_pipe_without_a_reader_is_not_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.yaml")
    with pytest.raises(SurgeonError, match="cannot write the file"):
        write_atomic(tmp_path / "out.yaml", "text")
    assert (tmp_path / "out.yaml").is_fifo()
