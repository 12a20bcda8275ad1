"""Models with Python code: copy the files that config.json names in `auto_map`, and never run them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...checkpoint.locate import read_json_object
from ...errors import InputError
from ...text import one_line, plural
from ..findings import Finding
from ..model import Donor

AUTO_MAP = "auto_map"
_SETTINGS = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
_REFERENCE = re.compile(r"(?:(?P<repo>[\w.-]+/[\w.-]+)--)?(?P<module>[A-Za-z_]\w*)\.[A-Za-z_]\w*")
_MODULE = re.compile(r"[A-Za-z_]\w*\.py")
_MOST_FILES = 200
_LARGEST = 5_000_000


@dataclass(frozen=True)
class ModelCode:
    """The code of a donor.

    Attributes:
        files: Python files to copy, by name.
        dropped: whether to remove `auto_map` from the output's config, because its files are missing and transformers
            has the class itself.
        findings: findings about the code.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    dropped: bool = False
    findings: tuple[Finding, ...] = ()


def model_code(donor: Donor) -> ModelCode:
    """The code that belongs to the config of `donor`; empty for a model without code."""
    config = donor.checkpoint.config
    own = list(_modules(config.raw)) if config else []
    others = [module for table in _tables(donor.checkpoint.folder) for module in _modules(table)]
    if not own and not others:
        return ModelCode()
    files = _files(donor.checkpoint.folder)
    missing = sorted({f"{module}.py" for module in (*own, *others)} - files.keys())
    known = config is not None and _is_known(config.model_type)
    dropped = known and any(f"{module}.py" in missing for module in own)
    return ModelCode(files, dropped, tuple(_findings(donor, files, missing, dropped)))


def _modules(table: Mapping[str, Any]) -> Iterator[str]:
    """The modules that an `auto_map` names, except those of other repositories, which are not among the files."""
    auto_map = table.get(AUTO_MAP)
    for value in auto_map.values() if isinstance(auto_map, dict) else ():
        for name in value if isinstance(value, list) else [value]:
            found = _REFERENCE.fullmatch(name) if isinstance(name, str) else None
            if found and not found["repo"]:
                yield found["module"]


def _tables(folder: Path) -> Iterator[Mapping[str, Any]]:
    for name in _SETTINGS:
        if (folder / name).is_file():
            with suppress(InputError):  # Whatever loads the file reports the error.
                yield read_json_object(folder / name)


def _files(folder: Path) -> dict[str, Path]:
    """Every Python file of the folder, because the named modules import others."""
    found = sorted(path for path in folder.glob("*.py") if _MODULE.fullmatch(path.name) and path.is_file())
    return {path.name: path for path in found[:_MOST_FILES] if path.stat().st_size <= _LARGEST}


def _is_known(model_type: str) -> bool:
    """Whether the installed transformers has this model type, by its folder, because an import takes a second."""
    spec = find_spec("transformers")
    places = spec.submodule_search_locations if spec else None
    plain = model_type.replace("-", "_")
    return bool(places and plain.isidentifier() and (Path(next(iter(places))) / "models" / plain).is_dir())


def _findings(donor: Donor, files: Mapping[str, Path], missing: list[str], dropped: bool) -> Iterator[Finding]:
    if files:
        yield Finding(
            "note",
            "model-code",
            f"The model comes with Python code: {plural(len(files), 'file')} of {donor.letter} "
            f"{'is' if len(files) == 1 else 'are'} copied ({_some(files)})",
            "config.json names it in auto_map; surgeon never runs it, and transformers only with trust_remote_code",
        )
    if missing and dropped:
        yield Finding(
            "note",
            "model-code-dropped",
            "auto_map is left out of the output's config.json",
            f"{_some(missing)} {'is' if len(missing) == 1 else 'are'} not in {donor.letter}'s folder, and "
            "transformers has the class itself",
        )
    elif missing:
        yield Finding(
            "warning",
            "model-code-missing",
            f"{_some(missing)} {'is' if len(missing) == 1 else 'are'} not in {donor.letter}'s folder",
            "config.json names it in auto_map, and the output cannot be loaded without it",
            "download the donor again with its Python files",
        )


def _some(names: Mapping[str, Path] | list[str]) -> str:
    shown = list(names)[:3]
    return one_line(", ".join(shown)) + (" and more" if len(names) > len(shown) else "")
