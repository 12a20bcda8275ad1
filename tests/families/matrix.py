"""The matrix of model families and splices: tiny donors, what becomes of each splice, and a check that holds it.

    python -m tests.families            tries every case and tells what came out
    python -m tests.families --table    prints docs/families.md

A splice comes out right when the assembled files load with no name missing and none left over, and their logits are
bit for bit those of the donor's own layers, run in that order in memory.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.families import matrix_composites
from tests.families.matrix_cases import DEPTH, DROP, NAMED, PLAIN, SPLICES
from tests.support.planning import plan_of, stack_of

COMMON: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 64, "sliding_window": 4, "num_hidden_layers": DEPTH,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    # experts
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "shared_intermediate_size": 16,
    "expert_ffn_hidden_size": 16, "intermediate_size_mlp": 48,
    # other names of widths
    "ffn_dim": 48, "ffn_hidden_size": 48, "n_inner": 48, "word_embed_proj_dim": 32, "rotary_dim": 4, "kv_channels": 8,
    "q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 96, "lru_width": 32, "block_size": 4,
    # state spaces and linear attention
    "state_size": 8, "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_conv": 4,
    "mamba_expand": 2, "mamba_dt_rank": 4, "num_heads": 8, "n_groups": 1, "expand": 2, "time_step_rank": 4,
    "mamba_chunk_size": 8, "chunk_size": 8, "conv_kernel": 4, "mamba_num_heads": 8, "mamba_head_dim": 8,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "attention_hidden_size": 64, "attention_head_dim": 16, "n_mamba_heads": 2, "mamba_headdim": 8, "mamba_ngroups": 1,
    "index_n_heads": 2, "index_head_dim": 8, "index_topk": 4,
}  # fmt: skip
"""Sizes under all the names that families have for them; each config takes those it knows."""


@dataclass(frozen=True)
class Case:
    """A donor and what is expected of its splices.

    Attributes:
        kind: model type.
        config: config keys over `COMMON`; None takes a common one away.
        refused: splice (or `blend`, `join`: see `matrix_pairs`) -> words of the finding that refuses it; those not
            named come out right.
    """

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of one splice: `right`, `refused` (with the findings' sentences) or `wrong` (with how)."""

    state: str
    why: str = ""


def make_config(case: Case) -> Any:
    """The transformers config of a case."""
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = SAVED_AS.get(case.kind, case.kind)
    given = {key: value for key, value in case.config.items() if key == "text_config"}
    nested = {
        key: _with_common(CONFIG_MAPPING[value["model_type"]](), value)
        for key, value in given.items()
        if "model_type" in value
    }
    default = CONFIG_MAPPING[kind](**nested)
    nested = {key: _with_common(getattr(default, key), value) for key, value in given.items()} | nested
    merged = {**_with_common(default, case.config), **nested}
    if own := DEPTH_NAMES.get(case.kind):
        merged.pop("num_hidden_layers", None)
        merged.setdefault(own, DEPTH)
    return AutoConfig.for_model(kind, **merged)


SAVED_AS = {"musicgen": "musicgen_decoder", "musicgen_melody": "musicgen_melody_decoder"}
"""Model types whose causal language model has another one in its files."""

CLASSES = {
    "emu3": "AutoModelForImageTextToText", "mllama": "AutoModelForImageTextToText",
    "musicgen_decoder": "MusicgenForCausalLM", "musicgen_melody_decoder": "MusicgenMelodyForCausalLM",
}  # fmt: skip
"""Model types whose files the class for causal language models does not load."""


def _class(config: Mapping[str, Any]) -> Any:
    """What builds and loads the models of a config."""
    import transformers

    whole = config.get("is_encoder_decoder") is True and "decoder_start_token_id" in config
    usual = "AutoModelForSeq2SeqLM" if whole else "AutoModelForCausalLM"
    return getattr(transformers, CLASSES.get(config["model_type"], usual))


DEPTH_NAMES = {"gpt_neo": "num_layers", "dbrx": "n_layers", "longcat_flash": "num_layers"}
"""Model types whose config class takes its depth under another name only."""


def _with_common(default: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Config keys with those of `COMMON` that a config like `default` knows."""
    common = {key: value for key, value in COMMON.items() if key in config or _has(default, key)}
    return {key: value for key, value in {**common, **config}.items() if value is not DROP}


def _has(config: Any, key: str) -> bool:
    try:
        return hasattr(config, key)
    except Exception:
        return False


def make_donor(case: Case, folder: Path, seed: int = 0) -> Path:
    """Save a checkpoint of random weights, no two layers alike, norms, biases and kept buffers included."""
    import torch

    config = make_config(case)
    made = _class({"model_type": config.model_type, **case.config})
    build = getattr(made, "from_config", None) or made._from_config
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in build(copy.deepcopy(config)).parameters())
    assert size < 1_000_000, f"{case.kind} is not tiny: {size:,} parameters"
    model = build(config)
    generator = torch.Generator().manual_seed(seed)
    kept = model.state_dict()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name in kept and tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.15 + (tensor.ndim == 1))
    model.save_pretrained(folder)
    return folder


def load(folder: Path) -> tuple[Any, Any]:
    """The model of a folder in float32 with plain attention, and transformers' loading info."""
    import torch

    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model, info = _class(raw).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    # Copied, because how a file is mapped into memory decides by which instructions some sums are done.
    return copy.deepcopy(model.eval()), info


def logits(model: Any) -> Any:
    """Logits of a sequence that is longer than every window."""
    import torch

    ids = torch.tensor([[3, 17, 5, 80, 41, 9, 64, 23, 7, 55, 31, 90]])
    if model.config.model_type.startswith("musicgen"):
        ids = torch.cat([ids.roll(number) for number in range(model.config.num_codebooks)])
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            return model(input_ids=ids, decoder_input_ids=ids.roll(5), use_cache=False).logits
        return model(input_ids=ids, use_cache=False).logits


def find_stack(model: Any, depth: int) -> tuple[str, Any]:
    """The list of a model's layers, and its path."""
    import torch

    lists = [(path, module) for path, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    return min((item for item in lists if len(item[1]) == depth), key=lambda item: item[0].count("."))


def find_stacks(model: Any, depth: int) -> list[tuple[str, Any]]:
    """The list of a model's layers, with those of the same kind beside it (hrm_text has two), and their paths."""
    import torch

    first, _ = find_stack(model, depth)
    if first.endswith(".attentions"):  # xlm has one list for each part of a layer
        outer = first.rpartition(".")[0]
        parts = model.get_submodule(outer).named_children()
        return [(f"{outer}.{name}", part) for name, part in parts if isinstance(part, torch.nn.ModuleList)]
    name = first.rpartition(".")[2]
    owner = type(model.get_submodule(first.rpartition(".")[0]))
    owners = [path for path, module in model.named_modules() if type(module) is owner]
    paths = [f"{path}.{name}".removeprefix(".") for path in owners]
    return [(path, model.get_submodule(path)) for path in paths if len(model.get_submodule(path)) == depth]


def rearranged(donor: Any, order: Sequence[int]) -> Any:
    """A copy of the donor in memory with its layers in that order: the weights, and whatever is listed by layer."""
    import torch

    model = copy.deepcopy(donor)
    if getattr(model.base_model, "layers_are_rescaled", False):
        # rwkv scales its layers by their places when it first runs, and back when it is trained.
        model.train()
        model.base_model._rescale_layers()
        model.eval()
    for path, stack in find_stacks(model, DEPTH):
        owner = model.get_submodule(path.rpartition(".")[0])
        layers = [copy.deepcopy(stack[index]) for index in order]
        setattr(owner, path.rpartition(".")[2], torch.nn.ModuleList(layers))
        for place, layer in enumerate(layers):
            for module in layer.modules():
                for name in ("layer_idx", "layer_id", "layer_number", "block_idx"):
                    if type(getattr(module, name, None)) is int:
                        setattr(module, name, place)
    holders = [model.config, *(module for module in model.modules() if module.__class__.__module__ != "torch.nn")]
    done: set[int] = set()
    _pin_properties(model, order)
    for holder in [*holders, *(module.config for module in model.modules() if hasattr(module, "config"))]:
        if id(holder) in done:
            continue
        done.add(id(holder))
        for name, value in list(vars(holder).items()):
            if isinstance(value, (list, tuple)) and len(value) == DEPTH and not name.startswith("_"):
                holder.__dict__[name] = [value[index] for index in order]
            elif name == "cross_attention_layers":
                holder.__dict__[name] = [place for place, index in enumerate(order) if index in value]
            elif name in _DEPTHS and value == DEPTH:
                holder.__dict__[name] = len(order)
    return model


_DEPTHS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_blocks",
    "num_layers_per_stack",
    "first_kv_shared_layer_idx",
)


def _pin_properties(model: Any, order: Sequence[int]) -> None:
    """Lists that the config computes from periods and indices say of each layer what they said in the donor."""
    theirs = type(model.config)
    lists: dict[str, Any] = {}
    for name in dir(theirs):
        if isinstance(getattr(theirs, name, None), property):
            value = getattr(model.config, name, None)
            if isinstance(value, list) and len(value) == DEPTH:
                lists[name] = [value[index] for index in order]
    if lists:
        pinned = type(theirs.__name__, (theirs,), {name: property(lambda _, v=v: v) for name, v in lists.items()})  # type: ignore[misc]
        for module in model.modules():
            if type(getattr(module, "config", None)) is theirs:
                module.config.__class__ = pinned


def outcomes(case: Case, folder: Path) -> Iterator[tuple[str, Outcome]]:
    """What becomes of each splice of a case."""
    make_donor(case, folder / "a")
    donor, _ = load(folder / "a")
    for name, ranges in SPLICES.items():
        yield name, _outcome(donor, folder, name, ranges)


def written(folder: Path, name: str, recipe: str) -> tuple[Any, Outcome | None]:
    """The model of a recipe, written and loaded; or why it was refused, or what of it does not load."""
    from tests.support.assembling import assemble

    plan = plan_of(folder, recipe)
    if not plan.ok:
        return None, Outcome("refused", " ".join(f"[{one.code}] {one.sentence()}" for one in plan.errors))
    assemble(plan, folder / name, fsync=False, workers=1)
    try:
        model, info = load(folder / name)
    except Exception as error:
        return None, Outcome("wrong", f"does not load: {type(error).__name__} {error}"[:300])
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[key]:
            return None, Outcome("wrong", f"{key}: {sorted(info[key], key=str)[:3]}")
    return model, None


def _outcome(donor: Any, folder: Path, name: str, ranges: Sequence[tuple[int, int]]) -> Outcome:
    import torch

    model, problem = written(folder, name, stack_of(*(("a", start, stop) for start, stop in ranges)))
    if problem:
        return problem
    plain = logits(donor)
    if not plain.isfinite().all():
        return Outcome("wrong", "the donor's own logits are not finite, which proves nothing")
    wanted = logits(rearranged(donor, [index for start, stop in ranges for index in range(start, stop)]))
    if torch.equal(wanted, plain):
        return Outcome("wrong", "the layers in that order compute the same as before, which proves nothing")
    if not torch.equal(logits(model), wanted):
        return Outcome("wrong", f"the logits differ by {(logits(model) - wanted).abs().max():.2g}")
    return Outcome("right")


CASES: dict[str, Case] = {kind: Case(kind) for kind in PLAIN.split()} | {
    f"{kind}, {note}" if note else kind: Case(kind, config, refused)
    for kind, note, config, refused in (*NAMED, *matrix_composites.CASES)
}


INTRO = """# Model families

Layers that move take what the config says of each of them along: kind of attention, window, rope, experts, widths. What
a family cannot express in other places is refused in the plan, before anything is written.

This table is made by `python -m tests.families --table`, and the tests hold every line of it against transformers: each
donor of {depth} layers is

- grown: {grow},
- shrunk: {shrink},
- reordered: {reorder},
- blended: `linear` with another donor of the same shape,
- joined: its first half below the second half of another donor.

*Right* means that the assembled files load with no tensor missing and none left over, and compute bit for bit what the
donor's own layers compute in that order; that every floating-point tensor of the blend is the donors' mean, rounded
once; and that a joined model has what runs before the layers from its first donor and what runs after them from its
second. *Refused* means that the plan says so, with the reason.

Other model types: where any key of the config may count layers, moving layers is refused.

| Model type | Case | grow | shrink | reorder | blend | join | Why refused |
|---|---|---|---|---|---|---|---|
"""


def _reason(words: str) -> str:
    return f"config.json cannot express {words} there" if words.startswith(("the ", "a ", "what ")) else words


def table() -> str:
    """The table of families and outcomes, as Markdown."""
    shown = {name: " + ".join(f"[{start}, {stop})" for start, stop in ranges) for name, ranges in SPLICES.items()}
    lines = []
    for name, case in sorted(CASES.items()):
        states = ["refused" if splice in case.refused else "right" for splice in (*SPLICES, "blend", "join")]
        why = "; ".join(dict.fromkeys(map(_reason, case.refused.values())))
        lines.append(f"| {' | '.join([f'`{case.kind}`', name.partition(', ')[2], *states, why])} |")
    return INTRO.format(depth=DEPTH, **shown) + "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Try the cases named, or all; or print the table."""
    if "--table" in arguments:
        print(table(), end="")
        return 0
    import tempfile
    import time

    import torch
    from transformers import logging

    logging.set_verbosity_error()
    torch.set_num_threads(1)
    for name in arguments or list(CASES):
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = dict(outcomes(CASES[name], Path(folder)))
            except Exception as error:
                print(f"{name}: {type(error).__name__} {str(error)[:300]}", flush=True)
                continue
        states = {outcome.state for outcome in found.values()}
        took = f"{time.monotonic() - started:.1f}s"
        if states == {"right"}:
            print(f"{name}: right {took}", flush=True)
        else:
            print(
                f"{name}: {took}",
                *(f"    {k}: {v.state} {v.why[:400]}" for k, v in found.items()),
                sep="\n",
                flush=True,
            )
    return 0
