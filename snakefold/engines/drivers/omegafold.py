"""OmegaFold (R. Wu et al., bioRxiv 2022.07.21.500999) by its authors' code: one chain, no MSA.

Runs in the engine's own Python; see driver_protocol.py. Writes `prediction.npz` for each member: `positions`
(residues, 14, 3) in angstrom, `names` (residues, 14), the atoms' names, empty where there is none, and `plddt`
(residues), 0-100.

`weights` is a folder with `release1.pt` and `release2.pt`. Weights of another network than the published one state
beside it how that differs, in `config.json`: dotted keys of `omegafold.make_config`.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from driver_protocol import RefusedError, Task, TorchDriver, serve

# This file bears the name of the package that it drives, and its folder comes first on the path.
sys.path.append(sys.path.pop(0))

# Rows that attention works on at a time when memory is short, by ease; None: as many as the parameters say.
SUBBATCHES = (None, 32, 8, 1)


class OmegaFold(TorchDriver):
    """OmegaFold. Parameters: `model` (1 or 2), `cycles`, `subbatch_size`, `precision`."""

    eases = len(SUBBATCHES) - 1

    def load(self, settings: dict[str, Any]) -> None:
        """Read the weights of one of the two models."""
        import torch

        # By name, since readers of the code take `omegafold` for this file.
        package = import_module("omegafold")
        residue_constants = import_module("omegafold.utils.protein_utils.residue_constants")
        self.torch, self.pipeline = torch, import_module("omegafold.pipeline")
        self.names = {
            letter: residue_constants.restype_name_to_atom14_names[name]
            for letter, name in residue_constants.restype_1to3.items()
        }
        self.parameters = settings["parameters"]
        weights = Path(settings["weights"])
        torch.set_float32_matmul_precision("highest" if self.parameters["precision"] == "fp32" else "high")
        self.place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        config = package.make_config(self.parameters["model"])
        changes = weights / "config.json"
        if changes.exists():
            _change(config, json.loads(changes.read_text(encoding="utf-8")))
        self.model = package.OmegaFold(config)
        content = torch.load(weights / f"release{self.parameters['model']}.pt", map_location="cpu", weights_only=True)
        self.model.load_state_dict(content.get("model", content))
        self.model.to(self.place).eval()

    def predict(self, tasks: list[Task], ease: int) -> None:
        """Write prediction.npz, of the pass that the network is most sure of."""
        (task,) = tasks
        sequence = task["chains"][0]["sequence"]
        smaller, asked = SUBBATCHES[ease], self.parameters["subbatch_size"] or len(sequence)
        size = asked if smaller is None else min(asked, smaller)
        with self.torch.no_grad():
            output = self.model(
                self.inputs(task),
                predict_with_confidence=True,
                fwd_cfg=argparse.Namespace(subbatch_size=size, num_recycle=self.parameters["cycles"]),
            )
        if output is None:
            raise RefusedError("bad_output", "OmegaFold gave no structure: its confidence was no number above zero")
        np.savez_compressed(
            Path(task["folder"]) / "prediction.npz",
            positions=output["final_atom_positions"].float().cpu().numpy(),
            names=np.array([self.names[letter] for letter in sequence]),
            plddt=output["confidence"].float().cpu().numpy() * 100,
        )

    def inputs(self, task: Task) -> Any:
        """What OmegaFold makes of a sequence: for each pass copies of it with random residues masked.

        Its command line seeds by the number of residues. So does this, to which the target's seed is added.
        """
        sequence = task["chains"][0]["sequence"]
        path = Path(task["folder"]) / "query.fasta"
        path.write_text(f">query\n{sequence}\n", encoding="utf-8")
        self.torch.manual_seed(len(sequence) + task["seed"])
        inputs, _ = next(
            self.pipeline.fasta2inputs(
                str(path),
                output_dir=task["folder"],
                num_cycle=self.parameters["cycles"],
                device=self.place,
                # With a generator of its own it knows no other seed.
                deterministic=False,
            )
        )
        path.unlink()
        return inputs


def _change(config: argparse.Namespace, changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = config
        for each in sections:
            section = getattr(section, each)
        setattr(section, name, value)


if __name__ == "__main__":
    serve(OmegaFold())
