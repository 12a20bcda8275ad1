"""Suite files: what they name, and errors with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.errors import InputError
from surgeon.evaluate.suite import Suite, default_suite, read_suite


def test_paths_are_relative_to_the_suite(tmp_path: Path) -> None:
    (tmp_path / "s.yml").write_text(
        "texts: a.txt\nprobes: [sets/b.jsonl]\nbundled: [chat]\nlm_eval: [arc_easy]\nlimit: 8\nsplit: all\n"
    )
    assert read_suite(tmp_path / "s.yml") == Suite(
        (tmp_path / "a.txt",), (tmp_path / "sets/b.jsonl",), ("chat",), ("arc_easy",), 8, "all"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bundled: [chat]\ntext: a\n", r"s\.yml, line 2: 'text' is not a key of a suite.*mean texts"),
        ("bundled: [chat]\nlimit: 0\n", r"line 2: limit is not"),
        ("limit: true\n", r"line 1: limit is not"),
        ("split: both\n", r"line 1: split is not one of held-out"),
        ("texts:\n- a.txt\n- 3\n", r"line 3: an entry of texts is not text"),
        ("texts: {a: b}\n", r"line 1: texts is not a list"),
        ("limit: 3\nbundled: [chatt]\n", r"line 2: 'chatt' is not a bundled"),
        ("texts: [\n", r"line \d: this is not valid YAML"),
        ("- a\n", "a suite is one table"),
        ("limit: 1\n---\nlimit: 2\n", "a suite is one table"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.yml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_suite(tmp_path / "s.yml")


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the suite"):
        read_suite(tmp_path / "none.yml")
    (tmp_path / "s.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_suite(tmp_path / "s.yml")


def test_the_default_is_the_bundled_sets_and_what_lies_beside_the_recipe(tmp_path: Path) -> None:
    for name in ("texts/b.txt", "texts/a.md", "texts/c.bin", "probes/p.jsonl", "probes/q.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = default_suite(tmp_path)
    assert [path.name for path in found.texts] == ["a.md", "b.txt"] and found.bundled == ("all",)
    assert [path.name for path in found.probes] == ["p.jsonl", "q.yml"]
    assert default_suite(tmp_path / "texts") == Suite(bundled=("all",))


def test_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p.jsonl").write_text(f'{{"prompt": "{folder}", "expected": "e"}}\n')
    loaded = Suite(probes=(tmp_path / "a/p.jsonl", tmp_path / "b/p.jsonl"), split="all").load()
    assert list(loaded.sets) == ["p", "p (2)"]


def test_nothing_to_evaluate_on_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to evaluate on"):
        Suite().load()
