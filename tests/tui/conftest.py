"""Models and requests for tests of the Try screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.chats import chat_model
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.trying import Requests


@pytest.fixture
def chats(in_tmp: Path) -> list[str]:
    endless: dict[str, Any] = {"max_position_embeddings": 100_000, "eos_token_id": None}
    chat_model(in_tmp / "a", seed=0, **endless)
    tiny_tokenizer(tiny_model(in_tmp / "b", layers=3, seed=1, **endless))
    return ["./a", "./b"]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    return Requests(monkeypatch)
