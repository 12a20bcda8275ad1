"""The planned model in memory is the assembled one, to the bit, and holds each layer once."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from surgeon.assemble.gpu.device import pick_device
from surgeon.errors import InputError, SurgeonError
from surgeon.plan import Donors, Plan, resolve
from surgeon.probe.environment import transformers
from surgeon.probe.load import load, to_device
from surgeon.probe.unwritten_model import build
from surgeon.probe.weights import Weights
from surgeon.recipe.document import parse
from tests.support.assembling import assemble
from tests.support.models import FAMILIES, one_thread, tiny_model

ORDER = (0, 1, 2, 1, 2, 3)
IDS = torch.tensor([[1, 5, 9, 33, 7, 250, 12]])
LAYER = re.compile(r"(.*?(?:layers|\bh)\.)(\d+)(\..*)")

EXTRA: dict[str, dict[str, Any]] = {
    "gemma2": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]},
    "qwen3_moe": {"mlp_only_layers": [1]},
}


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def plan_of(folder: Path, order: tuple[int, ...] = ORDER, more: str = "") -> Plan:
    slices = "".join(f"  - sources: [{{model: {folder}, layer_range: [{i}, {i + 1}]}}]\n" for i in order)
    plan = resolve(parse(f"merge_method: passthrough\n{more}slices:\n{slices}"), Donors())
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    return plan


def by_hand(donor: Path, out: Path, order: tuple[int, ...] = ORDER) -> Path:
    """The same model without any of surgeon: tensors renamed, config edited, saved with safetensors."""
    state = load_file(donor / "model.safetensors")
    made: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        match = LAYER.fullmatch(name)
        if match is None:
            made[name] = tensor
            continue
        for target, source in enumerate(order):
            if int(match[2]) == source:
                made[f"{match[1]}{target}{match[3]}"] = tensor.clone()
    out.mkdir()
    save_file(made, out / "model.safetensors", {"format": "pt"})
    config = json.loads((donor / "config.json").read_text())
    for key in ("num_hidden_layers", "n_layer"):
        if key in config:
            config[key] = len(order)
    if config.get("layer_types"):
        config["layer_types"] = [config["layer_types"][source] for source in order]
    if config.get("mlp_only_layers"):
        dense = config["mlp_only_layers"]
        config["mlp_only_layers"] = [target for target, source in enumerate(order) if source in dense]
    (out / "config.json").write_text(json.dumps(config))
    return out


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model(input_ids=ids).logits
    return out


def layers_of(model: Any) -> Any:
    body = getattr(model, "model", None) or getattr(model, "transformer", None) or model.gpt_neox
    return body.layers if hasattr(body, "layers") else body.h


@pytest.mark.parametrize("family", FAMILIES)
def test_virtual_equals_the_model_on_disk_and_shares_layers(family: str, tmp_path: Path) -> None:
    donor = tiny_model(tmp_path / "a", family, **EXTRA.get(family, {}))
    model = build(plan_of(donor))
    written = load(str(by_hand(donor, tmp_path / "out")))
    assert torch.equal(logits(model), logits(written))
    assert not torch.equal(logits(model), logits(load(str(donor))))
    held = [{weight.data_ptr() for weight in layer.parameters()} for layer in layers_of(model)]
    assert held[1] == held[3] and held[2] == held[4]
    assert held[0].isdisjoint(held[1]) and held[2].isdisjoint(held[5])


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe"])
def test_scale_and_cast_equal_the_assembled_model_for_one_token_too(family: str, tmp_path: Path) -> None:
    donor = tiny_model(tmp_path / "a", family)
    more = "dtype: bfloat16\nparameters: {scale: [{filter: down_proj, value: 0.7}, {filter: c_proj, value: 0.7}]}\n"
    for number, settings in enumerate(("", more)):
        plan = plan_of(donor, more=settings)
        assemble(plan, tmp_path / f"out{number}", recipe="")
        written, model = load(str(tmp_path / f"out{number}")), build(plan)
        assert model.dtype == (torch.bfloat16 if settings else torch.float32)
        for ids in (IDS, IDS[:, :1]):
            assert torch.equal(logits(model, ids), logits(written, ids))


def test_a_donor_whose_data_begins_at_an_odd_place_gives_the_same_numbers(tmp_path: Path) -> None:
    donor = tiny_model(tmp_path / "a", "llama")
    path = donor / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    pad = 16 - length % 16  # the data then begins 8 bytes past a multiple of 16
    path.write_bytes((length + pad).to_bytes(8, "little") + raw[8 : 8 + length] + b" " * pad + raw[8 + length :])
    plan = plan_of(donor)
    assert {tensor.source.entry.offset % 16 for tensor in plan.tensors} == {8}
    assemble(plan, tmp_path / "out", recipe="")
    one = IDS[:, :1]
    assert torch.equal(logits(build(plan), one), logits(load(str(tmp_path / "out")), one))


def test_weights_of_a_plain_copy_are_the_donors_file(tmp_path: Path) -> None:
    donor = tiny_model(tmp_path / "a", "llama", dtype="bfloat16")
    model = build(plan_of(donor))
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(donor / "model.safetensors")):
            assert line.split()[1].startswith("r--")
            spans.append([int(part, 16) for part in line.split()[0].split("-")])
    for name, weight in model.named_parameters():
        assert any(low <= weight.data_ptr() < high for low, high in spans), name


def test_a_dtype_that_torch_does_not_have_is_named(tmp_path: Path) -> None:
    (tensor, *_) = plan_of(tiny_model(tmp_path / "a", "llama")).tensors
    entry = next(iter(tensor.source.entries()))
    with pytest.raises(InputError, match="torch cannot hold tensors of dtype F6_E2M3"):
        Weights().entry(entry._replace(dtype="F6_E2M3"))


def test_moving_to_a_device_keeps_sharing(tmp_path: Path) -> None:
    model = build(plan_of(tiny_model(tmp_path / "a", "gemma")))
    count = sum(weight.numel() for weight in model.parameters())
    # The meta device stands for one that this machine need not have.
    moved = to_device(model, "meta")
    held = [{weight.untyped_storage()._cdata for weight in layer.parameters()} for layer in layers_of(moved)]
    assert held[1] == held[3] and held[0].isdisjoint(held[1])
    assert sum(weight.numel() for weight in moved.parameters()) == count
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"}


def test_a_single_file_under_its_own_name_is_loaded(tmp_path: Path) -> None:
    donor = tiny_model(tmp_path / "a", "llama")
    expected = logits(load(str(donor)))
    shutil.move(donor / "model.safetensors", donor / "weights.safetensors")
    assert torch.equal(logits(load(str(donor / "weights.safetensors"))), expected)
    assert torch.equal(logits(load(str(donor))), expected)


def test_a_config_that_asks_for_other_tensors_is_refused_by_name(tmp_path: Path) -> None:
    donor = tiny_model(tmp_path / "a", "llama")
    state = load_file(donor / "model.safetensors")
    lacking = {name: tensor for name, tensor in state.items() if not name.endswith("2.mlp.up_proj.weight")}
    save_file(lacking, donor / "model.safetensors", {"format": "pt"})
    with pytest.raises(SurgeonError, match=r"lack.* model\.layers\.\d\.mlp\.up_proj\.weight"):
        load(str(donor))
    plan = resolve(parse(f"slices:\n  - sources: [{{model: {donor}, layer_range: [2, 3]}}]\n"), Donors())
    if plan.ok:
        with pytest.raises(SurgeonError, match=r"lacks model\.layers\.0\.mlp\.up_proj\.weight"):
            build(plan)
    save_file(
        {**state, "model.layers.2.mlp.sidecar.weight": torch.ones(3)}, donor / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(SurgeonError, match=r"no place for model\.layers\.0\.mlp\.sidecar\.weight"):
        build(plan_of(donor, (2,)))


def test_remote_code_and_unknown_types_are_refused(tmp_path: Path) -> None:
    donor = tiny_model(tmp_path / "a", "llama")
    config = json.loads((donor / "config.json").read_text())
    marker = tmp_path / "ran"
    (donor / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    for kind in ("llama", "evil"):
        code = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
        (donor / "config.json").write_text(json.dumps({**config, "model_type": kind, "auto_map": code}))
        if kind == "llama":
            load(str(donor))
        else:
            with pytest.raises(InputError, match="cannot read config"):
                load(str(donor))
    assert not marker.exists()


def test_a_type_that_generates_no_text_is_refused(tmp_path: Path) -> None:
    donor = tiny_model(tmp_path / "a", "llama")
    (donor / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(InputError, match="no causal language model of type 'vit'"):
        load(str(donor))


def test_transformers_is_used_offline_unless_someone_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    transformers()
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_VERBOSITY"]) == ("1", "info")


def test_an_unknown_device_is_bad_input() -> None:
    with pytest.raises(InputError, match="'tpu' is not a device"):
        pick_device("tpu")
    with pytest.raises(InputError):
        pick_device("cuda:x")
    assert pick_device("cpu") == "cpu"


def test_a_gpu_is_asked_for_by_a_number_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device(name) for name in ("auto", "cuda", "cuda:0", "cuda:1")] == ["cuda", "cuda", "cuda:0", "cuda:1"]
    with pytest.raises(InputError, match="no device cuda:2"):
        pick_device("cuda:2")
