"""`python -m surgeon`, and the `surgeon` command."""

from __future__ import annotations

import contextlib
import gc
import os
import sys


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed while working, 2 the input is wrong, 130 interrupted."""
    # Importing makes many objects that all stay: looking for garbage among them costs a tenth of the start.
    gc.set_threshold(200_000, 20, 20)
    # NumPy is asked for no linear algebra: the threads it would start for that would only be in the way of a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from .cli import streams

    streams.prepare()
    from .cli.app import run

    code = run()
    # All is written and closed; taking everything apart again would take a fifth of a second with torch.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
