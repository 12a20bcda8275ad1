"""Chat templates for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.models import tiny_model, tiny_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '|' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Writes the beginning of a text itself, as most published templates do."""


def chat_model(folder: Path, template: str = TEMPLATE, seed: int = 0, layers: int = 3, **config: Any) -> Path:
    """A tiny random model with a tokenizer that has a chat template; returns its folder."""
    tiny_tokenizer(tiny_model(folder, layers=layers, seed=seed, **config))
    (folder / "chat_template.jinja").write_text(template)
    return folder
