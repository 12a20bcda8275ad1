"""The text output of `surgeon inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..checkpoint import Checkpoint
from ..checkpoint.summary import Attribute, LayerDetail, Summary, layer_detail, summarise, tensor_rows
from ..text import number, one_line, plural, size
from .table import Style, TableRow, cells, pad, table

NONE = "-"
_OTHERS_SHOWN = 3
_LIST_SHOWN = 4


@dataclass(frozen=True)
class Fact:
    """One property of a checkpoint. `key` is the exact value; a row is printed if any of its facts is `notable`."""

    text: str
    key: Any
    notable: bool = True


@dataclass(frozen=True)
class Opened:
    """A checkpoint that could be opened, and its layer for `--layer`."""

    letter: str
    ref: str
    checkpoint: Checkpoint
    layer: LayerDetail | None


def lines(opened: Sequence[Opened], asked: int, layer: int | None, tensors: bool, style: Style) -> Iterator[str]:
    """The whole output: the summary, or the tables of `--layer` and `--tensors`.

    Args:
        opened: the checkpoints that could be opened.
        asked: the number of paths given. If there are several, letters are printed even if only one could be opened.
    """
    if asked > 1:
        for one in opened:
            yield style.bold(f"{one.letter}  {one_line(one.ref)}") + style.dim(_where(one))
        if opened:
            yield ""
    heads = [one.letter for one in opened] if asked > 1 else []
    if layer is not None:
        yield from table(_layer_rows(opened, layer), heads, style)
    if tensors:
        for one in opened:
            if asked > 1 or layer is not None:
                yield ""
            if asked > 1:
                yield style.bold(f"{one.letter}  {one_line(one.ref)}")
            yield from _tensor_lines(one, style)
    if layer is None and not tensors:
        yield from table(_summary_rows(opened, path=asked == 1), heads, style)


def _where(one: Opened) -> str:
    """The folder, if the reference does not contain it."""
    path = str(one.checkpoint.path)
    return "" if path.endswith(one.ref.lstrip("./").rstrip("/")) else f"  {one_line(path)}"


def _summary_rows(opened: Sequence[Opened], *, path: bool) -> list[TableRow]:
    facts = [_facts(summarise(one.checkpoint)) for one in opened]
    rows = [TableRow("path", tuple(str(one.checkpoint.path) for one in opened))] if path and opened else []
    if path and opened and _where(opened[0]):
        rows.insert(0, TableRow("name", (opened[0].ref,)))
    for label in facts[0] if facts else ():
        found = [one[label] for one in facts]
        if any(fact.notable for fact in found):
            rows.append(_row(label, found))
    return rows


def _row(label: str, found: Sequence[Fact]) -> TableRow:
    texts, keys = tuple(fact.text for fact in found), tuple(fact.key for fact in found)
    if len(set(texts)) == 1 and any(key != keys[0] for key in keys) and all(type(key) is int for key in keys):
        texts = tuple(f"{key:,}" for key in keys)  # equal when rounded, but different
    return TableRow(label, texts, keys)


def _facts(s: Summary) -> dict[str, Fact]:
    """The facts by label; every checkpoint has the same labels in the same order."""
    attributes = {attribute.name: attribute for attribute in s.attributes}
    return {
        "what": Fact(s.what or "a decoder", s.what, bool(s.what)),
        "architecture": _architecture(s),
        "layers": _plain(s.layers),
        "hidden size": _plain(s.hidden_size),
        "heads": _plain(s.heads),
        "KV heads": _plain(s.kv_heads),
        "head width": _plain(s.head_dim),
        "intermediate": _plain(s.intermediate_size),
        "experts": _plain(s.experts, notable=bool(s.experts)),
        "vocabulary": _vocabulary(s),
        "context": _plain(s.context),
        "rope": Fact(_rope(s.rope) or "none", dict(s.rope)),
        "attention": _attribute(attributes.get("attention"), "full", "full_attention"),
        "window": _window(attributes.get("window")),
        "rope in layers": _attribute(attributes.get("rope"), True),
        "MLP": _attribute(attributes.get("mlp"), "dense"),
        "tied": Fact("yes" if s.tied else "no", s.tied),
        "dtypes": _dtypes(s.dtypes),
        **_parameters(s),
        "bytes": Fact(size(s.nbytes), s.nbytes),
        "files": _plain(s.files),
        "quantised": Fact(s.quantisation or "no", s.quantisation, bool(s.quantisation)),
        **_tokenizer(s),
        "other tensors": _others(s.other),
        "problems": Fact("; ".join(s.problems) or NONE, s.problems, bool(s.problems)),
        "warnings": Fact("; ".join(s.warnings) or NONE, s.warnings, bool(s.warnings)),
    }


def _plain(value: int | None, *, notable: bool = True) -> Fact:
    return Fact(NONE if value is None else str(value), value, notable)


def _architecture(s: Summary) -> Fact:
    text = f"{s.architecture} ({s.model_type})" if s.architecture and s.model_type else s.architecture or s.model_type
    return Fact(text or "unknown", (s.architecture, s.model_type))


def _vocabulary(s: Summary) -> Fact:
    key = (s.vocabulary, s.embedding_rows)
    stated = NONE if s.vocabulary is None else str(s.vocabulary)
    if s.embedding_rows is None or s.vocabulary == s.embedding_rows:
        return Fact(stated, key)
    return Fact(f"{stated}, embedding {s.embedding_rows} rows", key)


def _attribute(attribute: Attribute | None, *usual: Any) -> Fact:
    if attribute is None:
        return Fact(NONE, None, False)
    return Fact(attribute.text(), attribute, not (attribute.uniform and attribute.runs[0].value in usual))


def _window(attribute: Attribute | None) -> Fact:
    """The size or sizes of the window. The row 'attention' says which layers have one."""
    if attribute is None:
        return Fact(NONE, None, False)
    sizes = list(dict.fromkeys(run.value for run in attribute.runs if run.value is not None))
    return Fact(str(sizes[0]) if len(sizes) == 1 else attribute.text(), sizes)


def _dtypes(dtypes: Mapping[str, int]) -> Fact:
    if len(dtypes) == 1:
        return Fact(next(iter(dtypes)), tuple(dtypes))
    text = ", ".join(f"{dtype} {size(nbytes)}" for dtype, nbytes in dtypes.items())
    return Fact(text, tuple(dtypes.items()))


def _parameters(s: Summary) -> dict[str, Fact]:
    least, most = s.layer_parameters or (0, 0)
    each = number(least) if least == most else f"{number(least)} to {number(most)}"
    if s.tied:
        head = "tied; the stored one is not used" if s.head_parameters else "tied to the embeddings"
    else:
        head = number(s.head_parameters) if s.head_parameters else NONE
    return {
        "parameters": Fact(number(s.parameters), s.parameters),
        "  per layer": Fact(each if s.layer_parameters else NONE, least if least == most else (least, most)),
        "  embeddings": Fact(number(s.embedding_parameters), s.embedding_parameters),
        "  head": Fact(head, (True, s.head_parameters) if s.tied else s.head_parameters),
    }


def _tokenizer(s: Summary) -> dict[str, Fact]:
    tokenizer = s.tokenizer
    if not tokenizer.digest:
        text = "unreadable" if tokenizer.digest is None else "none"
    else:
        text = tokenizer.digest + (f", {plural(tokenizer.tokens, 'token')}" if tokenizer.tokens is not None else "")
    special = {name.removesuffix("_token_id"): value for name, value in tokenizer.special.items()}
    ids = ", ".join(f"{name} {_value(value)}" for name, value in special.items())
    return {"tokenizer": Fact(text, tokenizer.digest), "special ids": Fact(ids or NONE, special, bool(special))}


def _others(names: Sequence[str]) -> Fact:
    shown = ", ".join(names[:_OTHERS_SHOWN]) + (", ..." if len(names) > _OTHERS_SHOWN else "")
    return Fact(f"{len(names)}: {shown}" if names else "0", tuple(names), bool(names))


def _rope(rope: Mapping[str, Any]) -> str:
    if any(isinstance(value, dict) for value in rope.values()):
        return "; ".join(f"{key.removesuffix('_attention')}: {_rope(value)}" for key, value in rope.items())
    words = []
    for key, value in rope.items():
        words.append(str(value) if key == "type" else f"{key.replace('_', ' ')} {_value(value)}")
    return ", ".join(words)


def _value(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list):
        return f"of {len(value)} values" if len(value) > _LIST_SHOWN else " and ".join(map(_value, value))
    return str(value)


def _layer_rows(opened: Sequence[Opened], index: int) -> list[TableRow]:
    details = [one.layer or layer_detail(one.checkpoint, index) for one in opened]
    if not details:
        return []
    rows = [
        TableRow("layer", tuple(f"{index} of {one.checkpoint.depth}" for one in opened), tuple(index for _ in opened)),
        TableRow(
            "parameters", tuple(number(one.parameters) for one in details), tuple(one.parameters for one in details)
        ),
        TableRow("bytes", tuple(size(one.nbytes) for one in details), tuple(one.nbytes for one in details)),
    ]
    for name in dict.fromkeys(name for one in details for name in one.attributes):
        values = tuple(one.attributes.get(name) for one in details)
        rows.append(TableRow("MLP" if name == "mlp" else name, tuple(map(_text, values)), values))
    tensors = [{row.name: row for row in one.tensors} for one in details]
    for name in sorted({name for one in tensors for name in one}):
        texts = [
            f"{row.dtype} {_shape(row.shape)}" + (f"  {size(row.nbytes)}" if len(tensors) == 1 else "")
            if (row := one.get(name))
            else NONE
            for one in tensors
        ]
        rows.append(TableRow(name, tuple(texts)))
    return rows


def _text(value: Any) -> str:
    return {None: NONE, True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _tensor_lines(one: Opened, style: Style) -> Iterator[str]:
    """One line per tensor; on a narrow terminal the file gets its own line."""
    rows = tensor_rows(one.checkpoint)
    columns = [[one_line(row.name), row.dtype, _shape(row.shape), size(row.nbytes)] for row in rows]
    widths = [max(cells(column[index]) for column in columns) for index in range(4)]
    files = [one_line(row.file) for row in rows]
    fits = not style.terminal or sum(widths) + 8 + max(map(cells, files)) <= style.width
    last = ""
    for column, file in zip(columns, files, strict=True):
        if file != last and not fits:
            yield style.bold(file)
        last = file
        name, dtype, shape, nbytes = (pad(text, width) for text, width in zip(column, widths, strict=True))
        yield f"{name}  {dtype}  {shape}  {nbytes}  {file if fits else ''}".rstrip()
