"""`python -m surgeon`, and the `surgeon` command."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed while working, 2 the input is wrong, 130 interrupted."""
    # Importing makes many objects that all stay: looking for garbage among them costs a tenth of the start.
    gc.set_threshold(200_000, 20, 20)
    from .cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
