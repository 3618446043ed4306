"""Sample sheets: which proteins to predict, with what, and every fault that a sheet has, at once."""

from snakefold.sheet.reading import check_sheets, read_targets
from snakefold.sheet.targets import Chain, Target, refusal

__all__ = ["Chain", "Target", "check_sheets", "read_targets", "refusal"]
