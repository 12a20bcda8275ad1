"""The pictures and the page of keys show the program as it is."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.keys_page import page

ROOT = Path(__file__).parents[1]


def test_the_page_of_keys_is_that_of_the_registry() -> None:
    assert (ROOT / "docs/keys.md").read_text() == page(), "python -m tests.support.keys_page > docs/keys.md"


def _words(picture: Path) -> str:
    """What is written in a picture, without its colours and places."""
    text = re.sub(r"<style>.*?</style>", "", picture.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


@pytest.mark.slow
def test_the_pictures_are_those_of_the_program(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "assets/draw_pictures.py"), str(tmp_path)], check=True)
    drawn = sorted(tmp_path.glob("*.svg"))
    assert len(drawn) >= 3
    for picture in drawn:
        assert _words(ROOT / "assets" / picture.name) == _words(picture), "python assets/draw_pictures.py"
        assert str(tmp_path) not in picture.read_text()
    assert {path.name for path in (ROOT / "assets").glob("*.svg")} == {path.name for path in drawn}
