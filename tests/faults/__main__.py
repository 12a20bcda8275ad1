"""`python -m tests.faults`."""

from tests.faults.run import main

main()
