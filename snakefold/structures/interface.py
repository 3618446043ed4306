"""How well chains of a predicted complex fit together, by what the engine says of itself: pDockQ and ipSAE."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.spatial import KDTree

from snakefold.structures.io import ModelChain

CONTACT = 8.0
"""Angstrom between CB atoms (CA of glycine) of residues in contact: pDockQ's definition."""

PAE_CUTOFF = 10.0
"""Angstrom. Pairs of residues with a larger aligned error count for nothing in ipSAE; its author's choice for AlphaFold
3 and Boltz (for AlphaFold 2 he shows 15)."""


@dataclass(frozen=True, kw_only=True)
class Interface:
    """Two chains (0-based) of a complex.

    `contacts` are pairs of residues. `pdockq` (0-1, P. Bryant, G. Pozzati and A. Elofsson, Nat. Commun. 13 (2022),
    1265) is a logistic function of the mean pLDDT of the residues in contact and of the number of contacts, fitted to
    DockQ of AlphaFold 2's dimers: 0.23 and more was taken for acceptable. `ipsae` (0-1, R. L. Dunbrack, bioRxiv
    2025.02.10.637595) is the best mean TM-like term of one residue with those of the other chain that it is sure of.
    Each is None where the engine does not give what it is made of.
    """

    first: int
    second: int
    contacts: int
    pdockq: float | None
    ipsae: float | None


def interfaces(chains: Sequence[ModelChain], *, is_plddt: bool, pae: np.ndarray | None) -> list[Interface]:
    """Every two chains of a complex. `pae` (residues, residues) is over all residues of the sequences, in angstrom."""
    ends = np.cumsum([0, *(len(chain.sequence) for chain in chains)])
    found = []
    for first, second in combinations(range(len(chains)), 2):
        pairs = _contacts(chains[first], chains[second])
        blocks = None
        if pae is not None:
            one, other = slice(*ends[first : first + 2]), slice(*ends[second : second + 2])
            blocks = pae[one, other], pae[other, one]
        found.append(
            Interface(
                first=first,
                second=second,
                contacts=len(pairs),
                pdockq=_pdockq(chains[first], chains[second], pairs) if is_plddt else None,
                ipsae=None if blocks is None else max(map(_ipsae, blocks)),
            )
        )
    return found


def _contacts(first: ModelChain, second: ModelChain) -> list[tuple[int, int]]:
    """Pairs of residue indices."""
    tips = [
        {
            index: atoms.get("CB", atoms.get("CA"))
            for index, atoms in chain.atoms.items()
            if "CB" in atoms or "CA" in atoms
        }
        for chain in (first, second)
    ]
    if not tips[0] or not tips[1]:
        return []
    trees = [KDTree(np.array(list(of_chain.values()))) for of_chain in tips]
    names = [list(of_chain) for of_chain in tips]
    near = trees[0].query_ball_tree(trees[1], CONTACT)
    return [(names[0][here], names[1][there]) for here, those in enumerate(near) for there in those]


def _pdockq(first: ModelChain, second: ModelChain, pairs: Sequence[tuple[int, int]]) -> float:
    if not pairs:
        return 0.0
    values = [first.confidence[index] for index in {one for one, _ in pairs}]
    values += [second.confidence[index] for index in {other for _, other in pairs}]
    mean = float(np.mean([value or 0.0 for value in values]))
    return 0.724 / (1 + math.exp(-0.052 * (mean * math.log10(len(pairs)) - 152.611))) + 0.018


def _ipsae(errors: np.ndarray) -> float:
    """Of the aligned errors (residues of one chain, residues of the other), rows being those aligned on."""
    sure = errors < PAE_CUTOFF
    counts = sure.sum(axis=1)
    if not counts.any():
        return 0.0
    # TM-score's scale for so many residues (Y. Zhang and J. Skolnick, Proteins 57 (2004), 702).
    scale = np.maximum(1.0, 1.24 * np.cbrt(np.maximum(counts, 26) - 15.0) - 1.8)
    terms = np.where(sure, 1 / (1 + (errors / scale[:, None]) ** 2), 0.0)
    return float((terms.sum(axis=1) / np.maximum(counts, 1)).max())
