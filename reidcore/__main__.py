"""`python -m reidcore` is the command `reid`."""

import sys

from reidcore.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
