"""Search profiles through a sequence database that is read block by block, in memory that does not grow with it.

One read of a block serves every profile. Blocks are searched by threads (HMMER releases the interpreter's lock), and
nothing but compact hits is kept. A block only knows how many sequences it holds itself, so that thresholds in E-values
are applied once the whole database has been counted: the outcome depends neither on the size of a block, nor on the
number of threads, nor on the order in which they finish.
"""

import gzip
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from pyhmmer.easel import Alphabet, DigitalSequence, DigitalSequenceBlock, SequenceFile
from pyhmmer.plan7 import HMM, Pipeline, TopHits

from snakefold.errors import MemberError, SnakefoldError

OnProgress = Callable[[str, float], None]
"""Called with the name of what is being searched and the part of it that has been read (0-1)."""

# Residues of the database held at a time by all threads together, and the bounds of one block. A residue takes about
# three bytes, so that these stand for some 150 MB.
_RESIDUES_IN_FLIGHT = 48_000_000
_SMALLEST_BLOCK = 500_000
_LARGEST_BLOCK = 4_000_000
# HMMER's limit for one target sequence (residues); nothing that long is a protein chain.
_LONGEST_TARGET = 100_000
_NUCLEOTIDES = frozenset("ACGTUN")


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """HMMER's reporting and inclusion E-values and the P-values of its three filters.

    The defaults are AlphaFold's for jackhmmer (`-E 0.0001 --incE 0.0001 --F1 0.0005 --F2 0.00005 --F3 0.0000005`), with
    HMMER's own for domains.
    """

    evalue: float = 1e-4
    inclusion_evalue: float = 1e-4
    domain_evalue: float = 10.0
    domain_inclusion_evalue: float = 1e-3
    f1: float = 0.0005
    f2: float = 0.00005
    f3: float = 0.0000005


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """One local alignment of a target sequence to the profile.

    `aligned` is the A3M row from profile column `start` (0-based) on; `posterior` has a character of HMMER's posterior
    probability (0-9, `*`) under each of its characters, `.` under gaps. `first` and `last` are 1-based positions in the
    target; `score` is in bits.
    """

    start: int
    aligned: str
    posterior: str
    first: int
    last: int
    score: float
    pvalue: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One target sequence with its domains in their order along the target; `score` is in bits, of all of it."""

    name: str
    description: str
    score: float
    pvalue: float
    domains: tuple[Domain, ...]

    @property
    def order(self) -> tuple[float, str, tuple[tuple[int, str], ...]]:
        """Sort key, best first. Total, so that the order never depends on which thread came first."""
        return -self.score, self.name, tuple((domain.first, domain.aligned) for domain in self.domains)


@dataclass(kw_only=True)
class Found:
    """What a profile found in a database.

    `targets` is the number of sequences searched (HMMER's Z), `reported` those within the E-value (its domZ), all of
    them, while `hits` has the best only (those that pass the inclusion thresholds, best first).
    """

    targets: int
    reported: int
    hits: list[Hit]

    def evalue(self, pvalue: float) -> float:
        """E-value of a sequence or, independently of the others in it, of a domain."""
        return pvalue * self.targets


@dataclass
class _Collector:
    """The hits of one profile while the database is being read: the best `keep` of them, and the P-values of all."""

    keep: int
    hits: list[Hit] = field(default_factory=list)
    pvalues: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, hits: Sequence[Hit]) -> None:
        self.hits.extend(hits)
        self.pvalues.extend(hit.pvalue for hit in hits)
        if len(self.hits) > 2 * self.keep:
            self._prune()

    def _prune(self) -> None:
        self.hits.sort(key=lambda hit: hit.order)
        del self.hits[self.keep :]

    def finish(self, targets: int, thresholds: Thresholds) -> Found:
        """Apply the thresholds as HMMER does when it has seen every target."""
        reported = sum(pvalue * targets <= thresholds.evalue for pvalue in self.pvalues)
        self._prune()
        included: list[Hit] = []
        for hit in self.hits:
            if not hit.pvalue * targets <= min(thresholds.evalue, thresholds.inclusion_evalue):
                continue
            domains = tuple(
                domain
                for domain in hit.domains
                if domain.pvalue * reported <= min(thresholds.domain_evalue, thresholds.domain_inclusion_evalue)
            )
            if domains:
                included.append(
                    Hit(
                        name=hit.name,
                        description=hit.description,
                        score=hit.score,
                        pvalue=hit.pvalue,
                        domains=domains,
                    )
                )
        return Found(targets=targets, reported=reported, hits=included)


def block_size(threads: int) -> int:
    """Residues in a block such that the blocks waiting for `threads` threads stay within the memory meant for them."""
    return max(_SMALLEST_BLOCK, min(_LARGEST_BLOCK, _RESIDUES_IN_FLIGHT // (2 * threads + 1)))


def read_blocks(
    database: Path,
    alphabet: Alphabet,
    *,
    residues: int,
    accept: Callable[[DigitalSequence], bool] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[DigitalSequenceBlock]:
    """Yield the sequences of a FASTA file (packed if its name ends in `.gz`) in blocks of about `residues` residues.

    Sequences that `accept` refuses are left out, as are those beyond HMMER's limit of 100,000 residues. Raises
    SnakefoldError if the file is missing, damaged, empty, not FASTA or not protein.
    """
    empty = True
    try:
        size = max(1, database.stat().st_size)
        with ExitStack() as stack:
            raw = stack.enter_context(database.open("rb"))
            # GzipFile reads many concatenated members too, as bgzip writes them.
            handle = stack.enter_context(gzip.GzipFile(fileobj=raw)) if database.suffix == ".gz" else raw
            if database.suffix == ".gz":
                # pyhmmer swallows the reason if this fails inside its own callback.
                cast(gzip.GzipFile, handle).peek(1)
            file = SequenceFile(cast(BinaryIO, handle), format="fasta", digital=True, alphabet=alphabet)
            stack.enter_context(file)
            while block := file.read_block(residues=residues):
                if accept is not None or len(block.largest()) > _LONGEST_TARGET:
                    chosen = [
                        sequence
                        for sequence in block
                        if len(sequence) <= _LONGEST_TARGET and (accept is None or accept(sequence))
                    ]
                    block = DigitalSequenceBlock(alphabet, chosen)
                if empty and len(block):
                    _check_protein(block, alphabet, database)
                    empty = False
                if progress is not None:
                    progress(min(1.0, raw.tell() / size))
                if len(block):
                    yield block
    except FileNotFoundError:
        raise SnakefoldError(f"{database}: no such database file; download the database again") from None
    except (OSError, EOFError, ValueError, SystemError, zlib.error, UnicodeDecodeError) as error:
        if "is empty" in str(error):
            raise SnakefoldError(f"{database}: holds no sequences; download the database again") from None
        reason = str(error.__cause__ or error).replace("\n", " ")
        raise SnakefoldError(f"{database}: cannot be read as FASTA: {reason}; download the database again") from None
    if empty:
        raise SnakefoldError(f"{database}: holds no protein sequences; download the database again")


def looks_nucleic(sequence: DigitalSequence, alphabet: Alphabet) -> bool:
    """Whether every letter is one of A, C, G, T, U, N."""
    return bool(np.isin(sequence.sequence, _codes(alphabet)).all())


def _codes(alphabet: Alphabet) -> list[int]:
    return [alphabet.symbols.index(letter) for letter in sorted(_NUCLEOTIDES)]


def _check_protein(block: DigitalSequenceBlock, alphabet: Alphabet, database: Path) -> None:
    """Refuse DNA: its letters are amino acids too, so that a search would run and find nothing."""
    sample = np.concatenate([np.asarray(sequence.sequence) for sequence in block[:1000]])
    if len(sample) and np.isin(sample, _codes(alphabet)).mean() > 0.95:
        raise SnakefoldError(f"{database}: holds nucleotide sequences, not proteins; give a protein database")


def scan(
    models: Sequence[HMM],
    database: Path,
    *,
    alphabet: Alphabet,
    thresholds: Thresholds,
    threads: int,
    keep: int,
    residues: int | None = None,
    accept: Callable[[DigitalSequence], bool] | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[Found | MemberError]:
    """Search every model through the database, reading it once.

    `keep` bounds the hits held for a model, the best ones; `residues` is the size of a block (by default it follows
    from the number of threads, see `block_size`). A model whose search fails gets a MemberError in place of its hits.
    Raises SnakefoldError if the database is no good.
    """
    collectors = [_Collector(keep) for _ in models]
    failures: dict[int, MemberError] = {}
    targets = 0
    pending: dict[Future[list[Hit]], int] = {}

    def collect(limit: int) -> None:
        """Wait until fewer than `limit` searches are under way."""
        while len(pending) >= limit and pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                index = pending.pop(future)
                try:
                    collectors[index].add(future.result())
                except (ValueError, RuntimeError) as error:
                    failures[index] = MemberError("search_failed", f"search in {database.name} failed: {error}")

    with ThreadPoolExecutor(threads, thread_name_prefix="search") as pool:
        try:
            for block in read_blocks(
                database, alphabet, residues=residues or block_size(threads), accept=accept, progress=progress
            ):
                targets += len(block)
                for index, model in enumerate(models):
                    if index not in failures:
                        pending[pool.submit(_search_block, model, block, alphabet, thresholds)] = index
                        # Two tasks a thread keep all threads busy while the next block is read.
                        collect(2 * threads)
            collect(1)
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    return [failures.get(i) or collector.finish(targets, thresholds) for i, collector in enumerate(collectors)]


def _search_block(model: HMM, block: DigitalSequenceBlock, alphabet: Alphabet, thresholds: Thresholds) -> list[Hit]:
    """Hits of one model in one block: all that could pass the thresholds once the whole database is known.

    Z counts the block's own sequences and domZ is 1, the most lenient values there can be.
    """
    pipeline = Pipeline(
        alphabet,
        domZ=1,
        E=thresholds.evalue,
        incE=thresholds.inclusion_evalue,
        domE=thresholds.domain_evalue,
        incdomE=thresholds.domain_inclusion_evalue,
        F1=thresholds.f1,
        F2=thresholds.f2,
        F3=thresholds.f3,
    )
    try:
        found = pipeline.search_hmm(model, block)
    except OverflowError:
        # One odd target (thousands of repeats) overflows the vectorised arithmetic and would take the block with it:
        # close in on it, and go without it, as the hmmer programs do.
        if len(block) == 1:
            return []
        middle = len(block) // 2
        return [
            hit
            for half in (block[:middle], block[middle:])
            for hit in _search_block(model, cast(DigitalSequenceBlock, half), alphabet, thresholds)
        ]
    return _compact(found)


def _compact(found: TopHits) -> list[Hit]:
    """The included hits and domains as plain data, a tenth of the size of HMMER's."""
    hits: list[Hit] = []
    for hit in found.included:
        domains: list[Domain] = []
        for domain in hit.domains.included:
            alignment = domain.alignment
            domains.append(
                Domain(
                    start=alignment.hmm_from - 1,
                    aligned=alignment.target_sequence,
                    posterior=alignment.posterior_probabilities,
                    first=alignment.target_from,
                    last=alignment.target_to,
                    score=domain.score,
                    pvalue=domain.pvalue,
                )
            )
        domains.sort(key=lambda domain: (domain.first, domain.aligned))
        hits.append(
            Hit(
                name=hit.name,
                description=hit.description or "",
                score=hit.score,
                pvalue=hit.pvalue,
                domains=tuple(domains),
            )
        )
    return hits
