"""`python -m node` is the command `holdfast`."""

import sys

from node.commands import main

if __name__ == "__main__":
    sys.exit(main())
