"""Engines with their real code, on a CPU, with small random weights: `make test-engines` sets their Pythons up."""

import os

collect_ignore_glob = [] if "SNAKEFOLD_PYTHON_ESMFOLD" in os.environ else ["test_*.py"]
