"""A target aligned anew with its template: end to end, and with gaps where the template has room for them.

A search finds local alignments and knows nothing of structures. Here the same profile meets one sequence whose helices
are known. The alignment is that of the most expected right pairs (posterior decoding), which holds further at low
identity than the single most probable one: I. Holmes and R. Durbin, J. Comput. Biol. 5 (1998), 493.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from pyhmmer import plan7

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.template.align import Alignment, build_profile
from snakefold.engines.template.backbone import Backbone, helices
from snakefold.engines.template.building import Array, standard_letter
from snakefold.engines.template.templates import ChainTemplate
from snakefold.structures.io import PolymerChain

# Natural-log odds. Chosen on all pairs of bench/template_engine.py's families, no independent test of it: the globins
# gain 0.003 lDDT-CA over no cost; costs for strands too took 0.002-0.006 from the proteases.
_HELIX_COST = 1.5
_LEAST_POSTERIOR = 0.05
_REACH = 60
_MAX_CELLS = 2_000_000
_FEWEST_PAIRS = 15


def realigned(task: FoldTask, templates: Sequence[ChainTemplate]) -> tuple[ChainTemplate, ...]:
    """The templates of the task's chains, each aligned anew with its chain."""
    profiles: dict[ChainInputs, Any] = {}
    result: list[ChainTemplate] = []
    for chain, template in zip(task.chains, templates, strict=True):
        if chain not in profiles:
            profiles[chain] = build_profile(chain.sequence, chain.msa)
        alignment = realign(profiles[chain], template.chain, template.alignment)
        paired = sum(index in template.chain.residues for index in alignment.template.tolist())
        result.append(replace(template, alignment=alignment) if paired >= _FEWEST_PAIRS else template)
    return tuple(result)


def realign(profile: Any, chain: PolymerChain, known: Alignment) -> Alignment:
    """The alignment of the profile's query with a template chain; `known` is the one found before.

    `profile` is a plan7.HMM, whose type stubs lack its probabilities.

    It covers what `known` covers, and up to 60 residues of both sequences on either side, until one of them ends: the
    ends are aligned as far as both go. A gap that would break a helix costs extra. Posteriors are those of this
    alignment's own ensemble. `known` comes back where the new one is far less
    certain, and where there would be too much to compute (2,000,000 cells).
    """
    first, top = int(known.target[0]), int(known.template[0])
    back, up = max(first - _REACH, 0), max(top - _REACH, 0)
    end = min(int(known.target[-1]) + 1 + _REACH, profile.M)
    bottom = min(int(known.template[-1]) + 1 + _REACH, len(chain.sequence))
    if (end - back) * (bottom - up) > _MAX_CELLS:
        return known
    scores = _log_odds(profile, chain.sequence[up:bottom])[back:end]
    # A transition that the profile has never seen is merely rare.
    probabilities = np.maximum(np.asarray(profile.transition_probabilities, dtype=float), 1e-6)
    posterior = _posteriors(np.ascontiguousarray(scores), np.log(probabilities)[back : end + 1], _costs(chain)[up:])
    pairs = _most_expected(posterior, _LEAST_POSTERIOR)
    found = Alignment(
        target=pairs[:, 0] + back, template=pairs[:, 1] + up, posterior=posterior[pairs[:, 0], pairs[:, 1]]
    )
    return found if found.posterior.sum() > 0.5 * known.posterior.sum() else known


def _log_odds(profile: Any, sequence: str) -> Array:
    """Natural-log odds of each letter at each match state: (states, letters)."""
    symbols = profile.alphabet.symbols[:20]
    background = np.asarray(plan7.Background(profile.alphabet).residue_frequencies, dtype=float)[:20]
    odds = np.log(np.asarray(profile.match_emissions, dtype=float)[1:, :20] / background)
    return odds[:, [symbols.index(standard_letter(letter)) for letter in sequence]]


def _costs(chain: PolymerChain) -> Array:
    """What a gap costs extra, by the number of template residues before it: (residues + 1,), 0 outside helices."""
    backbone = Backbone.blank(chain.sequence)
    for index, atoms in chain.residues.items():
        if {"N", "CA", "C"} <= set(atoms):
            backbone.atoms[index, :3] = [atoms["N"], atoms["CA"], atoms["C"]]
    helix = helices(backbone.torsions())
    costs = np.zeros(len(chain.sequence) + 1)
    costs[1:-1] = _HELIX_COST * (helix[1:] & helix[:-1])
    return costs


@numba.njit(cache=True)
def _add(a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    if b < a - 40.0:
        return a
    return a + np.log1p(np.exp(b - a))


@numba.njit(cache=True)
def _posteriors(scores: Array, t: Array, cost: Array) -> Array:
    """The probability of every pair, (states, residues), over all alignments that begin and end at an end of either.

    `scores` are log odds of pairs, `t` log transition probabilities (states + 1, 7) in HMMER's order (MM MI MD IM II DM
    DD), `cost` what a gap between two residues costs extra (residues + 1,). The forward and backward algorithm of
    R. Durbin et al., Biological Sequence Analysis (1998), chapter 4; unlike HMMER's, a deletion may turn into an
    insertion, because two loops of homologues may share no residue.
    """
    rows, columns = scores.shape
    low = -1e30
    fm = np.full((rows + 1, columns + 1), low)
    fi = np.full((rows + 1, columns + 1), low)
    fd = np.full((rows + 1, columns + 1), low)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            into = 0.0 if i == 1 or j == 1 else low
            into = _add(into, fm[i - 1, j - 1] + t[i - 1, 0])
            into = _add(into, fi[i - 1, j - 1] + t[i - 1, 3] - cost[j - 1])
            into = _add(into, fd[i - 1, j - 1] + t[i - 1, 5])
            fm[i, j] = into + scores[i - 1, j - 1]
            fi[i, j] = _add(_add(fm[i, j - 1], fd[i, j - 1]) + t[i, 1] - cost[j - 1], fi[i, j - 1] + t[i, 4])
            fd[i, j] = _add(fm[i - 1, j] + t[i - 1, 2] - cost[j], fd[i - 1, j] + t[i - 1, 6])
    bm = np.full((rows + 2, columns + 2), low)
    bi = np.full((rows + 2, columns + 2), low)
    bd = np.full((rows + 2, columns + 2), low)
    total = low
    for i in range(rows, 0, -1):
        for j in range(columns, 0, -1):
            out = 0.0 if i == rows or j == columns else low
            match = bm[i + 1, j + 1] + scores[i, j] if i < rows and j < columns else low
            insert = bi[i, j + 1] if j < columns else low
            delete = bd[i + 1, j] if i < rows else low
            out = _add(out, match + t[i, 0])
            out = _add(out, insert + t[i, 1] - cost[j])
            out = _add(out, delete + t[i, 2] - cost[j])
            bm[i, j] = out
            bi[i, j] = _add(match + t[i, 3] - cost[j], insert + t[i, 4])
            bd[i, j] = _add(_add(match + t[i, 5], delete + t[i, 6]), insert + t[i, 1] - cost[j])
            if i == rows or j == columns:
                total = _add(total, fm[i, j])
    posterior = np.empty((rows, columns))
    for i in range(rows):
        for j in range(columns):
            posterior[i, j] = np.exp(fm[i + 1, j + 1] + bm[i + 1, j + 1] - total)
    return posterior


@numba.njit(cache=True)
def _most_expected(posterior: Array, least: float) -> NDArray[np.int64]:
    """The pairs (pairs, 2), both increasing, of the largest sum of posteriors, each less `least`."""
    rows, columns = posterior.shape
    best = np.zeros((rows + 1, columns + 1))
    move = np.zeros((rows + 1, columns + 1), dtype=np.int8)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            value = best[i - 1, j - 1] + posterior[i - 1, j - 1] - least
            step = 0
            if best[i - 1, j] > value:
                value, step = best[i - 1, j], 1
            if best[i, j - 1] > value:
                value, step = best[i, j - 1], 2
            best[i, j] = value
            move[i, j] = step
    pairs = np.empty((min(rows, columns), 2), dtype=np.int64)
    count = 0
    i, j = rows, columns
    while i > 0 and j > 0:
        if move[i, j] == 0:
            pairs[count, 0], pairs[count, 1] = i - 1, j - 1
            count += 1
            i, j = i - 1, j - 1
        elif move[i, j] == 1:
            i -= 1
        else:
            j -= 1
    return pairs[:count][::-1].copy()
