"""Which tensor of a base an adapter's tensors are for: names, storage, tied heads, grown tables, misfits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint import TensorEntry, open_checkpoint
from surgeon.checkpoint.adapter.adapter_targets import Change, Patch, fitted
from surgeon.checkpoint.adapter.lora import open_adapter
from surgeon.errors import InputError
from tests.support.sparse import Spec, llama_tensors, sparse_checkpoint, sparse_file, sparse_llama

VOCAB, HIDDEN, INNER = 64, 16, 32
LAYER = "model.layers.0."
Shapes = dict[str, tuple[int, ...]]


def pair(module: str, out: int, inside: int, rank: int = 4) -> Shapes:
    return {f"{module}.lora_A.weight": (rank, inside), f"{module}.lora_B.weight": (out, rank)}


def rows(module: str, tokens: int = VOCAB, rank: int = 4) -> Shapes:
    return {f"{module}.lora_embedding_A": (rank, tokens), f"{module}.lora_embedding_B": (HIDDEN, rank)}


Q = pair(f"{LAYER}self_attn.q_proj", HIDDEN, HIDDEN)


def adapter(folder: Path, shapes: Shapes, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "org/base"} | config
    (folder / "adapter_config.json").write_text(json.dumps(table))
    spec = {f"base_model.model.{name}": ("F32", shape) for name, shape in shapes.items()}
    sparse_file(folder / "adapter_model.safetensors", spec)
    return folder


def fit(base: Path, shapes: Shapes, **config: Any) -> Mapping[str, Change]:
    return fitted(open_adapter(adapter(base.parent / "adapter", shapes, **config)), open_checkpoint(str(base)))


def refusal(base: Path, shapes: Shapes, **config: Any) -> str:
    with pytest.raises(InputError) as caught:
        fit(base, shapes, **config)
    return caught.value.sentence()


def kind(change: Change) -> str:
    """`sum`, `transposed`, or where a whole tensor comes from, or both."""
    if isinstance(change, TensorEntry):
        return f"{change.file.parent.name}:{change.name.removeprefix('base_model.model.')}"
    name = "transposed" if change.transposed else "sum"
    return f"{name} on {kind(change.whole)}" if change.whole else name


def kinds(found: Mapping[str, Change]) -> dict[str, str]:
    return {name: kind(change) for name, change in found.items()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return sparse_llama(tmp_path / "base", bias=True)


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    return sparse_llama(tmp_path / "base", tied=True, model_type="qwen2")


def test_sums_and_whole_tensors(base: Path) -> None:
    shapes = {
        **Q,
        **pair("model.layers.1.mlp.down_proj", HIDDEN, INNER, 2),
        **rows("model.embed_tokens"),
        "model.layers.1.self_attn.q_proj.base_layer.bias": (HIDDEN,),
        "model.norm.weight": (HIDDEN,),
    }
    found = fit(base, shapes, rank_pattern={"down_proj": 2})
    assert kinds(found) == {
        f"{LAYER}self_attn.q_proj.weight": "sum",
        "model.layers.1.mlp.down_proj.weight": "sum",
        "model.embed_tokens.weight": "transposed",
        "model.layers.1.self_attn.q_proj.bias": "adapter:model.layers.1.self_attn.q_proj.base_layer.bias",
        "model.norm.weight": "adapter:model.norm.weight",
    }
    patch = found["model.layers.1.mlp.down_proj.weight"]
    assert isinstance(patch, Patch)
    assert (patch.down.shape, patch.up.shape, patch.factor, patch.magnitude) == ((2, INNER), (HIDDEN, 2), 4.0, None)


def test_a_sum_on_a_stored_tensor(base: Path) -> None:
    shapes = {**rows("model.embed_tokens"), "model.embed_tokens.base_layer.weight": (VOCAB, HIDDEN)}
    assert kinds(fit(base, shapes)) == {
        "model.embed_tokens.weight": "transposed on adapter:model.embed_tokens.base_layer.weight"
    }


@pytest.mark.parametrize("stored", ["model.", "model.language_model.", "language_model.model.", ""])
@pytest.mark.parametrize("trained", ["model.", "model.language_model.", "language_model.model.", "base_model.", ""])
def test_names_wrapped_otherwise(tmp_path: Path, stored: str, trained: str) -> None:
    spec: Spec = llama_tensors(
        layers=1, hidden=HIDDEN, heads=4, kv_heads=2, intermediate=INNER, vocab=VOCAB, prefix=stored
    )
    base = sparse_checkpoint(tmp_path / "base", spec, {"model_type": "llama", "num_hidden_layers": 1})
    shapes = {**pair(f"{trained}layers.0.self_attn.q_proj", HIDDEN, HIDDEN), f"{trained}norm.weight": (HIDDEN,)}
    assert list(fit(base, shapes)) == [f"{stored}layers.0.self_attn.q_proj.weight", f"{stored}norm.weight"]
    head = fit(base, pair("language_model.lm_head", VOCAB, HIDDEN))
    assert list(head) == ["lm_head.weight"]


def test_names_that_could_be_for_two(tmp_path: Path) -> None:
    names = ("model.embed_tokens.weight", "model.layers.0.q.weight", "transformer.layers.0.q.weight")
    spec: Spec = dict.fromkeys(names, ("F32", (HIDDEN, HIDDEN)))
    base = sparse_checkpoint(tmp_path / "base", spec, {"model_type": "llama", "num_hidden_layers": 1})
    assert list(fit(base, pair("model.layers.0.q", HIDDEN, HIDDEN))) == ["model.layers.0.q.weight"]
    sentence = refusal(base, pair("layers.0.q", HIDDEN, HIDDEN))
    assert "layers.0.q.lora_A.weight" in sentence
    assert "'model.layers.0.q.weight' or for 'transformer.layers.0.q.weight'" in sentence


def test_another_tower_is_not_taken_for_the_decoder(tmp_path: Path) -> None:
    spec: Spec = {
        "model.language_model.embed_tokens.weight": ("F32", (VOCAB, HIDDEN)),
        "model.language_model.layers.0.self_attn.qkv.weight": ("F32", (HIDDEN, HIDDEN)),
        "model.vision_tower.layers.0.self_attn.q_proj.weight": ("F32", (HIDDEN, HIDDEN)),
    }
    base = sparse_checkpoint(tmp_path / "base", spec, {"model_type": "llama", "num_hidden_layers": 1})
    assert "matches no tensor" in refusal(base, Q)
    tower = pair("vision_tower.layers.0.self_attn.q_proj", HIDDEN, HIDDEN)
    assert list(fit(base, tower)) == ["model.vision_tower.layers.0.self_attn.q_proj.weight"]


def test_a_head_by_its_name_in_the_file(tmp_path: Path) -> None:
    spec: Spec = {
        "gpt_neox.embed_in.weight": ("F32", (VOCAB, HIDDEN)),
        "gpt_neox.layers.0.attention.dense.weight": ("F32", (HIDDEN, HIDDEN)),
        "embed_out.weight": ("F32", (VOCAB, HIDDEN)),
    }
    base = sparse_checkpoint(tmp_path / "base", spec, {"model_type": "gpt_neox", "num_hidden_layers": 1})
    assert kinds(fit(base, pair("lm_head", VOCAB, HIDDEN))) == {"embed_out.weight": "sum"}


@pytest.mark.parametrize(
    ("model_type", "flag", "wide", "square", "head"),
    [
        ("gpt2", True, "transposed", "transposed", "sum"),
        ("gpt2", False, "transposed", "transposed", "sum"),  # peft's flag says what the last module was: the head
        ("llama", True, None, "sum", "sum"),
        ("llama", False, None, "sum", "sum"),
        ("unheard-of", True, "transposed", "transposed", "sum"),
        ("unheard-of", False, "transposed", "sum", "sum"),
        (None, True, "transposed", "transposed", "sum"),
    ],
)
def test_how_matrices_are_stored(
    tmp_path: Path, model_type: str | None, flag: bool, wide: str | None, square: str, head: str
) -> None:
    spec: Spec = {
        "wte.weight": ("F32", (VOCAB, HIDDEN)),
        "h.0.attn.c_attn.weight": ("F32", (HIDDEN, 3 * HIDDEN)),
        "h.0.attn.c_proj.weight": ("F32", (HIDDEN, HIDDEN)),
        "lm_head.weight": ("F32", (VOCAB, HIDDEN)),
    }
    config = {"model_type": model_type, "n_layer": 1, "tie_word_embeddings": False}
    base = sparse_checkpoint(tmp_path / "base", spec, config if model_type else None)
    found = fit(base, pair("transformer.h.0.attn.c_proj", HIDDEN, HIDDEN), fan_in_fan_out=flag)
    assert kinds(found) == {"h.0.attn.c_proj.weight": square}
    assert kinds(fit(base, pair("lm_head", VOCAB, HIDDEN), fan_in_fan_out=flag)) == {"lm_head.weight": head}
    attention = pair("transformer.h.0.attn.c_attn", 3 * HIDDEN, HIDDEN)
    if wide:
        assert kinds(fit(base, attention, fan_in_fan_out=flag)) == {"h.0.attn.c_attn.weight": wide}
    else:
        assert "is for shape [48, 16]" in refusal(base, attention, fan_in_fan_out=flag)


TABLE, HEAD = "model.embed_tokens", "lm_head"
ROWS, HEAD_ROWS = rows(TABLE), pair(HEAD, VOCAB, HIDDEN)


@pytest.mark.parametrize(
    ("shapes", "config", "expected"),
    [
        # One of the two is adapted: the other stays what it was, as peft runs it.
        (ROWS, {}, ("transposed", "base:model.embed_tokens.weight")),
        (HEAD_ROWS, {}, (None, "sum on base:model.embed_tokens.weight")),
        (ROWS | HEAD_ROWS, {}, ("transposed", "sum on base:model.embed_tokens.weight")),
        # Unless the adapter is tied like the base.
        (ROWS, {"ensure_weight_tying": True}, ("transposed", None)),
        (ROWS | HEAD_ROWS, {"ensure_weight_tying": True}, ("transposed", None)),
        # Trained in full: copies of their own.
        (
            {f"{TABLE}.weight": (VOCAB, HIDDEN)},
            {"modules_to_save": ["embed_tokens"]},
            ("adapter:model.embed_tokens.weight", "base:model.embed_tokens.weight"),
        ),
        (
            {f"{TABLE}.weight": (VOCAB, HIDDEN), f"{HEAD}.weight": (VOCAB, HIDDEN)},
            {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
            ("adapter:model.embed_tokens.weight", None),
        ),
        (
            {f"{HEAD}.weight": (VOCAB, HIDDEN)},
            {"modules_to_save": ["lm_head"]},
            (None, "adapter:lm_head.weight"),
        ),
        (
            {f"{TABLE}.weight": (VOCAB, HIDDEN), f"{HEAD}.weight": (VOCAB, HIDDEN)},
            {"modules_to_save": ["embed_tokens", "lm_head"]},
            ("adapter:model.embed_tokens.weight", "adapter:lm_head.weight"),
        ),
        # Stored along, not trained: both share it.
        ({f"{TABLE}.weight": (VOCAB + 2, HIDDEN)}, {}, ("adapter:model.embed_tokens.weight", None)),
        (
            {f"{TABLE}.weight": (VOCAB + 2, HIDDEN), f"{HEAD}.weight": (VOCAB + 2, HIDDEN)},
            {},
            ("adapter:model.embed_tokens.weight", None),
        ),
        (
            {**rows(TABLE, VOCAB + 2), f"{TABLE}.base_layer.weight": (VOCAB + 2, HIDDEN)},
            {},
            (
                "transposed on adapter:model.embed_tokens.base_layer.weight",
                "adapter:model.embed_tokens.base_layer.weight",
            ),
        ),
        (
            {**pair(HEAD, VOCAB + 2, HIDDEN), f"{HEAD}.base_layer.weight": (VOCAB + 2, HIDDEN)},
            {},
            ("adapter:lm_head.base_layer.weight", "sum on adapter:lm_head.base_layer.weight"),
        ),
        # Grown and trained: the other is what it had been before, if that is stored, and else follows.
        (
            {f"{TABLE}.weight": (VOCAB + 2, HIDDEN)},
            {"modules_to_save": ["embed_tokens"]},
            ("adapter:model.embed_tokens.weight", None),
        ),
        (
            {f"{TABLE}.{part}weight": (VOCAB + 2, HIDDEN) for part in ("", "modules_to_save.", "original_module.")},
            {"modules_to_save": ["embed_tokens"]},
            ("adapter:model.embed_tokens.weight", "adapter:model.embed_tokens.original_module.weight"),
        ),
        (Q, {}, (None, None)),
    ],
)
def test_a_tied_base(
    tied: Path, shapes: Shapes, config: dict[str, Any], expected: tuple[str | None, str | None]
) -> None:
    assert "lm_head.weight" not in open_checkpoint(str(tied)).tensors
    found = kinds(fit(tied, shapes, **config))
    assert (found.get(f"{TABLE}.weight"), found.get(f"{HEAD}.weight")) == expected


def test_stored_tables_that_differ_are_not_tied(tied: Path) -> None:
    shapes = {f"{TABLE}.weight": (VOCAB + 2, HIDDEN), f"{HEAD}.weight": (VOCAB + 2, HIDDEN)}
    folder = adapter(tied.parent / "adapter", shapes)  # type: ignore[arg-type]
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    found = kinds(fitted(open_adapter(folder), open_checkpoint(str(tied))))
    assert found == {f"{name}.weight": f"adapter:{name}.weight" for name in (TABLE, HEAD)}


def test_tables_that_have_grown_together(base: Path) -> None:
    shapes = {f"{TABLE}.weight": (VOCAB + 2, HIDDEN), f"{HEAD}.weight": (VOCAB + 2, HIDDEN)}
    found = fit(base, shapes, modules_to_save=["embed_tokens", "lm_head"])  # type: ignore[arg-type]
    assert [change.shape for change in found.values() if isinstance(change, TensorEntry)] == [(VOCAB + 2, HIDDEN)] * 2


@pytest.mark.parametrize(
    ("shapes", "fragments"),
    [
        ({f"{TABLE}.weight": (66, HIDDEN)}, ["'model.embed_tokens.weight' 66 rows", "'lm_head.weight' has 64"]),
        ({f"{HEAD}.weight": (66, HIDDEN)}, ["'lm_head.weight' 66 rows", "'model.embed_tokens.weight' has 64"]),
        ({f"{TABLE}.weight": (65, HIDDEN), f"{HEAD}.weight": (66, HIDDEN)}, ["65 rows", "has 66"]),
        ({f"{TABLE}.weight": (VOCAB, 8)}, ["has shape [64, 8]", "of the base has [64, 16]", "do not match"]),
        ({"model.norm.weight": (17,)}, ["model.norm.weight", "[17]", "[16]"]),
        (rows(TABLE, 66), ["lora_embedding_A", "is for shape [66, 16]", "has [64, 16]"]),
        (
            {f"{LAYER}self_attn.q_proj.lora_A.weight": (4, 24), f"{LAYER}self_attn.q_proj.lora_B.weight": (16, 4)},
            ["q_proj.lora_A.weight", "[16, 24]", "'model.layers.0.self_attn.q_proj.weight'", "'org/base'"],
        ),
        (pair(f"{LAYER}self_attn.k_proj", 16, 8), ["k_proj", "is for shape [16, 8]", "has [8, 16]"]),
        (
            pair("model.layers.4.self_attn.q_proj", 16, 16),
            ["model.layers.4.self_attn.q_proj.lora_A.weight", "no tensor"],
        ),
        (pair("score", 2, 16), ["score.lora_A.weight", "matches no tensor"]),
        ({"score.weight": (2, 16)}, ["score.weight", "matches no tensor"]),
        (pair(f"{LAYER}self_attn.q_proj", 16, 16, 8), ["has shape [8, 16]", "rank 4"]),
        (
            {f"{LAYER}self_attn.q_proj.lora_A.weight": (4, 16), f"{LAYER}self_attn.q_proj.lora_B.weight": (16, 8)},
            ["lora_B.weight", "has shape [16, 8]", "rank 4"],
        ),
        (
            {f"{LAYER}mlp.up_proj.lora_A.weight": (4, 16, 3), f"{LAYER}mlp.up_proj.lora_B.weight": (16, 4, 1)},
            ["only matrices"],
        ),
        ({**Q, **pair("layers.0.self_attn.q_proj", 16, 16)}, ["layers.0.self_attn.q_proj.lora_A", "are both for"]),
        ({"model.norm.weight": (16,), "norm.weight": (16,)}, ["are both for 'model.norm.weight'"]),
    ],
)
def test_what_does_not_fit(base: Path, shapes: Shapes, fragments: list[str]) -> None:
    sentence = refusal(base, shapes, modules_to_save=["embed_tokens", "lm_head"])
    assert str(base.parent / "adapter") in sentence
    for fragment in fragments:
        assert fragment in sentence


def test_a_head_of_several_tensors(tmp_path: Path) -> None:
    spec: Spec = {
        **llama_tensors(layers=1, hidden=HIDDEN, heads=4, kv_heads=2, intermediate=INNER, vocab=VOCAB),
        "lm_head.bias": ("BF16", (VOCAB,)),
        "lm_head.norm.weight": ("BF16", (HIDDEN,)),
        "lm_head.scale": ("BF16", ()),
    }
    base = sparse_checkpoint(tmp_path / "base", spec, {"model_type": "llama", "num_hidden_layers": 1})
    grown: Shapes = {f"{name}.weight": (VOCAB + 2, HIDDEN) for name in (TABLE, HEAD)}
    assert len(fit(base, {**grown, "lm_head.bias": (VOCAB + 2,), "lm_head.scale": ()})) == 4
    assert "'lm_head.bias' has 64" in refusal(base, grown)
    assert "'lm_head.weight' 66 rows" in refusal(base, {"lm_head.weight": (66, HIDDEN), "lm_head.bias": (66,)})
    assert "'lm_head.norm.weight' of the base has [16]" in refusal(base, {"lm_head.norm.weight": (17,)})
    assert "'lm_head.scale' of the base has []" in refusal(base, {"lm_head.scale": (1,)})


def test_magnitudes_that_do_not_fit(base: Path) -> None:
    shapes = {**pair(f"{LAYER}mlp.up_proj", INNER, HIDDEN), f"{LAYER}mlp.up_proj.lora_magnitude_vector": (HIDDEN,)}
    assert "lora_magnitude_vector' of the adapter has shape [16]" in refusal(base, shapes, use_dora=True)


def test_the_first_tensor_is_named(base: Path) -> None:
    shapes = {**Q, **pair("model.layers.7.a", 16, 16), **pair("model.layers.6.b", 16, 16)}
    assert "model.layers.7.a.lora_A.weight" in refusal(base, shapes)


def test_quantised_bases(tmp_path: Path) -> None:
    name = f"{LAYER}self_attn.q_proj"
    table = ("BF16", (VOCAB, HIDDEN))
    spec: Spec = {"model.embed_tokens.weight": table, f"{name}.weight": ("F8_E4M3", (HIDDEN, HIDDEN))}
    base = sparse_checkpoint(tmp_path / "base", spec, {"model_type": "llama", "num_hidden_layers": 1})
    assert f"{name}.lora_A.weight' cannot be merged" in refusal(base, Q)
    spec = {
        "model.embed_tokens.weight": table,
        f"{name}.qweight": ("I32", (2, HIDDEN)),
        f"{name}.qzeros": ("I32", (1, 2)),
    }
    other = sparse_checkpoint(tmp_path / "other", spec, {"model_type": "llama", "num_hidden_layers": 1})
    sentence = refusal(other, Q)
    assert "is quantised (GPTQ or AWQ)" in sentence and "16 bits" in sentence


def test_names_cannot_drive_a_terminal(base: Path) -> None:
    sentence = refusal(base, {"evil\x1b[2J.weight": (1,)}, base_model_name_or_path="org\x1b[2J/base")
    assert "\x1b" not in sentence and "evil" in sentence
