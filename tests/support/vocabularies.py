"""Small tokenizers and donors for tests of vocabularies, and readers of tensors in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from surgeon.checkpoint import TensorEntry
from surgeon.checkpoint.tokenizer.tokenizer_identity import read_tokenizer
from surgeon.plan.model import Donor
from surgeon.plan.new_tokenizer import NewTokenizer
from surgeon.plan.operands import Operand, Rows, Stored
from surgeon.recipe.document import parse
from surgeon.recipe.schema import Recipe

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def added(index: int, text: str, **flags: bool) -> dict[str, Any]:
    """An entry of `added_tokens`."""
    return {"id": index, "content": text, **FLAGS, **flags}


def tokenizer_json(
    vocab: Any, *, kind: str = "BPE", merges: Sequence[Any] = (), added: Iterable[Mapping[str, Any]] = (), **model: Any
) -> dict[str, Any]:
    """A tokenizer.json that the tokenizers library loads."""
    body: dict[str, Any] = {"type": kind, "vocab": vocab, **model}
    if kind == "BPE":
        body["merges"] = list(merges)
    elif kind == "Unigram":
        body.setdefault("unk_id", 0)
    else:
        body.setdefault("unk_token", "<unk>")
    if kind == "WordPiece":
        body |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    split = {"type": "WhitespaceSplit"}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": list(added), "normalizer": None,
        "pre_tokenizer": split, "post_processor": None, "decoder": None, "model": body,
    }  # fmt: skip


def write(folder: Path, document: Any, settings: Mapping[str, Any] | None = None) -> Path:
    """A folder with that tokenizer.json, and a tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def put_files(files: NewTokenizer, folder: Path) -> Path:
    """The tokenizer files of an output, in a folder."""
    from surgeon.assemble.files.tokenizer_files import written

    folder.mkdir(exist_ok=True)
    made = written(files)
    assert set(made) == set(files.made) and not set(made) & set(files.copied)
    for name, contents in made.items():
        (folder / name).write_bytes(contents)
    for name, path in files.copied.items():
        (folder / name).write_bytes(path.read_bytes())
    return folder


def entry(name: str, rows: int, width: int = 3) -> TensorEntry:
    """A table that is on no disk."""
    return TensorEntry(name, "F32", (rows, width), Path(name), 0, rows * width * 4)


def donor(letter: str, folder: Path, rows: int, width: int = 3) -> Donor:
    """A donor as far as its vocabulary and its embedding go; its reference is `./` and its letter in lower case."""
    made = SimpleNamespace(
        token_embedding=entry(letter, rows, width), tokenizer=read_tokenizer(folder, {}), folder=folder
    )
    return Donor(letter, f"./{letter.lower()}", made)  # type: ignore[arg-type]


def recipe(text: str) -> Recipe:
    """A recipe with these keys."""
    return parse(f"merge_method: linear\nmodels: []\n{text}\n").recipe


def tables(donors: Iterable[Donor]) -> dict[str, Operand]:
    """The embedding of every donor."""
    return {one.letter: Stored(one.checkpoint.token_embedding) for one in donors if one.checkpoint.token_embedding}


class Memory:
    """Reads a tensor in memory, and counts how."""

    def __init__(self, values: Any) -> None:
        self.values, self.shape, self.numel = values, tuple(values.shape), values.numel()
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, out: Any) -> None:
        """Fill `out` with the elements from `start` on."""
        assert 0 <= start <= start + out.numel() <= self.numel
        self.reads.append((start, out.numel()))
        out.copy_(self.values.reshape(-1)[start : start + out.numel()])


def evaluated(operand: Operand, values: Mapping[str, Any]) -> Any:
    """An operand of tables in memory (by the name of their entry) as a tensor, float32."""
    import torch

    from surgeon.assemble.compute.token_rows_reader import RowsReader

    def reader(part: Operand) -> Any:
        if isinstance(part, Rows):
            return RowsReader(part, [reader(inner) for inner in part.parts])
        assert isinstance(part, Stored)
        return Memory(values[part.entry.name][: part.shape[0]].float())

    made = reader(operand)
    out = torch.full((made.numel,), float("nan"))
    made.read(0, out)
    return out.view(made.shape)
