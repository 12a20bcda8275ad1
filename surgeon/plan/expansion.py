"""What block expansion needs to know of the donors: which tensors of the copied layers are to be zero."""

from __future__ import annotations

from ..checkpoint.outputs import residual_outputs
from ..errors import InputError
from ..recipe import stack
from ..recipe.edits import Edit, Expand
from ..recipe.schema import Recipe
from ..text import one_line
from .donors import Donors


def completed(edit: Edit, recipe: Recipe, donors: Donors) -> Edit:
    """The edit as it is carried out: an `Expand` gets the filters of its donors' family, any other stays as it is.

    Raises:
        InputError: a donor cannot be opened, its layers cannot be made the identity, or the edit names other filters.
    """
    if not isinstance(edit, Expand):
        return edit
    cells = stack.cells(recipe.explicit(donors.depth))
    found: dict[str, tuple[str, ...]] = {}
    for position in edit.ends(len(cells)):
        for model, index in cells[position].sources:
            if model not in found:
                found[model] = _filters(donors, model, index)
    filters = tuple(dict.fromkeys(name for names in found.values() for name in names))
    if edit.zero and set(edit.zero) != set(filters):
        raise InputError(
            f"zero={','.join(edit.zero)} does not make a layer of these donors the identity",
            why=f"it takes {','.join(filters)}",
            remedy="leave zero= out",
        )
    return edit.with_zero(filters)


def _filters(donors: Donors, model: str, index: int) -> tuple[str, ...]:
    """The filters for one donor, each of which must match something in the layer."""
    checkpoint = donors.checkpoint(model)
    try:
        filters = residual_outputs(checkpoint.config)
    except InputError as error:
        raise InputError(error.what, where=one_line(model), why=error.why, remedy=error.remedy) from error
    if 0 <= index < checkpoint.depth:
        names = [entry.name for entry in checkpoint.layers[index].tensors.values()]
        for wanted in filters:
            if not any(wanted in name for name in names):
                raise InputError(
                    f"layer {index} cannot be made the identity",
                    where=one_line(model),
                    why=f"its output projections are not named {wanted!r} as in other models of its type",
                    remedy="repeat layers with `duplicate` instead",
                )
    return filters
