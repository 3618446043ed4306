"""Rows out of sheets of any accepted format: TSV, CSV or FASTA, with snakefold's, nf-core's or ColabFold's columns."""

import csv
import difflib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from snakefold.sheet.relocation import relocated

COLUMNS = ("id", "sequence", "fasta", "copies", "engines", "seed", "msa", "template", "reference")

_DELIMITERS = {".tsv": "\t", ".tab": "\t", ".csv": ","}
_NAMES_OF_DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons"}
_FASTA_SUFFIXES = frozenset({".fasta", ".fa", ".faa", ".fas", ".fst"})

# `>sp|P00698|LYSC_CHICK Lysozyme C` (UniProt) and `>1A7G_1|Chains A, B|...` (PDB): the part that names the protein.
_UNIPROT_HEADER = re.compile(r"(?:sp|tr)\|([^|\s]+)\|")
_PDB_HEADER = re.compile(r"([0-9A-Za-z]{4,12}_[0-9]+)\|")

Report = Callable[[int, str | None, str], None]
"""Takes one fault: the line of the file, the column if one is to blame, and what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """One target as written: the 1-based line it starts on and the text of each column that is not empty."""

    line: int
    values: dict[str, str]


class UnreadableError(Exception):
    """A file that cannot be read as text; the message says why and what to do."""


def read_rows(path: Path, report: Report) -> list[Row]:
    """All rows of one sheet; faults of the format go to `report`, and rows that have one are left out."""
    try:
        text = read_text(path)
    except UnreadableError as error:
        report(1, None, str(error))
        return []
    first = next((line for line in text.split("\n") if line.strip() and not line.startswith("#")), None)
    if first is None:
        report(1, None, "the sheet is empty; write a header line with `id` and `sequence` and a row for each target")
        return []
    suffix = path.suffix.lower()
    is_fasta = first.startswith(">") or (suffix in _FASTA_SUFFIXES)
    rows = _fasta_rows(text, report) if is_fasta else _table_rows(text, first, _DELIMITERS.get(suffix), report)
    return list(rows)


def read_text(path: Path) -> str:
    """A text file as the world has it: with or without a byte order mark, any line ends. Raises UnreadableError."""
    try:
        content = relocated(path).read_bytes()
    except FileNotFoundError:
        raise UnreadableError("there is no such file; correct the path") from None
    except IsADirectoryError:
        raise UnreadableError("is a folder; give a file") from None
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror}); correct the path or its permissions") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError("is UTF-16 text; save it as UTF-8 (in Excel: 'CSV UTF-8')")
    if content.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise UnreadableError("is a compressed file or a spreadsheet; give plain text (TSV, CSV or FASTA)")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableError(f"line {line} is not UTF-8 text; save the file as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def fasta_records(text: str) -> Iterator[tuple[int, str, str]]:
    """Records of a FASTA text as (1-based line, header without `>`, sequence as written, lines joined).

    Text before the first header comes as a record with an empty header. Blank lines and lines that start with `#` or
    `;` (FASTA's old comment) are left out.
    """
    line_of_record, header, parts = 0, "", []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith(">"):
            if line_of_record:
                yield line_of_record, header, "".join(parts)
            line_of_record, header, parts = number, line[1:].strip(), []
        elif line.strip() and not line.startswith(("#", ";")):
            line_of_record = line_of_record or number
            parts.append(line.strip())
    if line_of_record:
        yield line_of_record, header, "".join(parts)


def _fasta_rows(text: str, report: Report) -> Iterator[Row]:
    for line, header, sequence in fasta_records(text):
        if not header:
            report(line, "id", "the record has no name; write a header line such as `>my_protein` before its sequence")
            continue
        named = _UNIPROT_HEADER.match(header) or _PDB_HEADER.match(header)
        yield Row(line, {"id": named[1] if named else header.split()[0], "sequence": sequence})


def _table_rows(text: str, header: str, usual: str | None, report: Report) -> Iterator[Row]:
    delimiter = _delimiter(header, usual)
    # Comment lines become blank ones before the CSV reader sees them, so that a quote in a comment opens no field
    # and line numbers stay those of the file.
    lines = io.StringIO("\n".join("" if line.startswith("#") else line for line in text.split("\n")), newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    columns: list[str] | None = None
    width = 0
    end_of_last_row = 0
    try:
        for fields in reader:
            line, end_of_last_row = end_of_last_row + 1, reader.line_num
            if not any(map(str.strip, fields)):
                continue
            if columns is None:
                columns, width = _columns(fields, line, report), len(fields)
                if columns is None:
                    return
                continue
            if len(fields) > width and any(map(str.strip, fields[width:])):
                report(line, None, f"has {len(fields)} fields, the header has {width}; {_quoting_hint(delimiter)}")
            elif len(fields) < width:
                report(
                    line,
                    None,
                    f"has {len(fields)} {'field' if len(fields) == 1 else 'fields'}, the header has {width}; separate "
                    f"fields by {_NAMES_OF_DELIMITERS[delimiter]} and leave none out, empty ones included",
                )
            else:
                named = zip(columns, map(str.strip, fields), strict=False)
                yield Row(line, {name: value for name, value in named if name and value})
    except csv.Error as error:
        report(end_of_last_row + 1, None, f'{error}; close every quoted field with a second "')


def _quoting_hint(delimiter: str) -> str:
    if delimiter == "\t":
        return "take out the extra tabs"
    return f'put a field that holds {_NAMES_OF_DELIMITERS[delimiter]} in quotes, "like this"'


def _delimiter(header: str, usual: str | None) -> str:
    """What separates the fields: what the extension says if the header has it, else what the header has most of."""
    if usual is not None and usual in header:
        return usual
    most = max(_NAMES_OF_DELIMITERS, key=header.count)
    return most if most in header else usual or "\t"


def _columns(fields: list[str], line: int, report: Report) -> list[str] | None:
    """The name in our sense of every column, empty for a column that has none or is not known.

    None if no row can be read with these columns.
    """
    names = [field.strip().lower() for field in fields]
    if "id" not in names and "sequence" in names and "fasta" in names:
        # nf-core/proteinfold before 1.2: the column `sequence` held the name of the target.
        names[names.index("sequence")] = "id"
    known: list[str] = []
    for field, name in zip(fields, names, strict=True):
        if not name:
            known.append("")
        elif name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"take it out; the columns are {', '.join(COLUMNS)}"
            report(line, field.strip(), f"is not a column of a sheet; {hint}")
            known.append("")
        elif name in known:
            report(line, name, "stands twice in the header; keep one of the two columns")
            known.append("")
        else:
            known.append(name)
    has_id, has_protein = "id" in known, "sequence" in known or "fasta" in known
    if not has_id:
        report(line, "id", "there is no such column; the first line must name the columns, such as `id` and `sequence`")
    if not has_protein:
        report(line, "sequence", "there is neither this column nor `fasta`; add the one that holds the proteins")
    return known if has_id and has_protein else None
