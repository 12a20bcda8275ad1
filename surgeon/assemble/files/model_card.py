"""The model card: a README.md with donors, layers and recipe, which model pages show."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from ...checkpoint.locate import cached_snapshot, looks_like_hub_id
from ...plan.model import Donor, Plan, PlannedLayer
from ...statefile import open_regular, read_bytes
from ...text import number, one_line

_FRONT_MATTER = 64_000
_LICENSE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)[\"']?[ \t]*$", re.MULTILINE)


def card(plan: Plan, name: str, recipe: str) -> str:
    """README.md of a plan's output.

    Args:
        plan: the plan.
        name: the model's name.
        recipe: the recipe's text.
    """
    licenses = {letter: license_of(donor.checkpoint.folder) for letter, donor in plan.donors.items()}
    parts = [
        _front_matter(plan, set(licenses.values())),
        f"# {_cell(name)}",
        f"{len(plan.layers)} layers and {number(plan.estimates.parameters)} parameters, assembled from the layers "
        "below with surgeon. The model was not trained afterwards.",
        *_code(plan),
        "## Donors",
        _table(("", "Model", "Layers", "License", "SHA-256 of config.json"), _donors(plan, licenses)),
        "## Layers",
        _table(("Layers", "From", "Method"), _rows(plan)),
        "## Recipe",
        _fenced(recipe),
    ]
    return "\n\n".join(parts) + "\n"


def _code(plan: Plan) -> Iterator[str]:
    names = [_cell(name) for name in plan.files if name.endswith(".py")]
    if names:
        yield (
            f"The model contains Python code of its donor: {', '.join(names)}. transformers runs it only with "
            "`trust_remote_code=True`; read it first."
        )


def license_of(folder: Path) -> str | None:
    """The license that a checkpoint's model card states; None without one."""
    try:
        with open_regular(folder / "README.md", follow=True) as file:
            text = file.read(_FRONT_MATTER).decode(errors="replace").replace("\r\n", "\n")
    except OSError:
        return None
    block = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    found = _LICENSE.search(block[1]) if block else None
    return found[1] if found else None


def _front_matter(plan: Plan, licenses: set[str | None]) -> str:
    lines = ["library_name: transformers", "tags:", "- merge", "- surgeon"]
    bases = [donor.ref.partition("@")[0] for donor in plan.donors.values() if _from_hub(donor)]
    if bases:
        lines += ["base_model:", *(f"- {json.dumps(base)}" for base in dict.fromkeys(bases))]
    if len(licenses) == 1 and (common := next(iter(licenses))):
        lines.append(f"license: {json.dumps(common)}")
    return "\n".join(["---", *lines, "---"])


def _from_hub(donor: Donor) -> bool:
    """Whether the donor comes from the Hub cache; a relative path such as `models/a` only looks like a Hub id."""
    if not looks_like_hub_id(donor.ref):
        return False
    snapshot = cached_snapshot(donor.ref)
    return snapshot is not None and snapshot.resolve() == donor.checkpoint.path.resolve()


def _donors(plan: Plan, licenses: dict[str, str | None]) -> Iterator[tuple[str, ...]]:
    for letter, donor in plan.donors.items():
        yield letter, donor.ref, str(donor.checkpoint.depth), licenses[letter] or "not stated", _digest(donor)


def _digest(donor: Donor) -> str:
    try:
        config = read_bytes(donor.checkpoint.folder / "config.json", follow=True)
        return hashlib.sha256(config).hexdigest()
    except (OSError, ValueError):
        return ""


def _rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    for run in layer_runs(plan.layers):
        first, last = run[0], run[-1]
        sources = [
            f"{letter} {_span(start, stop)}"
            for (letter, start), (_, stop) in zip(first.sources, last.sources, strict=True)
        ]
        yield _span(first.index, last.index), " ~ ".join(sources), first.method
    for role, end in plan.ends.items():
        yield role.replace("_", " "), end.donor or "", end.how


def layer_runs(layers: Sequence[PlannedLayer]) -> Iterator[list[PlannedLayer]]:
    """Runs of layers that take consecutive layers of the same donors with the same method."""

    def key(item: tuple[int, PlannedLayer]) -> object:
        position, layer = item
        return layer.method, tuple((letter, index - position) for letter, index in layer.sources)

    for _, group in groupby(enumerate(layers), key):
        yield [layer for _, layer in group]


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _cell(text: str) -> str:
    """Text with escapes, so that it cannot break the table or become markup."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"
