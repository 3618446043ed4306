"""Relaxation must mend what is broken, leave the rest in place, and give the same bytes wherever it runs."""

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest

from snakefold.errors import SnakefoldError
from snakefold.files import read_json, sha256_of_file
from snakefold.outcome import Outcome
from snakefold.relax import relax, relax_model
from snakefold.relax.minimise import RelaxParameters, minimise
from snakefold.relax.preparation import amber_system, prepare
from snakefold.relax.quality import Likeness, Quality, likeness, spoiled_residues, worse
from snakefold.relax.violations import Stereochemistry, stereochemistry
from snakefold.structures.geometry import ResidueId, find_clashes, torsion
from snakefold.structures.io import ModelChain, read_chains, read_model, write_model
from snakefold.structures.residues import heavy_atoms_of

from .structure_helpers import STRAND, model, peptide

MINI = Path(__file__).parents[2] / "data" / "mini"
Atoms = dict[int, dict[str, np.ndarray]]


def chains_of(path: Path) -> list[ModelChain]:
    return [
        ModelChain(
            sequence=chain.sequence,
            atoms=chain.residues,
            confidence=[50.0 + index % 50 if index in chain.residues else None for index in range(len(chain.sequence))],
        )
        for chain in read_chains(path)
    ]


def only(chain: ModelChain, indices: range | set[int]) -> ModelChain:
    """The chain with all other residues unmodelled."""
    return replace(
        chain,
        atoms={index: dict(atoms) for index, atoms in chain.atoms.items() if index in indices},
        confidence=[value if index in indices else None for index, value in enumerate(chain.confidence)],
    )


def strained(chain: ModelChain, angstrom: float) -> ModelChain:
    generator = np.random.default_rng(7)
    atoms = {
        index: {name: xyz + generator.normal(0, angstrom, 3) for name, xyz in names.items()}
        for index, names in chain.atoms.items()
    }
    return replace(chain, atoms=atoms)


@pytest.fixture(scope="module")
def crambin() -> ModelChain:
    """46 residues with three disulfides."""
    return chains_of(MINI / "templates" / "3u7t.cif.gz")[0]


@pytest.fixture(scope="module")
def helix() -> ModelChain:
    """Residues 20-36 of ubiquitin, the rest of its 76 unmodelled."""
    return only(chains_of(MINI / "targets" / "ubiquitin.cif.gz")[0], range(20, 36))


def relaxed(
    folder: Path, chains: list[ModelChain], parameters: Mapping[str, Any] | None = None
) -> tuple[Outcome, tuple[ModelChain, ...], dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    write_model(folder / "model.cif", chains)
    outcome = relax_model(folder / "model.cif", folder, parameters=parameters or {"platform": "CPU"}, seed=0)
    return outcome, read_model(folder / "relaxed.cif"), read_json(folder / "relax.json")


def distance(atoms: Mapping[int, Mapping[str, np.ndarray]], first: tuple[int, str], second: tuple[int, str]) -> float:
    return float(np.linalg.norm(atoms[first[0]][first[1]] - atoms[second[0]][second[1]]))


def test_a_crystal_structure_stays_what_it_is(tmp_path: Path, crambin: ModelChain) -> None:
    outcome, (chain,), report = relaxed(tmp_path, [crambin])
    assert outcome.status == "done"
    assert outcome.facts["relaxed"] is True
    assert report["relaxed"] is True
    assert report["reason"] is None
    assert report["platform"] == "CPU"
    assert report["rounds"] == 1
    assert report["violations_before"] == {"bonds": 0, "angles": 0, "clashes": 0, "inverted": 0, "residues": []}
    assert report["violations_after"] == report["violations_before"]
    assert report["energy_after"] < report["energy_before"]
    assert 0 < report["rmsd_to_input"] < 0.3
    assert chain.sequence == crambin.sequence
    assert chain.confidence == crambin.confidence
    for index, letter in enumerate(chain.sequence):
        assert set(chain.atoms[index]) - {"OXT"} == set(heavy_atoms_of(letter))


def test_a_strained_model_loses_its_violations_and_clashes(tmp_path: Path, crambin: ModelChain) -> None:
    _, (chain,), report = relaxed(tmp_path, [strained(crambin, 0.25)])
    assert report["violations_before"]["bonds"] > 50
    assert report["violations_before"]["angles"] > 20
    assert report["violations_after"]["residues"] == []
    assert report["clashes_after"] <= report["clashes_before"]
    assert report["rmsd_to_input"] < 0.6
    for first, second in ((2, 39), (3, 31), (15, 25)):
        assert distance(chain.atoms, (first, "SG"), (second, "SG")) == pytest.approx(2.04, abs=0.06)


def test_a_side_chain_thrown_onto_its_neighbour_is_freed(tmp_path: Path, crambin: ModelChain) -> None:
    # The ring of phenylalanine 13 comes to lie in that of tyrosine 29.
    atoms: Atoms = {index: dict(names) for index, names in crambin.atoms.items()}
    target = atoms[28]["CG"]
    ring = ("CG", "CD1", "CD2", "CE1", "CE2", "CZ")
    shift = target + np.array([0.3, 0.2, 0.1]) - atoms[12]["CG"]
    for name in ring:
        atoms[12][name] = atoms[12][name] + shift
    clashing = replace(crambin, atoms=atoms)
    outcome, (chain,), report = relaxed(tmp_path, [clashing])
    assert report["clashes_before"] >= 5
    assert report["violations_before"]["clashes"] >= 3
    assert outcome.facts["relaxed"] is True
    assert report["violations_after"]["clashes"] == 0
    assert report["clashes_after"] < report["clashes_before"]
    assert len(find_clashes([chain])) == report["clashes_after"]
    assert ["A", 12, "PHE"] in report["violations_before"]["residues"]


def test_nothing_is_bonded_across_a_break_and_numbers_come_back(tmp_path: Path) -> None:
    # HIV protease, 2 x 99 residues: the four-stranded sheet of the ends of both chains, and nothing between.
    kept = set(range(1, 9)) | set(range(90, 99))
    chains = [strained(only(chain, kept), 0.1) for chain in chains_of(MINI / "targets" / "hiv_protease.cif.gz")]
    outcome, result, report = relaxed(tmp_path, chains)
    assert outcome.facts["relaxed"] is True
    assert report["violations_after"]["residues"] == []
    assert len(result) == 2
    for before, after in zip(chains, result, strict=True):
        assert set(after.atoms) == kept
        assert after.confidence == before.confidence
        gap = distance(before.atoms, (8, "C"), (90, "N"))
        assert distance(after.atoms, (8, "C"), (90, "N")) == pytest.approx(gap, abs=0.6)
        assert "OXT" not in after.atoms[8], "the end of a stretch is not the end of the chain"
        assert "OXT" in after.atoms[98]


def test_missing_atoms_are_added_and_the_others_stay(tmp_path: Path, helix: ModelChain) -> None:
    atoms: Atoms = {index: dict(names) for index, names in helix.atoms.items()}
    assert helix.sequence[26] == "K"
    assert helix.sequence[34] == "G"
    atoms[26] = {name: atoms[26][name] for name in ("N", "CA", "C", "O", "CB")}
    del atoms[34]["O"]
    outcome, (chain,), report = relaxed(tmp_path, [replace(helix, atoms=atoms)])
    assert outcome.facts["relaxed"] is True
    assert report["violations_after"]["residues"] == []
    assert set(chain.atoms[26]) == set(heavy_atoms_of("K"))
    assert distance(chain.atoms, (26, "CE"), (26, "NZ")) == pytest.approx(1.47, abs=0.05)
    assert distance(chain.atoms, (34, "C"), (34, "O")) == pytest.approx(1.23, abs=0.05)
    assert report["rmsd_to_input"] < 0.4


def test_an_amino_acid_of_the_wrong_hand_is_turned(tmp_path: Path, helix: ModelChain) -> None:
    index = helix.sequence.index("A", 20)
    atoms: Atoms = {number: dict(names) for number, names in helix.atoms.items()}
    residue = atoms[index]
    normal = np.cross(residue["N"] - residue["CA"], residue["C"] - residue["CA"])
    normal /= np.linalg.norm(normal)
    residue["CB"] = residue["CB"] - 2 * ((residue["CB"] - residue["CA"]) @ normal) * normal
    _, _, report = relaxed(tmp_path, [replace(helix, atoms=atoms)])
    assert report["violations_before"]["inverted"] == 1
    assert ["A", index, "ALA"] in report["violations_before"]["residues"]
    assert report["relaxed"] is True
    assert report["violations_after"]["inverted"] == 0


def test_a_lone_residue_stays_where_it_is(tmp_path: Path, crambin: ModelChain) -> None:
    model = only(crambin, set(range(10)) | {20})
    outcome, (chain,), _ = relaxed(tmp_path, [model])
    assert outcome.facts["relaxed"] is True
    for name, xyz in model.atoms[20].items():
        assert np.allclose(chain.atoms[20][name], xyz, atol=0.001)
    assert not np.allclose(chain.atoms[5]["CA"], model.atoms[5]["CA"], atol=0.001)


def without_side_chains(chain: ModelChain) -> ModelChain:
    return replace(
        chain,
        atoms={index: {name: atoms[name] for name in ("N", "CA", "C", "O")} for index, atoms in chain.atoms.items()},
    )


def with_unknown_residue(chain: ModelChain) -> ModelChain:
    index = min(chain.atoms)
    return replace(chain, sequence=f"{chain.sequence[:index]}X{chain.sequence[index + 1 :]}")


def as_trace(chain: ModelChain) -> ModelChain:
    return replace(chain, atoms={index: {"CA": atoms["CA"]} for index, atoms in chain.atoms.items()})


def as_one_residue(chain: ModelChain) -> ModelChain:
    return only(chain, {min(chain.atoms)})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (with_unknown_residue, "residue A 21 is 'X', which Amber99sb has no parameters for"),
        (as_trace, "residue A 21 has no N"),
        (without_side_chains, "heavy atoms are missing"),
        (as_one_residue, "no two neighbouring residues were modelled"),
    ],
)
def test_a_model_that_cannot_be_relaxed_is_kept(tmp_path: Path, helix: ModelChain, damage: Any, reason: str) -> None:
    outcome, _, report = relaxed(tmp_path, [damage(helix)])
    assert outcome.status == "done"
    assert outcome.kind == "cannot_relax"
    assert outcome.facts == {"relaxed": False}
    assert reason in (outcome.reason or "")
    assert report["relaxed"] is False
    assert report["reason"] == outcome.reason
    assert report["clashes_after"] == report["clashes_before"]
    assert report["energy_after"] is None
    assert (tmp_path / "relaxed.cif").read_bytes() == (tmp_path / "model.cif").read_bytes()


def test_two_chains_in_one_place_are_kept_and_do_not_end_the_batch(tmp_path: Path, helix: ModelChain) -> None:
    outcome, _, report = relaxed(tmp_path, [helix, helix])
    assert outcome.kind == "cannot_relax"
    assert "do atoms coincide?" in report["reason"]
    assert (tmp_path / "relaxed.cif").read_bytes() == (tmp_path / "model.cif").read_bytes()


def test_a_gpu_that_fails_says_nothing_of_the_model(
    tmp_path: Path, helix: ModelChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = relax.minimise
    asked: list[str] = []

    def failing(model: Any, parameters: Any, held: Any) -> Any:
        asked.append(parameters.platform)
        if parameters.platform != "CPU":
            raise openmm.OpenMMException("Error creating array: CUDA_ERROR_OUT_OF_MEMORY (2)")
        return honest(model, parameters, held)

    monkeypatch.setattr(relax, "minimise", failing)
    outcome, _, _ = relaxed(tmp_path, [helix], {"platform": "auto"})
    assert asked == ["auto", "CPU"]
    assert outcome.facts["relaxed"] is True
    with pytest.raises(SnakefoldError, match=r"the platform CUDA failed: .*OUT_OF_MEMORY"):
        relax_model(tmp_path / "model.cif", tmp_path, parameters={"platform": "CUDA"}, seed=0)


def moved_apart(chain: ModelChain, index: int, angstrom: float) -> ModelChain:
    """The chain with its C-terminal part from `index` on moved along the peptide bond before it."""
    bond = chain.atoms[index]["N"] - chain.atoms[index - 1]["C"]
    shift = angstrom * bond / np.linalg.norm(bond)
    atoms = {
        number: {name: xyz + shift * (number >= index) for name, xyz in names.items()}
        for number, names in chain.atoms.items()
    }
    return replace(chain, atoms=atoms)


def test_a_small_gap_is_closed(tmp_path: Path, helix: ModelChain) -> None:
    _, (chain,), report = relaxed(tmp_path, [moved_apart(helix, 28, 0.8)])
    assert report["violations_before"]["bonds"] >= 1
    assert report["attempts"] == 1
    assert report["left_open"] == []
    assert distance(chain.atoms, (27, "C"), (28, "N")) == pytest.approx(1.33, abs=0.05)


def test_a_wide_gap_is_left_open_and_nothing_is_torn_at(tmp_path: Path, helix: ModelChain) -> None:
    outcome, (chain,), report = relaxed(tmp_path, [moved_apart(helix, 28, 6.0)])
    assert outcome.facts["relaxed"] is True
    assert report["attempts"] == 1
    assert distance(chain.atoms, (27, "C"), (28, "N")) == pytest.approx(7.3, abs=0.8)
    assert report["rmsd_to_input"] < 0.4


def test_a_gap_that_cannot_be_closed_without_harm_is_left_open(tmp_path: Path, crambin: ModelChain) -> None:
    # A residue was left out and the others numbered on: no peptide bond fits between its neighbours.
    places = [index for index in sorted(crambin.atoms) if index != 4]
    chain = ModelChain(
        sequence="".join(crambin.sequence[index] for index in places),
        atoms={number: crambin.atoms[index] for number, index in enumerate(places)},
        confidence=[50.0] * len(places),
    )
    outcome, _, report = relaxed(tmp_path, [chain])
    assert outcome.facts["relaxed"] is True
    assert (report["attempts"], report["left_open"]) == (2, [["A", 4, "SER"]])
    assert report["violations_after"]["residues"] == []
    assert report["lddt_ca_to_input"] > 0.99


def test_atoms_that_nearly_coincide_are_pushed_apart(tmp_path: Path, helix: ModelChain) -> None:
    # A lysine's chain comes to lie in that of the lysine one turn on: too steep for the minimiser as it is.
    atoms: Atoms = {index: dict(names) for index, names in helix.atoms.items()}
    assert helix.sequence[28] == helix.sequence[32] == "K"
    for name in ("CG", "CD", "CE", "NZ"):
        atoms[28][name] = atoms[32][name] + np.array([0.002, 0.001, 0.0015])
    outcome, _, report = relaxed(tmp_path, [replace(helix, atoms=atoms)])
    assert report["clashes_before"] > 3
    assert outcome.facts["relaxed"] is True
    assert report["clashes_after"] <= 1
    assert report["violations_after"]["residues"] == []


def test_held_torsions_keep_their_values(helix: ModelChain) -> None:
    model = prepare([strained(helix, 0.2)], ph=7.0, seed=0)
    place = ResidueId(0, 27)

    def phi(held: frozenset[ResidueId]) -> tuple[float, float]:
        moved = minimise(model, RelaxParameters(platform="CPU"), held).positions
        index_of = {key: index for index, key in enumerate(model.keys)}
        atoms = [index_of[0, number, name] for number, name in ((26, "C"), (27, "N"), (27, "CA"), (27, "C"))]
        before, after = (torsion(*(positions[atom] for atom in atoms)) for positions in (model.positions, moved))
        return before, after

    before, free = phi(frozenset())
    _, held = phi(frozenset({place}))
    assert abs(held - before) < 1
    assert abs(free - before) > 5


def test_what_got_worse_is_held_in_another_attempt(
    tmp_path: Path, helix: ModelChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = iter(["relaxation made the model worse: Ramachandran outliers 0 -> 1", None])
    monkeypatch.setattr(relax, "worse", lambda *_: next(reasons))
    monkeypatch.setattr(relax, "spoiled_residues", lambda *_: frozenset({ResidueId(0, 27)}))
    outcome, _, report = relaxed(tmp_path, [helix])
    assert outcome.facts["relaxed"] is True
    assert report["held"] == [["A", 27, "ALA"]]
    assert report["attempts"] == 2


GOOD = Quality(
    clashes=3,
    violations=3,
    residues_with_violations=3,
    centres_of_wrong_chirality=3,
    chain_breaks=3,
    ramachandran_outliers=3,
    peptides_neither_trans_nor_cis_proline=3,
)
NEAR = Likeness(lddt=0.99, lddt_ca=0.99, turned=0)


class TestWorse:
    """Nothing may get worse, whatever else got better."""

    @pytest.mark.parametrize("name", [field.name for field in fields(Quality)])
    def test_any_fault_that_increases(self, name: str) -> None:
        better = replace(GOOD, **{field.name: 0 for field in fields(Quality)})
        assert worse(GOOD, better, NEAR) is None
        assert worse(GOOD, GOOD, NEAR) is None
        reason = worse(GOOD, replace(better, **{name: 4}), NEAR)
        assert reason is not None
        assert "3 -> 4" in reason

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"lddt": 0.899}, "lDDT to"), ({"lddt_ca": 0.899}, "lDDT-CA to"), ({"turned": 1}, "cis and trans")],
    )
    def test_another_model(self, change: dict[str, Any], message: str) -> None:
        assert message in (worse(GOOD, GOOD, replace(NEAR, **change)) or "")

    def test_a_turned_peptide_bond_is_seen_and_its_residues_are_to_be_held(self) -> None:
        def chain(sequence: str, omega: float) -> ModelChain:
            return model(peptide(sequence, [STRAND] * 5, {2: omega}), sequence)

        trans, cis, twisted = (chain("AAAAA", omega) for omega in (180.0, 0.0, 90.0))
        assert likeness([trans], [cis]).turned == 1
        assert likeness([trans], [twisted]).turned == 0
        assert spoiled_residues([trans], [twisted]) >= {ResidueId(0, 1), ResidueId(0, 2)}
        assert likeness([cis], [trans]).turned == 0, "a cis peptide before alanine is nothing to keep"
        assert likeness([chain("AAPAA", 0.0)], [chain("AAPAA", 180.0)]).turned == 1

    def test_lddt_to_the_input_tells_moved_atoms(self, crambin: ModelChain) -> None:
        assert likeness([crambin], [crambin]) == Likeness(lddt=1.0, lddt_ca=1.0, turned=0)
        near = likeness([crambin], [strained(crambin, 0.5)])
        assert 0.5 < near.lddt < 0.95
        assert 0.5 < near.lddt_ca < 0.95
        half = likeness([crambin], [only(crambin, range(23))])
        assert half.lddt < 0.5, "distances to lost atoms are lost"


def test_a_result_worse_than_its_input_is_refused(
    tmp_path: Path, helix: ModelChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = relax.minimise

    def collapsing(model: Any, parameters: Any, held: Any) -> Any:
        result = honest(model, parameters, held)
        centre = result.positions.mean(axis=0)
        return replace(result, positions=centre + 0.7 * (result.positions - centre))

    monkeypatch.setattr(relax, "minimise", collapsing)
    outcome, _, report = relaxed(tmp_path, [helix])
    assert outcome.kind == "worse"
    assert "clashes" in (outcome.reason or "")
    assert report["relaxed"] is False
    assert report["energy_after"] == report["energy_before"]
    assert report["violations_after"] == report["violations_before"]
    assert report["rmsd_to_input"] == 0
    assert sha256_of_file(tmp_path / "relaxed.cif") == sha256_of_file(tmp_path / "model.cif")


def test_two_processes_write_the_same_bytes(tmp_path: Path, crambin: ModelChain) -> None:
    # Missing atoms, strain and hydrogens: every part that draws random numbers or sums in threads.
    atoms: Atoms = {index: dict(names) for index, names in strained(crambin, 0.2).atoms.items()}
    atoms[9] = {name: atoms[9][name] for name in ("N", "CA", "C", "O", "CB")}
    write_model(tmp_path / "model.cif", [replace(crambin, atoms=atoms)])
    # A first result is refused, so that the second is made with torsions held.
    program = (
        "import random, sys; from pathlib import Path; from snakefold.relax import relax, relax_model\n"
        "from snakefold.structures.geometry import ResidueId\n"
        "random.seed(int(sys.argv[3]))\n"
        "reasons = iter(['worse', None])\n"
        "relax.worse = lambda *_: next(reasons)\n"
        "relax.spoiled_residues = lambda *_: frozenset(ResidueId(0, index) for index in range(10, 40))\n"
        "relax_model(Path(sys.argv[1]), Path(sys.argv[2]), parameters={'platform': 'CPU'}, seed=3)"
    )
    digests = []
    for number, processor in (("1", "Prescott"), ("2", "Haswell")):
        folder = tmp_path / number
        folder.mkdir()
        # The order of sets, the number of threads that OpenMM would choose, the BLAS that numpy would: none may matter.
        environment = os.environ | {"PYTHONHASHSEED": number, "OPENMM_CPU_THREADS": number}
        environment |= {"OPENBLAS_CORETYPE": processor}
        arguments = [sys.executable, "-c", program, str(tmp_path / "model.cif"), str(folder), number]
        subprocess.run(arguments, env=environment, check=True)
        digests.append([sha256_of_file(folder / name) for name in ("relaxed.cif", "relax.json")])
    assert digests[0] == digests[1]
    assert read_json(tmp_path / "1" / "relax.json")["relaxed"] is True


def test_the_generator_of_others_is_left_alone(helix: ModelChain) -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    prepare([helix], ph=7.0, seed=0)
    assert random.random() == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tolerence": 1.0}, "unknown parameter 'tolerence'"),
        ({"platform": "TPU"}, "platform is 'TPU'"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"stiffness": -1}, "stiffness is -1"),
        ({"max_rounds": 0}, "max_rounds"),
    ],
)
def test_faulty_parameters_are_named(
    tmp_path: Path, helix: ModelChain, parameters: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(SnakefoldError, match=message):
        relaxed(tmp_path, [helix], parameters)
    assert not (tmp_path / "relaxed.cif").exists()


def test_rounds_end_at_their_limit_and_weaker_restraints_move_more(tmp_path: Path, helix: ModelChain) -> None:
    model = [strained(helix, 0.2)]
    _, _, stiff = relaxed(tmp_path / "stiff", model, {"platform": "CPU", "max_rounds": 1, "stiffness": 10.0})
    _, _, loose = relaxed(tmp_path / "loose", model, {"platform": "CPU", "max_rounds": 1, "stiffness": 1.0})
    assert stiff["rounds"] == loose["rounds"] == 1
    assert loose["rmsd_to_input"] > 1.2 * stiff["rmsd_to_input"]
    assert loose["energy_after"] < stiff["energy_after"]


Ideal = tuple[Stereochemistry, np.ndarray, dict[tuple[int, str], int]]


@pytest.fixture(scope="module")
def ideal(helix: ModelChain) -> Ideal:
    """Geometry, positions, and the index of each atom by residue in the helix and name."""
    model = prepare([helix], ph=7.0, seed=0)
    index_of = {(key[1] - 20, key[2]): index for index, key in enumerate(model.keys) if key}
    return stereochemistry(model.topology, amber_system(model.topology)), model.positions, index_of


class TestViolations:
    """Each kind of fault is counted, with the residues that take part in it, and nothing else."""

    def test_bond_within_a_residue(self, ideal: Ideal) -> None:
        geometry, positions, index_of = ideal
        moved = positions.copy()
        nz, ce = index_of[6, "NZ"], index_of[6, "CE"]
        moved[nz] += 0.2 * (moved[nz] - moved[ce])
        found = geometry.violations(moved)
        assert found.bonds == 1
        assert found.residues == (6,)

    def test_peptide_bond_is_held_to_a_tighter_limit(self, ideal: Ideal) -> None:
        geometry, _, index_of = ideal
        pair = {index_of[4, "C"], index_of[5, "N"]}
        limits = [
            limit
            for bond, limit in zip(geometry.bonds.tolist(), geometry.length_tolerances, strict=True)
            if set(bond) == pair
        ]
        assert limits == [pytest.approx(12 * 0.014)]

    def test_angle(self, ideal: Ideal) -> None:
        geometry, positions, index_of = ideal
        moved = positions.copy()
        ca, c, o = (index_of[3, name] for name in ("CA", "C", "O"))
        # O onto the line from CA through C: the bond keeps its length, the angles of 120 degrees become 180 and 60.
        axis = (moved[c] - moved[ca]) / np.linalg.norm(moved[c] - moved[ca])
        moved[o] = moved[c] + axis * np.linalg.norm(moved[o] - moved[c])
        found = geometry.violations(moved)
        assert found.bonds == 0
        assert found.angles == 2
        assert found.residues == (3, 4)

    def test_clash(self, ideal: Ideal) -> None:
        geometry, positions, index_of = ideal
        moved = positions.copy()
        moved[index_of[6, "NZ"]] = moved[index_of[0, "C"]] + np.array([1.0, 1.0, 0.0])
        assert geometry.violations(moved).clashes >= 1
        known = np.ones(len(positions), dtype=bool)
        known[index_of[6, "NZ"]] = False
        assert geometry.violations(moved, known).clashes == 0

    def test_none_in_a_crystal_structure(self, ideal: Ideal) -> None:
        geometry, positions, _ = ideal
        found = geometry.violations(positions)
        assert (found.bonds, found.angles, found.clashes, found.inverted, found.residues) == (0, 0, 0, 0, ())


def test_the_platform_is_the_one_asked_for_and_auto_falls_back_to_the_cpu(
    tmp_path: Path, helix: ModelChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = only(helix, range(20, 24))
    _, _, report = relaxed(tmp_path, [piece], {"platform": "Reference"})
    assert report["platform"] == "Reference"

    honest = openmm.Platform.getPlatform

    def without_cuda(name: str) -> openmm.Platform:
        if name == "CUDA":
            raise openmm.OpenMMException("no CUDA device")
        return honest(name)

    monkeypatch.setattr(openmm.Platform, "getPlatform", without_cuda)
    _, _, report = relaxed(tmp_path, [piece], {"platform": "auto"})
    assert report["platform"] == "CPU"
    with pytest.raises(SnakefoldError, match="cannot use the platform CUDA: no CUDA device"):
        relaxed(tmp_path, [piece], {"platform": "CUDA"})
