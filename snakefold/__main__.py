"""`python -m snakefold`."""

import sys

from snakefold.cli import main

sys.exit(main())
