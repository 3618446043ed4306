"""The template engine from inputs to files."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import gemmi
import numpy as np
import pytest

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.template import TemplateEngine
from snakefold.errors import MemberError
from snakefold.relax import relax_model
from snakefold.search.msa import search_msas
from snakefold.structures.compare import compare
from snakefold.structures.geometry import chain_breaks, find_clashes, wrong_chirality
from snakefold.structures.io import read_chains, read_model
from tests.unit.structure_helpers import MINI, chosen_templates

TRYPSIN = MINI / "targets" / "trypsin.cif.gz"
UROKINASE = MINI / "templates" / "4zhl.cif.gz"
DIMER = MINI / "targets" / "hiv_protease.cif.gz"
DIMER_TEMPLATE = MINI / "templates" / "1hvr.cif.gz"
INHIBITOR = MINI / "templates" / "5pti.cif.gz"


def predict(folder: Path, sequences: list[str], template: Path, **parameters: object) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    chains = tuple(ChainInputs(sequence=sequence) for sequence in sequences)
    outcome = TemplateEngine().predict(FoldTask(chains=chains, template=template, parameters=parameters), folder)
    assert outcome.status == "done", outcome.reason
    return json.loads((folder / "prediction.json").read_text())


@pytest.fixture(scope="module")
def trypsin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trypsin")
    sequence = read_chains(TRYPSIN)[0].sequence
    databases = {"proteins": MINI / "sequences" / "proteins.fasta.gz"}
    search_msas({"query": sequence}, databases, scratch=folder, on_result=lambda *_: None)
    chain = ChainInputs(sequence=sequence, msa=folder / "query" / "msa.a3m")
    outcome = TemplateEngine().predict(FoldTask(chains=(chain,), template=UROKINASE), folder)
    assert outcome.status == "done"
    return folder


def test_trypsin_on_urokinase_is_right_in_its_fold_and_sound(trypsin: Path) -> None:
    model = read_model(trypsin / "model.cif")
    scores = compare(model, TRYPSIN)
    assert scores.tm_score > 0.90
    assert scores.lddt_ca > 0.80
    assert len(find_clashes(model)) <= 2
    assert wrong_chirality(model) == []
    assert chain_breaks(model) == []


def test_the_files_say_what_the_model_is(trypsin: Path) -> None:
    found = json.loads((trypsin / "prediction.json").read_text())
    [model] = read_model(trypsin / "model.cif")
    assert found["confidence_kind"] == "estimated lDDT"
    assert found["ptm"] is None and found["iptm"] is None
    [confidence] = found["confidence"]
    assert [value is None for value in confidence] == [i not in model.atoms for i in range(len(model.sequence))]
    known = [value for value in confidence if value is not None]
    assert found["mean_confidence"] == pytest.approx(sum(known) / len(known), abs=0.01)
    assert model.confidence == pytest.approx(confidence, abs=0.001)
    assert found["too_far"] is False
    [template] = found["templates"]
    assert template["chain_index"] == 0
    assert template["ranges"] and template["ranges"][-1][1] <= len(model.sequence)
    assert (template["entry"], template["chain"]) == ("given", "U")
    assert 0.35 < template["identity"] < 0.5 and 0.8 < template["coverage"] <= 1
    assert found["invented"][0] and all(0 <= a < b <= len(model.sequence) for a, b in found["invented"][0])
    _, top, _, bottom = (trypsin / "alignment.fasta").read_text().split("\n")[:4]
    assert len(top) == len(bottom)
    assert top.replace("-", "") == model.sequence
    assert bottom.replace("-", "") in read_chains(UROKINASE)[0].sequence


def test_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from snakefold.engines.base import *\n"
        "from snakefold.engines.template.model import predict\n"
        "chain = ChainInputs(sequence=sys.argv[1]); Path(sys.argv[3]).mkdir()\n"
        "predict(FoldTask(chains=(chain,), template=Path(sys.argv[2])), Path(sys.argv[3]))\n"
    )
    # Mutated and with a loop of another length, so that every stage has work to do.
    sequence = read_chains(INHIBITOR)[0].sequence
    sequence = (sequence[:24] + "GGSG" + sequence[26:]).replace("K", "M").replace("Y", "L")
    digests = []
    for name in ("first", "second"):
        folder = tmp_path / name
        root = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-c", code, sequence, str(INHIBITOR), str(folder)], check=True, cwd=root)
        digests.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())})
    assert digests[0] == digests[1]
    assert set(digests[0]) == {"model.cif", "prediction.json", "alignment.fasta"}


def test_a_homodimer_comes_from_the_templates_assembly(tmp_path: Path) -> None:
    sequence = read_chains(DIMER)[0].sequence
    found = predict(tmp_path, [sequence, sequence], DIMER_TEMPLATE)
    model = read_model(tmp_path / "model.cif")
    scores = compare(model, DIMER)
    assert scores.tm_score > 0.95
    assert scores.dockq is not None and scores.dockq > 0.8
    assert len(find_clashes(model)) <= 2
    assert len(found["confidence"]) == 2  # type: ignore[arg-type]


def test_unknown_residues_have_stand_ins_and_tails_are_cut_or_kept(tmp_path: Path) -> None:
    core = read_chains(INHIBITOR)[0].sequence
    sequence = "GSHMKLAEQK" * 2 + core[:9] + "X" + core[10:29] + "U" + core[30:]
    cut = predict(tmp_path / "cut", [sequence], INHIBITOR)
    kept = predict(tmp_path / "kept", [sequence], INHIBITOR, keep_tails=True)
    [whole] = read_model(tmp_path / "kept" / "model.cif")
    [part] = read_model(tmp_path / "cut" / "model.cif")
    assert len(whole.atoms) == len(sequence)
    assert kept["unmodelled"] == [[]]
    [[[start, end]]] = cut["unmodelled"]  # type: ignore[misc]
    assert start == 0 and 12 <= end <= 20
    assert set(part.atoms) == set(range(end, len(sequence)))
    assert (part.sequence[29], part.sequence[49]) == ("A", "C")
    assert {"Chain A: U was modelled as C.", "Chain A: X was modelled as A."} <= set(cut["notes"])  # type: ignore[arg-type]
    assert wrong_chirality([whole]) == [] and chain_breaks([whole]) == []


def test_ends_of_three_residues_are_built_and_marked_as_invented(tmp_path: Path) -> None:
    sequence = "GSH" + read_chains(INHIBITOR)[0].sequence + "KLEE"
    found = predict(tmp_path, [sequence], INHIBITOR)
    [model] = read_model(tmp_path / "model.cif")
    assert found["unmodelled"] == [[[61, 65]]]
    assert found["invented"] == [[[0, 3]]]
    assert set(model.atoms) == set(range(61))
    assert chain_breaks([model]) == [] and len(find_clashes([model])) <= 1
    confidence = found["confidence"][0]  # type: ignore[index]
    assert max(confidence[:3]) < min(confidence[10:50])


def odd_inhibitor() -> gemmi.Structure:
    """The inhibitor with entities, sequence and numbers in it, to be spoilt by a test."""
    structure = gemmi.read_structure(str(INHIBITOR))
    structure.setup_entities()
    structure.assign_label_seq_id()
    return structure


def write_mmcif(structure: gemmi.Structure, path: Path) -> Path:
    structure.make_mmcif_document().write_file(str(path))
    return path


def test_odd_entries_can_be_templates(tmp_path: Path) -> None:
    """Modified residues, insertion codes, gaps in the numbers, alternate conformations, models, a long chain name."""
    structure = odd_inhibitor()
    chain = structure[0][0]
    sequence = read_chains(INHIBITOR)[0].sequence
    chain.name = "Heavy"
    methionine = next(residue for residue in chain if residue.name == "MET")
    methionine.name = "MSE"
    sulphur = methionine["SD"][0]
    sulphur.name, sulphur.element = "SE", gemmi.Element("Se")
    serine = next(residue for residue in chain if residue.name == "SER")
    serine.name = "SEP"
    phosphorus = serine["OG"][0].clone()
    phosphorus.name, phosphorus.element = "P", gemmi.Element("P")
    phosphorus.pos = gemmi.Position(phosphorus.pos.x + 1.6, phosphorus.pos.y, phosphorus.pos.z)
    serine.add_atom(phosphorus)
    entity = structure.get_entity_of(chain.get_polymer())
    assert entity is not None
    entity.full_sequence = [{"MET": "MSE", "SER": "SEP"}.get(name, name) for name in entity.full_sequence]
    chain[20].seqid = gemmi.SeqId(20, "A")
    for residue in list(chain)[21:58]:
        residue.seqid = gemmi.SeqId((residue.seqid.num or 0) + 100, " ")
    for atom in list(chain[15]):
        atom.altloc = "A"
        atom.occ = 0.6
        other = atom.clone()
        other.altloc, other.occ = "B", 0.4
        other.pos = gemmi.Position(other.pos.x + 1, other.pos.y, other.pos.z)
        chain[15].add_atom(other)
    chain[30].remove_atom("O", "\0")
    structure.add_model(structure[0].clone())
    for residue in structure[1][0]:
        for atom in residue:
            atom.pos = gemmi.Position(atom.pos.y, atom.pos.z, -2 * atom.pos.x)
    structure.renumber_models()
    found = predict(tmp_path / "odd", [sequence], write_mmcif(structure, tmp_path / "odd.cif"))
    [model] = read_model(tmp_path / "odd" / "model.cif")
    assert found["templates"][0]["chain"] == "Heavy"  # type: ignore[index]
    assert found["templates"][0]["identity"] == 1  # type: ignore[index]
    assert set(model.atoms) == set(range(len(sequence)))
    assert compare([model], INHIBITOR).lddt > 0.9
    # Modified residues lend their side chains to their parents.
    truth = read_chains(INHIBITOR)[0].residues
    for index, name in ((sequence.index("M"), "SD"), (sequence.index("S"), "OG")):
        assert np.linalg.norm(model.atoms[index][name] - truth[index][name]) < 1


def test_a_template_of_the_wrong_hand_or_with_little_of_a_backbone_gives_no_such_residues(tmp_path: Path) -> None:
    """Mirrored residues are never copied, whatever they are called; residues of CA alone are built."""
    structure = odd_inhibitor()
    chain = structure[0][0]
    residues = {residue.label_seq: residue for residue in chain.get_polymer()}
    for number in (16, 25):
        n, ca, c, cb = (np.array(residues[number][name][0].pos.tolist()) for name in ("N", "CA", "C", "CB"))
        normal = np.cross(n - ca, c - ca)
        normal /= np.linalg.norm(normal)
        mirrored = cb - 2 * float((cb - ca) @ normal) * normal
        residues[number]["CB"][0].pos = gemmi.Position(*mirrored.tolist())
    for name in ("N", "C", "O"):
        residues[40].remove_atom(name, "\0")
    sequence = read_chains(INHIBITOR)[0].sequence
    found = predict(tmp_path / "out", [sequence], write_mmcif(structure, tmp_path / "odd.cif"))
    [model] = read_model(tmp_path / "out" / "model.cif")
    invented = {index for start, end in found["invented"][0] for index in range(start, end)}  # type: ignore[index]
    assert {15, 24, 39} <= invented
    assert wrong_chirality([model]) == []
    assert set(model.atoms) == set(range(len(sequence)))


def test_a_mirrored_template_is_refused(tmp_path: Path) -> None:
    """Of it only glycines could be copied; a model made of loops between them would be no model."""
    structure = gemmi.read_structure(str(INHIBITOR))
    structure.setup_entities()
    for atom in (atom for chain in structure[0] for residue in chain for atom in residue):
        atom.pos = gemmi.Position(-atom.pos.x, atom.pos.y, atom.pos.z)
    with pytest.raises(MemberError, match="L-amino acids") as error:
        predict(
            tmp_path / "out", [read_chains(INHIBITOR)[0].sequence], write_mmcif(structure, tmp_path / "mirrored.cif")
        )
    assert error.value.kind == "bad_template"


def test_a_hit_of_alpha_carbons_alone_gives_way_to_the_next(tmp_path: Path) -> None:
    structure = gemmi.read_structure(str(INHIBITOR))
    structure.setup_entities()
    for residue in (residue for chain in structure[0] for residue in chain):
        for number in reversed(range(len(residue))):
            if residue[number].name != "CA":
                del residue[number]
    write_mmcif(structure, tmp_path / "1aaa.cif")
    (tmp_path / "1bbb.cif.gz").write_bytes(INHIBITOR.read_bytes())
    sequence = read_chains(INHIBITOR)[0].sequence
    same = {"chain": "A", "evalue": 1e-20, "score": 99, "coverage": 1, "pairs": [(i, i, 0.9) for i in range(58)]}
    hits = [
        same | {"entry": "1aaa", "file": "1aaa.cif", "identity": 1.0},
        same | {"entry": "1bbb", "file": "1bbb.cif.gz", "identity": 0.9},
    ]
    (tmp_path / "hits.json").write_text(json.dumps({"hits": hits}))
    chosen = chosen_templates(FoldTask(chains=(ChainInputs(sequence=sequence, templates=tmp_path),)))
    assert [template.hit.entry for template in chosen] == ["1bbb"]


def test_two_chains_in_one_place_are_no_complex(tmp_path: Path) -> None:
    structure = gemmi.read_structure(str(INHIBITOR))
    structure.setup_entities()
    structure.remove_ligands_and_waters()
    structure.assemblies.clear()
    again = structure[0][0].clone()
    again.name = "B"
    structure[0].add_chain(again)
    sequence = read_chains(INHIBITOR)[0].sequence
    with pytest.raises(MemberError, match="in contact") as error:
        predict(tmp_path / "out", [sequence, sequence], write_mmcif(structure, tmp_path / "twice.cif"))
    assert error.value.kind == "bad_template"


@pytest.mark.parametrize("longer", ["target", "template"])
def test_one_sequence_may_be_five_times_the_other(tmp_path: Path, longer: str) -> None:
    """A domain within a long target, and a short target on one domain of a long template (urokinase's second half)."""
    whole = read_chains(UROKINASE)[0]
    if longer == "template":
        sequence, path, least = whole.sequence[150:200], UROKINASE, 40
    else:
        filling = "GSTEQKDNPA" * 12
        sequence = filling + read_chains(INHIBITOR)[0].sequence + filling
        path, least = INHIBITOR, 50
    found = predict(tmp_path, [sequence], path)
    [model] = read_model(tmp_path / "model.cif")
    assert least <= len(model.atoms) <= 75
    assert len(found["unmodelled"][0]) <= 2  # type: ignore[index]
    assert chain_breaks([model]) == []
    truth = whole.residues if longer == "template" else read_chains(INHIBITOR)[0].residues
    shift = 150 if longer == "template" else -120
    kept = [index for index in sorted(model.atoms) if index + shift in truth]
    moved = np.array([model.atoms[index]["CA"] for index in kept])
    assert np.linalg.norm(moved - [truth[index + shift]["CA"] for index in kept], axis=1).mean() < 1.5


def test_a_deletion_of_forty_residues_is_bridged_or_left_open(tmp_path: Path) -> None:
    whole = read_chains(UROKINASE)[0].sequence
    sequence = whole[:100] + whole[140:]
    predict(tmp_path, [sequence], UROKINASE)
    [model] = read_model(tmp_path / "model.cif")
    assert len(model.atoms) > 180
    assert wrong_chirality([model]) == [] and chain_breaks([model]) == []
    for index in sorted(model.atoms)[:-1]:
        if index + 1 in model.atoms:
            assert np.linalg.norm(model.atoms[index + 1]["N"] - model.atoms[index]["C"]) < 1.6


def test_a_chain_without_a_template_is_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "hits.json").write_text('{"hits": []}')
    task = FoldTask(chains=(ChainInputs(sequence="MQIFVKTLTGKTITLEVEPSDTIENVKAK", templates=tmp_path),))
    outcome = TemplateEngine().predict(task, tmp_path / "out")
    assert (outcome.status, outcome.kind) == ("skipped", "no_template")
    assert outcome.reason == "no template found for chain 1 (29 residues)"
    assert not (tmp_path / "out").exists()


def test_a_model_with_a_hole_is_relaxed_without_joining_or_renumbering_it(tmp_path: Path) -> None:
    core = read_chains(INHIBITOR)[0].sequence
    # An insertion of 45 residues in a loop: longer than any that is built.
    sequence = core[:25] + "GSAST" * 9 + core[25:]
    found = predict(tmp_path / "model", [sequence], INHIBITOR)
    [before] = read_model(tmp_path / "model" / "model.cif")
    [[[start, end]]] = found["unmodelled"]  # type: ignore[misc]
    assert start <= 25 and end >= 70
    outcome = relax_model(tmp_path / "model" / "model.cif", tmp_path, parameters={}, seed=0)
    assert outcome.status == "done"
    [after] = read_model(tmp_path / "relaxed.cif")
    expected = {index: set(atoms) for index, atoms in before.atoms.items()}
    # The chain's end is completed; the ends beside the hole are none.
    expected[len(sequence) - 1].add("OXT")
    assert {index: set(atoms) for index, atoms in after.atoms.items()} == expected
    assert set(after.atoms) == set(range(start)) | set(range(end, len(sequence)))
    assert np.linalg.norm(after.atoms[end]["N"] - after.atoms[start - 1]["C"]) > 2
    assert wrong_chirality([after]) == []


def test_an_unknown_parameter_is_an_error(tmp_path: Path) -> None:
    task = FoldTask(chains=(ChainInputs(sequence="A" * 30),), parameters={"kep_tails": True})
    with pytest.raises(MemberError, match="kep_tails") as error:
        TemplateEngine().predict(task, tmp_path)
    assert error.value.kind == "bad_parameter"
