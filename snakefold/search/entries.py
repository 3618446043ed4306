"""A library of template structures: a list of chain sequences and one mmCIF file per PDB entry."""

import gzip
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import gemmi
from Bio.Align import PairwiseAligner

from snakefold.errors import SnakefoldError

SEQRES_NAMES = ("seqres.fasta.gz", "seqres.fasta", "pdb_seqres.txt.gz", "pdb_seqres.txt")
"""Names under which the list of sequences is looked for, in this order."""

_MMCIF_FOLDERS = ("mmcif", "templates", ".")
# Structures kept parsed. Chains of a batch are often relatives that share their best templates.
_KEPT = 8
_CHUNK = 1 << 20


class UnusableEntryError(Exception):
    """An entry of the library that cannot serve as a template; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What an entry says of itself. `resolution` is in angstrom; `released` is None if it gives no date."""

    released: date | None
    resolution: float | None
    title: str


@dataclass(frozen=True, kw_only=True)
class ChainSequence:
    """The sequence of a chain as the entry states it, and which of its residues have coordinates.

    `letters` has one-letter codes, parents for modified residues, X for unknown ones; `observed` holds the 0-based
    indices of residues with a CA atom.
    """

    letters: str
    observed: frozenset[int]


class Library:
    """A folder with the sequences (`seqres.fasta.gz` or `pdb_seqres.txt`) and the entries (`mmcif/`).

    Entries lie flat (`1abc.cif.gz`) or divided by their middle letters as in the PDB's archive (`ab/1abc.cif.gz`),
    packed or not. Raises SnakefoldError if the folder is not a library.
    """

    def __init__(self, folder: Path) -> None:
        self.seqres = next((folder / name for name in SEQRES_NAMES if (folder / name).is_file()), folder)
        if self.seqres == folder:
            raise SnakefoldError(f"{folder}: no template library: none of {', '.join(SEQRES_NAMES)} is there")
        self._folders = [folder / name for name in _MMCIF_FOLDERS if (folder / name).is_dir()]
        self._summaries: dict[str, Summary] = {}
        self._structures: OrderedDict[str, gemmi.Structure] = OrderedDict()

    def path(self, entry: str) -> Path:
        """The mmCIF file of an entry; UnusableEntryError if there is none."""
        for folder in self._folders:
            for name in (entry.lower(), entry.upper()):
                for suffix in (".cif.gz", ".cif"):
                    for path in (folder / f"{name}{suffix}", folder / name[1:3] / f"{name}{suffix}"):
                        if path.is_file():
                            return path
        raise UnusableEntryError("the library has no mmCIF file of it")

    def content(self, entry: str) -> bytes:
        """The entry's mmCIF file, unpacked."""
        path = self.path(entry)
        try:
            data = path.read_bytes()
            return gzip.decompress(data) if path.suffix == ".gz" else data
        except (OSError, EOFError, zlib.error) as error:
            raise UnusableEntryError(f"its mmCIF file cannot be read: {error}") from None

    def summary(self, entry: str) -> Summary:
        """Release date, resolution and title; UnusableEntryError if the file is missing or damaged.

        Reads no further than the atoms where it can, because many entries are only looked at to be told too young.
        """
        if entry not in self._summaries:
            block = _parse(self._head(entry))
            if not block.find_mmcif_category("_pdbx_audit_revision_history."):
                # Older files have the history behind the atoms.
                block = _parse(self.content(entry))
            self._summaries[entry] = _summarize(block)
        return self._summaries[entry]

    def _head(self, entry: str) -> bytes:
        """The mmCIF text up to the atoms."""
        path = self.path(entry)
        text = bytearray()
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
                while chunk := handle.read(_CHUNK):
                    # The tag may lie across two chunks.
                    begin = max(0, len(text) - 20)
                    text += chunk
                    atoms = text.find(b"\n_atom_site.", begin)
                    if atoms >= 0:
                        return bytes(text[: max(0, text.rfind(b"loop_", 0, atoms))])
        except (OSError, EOFError, zlib.error) as error:
            raise UnusableEntryError(f"its mmCIF file cannot be read: {error}") from None
        return bytes(text)

    def structure(self, entry: str) -> gemmi.Structure:
        """The parsed entry; UnusableEntryError if the file is missing, damaged or without atoms."""
        if entry in self._structures:
            self._structures.move_to_end(entry)
            return self._structures[entry]
        try:
            structure = gemmi.make_structure_from_block(_parse(self.content(entry)))
        except (ValueError, RuntimeError) as error:
            raise UnusableEntryError(f"its mmCIF file cannot be read: {error}") from None
        if len(structure) == 0:
            raise UnusableEntryError("its mmCIF file has no atoms")
        structure.setup_entities()
        self._structures[entry] = structure
        if len(self._structures) > _KEPT:
            self._structures.popitem(last=False)
        return structure

    def chain(self, entry: str, name: str) -> ChainSequence:
        """Sequence and observed residues of the chain with the author's name `name`, in the first model.

        Raises UnusableEntryError if there is no such protein chain or its residues contradict its sequence.
        """
        structure = self.structure(entry)
        chain = structure[0].find_chain(name)
        polymer = chain.get_polymer() if chain is not None else None
        if polymer is None or len(polymer) == 0:
            raise UnusableEntryError(f"it has no polymer chain {name}")
        if polymer.check_polymer_type() != gemmi.PolymerType.PeptideL:
            raise UnusableEntryError(f"its chain {name} is no protein")
        entity = structure.get_entity_of(polymer)
        if entity is None or not entity.full_sequence:
            raise UnusableEntryError(f"it does not state the sequence of chain {name}")
        monomers = entity.full_sequence
        letters = gemmi.one_letter_code([gemmi.Entity.first_mon(item) for item in monomers]).upper()
        observed: set[int] = set()
        contradictions = 0
        for residue in polymer:
            position = residue.label_seq
            stated = monomers[position - 1] if position is not None and 1 <= position <= len(monomers) else ""
            # Where the crystal holds a mixture, the sequence names all monomers of a position: "SER,THR".
            if position is None or residue.name not in stated.split(","):
                contradictions += 1
            elif residue.find_atom("CA", "*") is not None:
                observed.add(position - 1)
        if contradictions > 0.1 * len(polymer):
            raise UnusableEntryError(f"the residues of its chain {name} contradict the sequence it states")
        return ChainSequence(letters=letters, observed=frozenset(observed))


def _parse(text: bytes) -> gemmi.cif.Block:
    try:
        document = gemmi.cif.read_string(text.decode("utf-8", errors="replace"))
    except (ValueError, RuntimeError) as error:
        raise UnusableEntryError(f"its mmCIF file cannot be read: {str(error).splitlines()[0]}") from None
    if len(document) == 0:
        raise UnusableEntryError("its mmCIF file is empty")
    return document[0]


def _summarize(block: gemmi.cif.Block) -> Summary:
    resolution = None
    for tag in ("_refine.ls_d_res_high", "_em_3d_reconstruction.resolution", "_reflns.d_resolution_high"):
        for value in block.find_values(tag):
            number = gemmi.cif.as_number(value)
            # NaN for NMR entries ("." or "?") compares false.
            if resolution is None and number > 0:
                resolution = number
    titles = [gemmi.cif.as_string(value) for value in block.find_values("_struct.title")]
    return Summary(
        released=_release_date(block), resolution=resolution, title=" ".join(titles[0].split()) if titles else ""
    )


def _release_date(block: gemmi.cif.Block) -> date | None:
    """The date of the first revision, or else, in files that have no history, of the deposition, which is earlier."""
    for category, number, tag in (
        ("_pdbx_audit_revision_history.", "ordinal", "revision_date"),
        ("_database_PDB_rev.", "num", "date"),
    ):
        dates = [
            (int(gemmi.cif.as_number(row[0], 0)), parsed)
            for row in block.find(category, [number, tag])
            if (parsed := _date(row[1])) is not None
        ]
        if dates:
            return min(dates)[1]
    for value in block.find_values("_pdbx_database_status.recvd_initial_deposition_date"):
        if (parsed := _date(value)) is not None:
            return parsed
    return None


def _date(value: str) -> date | None:
    try:
        return date.fromisoformat(gemmi.cif.as_string(value))
    except ValueError:
        return None


def place(listed: Sequence[tuple[int, str]], letters: str) -> dict[int, int]:
    """Where residues of the listed sequence lie in the sequence that the entry states.

    listed: (0-based index in the listed sequence, one-letter code), ascending; letters: the entry's sequence.
    Returns listed index -> index in `letters`. The two sequences should be the same; where they are not (a list of
    another date, other letters for modified residues), they are aligned. Raises UnusableEntryError if fewer than 90 %
    agree.
    """
    direct = {index: index for index, _ in listed if index < len(letters)}
    if _agree(direct, listed, letters):
        return direct
    aligner = PairwiseAligner(mode="global", match_score=2, mismatch_score=-1, open_gap_score=-4, extend_gap_score=-0.5)
    aligner.end_gap_score = 0.0
    alignment = aligner.align("".join(letter for _, letter in listed), letters)[0]
    placed: dict[int, int] = {}
    for (start, end), (target, _) in zip(*alignment.aligned, strict=True):
        for offset in range(end - start):
            placed[listed[start + offset][0]] = int(target + offset)
    if _agree(placed, listed, letters):
        return placed
    raise UnusableEntryError("its coordinates have another sequence than the library's list")


def _agree(placed: dict[int, int], listed: Sequence[tuple[int, str]], letters: str) -> bool:
    same = sum(index in placed and (letters[placed[index]] == letter or letter == "X") for index, letter in listed)
    return same >= 0.9 * len(listed)
