"""Predicted aligned errors as a picture that a page can load: few bins, one byte each."""

import base64
from pathlib import Path
from typing import Any

import numpy as np

from snakefold.files import read_json

BINS = 400
"""Most bins along a side: more than a panel has pixels for it."""


def pae_picture(path: Path) -> dict[str, Any]:
    """The matrix of `pae.json` as `{"length", "bins", "max", "values"}`.

    `length` is the number of residues, `bins` the number of rows and columns, each the mean over equal shares of the
    residues, `max` the error in angstrom that the byte 255 stands for, `values` the bytes row by row in base64.
    Raises OSError, ValueError, KeyError or TypeError if there is no such matrix.
    """
    value = read_json(path)
    source = value[0] if isinstance(value, list) else value
    matrix = np.array(source["predicted_aligned_error"], dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError("the matrix is not square")
    length = len(matrix)
    bins = min(BINS, length)
    edges = np.arange(bins) * length // bins
    sums = np.add.reduceat(np.add.reduceat(matrix, edges, axis=0), edges, axis=1)
    counts = np.diff(np.append(edges, length)).astype(np.float32)
    means = sums / np.outer(counts, counts)
    largest = max(float(source.get("max_predicted_aligned_error") or 0.0), float(matrix.max()), 1.0)
    scaled = np.clip(np.rint(means * (255.0 / largest)), 0, 255).astype(np.uint8)
    return {
        "length": length,
        "bins": bins,
        "max": round(largest, 2),
        "values": base64.b64encode(scaled.tobytes()).decode("ascii"),
    }
