"""Test whether a planned layer is the identity: run it alone with its own weights, and compare its output and input.

Block expansion depends on this: a family is expanded only if its zeroed layers are the identity bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..checkpoint.families.naming import find_naming
from ..errors import SurgeonError
from ..plan.model import Plan
from . import unwritten_model

_TOKENS = 7


def is_identity(plan: Plan, index: int) -> bool:
    """Whether output layer `index` returns the residual stream unchanged, bit for bit.

    The layer is built alone between the plan's ends, in the config's dtype, on the CPU, and gets random states of
    unit variance. The sign of a zero may differ.

    Raises:
        InputError, SurgeonError: see `unwritten_model.build`.
    """
    import torch

    model = unwritten_model.build(alone(plan, index))
    layer = model.get_submodule(_path(model))
    seen: list[torch.Tensor] = []

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = args[0] if args else kwargs["hidden_states"]
        seen.append(torch.randn(given.shape, generator=torch.Generator().manual_seed(0)).to(given.dtype))
        return ((seen[0], *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": seen[0]})

    def after(module: Any, args: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_pre_hook(before, with_kwargs=True), layer.register_forward_hook(after)]
    try:
        with torch.inference_mode():
            model(input_ids=torch.arange(_TOKENS)[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    went_in, came_out = seen
    return torch.equal(went_in, came_out)


def alone(plan: Plan, index: int) -> Plan:
    """The plan of a model with only this layer."""
    layer = plan.layers[index]
    config = unwritten_model.config_of(plan, [layer])
    if config is None or layer.contents is None:
        raise SurgeonError(f"layer {index} cannot be run alone", why="no config describes a model of this layer only")
    # As they are there, with the random seeds of their names there.
    groups = tuple((tensor.place.suffix,) for tensor in layer.tensors)
    contents = replace(layer.contents, groups=groups, firsts=layer.tensors, blended=None)
    return replace(plan, layers=(replace(layer, index=0, contents=contents),), config=config)


def _path(model: Any) -> str:
    naming = find_naming(model.state_dict())
    if naming is None:
        raise SurgeonError("the layers of the model were not found", where=type(model).__name__)
    return naming.prefix + "0"
