"""The resident child: requests in, events out, models kept, requests cancelled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.paths import ROOT

Event = dict[str, Any]


class Client:
    """The other end of the child's pipes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "surgeon.probe.resident_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            cwd=ROOT,
        )

    def send(self, **request: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def event(self) -> Event:
        assert self.process.stdout
        found = json.loads(self.process.stdout.readline())
        assert isinstance(found, dict)
        return found

    def until(self, *last: str) -> list[Event]:
        events = [self.event()]
        while events[-1]["event"] not in last:
            events.append(self.event())
        return events


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    for name, seed in (("a", 0), ("b", 1)):
        tiny_tokenizer(tiny_model(folder / name, seed=seed, max_position_embeddings=100_000, eos_token_id=None))
    (folder / "r.yml").write_text("slices:\n  - sources: [{model: ./a, layer_range: [0, 3]}]\n")
    (folder / "p.jsonl").write_text('{"prompt": "1 =", "expected": "1"}\n' * 3)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    client = Client()
    yield client
    assert client.process.stdin
    client.process.stdin.close()
    assert client.process.wait(60) == 0


def test_a_request_is_answered_and_the_model_kept(client: Client, folder: Path) -> None:
    for number in (1, 2):
        client.send(
            id=number,
            target=str(folder / "r.yml"),
            kind="recipe",
            prompt="Hi",
            n=8,
            probe=str(folder / "p.jsonl"),
            perplexity="some text",
            device="cpu",
        )
    first, second = client.until("done", "error"), client.until("done", "error")
    kinds = [event["event"] for event in first]
    assert kinds[:2] == ["loading", "loaded"] and kinds[-5:] == ["probe"] * 3 + ["perplexity", "done"]
    assert {event["id"] for event in first} == {1} and {event["id"] for event in second} == {2}
    done = first[-1]
    assert done["text"] == "".join(event["text"] for event in first if event["event"] == "token")
    assert done["tokens"] == 8 and done["finite"] and done["perplexity"][0]["value"] > 1 and done["layers"] == 3
    assert done["probes"] == [
        {"file": str(folder / "p.jsonl"), "name": "p", "right": done["probes"][0]["right"], "total": 3}
        | {"score": done["probes"][0]["score"]}
    ]
    assert done["text"] == second[-1]["text"]
    # The very same load: the model was kept.
    assert first[1]["seconds"] == second[1]["seconds"] == done["load_seconds"]


def test_a_recipe_may_lie_elsewhere_than_its_donors(client: Client, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text((folder / "r.yml").read_text())
    request = {"target": str(tmp_path / "r.yml"), "kind": "recipe", "prompt": "Hi", "n": 2, "device": "cpu"}
    client.send(id=3, **request)
    assert client.until("done", "error")[-1]["event"] == "error"
    client.send(id=4, **request, root=str(folder))
    assert client.until("done", "error")[-1]["layers"] == 3


def test_a_text_that_cannot_be_measured_is_an_error_of_its_own(client: Client, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.txt").touch()
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "text.txt").write_text("some text")
    names = [str(tmp_path / f"{name}.txt") for name in ("binary", "empty", "pipe", "gone", "text")]
    client.send(id="texts", target=str(folder / "a"), kind="path", texts=names, device="cpu")
    events = client.until("done", "error")
    found = [event for event in events if event["event"] == "perplexity"]
    assert [event["name"] for event in found] == names and events[-1]["event"] == "done"
    errors = ("is not UTF-8 text", "there is no text", "not a regular file", "No such file")
    for event, error in zip(found, errors, strict=False):
        assert event["value"] is None and error in event["error"] and event["name"] in event["error"]
    assert found[-1]["value"] > 1 and "error" not in found[-1]
    assert [text["name"] for text in events[-1]["perplexity"]] == names


def test_a_lone_surrogate_is_named_in_a_sentence(client: Client, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "1 =", "expected": "\\ud800"}\n')
    for more in ({"prompt": "a\ud800"}, {"perplexity": "a\ud800"}, {"probe": str(tmp_path / "p.jsonl")}):
        client.send(id="odd", target=str(folder / "a"), kind="path", n=2, device="cpu", **more)
        events = client.until("done", "error", "perplexity")
        message = events[-1].get("message") or events[-1]["error"]
        assert "half of a surrogate pair" in message and "TextEncodeInput" not in message
        if events[-1]["event"] == "perplexity":
            client.until("done")


def test_a_changed_file_is_loaded_again(client: Client, folder: Path) -> None:
    texts = []
    for seed in (5, 6):
        tiny_model(folder / "b", seed=seed, eos_token_id=None)
        client.send(id=f"b{seed}", target=str(folder / "b"), kind="path", prompt="Hi", n=8, device="cpu")
        texts.append(client.until("done", "error")[-1]["text"])
    assert texts[0] != texts[1]


def test_requests_are_cancelled_by_line_and_by_signal_and_the_child_goes_on(client: Client, folder: Path) -> None:
    long = {"target": str(folder / "a"), "kind": "path", "prompt": "Hi", "n": 90_000, "device": "cpu"}
    client.send(id=10, **long)
    client.send(id=11, **long)
    client.send(id=12, **{**long, "n": 3})
    client.until("token")
    client.send(cancel=11)
    client.send(cancel=10)
    assert client.until("cancelled", "done", "error")[-1] == {"id": 10, "event": "cancelled"}
    assert client.until("cancelled", "done", "error") == [{"id": 11, "event": "cancelled"}]
    assert client.until("cancelled", "done", "error")[-1]["tokens"] == 3
    client.send(id=13, **long)
    client.until("token")
    os.kill(client.process.pid, signal.SIGINT)
    assert client.until("cancelled", "done", "error")[-1] == {"id": 13, "event": "cancelled"}
    os.kill(client.process.pid, signal.SIGINT)  # nothing is at work: nothing happens
    client.send(id=14, **{**long, "n": 2})
    assert client.until("cancelled", "done", "error")[-1]["tokens"] == 2


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"target": "./nowhere", "kind": "path"}, "no checkpoint at"),
        ({"target": "x.yml", "kind": "recipe"}, "cannot read the recipe"),
        ({"kind": "path"}, "no target"),
        ({"target": "x", "kind": "zip"}, "'zip' is unknown"),
        ({"target": "x", "kind": "path", "n": "many"}, "n is not a number"),
        ({"target": "x", "kind": "path", "device": "tpu"}, "'tpu' is not a device"),
        ({"target": "x", "kind": "path", "probe": "none.jsonl"}, "cannot read the probe set"),
    ],
)
def test_what_is_wrong_is_an_event(client: Client, request_: Event, message: str) -> None:
    client.send(id=20, **request_)
    last = client.until("done", "error")[-1]
    assert last["event"] == "error" and message in last["message"] and last["id"] == 20


def test_lines_that_are_no_request_are_answered(client: Client) -> None:
    assert client.process.stdin
    client.process.stdin.write("nonsense\n[1]\n{}\n")
    client.process.stdin.flush()
    assert [client.event()["event"] for _ in range(3)] == ["error"] * 3


def test_a_plan_with_errors_says_why(client: Client, folder: Path) -> None:
    (folder / "bad.yml").write_text("slices:\n  - sources: [{model: ./a, layer_range: [0, 9]}]\n")
    client.send(id=30, target=str(folder / "bad.yml"), kind="recipe", prompt="Hi")
    last = client.until("done", "error")[-1]
    assert last["event"] == "error" and "recipe cannot be carried out" in last["message"]


def test_where_memory_does_not_suffice_the_models_kept_make_room() -> None:
    import torch

    from surgeon.errors import SurgeonError
    from surgeon.probe.model_cache import ModelCache

    cache, asked = ModelCache(), []

    def load(cause: Exception, lasting: bool) -> Any:
        asked.append(len(cache.models))
        if cache.models or lasting:
            raise SurgeonError("transformers cannot load the model") from cause
        return "loaded"

    cache.models = {"one": None}  # type: ignore[dict-item]
    assert cache._loaded(lambda: load(torch.OutOfMemoryError(), False)) == "loaded"
    assert (asked, cache.models) == ([1, 0], {})
    for kept, cause in (({"one": None}, ValueError()), ({}, torch.OutOfMemoryError())):
        asked.clear()
        cache.models = dict(kept)  # type: ignore[arg-type]
        with pytest.raises(SurgeonError):
            cache._loaded(lambda cause=cause: load(cause, True))  # type: ignore[misc]
        assert (len(asked), cache.models) == (1, kept)
