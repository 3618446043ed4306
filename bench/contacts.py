"""Fit the contact energies of side-chain packing, and write the table of the template engine.

    python -m bench.contacts STRUCTURES... [--without STRUCTURES...] > snakefold/engines/template/contacts.txt

Structures as for bench/rotamers.py. Every residue of a known structure is asked which of its candidate conformations it
takes while all others stay as they are (snapped to their own nearest candidates, as packing will find them). The
energies are those under which the true answers are most probable (maximum pseudo-likelihood: J. Besag, J. R. Stat. Soc.
B 36 (1974), 192), drawn to a soft repulsion where a distance is too rare to tell, and to smoothness along the distance.
What the fit reaches on chains that it has not seen goes to standard error.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, vstack
from scipy.spatial import KDTree

from bench.rotamers import distinct_chains
from snakefold.engines.template.building import build_side_chain, chi_angles, is_left_handed, side_chain_atoms
from snakefold.engines.template.contacts import KNOTS, REACH, TYPES, atom_types
from snakefold.engines.template.rotamers import CHI_EDGES, conformations, rotamers
from snakefold.structures.geometry import backbone_torsions
from snakefold.structures.io import ModelChain, PolymerChain
from snakefold.structures.residues import BACKBONE, NAME_OF_LETTER

CHAINS, TEST_CHAINS = 220, 30
BACKBONE_TYPES = 4
STEPS = len(KNOTS) - 1
PAIRS = [(a, b) for a in range(len(TYPES) - BACKBONE_TYPES) for b in range(a, len(TYPES))]
RESIDUES = sorted(rotamers())
COUNT = len(PAIRS) * STEPS
DISULFIDE_CONTACT = 3.0
"""Sulphurs nearer than this (angstrom) are bonded, and no contact."""

# What the energies are drawn to: a repulsion below the sum of radii (angstrom) and a slight attraction beyond.
RADII = {"C": 1.68, "N": 1.50, "O": 1.40, "S": 1.80}
ELEMENTS = dict(zip(TYPES, "CCCOOONNNSNCCO", strict=True))
ROTAMER_PRIOR, VARIATION_PRIOR = 1.0, 0.5
CONTACT_SPREAD, ROTAMER_SPREAD = 1.0, 0.5
SMOOTHNESS = 4.0

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One residue: features (candidates, features), the true candidate, chi1 of all candidates and in truth."""

    features: csr_array
    answer: int
    chi1: Array
    true_chi1: float


@dataclass(frozen=True, kw_only=True)
class _Residue:
    index: int
    name: str
    candidates: Array
    chis: Array
    costs: Array
    varied: NDArray[np.bool_]
    native: Array
    answer: int


def questions(chain: PolymerChain) -> list[Question]:
    """A question for each complete residue of a chain that has rotamers and both neighbours."""
    model = ModelChain(sequence=chain.sequence, atoms=chain.residues, confidence=[None] * len(chain.sequence))
    torsions = backbone_torsions(model)
    points: list[Array] = []
    rows: list[tuple[int, int, int]] = []  # type, residue, link to a neighbour
    asked: list[_Residue] = []
    for index, atoms in sorted(chain.residues.items()):
        name = NAME_OF_LETTER[chain.sequence[index]]
        names = side_chain_atoms(name) if name != "UNK" else ()
        shown = {atom: atoms[atom] for atom in (*BACKBONE, *names) if atom in atoms}
        if index in torsions and name in RESIDUES and set(names) <= set(atoms) and is_left_handed(name, atoms):
            tried = conformations(name, *torsions[index])
            candidates = build_side_chain(name, atoms, tried.chis)
            native = chi_angles(name, atoms)
            answer = nearest(name, tried.chis, native)
            shown |= dict(zip(names, candidates[answer], strict=True))
            asked.append(
                _Residue(
                    index=index,
                    name=name,
                    candidates=candidates,
                    chis=tried.chis,
                    costs=tried.costs,
                    varied=tried.varied,
                    native=native,
                    answer=answer,
                )
            )
        for atom, position in shown.items():
            points.append(position)
            rows.append((int(atom_types(name, (atom,))[0]), index, {"N": -1, "C": 1}.get(atom, 0)))
    cloud, facts = np.array(points), np.array(rows)
    tree = KDTree(cloud)
    return [_question(residue, cloud, facts, tree) for residue in asked]


def _question(residue: _Residue, cloud: Array, facts: NDArray[np.int64], tree: KDTree) -> Question:
    moving = np.ascontiguousarray(residue.candidates[:, 1:])
    centre = residue.candidates[0, 0]
    reach = float(np.linalg.norm(moving - centre, axis=-1).max()) + REACH
    near = np.array(sorted(tree.query_ball_point(centre, reach)))
    owner, link = facts[near, 1] - residue.index, facts[near, 2]
    near = near[~((owner == 0) | ((owner == -1) & (link == 1)) | ((owner == 1) & (link == -1)))]
    features = np.zeros((len(moving), COUNT + 2 * len(RESIDUES)))
    types = atom_types(residue.name, side_chain_atoms(residue.name)[1:])
    _count(moving, types, cloud[near], facts[near, 0], pair_numbers(), KNOTS, features)
    features[:, COUNT + RESIDUES.index(residue.name)] = residue.costs
    features[:, COUNT + len(RESIDUES) + RESIDUES.index(residue.name)] = residue.varied
    return Question(
        features=csr_array(features.astype(np.float32)),
        answer=residue.answer,
        chi1=residue.chis[:, 0],
        true_chi1=float(residue.native[0]),
    )


def nearest(residue: str, chis: Array, native: Array) -> int:
    """The candidate whose chis are nearest to the true ones, the first chis counting most."""
    off = np.zeros(len(chis))
    for number, weight in zip(range(chis.shape[1]), (1.0, 0.6, 0.3, 0.2), strict=False):
        edges = CHI_EDGES[residue]
        period = edges[number][2] if number < len(edges) else 360.0
        turn = (chis[:, number] - native[number] + period / 2) % period - period / 2
        off += weight * turn**2
    return int(np.argmin(off))


def pair_numbers() -> NDArray[np.int64]:
    """(types, types): the number of each pair in PAIRS."""
    numbers = np.full((len(TYPES), len(TYPES)), -1, dtype=np.int64)
    for number, (a, b) in enumerate(PAIRS):
        numbers[a, b] = numbers[b, a] = number
    return numbers


@numba.njit(cache=True)
def _count(moving, types, cloud, cloud_types, numbers, knots, features):
    """Add each contact of each candidate to the knots around its distance."""
    steps = len(knots) - 1
    for candidate in range(moving.shape[0]):
        for atom in range(moving.shape[1]):
            for other in range(cloud.shape[0]):
                distance = np.sqrt(((moving[candidate, atom] - cloud[other]) ** 2).sum())
                if distance >= knots[steps]:
                    continue
                if types[atom] == 9 and cloud_types[other] == 9 and distance < DISULFIDE_CONTACT:
                    continue
                first = numbers[types[atom], cloud_types[other]] * steps
                if distance <= knots[0]:
                    features[candidate, first] += 1
                    continue
                knot = 0
                while distance >= knots[knot + 1]:
                    knot += 1
                part = (distance - knots[knot]) / (knots[knot + 1] - knots[knot])
                features[candidate, first + knot] += 1 - part
                if knot + 1 < steps:
                    features[candidate, first + knot + 1] += part


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Many questions as one: features of all candidates, how many each question has, the true candidates' rows."""

    features: csr_array
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    answers: NDArray[np.int64]

    @classmethod
    def of(cls, asked: Sequence[Question]) -> "Examination":
        """All questions stacked."""
        sizes = np.array([len(question.chi1) for question in asked], dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        answers = starts + np.array([question.answer for question in asked], dtype=np.int64)
        features = csr_array(vstack([question.features for question in asked]))
        return cls(features=features, sizes=sizes, starts=starts, answers=answers)

    def log_probabilities(self, weights: Array) -> Array:
        """Of every candidate among those of its question."""
        scores = -(self.features @ weights)
        scores = scores - np.repeat(np.maximum.reduceat(scores, self.starts), self.sizes)
        return scores - np.repeat(np.log(np.add.reduceat(np.exp(scores), self.starts)), self.sizes)


def prior() -> Array:
    """The weights that the fit is drawn to."""
    weights = np.empty(COUNT + 2 * len(RESIDUES))
    for number, (a, b) in enumerate(PAIRS):
        reach = RADII[ELEMENTS[TYPES[a]]] + RADII[ELEMENTS[TYPES[b]]]
        repulsion = np.minimum(40 * (1 - KNOTS[:-1] / reach), 10)
        attraction = -0.25 * np.maximum(6 - KNOTS[:-1], 0) / (6 - reach)
        weights[number * STEPS : (number + 1) * STEPS] = np.where(KNOTS[:-1] < reach, repulsion, attraction)
    weights[COUNT : COUNT + len(RESIDUES)] = ROTAMER_PRIOR
    weights[COUNT + len(RESIDUES) :] = VARIATION_PRIOR
    return weights


def fit(examination: Examination) -> Array:
    """The weights, one for each feature."""
    start = prior()
    spread = np.where(np.arange(len(start)) < COUNT, CONTACT_SPREAD, ROTAMER_SPREAD)
    transposed = csr_array(examination.features.T)
    of_answers = np.asarray(examination.features[examination.answers].sum(axis=0)).ravel()

    def objective(weights: Array) -> tuple[float, Array]:
        log_probabilities = examination.log_probabilities(weights)
        off = (weights - start) / spread
        bends = np.diff((weights - start)[:COUNT].reshape(-1, STEPS), axis=1)
        pull = np.zeros((len(PAIRS), STEPS))
        pull[:, 1:] += bends
        pull[:, :-1] -= bends
        gradient = of_answers - transposed @ np.exp(log_probabilities) + off / spread
        gradient[:COUNT] += SMOOTHNESS * pull.ravel()
        loss = -log_probabilities[examination.answers].sum()
        return loss + 0.5 * (off**2).sum() + 0.5 * SMOOTHNESS * (bends**2).sum(), gradient

    return minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 120}).x


def chi1_right(asked: Sequence[Question], weights: Array) -> float:
    """The fraction of residues whose most probable candidate has the true chi1 within 40 degrees."""
    right: list[bool] = []
    for question in asked:
        best = int(np.argmin(question.features @ weights))
        right.append(abs((question.chi1[best] - question.true_chi1 + 180) % 360 - 180) < 40)
    return float(np.mean(right))


def main() -> None:
    """Print the table, and the check to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path, nargs="+")
    parser.add_argument("--without", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    chains = list(distinct_chains(arguments.structures, arguments.without))
    np.random.default_rng(1).shuffle(chains)  # pyright: ignore[reportArgumentType] (any sequence can be shuffled)
    asked = [question for chain in chains[:CHAINS] for question in questions(chain)]
    unseen = [question for chain in chains[CHAINS : CHAINS + TEST_CHAINS] for question in questions(chain)]
    weights = fit(Examination.of(asked))
    for title, some in (("seen", asked), ("unseen", unseen)):
        print(
            f"{title}: {len(some)} residues, chi1 right among true neighbours {chi1_right(some, weights):.3f}, "
            f"before the fit {chi1_right(some, prior()):.3f}",
            file=sys.stderr,
        )
    print("# Contact energies of side-chain packing (kT), written by bench/contacts.py, which says how.")
    print(f"# {len(asked)} residues of {min(CHAINS, len(chains))} chains of the Protein Data Bank (CC0), those of")
    print("# rotamers.txt. contact: two atom types, energies at the distances contacts.KNOTS; 0 at the last of them.")
    print("# rotamer: residue, weight of -ln(share) of a rotamer, cost of varying it.")
    for number, (a, b) in enumerate(PAIRS):
        values = weights[number * STEPS : (number + 1) * STEPS]
        print(f"contact {TYPES[a]} {TYPES[b]} " + " ".join(f"{value:.2f}" for value in values))
    for number, residue in enumerate(RESIDUES):
        weight, cost = weights[COUNT + number], weights[COUNT + len(RESIDUES) + number]
        print(f"rotamer {residue} {weight:.2f} {cost:.2f}")


if __name__ == "__main__":
    main()
