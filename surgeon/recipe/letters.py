"""Letters for donors: A, B, ... Z, then AA, AB, ... in the order in which a recipe first names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def letter(index: int) -> str:
    """The letter of a donor's number: 0 -> A, 25 -> Z, 26 -> AA."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def letters(models: Iterable[str]) -> dict[str, str]:
    """Model reference -> letter, in order, each model once."""
    return {model: letter(index) for index, model in enumerate(dict.fromkeys(models))}


def named(text: str, models: Sequence[str]) -> str | None:
    """The model that `text` means: a model's reference, its letter, or its folder name if that is unique."""
    if text in models:
        return text
    by_letter = {letter: model for model, letter in letters(models).items()}
    if text.upper() in by_letter:
        return by_letter[text.upper()]
    same_name = [model for model in dict.fromkeys(models) if model.rstrip("/").rsplit("/", 1)[-1] == text]
    return same_name[0] if len(same_name) == 1 else None
