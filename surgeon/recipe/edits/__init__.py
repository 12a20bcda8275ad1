"""Edits of a recipe: named, serialisable, pure functions of a recipe. `grammar` has their text form."""

from .blend_edits import BLENDS, BlendLayers, Collapse, Edges, SetMethod, SetParameters, Unblend
from .edit import DepthOf, Edit
from .layer_edits import (
    Delete,
    Duplicate,
    Insert,
    InsertRuns,
    Interleave,
    Move,
    Replace,
    Reverse,
    SelfStack,
    SetBase,
    SetDtype,
    SetEnd,
    Upscale,
)
from .parameter_tables import Setting
from .scale_edits import Expand, Scale

EDITS: tuple[type[Edit], ...] = (
    Insert, Delete, Move, Duplicate, Replace, Reverse, SetEnd, Upscale, SelfStack, Interleave, Scale, Expand,
    *BLENDS, SetDtype, SetBase,
)  # fmt: skip
"""Every edit, in the order that help lists them."""

__all__ = [
    "EDITS", "BlendLayers", "Collapse", "Delete", "DepthOf", "Duplicate", "Edges", "Edit", "Expand", "Insert",
    "InsertRuns", "Interleave", "Move", "Replace", "Reverse", "Scale", "SelfStack", "SetBase", "SetDtype", "SetEnd",
    "SetMethod", "SetParameters", "Setting", "Unblend", "Upscale",
]  # fmt: skip
