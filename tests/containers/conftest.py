"""Images of engines take gigabytes to build: `make test-images` tests those that it is told of, and that are here."""

import os

collect_ignore = [] if "SNAKEFOLD_TEST_IMAGES" in os.environ else ["test_engine_image.py"]
