"""Complete edits with facts of the donors: block expansion needs the tensors that it sets to zero."""

from __future__ import annotations

import contextlib

from ...checkpoint.families.residual_outputs import residual_outputs
from ...errors import InputError
from ...recipe import stack
from ...recipe.curves.tracks import REST
from ...recipe.edits import Edit, Expand, Scale
from ...recipe.schema import Recipe
from ...text import nearest, one_line
from ..donors.open_donors import Donors


def completed(edit: Edit, recipe: Recipe, donors: Donors) -> Edit:
    """The edit as it is applied: an `Expand` gets the filters of its donors' family, any other is unchanged.

    Raises:
        InputError: a donor cannot be opened, its layers cannot be made the identity, `zero=` differs from the family's
            filters, or a filter matches no tensor.
    """
    if not isinstance(edit, Expand):
        _check_filters(edit, recipe, donors)
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
            why=f"this needs zero={','.join(filters)}",
            remedy="remove zero= from the edit",
        )
    return edit.with_zero(filters)


def _check_filters(edit: Edit, recipe: Recipe, donors: Donors) -> None:
    """Refuse a filter that matches no tensor of any donor, because the edit would have no effect."""
    wanted = {name for name, factor in edit.factors} if isinstance(edit, Scale) else set()
    wanted |= {setting.filter for setting in getattr(edit, "settings", ()) if setting.values}
    wanted -= {"*", REST}
    if not wanted:
        return
    refs = [*recipe.model_refs(), *(run[0] for run in getattr(edit, "runs", ()))]
    names: set[str] = set()
    for ref in dict.fromkeys(refs):
        with contextlib.suppress(InputError):
            names |= donors.checkpoint(ref).tensors.keys()
    pieces = {piece for name in names for piece in name.split(".") if not piece.isdigit()}
    for text in sorted(wanted) if names else ():
        if not any(text in name for name in names):
            guess = nearest(text, sorted(pieces))
            raise InputError(
                f"the filter {one_line(text)!r} matches no tensor",
                why="a filter is a part of a tensor's name in its donor, without wildcards",
                remedy=f"did you mean {one_line(guess)}" if guess else "list names with `surgeon inspect --tensors`",
            )


def _filters(donors: Donors, model: str, index: int) -> tuple[str, ...]:
    """The filters for one donor; raises InputError if one matches no tensor of the layer."""
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
