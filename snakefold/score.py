"""The folder of one prediction: what a user opens, and what the summary and the report read."""

import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snakefold.engines.used_templates import GIVEN_TEMPLATE
from snakefold.errors import SnakefoldError
from snakefold.files import read_json, replacing, write_json, write_text
from snakefold.outcome import Status
from snakefold.structures.compare import Comparison, compare
from snakefold.structures.geometry import (
    AtomId,
    backbone_torsions,
    chain_breaks,
    find_clashes,
    peptide_bonds,
    ramachandran,
    wrong_chirality,
)
from snakefold.structures.interface import interfaces
from snakefold.structures.io import (
    ModelChain,
    chain_name,
    modelled_ranges,
    read_chains,
    read_model,
    write_model,
    write_pdb,
)
from snakefold.structures.modelcif import TemplateUse, write_modelcif
from snakefold.structures.residues import NAME_OF_LETTER
from snakefold.superposed import AlignedTemplate, superposed_templates

_LOG_LINES = 20
_CLASHES_LISTED = 50  # the worst; a model with more has other troubles


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """All that is known of one finished prediction. The files are those of docs/architecture.md.

    `sequences`, `chain_ids`, `msas` and `msa_facts` go chain by chain; `model` and `prediction` are the fold step's,
    `relaxed` and `relax` the relax step's, None where that step did not run. `templates` are the entries used,
    `given_template` is that of them which is the user's own, whatever its name. `software` maps names to versions,
    `databases` are mappings of name, version, digest, licence and release.
    """

    target_id: str
    sequences: tuple[str, ...]
    chain_ids: tuple[str, ...]
    engine: str
    seed: int
    model: Path
    prediction: Mapping[str, Any]
    reference: Path | None = None
    relaxed: Path | None = None
    relax: Mapping[str, Any] | None = None
    msas: tuple[Path | None, ...] = ()
    msa_facts: tuple[Mapping[str, Any] | None, ...] = ()
    alignment: Path | None = None
    pae: Path | None = None
    templates: tuple[Path, ...] = ()
    given_template: Path | None = None
    software: Mapping[str, str]
    databases: Sequence[Mapping[str, Any]] = ()


def score_prediction(prediction: Prediction, folder: Path) -> None:
    """Write the folder of a prediction that succeeded, `status.json` last; equal predictions give equal bytes.

    What cannot be made without harm to the rest (a comparison with an unfit reference, a PDB file of a model too large)
    is left out and noted in `scores.json`. Raises SnakefoldError if the model itself cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notes: list[str] = [str(note) for note in prediction.prediction.get("notes", [])]
    relax = prediction.relax or {}
    relaxed = bool(relax.get("relaxed")) and prediction.relaxed is not None
    if not relaxed and relax.get("reason"):
        notes.append(f"Not relaxed: {relax['reason']}")
    unrelaxed_chains = _with_confidence(read_model(prediction.model), prediction.prediction)
    chains = unrelaxed_chains
    if relaxed and prediction.relaxed is not None:
        chains = _with_confidence(read_model(prediction.relaxed), prediction.prediction)
    if not _is_model_of(chains, prediction.sequences):
        raise SnakefoldError(
            f"{prediction.target_id}: the model's sequences are not those of the target; fold it again"
        )

    templates = _template_uses(prediction)
    write_modelcif(
        folder / "model.cif",
        chains,
        title=f"{prediction.target_id} predicted by {prediction.engine}",
        engine=prediction.engine,
        software=prediction.software,
        templates=templates,
        databases=prediction.databases,
        confidence_kind=prediction.prediction["confidence_kind"],
        scores={key: prediction.prediction.get(key) for key in ("mean_confidence", "ptm", "iptm")}
        | {"relaxed": relaxed},
    )
    if not write_pdb(folder / "model.pdb", chains):
        notes.append("No model.pdb: the model does not fit the PDB format.")
    write_json(folder / "confidence.json", confidence_json(chains))
    for chain_id, msa in zip(prediction.chain_ids, prediction.msas, strict=False):
        if msa is not None:
            _copy(msa, folder / "msa" / f"{chain_id}.a3m")
    if prediction.alignment is not None:
        _copy(prediction.alignment, folder / "alignment.fasta")
    for template in prediction.templates:
        _copy_compressed(template, folder / "template")
    pae = None
    if prediction.pae is not None:
        try:
            errors = aligned_errors(read_json(prediction.pae))
            write_text(folder / "pae.json", pae_json(*errors))
            pae = np.array(errors[0])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            notes.append(f"No pae.json: the engine's file is not a matrix of aligned errors ({error}).")
    shown = superposed_templates(_aligned_templates(prediction), chains)
    if any(shown):
        write_model(folder / "templates.cif", [chain for chain in shown if chain is not None])
    reference = _compare(prediction, chains, folder, notes)
    scores = _scores(prediction, unrelaxed_chains, chains, relaxed, reference, notes)
    scores["templates"] = _with_overlays(scores["templates"], shown)
    scores["interfaces"] = _interfaces_json(chains, prediction.prediction["confidence_kind"], pae)
    write_json(folder / "scores.json", scores)
    write_status(folder, prediction.target_id, prediction.engine, "done")


def write_status(
    folder: Path,
    target: str,
    engine: str,
    status: Status,
    *,
    step: str | None = None,
    kind: str | None = None,
    reason: str | None = None,
    log: Sequence[str] = (),
) -> None:
    """Write `status.json`: how a prediction ended, and for a failed or skipped one at which step, why, and its log."""
    write_json(
        folder / "status.json",
        {
            "target": target,
            "engine": engine,
            "status": status,
            "step": step,
            "kind": kind,
            "reason": reason,
            "log": list(log)[-_LOG_LINES:],
        },
    )


def confidence_json(chains: Sequence[ModelChain]) -> dict[str, list[Any]]:
    """Confidence in AlphaFold DB's form: residue numbers (1-based), scores (0-100), categories.

    Categories are AlphaFold DB's: H from 90, M from 70, L from 50, D below. Residues without coordinates are left out.
    Of a complex, the chains follow each other, each numbered from 1, and a list `chainId` says which is which.
    """
    rows = [
        (index + 1, round(value, 2), _category(value), chain_name(number))
        for number, chain in enumerate(chains)
        for index, value in enumerate(chain.confidence)
        if value is not None and index in chain.atoms
    ]
    columns: dict[str, list[Any]] = {
        "residueNumber": [row[0] for row in rows],
        "confidenceScore": [row[1] for row in rows],
        "confidenceCategory": [row[2] for row in rows],
    }
    if len(chains) > 1:
        columns["chainId"] = [row[3] for row in rows]
    return columns


def aligned_errors(value: Any) -> tuple[list[list[float]], float]:
    """Predicted aligned errors (angstrom), row by row, and the largest that there can be.

    Takes AlphaFold DB's form or a mapping with `predicted_aligned_error` or `pae`.
    Raises ValueError, KeyError or TypeError if there is no square matrix of numbers in it.
    """
    source = value[0] if isinstance(value, list) else value
    matrix = source["predicted_aligned_error"] if "predicted_aligned_error" in source else source["pae"]
    rows = [[round(float(error), 2) for error in row] for row in matrix]
    if not rows or any(len(row) != len(rows) for row in rows):
        raise ValueError("the matrix is not square")
    largest = source.get("max_predicted_aligned_error")
    return rows, max(map(max, rows)) if largest is None else round(float(largest), 2)


def pae_json(rows: Sequence[Sequence[float]], largest: float) -> str:
    """Aligned errors as the text of AlphaFold DB's `pae.json`, one line a row of the matrix.

    Raises ValueError if there is a number among them that is not finite.
    """
    lines = ",\n".join(json.dumps(row, separators=(",", ":"), allow_nan=False) for row in rows)
    return f'[{{"predicted_aligned_error":[\n{lines}\n],"max_predicted_aligned_error":{json.dumps(largest)}}}]\n'


def _category(value: float) -> str:
    return "H" if value >= 90 else "M" if value >= 70 else "L" if value >= 50 else "D"


def _with_confidence(chains: Sequence[ModelChain], prediction: Mapping[str, Any]) -> tuple[ModelChain, ...]:
    """The chains with the engine's own confidence, which the B-factors hold only where there are atoms."""
    values = prediction.get("confidence")
    if not values or [len(each) for each in values] != [len(chain.sequence) for chain in chains]:
        return tuple(chains)
    return tuple(
        ModelChain(sequence=chain.sequence, atoms=chain.atoms, confidence=tuple(each))
        for chain, each in zip(chains, values, strict=True)
    )


def _scores(
    prediction: Prediction,
    unrelaxed: Sequence[ModelChain],
    chains: Sequence[ModelChain],
    relaxed: bool,
    reference: Mapping[str, Any] | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    made = prediction.prediction
    relax = prediction.relax or {}
    plot = ramachandran(chains)
    bonds = peptide_bonds(chains)
    clashes = find_clashes(chains)
    return {
        "target": prediction.target_id,
        "engine": prediction.engine,
        "seed": prediction.seed,
        "length": sum(len(sequence) for sequence in prediction.sequences),
        "chains": [_chain_json(prediction, chains, index) for index in range(len(chains))],
        "confidence": {"kind": made["confidence_kind"], "mean": made.get("mean_confidence")},
        "ptm": made.get("ptm"),
        "iptm": made.get("iptm"),
        "templates": list(made.get("templates", [])),
        "too_far": bool(made.get("too_far", False)),
        "clashes": {
            "before": len(find_clashes(unrelaxed)) if relaxed else len(clashes),
            "after": len(clashes) if relaxed else None,
            "worst": [
                [_atom_json(chains, clash.first), _atom_json(chains, clash.second), round(clash.overlap, 2)]
                for clash in clashes[:_CLASHES_LISTED]
            ],
        },
        "violations": {
            "before": relax.get("violations_before"),
            "after": relax.get("violations_after") if relaxed else None,
        },
        "ramachandran": {
            "favoured": plot.favoured,
            "allowed": plot.allowed,
            "outliers": plot.outliers,
            "outlier_residues": [_residue_json(chains, chain, residue) for chain, residue in plot.outlier_residues],
            "torsions": [_torsions_json(chain) for chain in chains],
        },
        "geometry": {
            "wrong_chirality": [_residue_json(chains, atom.chain, atom.residue) for atom in wrong_chirality(chains)],
            "cis_peptides": [_residue_json(chains, *bond.residue) for bond in bonds if bond.kind == "cis"],
            "twisted_peptides": [_residue_json(chains, *bond.residue) for bond in bonds if bond.kind == "twisted"],
            "breaks": [_residue_json(chains, chain, residue) for chain, residue in chain_breaks(chains)],
        },
        "relaxed": relaxed,
        "notes": list(notes),
        "reference": reference,
        "software": dict(prediction.software),
        "databases": [dict(database) for database in prediction.databases],
    }


def _chain_json(prediction: Prediction, chains: Sequence[ModelChain], index: int) -> dict[str, Any]:
    facts = (prediction.msa_facts[index] if index < len(prediction.msa_facts) else None) or {}
    invented = prediction.prediction.get("invented") or [[] for _ in chains]
    return {
        "name": chain_name(index),
        "chain": prediction.chain_ids[index],
        "sequence": prediction.sequences[index],
        "length": len(prediction.sequences[index]),
        "modelled": modelled_ranges(chains[index].atoms),
        "invented": [list(each) for each in invented[index]],
        "msa_depth": facts.get("depth"),
        "msa_neff": facts.get("neff"),
        "msa_coverage": facts.get("coverage"),
    }


def _residue_json(chains: Sequence[ModelChain], chain: int, residue: int) -> list[Any]:
    """Chain name, 0-based index in its sequence, residue name."""
    return [chain_name(chain), residue, NAME_OF_LETTER.get(chains[chain].sequence[residue], "UNK")]


def _atom_json(chains: Sequence[ModelChain], atom: AtomId) -> list[Any]:
    """As `_residue_json`, and the atom's name."""
    return [*_residue_json(chains, atom.chain, atom.residue), atom.atom]


def _torsions_json(chain: ModelChain) -> list[list[float]]:
    """Residue index, phi and psi (degrees) of each residue that has both."""
    return [[index, round(phi, 1), round(psi, 1)] for index, (phi, psi) in sorted(backbone_torsions(chain).items())]


def _interfaces_json(chains: Sequence[ModelChain], confidence_kind: str, pae: np.ndarray | None) -> list[Any]:
    if pae is not None and len(pae) != sum(len(chain.sequence) for chain in chains):
        pae = None
    return [
        {
            "chains": [chain_name(each.first), chain_name(each.second)],
            "contacts": each.contacts,
            "pdockq": None if each.pdockq is None else round(each.pdockq, 4),
            "ipsae": None if each.ipsae is None else round(each.ipsae, 4),
        }
        for each in interfaces(chains, is_plddt=confidence_kind == "pLDDT", pae=pae)
    ]


def _with_overlays(templates: Sequence[Any], shown: Sequence[ModelChain | None]) -> list[Any]:
    """Each template with `overlay`, the name of its chain in templates.cif, or None."""
    if len(shown) != len(templates):
        return list(templates)
    names = (chain_name(number) for number in range(len(templates)))
    return [
        {**template, "overlay": None if chain is None else next(names)}
        for template, chain in zip(templates, shown, strict=True)
    ]


def _compare(
    prediction: Prediction, chains: Sequence[ModelChain], folder: Path, notes: list[str]
) -> dict[str, Any] | None:
    if prediction.reference is None:
        return None
    name = prediction.reference.name
    try:
        result = compare(chains, prediction.reference)
        write_model(folder / "reference.cif", _reference_chains(result))
    except SnakefoldError as error:
        # The path belongs to one machine; a record that is to be equal elsewhere names the file only.
        reason = str(error).removeprefix(f"{prediction.reference}: ")
    except Exception as error:
        # Reference files come from anywhere. Whatever is wrong with one, the prediction itself stands.
        reason = f"{type(error).__name__}: {error}"
    else:
        return {
            "name": name,
            "tm_score": round(result.tm_score, 4),
            "lddt": round(result.lddt, 4),
            "lddt_ca": round(result.lddt_ca, 4),
            "rmsd_ca": round(result.rmsd_ca, 3),
            "coverage": round(result.coverage, 4),
            "dockq": None if result.dockq is None else round(result.dockq, 4),
            "chains": list(result.chain_map),
            "per_residue_lddt": [
                [None if value is None else round(value, 4) for value in values] for values in result.per_residue_lddt
            ],
        }
    reason = " ".join(reason.replace(str(prediction.reference), name).split())
    notes.append(f"Not compared with the reference {name}: {reason}")
    return None


def _reference_chains(result: Comparison) -> list[ModelChain]:
    return [
        ModelChain(sequence=chain.sequence, atoms=chain.residues, confidence=[None] * len(chain.sequence))
        for chain in result.reference
    ]


def _is_model_of(chains: Sequence[ModelChain], sequences: Sequence[str]) -> bool:
    """Whether a model has the chains of a target. For X, U and the like an engine may have put what it can model."""
    if [len(chain.sequence) for chain in chains] != list(map(len, sequences)):
        return False
    modelled = "".join(chain.sequence for chain in chains)
    return all(ours == theirs or theirs in "XU" for ours, theirs in zip(modelled, "".join(sequences), strict=True))


def _template_uses(prediction: Prediction) -> list[TemplateUse]:
    """The templates that the engine names, with sequence and alignment as far as the files tell them.

    Each names the chain that it was used for, and has its two rows in `alignment.fasta`, in the same order.
    """
    uses = []
    sequences: dict[tuple[Path | None, str], str] = {}
    for named in _named_templates(prediction):
        template, (target_row, template_row) = named.facts, named.rows or (None, None)
        entry, chain = str(template["entry"]), str(template["chain"])
        if (named.path, chain) not in sequences:
            sequences[named.path, chain] = _template_sequence(named.path, chain)
        sequence = sequences[named.path, chain]
        residues = (template_row or "").replace("-", "")
        if not sequence or residues not in sequence:
            sequence = residues
        if not sequence:
            continue
        uses.append(
            TemplateUse(
                target_chain=named.target_chain,
                entry=entry,
                chain=chain,
                sequence=sequence,
                copied=named.copied,
                target_row=target_row,
                template_row=template_row,
                template_start=sequence.find(residues),
                identity=template.get("identity"),
                evalue=template.get("evalue"),
                is_pdb_entry=len(entry) == 4 and entry[0].isdigit() and entry.isalnum(),
            )
        )
    return uses


def _aligned_templates(prediction: Prediction) -> list[AlignedTemplate | None]:
    """The templates that the engine names, where the entry's file and both rows of the alignment are there."""
    return [
        AlignedTemplate(
            target_chain=named.target_chain,
            path=named.path,
            chain=str(named.facts["chain"]),
            copy=named.copy,
            copied=named.copied,
            target_row=named.rows[0],
            template_row=named.rows[1],
        )
        if named.path is not None and named.rows is not None
        else None
        for named in _named_templates(prediction)
    ]


@dataclass(frozen=True, kw_only=True)
class _NamedTemplate:
    """A template that the engine names, with its file and its rows (target, template), where there are such.

    `copy` is the chain that the alignment names: of an assembly it may be a copy (A-2) of the one that the facts name.
    """

    facts: Mapping[str, Any]
    target_chain: int
    path: Path | None
    copy: str
    rows: tuple[str, str] | None

    @property
    def copied(self) -> bool:
        """Whether residues of the model are those of the template."""
        return bool(self.facts.get("ranges"))


def _named_templates(prediction: Prediction) -> list[_NamedTemplate]:
    listed = list(prediction.prediction.get("templates", []))
    files = {path.name.lower().split(".")[0]: path for path in prediction.templates}
    pairs: list[_AlignedRows | None] = [*_alignment_rows(prediction.alignment)]
    if len(pairs) != len(listed):
        pairs = [None] * len(listed)
    named = []
    for facts, pair in zip(listed, pairs, strict=True):
        target, entry = int(facts["chain_index"]), str(facts["entry"])
        fits = pair is not None and pair.target.replace("-", "") == prediction.sequences[target]
        named.append(
            _NamedTemplate(
                facts=facts,
                target_chain=target,
                path=prediction.given_template if entry == GIVEN_TEMPLATE else files.get(entry.lower()),
                copy=pair.name.removeprefix(f"{entry} ") if pair is not None and fits else str(facts["chain"]),
                rows=(pair.target, pair.template) if pair is not None and fits else None,
            )
        )
    return named


def _template_sequence(path: Path | None, chain: str) -> str:
    if path is None:
        return ""
    try:
        # Copies in an assembly are named after the chain that they copy.
        names = (chain, chain.rpartition("-")[0])
        return next((each.sequence for each in read_chains(path) if each.name in names), "")
    except SnakefoldError:
        return ""


@dataclass(frozen=True, kw_only=True)
class _AlignedRows:
    """Two rows of an aligned FASTA, equally long; `name` is the header of the template's."""

    target: str
    template: str
    name: str


def _alignment_rows(path: Path | None) -> list[_AlignedRows]:
    """Target and template rows of each chain out of an aligned FASTA, where they come in turn."""
    if path is None:
        return []
    records = [record.split("\n") for record in path.read_text().split(">")[1:]]
    rows = [(header.strip(), "".join(lines).strip()) for header, *lines in records]
    pairs = [
        _AlignedRows(target=target, template=template, name=name)
        for (_, target), (name, template) in zip(rows[::2], rows[1::2], strict=False)
    ]
    return pairs if len(rows) % 2 == 0 and all(len(pair.target) == len(pair.template) for pair in pairs) else []


def _copy(source: Path, destination: Path) -> None:
    with replacing(destination) as temporary, source.open("rb") as reader, temporary.open("wb") as writer:
        shutil.copyfileobj(reader, writer)


def _copy_compressed(source: Path, folder: Path) -> None:
    """Copy a structure file as gzip whose header holds neither time nor name, so that equal content is equal bytes."""
    content = source.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    with replacing(folder / f"{source.name.removesuffix('.gz')}.gz") as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0))
