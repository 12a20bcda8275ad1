"""How a plan is written: one value that the command line, a job's arguments and the engine share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class AssembleOptions:
    """Options of `assemble`, none of which changes what the model computes but `allow_nonfinite`.

    Attributes:
        shard_size: bytes per weight file; None takes those of the run that is resumed, or 5 GB.
        force: replace what is in the output folder.
        resume: resume what an earlier run has left, if there is any. The bytes are those of one run.
        restart: remove what an earlier run has left.
        workers: how many write, each one part of a file at a time; None takes one per core, or three per GPU. The
            bytes do not depend on it.
        fsync: return only when everything is on the disk; a power loss costs little. Without it, what a resumed run
            finds is read and compared with its hashes.
        check: let transformers, in a child process, resolve the config and match every name and shape with the model
            it makes of it; a difference is an error. It starts before the copying and takes some seconds.
        allow_nonfinite: blend NaN and infinity in donors as they come, instead of refusing them.
        device: where blends are computed: `cpu`, `cuda` (all visible GPUs), `cuda:1`, or `auto`.
        vram: bytes of each GPU's memory to use; None takes most of what is free.
        keep: files that replacing the output must not remove, such as the recipe's own.
    """

    shard_size: int | None = None
    force: bool = False
    resume: bool = False
    restart: bool = False
    workers: int | None = None
    fsync: bool = True
    check: bool = False
    allow_nonfinite: bool = False
    device: str = "cpu"
    vram: int | None = None
    keep: tuple[Path, ...] = ()

    def arguments(self) -> list[str]:
        """These options on a command line of `surgeon assemble`, which checks unless told not to.

        `keep` is left out: a command line names its recipe.
        """
        found: list[str] = []
        for field in fields(self):
            value, name = getattr(self, field.name), field.name.replace("_", "-")
            if field.name == "keep":
                continue
            if field.name in ("fsync", "check"):
                found += [] if value else [f"--no-{name}"]
            elif isinstance(value, bool):
                found += [f"--{name}"] if value else []
            elif value != field.default:
                found += [f"--{name}", str(value)]
        return found
