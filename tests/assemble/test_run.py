"""A plan to disk: what is written, and that nothing is where nothing should be when it is not."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from surgeon.assemble import Cancelled
from surgeon.assemble.files import small_files
from surgeon.assemble.io import byte_copy as copying
from surgeon.assemble.io.digest import digest
from surgeon.assemble.layout import lay_out
from surgeon.assemble.write import sink
from surgeon.errors import InputError, SurgeonError
from surgeon.plan import Plan
from tests.support.assembling import assemble, contents, donor, passthrough, plan_of, snapshot, write_file
from tests.support.paths import child_environment


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return donor(tmp_path / "donors" / "a", 3, seed=1)


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return donor(tmp_path / "donors" / "b", 4, seed=2)


@pytest.fixture
def plan(a: Path, b: Path) -> Plan:
    return plan_of(passthrough((a, 0, 3), (b, 1, 4), more=f"base_model: {json.dumps(str(a))}"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "model"


def expected(a: Path, b: Path) -> dict[str, Any]:
    """What the plan's tensors must be: by hand, from the donors' bytes."""
    first, second = contents(a), contents(b)
    tensors = {name: value for name, value in first.items() if name == "model.embed_tokens.weight"}
    tensors |= {name: second[name] for name in ("model.norm.weight", "lm_head.weight")}
    for index in range(6):
        source, layer = (first, index) if index < 3 else (second, index - 2)
        for name, value in source.items():
            if name.startswith(f"model.layers.{layer}."):
                tensors[name.replace(f"layers.{layer}.", f"layers.{index}.")] = value
    return tensors


def leftovers(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir()) if out.parent.exists() else []


class TestWritten:
    def test_every_tensor_is_its_donors_to_the_bit(self, plan: Plan, a: Path, b: Path, out: Path) -> None:
        result = assemble(plan, out)
        assert contents(out) == expected(a, b)
        assert (result.layers, result.nbytes) == (6, plan.estimates.nbytes)
        assert result.parameters == plan.estimates.parameters
        assert sorted(result.files) == leftovers(out / "x")
        assert leftovers(out) == ["model"]

    def test_config_and_companions(self, plan: Plan, a: Path, out: Path) -> None:
        assemble(plan, out, recipe="# mine\nslices: []\n")
        config = json.loads((out / "config.json").read_text())
        assert config["num_hidden_layers"] == 6
        assert list(config) == list(plan.config)  # type: ignore[arg-type]
        assert (out / "config.json").read_text().startswith('{\n  "')
        for name in ("tokenizer.json", "generation_config.json"):
            assert (out / name).read_bytes() == (a / name).read_bytes()
        assert (out / "surgeon_recipe.yaml").read_text() == "# mine\nslices: []\n"

    def test_each_tensor_is_told_of_when_its_turn_comes(self, plan: Plan, tmp_path: Path) -> None:
        (shard,) = lay_out(plan.tensors, 10**9).shards
        tensors, told = shard.tensors[:4], Mock()
        target = sink.Target(tmp_path / "x.safetensors", flush=False)
        one = sink.Sink(target, tensors, told, Mock())
        for placed in tensors:
            one.write(memoryview(bytes(placed.tensor.nbytes)))
        one.finish()
        target.close(flush=False)
        names = [placed.tensor.name for placed in tensors]
        assert [call.args[0] for call in told.begin.call_args_list] == names
        assert [call.args[0] for call in told.finish.call_args_list] == names

    @pytest.mark.parametrize("data", [b"", b"short"])
    def test_what_an_earlier_run_has_left_of_a_small_file_is_overwritten(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_bytes(b"longer than what comes")
        assert small_files.write_small(tmp_path / "a.json", data, flush=False) == digest(data)
        assert (tmp_path / "a.json").read_bytes() == data

    def test_linked_companions_are_copied_as_files(self, a: Path, out: Path, tmp_path: Path) -> None:
        blob = tmp_path / "blob"
        (a / "tokenizer.json").rename(blob)
        (a / "tokenizer.json").symlink_to(blob)
        assemble(plan_of(passthrough((a, 0, 3))), out)
        assert not (out / "tokenizer.json").is_symlink()
        assert (out / "tokenizer.json").read_bytes() == blob.read_bytes()

    def test_a_pipe_is_no_companion(self, plan: Plan, out: Path, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(SurgeonError, match="not a regular file"):
            assemble(replace(plan, files={"tokenizer.json": tmp_path / "pipe"}), out)
        assert not out.exists()

    @pytest.mark.parametrize("shard_size", [1, 700, 3000, 10**9])
    def test_any_shard_size_gives_the_same_tensors(
        self, plan: Plan, a: Path, b: Path, out: Path, shard_size: int
    ) -> None:
        result = assemble(plan, out, shard_size=shard_size)
        assert contents(out) == expected(a, b)
        shards = [path for path in out.glob("*.safetensors") if path.stat().st_size]
        largest = max(tensor.nbytes for tensor in plan.tensors)
        assert all(
            sum(len(data) for *_, data in contents(path).values()) <= max(shard_size, largest) for path in shards
        )
        assert ("model.safetensors.index.json" in result.files) == (len(shards) > 1)

    def test_any_number_of_workers_gives_the_same_bytes(self, a: Path, b: Path, tmp_path: Path) -> None:
        plan = plan_of(passthrough((a, 0, 3), (b, 1, 4), more="dtype: float32\nparameters: {scale: 0.5}"))
        written = []
        for workers in (1, 2, 7, None):
            # Cards carry the folder's name: it must be the same one.
            assemble(plan, tmp_path / str(workers) / "model", shard_size=900, workers=workers)
            written.append(snapshot(tmp_path / str(workers) / "model"))
        assert len(written[0]) > 10
        assert all(other == written[0] for other in written)

    def test_workers_share_no_torch_threads(self, a: Path, out: Path, monkeypatch) -> None:
        import torch

        from surgeon.methods.cast import Converter

        real, seen = Converter.run, []
        monkeypatch.setattr(
            Converter, "run", lambda self, count: seen.append(torch.get_num_threads()) or real(self, count)
        )
        before = torch.get_num_threads()
        assemble(plan_of(passthrough((a, 0, 3), more="dtype: float32")), out)
        assert set(seen) == {1}
        assert torch.get_num_threads() == before

    def test_the_fallback_writes_the_same_bytes(self, plan: Plan, tmp_path: Path, monkeypatch) -> None:
        assemble(plan, tmp_path / "kernel" / "model")
        monkeypatch.delattr(os, "copy_file_range")
        assemble(plan, tmp_path / "buffer" / "model", fsync=False)
        assert snapshot(tmp_path / "kernel") == snapshot(tmp_path / "buffer")

    def test_donors_are_not_touched(self, plan: Plan, a: Path, out: Path) -> None:
        before = snapshot(a.parent)
        stamps = {path: path.stat().st_mtime_ns for path in a.parent.rglob("*")}
        assemble(plan, out)
        assert snapshot(a.parent) == before
        assert {path: path.stat().st_mtime_ns for path in a.parent.rglob("*")} == stamps


class TestCard:
    def test_layers_donors_and_recipe(self, a: Path, b: Path, out: Path) -> None:
        (b / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# B\n")
        (a / "README.md").write_text("license: mit\n")
        recipe = passthrough((a, 0, 3), (b, 1, 2), (b, 3, 4)) + "# ```fence```\n"
        public = recipe.replace(str(a), "a").replace(str(b), "b")
        assemble(plan_of(recipe), out, recipe=recipe)
        card = (out / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: transformers\ntags:\n- merge\n- surgeon\n---\n")
        assert "| 0-2 | A 0-2 | passthrough |" in card
        assert "| 3 | B 1 | passthrough |" in card
        assert "| 4 | B 3 | passthrough |" in card
        assert "| apache-2.0 |" in card
        assert "not stated" in card
        assert f"````yaml\n{public.rstrip()}\n````" in card

    def test_hub_ids_alone_are_base_models(self, tmp_path: Path, out: Path, monkeypatch) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        repo = tmp_path / "hub" / "models--org--name"
        cached = donor(repo / "snapshots" / "abc")
        (cached / "README.md").write_text("---\nlicense: mit\n---\n")
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text("abc")
        local = donor(tmp_path / "work" / "models" / "a", seed=3)
        recipe = passthrough((Path("org/name"), 0, 2), (Path("models/a"), 0, 1))
        assemble(plan_of(recipe, tmp_path / "work"), out)
        assert '\nbase_model:\n- "org/name"\n---' in (out / "README.md").read_text()
        (local / "README.md").write_text("---\nlicense: 'mit'\n---\n")
        assemble(plan_of(recipe, tmp_path / "work"), out, force=True)
        assert '\nlicense: "mit"\n---' in (out / "README.md").read_text()

    def test_names_cannot_become_markup(self, tmp_path: Path, out: Path) -> None:
        wild = donor(tmp_path / "a|b`<script>")
        assemble(plan_of(passthrough((wild, 0, 3))), out, recipe="x: y")
        card = (out / "README.md").read_text()
        assert "<script>" not in card
        assert "a\\|b\\`&lt;script>" in card


class TestEvents:
    def test_all_is_told_in_order(self, plan: Plan, out: Path) -> None:
        events: list[dict[str, Any]] = []
        result = assemble(plan, out, shard_size=900, workers=1, on_event=events.append)
        json.dumps(events)
        kinds = [event["event"] for event in events]
        assert kinds[0] == "start"
        assert kinds[-1] == "done"
        first, last = events[0], events[-1]
        assert first["bytes"] == result.nbytes
        assert first["tensors"] == len(plan.tensors)
        assert first["layers"] == 6
        assert first["shards"] == len(list(out.glob("*.safetensors")))
        assert first["out"] == last["out"] == str(out)
        assert last["bytes"] == result.nbytes
        assert last["files"] == sorted(path.name for path in out.iterdir())
        assert sorted(event["index"] for event in events if event["event"] == "layer") == list(range(6))
        ends = {event["role"] for event in events if event["event"] == "end"}
        assert ends == {"embeddings", "final_norm", "lm_head"}
        progress = [event for event in events if event["event"] == "progress"]
        assert progress[-1] | {"rate": 0} == {
            "event": "progress",
            "bytes": result.nbytes,
            "total": result.nbytes,
            "rate": 0,
            "eta": 0.0,
            "layer": progress[-1]["layer"],
            "memory": progress[-1]["memory"],
            "files": {},
            "files_done": first["shards"],
        }
        assert 10_000_000 < progress[-1]["memory"] < 10_000_000_000
        named = {path.name for path in out.glob("*.safetensors")}
        assert all(event["files"].keys() <= named for event in progress)

    def test_progress_is_told_at_most_four_times_a_second(self, monkeypatch) -> None:
        from surgeon.assemble import progress_tracker as tracking

        now = 100.0
        monkeypatch.setattr(tracking, "time", SimpleNamespace(monotonic=lambda: now))
        told: list[dict[str, Any]] = []
        tracker = tracking.Tracker({"x": 0})
        reporter = tracking.Reporter(tracker, 5000, told.append)
        for _ in range(400):
            now += 0.0625
            tracker.advance(10)
            reporter.tick()
        assert len(told) == 100
        assert told[-1]["rate"] == pytest.approx(160)
        assert told[-1]["eta"] == pytest.approx((5000 - told[-1]["bytes"]) / 160, abs=0.1)

    def test_what_an_earlier_run_wrote_counts_as_done_and_not_as_fast(self, monkeypatch) -> None:
        from surgeon.assemble import progress_tracker as tracking

        now = 100.0
        monkeypatch.setattr(tracking, "time", SimpleNamespace(monotonic=lambda: now))
        told: list[dict[str, Any]] = []
        tracker = tracking.Tracker({"x": 0, "y": 1})
        reporter = tracking.Reporter(tracker, 5000, told.append)
        tracker.open("file", 5000)
        tracker.skip("x", 4000, "file")
        now += 1
        tracker.advance(100, "file")
        reporter.tick()
        assert told[0] == {"event": "layer", "index": 0}
        assert (told[1]["bytes"], told[1]["rate"], told[1]["eta"]) == (4100, 0, None)
        assert told[1]["files"] == {"file": [4100, 5000]}
        now += 1
        tracker.advance(100, "file")
        reporter.tick()
        assert (told[2]["bytes"], told[2]["rate"]) == (4200, 100)

    def test_a_layer_is_told_when_its_last_tensor_is_there(self, plan: Plan) -> None:
        from surgeon.assemble.progress_tracker import Tracker, places

        tracker = Tracker(places(plan))
        *names, last = [tensor.name for tensor in plan.layers[4].tensors]
        for name in names:
            tracker.finish(name)
        assert not tracker.finished
        tracker.finish(last)
        assert list(tracker.finished) == [4]

    def test_failures_are_told_too(self, plan: Plan, a: Path, out: Path) -> None:
        events: list[dict[str, Any]] = []
        with pytest.raises(InputError) as error:
            assemble(plan, a, on_event=events.append)
        assert events == [{"event": "error", "message": error.value.sentence()}]


class TestRefused:
    def test_a_plan_with_errors_and_all_of_them(self, a: Path, out: Path) -> None:
        plan = plan_of(passthrough((a, 0, 9), (a.parent / "none", 0, 1)))
        assert len(plan.errors) >= 2
        with pytest.raises(InputError) as error:
            assemble(plan, out)
        for finding in plan.errors:
            assert finding.what in str(error.value)
        assert leftovers(out) == []

    @pytest.mark.parametrize("force", [False, True])
    @pytest.mark.parametrize("where", ["a", "a/inside", ".", "link", "link/inside", "a/../b"])
    def test_a_donor_whatever_it_is_called(self, plan: Plan, a: Path, where: str, force: bool) -> None:
        (a.parent / "link").symlink_to(a)
        before = snapshot(a.parent)
        with pytest.raises(InputError, match="donor"):
            assemble(plan, a.parent / where, force=force)
        assert snapshot(a.parent) == before

    def test_a_folder_that_holds_what_a_donor_links_to(self, a: Path, tmp_path: Path) -> None:
        blobs = tmp_path / "blobs"
        blobs.mkdir()
        (a / "model.safetensors").rename(blobs / "x")
        (a / "model.safetensors").symlink_to(blobs / "x")
        with pytest.raises(InputError, match="donor A"):
            assemble(plan_of(passthrough((a, 0, 3))), blobs, force=True)
        assert (blobs / "x").exists()

    def test_beside_a_lone_file_is_no_donors_folder(self, a: Path) -> None:
        plan = plan_of(passthrough((a / "model.safetensors", 0, 3)))
        assemble(plan, a / "new")
        assert contents(a / "new") == contents(a)

    def test_a_file(self, plan: Plan, out: Path) -> None:
        out.parent.mkdir()
        out.write_text("mine")
        with pytest.raises(InputError, match="file of that name"):
            assemble(plan, out, force=True)
        assert out.read_text() == "mine"

    def test_a_folder_that_is_not_empty(self, plan: Plan, out: Path) -> None:
        out.mkdir(parents=True)
        (out / "note").write_text("mine")
        with pytest.raises(InputError, match=r"not empty.*--force"):
            assemble(plan, out)
        assert snapshot(out) == {"note": b"mine"}

    @pytest.mark.parametrize("force", [False, True])
    def test_the_working_folder_and_the_recipes(self, plan: Plan, out: Path, monkeypatch, force: bool) -> None:
        out.mkdir(parents=True)
        (out / "recipe.yaml").write_text("mine")
        with pytest.raises(InputError, match="would be lost"):
            assemble(plan, out, force=force, keep=[out / "recipe.yaml"])
        monkeypatch.chdir(out)
        with pytest.raises(InputError, match="would be lost"):
            assemble(plan, Path(".."), force=force)
        assert snapshot(out) == {"recipe.yaml": b"mine"}

    def test_too_little_room(self, plan: Plan, out: Path, monkeypatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**6, used=0, free=5000))
        with pytest.raises(SurgeonError, match=r"needs 2\d\d\.\d kB, but the disk has only 5\.0 kB free"):
            assemble(plan, out)
        assert leftovers(out) == []

    def test_a_parent_that_cannot_be_made(self, plan: Plan, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(SurgeonError, match="cannot create the folder"):
            assemble(plan, tmp_path / "file" / "model")


class TestReplaced:
    def test_an_empty_folder_needs_no_force(self, plan: Plan, out: Path) -> None:
        out.mkdir(parents=True)
        assemble(plan, out)
        assert leftovers(out) == ["model"]

    def test_force_leaves_nothing_of_the_old(self, plan: Plan, a: Path, b: Path, out: Path) -> None:
        assemble(plan, out, shard_size=900)
        (out / "note").write_text("old")
        assemble(plan, out, force=True)
        assert "note" not in leftovers(out / "x")
        assert len(list(out.glob("*.safetensors"))) == 1
        assert contents(out) == expected(a, b)
        assert leftovers(out) == ["model"]

    def test_through_a_link_the_link_stays(self, plan: Plan, a: Path, b: Path, out: Path, tmp_path: Path) -> None:
        out.mkdir(parents=True)
        (tmp_path / "link").symlink_to(out)
        assemble(plan, tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert contents(out) == expected(a, b)

    def test_the_old_comes_back_when_the_new_cannot_have_its_name(self, plan: Plan, out: Path, monkeypatch) -> None:
        out.mkdir(parents=True)
        (out / "note").write_text("old")
        real = Path.rename

        def rename(self: Path, target: Path) -> Path:
            if self.parent.name == ".model.surgeon" and self.name == "model":
                raise OSError(errno.EIO, "Input/output error")
            return real(self, target)

        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(SurgeonError, match="Input/output error"):
            assemble(plan, out, force=True)
        assert snapshot(out) == {"note": b"old"}
        monkeypatch.undo()
        assemble(plan, out, force=True, resume=True)
        assert leftovers(out) == ["model"]
        assert "note" not in snapshot(out)


class TestStopped:
    """Whatever ends it early: OUT is as it was, and a later run goes on from there to the same bytes."""

    @pytest.fixture(params=["new", "empty", "full"])
    def before(self, request, out: Path) -> dict[str, bytes]:
        if request.param != "new":
            out.mkdir(parents=True)
        if request.param == "full":
            (out / "note").write_text("old")
        return self.state(out)

    @staticmethod
    def state(out: Path) -> dict[str, bytes]:
        """All that lies there, but for what is kept for a later run; the folder around it is made for that."""
        root = out.parent.parent
        folders = {str(path.relative_to(root)): b"" for path in root.rglob("*") if path.is_dir()}
        kept = str(out.parent.relative_to(root) / f".{out.name}.surgeon")
        found = {name: data for name, data in (folders | snapshot(root)).items() if not name.startswith(kept)}
        return {name: data for name, data in found.items() if name != out.parent.name}

    @staticmethod
    def goes_on(plan: Plan, out: Path, tmp_path: Path, **options: Any) -> None:
        """A resumed run writes what one that nothing has stopped does, and leaves nothing else."""
        assemble(plan, out, force=True, resume=True, **options)
        assemble(plan, tmp_path / "whole" / out.name, **options)
        assert snapshot(out) == snapshot(tmp_path / "whole" / out.name)
        assert leftovers(out) == [out.name]

    @pytest.mark.parametrize("asked", [1, 2, 3, "start", "layer", "end"])
    def test_cancel(self, plan: Plan, out: Path, before: dict[str, bytes], asked: int | str, tmp_path: Path) -> None:
        events: list[dict[str, Any]] = []
        calls: list[int] = []

        def cancelled() -> bool:
            calls.append(1)
            return len(calls) >= asked if isinstance(asked, int) else any(e["event"] == asked for e in events)

        # One shard, one worker: the question comes when it is done, and before the rename.
        shard_size = 900 if asked == 3 else 10**9
        with pytest.raises(Cancelled) as error:
            assemble(
                plan, out, force=True, shard_size=shard_size, workers=1, on_event=events.append, cancelled=cancelled
            )
        assert error.value.exit_code == 130
        assert events[-1] == {"event": "cancelled", "message": error.value.sentence()}
        assert self.state(out) == before
        self.goes_on(plan, out, tmp_path, shard_size=shard_size)

    def test_cancel_in_the_middle_of_a_file(
        self, plan: Plan, out: Path, before: dict[str, bytes], monkeypatch, tmp_path: Path
    ) -> None:
        import threading

        stop, real = threading.Event(), os.preadv
        copied: list[int] = []

        def slow(fd: int, into: list[memoryview], start: int) -> int:
            copied.append(real(fd, into, start))
            if sum(copied) > 500:
                stop.set()
            # The main thread has seen it long before the last piece; otherwise nothing would end this loop.
            threading.Event().wait(0.02)
            return copied[-1]

        monkeypatch.setattr(copying, "BUFFER", 16)
        monkeypatch.setattr(os, "preadv", slow)
        with pytest.raises(Cancelled, match=r"^cancelled\. \d+ B of 7\.2 kB are written: resume with --resume, or"):
            assemble(plan, out, force=True, cancelled=stop)
        assert sum(copied) < plan.estimates.nbytes
        assert self.state(out) == before
        monkeypatch.undo()
        self.goes_on(plan, out, tmp_path)

    def test_cancelled_before_the_first_tensor_nothing_is_kept(self, plan: Plan, out: Path) -> None:
        with pytest.raises(Cancelled, match=r"^cancelled\. Nothing was written\.$"):
            assemble(plan, out, on_event=lambda event: 1 / 0 if event["event"] != "start" else self.cancel())
        assert not out.parent.exists()

    @staticmethod
    def cancel() -> None:
        raise Cancelled

    def test_an_interrupt(self, plan: Plan, out: Path, before: dict[str, bytes], tmp_path: Path) -> None:
        def interrupt(event: dict[str, Any]) -> None:
            if event["event"] == "layer":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            assemble(plan, out, force=True, on_event=interrupt)
        assert self.state(out) == before
        self.goes_on(plan, out, tmp_path)

    @pytest.mark.parametrize("after", [2, 9])
    @pytest.mark.parametrize("call", ["os.pwrite", "os.fdatasync", "sink.reserve"])
    def test_a_full_disk(
        self, plan: Plan, out: Path, before: dict[str, bytes], monkeypatch, call: str, after: int, tmp_path: Path
    ) -> None:
        module, name = {"os": os, "sink": sink}[call.partition(".")[0]], call.partition(".")[2]
        real, calls = getattr(module, name), []

        def full(*args: Any) -> Any:
            calls.append(1)
            if len(calls) > after:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        monkeypatch.setattr(module, name, full)
        events: list[dict[str, Any]] = []
        # The folder's own name stands in the card.
        with pytest.raises(
            SurgeonError, match=r"the disk is full\. Free some space, or choose another disk; "
        ) as error:
            assemble(plan, out, force=True, shard_size=900, on_event=events.append)
        assert str(out) in str(error.value)
        assert events[-1] == {"event": "error", "message": error.value.sentence()}
        assert self.state(out) == before
        monkeypatch.undo()
        self.goes_on(plan, out, tmp_path, shard_size=900)

    def test_a_donor_cut_short_before(self, plan: Plan, b: Path, out: Path) -> None:
        weights = b / "model.safetensors"
        os.truncate(weights, weights.stat().st_size - 100)
        with pytest.raises(SurgeonError, match="truncated") as error:
            assemble(plan, out)
        assert str(weights) in str(error.value)
        assert leftovers(out) == []

    def test_a_donor_replaced_before(self, plan: Plan, b: Path, out: Path) -> None:
        donor(b, 5, seed=9)
        with pytest.raises(SurgeonError, match="changed since the plan was made") as error:
            assemble(plan, out)
        assert str(b / "model.safetensors") in str(error.value)

    @pytest.mark.parametrize("kernel", [True, False])
    @pytest.mark.parametrize("more", ["", "dtype: float32"])
    def test_a_donor_cut_short_meanwhile(
        self, a: Path, b: Path, out: Path, before: dict[str, bytes], monkeypatch, kernel: bool, more: str
    ) -> None:
        plan = plan_of(passthrough((a, 0, 3), (b, 1, 4), more=more))
        if not kernel:
            monkeypatch.delattr(os, "copy_file_range")

        def cut(event: dict[str, Any]) -> None:
            if event["event"] == "start":
                os.truncate(b / "model.safetensors", 2000)

        with pytest.raises(SurgeonError, match="ends at byte 2,000") as error:
            assemble(plan, out, force=True, on_event=cut)
        assert str(b / "model.safetensors") in str(error.value)
        weights = f"donors/b/{'model.safetensors'}"
        assert {**self.state(out), weights: b""} == {**before, weights: b""}

    @pytest.mark.parametrize("more", ["", "dtype: float32"])
    def test_a_donor_written_to_meanwhile(self, a: Path, b: Path, out: Path, more: str) -> None:
        """It keeps its length, so that reading it fails nowhere."""
        plan = plan_of(passthrough((a, 0, 3), (b, 1, 4), more=more))

        def write(event: dict[str, Any]) -> None:
            if event["event"] == "start":
                with (b / "model.safetensors").open("r+b") as file:
                    file.seek(-1, 2)
                    file.write(b"x")

        with pytest.raises(SurgeonError, match="changed while the model was being written") as error:
            assemble(plan, out, on_event=write)
        assert str(b / "model.safetensors") in str(error.value)
        assert not out.exists()
        with pytest.raises(InputError, match=r"the donor \S+ changed \(it was written to since\)"):
            assemble(plan, out, resume=True)

    def test_a_result_that_is_not_the_plan(self, plan: Plan, out: Path, before: dict[str, bytes]) -> None:
        for wrong in ({"num_hidden_layers": 5}, {"tie_word_embeddings": True}):
            with pytest.raises(SurgeonError):
                assemble(replace(plan, config=plan.config | wrong), out, force=True)  # type: ignore[operator]
            assert self.state(out) == before

    def test_a_layer_with_anothers_attributes(self, tmp_path: Path, out: Path) -> None:
        kinds = ["full_attention", "sliding_attention", "full_attention"]
        sliding = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 16}
        plan = plan_of(passthrough((donor(tmp_path / "q", layer_types=kinds, **sliding), 0, 3)))  # type: ignore[arg-type]
        with pytest.raises(SurgeonError, match=r"layer 1 is \{'attention': 'full'"):
            assemble(replace(plan, config=plan.config | {"layer_types": ["full_attention"] * 3}), out)  # type: ignore[operator]
        assert leftovers(out) == []
        assemble(plan, out)

    def test_a_tensor_that_did_not_arrive(self, plan: Plan, out: Path, before: dict[str, bytes], monkeypatch) -> None:
        from surgeon.assemble import layout, run

        real = layout.lay_out
        monkeypatch.setattr(run, "lay_out", lambda tensors, limit: real(tensors[:-1], limit))
        with pytest.raises(SurgeonError, match=r"lm_head\.weight"):
            assemble(plan, out, force=True)
        assert self.state(out) == before


class TestKilled:
    """What a killed run leaves between its two last renames."""

    @staticmethod
    def leave(out: Path, name: str) -> None:
        folder = out.parent / f".{out.name}.surgeon" / name
        folder.mkdir(parents=True)
        (folder / "half").write_text("half")

    def test_what_tells_nothing_goes(self, plan: Plan, out: Path) -> None:
        self.leave(out, "model")
        assemble(plan, out)
        assert leftovers(out) == ["model"]

    def test_another_outputs_stays(self, plan: Plan, out: Path) -> None:
        self.leave(out.with_name("model2"), "model")
        assemble(plan, out)
        assert leftovers(out) == [".model2.surgeon", "model"]

    def test_between_the_renames_the_old_comes_back(self, plan: Plan, out: Path) -> None:
        self.leave(out, "old")
        with pytest.raises(InputError, match="not empty"):
            assemble(plan, out)
        assert snapshot(out.parent) == {"model/half": b"half"}

    def test_after_them_the_old_goes(self, plan: Plan, out: Path) -> None:
        assemble(plan, out)
        self.leave(out, "old")
        assemble(plan, out, force=True)
        assert leftovers(out) == ["model"]


class TestFrugal:
    def big(self, folder: Path, nbytes: int) -> Path:
        donor(folder)
        specs = [(name, *value) for name, value in contents(folder).items()]
        specs.insert(0, ("extra.big", "BF16", (nbytes // 2,), bytes(nbytes)))
        write_file(folder / "model.safetensors", specs)
        return folder

    @pytest.mark.parametrize("kernel", [True, False])
    def test_a_large_tensor_is_never_in_memory(self, tmp_path: Path, out: Path, monkeypatch, kernel: bool) -> None:
        large = 48 * 1024 * 1024
        plan = plan_of(passthrough((self.big(tmp_path / "big", large), 0, 3)))
        if not kernel:
            monkeypatch.delattr(os, "copy_file_range")
        tracemalloc.start()
        assemble(plan, out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (out / "model.safetensors").stat().st_size > large
        assert peak < 4_000_000

    def test_nor_when_it_is_computed(self, tmp_path: Path, out: Path, monkeypatch) -> None:
        plan = plan_of(passthrough((self.big(tmp_path / "big", 2_000_000), 0, 3), more="dtype: float32"))
        pieces: list[int] = []
        read = os.preadv
        monkeypatch.setattr(os, "preadv", lambda fd, into, at: pieces.append(len(into[0])) or read(fd, into, at))
        assemble(plan, out)
        assert sum(pieces) >= 2_000_000
        assert max(pieces) <= 2 * 128 * 1024

    def test_a_pure_passthrough_does_not_import_torch(self, a: Path, out: Path) -> None:
        script = (
            "import sys\nfrom pathlib import Path\nfrom surgeon.assemble import assemble\n"
            "from tests.support.assembling import passthrough, plan_of\n"
            "assemble(plan_of(passthrough((Path(sys.argv[1]), 0, 3))), Path(sys.argv[2]))\n"
            "print(sorted({'torch', 'numpy', 'transformers', 'safetensors'} & set(sys.modules)))"
        )
        found = subprocess.run(
            [sys.executable, "-c", script, str(a), str(out)],
            env=child_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == "[]"
        assert contents(out) == contents(a)
