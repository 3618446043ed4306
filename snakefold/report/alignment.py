"""`alignment.fasta` as the report shows it: for each chain one alignment of the target with all its templates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Row = list[str]
"""Name and aligned sequence."""


@dataclass(frozen=True, kw_only=True)
class ChainAlignment:
    """One chain of the target with its templates: `rows` of equal length, the target's first, "-" for gaps."""

    chain: int
    rows: tuple[Row, ...]


def read_alignments(path: Path, sequences: Sequence[str], chain_of_block: Sequence[int]) -> list[ChainAlignment]:
    """Read an aligned FASTA file in which each target row is followed by the rows of one or more templates.

    `sequences` are the target's chains; `chain_of_block` tells the chain of each block, where it is known: without it
    blocks go to the chains in turn. Blocks of one chain become one alignment. No file, no alignments.
    """
    if not path.is_file():
        return []
    records: list[Row] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(">"):
            records.append([line[1:].strip(), ""])
        elif records:
            records[-1][1] += line.strip().replace(".", "-")
    targets = set(sequences)
    blocks: list[list[Row]] = []
    for record in records:
        # A template may have the target's very sequence, so that a block always takes a second row first.
        starts = record[1].replace("-", "") in targets and (not blocks or len(blocks[-1]) > 1)
        if starts or not blocks:
            blocks.append([])
        blocks[-1].append(record)
    if len(chain_of_block) != len(blocks):
        chain_of_block = range(len(blocks))
    of_chain: dict[int, list[list[Row]]] = {}
    for chain, block in zip(chain_of_block, blocks, strict=True):
        of_chain.setdefault(chain, []).append(block)
    return [ChainAlignment(chain=chain, rows=tuple(_merged(of_chain[chain]))) for chain in sorted(of_chain)]


def _merged(blocks: Sequence[Sequence[Row]]) -> list[Row]:
    """One alignment out of several with the same target: an insertion of one opens a gap in the others."""
    if len(blocks) == 1 or any(len({len(row) for _, row in block}) != 1 for block in blocks):
        return [list(row) for block in blocks for row in block]
    name, first = blocks[0][0]
    letters = first.replace("-", "")
    if any(block[0][1].replace("-", "") != letters for block in blocks):
        return [list(row) for block in blocks for row in block]
    # Per row: what stands before each residue of the target (and behind the last), and what stands at it.
    rows: list[tuple[str, list[str], str]] = []
    for block in blocks:
        target = block[0][1]
        for other, row in block[1:]:
            before = [""] * (len(letters) + 1)
            at = []
            for letter, mine in zip(target, row, strict=True):
                if letter == "-":
                    before[len(at)] += mine
                else:
                    at.append(mine)
            rows.append((other, before, "".join(at)))
    widths = [max(len(before[index]) for _, before, _ in rows) for index in range(len(letters) + 1)]

    def spread(before: Sequence[str], at: str) -> str:
        return "".join(before[index].ljust(width, "-") + at[index : index + 1] for index, width in enumerate(widths))

    return [[name, spread([""] * len(widths), letters)], *([other, spread(before, at)] for other, before, at in rows)]
