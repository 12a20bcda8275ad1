"""docs/keys.md from the registry of actions: `python -m tests.support.keys_page > docs/keys.md`."""

from __future__ import annotations

from typing import get_args

from surgeon.tui.actions import ACTIONS, ScreenName

TITLES = {
    "surgery": "The main screen", "plan": "Plan", "run": "Run", "try": "Try", "results": "Results",
    "blend": "Blend", "curves": "Curves", "any": "Every screen",
}  # fmt: skip


def page() -> str:
    """The page: a table of each screen, with the names that `keys:` in config.yaml takes."""
    lines = [
        "# Keys",
        "",
        "Every action of the interface, by the screen's name in `config.yaml`. The page is written by",
        "`python -m tests.support.keys_page`, and a test compares it with the program.",
    ]
    for screen in get_args(ScreenName):
        lines += ["", f"## {TITLES[screen]} (`{screen}`)", "", "| action | keys | does |", "|---|---|---|"]
        for action in ACTIONS:
            if action.screen == screen:
                keys = ", ".join(f"`` {key} ``" for key in action.keys)
                verb = f" (`:{action.verb}`)" if action.verb else ""
                lines.append(f"| `{action.name}` | {keys} | {action.help.replace('|', chr(92) + '|')}{verb} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
