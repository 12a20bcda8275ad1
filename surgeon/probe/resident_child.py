"""A resident child that keeps models loaded: requests as lines of JSON on stdin, events as lines of JSON on stdout.

    {"id": 1, "target": "recipe.yml", "kind": "recipe", "prompt": "The", "n": 64, "probe": null, "perplexity": null,
     "device": "auto"}

`kind` is `recipe` or `path`; `probe` is a file or a list of files; the optional `root` is the folder for a recipe's
relative model paths, for a recipe that is not saved at its final place. Every event has the request's id: `loading`,
`loaded`, `token`, `probe`, then one of `done`, `cancelled`, `error`. {"cancel": id} or SIGINT stops the current
request; a cancel also stops a waiting one. After the end of stdin, the child finishes its requests and ends.
Run with `python -m surgeon.probe.resident_child`.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..assemble.gpu.device import pick_device
from ..checkpoint import open_checkpoint
from ..errors import InputError, SurgeonError
from ..plan import Donors, Plan, resolve
from ..recipe import document as documents
from . import requests
from .environment import transformers
from .score import read_probes
from .subject import Subject, from_checkpoint, from_plan

KEPT = 2
"""Models that stay loaded: the current one and the one to compare it with."""

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
        self._models: dict[Any, Subject] = {}

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
                self._emit(None, {"event": "error", "message": "This line is not a JSON object."})
            elif not isinstance(name := request.get("cancel", request.get("id")), (int, str)):
                self._emit(None, {"event": "error", "message": "A request needs a number or a text as its id."})
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
            signal.raise_signal(signal.SIGINT)

    def _on_interrupt(self, _number: int, _frame: object) -> None:
        if self._current is None:
            return
        self._stop.set()
        if self._interruptible:
            raise Stopped

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    @contextmanager
    def _interrupted_at_once(self) -> Iterator[None]:
        """Context in which a cancel raises `Stopped` at once, because loading a model never calls `_check`."""
        self._check()
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
            for event in self._events(request):
                self._check()
                self._emit(name, event)
        except Stopped:
            self._emit(name, {"event": "cancelled"})
        except SurgeonError as error:
            self._emit(name, {"event": "error", "message": error.sentence()})
        except MemoryError:
            self._models.clear()
            self._emit(name, {"event": "error", "message": "Out of memory."})
        except Exception as error:
            # The child survives any error of a request; the traceback goes to its log.
            sys.excepthook(type(error), error, error.__traceback__)
            message = SurgeonError("the probe failed", why=f"{type(error).__name__}: {error}").sentence()
            self._emit(name, {"event": "error", "message": message})
        finally:
            self._current = None
            self._open.discard(name)
            self._cancelled.discard(name)

    def _events(self, request: Request) -> Iterator[requests.Event]:
        wanted = _wanted(request)
        yield {"event": "loading"}
        with self._interrupted_at_once():
            subject = self._subject(request)
        yield requests.loaded(subject)
        if wanted.prompt is not None and subject.tokenizer is None and not wanted.probes:
            wanted = requests.Request(n=wanted.n)
        yield from requests.run(subject, wanted, self._check)

    def _subject(self, request: Request) -> Subject:
        """The model of a request, from the cache or newly loaded; the least recently used one is dropped."""
        device = pick_device(str(request.get("device") or "auto"))
        target, kind = _text(request, "target"), request.get("kind")
        plan = None
        if kind == "recipe":
            root = request.get("root")
            plan = _plan(Path(target), Path(root) if isinstance(root, str) else None)
            key: Any = (device, _plan_key(plan))
        elif kind == "path":
            checkpoint = open_checkpoint(target)
            key = (device, str(checkpoint.path), _stamps(checkpoint.files), _stamps(checkpoint.folder.glob("*.json")))
        else:
            raise InputError(f"a request of kind {kind!r} is unknown", remedy="use recipe or path")
        subject = self._models.pop(key, None)
        if subject is None:
            while len(self._models) >= KEPT:
                del self._models[next(iter(self._models))]
            subject = self._loaded(lambda: from_plan(plan, device) if plan else from_checkpoint(checkpoint, device))
        self._models[key] = subject
        return subject

    def _loaded(self, load: Callable[[], Subject]) -> Subject:
        """Load a model; if memory is short, drop the cached models and try again."""
        gc.collect()
        try:
            return load()
        except SurgeonError as error:
            if not self._models or "OutOfMemory" not in type(error.__cause__).__name__:
                raise
        self._models.clear()
        gc.collect()
        return load()

    def _emit(self, name: Any, event: requests.Event) -> None:
        try:
            with self._writing:
                self._out.write(json.dumps({"id": name, **event}) + "\n")
                self._out.flush()
        except (BrokenPipeError, ValueError):
            # The parent has closed the pipe.
            os._exit(0)


def _plan(recipe: Path, root: Path | None) -> Plan:
    document = documents.load(recipe)
    return resolve(document, Donors((root,) if root else document.roots))


def _plan_key(plan: Plan) -> Any:
    """Everything that a model in memory depends on: tensors' sources, files' times, config and small files."""
    sources = tuple((tensor.name, tensor.dtype, tensor.source) for tensor in plan.tensors)
    files = {entry.file for tensor in plan.tensors for entry in tensor.source.entries()} | set(plan.files.values())
    return sources, _stamps(files), json.dumps(plan.config, sort_keys=True), tuple(sorted(plan.files))


def _stamps(files: Any) -> Any:
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(files))


def _wanted(request: Request) -> requests.Request:
    """The checked options of a request."""
    prompt, text, n = request.get("prompt"), request.get("perplexity"), request.get("n", 64)
    temperature, seed = request.get("temperature") or 0.0, request.get("seed") or 0
    files = request.get("probe") or []
    files = [files] if isinstance(files, str) else files
    if type(n) is not int or n < 1:
        raise InputError("n is not a number of tokens")
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise InputError("probe is not a file name or a list of them")
    for name, value in (("prompt", prompt), ("perplexity", text)):
        if value is not None and not isinstance(value, str):
            raise InputError(f"{name} is not text")
    if not isinstance(temperature, (int, float)) or type(seed) is not int:
        raise InputError("temperature and seed are not numbers")
    return requests.Request(
        prompt=prompt,
        n=n,
        probes=tuple(read_probes(Path(file)) for file in files),
        texts=(requests.text_given(text),) if text is not None else (),
        temperature=float(temperature),
        seed=seed,
    )


def _text(request: Request, key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f"the request has no {key}")
    return value


def main() -> None:
    """Serve stdin and stdout; all other output goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    Child(sys.stdin, out).serve()


if __name__ == "__main__":
    main()
