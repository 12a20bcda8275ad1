"""The parent's side of the load-back check: the expectation, the child process that uses transformers, its outcome.

torch and transformers take seconds to import, so the child starts before the copying and runs in parallel; this process
imports neither. The child's side is `surgeon.verify.load_back_child`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ..checkpoint import Checkpoint
from ..plan.model import Plan
from ..statefile import parse
from ..text import one_line, ranges

MODULE = "surgeon.verify.load_back_child"
CONFIG = "config.json"
EXPECTED = "expected.json"

PATIENCE = 600.0
"""Seconds to wait for the child's answer after everything else is done."""

_INTERVAL = 0.05
_ROOT = Path(__file__).resolve().parents[2]
_NOT_MADE = "the written config was not checked with transformers"

Expectation = dict[str, Any]
"""JSON: `tensors`, name -> [dtype, shape]; `layers`, each {attributes, donor, layer}, or null if unknown; `donors`,
letter -> config.json; `base`, the letter of the config's donor; `tied`; `beside`, the names of tensors outside layers
and ends, which the class may not have."""


_KEYS = {
    "attention": (
        "layer_types", "layers_block_type", "attention_types", "sliding_window_pattern", "_sliding_window_pattern",
        "max_window_layers", "use_sliding_window", "sliding_window",
    ),
    "window": ("sliding_window",),
    "rope": ("no_rope_layers", "no_rope_layer_interval"),
    "mlp": (
        "mlp_layer_types", "mlp_only_layers", "decoder_sparse_step", "first_k_dense_replace", "num_experts",
        "num_local_experts",
    ),
}  # fmt: skip
"""For each attribute of a layer, the config keys that may set it, the most specific first."""


def key_of(attribute: str, text: Mapping[str, Any]) -> str:
    """The config key that sets an attribute of the layers, in the text model's part of a config.json."""
    keys = _KEYS.get(attribute, (attribute,))
    return next((key for key in keys if key in text), keys[0])


@dataclass(frozen=True)
class Mismatch:
    """One difference between the plan and the model that transformers builds.

    Attributes:
        layer: output layer; None for a difference outside the layers.
        key: config key or tensor name.
        wanted: the planned value.
        found: transformers' value.
        message: the difference as a clause.
        severity: `error`, or `warning` for a difference that may be intended.
    """

    layer: int | None
    key: str
    wanted: Any
    found: Any
    message: str
    severity: str = "error"

    def sentence(self) -> str:
        """The mismatch with its layer and key, without control characters."""
        place = "" if self.layer is None else f"layer {self.layer}, "
        return one_line(f"{place}{self.key}: {self.message}")


@dataclass(frozen=True)
class LoadBackOutcome:
    """The result of the check.

    Attributes:
        checked: whether the check was possible.
        why: the reason if it was not, as a clause.
        model: the class that transformers builds from the config.
        transformers: the version of transformers.
        mismatches: errors first, in the order of the layers.
    """

    checked: bool
    why: str = ""
    model: str = ""
    transformers: str = ""
    mismatches: tuple[Mismatch, ...] = field(default=())

    @property
    def errors(self) -> tuple[Mismatch, ...]:
        """The mismatches that make the output wrong."""
        return tuple(item for item in self.mismatches if item.severity == "error")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user about an output that is kept in spite of them."""
        found = [item.sentence() + "." for item in self.mismatches if item.severity != "error"]
        return tuple(found) if self.checked else (f"{_NOT_MADE}: {one_line(self.why)}.",)

    def dumps(self) -> str:
        """The outcome as JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def loads(cls, text: str) -> LoadBackOutcome:
        """The outcome from JSON; ValueError, TypeError or KeyError for anything else."""
        values = parse(text)
        return cls(**{**values, "mismatches": tuple(Mismatch(**item) for item in values["mismatches"])})


def expectation(plan: Plan) -> Expectation:
    """The model that transformers should build from a plan's output."""
    sources = [layer.sources[0] for layer in plan.layers]
    used = {letter for letter, _ in sources} | {plan.config_donor}
    configs = {letter: donor.checkpoint.config for letter, donor in plan.donors.items() if letter in used}
    return {
        "tensors": {tensor.name: [tensor.dtype, list(tensor.shape)] for tensor in plan.tensors},
        "layers": [
            {"attributes": dict(layer.attributes), "donor": letter, "layer": index}
            for layer, (letter, index) in zip(plan.layers, sources, strict=True)
        ],
        "donors": {letter: config.raw for letter, config in configs.items() if config},
        "base": plan.config_donor,
        "tied": plan.tied,
        "beside": [tensor.name for tensor in plan.extra],
    }


def expectation_of(checkpoint: Checkpoint) -> Expectation:
    """The model that transformers should build from a checkpoint without a plan."""
    config = checkpoint.config
    rows: list[dict[str, Any]] | None = None
    # For an unknown family surgeon only guesses the layers' attributes, which proves nothing.
    if config is not None and config.family is not None and checkpoint.naming is not None:
        rows = [{"attributes": dict(layer.attributes)} for layer in checkpoint.layers]
    return {
        "tensors": tensors_of(checkpoint),
        "layers": rows,
        "donors": {},
        "base": None,
        "tied": checkpoint.tied,
        "beside": list(checkpoint.other),
    }


def tensors_of(checkpoint: Checkpoint) -> dict[str, list[Any]]:
    """The `tensors` of an expectation: the tensors on disk."""
    return {name: [entry.dtype, list(entry.shape)] for name, entry in checkpoint.tensors.items()}


class LoadBack:
    """Context manager of the child process: starts it, and ends it in any case."""

    def __init__(self, config: Mapping[str, Any], expected: Expectation) -> None:
        """Args: config: the config.json to check. expected: see `Expectation`."""
        self._config, self._expected = config, expected
        self._process: subprocess.Popen[bytes] | None = None
        self._problem = ""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> LoadBack:
        try:
            folder = tempfile.TemporaryDirectory(prefix="surgeon-check-", ignore_cleanup_errors=True)
            self._start(Path(self._stack.enter_context(folder)))
        except (OSError, ValueError) as error:
            self._problem = f"its process could not be started ({error})"
        return self

    def _start(self, folder: Path) -> None:
        (folder / CONFIG).write_text(json.dumps(self._config), encoding="utf-8")
        (folder / EXPECTED).write_text(json.dumps(self._expected, default=str), encoding="utf-8")
        self._answer: IO[bytes] = self._stack.enter_context((folder / "answer.json").open("w+b"))
        self._log: IO[bytes] = self._stack.enter_context((folder / "log.txt").open("w+b"))
        # An empty working directory prevents imports of the user's files. An own session keeps Ctrl-C from the child;
        # this process ends it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(folder), "--expect", str(folder / EXPECTED)],
            stdin=subprocess.DEVNULL,
            stdout=self._answer,
            stderr=self._log,
            cwd=folder,
            env=_environment(),
            start_new_session=True,
        )

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._stack.close()

    def outcome(self, pause: Callable[[], None] = lambda: None) -> LoadBackOutcome:
        """Wait for the answer. Raises only what `pause` raises, which is called many times per second."""
        if self._process is None:
            return LoadBackOutcome(False, self._problem)
        end = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            pause()
            if time.monotonic() > end:
                return LoadBackOutcome(False, f"its process did not answer within {PATIENCE:.0f} seconds")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_INTERVAL)
        try:
            self._answer.seek(0)
            return LoadBackOutcome.loads(self._answer.read().decode())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return LoadBackOutcome(False, f"its process {self._ending()}")

    def _ending(self) -> str:
        assert self._process is not None
        code = self._process.returncode
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"ended with exit code {code}" + (f" ({last[:300]})" if last else "")


def _environment() -> dict[str, str]:
    """The child's environment: it imports the same surgeon, and torch uses one thread."""
    paths = [str(Path(part).absolute()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(_ROOT)]), "OMP_NUM_THREADS": "1"}


def summary(mismatches: tuple[Mismatch, ...]) -> str:
    """Mismatches as one clause: the first in full, then the layers of the others."""
    first, rest = mismatches[0], mismatches[1:]
    if not rest:
        return first.sentence()
    layers = {item.layer for item in rest if item.layer is not None}
    where = f", in layer {ranges(layers)}" if layers else ""
    return f"{first.sentence()} (and {len(rest)} more{where})"
