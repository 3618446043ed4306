"""Relax one model: minimise it, and keep the result only if it is no worse than the input."""

from collections.abc import Mapping, Sequence
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
from snakefold.relax.violations import Violations
from snakefold.structures.geometry import find_clashes, ramachandran
from snakefold.structures.io import ModelChain, chain_name, read_model, write_model
from snakefold.structures.residues import NAME_OF_LETTER


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What must not get worse: counts over the whole model."""

    clashes: int
    violations: int
    violating_residues: int
    wrong_chirality: int
    ramachandran_outliers: int


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
        prepared = prepare(chains, ph=settings.ph, seed=seed)
        result = _minimise(prepared, settings)
    except MemberError as error:
        return _keep(model, folder, chains, kind=error.kind, reason=str(error))
    except (OpenMMException, ValueError) as error:
        # How OpenMM and PDBFixer say that they have no parameters for a molecule, or that a force is no number.
        return _keep(model, folder, chains, kind="cannot_relax", reason=" ".join(str(error).split()))

    relaxed = _relaxed_chains(chains, prepared, result.positions)
    before = _quality(chains, result.violations_before)
    after = _quality(relaxed, result.violations_after)
    reason = _worse(before, after)
    if reason:
        return _keep(model, folder, chains, kind="worse", reason=reason, prepared=prepared, result=result)
    write_model(folder / "relaxed.cif", relaxed)
    report = _report(chains, relaxed, prepared, result) | {"relaxed": True, "reason": None}
    write_json(folder / "relax.json", report)
    return Outcome(facts={"relaxed": True, "platform": result.platform, "rounds": result.rounds})


def _minimise(prepared: AllAtomModel, settings: RelaxParameters) -> Minimised:
    """Minimise; a GPU that fails (out of memory, lost) says nothing of the model, which must not be kept for it."""
    try:
        return minimise(prepared, settings)
    except OpenMMException as error:
        if settings.platform in ("CPU", "Reference"):
            raise
        if settings.platform == "auto":
            return minimise(prepared, replace(settings, platform="CPU"))
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
    prepared: AllAtomModel | None = None,
    result: Minimised | None = None,
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
    }
    if prepared is not None and result is not None:
        report = _report(chains, chains, prepared, result)
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
    }
    write_json(folder / "relax.json", report)
    return Outcome(kind=kind, reason=reason, facts={"relaxed": False})


def _report(
    chains: Sequence[ModelChain], relaxed: Sequence[ModelChain], prepared: AllAtomModel, result: Minimised
) -> dict[str, Any]:
    return {
        "platform": result.platform,
        "iterations": result.iterations,
        "rounds": result.rounds,
        "energy_before": None if result.energy_before is None else round(result.energy_before, 1),
        "energy_after": round(result.energy_after, 1),
        "clashes_before": len(find_clashes(chains)),
        "clashes_after": len(find_clashes(relaxed)),
        "violations_before": _violations_json(chains, prepared, result.violations_before),
        "violations_after": _violations_json(chains, prepared, result.violations_after),
        "ramachandran_outliers_before": ramachandran(chains).outliers,
        "ramachandran_outliers_after": ramachandran(relaxed).outliers,
        "rmsd_to_input": round(_rmsd(prepared, result.positions), 3),
    }


def _violations_json(chains: Sequence[ModelChain], prepared: AllAtomModel, found: Violations) -> dict[str, Any]:
    places = [prepared.residues[residue] for residue in found.residues]
    return {
        "bonds": found.bonds,
        "angles": found.angles,
        "clashes": found.clashes,
        "inverted": found.inverted,
        "residues": [
            [chain_name(chain), index + 1, NAME_OF_LETTER[chains[chain].sequence[index]]] for chain, index in places
        ],
    }


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


def _quality(chains: Sequence[ModelChain], violations: Violations) -> Quality:
    return Quality(
        clashes=len(find_clashes(chains)),
        violations=violations.bonds + violations.angles + violations.clashes,
        violating_residues=len(violations.residues),
        wrong_chirality=violations.inverted,
        ramachandran_outliers=ramachandran(chains).outliers,
    )


def _worse(before: Quality, after: Quality) -> str | None:
    """Why the relaxed model is worse than its input; None if it is not.

    Nothing that is chemically impossible may increase. A residue that slips out of the Ramachandran plot's regions is a
    price worth paying for mending such faults, but not for nothing.
    """
    pairs = {
        "clashes": (before.clashes, after.clashes),
        "violations": (before.violations, after.violations),
        "residues with violations": (before.violating_residues, after.violating_residues),
        "centres of wrong chirality": (before.wrong_chirality, after.wrong_chirality),
    }
    for name, (old, new) in pairs.items():
        if new > old:
            return f"relaxation made the model worse: {name} {old} -> {new}"
    mended = any(new < old for old, new in pairs.values())
    if not mended and after.ramachandran_outliers > before.ramachandran_outliers:
        change = f"{before.ramachandran_outliers} -> {after.ramachandran_outliers}"
        return f"relaxation made the model worse: Ramachandran outliers {change}"
    return None


def _rmsd(prepared: AllAtomModel, positions: np.ndarray) -> float:
    """Root-mean-square shift of the input's atoms, angstrom. Restraints hold the model in place: no superposition."""
    shifts = positions[prepared.given] - prepared.positions[prepared.given]
    return float(np.sqrt((shifts**2).sum(axis=1).mean()))
