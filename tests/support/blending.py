"""What the tests of blends share: donors of one size with random values, and merges of them in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.assemble.compute.arithmetic import whole
from surgeon.plan import Copy, Donors, Plan, PlannedTensor, resolve
from surgeon.recipe.document import parse
from tests.support.assembling import CONFIG, shapes

if TYPE_CHECKING:
    import torch


def donors(
    folder: Path, names: Sequence[str] = ("base", "a", "b"), depth: int = 4, dtype: str = "float32", **config: Any
) -> Path:
    """Folders of tiny llamas in `folder`: the first is random, the others differ from it a little."""
    import torch
    from safetensors.torch import save_file

    base: dict[str, torch.Tensor] = {}
    for number, name in enumerate(names):
        generator = torch.Generator().manual_seed(number)
        made = {key: torch.randn(shape, generator=generator) for key, shape in shapes(depth).items()}
        base = base or made
        tensors = made if number == 0 else {key: base[key] + 0.3 * made[key] for key in made}
        (folder / name).mkdir(parents=True)
        save_file({k: v.to(getattr(torch, dtype)) for k, v in tensors.items()}, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": depth} | config))
    return folder


def plan_of(folder: Path, text: str) -> Plan:
    """The plan of a recipe that would lie in `folder`."""
    document = parse(text, folder / "recipe.yml")
    return resolve(document, Donors(document.roots))


def stored(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """A donor's tensors."""
    from safetensors.torch import load_file

    return load_file(folder / name / "model.safetensors")


def value(tensor: PlannedTensor) -> torch.Tensor:
    """What an output tensor will hold."""
    from safetensors import safe_open

    if isinstance(tensor.source, Copy):
        with safe_open(tensor.source.entry.file, "pt") as file:
            found: torch.Tensor = file.get_tensor(tensor.source.entry.name)
            return found
    return whole(tensor)


def merged(plan: Plan) -> dict[str, torch.Tensor]:
    """Every output tensor of a plan."""
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    return {tensor.name: value(tensor) for tensor in plan.tensors}
