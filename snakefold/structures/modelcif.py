"""A finished model as ModelCIF: coordinates, confidence, and how the model was made.

ModelCIF is the PDBx/mmCIF extension for computed models (Vallat et al. 2023, J. Mol. Biol. 435, 168021), written by
python-modelcif. The file holds nothing that differs between two runs of the same input.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import ihm
import modelcif
import modelcif.alignment
import modelcif.data
import modelcif.dumper
import modelcif.model
import modelcif.protocol
import modelcif.qa_metric
import modelcif.reference

from snakefold.files import write_text
from snakefold.structures.io import ModelChain, chain_name, fixed, modelled_ranges
from snakefold.structures.residues import NAME_OF_LETTER, element_of, output_order


@dataclass(frozen=True, kw_only=True)
class TemplateUse:
    """One template chain that a chain of the model was built on.

    `target_chain` is the index of the model's chain. `sequence` is the template's full sequence. `copied` tells whether
    residues of the model are those of the template, or an engine only learned from it. `target_row` and
    `template_row` are its alignment, equally long with "-" for gaps, if known: `template_row` begins at index
    `template_start` (0-based) of `sequence`, `target_row` at `target_start` of the model's chain. `identity` is 0-1
    over aligned pairs. `is_pdb_entry` tells an entry of the PDB from a file of the user's own.
    """

    target_chain: int
    entry: str
    chain: str
    sequence: str
    copied: bool
    target_row: str | None = None
    template_row: str | None = None
    target_start: int = 0
    template_start: int = 0
    identity: float | None = None
    evalue: float | None = None
    is_pdb_entry: bool = True


class _EstimatedLDDT(modelcif.qa_metric.MetricType):
    """lDDT-CA, 0 to 100, estimated by regression on the alignment and the model; not a neural network's pLDDT."""

    type = "other"


class _LocalEstimatedLDDT(modelcif.qa_metric.Local, _EstimatedLDDT):
    """Estimated lDDT-CA of each residue, 0 to 100."""

    name = "estimated lDDT"


class _GlobalEstimatedLDDT(modelcif.qa_metric.Global, _EstimatedLDDT):
    """Mean of the estimated lDDT-CA of the modelled residues, 0 to 100."""

    name = "mean estimated lDDT"


class _LocalPLDDT(modelcif.qa_metric.Local, modelcif.qa_metric.PLDDT):
    """Predicted lDDT-CA of each residue, 0 to 100."""

    name = "pLDDT"


class _GlobalPLDDT(modelcif.qa_metric.Global, modelcif.qa_metric.PLDDT):
    """Mean of the predicted lDDT-CA of the modelled residues, 0 to 100."""

    name = "mean pLDDT"


class _PTM(modelcif.qa_metric.Global, modelcif.qa_metric.PTM):
    """Predicted TM-score, 0 to 1."""

    name = "pTM"


class _IpTM(modelcif.qa_metric.Global, modelcif.qa_metric.IpTM):
    """Predicted TM-score of the interfaces, 0 to 1."""

    name = "ipTM"


class _EValue(modelcif.alignment.Score):
    """E-value of the template's profile hit, as HMMER reports it."""

    type = "Other"
    other_details = "E-value of the template's profile hit, as HMMER reports it"


class _Alignment(modelcif.alignment.Local, modelcif.alignment.Pairwise):
    """Local pairwise alignment of a target and a template chain."""


def write_modelcif(
    path: Path,
    chains: Sequence[ModelChain],
    *,
    title: str,
    engine: str,
    software: Mapping[str, str],
    templates: Sequence[TemplateUse],
    databases: Sequence[Mapping[str, Any]],
    confidence_kind: str,
    scores: Mapping[str, Any],
) -> None:
    """Write `chains` as ModelCIF, atomically; equal arguments give equal bytes.

    Chains are named and numbered as `write_model` does; the B-factor holds the confidence (0-100), which stands in the
    QA metrics too: as pLDDT if `confidence_kind` is "pLDDT", else as a metric of its own that says what it is.
    `software` maps names to versions. `databases` are mappings with `name` and optionally `version`, `digest` and
    `release` (ISO date). `scores` may hold `mean_confidence`, `ptm`, `iptm` (None if unknown) and `relaxed` (bool).
    """
    system = modelcif.System(title=title, id="model")
    entity_of: dict[str, modelcif.Entity] = {}
    for chain in chains:
        if chain.sequence not in entity_of:
            number = len(entity_of) + 1
            entity_of[chain.sequence] = modelcif.Entity(_components(chain.sequence), description=f"target {number}")
    units = [
        modelcif.AsymUnit(entity_of[chain.sequence], details=f"chain {chain_name(index)}", id=chain_name(index))
        for index, chain in enumerate(chains)
    ]
    programs = [
        modelcif.Software(name, _classification(name, engine), None, None, version=version or None)
        for name, version in software.items()
    ]
    system.software.extend(programs)
    makers = modelcif.SoftwareGroup(programs) if programs else None

    model = _model(chains, units, by_homology=any(template.copied for template in templates))
    _add_metrics(model, chains, units, confidence_kind, scores)
    for metric in model.qa_metrics:
        metric.software = makers  # python-modelcif asks every metric for it
    system.model_groups.append(modelcif.model.ModelGroup([model], name=engine))

    sources = modelcif.data.DataGroup(_database(database) for database in databases)
    used, alignments = _templates(templates, chains, units)
    system.templates.extend(used)
    system.alignments.extend(alignments)
    targets = modelcif.data.DataGroup(entity_of.values())
    protocol = modelcif.protocol.Protocol()
    # Templates are found by the MSA, and do not take its place.
    inputs = modelcif.data.DataGroup([*targets, *sources])
    if used:
        found = modelcif.data.DataGroup(used)
        protocol.steps.append(
            modelcif.protocol.TemplateSearchStep(
                name="template search",
                input_data=modelcif.data.DataGroup([*targets, *sources]),
                output_data=found,
                software=makers,
            )
        )
        inputs.extend(found)
        inputs.extend(alignments)
    protocol.steps.append(
        modelcif.protocol.ModelingStep(
            name=f"modelling with {engine}", input_data=inputs, output_data=model, software=makers
        )
    )
    if scores.get("relaxed"):
        protocol.steps.append(
            modelcif.protocol.ModelRefinementStep(
                name="relaxation",
                details="energy minimisation with restrained heavy atoms",
                input_data=model,
                output_data=model,
                software=makers,
            )
        )
    system.protocols.append(protocol)

    text = io.StringIO()
    modelcif.dumper.write(text, [system])
    write_text(path, text.getvalue())


def _components(sequence: str) -> list[Any]:
    alphabet = ihm.LPeptideAlphabet()
    return [alphabet[letter if letter in NAME_OF_LETTER and letter != "X" else "UNK"] for letter in sequence]


def _classification(name: str, engine: str) -> str:
    if name == "snakefold" or engine in name.split():
        return "model building"
    return "refinement" if name in ("openmm", "pdbfixer") else "data processing"


def _model(
    chains: Sequence[ModelChain], units: Sequence[modelcif.AsymUnit], *, by_homology: bool
) -> modelcif.model.Model:
    kind = modelcif.model.HomologyModel if by_homology else modelcif.model.AbInitioModel
    model = kind(assembly=modelcif.Assembly(units, name="target"), name="model 1")
    for chain, unit in zip(chains, units, strict=True):
        absent = modelled_ranges(index for index in range(len(chain.sequence)) if index not in chain.atoms)
        for start, end in absent:
            model.not_modeled_residue_ranges.append(modelcif.model.NotModeledResidueRange(unit, start + 1, end))
        for index in sorted(chain.atoms):
            confidence = chain.confidence[index] or 0.0
            for name in output_order(chain.sequence[index], chain.atoms[index]):
                # Through text, so that the writer's own rounding meets no negative zero.
                x, y, z = (float(fixed(float(value), 3)) for value in chain.atoms[index][name])
                model.add_atom(
                    modelcif.model.Atom(
                        asym_unit=unit,
                        seq_id=index + 1,
                        atom_id=name,
                        type_symbol=element_of(name),
                        x=x,
                        y=y,
                        z=z,
                        biso=float(fixed(confidence, 3)),
                        occupancy=1.0,
                    )
                )
    return model


def _add_metrics(
    model: modelcif.model.Model,
    chains: Sequence[ModelChain],
    units: Sequence[modelcif.AsymUnit],
    confidence_kind: str,
    scores: Mapping[str, Any],
) -> None:
    predicted = confidence_kind == "pLDDT"
    whole = _GlobalPLDDT if predicted else _GlobalEstimatedLDDT
    local = _LocalPLDDT if predicted else _LocalEstimatedLDDT
    for key, metric in (("mean_confidence", whole), ("ptm", _PTM), ("iptm", _IpTM)):
        if scores.get(key) is not None:
            model.qa_metrics.append(metric(float(scores[key])))
    for chain, unit in zip(chains, units, strict=True):
        for index in sorted(chain.atoms):
            value = chain.confidence[index]
            if value is not None:
                model.qa_metrics.append(local(unit.residue(index + 1), float(fixed(value, 3))))


def _database(database: Mapping[str, Any]) -> modelcif.ReferenceDatabase:
    version = " ".join(
        part
        for part in (
            str(database.get("version") or ""),
            f"sha256:{database['digest']}" if database.get("digest") else "",
        )
        if part
    )
    return modelcif.ReferenceDatabase(
        database["name"], None, version=version or None, release_date=_date(database.get("release"))
    )


def _author_chain(name: str) -> str:
    author, _, copy = name.rpartition("-")
    return author if author and copy.isdigit() else name


def _date(text: Any) -> date | None:
    try:
        return date.fromisoformat(str(text))
    except ValueError:
        return None


def _templates(
    templates: Sequence[TemplateUse], chains: Sequence[ModelChain], units: Sequence[modelcif.AsymUnit]
) -> tuple[list[modelcif.Template | modelcif.CustomTemplate], list[_Alignment]]:
    made: dict[tuple[str, str], modelcif.Template | modelcif.CustomTemplate] = {}
    entities: dict[str, Any] = {chain.sequence: unit.entity for chain, unit in zip(chains, units, strict=True)}
    alignments = []
    for use in templates:
        key = (use.entry, use.chain)
        if key not in made:
            if use.sequence not in entities:
                entities[use.sequence] = modelcif.Entity(
                    _components(use.sequence), description=f"template {use.entry} chain {use.chain}"
                )
            common: dict[str, Any] = {
                "entity": entities[use.sequence],
                # Copies in an assembly are the chain that the entry calls A.
                "asym_id": _author_chain(use.chain),
                "model_num": 1,
                "transformation": modelcif.Transformation.identity(),
                "name": f"{use.entry} chain {use.chain}",
            }
            if use.is_pdb_entry:
                made[key] = modelcif.Template(references=[modelcif.reference.PDB(use.entry.upper())], **common)
            else:
                made[key] = modelcif.CustomTemplate(**common)
        if use.target_row is None or use.template_row is None:
            continue
        template_letters = len(use.template_row.replace("-", ""))
        target_letters = len(use.target_row.replace("-", ""))
        identity = use.identity
        pair = modelcif.alignment.Pair(
            template=made[key].segment(use.template_row, use.template_start + 1, use.template_start + template_letters),
            target=units[use.target_chain].segment(
                use.target_row, use.target_start + 1, use.target_start + target_letters
            ),
            identity=None
            if identity is None
            else modelcif.alignment.AlignedResiduePairsIdentity(float(fixed(identity * 100, 1))),
            score=None if use.evalue is None else _EValue(use.evalue),
        )
        chain = chain_name(use.target_chain)
        alignments.append(_Alignment(f"chain {chain} on {use.entry} chain {use.chain}", [pair]))
    return list(made.values()), alignments
