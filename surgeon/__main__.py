"""`python -m surgeon`, and the `surgeon` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed while working, 2 the input is wrong, 130 interrupted."""
    from .cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
