"""`surgeon verify`: what is wrong with a checkpoint is found and named, and what could not be looked at is said."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from surgeon.assemble import load_back
from surgeon.assemble.load_back import LoadBack, LoadBackOutcome
from surgeon.checkpoint import open_checkpoint
from surgeon.cli.app import run
from surgeon.plan import Donors, resolve
from surgeon.recipe.document import load, parse
from surgeon.verify import audit
from tests.support.assembling import assemble, donor, passthrough, plan_of
from tests.support.models import tiny_model, tiny_tokenizer

NAME = "model.layers.3.mlp.up_proj.weight"


class InProcess:
    """The load-back check without a process of its own: its answer is the same, and transformers is imported once."""

    def __init__(self, config: Any, expected: Any) -> None:
        self.config, self.expected = config, expected

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def outcome(self) -> LoadBackOutcome:
        from tempfile import TemporaryDirectory

        from surgeon.verify.load_back_child import check

        with TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(self.config))
            return check(Path(folder), json.loads(json.dumps(self.expected)))


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_back, "LoadBack", InProcess)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """donors/a, donors/b, recipe.yaml, and the model in several shards in out."""
    folder = tmp_path_factory.mktemp("verify")
    for name, seed in (("a", 1), ("b", 2)):
        tiny_tokenizer(tiny_model(folder / "donors" / name, "llama", 3, seed=seed))
    recipe = passthrough(("donors/a", 0, 3), ("donors/b", 1, 3))  # type: ignore[arg-type]
    (folder / "recipe.yaml").write_text(recipe)
    build(folder)
    return folder


def build(folder: Path, **options: Any) -> None:
    text = (folder / "recipe.yaml").read_text()
    document = parse(text, folder / "recipe.yaml")
    plan = resolve(document, Donors(document.roots))
    assemble(plan, folder / "out", recipe=text, shard_size=60_000, force=True, **options)


@pytest.fixture
def out(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the model, to be spoilt; its donors are found from here."""
    monkeypatch.chdir(original)
    return Path(shutil.copytree(original / "out", tmp_path / "out"))


class Said:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: object) -> dict[str, Any]:
        """Code and JSON of a run."""
        self.capsys.readouterr()
        code = run(["verify", *map(str, args), "--json"])
        captured = self.capsys.readouterr()
        self.error = captured.err
        assert "Traceback" not in captured.err
        return {"code": code, **(json.loads(captured.out) if captured.out else {})}


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Iterator[Said]:
    yield Said(capsys)


def locate(folder: Path, name: str) -> tuple[Path, int]:
    entry = open_checkpoint(str(folder)).tensors[name]
    return entry.file, entry.offset


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def spoil(out: Path, **keys: Any) -> None:
    path = out / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a file and keep its data."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def test_a_right_one(out: Path, verify: Said) -> None:
    found = verify(out)
    assert (found["code"], found["ok"], found["problems"], found["unchecked"]) == (0, True, [], [])
    text = " ".join(found["checked"])
    words = ("headers: 5 files", "layer table", "tokenizer", "48 tensors", "by their hashes", "to the bit, by hash")
    for word in (*words, "a LlamaForCausalLM"):
        assert word in text


def test_as_text(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"{out}: 5 layers, 48 tensors" in text
    assert text.count("\n  ok  ") == 7
    flip(*locate(out, NAME))
    assert run(["verify", str(out)]) == 1
    captured = capsys.readouterr()
    assert f"layer 3, {NAME}: byte 0 of 8,192 is not that of B" in captured.out
    assert captured.err == f"surgeon: {out}: 1 thing wrong.\n"


@pytest.mark.parametrize("at", [0, 1, 5000, 8191])
def test_one_flipped_bit(out: Path, verify: Said, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BUFFER", 4096)
    path, offset = locate(out, NAME)
    flip(path, offset + at)
    found = verify(out)
    assert found["code"] == 1
    (problem,) = found["problems"]
    assert (problem["tensor"], problem["layer"], problem["file"]) == (NAME, 3, path.name)
    assert f"byte {at:,} of 8,192" in problem["what"]
    assert "model.layers.1.mlp.up_proj.weight" in problem["what"]


def test_two_shards_that_changed_places(out: Path, verify: Said) -> None:
    first, second = sorted(out.glob("*.safetensors"))[:2]
    first.rename(out / "x")
    second.rename(first)
    (out / "x").rename(second)
    found = verify(out)
    assert found["code"] == 1
    (problem,) = found["problems"]
    assert first.name in problem["what"] or second.name in problem["what"]


def test_a_shard_of_another_model(out: Path, original: Path, verify: Said, tmp_path: Path) -> None:
    other = plan_of(
        (original / "recipe.yaml").read_text().replace("donors/a", "donors/x").replace("donors/b", "donors/a")
        .replace("donors/x", "donors/b")
    )  # fmt: skip
    assemble(other, tmp_path / "other", shard_size=60_000)
    name = sorted(path.name for path in out.glob("*.safetensors"))[1]
    shutil.copy(tmp_path / "other" / name, out / name)
    found = verify(out)
    held = {entry.name for entry in open_checkpoint(str(out)).tensors.values() if entry.file.name == name}
    wrong = {problem["tensor"] for problem in found["problems"]}
    assert wrong and wrong <= held
    assert {problem["file"] for problem in found["problems"]} == {name}


def test_a_shard_cut_short(out: Path, verify: Said) -> None:
    path = sorted(out.glob("*.safetensors"))[2]
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 10)
    found = verify(out)
    assert found["code"] == 1
    (problem,) = found["problems"]
    assert problem["file"] == path.name
    assert "truncated" in problem["what"]


def test_a_shard_that_is_gone(out: Path, verify: Said) -> None:
    path = sorted(out.glob("*.safetensors"))[0]
    path.unlink()
    found = verify(out)
    assert found["code"] == 1
    assert path.name in found["problems"][0]["what"]


def test_a_tensor_under_another_name(out: Path, verify: Said) -> None:
    path, _ = locate(out, NAME)
    rewrite(path, lambda header: header.update({"model.layers.3.mlp.up.weight": header.pop(NAME)}))
    index = out / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(NAME, "model.layers.3.mlp.up.weight"))
    problems = verify(out)["problems"]
    assert {(problem["layer"], problem["tensor"]) for problem in problems if problem["tensor"]} == {
        (3, NAME),
        (3, "model.layers.3.mlp.up.weight"),
    }
    # Its file is told of with the tensor; that the index was changed too is another thing.
    assert [problem["file"] for problem in problems if not problem["tensor"]] == [index.name]


def test_a_tensor_of_another_shape(out: Path, verify: Said) -> None:
    path, _ = locate(out, NAME)
    rewrite(path, lambda header: header[NAME].update(shape=[32, 64]))
    problems = verify(out)["problems"]
    assert {(problem["layer"], problem["tensor"]) for problem in problems} == {(3, NAME)}
    assert "F32 [32, 64], and by the recipe F32 [64, 32]" in problems[0]["what"]


def test_a_changed_config(out: Path, verify: Said) -> None:
    spoil(out, rms_norm_eps=0.5)
    (problem,) = verify(out)["problems"]
    assert (problem["file"], problem["key"]) == ("config.json", "rms_norm_eps")
    spoil(out, rms_norm_eps=1e-6, tie_word_embeddings=True)
    assert {problem["key"] for problem in verify(out)["problems"]} == {"tie_word_embeddings"}


@pytest.mark.parametrize("depth", [4, 6, 10**9])
def test_a_wrong_depth(out: Path, verify: Said, depth: int) -> None:
    spoil(out, num_hidden_layers=depth)
    found = verify(out)
    assert found["code"] == 1
    assert ("config.json", "num_hidden_layers") in {(problem["file"], problem["key"]) for problem in found["problems"]}


def test_a_changed_tokenizer(out: Path, verify: Said) -> None:
    (out / "tokenizer.json").write_text((out / "tokenizer.json").read_text() + "\n")
    (problem,) = verify(out)["problems"]
    assert problem["file"] == "tokenizer.json"


def test_a_tokenizer_that_is_gone(out: Path, verify: Said) -> None:
    (out / "tokenizer.json").unlink()
    found = verify(out)
    assert found["code"] == 1
    assert [problem["file"] for problem in found["problems"] if "donors" in problem["what"]] == ["tokenizer.json"]


def test_a_broken_config(out: Path, verify: Said) -> None:
    (out / "config.json").write_text("{")
    found = verify(out)
    assert (found["code"], found["problems"][0]["file"]) == (1, "config.json")


def test_layer_types_of_another_order(tmp_path: Path, verify: Said) -> None:
    a = tiny_model(tmp_path / "a", "gemma2", 4)
    text = passthrough((a, 0, 3), (a, 1, 4))
    assemble(plan_of(text), tmp_path / "out", recipe=text)
    assert verify(tmp_path / "out")["code"] == 0
    kinds = json.loads((tmp_path / "out" / "config.json").read_text())["layer_types"]
    spoil(tmp_path / "out", layer_types=[kinds[1], kinds[0], *kinds[2:]])
    assert {(problem["layer"], problem["key"]) for problem in verify(tmp_path / "out")["problems"]} >= {
        (0, "layer_types"),
        (1, "layer_types"),
    }


class TestWithoutRecipe:
    def test_what_could_not_be_checked_is_said(self, out: Path, verify: Said) -> None:
        (out / "surgeon_recipe.yaml").unlink()
        found = verify(out)
        assert (found["code"], found["ok"]) == (0, True)
        assert found["unchecked"] == ["recipe and donors: there is no surgeon_recipe.yaml"]

    def test_transformers_still_looks(self, out: Path, verify: Said) -> None:
        (out / "surgeon_recipe.yaml").unlink()
        spoil(out, attention_bias=True)
        tensors = {problem["tensor"] for problem in verify(out)["problems"]}
        assert "model.layers.4.self_attn.o_proj.bias" in tensors

    def test_a_list_that_is_too_short(self, tmp_path: Path, verify: Said) -> None:
        folder = tiny_model(tmp_path / "a", "smollm3", 4)
        spoil(folder, no_rope_layers=[1, 1, 1])
        problems = verify(folder)["problems"]
        assert (3, "no_rope_layers") in {(problem["layer"], problem["key"]) for problem in problems}

    def test_a_head_that_the_config_ties_away(self, tmp_path: Path, verify: Said) -> None:
        folder = tiny_model(tmp_path / "a", "llama", 2)
        spoil(folder, tie_word_embeddings=True)
        assert [problem["key"] for problem in verify(folder)["problems"]] == ["tie_word_embeddings"]

    def test_no_config(self, tmp_path: Path, verify: Said) -> None:
        folder = donor(tmp_path / "a")
        (folder / "config.json").unlink()
        found = verify(folder)
        assert found["code"] == 0
        assert "the config: there is no config.json" in found["unchecked"]

    def test_a_model_type_nobody_knows(self, tmp_path: Path, verify: Said) -> None:
        found = verify(donor(tmp_path / "a", model_type="brand_new"))
        assert found["code"] == 0
        assert any("brand_new" in line for line in found["unchecked"])


class TestDonors:
    def test_one_that_is_gone(self, out: Path, original: Path, verify: Said) -> None:
        recipe = out / "surgeon_recipe.yaml"
        recipe.write_text(recipe.read_text().replace("donors/b", "donors/gone"))
        found = verify(out)
        assert found["code"] == 0
        (line,) = found["unchecked"]
        assert "donors/gone" in line and "--set" in line
        found = verify(out, "--set", f"B={original / 'donors' / 'b'}")
        assert (found["code"], found["unchecked"]) == (0, [])

    def test_a_donor_that_changed(self, out: Path, original: Path, verify: Said, tmp_path: Path) -> None:
        b = Path(shutil.copytree(original / "donors" / "b", tmp_path / "b"))
        flip(*locate(b, "model.layers.2.input_layernorm.weight"))
        assert verify(out, "--set", f"B={b}")["code"] == 0
        (problem,) = verify(out, "--deep", "--set", f"B={b}")["problems"]
        assert problem["tensor"] == "model.layers.4.input_layernorm.weight"
        (out / "surgeon.json").unlink()
        (problem,) = verify(out, "--set", f"B={b}")["problems"]
        assert problem["tensor"] == "model.layers.4.input_layernorm.weight"

    def test_a_set_that_names_nobody(self, out: Path, verify: Said) -> None:
        assert verify(out, "--set", "Z=x")["code"] == 2

    def test_computed_tensors_are_held_against_their_hashes(
        self, original: Path, verify: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(original)
        (tmp_path / "recipe.yaml").write_text((original / "recipe.yaml").read_text() + "dtype: bfloat16\n")
        document = load(tmp_path / "recipe.yaml")
        assemble(plan_of(document.text), tmp_path / "out", recipe=document.text)
        found = verify(tmp_path / "out")
        assert (found["code"], found["unchecked"]) == (0, [])
        assert "as written, by their hashes, and 48 computed ones finite" in " ".join(found["checked"])
        (tmp_path / "out" / "surgeon.json").unlink()
        assert verify(tmp_path / "out")["unchecked"] == [
            "hashes: there is no surgeon.json",
            "the values of 48 tensors that are computed (scaled, cast or blended), not copied",
        ]


class TestInput:
    @pytest.mark.parametrize("name", ["nowhere", "empty", "file.json"])
    def test_what_is_no_checkpoint(self, tmp_path: Path, verify: Said, name: str) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file.json").write_text("{}")
        assert verify(tmp_path / name)["code"] == 2

    def test_a_hostile_name_is_shown_safely(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = donor(tmp_path / "a")
        name = "model.layers.1.\x1b[2Jx.weight"
        rewrite(folder / "model.safetensors", lambda header: header.update({name: header.pop("lm_head.weight")}))
        assert run(["verify", str(folder)]) == 1
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        assert "\\x1b[2Jx" in captured.out

    def test_only_so_many_are_printed(self, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for tensor in open_checkpoint(str(out)).tensors.values():
            flip(tensor.file, tensor.offset)
        assert run(["verify", str(out)]) == 1
        text = capsys.readouterr().out
        assert text.count("WRONG") == 20
        assert "and 28 more (--json lists all)" in text


class TestSmoke:
    def test_a_forward_pass(self, out: Path, verify: Said) -> None:
        assert verify(out, "--smoke")["checked"][-1] == "a forward pass on cpu: finite numbers"

    def test_infinite_logits(self, tmp_path: Path, verify: Said) -> None:
        folder = tiny_model(tmp_path / "a", "llama", 2)
        path, offset = locate(folder, "model.norm.weight")
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(struct.pack("<f", float("inf")) * 32)
        assert verify(folder)["code"] == 0
        found = verify(folder, "--smoke")
        assert (found["code"], found["problems"][0]["what"]) == (1, "a forward pass gives numbers that are not finite")


def test_progress_is_told(out: Path) -> None:
    plan = plan_of((out / "surgeon_recipe.yaml").read_text())
    pairs = audit.copied(open_checkpoint(str(out)), plan)
    events: list[dict[str, Any]] = []
    ticks = audit.byte_problems(pairs, plan, events.append)
    assert not list(ticks)
    assert events[-1]["bytes"] == events[-1]["total"] == plan.estimates.nbytes


def test_differences_of_json() -> None:
    wanted = {"a": 1, "b": {"c": [1, 2, 3]}, "d": [1]}
    found = {"a": 1, "b": {"c": [1, 5, 3]}, "d": [1, 2], "e": None, "f": 0}
    assert list(audit.differences(wanted, found)) == [
        ("b.c", 1, 2, 5),
        ("d", None, [1], [1, 2]),
        ("f", None, None, 0),
    ]


def test_with_its_child(out: Path, verify: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_back, "LoadBack", LoadBack)
    found = verify(out)
    assert (found["code"], found["unchecked"]) == (0, [])
    assert any("LlamaForCausalLM" in line for line in found["checked"])
