"""transformers and torch for a probe: offline and quiet, with fitting threads, and with failures as sentences."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import SurgeonError

SMALL = 5_000_000
"""Number of parameters below which a model runs on one thread."""


def transformers() -> Any:
    """The transformers module: offline, without progress bars, and quiet."""
    for name, value in (
        ("HF_HUB_OFFLINE", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(name, value)
    import transformers as module

    module.utils.logging.set_verbosity_error()
    module.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"transformers\.")
    # transformers imports its parts and torch at first use: here, so that later measurements do not include it.
    for part in ("PreTrainedModel", "GenerationMixin", "AutoTokenizer"):
        getattr(module, part)
    return module


@contextmanager
def fitting_threads(parameters: int, device: str) -> Iterator[None]:
    """Context with one thread for a model that is too small for several, else with torch's default.

    On two busy cores a model of 60,000 parameters generates ten times as fast with one thread as with two.
    """
    import torch

    before = torch.get_num_threads()
    small = device == "cpu" and parameters < SMALL
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)


def peak_memory(device: str) -> int | None:
    """Peak memory in bytes: on CUDA the allocated memory of the device, else this process's resident set.

    The resident set includes pages of weights that are mapped from their files. None if unknown.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
        import sys
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def failure(error: Exception) -> SurgeonError:
    """The SurgeonError for an error that a model has raised."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return SurgeonError("out of memory on the device", remedy="use --device cpu, or a shorter text")
    first = (str(error).splitlines() or [""])[0].rstrip(".")
    return SurgeonError("the model failed", why=f"{type(error).__name__}: {first}")
