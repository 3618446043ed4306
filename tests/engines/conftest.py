"""Engines with their real code, on a CPU, with small random weights: `make test-engines` sets their Pythons up."""

import os
from pathlib import Path

# test_<engine>.py runs where the environment says which Python has that engine.
collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("test_*.py")
    if f"SNAKEFOLD_PYTHON_{path.stem.removeprefix('test_').upper()}" not in os.environ
]
