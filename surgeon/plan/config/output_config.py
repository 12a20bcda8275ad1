"""The output's config.json: every attribute of a layer follows its layer.

One rule holds for all families: resolve the attributes of each donor's layers, gather them in the output's order, write
them explicitly where the config would give others, and resolve the result again. An attribute that still differs cannot
be represented; this is an error, so that no wrong config is written.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...checkpoint import Checkpoint
from ...checkpoint.families.model_config import ATTENTION_NAMES, DEPTH_KEYS, ModelConfig, layer_attributes
from ...checkpoint.families.type_rules import (
    DEPTHS,
    FILLED,
    LAST_IS_FULL,
    NEEDED,
    UNTIED,
    rules,
    write_rules,
)
from ...text import one_line, plural, ranges
from ..findings import Finding
from . import quantised
from .layer_bound_keys import MTP_COUNTS, MTP_LISTS, depth_bound, end_bound, layer_bound, shares_weights
from .layer_lists import KEEP, SourceLayer, borrowed, cannot, gather_indices, gather_lists, gather_table, gather_values

_NOT_OF_LAYERS = frozenset({
    "architectures", "vocab_size", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings",
})  # fmt: skip
ORIGINS = ("name_or_path", "_name_or_path", "tokenizer_file", "special_tokens_map_file", "vocab_file", "merges_file")
"""Keys in which libraries record the path or repository that they read a file from."""

_PERIODS = ("sliding_window_pattern", "_sliding_window_pattern")
_LONG_NAMES = {short: long for long, short in ATTENTION_NAMES.items()}

_NAMES = {"attention": "attention kind", "window": "sliding window", "rope": "rope", "mlp": "kind of MLP"}

Row = dict[str, Any]


def output_config(
    template: Checkpoint,
    layers: Sequence[SourceLayer],
    *,
    tied: bool,
    dtype: str | None,
    vocab_size: int | None,
) -> tuple[dict[str, Any], list[Finding]]:
    """The config of a model made of `layers`, and findings about what it cannot express.

    Args:
        template: the donor of all global settings.
        layers: for each output layer its donor and its index in the donor.
        tied: whether the head is the embedding.
        dtype: torch's name of the dtype that most of the output has; None keeps the template's.
        vocab_size: number of rows of the output's embedding; None keeps the template's.
    """
    assert template.config is not None
    config = ModelConfig.of(copy.deepcopy(template.config.raw))
    _set_depth(config, template.depth, len(layers))
    _set_globals(config, template, tied, dtype, vocab_size)
    findings = list(_unknown_keys(template, layers))
    if tied and config.model_type in UNTIED:
        why = f"a {config.model_type} always has a separate head, whatever the config says"
        findings.append(cannot("a head that is the embedding", why, remedy="remove `tie` from the recipe"))
    findings += quantised.reindex(config, template, layers, in_place(layers))
    gather_lists(config, layers)
    findings += [*borrowed(config.text), *gather_values(config.text, layers)]
    if not in_place(layers):
        findings += [*gather_table(config.text, layers), *gather_indices(config.text, layers)]
    wanted, notes = _wanted(config, template, layers)
    findings += notes
    if not in_place(layers):
        findings += _drop_predictors(config.text)
        findings += _rescale(config, layers)
    by_attribute = {key: [row.get(key) for row in wanted] for key in _NAMES}
    if not in_place(layers) or any(_now(config, len(wanted), key) != values for key, values in by_attribute.items()):
        write_rules(config.model_type, config.text, by_attribute)
    for write in (_write_attention, _write_rope, _write_mlp):
        write(config, wanted)
    if "layer_types" in config.text and config.text["layer_types"] != template.config.text.get("layer_types"):
        for key in _PERIODS:
            config.text.pop(key, None)
    findings += _differences(config, wanted, known=not (in_place(layers) and _same_configs(layers)))
    return config.raw, findings


def _set_depth(config: ModelConfig, old: int, new: int) -> None:
    own = DEPTHS.get(config.model_type)
    another = own is not None and own.runs is None
    # Some configs state the depth under two names, or both outside and inside a nested text config.
    for level in (config.raw, config.text):
        for key in () if another else DEPTH_KEYS:
            if type(level.get(key)) is int and level[key] == old:
                level[key] = new
    if config.depth != new:
        config.text[config.depth_key or DEPTH_KEYS[0]] = new
    if own and own.runs and config.depth_key == own.key and "num_hidden_layers" in config.text:
        config.text["num_hidden_layers"] = new * own.runs(config.text)


def _set_globals(
    config: ModelConfig, template: Checkpoint, tied: bool, dtype: str | None, vocab_size: int | None
) -> None:
    raw, text = config.raw, config.text
    for level in (raw, text):
        # The donor's original path does not apply to the output, and may contain a user name.
        for key in ORIGINS:
            if is_local(level.get(key)):
                del level[key]
    # Written only if it differs from what transformers would read, to change the author's config as little as possible.
    if tied != config.tied or (tied != template.tied and not config.says_tied):
        for level in (raw, text):
            level.pop("tie_word_embeddings", None)
        raw["tie_word_embeddings"] = tied
        if config.nest:
            text["tie_word_embeddings"] = tied
    if dtype is not None:
        keys = [(level, key) for level in (raw, text) for key in ("dtype", "torch_dtype") if key in level]
        for level, key in keys or [(raw, "torch_dtype")]:
            level[key] = dtype
    if vocab_size is not None and (old := config.vocab_size) not in (None, vocab_size):
        for level in [level for level in (raw, text) if level.get("vocab_size") == old] or [text]:
            level["vocab_size"] = vocab_size


def is_local(origin: object) -> bool:
    """Whether a value is a path on a machine instead of an id of the Hub."""
    return isinstance(origin, str) and bool(re.match(r"[/~\\.]|[A-Za-z]:", origin))


def in_place(layers: Sequence[SourceLayer]) -> bool:
    """Whether every layer keeps its index, in a stack as deep as its donor."""
    return all(index == position and donor.depth == len(layers) for position, (donor, index) in enumerate(layers))


def _unknown_keys(template: Checkpoint, layers: Sequence[SourceLayer]) -> Iterator[Finding]:
    """Errors for settings that depend on a layer's index and cannot be moved, if layers move or donors differ."""
    assert template.config is not None
    still, base = in_place(layers), template.config
    why = depth_bound(base) or end_bound(base, template.depth, [index for _, index in layers])
    if not still and why:
        yield cannot(f"layers of {one_line(base.model_type)} at other indices", why)
    if len({id(donor) for donor, _ in layers}) > 1 and shares_weights(base):
        yield cannot("layers of several donors", f"{depth_bound(base)}, and stored once")
    donors = {id(donor): donor for donor in (template, *(donor for donor, _ in layers))}
    reported: set[str] = set()
    for donor in donors.values():
        assert donor.config is not None
        own, theirs = donor.config.text, base.text
        for key, why in [*layer_bound(donor.config, donor.depth), *layer_bound(base, template.depth)]:
            # A key that is equal in every donor stays correct while no layer moves.
            if key not in reported and not (still and own.get(key) == theirs.get(key)):
                reported.add(key)
                remedy = KEEP
                if donor.config.text.get(key) is None and key in FILLED:
                    remedy = (
                        f"write the list `{one_line(key)}`, {plural(donor.depth, 'layer')} long, into a copy of the "
                        "donor's config.json, as transformers does: AutoConfig.from_pretrained('DONOR')"
                        ".save_pretrained('COPY'); or " + KEEP
                    )
                yield cannot(f"the meaning of `{one_line(key)}` for each layer", why, remedy=remedy)


def _drop_predictors(text: dict[str, Any]) -> Iterator[Finding]:
    """Remove the layers for multi-token prediction from the config, because the output does not have them."""
    counted = [key for key in MTP_COUNTS if type(text.get(key)) is int and text[key] > 0]
    for key in counted:
        text[key] = 0
    for key in MTP_LISTS:
        text.pop(key, None)
    if counted:
        yield Finding(
            "note",
            "mtp",
            f"The layers for multi-token prediction are left out, and {counted[0]} becomes 0",
            "they follow the last layer and were trained for the donor's own stack",
        )


def _rescale(config: ModelConfig, layers: Sequence[SourceLayer]) -> Iterator[Finding]:
    """Adjust minicpm3's scale_depth: a layer's output is scaled by scale_depth / sqrt(depth), and the depth changes."""
    if config.model_type != "minicpm3":
        return
    scales = {
        value / math.sqrt(donor.depth) if isinstance(value := donor.config.text.get("scale_depth"), (int, float)) else 1
        for donor, _ in layers
        if donor.config
    }
    if len(scales) > 1:
        yield cannot("the residual scale of each layer", "the donors differ in scale_depth / sqrt(depth)")
        return
    (scale,), root = scales, math.sqrt(len(layers))
    near = scale * root
    # The neighbouring floats are tried too, so that the division gives exactly the same number.
    choices = (near, math.nextafter(near, 0.0), math.nextafter(near, math.inf))
    config.text["scale_depth"] = next((choice for choice in choices if choice / root == scale), near)


def _lists_attention(config: ModelConfig) -> bool:
    """Whether the config can state the kind of attention of each layer separately."""
    if any(rule.attribute == "attention" for rule in rules(config.model_type)):
        return True
    return config.family.explicit if config.family else isinstance(config.text.get("layer_types"), list)


def _wanted(
    config: ModelConfig, template: Checkpoint, layers: Sequence[SourceLayer]
) -> tuple[list[Row], list[Finding]]:
    """The attributes that each output layer needs, and findings where a family's single setting overrides them."""
    rows = [dict(donor.layers[index].attributes) for donor, index in layers]
    findings: list[Finding] = []
    own = {row.get("attention") for row in (layer.attributes for layer in template.layers)}
    if not _lists_attention(config) and len(own) == 1:
        (kind,) = own
        other = [index for index, row in enumerate(rows) if row["attention"] != kind]
        if other and all(_uniform(donor) for donor, _ in layers):
            findings.append(_one_window(template, tuple(other), str(kind)))
            rows = [{**row, "attention": kind, "window": template.config and template.config.window} for row in rows]
            rows = rows if kind == "sliding" else [{k: v for k, v in row.items() if k != "window"} for row in rows]
    sliding = [index for index, row in enumerate(rows) if row["attention"] == "sliding"]
    theirs = next((rows[index]["window"] for index in sliding if rows[index].get("window")), None)
    window = (template.config.window if template.config else None) or theirs
    other = [index for index in sliding if rows[index].get("window") != window]
    if other:
        findings.append(_one_window(template, tuple(other), f"sliding with a window of {window}"))
    for index in sliding:
        rows[index]["window"] = window
    return rows, findings


def _uniform(donor: Checkpoint) -> bool:
    return len({layer.attributes.get("attention") for layer in donor.layers}) == 1


def _one_window(template: Checkpoint, layers: tuple[int, ...], result: str) -> Finding:
    kind = one_line(template.config.model_type if template.config else "")
    return Finding(
        "warning",
        "setting",
        f"Layer {ranges(layers)} had another sliding window in its donor: in the output its attention is {result}",
        f"a {kind} config has one window for all layers, and the base model's is written",
        "set base_model to the donor whose window the output needs, or use donors with the same window",
        layers,
    )


def _now(config: ModelConfig, depth: int, attribute: str) -> list[Any]:
    return [row.get(attribute) for row in layer_attributes(config, depth)]


def _write_attention(config: ModelConfig, wanted: Sequence[Row]) -> None:
    kinds = [row["attention"] for row in wanted]
    text = config.text
    window = next((row["window"] for row in wanted if row["attention"] == "sliding"), None)
    if window and _lists_attention(config) and config.window != window:
        text["sliding_window"] = window
        if config.family and config.family.switch:
            text["use_sliding_window"] = True
    if _lists_attention(config) and _now(config, len(kinds), "attention") != kinds and None not in kinds:
        text["layer_types"] = [_LONG_NAMES.get(kind, kind) for kind in kinds]


def _write_rope(config: ModelConfig, wanted: Sequence[Row]) -> None:
    rope = [row.get("rope") for row in wanted]
    if None not in rope and _now(config, len(rope), "rope") != rope:
        config.text["no_rope_layers"] = [int(bool(value)) for value in rope]


def _write_mlp(config: ModelConfig, wanted: Sequence[Row]) -> None:
    kinds = [row["mlp"] for row in wanted]
    if _now(config, len(kinds), "mlp") == kinds:
        return
    dense = [index for index, kind in enumerate(kinds) if kind == "dense"]
    if "mlp_only_layers" in config.text or "decoder_sparse_step" in config.text:
        config.text["decoder_sparse_step"] = 1
        config.text["mlp_only_layers"] = dense
    elif "first_k_dense_replace" in config.text and dense == list(range(len(dense))):
        config.text["first_k_dense_replace"] = len(dense)


def _same_configs(layers: Sequence[SourceLayer]) -> bool:
    """Whether the donors' configs are equal in all keys that may concern layers."""
    configs = {id(donor): donor.config for donor, _ in layers}.values()
    kept = [{k: v for k, v in c.text.items() if k not in _NOT_OF_LAYERS} for c in configs if c is not None]
    return all(other == kept[0] for other in kept)


def _differences(config: ModelConfig, wanted: Sequence[Mapping[str, Any]], *, known: bool) -> Iterator[Finding]:
    """Errors for layers whose attributes by the config differ from `wanted`; with `known` a None is an error too."""
    got = layer_attributes(config, len(wanted))
    present = {row["attention"] for row in wanted}
    if lacking := [kind for kind in NEEDED.get(config.model_type, ()) if kind not in present]:
        why = f"{config.model_type} needs a layer of each kind"
        yield cannot(f"a stack without a layer of {lacking[0]} attention", why)
    if config.model_type in LAST_IS_FULL and wanted[-1]["attention"] != "full":
        why = f"the last layer of {config.model_type} always has full attention, whatever the config says"
        yield cannot(f"a last layer with {one_line(wanted[-1]['attention'])} attention", why, (len(wanted) - 1,))
    for attribute, name in _NAMES.items():
        wrong = [
            index
            for index, (have, want) in enumerate(zip(got, wanted, strict=True))
            if have.get(attribute) != want.get(attribute) or (known and attribute in want and want[attribute] is None)
        ]
        if wrong:
            first = wrong[0]
            yield cannot(
                f"the {name} of layer {ranges(wrong)}",
                f"layer {first} needs {one_line(wanted[first].get(attribute))}, but the config gives it "
                f"{one_line(got[first].get(attribute))}",
                tuple(wrong),
            )
