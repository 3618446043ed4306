"""How much an MSA says: rows per column and the effective number of sequences."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

_GAP = ord("-")


def coverage(matrix: npt.NDArray[np.uint8]) -> list[int]:
    """Rows with a residue in each column of `matrix` (rows, length), an array of ASCII letters."""
    return [int(count) for count in (matrix != _GAP).sum(axis=0)]


def effective_sequences(matrix: npt.NDArray[np.uint8], identity: float = 0.8) -> float:
    """Neff: every row counts as 1 / (rows that are at least `identity` identical to it, itself included).

    `matrix` is (rows, length), ASCII letters A-Z and `-`. Identity is measured over the columns in which at least one
    of the two rows has a residue, as AlphaFold does for the depth of an MSA (Jumper et al. 2021, Nature 596:583).
    Rounded to 3 decimals.
    """
    neighbours = _counter()(_bit_planes(matrix), identity)
    return round(float((1.0 / neighbours).sum()), 3)


def _bit_planes(matrix: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Array (rows, words, 6): bit k of word w belongs to column 64 w + k.

    The first five planes hold the bits of the letter's number (1-26, 0 for a gap), the sixth is set for residues. So 64
    columns of two rows are compared with a handful of operations: comparing every pair of 10,000 rows takes a second.
    """
    depth, length = matrix.shape
    words = -(-length // 64)
    numbers = np.zeros((depth, words * 64), dtype=np.uint8)
    numbers[:, :length] = np.where(matrix == _GAP, 0, matrix - (ord("A") - 1))
    planes = np.empty((depth, words, 6), dtype=np.uint64)
    for plane in range(6):
        bits = (numbers >> plane) & 1 if plane < 5 else (numbers > 0).astype(np.uint8)
        planes[:, :, plane] = np.packbits(bits, axis=1, bitorder="little").view("<u8")
    return planes


@cache
def _counter() -> Callable[[npt.NDArray[np.uint64], float], npt.NDArray[np.int64]]:
    """The compiled count of similar rows; compiled on first use, so that importing this module costs nothing."""
    from numba import njit

    ones, twos, fours, sums = (
        np.uint64(0x5555555555555555),
        np.uint64(0x3333333333333333),
        np.uint64(0x0F0F0F0F0F0F0F0F),
        np.uint64(0x0101010101010101),
    )
    one, two, four, top = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)

    def popcount(word: Any) -> Any:
        word = word - ((word >> one) & ones)
        word = (word & twos) + ((word >> two) & twos)
        word = (word + (word >> four)) & fours
        return np.int64((word * sums) >> top)

    count_bits: Any = njit(popcount, inline="always")

    def count_similar(planes: Any, identity: float) -> Any:
        depth, words, _ = planes.shape
        residues = np.zeros(depth, dtype=np.int64)
        for i in range(depth):
            for w in range(words):
                residues[i] += count_bits(planes[i, w, 5])
        similar = np.ones(depth, dtype=np.int64)
        for i in range(depth):
            for j in range(i + 1, depth):
                # At most the residues of the shorter row can agree, and at least those of the longer one count.
                if min(residues[i], residues[j]) < identity * max(residues[i], residues[j]):
                    continue
                # Most pairs differ widely: stop as soon as more columns differ than the largest union allows.
                allowed = (1.0 - identity) * min(64 * words, residues[i] + residues[j])
                different = 0
                union = 0
                for w in range(words):
                    a = planes[i, w]
                    b = planes[j, w]
                    unlike = (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4])
                    different += count_bits(unlike)
                    union += count_bits(a[5] | b[5])
                    if different > allowed + 1:
                        break
                # The tolerance keeps a pair of exactly 80 % from depending on rounding.
                if union - different >= identity * union - 1e-9 and different <= allowed + 1:
                    similar[i] += 1
                    similar[j] += 1
        return similar

    return njit(nogil=True)(count_similar)
