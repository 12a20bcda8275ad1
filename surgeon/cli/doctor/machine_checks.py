"""Checks of the machine: Python, torch and its devices, memory, disk, caches."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...files import user_folder
from ...machine import cores, memory
from ...text import one_line, plural, size
from .check import Check

LOW_DISK = 20_000_000_000
LOW_MEMORY = 4_000_000_000
_DEVICES = """
import sys
sys.path = [folder for folder in sys.path if folder]  # no torch.py of the working folder
import json, torch
found = []
if torch.cuda.is_available():
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found.append([about.name, about.total_memory])
if getattr(torch.backends, "mps", None) and torch.backends.mps.is_available():
    found.append(["Apple GPU (mps)", 0])
print(json.dumps([torch.get_num_threads(), found]))
"""


class Devices:
    """torch's devices, listed by a child process: importing torch takes seconds, and a broken driver may hang."""

    def __init__(self, code: str = _DEVICES, timeout: float = 30.0) -> None:
        self._timeout = timeout
        self._child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def answer(self) -> tuple[int, list[tuple[str, int]]] | str:
        """The number of threads and (name, bytes of memory) of each accelerator, or why there is no answer."""
        try:
            out, err = self._child.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
            return f"it did not answer in {self._timeout:.0f} s"
        try:
            threads, found = json.loads(out)
            return int(threads), [(str(name), int(memory)) for name, memory in found]
        except (ValueError, TypeError):
            last = next(iter(reversed(err.strip().splitlines())), "")
            return one_line(last)[:200] or f"it ended with code {self._child.returncode}"


def machine_checks(env: Mapping[str, str], folder: Path, devices: Devices) -> Iterator[Check]:
    """All checks of the machine; `folder` is where models would be written."""
    yield Check("python", "ok", ".".join(map(str, sys.version_info[:3])))
    yield from _folders(env, folder)
    yield _copying(folder)
    yield _memory()
    yield _cpus()
    yield _transformers()
    yield from _torch(devices)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _transformers() -> Check:
    version = _version("transformers")
    if version is None:
        return Check("transformers", "FAIL", "not installed: models cannot be run", "pip install 'transformers>=5'")
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < 5:
        return Check("transformers", "warn", version, "pip install 'transformers>=5'")
    return Check("transformers", "ok", version)


def _torch(devices: Devices) -> Iterator[Check]:
    version = _version("torch")
    answer = devices.answer()
    if version is None:
        yield Check("torch", "FAIL", "not installed: models cannot be blended or run", "pip install torch")
    elif isinstance(answer, str):
        yield Check("torch", "FAIL", f"{version}, but it does not start: {answer}", "reinstall torch, check the driver")
    else:
        threads, found = answer
        yield Check("torch", "ok", f"{version}, {plural(threads, 'thread')}")
        names = [f"{name} ({size(memory)})" if memory else name for name, memory in found]
        yield Check("devices", "ok", one_line(", ".join(names)) or "cpu only")


def _folders(env: Mapping[str, str], folder: Path) -> Iterator[Check]:
    from ...checkpoint.locate import hub_cache

    yield _folder("working folder", folder, enough=LOW_DISK)
    yield _folder("hub cache", hub_cache(), enough=LOW_DISK)
    data = user_folder("data")
    if data is None:
        yield Check("data folder", "warn", "the user has no home", "set XDG_DATA_HOME and XDG_STATE_HOME")
    else:
        yield _folder("data folder", data, enough=100_000_000)


def _folder(name: str, path: Path, *, enough: int) -> Check:
    """The free space where `path` is, or would be created."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    note = "" if there == path else " (does not exist yet)"
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(name, "warn", f"{one_line(path)}: not writable", "use a folder that you can write to")
    free = shutil.disk_usage(there).free
    found = f"{size(free)} free in {one_line(path)}{note}"
    if free < enough:
        return Check(name, "warn", found, f"free some space: a model often needs more than {size(enough)}")
    return Check(name, "ok", found)


def _copying(folder: Path) -> Check:
    """Whether the kernel copies files (copy_file_range), tried with a temporary file of 4 KiB."""
    name = "fast copying"
    if not hasattr(os, "copy_file_range"):
        return Check(name, "ok", "not on this system: files are copied through memory")
    try:
        with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as target:
            source.write(bytes(4096))
            source.flush()
            done = os.copy_file_range(source.fileno(), target.fileno(), 4096, 0, 0)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}:
            return Check(name, "warn", "not tried: the folder is not writable", "use a folder that you can write to")
        return Check(name, "ok", f"not on this file system ({error.strerror}): files are copied through memory")
    return Check(name, "ok", "copy_file_range works here" if done else "copy_file_range copies nothing here")


def _memory() -> Check:
    total, available = memory()
    if total is None:
        return Check("memory", "ok", "unknown")
    found = size(total) + (f", {size(available)} available" if available is not None else "")
    if (total if available is None else available) < LOW_MEMORY:
        return Check("memory", "warn", found, "close other programs: running a model needs memory for its weights")
    return Check("memory", "ok", found)


def _cpus() -> Check:
    count, usable = os.cpu_count(), cores()
    return Check("cpus", "ok", str(usable) if usable == count else f"{usable} of {count}")
