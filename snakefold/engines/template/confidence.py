"""Estimated lDDT: how far to trust each residue of a comparative model, without knowing the true structure.

What it means, how it was calibrated and where not to trust it: docs/confidence.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from Bio.Align import substitution_matrices
from numpy.typing import NDArray
from scipy.spatial import KDTree

from snakefold.engines.template.backbone import Backbone, secondary_structure
from snakefold.engines.template.building import Array

KIND = "estimated lDDT"

_COPIED = (
    "copied",
    "divergence",
    "posterior",
    "similarity nearby",
    "posterior nearby",
    "built nearby",
    "support",
    "burial",
    "regular",
    "lacking",
)
_LOOP = ("loop", "loop: identity", "loop: posterior nearby", "loop: length", "loop: depth")
_END = ("end", "end: identity", "end: depth")

FEATURES = _COPIED + _LOOP + _END
"""Three regressions side by side: of copied residues, of loops and of ends that were built; see `features`."""

# Weights in the logit of lDDT-CA, as bench/confidence.py prints them: fitted to 224 models of 69 families.
_WEIGHTS = MappingProxyType(
    {
        "copied": 0.19,
        "divergence": -0.64,
        "posterior": 0.42,
        "similarity nearby": 0.88,
        "posterior nearby": 0.94,
        "built nearby": -0.92,
        "support": 0.10,
        "burial": 0.71,
        "regular": 0.10,
        "lacking": -2.20,
        "loop": -0.96,
        "loop: identity": 0.79,
        "loop: posterior nearby": 1.45,
        "loop: length": -0.21,
        "loop: depth": -0.23,
        "end": -0.38,
        "end: identity": 0.81,
        "end: depth": -0.55,
    }
)

# Below it, most models have a TM-score under 0.5 (17 of 24), and most such models lie below it (17 of 19).
_TOO_FAR = 50.0

_NEAR = 10.0
_BURIED_NEIGHBOURS = 20.0
_FARTHEST = 8
_MOST_LACKING = 0.4


@dataclass(frozen=True, kw_only=True)
class _Stretches:
    """Of residues that were built: how long their stretch is, how deep they lie in it, whether it is an end."""

    length: NDArray[np.int64]
    depth: NDArray[np.int64]
    end: NDArray[np.bool_]


def features(backbone: Backbone, surroundings: Array) -> Array:
    """What is known of each residue: (residues, FEATURES), rows of NaN where nothing is modelled.

    Each group of features is 0 outside its kind of residue, and begins with 1 inside. Copied residues have their
    backbone from a template. divergence: what the cores of such homologues differ by, in
    angstrom (C. Chothia and A. M. Lesk, EMBO J. 5 (1986), 823). posterior: of the pair. similarity nearby, posterior
    nearby: means over copied residues whose CA lies within 10 A; similarity is the BLOSUM62 score of the pair over that
    of the target's residue with itself. built nearby: the share of built residues there. support: residues to the
    nearest break in the chain or the alignment, 1 at 8 and beyond. burial: CA atoms of the whole model (`surroundings`,
    (atoms, 3)) within 10 A, 1 at 20, at most 1.5. regular: 1 in helices and strands. lacking: the share of the target
    that no template gave, at most 0.4.

    A loop was built between two copied residues, an end from one. identity: of all pairs, 0-1. length: the logarithm of
    its residues. depth: the logarithm of the residues to the nearest one that was copied.
    """
    count = len(backbone.sequence)
    modelled, copied = backbone.modelled, backbone.template_index >= 0
    built = modelled & ~copied
    if not copied.any():
        return np.full((count, len(FEATURES)), np.nan)
    identity = _equal(backbone)[copied].mean()
    posterior = np.where(copied, backbone.posterior, 0.0)
    positions = backbone.atoms[modelled, 1]
    within = KDTree(surroundings).query_ball_point(positions, _NEAR, return_length=True)
    burial = np.zeros(count)
    burial[modelled] = np.minimum((np.asarray(within) - 1) / _BURIED_NEIGHBOURS, 1.5)
    near = _Neighbourhood.of(positions, modelled)
    similarity_nearby = near.mean(_similarity(backbone), copied)
    posterior_nearby = near.mean(posterior, copied)
    stretches = _stretches(backbone)
    ones = np.ones(count)
    constant_identity = np.full(count, identity)
    depth = np.log(np.maximum(stretches.depth, 1))
    of_copied = [
        ones,
        np.full(count, 0.4 * np.exp(1.87 * (1 - identity))),
        posterior,
        similarity_nearby,
        posterior_nearby,
        near.mean(built.astype(float), modelled),
        _support(backbone),
        burial,
        secondary_structure(backbone.torsions()).astype(float),
        np.full(count, min(1 - copied.mean(), _MOST_LACKING)),
    ]
    of_loops = [ones, constant_identity, posterior_nearby, np.log(np.maximum(stretches.length, 1)), depth]
    of_ends = [ones, constant_identity, depth]
    found = np.concatenate(
        [
            np.where(kind[:, None], np.stack(columns, axis=1), 0.0)
            for kind, columns in (
                (copied, of_copied),
                (built & ~stretches.end, of_loops),
                (built & stretches.end, of_ends),
            )
        ],
        axis=1,
    )
    found[~modelled] = np.nan
    return found


def is_loop(found: Array) -> NDArray[np.bool_]:
    """(residues,): which rows of `features` are of loops that were built."""
    return found[:, FEATURES.index("loop")] == 1


def is_end(found: Array) -> NDArray[np.bool_]:
    """(residues,): which rows of `features` are of ends that were built."""
    return found[:, FEATURES.index("end")] == 1


def probability(logits: Array) -> Array:
    """The logistic function."""
    return 1 / (1 + np.exp(-logits))


@dataclass(frozen=True, kw_only=True)
class _Neighbourhood:
    """Pairs of residues whose CA atoms lie within 10 A, both ways, each residue with itself too."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, positions: Array, modelled: NDArray[np.bool_]) -> "_Neighbourhood":
        """Of the modelled residues, whose CA atoms are at `positions`."""
        index = np.flatnonzero(modelled)
        pairs = index[KDTree(positions).query_pairs(_NEAR, output_type="ndarray")]
        return cls(
            first=np.concatenate([pairs[:, 0], pairs[:, 1], index]),
            second=np.concatenate([pairs[:, 1], pairs[:, 0], index]),
            count=len(modelled),
        )

    def mean(self, values: Array, chosen: NDArray[np.bool_]) -> Array:
        """The mean of the chosen neighbours' values, (residues,); that of all chosen ones where there is none near."""
        kept = chosen[self.second]
        total = np.bincount(self.first[kept], values[self.second[kept]], self.count)
        number = np.bincount(self.first[kept], minlength=self.count)
        return np.where(number > 0, total / np.maximum(number, 1), values[chosen].mean())


def _equal(backbone: Backbone) -> NDArray[np.bool_]:
    return np.array([a == b for a, b in zip(backbone.sequence, backbone.template_letters, strict=True)], dtype=bool)


def _similarity(backbone: Backbone) -> Array:
    """(residues,): the BLOSUM62 score of each pair over that of the target's residue with itself, 0 without a pair."""
    matrix: Any = substitution_matrices.load("BLOSUM62")
    known = set(matrix.alphabet)
    return np.array(
        [
            matrix[letter, other] / matrix[letter, letter] if other in known else 0.0
            for letter, other in zip(backbone.sequence, backbone.template_letters, strict=True)
        ]
    )


def _support(backbone: Backbone) -> Array:
    """(residues,): how far along the chain the alignment goes on to either side without a break, 0-1."""
    count = len(backbone.sequence)
    index, source = backbone.template_index, backbone.source
    unbroken = (index[1:] >= 0) & (np.diff(index) == 1) & (np.diff(source) == 0)
    breaks = np.concatenate([[0], np.flatnonzero(~unbroken) + 1, [count]])
    steps = np.abs(np.arange(count)[:, None] + 0.5 - breaks).min(axis=1) + 0.5
    return np.minimum(steps, _FARTHEST) / _FARTHEST


def _stretches(backbone: Backbone) -> _Stretches:
    modelled, copied = backbone.modelled, backbone.template_index >= 0
    count = len(copied)
    length, depth = np.zeros((2, count), dtype=np.int64)
    end = np.zeros(count, dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], modelled & ~copied, [False]]).astype(int)))
    for start, stop in edges.reshape(-1, 2).tolist():
        before, after = start > 0 and bool(copied[start - 1]), stop < count and bool(copied[stop])
        from_start, from_stop = np.arange(1, stop - start + 1), np.arange(stop - start, 0, -1)
        length[start:stop] = stop - start
        end[start:stop] = not (before and after)
        depth[start:stop] = (
            np.minimum(from_start, from_stop) if before and after else from_start if before else from_stop
        )
    return _Stretches(length=length, depth=depth, end=end)


def estimated_lddt(backbones: Sequence[Backbone]) -> list[list[float | None]]:
    """Estimated lDDT, 0-100, of every residue by chain; None where a residue is not modelled."""
    surroundings = np.concatenate([backbone.atoms[backbone.modelled, 1] for backbone in backbones])
    weights = np.array([_WEIGHTS[name] for name in FEATURES])
    result: list[list[float | None]] = []
    for backbone in backbones:
        values = 100 * probability(features(backbone, surroundings) @ weights)
        result.append([round(float(value), 2) if np.isfinite(value) else None for value in values])
    return result


def too_far(confidence: Sequence[Sequence[float | None]]) -> bool:
    """Whether the templates are too distant to believe the fold of some chain: its mean estimate is below 50.

    `confidence` is as `estimated_lddt` gives it; residues that are not modelled do not count.
    """
    modelled = [[value for value in chain if value is not None] for chain in confidence]
    return any(not values or float(np.mean(values)) < _TOO_FAR for values in modelled)
