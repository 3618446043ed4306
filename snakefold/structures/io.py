"""Protein chains out of mmCIF and PDB files, and models into them.

`read_chains` and `read_assembly` take any entry as the world has it (altlocs, modified residues, insertion codes,
missing residues). `write_model` and `read_model` are the exact form in which snakefold's steps hand models on.
"""

import gzip
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from snakefold.errors import SnakefoldError
from snakefold.files import write_text
from snakefold.structures.residues import (
    BACKBONE,
    LETTER_OF_NAME,
    NAME_OF_LETTER,
    element_of,
    heavy_atoms_of,
    output_order,
)

_CHAIN_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# Selenium analogues become their sulphur parents, as AlphaFold and most modelling programs treat them.
_RENAMED_ATOMS = {("MSE", "SE"): "SD", ("SEC", "SE"): "SG"}
# What gemmi's table does not tell: the rare amino acids, and protonation states as force fields name them.
_PARENT_LETTERS = {"SEC": "C", "PYL": "K", "ASH": "D", "CYM": "C", "CYX": "C", "GLH": "E", "LYN": "K"} | dict.fromkeys(
    ("HID", "HIE", "HIP", "HSD", "HSE", "HSP"), "H"
)

_PDB_MAX_SERIAL = 99_999
_PDB_MAX_CHAINS = len(_CHAIN_LETTERS)
_PDB_MAX_RESIDUES = 9_999


@dataclass(frozen=True, kw_only=True)
class PolymerChain:
    """One protein chain of an entry.

    `name` is the author's chain name. Further copies in an assembly are named `A-2`, `A-3` and carry the author's
    name in `copy_of`. `sequence` is the full sequence of the experiment (seqres) in the twenty letters and X, modified
    residues as their parents; where the file declares no sequence, it is that of the residues with coordinates.
    `residues` maps the 0-based index in `sequence` to atom name -> position (float64, shape (3,), angstrom): one
    conformation, without hydrogens, and with the parent's atoms only (selenomethionine's SE is SD). Of a D-amino acid
    there is the backbone only: its side chain lies where that of its L-parent cannot.
    """

    name: str
    sequence: str
    residues: dict[int, dict[str, np.ndarray]]
    copy_of: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelChain:
    """One chain of a model.

    `atoms` maps the 0-based index in `sequence` to atom name -> position (float64, shape (3,), angstrom); residues
    that were not modelled are absent. `confidence` has one value (0-100) or None for each residue of `sequence`.
    """

    sequence: str
    atoms: Mapping[int, Mapping[str, np.ndarray]]
    confidence: Sequence[float | None]

    def __post_init__(self) -> None:
        if len(self.confidence) != len(self.sequence):
            raise ValueError(f"{len(self.confidence)} confidence values for {len(self.sequence)} residues")
        outside = [index for index in self.atoms if not 0 <= index < len(self.sequence)]
        if outside:
            raise ValueError(f"residue index {outside[0]} lies outside a sequence of {len(self.sequence)} residues")


def chain_name(index: int) -> str:
    """Name of a model's chain by its 0-based index: A-Z, a-z, 0-9, then AA, AB, ..."""
    letters = len(_CHAIN_LETTERS)
    if index < letters:
        return _CHAIN_LETTERS[index]
    return chain_name(index // letters - 1) + _CHAIN_LETTERS[index % letters]


def read_chains(path: Path) -> tuple[PolymerChain, ...]:
    """Protein chains of the first model of an mmCIF or PDB file (`.gz` too), in the order of the file.

    Raises SnakefoldError if the file cannot be read or holds no protein.
    """
    return tuple(chain for _, chain in _protein_chains(path, _read_structure(path)))


def read_assembly(path: Path) -> tuple[PolymerChain, ...]:
    """Protein chains of biological assembly 1, its operators applied; the asymmetric unit if the file gives none.

    The first copy of each chain keeps the author's name; see PolymerChain for the others.
    Raises SnakefoldError if the file cannot be read or holds no protein.
    """
    structure = _read_structure(path)
    chains = _protein_chains(path, structure)
    assemblies = list(structure.assemblies)
    if not assemblies:
        return tuple(chain for _, chain in chains)
    assembly = next((assembly for assembly in assemblies if assembly.name == "1"), assemblies[0])
    copies: list[PolymerChain] = []
    count: dict[str, int] = defaultdict(int)
    for generator in assembly.generators:
        for operator in generator.operators:
            for subchain, chain in chains:
                # mmCIF lists label_asym ids, PDB's REMARK 350 the author's chain names.
                listed = subchain in generator.subchains if generator.subchains else chain.name in generator.chains
                if listed:
                    count[chain.name] += 1
                    copies.append(_moved_copy(chain, operator.transform, count[chain.name]))
    return tuple(copies) or tuple(chain for _, chain in chains)


def write_model(path: Path, chains: Sequence[ModelChain]) -> None:
    """Write a model as mmCIF, atomically; equal models give equal bytes.

    Chains are named A, B, C ...; `label_seq_id` = `auth_seq_id` = 1-based index in the chain's sequence; the B-factor
    holds the confidence (0 where it is None). Positions and B-factors have 3 decimals. Equal sequences share an entity.
    """
    document = gemmi.cif.Document()
    block = document.add_new_block("model")
    block.set_pair("_entry.id", "model")
    entities = list(dict.fromkeys(chain.sequence for chain in chains))
    number_of = {sequence: str(number) for number, sequence in enumerate(entities, start=1)}
    copies = Counter(chain.sequence for chain in chains)
    _add_loop(
        block,
        "_entity.",
        ["id", "type", "pdbx_number_of_molecules"],
        [[number, "polymer", str(copies[sequence])] for sequence, number in number_of.items()],
    )
    _add_loop(
        block,
        "_entity_poly.",
        ["entity_id", "type", "pdbx_seq_one_letter_code", "pdbx_seq_one_letter_code_can"],
        [
            [number, "polypeptide(L)", _one_letter_code(sequence, "(UNK)"), _one_letter_code(sequence, "X")]
            for sequence, number in number_of.items()
        ],
    )
    _add_loop(
        block,
        "_entity_poly_seq.",
        ["entity_id", "num", "mon_id", "hetero"],
        [
            [number, str(place), NAME_OF_LETTER.get(letter, "UNK"), "n"]
            for sequence, number in number_of.items()
            for place, letter in enumerate(sequence, start=1)
        ],
    )
    _add_loop(
        block,
        "_struct_asym.",
        ["id", "entity_id"],
        [[chain_name(index), number_of[chain.sequence]] for index, chain in enumerate(chains)],
    )
    rows = []
    for chain_index, chain in enumerate(chains):
        name, entity = chain_name(chain_index), number_of[chain.sequence]
        for index in sorted(chain.atoms):
            letter = chain.sequence[index]
            residue, number = NAME_OF_LETTER.get(letter, "UNK"), str(index + 1)
            confidence = fixed(chain.confidence[index] or 0.0, 3)
            for atom in output_order(letter, chain.atoms[index]):
                x, y, z = (fixed(float(value), 3) for value in chain.atoms[index][atom])
                row = ["ATOM", str(len(rows) + 1), element_of(atom), atom, ".", residue, name, entity, number, "?"]
                row += [x, y, z, "1.00", confidence, number, residue, name, atom, "1"]
                rows.append(row)
    _add_loop(block, "_atom_site.", _ATOM_SITE_TAGS, rows)
    write_text(path, document.as_string())


def read_model(path: Path) -> tuple[ModelChain, ...]:
    """Read a model that `write_model` or `write_modelcif` wrote, chains in the file's order.

    A residue's confidence is the B-factor of its CA (of its first atom if it has none); None where it has no atoms.
    Raises SnakefoldError if the file is not such a model.
    """
    try:
        block = gemmi.cif.read(str(path)).sole_block()
        names_of_entity: dict[str, list[str]] = defaultdict(list)
        for entity, name in block.find("_entity_poly_seq.", ["entity_id", "mon_id"]):
            names_of_entity[entity].append(name)
        sequences = {
            name: "".join(LETTER_OF_NAME.get(residue, "X") for residue in names_of_entity[entity])
            for name, entity in block.find("_struct_asym.", ["id", "entity_id"])
        }
        atoms: dict[str, dict[int, dict[str, np.ndarray]]] = {name: {} for name in sequences}
        confidence: dict[str, list[float | None]] = {
            name: [None] * len(sequence) for name, sequence in sequences.items()
        }
        tags = ["label_asym_id", "label_seq_id", "label_atom_id", "Cartn_x", "Cartn_y", "Cartn_z", "B_iso_or_equiv"]
        for name, number, atom, x, y, z, b_factor in block.find("_atom_site.", tags):
            index = int(number) - 1
            atom = gemmi.cif.as_string(atom)
            atoms[name].setdefault(index, {})[atom] = np.array([float(x), float(y), float(z)])
            if confidence[name][index] is None or atom == "CA":
                confidence[name][index] = float(b_factor)
        if not any(atoms.values()):
            raise SnakefoldError(f"{path}: holds no atoms of a protein; give a model written by snakefold")
        return tuple(
            ModelChain(sequence=sequences[name], atoms=atoms[name], confidence=confidence[name]) for name in sequences
        )
    except (OSError, RuntimeError, ValueError, KeyError, IndexError) as error:
        raise SnakefoldError(f"{path}: cannot be read as a model ({_one_line(error)}); was the file cut off?") from None


def write_pdb(path: Path, chains: Sequence[ModelChain]) -> bool:
    """Write a model in the PDB format, atomically; False, and no file, if the format's columns cannot hold it.

    It fits up to 99,999 atoms (TER lines count), 62 chains, 9,999 residues a chain and positions of
    -999.999 to 9999.999 angstrom. The B-factor column holds the confidence with 2 decimals.
    """
    atom_count = sum(len(residue) for chain in chains for residue in chain.atoms.values())
    positions = [xyz for chain in chains for residue in chain.atoms.values() for xyz in residue.values()]
    too_large = (
        atom_count + len(chains) > _PDB_MAX_SERIAL
        or len(chains) > _PDB_MAX_CHAINS
        or any(len(chain.sequence) > _PDB_MAX_RESIDUES for chain in chains)
        or (positions and (np.min(positions) < -999.9994 or np.max(positions) > 9999.9994))
    )
    if too_large:
        return False
    lines = []
    for chain_index, chain in enumerate(chains):
        names = [NAME_OF_LETTER.get(letter, "UNK") for letter in chain.sequence]
        for row, start in enumerate(range(0, len(names), 13), start=1):
            residues = " ".join(names[start : start + 13])
            lines.append(f"SEQRES {row % 1000:3d} {chain_name(chain_index)} {len(names):4d}  {residues}")
    serial = 0
    for chain_index, chain in enumerate(chains):
        name, tail = chain_name(chain_index), None
        for index in sorted(chain.atoms):
            letter = chain.sequence[index]
            residue = NAME_OF_LETTER.get(letter, "UNK")
            for atom in output_order(letter, chain.atoms[index]):
                serial += 1
                x, y, z = (fixed(float(value), 3) for value in chain.atoms[index][atom])
                # One-letter elements start in column 14, so that calcium and C-alpha cannot be confused.
                padded = f" {atom:<3s}" if len(atom) < 4 else atom
                lines.append(
                    f"ATOM  {serial:5d} {padded} {residue:>3s} {name}{index + 1:4d}    {x:>8s}{y:>8s}{z:>8s}"
                    f"  1.00{chain.confidence[index] or 0.0:6.2f}          {element_of(atom):>2s}"
                )
            tail = f"{residue:>3s} {name}{index + 1:4d}"
        if tail:
            serial += 1
            lines.append(f"TER   {serial:5d}      {tail}")
    lines.append("END")
    write_text(path, "".join(f"{line:<80s}\n" for line in lines))
    return True


def fixed(value: float, decimals: int) -> str:
    """A number with fixed decimals and no negative zero, which would make equal models differ in bytes."""
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text


_ATOM_SITE_TAGS = (
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
    "auth_seq_id",
    "auth_comp_id",
    "auth_asym_id",
    "auth_atom_id",
    "pdbx_PDB_model_num",
)


def _add_loop(block: gemmi.cif.Block, prefix: str, tags: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # One loop at a time: adding to a block may move its earlier loops in memory, and gemmi's handles do not follow.
    loop = block.init_loop(prefix, list(tags))
    loop.set_all_values([[row[column] for row in rows] for column in range(len(tags))])


def _one_letter_code(sequence: str, unknown: str) -> str:
    return "".join(letter if letter in NAME_OF_LETTER and letter != "X" else unknown for letter in sequence)


def _one_line(error: BaseException) -> str:
    # The text of an OSError repeats the path, which the message already names.
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def _read_structure(path: Path) -> gemmi.Structure:
    """Read an entry with entities, sequences and residue numbers in the sequence assigned."""
    try:
        content = Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        structure = gemmi.read_structure_string(content, format=gemmi.CoorFormat.Detect)
        no_atoms = len(structure) == 0 and b"_atom_site." in content
        if no_atoms or (not structure.assemblies and b"_pdbx_struct_assembly_gen." in content):
            structure = _structure_of_sparse_mmcif(content)
        if structure.input_format == gemmi.CoorFormat.Pdb and _resumes_after_ter(content):
            structure = _structure_of_resuming_pdb(content)
        if len(structure) == 0:
            raise SnakefoldError(f"{path}: holds no coordinates; give an mmCIF or PDB file with a protein structure")
        _name_blank_chains(structure)
        structure.setup_entities()
        structure.assign_label_seq_id()
    except (OSError, EOFError, RuntimeError, ValueError, IndexError, zlib.error) as error:
        raise SnakefoldError(f"{path}: cannot be read as mmCIF or PDB ({_one_line(error)})") from None
    return structure


def _structure_of_sparse_mmcif(content: bytes) -> gemmi.Structure:
    """Read mmCIF whose tables lack columns that gemmi wants: it passes over such tables without a word."""
    block = gemmi.cif.read_string(content)[0]
    if b"_pdbx_struct_assembly_gen." in content:
        ids = [row[0] for row in block.find("_pdbx_struct_assembly.", ["id"])]
        if not ids:
            ids = list(dict.fromkeys(row[0] for row in block.find("_pdbx_struct_assembly_gen.", ["assembly_id"])))
        block.find_mmcif_category("_pdbx_struct_assembly.").erase()
        columns = ["id", "details", "method_details", "oligomeric_details", "oligomeric_count"]
        _add_loop(block, "_pdbx_struct_assembly.", columns, [[name, "?", "?", "?", "?"] for name in ids])
    table = block.find_mmcif_category("_atom_site.")
    columns = {tag.removeprefix("_atom_site."): list(table.column(place)) for place, tag in enumerate(table.tags)}
    if {"label_atom_id", "label_comp_id", "Cartn_x", "Cartn_y", "Cartn_z"} <= columns.keys():
        names = [gemmi.cif.as_string(name) for name in columns["label_atom_id"]]
        one_chain, numbers = ["A"] * len(names), [str(number) for number in range(1, len(names) + 1)]
        complete = {
            "id": numbers,
            "group_PDB": ["ATOM"] * len(names),
            # Names of proteins' atoms begin with their element; only selenium's has two letters.
            "type_symbol": [element_of(name.lstrip("0123456789")) for name in names],
            **dict.fromkeys(("label_alt_id", "label_seq_id"), ["."] * len(names)),
            **dict.fromkeys(("label_entity_id", "pdbx_PDB_ins_code"), ["?"] * len(names)),
            "label_asym_id": columns.get("auth_asym_id", one_chain),
            "occupancy": ["1.00"] * len(names),
            "B_iso_or_equiv": ["0.00"] * len(names),
            "pdbx_PDB_model_num": ["1"] * len(names),
        } | columns
        for auth, label in (("auth_seq_id", "label_seq_id"), ("auth_asym_id", "label_asym_id")):
            complete.setdefault(auth, complete[label])
        table.erase()
        block.init_loop("_atom_site.", list(complete)).set_all_values(list(complete.values()))
    return gemmi.make_structure_from_block(block)


def _resumes_after_ter(content: bytes) -> bool:
    """Whether ATOM records of a chain follow its TER: gemmi takes all that follows for ligands and water."""
    chain, ended = b"", set[bytes]()
    for line in content.splitlines():
        if line.startswith(b"MODEL "):
            ended.clear()
        elif line.startswith(b"TER"):
            ended.add(chain)
        elif line.startswith(b"ATOM  "):
            chain = line[20:22]
            if chain in ended:
                return True
    return False


def _structure_of_resuming_pdb(content: bytes) -> gemmi.Structure:
    """Read a PDB file whose chains go on after TER: at a gap, where numbers go on too, else as another chain."""
    lines = content.decode("utf-8", errors="replace").splitlines()
    kept = [
        line
        for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False)
        if not (line.startswith("TER") and _goes_on(before, after))
    ]
    return gemmi.read_pdb_string("\n".join(kept) + "\n", split_chain_on_ter=True)


def _goes_on(before: str, after: str) -> bool:
    """Whether two records of a PDB file are of atoms of one chain, the second of a higher residue number."""
    if not (before.startswith(("ATOM  ", "HETATM")) and after.startswith("ATOM  ") and before[20:22] == after[20:22]):
        return False
    try:
        return int(before[22:26]) < int(after[22:26])
    except ValueError:
        return False


def _name_blank_chains(structure: gemmi.Structure) -> None:
    """Give chains without a name, which are legal in PDB files, the name "_": gemmi assigns entities by name."""
    for model in structure:
        for chain in model:
            chain.name = chain.name.strip() or "_"
    for entity in structure.entities:
        entity.name = entity.name.strip() or "_"


def _protein_chains(path: Path, structure: gemmi.Structure) -> list[tuple[str, PolymerChain]]:
    """Protein chains of the first model, each with its subchain (label_asym) id."""
    parents = {modified.res_id.name: modified.parent_comp_id for modified in structure.mod_residues}
    chains: list[tuple[str, PolymerChain]] = []
    used: dict[str, int] = defaultdict(int)
    for chain in structure[0]:
        for span in chain.subchains():
            entity = structure.get_entity_of(span)
            if entity is None or entity.entity_type != gemmi.EntityType.Polymer:
                continue
            kind = entity.polymer_type
            if kind in (gemmi.PolymerType.Unknown, gemmi.PolymerType.Other):
                kind = span.check_polymer_type()
            if kind not in (gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD):
                continue
            # An author's chain may hold two polymers.
            name = chain.name
            used[name] += 1
            if used[name] > 1:
                name = f"{name}+{used[name]}"
            chains.append((span.subchain_id(), _polymer_chain(name, span, entity.full_sequence, parents)))
    if not any(chain.residues for _, chain in chains):
        raise SnakefoldError(f"{path}: holds no protein chain; give a structure with at least one")
    return chains


def _polymer_chain(
    name: str, span: gemmi.ResidueSpan, full_sequence: Sequence[str], parents: Mapping[str, str]
) -> PolymerChain:
    alternatives: dict[int, list[gemmi.Residue]] = defaultdict(list)
    if full_sequence:
        # Where a position has several residues (microheterogeneity), the first is the one of the declared sequence.
        letters = [_letter(gemmi.Entity.first_mon(item), parents) for item in full_sequence]
        for residue in span:
            if residue.label_seq is not None and 1 <= residue.label_seq <= len(letters):
                alternatives[residue.label_seq - 1].append(residue)
    else:
        letters = []
        previous = None
        for residue in span:
            if residue.seqid != previous:
                letters.append(_letter(residue.name, parents))
            alternatives[len(letters) - 1].append(residue)
            previous = residue.seqid
    residues: dict[int, dict[str, np.ndarray]] = {}
    for index in sorted(alternatives):
        letter = letters[index]
        matching = [residue for residue in alternatives[index] if _letter(residue.name, parents) == letter]
        residue = max(matching or alternatives[index], key=_occupancy)
        atoms = _atoms(residue)
        if not matching:
            # The coordinates are another amino acid's (a fault of the file): only what all share can be trusted.
            atoms = {atom: xyz for atom, xyz in atoms.items() if atom in (*BACKBONE, "CB", "OXT")}
        elif gemmi.find_tabulated_residue(residue.name).kind == gemmi.ResidueKind.AAD:
            atoms = {atom: xyz for atom, xyz in atoms.items() if atom in (*BACKBONE, "OXT")}
        if letter != "X":
            own = {*heavy_atoms_of(letter), "OXT"}
            atoms = {atom: xyz for atom, xyz in atoms.items() if atom in own}
        if atoms:
            residues[index] = atoms
    return PolymerChain(name=name, sequence="".join(letters), residues=residues)


def _letter(residue_name: str, parents: Mapping[str, str]) -> str:
    """One of the twenty letters, or X."""
    parent = parents.get(residue_name) or residue_name
    for name in (residue_name, parent):
        letter = _PARENT_LETTERS.get(name) or gemmi.find_tabulated_residue(name).one_letter_code.upper()
        if letter in LETTER_OF_NAME.values() and letter != "X" and _is_amino_acid(name):
            return letter
    return "X"


def _is_amino_acid(name: str) -> bool:
    """Nucleotides have one-letter codes too (A, C, G), which must not pass for alanine and its like."""
    return name in _PARENT_LETTERS or gemmi.find_tabulated_residue(name).is_amino_acid()


def _occupancy(residue: gemmi.Residue) -> float:
    return sum(atom.occ for atom in residue)


def _atoms(residue: gemmi.Residue) -> dict[str, np.ndarray]:
    """Heavy atoms of the conformation with the highest occupancy (the first of equals)."""
    occupancy: dict[str, float] = defaultdict(float)
    for atom in residue:
        if atom.has_altloc():
            occupancy[atom.altloc] += atom.occ
    chosen = max(occupancy, key=lambda altloc: occupancy[altloc], default=None)
    best: dict[str, tuple[tuple[bool, float], gemmi.Atom]] = {}
    for atom in residue:
        if atom.is_hydrogen() or not all(math.isfinite(value) for value in atom.pos.tolist()):
            continue
        name = _RENAMED_ATOMS.get((residue.name, atom.name), atom.name)
        # An atom that the chosen conformation lacks is taken from another one, rather than leaving a hole.
        rank = (not atom.has_altloc() or atom.altloc == chosen, atom.occ)
        if name not in best or rank > best[name][0]:
            best[name] = (rank, atom)
    return {name: np.array(atom.pos.tolist()) for name, (_, atom) in best.items()}


def _moved_copy(chain: PolymerChain, transform: gemmi.Transform, copy: int) -> PolymerChain:
    rotation = np.array(transform.mat.tolist())
    shift = np.array(transform.vec.tolist())
    if np.array_equal(rotation, np.eye(3)) and not shift.any():
        residues = {index: dict(atoms) for index, atoms in chain.residues.items()}
    else:
        residues = {
            index: {atom: rotation @ xyz + shift for atom, xyz in atoms.items()}
            for index, atoms in chain.residues.items()
        }
    if copy == 1:
        return PolymerChain(name=chain.name, sequence=chain.sequence, residues=residues)
    return PolymerChain(name=f"{chain.name}-{copy}", sequence=chain.sequence, residues=residues, copy_of=chain.name)


def modelled_ranges(indices: Iterable[int]) -> list[list[int]]:
    """Half-open ranges [start, end) that cover exactly the given residue indices."""
    ranges: list[list[int]] = []
    for index in sorted(indices):
        if ranges and ranges[-1][1] == index:
            ranges[-1][1] = index + 1
        else:
            ranges.append([index, index + 1])
    return ranges
