"""Render a tokenizer's chat template, which is an untrusted program: in a process with limits on time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..text import one_line, plural, size
from .limited_process import MEMORY, SECONDS, limited

LARGEST = 2_000_000
"""Most bytes of a template's file, and most characters of a rendered text."""
_FILES = ("chat_template.jinja", "chat_template.json")


def check_files(folder: Path) -> None:
    """Raise InputError if a template's file in a tokenizer's folder is too large to be one."""
    for path in (folder / name for name in _FILES):
        with suppress(OSError):
            if path.stat().st_size > LARGEST:
                raise InputError("the file is too large to be a chat template", where=str(path))


def has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer (None for none) has a chat template; of several named ones, one must be the default."""
    found = getattr(tokenizer, "chat_template", None)
    return bool(found.get("default") if isinstance(found, dict) else found)


def render(tokenizer: Any, prompts: Sequence[tuple[str, str | None]]) -> list[str]:
    """The texts that ask a chat model for its answers, by transformers' own `apply_chat_template`.

    A text has all special tokens that the template writes, so it is encoded without the tokenizer's own.

    Args:
        tokenizer: has a template.
        prompts: pairs of a user's message and the system's (None for none).

    Raises:
        InputError: the template fails, or takes too much time or memory.
    """
    chats = [
        [*([{"role": "system", "content": system}] if system is not None else []), {"role": "user", "content": prompt}]
        for prompt, system in prompts
    ]
    answer = limited(lambda: _answer(tokenizer, chats))
    if answer is None:
        raise _failure(f"it takes more than {SECONDS} seconds, or more than {size(MEMORY)} of memory")
    if "error" in answer:
        raise _failure(one_line(answer["error"]))
    texts: list[str] = answer["texts"]
    return texts


def _failure(why: str) -> InputError:
    return InputError("the chat template cannot be applied", why=why, remedy="use --raw, or in Try the key r")


def _answer(tokenizer: Any, chats: Sequence[list[dict[str, str]]]) -> dict[str, Any]:
    """{"texts": [...]}, or {"error": ...}."""
    texts, length = [], 0
    try:
        for chat in chats:
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            if not isinstance(text, str):
                return {"error": "it renders no text"}
            length += len(text)
            if len(text) > LARGEST or length > 10 * LARGEST:
                return {"error": f"it renders {plural(length, 'character')}"}
            texts.append(text)
    except MemoryError:
        return {"error": f"it takes more than {size(MEMORY)} of memory"}
    except Exception as error:
        return {"error": (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__}
    return {"texts": texts}
