"""Structural templates of chains: hmmbuild and hmmsearch against the sequences of a structure library."""

import gzip
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from pyhmmer.easel import Alphabet, DigitalSequence
from pyhmmer.plan7 import HMM

from snakefold.errors import MemberError, SnakefoldError
from snakefold.files import replacing, write_json
from snakefold.outcome import Outcome
from snakefold.search.entries import ChainSequence, Library, UnusableEntryError, place
from snakefold.search.formats import parse_alignment, read_text
from snakefold.search.msa import OnFailure, OnResult, model_of_rows, model_of_sequence
from snakefold.search.stream import Domain, Found, Hit, OnProgress, Thresholds, looks_nucleic, scan

# AlphaFold's filters for hmmsearch (-E 100 --domE 100 --F1 0.1 --F2 0.1 --F3 0.1): weak similarity may still be a fold.
_THRESHOLDS = Thresholds(
    evalue=100,
    inclusion_evalue=100,
    domain_evalue=100,
    domain_inclusion_evalue=100,
    f1=0.1,
    f2=0.1,
    f3=0.1,
)
# Hits kept while the list is read; families with more chains in the PDB than this lose their most distant members.
_KEPT_HITS = 10_000
# A further domain joins the best one only if it is significant itself: chance matches would be modelled otherwise.
_JOINING_EVALUE = 1e-2
_JOINING_PAIRS = 10
# Entries of one score that are compared by resolution. Some proteins have thousands of entries.
_COMPARED_ENTRIES = 64
_LISTED_REJECTIONS = 100

Pair = tuple[int, int, float]
"""Index in the query, index in the template chain's sequence (both 0-based), posterior probability."""


@dataclass(frozen=True, kw_only=True)
class TemplateLimits:
    """Which hits may serve as templates.

    max_evalue: E-value over the library's chains beyond which likeness is chance.
    max_template_date: entries released later are not used, nor those without a date; None admits all.
    min_coverage: aligned residues with coordinates, as a part of the query (0-1).
    min_identity, max_identity: identical residues as a part of the aligned ones (0-1).
    exclude: entries that must not be used (such as the target's own), whatever their case.
    max_hits: templates to keep.
    """

    max_evalue: float = 1e-3
    max_template_date: date | None = None
    min_coverage: float = 0.1
    min_identity: float = 0.0
    max_identity: float = 1.0
    exclude: frozenset[str] = frozenset()
    max_hits: int = 20


def search_templates(
    msas: Mapping[str, Path],
    sequences: Mapping[str, str],
    library: Path,
    *,
    scratch: Path,
    on_result: OnResult,
    on_failure: OnFailure | None = None,
    progress: OnProgress | None = None,
    max_evalue: float = 1e-3,
    max_template_date: date | None = None,
    min_coverage: float = 0.1,
    min_identity: float = 0.0,
    max_identity: float = 1.0,
    exclude: Collection[str] = (),
    max_hits: int = 20,
    threads: int = 1,
    queries_per_pass: int = 32,
) -> None:
    """Find templates of every chain and write `hits.json` and the entries used (`<entry>.cif.gz`).

    msas: chain id -> its `msa.a3m` (or any alignment whose first row is the chain).
    sequences: chain id -> sequence.
    library: folder with the sequences and the mmCIF files (see `entries.Library`).
    scratch: folder in which `<chain id>/` is made for each chain; empty, for everything in there is the result.
    threads: searches that run at a time. The other parameters are those of `TemplateLimits`.

    Hits are ranked by HMMER's bit score of the whole sequence, then by resolution (none last), then by name. An entry
    is listed once for each different alignment; its chains with the same one are named under `chains`, and the one with
    the most coordinates stands for them. What was passed over is in `rejected` with the reason, best first, at most 100
    of them (`rejected_total` counts all). A chain without templates ends as done with no hits.

    Chains that cannot be searched go to `on_failure` (raised, if there is none). Raises SnakefoldError if the library
    is no good.
    """
    if threads < 1 or queries_per_pass < 1:
        raise SnakefoldError("threads and queries_per_pass must be at least 1")
    alphabet = Alphabet.amino()
    opened = Library(library)
    limits = TemplateLimits(
        max_evalue=max_evalue,
        max_template_date=max_template_date,
        min_coverage=min_coverage,
        min_identity=min_identity,
        max_identity=max_identity,
        exclude=frozenset(entry.lower() for entry in exclude),
        max_hits=max_hits,
    )
    chains = list(msas)
    for start in range(0, len(chains), queries_per_pass):
        models: dict[str, HMM] = {}
        outcomes: dict[str, Found | MemberError] = {}
        group = chains[start : start + queries_per_pass]
        for chain in group:
            try:
                models[chain] = _model(msas[chain], sequences[chain].upper(), alphabet)
            except MemberError as error:
                outcomes[chain] = error
        if models:
            found = scan(
                list(models.values()),
                opened.seqres,
                alphabet=alphabet,
                thresholds=_THRESHOLDS,
                threads=threads,
                keep=_KEPT_HITS,
                accept=lambda sequence: _is_protein(sequence, alphabet),
                progress=None if progress is None else lambda fraction: progress("templates", fraction),
            )
            outcomes.update(zip(models, found, strict=True))
        for chain in group:
            outcome = outcomes[chain]
            if isinstance(outcome, Found):
                folder = scratch / chain
                on_result(chain, folder, _choose(outcome, sequences[chain].upper(), opened, limits, folder))
            elif on_failure is None:
                raise outcome
            else:
                on_failure(chain, outcome)


def _model(msa: Path, sequence: str, alphabet: Alphabet) -> HMM:
    """Profile with a column for each residue of the chain."""
    rows = parse_alignment(read_text(msa), str(msa))
    if rows[0].aligned != sequence:
        raise MemberError("bad_msa", f"{msa}: its first row is not the chain")
    # A profile from one row would know nothing of substitutions; BLOSUM62 does.
    return model_of_sequence(sequence, alphabet) if len(rows) == 1 else model_of_rows(rows, alphabet)


def _is_protein(sequence: DigitalSequence, alphabet: Alphabet) -> bool:
    """Whether a chain of the list is a protein: by its header (`mol:protein`) or else its letters."""
    description = sequence.description or ""
    if "mol:" in description:
        return "mol:protein" in description
    return not looks_nucleic(sequence, alphabet)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """The chains of an entry that align in the same way."""

    entry: str
    chains: tuple[str, ...]
    hit: Hit
    pairs: tuple[Pair, ...]
    letters: Mapping[int, str]


def _choose(found: Found, sequence: str, library: Library, limits: TemplateLimits, folder: Path) -> Outcome:
    """Apply the limits to what was found, best first; write the files of the chain."""
    hits: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for candidate in _ranked(_candidates(found), library):
        if len(hits) >= limits.max_hits:
            break
        try:
            hits.append(_use(candidate, found, sequence, library, limits))
        except (UnusableEntryError, ValueError, RuntimeError, IndexError) as error:
            # Beside the reasons of our own those of the mmCIF parser: one odd entry must not end the batch.
            rejected += [{"entry": candidate.entry, "chain": chain, "reason": str(error)} for chain in candidate.chains]
    for entry in sorted({hit["entry"] for hit in hits}):
        _write_entry(library.content(entry), folder / f"{entry}.cif.gz")
    write_json(
        folder / "hits.json",
        {"hits": hits, "rejected": rejected[:_LISTED_REJECTIONS], "rejected_total": len(rejected)},
    )
    best = {key: hits[0][key] for key in ("entry", "chain", "identity", "coverage")} if hits else None
    return Outcome(facts={"hits": len(hits), "best": best})


def _write_entry(content: bytes, path: Path) -> None:
    # A clock or a file name in gzip's header would make two runs differ.
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(content, compresslevel=6, mtime=0))


def _candidates(found: Found) -> list[_Candidate]:
    """Hits with their domains joined, those of one entry with the same alignment as one."""
    grouped: dict[tuple[str, tuple[Domain, ...]], list[tuple[str, Hit]]] = {}
    for hit in found.hits:
        entry, _, chain = hit.name.partition("_")
        grouped.setdefault((entry.lower(), hit.domains), []).append((chain, hit))
    candidates: list[_Candidate] = []
    for (entry, _), members in grouped.items():
        hit = members[0][1]
        pairs, letters = _joined(found, hit)
        candidates.append(
            _Candidate(
                entry=entry,
                chains=tuple(sorted({chain for chain, _ in members}, key=_chain_order)),
                hit=hit,
                pairs=tuple(pairs),
                letters=letters,
            )
        )
    return candidates


def _chain_order(chain: str) -> tuple[int, str]:
    return len(chain), chain


def _ranked(candidates: Sequence[_Candidate], library: Library) -> Iterator[_Candidate]:
    """Best first: score, then resolution, then name. Files are opened only as far as the caller goes on."""

    def score(candidate: _Candidate) -> float:
        return -round(candidate.hit.score, 2)

    def name(candidate: _Candidate) -> tuple[str, tuple[int, str]]:
        return candidate.entry, _chain_order(candidate.chains[0])

    def resolution(candidate: _Candidate) -> float:
        try:
            return library.summary(candidate.entry).resolution or float("inf")
        except UnusableEntryError:
            return float("inf")

    ordered = sorted(candidates, key=lambda candidate: (score(candidate), name(candidate)))
    for _, equals in groupby(ordered, key=score):
        equal = list(equals)
        compared = equal[:_COMPARED_ENTRIES] if len(equal) > 1 else []
        yield from sorted(compared, key=lambda candidate: (resolution(candidate), name(candidate)))
        yield from equal[len(compared) :]


def _joined(found: Found, hit: Hit) -> tuple[list[Pair], dict[int, str]]:
    """Pairs of the best domain and of those that follow or precede it in both sequences; letters of the template.

    A circular permutation or a repeat leaves its second domain out: one chain cannot be traced through both.
    """
    domains = sorted(hit.domains, key=lambda domain: (-domain.score, domain.first))
    pairs, letters = _pairs(domains[0])
    for domain in domains[1:]:
        if found.evalue(domain.pvalue) > _JOINING_EVALUE:
            continue
        further, further_letters = _pairs(domain)
        # The alignments may overlap a little where they meet; the better domain keeps what it has.
        fitting = _between(pairs, further)
        if len(fitting) >= min(_JOINING_PAIRS, len(further)):
            pairs = sorted([*pairs, *fitting])
            letters.update((template, further_letters[template]) for _, template, _ in fitting)
    return pairs, letters


def _between(pairs: Sequence[Pair], further: Sequence[Pair]) -> list[Pair]:
    """The longest run of further pairs that lies in one gap of `pairs`, in both sequences."""
    edges = [(-1, -1), *((query, template) for query, template, _ in pairs), (10**9, 10**9)]
    best: list[Pair] = []
    for (query_left, template_left), (query_right, template_right) in pairwise(edges):
        run = [
            pair for pair in further if query_left < pair[0] < query_right and template_left < pair[1] < template_right
        ]
        if len(run) > len(best):
            best = run
    return best


def _pairs(domain: Domain) -> tuple[list[Pair], dict[int, str]]:
    """Aligned pairs of a domain, and the template's letters at them."""
    pairs: list[Pair] = []
    letters: dict[int, str] = {}
    query, template = domain.start, domain.first - 1
    for letter, posterior in zip(domain.aligned, domain.posterior, strict=True):
        if letter.islower():
            template += 1
            continue
        if letter != "-":
            pairs.append((query, template, _probability(posterior)))
            letters[template] = letter
            template += 1
        query += 1
    return pairs, letters


def _probability(character: str) -> float:
    """Middle of the range that HMMER's character stands for: `*` is 0.95-1, `9` 0.85-0.95, ... `0` 0-0.05."""
    return 0.975 if character == "*" else max(0.025, int(character) / 10)


def _use(
    candidate: _Candidate, found: Found, sequence: str, library: Library, limits: TemplateLimits
) -> dict[str, Any]:
    """The candidate as an item of `hits.json`; UnusableEntryError if a limit or its file speaks against it."""
    if candidate.entry in limits.exclude:
        raise UnusableEntryError("excluded")
    evalue = found.evalue(candidate.hit.pvalue)
    if evalue > limits.max_evalue:
        raise UnusableEntryError(f"E-value {evalue:.2g}, above {limits.max_evalue:.2g}")
    # The alignment alone shows most misfits; the entry need not be opened for them.
    _check_limits(candidate.pairs, candidate.letters, sequence, limits)
    summary = library.summary(candidate.entry)
    if limits.max_template_date is not None:
        if summary.released is None:
            raise UnusableEntryError("has no release date, and max_template_date is set")
        if summary.released > limits.max_template_date:
            raise UnusableEntryError(f"released on {summary.released}, after {limits.max_template_date}")
    chain, pairs, letters = _best_chain(candidate, library)
    identity, coverage = _check_limits(pairs, letters, sequence, limits)
    return {
        "entry": candidate.entry,
        "chain": chain,
        "chains": list(candidate.chains),
        "evalue": float(f"{evalue:.3g}"),
        "score": round(candidate.hit.score, 2),
        "identity": round(identity, 4),
        "coverage": round(coverage, 4),
        "release_date": summary.released.isoformat() if summary.released else None,
        "resolution": summary.resolution,
        "title": summary.title,
        "pairs": [list(pair) for pair in pairs],
        "file": f"{candidate.entry}.cif.gz",
    }


def _best_chain(candidate: _Candidate, library: Library) -> tuple[str, list[Pair], dict[int, str]]:
    """The chain with most of the aligned residues observed, its pairs, and its letters by index in its sequence."""
    best: tuple[str, list[Pair], dict[int, str]] | None = None
    failure: UnusableEntryError | None = None
    for chain in candidate.chains:
        try:
            stated = library.chain(candidate.entry, chain)
            pairs = _with_coordinates(candidate, stated)
        except UnusableEntryError as error:
            failure = failure or error
            continue
        if best is None or len(pairs) > len(best[1]):
            best = chain, pairs, {template: stated.letters[template] for _, template, _ in pairs}
    if best is None:
        raise failure or UnusableEntryError("has no chain")
    return best


def _with_coordinates(candidate: _Candidate, stated: ChainSequence) -> list[Pair]:
    """The pairs whose template residue has coordinates, with indices in the sequence that the entry states."""
    placed = place(sorted(candidate.letters.items()), stated.letters)
    return [
        (query, placed[template], posterior)
        for query, template, posterior in candidate.pairs
        if template in placed and placed[template] in stated.observed
    ]


def _check_limits(
    pairs: Sequence[Pair], letters: Mapping[int, str], sequence: str, limits: TemplateLimits
) -> tuple[float, float]:
    """Identity (of the pairs) and coverage (of the query), 0-1; UnusableEntryError if out of the limits."""
    if not pairs:
        raise UnusableEntryError("none of the aligned residues has coordinates")
    coverage = len(pairs) / len(sequence)
    identity = sum(sequence[query] == letters[template] for query, template, _ in pairs) / len(pairs)
    if coverage < limits.min_coverage:
        raise UnusableEntryError(f"covers {coverage:.0%} of the chain, below {limits.min_coverage:.0%}")
    if identity < limits.min_identity:
        raise UnusableEntryError(f"identity {identity:.0%}, below {limits.min_identity:.0%}")
    if identity > limits.max_identity:
        raise UnusableEntryError(f"identity {identity:.0%}, above {limits.max_identity:.0%}")
    return identity, coverage
