"""Relax one model: minimise it, and keep the result only if it is no worse than the input."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from openmm import OpenMMException

from snakefold.errors import MemberError, SnakefoldError
from snakefold.files import replacing, write_json
from snakefold.outcome import Outcome
from snakefold.relax.minimise import Minimised, RelaxParameters, minimise
from snakefold.relax.preparation import AllAtomModel, prepare
from snakefold.relax.quality import Likeness, likeness, quality, spoiled_residues, worse
from snakefold.relax.violations import Violations
from snakefold.structures.geometry import ResidueId, find_clashes, open_peptide_bonds, ramachandran
from snakefold.structures.io import ModelChain, chain_name, read_model, write_model
from snakefold.structures.residues import NAME_OF_LETTER

_MAX_ATTEMPTS = 4

# Angstrom between C and N from which a bond is a gap. Less was closed without harm wherever it was tried.
_GAP = 3.0


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """What one minimisation led to: `reason` why it must not be used (None if it may), with what it took.

    `cut` and `held` are the peptide bonds that were not made and the residues whose backbone torsions were held.
    """

    prepared: AllAtomModel
    result: Minimised
    chains: tuple[ModelChain, ...]
    near: Likeness
    reason: str | None
    number: int
    cut: frozenset[ResidueId]
    held: frozenset[ResidueId]


def relax_model(model: Path, folder: Path, *, parameters: Mapping[str, Any], seed: int) -> Outcome:
    """Relax `model` and write `relaxed.cif` and `relax.json` into `folder` (docs/architecture.md, "relax").

    Works in one thread; on the CPU, the same input and seed give the same bytes in every process. `parameters` are
    those of RelaxParameters. A model that cannot be relaxed, or that relaxation makes worse, is kept as it is:
    `relaxed.cif` is then a copy of `model`, and the outcome has the fact `relaxed: False`, a kind ("cannot_relax",
    "worse") and reason.

    Raises SnakefoldError for parameters that do not exist, a platform that does not work, and a file that is no model.
    """
    settings = RelaxParameters.from_mapping(parameters)
    chains = read_model(model)
    try:
        attempt = _relax(chains, settings, seed)
    except MemberError as error:
        return _keep(model, folder, chains, kind=error.kind, reason=str(error))
    except (OpenMMException, ValueError) as error:
        # How OpenMM and PDBFixer say that they have no parameters for a molecule, or that a force is no number.
        return _keep(model, folder, chains, kind="cannot_relax", reason=" ".join(str(error).split()))
    if attempt.reason:
        return _keep(model, folder, chains, kind="worse", reason=attempt.reason, attempt=attempt)
    write_model(folder / "relaxed.cif", attempt.chains)
    write_json(folder / "relax.json", _report(chains, attempt) | {"relaxed": True, "reason": None})
    return Outcome(facts={"relaxed": True, "platform": attempt.result.platform, "rounds": attempt.result.rounds})


def _relax(chains: Sequence[ModelChain], settings: RelaxParameters, seed: int) -> _Attempt:
    """Minimise until the result is no worse than its input, or nothing is left that could help.

    A result that is worse is dropped and the input minimised again: with the gaps left open that closing them may have
    torn at, then with the backbone held where it was spoiled.
    """
    cut: frozenset[ResidueId] = frozenset()
    held: frozenset[ResidueId] = frozenset()
    prepared = prepare(chains, ph=settings.ph, seed=seed, cut=cut)
    number = 0
    while True:
        number += 1
        result = _minimise(prepared, settings, held)
        relaxed = _relaxed_chains(chains, prepared, result.positions)
        near = likeness(chains, relaxed)
        reason = worse(quality(chains, result.violations_before), quality(relaxed, result.violations_after), near)
        attempt = _Attempt(
            prepared=prepared,
            result=result,
            chains=relaxed,
            near=near,
            reason=reason,
            number=number,
            cut=cut,
            held=held,
        )
        gaps = frozenset(open_peptide_bonds(chains, longest=_GAP)) - cut
        spoiled = spoiled_residues(chains, relaxed) - held
        if reason is None or number == _MAX_ATTEMPTS or not (gaps or spoiled):
            return attempt
        if gaps:
            cut |= gaps
            prepared = prepare(chains, ph=settings.ph, seed=seed, cut=cut)
        else:
            held |= spoiled


def _minimise(prepared: AllAtomModel, settings: RelaxParameters, held: frozenset[ResidueId]) -> Minimised:
    """Minimise; a GPU that fails (out of memory, lost) says nothing of the model, which must not be kept for it."""
    try:
        return minimise(prepared, settings, held)
    except OpenMMException as error:
        if settings.platform in ("CPU", "Reference"):
            raise
        if settings.platform == "auto":
            return minimise(prepared, replace(settings, platform="CPU"), held)
        raise SnakefoldError(
            f"relax: the platform {settings.platform} failed: {' '.join(str(error).split())}"
        ) from None


def _keep(
    model: Path,
    folder: Path,
    chains: Sequence[ModelChain],
    *,
    kind: str,
    reason: str,
    attempt: _Attempt | None = None,
) -> Outcome:
    """Hand the input on, and say why."""
    with replacing(folder / "relaxed.cif") as temporary:
        temporary.write_bytes(model.read_bytes())
    clashes = len(find_clashes(chains))
    report: dict[str, Any] = {
        "platform": None,
        "iterations": 0,
        "rounds": 0,
        "energy_before": None,
        "energy_after": None,
        "violations_before": None,
        "violations_after": None,
        "attempts": 0,
        "left_open": [],
        "held": [],
    }
    if attempt is not None:
        report = _report(chains, attempt)
        # What is handed on is the input, so "after" describes that.
        report |= {name: report[f"{name.removesuffix('after')}before"] for name in ("energy_after", "violations_after")}
    outliers = ramachandran(chains).outliers
    report |= {
        "relaxed": False,
        "reason": reason,
        "clashes_before": clashes,
        "clashes_after": clashes,
        "ramachandran_outliers_before": outliers,
        "ramachandran_outliers_after": outliers,
        "rmsd_to_input": 0.0,
        "lddt_to_input": 1.0,
        "lddt_ca_to_input": 1.0,
    }
    write_json(folder / "relax.json", report)
    return Outcome(kind=kind, reason=reason, facts={"relaxed": False})


def _report(chains: Sequence[ModelChain], attempt: _Attempt) -> dict[str, Any]:
    prepared, result = attempt.prepared, attempt.result
    return {
        "platform": result.platform,
        "iterations": result.iterations,
        "rounds": result.rounds,
        "energy_before": None if result.energy_before is None else round(result.energy_before, 1),
        "energy_after": round(result.energy_after, 1),
        "clashes_before": len(find_clashes(chains)),
        "clashes_after": len(find_clashes(attempt.chains)),
        "violations_before": _violations_json(chains, prepared, result.violations_before),
        "violations_after": _violations_json(chains, prepared, result.violations_after),
        "ramachandran_outliers_before": ramachandran(chains).outliers,
        "ramachandran_outliers_after": ramachandran(attempt.chains).outliers,
        "rmsd_to_input": round(_rmsd(prepared, result.positions), 3),
        "lddt_to_input": _rounded(attempt.near.lddt),
        "lddt_ca_to_input": _rounded(attempt.near.lddt_ca),
        "attempts": attempt.number,
        "left_open": _residues_json(chains, sorted(attempt.cut)),
        "held": _residues_json(chains, sorted(attempt.held)),
    }


def _rounded(lddt: float) -> float | None:
    return None if math.isnan(lddt) else round(lddt, 4)


def _violations_json(chains: Sequence[ModelChain], prepared: AllAtomModel, found: Violations) -> dict[str, Any]:
    return {
        "bonds": found.bonds,
        "angles": found.angles,
        "clashes": found.clashes,
        "inverted": found.inverted,
        "residues": _residues_json(chains, [prepared.residues[residue] for residue in found.residues]),
    }


def _residues_json(chains: Sequence[ModelChain], residues: Iterable[ResidueId]) -> list[list[Any]]:
    return [[chain_name(chain), index, NAME_OF_LETTER[chains[chain].sequence[index]]] for chain, index in residues]


def _relaxed_chains(
    chains: Sequence[ModelChain], prepared: AllAtomModel, positions: np.ndarray
) -> tuple[ModelChain, ...]:
    """The chains with their new positions and the atoms that were missing.

    An OXT that the preparation put at the end of a stretch belongs to the model only at the end of the whole chain.
    """
    moved: list[dict[int, dict[str, np.ndarray]]] = [
        {index: dict(atoms) for index, atoms in chain.atoms.items()} for chain in chains
    ]
    for chain, index in prepared.residues:
        moved[chain][index] = {}
    for key, given, position in zip(prepared.keys, prepared.given, positions, strict=True):
        if key is not None:
            chain, index, name = key
            if given or name != "OXT" or index == len(chains[chain].sequence) - 1:
                moved[chain][index][name] = position
    return tuple(
        ModelChain(sequence=chain.sequence, atoms=atoms, confidence=chain.confidence)
        for chain, atoms in zip(chains, moved, strict=True)
    )


def _rmsd(prepared: AllAtomModel, positions: np.ndarray) -> float:
    """Root-mean-square shift of the input's atoms, angstrom. Restraints hold the model in place: no superposition."""
    shifts = positions[prepared.given] - prepared.positions[prepared.given]
    return float(np.sqrt((shifts**2).sum(axis=1).mean()))
