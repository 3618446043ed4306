"""What relaxation mends and costs: `python -m bench.relax [--strain 0.2] [--tolerance 10] [--alphafold] [FILES...]`.

Each file (mmCIF or PDB) is taken as a model, its atoms displaced at random by --strain angstrom along each axis, and
relaxed. Seconds are of CPU, of one thread, reading and writing included. Columns with an arrow tell before -> after:
clashes, violations (and the residues in them), Ramachandran outliers, peptide bonds that are neither trans nor
cis-proline, breaks. Energies are in kJ/mol, RMSD in angstrom, lDDT is to the input. With --alphafold the same model is
also minimised with AlphaFold's own settings, all pairs of atoms and constrained bonds to hydrogen, in one round; the
last columns show its seconds and how far its result lies from ours (RMSD of heavy atoms, angstrom).
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from snakefold.files import read_json
from snakefold.relax import relax_model
from snakefold.relax.preparation import FORCE_FIELD, prepare
from snakefold.structures.geometry import chain_breaks, open_peptide_bonds, peptide_bonds
from snakefold.structures.io import ModelChain, read_chains, read_model, write_model

TARGETS = Path(__file__).parents[1] / "data" / "mini" / "targets"
COLUMNS = [
    *("file", "residues", "seconds", "attempts", "rounds", "iterations", "energy", "clashes", "violations"),
    *("violating_residues", "ramachandran", "odd_peptides", "breaks", "rmsd", "lddt_ca", "lddt", "relaxed"),
]


def main() -> None:
    """Print one tab-separated line a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(TARGETS.glob("*.cif.gz")))
    parser.add_argument("--strain", type=float, default=0.2, help="angstrom along each axis, standard deviation")
    parser.add_argument("--alphafold", action="store_true", help="compare with AlphaFold's settings (slow)")
    parser.add_argument("--tolerance", type=float, default=10.0, help="kJ/mol/nm")
    options = parser.parse_args()
    print("\t".join(COLUMNS + (["alphafold_seconds", "rmsd_to_alphafold"] if options.alphafold else [])))
    for path in options.files:
        print("\t".join(measure(path, options)), flush=True)


def measure(path: Path, options: argparse.Namespace) -> list[str]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model.cif", strained(path, options.strain))
        parameters = {"platform": "CPU", "tolerance": options.tolerance}
        start = time.process_time()
        relax_model(folder / "model.cif", folder, parameters=parameters, seed=0)
        seconds = time.process_time() - start
        report = read_json(folder / "relax.json")
        chains, relaxed = read_model(folder / "model.cif"), read_model(folder / "relaxed.cif")
    states = (chains, relaxed)
    found = [report[f"violations_{when}"] or {} for when in ("before", "after")]
    row = [
        path.name.split(".")[0],
        str(sum(len(chain.atoms) for chain in chains)),
        f"{seconds:.1f}",
        *(str(report[key]) for key in ("attempts", "rounds", "iterations")),
        f"{report['energy_before'] or float('nan'):.3g} -> {report['energy_after'] or float('nan'):.0f}",
        f"{report['clashes_before']} -> {report['clashes_after']}",
        _change(sum(each.get(kind, 0) for kind in ("bonds", "angles", "clashes", "inverted")) for each in found),
        _change(len(each.get("residues", ())) for each in found),
        f"{report['ramachandran_outliers_before']} -> {report['ramachandran_outliers_after']}",
        _change(_odd_peptides(state) for state in states),
        _change(len({*chain_breaks(state), *open_peptide_bonds(state)}) for state in states),
        f"{report['rmsd_to_input']:.3f}",
        *(f"{report[key]:.3f}" for key in ("lddt_ca_to_input", "lddt_to_input")),
        "yes" if report["relaxed"] else f"no: {report['reason']}",
    ]
    if options.alphafold:
        start = time.process_time()
        positions = minimised_as_alphafold_does(chains)
        row.append(f"{time.process_time() - start:.1f}")
        shifts = [
            relaxed[chain].atoms[index][name] - xyz
            for (chain, index, name), xyz in positions.items()
            if name in relaxed[chain].atoms[index]
        ]
        row.append(f"{np.sqrt((np.array(shifts) ** 2).sum(axis=1).mean()):.3f}")
    return row


def _change(values: Iterable[int]) -> str:
    return " -> ".join(map(str, values))


def _odd_peptides(chains: Sequence[ModelChain]) -> int:
    return sum(
        bond.kind == "twisted"
        or (bond.kind == "cis" and chains[bond.residue.chain].sequence[bond.residue.residue] != "P")
        for bond in peptide_bonds(chains)
    )


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
