"""Seconds, energies and shifts of relaxation: `python -m bench.relax [--strain 0.2] [--alphafold] [FILES...]`.

Each file (mmCIF or PDB) is taken as a model, its atoms displaced at random by --strain angstrom along each axis, and
relaxed. With --alphafold the same model is also minimised with AlphaFold's own settings, all pairs of atoms and
constrained bonds to hydrogen, in one round; the last columns show its seconds and how far its result lies from ours
(RMSD of heavy atoms, angstrom). Energies are in kJ/mol.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from snakefold.files import read_json
from snakefold.relax import relax_model
from snakefold.relax.preparation import FORCE_FIELD, prepare
from snakefold.structures.io import ModelChain, read_chains, read_model, write_model

TARGETS = Path(__file__).parents[1] / "data" / "mini" / "targets"
COLUMNS = [
    *("file", "residues", "seconds", "rounds", "iterations", "energy_before", "energy_after", "clashes"),
    *("violating_residues", "rmsd", "relaxed"),
]


def main() -> None:
    """Print one tab-separated line a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(TARGETS.glob("*.cif.gz")))
    parser.add_argument("--strain", type=float, default=0.2, help="angstrom along each axis, standard deviation")
    parser.add_argument("--alphafold", action="store_true", help="compare with AlphaFold's settings (slow)")
    options = parser.parse_args()
    print("\t".join(COLUMNS + (["alphafold_seconds", "rmsd_to_alphafold"] if options.alphafold else [])))
    for path in options.files:
        print("\t".join(measure(path, strain=options.strain, alphafold=options.alphafold)), flush=True)


def measure(path: Path, *, strain: float, alphafold: bool) -> list[str]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model.cif", strained(path, strain))
        start = time.perf_counter()
        relax_model(folder / "model.cif", folder, parameters={"platform": "CPU"}, seed=0)
        seconds = time.perf_counter() - start
        report = read_json(folder / "relax.json")
        chains, relaxed = read_model(folder / "model.cif"), read_model(folder / "relaxed.cif")
    violating = [len((report[f"violations_{when}"] or {"residues": []})["residues"]) for when in ("before", "after")]
    row = [
        path.name.split(".")[0],
        str(sum(len(chain.atoms) for chain in chains)),
        f"{seconds:.1f}",
        str(report["rounds"]),
        str(report["iterations"]),
        f"{report['energy_before'] or float('nan'):.3g}",
        f"{report['energy_after'] or float('nan'):.0f}",
        f"{report['clashes_before']} -> {report['clashes_after']}",
        f"{violating[0]} -> {violating[1]}",
        f"{report['rmsd_to_input']:.3f}",
        "yes" if report["relaxed"] else f"no: {report['reason']}",
    ]
    if alphafold:
        start = time.perf_counter()
        positions = minimised_as_alphafold_does(chains)
        row.append(f"{time.perf_counter() - start:.1f}")
        shifts = [
            relaxed[chain].atoms[index][name] - xyz
            for (chain, index, name), xyz in positions.items()
            if name in relaxed[chain].atoms[index]
        ]
        row.append(f"{np.sqrt((np.array(shifts) ** 2).sum(axis=1).mean()):.3f}")
    return row


def strained(path: Path, angstrom: float) -> list[ModelChain]:
    """The protein chains of a file as a model, its atoms displaced; the same in each run."""
    generator = np.random.default_rng(0)
    return [
        ModelChain(
            sequence=chain.sequence,
            atoms={
                index: {name: xyz + generator.normal(0, angstrom, 3) for name, xyz in atoms.items()}
                for index, atoms in chain.residues.items()
            },
            confidence=[50.0] * len(chain.sequence),
        )
        for chain in read_chains(path)
    ]


def minimised_as_alphafold_does(chains: Sequence[ModelChain]) -> dict[tuple[int, int, str], np.ndarray]:
    """Positions (angstrom) of the heavy atoms after one round with the settings of AlphaFold's amber_minimize."""
    model = prepare(chains, ph=7.0, seed=0)
    system = app.ForceField(FORCE_FIELD).createSystem(model.topology, constraints=app.HBonds)
    restraint = openmm.CustomExternalForce("0.5*4184*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for parameter in ("x0", "y0", "z0"):
        restraint.addPerParticleParameter(parameter)
    for index, key in enumerate(model.keys):
        if key is not None:
            restraint.addParticle(index, (model.positions[index] / 10).tolist())
    system.addForce(restraint)
    platform = openmm.Platform.getPlatform("CPU")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform, {"Threads": "1"})
    context.setPositions(model.positions / 10)
    openmm.LocalEnergyMinimizer.minimize(context, 10)
    positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    return {key: positions[index] for index, key in enumerate(model.keys) if key is not None}


if __name__ == "__main__":
    main()
