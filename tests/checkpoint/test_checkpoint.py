"""Opening checkpoints: what is found where, and every folder that is refused, with its file and its reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint import Checkpoint, locate, open_checkpoint
from surgeon.errors import InputError
from tests.support.sparse import LLAMA3_70B, TINY, llama_tensors, sparse_checkpoint, sparse_file, sparse_llama

INDEX = "model.safetensors.index.json"


def refusal(ref: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(ref))
    assert caught.value.exit_code == 2
    return caught.value.sentence()


def edit_json(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text())
    document.update(changes)
    path.write_text(json.dumps(document))


def table(found: Checkpoint) -> list[int]:
    return [layer.index for layer in found.layers]


def test_a_folder_with_one_file(tmp_path: Path) -> None:
    found = open_checkpoint(str(sparse_llama(tmp_path)))
    assert table(found) == [0, 1, 2, 3] and found.depth == 4
    assert found.problems == () and found.warnings == () and not found.other
    assert found.files == (tmp_path / "model.safetensors",)
    assert found.folder == found.path == tmp_path
    assert found.layers[2].tensors["mlp.down_proj.weight"].name == "model.layers.2.mlp.down_proj.weight"
    assert found.layers[0].numel == 2 * 16 + 2 * 16 * 16 + 2 * 8 * 16 + 3 * 16 * 32
    assert found.layers[0].nbytes == 2 * found.layers[0].numel
    assert found.numel == 4 * found.layers[0].numel + 16 + 2 * 64 * 16
    assert found.nbytes == 2 * found.numel
    assert found.dtypes == {"BF16": found.nbytes}
    assert {role: list(tensors) for role, tensors in found.ends.items()} == {
        "embeddings": ["embed_tokens.weight"],
        "final_norm": ["norm.weight"],
        "lm_head": ["lm_head.weight"],
    }
    assert not found.tied and found.metadata == {"format": "pt"}


def test_shards_with_an_index(tmp_path: Path) -> None:
    whole = open_checkpoint(str(sparse_llama(tmp_path / "one")))
    found = open_checkpoint(str(sparse_llama(tmp_path / "many", shards=3)))
    assert [path.name for path in found.files] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert set(found.tensors) == set(whole.tensors)
    assert (found.numel, found.nbytes, found.depth) == (whole.numel, whole.nbytes, whole.depth)
    for name, entry in found.tensors.items():
        assert entry.file in found.files and entry.shape == whole.tensors[name].shape


def test_a_single_file_takes_the_config_beside_it(tmp_path: Path) -> None:
    sparse_llama(tmp_path)
    found = open_checkpoint(str(tmp_path / "model.safetensors"))
    assert found.path == tmp_path / "model.safetensors" and found.folder == tmp_path
    assert found.config is not None and found.depth == 4


def test_a_file_of_another_name_is_found(tmp_path: Path) -> None:
    sparse_llama(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    assert open_checkpoint(str(tmp_path)).depth == 4


def test_one_shard_alone_can_be_looked_at_but_not_spliced(tmp_path: Path) -> None:
    sparse_llama(tmp_path, shards=3)
    found = open_checkpoint(str(tmp_path / "model-00003-of-00003.safetensors"))
    assert found.layers and found.depth < 4
    assert any("config.json states 4 layers, but the files lack layer 0" in problem for problem in found.problems)


def test_paths_are_looked_for_in_the_roots_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse_llama(tmp_path / "recipes" / "A", layers=2)
    sparse_llama(tmp_path / "work" / "A", layers=3)
    sparse_llama(tmp_path / "work" / "B", layers=4)
    monkeypatch.chdir(tmp_path / "work")
    roots = (tmp_path / "recipes",)
    assert open_checkpoint("A", roots).depth == 2
    assert open_checkpoint("./A", roots).depth == 2
    assert open_checkpoint("A").depth == 3
    assert open_checkpoint("B", roots).depth == 4
    assert open_checkpoint(str(tmp_path / "work" / "A"), roots).depth == 3
    monkeypatch.setenv("HOME", str(tmp_path / "work"))
    assert open_checkpoint("~/B").depth == 4


@pytest.mark.parametrize("ref", ["nowhere", "./no/where", "a//b", "~no-such-user-here/x", "a\0b", "x" * 5000, ""])
def test_nothing_there(ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = refusal(ref)
    assert sentence.isprintable()
    assert any(text in sentence for text in ("there is no checkpoint at", "File name too long", "is empty"))


# --- the Hub's cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache with one model in two revisions, laid out as huggingface_hub does."""
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.chdir(tmp_path)
    repo = folder / "models--org--tiny.model"
    for commit, layers in (("a" * 40, 2), ("b" * 40, 3)):
        real = sparse_llama(tmp_path / "made" / commit, layers=layers, shards=2)
        snapshot = repo / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (repo / "blobs").mkdir(exist_ok=True)
        for file in real.iterdir():
            blob = repo / "blobs" / f"{commit}{file.name}"
            file.rename(blob)
            (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    (repo / "refs" / "refs" / "pr").mkdir(parents=True)
    (repo / "refs" / "main").write_text("a" * 40)
    (repo / "refs" / "refs" / "pr" / "1").write_text("b" * 40)
    return folder


def test_a_hub_id_opens_from_the_cache(cache: Path) -> None:
    found = open_checkpoint("org/tiny.model")
    assert found.depth == 2 and found.problems == ()
    assert found.ref == "org/tiny.model"
    assert found.folder == cache / "models--org--tiny.model" / "snapshots" / ("a" * 40)
    assert [path.name for path in found.files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_revision_by_branch_commit_or_pull_request(cache: Path) -> None:
    assert open_checkpoint("org/tiny.model@main").depth == 2
    assert open_checkpoint("org/tiny.model@" + "b" * 40).depth == 3
    assert open_checkpoint("org/tiny.model@refs/pr/1").depth == 3


@pytest.mark.parametrize("ref", ["org/other", "org/tiny.model@dev", "org/tiny.model@/etc", "org/tiny.model@a/b"])
def test_what_is_not_in_the_cache_says_how_to_fetch_it(cache: Path, ref: str) -> None:
    sentence = refusal(ref)
    assert "neither a folder here nor in the Hub cache" in sentence and f"surgeon inspect --download {ref}" in sentence


@pytest.mark.parametrize("ref", ["org/tiny.model@../../x", "org/tiny.model@..", "../tiny.model", "org/.."])
def test_a_revision_cannot_climb_out_of_the_cache(cache: Path, ref: str) -> None:
    assert locate.cached_snapshot("org/tiny.model@..") is None
    assert "there is no checkpoint at" in refusal(ref) or "the folder holds no safetensors" in refusal(ref)


def test_a_folder_wins_over_the_cache(cache: Path, tmp_path: Path) -> None:
    sparse_llama(tmp_path / "org" / "tiny.model", layers=5)
    assert open_checkpoint("org/tiny.model").depth == 5


def test_a_half_downloaded_snapshot_names_the_missing_shard(cache: Path) -> None:
    (cache / "models--org--tiny.model" / "snapshots" / ("a" * 40) / "model-00002-of-00002.safetensors").unlink()
    assert "names 'model-00002-of-00002.safetensors', which the folder does not hold" in refusal("org/tiny.model")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/c"}, "/c"),
        ({"HUGGINGFACE_HUB_CACHE": "/d", "HF_HOME": "/h"}, "/d"),
        ({"HF_HOME": "/h"}, "/h/hub"),
        ({"HF_HOME": "~/h"}, "/home/me/h/hub"),
        ({"HF_HOME": "$SCRATCH/h", "SCRATCH": "/s"}, "/s/h/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/huggingface/hub"),
        ({}, "/home/me/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert locate.hub_cache() == Path(expected)


@pytest.mark.parametrize(
    ("ref", "is_id"),
    [
        ("org/name", True), ("a/b@main", True), ("meta-llama/Llama-3.1-8B", True), ("a/b@refs/pr/3", True),
        ("name", False), ("./org/name", False), ("/org/name", False), ("a/b/c", False), ("../a", False),
        ("a/../b", False), ("a--b/c", False), ("a/b@", False), ("a b/c", False), ("a/b\n", False),
    ],
)  # fmt: skip
def test_what_a_hub_id_looks_like(ref: str, is_id: bool) -> None:
    assert locate.looks_like_hub_id(ref) == is_id


# --- folders that are refused


def test_an_empty_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: the folder holds no safetensors. Give the folder of a checkpoint."


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "last.ckpt"])
def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "config.json").write_text("{}")
    for ref in (tmp_path, tmp_path / name):
        sentence = refusal(ref)
        assert str(tmp_path / name) in sentence and "pickle" in sentence and "save_pretrained" in sentence


def test_pickles_beside_safetensors_do_not_matter(tmp_path: Path) -> None:
    sparse_llama(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"\x80\x02}q\x00.")
    assert open_checkpoint(str(tmp_path)).depth == 4


def test_gguf_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    assert "surgeon does not read GGUF files" in refusal(tmp_path)
    assert "surgeon does not read GGUF files" in refusal(tmp_path / "model.Q4_K_M.gguf")


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "other.safetensors", "adapter_model.bin"])
def test_an_adapter_is_named(tmp_path: Path, weights: str) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    sparse_file(tmp_path / weights, {"base_model.model.x.lora_A.weight": ("F32", (2, 2))})
    sentence = refusal(tmp_path)
    assert "LoRA adapter, not a whole checkpoint" in sentence and "base+adapter" in sentence.lower()


def test_several_files_without_an_index(tmp_path: Path) -> None:
    for name in ("a", "b"):
        sparse_file(tmp_path / f"{name}.safetensors", {name: ("F32", (1,))})
    assert f"2 safetensors files but no {INDEX}" in refusal(tmp_path)


def test_a_json_file_points_to_its_folder(tmp_path: Path) -> None:
    sparse_llama(tmp_path, shards=2)
    assert f"give its folder, {tmp_path}" in refusal(tmp_path / INDEX).replace("Give", "give")


def test_neither_folder_nor_file() -> None:
    assert "neither a folder nor a file" in refusal("/dev/null")


@pytest.mark.parametrize(
    "shard",
    [
        "../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "", "..", None, ["x.safetensors"], 7,
        "x.bin", "a\\..\\x.safetensors", "a\0.safetensors",
    ],
)  # fmt: skip
def test_an_index_may_not_point_outside_its_folder(tmp_path: Path, shard: Any) -> None:
    folder = sparse_llama(tmp_path / "in", shards=2)
    sparse_file(tmp_path / "x.safetensors", {"stolen": ("F32", (1,))})
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["stolen"] = shard
    (folder / INDEX).write_text(json.dumps(index))
    sentence = refusal(folder)
    assert str(folder / INDEX) in sentence and "'stolen'" in sentence and "not a file of this folder" in sentence


def test_shards_in_a_subfolder_are_inside(tmp_path: Path) -> None:
    sparse_llama(tmp_path, shards=2)
    (tmp_path / "sub").mkdir()
    index = json.loads((tmp_path / INDEX).read_text())
    for name in {*index["weight_map"].values()}:
        (tmp_path / name).rename(tmp_path / "sub" / name)
    index["weight_map"] = {tensor: f"sub/{name}" for tensor, name in index["weight_map"].items()}
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert open_checkpoint(str(tmp_path)).depth == 4


@pytest.mark.parametrize("weight_map", [None, {}, [], "x"])
def test_an_index_without_a_map(tmp_path: Path, weight_map: Any) -> None:
    sparse_llama(tmp_path, shards=2)
    edit_json(tmp_path / INDEX, weight_map=weight_map)
    assert f"{tmp_path / INDEX}: the index has no weight_map" in refusal(tmp_path)


def test_a_missing_shard(tmp_path: Path) -> None:
    sparse_llama(tmp_path, shards=4)
    (tmp_path / "model-00003-of-00004.safetensors").unlink()
    assert "names 'model-00003-of-00004.safetensors', which the folder does not hold" in refusal(tmp_path)
    (tmp_path / "model-00002-of-00004.safetensors").unlink()
    assert "'model-00002-of-00004.safetensors' and 1 more" in refusal(tmp_path)


def test_an_index_that_disagrees_with_its_shards(tmp_path: Path) -> None:
    sparse_llama(tmp_path, shards=2)
    index = json.loads((tmp_path / INDEX).read_text())
    moved = dict(index["weight_map"], **{"lm_head.weight": "model-00001-of-00002.safetensors"})
    edit_json(tmp_path / INDEX, weight_map=moved)
    assert "puts tensor 'lm_head.weight' into 'model-00001-of-00002.safetensors', which does not hold it" in refusal(
        tmp_path
    )
    edit_json(tmp_path / INDEX, weight_map={**index["weight_map"], "ghost": "model-00001-of-00002.safetensors"})
    assert "puts tensor 'ghost' into" in refusal(tmp_path)


def test_a_tensor_in_no_index_is_a_warning(tmp_path: Path) -> None:
    sparse_llama(tmp_path, shards=2)
    index = json.loads((tmp_path / INDEX).read_text())
    del index["weight_map"]["lm_head.weight"]
    edit_json(tmp_path / INDEX, weight_map=index["weight_map"])
    found = open_checkpoint(str(tmp_path))
    assert found.warnings == ("the index lacks 1 tensor of the shards",)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    sparse_llama(tmp_path, shards=2)
    second = tmp_path / "model-00002-of-00002.safetensors"
    sparse_file(second, {"model.embed_tokens.weight": ("BF16", (64, 16))})
    sentence = refusal(tmp_path)
    assert "'model.embed_tokens.weight' is also in model-00001-of-00002.safetensors" in sentence
    assert str(second) in sentence


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    sparse_llama(tmp_path, shards=3)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 10)
    sentence = refusal(tmp_path)
    assert str(shard) in sentence and "truncated" in sentence


def test_an_index_beside_a_single_file_is_a_warning(tmp_path: Path) -> None:
    sparse_llama(tmp_path)
    (tmp_path / INDEX).write_text("{}")
    found = open_checkpoint(str(tmp_path))
    assert found.depth == 4 and "ignores the shards" in found.warnings[0]


def test_a_file_without_tensors(tmp_path: Path) -> None:
    sparse_file(tmp_path / "model.safetensors", {})
    assert "holds no tensors" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "not valid JSON"), (b"[]", "should hold a JSON object"), (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"), (b"", "not valid JSON"), (b"9" * 5000, "not valid JSON"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested too deeply"), (b'"' + b"[" * 200 + b'"', "hold a JSON object"),
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_a_broken_config(tmp_path: Path, text: bytes, reason: str) -> None:
    sparse_llama(tmp_path)
    (tmp_path / "config.json").write_bytes(text)
    sentence = refusal(tmp_path)
    assert str(tmp_path / "config.json") in sentence and reason in sentence


def test_a_config_as_deep_as_any(tmp_path: Path) -> None:
    sparse_llama(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    inner: object = 1
    for _ in range(99):
        inner = [inner]
    (tmp_path / "config.json").write_text(json.dumps({**config, "deep": inner}))
    assert open_checkpoint(str(tmp_path)).depth == 4


# --- what can be looked at but not spliced


def test_without_a_config_it_is_still_shown(tmp_path: Path) -> None:
    sparse_llama(tmp_path, extra_config={})
    (tmp_path / "config.json").unlink()
    found = open_checkpoint(str(tmp_path))
    assert found.config is None and found.depth == 4
    assert found.problems == ("there is no config.json next to the weights",)
    assert not found.tied


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq 4-bit"),
        ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "awq 4-bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit"),
        ({"load_in_8bit": True, "quant_method": "bitsandbytes"}, "bitsandbytes 8-bit"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"format": "float-quantized"}, "float-quantized"),
    ],
)
def test_quantised_formats_are_named(tmp_path: Path, settings: dict[str, Any], name: str) -> None:
    found = open_checkpoint(str(sparse_llama(tmp_path, extra_config={"quantization_config": settings})))
    assert found.quantisation == name
    assert not found.problems


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (("q_proj.qweight", "q_proj.qzeros", "q_proj.scales"), "GPTQ or AWQ"),
        (("q_proj.weight_scale_inv",), "fp8"),
        (("q_proj.weight_packed",), "compressed-tensors"),
        (("q_proj.weight.absmax",), "bitsandbytes"),
        (("experts.gate_up_proj_blocks", "experts.gate_up_proj_scales"), "mxfp4"),
        (("q_proj.scales",), None),
    ],
)
def test_quantised_formats_are_named_by_their_tensors(tmp_path: Path, names: tuple[str, ...], name: str | None) -> None:
    spec = {**llama_tensors(**TINY), **{f"model.layers.0.{one}": ("U8", (2,)) for one in names}}
    sparse_checkpoint(tmp_path, spec, {"model_type": "llama", "num_hidden_layers": 4})
    found = open_checkpoint(str(tmp_path))
    assert found.quantisation == name
    why = f"its tensors are quantised ({name}), but config.json does not describe the quantisation"
    assert found.problems == ((why,) if name else ())


def test_unknown_names_are_plain_tensors(tmp_path: Path) -> None:
    sparse_checkpoint(tmp_path, {"unet.blocks.0.w": ("F32", (2,)), "unet.blocks.1.w": ("F32", (2,))}, {})
    found = open_checkpoint(str(tmp_path))
    assert found.naming is None and found.depth == 0
    assert set(found.other) == {"unet.blocks.0.w", "unet.blocks.1.w"}
    assert "no tensor name begins with a known layer prefix" in found.problems


def test_layers_the_config_does_not_count_are_plain_tensors(tmp_path: Path) -> None:
    """As multi-token prediction layers are stored."""
    sparse_llama(tmp_path, layers=5, extra_config={"num_hidden_layers": 4})
    found = open_checkpoint(str(tmp_path))
    assert found.depth == 4 and found.problems == ()
    assert len(found.other) == 9 and all(name.startswith("model.layers.4.") for name in found.other)
    assert found.warnings == ("layer 4 lies beyond the 4 layers of config.json",)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_hidden_layers": 6}, "config.json states 6 layers, but the files lack layer 4-5"),
        ({"num_hidden_layers": 10**30}, "but the files lack layer 4-99999"),
        ({"num_hidden_layers": 0}, "config.json states 0 layers"),
        ({"model_type": "new", "num_hidden_layers": -1}, "does not state the number of layers"),
        ({"model_type": "new", "num_hidden_layers": "4"}, "does not state the number of layers"),
        ({"model_type": "new", "num_hidden_layers": 4.0}, "does not state the number of layers"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
    ],
)
def test_configs_that_do_not_describe_the_files(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    found = open_checkpoint(str(sparse_llama(tmp_path, extra_config=change)))
    assert any(problem in text for text in found.problems), found.problems


def test_a_hostile_config_opens_without_a_crash(tmp_path: Path) -> None:
    hostile: dict[str, Any] = {
        "architectures": [{"a": 1}], "model_type": ["llama"], "num_hidden_layers": 4, "num_attention_heads": 0,
        "hidden_size": "big", "vocab_size": -1, "rope_scaling": [1], "rope_theta": "x", "layer_types": [3, None],
        "sliding_window": {"a": 1}, "tie_word_embeddings": "yes", "quantization_config": "none", "text_config": 7,
        "torch_dtype": {"a": 1}, "mlp_only_layers": "0", "decoder_sparse_step": 0, "num_experts": 2**70,
        "sliding_window_pattern": 0, "no_rope_layers": [], "max_window_layers": True,
    }  # fmt: skip
    found = open_checkpoint(str(sparse_llama(tmp_path, extra_config=hostile)))
    config = found.config
    assert config is not None and found.depth == 4
    for name in dir(config):
        if not name.startswith("_"):
            getattr(config, name)
    assert found.tied is False and found.tokenizer.digest == ""


@pytest.mark.parametrize(
    ("config", "head", "tied"),
    [
        ({"model_type": "llama"}, True, False),
        ({"model_type": "llama"}, False, False),
        ({"model_type": "llama", "tie_word_embeddings": True}, False, True),
        ({"model_type": "llama", "tie_word_embeddings": True}, True, True),
        ({"model_type": "gemma"}, False, True),
        ({"model_type": "gemma", "tie_word_embeddings": False}, True, False),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, False, True),
        ({"model_type": "x", "text_config": {"tie_word_embeddings": True}}, True, False),
        ({"model_type": "x", "text_config": {"tie_word_embeddings": False}}, False, True),
        ({"model_type": "x", "tie_word_embeddings": True, "text_config": {"tie_word_embeddings": False}}, True, True),
        ({"model_type": "x", "tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}, True, False),
        ({"model_type": "never-heard"}, False, True),
        ({"model_type": "never-heard"}, True, False),
        ({"model_type": "never-heard", "tie_word_embeddings": None}, False, True),
    ],
)
def test_tied_or_not(tmp_path: Path, config: dict[str, Any], head: bool, tied: bool) -> None:
    sparse_checkpoint(tmp_path, llama_tensors(**TINY, tied=not head), {"num_hidden_layers": 4, **config})
    assert open_checkpoint(str(tmp_path)).tied is tied


@pytest.mark.parametrize(("layers", "tied"), [(3, False), (4, True)])
def test_a_stored_head_that_is_not_the_embedding_is_used_as_transformers_does(
    tmp_path: Path, layers: int, tied: bool
) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from tests.support.models import tiny_model

    folder = tiny_model(tmp_path, "llama", layers=layers, tie_word_embeddings=True)
    tensors = load_file(folder / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].clone()
    if not tied:
        head[-1, -1] += 1
    save_file({**tensors, "lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    found = open_checkpoint(str(folder))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert found.tied == tied == torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    assert any("another head is stored" in text for text in found.warnings) != tied


def test_a_language_tower_under_its_prefix(tmp_path: Path) -> None:
    spec = {
        **llama_tensors(**TINY, prefix="language_model.model.", tied=True),
        "language_model.lm_head.weight": ("BF16", (64, 16)),
        "vision_tower.encoder.layers.0.weight": ("BF16", (4,)),
    }
    config = {"model_type": "llava", "text_config": {"model_type": "llama", "num_hidden_layers": 4}}
    found = open_checkpoint(str(sparse_checkpoint(tmp_path, spec, config)))
    assert found.problems == () and found.depth == 4
    assert list(found.other) == ["vision_tower.encoder.layers.0.weight"]
    assert list(found.ends["lm_head"]) == ["lm_head.weight"]
    assert found.naming is not None
    assert found.naming.name(found.naming.place("language_model.lm_head.weight")) == "language_model.lm_head.weight"
    assert found.token_embedding is not None and found.token_embedding.shape == (64, 16)


# --- size and imports


def test_a_70b_checkpoint_opens_from_its_headers_without_heavy_imports(tmp_path: Path) -> None:
    sparse_llama(tmp_path, **LLAMA3_70B, shards=30)
    code = (
        "import sys, json\n"
        "from surgeon.checkpoint import open_checkpoint\n"
        "c = open_checkpoint(sys.argv[1])\n"
        "heavy = {name.partition('.')[0] for name in sys.modules} & {'torch', 'transformers', 'numpy', 'rich',\n"
        "    'textual', 'safetensors', 'huggingface_hub', 'pydantic', 'ruamel', 'typer', 'platformdirs'}\n"
        "print(json.dumps([sorted(heavy), len(c.tensors), c.depth, c.numel, c.nbytes, len(c.files), c.problems]))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [[], 723, 80, 70_553_706_496, 141_107_412_992, 30, []]


@pytest.mark.parametrize("name", ["mem", "weights.txt", "notes"])
def test_a_lone_file_is_called_one_of_weights(tmp_path: Path, name: str) -> None:
    """An adapter that was downloaded may name any file of the machine as its base."""
    (tmp_path / name).write_bytes(b"secret")
    with pytest.raises(InputError, match=r"this is not a \.safetensors file"):
        open_checkpoint(str(tmp_path / name))
