"""Split items and texts into a working half, for choosing between models, and a held-out half, for the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import InputError
from ..probe.probe_set import Probe, ProbeSet

SPLITS = ("held-out", "working", "all")
PASSAGE = 2000
"""Least characters of a passage of a text that is split."""


def group_of(probe: Probe) -> str:
    """Name of the item that a probe is a wording of; a probe without one is its own item."""
    return probe.group if probe.group is not None else f"line {probe.line}"


def split_sets(sets: Sequence[ProbeSet], split: str, limit: int | None = None) -> list[ProbeSet]:
    """One half of each set, or all of it.

    Items alternate between the halves in the order of the file. All wordings of an item are on the same side, and so
    are probes of equal prompts, of any sets: no prompt is in both halves.

    Args:
        split: `held-out`, `working` or `all`.
        limit: most items of each set; None for all.

    Raises:
        InputError: nothing of a set is left.
    """
    side_of_group: dict[str, int] = {}
    side_of_prompt: dict[str, int] = {}
    found = []
    for probes in sets:
        items = _items(probes)
        turn = 0
        chosen: list[list[Probe]] = []
        for name, item in items:
            known = [side_of_prompt[one.prompt] for one in item if one.prompt in side_of_prompt]
            if name is not None and name in side_of_group:
                known.append(side_of_group[name])
            if known:
                side = known[0]
            else:
                side, turn = turn, 1 - turn
            if name is not None:
                side_of_group[name] = side
            side_of_prompt.update((one.prompt, side) for one in item if one.prompt not in side_of_prompt)
            if split == "all" or side == SPLITS.index("working" if split == "working" else "held-out"):
                # Item and prompt may disagree where other sets have used both; a prompt stays where it was first.
                chosen.append([one for one in item if split == "all" or side_of_prompt[one.prompt] == side])
        kept = tuple(one for item in chosen[:limit] for one in item)
        if not kept:
            raise InputError(
                f"the {split} half of the set is empty", where=str(probes.path), remedy="use --all, or a larger set"
            )
        found.append(replace(probes, probes=kept))
    return found


def _items(probes: ProbeSet) -> list[tuple[str | None, list[Probe]]]:
    """(name of the group, its probes), in the order of the file; probes with equal prompts are one item."""
    items: list[tuple[str | None, list[Probe]]] = []
    place: dict[tuple[str, str], int] = {}
    for probe in probes.probes:
        keys = [("prompt", probe.prompt), *([("group", probe.group)] if probe.group is not None else [])]
        known = next((place[key] for key in keys if key in place), None)
        if known is None:
            known = len(items)
            items.append((probe.group, []))
        items[known][1].append(probe)
        for key in keys:
            place.setdefault(key, known)
    return items


def split_text(text: str, split: str) -> list[str]:
    """The text, or the passages of one half of it.

    Passages of at least 2000 characters, which end with a paragraph or line, alternate between the halves; a passage
    that the working half has too is left out of the held-out half.

    Raises:
        InputError: the text is too short to be split.
    """
    if split == "all":
        return [text]
    passages: list[str] = []
    current = ""
    for line in text.splitlines(keepends=True):
        current += line
        if len(current) >= PASSAGE and (not line.strip() or len(current) >= 2 * PASSAGE):
            passages.append(current)
            current = ""
    if current.strip():
        passages.append(current)
    working = passages[1::2]
    found = working if split == "working" else [passage for passage in passages[::2] if passage not in working]
    if len(passages) < 2 or not found:
        raise InputError(
            f"the text is too short to be split: it has fewer than two passages of {PASSAGE} characters",
            remedy="use --all, or a longer text",
        )
    return found
