"""Check a recipe's keys, donors, layer ranges and ends. Each check yields findings and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...errors import InputError
from ...methods.catalogue import every
from ...recipe import stack
from ...recipe.document import Document
from ...recipe.schema import ENDS, Slice, Source
from ...recipe.unknown_keys import KeyProblem
from ...text import one_line, plural
from ..findings import Finding
from ..model import Donor

_COMMAND_OPTIONS = frozenset({
    "allow_crimes", "clone_tensors", "copy_tokenizer", "cuda", "gpu_rich", "lazy_unpickle", "lora_merge_cache",
    "low_cpu_memory", "out_shard_size", "random_seed", "trust_remote_code", "write_model_card",
})  # fmt: skip
"""Options of mergekit's command line that published recipes contain by mistake. mergekit ignores them there."""

_UNSUPPORTED = {
    "modules": "recipes per module are not supported",
}


def keys(document: Document) -> Iterator[Finding]:
    """Unknown keys; also a recipe of mergekit-moe, and command line options without effect."""
    if document.key_problems and mixture(document):
        yield Finding(
            "error",
            "mergekit-moe",
            "This is a recipe of mergekit-moe, which makes a mixture of experts out of whole models",
            "it has `experts`, but neither slices nor models to take layers from",
            "write a recipe with `slices` or `models`; see recipes/",
            line=document.line("experts"),
        )
        return
    for problem in document.key_problems:
        if problem.key in _COMMAND_OPTIONS and not problem.table:
            yield Finding(
                "warning",
                "command-option",
                f"`{problem.key}` has no effect in a recipe",
                "it is an option of mergekit's command line",
                "write `seed: ...` to set the random seed" if problem.key == "random_seed" else "remove it",
                line=problem.line,
            )
            continue
        yield Finding(
            "error",
            "unknown-key",
            f"The key `{one_line(problem.key)}` is not known",
            "it would have no effect",
            _key_remedy(problem),
            line=problem.line,
        )


def mixture(document: Document) -> bool:
    """Whether the file is a recipe of mergekit-moe, which asks for a mixture of experts."""
    recipe = document.recipe
    return not recipe.slices and not recipe.models and any(p.key == "experts" for p in document.key_problems)


def _key_remedy(problem: KeyProblem) -> str:
    if problem.suggestion:
        return f"did you mean `{problem.suggestion}`?"
    if any(problem.key in method.parameters for method in every().values()):
        return f"put it under `parameters:`, as `parameters: {{{one_line(problem.key)}: ...}}`"
    return "remove it"


def comments(document: Document) -> Iterator[Finding]:
    """A note that the recipe's comments are published, because they may be private."""
    if next(document.comment_places(), None) is not None:
        yield Finding(
            "note",
            "comments",
            "The recipe's comments will be published with the model",
            "README.md and surgeon_recipe.yaml contain the whole recipe, with absolute paths cut to their last part",
        )


def unsupported(document: Document) -> Iterator[Finding]:
    """Unsupported keys, a dtype without effect, and a recipe without layers."""
    recipe = document.recipe
    for key, why in _UNSUPPORTED.items():
        if getattr(recipe, key) is not None:
            yield Finding(
                "error",
                "unsupported",
                f"`{key}` is not supported",
                why,
                "remove it",
                line=document.line(key),
            )
    if recipe.dtype and recipe.out_dtype and recipe.dtype != recipe.out_dtype:
        yield Finding(
            "note",
            "out-dtype",
            f"Tensors are written as {recipe.out_dtype}, rounded once; dtype {recipe.dtype} has no effect",
            "surgeon computes in float32 and rounds at the end, whereas mergekit rounds to dtype first",
            line=document.line("dtype"),
        )
    if not recipe.slices and not recipe.models and not mixture(document):
        yield Finding(
            "error",
            "empty",
            "The recipe takes no layers",
            "it has no entry in slices or models",
            "insert layers, as with `insert A:0-15`",
        )


def donors(document: Document, failed: Mapping[str, InputError], names: Mapping[str, str]) -> Iterator[Finding]:
    """Donors that cannot be opened, with the line that names each first."""
    for ref, error in failed.items():
        yield Finding(
            "error",
            "donor",
            f"Donor {names[ref]} cannot be opened: {error.sentence().rstrip('.')}",
            line=line_of(document, ref),
        )


def line_of(document: Document, ref: str) -> int | None:
    """The first line of the recipe that names a donor; None if unknown."""
    place = document.donor_places.get(ref)
    return None if place is None else document.line(*place)


def spliceable(document: Document, used: Iterable[Donor]) -> Iterator[Finding]:
    """Donors whose layers cannot be used, and why."""
    for donor in used:
        for problem in donor.checkpoint.problems:
            yield Finding(
                "error",
                "not-spliceable",
                f"{donor.letter} ({one_line(donor.ref)}) cannot be spliced",
                problem,
                "use another donor; `surgeon inspect` shows what this one contains",
                line=line_of(document, donor.ref),
            )


def slices(
    document: Document, parts: Sequence[Slice], by_ref: Mapping[str, Donor], names: Mapping[str, str]
) -> Iterator[Finding]:
    """Check the layer ranges of every slice, and the ends."""
    refs = {source.model for part in parts for source in part.sources}
    unread = any(ref not in by_ref or by_ref[ref].checkpoint.problems for ref in refs)
    if unread and document.recipe.models is not None:
        # The ranges are those of the whole models, which nobody wrote and which are not known.
        yield from _ends(document)
        return
    first = 0
    spans = [(source.model, *stack.span(source)) for part in parts for source in part.sources]
    if spans and all(model in by_ref and start == stop for model, start, stop in spans):
        yield Finding(
            "error",
            "empty",
            "The recipe takes no layers",
            "every layer range in it is empty",
            "give a range that holds some, such as [0, 4]",
        )
    if stack.depth(parts) > stack.MAX_LAYERS:
        yield Finding(
            "error",
            "too-many-layers",
            f"The stack has more than {stack.MAX_LAYERS:,} layers, and only so many are shown",
            "a range is probably mistyped",
            "see the layer ranges",
        )
    for number, part in enumerate(parts):
        count = stack.length(part)
        here = tuple(range(first, min(first + count, stack.MAX_LAYERS)))
        line = document.line("slices", number) or document.line("models")
        for index, source in enumerate(part.sources):
            place = document.line("slices", number, "sources", index, "layer_range")
            outer = number in (0, len(parts) - 1) and len(parts) > 1
            yield from _range(source, by_ref.get(source.model), names[source.model], here, place, outer=outer)
        lengths = {stop - start for start, stop in map(stack.span, part.sources)}
        if len(lengths) > 1 and min(lengths) >= 0:
            yield Finding(
                "error",
                "slice-lengths",
                f"The sources of a slice have different numbers of layers ({', '.join(map(str, sorted(lengths)))})",
                "the sources are combined layer by layer",
                "give all sources of a slice ranges of the same length",
                here,
                line,
            )
        first += count
    yield from _ends(document)


def _range(
    source: Source, donor: Donor | None, letter: str, here: tuple[int, ...], line: int | None, *, outer: bool
) -> Iterator[Finding]:
    """Check one range. `outer`: the slice is the first or the last, whose donor gives the ends."""
    start, stop = stack.span(source)
    shown = f"[{start}, {stop}] of {letter}"
    if start > stop:
        yield Finding(
            "error",
            "range-backwards",
            f"The layer range {shown} runs backwards",
            "a range in a file is half-open, [first, last + 1], and ascending",
            f"write [{stop}, {start}], or use the edit `reverse` for the opposite order",
            here,
            line,
        )
    elif start == stop and outer and donor is not None:
        yield Finding(
            "warning",
            "range-empty",
            f"The layer range {shown} is empty and only determines which donor gives an end",
            "a range in a file is half-open; mergekit's recipes use an empty first or last slice for this purpose",
            "set embeddings, final_norm or lm_head instead",
            here,
            line,
        )
    elif start == stop and (donor is not None or start):
        yield Finding(
            "error",
            "range-empty",
            f"The layer range {shown} is empty",
            f"a range in a file is half-open: [{start}, {start}] holds no layer, [{start}, {start + 1}] holds layer "
            f"{start}",
            "increase its end by one, or set embeddings, final_norm or lm_head to choose the donor of an end",
            here,
            line,
        )
    elif donor is not None and not donor.checkpoint.problems and (start < 0 or stop > donor.checkpoint.depth):
        depth = donor.checkpoint.depth
        lacking = tuple(index for offset, index in enumerate(here) if not 0 <= start + offset < depth)
        low = start if start < 0 else max(start, depth)
        high = stop - 1 if stop > depth else min(stop, 0) - 1
        yield Finding(
            "error",
            "layer-range",
            f"Layer {low} of {letter} does not exist"
            if low == high
            else f"Layers {low} to {high} of {letter} do not exist",
            f"{letter} ({one_line(donor.ref)}) has {plural(depth, 'layer')}, 0-{depth - 1}, and the range is "
            f"[{start}, {stop}] (half-open)",
            f"end it at {depth}" if 0 <= start < depth < stop else f"take layers from 0 to {depth - 1}",
            lacking,
            line,
        )


def _ends(document: Document) -> Iterator[Finding]:
    recipe = document.recipe
    for end in ENDS:
        value = recipe.end(end)
        if value is None or not value.tie:
            continue
        if end != "lm_head":
            yield Finding(
                "error",
                "tie",
                f"`{end}` cannot be tied",
                "only the output head can be the embedding",
                "name a donor, as in `model: ...`",
                line=document.line(end),
            )
        elif value.model:
            yield Finding(
                "error",
                "head-both",
                "lm_head has both a donor and tie: true",
                "a tied head is the embedding and has no donor",
                "remove one of the two",
                line=document.line(end),
            )


def base(document: Document, template: Donor, used: Sequence[Donor]) -> Iterator[Finding]:
    """A note on the donor of config and tokenizer, if the recipe sets no base_model."""
    if document.recipe.base_model is None and len(used) > 1:
        yield Finding(
            "note",
            "base",
            f"Config, tokenizer and generation config come from {template.letter} ({one_line(template.ref)})",
            "no base_model is set, so the first slice's donor gives them",
            "set base_model to choose another donor",
        )


def warnings(used: Iterable[Donor]) -> Iterator[Finding]:
    """The warnings of the donors' checkpoints."""
    for donor in used:
        for warning in donor.checkpoint.warnings:
            yield Finding("warning", "donor-warning", f"{donor.letter} ({one_line(donor.ref)}): {warning}")
