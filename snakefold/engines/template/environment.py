"""What the surroundings of a template's residues say about an alignment: likely amino acids, and the price of gaps.

A residue's environment is its conformation (coil, helix, strand, or a positive phi, which hardly anything but glycine,
asparagine and aspartate takes) and how deeply it is buried, by the number of CB atoms around its own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from snakefold.engines.template.backbone import Backbone, helices, secondary_structure
from snakefold.engines.template.building import Array
from snakefold.structures.io import PolymerChain

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
CONFORMATIONS = ("coil", "helix", "strand", "positive phi")
BURIAL_EDGES = (11, 17, 22)
"""CB atoms within 10 angstrom of a residue's own at which the next class of burial begins."""

_NEIGHBOUR_DISTANCE = 10.0
# Ideal CB from N, CA and C (as coefficients of CA-N, C-CA and their cross product), glycine's too.
_CB_ON_N, _CB_ON_C, _CB_ACROSS = 0.56802827, -0.54067466, -0.58273431

# Natural-log odds in hundredths. Counted by `bench/alignment.py --propensities` (see there for the structures).
_PROPENSITIES: tuple[tuple[int, ...], ...] = (
    (-19, -152, 70, 42, -130, -78, -9, -124, 36, -108, -59, 43, 89, 19, -3, 59, 15, -112, -141, -76),
    (-29, -32, 41, 16, -67, -69, 21, -81, 22, -53, -33, 38, 63, 31, 27, 32, 27, -41, -112, -34),
    (-12, 32, 4, -81, 41, -54, 37, 15, -46, 16, -3, 11, 37, -45, -13, -1, 11, -7, 40, 42),
    (26, 61, -32, -129, 47, 9, 8, 16, -145, 27, 15, -37, 58, -101, -61, 13, -22, 19, 47, 23),
    (50, -128, 50, 104, -128, -87, -35, -105, 54, -106, -60, -22, 29, 27, 47, -9, -25, -88, -227, -143),
    (21, -125, 28, 76, -97, -118, -10, -63, 71, -30, -18, 8, -72, 69, 55, -8, -27, -79, -99, -93),
    (24, -27, -51, 1, 40, -113, -13, 38, -18, 59, 54, -48, -108, 1, 18, -55, -32, 4, 64, 20),
    (75, 41, -129, -89, 32, -44, -43, 67, -117, 70, 57, -99, -109, -55, -78, -34, -31, 45, 19, -18),
    (-72, -94, 4, 53, -63, -89, 22, -53, 52, -92, -23, 26, 31, 29, 34, 48, 48, -38, -81, -75),
    (-69, -60, -11, 47, -23, -151, 30, -14, 55, -52, -35, -6, -73, 24, 31, 17, 67, 5, -14, -19),
    (-35, 14, -61, -38, 46, -98, 10, 44, -18, 15, -4, -53, -56, -12, 1, -15, 24, 46, 57, 68),
    (15, 95, -93, -151, 63, -60, -66, 72, -147, 52, 48, -108, -102, -90, -112, -55, -37, 86, 54, 56),
    (-107, -152, 13, -58, -189, 201, -58, -211, -33, -182, -161, 84, -228, -10, -95, -63, -144, -203, -114, -133),
    (-124, -82, -1, -94, -118, 195, -2, -199, -18, -134, -81, 76, -196, -77, -9, -52, -188, -154, -65, -74),
    (-80, 0, -44, -120, -59, 186, 56, -117, -58, -88, -81, 56, -148, -37, -71, -57, -108, -112, -60, 6),
    (-30, -20, -53, -99, -59, 202, -74, -138, -48, -100, -31, -75, -138, -68, -51, -82, -98, -113, -50, -24),
)

# Extra price of a gap between two residues, natural-log odds: within a helix, within a strand, and for the core, where
# it rises from nothing at 12 neighbours to its full height at 22.
_HELIX_PRICE, _STRAND_PRICE, _CORE_PRICE = 1.0, 0.5, 0.5
_CORE_FROM, _CORE_SPAN = 12.0, 10.0


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environments of a chain's residues.

    `conformation` (residues,) indexes CONFORMATIONS, -1 without coordinates; `neighbours` (residues,) counts CB atoms
    within 10 angstrom, 0 without coordinates.
    """

    conformation: NDArray[np.int64]
    neighbours: NDArray[np.int64]

    @classmethod
    def of(cls, chain: PolymerChain) -> "Environment":
        """Those of a chain with coordinates."""
        backbone = Backbone.blank(chain.sequence)
        for index, atoms in chain.residues.items():
            if {"N", "CA", "C"} <= set(atoms):
                backbone.atoms[index, :3] = [atoms["N"], atoms["CA"], atoms["C"]]
        known = backbone.modelled
        torsions = backbone.torsions()
        helix = helices(torsions)
        conformation = np.where(helix, 1, np.where(secondary_structure(torsions), 2, 0))
        with np.errstate(invalid="ignore"):
            conformation[(torsions[:, 0] > 0) & ~helix] = 3
        conformation[~known] = -1
        neighbours = np.zeros(len(chain.sequence), dtype=np.int64)
        if known.any():
            betas = _ideal_beta(backbone.atoms[known])
            around = KDTree(betas).query_ball_point(betas, _NEIGHBOUR_DISTANCE, return_length=True)
            # Each finds itself.
            neighbours[known] = np.asarray(around) - 1
        return cls(conformation=conformation, neighbours=neighbours)

    @property
    def classes(self) -> NDArray[np.int64]:
        """(residues,): the row of the table of propensities, -1 without coordinates."""
        row = self.conformation * (len(BURIAL_EDGES) + 1) + np.searchsorted(BURIAL_EDGES, self.neighbours, side="right")
        return np.where(self.conformation >= 0, row, -1)

    def propensities(self) -> Array:
        """(residues, 20): natural-log odds of each amino acid (in the order of AMINO_ACIDS), 0 without coordinates."""
        classes = self.classes
        odds = np.array(_PROPENSITIES, dtype=float)[np.maximum(classes, 0)] / 100
        odds[classes < 0] = 0.0
        return odds

    def gap_prices(self) -> Array:
        """What a gap costs extra, by the number of residues before it: (residues + 1,), natural-log odds."""
        prices = np.zeros(len(self.conformation) + 1)
        before, after = self.conformation[:-1], self.conformation[1:]
        buried = (np.minimum(self.neighbours[:-1], self.neighbours[1:]) - _CORE_FROM) / _CORE_SPAN
        prices[1:-1] = (
            _HELIX_PRICE * ((before == 1) & (after == 1))
            + _STRAND_PRICE * ((before == 2) & (after == 2))
            + _CORE_PRICE * np.clip(buried, 0.0, 1.0)
        )
        return prices


def _ideal_beta(atoms: Array) -> Array:
    """CB positions (residues, 3) from backbones (residues, 4, 3)."""
    to_alpha, to_carbon = atoms[:, 1] - atoms[:, 0], atoms[:, 2] - atoms[:, 1]
    across = np.cross(to_alpha, to_carbon)
    return atoms[:, 1] + _CB_ON_N * to_alpha + _CB_ON_C * to_carbon + _CB_ACROSS * across
