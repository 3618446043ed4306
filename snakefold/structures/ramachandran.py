"""Regions of the Ramachandran plot for six classes of residue.

The classes and thresholds are MolProbity's: favoured holds 98 % of the well-ordered residues of known structures;
outliers are the last 0.05 % (general), 0.2 % (cis-proline) or 0.1 % (the others). The contours are published by Lovell
et al. (2003) Proteins 50, 437-450, and, from the Top8000 set, by Williams et al. (2018) Protein Sci. 27, 293-315. Their
grids (Richardson laboratory, CC BY 4.0) are megabytes, so the outlines below were drawn by hand along their contours.
They sort 94 % (glycine) to 99 % (proline) of the plot's area as the grids do and differ by a few degrees along borders:
counts of one model can be off by a residue or two. It tells a sound backbone from a bad one, no more.
"""

from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import Literal

import numpy as np

ResidueClass = Literal["general", "glycine", "isoleucine-valine", "pre-proline", "trans-proline", "cis-proline"]


class Region(Enum):
    """Where a residue lies in the plot of its class."""

    FAVOURED = "favoured"
    ALLOWED = "allowed"
    OUTLIER = "outlier"


def region(residue_class: ResidueClass, phi: float, psi: float) -> Region:
    """Region of a residue from its phi and psi (degrees, any turn)."""
    favoured, allowed = outlines(residue_class)
    # Outlines that cross psi = 180 are drawn beyond it, so a point is looked for one turn up and down as well.
    phi = (phi + 180) % 360 - 180
    psi = (psi + 180) % 360 - 180
    places = [(phi, psi + turn) for turn in (0, 360, -360)]
    if any(_inside(outline, *place) for outline in favoured for place in places):
        return Region.FAVOURED
    if any(_inside(outline, *place) for outline in allowed for place in places):
        return Region.ALLOWED
    return Region.OUTLIER


def _inside(outline: np.ndarray, phi: float, psi: float) -> bool:
    """Even-odd rule: a ray from the point to the right crosses the outline an odd number of times."""
    phis, psis = outline.T
    next_phis, next_psis = np.roll(phis, -1), np.roll(psis, -1)
    spans = (psis > psi) != (next_psis > psi)
    rise = np.where(spans, next_psis - psis, 1.0)
    crossing = phis + (psi - psis) * (next_phis - phis) / rise
    return bool(np.count_nonzero(spans & (phi < crossing)) % 2)


@cache
def outlines(residue_class: ResidueClass) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Outlines of the favoured and of the allowed regions: (phi, psi) in degrees, shape (points, 2), not closed.

    Those that cross psi = 180 go on beyond it.
    """
    favoured, allowed = (
        tuple(np.array(outline, dtype=float) for outline in outlines) for outlines in _OUTLINES[residue_class]
    )
    if residue_class == "glycine":
        # Glycine has no side chain, hence no hand: its plot is symmetric about the origin.
        favoured += tuple(-outline for outline in favoured)
        allowed += tuple(-outline for outline in allowed)
    return favoured, allowed


_Outlines = Sequence[Sequence[tuple[float, float]]]

_OUTLINES: dict[ResidueClass, tuple[_Outlines, _Outlines]] = {
    "general": (
        (
            [
                (-167, 187), (-176, 175), (-171, 157), (-163, 127), (-159, 112), (-153, 102), (-137, 90), (-97, 82),
                (-89, 52), (-79, 52), (-72, 70), (-70, 98), (-60, 112), (-46, 124), (-46, 141), (-52, 157), (-65, 177),
                (-78, 190), (-120, 193),
            ],
            [
                (-135, 45), (-112, 45), (-98, 32), (-76, 8), (-61, -8), (-46, -28), (-37, -42), (-34, -56), (-50, -62),
                (-105, -58), (-119, -42), (-130, -20), (-140, 7), (-138, 25),
            ],
            [(44, 61), (55, 62), (65, 54), (74, 33), (79, 14), (83, -8), (77, -9), (64, 7), (52, 30), (44, 50)],
        ),
        (
            [
                (-180, -180), (-180, -164), (-172, -150), (-158, -138), (-150, -124), (-152, -90), (-160, -75),
                (-160, 30), (-166, 65), (-176, 105), (-180, 112), (-180, 180), (-56, 180), (-48, 165), (-42, 145),
                (-33, 126), (-26, 115), (-50, 106), (-62, 92), (-65, 50), (-69, 30), (-62, 5), (-49, -17), (-33, -40),
                (-25, -52), (-25, -68), (-58, -74), (-77, -88), (-86, -100), (-88, -130), (-82, -152), (-70, -165),
                (-64, -180),
            ],
            [(170, 180), (172, 150), (176, 125), (180, 112), (180, 192), (174, 190)],
            [
                (30, 70), (29, 52), (40, 35), (48, 15), (50, 0), (60, -12), (64, -30), (67, -70), (85, -82), (95, -60),
                (92, -32), (99, -8), (91, 10), (86, 25), (79, 45), (78, 62), (80, 90), (82, 120), (72, 120), (62, 90),
                (44, 82),
            ],
            [
                (45, 262), (66, 262), (74, 245), (73, 230), (80, 210), (76, 195), (85, 180), (86, 165), (80, 145),
                (62, 145), (58, 160), (60, 180), (52, 195), (46, 215), (32, 235),
            ],
        ),
    ),
    "glycine": (
        (
            [
                (-180, 180), (-180, 133), (-154, 132), (-130, 115), (-105, 100), (-78, 100), (-50, 115), (-42, 135),
                (-45, 150), (-58, 180), (-66, 185), (-80, 215), (-84, 240), (-92, 260), (-104, 274), (-112, 272),
                (-117, 245), (-133, 229), (-180, 229),
            ],
            [
                (-92, 72), (-70, 72), (-74, 45), (-78, 30), (-68, 5), (-60, -10), (-48, -30), (-38, -48), (-40, -62),
                (-50, -71), (-74, -71), (-95, -50), (-120, -32), (-145, -5), (-147, 33), (-100, 40),
            ],
        ),
        (
            [
                (-180, -180), (-180, -96), (-146, -92), (-128, -75), (-126, -50), (-145, -30), (-160, -8), (-165, 20),
                (-170, 45), (-165, 75), (-160, 95), (-180, 98), (-180, 180), (-54, 180), (-45, 155), (-32, 135),
                (-28, 118), (-50, 100), (-64, 88), (-62, 60), (-65, 30), (-58, 0), (-48, -20), (-35, -40), (-28, -55),
                (-32, -70), (-50, -82), (-72, -90), (-70, -115), (-64, -150), (-58, -180),
            ],
        ),
    ),
    "isoleucine-valine": (
        (
            [
                (-128, 180), (-108, 178), (-72, 166), (-54, 150), (-45, 132), (-45, 122), (-62, 114), (-72, 100),
                (-80, 86), (-98, 87), (-136, 104), (-146, 114), (-156, 136), (-168, 150), (-160, 165),
            ],
            [
                (-125, 34), (-116, 34), (-98, 22), (-78, 2), (-60, -10), (-49, -28), (-43, -45), (-46, -58), (-70, -63),
                (-112, -60), (-123, -48), (-118, -30), (-132, -10), (-132, 10),
            ],
        ),
        (
            [
                (-176, 171), (-180, 155), (-174, 131), (-160, 111), (-152, 91), (-146, 70), (-148, 40), (-151, 25),
                (-147, 5), (-148, -50), (-144, -70), (-126, -90), (-105, -94), (-92, -86), (-48, -70), (-33, -52),
                (-40, -29), (-52, -9), (-66, 11), (-86, 30), (-88, 52), (-70, 68), (-66, 91), (-50, 108), (-34, 128),
                (-36, 140), (-44, 155), (-54, 171), (-80, 190), (-95, 200), (-135, 200), (-160, 188),
            ],
            [(28, 55), (30, 45), (40, 30), (55, 24), (66, 32), (72, 50), (60, 73), (48, 73), (36, 66)],
            [(62, -40), (80, -40), (86, -50), (80, -72), (64, -72)],
        ),
    ),
    "pre-proline": (
        (
            [
                (-160, 186), (-174, 171), (-176, 155), (-166, 131), (-156, 111), (-160, 91), (-164, 70), (-145, 47),
                (-122, 46), (-112, 72), (-104, 92), (-54, 110), (-40, 128), (-45, 145), (-60, 170), (-74, 183),
                (-110, 180),
            ],
            [(-68, -26), (-52, -26), (-34, -48), (-38, -60), (-60, -66), (-80, -50), (-78, -40)],
            [(38, 52), (44, 46), (60, 47), (66, 55), (60, 72), (46, 72), (38, 62)],
        ),
        (
            [
                (-180, 196), (-180, 60), (-172, 50), (-145, 28), (-118, 24), (-106, 45), (-100, 75), (-80, 92),
                (-22, 106), (-19, 116), (-26, 135), (-38, 155), (-50, 173), (-64, 188), (-80, 196),
            ],
            [
                (-114, 2), (-62, 2), (-50, -12), (-38, -29), (-23, -48), (-27, -68), (-45, -76), (-85, -74),
                (-108, -52), (-117, -28),
            ],
            [(14, 82), (12, 70), (24, 48), (46, 28), (62, 28), (82, 50), (86, 72), (80, 86), (40, 84)],
            [(66, 184), (62, 160), (62, 146), (84, 146), (86, 152), (78, 175)],
            [(168, 186), (168, 145), (174, 125), (177, 70), (180, 60), (180, 196)],
        ),
    ),
    "trans-proline": (
        (
            [
                (-88, 182), (-96, 165), (-92, 140), (-86, 120), (-78, 106), (-68, 106), (-50, 118), (-40, 130),
                (-44, 148), (-54, 166), (-66, 182),
            ],
            [(-88, 80), (-72, 80), (-70, 65), (-76, 48), (-88, 48), (-91, 65)],
            [(-94, 13), (-78, 14), (-58, -5), (-42, -28), (-36, -48), (-42, -56), (-66, -54), (-80, -32), (-95, -8)],
        ),
        (
            [
                (-102, 194), (-109, 170), (-108, 150), (-99, 115), (-96, 92), (-99, 65), (-99, 40), (-110, 15),
                (-108, -8), (-94, -29), (-80, -49), (-62, -62), (-34, -62), (-26, -50), (-37, -29), (-48, -9),
                (-64, 12), (-67, 35), (-61, 55), (-61, 95), (-36, 112), (-31, 128), (-38, 150), (-48, 168),
                (-62, 190), (-75, 198),
            ],
        ),
    ),
    "cis-proline": (
        (
            [
                (-100, 190), (-112, 172), (-104, 150), (-100, 128), (-85, 110), (-76, 110), (-54, 128), (-43, 146),
                (-48, 165), (-62, 190), (-78, 202),
            ],
            [(-108, 40), (-90, 40), (-78, 30), (-68, 8), (-58, -12), (-60, -32), (-88, -34), (-110, -12), (-116, 12)],
        ),
        (
            [
                (-112, 192), (-124, 174), (-116, 150), (-112, 128), (-106, 110), (-96, 103), (-64, 103), (-46, 118),
                (-36, 140), (-36, 155), (-46, 178), (-58, 200), (-66, 212), (-94, 213),
            ],
            [
                (-118, 57), (-96, 64), (-82, 60), (-70, 31), (-60, 11), (-50, -10), (-48, -30), (-64, -52), (-86, -52),
                (-106, -31), (-120, -10), (-128, 12), (-124, 40),
            ],
        ),
    ),
}  # fmt: skip
