"""Draws the pictures of README and docs: the real interface on the demo's checkpoints, as SVG.

    python assets/draw_pictures.py [FOLDER]

FOLDER is this one unless another is given. A test compares the pictures with what is drawn.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PICTURES: dict[str, tuple[str, tuple[int, int], Sequence[str]]] = {
    # Name -> recipe, columns and rows, keys.
    "screenshot": ("demo-splice.yml", (120, 32), ("apostrophe", "apostrophe", "5", "G")),
    "curves": ("demo-slerp.yml", (100, 30), ("apostrophe", "apostrophe", "1", "G", "c", "m", "g")),
    "plan": ("demo-plan.yml", (120, 30), ("f", "j")),
}


PLAN = """\
merge_method: slerp
base_model: ./sort
slices:
  - sources:
      - {model: ./sort, layer_range: [0, 8]}
      - {model: ./reverse, layer_range: [0, 8]}
    parameters:
      t:
        - {filter: self_attn, value: [0, 0.5, 1]}
        - {filter: mpl, value: 0.3}
        - value: 0.5
dtype: bfloat16
out_dtype: float16
tokenizer_source: union
"""


async def draw(folder: Path, demo: Path) -> None:
    """Draw every picture into a folder.

    Args:
        demo: a copy of the demo's checkpoints, with the recipes beside them.
    """
    from surgeon.recipe import document as documents
    from surgeon.tui.app import SurgeonApp
    from surgeon.tui.session import Session

    for name, (recipe, size, keys) in PICTURES.items():
        application = SurgeonApp(Session((), documents.load(demo / recipe)))
        async with application.run_test(size=size) as pilot:
            await pilot.press(*keys)
            await pilot.pause(0.5)
            (folder / f"{name}.svg").write_text(application.export_screenshot(title="surgeon"), encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Draw into the folder that is given, or into this one."""
    folder = Path(arguments[0]).absolute() if arguments else HERE
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        # The same for everybody: no settings, no earlier work, no colours of the terminal.
        for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            os.environ[variable] = str(Path(scratch) / variable)
        for variable in ("NO_COLOR", "COLORFGBG", "TMUX"):
            os.environ.pop(variable, None)
        os.environ["TEXTUAL_ANIMATIONS"] = "none"
        demo = Path(scratch) / "demo"
        shutil.copytree(HERE / "demo", demo)
        for recipe in (HERE.parent / "recipes").glob("demo-*.yml"):
            shutil.copy(recipe, demo)
        (demo / "demo-plan.yml").write_text(PLAN, encoding="utf-8")
        os.chdir(demo)
        asyncio.run(draw(folder, demo))


if __name__ == "__main__":
    main(sys.argv[1:])
