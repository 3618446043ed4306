"""ModelCIF: every reader finds the same coordinates and confidence, and the file says how the model was made."""

from pathlib import Path
from typing import Any

import biotite.structure.io.pdbx as biotite_pdbx
import gemmi
import modelcif
import modelcif.reader
import numpy as np
import pytest
from Bio.PDB.MMCIFParser import MMCIFParser

from snakefold.structures.io import ModelChain, read_assembly, read_chains, read_model
from snakefold.structures.modelcif import TemplateUse, write_modelcif

from .structure_helpers import MINI, moved, rotation

ARGUMENTS: dict[str, Any] = {
    "title": "protease predicted by template",
    "engine": "template",
    "software": {"snakefold": "0.1.0", "openmm": "8.3.1"},
    "templates": (),
    "databases": [{"name": "mini", "version": "2026.1", "digest": "abc", "licence": "CC0", "release": "2026-01-31"}],
    "confidence_kind": "estimated lDDT",
    "scores": {"mean_confidence": 71.25, "ptm": None, "iptm": None, "relaxed": True},
}


def dimer() -> list[ModelChain]:
    """HIV protease, its first five residues left out, with a confidence that names the residue."""
    chains = []
    for number, chain in enumerate(read_assembly(MINI / "targets" / "hiv_protease.cif.gz")):
        atoms = {index: residue for index, residue in chain.residues.items() if index >= 5}
        confidence = [round(50 + number / 4 + index / 8, 3) if index in atoms else None for index in range(99)]
        model = ModelChain(sequence=chain.sequence, atoms=atoms, confidence=confidence)
        chains.append(moved(model, rotation(3), np.array([-0.00001, 5.0, -100.0])))
    return chains


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_modelcif(tmp_path / "model.cif", dimer(), **ARGUMENTS)
    return tmp_path / "model.cif"


Atoms = dict[tuple[str, int, str], tuple[float, ...]]


def expected_atoms() -> Atoms:
    return {
        ("AB"[number], index + 1, name): (
            *(round(float(value), 3) + 0.0 for value in xyz),
            chain.confidence[index] or 0.0,
        )
        for number, chain in enumerate(dimer())
        for index, residue in chain.atoms.items()
        for name, xyz in residue.items()
    }


def with_gemmi(path: Path) -> Atoms:
    return {
        (chain.name, residue.seqid.num or 0, atom.name): (*atom.pos.tolist(), atom.b_iso)
        for chain in gemmi.read_structure(str(path))[0]
        for residue in chain
        for atom in residue
    }


def with_biotite(path: Path) -> Atoms:
    file = biotite_pdbx.CIFFile.read(path)
    array: Any = biotite_pdbx.get_structure(file, model=1, use_author_fields=False, extra_fields=["b_factor"])
    return {
        (str(atom.chain_id), int(atom.res_id), str(atom.atom_name)): (*map(float, atom.coord), float(atom.b_factor))
        for atom in array
    }


def with_biopython(path: Path) -> Atoms:
    structure: Any = MMCIFParser(QUIET=True).get_structure("model", path)
    return {
        (atom.get_full_id()[2], atom.get_full_id()[3][1], atom.get_name()): (
            *(float(x) for x in atom.get_coord()),
            atom.get_bfactor(),
        )
        for atom in structure[0].get_atoms()
    }


def with_read_model(path: Path) -> Atoms:
    return {
        ("AB"[number], index + 1, name): (*(float(x) for x in xyz), chain.confidence[index] or 0.0)
        for number, chain in enumerate(read_model(path))
        for index, residue in chain.atoms.items()
        for name, xyz in residue.items()
    }


@pytest.mark.parametrize(
    "read", [with_gemmi, with_biotite, with_biopython, with_read_model], ids=lambda each: each.__name__
)
def test_every_reader_finds_equal_coordinates_and_confidence(path, read):
    found, expected = read(path), expected_atoms()
    assert found.keys() == expected.keys()
    assert np.array([found[key] for key in expected]) == pytest.approx(np.array(list(expected.values())), abs=2e-5)


def test_the_sequence_holds_the_residues_that_were_not_modelled(path):
    chains = read_chains(path)
    assert [chain.sequence for chain in chains] == [chain.sequence for chain in dimer()]
    assert [min(chain.residues) for chain in chains] == [5, 5]


def test_equal_arguments_give_equal_bytes(path, tmp_path):
    write_modelcif(tmp_path / "again.cif", dimer(), **ARGUMENTS)
    assert (tmp_path / "again.cif").read_bytes() == path.read_bytes()
    assert b" -0.000 " not in path.read_bytes()


def block(path: Path) -> gemmi.cif.Block:
    return gemmi.cif.read(str(path)).sole_block()


def column(path: Path, category: str, name: str) -> list[str]:
    return [gemmi.cif.as_string(row[0]) for row in block(path).find(f"_{category}.", [name])]


def test_estimated_lddt_is_never_called_plddt(path):
    names, types = column(path, "ma_qa_metric", "name"), column(path, "ma_qa_metric", "type")
    assert names == ["mean estimated lDDT", "estimated lDDT"]
    assert types == ["other", "other"]
    assert all("not a neural network" in text for text in column(path, "ma_qa_metric", "type_other_details"))
    assert column(path, "ma_qa_metric_global", "metric_value") == ["71.250"]
    assert len(column(path, "ma_qa_metric_local", "metric_value")) == 2 * 94


def test_plddt_and_ptm_of_a_neural_engine_are_the_standard_metrics(tmp_path):
    scores = {"mean_confidence": 80.0, "ptm": 0.75, "iptm": 0.5}
    arguments = {**ARGUMENTS, "engine": "esmfold", "confidence_kind": "pLDDT", "scores": scores}
    write_modelcif(tmp_path / "model.cif", dimer(), **arguments)
    assert column(tmp_path / "model.cif", "ma_qa_metric", "type") == ["pLDDT", "pTM", "ipTM", "pLDDT"]
    assert column(tmp_path / "model.cif", "ma_qa_metric_global", "metric_value") == ["80.000", "0.750", "0.500"]
    assert column(tmp_path / "model.cif", "ma_model_list", "model_type") == ["Ab initio model"]
    assert column(tmp_path / "model.cif", "ma_protocol_step", "method_type") == ["modeling"]


def test_templates_software_databases_and_steps_are_recorded(tmp_path):
    chains = dimer()
    sequence = chains[0].sequence
    use = TemplateUse(
        target_chain=1,
        entry="1hvr",
        chain="B-2",
        sequence="GG" + sequence[10:60],
        copied=True,
        target_row=sequence,
        template_row="-" * 10 + sequence[10:60] + "-" * 39,
        template_start=2,
        identity=0.985,
        evalue=1e-20,
    )
    own = TemplateUse(target_chain=0, entry="mine", chain="A", sequence="ACD", copied=False, is_pdb_entry=False)
    write_modelcif(tmp_path / "model.cif", chains, **{**ARGUMENTS, "templates": [use, own]})
    path = tmp_path / "model.cif"
    assert column(path, "ma_template_ref_db_details", "db_accession_code") == ["1HVR"]
    assert column(path, "ma_template_details", "template_auth_asym_id") == ["B", "A"]
    assert column(path, "ma_template_details", "template_origin") == ["reference database", "customized"]
    assert column(path, "ma_template_poly_segment", "residue_number_begin") == ["3"]
    assert column(path, "ma_template_poly_segment", "residue_number_end") == ["52"]
    assert column(path, "ma_alignment_details", "percent_sequence_identity") == ["98.500"]
    assert column(path, "ma_alignment", "sequence") == [use.target_row, use.template_row]
    assert column(path, "ma_data_ref_db", "version") == ["2026.1 sha256:abc"]
    assert column(path, "ma_data_ref_db", "release_date") == ["2026-01-31"]
    assert dict(zip(column(path, "software", "name"), column(path, "software", "version"), strict=True)) == {
        "snakefold": "0.1.0",
        "openmm": "8.3.1",
    }
    assert column(path, "ma_protocol_step", "method_type") == ["template search", "modeling", "model refinement"]
    assert column(path, "ma_model_list", "model_type") == ["Homology model"]


@pytest.mark.parametrize(("copied", "kind"), [(False, "Ab initio model"), (True, "Homology model")])
def test_a_model_is_by_homology_only_if_templates_gave_residues_and_is_always_made_of_the_databases(
    tmp_path, copied, kind
):
    chains = dimer()
    use = TemplateUse(target_chain=0, entry="1hvr", chain="A", sequence=chains[0].sequence, copied=copied)
    write_modelcif(tmp_path / "model.cif", chains, **{**ARGUMENTS, "templates": [use]})
    assert column(tmp_path / "model.cif", "ma_model_list", "model_type") == [kind]
    with (tmp_path / "model.cif").open() as handle:
        (system,) = modelcif.reader.read(handle)
    _, modelling, _ = system.protocols[0].steps
    names = [data.name for data in modelling.input_data if not isinstance(data, modelcif.Entity)]
    assert names == ["mini", "1hvr chain A"]


def test_python_modelcif_reads_back_what_it_was_told(path):
    with path.open() as handle:
        (system,) = modelcif.reader.read(handle)
    assert system.title == ARGUMENTS["title"]
    assert [unit.id for unit in system.asym_units] == ["A", "B"]
    assert [step.name for step in system.protocols[0].steps] == ["modelling with template", "relaxation"]
    ((model,),) = system.model_groups
    assert len(list(model.get_atoms())) == len(expected_atoms())
    assert len(model.qa_metrics) == 1 + 2 * 94
