"""Small structures made in the tests: peptides from torsions, rigid motions, chains as models."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from snakefold.engines.base import FoldTask
from snakefold.engines.template.templates import ChainTemplate, hits_of_task, select_templates
from snakefold.structures.io import ModelChain, PolymerChain

MINI = Path(__file__).parents[2] / "data" / "mini"

HELIX = (-60.0, -45.0)
STRAND = (-120.0, 130.0)


def place(first: np.ndarray, second: np.ndarray, third: np.ndarray, length: float, angle: float, torsion: float):
    """The position bonded to `third` at a length (angstrom), angle and torsion (degrees) seen from the three."""
    theta, phi = np.radians(angle), np.radians(torsion)
    axis = (third - second) / np.linalg.norm(third - second)
    normal = np.cross(second - first, axis)
    normal /= np.linalg.norm(normal)
    frame = np.stack([axis, np.cross(normal, axis), normal], axis=1)
    local = length * np.array([-np.cos(theta), np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)])
    return third + frame @ local


def peptide(
    sequence: str, torsions: Sequence[tuple[float, float]], omegas: Mapping[int, float] | None = None
) -> dict[int, dict[str, np.ndarray]]:
    """Backbone and CB of a peptide of ideal geometry (Engh & Huber 1991) from phi and psi of each residue.

    `omegas` maps a residue to the omega before it (180 degrees unless given).
    """
    residues: dict[int, dict[str, np.ndarray]] = {}
    n = np.array([0.0, 0.0, 0.0])
    ca = np.array([1.458, 0.0, 0.0])
    c = place(np.array([-0.5, -1.2, 0.3]), n, ca, 1.525, 111.0, torsions[0][0])
    for index, letter in enumerate(sequence):
        if index:
            omega = (omegas or {}).get(index, 180.0)
            before = residues[index - 1]
            n = place(before["N"], before["CA"], before["C"], 1.329, 116.9, torsions[index - 1][1])
            ca = place(before["CA"], before["C"], n, 1.458, 121.7, omega)
            c = place(before["C"], n, ca, 1.525, 111.0, torsions[index][0])
        residues[index] = {"N": n, "CA": ca, "C": c}
        residues[index]["O"] = place(n, ca, c, 1.229, 120.5, torsions[index][1] + 180)
        if letter != "G":
            residues[index]["CB"] = place(c, n, ca, 1.53, 110.4, -122.6)
    return residues


def model(chain: PolymerChain | Mapping[int, Mapping[str, np.ndarray]], sequence: str | None = None) -> ModelChain:
    """A chain as a model without confidence."""
    if isinstance(chain, PolymerChain):
        sequence, residues = chain.sequence, chain.residues
    else:
        residues = chain
    assert sequence is not None
    return ModelChain(sequence=sequence, atoms=residues, confidence=[None] * len(sequence))


def moved(chain: ModelChain, rotation: np.ndarray, shift: np.ndarray) -> ModelChain:
    """The chain after a rigid motion."""
    atoms = {
        index: {name: rotation @ xyz + shift for name, xyz in residue.items()} for index, residue in chain.atoms.items()
    }
    return ModelChain(sequence=chain.sequence, atoms=atoms, confidence=chain.confidence)


def rotation(seed: int) -> np.ndarray:
    """A rotation drawn from a seed, shape (3, 3)."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


def chosen_templates(task: FoldTask) -> tuple[ChainTemplate, ...]:
    return select_templates(task, hits_of_task(task))
