"""Estimated lDDT: how far to trust each residue of a comparative model, without knowing the true structure."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import KDTree

from snakefold.engines.template.backbone import Backbone
from snakefold.engines.template.building import Array
from snakefold.engines.template.templates import ChainTemplate

KIND = "estimated lDDT"

FEATURES = ("constant", "posterior", "local identity", "identity", "support", "burial", "built", "inside built")

# Weights of FEATURES in the logit of lDDT-CA, fitted by `bench/template_engine.py --fit` to 38 models of lysozymes,
# proteases and globins at 13-60 % identity, each family weighing the same. Fitted without one family, they tell the
# lDDT of that family's residues with a correlation of 0.74, 0.60 and 0.66 and mean errors of 0.07, 0.08 and 0.10.
# Only the weights were fitted that way: how built residues are treated was chosen with all three families in view.
_WEIGHTS = np.array([-1.24, 0.48, 1.37, 2.99, 0.21, 0.72, 0.47, -1.01])

_TOO_FAR = 50.0
_WINDOW = 5
_FARTHEST = 8
_BURIAL_RADIUS = 10.0
_BURIED_NEIGHBOURS = 20.0
_IDENTITY_OF_BUILT = 0.5


def features(backbone: Backbone, templates: Sequence[ChainTemplate], surroundings: Array) -> Array:  # noqa: ARG001
    """What is known of each residue: (residues, FEATURES), rows of NaN where nothing is modelled.

    posterior: of the aligned pair, 0 where the backbone was built. local identity: the fraction of equal pairs among
    residues up to 5 away, 0 where built. identity: of the whole alignment; at most 0.5 where built, because however
    near the template is, it says nothing of a loop that it lacks. support: distance along the chain to the nearest
    built or missing residue, 1 at 8 and beyond. burial: CA atoms of the whole model (`surroundings`, (atoms, 3)) within
    10 A, 1 at 20 and beyond. built: 1 where the backbone is not the template's. inside built: distance into such a
    stretch, 1 at 8 and beyond.
    """
    count = len(backbone.sequence)
    copied = backbone.template_index >= 0
    equal = np.array([a == b for a, b in zip(backbone.sequence, backbone.template_letters, strict=True)])
    window = np.ones(2 * _WINDOW + 1)
    aligned = np.convolve(copied, window, mode="same")
    local = np.convolve(equal, window, mode="same") / np.maximum(aligned, 1)
    identity = equal.sum() / max(int(copied.sum()), 1)
    modelled = backbone.modelled
    within = KDTree(surroundings).query_ball_point(backbone.atoms[modelled, 1], _BURIAL_RADIUS, return_length=True)
    burial = np.zeros(count)
    burial[modelled] = np.minimum((np.asarray(within) - 1) / _BURIED_NEIGHBOURS, 1)
    found = np.stack(
        [
            np.ones(count),
            np.where(copied, backbone.posterior, 0.0),
            np.where(copied, local, 0.0),
            np.where(copied, identity, min(identity, _IDENTITY_OF_BUILT)),
            np.minimum(_distance_to(~copied), _FARTHEST) / _FARTHEST,
            burial,
            (~copied).astype(float),
            np.minimum(_distance_to(copied), _FARTHEST) / _FARTHEST,
        ],
        axis=1,
    )
    found[~modelled] = np.nan
    return found


def _distance_to(flags: np.ndarray) -> Array:
    """(residues,): steps along the chain to the nearest True, 0 on it; beyond either end counts as True."""
    count = len(flags)
    places = np.concatenate([[-1], np.flatnonzero(flags), [count]])
    return np.abs(np.arange(count)[:, None] - places).min(axis=1).astype(float)


def too_far(confidence: Sequence[Sequence[float | None]]) -> bool:
    """Whether the templates are too distant to believe the fold: a mean estimate below 50, over all chains.

    `confidence` is as `estimated_lddt` gives it; residues that are not modelled do not count.
    """
    values = [value for chain in confidence for value in chain if value is not None]
    return not values or float(np.mean(values)) < _TOO_FAR


def estimated_lddt(
    backbones: Sequence[Backbone], templates: Sequence[Sequence[ChainTemplate]]
) -> list[list[float | None]]:
    """Estimated lDDT, 0-100, of every residue by chain; None where a residue is not modelled."""
    surroundings = np.concatenate([backbone.atoms[backbone.modelled, 1] for backbone in backbones])
    result: list[list[float | None]] = []
    for backbone, of_chain in zip(backbones, templates, strict=True):
        logits = features(backbone, of_chain, surroundings) @ _WEIGHTS
        values = 100 / (1 + np.exp(-logits))
        result.append([round(float(value), 2) if np.isfinite(value) else None for value in values])
    return result
