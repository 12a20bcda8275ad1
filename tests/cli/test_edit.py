"""`surgeon edit`: edits from the command line, atomic writes, donor paths that go on meaning the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.cli.app import run
from surgeon.plan import Donors
from surgeon.plan.donors.open_donors import rebased
from surgeon.recipe.document import load, parse
from surgeon.recipe.edits import EDITS
from tests.support.planning import stack_of
from tests.support.sparse import sparse_llama

TEXT = "# mine\n" + stack_of(("./a", 0, 4), ("../shared/b", 0, 4)).replace("}]", "}] # kept")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sparse_llama(tmp_path / "work" / "a")
    sparse_llama(tmp_path / "shared" / "b")
    sparse_llama(tmp_path / "work" / "c", layers=6)
    (tmp_path / "work" / "r.yml").write_text(TEXT)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def edit(*args: str) -> int:
    return run(["edit", *args])


def test_edits_are_done_in_order_and_written_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("r.yml", "--op", "delete 2-3", "--op", "duplicate 0-1") == 0
    captured = capsys.readouterr()
    assert captured.err == "8 layers, 2 edits\n"
    assert captured.out == ""
    text = (folder / "r.yml").read_text()
    assert text.startswith("# mine\n")
    assert text.count("layer_range: [0, 2]") == 2
    assert "layer_range: [0, 4]}] # kept" in text
    assert edit("r.yml", "--op", "delete 0") == 0
    assert capsys.readouterr().err == "7 layers (was 8), 1 edit\n"


def test_a_slip_leaves_the_file_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for op, sentence in (
        ("delte 3", "did you mean delete"),
        ("delete 30", "no layer 30"),
        ("insert Z:3", "no donor Z"),
    ):
        assert edit("r.yml", "--op", "delete 0", "--op", op) == 2
        assert sentence in capsys.readouterr().err.replace("Did", "did")
        assert (folder / "r.yml").read_text() == TEXT
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c", "r.yml"]


def test_letters_stay_while_edits_are_done(folder: Path) -> None:
    assert edit("r.yml", "--op", "delete 0-3", "--op", "insert A:3 @0", "--op", "insert B:3 @0") == 0
    recipe = load(folder / "r.yml").recipe
    assert recipe.slices is not None
    sources = [(part.sources[0].model, part.sources[0].layer_range) for part in recipe.slices]
    assert sources == [("../shared/b", (3, 4)), ("./a", (3, 4)), ("../shared/b", (0, 4))]


def test_another_file_and_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("r.yml", "--op", "delete 0-3", "-o", "other.yml") == 0
    capsys.readouterr()
    assert edit("r.yml", "--op", "delete 0-3", "-o", "-") == 0
    assert capsys.readouterr().out == (folder / "other.yml").read_text()
    assert (folder / "r.yml").read_text() == TEXT


def test_permissions_and_links_stay(folder: Path) -> None:
    (folder / "r.yml").chmod(0o640)
    (folder / "link.yml").symlink_to("r.yml")
    assert edit("link.yml", "--op", "delete 0-3") == 0
    assert (folder / "link.yml").is_symlink()
    assert (folder / "r.yml").stat().st_mode & 0o777 == 0o640
    assert "# mine" in (folder / "r.yml").read_text()


def test_a_new_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ops = ["--op", "insert A:0-3", "--op", "insert B:2-5", "--op", "end lm_head A"]
    assert edit("new.yml", "--donor", "./a", "--donor", "./c", *ops) == 0
    assert capsys.readouterr().err == "8 layers (was 0), 3 edits\n"
    assert (folder / "new.yml").read_text() == (
        "merge_method: passthrough\nslices:\n  - sources:\n      - model: ./a\n        layer_range: [0, 4]\n"
        "  - sources:\n      - model: ./c\n        layer_range: [2, 6]\nlm_head: {model: ./a}\n"
    )
    assert edit("next.yml", "--op", "upscale ./c m=2") == 0
    assert load(folder / "next.yml").recipe.model_refs() == ["./c"]


def test_what_is_typed_is_meant_from_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    assert edit("work/r.yml", "--donor", "work/c", "--op", "insert C:0", "--op", "insert shared/b:1") == 0
    document = load(folder / "r.yml")
    assert document.recipe.model_refs() == ["./a", "../shared/b", "c"]
    assert [Donors(document.roots).depth(ref) for ref in document.recipe.model_refs()] == [4, 4, 6]


def test_donor_paths_mean_the_same_from_another_folder(folder: Path) -> None:
    (folder.parent / "far" / "off").mkdir(parents=True)
    out = folder.parent / "far" / "off" / "r.yml"
    assert edit("r.yml", "--op", "delete 0", "-o", str(out)) == 0
    assert load(out).recipe.model_refs() == ["../../work/a", "../../shared/b"]
    assert "# kept" in out.read_text()


def test_donors_can_be_set_for_good(folder: Path) -> None:
    assert edit("r.yml", "--set", "A=c") == 0
    assert load(folder / "r.yml").recipe.model_refs() == [str(folder / "c"), "../shared/b"]


def test_the_list_of_edits(capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("--list") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for kind in EDITS:
        assert kind.usage in out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [((), "no recipe is named"), (("r.yml",), "no edit is given"), (("none.yml", "--op", "delete 0"), "no layer 0")],
)
def test_what_is_missing_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], sentence: str
) -> None:
    assert edit(*args) == 2
    assert sentence in capsys.readouterr().err
    assert not (folder / "none.yml").exists()


def test_a_folder_that_cannot_be_written_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("r.yml", "--op", "delete 0", "-o", "nowhere/r.yml") != 0
    assert "nowhere/r.yml: cannot write the file" in capsys.readouterr().err


# Where donors are, seen from elsewhere.


def test_rebased_documents_name_the_same_donors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"- sources: [{{model: {ref}, layer_range: [0, 1]}}]\n" for ref in (
        "./a", "../shared/b", "a", "c", str(folder / "c"), "org/name", "../gone", "~/x"
    ))  # fmt: skip
    document = parse("slices:\n" + text, folder / "r.yml")
    target = folder.parent / "elsewhere" / "r.yml"
    target.parent.mkdir()
    monkeypatch.chdir("/")
    moved = rebased(document, document.roots, target)
    refs = moved.recipe.model_refs()
    assert moved.path == target
    assert len(refs) == len(document.recipe.model_refs())
    assert refs[:2] == ["../work/a", "../shared/b"]
    assert refs[4:] == [str(folder / "c"), "org/name", "../gone", "~/x"]
    for old, new in list(zip(document.recipe.model_refs(), refs, strict=True))[:5]:
        assert Donors(document.roots).checkpoint(old).path == Donors(moved.roots).checkpoint(new).path
    assert rebased(document, document.roots, folder / "other.yml").text == document.text


def test_donors_of_the_working_directory_are_named_from_the_recipes_folder(folder: Path) -> None:
    document = parse(stack_of(("./a", 0, 1), ("c", 0, 1)))
    moved = rebased(document, (), folder.parent / "r.yml")
    assert moved.recipe.model_refs() == ["./work/a", "work/c"]
    assert rebased(document, (), folder / "r.yml").recipe == document.recipe


def test_links_to_donors_stay_links(folder: Path) -> None:
    (folder / "linked").symlink_to("a")
    (folder.parent / "view").symlink_to("work")
    document = parse(stack_of(("./linked", 0, 1)), folder.parent / "view" / "r.yml")
    moved = rebased(document, document.roots, folder.parent / "r.yml")
    assert moved.recipe.model_refs() == ["./work/linked"]
    assert (folder / "a").samefile(Donors(moved.roots).checkpoint("./work/linked").path)


@pytest.mark.parametrize("op", ["scale 1-2 o_prj=0.7", "scale 1-2 o_proj=0.7 dwon_proj=2"])
def test_a_filter_that_matches_nothing_is_refused(op: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("r.yml", "--op", op) == 2
    assert "matches no tensor" in (said := capsys.readouterr().err)
    assert "Did you mean" in said
    assert (folder / "r.yml").read_text() == TEXT
    assert edit("r.yml", "--op", "scale 1-2 o_proj=0.7") == 0


def test_one_donor_is_set_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "r.yml", "--set", "A=c", "--set", "./a=a"]) == 2
    assert "--set names ./a twice" in capsys.readouterr().err
