"""From an edit to the first token, in the real interface: `python -m tests.support.first_token MODEL [MODEL]`.

Each round presses the keys of a person: an edit of a layer on the main screen, `T`, and enter on the prompt that is
offered. The time runs from the edit until the first token is on the screen. Run it with nothing else on the machine.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from surgeon.tui.try_model.try_screen import TryScreen
from surgeon.tui.widgets.text_pane import TextPane
from tests.support.trying import answer, loaded, screen_of, until
from tests.support.tui import app, command, keys

ROUNDS = 7
PROMPT = "The capital of France is"


async def measure(refs: list[str], size: tuple[int, int] = (120, 40)) -> dict[str, list[float]]:
    """Seconds of each round, by the kind of edit."""
    application = app(refs)
    found: dict[str, list[float]] = {}
    async with application.run_test(size=size) as pilot:
        depth = application.session.donors.depth(refs[0])
        await command(pilot, f"insert A:0-{depth - 1}")
        application.try_state.settings.tokens = 4
        await keys(pilot, "T")
        await until(pilot, lambda: loaded(screen_of(application)))
        screen_of(application)._box.load_text(PROMPT)
        await keys(pilot, "enter")
        await until(pilot, lambda: answer(screen_of(application)).ended)
        await keys(pilot, "escape escape")
        edits = {"delete a layer": "delete {0}", "repeat a layer": "duplicate {0}"}
        if len(refs) > 1:
            edits |= {
                "another donor's layer": "replace {0} B:{0}",
                "blend three layers": "blend {0}-{1} B:{0}-{1} method=slerp t=0.3",
            }
        for name, text in edits.items():
            for number in range(ROUNDS):
                layer = 1 + number % max(1, depth - 4)
                edit = text.format(layer, layer + 2)
                start = time.perf_counter()
                application.session.command(edit)
                application.surgery.view.refresh_all()
                await pilot.press("T", "enter")
                screen = screen_of(application)
                while not _on_screen(screen):
                    await asyncio.sleep(0.005)
                found.setdefault(name, []).append(time.perf_counter() - start)
                await until(pilot, lambda: answer(screen_of(application)).ended)
                await keys(pilot, "escape escape u")
    return found


def _on_screen(screen: TryScreen) -> bool:
    """Whether the beginning of the last answer is drawn."""
    found = answer(screen)
    words = found.text.split()
    if found.ended and not words:
        return True  # Only spaces came.
    return bool(words) and words[0] in screen.query_one("#answers", TextPane).text.rpartition(f"> {PROMPT}")[2]


def main() -> None:
    """Print the medians."""
    refs = [str(Path(ref).absolute()) for ref in sys.argv[1:]]
    if not refs:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        os.chdir(folder)
        found = asyncio.run(measure(refs))
    for name, seconds in found.items():
        print(f"{name:<24} median {statistics.median(seconds):.2f} s  ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
