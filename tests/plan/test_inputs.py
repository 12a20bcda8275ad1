"""Nothing that a recipe reads is replaced, written into or lost, whatever part it plays and however it is reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.errors import InputError, SurgeonError
from surgeon.plan import Plan
from surgeon.plan.inputs import inputs
from tests.support.adapters import low_rank, write_adapter
from tests.support.assembling import HIDDEN, assemble, donor, passthrough, plan_of, snapshot


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A layer donor `a`, a base `base`, a tokenizer's donor `tok`, an adapter `lora`, and the way to them."""
    for seed, name in enumerate(("a", "base", "tok")):
        donor(tmp_path / name, seed=seed, dtype="F32")
    write_adapter(tmp_path / "lora", low_rank("model.layers.0.mlp.up_proj", 12, HIDDEN, 2), r=2)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


LINEAR = """merge_method: linear
models:
- {model: ../a, parameters: {weight: 1}}
- {model: ../base, parameters: {weight: 1}}
"""
RECIPES = {
    "tok by tokenizer_source": ("tok", LINEAR + "tokenizer_source: ../tok\n"),
    "tok by tokenizer": ("tok", LINEAR + "tokenizer: {source: ../tok}\n"),
    "base of task vectors": ("base", "merge_method: task_arithmetic\nbase_model: ../base\nparameters: {weight: 1}\n"
                                     "models: [{model: ../a}]\n"),
    "base for its config": ("base", "base_model: ../base\nmerge_method: passthrough\n"
                                    "slices: [{sources: [{model: ../a, layer_range: [0, 3]}]}]\n"),
    "adapter": ("lora", passthrough((Path("../a+../lora"), 0, 3))),
    "an end's donor": ("tok", passthrough((Path("../a"), 0, 3), more="final_norm: {model: ../tok}")),
    "an edge's donor": ("tok", passthrough((Path("../a"), 0, 3), more="first_layers: {count: 1, model: ../tok}")),
    "a stage's donor": ("tok", "name: s\nmerge_method: linear\nmodels: [{model: ../a, parameters: {weight: 1}}, "
                               "{model: ../tok, parameters: {weight: 1}}]\n---\nmerge_method: passthrough\n"
                               "slices: [{sources: [{model: s, layer_range: [0, 3]}]}]\n"),
    "a stage's adapter": ("lora", "name: s\nmerge_method: linear\nmodels: [{model: ../a, parameters: {weight: 1}}, "
                                  "{model: ../base+../lora, parameters: {weight: 1}}]\n---\nmerge_method: passthrough\n"
                                  "slices: [{sources: [{model: s, layer_range: [0, 3]}]}]\n"),
}  # fmt: skip
"""What part a donor plays, its folder, and the recipe."""


def plan(text: str) -> Plan:
    found = plan_of(text)
    assert found.ok, [finding.sentence() for finding in found.errors]
    return found


@pytest.mark.parametrize("part", RECIPES)
@pytest.mark.parametrize("where", ["{}", "{}/inside", "{}/in/side", "nest", "nest/{}", "link", "link/inside"])
def test_a_donor_of_any_part(home: Path, part: str, where: str) -> None:
    name, text = RECIPES[part]
    if where.startswith("nest"):
        # The output's folder holds the donor's.
        (home / "nest").mkdir()
        (home / name).rename(home / "nest" / name)
        text = text.replace(f"../{name}", f"../nest/{name}")
    (home / "link").symlink_to(home / name)
    found = plan(text)
    before = snapshot(home)
    out = home / where.format(name)
    with pytest.raises(InputError, match="never writes to anything that a recipe reads"):
        assemble(found, out, force=True, restart=True)
    assert snapshot(home) == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "model.safetensors"])
@pytest.mark.parametrize("links", [1, 2])
def test_a_file_behind_links(home: Path, name: str, links: int) -> None:
    """The second link of two is what lies in the output's folder: without it, the first leads nowhere."""
    (home / "out").mkdir()
    (home / "real").mkdir()
    target = home / ("out" if links == 1 else "real") / "blob"
    (home / "a" / name).rename(target)
    if links == 2:
        (home / "out" / "next").symlink_to(target)
        target = home / "out" / "next"
    (home / "a" / name).symlink_to(target)
    found = plan(passthrough((Path("../a"), 0, 3)))
    before = snapshot(home)
    with pytest.raises(InputError, match="the output folder contains"):
        assemble(found, home / "out", force=True)
    assert snapshot(home) == before


def test_what_an_earlier_run_has_left_can_be_a_donor_and_is_not_thrown_away(home: Path) -> None:
    (home / ".out.surgeon").mkdir()
    (home / "a").rename(home / ".out.surgeon" / "model")
    found = plan(passthrough((home / ".out.surgeon" / "model", 0, 3)))
    before = snapshot(home)
    with pytest.raises(InputError, match="the output folder contains donor A"):
        assemble(found, home / "out", restart=True)
    assert snapshot(home) == before


def test_the_recipe_itself_and_links_to_it(home: Path) -> None:
    (home / "out").mkdir()
    recipe = home / "out" / "r.yml"
    recipe.symlink_to(home / "elsewhere.yml")
    with pytest.raises(InputError, match="which would be lost"):
        assemble(plan(passthrough((Path("../a"), 0, 3))), home / "out", force=True, keep=(recipe,))
    assert recipe.is_symlink()


def test_the_list_names_every_file_that_is_read(home: Path) -> None:
    found = plan(RECIPES["a stage's adapter"][1])
    listed = {each.path.resolve() for each in inputs(found)}
    read = {entry.file.resolve() for tensor in found.tensors for entry in tensor.source.entries()}
    read |= {path.resolve() for path in found.files.values()}
    assert read <= listed
    assert {home / name for name in ("a", "base", "lora")} <= listed


def test_beside_and_between_donors_there_is_room(home: Path) -> None:
    """Nothing is refused without need: the folder around donors may hold the output."""
    for out in (home / "out", home / "new" / "out"):
        assemble(plan(LINEAR + "tokenizer_source: ../tok\n"), out, fsync=False, allow_nonfinite=True)
    assemble(plan(LINEAR), home / "out", force=True, fsync=False, allow_nonfinite=True)
    assert (home / "out" / "model.safetensors").exists()


def test_the_way_to_a_donor_is_read_too(home: Path) -> None:
    """`out/way` is a link to the donor's folder: without it the recipe leads nowhere."""
    (home / "out").mkdir()
    (home / "out" / "way").symlink_to(home / "a")
    with pytest.raises(InputError, match="the output folder contains donor A"):
        assemble(plan(passthrough((home / "out" / "way", 0, 3))), home / "out", force=True)
    assert (home / "out" / "way").is_symlink()


def test_an_output_that_is_a_link_is_written_where_it_leads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "big").mkdir()
    monkeypatch.chdir(home / "work")
    Path("out").symlink_to(home / "big" / "out")
    assemble(plan(passthrough((home / "a", 0, 3))), Path("out"), fsync=False)
    assert (home / "big" / "out" / "config.json").is_file()
    assert Path("out").is_symlink()


@pytest.mark.parametrize("name", ["thesis.tex", "folder/thesis.tex", "lock", ".begun.json.abc"])
@pytest.mark.parametrize("options", [{}, {"resume": True}, {"restart": True}, {"force": True}])
def test_a_hidden_folder_of_somebody_elses_stays(home: Path, name: str, options: dict[str, bool]) -> None:
    """It would be removed at the end of the run."""
    mine = home / ".out.surgeon" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    found = plan(passthrough((home / "a", 0, 3)))
    if name in ("lock", ".begun.json.abc"):  # what a run leaves that was killed at once
        assemble(found, home / "out", fsync=False, **options)  # type: ignore[arg-type]
        return
    with pytest.raises(SurgeonError, match="surgeon did not write"):
        assemble(found, home / "out", fsync=False, **options)  # type: ignore[arg-type]
    assert mine.read_text() == "mine"


def test_a_file_where_the_hidden_folder_belongs(home: Path) -> None:
    (home / ".out.surgeon").touch()
    with pytest.raises(SurgeonError, match="a file has the name of surgeon's working folder"):
        assemble(plan(passthrough((home / "a", 0, 3))), home / "out")


def test_no_name_is_no_folder(home: Path) -> None:
    with pytest.raises(InputError, match="name of the output folder is empty"):
        assemble(plan(passthrough((home / "a", 0, 3))), Path())
