"""Multiple sequence alignments of chains: searched with jackhmmer's algorithm, or given by the user."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import cast

from pyhmmer.easel import Alphabet, DigitalMSA, MSAFile, TextSequence
from pyhmmer.plan7 import HMM, Background, Builder

from snakefold.errors import MemberError, SnakefoldError
from snakefold.files import write_json, write_text
from snakefold.outcome import Outcome
from snakefold.search import depth
from snakefold.search.formats import (
    Row,
    parse_alignment,
    read_text,
    to_a3m,
    to_matrix,
    to_stockholm,
    unique_rows,
)
from snakefold.search.stream import Found, Hit, OnProgress, Thresholds, scan

OnResult = Callable[[str, Path, Outcome], None]
"""Called with the chain id, the folder that holds its files, and how it ended."""

OnFailure = Callable[[str, MemberError], None]
"""Called with the chain id and why nothing can be computed for it."""

QUERY = "query"
"""Name of the first row of every MSA."""

GIVEN = "given"
"""Name under which an MSA from the sheet stands beside databases' names."""

_DATABASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def search_msas(
    queries: Mapping[str, str],
    databases: Mapping[str, Path],
    *,
    scratch: Path,
    on_result: OnResult,
    on_failure: OnFailure | None = None,
    progress: OnProgress | None = None,
    thresholds: Thresholds | None = None,
    iterations: int = 1,
    max_sequences: int = 10_000,
    threads: int = 1,
    queries_per_pass: int = 32,
    block_residues: int | None = None,
) -> None:
    """Search every chain through every database and write its MSA (`<database>.sto`, `msa.a3m`, `msa.json`).

    The search is jackhmmer's: a profile from the sequence, then, for `iterations` > 1, from the hits, until no new ones
    turn up. Queries are taken `queries_per_pass` at a time; these share each read of a database, and their results are
    handed to `on_result` (called in this thread, in the order of `queries`) before the next ones start. Memory grows
    with `queries_per_pass`, `max_sequences` and `threads`, but not with the databases.

    queries: chain id -> sequence (one-letter codes; X, B, Z, J, O, U are allowed).
    databases: name -> FASTA file of proteins, may be packed (`.gz`).
    scratch: folder in which `<chain id>/` is made for each chain; empty, for everything in there is the result.
    max_sequences: rows that an MSA may have, the query among them, for each database and for all; the best are kept. A
        profile of a further iteration is made from these hits too.
    threads: searches that run at a time.
    block_residues: size of a block of a database; does not change any result.

    A chain that cannot be searched goes to `on_failure` (raised, if there is none). Raises SnakefoldError for a
    database that is missing, damaged, empty or not protein.
    """
    for name in databases:
        if not _DATABASE_NAME.fullmatch(name):
            raise SnakefoldError(f"database name {name!r}: use letters, digits, '.', '_' and '-' only")
    if iterations < 1 or max_sequences < 1 or threads < 1 or queries_per_pass < 1:
        raise SnakefoldError("iterations, max_sequences, threads and queries_per_pass must be at least 1")
    search = _Search(
        thresholds=thresholds or Thresholds(),
        iterations=iterations,
        max_sequences=max_sequences,
        threads=threads,
        block_residues=block_residues,
        progress=progress,
    )
    for group in _groups(queries, queries_per_pass):
        chains = [_Chain(name, sequence) for name, sequence in group]
        for database, path in databases.items():
            search.through(database, path, chains, scratch)
        for chain in chains:
            if chain.failure is None:
                folder = scratch / chain.name
                on_result(chain.name, folder, _write_msa(chain, databases, folder, max_sequences))
            elif on_failure is None:
                raise chain.failure
            else:
                on_failure(chain.name, chain.failure)


def _groups(queries: Mapping[str, str], size: int) -> Iterator[list[tuple[str, str]]]:
    remaining = iter(queries.items())
    while group := list(islice(remaining, size)):
        yield group


@dataclass
class _Chain:
    """A query on its way through the databases."""

    name: str
    sequence: str
    hits: list[tuple[Hit, str]] = field(default_factory=list)
    depths: dict[str, int] = field(default_factory=dict)
    failure: MemberError | None = None

    def __post_init__(self) -> None:
        self.sequence = self.sequence.upper()


@dataclass(frozen=True, kw_only=True)
class _Search:
    """The settings that all searches of a call share."""

    thresholds: Thresholds
    iterations: int
    max_sequences: int
    threads: int
    block_residues: int | None
    progress: OnProgress | None
    alphabet: Alphabet = field(default_factory=Alphabet.amino)

    def through(self, database: str, path: Path, chains: Sequence[_Chain], scratch: Path) -> None:
        """Search the chains through one database, all iterations; write Stockholm; add to their hits."""
        active = [chain for chain in chains if chain.failure is None]
        found: dict[str, Found] = {}
        models: dict[str, HMM] = {}
        for chain in active:
            try:
                models[chain.name] = model_of_sequence(chain.sequence, self.alphabet)
            except MemberError as error:
                chain.failure = error
        active = [chain for chain in active if chain.failure is None]
        for iteration in range(1, self.iterations + 1):
            if not active:
                break
            label = database if self.iterations == 1 else f"{database}, iteration {iteration}"
            results = scan(
                [models[chain.name] for chain in active],
                path,
                alphabet=self.alphabet,
                thresholds=self.thresholds,
                threads=self.threads,
                keep=self.max_sequences,
                residues=self.block_residues,
                progress=None if self.progress is None else _labelled(self.progress, label),
            )
            unconverged: list[_Chain] = []
            for chain, result in zip(active, results, strict=True):
                if isinstance(result, MemberError):
                    chain.failure = result
                    continue
                before = found.get(chain.name)
                found[chain.name] = result
                if iteration < self.iterations and not _converged(before, result):
                    try:
                        rows = [Row(name=QUERY, aligned=chain.sequence), *rows_of(result.hits, len(chain.sequence))]
                        models[chain.name] = model_of_rows(rows, self.alphabet)
                        unconverged.append(chain)
                    except MemberError as error:
                        chain.failure = error
            active = unconverged
        for chain in chains:
            if chain.failure is None:
                self._write_database(chain, database, found[chain.name].hits, scratch)

    def _write_database(self, chain: _Chain, database: str, hits: Sequence[Hit], scratch: Path) -> None:
        rows = rows_of(hits, len(chain.sequence))[: self.max_sequences - 1]
        rows = [Row(name=QUERY, aligned=chain.sequence), *rows]
        write_text(scratch / chain.name / f"{database}.sto", to_stockholm(rows))
        chain.depths[database] = len(rows)
        chain.hits.extend((hit, database) for hit in hits)


def _labelled(progress: OnProgress, label: str) -> Callable[[float], None]:
    return lambda fraction: progress(label, fraction)


def _converged(before: Found | None, after: Found) -> bool:
    """Whether an iteration brought nothing new: no new sequence and no more rows (jackhmmer's criterion)."""
    # In the first iteration everything is new to the profile, except where nothing was found at all.
    known = {hit.name for hit in before.hits} if before else set()
    rows = sum(len(hit.domains) for hit in before.hits) if before else 0
    return all(hit.name in known for hit in after.hits) and sum(len(hit.domains) for hit in after.hits) <= rows


def rows_of(hits: Sequence[Hit], length: int) -> list[Row]:
    """The domains of the hits as rows aligned to a query of `length` residues, named `<hit>/<first>-<last>`."""
    rows: list[Row] = []
    for hit in hits:
        for domain in hit.domains:
            left = "-" * domain.start
            columns = sum(not letter.islower() for letter in domain.aligned)
            right = "-" * (length - domain.start - columns)
            rows.append(
                Row(
                    name=f"{hit.name}/{domain.first}-{domain.last}",
                    description=hit.description,
                    aligned=f"{left}{domain.aligned}{right}",
                )
            )
    return rows


def model_of_sequence(sequence: str, alphabet: Alphabet) -> HMM:
    """Profile of a single sequence (BLOSUM62 and gap penalties, as jackhmmer starts)."""
    if not re.fullmatch("[A-Z]+", sequence):
        raise MemberError("bad_sequence", "the sequence may hold the letters A-Z only, and at least one")
    try:
        query = TextSequence(name=QUERY, sequence=sequence).digitize(alphabet)
        model, _, _ = _builder(alphabet).build(query, Background(alphabet))
    except (ValueError, RuntimeError) as error:
        raise MemberError("search_failed", f"no profile can be made from the sequence: {error}") from None
    return model


def model_of_rows(rows: Sequence[Row], alphabet: Alphabet) -> HMM:
    """Profile whose columns are the residues of the first row, the query."""
    # Easel's parser is the way to an alignment with an RF line, which decides what a match column is.
    file = io.BytesIO(to_stockholm([Row(name=row.name, aligned=row.aligned) for row in rows]).encode())
    try:
        with closing(MSAFile(file, format="stockholm", digital=True, alphabet=alphabet)) as handle:
            msa = cast(DigitalMSA, handle.read())
        msa.name = QUERY
        model, _, _ = _builder(alphabet).build_msa(msa, Background(alphabet))
    except (ValueError, RuntimeError) as error:
        raise MemberError("search_failed", f"no profile can be made from the alignment: {error}") from None
    return model


def _builder(alphabet: Alphabet) -> Builder:
    # With the default architecture HMMER chooses the match columns itself: they would no longer be the query's
    # residues, and a further iteration fails with eslECORRUPT.
    return Builder(alphabet, architecture="hand")


def _write_msa(chain: _Chain, databases: Mapping[str, Path], folder: Path, max_sequences: int) -> Outcome:
    """Merge the hits of all databases, best first, into `msa.a3m` and describe them in `msa.json`."""
    # Bits do not depend on the size of a database, E-values do.
    order = {name: rank for rank, name in enumerate(databases)}
    hits = [hit for hit, _ in sorted(chain.hits, key=lambda item: (item[0].order, order[item[1]]))]
    rows = [Row(name=QUERY, aligned=chain.sequence), *rows_of(hits, len(chain.sequence))]
    return _describe(rows, chain.depths, "search", folder, max_sequences)


def _describe(
    rows: Sequence[Row], depths: Mapping[str, int], source: str, folder: Path, max_sequences: int | None
) -> Outcome:
    kept = unique_rows(rows)[:max_sequences]
    matrix = to_matrix(kept)
    neff = depth.effective_sequences(matrix)
    write_text(folder / "msa.a3m", to_a3m(kept))
    write_json(
        folder / "msa.json",
        {
            "depth": len(kept),
            "coverage": depth.coverage(matrix),
            "neff": neff,
            "databases": [{"name": name, "depth": count} for name, count in depths.items()],
            "source": source,
        },
    )
    return Outcome(facts={"depth": len(kept), "neff": neff})


def import_msa(path: Path, sequence: str, folder: Path) -> Outcome:
    """Take an MSA from the sheet in place of a search: check it and write the files that a search writes.

    path: A3M, aligned FASTA or Stockholm, may be packed (`.gz`); its first row must be the chain's sequence, whatever
        its name. Columns where it has gaps become inserts.
    sequence: the chain's sequence; folder: where `given.sto`, `msa.a3m` and `msa.json` are written.

    Raises MemberError("bad_msa") if the file cannot be read or does not belong to the chain.
    """
    rows = parse_alignment(read_text(path), str(path))
    sequence = sequence.upper()
    first = rows[0].aligned
    if any(letter.islower() for letter in first):
        raise MemberError("bad_msa", f"{path}, row 1 ({rows[0].name}): the chain's own row may not hold inserts")
    if first != sequence:
        raise MemberError("bad_msa", f"{path}, row 1 ({rows[0].name}): {_difference(first, sequence)}")
    rows = [Row(name=QUERY, aligned=sequence), *rows[1:]]
    write_text(folder / f"{GIVEN}.sto", to_stockholm(rows))
    return _describe(rows, {GIVEN: len(rows)}, GIVEN, folder, None)


def _difference(found: str, expected: str) -> str:
    if len(found) != len(expected):
        return f"has {len(found)} residues, but the chain has {len(expected)}; its first row must be the chain"
    position = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
    return (
        f"residue {position + 1} is {found[position]}, but the chain has {expected[position]}; "
        "its first row must be the chain"
    )
