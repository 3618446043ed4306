from pathlib import Path

import gemmi
import pytest

from snakefold.config import Config
from snakefold.errors import FaultsError
from snakefold.sheet import check_sheets, read_targets

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
OTHER = "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRN"


def write_structure(path: Path, *chains: str, kind: gemmi.ResidueKind = gemmi.ResidueKind.AA) -> Path:
    """A structure with one CA (or P) atom for each residue."""
    model = gemmi.Model(1)
    for name, sequence in zip("ABCD", chains, strict=False):
        chain = gemmi.Chain(name)
        for number, letter in enumerate(sequence, start=1):
            residue = gemmi.Residue()
            residue.name = gemmi.expand_one_letter(letter, kind)
            residue.seqid = gemmi.SeqId(number, " ")
            atom = gemmi.Atom()
            atom.name, atom.element = (
                ("CA", gemmi.Element("C")) if kind == gemmi.ResidueKind.AA else ("P", gemmi.Element("P"))
            )
            atom.pos = gemmi.Position(3.8 * number, 0, 0)
            residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    structure = gemmi.Structure()
    structure.add_model(model)
    structure.setup_entities()
    path.write_text(structure.make_pdb_string())
    return path


def faults(folder: Path, row: str, columns: str) -> list[str]:
    """Faults of a sheet of one row when its files are opened, without the folder of the test."""
    sheet = folder / "s.tsv"
    sheet.write_text(f"id\tsequence\t{columns}\nt\t{row}\n")
    targets, found = check_sheets([sheet], Config())
    assert bool(found) != bool(targets)
    return [fault.replace(f"{folder}/", "") for fault in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f">q\n{UBIQUITIN}\n>h\n{'-' * 70}abcLRLRGG\n", None),
        (f"#A3M#\n>q\n{UBIQUITIN[:30]}\n{UBIQUITIN[30:]}\n", None),
        (
            f"# STOCKHOLM 1.0\n#=GF ID x\nq {UBIQUITIN[:40]}..\nh {'A' * 42}\n\nq {UBIQUITIN[40:]}\nh {'-' * 36}\n//\n",
            None,
        ),
        (
            f">q\n{UBIQUITIN[:5]}W{UBIQUITIN[6:]}\n",
            "its first sequence is not the chain's: W instead of K at position 6; ",
        ),
        (f">q\n{UBIQUITIN[:-1]}\n", "the end instead of G at position 76; "),
        (f">q\n{UBIQUITIN}\n>h\nABC\n", "the sequence at line 3 has 3 columns, the query 76; "),
        ("", "is empty; "),
        ("# STOCKHOLM 1.0\n//\n", "holds no sequence; "),
        (f"# STOCKHOLM 1.0\nq {UBIQUITIN}\nh AA\n//\n", "h has 2 columns, q has 76; "),
        (f"# STOCKHOLM 1.0\nh {OTHER}\n//\n", "its first sequence is not the chain's: K instead of M at position 1; "),
    ],
)
def test_an_msa_must_be_one_of_its_chain(tmp_path: Path, text: str, expected: str | None) -> None:
    (tmp_path / "u.msa").write_text(text)
    found = faults(tmp_path, f"{UBIQUITIN}\tu.msa", "msa")
    if expected is None:
        assert not found
    else:
        (fault,) = found
        assert fault.startswith("s.tsv:2: msa: u.msa: ")
        assert expected in fault


def test_a_template_must_be_a_structure_of_a_protein(tmp_path: Path) -> None:
    write_structure(tmp_path / "good.pdb", OTHER)
    write_structure(tmp_path / "dna.pdb", "ACGTACGTACGT", kind=gemmi.ResidueKind.DNA)
    (tmp_path / "text.pdb").write_text("no structure\n")
    assert not faults(tmp_path, f"{UBIQUITIN}\tgood.pdb", "template")
    for name in ("dna.pdb", "text.pdb"):
        (fault,) = faults(tmp_path, f"{UBIQUITIN}\t{name}", "template")
        assert fault.startswith(f"s.tsv:2: template: {name}: ")


def test_a_reference_matches_if_each_chain_finds_its_own_in_any_order(tmp_path: Path) -> None:
    write_structure(tmp_path / "r.pdb", OTHER, UBIQUITIN)
    assert not faults(tmp_path, f"{UBIQUITIN}:{OTHER}:{UBIQUITIN}\tr.pdb", "reference")


@pytest.mark.parametrize(
    "sequence",
    [
        UBIQUITIN[10:60],  # a part of the target
        f"GSHMGSHHHHHHSSG{UBIQUITIN}",  # with a tag
        UBIQUITIN[:20] + UBIQUITIN[32:],  # a loop without coordinates
        UBIQUITIN.replace("K", "R", 6),  # six mutations of 76
    ],
)
def test_a_reference_may_lack_residues_have_tags_and_a_few_mutations(tmp_path: Path, sequence: str) -> None:
    write_structure(tmp_path / "r.pdb", sequence)
    assert not faults(tmp_path, f"{UBIQUITIN}\tr.pdb", "reference")


def test_a_reference_of_another_protein_is_a_fault_that_tells_the_nearest_identity(tmp_path: Path) -> None:
    homologue = "".join("A" if index % 4 == 0 else letter for index, letter in enumerate(UBIQUITIN))
    write_structure(tmp_path / "r.pdb", OTHER, homologue)
    (fault,) = faults(tmp_path, f"{UBIQUITIN}\tr.pdb", "reference")
    assert fault.startswith("s.tsv:2: reference: r.pdb does not show the target: ")
    same = sum(a == b for a, b in zip(UBIQUITIN, homologue, strict=True)) / len(UBIQUITIN)
    assert f"the nearest, chain B, is {same:.0%} identical over 76 residues; " in fault


def test_a_reference_that_lacks_one_chain_of_the_complex_names_it(tmp_path: Path) -> None:
    write_structure(tmp_path / "r.pdb", UBIQUITIN)
    (fault,) = faults(tmp_path, f"{UBIQUITIN}:{OTHER}\tr.pdb", "reference")
    assert "r.pdb does not show chain 2 of the target: " in fault


def test_a_bound_peptide_is_neither_a_reference_nor_the_nearest_chain(tmp_path: Path) -> None:
    write_structure(tmp_path / "r.pdb", OTHER, UBIQUITIN[20:35])
    (fault,) = faults(tmp_path, f"{UBIQUITIN}\tr.pdb", "reference")
    assert "the nearest, chain A, is " in fault


def test_a_short_target_may_have_a_reference_as_short(tmp_path: Path) -> None:
    write_structure(tmp_path / "r.pdb", UBIQUITIN[:24])
    assert not faults(tmp_path, f"{UBIQUITIN[:24]}\tr.pdb", "reference")


def test_parsing_alone_opens_none_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "u.msa").write_text("not an MSA")
    sheet = tmp_path / "s.tsv"
    sheet.write_text(f"id\tsequence\tmsa\treference\nt\t{UBIQUITIN}\tu.msa\tu.msa\n")
    assert len(read_targets([sheet], engines=["template"], seed=0)) == 1
    with pytest.raises(FaultsError) as caught:
        read_targets([sheet], engines=["template"], seed=0, deep=True)
    assert [fault.split(": ")[1] for fault in caught.value.faults] == ["msa", "reference"]
