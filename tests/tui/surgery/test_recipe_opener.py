"""Opening donors from a list, other recipes, and the stages of a recipe."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
from pathlib import Path

import pytest
from textual.widgets import Input

from surgeon.cli.app import run
from surgeon.plan import Donors, resolve
from surgeon.recipe import document as documents
from surgeon.tui import recent_recipes
from surgeon.tui.picker import Picker
from surgeon.tui.surgery.edit_log import script_lines
from surgeon.tui.try_model.column_models import ColumnModels
from tests.support.adapters import low_rank, write_adapter
from tests.support.tui import app, cells, command, donors, keys, line

STAGED = """\
name: base2
slices:
  - sources: [{model: ./a, layer_range: [0, 4]}]
  - sources: [{model: ./b, layer_range: [4, 8]}]
---
merge_method: passthrough
slices:
  - sources: [{model: base2, layer_range: [0, 6]}]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a state folder of the test's own."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return work


async def _listed(pilot, count: int) -> Picker:  # type: ignore[no-untyped-def]
    """The open picker, once its child has listed that many entries."""
    for _ in range(200):
        screen = pilot.app.screen
        if isinstance(screen, Picker) and len(screen.choices) >= count:
            return screen
        await asyncio.sleep(0.05)
    raise AssertionError("nothing was listed")


@pytest.mark.asyncio
async def test_open_lists_what_is_nearby_and_takes_what_is_typed(home: Path) -> None:
    refs = donors(home, "abc")
    application = app(refs[:1])
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "o")
        picker = await _listed(pilot, 2)
        assert [choice.value for choice in picker.choices] == ["b", "c"]
        assert "llama, 8 layers" in picker.choices[0].remark
        await keys(pilot, "c enter")
        assert application.session.models == ["./a", "c"]


@pytest.mark.asyncio
async def test_a_folder_that_is_named_like_an_adapter_is_a_checkpoint_and_an_adapter_needs_a_base(home: Path) -> None:
    refs = donors(home, "ab")
    (home / "b").rename(home / "adapter:b")
    (home / "lora").mkdir()
    (home / "lora" / "adapter_model.safetensors").touch()
    (home / "lora" / "adapter_config.json").write_text("{}")
    application = app(refs[:1])
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "o")
        await _listed(pilot, 2)
        await keys(pilot, "b enter")
        assert application.session.models == ["./a", "adapter:b"]
        await keys(pilot, "o")
        await _listed(pilot, 1)
        await keys(pilot, "l o r a enter")
        assert application.screen.query_one(Input).value == "open ./a+lora"


@pytest.mark.asyncio
async def test_the_picker_leaves_with_escape_and_says_when_nothing_fits(home: Path) -> None:
    application = app(donors(home, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "o")
        await pilot.pause(0.5)
        await keys(pilot, "n o p e")
        picker = application.screen
        assert isinstance(picker, Picker)
        assert picker.shown == []
        await keys(pilot, "enter")
        assert "nope" in line(pilot, "status")
        await keys(pilot, "o escape")
        assert not isinstance(application.screen, Picker)


@pytest.mark.asyncio
async def test_a_stage_is_listed_shown_and_edited(home: Path) -> None:
    donors(home, "ab")
    path = home / "staged.yaml"
    path.write_text(STAGED)
    application = app([], path)
    async with application.run_test(size=(120, 40)) as pilot:
        session = application.session
        assert cells(application) == [f"A0{n}" for n in range(6)]
        await keys(pilot, "5 G")
        assert "A05 of base2: C05" in line(pilot, "detail")
        pane = application.surgery.view.donor_panes[0]
        assert pane.title[-1][0] == " stage"
        assert pane.rows[1].text.startswith("= B00")
        await command(pilot, "stage base2")
        assert "> base2" in line(pilot, "header")
        assert cells(application) == ["B00", "B01", "B02", "B03", "C04", "C05", "C06", "C07"]
        assert "./a" in [pane.ref for pane in application.surgery.view.donor_panes]
        assert "base2" not in [pane.ref for pane in application.surgery.view.donor_panes]
        await command(pilot, "replace 0-1 C:0-1")
        assert session.dirty
        await command(pilot, "stage result")
        assert cells(application)[:2] == ["A00", "A01"]
        assert session.plan.donors["A"].layer_labels[:3] == ("C00", "C01", "B02")
        await keys(pilot, "w")
        saved = documents.load(path)
        assert saved.stages[0].recipe.slices is not None
        assert saved.stages[0].recipe.slices[0].sources[0].model == "./b"
        assert not session.dirty
        # Undo belongs to the document that is edited.
        await keys(pilot, "u")
        assert "nothing to undo" in line(pilot, "status")
        await command(pilot, "stage base2")
        await keys(pilot, "u")
        assert cells(application)[:2] == ["B00", "B01"]


@pytest.mark.asyncio
async def test_what_is_tried_is_the_stage_and_what_is_written_the_result(home: Path) -> None:
    donors(home, "ab")
    path = home / "staged.yaml"
    path.write_text(STAGED)
    application = app([], path)
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "s b a s e enter")
        session = application.session
        assert session.stage == "base2"
        tried = documents.parse(session.absolute().text)
        assert tried.stages == ()
        assert len(tried.recipe.slices or ()) == 2
        assert len(session.plan.layers) == 8
        assert len(session.result_plan.layers) == 6


@pytest.mark.asyncio
async def test_s_in_a_recipe_with_one_document(home: Path) -> None:
    application = app(donors(home, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "s")
        assert "one document" in line(pilot, "status")
        await command(pilot, "stage nope")
        assert "no stage nope" in line(pilot, "status")


@pytest.mark.asyncio
async def test_edit_asks_before_unsaved_work_is_left_and_opens_a_recipe(home: Path) -> None:
    donors(home, "ab")
    (home / "one.yaml").write_text("slices:\n- sources: [{model: ./a, layer_range: [0, 4]}]\n")
    (home / "two.yaml").write_text("slices:\n- sources: [{model: ./b, layer_range: [2, 4]}]\n")
    application = app([], home / "one.yaml")
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "2 G d")
        await command(pilot, "edit two.yaml")
        await keys(pilot, "c")
        assert len(application.session.plan.layers) == 3
        await command(pilot, "edit two.yaml")
        await keys(pilot, "d")
        assert cells(application) == ["A02", "A03"]
        assert application.session.models == ["./b"]
        assert "two.yaml" in line(pilot, "header")
        assert (home / "one.yaml").read_text().endswith("[0, 4]}]\n")
        # Recent recipes and those of the folder are listed once each.
        await command(pilot, "edit")
        picker = application.screen
        assert isinstance(picker, Picker)
        assert sorted(choice.text for choice in picker.choices) == ["one.yaml", "two.yaml"]
        assert picker.choices[0].text == "two.yaml"
        await keys(pilot, "escape")
        await command(pilot, "edit new.yaml")
        assert application.session.plan.layers == ()
        assert not (home / "new.yaml").exists()


@pytest.mark.asyncio
async def test_a_recipe_that_cannot_be_read_leaves_the_open_one(home: Path) -> None:
    donors(home, "a")
    (home / "one.yaml").write_text("slices:\n- sources: [{model: ./a, layer_range: [0, 4]}]\n")
    (home / "bad.yaml").write_text("slices: [")
    application = app([], home / "one.yaml")
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "edit bad.yaml")
        assert len(application.session.plan.layers) == 4
        await command(pilot, "edit .")
        assert "folder" in line(pilot, "status")


@pytest.mark.asyncio
async def test_a_change_on_disk_is_said_shown_and_read(home: Path) -> None:
    donors(home, "a")
    path = home / "one.yaml"
    path.write_text("slices:\n- sources: [{model: ./a, layer_range: [0, 4]}]\n")
    application = app([], path)
    async with application.run_test(size=(80, 24)) as pilot:
        path.write_text("slices:\n- sources: [{model: ./a, layer_range: [0, 5]}]\n")
        application.surgery.recipes._look()
        assert "another program changed one.yaml" in line(pilot, "status")
        await command(pilot, "diff disk")
        assert any(text.startswith("-") and "5]" in text for text, _ in application.screen.lines)  # type: ignore[attr-defined]
        await keys(pilot, "escape")
        await command(pilot, "reload")
        assert len(application.session.plan.layers) == 5
        await keys(pilot, "2 G d")
        await command(pilot, "diff")
        assert len(application.screen.lines) > 2  # type: ignore[attr-defined]


def test_recent_recipes_are_those_that_exist(home: Path) -> None:
    for number in range(25):
        path = home / f"{number}.yaml"
        path.touch()
        recent_recipes.remember_recipe(path)
    (home / "24.yaml").unlink()
    found = recent_recipes.recent_recipes()
    assert len(found) == 19
    assert found[0] == home / "23.yaml"


@pytest.mark.asyncio
async def test_a_donor_that_is_computed_is_tried_as_a_recipe_and_not_as_its_base(home: Path) -> None:
    donors(home, "ab")
    write_adapter(home / "lora", low_rank("model.layers.1.self_attn.q_proj", 16, 16))
    path = home / "staged.yaml"
    path.write_text(STAGED)
    application = app(["./a+./lora"], path)
    async with application.run_test(size=(80, 24)):
        session = application.session
        assert session.donor_recipe("./a") is None
        stage, adapted = session.donor_recipe("base2"), session.donor_recipe("./a+./lora")
        assert stage is not None
        assert adapted is not None
        assert len(resolve(stage, Donors(())).layers) == 8
        plan = resolve(adapted, Donors(()))
        assert plan.ok
        assert plan.donors["A"].adapter is not None
        column = ColumnModels(session).find("donor:./a+./lora")
        assert f"{home}/a+{home}/lora" in column.text and "./a+./lora" in column.document


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["stage base2", "edit new.yaml", "reload"])
async def test_a_stack_that_gets_shorter_under_the_cursor(home: Path, text: str) -> None:
    donors(home, "ab")
    path = home / "staged.yaml"
    path.write_text(STAGED.replace("[0, 4]", "[0, 1]").replace("[4, 8]", "[4, 5]").replace("[0, 6]", "[0, 2]"))
    application = app([], path)
    async with application.run_test(size=(120, 40)) as pilot:
        await command(pilot, "insert B:0-7")
        await command(pilot, "write")
        path.write_text(
            "slices: [{sources: [{model: ./a, layer_range: [0, 1]}]}]\n" if text == "reload" else path.read_text()
        )
        await keys(pilot, "apostrophe apostrophe 8 G")
        await command(pilot, text)
        await keys(pilot, "k k j")
        assert len(application.session.plan.layers) < 4


@pytest.mark.asyncio
async def test_a_donor_that_is_removed_from_the_disk(home: Path) -> None:
    refs = donors(home, "ab")
    application = app(refs)
    async with application.run_test(size=(120, 40)) as pilot:
        await keys(pilot, "6 j")
        shutil.rmtree(home / "a")
        await command(pilot, "open ./nope")
        await keys(pilot, "j k enter escape")
        assert application.is_running


@pytest.mark.asyncio
async def test_a_stage_that_is_named_result(home: Path) -> None:
    donors(home, "ab")
    path = home / "staged.yaml"
    path.write_text(STAGED.replace("base2", "result"))
    application = app([], path)
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "stage result")
        assert application.session.stage == "result"
        await keys(pilot, "s t h e enter")
        assert application.session.stage == ""


@pytest.mark.asyncio
async def test_the_script_of_a_stage_edits_the_stage(home: Path) -> None:
    donors(home, "ab")
    path = home / "staged.yaml"
    path.write_text(STAGED)
    application = app([], path)
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "stage base2")
        await command(pilot, "delete 0-1")
        await command(pilot, "insert B:4-5")
        lines = list(script_lines(application.session))
        made = application.session.current.recipe, application.session.recipe
    words = shlex.split("\n".join(lines[1:]).replace("\\\n", " "), comments=True)
    assert run(["edit", str(path), *words[words.index("--stage") :]]) == 0
    changed = documents.load(path)
    assert (changed.recipe, changed.stages[0].recipe) == made
    assert run(["edit", str(path), "--stage", "nope", "--op", "delete 0"]) == 2
    assert run(["edit", str(path), "--op", "delete 0-1"]) == 0
    assert documents.load(path).stages[0].recipe == made[1]


@pytest.mark.asyncio
async def test_close_and_the_order_of_the_picker(home: Path) -> None:
    donors(home, "abc")
    config = json.loads((home / "b/config.json").read_text())
    (home / "b/config.json").write_text(json.dumps({**config, "model_type": "aaa"}))
    application = app(["./a"])
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "o")
        picker = await _listed(pilot, 2)
        assert [choice.value for choice in picker.choices] == ["c", "b"]
        await keys(pilot, "escape")
        await command(pilot, "open c")
        await command(pilot, "close B")
        assert application.session.models == ["./a"]
        await command(pilot, "close Z")
        assert "no donor Z" in line(pilot, "status")


@pytest.mark.asyncio
async def test_a_typed_path_is_completed_in_the_picker(home: Path, tmp_path: Path) -> None:
    donors(tmp_path / "far", "xy")
    application = app([])
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "o")
        await pilot.pause(0.5)
        picker = application.screen
        assert isinstance(picker, Picker)
        picker.query_one(Input).value = f"{tmp_path}/fa"
        await pilot.pause()
        await keys(pilot, "tab")
        assert picker.query_one(Input).value == f"{tmp_path}/far/"
        assert [choice.value for choice in picker.shown] == [f"{tmp_path}/far/x/", f"{tmp_path}/far/y/"]
        await keys(pilot, "down enter")
        assert application.session.checkpoint(application.session.models[0]) is not None
