"""`python -m tests.families [CASE...] [--table]`."""

import sys

from tests.families.matrix import main

sys.exit(main(sys.argv[1:]))
