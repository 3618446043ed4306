"""Cyclic coordinate descent: random backbones between two anchors are turned, bond by bond, until they close.

A. A. Canutescu and R. L. Dunbrack, Protein Sci. 12 (2003), 963. Sweeps go from the first bond to the last. Backward
sweeps, in which only the three atoms at the end need to be carried along, are four times as fast, but strain the
torsions: half again as many Ramachandran outliers (bench/loops.py, bench/template_engine.py).
"""

import numba
import numpy as np

from snakefold.engines.template.building import Array

CLOSED = 0.08
"""A misfit (angstrom) with which a loop has closed."""
_SWEEPS = 120

# The kernels work on plain floats: array expressions would allocate at every step, which costs ten times as much.


@numba.njit(cache=True)
def _extend(points: Array, at: int, length: float, angle: float, torsion: float) -> None:
    """Place points[at] from the three points before it by NeRF (as building.place), angles in radians."""
    ax = points[at - 1, 0] - points[at - 2, 0]
    ay = points[at - 1, 1] - points[at - 2, 1]
    az = points[at - 1, 2] - points[at - 2, 2]
    norm = np.sqrt(ax * ax + ay * ay + az * az)
    ax, ay, az = ax / norm, ay / norm, az / norm
    bx = points[at - 2, 0] - points[at - 3, 0]
    by = points[at - 2, 1] - points[at - 3, 1]
    bz = points[at - 2, 2] - points[at - 3, 2]
    nx, ny, nz = by * az - bz * ay, bz * ax - bx * az, bx * ay - by * ax
    norm = np.sqrt(nx * nx + ny * ny + nz * nz)
    nx, ny, nz = nx / norm, ny / norm, nz / norm
    mx, my, mz = ny * az - nz * ay, nz * ax - nx * az, nx * ay - ny * ax
    along = -length * np.cos(angle)
    across = length * np.sin(angle) * np.cos(torsion)
    up = length * np.sin(angle) * np.sin(torsion)
    points[at, 0] = points[at - 1, 0] + along * ax + across * mx + up * nx
    points[at, 1] = points[at - 1, 1] + along * ay + across * my + up * ny
    points[at, 2] = points[at - 1, 2] + along * az + across * mz + up * nz


@numba.njit(cache=True)
def _turn_to_goal(points: Array, goal: Array, pivot: int) -> None:
    """Rotate all points after pivot + 1 about the axis pivot -> pivot + 1, so that the last three come closest to goal.

    The optimal angle is equation 11 of Canutescu and Dunbrack (2003), the rotation Rodrigues' formula.
    """
    count = points.shape[0]
    ox, oy, oz = points[pivot, 0], points[pivot, 1], points[pivot, 2]
    kx, ky, kz = points[pivot + 1, 0] - ox, points[pivot + 1, 1] - oy, points[pivot + 1, 2] - oz
    norm = np.sqrt(kx * kx + ky * ky + kz * kz)
    kx, ky, kz = kx / norm, ky / norm, kz / norm
    sine, cosine = 0.0, 0.0
    for atom in range(3):
        x, y, z = points[count - 3 + atom, 0] - ox, points[count - 3 + atom, 1] - oy, points[count - 3 + atom, 2] - oz
        u, v, w = goal[atom, 0] - ox, goal[atom, 1] - oy, goal[atom, 2] - oz
        along = kx * x + ky * y + kz * z
        # The goal's own part along the axis drops out of both sums.
        x, y, z = x - along * kx, y - along * ky, z - along * kz
        cosine += x * u + y * v + z * w
        sine += (ky * z - kz * y) * u + (kz * x - kx * z) * v + (kx * y - ky * x) * w
    norm = np.sqrt(sine * sine + cosine * cosine)
    if norm < 1e-12:
        return
    sine, cosine = sine / norm, cosine / norm
    for index in range(pivot + 2, count):
        x, y, z = points[index, 0] - ox, points[index, 1] - oy, points[index, 2] - oz
        along = (kx * x + ky * y + kz * z) * (1 - cosine)
        points[index, 0] = ox + x * cosine + (ky * z - kz * y) * sine + kx * along
        points[index, 1] = oy + y * cosine + (kz * x - kx * z) * sine + ky * along
        points[index, 2] = oz + z * cosine + (kx * y - ky * x) * sine + kz * along


@numba.njit(cache=True)
def _descend(points: Array, goal: Array, phi: Array, psi: Array, omega: Array, is_proline: Array) -> float:
    """Fill `points` (3 * (size + 2), 3) beyond the first anchor, close the loop; the misfit (rmsd, angstrom).

    `points` holds N, CA, C of the anchor before, of the loop, and of a copy of the anchor after that is to meet `goal`.
    """
    size = len(phi) - 1
    radian = np.pi / 180
    # Bond lengths and angles of the backbone: Engh and Huber (2001).
    for residue in range(1, size + 2):
        at = 3 * residue
        _extend(points, at, 1.334, 117.0 * radian, psi[residue - 1] * radian)
        _extend(points, at + 1, 1.459, 121.8 * radian, omega[residue - 1] * radian)
        _extend(points, at + 2, 1.525, 111.0 * radian, phi[residue - 1] * radian)
    misfit = 1e9
    for sweep in range(_SWEEPS):
        for residue in range(size + 2):
            # Proline's phi is held by its ring.
            if residue > 0 and not is_proline[residue - 1]:
                _turn_to_goal(points, goal, 3 * residue)
            if residue <= size:
                _turn_to_goal(points, goal, 3 * residue + 1)
        squared = 0.0
        for atom in range(3):
            for axis in range(3):
                squared += (points[3 * (size + 1) + atom, axis] - goal[atom, axis]) ** 2
        previous = misfit
        misfit = np.sqrt(squared / 3)
        # Stop where it has closed, where it no longer moves, and where it plainly never will.
        if misfit < CLOSED or previous - misfit < 1e-3 * misfit or (sweep >= 20 and misfit > 1.0):
            break
    return misfit


@numba.njit(cache=True)
def close_batch(
    before: Array, after: Array, phi: Array, psi: Array, omega: Array, is_proline: Array
) -> tuple[Array, Array]:
    """Close every sample: loops (samples, size, 3, 3) without the anchors, and their misfits (samples,) in angstrom."""
    samples, size = phi.shape[0], phi.shape[1] - 1
    loops = np.empty((samples, size, 3, 3))
    misfits = np.empty(samples)
    points = np.empty((3 * (size + 2), 3))
    points[:3] = before
    for sample in range(samples):
        misfits[sample] = _descend(points, after, phi[sample], psi[sample], omega, is_proline)
        for residue in range(size):
            for atom in range(3):
                for axis in range(3):
                    loops[sample, residue, atom, axis] = points[3 * (residue + 1) + atom, axis]
    return loops, misfits
