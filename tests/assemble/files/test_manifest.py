"""The manifest: what was written is there in it, and what has become of the files since is found and named."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon import __version__
from surgeon.assemble.files import manifest
from surgeon.assemble.io.digest import digest
from surgeon.checkpoint import open_checkpoint
from surgeon.cli.app import run
from surgeon.errors import InputError
from surgeon.verify import rehash
from tests.support.assembling import assemble, contents, donor, passthrough, plan_of, snapshot, write_file

NAME = "model.layers.3.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest")
    a, b = donor(folder / "a", 3, seed=1, dtype="F32"), donor(folder / "b", 4, seed=2, dtype="F32")
    recipe = "# mine\n" + passthrough((a, 0, 3), (b, 1, 4), more="seed: 7")
    (folder / "recipe.yaml").write_text(recipe)
    assemble(plan_of(recipe), folder / "out", recipe=recipe, shard_size=2000)
    return folder


@pytest.fixture
def out(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original / "out", tmp_path / "out"))


def document(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "surgeon.json").read_text())
    assert isinstance(found, dict)
    return found


def problems(folder: Path, workers: int | None = None) -> list[tuple[str, str, str]]:
    """(file, tensor, what) of all that is found from the files alone."""
    found, checkpoint = manifest.read(folder), open_checkpoint(str(folder))
    assert found is not None
    every = [
        *rehash.file_problems(checkpoint, found),
        *rehash.name_problems(checkpoint, found),
        *rehash.hash_problems(checkpoint, found, workers=workers),
    ]
    return [(problem.file, problem.tensor, problem.what) for problem in every]


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def locate(folder: Path, name: str) -> tuple[Path, int]:
    entry = open_checkpoint(str(folder)).tensors[name]
    return entry.file, entry.offset


class TestWritten:
    def test_there_is_room_for_it_in_what_is_asked_of_the_disk(self, original: Path) -> None:
        recipe = (original / "out" / "surgeon_recipe.yaml").read_text()
        needed = manifest.size_of(contents(original / "out"), recipe)
        assert (original / "out" / "surgeon.json").stat().st_size <= needed < 100_000
        bare = json.dumps(document(original / "out") | {"tensors": {}}, indent=2)
        assert len(bare) <= manifest.size_of([], recipe)

    def test_every_tensor_with_its_hash_and_where_it_is_from(self, original: Path) -> None:
        found, tensors = document(original / "out"), contents(original / "out")
        assert found["tensors"].keys() == tensors.keys()
        assert {name: record["hash"] for name, record in found["tensors"].items()} == {
            name: digest(data) for name, (_, _, data) in tensors.items()
        }
        for name, record in found["tensors"].items():
            source = found["sources"][record["copy"]["source"]]
            theirs = contents(original / source["donor"])[record["copy"]["tensor"]]
            # One hash is of both.
            assert digest(theirs[2]) == record["hash"], name
        entries = open_checkpoint(str(original / "out")).tensors
        assert all(entries[name].file.name == record["shard"] for name, record in found["tensors"].items())

    def test_what_it_is_made_from(self, original: Path) -> None:
        found = document(original / "out")
        assert found["recipe"].startswith("# mine\n")
        assert (found["seed"], found["format"], found["hash"]) == (7, 1, "xxh3_128")
        assert found["programs"] == {"surgeon": __version__}
        assert found["donors"] == {"A": "a", "B": "b"}
        for source in found["sources"]:
            path = original / source["donor"] / source["file"]
            raw = path.read_bytes()
            header = raw[: 8 + int.from_bytes(raw[:8], "little")]
            assert (source["size"], source["header"]) == (len(raw), digest(header))

    def test_every_file(self, original: Path) -> None:
        out, found = original / "out", document(original / "out")
        assert {shard["file"] for shard in found["shards"]} == {path.name for path in out.glob("*.safetensors")}
        for shard in found["shards"]:
            raw = (out / shard["file"]).read_bytes()
            header = raw[: 8 + int.from_bytes(raw[:8], "little")]
            assert (shard["size"], shard["header"]) == (len(raw), digest(header))
        small = {path.name: digest(path.read_bytes()) for path in out.iterdir() if path.suffix != ".safetensors"}
        assert small.pop("surgeon.json")
        assert found["files"] == small

    def test_a_line_for_each_tensor_and_no_time(self, original: Path, tmp_path: Path) -> None:
        text = (original / "out" / "surgeon.json").read_text()
        assert text.count("\n") > 57
        os.utime(original / "out" / "surgeon.json", (1, 1))
        recipe = (original / "recipe.yaml").read_text()
        assemble(plan_of(recipe), tmp_path / "out", recipe=recipe, shard_size=2000, workers=1)
        assert (tmp_path / "out" / "surgeon.json").read_text() == text

    def test_computed_tensors_name_no_donor(self, original: Path, tmp_path: Path) -> None:
        plan = plan_of(passthrough((original / "a", 0, 3), more="dtype: bfloat16"))
        assemble(plan, tmp_path / "out", allow_nonfinite=True)
        found = document(tmp_path / "out")
        assert not any("copy" in record for record in found["tensors"].values())
        assert found["programs"].keys() == {"surgeon", "torch", "numpy"}
        assert found["allow_nonfinite"] is True

    def test_odd_names_and_texts(self, tmp_path: Path) -> None:
        a = donor(tmp_path / 'a"\n☃')
        plan = plan_of(passthrough((a, 0, 3)))
        tensors = [('x\n\x1b"', "U8", (2,), b"ab"), *((n, *v) for n, v in contents(a).items())]
        write_file(a / "model.safetensors", tensors)
        plan = plan_of(passthrough((a, 0, 3)))
        assert any(tensor.name.startswith("x\n") for tensor in plan.tensors)
        assemble(plan, tmp_path / "out", recipe='# ☃ "\n')
        assert document(tmp_path / "out")["recipe"] == '# ☃ "\n'
        assert problems(tmp_path / "out") == []


class TestFound:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_nothing_where_nothing_is_wrong(self, out: Path, workers: int) -> None:
        assert problems(out, workers) == []

    @pytest.mark.parametrize("where", [0, 7, -1])
    def test_one_flipped_bit_in_any_place(self, out: Path, where: int) -> None:
        path, offset = locate(out, NAME)
        flip(path, offset + where % (12 * 8 * 4))
        ((file, tensor, what),) = problems(out)
        assert (file, tensor) == (path.name, NAME)
        assert what.startswith("its bytes are not those that were written")

    def test_every_byte_of_a_file_is_in_some_hash(self, out: Path) -> None:
        path = sorted(out.glob("*.safetensors"))[2]
        for offset in range(0, path.stat().st_size, 97):
            flip(path, offset)
            # A header that is no more one is refused before anything of this is reached.
            try:
                found = problems(out)
            except InputError:
                found = [("", "", "")]
            assert found, offset
            flip(path, offset)
        assert problems(out) == []

    def test_a_shard_in_anothers_place(self, out: Path) -> None:
        """The index still fits when the tensors have the same names; here it is left out of it."""
        first, second = sorted(out.glob("*.safetensors"))[:2]
        data = first.read_bytes(), second.read_bytes()
        first.write_bytes(data[1])
        second.write_bytes(data[0])
        found, checkpoint = manifest.read(out), open_checkpoint(str(first))
        assert found is not None
        told = {problem.file: problem.what for problem in rehash.file_problems(checkpoint, found)}
        assert told == {
            first.name: f"it is {second.name} under another name",
            second.name: f"it is {first.name} under another name",
        }

    def test_a_shard_of_another_model_with_the_same_header(self, out: Path, original: Path, tmp_path: Path) -> None:
        recipe = (original / "recipe.yaml").read_text()
        for name in "ab":
            donor(tmp_path / name, 3 if name == "a" else 4, seed=5, dtype="F32")
            recipe = recipe.replace(str(original / name), str(tmp_path / name))
        assemble(plan_of(recipe), tmp_path / "other", shard_size=2000)
        name = sorted(path.name for path in out.glob("*.safetensors"))[1]
        shutil.copy(tmp_path / "other" / name, out / name)
        held = {entry.name for entry in open_checkpoint(str(out)).tensors.values() if entry.file.name == name}
        assert {(file, tensor) for file, tensor, _ in problems(out)} == {(name, tensor) for tensor in held}

    def test_a_shard_that_is_gone_or_longer(self, out: Path) -> None:
        checkpoint, found = open_checkpoint(str(out)), manifest.read(out)
        assert found is not None
        path = sorted(out.glob("*.safetensors"))[0]
        with path.open("ab") as file:
            file.write(b"x")
        (problem,) = rehash.file_problems(checkpoint, found)
        assert problem.file == path.name and "bytes, but" in problem.what
        path.unlink()
        (problem,) = rehash.file_problems(checkpoint, found)
        assert problem.file == path.name and "cannot be read" in problem.what

    def test_tensors_that_nobody_wrote_and_that_are_missing(self, out: Path) -> None:
        path = out / "surgeon.json"
        path.write_text(path.read_text().replace(NAME, "model.layers.3.mlp.other.weight"))
        assert {(tensor, what) for _, tensor, what in problems(out)} == {
            (NAME, "surgeon.json has no such tensor"),
            ("model.layers.3.mlp.other.weight", "it is missing"),
        }

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
    def test_small_files(self, out: Path, name: str) -> None:
        (out / name).write_text((out / name).read_text() + " ")
        assert problems(out) == [(name, "", "it is not what was written")]

    def test_what_people_are_meant_to_edit(self, out: Path) -> None:
        (out / "README.md").write_text("# My model\n")
        (out / "surgeon_recipe.yaml").write_text("# elsewhere\n")
        assert problems(out) == []

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("code", ["BF16", "F16", "F32", "F64"])
    def test_computed_values_that_are_not_finite(self, original: Path, tmp_path: Path, code: str, value: float) -> None:
        """Even where the hash says that just this was written."""
        a = donor(tmp_path / "a", dtype=code)
        write_file(a / "model.safetensors", [(n, c, s, bytes(len(d))) for n, (c, s, d) in contents(a).items()])
        assemble(plan_of(passthrough((a, 0, 3), more="parameters: {scale: 2}")), tmp_path / "out")
        assert problems(tmp_path / "out") == []
        path, offset = locate(tmp_path / "out", "model.layers.1.self_attn.q_proj.weight")
        raw = struct.pack({"BF16": "<f", "F16": "<e", "F32": "<f", "F64": "<d"}[code], value)
        raw = raw[2:] if code == "BF16" else raw
        with path.open("r+b") as file:
            file.seek(offset + 3 * len(raw))
            file.write(raw)
        name = "model.layers.1.self_attn.q_proj.weight"
        found = document(tmp_path / "out")
        found["tensors"][name]["hash"] = digest(contents(tmp_path / "out")[name][2])
        (tmp_path / "out" / "surgeon.json").write_text(json.dumps(found))
        ((_, tensor, what),) = problems(tmp_path / "out")
        assert (tensor, what) == (name, "it holds NaN or infinity, although it was computed")
        (tmp_path / "out" / "surgeon.json").write_text(json.dumps(found | {"allow_nonfinite": True}))
        assert problems(tmp_path / "out") == []

    def test_progress_is_told(self, out: Path) -> None:
        found, events = manifest.read(out), []  # type: ignore[var-annotated]
        assert found is not None
        assert not list(rehash.hash_problems(open_checkpoint(str(out)), found, events.append))
        assert events[-1]["bytes"] == events[-1]["total"] == sum(len(data) for *_, data in contents(out).values())

    def test_a_file_that_cannot_be_read(self, out: Path, monkeypatch) -> None:
        path, _ = locate(out, NAME)
        real = os.preadv

        def fail(fd: int, into: Any, at: int) -> int:
            if Path(f"/proc/self/fd/{fd}").readlink() == path:
                raise OSError(5, "Input/output error")
            return real(fd, into, at)

        monkeypatch.setattr(os, "preadv", fail)
        found = problems(out)
        assert found and {file for file, _, _ in found} == {path.name}
        assert all("Input/output error" in what for _, _, what in found)


@pytest.mark.slow
class TestDonors:
    def test_changed_ones_are_known_by_header_and_length(self, original: Path, tmp_path: Path) -> None:
        found = manifest.read(original / "out")
        assert found is not None
        recipe = (original / "recipe.yaml").read_text()
        assert rehash.changed_sources(found, plan_of(recipe)) == {}
        b = Path(shutil.copytree(original / "b", tmp_path / "b"))
        moved = plan_of(recipe.replace(str(original / "b"), str(b)))
        # A copy elsewhere is the same donor.
        assert rehash.changed_sources(found, moved) == {}
        donor(b, 4, seed=3, dtype="BF16")
        changed = rehash.changed_sources(found, plan_of(recipe.replace(str(original / "b"), str(b))))
        assert set(changed) == {b / "model.safetensors"}

    def test_their_bytes_are_read_then(self, original: Path, out: Path, tmp_path: Path, capsys) -> None:
        """A donor that was saved anew with the same values is still the donor."""
        b = Path(shutil.copytree(original / "b", tmp_path / "b"))
        write_file(b / "model.safetensors", [(n, *v) for n, v in reversed(contents(b).items())])
        assert run(["verify", str(out), "--set", f"A={original / 'a'}", "--set", f"B={b}"]) == 0
        assert "to the bit, byte by byte" in capsys.readouterr().out
        path, offset = locate(b, "model.layers.1.mlp.up_proj.weight")
        flip(path, offset)
        assert run(["verify", str(out), "--set", f"A={original / 'a'}", "--set", f"B={b}"]) == 1
        assert f"{NAME}: byte 0 of 384 is not that of B" in capsys.readouterr().out


@pytest.mark.slow  # each reads the model again
class TestBroken:
    def change(self, out: Path, edit: Callable[[dict[str, Any]], object]) -> None:
        found = document(out)
        edit(found)
        (out / "surgeon.json").write_text(json.dumps(found))

    @pytest.mark.parametrize(
        ("edit", "why"),
        [
            (lambda d: d.update(format=2), "format '2'"),
            (lambda d: d.update(hash="md5"), "with 'md5'"),
            (lambda d: d.pop("tensors"), "no 'tensors'"),
            (lambda d: d.update(tensors=[]), "no attribute"),
            (lambda d: d["tensors"][NAME].update(hash="x"), "of tensor"),
            (lambda d: d["tensors"][NAME].update(shard=3), "of tensor"),
            (lambda d: d["tensors"][NAME]["copy"].update(source=99), "no donor's file '99'"),
            (lambda d: d["tensors"][NAME]["copy"].update(source=-1), "no donor's file '-1'"),
            (lambda d: d["shards"][0].update(size="x"), "of file"),
            (lambda d: d.update(files={"x": 3}), "invalid names or hashes"),
            (lambda d: d.update(files={"../x": "0" * 32}), "names or hashes"),
            (lambda d: d.update(files={"/dev/zero": "0" * 32}), "names or hashes"),
            (lambda d: d["shards"][0].update(file="/dev/zero"), "of file"),
            (lambda d: d["shards"][0].update(size=True), "of file"),
            (lambda d: d["tensors"][NAME]["copy"].update(source=True), "no donor's file 'True'"),
            (lambda d: d.update(format="x" * 10**6), "format 'x{100,1000}"),
        ],
    )
    def test_what_is_none_is_said(self, out: Path, edit: Any, why: str, capsys) -> None:
        self.change(out, edit)
        with pytest.raises(InputError, match=why):
            manifest.read(out)
        assert run(["verify", str(out)]) == 1
        captured = capsys.readouterr()
        assert "WRONG" in captured.out and "surgeon.json: this is not a manifest" in captured.out
        assert "Traceback" not in captured.err

    @given(data=st.binary(max_size=80))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_bytes(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "surgeon.json").write_bytes(data)
        with pytest.raises(InputError, match="manifest"):
            manifest.read(tmp_path)

    def test_deep_nesting(self, tmp_path: Path) -> None:
        (tmp_path / "surgeon.json").write_text("[" * 100_000)
        with pytest.raises(InputError, match="not a manifest"):
            manifest.read(tmp_path)

    def test_a_pipe_and_an_endless_file_are_not_waited_for(self, out: Path, capsys) -> None:
        for name, make in (("pipe", os.mkfifo), ("zero", lambda path: path.symlink_to("/dev/zero"))):
            make(out / name)
            self.change(out, lambda d, name=name: d["files"].update({name: "0" * 32}))  # type: ignore[misc]
        assert run(["verify", str(out)]) == 1
        said = capsys.readouterr().out
        assert "pipe: it cannot be read" in said and "zero: it cannot be read" in said

    def test_none(self, tmp_path: Path) -> None:
        assert manifest.read(tmp_path) is None


def test_a_resumed_run_has_the_same(original: Path, tmp_path: Path) -> None:
    from tests.assemble.resume.test_resume import stop

    recipe = (original / "recipe.yaml").read_text()
    stop(plan_of(recipe), tmp_path / "out", 23, recipe=recipe, shard_size=2000)
    assemble(plan_of(recipe), tmp_path / "out", recipe=recipe, resume=True)
    assert snapshot(tmp_path / "out") == snapshot(original / "out")
