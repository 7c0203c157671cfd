"""`python -m boxmatch` is the same as `boxmatch`."""

import sys

from boxmatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
