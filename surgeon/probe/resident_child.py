"""A resident child that keeps models loaded (see `model_cache`): requests come in and events go out as lines of JSON.

    {"id": 1, "target": "recipe.yml", "kind": "recipe", "prompt": "The", "n": 64, "probe": null, "texts": null,
     "perplexity": null, "temperature": 0, "top_p": 1, "seed": 0, "chat": false, "system": null, "device": "auto"}

`kind` is `recipe` or `path`; `probe` and `texts` (for the perplexity) are a file or a list of files; `perplexity` is a
text; `chat` puts the prompt into the chat template if there is one; without a prompt, `check` false only loads the
model; the optional `root` is the folder for a recipe's relative model paths, for a recipe that is not saved at its
final place. Every event has the request's id: `loading`, `loaded`, `token`, `probe`, `perplexity`, then one of `done`,
`cancelled`, `error`. {"cancel": id} or SIGINT stops the current request; a cancel also stops a waiting one. A text that
cannot be measured has a `perplexity` event with an `error`, and the other texts are measured. After the end of stdin,
the child finishes its requests and ends. Run with `python -m surgeon.probe.resident_child`.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, NoneType
from typing import Any, TextIO

from ..assemble.gpu.device import pick_device
from ..errors import InputError, SurgeonError
from ..statefile import is_number
from . import requests
from .environment import transformers
from .model_cache import ModelCache
from .probe_set import read_probes
from .subject import Subject

Request = dict[str, Any]


class Stopped(BaseException):
    """The current request was cancelled. A BaseException, so that no library's `except Exception` catches it."""


class Child:
    """Answers requests one at a time in the main thread; a reader thread reads lines and handles cancels."""

    def __init__(self, lines: TextIO, out: TextIO) -> None:
        self._lines, self._out = lines, out
        self._waiting: queue.Queue[Request | None] = queue.Queue()
        self._open: set[Any] = set()
        self._cancelled: set[Any] = set()
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._current: Any = None
        self._interruptible = False
        self._to_interrupt: Any = None
        self._models = ModelCache()

    def serve(self) -> None:
        """Answer until stdin ends."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        threading.Thread(target=self._read, daemon=True).start()
        # Imported before any request can be cancelled, because torch does not survive an interrupted import.
        transformers()
        while (request := self._waiting.get()) is not None:
            self._answer(request)

    def _read(self) -> None:
        for line in self._lines:
            try:
                request = json.loads(line)
            except (ValueError, RecursionError):
                request = None
            if not isinstance(request, dict):
                self.emit(None, {"event": "error", "message": "This line is not a JSON object."})
            elif not isinstance(name := request.get("cancel", request.get("id")), (int, str)):
                self.emit(None, {"event": "error", "message": "A request needs a number or a text as its id."})
            elif "cancel" in request:
                self._cancel(name)
            else:
                self._open.add(name)
                self._waiting.put(request)
        self._waiting.put(None)

    def _cancel(self, name: int | str) -> None:
        if name in self._open:
            self._cancelled.add(name)
        if name == self._current:
            self._to_interrupt = name
            signal.raise_signal(signal.SIGINT)

    def _on_interrupt(self, _number: int, frame: FrameType | None) -> None:
        wanted, self._to_interrupt = self._to_interrupt, None
        # A request may end, and the next one begin, before the signal of a cancel is handled.
        if self._current is None or (wanted is not None and wanted != self._current):
            return
        self._stop.set()
        if self._interruptible and not _importing(frame):
            raise Stopped

    def check(self) -> None:
        """Raise `Stopped` if the current request was cancelled."""
        if self._stop.is_set():
            raise Stopped

    @contextmanager
    def _interrupted_at_once(self) -> Iterator[None]:
        """Context in which a cancel raises `Stopped` at once: loading a model and a long forward pass never check."""
        self.check()
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _answer(self, request: Request) -> None:
        name = request["id"]
        self._stop.clear()
        self._current = name
        try:
            if name in self._cancelled:
                raise Stopped
            events = self.events(request)
            while True:
                with self._interrupted_at_once():
                    event = next(events, None)
                if event is None:
                    break
                self.emit(name, event)
        except Stopped:
            self.emit(name, {"event": "cancelled"})
        except SurgeonError as error:
            self.emit(name, {"event": "error", "message": error.sentence()})
        except MemoryError:
            self._models.clear()
            self.emit(name, {"event": "error", "message": "Out of memory."})
        except Exception as error:
            # The child survives any error of a request; the traceback goes to its log.
            sys.excepthook(type(error), error, error.__traceback__)
            message = SurgeonError("the probe failed", why=f"{type(error).__name__}: {error}").sentence()
            self.emit(name, {"event": "error", "message": message})
        finally:
            self._interruptible = False
            self._current = None
            self._open.discard(name)
            self._cancelled.discard(name)

    def events(self, request: Request) -> Iterator[requests.Event]:
        """The events that answer a request."""
        wanted = _wanted(request)
        yield {"event": "loading"}
        subject = self.subject(request)
        yield requests.loaded(subject)
        if wanted.prompt is not None and subject.tokenizer is None and not wanted.probes:
            wanted = requests.Request(n=wanted.n)
        yield from requests.run(subject, wanted, self.check)

    def subject(self, request: Request) -> Subject:
        """The model of a request."""
        device = pick_device(str(request.get("device") or "auto"))
        target, kind = _text(request, "target"), request.get("kind")
        if kind == "recipe":
            root = request.get("root")
            return self._models.of_recipe(Path(target), Path(root) if isinstance(root, str) else None, device)
        if kind == "path":
            return self._models.of_checkpoint(target, device)
        raise InputError(f"a request of kind {kind!r} is unknown", remedy="use recipe or path")

    def emit(self, name: Any, event: requests.Event) -> None:
        """Send an event of a request."""
        try:
            with self._writing:
                self._out.write(json.dumps({"id": name, **event}) + "\n")
                self._out.flush()
        except (BrokenPipeError, ValueError):
            # The parent has closed the pipe.
            os._exit(0)


def _importing(frame: FrameType | None) -> bool:
    """Whether a frame belongs to an import, which torch does not survive half done."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _wanted(request: Request) -> requests.Request:
    """The checked options of a request."""
    n, seed = request.get("n", 64), request.get("seed") or 0
    temperature, top_p = request.get("temperature") or 0.0, request.get("top_p", 1.0)
    chat, check = request.get("chat") or False, request.get("check", True)
    if type(n) is not int or n < 1:
        raise InputError("n is not a number of tokens")
    for name in ("prompt", "perplexity", "system"):
        if not isinstance(request.get(name), (str, NoneType)):
            raise InputError(f"{name} is not text")
    if not is_number(temperature) or not is_number(top_p) or type(seed) is not int:
        raise InputError("temperature, top_p and seed are not numbers")
    if type(chat) is not bool or type(check) is not bool:
        raise InputError("chat or check is not true or false")
    text = request.get("perplexity")
    return requests.Request(
        prompt=request.get("prompt"),
        n=n,
        probes=tuple(read_probes(path) for path in files_of(request, "probe")),
        texts=(
            *((requests.text_given(text),) if text is not None else ()),
            *(requests.text_or_problem(path) for path in files_of(request, "texts")),
        ),
        temperature=float(temperature),
        top_p=float(top_p),
        seed=seed,
        chat=chat,
        check=check,
        system=request.get("system"),
        go_on=True,
    )


def files_of(request: Request, key: str) -> list[Path]:
    """The files that a request names: one, or a list."""
    names = request.get(key) or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{key} is not a file name or a list of them")
    return [Path(name) for name in names]


def _text(request: Request, key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f"the request has no {key}")
    return value


def serve(kind: type[Child] = Child) -> None:
    """Serve stdin and stdout; all other output goes to stderr.

    Args:
        kind: the class that answers, which may know further requests.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    kind(sys.stdin, out).serve()


if __name__ == "__main__":
    serve()
