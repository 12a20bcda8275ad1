"""Sessions over recipes in stages: undo of whole texts, letters, what is in the register, saving elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from surgeon.errors import InputError
from surgeon.plan import Donors, resolve
from surgeon.recipe import document as documents
from surgeon.tui.session import Session
from tests.support.tui import donors

STAGED = """\
name: s1
slices: [{sources: [{model: ./a, layer_range: [0, 4]}]}]
---
slices: [{sources: [{model: s1, layer_range: [0, 3]}]}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with donors a, b, c and q."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    donors(work, "abcq")
    return work


def _session(folder: Path, text: str = STAGED) -> Session:
    (folder / "r.yaml").write_text(text)
    session = Session((), documents.load(folder / "r.yaml"))
    assert session.plan.layers
    return session


def _read(session: Session, text: str) -> None:
    session.recover(documents.parse(text, session.document.path))


def test_a_text_that_changes_only_a_stage_is_undone_from_the_result(folder: Path) -> None:
    session = _session(folder)
    session.command("delete 0-0")
    _read(session, session.current.text.replace("[0, 4]", "[0, 6]"))
    before_redo = session.current.text
    session.undo()
    assert "[0, 4]" in session.current.text
    assert len(session.plan.layers) == 2, "the edit before it stays"
    session.redo()
    assert session.current.text == before_redo
    session.undo()
    session.undo()
    assert len(session.plan.layers) == 3


@pytest.mark.parametrize("text", [
    "slices: [{sources: [{model: ./b, layer_range: [2, 4]}]}]\n", STAGED.replace("s1", "other"),
    "# only a comment\n" + STAGED,
])  # fmt: skip
def test_stages_and_comments_come_back_with_undo(folder: Path, text: str) -> None:
    session = _session(folder)
    _read(session, text)
    assert session.dirty
    session.undo()
    assert session.current.text == STAGED
    assert session.stages == ["s1", ""]
    assert session.plan.ok
    assert not session.dirty
    session.redo()
    assert session.current.text == text


def test_several_texts_are_undone_and_redone_in_turn(folder: Path) -> None:
    session = _session(folder)
    texts = [session.current.text]
    for stop in (5, 6, 7):
        _read(session, STAGED.replace("[0, 4]", f"[0, {stop}]"))
        texts.append(session.current.text)
    for text in reversed(texts[:-1]):
        session.undo()
        assert session.current.text == text
    for text in texts[1:]:
        session.redo()
        assert session.current.text == text
    assert session.redo() is None


def test_an_edit_after_undo_ends_redo_in_every_document(folder: Path) -> None:
    session = _session(folder)
    _read(session, STAGED.replace("[0, 4]", "[0, 6]"))
    session.undo()
    session.command("delete 0-0")
    session.edit_stage("s1")
    assert session.redo() is None
    assert "[0, 4]" in session.current.text


def test_a_stage_that_was_removed_is_no_donor_any_more(folder: Path) -> None:
    session = _session(folder, STAGED.replace("s1", "q").replace("[0, 3]", "[0, 4]"))
    assert session.donors.depth("q") == 4
    _read(session, "merge_method: linear\nmodels: [{model: q, parameters: {weight: 1}}]\n")
    assert session.donors.depth("q") == 8
    session.command("delete 0-0")
    assert len(session.plan.layers) == 7


def test_letters_are_those_of_the_plan_in_every_document(folder: Path) -> None:
    session = _session(folder)
    session.edit_stage("s1")
    session.command("insert ./q:0-1 @0")
    session.edit_stage("")
    session.command("insert ./c:0-1 @0")
    for stage in session.stages:
        session.edit_stage(stage)
        assert {letter: donor.ref for letter, donor in session.plan.donors.items()}.items() <= {
            letter: ref for ref, letter in session.letters.items()
        }.items()
    assert session.letters["./q"] < session.letters["./c"], "a donor keeps its letter"


def test_what_is_yanked_or_open_is_the_same_model_from_another_folder(folder: Path, tmp_path: Path) -> None:
    session = _session(folder, "slices: [{sources: [{model: ./a, layer_range: [0, 6]}]}]\n")
    session.open("./b")
    session.yank_stack(0, 3)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copytree(folder / "c", other / "a")
    shutil.copytree(folder / "c", other / "b")
    session.save(other / "n.yaml")
    session.apply(session.paste_edit(0))
    session.command("insert B:0-1")
    assert session.plan.ok
    places = {donor.checkpoint.folder.resolve() for donor in session.plan.donors.values()}
    assert places == {folder / "a", folder / "b"}


def test_the_register_does_not_go_into_another_recipe(folder: Path) -> None:
    session = _session(folder)
    session.yank_stack(0, 2)
    session.load(documents.parse("slices: [{sources: [{model: ./b, layer_range: [0, 2]}]}]\n", folder / "x.yaml"))
    with pytest.raises(InputError, match="nothing is yanked"):
        session.paste_edit(0)


def test_a_donor_that_cannot_be_opened_leaves_stages_as_donors(folder: Path) -> None:
    session = _session(folder)
    with pytest.raises(InputError):
        session.open("nope")
    assert session.checkpoint("s1") is not None
    session.command("insert A:0-1 @0")
    assert len(session.plan.layers) == 5


def test_closing_a_donor(folder: Path) -> None:
    session = _session(folder)
    session.open("./b")
    session.open("./c")
    with pytest.raises(InputError, match="used by the recipe"):
        session.close("./a")
    session.close("./b")
    assert "./b" not in session.models
    assert session.letters["./c"] == "C"
    assert resolve(session.current, Donors(session.document.roots)).ok


def test_reload_can_be_undone(folder: Path) -> None:
    session = _session(folder)
    session.command("delete 0-0")
    (folder / "r.yaml").write_text(STAGED.replace("[0, 3]", "[0, 2]"))
    session.reload(documents.load(folder / "r.yaml"))
    assert not session.dirty
    assert len(session.plan.layers) == 2
    session.undo()
    assert session.dirty
    session.undo()
    assert len(session.plan.layers) == 3
