"""The models that stay loaded: what they share, when they are stale, and which make room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from surgeon.plan import Donors, resolve
from surgeon.plan.operands import Blend
from surgeon.probe.model_cache import KEPT, ModelCache
from surgeon.probe.subject import Subject, from_plan
from surgeon.recipe.document import parse
from tests.support.chats import TEMPLATE, chat_model
from tests.support.models import one_thread, tiny_model

IDS = torch.tensor([[1, 5, 9, 33, 7, 250, 12]])


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate("ab"):
        chat_model(tmp_path / name, seed=seed, layers=4)
    return tmp_path


def blend(folder: Path, *ranges: tuple[int, int], method: str = "slerp", t: float = 0.3) -> str:
    sources = "".join(
        f"- sources: [{{model: {folder / 'a'}, layer_range: [{low}, {high}]}}, "
        f"{{model: {folder / 'b'}, layer_range: [{low}, {high}]}}]\n"
        for low, high in ranges
    )
    return f"merge_method: {method}\nbase_model: {folder / 'a'}\nparameters: {{t: {t}}}\nslices:\n{sources}"


def recipe(cache: ModelCache, path: Path, text: str) -> Subject:
    path.write_text(text)
    return cache.of_recipe(path, None, "cpu")


def logits(subject: Subject) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = subject.model(input_ids=IDS).logits
    return found


def addresses(subject: Subject) -> dict[int, int]:
    """Layer -> address of one of its weights."""
    return {n: layer.mlp.up_proj.weight.data_ptr() for n, layer in enumerate(subject.model.model.layers)}


def test_after_an_edit_only_what_changed_is_computed_again(folder: Path) -> None:
    cache = ModelCache()
    whole = recipe(cache, folder / "r.yml", blend(folder, (0, 4)))
    less = recipe(cache, folder / "r.yml", blend(folder, (0, 1), (2, 4)))
    # Layers 2 and 3 lie one place lower now, and are the same tensors.
    assert [addresses(less)[n] for n in range(3)] == [addresses(whole)[n] for n in (0, 2, 3)]
    assert less.tokenizer is whole.tokenizer
    other = recipe(cache, folder / "r.yml", blend(folder, (0, 4), t=0.4))
    assert not set(addresses(other).values()) & set(addresses(whole).values())
    fresh = from_plan(resolve(parse(blend(folder, (0, 1), (2, 4))), Donors()), "cpu")
    assert torch.equal(logits(less), logits(fresh))


def test_a_random_mask_is_drawn_for_the_new_place(folder: Path) -> None:
    def text(*ranges: tuple[int, int]) -> str:
        return blend(folder, *ranges, method="dare_linear").replace("{t: 0.3}", "{density: 0.5, weight: 1.0}")

    cache = ModelCache()
    whole = recipe(cache, folder / "r.yml", text((0, 4)))
    less = recipe(cache, folder / "r.yml", text((0, 1), (2, 4)))
    assert addresses(less)[0] == addresses(whole)[0] and addresses(less)[1] != addresses(whole)[2]
    assert torch.equal(logits(less), logits(from_plan(resolve(parse(text((0, 1), (2, 4))), Donors()), "cpu")))


def test_a_file_that_is_replaced_in_the_same_moment_with_the_same_size_is_read_again(folder: Path) -> None:
    cache = ModelCache()
    text = f"slices:\n- sources: [{{model: {folder / 'a'}, layer_range: [0, 4]}}]\n"
    before = recipe(cache, folder / "r.yml", text), cache.of_checkpoint(str(folder / "a"), "cpu")
    assert recipe(cache, folder / "r.yml", text) is before[0]
    assert cache.of_checkpoint(str(folder / "a"), "cpu") is before[1]
    was = (folder / "a" / "model.safetensors").stat()
    tiny_model(folder / "new", seed=7, layers=4)
    os.utime(folder / "new" / "model.safetensors", ns=(was.st_atime_ns, was.st_mtime_ns))
    (folder / "new" / "model.safetensors").replace(folder / "a" / "model.safetensors")
    now = (folder / "a" / "model.safetensors").stat()
    assert (now.st_size, now.st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    after = recipe(cache, folder / "r.yml", text), cache.of_checkpoint(str(folder / "a"), "cpu")
    for old, new in zip(before, after, strict=True):
        assert not torch.equal(logits(old), logits(new))


def test_a_blend_of_a_replaced_donor_is_computed_again(folder: Path) -> None:
    cache = ModelCache()
    before = recipe(cache, folder / "r.yml", blend(folder, (0, 4)))
    shutil.rmtree(folder / "b")
    chat_model(folder / "b", seed=9, layers=4)
    after = recipe(cache, folder / "r.yml", blend(folder, (0, 4)))
    assert not set(addresses(after).values()) & set(addresses(before).values())
    assert torch.equal(logits(after), logits(from_plan(resolve(parse(blend(folder, (0, 4))), Donors()), "cpu")))


def test_a_changed_chat_template_is_seen(folder: Path) -> None:
    cache, path = ModelCache(), folder / "a" / "chat_template.jinja"
    text = f"slices:\n- sources: [{{model: {folder / 'a'}, layer_range: [0, 4]}}]\n"

    def templates() -> list[str]:
        found = cache.of_checkpoint(str(folder / "a"), "cpu"), recipe(cache, folder / "r.yml", text)
        return [subject.tokenizer.chat_template for subject in found]

    assert templates() == [TEMPLATE] * 2
    path.write_text("{{ 1 }}")
    assert templates() == ["{{ 1 }}"] * 2
    own = recipe(cache, folder / "r.yml", text + "chat_template: \"{{ messages[0]['content'] }}\"\n")
    assert own.tokenizer.chat_template == "{{ messages[0]['content'] }}"


def test_the_models_that_were_not_used_for_longest_make_room(folder: Path) -> None:
    def load(cache: ModelCache, *depths: int) -> list[float]:
        """The depths of the models that are kept after these were used in turn."""
        for depth in depths:
            text = f"slices:\n- sources: [{{model: {folder / 'a'}, layer_range: [0, {depth}]}}]\ndtype: bfloat16\n"
            recipe(cache, folder / "r.yml", text)
        return [subject.layers for subject in cache.models.values()]

    assert KEPT == 4
    assert load(ModelCache(), 1, 2, 3, 4) == [1, 2, 3, 4]
    assert load(ModelCache(), 1, 2, 1, 3) == [2, 1, 3]
    for name in "cd":
        tiny_model(folder / name, seed=5, layers=4)
    full = ModelCache()
    load(full, 1, 2, 3, 4)
    full.of_checkpoint(str(folder / "c"), "cpu")
    assert [subject.layers for subject in full.models.values()] == [2, 3, 4, 4]
    held = full._held()
    assert sum(parameter.nbytes for parameter in full.models[next(iter(full.models))].model.parameters()) < held
    # A limit that one model fills: it is kept alone.
    small = ModelCache(limit=1)
    assert load(small, 1, 2) == [2]


def test_shared_memory_counts_once(folder: Path) -> None:
    cache = ModelCache()
    recipe(cache, folder / "r.yml", blend(folder, (0, 4)))
    alone = cache._held()
    recipe(cache, folder / "r.yml", blend(folder, (0, 3)))
    assert cache._held() < 1.2 * alone


def test_blends_of_blends_are_shared_too() -> None:
    from surgeon.checkpoint import TensorEntry
    from surgeon.plan.operands import Stored
    from surgeon.probe.weights import _seedless

    stored = Stored(TensorEntry("w", "F32", (2, 2), Path("f"), 0, 16))
    sources = []
    for seed in (1, 2):
        inner = Blend("linear", (stored, stored), None, (), ((), ()), (seed, seed), "F32")
        sources.append(Blend("slerp", (inner, stored), None, (), ((), ()), (seed, seed), "F32"))
    assert _seedless(sources[0]) == _seedless(sources[1])
    assert _seedless(Blend("della", (stored,), None, (), ((),), (1,), "F32")) != _seedless(
        Blend("della", (stored,), None, (), ((),), (2,), "F32")
    )
