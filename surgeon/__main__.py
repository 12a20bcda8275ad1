"""`python -m surgeon`, and the `surgeon` command."""

from __future__ import annotations

import contextlib
import gc
import os
import sys


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed while working, 2 wrong input, 130 interrupted."""
    # Imports create many objects that all stay alive: garbage collection would take a tenth of the start time.
    gc.set_threshold(200_000, 20, 20)
    # surgeon uses no linear algebra of NumPy; its threads would only disturb a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from .cli import streams

    streams.prepare()
    from .cli.app import run

    code = run()
    # All files are written and closed; a regular interpreter shutdown takes a fifth of a second with torch.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
