"""Alignments in A3M and Stockholm, with the query as first row.

Inside snakefold an alignment is a list of A3M rows: upper-case letters and `-` stand in the columns of the query
(match columns, one per query residue), lower-case letters are residues inserted between them.
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from snakefold.errors import MemberError

_INSERTS = re.compile("[a-z]+")
_ROW = re.compile(r"[A-Za-z\-]*")
# Stockholm and A3M write the gap in a column of inserts as a dot; stop codons (*) are not residues.
_GAPS = str.maketrans({".": "-", "_": "-", "~": "-", "*": "X"})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of an alignment to a query.

    `aligned` is an A3M row with as many match columns as the query has residues.
    """

    name: str
    aligned: str
    description: str = ""


def read_text(path: Path) -> str:
    """Text of a file, unpacked if its name ends in `.gz`; MemberError("bad_msa") if it cannot be read."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise MemberError("bad_msa", f"{path}: not a text file; give an A3M or Stockholm alignment") from None
    except (OSError, EOFError, zlib.error) as error:
        raise MemberError("bad_msa", f"{path}: cannot be read: {error}") from None


def parse_alignment(text: str, source: str) -> list[Row]:
    """Read an alignment in A3M, aligned FASTA or Stockholm; its first row is the query.

    Columns in which the first row has a gap become inserts of the other rows. `source` names the file in errors.
    Raises MemberError("bad_msa") if the text is neither format, rows differ in length or hold other characters
    than residues and gaps.
    """
    # MMseqs2 separates the alignments of its databases with NUL bytes.
    text = text.replace("\0", "")
    start = text.lstrip()[:100]
    if start.startswith("# STOCKHOLM"):
        rows = _parse_stockholm(text, source)
    elif start.startswith((">", "#")):
        rows = _parse_fasta(text, source)
    else:
        raise MemberError("bad_msa", f"{source}: neither A3M nor Stockholm (no '>' or '# STOCKHOLM' first)")
    if not rows:
        raise MemberError("bad_msa", f"{source}: holds no sequences")
    return _in_query_columns(rows, source)


def _parse_fasta(text: str, source: str) -> list[Row]:
    """Rows of A3M or aligned FASTA; lines that start with `#` (ColabFold writes them) are comments."""
    rows: list[Row] = []
    header, parts = None, []
    for number, line in enumerate([*text.splitlines(), ">"], start=1):
        if line.startswith(">"):
            if header is not None:
                name, _, description = header.partition(" ")
                rows.append(Row(name=name, description=description.strip(), aligned="".join(parts)))
            header, parts = line[1:].strip(), []
        elif line.startswith("#") or not line.strip():
            continue
        elif header is None:
            raise MemberError("bad_msa", f"{source}, line {number}: residues before the first '>' line")
        else:
            # A dot in A3M only pads inserts, so that it may be dropped. Aligned FASTA with dots as gaps would be
            # shortened by that; it is told apart below, where rows are compared in length.
            parts.append(line.strip())
    if rows and any(re.search("[a-z]", row.aligned) for row in rows):
        rows = [Row(name=row.name, description=row.description, aligned=row.aligned.replace(".", "")) for row in rows]
    return rows


def _parse_stockholm(text: str, source: str) -> list[Row]:
    """Rows of the first alignment in a Stockholm file, interleaved or not, as equally long upper-case rows."""
    parts: dict[str, list[str]] = {}
    descriptions: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("//"):
            break
        if line.startswith("#=GS"):
            fields = line.split(None, 3)
            if len(fields) == 4 and fields[2] == "DE":
                descriptions[fields[1]] = fields[3].strip()
        elif line.startswith("#") or not line.strip():
            continue
        else:
            fields = line.split()
            if len(fields) != 2:
                raise MemberError("bad_msa", f"{source}, line {number}: expected a name and an aligned sequence")
            parts.setdefault(fields[0], []).append(fields[1])
    else:
        raise MemberError("bad_msa", f"{source}: the Stockholm file ends without '//': it is cut off")
    # Lower case in Stockholm depends on the writer; what is an insert is decided by the query's gaps alone.
    return [
        Row(name=name, description=descriptions.get(name, ""), aligned="".join(blocks).upper())
        for name, blocks in parts.items()
    ]


def _in_query_columns(rows: Sequence[Row], source: str) -> list[Row]:
    """Rows with match columns only where the first row has a residue; all checked for length and letters."""
    cleaned = [row.aligned.translate(_GAPS) for row in rows]
    for index, (row, aligned) in enumerate(zip(rows, cleaned, strict=True), start=1):
        match = _ROW.match(aligned)
        if match is None or match.end() != len(aligned):
            letter = aligned[match.end() if match else 0]
            raise MemberError("bad_msa", f"{source}, row {index} ({row.name}): {letter!r} is no residue or gap")
    query = cleaned[0]
    columns = len(_INSERTS.sub("", query))
    keep = [letter != "-" for letter in _INSERTS.sub("", query)]
    result: list[Row] = []
    for index, (row, aligned) in enumerate(zip(rows, cleaned, strict=True), start=1):
        found = len(_INSERTS.sub("", aligned))
        if found != columns:
            raise MemberError(
                "bad_msa", f"{source}, row {index} ({row.name}): {found} columns, but the first row has {columns}"
            )
        text = aligned if all(keep) else _drop_columns(aligned, keep)
        result.append(Row(name=row.name, description=row.description, aligned=text))
    return result


def _drop_columns(aligned: str, keep: Sequence[bool]) -> str:
    """Turn the match columns that are not kept into inserts."""
    letters: list[str] = []
    column = 0
    for letter in aligned:
        if letter.islower():
            letters.append(letter)
            continue
        if keep[column]:
            letters.append(letter)
        elif letter != "-":
            letters.append(letter.lower())
        column += 1
    return "".join(letters)


def without_inserts(aligned: str) -> str:
    """The match columns of an A3M row."""
    return _INSERTS.sub("", aligned)


def unique_rows(rows: Iterable[Row]) -> list[Row]:
    """Drop every row whose match columns equal those of an earlier row, and rows without a residue in them."""
    seen: set[str] = set()
    kept: list[Row] = []
    for row in rows:
        columns = without_inserts(row.aligned)
        if columns not in seen and columns.strip("-"):
            seen.add(columns)
            kept.append(row)
    return kept


def to_a3m(rows: Iterable[Row]) -> str:
    """A3M text of the rows."""
    lines: list[str] = []
    for row in rows:
        lines.append(f">{row.name} {row.description}".rstrip())
        lines.append(row.aligned)
    return "\n".join(lines) + "\n"


def to_stockholm(rows: Sequence[Row]) -> str:
    """Stockholm text of the rows, with match columns marked `x` in the RF line, inserts left-justified.

    Names are made unique with a suffix `_2`, `_3` ..., because readers join rows of the same name.
    """
    names = _unique_names(rows)
    length = len(without_inserts(rows[0].aligned))
    # widths[i]: columns needed for what is inserted before match column i (i = length: after the last one).
    widths = np.zeros(length + 1, dtype=np.int64)
    inserts = [list(_insert_runs(row.aligned)) for row in rows]
    for runs in inserts:
        for position, run in runs:
            widths[position] = max(widths[position], len(run))
    ends = np.cumsum(widths)
    match_columns = np.arange(length) + ends[:length]
    total = length + int(ends[-1])
    pad = max(len("#=GC RF"), *(len(name) for name in names)) + 1
    lines = ["# STOCKHOLM 1.0", ""]
    described = [(name, row) for name, row in zip(names, rows, strict=True) if row.description]
    lines += [f"#=GS {name:<{pad}} DE {row.description}" for name, row in described]
    if described:
        lines.append("")
    for name, row, runs in zip(names, rows, inserts, strict=True):
        columns = np.full(total, ord("."), dtype=np.uint8)
        columns[match_columns] = np.frombuffer(without_inserts(row.aligned).encode(), dtype=np.uint8)
        for position, run in runs:
            first = position + int(ends[position] - widths[position])
            columns[first : first + len(run)] = np.frombuffer(run.encode(), dtype=np.uint8)
        lines.append(f"{name:<{pad}}{columns.tobytes().decode()}")
    reference = np.full(total, ord("."), dtype=np.uint8)
    reference[match_columns] = ord("x")
    lines.append(f"{'#=GC RF':<{pad}}{reference.tobytes().decode()}")
    lines.append("//")
    return "\n".join(lines) + "\n"


def _unique_names(rows: Sequence[Row]) -> list[str]:
    taken: set[str] = set()
    names: list[str] = []
    for row in rows:
        # A space would end the name, and a row of an empty name cannot be read back.
        name = base = re.sub(r"\s+", "_", row.name) or "unnamed"
        count = 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        names.append(name)
    return names


def _insert_runs(aligned: str) -> Iterable[tuple[int, str]]:
    """The inserts of an A3M row with the match column that follows each."""
    before = 0
    for match in _INSERTS.finditer(aligned):
        yield match.start() - before, match.group()
        before += match.end() - match.start()


def to_matrix(rows: Sequence[Row]) -> npt.NDArray[np.uint8]:
    """Match columns as letters: array (rows, query length) of ASCII codes."""
    text = "".join(without_inserts(row.aligned) for row in rows).encode()
    return np.frombuffer(text, dtype=np.uint8).reshape(len(rows), -1)
