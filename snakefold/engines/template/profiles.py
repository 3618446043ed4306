"""Profiles of the two chains of an alignment: which residues and gaps are likely at each position.

The target's profile comes from its MSA. The template's comes from the same MSA: those rows that are much nearer to the
template than a chance relative of the target are collected by a search with the template's sequence, because no
database is at hand where models are made. Rows that are not near the template stay out: how they align with it is the
very question, and a profile that had them would answer it with the target's own profile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyhmmer import easel, plan7

from snakefold.engines.template.align import a3m_rows, build_profile, profile_of_rows
from snakefold.engines.template.building import Array, standard_letter

# Of the aligned pairs, and of the template's residues.
_LEAST_IDENTITY = 0.35
_LEAST_COVERAGE = 0.5
_MOST_IDENTITY = 0.9
_MOST_RELATIVES = 300
_LEAST_LENGTH = 20
_E_VALUE = 1e-3
# As if searched in so many sequences: an MSA's rows were chosen, and their number says nothing of chance.
_SEARCHED = 10_000
# A transition that a profile has never seen is merely rare.
_LEAST_TRANSITION = 1e-6


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Amino acids and gaps at each position of a chain.

    `emissions` (residues, 20) are probabilities in the order ACDEFGHIKLMNPQRSTVWY, `background` (20,) those of any
    protein. `transitions` (residues + 1, 7) are log probabilities in HMMER's order, MM MI MD IM II DM DD, row k those
    after the k-th residue.
    """

    emissions: Array
    background: Array
    transitions: Array

    @classmethod
    def of(cls, hmm: Any) -> "Profile":
        """From a plan7.HMM, whose type stubs lack its probabilities."""
        transitions = np.asarray(hmm.transition_probabilities, dtype=float)
        return cls(
            emissions=np.asarray(hmm.match_emissions, dtype=float)[1:, :20],
            background=np.asarray(plan7.Background(hmm.alphabet).residue_frequencies, dtype=float)[:20],
            transitions=np.log(np.maximum(transitions, _LEAST_TRANSITION)),
        )


@dataclass(frozen=True, kw_only=True)
class Relatives:
    """The rows of an MSA as sequences (an easel.DigitalSequenceBlock), to be searched with templates."""

    sequences: Any

    @classmethod
    def read(cls, msa: Path | None) -> "Relatives":
        """All rows of an A3M but the first, the query: gaps out, insertions in. Empty without an MSA."""
        aligned = a3m_rows(msa)[1:] if msa is not None else []
        rows = ["".join(filter(str.isalpha, row)).upper() for row in aligned]
        alphabet = easel.Alphabet.amino()
        named = [
            easel.TextSequence(name=str(index).encode(), sequence=row).digitize(alphabet)
            for index, row in enumerate(rows)
            if len(row) >= _LEAST_LENGTH
        ]
        return cls(sequences=easel.DigitalSequenceBlock(alphabet, named))

    def profile(self, sequence: str) -> Profile:
        """The profile of a template: from its near relatives among the rows, or from it alone if there are none."""
        sequence = "".join(standard_letter(letter) for letter in sequence)
        alone = build_profile(sequence, None)
        if len(self.sequences) == 0:
            return Profile.of(alone)
        # The filters pass only what resembles the template clearly; deep MSAs of other kin then cost little.
        pipeline = plan7.Pipeline(
            easel.Alphabet.amino(), E=_E_VALUE, domE=_E_VALUE, Z=_SEARCHED, domZ=_SEARCHED, F1=1e-4, F2=1e-5, F3=1e-6
        )
        hits = pipeline.search_hmm(alone, self.sequences)
        rows = near_and_diverse(sequence, [_aligned(hit.best_domain.alignment, len(sequence)) for hit in hits])
        return Profile.of(profile_of_rows([sequence, *rows]) if rows else alone)


def _aligned(domain: plan7.Alignment, length: int) -> str:
    """The hit's residues at each of the query's positions, "-" for gaps."""
    row = ["-"] * length
    position = domain.hmm_from - 1
    for state, residue in zip(domain.hmm_sequence, domain.target_sequence, strict=True):
        if state != ".":
            row[position] = residue.upper()
            position += 1
    return "".join(row)


def near_and_diverse(sequence: str, rows: Sequence[str]) -> list[str]:
    """The rows near the sequence (35 % identity, half its length), without such as hardly differ from one before."""
    if not rows:
        return []
    letters = np.array([_bytes(row) for row in [sequence, *rows]])
    present = letters != ord("-")
    kept = np.zeros((_MOST_RELATIVES + 1, len(sequence)), dtype=np.uint8)
    kept[0] = letters[0]
    found: list[str] = []
    for row, there, text in zip(letters[1:], present[1:], rows, strict=True):
        count = int(there.sum())
        if count < _LEAST_COVERAGE * len(sequence) or ((row == letters[0]) & there).sum() < _LEAST_IDENTITY * count:
            continue
        alike = ((kept[: len(found) + 1] == row) & there).sum(axis=1)
        if alike.max() > _MOST_IDENTITY * count:
            continue
        found.append(text)
        kept[len(found)] = row
        if len(found) == _MOST_RELATIVES:
            break
    return found


def _bytes(row: str) -> NDArray[np.uint8]:
    return np.frombuffer(row.encode("ascii"), dtype=np.uint8)
