"""Alignments of targets with templates against superpositions of the two true structures, old beside new.

    python -m bench.alignment FOLDER... [--sequences FASTA...] [--pairs 6] [--most-identity 0.7]
    python -m bench.alignment FOLDER... --propensities

FOLDERs hold `*.cif.gz` and `*.pdb.gz` of single proteins, and optionally a families.json: {family: [{"file",
"chain"}]}. Without it, all chains of a folder count as one family; pairs whose structures do not resemble one another
(TM-score below .5) are left out. With --sequences, targets have MSAs searched in those FASTA files (two rounds);
without, none. "plain" is the search's own alignment with its ends extended, "new" what models are built on. "right" is
the share of structurally equivalent pairs (CA within 4 A after superposition) that the alignment has; "TM" that of a
model that consists of the copied CA atoms; "best" the TM-score of the structural superposition itself. Means are over
families.

--propensities counts the table of snakefold/engines/template/environment.py: one chain of each kind (fewer than a
quarter of its six-letter words in a chain counted before), 50 to 500 residues. The table there comes from the
structures of data/mini/templates and from 200 entries of the PDB (CC0) that public test suites hold.
"""

import argparse
import itertools
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from snakefold.engines.base import ChainInputs
from snakefold.engines.template.align import Alignment, align_to_chains, build_profile, extend_ends
from snakefold.engines.template.environment import AMINO_ACIDS, BURIAL_EDGES, CONFORMATIONS, Environment
from snakefold.engines.template.profiles import Profile, Relatives
from snakefold.engines.template.realign import realign
from snakefold.errors import SnakefoldError
from snakefold.search.msa import search_msas
from snakefold.structures.compare import superpose, tm_d0, tm_score
from snakefold.structures.io import PolymerChain, read_chains

FRAGMENT = 20
STARTS = 10
BINS = (0.0, 0.18, 0.25, 0.4, 1.01)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two chains of a family; `pairs` (n, 2) of residue indices are equivalent, `best` the TM-score by the target."""

    family: str
    target: str
    template: str
    pairs: np.ndarray
    best: float
    identity: float


def alphas(chain: PolymerChain) -> tuple[np.ndarray, np.ndarray]:
    """Indices (n,) and CA positions (n, 3) of the residues with a whole backbone."""
    indices = sorted(index for index, atoms in chain.residues.items() if {"N", "CA", "C"} <= set(atoms))
    return np.array(indices), np.array([chain.residues[index]["CA"] for index in indices])


@numba.njit(cache=True)
def best_path(score):
    """The pairs of the largest total score, gaps free."""
    rows, columns = score.shape
    best = np.zeros((rows + 1, columns + 1))
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            best[i, j] = max(best[i - 1, j - 1] + score[i - 1, j - 1], best[i - 1, j], best[i, j - 1])
    pairs = np.empty((min(rows, columns), 2), dtype=np.int64)
    count, i, j = 0, rows, columns
    while i > 0 and j > 0:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs[count, 0], pairs[count, 1] = i, j
            count += 1
    return pairs[:count][::-1].copy()


def structural_pairs(mobile: np.ndarray, fixed: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """TM-score by the length of `mobile`, pairs (n, 2) and their distances: fragments, then alternating DP and fits."""
    d0 = tm_d0(len(mobile))
    starts: list[tuple[float, np.ndarray]] = []
    for i in range(0, len(mobile) - FRAGMENT + 1, 8):
        for j in range(0, len(fixed) - FRAGMENT + 1, 8):
            fit, _ = superpose(mobile[i : i + FRAGMENT], fixed[j : j + FRAGMENT])
            moved = fit.apply(mobile[::3])
            nearest = np.linalg.norm(moved[:, None] - fixed[None], axis=2).min(axis=1)
            starts.append((float((1 / (1 + (nearest / d0) ** 2)).sum()), fit.apply(mobile)))
    starts.sort(key=lambda start: -start[0])
    best = (-1.0, np.empty((0, 2), dtype=np.int64), np.empty(0))
    for _, moved in starts[:STARTS]:
        last = -1.0
        for _ in range(15):
            distances = np.linalg.norm(moved[:, None] - fixed[None], axis=2)
            pairs = best_path(np.where(distances <= 8.0, 1 / (1 + (distances / d0) ** 2), -1.0))
            if len(pairs) < 5:
                break
            a, b = mobile[pairs[:, 0]], fixed[pairs[:, 1]]
            fit, _ = superpose(a, b)
            apart = np.asarray(np.linalg.norm(fit.apply(a) - b, axis=1))
            for _ in range(4):
                fit, _ = superpose(a, b, 1 / (1 + (apart / d0) ** 2) ** 2)
                apart = np.asarray(np.linalg.norm(fit.apply(a) - b, axis=1))
            moved = fit.apply(mobile)
            score = float((1 / (1 + (apart / d0) ** 2)).sum() / len(mobile))
            if score > best[0]:
                best = score, pairs, apart
            if score <= last + 1e-6:
                break
            last = score
    return best


def read_families(folders: Sequence[Path]) -> dict[str, dict[str, PolymerChain]]:
    """Family -> name -> chain."""
    families: dict[str, dict[str, PolymerChain]] = defaultdict(dict)
    for folder in folders:
        listed = folder / "families.json"
        if listed.exists():
            for family, members in sorted(json.loads(listed.read_text()).items()):
                for member in members:
                    path = folder / member["file"]
                    for chain in read_chains(path):
                        if chain.name == member["chain"]:
                            families[family][f"{path.name.split('.')[0]}_{chain.name}"] = chain
            continue
        for path in sorted(folder.glob("*.gz")):
            first = read_chains(path)[0]
            families[folder.name][path.name.split(".")[0]] = first
    return families


def cases_of(
    families: dict[str, dict[str, PolymerChain]], most: int, most_identity: float
) -> tuple[list[Case], dict[str, PolymerChain]]:
    """Up to `most` pairs of each family, at random (seeded), and their chains."""
    cases: list[Case] = []
    chains: dict[str, PolymerChain] = {}
    for family, members in families.items():
        names = [
            name for name, chain in members.items() if 45 <= len(chain.sequence) <= 330 and len(chain.residues) > 40
        ]
        pairs = [(a, b) for a in names for b in names if a != b]
        random.Random(1).shuffle(pairs)
        taken = 0
        for target, template in pairs:
            if taken == most:
                break
            (at, there), (on, other) = alphas(members[target]), alphas(members[template])
            score, found, apart = structural_pairs(there, other)
            close = found[apart <= 4.0]
            if score < 0.5 or len(close) == 0:
                continue
            equivalent = np.column_stack([at[close[:, 0]], on[close[:, 1]]])
            one, two = members[target].sequence, members[template].sequence
            identity = float(np.mean([one[i] == two[j] for i, j in equivalent]))
            if identity > most_identity:
                continue
            cases.append(
                Case(
                    family=family,
                    target=target,
                    template=template,
                    pairs=equivalent,
                    best=score,
                    identity=identity,
                )
            )
            chains |= {target: members[target], template: members[template]}
            taken += 1
    return cases, chains


def judge(case: Case, alignment: Alignment | None, chains: dict[str, PolymerChain]) -> tuple[float, float]:
    """The share of equivalent pairs that are right, and the TM-score of the copied CA atoms."""
    if alignment is None:
        return 0.0, 0.0
    found = dict(zip(alignment.target.tolist(), alignment.template.tolist(), strict=True))
    right = float(np.mean([found.get(int(i)) == int(j) for i, j in case.pairs]))
    indices, reference = alphas(chains[case.target])
    residues = chains[case.template].residues
    model = np.array([residues.get(found.get(int(i), -1), {}).get("CA", np.full(3, np.nan)) for i in indices])
    if np.isfinite(model).all(axis=1).sum() < 3:
        return right, 0.0
    return right, tm_score(reference, model)[0]


def align_both(
    chain: ChainInputs, template: PolymerChain, relatives: Relatives
) -> tuple[Alignment | None, Alignment | None, float]:
    """Old and new alignment, and the CPU seconds of the new one."""
    hmm = build_profile(chain.sequence, chain.msa)
    hits = align_to_chains(hmm, {"template": template.sequence})
    if not hits or len(hits[0].alignment) < 15:
        return None, None, 0.0
    observed = [index for index, atoms in template.residues.items() if {"N", "CA", "C"} <= set(atoms)]
    plain = extend_ends(hits[0].alignment, chain.sequence, template.sequence, observed)
    start = time.process_time()
    new = realign(Profile.of(hmm), relatives.profile(template.sequence), template, plain)
    return plain, new, time.process_time() - start


def compare_all(folders: Sequence[Path], databases: Sequence[Path], most: int, most_identity: float) -> None:
    """Print the table."""
    cases, chains = cases_of(read_families(folders), most, most_identity)
    targets = sorted({case.target for case in cases})
    msas: dict[str, Path] = {}
    rows: list[tuple[Case, tuple[float, float], tuple[float, float], float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        if databases:
            search_msas(
                {name: chains[name].sequence for name in targets},
                {f"database{number}": path for number, path in enumerate(databases)},
                scratch=Path(scratch),
                on_result=lambda name, where, _: msas.update({name: where / "msa.a3m"}),
                iterations=2,
            )
        for target in targets:
            chain = ChainInputs(sequence=chains[target].sequence, msa=msas.get(target))
            relatives = Relatives.read(chain.msa)
            for case in (case for case in cases if case.target == target):
                plain, new, seconds = align_both(chain, chains[case.template], relatives)
                rows.append((case, judge(case, plain, chains), judge(case, new, chains), seconds))
    groups = {"globin": [row for row in rows if row[0].family == "globin"]}
    groups["others"] = [row for row in rows if row[0].family != "globin"]
    print("group     identity  pairs  families   best   plain: right    TM     new: right    TM   CPU s a pair")
    for group, members in groups.items():
        for low, high in itertools.pairwise(BINS):
            chosen = [row for row in members if low <= row[0].identity < high]
            if not chosen:
                continue
            by_family: dict[str, list[tuple[float, ...]]] = defaultdict(list)
            for case, old, new, seconds in chosen:
                by_family[case.family].append((case.best, *old, *new, seconds))
            best, right, tm, new_right, new_tm, seconds = np.mean(
                [np.mean(v, axis=0) for v in by_family.values()], axis=0
            )
            print(
                f"{group:9s} {low:4.0%}-{min(high, 1):4.0%} {len(chosen):6d} {len(by_family):9d}   {best:.3f}"
                f"         {right:.3f}  {tm:.3f}          {new_right:.3f}  {new_tm:.3f}   {seconds:.2f}"
            )


def different_chains(folders: Sequence[Path]) -> Iterator[PolymerChain]:
    """One chain of each kind."""
    seen: set[str] = set()
    for path in sorted({path for folder in folders for path in folder.glob("*.gz") if ".fasta" not in path.name}):
        try:
            chains = read_chains(path)
        except SnakefoldError:
            continue
        for chain in chains:
            words = {chain.sequence[start : start + 6] for start in range(len(chain.sequence) - 5)}
            if len(chain.residues) >= 50 and len(chain.sequence) <= 500 and len(words & seen) <= 0.25 * len(words):
                seen |= words
                yield chain


def print_propensities(folders: Sequence[Path]) -> None:
    """Print the table as it stands in environment.py, and what it was counted from."""
    counts = np.zeros((len(CONFORMATIONS) * (len(BURIAL_EDGES) + 1), 20))
    number = 0
    for chain in different_chains(folders):
        number += 1
        for row, letter in zip(Environment.of(chain).classes.tolist(), chain.sequence, strict=True):
            if row >= 0 and letter in AMINO_ACIDS:
                counts[row, AMINO_ACIDS.index(letter)] += 1
    background = counts.sum(axis=0) / counts.sum()
    # As if a hundred residues more had been seen in each environment, of any protein's composition.
    shares = (counts + 100 * background) / (counts.sum(axis=1, keepdims=True) + 100)
    for row in np.round(100 * np.log(shares / background)).astype(int).tolist():
        print(f"    ({', '.join(map(str, row))}),")
    print(f"# {number} chains, {int(counts.sum())} residues")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--sequences", type=Path, nargs="*", default=[])
    parser.add_argument("--pairs", type=int, default=6, help="pairs of each family at most")
    parser.add_argument("--most-identity", type=float, default=0.7)
    parser.add_argument("--propensities", action="store_true")
    arguments = parser.parse_args()
    if arguments.propensities:
        print_propensities(arguments.folders)
    else:
        compare_all(arguments.folders, arguments.sequences, arguments.pairs, arguments.most_identity)


if __name__ == "__main__":
    main()
