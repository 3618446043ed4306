"""Targets out of sample sheets."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from snakefold.config import MAX_SEED, Config, unknown_engine
from snakefold.engines import ENGINES, engines_for
from snakefold.engines.base import Engine
from snakefold.errors import FaultsError
from snakefold.sheet.relocation import relocated
from snakefold.sheet.tables import Row, UnreadableError, fasta_records, read_rows, read_text
from snakefold.sheet.targets import Chain, Target, first_letter_outside, refusal

MAX_ID_LENGTH = 100

# What stands beside the targets' folders in the results folder.
RESERVED_IDS = frozenset({"summary.tsv", "outcome.json", "report", "provenance"})

_SAFE_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_ID_LENGTH - 1}}}")
_POSITIVE = re.compile(r"[1-9][0-9]{0,8}")
_SEPARATORS = re.compile(r"[,\s]+")
_NUCLEOTIDES = frozenset("ACGTUN")
_MIN_NUCLEOTIDES = 20

Report = Callable[[str | None, str], None]
"""Takes one fault of a row: the column to blame, and what is wrong and what to do."""


def read_targets(
    paths: Sequence[Path],
    *,
    engines: Sequence[str],
    seed: int,
    deep: bool = False,
    check_files: bool = True,
    registry: Mapping[str, Engine] = ENGINES,
) -> tuple[Target, ...]:
    """Read sample sheets; the targets come in the order of the sheets and of their rows.

    `engines` and `seed` apply to rows that name none. `check_files=False` leaves out the test whether the MSAs,
    templates and references of the sheet exist: a remote worker parses the sheet without having them. `deep` opens
    them and compares them with the target. FASTA files that a sheet names are part of it and always read.

    Raises FaultsError with every fault of every sheet, one line each: `file:row: column: what is wrong; what to do`.
    """
    targets, faults = _read(paths, engines, seed, deep=deep, check_files=check_files, registry=registry)
    if faults:
        raise FaultsError(faults)
    return targets


def files_of_sheets(paths: Sequence[Path]) -> list[Path]:
    """The files without which sheets that have no fault cannot be read: themselves, and the FASTA files they name."""
    rows = ((path, row) for path in paths for row in read_rows(path, lambda *_: None))
    fastas = (path.parent / row.values["fasta"] for path, row in rows if "fasta" in row.values)
    return list(dict.fromkeys([*paths, *fastas]))


def check_sheets(
    paths: Sequence[Path], config: Config, *, registry: Mapping[str, Engine] | None = None
) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    """Look through sample sheets and all files that they name.

    Returns the targets without a fault, and the faults, one line each; a sheet is fine if there are none.
    """
    if registry is None:
        registry = engines_for(config)
    return _read(paths, config.engines, config.seed, deep=True, check_files=True, registry=registry)


def _read(
    paths: Sequence[Path],
    engines: Sequence[str],
    seed: int,
    *,
    deep: bool,
    check_files: bool,
    registry: Mapping[str, Engine],
) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    unknown = [name for name in engines if name not in registry]
    if unknown:
        return (), tuple(f"config: engines: {unknown_engine(name, registry)}" for name in unknown)
    reader = _Reader(engines=tuple(engines), seed=seed, check_files=check_files, registry=registry)
    targets: list[Target] = []
    for number, path in enumerate(paths):
        if path in paths[:number]:
            reader.faults.append(f"{path}:1: the sheet is given twice; name it once in `samples`")
        else:
            targets += reader.read(path)
    if not paths:
        reader.faults.append("config: samples: names no sheet; give the path of one")
    if deep:
        # Reads structures, for which the parsing of a workflow has no use.
        from snakefold.sheet.contents import faults_of_files

        found = {target.id: list(faults_of_files(target)) for target in targets}
        targets = [target for target in targets if not found[target.id]]
        reader.faults += [fault for faults in found.values() for fault in faults]
    return tuple(targets), tuple(reader.faults)


class _Reader:
    """Turns rows into targets and collects their faults. Holds what rows of all sheets have in common."""

    def __init__(
        self, *, engines: tuple[str, ...], seed: int, check_files: bool, registry: Mapping[str, Engine]
    ) -> None:
        self.faults: list[str] = []
        self._engines = engines
        self._seed = seed
        self._check_files = check_files
        self._registry = registry
        self._first_use: dict[str, tuple[str, str]] = {}  # case-folded id -> (id, file:row)
        self._chains: dict[tuple[str, Path | None], Chain] = {}
        self._checked_files: dict[Path, str | None] = {}

    def read(self, path: Path) -> list[Target]:
        """The targets of one sheet that have no fault."""
        count = len(self.faults)
        rows = read_rows(path, partial(self._report, path))
        if not rows and len(self.faults) == count:
            self._report(path, 1, None, "the sheet has a header but no targets; write a row for each below it")
        return [target for row in rows if (target := self._target(path, row)) is not None]

    def _report(self, path: Path, line: int, column: str | None, text: str) -> None:
        self.faults.append(f"{path}:{line}: {column}: {text}" if column else f"{path}:{line}: {text}")

    def _target(self, path: Path, row: Row) -> Target | None:
        count = len(self.faults)
        report: Report = partial(self._report, path, row.line)
        values = row.values
        identifier = self._id(values.get("id", ""), path, row.line, report)
        engines = self._engines_of(values.get("engines"), report)
        seed = self._seed_of(values.get("seed"), report)
        column = "fasta" if "fasta" in values and "sequence" not in values else "sequence"
        sequences = self._sequences(values, path, report)
        template = self._file(values, "template", path, report)
        reference = self._file(values, "reference", path, report)
        written = self._with_msas(sequences, values.get("msa"), path, report)
        copies = self._copies(values.get("copies"), len(sequences), report)
        chains: tuple[Chain, ...] = ()
        if written and copies and engines:
            chains = self._expand(written, copies, engines, column, report)
        if len(self.faults) > count:
            return None
        return Target(
            id=identifier,
            chains=chains,
            engines=engines,
            seed=seed,
            template=template,
            reference=reference,
            file=path,
            row=row.line,
        )

    def _id(self, text: str, path: Path, line: int, report: Report) -> str:
        if not text:
            report("id", "is empty; give the target a name")
        elif not _SAFE_ID.fullmatch(text):
            report(
                "id",
                f"{_short(text)!r} cannot name a folder (letters, digits, '.', '_' and '-', a letter or digit first, "
                f"at most {MAX_ID_LENGTH}); write {_cleaned_id(text, line)!r}",
            )
        elif text.lower() in RESERVED_IDS:
            report("id", f"{text!r} is the name of a file or folder of the results; write '{text}_1'")
        else:
            # File systems that fold case would put two such targets into one folder.
            former, where = self._first_use.setdefault(text.lower(), (text, f"{path}:{line}"))
            if where != f"{path}:{line}":
                how = "stands already in" if former == text else f"differs only in case from {former!r} in"
                report("id", f"{text!r} {how} {where}; give every target a name of its own")
        return text

    def _engines_of(self, text: str | None, report: Report) -> tuple[str, ...]:
        if text is None:
            return self._engines
        names = tuple(dict.fromkeys(name for name in _SEPARATORS.split(text.lower()) if name))
        unknown = [name for name in names if name not in self._registry]
        for name in unknown:
            report("engines", unknown_engine(name, self._registry))
        if not names:
            report("engines", f"names no engine; choose from {', '.join(sorted(self._registry))}")
        return () if unknown else names

    def _seed_of(self, text: str | None, report: Report) -> int:
        if text is None:
            return self._seed
        if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > MAX_SEED:
            report("seed", f"{_short(text)!r} is not a whole number from 0 to {MAX_SEED}; correct it or leave it empty")
            return self._seed
        return int(text)

    def _sequences(self, values: Mapping[str, str], path: Path, report: Report) -> list[str]:
        """The chains as written, one for each `:` or FASTA record; none if one of them has a fault."""
        text, fasta = values.get("sequence"), values.get("fasta")
        if text is not None and fasta is not None:
            report("fasta", "the row has a sequence too; fill in one of the two columns")
            return []
        if text is not None:
            return self._protein_sequences([text], "sequence", report)
        if fasta is None:
            report("sequence", "is empty; write the protein in one-letter codes, its chains joined by ':'")
            return []
        place = path.parent / fasta
        if "://" in fasta:
            report("fasta", _address_fault(fasta))
            return []
        try:
            records = [sequence for _, _, sequence in fasta_records(read_text(place))]
        except UnreadableError as error:
            report("fasta", f"{place}: {error}")
            return []
        if not records:
            report("fasta", f"{place} holds no sequence; write one record for each chain")
            return []
        return self._protein_sequences(records, "fasta", report)

    def _protein_sequences(self, texts: Sequence[str], column: str, report: Report) -> list[str]:
        sequences = [_cleaned_sequence(part) for text in texts for part in text.split(":")]
        empty = [number for number, sequence in enumerate(sequences, start=1) if not sequence]
        if empty:
            what = "holds no residue" if len(sequences) == 1 else f"chain {empty[0]} holds no residue"
            report(column, f"{what}; write its one-letter codes or take it out, with its ':'")
            return []
        count = len(self.faults)
        for number, sequence in enumerate(sequences, start=1):
            fault = _not_a_protein(sequence, number, len(sequences))
            if fault:
                report(column, fault)
        return sequences if len(self.faults) == count else []

    def _with_msas(self, sequences: list[str], text: str | None, path: Path, report: Report) -> list[Chain]:
        """The chains as written, each with its MSA."""
        distinct = list(dict.fromkeys(sequences))
        paths: list[Path | None] = [None] * len(sequences)
        if text is not None and sequences:
            entries = [entry.strip() for entry in ([text] if "://" in text else text.split(":"))]
            if len(entries) not in (len(sequences), len(distinct)):
                chains = f"{len(distinct)} distinct chain{'s' if len(distinct) > 1 else ''}"
                report(
                    "msa",
                    f"names {len(entries)} MSA{'s' if len(entries) > 1 else ''} for {chains}; give one for each, "
                    "joined by ':', empty where it shall be searched for",
                )
                return []
            files = [self._existing(entry, "msa", path, report) if entry else None for entry in entries]
            if len(files) == len(sequences):
                paths = files
            else:
                paths = [files[distinct.index(sequence)] for sequence in sequences]
        return [self._chain(sequence, msa) for sequence, msa in zip(sequences, paths, strict=True)]

    def _chain(self, sequence: str, msa: Path | None) -> Chain:
        chain = self._chains.get((sequence, msa))
        if chain is None:
            chain = self._chains[sequence, msa] = Chain(sequence=sequence, msa=msa)
        return chain

    def _copies(self, text: str | None, chains: int, report: Report) -> list[int]:
        """How often each chain as written occurs; none if the text has a fault."""
        if text is None:
            return [1] * chains
        entries = [entry.strip() for entry in text.split(":")]
        wrong = next((entry for entry in entries if not _POSITIVE.fullmatch(entry)), None)
        if wrong is not None:
            report("copies", f"{_short(wrong)!r} is not a positive number; write 2, or 2:1 for the chains one by one")
            return []
        if len(entries) not in (1, chains) and chains:
            report(
                "copies",
                f"has {len(entries)} numbers for {chains} chain{'s' if chains > 1 else ''}; "
                "give one for all or one for each, joined by ':'",
            )
            return []
        numbers = [int(entry) for entry in entries]
        return numbers * chains if len(numbers) == 1 else numbers

    def _expand(
        self, written: list[Chain], copies: list[int], engines: tuple[str, ...], column: str, report: Report
    ) -> tuple[Chain, ...]:
        """All chains of the target, which at least one of the engines accepts; none after a fault."""
        limits = [self._registry[name].limits for name in engines]
        number = sum(copies)
        chains: tuple[Chain, ...] = ()
        # Before they are written out: 1000000000 is a valid number of copies.
        if number <= max(engine.limits.max_chains for engine in self._registry.values()):
            chains = tuple(chain for chain, count in zip(written, copies, strict=True) for _ in range(count))
        if number > max(limit.max_chains for limit in limits):
            most = ", ".join(f"{self._registry[name].limits.max_chains} ({name})" for name in engines)
            fault = f"the target has {number} chains, which no chosen engine takes (at most {most})"
            cure = self._cure(f"predict fewer {'copies' if number > len(written) else 'chains'}", chains)
            report("copies" if number > len(written) else column, f"{fault}; {cure}")
            return ()
        letters = frozenset().union(*(limit.letters for limit in limits))
        for index, chain in enumerate(written, start=1):
            position = first_letter_outside(chain.sequence, letters)
            if position is not None:
                fault = f"{chain.sequence[position]!r} at {_where(position, index, len(written))}"
                hint = "write X for an unknown residue" if "X" in letters else "replace it by one of the 20 amino acids"
                report(column, f"{fault} is accepted by no chosen engine; {self._cure(hint, chains)}")
                return ()
        reasons = [refusal(limit, chains) for limit in limits]
        if None in reasons:
            return chains
        told = "; ".join(f"{name} {reason}" for name, reason in zip(engines, reasons, strict=True))
        hint = "change the target"
        searched = [replace(chain, msa=None) for chain in chains]
        if any(refusal(limit, searched) is None for limit in limits):
            column, hint = "msa", "name one file for equal chains"
        report(column, f"no chosen engine can predict the target: {told}; {self._cure(hint, chains)}")
        return ()

    def _cure(self, hint: str, chains: Sequence[Chain]) -> str:
        """What to do with a target that no chosen engine takes; `chains` are empty if they are too many for any."""
        able = [name for name, engine in self._registry.items() if chains and refusal(engine.limits, chains) is None]
        return (
            f"{hint}, or choose an engine that takes it ({', '.join(able)})" if able else f"{hint}: no engine takes it"
        )

    def _file(self, values: Mapping[str, str], column: str, path: Path, report: Report) -> Path | None:
        text = values.get(column)
        return None if text is None else self._existing(text, column, path, report)

    def _existing(self, text: str, column: str, path: Path, report: Report) -> Path:
        """The path that a sheet at `path` means by `text`: relative to the sheet's own folder."""
        place = path.parent / text
        if "://" in text:
            report(column, _address_fault(text))
        elif self._check_files:
            if place not in self._checked_files:
                self._checked_files[place] = _missing(place)
            fault = self._checked_files[place]
            if fault:
                report(column, f"{place} {fault}; give its path relative to the folder of the sheet")
        return place


def _address_fault(text: str) -> str:
    return f"{_short(text)!r} is an address; download the file and give its path"


def _missing(path: Path) -> str | None:
    path = relocated(path)
    if path.is_file():
        return None
    return "is not a file" if path.exists() else "does not exist"


def _cleaned_sequence(text: str) -> str:
    """Upper case, no white space, without the `*` that many programs write for the stop codon at the end."""
    return "".join(text.split()).upper().removesuffix("*")


def _not_a_protein(sequence: str, chain: int, chains: int) -> str | None:
    """What is wrong with a sequence whatever the engine, and what to do; None if it may be a protein."""
    kinds = set(sequence)
    if len(sequence) >= _MIN_NUCLEOTIDES and kinds <= _NUCLEOTIDES and (kinds >= set("ACGT") or kinds >= set("ACGU")):
        subject = "the sequence" if chains == 1 else f"chain {chain}"
        return f"{subject} looks like {'RNA' if 'U' in kinds else 'DNA'}; translate it and give the protein"
    if sequence.isascii() and sequence.isalpha():
        return None
    position = next(index for index, letter in enumerate(sequence) if not (letter.isascii() and letter.isalpha()))
    letter = sequence[position]
    hints = {
        "*": "it marks a stop codon: end the protein there",
        "-": "take out the gaps of the alignment",
        ".": "take out the gaps of the alignment",
        "/": "join chains by ':'",
        ",": "join chains by ':'",
        "|": "only proteins can be predicted",
    }
    hint = hints.get(letter, "write one letter for each amino acid and nothing else")
    return f"{letter!r} at {_where(position, chain, chains)} is not an amino acid; {hint}"


def _where(position: int, chain: int, chains: int) -> str:
    return f"position {position + 1}" + (f" of chain {chain}" if chains > 1 else "")


def _cleaned_id(text: str, line: int) -> str:
    """A safe id close to `text`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).lstrip("._-").rstrip("_")
    return plain[:MAX_ID_LENGTH] or f"target_{line}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
