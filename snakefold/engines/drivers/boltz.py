"""Boltz-1 (J. Wohlwend et al., bioRxiv 2024.11.19.624167) by its own package: its parser, network and writer.

Runs in the engine's own Python; see driver_protocol.py. `weights` is a folder laid out as Boltz's cache: `ccd.pkl` and
`boltz1_conf.ckpt`. Writes for each member, as Boltz's own writer does, of the sample that Boltz ranks first:
`member_model_0.cif`, `confidence_member_model_0.json`, `plddt_member_model_0.npz`, `pae_member_model_0.npz`; and
`made.json`: `chains` (our chains' indices in Boltz's order, which brings copies together), `max_msa_seqs` (rows of each
MSA that were read at most) and `eased` (whether these are fewer than asked for).
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import pickle
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from driver_protocol import Task, TorchDriver, serve

# This file bears the name of the package that it drives, and its folder comes first on the path.
sys.path.append(sys.path.pop(0))

NAME = "member"
CHAIN_NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# Rows of each MSA that are read at most when memory is short, by ease; None: as many as the parameters say. Long
# targets are computed in pieces anyhow; of short ones that comes first: it changes no more than rounding.
ROWS_OF_SHORT = (None, None, 1024, 128)
ROWS_OF_LONG = (None, 2048, 512, 128)


class Boltz(TorchDriver):
    """Boltz-1. Parameters: `recycles`, `sampling_steps`, `diffusion_samples`, `step_scale`, `max_msa_seqs`."""

    eases = len(ROWS_OF_LONG) - 1

    def load(self, settings: dict[str, Any]) -> None:
        """Read the components and the checkpoint, with what Boltz's command line gives besides."""
        import boltz.main
        import torch
        from boltz.data import const
        from boltz.model.models.boltz1 import Boltz1
        from rdkit import Chem

        self.boltz, self.constants, self.torch = boltz.main, const, torch
        # Above so many residues Boltz computes in pieces.
        self.chunked_above = const.chunk_size_threshold
        parameters = settings["parameters"]
        weights = Path(settings["weights"])
        # As `boltz predict` sets them.
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("highest")
        Chem.SetDefaultPickleProperties(Chem.PropertyPickleOptions.AllProps)
        with (weights / "ccd.pkl").open("rb") as file:
            self.components = pickle.load(file)
        self.parameters = parameters
        self.place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        steering = boltz.main.BoltzSteeringParams()
        steering.fk_steering = steering.physical_guidance_update = False
        self.model = Boltz1.load_from_checkpoint(
            weights / "boltz1_conf.ckpt",
            strict=True,
            map_location="cpu",
            predict_args={
                "recycling_steps": parameters["recycles"],
                "sampling_steps": parameters["sampling_steps"],
                "diffusion_samples": parameters["diffusion_samples"],
                "max_parallel_samples": None,
                "write_confidence_summary": True,
                "write_full_pae": True,
                "write_full_pde": False,
            },
            diffusion_process_args=asdict(boltz.main.BoltzDiffusionParams(step_scale=parameters["step_scale"])),
            ema=False,
            # Of cuequivariance, which Boltz does not install by itself.
            use_kernels=False,
            pairformer_args=asdict(boltz.main.PairformerArgs()),
            msa_args=asdict(boltz.main.MSAModuleArgs(use_paired_feature=False)),
            steering_args=asdict(steering),
        )
        self.model.eval().to(self.place)

    def predict(self, tasks: list[Task], ease: int) -> None:
        """Write Boltz's files for the one member."""
        from boltz.data.write.writer import BoltzWriter
        from pytorch_lightning import seed_everything

        (task,) = tasks
        residues = sum(len(chain["sequence"]) for chain in task["chains"])
        rows = (ROWS_OF_LONG if residues > self.chunked_above else ROWS_OF_SHORT)[ease]
        self.constants.chunk_size_threshold = self.chunked_above if ease == 0 else 0
        asked = self.parameters["max_msa_seqs"]
        limit = asked if rows is None else min(rows, asked)
        work = Path(task["folder"]) / "work"
        record = self._process(task, work, limit)
        # Anew for each member, so that a result does not depend on what came before it.
        seed_everything(task["seed"] % 2**32)
        prediction, batch = self._run(record, work)
        if prediction["exception"]:
            # Boltz catches CUDA's error and goes on as if all were well.
            raise MemoryError("Boltz ran out of GPU memory")
        writer = BoltzWriter(data_dir=str(work / "structures"), output_dir=str(work / "predictions"))
        writer.write_on_batch_end(None, None, prediction, [0], batch, 0, 0)
        for kind, suffix in (("", "cif"), ("confidence_", "json"), ("plddt_", "npz"), ("pae_", "npz")):
            name = f"{kind}{NAME}_model_0.{suffix}"
            (work / "predictions" / NAME / name).rename(Path(task["folder"]) / name)
        order = [CHAIN_NAMES.index(chain.chain_name) for chain in record.chains]
        made = {"chains": order, "max_msa_seqs": limit, "eased": limit < asked}
        (Path(task["folder"]) / "made.json").write_text(json.dumps(made))
        shutil.rmtree(work)

    def _process(self, task: Task, work: Path, limit: int) -> Any:
        """Let Boltz parse one member into `work`; returns its record of it."""
        from boltz.data.types import Record

        folders = {
            name: work / name for name in ("raw", "msa", "constraints", "templates", "mols", "structures", "records")
        }
        for folder in folders.values():
            folder.mkdir(parents=True)
        copies: dict[str, list[int]] = {}
        for index, chain in enumerate(task["chains"]):
            copies.setdefault(chain["sequence"], []).append(index)
        entities = []
        for sequence, indices in copies.items():
            msa = task["chains"][indices[0]]["msa"]
            if msa is not None:
                # Boltz goes by the suffix, and tells MSAs apart by their paths.
                msa = shutil.copyfile(msa, folders["raw"] / f"{indices[0]}.a3m")
            names = [CHAIN_NAMES[index] for index in indices]
            entities.append(
                {"protein": {"id": names, "sequence": sequence, "msa": "empty" if msa is None else str(msa)}}
            )
        # JSON is YAML.
        (folders["raw"] / f"{NAME}.yaml").write_text(json.dumps({"version": 1, "sequences": entities}))
        self.boltz.process_input(
            path=folders["raw"] / f"{NAME}.yaml",
            ccd=self.components,
            msa_dir=folders["raw"],
            mol_dir=work,
            boltz2=False,
            use_msa_server=False,
            msa_server_url="",
            msa_pairing_strategy="",
            msa_server_username=None,
            msa_server_password=None,
            api_key_header=None,
            api_key_value=None,
            max_msa_seqs=limit,
            processed_msa_dir=folders["msa"],
            processed_constraints_dir=folders["constraints"],
            processed_templates_dir=folders["templates"],
            processed_mols_dir=folders["mols"],
            structure_dir=folders["structures"],
            records_dir=folders["records"],
        )
        path = folders["records"] / f"{NAME}.json"
        if not path.exists():
            # Boltz prints what is wrong and goes on.
            raise RuntimeError("Boltz could not read its input; its log says why")
        return Record.load(path)

    def _run(self, record: Any, work: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """What Boltz's network makes of the member in `work`, and the features that it made it of."""
        from boltz.data.module.inference import BoltzInferenceDataModule
        from boltz.data.types import Manifest

        data = BoltzInferenceDataModule(
            manifest=Manifest([record]),
            target_dir=work / "structures",
            msa_dir=work / "msa",
            # In this process: its random numbers are seeded.
            num_workers=0,
            constraints_dir=work / "constraints",
        )
        with self.torch.inference_mode():
            batch = data.transfer_batch_to_device(next(iter(data.predict_dataloader())), self.place, 0)
            return self.model.predict_step(batch, 0), batch


if __name__ == "__main__":
    serve(Boltz())
