"""What the engine owes every blend: the same bytes however it is cut, one rounding, and an answer to bad values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from surgeon.assemble.compute import arithmetic as computing
from surgeon.assemble.compute.arithmetic import Arithmetic, Computer, whole
from surgeon.assemble.compute.stored_reader import raw
from surgeon.assemble.io.byte_copy import Sources
from surgeon.errors import InputError, SurgeonError
from surgeon.methods import kernel
from surgeon.methods.catalogue import every
from surgeon.plan import PlannedTensor
from surgeon.plan.operands import Blend
from tests.support.assembling import assemble, contents
from tests.support.blending import donors, merged, plan_of, stored

GIVEN: dict[str, Any] = {"weight": 0.6, "t": 0.3, "density": 0.5, "epsilon": 0.1, "select_topk": 0.4, "gamma": 0.05}
METHODS = sorted(every().keys() - {"passthrough"})


def recipe(name: str, more: str = "") -> str:
    """A recipe of that method over as many of the donors as it takes."""
    method = every()[name]
    count = min(method.donors[1] or 3, 3) if method.subtracts else min(method.donors[1] or 4, 4)
    models = ["a", "b", "c"][:count] if method.base != "none" else ["base", "a", "b", "c"][:count]
    if method.base == "start":
        models = ["base", "a"]
    given = {key: value for key, value in GIVEN.items() if key in method.parameters}
    lines = [f"merge_method: {name}", "models:", *(f"- model: {model}" for model in models)]
    lines += [] if method.base == "none" else ["base_model: base"]
    lines += ["parameters:", *(f"  {key}: {value}" for key, value in given.items())] if given else []
    return "\n".join([*lines, "seed: 7", more]) + "\n"


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return donors(tmp_path_factory.mktemp("donors"), ("base", "a", "b", "c"), depth=2, dtype="bfloat16")


def bytes_of(tensor: PlannedTensor, chunk: int) -> bytes:
    """A computed tensor's bytes, made in chunks of so many elements."""
    sources = Sources()
    try:
        return b"".join(bytes(piece) for piece in Computer(sources, Arithmetic(chunk=chunk)).run(tensor))
    finally:
        sources.close()


@pytest.mark.parametrize("name", METHODS)
def test_chunks_change_no_byte(name: str, four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "BLOCK", 16)
    plan = plan_of(four, recipe(name))
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    tensors = [tensor for tensor in plan.tensors if isinstance(tensor.source, Blend)]
    assert tensors
    for tensor in tensors:
        found = {bytes_of(tensor, chunk) for chunk in (16, 48, 4096)}
        assert len(found) == 1, tensor.name
        assert len(found.pop()) == tensor.nbytes


@pytest.mark.parametrize("name", METHODS)
def test_workers_and_shards_change_no_byte(name: str, four: Path, tmp_path: Path) -> None:
    plan = plan_of(four, recipe(name))
    expected = None
    for number, (workers, shard_size) in enumerate([(1, 10**9), (2, 4000), (4, 900)]):
        out = tmp_path / str(number)
        assemble(plan, out, workers=workers, shard_size=shard_size, fsync=False)
        found = contents(out)
        expected = expected or found
        assert found == expected
    assert expected is not None
    for tensor in plan.tensors[:3]:
        assert bytes(raw(whole(tensor).flatten())) == expected[tensor.name][2]


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_every_donor_and_tensor_has_a_mask_of_its_own_in_what_is_written(method: str, tmp_path: Path) -> None:
    """Task vectors of ones, twos and fours: each bit of what is written says whether that donor's element stays."""
    import json

    import torch
    from safetensors.torch import save_file

    from tests.support.assembling import CONFIG, shapes

    given = {"base": 0.0, "a": 1.0, "b": 2.0, "c": 4.0}
    for name, value in given.items():
        (tmp_path / name).mkdir()
        tensors = {key: torch.full(shape, value) for key, shape in shapes(2).items()}
        save_file(tensors, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 2}))
    models = ", ".join(f"{{model: {name}}}" for name in "abc")
    text = f"merge_method: {method}\nbase_model: base\nmodels: [{models}]\nseed: 5\n"
    text += "parameters: {weight: 1, density: 0.5, rescale: none, normalize: false}\n"
    assemble(plan_of(tmp_path, text), tmp_path / "out", fsync=False)
    masks: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in stored(tmp_path, "out").items():
        bits = tensor.flatten().int()
        assert tensor.flatten().equal(bits.float())
        masks[name] = {bit: (bits & bit).bool() for bit in (1, 2, 4)}
    for bit, other in ((1, 2), (1, 4), (2, 4)):
        one, two = (torch.cat([found[which] for found in masks.values()]) for which in (bit, other))
        assert 0.4 < one.float().mean() < 0.6
        assert 0.4 < (one == two).float().mean() < 0.6, f"donors {bit} and {other} share their masks"
    first, second = (masks[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 1))
    assert all(0.3 < (first[bit] == second[bit]).float().mean() < 0.7 for bit in (1, 2, 4))


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_values_that_are_no_numbers_are_refused_with_their_tensor(bad: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = donors(tmp_path)
    tensors = stored(folder, "b")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 2] = float(bad)
    save_file(tensors, folder / "b" / "model.safetensors")
    plan = plan_of(folder, recipe("linear").replace("- model: c\n", ""))
    with pytest.raises(SurgeonError) as caught:
        assemble(plan, tmp_path / "out", fsync=False)
    sentence = caught.value.sentence()
    assert "model.layers.1.mlp.up_proj.weight" in sentence
    assert "element 26" in sentence
    assert str(folder / "b") in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", METHODS)
def test_no_method_hides_what_is_no_number(name: str, tmp_path: Path) -> None:
    """Whether every donor is looked at, or the result in which it must show: dropped or not, the donor is named."""
    from safetensors.torch import save_file

    folder = donors(tmp_path, ("base", "a", "b", "c"), depth=2, dtype="bfloat16")
    plan, key = plan_of(folder, recipe(name)), "model.layers.1.mlp.up_proj.weight"
    tensor = next(tensor for tensor in plan.tensors if tensor.name == key)
    for donor in ("base", "a"):
        tensors = stored(folder, donor)
        good = tensors[key].clone()
        for bad in ("nan", "inf", "-inf"):
            tensors[key] = good.clone()
            tensors[key][3] = float(bad)
            save_file(tensors, folder / donor / "model.safetensors")
            with pytest.raises(SurgeonError, match=f"{key} holds .*element 24") as caught:
                whole(tensor)
            assert str(folder / donor) in caught.value.sentence()
        save_file(tensors | {key: good}, folder / donor / "model.safetensors")


def test_what_f16_cannot_hold_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = donors(tmp_path)
    for name in ("base", "a"):
        tensors = stored(folder, name)
        tensors["model.norm.weight"] *= 1e6
        save_file(tensors, folder / name / "model.safetensors")
    text = "merge_method: slerp\nbase_model: base\nmodels: [{model: base}, {model: a}]\nparameters: {t: 0.5}\n"
    result = assemble(plan_of(folder, text + "dtype: float16\n"), tmp_path / "out", fsync=False)
    (warning,) = result.warnings
    assert "model.norm.weight became infinite" in warning
    count = int(stored(tmp_path, "out")["model.norm.weight"].isinf().sum())
    assert 1 < count < 8 and f"{count} values of" in warning
    fine = assemble(plan_of(folder, text), tmp_path / "fine", fsync=False)
    assert not fine.warnings


def test_donors_of_several_precisions_give_the_widest(tmp_path: Path) -> None:
    folder = donors(tmp_path, ("base", "a"), dtype="bfloat16")
    donors(tmp_path / "wide", ("x", "c"), dtype="float32")
    text = "merge_method: linear\nmodels: [{model: a}, {model: wide/c}]\nparameters: {weight: 1}\n"
    plan = plan_of(folder, text)
    assert {tensor.dtype for tensor in plan.tensors} == {"F32"}
    mine = merged(plan)["model.norm.weight"]
    one, other = stored(folder, "a")["model.norm.weight"], stored(folder, "wide/c")["model.norm.weight"]
    assert mine.double().allclose((one.double() + other.double()) / 2, atol=1e-7)


def test_a_tensor_without_elements_is_nothing(tmp_path: Path) -> None:
    from dataclasses import replace

    folder = donors(tmp_path)
    plan = plan_of(folder, recipe("linear").replace("- model: c\n", ""))
    tensor = plan.tensors[0]
    assert isinstance(tensor.source, Blend)
    inputs = tuple(replace(o, entry=o.entry._replace(shape=(0, 8), nbytes=0)) for o in tensor.source.inputs)  # type: ignore[arg-type]
    empty = replace(tensor, shape=(0, 8), source=replace(tensor.source, inputs=inputs))
    assert whole(empty).shape == (0, 8)
    assert computing.CHUNK % kernel.BLOCK == 0


def test_memory_that_runs_out_makes_chunks_smaller_and_changes_no_byte(
    four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from surgeon.assemble.compute import operand_readers

    monkeypatch.setattr(kernel, "BLOCK", 16)
    monkeypatch.setattr(computing, "BLOCK", 16)
    tensor = next(t for t in plan_of(four, recipe("linear")).tensors if t.numel >= 96)
    expected, whole_at = bytes_of(tensor, 16), operand_readers.ReaderInputs.at

    def scarce(self: Any, start: int, count: int, which: Any = None) -> Any:
        if start >= 32 and count > 16:
            raise torch.OutOfMemoryError("no memory. none at all")
        return whole_at(self, start, count, which)

    monkeypatch.setattr(operand_readers.ReaderInputs, "at", scarce)
    assert bytes_of(tensor, 32) == expected
    with pytest.raises(SurgeonError, match="too little memory"):
        monkeypatch.setattr(computing, "BLOCK", 32)
        bytes_of(tensor, 32)


def test_a_trim_over_the_whole_model_keeps_the_largest_of_all_tensors(tmp_path: Path) -> None:
    import torch

    folder = donors(tmp_path, ("base", "a"), depth=2)
    text = "merge_method: ties\nbase_model: base\nmodels: [{model: a}]\n"
    plan = plan_of(folder, text + "parameters: {weight: 1, density: 0.2, scope: model}\n")
    assemble(plan, tmp_path / "out", fsync=False)
    base, a = stored(folder, "base"), stored(folder, "a")
    deltas = {name: a[name] - base[name] for name in base}
    everything = torch.cat([delta.abs().flatten() for delta in deltas.values()])
    threshold = everything.sort(descending=True).values[int(0.2 * everything.numel()) - 1]
    mine = stored(tmp_path, "out")
    kept = 0
    for name, tensor in mine.items():
        expected = torch.where(deltas[name].abs() >= threshold, base[name] + deltas[name], base[name])
        assert tensor.allclose(expected, atol=1e-6), name
        kept += int((tensor != base[name]).sum())
    assert kept == int(0.2 * everything.numel())
    shares = {name: float((mine[name] != base[name]).float().mean()) for name in mine}
    assert len({round(share, 3) for share in shares.values()}) > 5, "each tensor has its own share"


@pytest.mark.parametrize("density", ["[0.2, 0.4]", "[{filter: mlp, value: 0.3}, {value: 0.2}]"])
def test_a_trim_over_the_whole_model_has_one_density(density: str, tmp_path: Path) -> None:
    folder = donors(tmp_path, ("base", "a"), depth=2)
    text = "merge_method: ties\nbase_model: base\nmodels: [{model: a}]\n"
    plan = plan_of(folder, text + f"parameters: {{weight: 1, density: {density}, scope: model}}\n")
    assert [finding.code for finding in plan.errors] == ["scope-model"]


def test_values_that_are_no_numbers_may_be_let_through(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = donors(tmp_path)
    tensors = stored(folder, "b")
    tensors["model.norm.weight"][1] = float("nan")
    save_file(tensors, folder / "b" / "model.safetensors")
    plan = plan_of(folder, recipe("linear").replace("- model: c\n", ""))
    assemble(plan, tmp_path / "out", fsync=False, allow_nonfinite=True)
    found = stored(tmp_path, "out")["model.norm.weight"]
    assert found.isnan().tolist() == [False, True, *[False] * 6]


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "mps"])
def test_a_device_that_is_not_here_is_told_in_a_sentence(device: str, four: Path, tmp_path: Path) -> None:
    plan = plan_of(four, recipe("linear"))
    with pytest.raises(InputError, match=r"device|mps"):
        assemble(plan, tmp_path / "out", fsync=False, device=device)
    assert not list(tmp_path.iterdir())


def test_auto_is_some_device_that_is_here(four: Path, tmp_path: Path) -> None:
    assemble(plan_of(four, recipe("linear")), tmp_path / "out", fsync=False, device="auto")
    assert (tmp_path / "out" / "model.safetensors").is_file()
