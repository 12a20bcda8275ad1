"""What is probed: a model in memory with its tokenizer, and how it came there."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..assemble.files.small_files import made_files
from ..assemble.gpu.device import pick_device
from ..checkpoint import Checkpoint
from ..checkpoint.families.model_config import ModelConfig
from ..checkpoint.tokenizer.tokenizer_identity import FILES
from ..errors import InputError
from ..plan.model import Plan
from .environment import transformers
from .load import load_checkpoint, load_tokenizer
from .unwritten_model import build

REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Subject:
    """A loaded model.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer, or None.
        why_no_tokenizer: the reason then.
        context: positions the model was made for, or None when its config does not say.
        stops: token ids that end a text.
        layers: depth.
        parameters: elements, a layer counted as often as it occurs and a tied head once.
        dtype: as torch names it.
        device: as torch names it.
        seconds: what loading took.
    """

    model: Any
    tokenizer: Any
    why_no_tokenizer: str
    context: int | None
    stops: frozenset[int]
    layers: int
    parameters: int
    dtype: str
    device: str
    seconds: float

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding: token ids below it can be read."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, special tokens as the tokenizer adds them, but none that ends the text.

        Raises:
            InputError: no tokenizer, no tokens, or a token that the embedding does not have.
        """
        if self.tokenizer is None:
            raise InputError("text cannot be given to this model", why=self.why_no_tokenizer)
        ids = [int(token) for token in self.tokenizer(text)["input_ids"]]
        while len(ids) > 1 and ids[-1] in self.stops:
            ids.pop()
        if not ids:
            raise InputError("the text has no tokens", remedy="give a longer one")
        if max(ids) >= self.vocabulary:
            raise InputError(
                f"token {max(ids)} is not in the embedding, which has {self.vocabulary} rows",
                why="tokenizer and embedding do not belong together",
            )
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def from_plan(plan: Plan, device: str = "auto") -> Subject:
    """The model of a plan, in memory; see `virtual.build` for what is raised."""
    device = pick_device(device)
    transformers()  # the library's own start is not the model's
    start = time.perf_counter()
    model = build(plan, device)
    assert plan.config is not None
    with tempfile.TemporaryDirectory() as folder:
        # The small files as they would lie beside the assembled weights.
        for name, path in plan.files.items():
            if path.is_file():
                shutil.copyfile(path, Path(folder) / name)
        for name, data in made_files(plan).items():
            (Path(folder) / name).write_bytes(data)
        tokenizer_files = any((Path(folder) / name).is_file() for name in FILES)
        model.config.save_pretrained(folder)
        if (Path(folder) / "generation_config.json").is_file():
            _set_generation(model, Path(folder))
        tokenizer, why = _tokenizer(Path(folder)) if tokenizer_files else (None, _NONE)
    return _subject(model, tokenizer, why, ModelConfig.of(plan.config), device, start)


def from_checkpoint(checkpoint: Checkpoint, device: str = "auto", *, any_class: bool = False) -> Subject:
    """A checkpoint from disk; see `load.load_checkpoint` for `any_class` and what is raised."""
    device = pick_device(device)
    transformers()  # the library's own start is not the model's
    start = time.perf_counter()
    model = load_checkpoint(checkpoint, device, any_class=any_class)
    assert checkpoint.config is not None
    tokenizer, why = _tokenizer(checkpoint.folder) if checkpoint.tokenizer.digest else (None, _NONE)
    return _subject(model, tokenizer, why, checkpoint.config, device, start)


_NONE = "it has no tokenizer files"


def _tokenizer(folder: Path) -> tuple[Any, str]:
    try:
        return load_tokenizer(folder), ""
    except InputError as error:
        return None, f"{error.what} ({error.why})"


def _set_generation(model: Any, folder: Path) -> None:
    try:
        model.generation_config = transformers().GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception:
        # A generation config that transformers refuses is ignored by from_pretrained as well.
        return


def _subject(model: Any, tokenizer: Any, why: str, config: ModelConfig, device: str, start: float) -> Subject:
    return Subject(
        model=model,
        tokenizer=tokenizer,
        why_no_tokenizer=why,
        context=config.context,
        stops=_stops(model),
        layers=config.depth or 0,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        device=device,
        seconds=time.perf_counter() - start,
    )


def _stops(model: Any) -> frozenset[int]:
    """End-of-text ids: the generation config's, else the config's; one id or a list."""
    for config in (getattr(model, "generation_config", None), model.config, model.config.get_text_config()):
        value = getattr(config, "eos_token_id", None)
        if isinstance(value, int):
            return frozenset({value})
        if isinstance(value, (list, tuple)) and value:
            return frozenset(item for item in value if isinstance(item, int))
    return frozenset()
