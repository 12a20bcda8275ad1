"""Downloads a checkpoint from the Hub into its cache. The only module that uses huggingface_hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError, SurgeonError
from .locate import INDEX, SINGLE
from .tokenizer.tokenizer_identity import FILES as TOKENIZER_FILES


def wanted(names: Iterable[str]) -> list[str]:
    """The files of a Hub repository to download: safetensors, JSON and tokenizer files of its top level.

    Pickles and code are never included. A second copy of the weights in another layout (`consolidated.safetensors`) is
    left out.
    """
    top = [name for name in names if "/" not in name and "\\" not in name and not name.startswith(".")]
    weights = [name for name in top if name.endswith(".safetensors")]
    if SINGLE in weights:
        weights = [SINGLE]
    elif INDEX in top:
        weights = [name for name in weights if not name.startswith(("consolidated", "adapter"))]
    small = {name for name in top if name.endswith(".json") or name in TOKENIZER_FILES}
    return sorted({*weights, *small})


def fetch(ref: str) -> Path:
    """Download `org/name[@revision]` with progress bars on stderr and return its folder in the Hub cache.

    Raises:
        InputError: the repository holds no safetensors.
        SurgeonError: the network or the Hub failed; the message says which.
    """
    import huggingface_hub

    name, _, revision = ref.partition("@")
    chosen = revision or None
    try:
        siblings = huggingface_hub.HfApi().model_info(name, revision=chosen).siblings
        files = [sibling.rfilename for sibling in siblings or ()]
        patterns = wanted(files)
        if not any(file.endswith(".safetensors") for file in patterns):
            raise _no_weights(ref, files)
        return Path(huggingface_hub.snapshot_download(name, revision=chosen, allow_patterns=patterns))
    except SurgeonError:
        raise
    except Exception as error:
        raise _failed(ref, error) from error


def _no_weights(ref: str, files: Iterable[str]) -> InputError:
    pickles = [file for file in files if file.endswith((".bin", ".pt", ".pth"))]
    return InputError(
        f"{ref} holds no safetensors on the Hub",
        why=f"its weights are pickles ({pickles[0]}), which run code when they are loaded" if pickles else "",
        remedy="look for a converted revision, or convert it in an environment that you trust",
    )


def _failed(ref: str, error: Exception) -> SurgeonError:
    kind = type(error).__name__
    if kind == "GatedRepoError":
        return SurgeonError(
            f"cannot download {ref}",
            why="its owner grants access on request",
            remedy="accept its licence on the Hub, then log in with `hf auth login`",
        )
    if kind == "RevisionNotFoundError":
        return SurgeonError(f"cannot download {ref}", why="the Hub has no such revision of it")
    if kind == "RepositoryNotFoundError":
        return SurgeonError(
            f"cannot download {ref}",
            why="the Hub has no such model, or it is private",
            remedy="check the name, or log in with `hf auth login`",
        )
    first = next(iter(str(error).strip().splitlines()), "") or kind
    return SurgeonError(
        f"cannot download {ref}",
        why=first.rstrip(".")[:300],
        remedy="check the network and try again; downloaded files are kept",
    )
