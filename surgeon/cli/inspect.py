"""`surgeon inspect`: show what is in checkpoints, several side by side."""

from __future__ import annotations

import json as json_format
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, SurgeonError
from ..files import exists
from .common import JsonOption, fail, finite

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from .inspect_other import Described
    from .inspect_text import Opened

    Found = Opened | Described | tuple[str, SurgeonError]

Paths = Annotated[
    list[str], typer.Argument(metavar="PATH...", help="Folders, .safetensors files or Hub ids (org/name[@revision]).")
]
LayerOption = Annotated[int | None, typer.Option("--layer", metavar="N", help="Show the tensors of layer N.")]
TensorsOption = Annotated[bool, typer.Option("--tensors", help="List every tensor.")]
DownloadOption = Annotated[bool, typer.Option("--download", help="Fetch Hub ids that are not in the local cache.")]


def inspect(
    paths: Paths,
    json: JsonOption = False,
    layer: LayerOption = None,
    tensors: TensorsOption = False,
    download: DownloadOption = False,
) -> None:
    """Show what is in checkpoints, several side by side."""
    from .inspect_other import Described
    from .inspect_text import Opened, lines
    from .table import Style, say, table

    found: list[Found] = []
    for index, ref in enumerate(paths):
        try:
            found.append(_open(index, ref, layer, download))
        except SurgeonError as error:
            found.append((ref, error))
    opened = [one for one in found if isinstance(one, Opened)]
    others = [one for one in found if isinstance(one, Described)]
    if json:
        print(json_format.dumps(finite([_as_dict(one, tensors) for one in found]), indent=2))
    else:
        style = Style.of(sys.stdout)
        for line in lines(opened, len(paths) - len(others), layer, tensors, style):
            say(line)
        for number, one in enumerate(others):
            if opened or number:
                say("")
            for line in table(one.rows(), [], style):
                say(line)
    sys.stdout.flush()
    codes = [fail(one[1]) for one in found if isinstance(one, tuple)]
    if codes:
        raise typer.Exit(max(codes))


def _open(index: int, ref: str, layer: int | None, download: bool) -> Opened | Described:
    from ..checkpoint.summary import layer_detail
    from ..recipe.letters import letter
    from .inspect_other import described
    from .inspect_text import Opened

    if (other := described(ref)) is not None:
        return other
    checkpoint = _checkpoint(ref, download)
    return Opened(letter(index), ref, checkpoint, None if layer is None else layer_detail(checkpoint, layer))


def _checkpoint(ref: str, download: bool) -> Checkpoint:
    from ..checkpoint import open_checkpoint
    from ..checkpoint.locate import looks_like_hub_id

    try:
        return open_checkpoint(ref)
    except InputError:
        # An incomplete snapshot in the cache is completed too.
        if not download or not looks_like_hub_id(ref) or exists(ref):
            raise
    from ..checkpoint.download import fetch

    fetch(ref)
    return open_checkpoint(ref)


def _as_dict(one: Found, tensors: bool) -> dict[str, Any]:
    from ..checkpoint.summary import summarise, tensor_rows
    from .inspect_other import Described

    if isinstance(one, tuple):
        return {"ref": one[0], "error": one[1].sentence()}
    if isinstance(one, Described):
        return dict(one.data)
    out = summarise(one.checkpoint).to_dict()
    if one.layer is not None:
        out["layer"] = one.layer.to_dict()
    if tensors:
        out["tensor_list"] = [row.to_dict() for row in tensor_rows(one.checkpoint)]
    return out
