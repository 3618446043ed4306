"""Cyclic coordinate descent: random backbones between two anchors are turned, bond by bond, until they close.

A. A. Canutescu and R. L. Dunbrack, Protein Sci. 12 (2003), 963. The bonds are taken from the last to the first: turning
one moves no bond before it, so that a sweep carries along only the three atoms that are to meet their goal, and the
rest of the loop follows once, at the sweep's end.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from snakefold.engines.template.building import Array

CLOSED = 0.08
"""A misfit (angstrom) with which a loop has closed."""
_SWEEPS = 120
_HOPELESS_SWEEPS, _HOPELESS = 15, 1.0

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
def _sweep(points: Array, goal: Array, fixed: NDArray[np.bool_], turns: Array) -> float:
    """Turn every bond once so that the last three points come nearest to `goal`; the misfit (rmsd, angstrom) left.

    `fixed` says which points no turning bond starts from; `turns` (points, 12) is room for the rotations. The optimal
    angle is equation 11 of Canutescu and Dunbrack (2003), the rotation Rodrigues' formula.
    """
    count = points.shape[0]
    end = np.empty((3, 3))
    for atom in range(3):
        for axis in range(3):
            end[atom, axis] = points[count - 3 + atom, axis]
    for pivot in range(count - 3, -1, -1):
        turns[pivot, 0] = 2.0  # no rotation has such an element: it marks a bond that stays
        if fixed[pivot]:
            continue
        ox, oy, oz = points[pivot, 0], points[pivot, 1], points[pivot, 2]
        kx, ky, kz = points[pivot + 1, 0] - ox, points[pivot + 1, 1] - oy, points[pivot + 1, 2] - oz
        norm = np.sqrt(kx * kx + ky * ky + kz * kz)
        kx, ky, kz = kx / norm, ky / norm, kz / norm
        first = max(pivot + 2 - (count - 3), 0)
        sine, cosine = 0.0, 0.0
        for atom in range(first, 3):
            x, y, z = end[atom, 0] - ox, end[atom, 1] - oy, end[atom, 2] - oz
            u, v, w = goal[atom, 0] - ox, goal[atom, 1] - oy, goal[atom, 2] - oz
            along = kx * x + ky * y + kz * z
            # The goal's own part along the axis drops out of both sums.
            x, y, z = x - along * kx, y - along * ky, z - along * kz
            cosine += x * u + y * v + z * w
            sine += (ky * z - kz * y) * u + (kz * x - kx * z) * v + (kx * y - ky * x) * w
        norm = np.sqrt(sine * sine + cosine * cosine)
        if norm < 1e-12:
            continue
        s, c = sine / norm, cosine / norm
        d = 1 - c
        r0, r1, r2 = c + kx * kx * d, kx * ky * d - kz * s, kx * kz * d + ky * s
        r3, r4, r5 = ky * kx * d + kz * s, c + ky * ky * d, ky * kz * d - kx * s
        r6, r7, r8 = kz * kx * d - ky * s, kz * ky * d + kx * s, c + kz * kz * d
        tx = ox - (r0 * ox + r1 * oy + r2 * oz)
        ty = oy - (r3 * ox + r4 * oy + r5 * oz)
        tz = oz - (r6 * ox + r7 * oy + r8 * oz)
        for atom in range(first, 3):
            x, y, z = end[atom, 0], end[atom, 1], end[atom, 2]
            end[atom, 0] = r0 * x + r1 * y + r2 * z + tx
            end[atom, 1] = r3 * x + r4 * y + r5 * z + ty
            end[atom, 2] = r6 * x + r7 * y + r8 * z + tz
        turns[pivot, 0], turns[pivot, 1], turns[pivot, 2] = r0, r1, r2
        turns[pivot, 3], turns[pivot, 4], turns[pivot, 5] = r3, r4, r5
        turns[pivot, 6], turns[pivot, 7], turns[pivot, 8] = r6, r7, r8
        turns[pivot, 9], turns[pivot, 10], turns[pivot, 11] = tx, ty, tz
    # A point takes part in the rotations of all bonds before it, the nearest first: they are multiplied up in order.
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0
    sx, sy, sz = 0.0, 0.0, 0.0
    for pivot in range(count - 2):
        if turns[pivot, 0] < 2.0:
            r0, r1, r2 = turns[pivot, 0], turns[pivot, 1], turns[pivot, 2]
            r3, r4, r5 = turns[pivot, 3], turns[pivot, 4], turns[pivot, 5]
            r6, r7, r8 = turns[pivot, 6], turns[pivot, 7], turns[pivot, 8]
            tx, ty, tz = turns[pivot, 9], turns[pivot, 10], turns[pivot, 11]
            sx, sy, sz = (
                a0 * tx + a1 * ty + a2 * tz + sx,
                a3 * tx + a4 * ty + a5 * tz + sy,
                a6 * tx + a7 * ty + a8 * tz + sz,
            )
            a0, a1, a2, a3, a4, a5, a6, a7, a8 = (
                a0 * r0 + a1 * r3 + a2 * r6, a0 * r1 + a1 * r4 + a2 * r7, a0 * r2 + a1 * r5 + a2 * r8,
                a3 * r0 + a4 * r3 + a5 * r6, a3 * r1 + a4 * r4 + a5 * r7, a3 * r2 + a4 * r5 + a5 * r8,
                a6 * r0 + a7 * r3 + a8 * r6, a6 * r1 + a7 * r4 + a8 * r7, a6 * r2 + a7 * r5 + a8 * r8,
            )  # fmt: skip
        x, y, z = points[pivot + 2, 0], points[pivot + 2, 1], points[pivot + 2, 2]
        points[pivot + 2, 0] = a0 * x + a1 * y + a2 * z + sx
        points[pivot + 2, 1] = a3 * x + a4 * y + a5 * z + sy
        points[pivot + 2, 2] = a6 * x + a7 * y + a8 * z + sz
    squared = 0.0
    for atom in range(3):
        for axis in range(3):
            squared += (points[count - 3 + atom, axis] - goal[atom, axis]) ** 2
    return np.sqrt(squared / 3)


@numba.njit(cache=True)
def close_batch(
    before: Array, after: Array, phi: Array, psi: Array, omega: Array, is_proline: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Close every sample: loops (samples, size, 3, 3) of N, CA, C, and their misfits (samples,) in angstrom.

    `before` and `after` (3, 3) are N, CA and C of the anchors; the misfit is that of the second. Samples start from phi
    and omega of the loop and its second anchor and psi of its first anchor and the loop, (samples, size + 1) in degrees
    (omega: (size + 1,)). `is_proline` (size + 1,): whose phi stays, held by the ring.
    """
    samples, size = phi.shape[0], phi.shape[1] - 1
    loops = np.empty((samples, size, 3, 3))
    misfits = np.empty(samples)
    points = np.empty((3 * (size + 2), 3))
    turns = np.empty((3 * (size + 2), 12))
    points[:3] = before
    fixed = np.zeros(3 * (size + 2), dtype=np.bool_)
    fixed[0] = True
    for residue in range(size + 2):
        fixed[3 * residue + 2] = True  # peptide bonds
        if residue > 0 and is_proline[residue - 1]:
            fixed[3 * residue] = True
    radian = np.pi / 180
    for sample in range(samples):
        # Bond lengths and angles of the backbone: Engh and Huber (2001).
        for residue in range(1, size + 2):
            at = 3 * residue
            _extend(points, at, 1.334, 117.0 * radian, psi[sample, residue - 1] * radian)
            _extend(points, at + 1, 1.459, 121.8 * radian, omega[residue - 1] * radian)
            _extend(points, at + 2, 1.525, 111.0 * radian, phi[sample, residue - 1] * radian)
        misfit = 1e9
        for sweep in range(_SWEEPS):
            previous = misfit
            misfit = _sweep(points, after, fixed, turns)
            # Stop where it has closed, where it no longer moves, and where it plainly never will.
            if (
                misfit < CLOSED
                or previous - misfit < 1e-3 * misfit
                or (sweep >= _HOPELESS_SWEEPS and misfit > _HOPELESS)
            ):
                break
        misfits[sample] = misfit
        for residue in range(size):
            for atom in range(3):
                for axis in range(3):
                    loops[sample, residue, atom, axis] = points[3 * (residue + 1) + atom, axis]
    return loops, misfits
