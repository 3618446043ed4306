"""Sample sheets: which proteins to predict, with what, and every fault that a sheet has, at once."""

from snakefold.sheet.reading import check_sheets, files_of_sheets, read_targets
from snakefold.sheet.relocation import Travelling, relocated
from snakefold.sheet.targets import Chain, Target, refusal

__all__ = ["Chain", "Target", "Travelling", "check_sheets", "files_of_sheets", "read_targets", "refusal", "relocated"]
