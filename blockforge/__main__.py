"""`python -m blockforge`, which is the command `blockforge`."""

import sys

from blockforge.cli import main

sys.exit(main())
