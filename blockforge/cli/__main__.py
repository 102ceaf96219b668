"""`python -m blockforge.cli`: the commands where a launcher of processes wants a module."""

import sys

from blockforge.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
