"""Boltz's output files become a prediction in the common form, or the member's failure."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.boltz import Boltz
from snakefold.errors import MemberError
from snakefold.files import read_json
from snakefold.structures.io import read_model

# Boltz brings the copies together: A, C, B.
TASK = FoldTask(chains=tuple(ChainInputs(sequence=sequence) for sequence in ("AG", "X", "AG")))
RESIDUES = {"ALA": "N CA C O CB", "GLY": "N CA C O", "UNK": "N CA C O CB"}
HEADER = """data_model
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_seq_id
_atom_site.auth_seq_id
_atom_site.pdbx_PDB_ins_code
_atom_site.label_asym_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.label_entity_id
_atom_site.auth_asym_id
_atom_site.auth_comp_id
_atom_site.B_iso_or_equiv
_atom_site.pdbx_PDB_model_num
"""


def cif() -> str:
    """The atoms as Boltz writes them (python-modelcif), x counting them."""
    rows = []
    for chain, entity, names in (("A", 1, ("ALA", "GLY")), ("C", 1, ("ALA", "GLY")), ("B", 2, ("UNK",))):
        for number, name in enumerate(names, start=1):
            for atom in RESIDUES[name].split():
                place = f"{name} {number} {number} ? {chain} {len(rows)}.00000 1.50000 -2.00000 1 {entity}"
                rows.append(f"ATOM {len(rows) + 1} {atom[0]} {atom} . {place} {chain} {name} 50.107 1")
    return HEADER + "\n".join(rows) + "\n#\n"


def output(folder: Path) -> Path:
    folder.mkdir()
    (folder / "made.json").write_text(json.dumps({"chains": [0, 2, 1], "max_msa_seqs": 8192, "eased": False}))
    (folder / "member_model_0.cif").write_text(cif())
    scores = {"confidence_score": 0.7, "ptm": 0.61234, "iptm": 0.5, "pair_chains_iptm": {"0": {"0": 0.9}}}
    (folder / "confidence_member_model_0.json").write_text(json.dumps(scores))
    plddt = np.array([0.9, 0.8, 0.7, 0.6, 0.25], dtype=np.float32)
    np.savez_compressed(folder / "plddt_member_model_0.npz", plddt=plddt)
    pae = np.arange(25, dtype=np.float32).reshape(5, 5)
    np.savez_compressed(folder / "pae_member_model_0.npz", pae=pae)
    return folder


def test_chains_come_back_in_the_targets_order(tmp_path: Path) -> None:
    outcome = Boltz().take_in(TASK, output(tmp_path / "made"), tmp_path)
    assert outcome.facts == {"mean_confidence": 65.0, "iptm": 0.5}
    chains = read_model(tmp_path / "model.cif")
    assert [chain.sequence for chain in chains] == ["AG", "X", "AG"]
    assert [chain.atoms[0]["N"][0] for chain in chains] == [0, 18, 9]
    prediction = read_json(tmp_path / "prediction.json")
    assert prediction["confidence"] == [[90.0, 80.0], [25.0], [70.0, 60.0]]
    assert (prediction["ptm"], prediction["iptm"], prediction["notes"]) == (0.6123, 0.5, [])
    assert prediction["unmodelled"] == [[], [], []]
    pae = read_json(tmp_path / "pae.json")["pae"]
    assert pae[0] == [0, 1, 4, 2, 3]
    assert pae[2] == [20, 21, 24, 22, 23]


def test_a_shortened_msa_is_noted(tmp_path: Path) -> None:
    made = output(tmp_path / "made")
    (made / "made.json").write_text(json.dumps({"chains": [0, 2, 1], "max_msa_seqs": 512, "eased": True}))
    Boltz().take_in(TASK, made, tmp_path)
    assert "only 512 rows" in read_json(tmp_path / "prediction.json")["notes"][0]


def rewrite(name: str, change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda made: (made / name).write_text(change((made / name).read_text()))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda made: (made / "member_model_0.cif").unlink(), "cannot be read"),
        (lambda made: (made / "plddt_member_model_0.npz").write_bytes(b"PK\x03\x04cut off"), "cannot be read"),
        (rewrite("member_model_0.cif", lambda text: text.replace("UNK", "TRP")), "TRP 1 of chain B"),
        (rewrite("member_model_0.cif", lambda text: text.replace(" 0.00000 ", " nan ")), "no finite numbers"),
        (rewrite("confidence_member_model_0.json", lambda text: text[:20]), "cannot be read"),
        (rewrite("confidence_member_model_0.json", lambda text: text.replace("ptm", "pae")), "cannot be read"),
        (rewrite("made.json", lambda text: text.replace("[0, 2, 1]", "[0, 1]")), "are not the 3 of the target"),
        (
            lambda made: np.savez_compressed(made / "pae_member_model_0.npz", pae=np.zeros((4, 4))),
            "is not of 5 residues",
        ),
    ],
)
def test_what_is_no_prediction_is_the_members_failure(
    spoil: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    made = output(tmp_path / "made")
    spoil(made)
    with pytest.raises(MemberError, match=reason) as caught:
        Boltz().take_in(TASK, made, tmp_path)
    assert caught.value.kind == "bad_output"
