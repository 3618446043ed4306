"""Disulfides: which cysteines of a model are bridged, and where their sulphurs then lie."""

from collections.abc import Collection, Mapping
from itertools import combinations

import numpy as np

from snakefold.engines.template.building import Array, build_side_chain, dihedral

BOND = 2.05
"""The S-S bond in angstrom (Engh and Huber 2001), as are the angle and the torsion below, in degrees."""
_ANGLE = 103.8
_TORSION = 90.0

_FARTHEST_BETAS = 5.0
_FARTHEST_ALPHAS = 7.5
_BOND_SPREAD, _ANGLE_SPREAD, _TORSION_SPREAD = 0.15, 8.0, 20.0
_WORST_STRAIN = 12.0
_CHI1_STEP = 6.0
_CHI1_CENTRES, _CHI1_SPREAD = np.array([-65.0, 180.0, 65.0]), 15.0

Place = tuple[int, int]


def bridges(cysteines: Mapping[Place, Mapping[str, Array]], apart: Collection[Place] = ()) -> dict[Place, Array]:
    """Side chains (atoms, 3) of the cysteines that can be bridged, by place.

    `cysteines` holds N, CA and C (angstrom) of those to consider. Pairs are judged by how well bond, angles and torsion
    of a bridge can be reached; the best pairs are taken first, and no cysteine twice. No two of `apart` are bridged.
    """
    found: list[tuple[float, Place, Place, Array, Array]] = []
    for first, second in combinations(sorted(cysteines), 2):
        if first in apart and second in apart:
            continue
        if np.linalg.norm(cysteines[first]["CA"] - cysteines[second]["CA"]) < _FARTHEST_ALPHAS:
            strain, one, other = _best_bridge(cysteines[first], cysteines[second])
            if strain < _WORST_STRAIN:
                found.append((strain, first, second, one, other))
    bridged: dict[Place, Array] = {}
    for _, first, second, one, other in sorted(found, key=lambda item: item[:3]):
        if first not in bridged and second not in bridged:
            bridged |= {first: one, second: other}
    return bridged


def _best_bridge(first: Mapping[str, Array], second: Mapping[str, Array]) -> tuple[float, Array, Array]:
    """The least strain over both chi1, and the two side chains (CB, SG) that have it."""
    chi1 = np.arange(-180.0, 180.0, _CHI1_STEP)[:, None]
    one, other = build_side_chain("CYS", first, chi1), build_side_chain("CYS", second, chi1)
    if np.linalg.norm(one[0, 0] - other[0, 0]) > _FARTHEST_BETAS:
        return np.inf, one[0], other[0]
    beta, sulphur = one[:, None, 0], one[:, None, 1]
    far_beta, far_sulphur = other[None, :, 0], other[None, :, 1]
    shape = (len(chi1), len(chi1), 3)
    beta, sulphur, far_beta, far_sulphur = (
        np.broadcast_to(points, shape) for points in (beta, sulphur, far_beta, far_sulphur)
    )
    bond = np.linalg.norm(sulphur - far_sulphur, axis=-1)
    strain = ((bond - BOND) / _BOND_SPREAD) ** 2
    for points in ((beta, sulphur, far_sulphur), (far_beta, far_sulphur, sulphur)):
        strain = strain + ((_angle(*points) - _ANGLE) / _ANGLE_SPREAD) ** 2
    torsion = np.abs(dihedral(beta, sulphur, far_sulphur, far_beta))
    off_rotamer = np.abs((chi1 - _CHI1_CENTRES + 180) % 360 - 180).min(axis=1)
    rare = np.maximum(off_rotamer - _CHI1_SPREAD, 0) / _CHI1_SPREAD
    strain = strain + ((torsion - _TORSION) / _TORSION_SPREAD) ** 2 + rare[:, None] ** 2 + rare[None, :] ** 2
    row, column = np.unravel_index(int(np.argmin(strain)), strain.shape)
    return float(strain[row, column]), one[row], other[column]


def _angle(a: Array, b: Array, c: Array) -> Array:
    """Angles at b in degrees, of points (..., 3)."""
    u, v = a - b, c - b
    cosine = (u * v).sum(-1) / np.maximum(np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1), 1e-9)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
