"""A target aligned anew with its template: end to end, profile with profile, and with an eye on the structure.

A search finds local alignments and knows nothing of structures. Here the target's profile meets one of the template,
whose residues' surroundings tell which amino acids they tolerate and where there is room for a gap. Columns are
compared as in J. Soeding, Bioinformatics 21 (2005), 951: the log of the sum over amino acids a of q_a p_a / f_a. The
alignment is that of the most expected right pairs (posterior decoding), which holds further at low identity than the
single most probable one: I. Holmes and R. Durbin, J. Comput. Biol. 5 (1998), 493.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.template.align import Alignment, build_profile
from snakefold.engines.template.building import Array
from snakefold.engines.template.environment import Environment
from snakefold.engines.template.profiles import Profile, Relatives
from snakefold.engines.template.templates import ChainTemplate
from snakefold.structures.io import PolymerChain

# Natural-log odds, chosen among some thirty settings on 165 pairs of 39 families, with no family left out and no
# independent test: what a pair
# is worth in itself (the template was found by its likeness, so that most of it is likely to be homologous), and how
# much the surroundings of the template's residue count beside the profiles.
_PAIR_BONUS = 0.3
_ENVIRONMENT_WEIGHT = 0.5
_LEAST_POSTERIOR = 0.05
_REACH = 60
_MAX_CELLS = 2_000_000
_FEWEST_PAIRS = 15


def realigned(task: FoldTask, templates: Sequence[ChainTemplate]) -> tuple[ChainTemplate, ...]:
    """The templates of the task's chains, each aligned anew with its chain."""
    known: dict[ChainInputs, tuple[Profile, Relatives]] = {}
    profiles: dict[tuple[ChainInputs, str], Profile] = {}
    result: list[ChainTemplate] = []
    for chain, template in zip(task.chains, templates, strict=True):
        if chain not in known:
            known[chain] = Profile.of(build_profile(chain.sequence, chain.msa)), Relatives.read(chain.msa)
        target, relatives = known[chain]
        key = chain, template.chain.sequence
        if key not in profiles:
            profiles[key] = relatives.profile(template.chain.sequence)
        alignment = realign(target, profiles[key], template.chain, template.alignment)
        paired = sum(index in template.chain.residues for index in alignment.template.tolist())
        result.append(replace(template, alignment=alignment) if paired >= _FEWEST_PAIRS else template)
    return tuple(result)


def realign(target: Profile, template: Profile, chain: PolymerChain, known: Alignment) -> Alignment:
    """The alignment of a target with a template chain, from the profiles of both; `known` is the one found before.

    It covers what `known` covers, and up to 60 residues of both sequences on either side, until one of them ends: the
    ends are aligned as far as both go. A gap within a helix, a strand or the core costs extra. Posteriors are those of
    this alignment's own ensemble. `known` comes back where the new one is far less certain, and where there would be
    too much to compute (2,000,000 cells).
    """
    first, top = int(known.target[0]), int(known.template[0])
    back, up = max(first - _REACH, 0), max(top - _REACH, 0)
    end = min(int(known.target[-1]) + 1 + _REACH, len(target.emissions))
    bottom = min(int(known.template[-1]) + 1 + _REACH, len(chain.sequence))
    if (end - back) * (bottom - up) > _MAX_CELLS:
        return known
    environment = Environment.of(chain)
    scores = pair_scores(target, template, environment)[back:end, up:bottom]
    posterior = _posteriors(
        np.ascontiguousarray(scores),
        target.transitions[back : end + 1],
        template.transitions[up : bottom + 1],
        environment.gap_prices()[up : bottom + 1],
    )
    pairs = _most_expected(posterior, _LEAST_POSTERIOR)
    found = Alignment(
        target=pairs[:, 0] + back, template=pairs[:, 1] + up, posterior=posterior[pairs[:, 0], pairs[:, 1]]
    )
    return found if found.posterior.sum() > 0.5 * known.posterior.sum() else known


def pair_scores(target: Profile, template: Profile, environment: Environment) -> Array:
    """Natural-log odds of every pair: (target residues, template residues)."""
    likeness = np.log((target.emissions / target.background) @ template.emissions.T)
    return _PAIR_BONUS + likeness + _ENVIRONMENT_WEIGHT * (target.emissions @ environment.propensities().T)


@numba.njit(cache=True)
def _add(a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    if b < a - 40.0:
        return a
    return a + np.log1p(np.exp(b - a))


@numba.njit(cache=True)
def _posteriors(scores: Array, target: Array, template: Array, price: Array) -> Array:
    """The probability of every pair, (target residues, template residues), over all alignments from end to end.

    Every alignment begins and ends at an end of either sequence. `scores` are log odds of pairs; `target` and
    `template` log transition probabilities, (residues + 1, 7) in HMMER's order (MM MI MD IM II DM DD); `price` is what
    a gap between two residues of the template costs extra (residues + 1,). A target residue without partner is one that
    the template's model inserts or the target's own deletes, and the other way round. The forward and backward
    algorithm of R. Durbin et al., Biological Sequence Analysis (1998), chapter 4; a gap in one may follow a gap in the
    other, because two loops of homologues may share no residue.
    """
    rows, columns = scores.shape
    low = -1e30
    # Ending in a pair, in a target residue alone, in a template residue alone.
    fm = np.full((rows + 1, columns + 1), low)
    ft = np.full((rows + 1, columns + 1), low)
    fs = np.full((rows + 1, columns + 1), low)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            into = 0.0 if i == 1 or j == 1 else low
            into = _add(into, fm[i - 1, j - 1] + target[i - 1, 0] + template[j - 1, 0])
            into = _add(into, ft[i - 1, j - 1] + _add(target[i - 1, 5], template[j - 1, 3]) - price[j - 1])
            into = _add(into, fs[i - 1, j - 1] + _add(template[j - 1, 5], target[i - 1, 3]) - price[j - 1])
            fm[i, j] = into + scores[i - 1, j - 1]
            opened = _add(fm[i - 1, j], fs[i - 1, j]) + _add(target[i - 1, 2], template[j, 1]) - price[j]
            ft[i, j] = _add(opened, ft[i - 1, j] + _add(target[i - 1, 6], template[j, 4]))
            opened = fm[i, j - 1] + _add(template[j - 1, 2], target[i, 1]) - price[j - 1]
            fs[i, j] = _add(opened, fs[i, j - 1] + _add(template[j - 1, 6], target[i, 4]))
    bm = np.full((rows + 2, columns + 2), low)
    bt = np.full((rows + 2, columns + 2), low)
    bs = np.full((rows + 2, columns + 2), low)
    total = low
    for i in range(rows, 0, -1):
        for j in range(columns, 0, -1):
            pair = bm[i + 1, j + 1] + scores[i, j] if i < rows and j < columns else low
            alone = bt[i + 1, j] if i < rows else low
            skipped = bs[i, j + 1] if j < columns else low
            open_target = alone + _add(target[i, 2], template[j, 1]) - price[j]
            open_template = skipped + _add(template[j, 2], target[i, 1]) - price[j]
            out = 0.0 if i == rows or j == columns else low
            bm[i, j] = _add(_add(out, pair + target[i, 0] + template[j, 0]), _add(open_target, open_template))
            bt[i, j] = _add(
                pair + _add(target[i, 5], template[j, 3]) - price[j],
                alone + _add(target[i, 6], template[j, 4]),
            )
            bs[i, j] = _add(
                _add(
                    pair + _add(template[j, 5], target[i, 3]) - price[j],
                    skipped + _add(template[j, 6], target[i, 4]),
                ),
                open_target,
            )
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
