"""The planned model in memory, without writing it: donors' bytes are mapped, and a repeated layer is stored once.

transformers builds the model from a table of tensors exactly as from the assembled files: the config, names and dtypes
are the same, so the numbers are too. It keeps the given tensors unless it must convert them, for fused experts or
another dtype of the config. To store a converted layer only once, a plan that repeats layers is built in two steps:
first with each distinct layer once, then completely, from that model's tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..assemble.compute.arithmetic import PLAIN, one_thread
from ..assemble.compute.whole_model_survey import surveyed
from ..checkpoint.families.model_config import ModelConfig
from ..checkpoint.families.naming import Place, find_naming
from ..errors import InputError, SurgeonError
from ..plan.config.output_config import output_config
from ..plan.model import Plan, PlannedLayer
from ..text import one_line
from .load import causal_class, from_pretrained, read_config, to_device, without_head
from .weights import Weights

if TYPE_CHECKING:
    import torch

    from .weights import Computed

State = Mapping[str, "torch.Tensor"]
WHERE = "the recipe's model"


def build(plan: Plan, device: str = "cpu") -> Any:
    """The model of a plan; see `build_with`."""
    return build_with(plan, device)[0]


def build_with(plan: Plan, device: str = "cpu", earlier: Sequence[Computed] = ()) -> tuple[Any, Computed]:
    """The model of a plan, a transformers model ready for inference, and the tensors that were computed for it.

    A weight is a read-only view of a donor's file if the plan copies it and its dtype is the config's.

    Args:
        earlier: the computed tensors of other models, which are not computed again.

    Raises:
        InputError: the plan has errors, its model generates no text, or transformers does not know the model type.
        SurgeonError: the config asks for other tensors than the plan has; names the first.
    """
    if plan.config is None or not plan.ok:
        first = plan.errors[0].sentence() if plan.errors else "There is nothing to build."
        raise InputError("the recipe cannot be carried out", why=first.rstrip("."), remedy="see `surgeon plan`")
    if plan.ends["lm_head"].how == "absent":
        raise without_head(ModelConfig.of(plan.config).architecture, WHERE)
    with one_thread():
        weights = Weights(surveyed(plan, PLAIN), earlier)
    state = {tensor.name: weights.planned(tensor) for tensor in plan.tensors}
    shared = _distinct_first(plan, weights)
    model = _built(plan.config, shared) if shared else None
    if model is None or shared is None or not _keeps(model, shared):
        model = _built(plan.config, state)
    return to_device(model, device), weights.computed


def _built(config: Mapping[str, Any], state: State) -> Any:
    """A model with exactly these tensors."""
    settings = read_config(config, WHERE)
    model, info = from_pretrained(
        causal_class(settings, WHERE), None, WHERE, config=settings, state_dict=dict(state), trust_remote_code=False
    )
    for kind, names in (("lacks", info["missing_keys"]), ("has no place for", info["unexpected_keys"])):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            subject = "the plan" if kind == "lacks" else f"a {type(model).__name__} of this config"
            raise SurgeonError(f"{subject} {kind} {one_line(min(names))}{more}", where=WHERE)
    return model


def _keeps(model: Any, state: State) -> bool:
    """Whether the model's weights share memory with these tensors, so that none was converted again."""
    own = model.state_dict()
    return all(
        name in own and own[name].data_ptr() == tensor.data_ptr() and own[name].shape == tensor.shape
        for name, tensor in state.items()
    )


def _distinct_first(plan: Plan, weights: Weights) -> dict[str, torch.Tensor] | None:
    """All tensors of the model as transformers converts them, with repeated layers shared.

    None if no layer repeats, or if no config can express a model of the distinct layers.
    """
    assert plan.config is not None and plan.config_donor is not None
    position, firsts = _distinct(plan)
    naming = plan.donors[plan.config_donor].checkpoint.naming
    if len(firsts) == len(plan.layers) or naming is None:
        return None
    config = config_of(plan, firsts)
    if config is None:
        return None
    state = {
        naming.name(Place("layer", index, tensor.place.suffix)): weights.planned(tensor)
        for index, layer in enumerate(firsts)
        for tensor in layer.tensors
    }
    state |= {tensor.name: weights.planned(tensor) for tensor in plan.tensors if tensor.place.role != "layer"}
    own = _built(config, state).state_dict()
    naming = find_naming(own)
    if naming is None:
        return None
    full: dict[str, torch.Tensor] = {}
    for name, tensor in own.items():
        place = naming.place(name)
        if place.role == "layer":
            targets = [index for index, first in enumerate(position) if first == place.index]
            full |= {naming.name(Place("layer", index, place.suffix)): tensor for index in targets}
        elif not (plan.tied and place.role == "lm_head" and place.suffix.endswith("weight")):
            full[name] = tensor
    return full


def _distinct(plan: Plan) -> tuple[list[int], list[PlannedLayer]]:
    """For each layer the index of its distinct layer, and the distinct layers in order of first occurrence."""
    numbers: dict[Any, int] = {}
    firsts: list[PlannedLayer] = []
    position = []
    for layer in plan.layers:
        key = tuple((tensor.place.suffix, tensor.dtype, tensor.source) for tensor in layer.tensors)
        if key not in numbers:
            numbers[key] = len(firsts)
            firsts.append(layer)
        position.append(numbers[key])
    return position, firsts


def config_of(plan: Plan, layers: list[PlannedLayer]) -> dict[str, Any] | None:
    """The plan's config for these layers only; None if a config cannot express them."""
    assert plan.config is not None and plan.config_donor is not None
    whole = ModelConfig.of(plan.config)
    raw, findings = output_config(
        plan.donors[plan.config_donor].checkpoint,
        [(plan.donors[layer.sources[0][0]].checkpoint, layer.sources[0][1]) for layer in layers],
        tied=plan.tied,
        dtype=whole.dtype,
        vocab_size=whole.vocab_size,
    )
    return None if any(finding.severity == "error" for finding in findings) else raw
