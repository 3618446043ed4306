"""How much an MSA says: rows per column and the effective number of sequences."""

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
    Rounded to 3 decimals. 10,000 rows of 500 columns take a few seconds.
    """
    return round(float((1.0 / _similar_rows(_bit_planes(matrix), identity)).sum()), 3)


def _bit_planes(matrix: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Array (6, words, rows): bit k of word w belongs to column 64 w + k.

    The first five planes hold the bits of the letter's number (1-26, 0 for a gap), the sixth is set for residues. So 64
    columns of two rows are compared with a handful of operations.
    """
    depth, length = matrix.shape
    words = -(-length // 64)
    numbers = np.zeros((depth, words * 64), dtype=np.uint8)
    numbers[:, :length] = np.where(matrix == _GAP, 0, matrix - (ord("A") - 1))
    planes = np.empty((6, words, depth), dtype=np.uint64)
    for plane in range(6):
        bits = (numbers >> plane) & 1 if plane < 5 else (numbers > 0).astype(np.uint8)
        planes[plane] = np.packbits(bits, axis=1, bitorder="little").view("<u8").T
    return planes


def _similar_rows(planes: npt.NDArray[np.uint64], identity: float) -> npt.NDArray[np.int64]:
    """For each row, how many rows (itself included) are at least `identity` identical to it."""
    _, words, depth = planes.shape
    residues = np.bitwise_count(planes[5]).sum(axis=0, dtype=np.int64)
    similar = np.ones(depth, dtype=np.int64)
    for row in range(depth - 1):
        others = np.arange(row + 1, depth)
        rest = planes[:, :, row + 1 :]
        # Columns that differ count in the union, which cannot have more columns than both rows have residues.
        most = residues[row] + residues[row + 1 :]
        allowed = ((1 - identity) * most + 1e-9).astype(np.int64)
        different = np.zeros(len(others), dtype=np.int64)
        shared = np.zeros(len(others), dtype=np.int64)
        for word in range(words):
            one = planes[:, word, row]
            many = rest[:, 0]
            rest = rest[:, 1:]
            unlike = many[0] ^ one[0]
            for plane in range(1, 5):
                unlike |= many[plane] ^ one[plane]
            different += np.bitwise_count(unlike)
            shared += np.bitwise_count(many[5] & one[5])
            # Most pairs differ too much to be similar, and a part of the columns is enough to see it.
            close = different <= allowed
            if 2 * np.count_nonzero(close) < len(close):
                others, most, allowed = others[close], most[close], allowed[close]
                different, shared = different[close], shared[close]
                rest = rest[:, :, close]
            if not len(others):
                break
        union = most - shared
        # The tolerance keeps a pair of exactly 80 % from depending on rounding.
        found = others[union - different >= identity * union - 1e-9]
        similar[row] += len(found)
        similar[found] += 1
    return similar
