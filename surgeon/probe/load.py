"""Load models and tokenizers with transformers, from local safetensors files and with transformers' own code only."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint import Checkpoint, open_checkpoint
from ..checkpoint.locate import INDEX, SINGLE
from ..errors import InputError, SurgeonError
from ..text import one_line
from .chat_template import check_files
from .environment import transformers
from .weights import Weights

if TYPE_CHECKING:
    import torch

_NOT_HERE = ("auto_map", "attn_implementation", "experts_implementation", "fusion_config", "transformers_weights")
"""Config keys that name other code or files to load, which a probe must not do."""


def load(ref: str, device: str = "cpu", roots: tuple[Path, ...] = ()) -> Any:
    """Open and load a checkpoint; see `load_checkpoint`."""
    return load_checkpoint(open_checkpoint(ref, roots), device)


def load_checkpoint(checkpoint: Checkpoint, device: str = "cpu", *, any_class: bool = False) -> Any:
    """A checkpoint from its folder, in its own dtype, ready for inference.

    Args:
        any_class: load it as the class that config.json names, also where that generates no text.

    A single file with a non-standard name is mapped into memory instead, with the config from its folder.

    Raises:
        InputError: no config.json, or, without `any_class`, a model that generates no text.
        SurgeonError: transformers cannot load it, or the files lack a weight.
    """
    where = str(checkpoint.path)
    if checkpoint.config is None:
        raise InputError("there is no config.json next to the weights, so no model can be built", where=where)
    config = read_config(checkpoint.config.raw, where)
    if checkpoint.headless and not any_class:
        raise without_head(checkpoint.config.architecture, where)
    options: dict[str, Any] = {"config": config}
    names = [path.name for path in checkpoint.files]
    source: str | None = str(checkpoint.folder)
    if names != [SINGLE] and not (checkpoint.path.is_dir() and (checkpoint.folder / INDEX).is_file()):
        weights, source = Weights(), None
        options["state_dict"] = {name: weights.entry(entry) for name, entry in checkpoint.tensors.items()}
    else:
        options |= {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    kind = model_class(config, where) if any_class else causal_class(config, where)
    model, info = from_pretrained(kind, source, where, **options)
    if (missing := sorted(info["missing_keys"])) and not any_class:
        raise SurgeonError(
            f"the files lack {one_line(missing[0])}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            where=where,
            remedy="check that config.json belongs to these weights",
        )
    return to_device(model, device)


def read_config(raw: Mapping[str, Any], where: str) -> Any:
    """transformers' config object for a config.json.

    Raises:
        InputError: transformers does not know the model type, or refuses the values.
    """
    kept = {key: value for key, value in raw.items() if key.lstrip("_") not in _NOT_HERE}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(kept), encoding="utf-8")
        with _explained("transformers cannot read config.json", where, InputError):
            return transformers().AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def causal_class(config: Any, where: str) -> Any:
    """The class that generates text with this config; InputError if there is none."""
    known = transformers().MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in known:
        raise InputError(
            f"transformers has no causal language model of type {one_line(getattr(config, 'model_type', '?'))!r}",
            where=where,
        )
    return known[type(config)]


def without_head(architecture: str, where: str) -> InputError:
    """The error for a model that has no language-model head."""
    return InputError(
        f"a {one_line(architecture or 'model of this class')} has no language-model head, so it generates no text",
        where=where,
        remedy="`surgeon verify --smoke` runs a forward pass of a written one",
    )


def model_class(config: Any, where: str) -> Any:
    """The class that wrote the checkpoint, where transformers has it for this config, else the causal one.

    Raises:
        InputError: transformers has neither.
    """
    module = transformers()
    for name in getattr(config, "architectures", None) or ():
        if isinstance(name, str) and name.isidentifier() and not name.startswith("_"):
            kind = getattr(module, name, None)
            if isinstance(kind, type) and issubclass(kind, module.PreTrainedModel) and _is_for(kind, config):
                return kind
    return causal_class(config, where)


def _is_for(kind: Any, config: Any) -> bool:
    return getattr(kind, "config_class", None) is type(config)


def from_pretrained(kind: Any, source: str | None, where: str, *, config: Any, **options: Any) -> tuple[Any, Any]:
    """The result of `kind.from_pretrained` in the config's dtype, and its loading info; SurgeonError for a failure."""
    if getattr(kind, "config_class", None) is config.sub_configs.get("text_config", 0):
        config = config.get_text_config()
    with _explained("transformers cannot load the model", where, SurgeonError):
        model, info = kind.from_pretrained(source, config=config, dtype="auto", output_loading_info=True, **options)
    return model.eval(), info


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a folder, from its files only.

    Raises:
        InputError: there is no tokenizer, its chat template is too large, or transformers cannot load it.
    """
    check_files(folder)
    with _explained("transformers cannot load the tokenizer", str(folder), InputError):
        return transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def to_device(model: Any, device: str) -> Any:
    """The model with its weights on a device; weights that share memory still share it there."""
    if device == "cpu":
        return model
    import torch

    moved: dict[tuple[Any, ...], torch.Tensor] = {}
    parameters: dict[int, torch.nn.Parameter] = {}

    def there(tensor: torch.Tensor) -> torch.Tensor:
        key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if tensor.numel() else (id(tensor),)
        if key not in moved:
            moved[key] = tensor.detach().to(device)
        return moved[key]

    with _explained(f"the model cannot be moved to {device}", "", SurgeonError):
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    # A tied head stays the same parameter as the embedding.
                    if id(parameter) not in parameters:
                        parameters[id(parameter)] = torch.nn.Parameter(there(parameter), requires_grad=False)
                    module._parameters[name] = parameters[id(parameter)]
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = there(buffer)
    return model


@contextlib.contextmanager
def _explained(what: str, where: str, kind: type[SurgeonError]) -> Iterator[None]:
    """Context that turns a library's error into one of `kind`, with the first line as the reason."""
    try:
        yield
    except (SurgeonError, MemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise kind(what, where=where, why=one_line(first).rstrip(".")) from error
