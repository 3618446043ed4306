"""The backbone that a target chain takes over from its templates, and where it cannot."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snakefold.engines.template.building import (
    Array,
    carbonyl_oxygen,
    dihedral,
    is_left_handed,
    place,
    standard_letter,
)
from snakefold.engines.template.templates import ChainTemplate
from snakefold.structures.io import PolymerChain
from snakefold.structures.residues import BACKBONE

_PEPTIDE_BOND = (1.0, 1.9)
_SHORTEST_ISLAND = 3
_N_CA_BOND = (1.2, 1.75)
_CA_C_BOND = (1.25, 1.8)


@dataclass(kw_only=True)
class Backbone:
    """The backbone of one target chain while it is being built.

    `sequence` holds standard amino acids only. `atoms` is (residues, 4, 3): N, CA, C, O in angstrom, NaN where a
    residue is not modelled. `source` (residues,) says which of the chain's templates gave a residue its backbone,
    `template_index` (residues,) the index of the residue in that template's sequence: both -1 where it was not copied
    (a gap, a loop that was built anew). `template_letters` holds that template's amino acids, "-" where there is none.
    `posterior` (residues,) is that of the alignment, 0 where there is none.
    """

    sequence: str
    atoms: Array
    source: NDArray[np.int64]
    template_index: NDArray[np.int64]
    template_letters: str
    posterior: Array

    @classmethod
    def blank(cls, sequence: str) -> "Backbone":
        """A backbone of which nothing is modelled yet."""
        count = len(sequence)
        return cls(
            sequence="".join(standard_letter(letter) for letter in sequence),
            atoms=np.full((count, 4, 3), np.nan),
            source=np.full(count, -1, dtype=np.int64),
            template_index=np.full(count, -1, dtype=np.int64),
            template_letters="-" * count,
            posterior=np.zeros(count),
        )

    @property
    def modelled(self) -> NDArray[np.bool_]:
        """(residues,): whether the residue has coordinates."""
        return np.asarray(np.isfinite(self.atoms[:, :3]).all(axis=(1, 2)))

    def clear(self, start: int, end: int) -> None:
        """Forget the coordinates of residues start to end (half-open)."""
        self.atoms[start:end] = np.nan
        self.source[start:end] = -1
        self.template_index[start:end] = -1
        letters = self.template_letters
        self.template_letters = letters[:start] + "-" * len(letters[start:end]) + letters[end:]

    def bonded(self, index: int) -> bool:
        """Whether residue `index` is joined to the next one by a peptide bond."""
        if index < 0 or index + 1 >= len(self.sequence):
            return False
        distance = np.linalg.norm(self.atoms[index + 1, 0] - self.atoms[index, 2])
        return bool(_PEPTIDE_BOND[0] < distance < _PEPTIDE_BOND[1])

    def drop_islands(self) -> None:
        """Forget residues that stand alone or in twos, bonded to nothing else: they show no fold."""
        for start in np.flatnonzero(self.modelled).tolist():
            if self.bonded(start - 1):
                continue
            end = start + 1
            while self.bonded(end - 1):
                end += 1
            if end - start < _SHORTEST_ISLAND:
                self.clear(start, end)

    def torsions(self) -> Array:
        """phi, psi and omega of every residue, (residues, 3) in degrees, NaN where undefined.

        Omega is that of the bond before the residue.
        """
        angles = np.full((len(self.sequence), 3), np.nan)
        n, ca, c = self.atoms[:, 0], self.atoms[:, 1], self.atoms[:, 2]
        joined = np.array([self.bonded(index) for index in range(len(self.sequence) - 1)], dtype=bool)
        with np.errstate(invalid="ignore"):
            phi = dihedral(c[:-1], n[1:], ca[1:], c[1:])
            psi = dihedral(n[:-1], ca[:-1], c[:-1], n[1:])
            omega = dihedral(ca[:-1], c[:-1], n[1:], ca[1:])
        angles[1:, 0] = np.where(joined, phi, np.nan)
        angles[:-1, 1] = np.where(joined, psi, np.nan)
        angles[1:, 2] = np.where(joined, omega, np.nan)
        return angles

    def place_oxygen(self, index: int) -> None:
        """Put the O of residue `index` into the plane of its peptide bond; of a last residue, as in a strand."""
        n, ca, c = self.atoms[index, :3]
        following = self.atoms[index + 1, 0] if self.bonded(index) else place(n, ca, c, 1.329, 116.6, 140.0)
        self.atoms[index, 3] = carbonyl_oxygen(ca, c, following)


def copy_backbone(sequence: str, templates: Sequence[ChainTemplate]) -> Backbone:
    """The templates' backbone at every aligned residue that has one: the main template's, unless another gives it.

    Left out, so that they are built anew, are template residues of the wrong hand or with broken bonds, and cis peptide
    bonds that the target does not follow with a proline (before any other residue, cis is rare and mostly functional).
    """
    backbone = Backbone.blank(sequence)
    letters = ["-"] * len(sequence)
    for number, template in enumerate(templates):
        alignment = template.alignment
        for target, index, posterior in zip(alignment.target, alignment.template, alignment.posterior, strict=True):
            if number > 0 and not any(start <= target < end for start, end in template.gives):
                continue
            atoms = template.chain.residues.get(int(index), {})
            if not {"N", "CA", "C"} <= set(atoms) or not is_left_handed("ALA", atoms) or not _whole(atoms):
                continue
            if _may_be_mirrored(template.chain, int(index)):
                continue
            for column, name in enumerate(BACKBONE):
                backbone.atoms[target, column] = atoms.get(name, np.nan)
            backbone.source[target] = number
            backbone.template_index[target] = index
            letters[target] = template.chain.sequence[index]
            backbone.posterior[target] = posterior
    backbone.template_letters = "".join(letters)
    omega = backbone.torsions()[:, 2]
    for index in np.flatnonzero(np.abs(omega) < 90).tolist():
        if backbone.sequence[index] != "P":
            backbone.clear(index - 1, index + 1)
    for index in np.flatnonzero(backbone.modelled).tolist():
        if not np.isfinite(backbone.atoms[index, 3]).all():
            backbone.place_oxygen(index)
    return backbone


def _may_be_mirrored(chain: PolymerChain, index: int) -> bool:
    """Whether a residue may be a D-amino acid, of which the reader hands on the backbone only.

    It has no CB although it is no glycine, and a positive phi, which is rare in L-amino acids.
    """
    atoms, before = chain.residues[index], chain.residues.get(index - 1, {})
    if "CB" in atoms or chain.sequence[index] == "G" or "C" not in before:
        return False
    return float(dihedral(before["C"], atoms["N"], atoms["CA"], atoms["C"])) > 0


def _whole(atoms: dict[str, Array]) -> bool:
    n_ca = np.linalg.norm(atoms["CA"] - atoms["N"])
    ca_c = np.linalg.norm(atoms["C"] - atoms["CA"])
    return bool(_N_CA_BOND[0] < n_ca < _N_CA_BOND[1] and _CA_C_BOND[0] < ca_c < _CA_C_BOND[1])


def secondary_structure(torsions: Array) -> NDArray[np.bool_]:
    """(residues,): whether each residue lies in a helix or strand, judged by runs of phi and psi.

    `torsions` is (residues, 3) in degrees, as Backbone.torsions gives it.
    Four residues around (-63, -43) make a helix, three in the beta region a strand: enough to keep loops out of them.
    """
    phi, psi = torsions[:, 0], torsions[:, 1]
    with np.errstate(invalid="ignore"):
        strand = (phi > -170) & (phi < -70) & ((psi > 90) | (psi < -170))
    return helices(torsions) | _runs(strand, 3)


def helices(torsions: Array) -> NDArray[np.bool_]:
    """(residues,): whether each residue lies in a helix, judged as by `secondary_structure`."""
    phi, psi = torsions[:, 0], torsions[:, 1]
    with np.errstate(invalid="ignore"):
        return _runs((np.abs(phi + 63) < 35) & (np.abs(psi + 43) < 35), 4)


def _runs(flags: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Keep only the True runs of at least `least` members."""
    kept = np.zeros_like(flags)
    start = 0
    for end in range(1, len(flags) + 1):
        if end == len(flags) or flags[end] != flags[start]:
            if flags[start] and end - start >= least:
                kept[start:end] = True
            start = end
    return kept
