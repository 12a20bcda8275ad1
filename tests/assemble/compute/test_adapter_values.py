"""What adapters make of real checkpoints, against the formulas in float64.

peft 0.21 computes the same for adapters like these: tensors of `merge_and_unload` and logits of the unmerged model
agree to 1e-14 in float64, apart from the merge of tied heads (see `fitted`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.adapters import (
    ALPHA,
    PREFIX,
    RANK,
    Tensors,
    computed,
    low_rank,
    low_rank_rows,
    noise,
    weights,
    write_adapter,
)
from tests.support.models import HIDDEN, VOCAB, one_thread, tiny_model

if TYPE_CHECKING:
    import torch

INNER = 64
LAYER = "model.layers.1."
BLOCK = "transformer.h.1."


@pytest.fixture(scope="module", autouse=True)
def quick() -> Any:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llama"), "llama", 2, dtype="bfloat16")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("gpt2"), "gpt2", 2, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("qwen2"), "qwen2", 2, tie_word_embeddings=True)


def factors(tensors: Tensors, module: str, kind: str = "lora_") -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of a module, float64."""
    one, other = (
        next(tensor for name, tensor in tensors.items() if name.startswith(f"{PREFIX}{module}.{kind}{half}"))
        for half in ("A", "B")
    )
    return one.double(), other.double()


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    import torch

    torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


def unlike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return float((one - other).abs().max()) > 1e-3


def test_sums_on_several_modules(tmp_path: Path, llama: Path) -> None:
    sizes = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (16, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
    tensors: Tensors = {}
    for seed, (name, (out, inside)) in enumerate(sizes.items()):
        tensors |= low_rank(LAYER + name, out, inside, seed=seed)
    before, after = weights(llama), computed(llama, write_adapter(tmp_path, tensors))
    assert set(after) == {f"{LAYER}{name}.weight" for name in sizes}
    for name in sizes:
        a, b = factors(tensors, LAYER + name)
        close(after[f"{LAYER}{name}.weight"], before[f"{LAYER}{name}.weight"] + ALPHA / RANK * (b @ a))
        assert unlike(after[f"{LAYER}{name}.weight"], before[f"{LAYER}{name}.weight"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_factors_of_other_types(tmp_path: Path, llama: Path, dtype: str) -> None:
    import torch

    tensors = {
        name: tensor.to(getattr(torch, dtype))
        for name, tensor in low_rank(f"{LAYER}mlp.up_proj", INNER, HIDDEN).items()
    }
    a, b = factors(tensors, f"{LAYER}mlp.up_proj")
    name = f"{LAYER}mlp.up_proj.weight"
    close(computed(llama, write_adapter(tmp_path, tensors))[name], weights(llama)[name] + 2 * (b @ a))


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({"use_rslora": True}, ALPHA / 6**0.5),
        ({"alpha_pattern": {r".*\.(up|gate)_proj": 3, "up_proj": 99}}, 3 / 6),
        ({"alpha_pattern": {"model.layers.0.mlp.up_proj": 3}, "use_rslora": True}, ALPHA / 6**0.5),
        ({"alpha_pattern": {"layers.1.mlp.up_proj": 3}, "use_rslora": True}, 3 / 6**0.5),
    ],
)
def test_rank_alpha_and_rslora(tmp_path: Path, llama: Path, config: dict[str, Any], factor: float) -> None:
    module = f"{LAYER}mlp.up_proj"
    tensors = low_rank(module, INNER, HIDDEN, 6)
    a, b = factors(tensors, module)
    after = computed(llama, write_adapter(tmp_path, tensors, rank_pattern={"up_proj": 6}, **config))
    close(after[f"{module}.weight"], weights(llama)[f"{module}.weight"] + factor * (b @ a))


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize(
    ("name", "out", "inside"),
    [("attn.c_attn", 3 * HIDDEN, HIDDEN), ("attn.c_proj", HIDDEN, HIDDEN), ("mlp.c_proj", HIDDEN, 4 * HIDDEN)],
)
def test_fan_in_fan_out(tmp_path: Path, gpt2: Path, name: str, out: int, inside: int, flag: bool) -> None:
    tensors = low_rank(BLOCK + name, out, inside)
    a, b = factors(tensors, BLOCK + name)
    ((stored, after),) = computed(gpt2, write_adapter(tmp_path, tensors, fan_in_fan_out=flag)).items()
    before = weights(gpt2)[stored]
    assert before.shape == (inside, out) and stored.endswith(f"h.1.{name}.weight")
    close(after, before + 2 * (b @ a).T)


def dora(whole: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """Section 4 of the paper, for (out, in): every output's weights have the length that its magnitude says."""
    return magnitude[:, None] * whole / (whole * whole).sum(1, keepdim=True).sqrt()


def test_dora(tmp_path: Path, llama: Path) -> None:
    module = f"{LAYER}mlp.gate_proj"
    tensors = low_rank(module, INNER, HIDDEN, dora=True)
    a, b = factors(tensors, module)
    magnitude = tensors[f"{PREFIX}{module}.lora_magnitude_vector"].double()
    after = computed(llama, write_adapter(tmp_path, tensors, use_dora=True, use_rslora=True))[f"{module}.weight"]
    close(after, dora(weights(llama)[f"{module}.weight"] + 4 * (b @ a), magnitude))
    close(after.norm(dim=1), magnitude.abs())


def test_dora_on_matrices_stored_in_out(tmp_path: Path, gpt2: Path) -> None:
    module = f"{BLOCK}mlp.c_fc"
    tensors = low_rank(module, 4 * HIDDEN, HIDDEN, dora=True)
    a, b = factors(tensors, module)
    magnitude = tensors[f"{PREFIX}{module}.lora_magnitude_vector"].double()
    ((stored, after),) = computed(gpt2, write_adapter(tmp_path, tensors, use_dora=True)).items()
    close(after, dora(weights(gpt2)[stored].T + 2 * (b @ a), magnitude).T)


@pytest.mark.parametrize("with_dora", [False, True])
def test_embeddings(tmp_path: Path, llama: Path, with_dora: bool) -> None:
    module = "model.embed_tokens"
    tensors = low_rank_rows(module, VOCAB, HIDDEN)
    a, b = factors(tensors, module, "lora_embedding_")
    magnitude = noise(HIDDEN) + 1
    if with_dora:
        tensors[f"{PREFIX}{module}.lora_magnitude_vector"] = magnitude
    after = computed(llama, write_adapter(tmp_path, tensors, use_dora=with_dora))
    expected = weights(llama)[f"{module}.weight"] + 2 * (b @ a).T
    close(after[f"{module}.weight"], dora(expected.T, magnitude.double()).T if with_dora else expected)
    assert len(after) == 1


def test_what_is_stored_whole(tmp_path: Path, llama: Path) -> None:
    names = {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
    tensors = {f"{PREFIX}{name}": noise(*shape) for name, shape in names.items()}
    after = computed(llama, write_adapter(tmp_path, tensors, modules_to_save=["norm", "lm_head"]))
    assert set(after) == set(names)
    for name in names:
        close(after[name], tensors[PREFIX + name].double())


@pytest.mark.parametrize("infix", ["", "base_layer."])
def test_biases(tmp_path: Path, qwen2: Path, infix: str) -> None:
    module = f"{LAYER}self_attn.q_proj"
    tensors = low_rank(module, HIDDEN, HIDDEN) | {f"{PREFIX}{module}.{infix}bias": noise(HIDDEN)}
    a, b = factors(tensors, module)
    after = computed(qwen2, write_adapter(tmp_path, tensors, bias="lora_only"))
    close(after[f"{module}.bias"], noise(HIDDEN).double())
    close(after[f"{module}.weight"], weights(qwen2)[f"{module}.weight"] + 2 * (b @ a))


def test_a_tied_head_that_is_adapted_alone(tmp_path: Path, qwen2: Path) -> None:
    tensors = low_rank("lm_head", VOCAB, HIDDEN)
    a, b = factors(tensors, "lm_head")
    table = weights(qwen2)["model.embed_tokens.weight"]
    after = computed(qwen2, write_adapter(tmp_path, tensors))
    assert set(after) == {"lm_head.weight"}
    close(after["lm_head.weight"], table + 2 * (b @ a))


def test_a_tied_embedding_that_is_adapted_alone(tmp_path: Path, qwen2: Path) -> None:
    tensors = low_rank_rows("model.embed_tokens", VOCAB, HIDDEN)
    a, b = factors(tensors, "model.embed_tokens", "lora_embedding_")
    table = weights(qwen2)["model.embed_tokens.weight"]
    after = computed(qwen2, write_adapter(tmp_path, tensors))
    close(after["model.embed_tokens.weight"], table + 2 * (b @ a).T)
    close(after["lm_head.weight"], table)


def test_a_sum_on_a_table_that_has_grown(tmp_path: Path, llama: Path) -> None:
    rows = VOCAB + 3
    tensors = low_rank_rows("model.embed_tokens", rows, HIDDEN) | low_rank("lm_head", rows, HIDDEN)
    tables = {name: noise(rows, HIDDEN, seed=7 + n) for n, name in enumerate(("model.embed_tokens", "lm_head"))}
    tensors |= {f"{PREFIX}{name}.base_layer.weight": table for name, table in tables.items()}
    after = computed(llama, write_adapter(tmp_path, tensors))
    a, b = factors(tensors, "model.embed_tokens", "lora_embedding_")
    close(after["model.embed_tokens.weight"], tables["model.embed_tokens"].double() + 2 * (b @ a).T)
    a, b = factors(tensors, "lm_head")
    close(after["lm_head.weight"], tables["lm_head"].double() + 2 * (b @ a))


def test_the_model_computes_what_base_and_adapter_compute(tmp_path: Path, llama: Path) -> None:
    """The sums as they were trained, beside the layers of the base, in a forward pass."""
    import torch
    from transformers import AutoModelForCausalLM

    modules = {f"model.layers.{index}.mlp.down_proj": (HIDDEN, INNER) for index in (0, 1)}
    tensors: Tensors = {}
    for seed, (module, (out, inside)) in enumerate(modules.items()):
        tensors |= low_rank(module, out, inside, seed=seed)
    after = computed(llama, write_adapter(tmp_path, tensors))
    ids = torch.arange(9)[None]

    def logits(model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return model(ids).logits

    beside = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float64)
    plain = logits(beside)
    for module in modules:
        a, b = factors(tensors, module)
        beside.get_submodule(module).register_forward_hook(
            lambda _, inputs, output, a=a, b=b: output + 2 * (inputs[0] @ a.T @ b.T)
        )
    merged = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float64)
    assert not merged.load_state_dict(after, strict=False).unexpected_keys
    expected = logits(beside)
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-5)
    assert unlike(expected, plain)
