"""Blends on GPUs: the bytes of the CPU, over pinned memory, in chunks that fit, on as many as there are.

Where there is no GPU, a stand-in shows the order of things (tests/support/gpu_stand_in.py); that on
a real one the same numbers come out is tested where there is one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from surgeon.assemble import AssembleOptions, run
from surgeon.assemble.compute import arithmetic
from surgeon.assemble.compute.arithmetic import Arithmetic, Computer, whole
from surgeon.assemble.compute.gpu_memory import least_of, shares
from surgeon.assemble.compute.operand_readers import need
from surgeon.assemble.compute.whole_model_survey import surveyed
from surgeon.assemble.gpu import staging
from surgeon.assemble.gpu.cuda import Cuda
from surgeon.assemble.gpu.staging import Lane
from surgeon.assemble.io.byte_copy import Sources
from surgeon.errors import InputError, SurgeonError
from surgeon.methods import kernel, reductions
from surgeon.plan import Plan, PlannedTensor
from surgeon.plan.operands import Adapted, Blend, Rows, Stored
from tests.assemble.compute.test_blends import METHODS, recipe
from tests.support.assembling import assemble, contents, ready
from tests.support.blending import donors, plan_of, stored
from tests.support.gpu_stand_in import StandIn, scarce

VARIANTS = {
    "nuslerp by row": "nuslerp_flatten: false, nuslerp_row_wise: false",
    "nuslerp by column": "nuslerp_flatten: false, nuslerp_row_wise: true",
    "dare_ties paper": "rescale: paper, normalize: true",
    "della paper": "rescale: paper",
    "breadcrumbs l1": "rescale: l1",
    "ties model": "scope: model",
}
"""Methods with parameters that have them compute otherwise."""
EVERY = [*METHODS, *VARIANTS]

CUDA = torch.cuda.is_available()
GPUS = torch.cuda.device_count() if CUDA else 0


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return donors(tmp_path_factory.mktemp("donors"), ("base", "a", "b", "c"), depth=1, dtype="bfloat16")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return donors(tmp_path_factory.mktemp("wide"), ("base", "a", "b", "c"), depth=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and pieces so small that tiny tensors have many."""
    for module in (kernel, arithmetic):
        monkeypatch.setattr(module, "BLOCK", 16)
    monkeypatch.setattr(staging, "PIECE", 64)
    monkeypatch.setattr(reductions, "ROWS", 4)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are worked on as on a GPU."""
    monkeypatch.setattr(reductions, "PIECEWISE", frozenset())


def plan_for(folder: Path, name: str, more: str = "") -> Plan:
    """The plan of a recipe of a method, or of one of `VARIANTS`."""
    method, *_ = name.split()
    text = recipe(method, more)
    if name in VARIANTS:
        assert "parameters:\n" in text
        text = text.replace("parameters:\n", f"parameters:\n  {VARIANTS[name].replace(', ', chr(10) + '  ')}\n")
    return plan_of(folder, text)


def blends(plan: Plan) -> list[PlannedTensor]:
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    return [tensor for tensor in plan.tensors if isinstance(tensor.source, Blend)]


def staged(tensor: PlannedTensor, most: int, gpu: Any = None, how: Arithmetic = arithmetic.PLAIN) -> bytes:
    """A tensor's bytes by way of a lane, in chunks of at most so many elements."""
    assert isinstance(tensor.source, Blend)
    lane, sources = Lane(gpu or StandIn(), most * need(tensor.source, 4)), Sources()
    try:
        with lane.working():
            return b"".join(bytes(piece) for piece in Computer(sources, how, lane).run(tensor))
    finally:
        sources.close()


def on_cpu(tensor: PlannedTensor, how: Arithmetic = arithmetic.PLAIN) -> bytes:
    return bytes(whole(tensor, how).flatten().view(torch.uint8).numpy())


def apart(tensor: PlannedTensor, one: bytes, other: bytes) -> int:
    """By how many units in the last place two tensors differ at most."""
    bits = {"BF16": torch.int16, "F16": torch.int16, "F32": torch.int32}[tensor.dtype]
    found = [torch.frombuffer(bytearray(data), dtype=bits).long() for data in (one, other)]
    lowest = int(torch.iinfo(bits).min)
    first, second = (torch.where(value < 0, lowest - value, value) for value in found)
    return int((first - second).abs().max())


@pytest.mark.parametrize("name", EVERY)
def test_the_cpus_own_code_gives_its_bytes_over_pinned_memory(name: str, four: Path, small: None) -> None:
    plan = plan_for(four, name)
    how = surveyed(plan, arithmetic.PLAIN)
    for tensor in blends(plan):
        assert staged(tensor, 112, how=how) == on_cpu(tensor, how), tensor.name


def test_no_limit_is_all_of_a_gpus_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=1000))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *what: told.append(what))
    for nbytes in (None, 250, 4000):
        Cuda(1).limit(nbytes)
    assert told == [(1.0, 1), (0.25, 1), (1.0, 1)]


def test_every_donor_goes_to_the_gpu_and_the_result_comes_from_there(four: Path) -> None:
    for tensor in blends(plan_for(four, "linear")):
        assert isinstance(tensor.source, Blend)
        gpu = StandIn()
        assert staged(tensor, 4096, gpu) == on_cpu(tensor)
        assert sum(stream.asked for stream in gpu.streams) > len(tensor.source.inputs)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", EVERY)
def test_what_is_done_at_once_is_the_cpus_but_for_the_last_place(
    name: str, dtype: str, four: Path, wide: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(four if dtype == "bfloat16" else wide, name, f"dtype: {dtype}")
    how = surveyed(plan, arithmetic.PLAIN)
    with monkeypatch.context() as patch:
        patch.setattr(reductions, "PIECEWISE", frozenset())
        assert surveyed(plan, arithmetic.PLAIN, lane=Lane(StandIn(), 10**4)) == how
    for tensor in blends(plan):
        expected = on_cpu(tensor, how)
        with monkeypatch.context() as patch:
            patch.setattr(reductions, "PIECEWISE", frozenset())
            found = {staged(tensor, most, how=how) for most in (16, 7 * 16, 4096)}
        assert len(found) == 1, f"{tensor.name}: the chunks show"
        assert apart(tensor, expected, found.pop()) <= 1, tensor.name


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_the_same_elements_are_dropped(name: str, wide: Path, at_once: None) -> None:
    plan = plan_of(wide, recipe(name, "dtype: float32"))
    for tensor in blends(plan):
        base = stored(wide, "base")[tensor.name].flatten()
        gone = [torch.frombuffer(bytearray(data), dtype=torch.float32) == base
                for data in (on_cpu(tensor), staged(tensor, 4096))]  # fmt: skip
        assert torch.equal(*gone)


def test_every_kind_of_operand_goes_over_pinned_memory(wide: Path, small: None) -> None:
    plan = plan_of(wide, recipe("linear"))
    table = {tensor.name.removeprefix("model.layers.0."): tensor for tensor in blends(plan)}
    up, table_of_rows = table["mlp.up_proj.weight"], table["lm_head.weight"]
    entries = {name: tensor.source.inputs[0].entry for name, tensor in table.items()}  # type: ignore[union-attr]
    adapted = Adapted(
        Stored(entries["mlp.up_proj.weight"]),
        entries["self_attn.k_proj.weight"],
        entries["mlp.gate_proj.weight"],
        0.5,
    )
    part = Stored(entries["lm_head.weight"])
    takes = tuple(array("i", rows).tobytes() for rows in ([*range(15, -1, -1)], [3] * 8 + [-1] * 8))
    for tensor, operand in [(up, adapted), (table_of_rows, Rows((part, part), takes))]:
        assert isinstance(tensor.source, Blend)
        nested = replace(tensor.source, inputs=(operand, *tensor.source.inputs[1:]))  # type: ignore[arg-type]
        deeper = replace(tensor.source, inputs=(nested, *tensor.source.inputs[1:]))
        for source in (nested, deeper):
            changed = replace(tensor, source=source)
            assert staged(changed, 48) == on_cpu(changed)
            assert on_cpu(changed) != on_cpu(tensor)


def test_pinned_memory_is_filled_when_its_copy_has_passed_and_read_when_its_copy_has_come(small: None) -> None:
    gpu = StandIn()
    lane = Lane(gpu, 10**9)
    filled: list[tuple[int, int, int]] = []

    def fill(start: int, out: torch.Tensor) -> None:
        filled.append((out.data_ptr(), gpu.streams[0].asked, gpu.streams[0].copied))
        out.numpy()[:] = range(start, start + out.numel())

    with lane.working():
        out = torch.empty(100)
        lane.upload(fill, torch.float32, 5, out)
        back = b"".join(bytes(piece) for piece in lane.download(out))
    assert torch.frombuffer(bytearray(back), dtype=torch.float32).tolist() == list(range(5, 105))
    assert len({place for place, *_ in filled}) == 2, "two pieces in turn"
    # The third piece waits for the first copy, and not for the second: that one runs while it is read.
    assert [(asked, copied) for _, asked, copied in filled] == [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)]


def test_parts_are_spread_over_gpus_and_every_worker_has_a_stream(
    four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(four, recipe("slerp"))
    assemble(plan, tmp_path / "cpu", workers=1, shard_size=200, fsync=False)
    for workers, streams in [(None, [3, 3]), (1, [1, 0]), (5, [3, 2])]:
        gpus = [StandIn(), StandIn()]
        monkeypatch.setattr(run, "blending_gpus", lambda name, gpus=gpus: tuple(gpus))
        out = tmp_path / str(workers)
        assemble(plan, out, workers=workers, shard_size=200, fsync=False, device="cuda", vram=5 * 10**8)
        assert contents(out) == contents(tmp_path / "cpu")
        assert [len(gpu.streams) for gpu in gpus] == streams
        assert all(stream.threads and not stream.behind for gpu in gpus for stream in gpu.streams)
        here = torch.device("cpu")
        assert all(gpu.device == here and gpu.limits in ([5 * 10**8, None], []) for gpu in gpus)
    assert '"device":"cuda (stand-in)"' in (tmp_path / "5" / "surgeon.json").read_text().replace(": ", ":")


def test_chunks_grow_with_memory_and_shrink_with_donors_and_workers(four: Path) -> None:
    two, three = (plan_of(four, recipe("linear", f"# {n}").replace("- model: c\n", "" if n == 3 else "- model: c\n"))
                  for n in (3, 4))  # fmt: skip
    few, many = (need(blends(plan)[0].source, 4) for plan in (two, three))  # type: ignore[arg-type]
    assert few < many
    rooms = [shares(10**10, vram, 3, 10**6)[1] for vram in (3 * 10**8, 10**9, None)]
    assert rooms == sorted(set(rooms))
    chunks = [Lane(StandIn(), room).chunk(few) for room in rooms]
    assert chunks == sorted(chunks) and all(chunk % kernel.BLOCK == 0 for chunk in chunks)
    assert Lane(StandIn(), rooms[0]).chunk(many) < chunks[0] and chunks[-1] == staging.MOST
    assert Lane(StandIn(), 10).chunk(few) == kernel.BLOCK
    assert shares(10**10, None, 1, 10**6)[1] > rooms[-1]
    assert shares(10**8, None, 3, 10**6)[0] == 1, "fewer workers where there is not the room"
    assert shares(10**8, 10**10, 1, 10**6) == shares(10**8, None, 1, 10**6), "more than is free is not taken"


@pytest.mark.parametrize("name", [name for name in EVERY if name != "ties model"])
@pytest.mark.parametrize("narrow", [True, False])
def test_what_a_method_takes_is_within_what_is_said(
    name: str, narrow: bool, tmp_path: Path, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    monkeypatch.setattr(staging, "PIECE", 4096)
    folder = donors(tmp_path, ("base", "a", "b", "c"), depth=1, dtype="bfloat16" if narrow else "float32")
    tensor = next(t for t in blends(plan_for(folder, name)) if t.name.endswith("up_proj.weight"))
    assert isinstance(tensor.source, Blend)
    shape, inputs = (512, 1024), []
    for number, operand in enumerate(tensor.source.inputs):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(number))
        save_file({tensor.name: values.bfloat16() if narrow else values}, tmp_path / f"{number}.safetensors")
        path, nbytes = tmp_path / f"{number}.safetensors", values.numel() * (2 if narrow else 4)
        offset = path.stat().st_size - nbytes
        inputs.append(Stored(operand.entry._replace(file=path, shape=shape, offset=offset, nbytes=nbytes)))  # type: ignore[union-attr]
    source = replace(tensor.source, inputs=tuple(inputs))
    gpu = StandIn()
    staged(replace(tensor, shape=shape, source=source), 10**9, gpu)
    said, taken = need(source, 4), gpu.peak / (shape[0] * shape[1])
    assert len(inputs) * 4 < taken <= said, f"{taken:.1f} bytes per element"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["linear", "slerp", "ties", "dare_ties", "della", "sce", "arcee_fusion", "model"])
def test_where_memory_runs_out_the_same_bytes_come(
    name: str, seed: int, four: Path, small: None, at_once: None
) -> None:
    more = "parameters: {weight: 1, density: 0.3, scope: model}\nmodels: [{model: a}, {model: b}]\nbase_model: base\n"
    plan = plan_of(four, f"merge_method: ties\n{more}" if name == "model" else recipe(name))
    how = surveyed(plan, arithmetic.PLAIN, lane=Lane(StandIn(), 10**9))
    gpu = StandIn()
    gpu.fail = scarce(seed, 4, 0.002)
    assert surveyed(plan, arithmetic.PLAIN, lane=Lane(gpu, 10**9)) == how
    for number, tensor in enumerate(t for t in blends(plan) if t.numel > 48):
        gpu.fail = scarce(seed + number, 2)
        assert staged(tensor, 4096, gpu, how) == staged(tensor, 4096, how=how)
    assert gpu.forgotten > 5


def test_memory_that_is_never_enough_is_told_of_and_ends_one_worker_alone(four: Path, small: None) -> None:
    tensor, gpu = blends(plan_of(four, recipe("linear")))[0], StandIn()
    gpu.fail = scarce(0, 10**9, 1.0)
    with pytest.raises(
        SurgeonError, match=r"cuda \(stand-in\) has too little memory for .*, because CUDA out of memory"
    ):
        staged(tensor, 4096, gpu, Arithmetic(gpus=(gpu,)))
    lane, other = Lane(gpu, 10**9), Lane(gpu, 10**9)
    gpu.fail = scarce(1, 1, 1.0)
    with lane.working():
        list(Computer(Sources(), arithmetic.PLAIN, lane).run(tensor))
    assert lane.room < other.room == 10**9


@pytest.mark.parametrize("bad", ["nan", "inf"])
@pytest.mark.parametrize("name", ["linear", "ties"])
def test_values_that_are_no_numbers_are_refused_as_ever(bad: str, name: str, tmp_path: Path, at_once: None) -> None:
    from safetensors.torch import save_file

    folder = donors(tmp_path, ("base", "a", "b", "c"), dtype="bfloat16")
    tensors = stored(folder, "b")
    tensors["model.norm.weight"][3] = float(bad)
    save_file(tensors, folder / "b" / "model.safetensors")
    tensor = next(t for t in blends(plan_of(folder, recipe(name))) if t.name == "model.norm.weight")
    with pytest.raises(SurgeonError, match=r"model\.norm\.weight holds \S+ \(element 3\)"):
        staged(tensor, 4096)


class TestVram:
    def test_it_is_of_a_gpu(self, four: Path, tmp_path: Path) -> None:
        plan = plan_of(four, recipe("linear"))
        for device in ("cpu", *([] if CUDA else ["auto"])):
            for refuse in (assemble, ready):
                with pytest.raises(InputError, match="--vram limits the memory of a GPU"):
                    refuse(plan, tmp_path / "out", device=device, vram=10**9)

    def test_the_least_that_works_is_told(self, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = plan_of(four, recipe("ties"))
        monkeypatch.setattr(run, "blending_gpus", lambda name: (StandIn(),))
        with pytest.raises(InputError, match=r"--vram 1\.0 MB is too little .* Set at least \d+\.0 MB") as error:
            assemble(plan, tmp_path / "out", device="cuda", vram=10**6)
        least = int(str(error.value).split("at least ")[1].split(".")[0]) * 10**6
        ready(plan, tmp_path / "out", device="cuda", vram=least)
        assert shares(10**10, least, 3, least_of(plan)) >= (1, least_of(plan))

    def test_it_reaches_a_detached_run(self) -> None:
        assert AssembleOptions(check=True, vram=5, device="cuda").arguments() == ["--device", "cuda", "--vram", "5"]
        assert AssembleOptions(check=True).arguments() == []


@pytest.fixture
def real() -> Iterator[list[Any]]:
    from surgeon.assemble.gpu.device import blending_gpus

    yield list(blending_gpus("cuda"))


@pytest.mark.skipif(not CUDA, reason="there is no GPU")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", EVERY)
def test_a_gpu_gives_the_cpus_bytes_but_for_the_last_place(
    name: str, dtype: str, four: Path, wide: Path, small: None, monkeypatch: pytest.MonkeyPatch, real: list[Any]
) -> None:
    plan = plan_for(four if dtype == "bfloat16" else wide, name, f"dtype: {dtype}")
    how = surveyed(plan, arithmetic.PLAIN)
    assert surveyed(plan, arithmetic.PLAIN, lane=Lane(real[0], 10**4)) == how
    for tensor in blends(plan):
        found = {staged(tensor, most, gpu, how) for most in (16, 7 * 16, 4096) for gpu in real}
        assert len(found) == 1, f"{tensor.name}: the chunks show"
        assert apart(tensor, on_cpu(tensor, how), found.pop()) <= 1, tensor.name


@pytest.mark.skipif(GPUS < 2, reason="there are no two GPUs")
def test_two_gpus_give_the_bytes_of_one(four: Path, tmp_path: Path) -> None:
    plan = plan_of(four, recipe("ties"))
    for device in ("cuda", "cuda:1"):
        assemble(plan, tmp_path / device, shard_size=900, fsync=False, device=device, vram=10**9)
    assert contents(tmp_path / "cuda") == contents(tmp_path / "cuda:1")
