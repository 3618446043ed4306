"""The templates that a prediction was made with, in the common form of docs/architecture.md ("fold")."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snakefold.structures.io import chain_name

GIVEN_TEMPLATE = "given"
"""The entry name of a template that the user gave: its file name is no part of the result."""


@dataclass(frozen=True, kw_only=True)
class UsedTemplate:
    """A chain of an entry that stood for one of the target's chains.

    `chain` is the author's name, `copy` that of the copy in the assembly (`A-2`), else the same. `pairs` are aligned
    residues of the target's chain and of `sequence`, 0-based, both strictly increasing. `ranges` (half-open) are those
    of the target that the template gave: none where an engine only learns from it.
    """

    chain_index: int
    entry: str
    chain: str
    copy: str
    sequence: str
    pairs: Sequence[tuple[int, int]]
    evalue: float
    ranges: Sequence[Sequence[int]] = ()

    def facts(self, target: str) -> dict[str, Any]:
        """What prediction.json says of it; `target` is the sequence of the target's chain."""
        equal = [target[first] == self.sequence[second] for first, second in self.pairs]
        return {
            "chain_index": self.chain_index,
            "entry": self.entry,
            "chain": self.chain,
            "ranges": [list(each) for each in self.ranges],
            "identity": round(sum(equal) / len(equal), 4) if equal else 0.0,
            "coverage": round(len(self.pairs) / len(target), 4),
            "evalue": self.evalue,
        }

    def aligned_rows(self, target: str) -> tuple[str, str]:
        """The rows of target and template, equally long, with "-" for gaps: the whole target, the aligned span."""
        top: list[str] = []
        bottom: list[str] = []
        at_target, at_template = 0, self.pairs[0][1] if self.pairs else 0
        for first, second in self.pairs:
            top += [target[at_target:first], "-" * (second - at_template), target[first]]
            bottom += ["-" * (first - at_target), self.sequence[at_template:second], self.sequence[second]]
            at_target, at_template = first + 1, second + 1
        top.append(target[at_target:])
        bottom.append("-" * (len(target) - at_target))
        return "".join(top), "".join(bottom)


def alignment_fasta(sequences: Sequence[str], templates: Sequence[UsedTemplate]) -> str:
    """Aligned FASTA: two rows for each template, the target's chain and its own."""
    records: list[str] = []
    for template in templates:
        top, bottom = template.aligned_rows(sequences[template.chain_index])
        name = chain_name(template.chain_index)
        records.append(f">target {name}\n{top}\n>{template.entry} {template.copy}\n{bottom}\n")
    return "".join(records)
