"""Options of assembling: one value that the command line, a job's arguments and the engine share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class AssembleOptions:
    """Options of `assemble`. Only `allow_nonfinite` can change what the model computes.

    Attributes:
        shard_size: bytes per weight file; None uses that of the resumed run, or 5 GB.
        force: replace the contents of the output folder.
        resume: resume an unfinished run, if there is one. The output has the same bytes as that of an uninterrupted
            run.
        restart: remove what an unfinished run has written.
        workers: number of workers, each of which writes one part of a file at a time; None uses one per core, or
            three per GPU. The bytes do not depend on it.
        fsync: return only when everything is on the disk, and flush regularly, so that a power loss costs little.
            Without it, a resumed run reads existing tensors and compares them with their hashes.
        check: run the load-back check: transformers resolves the config in a child process, and every name and shape
            is compared with the model that it builds. A difference is an error. The check starts before the copying
            and takes some seconds.
        allow_nonfinite: blend NaN and infinity in donors instead of refusing them.
        device: where blends are computed: `cpu`, `cuda` (all visible GPUs), `cuda:1`, or `auto`.
        vram: bytes of each GPU's memory to use; None uses most of what is free.
        keep: files that replacing the output must not remove, such as the recipe's file.
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
        """These options as arguments of `surgeon assemble`, whose defaults are the same except for `check`.

        `keep` is left out, because the command line names the recipe.
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
