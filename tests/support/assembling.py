"""What the tests of assembling share: donors of random bytes, plans from recipe texts, files read back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

from surgeon import assemble as engine
from surgeon.assemble import AssembleOptions, Result
from surgeon.checkpoint import open_checkpoint
from surgeon.checkpoint.dtypes import BITS
from surgeon.plan import Donors, Plan, resolve
from surgeon.recipe.document import parse

HIDDEN, INNER, VOCAB = 8, 12, 16

LAYER = {
    "input_layernorm.weight": (HIDDEN,),
    "mlp.down_proj.weight": (HIDDEN, INNER),
    "mlp.gate_proj.weight": (INNER, HIDDEN),
    "mlp.up_proj.weight": (INNER, HIDDEN),
    "post_attention_layernorm.weight": (HIDDEN,),
    "self_attn.k_proj.weight": (HIDDEN, HIDDEN),
    "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
    "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
    "self_attn.v_proj.weight": (HIDDEN, HIDDEN),
}

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def assemble(
    plan: Plan, out: Path, *, recipe: str | None = None, on_event: Any = None, cancelled: Any = None, **options: Any
) -> Result:
    """`surgeon.assemble.assemble` with its options as keywords."""
    how = AssembleOptions(**options)
    return engine.assemble(plan, out, how, recipe=recipe, on_event=on_event, cancelled=cancelled)


def ready(plan: Plan, out: Path, *, recipe: str | None = None, **options: Any) -> None:
    """`surgeon.assemble.ready` with its options as keywords."""
    engine.ready(plan, out, AssembleOptions(**options), recipe=recipe)


Spec = tuple[str, str, tuple[int, ...], bytes]


def shapes(depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a llama of `depth` layers, in the order of its file."""
    found: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (VOCAB, HIDDEN),
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
    }
    for index in range(depth):
        found |= {f"model.layers.{index}.{name}": shape for name, shape in LAYER.items()}
    return found | {"model.norm.weight": (HIDDEN,)}


def write_file(path: Path, specs: Iterable[Spec]) -> None:
    """A safetensors file of (name, dtype, shape, bytes), in that order."""
    table: dict[str, Any] = {}
    data = b""
    for name, dtype, shape, content in specs:
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    header = json.dumps(table).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def donor(folder: Path, depth: int = 3, *, seed: int = 0, dtype: str = "BF16", **config: Any) -> Path:
    """A llama of random bytes (copies must not care what they mean) with tokenizer and generation config."""
    dice = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    specs = [
        (name, dtype, shape, dice.randbytes(prod(shape) * BITS[dtype] // 8)) for name, shape in shapes(depth).items()
    ]
    write_file(folder / "model.safetensors", specs)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": depth} | config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "seed": seed}))
    vocabulary = {f"t{index}": index for index in range(VOCAB)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary, "merges": []}}))
    return folder


def passthrough(*ranges: tuple[Path, int, int], more: str = "") -> str:
    """A passthrough recipe of (donor, start, stop) slices."""
    lines = ["merge_method: passthrough", "slices:"]
    for model, start, stop in ranges:
        lines.append(f"  - sources: [{{model: {json.dumps(str(model))}, layer_range: [{start}, {stop}]}}]")
    return "\n".join([*lines, more]) + "\n"


def plan_of(text: str, *roots: Path) -> Plan:
    """The plan of a recipe's text."""
    return resolve(parse(text), Donors(roots))


def contents(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor of a checkpoint as dtype, shape and bytes."""
    return {
        name: (entry.dtype, entry.shape, entry.file.read_bytes()[entry.offset : entry.offset + entry.nbytes])
        for name, entry in open_checkpoint(str(folder)).tensors.items()
    }


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included, by its relative name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
