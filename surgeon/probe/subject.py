"""The subject of a probe: a model in memory with its tokenizer, from a plan or from disk."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..assemble.files.small_files import made_files
from ..assemble.gpu.device import pick_device
from ..checkpoint import Checkpoint
from ..checkpoint.families.model_config import ModelConfig
from ..checkpoint.tokenizer.tokenizer_identity import FILES
from ..errors import InputError
from ..plan.model import Plan
from .chat_template import has_template, render
from .environment import transformers
from .load import load_checkpoint, load_tokenizer
from .unwritten_model import build_with
from .weights import file_states

if TYPE_CHECKING:
    from .weights import Computed

REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Subject:
    """A loaded model.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer; None without one.
        why_no_tokenizer: the reason if there is no tokenizer.
        context: number of positions that the model supports; None if its config does not state it.
        stops: token ids that end a text.
        layers: number of layers.
        parameters: number of elements; a repeated layer counts each time, a tied head once.
        dtype: torch's name of its dtype.
        device: torch's name of its device.
        seconds: time of loading.
        computed: the tensors that were computed for it, for other models that need the same.
        tokenizer_key: everything that the tokenizer depends on; None if it may not be shared.
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
    computed: Computed = field(default_factory=dict)
    tokenizer_key: Any = None

    def storages(self) -> dict[int, int]:
        """Address -> bytes of every block of memory that the weights lie in."""
        tensors = (*self.model.parameters(), *self.model.buffers(), *self.computed.values())
        blocks = (tensor.untyped_storage() for tensor in tensors)
        return {block.data_ptr(): block.nbytes() for block in blocks}

    @property
    def vocabulary(self) -> int:
        """Number of rows of the embedding; the model can read token ids below it."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def chat(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return has_template(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the tokenizer's special tokens except those that end a text.

        Raises:
            InputError: there is no tokenizer, the text has no tokens or a lone surrogate, or the embedding has no row
                for a token.
        """
        ids = self._ids(text, special=True)
        while len(ids) > 1 and ids[-1] in self.stops:
            ids.pop()
        return self._checked(ids)

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of a text that continues another one, without special tokens; raises as `encode`."""
        return self._checked(self._ids(text, special=False))

    def encode_chats(self, prompts: Sequence[tuple[str, str | None]]) -> list[list[int]]:
        """Token ids of chats that ask for an answer; no special token is added to those of the chat template.

        Args:
            prompts: pairs of a user's message and the system's (None for none).

        Raises:
            InputError: as `encode`, or there is no chat template, or it cannot be applied.
        """
        if self.tokenizer is None:
            raise InputError("the model cannot read text", why=self.why_no_tokenizer)
        if not self.chat:
            raise InputError("the model takes no chat", why="its tokenizer has no chat template")
        return [self._checked(self._ids(text, special=False)) for text in render(self.tokenizer, prompts)]

    def _ids(self, text: str, *, special: bool) -> list[int]:
        if self.tokenizer is None:
            raise InputError("the model cannot read text", why=self.why_no_tokenizer)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                "the text cannot be encoded",
                why=f"character {error.start + 1:,} is half of a surrogate pair, which is no character",
                remedy="remove it from the prompt, the text or the chat template",
            ) from error
        return [int(token) for token in self.tokenizer(text, add_special_tokens=special)["input_ids"]]

    def _checked(self, ids: list[int]) -> list[int]:
        if not ids:
            raise InputError("the text has no tokens", remedy="use a longer text")
        if max(ids) >= self.vocabulary:
            raise InputError(
                f"token {max(ids)} is not in the embedding, which has {self.vocabulary} rows",
                why="tokenizer and embedding do not fit together",
            )
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def from_plan(plan: Plan, device: str = "auto", earlier: Sequence[Subject] = ()) -> Subject:
    """The model of a plan, in memory; raises the errors of `unwritten_model.build`.

    Args:
        earlier: other loaded models; what this one has in common with them is not made again.
    """
    device = pick_device(device)
    transformers()  # imported before the clock starts
    start = time.perf_counter()
    model, computed = build_with(plan, device, [other.computed for other in earlier])
    assert plan.config is not None
    key = _tokenizer_key(plan)
    same = next((other for other in earlier if other.tokenizer_key == key), None)
    with tempfile.TemporaryDirectory() as folder:
        # The same small files as in the assembled output.
        for name, path in plan.files.items():
            if path.is_file():
                shutil.copyfile(path, Path(folder) / name)
        for name, data in made_files(plan).items():
            (Path(folder) / name).write_bytes(data)
        tokenizer_files = any((Path(folder) / name).is_file() for name in FILES)
        model.config.save_pretrained(folder)
        if (Path(folder) / "generation_config.json").is_file():
            _set_generation(model, Path(folder))
        if same is not None:
            tokenizer, why = same.tokenizer, same.why_no_tokenizer
        else:
            tokenizer, why = _tokenizer(Path(folder)) if tokenizer_files else (None, _NONE)
    subject = _subject(model, tokenizer, why, ModelConfig.of(plan.config), device, start)
    return replace(subject, computed=computed, tokenizer_key=key)


def _tokenizer_key(plan: Plan) -> Any:
    """Everything that the tokenizer of a plan depends on: its files, and what transformers reads of the config."""
    assert plan.config is not None
    files = {path for name, path in plan.files.items() if name in FILES}
    files |= {path for donor in plan.donors.values() for path in donor.checkpoint.tokenizer.files}
    words = {key: value for key, value in plan.config.items() if isinstance(value, str)}
    return plan.tokenizer, file_states(files), words, plan.config.get("architectures"), sorted(plan.files)


def from_checkpoint(checkpoint: Checkpoint, device: str = "auto", *, any_class: bool = False) -> Subject:
    """A checkpoint from disk; see `load.load_checkpoint` for `any_class` and what is raised."""
    device = pick_device(device)
    transformers()  # imported before the clock starts
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
        # from_pretrained also ignores a generation config that transformers refuses.
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
