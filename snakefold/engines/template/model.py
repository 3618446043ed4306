"""One target from its inputs to the files of the `fold` step: the stages of comparative modelling in order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snakefold.engines.base import FoldTask
from snakefold.engines.template.backbone import Backbone, copy_backbone
from snakefold.engines.template.building import Array, standard_letter
from snakefold.engines.template.confidence import KIND, estimated_lddt, too_far
from snakefold.engines.template.loops import close_gaps, grow_tails
from snakefold.engines.template.minimise import RawChain, minimise
from snakefold.engines.template.realign import realigned
from snakefold.engines.template.sidechains import pack_side_chains, suggestions
from snakefold.engines.template.stitch import stitched, unplaced
from snakefold.engines.template.templates import (
    ChainTemplate,
    Hits,
    NoTemplateError,
    hits_of_task,
    select_templates,
)
from snakefold.engines.used_templates import UsedTemplate, alignment_fasta
from snakefold.errors import MemberError
from snakefold.files import write_json, write_text
from snakefold.outcome import Outcome
from snakefold.structures.io import ModelChain, chain_name, modelled_ranges, write_model
from snakefold.structures.residues import BACKBONE

LONGEST_END = 3
"""Unaligned ends of up to so many residues are built all the same: they cannot go far wrong."""

_FEWEST_RESIDUES = 15
_TOO_FAR_IDENTITY = 0.20


@dataclass(frozen=True, kw_only=True)
class Model:
    """A finished model.

    Per chain: templates (the main one first), atoms by residue index (angstrom), what was built without template,
    confidence.
    """

    templates: tuple[tuple[ChainTemplate, ...], ...]
    backbones: tuple[Backbone, ...]
    atoms: tuple[dict[int, dict[str, Array]], ...]
    invented: tuple[list[list[int]], ...]
    unmodelled: tuple[list[list[int]], ...]
    confidence: tuple[list[float | None], ...]


def predict(task: FoldTask, folder: Path) -> Outcome:
    """Model one target on its templates; write model.cif, prediction.json and alignment.fasta into `folder`.

    `task.parameters` may hold `keep_tails` (default false): build the ends that no template residue is aligned with,
    which are otherwise left out if they are longer than three residues. A target without a template is skipped
    ("no_template", "no_complex_template"). Raises MemberError if an input cannot be read, the user's own template does
    not fit, or too little of a chain can be modelled.
    """
    keep_tails = _keep_tails(task)
    try:
        hits = hits_of_task(task)
        templates = stitched(task, realigned(task, select_templates(task, hits)), hits)
    except NoTemplateError as error:
        return Outcome(status="skipped", kind=error.kind, reason=str(error))
    sequences = [chain.sequence for chain in task.chains]
    model = build_model(sequences, templates, seed=task.seed, keep_tails=keep_tails)
    confidence = [value for chain in model.confidence for value in chain if value is not None]
    mean = round(float(np.mean(confidence)), 2)
    chains = [
        ModelChain(sequence=backbone.sequence, atoms=atoms, confidence=values)
        for backbone, atoms, values in zip(model.backbones, model.atoms, model.confidence, strict=True)
    ]
    write_model(folder / "model.cif", chains)
    used = [
        _used(template, chain, _given(model.backbones[chain], number))
        for chain, of_chain in enumerate(templates)
        for number, template in enumerate(of_chain)
    ]
    write_text(folder / "alignment.fasta", alignment_fasta(sequences, used))
    write_json(
        folder / "prediction.json",
        {
            "confidence_kind": KIND,
            "confidence": list(model.confidence),
            "mean_confidence": mean,
            "too_far": too_far(model.confidence),
            "ptm": None,
            "iptm": None,
            "templates": [each.facts(sequences[each.chain_index]) for each in used],
            "invented": list(model.invented),
            "unmodelled": list(model.unmodelled),
            "notes": _notes(task, model, hits),
        },
    )
    facts = {
        "template": templates[0][0].hit.entry,
        "template_chains": [of_chain[0].chain.name for of_chain in templates],
        "identity": min(_identity(each[0], sequence) for each, sequence in zip(templates, sequences, strict=True)),
        "mean_confidence": mean,
        "too_far": too_far(model.confidence),
    }
    return Outcome(status="done", facts=facts)


def _keep_tails(task: FoldTask) -> bool:
    unknown = set(task.parameters) - {"keep_tails"}
    if unknown:
        name = sorted(unknown)[0]
        raise MemberError("bad_parameter", f"the template engine has no parameter {name!r}; it has keep_tails")
    return bool(task.parameters.get("keep_tails", False))


def build_model(
    sequences: Sequence[str],
    templates: tuple[tuple[ChainTemplate, ...], ...],
    *,
    seed: int = 0,
    keep_tails: bool = False,
) -> Model:
    """Build all chains together, each on its templates: backbones, loops, side chains, minimisation, confidence.

    Raises MemberError ("too_little_template") if fewer than 15 residues of a chain have a template.
    """
    backbones = [copy_backbone(sequence, of_chain) for sequence, of_chain in zip(sequences, templates, strict=True)]
    # Random generators take 32 bits, of which the side chains' restarts use a few more.
    seed %= 2**31
    close_gaps(backbones, seed)
    for number, backbone in enumerate(backbones, start=1):
        backbone.drop_islands()
        # Loops that were built count for nothing: they could bridge whatever a template of the wrong hand leaves.
        if (backbone.template_index >= 0).sum() < _FEWEST_RESIDUES:
            raise MemberError(
                "too_little_template", f"fewer than {_FEWEST_RESIDUES} residues of chain {number} have a template"
            )
    grow_tails(backbones, seed, None if keep_tails else LONGEST_END)
    suggested = [suggestions(backbone, of_chain) for backbone, of_chain in zip(backbones, templates, strict=True)]
    packed = pack_side_chains(backbones, suggested, seed)
    raw = [
        RawChain(
            sequence=backbone.sequence,
            atoms={
                index: dict(zip(BACKBONE, backbone.atoms[index], strict=True)) | side_chain
                for index, side_chain in side_chains.items()
            },
            restrained=frozenset(np.flatnonzero(backbone.template_index >= 0).tolist()),
        )
        for backbone, side_chains in zip(backbones, packed, strict=True)
    ]
    atoms = minimise(raw)
    return Model(
        templates=templates,
        backbones=tuple(backbones),
        atoms=tuple(atoms),
        invented=tuple(modelled_ranges(_built(backbone)) for backbone in backbones),
        unmodelled=tuple(modelled_ranges(np.flatnonzero(~backbone.modelled).tolist()) for backbone in backbones),
        confidence=tuple(estimated_lddt(backbones)),
    )


def _built(backbone: Backbone) -> Iterable[int]:
    return np.flatnonzero(backbone.modelled & (backbone.template_index < 0)).tolist()


def _identity(template: ChainTemplate, sequence: str) -> float:
    return round(template.alignment.identity(sequence, template.chain.sequence), 4)


def _given(backbone: Backbone, number: int) -> list[list[int]]:
    """The ranges of residues whose backbone is that of the chain's template `number`."""
    return modelled_ranges(np.flatnonzero(backbone.source == number).tolist())


def _used(template: ChainTemplate, chain: int, ranges: list[list[int]]) -> UsedTemplate:
    hit, alignment = template.hit, template.alignment
    return UsedTemplate(
        chain_index=chain,
        entry=hit.entry,
        chain=hit.chain,
        copy=template.chain.name,
        sequence=template.chain.sequence,
        pairs=list(zip(alignment.target.tolist(), alignment.template.tolist(), strict=True)),
        evalue=hit.evalue,
        ranges=ranges,
    )


def _notes(task: FoldTask, model: Model, hits: Hits) -> list[str]:
    """What a reader of the model must know, in whole sentences."""
    notes: list[str] = []
    if too_far(model.confidence):
        notes.append("The template is too distant: the fold itself may be wrong.")
    for number, chain in enumerate(task.chains):
        name, sequence = chain_name(number), chain.sequence
        replaced = sorted({letter for letter in sequence if standard_letter(letter) != letter})
        notes += [f"Chain {name}: {letter} was modelled as {standard_letter(letter)}." for letter in replaced]
        identity = _identity(model.templates[number][0], sequence)
        if identity < _TOO_FAR_IDENTITY:
            notes.append(
                f"Chain {name}: only {identity:.0%} of the aligned residues are identical; the alignment may be wrong."
            )
        for index, template in enumerate(model.templates[number][1:], start=1):
            given = [_residues(start, end) for start, end in _given(model.backbones[number], index)]
            if given:
                source = f"{template.hit.entry} {template.chain.name}"
                notes.append(
                    f"Chain {name}: residues {', '.join(given)} are those of {source}: the main template lacks them."
                )
        missing = [_residues(start, end) for start, end in model.unmodelled[number]]
        if missing:
            notes.append(f"Chain {name}: residues {', '.join(missing)} have no template and were left out.")
        for start, end, hit in unplaced(model.backbones[number], hits[chain]):
            notes.append(
                f"Chain {name}: residues {_residues(start, end)} resemble {hit.entry} {hit.chain}, "
                "but no template shows how they lie to the rest."
            )
        built = [_residues(start, end) for start, end in model.invented[number]]
        if built:
            notes.append(f"Chain {name}: residues {', '.join(built)} were built without a template.")
    return notes


def _residues(start: int, end: int) -> str:
    """A half-open range of indices as people write it: numbers from 1, both ends included."""
    return f"{start + 1}-{end}" if end - start > 1 else str(end)
