"""The version of each step's own code. Engines carry their own.

Raise one whenever the same input gives another result: it enters the store's keys and the names of batches, so that old
results are neither taken for new ones nor kept as finished. tests/e2e/test_golden.py fails when results change and
the version did not.
"""

RECEIPT = "3"
"""The form of receipts: a new one names new batches, so that receipts of an older snakefold are not read."""
SEARCH_MSA = "1"
SEARCH_TEMPLATES = "1"
RELAX = "2"
