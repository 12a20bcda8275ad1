"""What the tests of adapters share: adapters written by hand, and what surgeon computes of them.

torch is imported in the functions: collecting tests must not pay for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.checkpoint import TensorEntry, open_checkpoint
from surgeon.checkpoint.adapter.adapter_targets import Change, Patch, fitted
from surgeon.checkpoint.adapter.lora import open_adapter
from surgeon.plan.operands import Adapted, Operand, Stored

if TYPE_CHECKING:
    import torch

PREFIX = "base_model.model."
RANK, ALPHA = 4, 8

Tensors = dict[str, "torch.Tensor"]


def noise(*shape: int, seed: int = 0, scale: float = 0.2) -> torch.Tensor:
    """Random float32 numbers that only shape and seed decide."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * scale


def low_rank(module: str, out: int, inside: int, rank: int = RANK, *, seed: int = 0, dora: bool = False) -> Tensors:
    """A and B of one module, as peft names them, and DoRA's magnitudes."""
    found = {
        f"{PREFIX}{module}.lora_A.weight": noise(rank, inside, seed=seed),
        f"{PREFIX}{module}.lora_B.weight": noise(out, rank, seed=seed + 1),
    }
    if dora:
        found[f"{PREFIX}{module}.lora_magnitude_vector"] = noise(out, seed=seed + 2) + 1
    return found


def low_rank_rows(module: str, tokens: int, width: int, rank: int = RANK, *, seed: int = 0) -> Tensors:
    """The same of an embedding."""
    return {
        f"{PREFIX}{module}.lora_embedding_A": noise(rank, tokens, seed=seed),
        f"{PREFIX}{module}.lora_embedding_B": noise(width, rank, seed=seed + 1),
    }


def write_adapter(folder: Path, tensors: Mapping[str, torch.Tensor], **config: Any) -> Path:
    """An adapter's folder; keys of `config` go to its config, None takes one away."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "base_model_name_or_path": "org/base"} | config
    (folder / "adapter_config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    return folder


def changes(base: Path, adapter: Path) -> Mapping[str, Change]:
    """What `fitted` says."""
    return fitted(open_adapter(adapter), open_checkpoint(str(base)))


def operand(change: Change, base: TensorEntry | None) -> Operand:
    """The operand that a change stands for."""
    if isinstance(change, TensorEntry):
        return Stored(change)
    assert isinstance(change, Patch)
    whole = change.whole or base
    assert whole is not None
    return Adapted(Stored(whole), change.down, change.up, change.factor, change.transposed, change.magnitude)


def read(one: Operand, dtype: torch.dtype, cut: int = 0) -> torch.Tensor:
    """All elements of an operand, read `cut` at a time (0: at once), in its shape."""
    import torch

    from surgeon.assemble.compute.operand_readers import Readers
    from surgeon.assemble.io.byte_copy import Sources

    sources = Sources()
    try:
        reader = Readers(sources).of(one, dtype)
        out = torch.empty(reader.numel, dtype=dtype)
        for start in range(0, reader.numel, cut or max(1, reader.numel)):
            reader.read(start, out[start : start + cut] if cut else out)
        return out.view(reader.shape)
    finally:
        sources.close()


def computed(base: Path, adapter: Path, cut: int = 0) -> Tensors:
    """Every tensor that the adapter changes, in float64."""
    import torch

    tensors = open_checkpoint(str(base)).tensors
    return {
        name: read(operand(change, tensors.get(name)), torch.float64, cut)
        for name, change in changes(base, adapter).items()
    }


def weights(folder: Path) -> Tensors:
    """Every tensor of a checkpoint or an adapter, in float64."""
    from safetensors.torch import load_file

    name = "adapter_model.safetensors" if (folder / "adapter_model.safetensors").is_file() else "model.safetensors"
    return {key: tensor.double() for key, tensor in load_file(folder / name).items()}
