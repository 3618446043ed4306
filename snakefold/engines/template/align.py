"""Alignments of a target chain with a template chain, and the profile search that makes them for a user's template."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from Bio.Align import substitution_matrices
from numpy.typing import NDArray
from pyhmmer import easel, plan7

from snakefold.engines.template.building import standard_letter
from snakefold.errors import MemberError

_EXTENSION_POSTERIOR = 0.3
_MAX_EXTENSION = 5
_EXTENSION_SPAN = 60
_LEAST_EXTENSION_SCORE = 4.0
_GAP_OPEN, _GAP_EXTEND = 9.0, 0.5
# hmmsearch rounds posteriors to one character: 0 is 0-5 %, 1 is 5-15 %, ... 9 is 85-95 %, * is 95-100 %.
_POSTERIOR_OF = {"*": 0.975, "0": 0.025} | {str(digit): digit / 10 for digit in range(1, 10)}


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Aligned pairs of residues, both indices strictly increasing.

    `target` and `template` are 0-based indices (pairs,); `posterior` the probability (0-1) that the pair is right.
    """

    target: NDArray[np.int64]
    template: NDArray[np.int64]
    posterior: NDArray[np.float64]

    @classmethod
    def from_pairs(cls, pairs: Iterable[Sequence[float]]) -> "Alignment":
        """From (target index, template index, posterior) triples in any order; pairs that cross others are left out."""
        kept: list[tuple[int, int, float]] = []
        for target, template, posterior in sorted((int(a), int(b), float(p)) for a, b, p in pairs):
            if not kept or (target > kept[-1][0] and template > kept[-1][1]):
                kept.append((target, template, posterior))
        return cls(
            target=np.array([pair[0] for pair in kept], dtype=np.int64),
            template=np.array([pair[1] for pair in kept], dtype=np.int64),
            posterior=np.array([pair[2] for pair in kept], dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.target)

    def identity(self, target: str, template: str) -> float:
        """The fraction (0-1) of pairs with equal residues; 0 without pairs."""
        equal = [target[i] == template[j] for i, j in zip(self.target, self.template, strict=True)]
        return sum(equal) / len(equal) if equal else 0.0


@dataclass(frozen=True, kw_only=True)
class ProfileHit:
    """One chain that a profile found: its key, the alignment, E-value and bit score."""

    key: str
    alignment: Alignment
    evalue: float
    score: float


def a3m_rows(path: Path) -> list[str]:
    """The rows of an A3M as written, query first: gaps as "-", insertions in lower case."""
    # Only a ">" that begins a line begins a record: descriptions hold it too ("Alpha-(1->3)-fucosyltransferase").
    records = f"\n{path.read_text(encoding='utf-8')}".split("\n>")[1:]
    return ["".join(record.split("\n")[1:]) for record in records]


def read_a3m(path: Path, query: str) -> list[str]:
    """The aligned rows of an A3M, query first, insertions left out: all as long as the query.

    Raises MemberError ("bad_msa") if a row has another length.
    """
    rows = ["".join(letter for letter in row if letter == "-" or letter.isupper()) for row in a3m_rows(path)]
    if not rows or any(len(row) != len(query) for row in rows):
        raise MemberError("bad_msa", f"the MSA has rows that do not fit a query of {len(query)} residues")
    return rows


def build_profile(query: str, msa: Path | None) -> plan7.HMM:
    """A profile HMM whose match state k is residue k of the query; from the query alone (BLOSUM62) without an MSA."""
    sequence = "".join(standard_letter(letter) for letter in query)
    rows = read_a3m(msa, query) if msa is not None else []
    return profile_of_rows([sequence, *rows[1:]])


def profile_of_rows(rows: Sequence[str]) -> plan7.HMM:
    """A profile HMM of aligned rows, of which the first has no gaps: match state k is its residue k.

    A single row is taken with the substitutions of BLOSUM62.
    """
    alphabet = easel.Alphabet.amino()
    background = plan7.Background(alphabet)
    if len(rows) < 2:
        single = easel.TextSequence(name=b"query", sequence=rows[0]).digitize(alphabet)
        return plan7.Builder(alphabet).build(single, background)[0]
    named = [easel.TextSequence(name=f"row{index}".encode(), sequence=row) for index, row in enumerate(rows)]
    alignment = easel.TextMSA(name=b"query", sequences=named)
    # Hand architecture: every query position is a match state, so that HMM positions are residue indices.
    alignment.reference = "x" * len(rows[0])
    return plan7.Builder(alphabet, architecture="hand").build_msa(alignment.digitize(alphabet), background)[0]


def align_to_chains(profile: plan7.HMM, chains: Mapping[str, str]) -> list[ProfileHit]:
    """Align a profile with sequences (key -> sequence), best first; those that do not align at all are left out.

    The filters of hmmsearch are off, because the template was chosen by the user, however far it is.
    """
    alphabet = easel.Alphabet.amino()
    sequences = [
        easel.TextSequence(name=str(index).encode(), sequence=sequence).digitize(alphabet)
        for index, sequence in enumerate(chains.values())
    ]
    block = easel.DigitalSequenceBlock(alphabet, sequences)
    pipeline = plan7.Pipeline(alphabet, E=1000.0, domE=1000.0, incE=1000.0, F1=1.0, F2=1.0, F3=1.0, bias_filter=False)
    keys = list(chains)
    found: list[ProfileHit] = []
    for hit in pipeline.search_hmm(profile, block):
        domains = sorted(hit.domains, key=lambda domain: -domain.score)
        alignment = merge(_domain_pairs(domain.alignment) for domain in domains)
        found.append(ProfileHit(key=keys[int(hit.name)], alignment=alignment, evalue=hit.evalue, score=hit.score))
    return found


def _domain_pairs(domain: plan7.Alignment) -> list[tuple[int, int, float]]:
    target, template = domain.hmm_from - 1, domain.target_from - 1
    pairs: list[tuple[int, int, float]] = []
    columns = zip(domain.hmm_sequence, domain.target_sequence, domain.posterior_probabilities, strict=True)
    for state, residue, posterior in columns:
        if state != "." and residue != "-":
            pairs.append((target, template, _POSTERIOR_OF.get(posterior, 0.0)))
        target += state != "."
        template += residue != "-"
    return pairs


def merge(domains: Iterable[Sequence[Sequence[float]]]) -> Alignment:
    """One alignment of several domains of one chain, best first; a domain joins if it is in order with those taken."""
    taken: list[Sequence[float]] = []
    for pairs in domains:
        if not pairs:
            continue
        # In order: on each side of the new domain, target and template must both be beyond it.
        low_target, high_target = min(p[0] for p in pairs), max(p[0] for p in pairs)
        low_template, high_template = min(p[1] for p in pairs), max(p[1] for p in pairs)
        before = [p for p in taken if p[0] < low_target and p[1] < low_template]
        after = [p for p in taken if p[0] > high_target and p[1] > high_template]
        if len(before) + len(after) == len(taken):
            taken.extend(pairs)
    return Alignment.from_pairs(taken)


def extend_ends(alignment: Alignment, target: str, template: str, observed: Iterable[int]) -> Alignment:
    """Continue both ends, as far as sequence similarity carries, then without gaps by up to five residues.

    A local alignment stops where its score sinks, which in homologues is often before the fold ends, and before a gap
    that a few conserved residues beyond it do not pay for. Here they need only outweigh the gap (BLOSUM62, 9 to open,
    0.5 to extend): a second similar segment at the right end of the right chain is not there by chance. Pairs without
    coordinates (`observed`: template indices that have them) end the extension without gaps.
    """
    present = set(observed)
    pairs = list(zip(alignment.target.tolist(), alignment.template.tolist(), alignment.posterior.tolist(), strict=True))
    first, last = pairs[0], pairs[-1]
    before = _similar_pairs(target[: first[0]][::-1], template[: first[1]][::-1])
    after = _similar_pairs(target[last[0] + 1 :], template[last[1] + 1 :])
    pairs += [(first[0] - 1 - i, first[1] - 1 - j, _EXTENSION_POSTERIOR) for i, j in before]
    pairs += [(last[0] + 1 + i, last[1] + 1 + j, _EXTENSION_POSTERIOR) for i, j in after]
    pairs.sort()
    for (there, index, _), step in ((pairs[0], -1), (pairs[-1], 1)):
        for shift in range(1, _MAX_EXTENSION + 1):
            if not 0 <= there + step * shift < len(target) or index + step * shift not in present:
                break
            pairs.append((there + step * shift, index + step * shift, _EXTENSION_POSTERIOR / 2))
    return Alignment.from_pairs(pairs)


def _similar_pairs(target: str, template: str) -> list[tuple[int, int]]:
    """Pairs of the best alignment that starts at the beginning of both sequences and ends anywhere.

    Empty if it scores too little. O. Gotoh, J. Mol. Biol. 162 (1982), 705.
    """
    target, template = target[:_EXTENSION_SPAN], template[:_EXTENSION_SPAN]
    matrix: Any = substitution_matrices.load("BLOSUM62")
    rows, columns = len(target) + 1, len(template) + 1
    # Three layers: ending in a pair, in a gap of the template, in a gap of the target.
    scores = np.full((3, rows, columns), -np.inf)
    origin = np.zeros((3, rows, columns), dtype=np.int64)
    scores[0, 0, 0] = 0.0
    for i in range(rows):
        for j in range(columns):
            if i and j:
                previous = scores[:, i - 1, j - 1]
                origin[0, i, j] = previous.argmax()
                scores[0, i, j] = (
                    previous.max() + matrix[standard_letter(target[i - 1]), standard_letter(template[j - 1])]
                )
            for layer, (row, column) in ((1, (i - 1, j)), (2, (i, j - 1))):
                if row < 0 or column < 0:
                    continue
                costs = np.where(np.arange(3) == layer, _GAP_EXTEND, _GAP_OPEN)
                previous = scores[:, row, column] - costs
                origin[layer, i, j] = previous.argmax()
                scores[layer, i, j] = previous.max()
    i, j = (int(index) for index in np.unravel_index(scores[0].argmax(), (rows, columns)))
    if scores[0, i, j] < _LEAST_EXTENSION_SCORE:
        return []
    pairs: list[tuple[int, int]] = []
    layer = 0
    while i or j:
        came_from = int(origin[layer, i, j])
        if layer == 0:
            pairs.append((i - 1, j - 1))
        i, j = i - (layer != 2), j - (layer != 1)
        layer = came_from
    return pairs
