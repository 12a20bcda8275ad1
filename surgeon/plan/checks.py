"""What a recipe says wrong by itself: keys, ranges, donors, methods. Each check yields findings and decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..errors import InputError
from ..recipe import stack
from ..recipe.document import Document
from ..recipe.schema import Slice, Source
from ..text import nearest, one_line, plural
from .types import Donor, Finding, PlannedTensor

PASSTHROUGH_PARAMETERS = ("scale",)
_OTHER_PARAMETERS = (
    "weight", "density", "normalize", "lambda", "t", "int8_mask", "rescale", "gamma", "epsilon", "filter_wise",
    "nuslerp_flatten", "nuslerp_row_wise", "max_iter", "tol", "select_topk", "eps",
)  # fmt: skip
_UNSUPPORTED = {
    "modules": "recipes per module are not supported",
    "first_layers": "edge policies are not supported",
    "last_layers": "edge policies are not supported",
    "tokenizer": "building a tokenizer is not supported",
    "chat_template": "setting a chat template is not supported",
}


def keys(document: Document) -> Iterator[Finding]:
    """Keys that no recipe has."""
    for problem in document.key_problems:
        yield Finding(
            "error",
            "unknown-key",
            f"The key `{one_line(problem.key)}` is not known",
            "it would have no effect",
            f"did you mean `{problem.suggestion}`" if problem.suggestion else "take it out",
            line=problem.line,
        )


def unsupported(document: Document) -> Iterator[Finding]:
    """Keys of mergekit or of the format that this version cannot carry out."""
    recipe = document.recipe
    for key, why in _UNSUPPORTED.items():
        if getattr(recipe, key) is not None:
            yield Finding(
                "error",
                "unsupported",
                f"`{key}` cannot be carried out",
                why,
                "take it out",
                line=document.line(key),
            )
    source = recipe.tokenizer_source
    if source is not None and source not in {"base", recipe.base_model}:
        yield Finding(
            "error",
            "unsupported",
            f"tokenizer_source {one_line(source)!r} cannot be carried out",
            "tokenizers are not merged; the tokenizer comes from base_model",
            "take it out, or set it to `base`",
            line=document.line("tokenizer_source"),
        )
    if not recipe.slices and not recipe.models:
        yield Finding(
            "error",
            "empty",
            "The recipe takes no layers",
            "it has neither slices nor models with an entry",
            "insert some, such as `insert A:0-15`",
        )


def donors(document: Document, failed: Mapping[str, InputError], names: Mapping[str, str]) -> Iterator[Finding]:
    """Donors that cannot be opened, at the line that names them first."""
    for ref, error in failed.items():
        yield Finding(
            "error",
            "donor",
            f"Donor {names[ref]} cannot be opened: {error.sentence().rstrip('.')}",
            line=_line_of(document, ref),
        )


def _line_of(document: Document, ref: str) -> int | None:
    for number, line in enumerate(document.text.splitlines(), 1):
        if ref in line.split("#", 1)[0]:
            return number
    return None


def unspliceable(all_donors: Iterable[Donor]) -> bool:
    """Whether any donor cannot give layers at all."""
    return any(donor.checkpoint.problems for donor in all_donors)


def spliceable(all_donors: Iterable[Donor]) -> Iterator[Finding]:
    """Why donors cannot give layers."""
    for donor in all_donors:
        for problem in donor.checkpoint.problems:
            yield Finding(
                "error",
                "not-spliceable",
                f"{donor.letter} ({one_line(donor.ref)}) cannot be spliced",
                problem,
                "it can still be looked at with `surgeon inspect`",
            )


def slices(
    document: Document, parts: Sequence[Slice], by_ref: Mapping[str, Donor], names: Mapping[str, str]
) -> Iterator[Finding]:
    """Methods, ranges and parameters of every slice."""
    first = 0
    for number, part in enumerate(parts):
        count = stack.length(part)
        here = tuple(range(first, first + count))
        line = document.line("slices", number)
        yield from _method(document, part, number, here)
        for source in part.sources:
            if source.model in by_ref:
                yield from _range(source, by_ref[source.model], names[source.model], here, line)
        lengths = {span[1] - span[0] for span in map(stack.span, part.sources)}
        if len(lengths) > 1:
            yield Finding(
                "error",
                "slice-lengths",
                "The sources of a slice have different numbers of layers",
                "they are combined layer by layer",
                "give them ranges of the same length",
                here,
                line,
            )
        first += count
    yield from _parameters(document, parts)


def _method(document: Document, part: Slice, number: int, here: tuple[int, ...]) -> Iterator[Finding]:
    method = part.merge_method or document.recipe.merge_method
    line = document.line("slices", number)
    models = [source.model for source in part.sources]
    twice = sorted({model for model in models if models.count(model) > 1})
    if twice:
        yield Finding(
            "error",
            "model-twice",
            f"A slice names {one_line(twice[0])} twice",
            "a source is known by its model, so only one of the two would be used",
            "put the second range into a slice of its own",
            here,
            line,
        )
    if method != "passthrough":
        yield Finding(
            "error",
            "method",
            f"The method {one_line(method)!r} cannot be carried out",
            "this version copies layers (passthrough) and does not blend them",
            "use passthrough with one source a slice",
            here,
            document.line("slices", number, "merge_method") or document.line("merge_method"),
        )
    elif len(part.sources) > 1:
        yield Finding(
            "error",
            "sources",
            f"A slice of passthrough has {len(part.sources)} sources",
            "copying takes each layer from exactly one donor",
            "give each range a slice of its own",
            here,
            line,
        )


def _range(source: Source, donor: Donor, letter: str, here: tuple[int, ...], line: int | None) -> Iterator[Finding]:
    start, stop = stack.span(source)
    depth = donor.checkpoint.depth
    shown = f"[{start}, {stop}) of {letter}"
    if start > stop:
        yield Finding(
            "error",
            "range-backwards",
            f"The layer range {shown} runs backwards",
            "a range is [first, last + 1)",
            f"write [{stop}, {start}], or use `reverse` for the opposite order",
            here,
            line,
        )
    elif start == stop:
        yield Finding(
            "error",
            "range-empty",
            f"The layer range {shown} is empty",
            "a range is half-open: [3, 3] holds no layer, [3, 4] holds layer 3",
            "write its end one higher, or set embeddings, final_norm or lm_head if an end's donor was meant",
            here,
            line,
        )
    elif start < 0 or stop > depth:
        outside = tuple(index for index, layer in zip(here, range(start, stop), strict=False) if not 0 <= layer < depth)
        yield Finding(
            "error",
            "layer-range",
            f"The layer range {shown} is out of range",
            f"{letter} ({one_line(donor.ref)}) has {plural(depth, 'layer')}: 0-{depth - 1}",
            f"end it at {depth}" if stop > depth > start else "",
            outside,
            line,
        )


def _parameters(document: Document, parts: Sequence[Slice]) -> Iterator[Finding]:
    """Parameters that copying does not have: a typing mistake is an error, another method's a warning."""
    recipe = document.recipe
    places: list[tuple[Mapping[str, object], int | None]] = []
    if recipe.merge_method == "passthrough":
        places.append((recipe.parameters, document.line("parameters")))
    for number, part in enumerate(parts):
        if (part.merge_method or recipe.merge_method) != "passthrough":
            continue
        places.append((part.parameters, document.line("slices", number, "parameters")))
        for index, source in enumerate(part.sources):
            places.append((source.parameters, document.line("slices", number, "sources", index, "parameters")))
    for table, line in places:
        for name in table:
            if name in PASSTHROUGH_PARAMETERS:
                continue
            guess = nearest(name, PASSTHROUGH_PARAMETERS)
            known = name in _OTHER_PARAMETERS
            yield Finding(
                "warning" if known else "error",
                "parameter",
                f"passthrough has no parameter `{one_line(name)}`",
                "it has no effect" if known else "it is not known",
                f"did you mean `{guess}`" if guess else "take it out",
                line=line,
            )


def base(document: Document, template: Donor, all_donors: Iterable[Donor]) -> Iterator[Finding]:
    """Whose config and tokenizer the output gets, when the recipe leaves it open."""
    if document.recipe.base_model is None and len(list(all_donors)) > 1:
        yield Finding(
            "note",
            "base",
            f"Config, tokenizer and generation config come from {template.letter} ({one_line(template.ref)})",
            "no base_model is set, and it is the donor of the first slice",
            "set base_model to choose another",
        )


def outside(template: Donor, all_donors: Iterable[Donor]) -> Iterator[Finding]:
    """Tensors outside layers and ends, and what donors warn of."""
    if template.checkpoint.other:
        names = list(template.checkpoint.other)
        yield Finding(
            "note",
            "other-tensors",
            f"{plural(len(names), 'tensor')} outside the layers {'comes' if len(names) == 1 else 'come'} "
            f"unchanged from {template.letter}",
            f"for instance {one_line(names[0])}",
        )
    for donor in all_donors:
        for warning in donor.checkpoint.warnings:
            yield Finding("warning", "donor-warning", f"{donor.letter} ({one_line(donor.ref)}): {warning}")


def scale(document: Document, tensors: Sequence[PlannedTensor], parts: Sequence[Slice]) -> Iterator[Finding]:
    """Filters of a scale that match no tensor's name at all."""
    names = [tensor.source.entry.name for tensor in tensors]
    known = sorted({piece for name in names for piece in name.split(".") if not piece.isdigit()})
    for table in [document.recipe.parameters] + [t for p in parts for t in (p.parameters, p.sources[0].parameters)]:
        rules = table.get("scale")
        for rule in rules if isinstance(rules, list) else [rules]:
            wanted = rule.get("filter") if isinstance(rule, dict) else None
            ends = ("embed", "norm", "head")
            if wanted and wanted != "*" and not any(str(wanted) in name for name in names):
                if any(part in str(wanted) for part in ends):
                    continue
                guess = nearest(str(wanted), known)
                yield Finding(
                    "warning",
                    "filter",
                    f"The filter {one_line(wanted)!r} matches no tensor of the output's layers",
                    "a filter is a part of a tensor's name",
                    f"did you mean {guess!r}" if guess else "",
                )
