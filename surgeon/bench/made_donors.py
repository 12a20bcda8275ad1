"""Generated donors: TinyLlama's shape at any size, a base with random weights, and fine-tunes with added noise."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..assemble.compute.stored_reader import raw
from ..checkpoint.locate import INDEX, SINGLE
from ..errors import SurgeonError
from ..files import write_atomic
from ..machine import cores

if TYPE_CHECKING:
    import torch

NAMES = ("base", "tune-1", "tune-2")
SHARD = 500_000_000
"""Maximum bytes per weight file of a donor."""

_PIECE = 1 << 20
"""Elements drawn at a time."""
_SPREAD, _NOISE = 0.02, 0.001
"""Standard deviations of the weights, and of the difference between fine-tune and base."""
_MARK = "bench.json"
_HEADS = 32
_WIDTH = 2
"""Bytes per bfloat16 element."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama model. The default is TinyLlama-1.1B (https://huggingface.co/TinyLlama)."""

    layers: int = 22
    hidden: int = 2048
    intermediate: int = 5632
    heads: int = 32
    kv_heads: int = 4
    vocab: int = 32000

    @classmethod
    def near(cls, nbytes: int) -> Shape:
        """The shape with about `nbytes` bytes: TinyLlama with more or fewer layers; for small sizes also narrower."""
        halvings = 0
        while _shrunk(halvings).nbytes > nbytes and 2 << halvings <= _HEADS:
            halvings += 1
        one, two = _shrunk(halvings), _shrunk(halvings, 2)
        layers = round((nbytes - one.nbytes) / (two.nbytes - one.nbytes)) + 1
        return _shrunk(halvings, max(2, layers))

    @property
    def _layer(self) -> dict[str, tuple[int, ...]]:
        hidden, inner, head = self.hidden, self.intermediate, self.hidden // self.heads
        return {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (self.kv_heads * head, hidden),
            "self_attn.v_proj": (self.kv_heads * head, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all tensors, as in transformers."""
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, self.hidden)}
        for index in range(self.layers):
            found |= {f"model.layers.{index}.{name}.weight": shape for name, shape in self._layer.items()}
        return found | {"model.norm.weight": (self.hidden,), "lm_head.weight": (self.vocab, self.hidden)}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in bfloat16."""
        layers = self.layers * sum(map(prod, self._layer.values()))
        return (layers + (2 * self.vocab + 1) * self.hidden) * _WIDTH

    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "bos_token_id": 1,
            "eos_token_id": 2,
        }


def _shrunk(halvings: int, layers: int = 1) -> Shape:
    """TinyLlama's shape with every width halved `halvings` times."""
    full = Shape()
    widths = (full.hidden, full.intermediate, full.heads, full.kv_heads, full.vocab)
    return Shape(layers, *(max(1, width >> halvings) for width in widths))


@dataclass(frozen=True)
class MadeDonors:
    """Checkpoints of one shape, in subfolders of `folder` named as in `NAMES`."""

    folder: Path
    shape: Shape

    def path(self, name: str) -> Path:
        """A donor's folder."""
        return self.folder / name

    def files(self, name: str) -> list[Path]:
        """A donor's weight files."""
        return sorted(self.path(name).glob("*.safetensors"))

    @property
    def missing(self) -> int:
        """Bytes that `make` would write."""
        return sum(self.shape.nbytes for name in NAMES if not self._whole(name))

    def make(self, on_event: Callable[[dict[str, Any]], object]) -> None:
        """Write the donors that are missing or incomplete. `on_event` is called before each.

        Raises:
            SurgeonError: a donor cannot be written.
        """
        for number, name in enumerate(NAMES):
            if not self._whole(name):
                on_event({"event": "donor", "name": name, "bytes": self.shape.nbytes})
                try:
                    self._write(name, seed=number, base=None if number == 0 else self.path(NAMES[0]))
                except OSError as error:
                    raise SurgeonError(
                        f"cannot write a donor: {error.strerror or error}", where=str(self.path(name))
                    ) from error

    def _spec(self) -> str:
        return json.dumps({**asdict(self.shape), "shard": SHARD, "spread": _SPREAD, "noise": _NOISE})

    def _whole(self, name: str) -> bool:
        try:
            held = sum(path.stat().st_size for path in self.files(name))
            return (self.path(name) / _MARK).read_text(encoding="utf-8") == self._spec() and held > self.shape.nbytes
        except OSError:
            return False

    def _write(self, name: str, seed: int, base: Path | None) -> None:
        import torch

        folder = self.path(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).unlink(missing_ok=True)
        shards, before = list(_shards(self.shape)), torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(cores()) as pool:
                for done in [pool.submit(_write_shard, folder, shard, seed, base) for shard in shards]:
                    done.result()
        finally:
            torch.set_num_threads(before)
        if len(shards) > 1:
            weight_map = {tensor: shard.name for shard in shards for tensor in shard.tensors}
            document = {"metadata": {"total_size": self.shape.nbytes}, "weight_map": weight_map}
            (folder / INDEX).write_text(json.dumps(document), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(self.shape.config(), indent=2), encoding="utf-8")
        write_atomic(folder / _MARK, self._spec())


@dataclass(frozen=True)
class _Shard:
    name: str
    first: int
    tensors: dict[str, tuple[int, ...]]
    """Names and shapes of the file's tensors; `first` is the index of its first tensor within the model."""

    @property
    def header(self) -> bytes:
        table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        position = 0
        for name, shape in self.tensors.items():
            stop = position + prod(shape) * _WIDTH
            table[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, stop]}
            position = stop
        text = json.dumps(table).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def _shards(shape: Shape) -> Iterator[_Shard]:
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    held = 0
    for name, dimensions in shape.tensors().items():
        nbytes = prod(dimensions) * _WIDTH
        if groups[-1] and held + nbytes > SHARD:
            groups.append({})
            held = 0
        groups[-1][name] = dimensions
        held += nbytes
    first = 0
    for number, group in enumerate(groups, start=1):
        yield _Shard(
            SINGLE if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors", first, group
        )
        first += len(group)


def _write_shard(folder: Path, shard: _Shard, seed: int, base: Path | None) -> None:
    """Write one weight file: random values, or those of the base's file with the same name plus noise."""
    import torch

    values, noise = torch.empty(_PIECE), torch.empty(_PIECE)
    rounded = torch.empty(_PIECE, dtype=torch.bfloat16)
    with (
        (folder / shard.name).open("wb") as out,
        (base / shard.name if base else Path(os.devnull)).open("rb") as source,
    ):
        out.write(shard.header)
        source.seek(len(shard.header))
        for number, shape in enumerate(shard.tensors.values(), start=shard.first):
            generator = torch.Generator().manual_seed(seed << 32 | number)
            for start in range(0, prod(shape), _PIECE):
                count = min(_PIECE, prod(shape) - start)
                piece, data = values[:count], raw(rounded[:count])
                if base:
                    source.readinto(data)
                    piece.copy_(rounded[:count]).add_(_normal(noise[:count], _NOISE, generator))
                else:
                    _normal(piece, _SPREAD, generator)
                rounded[:count].copy_(piece)
                out.write(data)


def _normal(out: torch.Tensor, spread: float, generator: torch.Generator) -> torch.Tensor:
    return out.normal_(0.0, spread, generator=generator)
