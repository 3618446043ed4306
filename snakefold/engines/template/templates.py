"""The choice of the template: which entry, and which of its chains, to model the chains of a target on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.template.align import Alignment, align_to_chains, build_profile, extend_ends, merge
from snakefold.engines.template.building import is_left_handed
from snakefold.engines.used_templates import GIVEN_TEMPLATE
from snakefold.errors import MemberError, SnakefoldError
from snakefold.structures.io import PolymerChain, read_assembly, read_chains

_MIN_ALIGNED = 15
_MAX_ENTRIES = 8
_CONTACT_DISTANCE = 8.0
_MIN_CONTACTS = 10
# CA atoms of two chains never come so close; the number outweighs whatever contacts with other chains there are.
_OVERLAP_DISTANCE = 2.0
_NEVER = -1_000_000
_REMEDY = "give another file in the sheet's template column, or leave it empty to search for one"


@dataclass(frozen=True, kw_only=True)
class TemplateHit:
    """One alignment of a target chain with a chain of an entry, as the search found it.

    `identity` and `coverage` are fractions (0-1) of aligned pairs and of the target chain; `resolution` is in angstrom.
    """

    entry: str
    chain: str
    evalue: float
    score: float
    identity: float
    coverage: float
    resolution: float | None
    title: str
    file: Path
    alignment: Alignment


@dataclass(frozen=True, kw_only=True)
class ChainTemplate:
    """What one chain of the target is modelled on, alone or with others.

    Of several templates of one chain the first is the main one; the coordinates of the others' `chain` are superposed
    into its frame. `gives` are the target's ranges (half-open) whose backbone comes from this template: empty for a
    main one, which gives all that no other does.
    """

    hit: TemplateHit
    chain: PolymerChain
    alignment: Alignment
    gives: tuple[tuple[int, int], ...] = ()


Hits = Mapping[ChainInputs, list[TemplateHit]]
"""The hits of each different chain of a task."""


class NoTemplateError(Exception):
    """Nothing to model on. `kind` is "no_template" or "no_complex_template"; the text is the reason for the user."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


def read_hits(folder: Path | None) -> list[TemplateHit]:
    """The hits that `search_templates` wrote, several alignments with one chain merged, in the file's order.

    Raises MemberError ("bad_hits") if the file is not as docs/architecture.md says.
    """
    if folder is None:
        return []
    try:
        found = json.loads((folder / "hits.json").read_text(encoding="utf-8"))["hits"]
        hits = [
            TemplateHit(
                entry=hit["entry"],
                chain=hit["chain"],
                evalue=float(hit["evalue"]),
                score=float(hit["score"]),
                identity=float(hit["identity"]),
                coverage=float(hit["coverage"]),
                resolution=hit.get("resolution"),
                title=hit.get("title") or "",
                file=folder / hit["file"],
                alignment=Alignment.from_pairs(hit["pairs"]),
            )
            for hit in found
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise MemberError("bad_hits", f"hits.json of the template search cannot be read: {error!r}") from None
    merged: dict[tuple[str, str], list[TemplateHit]] = {}
    for hit in hits:
        merged.setdefault((hit.entry, hit.chain), []).append(hit)
    return [_merge_hits(group) for group in merged.values()]


def _nearest(folder: Path | None) -> str:
    """What came nearest to being a hit and why it is none, to be added to a sentence; empty if nothing did."""
    try:
        rejected = json.loads(((folder or Path()) / "hits.json").read_text(encoding="utf-8"))["rejected"]
        first = rejected[0]
        return f"; the nearest, {first['entry']} {first['chain']}, was passed over: {first['reason']}"
    except (OSError, KeyError, IndexError, TypeError, ValueError):
        return ""


def _merge_hits(hits: Sequence[TemplateHit]) -> TemplateHit:
    best = max(hits, key=lambda hit: hit.score)
    if len(hits) == 1:
        return best
    alignments = [hit.alignment for hit in sorted(hits, key=lambda hit: -hit.score)]
    pairs = [list(zip(a.target, a.template, a.posterior, strict=True)) for a in alignments]
    merged = merge(pairs)
    coverage = best.coverage * len(merged) / max(len(best.alignment), 1)
    return replace(best, alignment=merged, coverage=min(coverage, 1.0))


def hits_of_given(chain: ChainInputs, path: Path) -> list[TemplateHit]:
    """The alignments of a target chain with the chains of the user's own template, best first.

    Raises MemberError ("bad_template") if the file cannot be read.
    """
    try:
        chains = read_chains(path)
    except SnakefoldError as error:
        raise MemberError("bad_template", f"the given template cannot be read: {error}; {_REMEDY}") from None
    sequences = {template.name: template.sequence for template in chains}
    profile = build_profile(chain.sequence, chain.msa)
    return [
        TemplateHit(
            entry=GIVEN_TEMPLATE,
            chain=found.key,
            evalue=found.evalue,
            score=found.score,
            identity=found.alignment.identity(chain.sequence, sequences[found.key]),
            coverage=len(found.alignment) / len(chain.sequence),
            resolution=None,
            title="",
            file=path,
            alignment=found.alignment,
        )
        for found in align_to_chains(profile, sequences)
        if len(found.alignment) >= _MIN_ALIGNED
    ]


def hits_of_task(task: FoldTask) -> Hits:
    """The hits that align enough of a chain: with the user's own template, or as searched.

    Raises MemberError if they cannot be read.
    """
    hits: dict[ChainInputs, list[TemplateHit]] = {}
    for chain in task.chains:
        if chain not in hits:
            found = read_hits(chain.templates) if task.template is None else hits_of_given(chain, task.template)
            hits[chain] = [hit for hit in found if len(hit.alignment) >= _MIN_ALIGNED]
    return hits


def chains_of_entry(sequence: str, hits: Sequence[TemplateHit], entry: str) -> list[ChainTemplate]:
    """Every chain of an entry's asymmetric unit that the hits align with the sequence; none if it cannot be read."""
    file = next(hit.file for hit in hits if hit.entry == entry)
    try:
        chains = read_chains(file)
    except SnakefoldError:
        return []
    return _options(sequence, hits, entry, chains, chains)


def expected_quality(hit: TemplateHit, target_length: int) -> float:
    """A guess at the share (0-1) of the target that this template gets right: coverage x trust in what is covered.

    Trust grows with the alignment's posteriors and with sequence identity: the cores of homologues differ by
    0.4 exp(1.87 (1 - identity)) angstrom (C. Chothia and A. M. Lesk, EMBO J. 5 (1986), 823). Poor or unknown resolution
    costs a few per cent.
    """
    resolution = hit.resolution if hit.resolution is not None else 3.0
    sharpness = 1 - 0.03 * float(np.clip(resolution - 1.8, 0, 4))
    return float(hit.alignment.posterior.sum() / target_length * trust(hit.identity) * sharpness)


def trust(identity: float) -> float:
    """How far (0-1) a template of such an identity (0-1) can be believed, as `expected_quality` uses it."""
    core_rmsd = 0.4 * np.exp(1.87 * (1 - identity))
    return float(1 / (1 + (core_rmsd / 3.0) ** 2))


def select_templates(task: FoldTask, hits_of: Hits) -> tuple[ChainTemplate, ...]:
    """The template of every chain of the target, all from one entry and, for complexes, from one assembly of it.

    A monomer takes the chain of the best expected quality. A complex takes the best entry whose assembly (or asymmetric
    unit) has a homologous chain for each of its chains, all in touch with one another: models of single chains that
    were not seen together would say nothing of the complex, so without such an entry there is no model.
    Raises NoTemplateError if there is none, and MemberError if an input cannot be read or the user's own template does
    not fit ("bad_template"): what was asked for by name must not be passed over.
    """
    hits: dict[str, list[TemplateHit]] = {}
    for number, chain in enumerate(task.chains):
        if chain.sequence in hits:
            continue
        found = hits_of[chain]
        if not found:
            name = f"chain {number + 1} ({len(chain.sequence)} residues)"
            if task.template is not None:
                raise MemberError("bad_template", f"the given template does not align with {name}; {_REMEDY}")
            raise NoTemplateError("no_template", f"no template found for {name}{_nearest(chain.templates)}")
        hits[chain.sequence] = found
    sequences = [chain.sequence for chain in task.chains]
    candidates = _entries_by_quality(sequences, hits)
    if not candidates:
        raise NoTemplateError("no_complex_template", "no entry has a template for every chain of the complex")
    best: tuple[float, tuple[ChainTemplate, ...]] | None = None
    for bound, entry in candidates[:_MAX_ENTRIES]:
        # Observed coordinates can only lower what the alignment promises.
        if best is not None and bound <= best[0]:
            break
        chosen = _templates_in_entry(sequences, hits, entry)
        if chosen is None:
            continue
        quality = _observed_quality(sequences, chosen)
        if best is None or quality > best[0]:
            best = quality, chosen
    if best is None:
        if task.template is not None:
            lacking = (
                "lacks a whole backbone of L-amino acids where it aligns with chain 1"
                if len(sequences) == 1
                else f"has not all {len(sequences)} chains of the target in contact with one another"
            )
            raise MemberError("bad_template", f"the given template {lacking}; {_REMEDY}")
        if len(sequences) == 1:
            raise NoTemplateError(
                "no_template", "the templates found for chain 1 lack a whole backbone where they align"
            )
        raise NoTemplateError(
            "no_complex_template", "no entry has all chains of the complex in contact with one another"
        )
    return best[1]


def _entries_by_quality(sequences: Sequence[str], hits: Mapping[str, list[TemplateHit]]) -> list[tuple[float, str]]:
    """Entries with a hit for every sequence, by the mean quality over the residues of the target, best first."""
    entries = dict.fromkeys(hit.entry for found in hits.values() for hit in found)
    ranked: list[tuple[float, str]] = []
    for entry in entries:
        best = {
            sequence: max((expected_quality(hit, len(sequence)) for hit in found if hit.entry == entry), default=None)
            for sequence, found in hits.items()
        }
        weights = [(best[sequence], len(sequence)) for sequence in sequences]
        if all(quality is not None for quality, _ in weights):
            total = sum((quality or 0.0) * length for quality, length in weights)
            ranked.append((total / sum(map(len, sequences)), entry))
    return sorted(ranked, key=lambda pair: (-pair[0], pair[1]))


def _observed_quality(sequences: Sequence[str], templates: Sequence[ChainTemplate]) -> float:
    total = sum(_quality(each, sequence) * len(sequence) for sequence, each in zip(sequences, templates, strict=True))
    return total / sum(map(len, sequences))


def _templates_in_entry(
    sequences: Sequence[str], hits: Mapping[str, list[TemplateHit]], entry: str
) -> tuple[ChainTemplate, ...] | None:
    """The chains of one entry to model the target on, in the target's order; None if the entry has not all of them."""
    file = next(hit.file for found in hits.values() for hit in found if hit.entry == entry)
    try:
        chains = read_chains(file)
        pools = [chains] if len(sequences) == 1 else [read_assembly(file), chains]
    except SnakefoldError as error:
        if entry == GIVEN_TEMPLATE:
            reason = f"the given template cannot be read: {error}; {_REMEDY}"
            raise MemberError("bad_template", reason) from None
        return None
    for pool in pools:
        options = [_options(sequence, hits[sequence], entry, chains, pool) for sequence in sequences]
        if any(not found for found in options):
            continue
        chosen = [max(options[0], key=_aligned_weight)] if len(sequences) == 1 else _touching(sequences, options)
        if chosen is not None:
            return tuple(chosen)
    return None


def _options(
    sequence: str,
    hits: Sequence[TemplateHit],
    entry: str,
    chains: Sequence[PolymerChain],
    pool: Sequence[PolymerChain],
) -> list[ChainTemplate]:
    """Every chain of the pool that the target chain aligns with.

    `chains` are those of the asymmetric unit, which hits name. Copies of a hit's chain and chains of the same sequence
    share its alignment.
    """
    sequence_of = {chain.name: chain.sequence for chain in chains}
    best: dict[str, TemplateHit] = {}
    for hit in (hit for hit in hits if hit.entry == entry):
        template_sequence = sequence_of.get(hit.chain)
        if template_sequence is None:
            continue
        known = best.get(template_sequence)
        if known is None or expected_quality(hit, len(sequence)) > expected_quality(known, len(sequence)):
            best[template_sequence] = hit
    options: list[ChainTemplate] = []
    for chain in pool:
        hit = best.get(chain.sequence)
        if hit is None:
            continue
        hit = replace(hit, chain=chain.copy_of or chain.name)
        # What cannot be copied must not count: entries of CA atoms only would be preferred to those that can.
        seen = {index: atoms for index, atoms in chain.residues.items() if {"N", "CA", "C"} <= set(atoms)}
        usable = sum(index in seen and is_left_handed("ALA", seen[index]) for index in map(int, hit.alignment.template))
        if usable >= _MIN_ALIGNED:
            alignment = extend_ends(hit.alignment, sequence, chain.sequence, seen)
            options.append(ChainTemplate(hit=hit, chain=replace(chain, residues=seen), alignment=alignment))
    return options


def _aligned_weight(template: ChainTemplate) -> float:
    """Summed posteriors of the pairs with coordinates."""
    alignment = template.alignment
    observed = np.array([index in template.chain.residues for index in alignment.template])
    return float((alignment.posterior * observed).sum())


def _quality(template: ChainTemplate, sequence: str) -> float:
    """`expected_quality` of a chain, counting only the pairs that have coordinates there."""
    alignment = template.hit.alignment
    observed = np.array([index in template.chain.residues for index in alignment.template])
    seen = replace(alignment, posterior=alignment.posterior * observed)
    return expected_quality(replace(template.hit, alignment=seen), len(sequence))


def _touching(sequences: Sequence[str], options: Sequence[Sequence[ChainTemplate]]) -> list[ChainTemplate] | None:
    """One template per target chain, no chain used twice, each touching another.

    Grown from each possible start: next comes the chain that fits best, and of those that fit alike (to a tenth) the
    one with the most contacts. Fit comes first, because related chains of a complex (HLA and beta-2-microglobulin, the
    two chains of a T-cell receptor) align with one another. None if the chains cannot be chosen so.
    """
    contacts = dict(_contacts({template.chain.name: template.chain for found in options for template in found}))
    quality = {
        (sequence, template.chain.name): _quality(template, sequence)
        for sequence, found in zip(sequences, options, strict=True)
        for template in found
    }
    best: tuple[tuple[float, int], list[ChainTemplate]] | None = None
    first_of = {sequence: number for number, sequence in reversed(list(enumerate(sequences)))}
    for first in first_of.values():
        for start in options[first]:
            chosen: dict[int, ChainTemplate] = {first: start}
            total = 0
            while len(chosen) < len(options):
                used = {template.chain.name for template in chosen.values()}
                # Chains of one sequence are alike: the first that is still free stands for them.
                free = {sequences[number]: number for number in reversed(range(len(options))) if number not in chosen}
                rank, grown = (0.0, _MIN_CONTACTS - 1), None
                for sequence, number in sorted(free.items(), key=lambda item: item[1]):
                    for template in options[number]:
                        name = template.chain.name
                        touching = sum(contacts.get(frozenset((name, other)), 0) for other in used)
                        fit = round(quality[sequence, name], 1), touching
                        if name not in used and touching >= _MIN_CONTACTS and (grown is None or fit > rank):
                            rank, grown = fit, (number, template)
                if grown is None:
                    break
                chosen[grown[0]] = grown[1]
                total += rank[1]
            if len(chosen) < len(options):
                continue
            fits = [quality[sequences[number], template.chain.name] for number, template in chosen.items()]
            value = round(sum(fits) / len(fits), 2), total
            if best is None or value > best[0]:
                best = value, [chosen[number] for number in range(len(options))]
    return best[1] if best else None


def _contacts(chains: Mapping[str, PolymerChain]) -> Iterator[tuple[frozenset[str], int]]:
    """Pairs of CA atoms within 8 angstrom, for each two chains.

    Far below 0 for two in one place (alternatives of a disordered entry): they are no complex.
    """
    trees = {
        name: KDTree(np.array([atoms["CA"] for atoms in chain.residues.values() if "CA" in atoms]).reshape(-1, 3))
        for name, chain in chains.items()
    }
    names = list(chains)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            one_place = trees[first].count_neighbors(trees[second], _OVERLAP_DISTANCE) >= _MIN_CONTACTS
            touching = int(trees[first].count_neighbors(trees[second], _CONTACT_DISTANCE))
            yield frozenset((first, second)), _NEVER if one_place else touching
