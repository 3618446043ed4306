"""Boltz-1 (J. Wohlwend et al., bioRxiv 2024.11.19.624167) and Boltz-2 (S. Passaro et al., bioRxiv 2025.06.14.659707).

By their own package: its parser, networks and writer. Runs in the engine's own Python; see driver_protocol.py. The
argument says which: `boltz` or `boltz2`. `weights` is a folder laid out as Boltz's cache: `boltz1_conf.ckpt` and
`ccd.pkl`, or `boltz2_conf.ckpt` and `mols.tar`. Writes for each member, as Boltz's own writer does, of the sample that
Boltz ranks first: `member_model_0.cif`, `confidence_member_model_0.json`, `plddt_member_model_0.npz`,
`pae_member_model_0.npz`; and `made.json`: `chains` (our chains' indices in Boltz's order, which brings copies
together), `max_msa_seqs` (rows of each MSA that were read at most) and `eased` (whether that is fewer than asked for).
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import pickle
import shutil
import sys
import tarfile
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from driver_protocol import Task, TorchDriver, serve
from msa_rows import UNPAIRED, pair_by_species, read_a3m

# This file bears the name of the package that it drives, and its folder comes first on the path.
sys.path.append(sys.path.pop(0))

NAME = "member"
CHAIN_NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# Rows of each MSA that are read at most when memory is short, by ease; None: as many as the parameters say. Long
# targets are computed in pieces anyhow; of short ones that comes first: it changes no more than rounding.
ROWS_OF_SHORT = (None, None, 1024, 128)
ROWS_OF_LONG = (None, 2048, 512, 128)


class Boltz(TorchDriver):
    """Either model. Parameters: `recycles`, `sampling_steps`, `diffusion_samples`, `step_scale`, `max_msa_seqs`."""

    eases = len(ROWS_OF_LONG) - 1
    checkpoint: str
    is_second: bool
    components: dict[str, Any]
    """Chemical components by name."""
    molecules: Path
    """A folder that may hold further ones."""

    def load(self, settings: dict[str, Any]) -> None:
        """Read the components and the checkpoint, with what Boltz's command line gives besides."""
        import boltz.main
        import torch
        from boltz.data import const
        from rdkit import Chem

        self.boltz, self.constants, self.torch = boltz.main, const, torch
        # Above so many residues Boltz computes in pieces.
        self.chunked_above = const.chunk_size_threshold
        self.parameters = parameters = settings["parameters"]
        weights = Path(settings["weights"])
        # As `boltz predict` sets them.
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("highest")
        Chem.SetDefaultPickleProperties(Chem.PropertyPickleOptions.AllProps)
        self.read_components(weights, Path(settings["cache"]))
        self.place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        steering = boltz.main.BoltzSteeringParams()
        steering.fk_steering = steering.physical_guidance_update = False
        network, diffusion, pairformer = self.parts()
        self.model = network.load_from_checkpoint(
            weights / self.checkpoint,
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
            diffusion_process_args=asdict(diffusion(step_scale=parameters["step_scale"])),
            ema=False,
            # Of cuequivariance, which Boltz does not install by itself.
            use_kernels=False,
            pairformer_args=asdict(pairformer()),
            msa_args=asdict(boltz.main.MSAModuleArgs(use_paired_feature=self.is_second)),
            steering_args=asdict(steering),
        )
        self.model.eval().to(self.place)

    def read_components(self, weights: Path, cache: Path) -> None:
        """Set `components` and `molecules`."""
        raise NotImplementedError

    def parts(self) -> tuple[Any, Any, Any]:
        """Boltz's classes of the network, and of its diffusion's and pairformer's settings."""
        raise NotImplementedError

    def data(self, record: Any, work: Path) -> Any:
        """Boltz's module that makes features of the member in `work`."""
        raise NotImplementedError

    def precision(self) -> AbstractContextManager[Any]:
        """What the network runs in."""
        return nullcontext()

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
        writer = BoltzWriter(
            data_dir=str(work / "structures"), output_dir=str(work / "predictions"), boltz2=self.is_second
        )
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
        msas = _msas(
            {indices[0]: task["chains"][indices[0]]["msa"] for indices in copies.values()}, folders["raw"], limit
        )
        entities = []
        for sequence, indices in copies.items():
            names = [CHAIN_NAMES[index] for index in indices]
            entities.append({"protein": {"id": names, "sequence": sequence, "msa": msas.get(indices[0], "empty")}})
        # JSON is YAML.
        (folders["raw"] / f"{NAME}.yaml").write_text(json.dumps({"version": 1, "sequences": entities}))
        self.boltz.process_input(
            path=folders["raw"] / f"{NAME}.yaml",
            ccd=self.components,
            msa_dir=folders["raw"],
            mol_dir=self.molecules,
            boltz2=self.is_second,
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
        data = self.data(record, work)
        loader = data.predict_dataloader()
        # What cannot be read Boltz passes over for the first record, which is the same one here, again and again.
        loader.dataset.__getitem__ = _no_features
        with self.torch.inference_mode():
            batch = data.transfer_batch_to_device(next(iter(loader)), self.place, 0)
            with self.precision():
                return self.model.predict_step(batch, 0), batch


class Boltz1(Boltz):
    """Boltz-1."""

    checkpoint = "boltz1_conf.ckpt"
    is_second = False

    def read_components(self, weights: Path, cache: Path) -> None:
        """All components are in one file."""
        with (weights / "ccd.pkl").open("rb") as file:
            self.components = pickle.load(file)
        self.molecules = cache

    def parts(self) -> tuple[Any, Any, Any]:
        """As Boltz has it."""
        from boltz.model.models.boltz1 import Boltz1 as Network

        return Network, self.boltz.BoltzDiffusionParams, self.boltz.PairformerArgs

    def data(self, record: Any, work: Path) -> Any:
        """As Boltz has it."""
        from boltz.data.module.inference import BoltzInferenceDataModule
        from boltz.data.types import Manifest

        return BoltzInferenceDataModule(
            manifest=Manifest([record]),
            target_dir=work / "structures",
            msa_dir=work / "msa",
            # In this process: its random numbers are seeded.
            num_workers=0,
            constraints_dir=work / "constraints",
        )


class Boltz2(Boltz):
    """Boltz-2."""

    checkpoint = "boltz2_conf.ckpt"
    is_second = True

    def read_components(self, weights: Path, cache: Path) -> None:
        """Of the archive's components, one file each, only the amino acids are unpacked."""
        from boltz.data.mol import load_canonicals

        cache.mkdir(parents=True, exist_ok=True)
        self.molecules = Path(tempfile.mkdtemp(dir=cache))
        wanted = {f"{name}.pkl" for name in self.constants.canonical_tokens}
        with tarfile.open(weights / "mols.tar") as archive:
            for member in archive:
                name = Path(member.name).name
                content = archive.extractfile(member) if name in wanted else None
                if content is not None:
                    (self.molecules / name).write_bytes(content.read())
                    wanted.remove(name)
                if not wanted:
                    break
        self.components = load_canonicals(self.molecules)

    def parts(self) -> tuple[Any, Any, Any]:
        """As Boltz has it."""
        from boltz.model.models.boltz2 import Boltz2 as Network

        return Network, self.boltz.Boltz2DiffusionParams, self.boltz.PairformerArgsV2

    def data(self, record: Any, work: Path) -> Any:
        """As Boltz has it."""
        from boltz.data.module.inferencev2 import Boltz2InferenceDataModule
        from boltz.data.types import Manifest

        return Boltz2InferenceDataModule(
            manifest=Manifest([record]),
            target_dir=work / "structures",
            msa_dir=work / "msa",
            mol_dir=self.molecules,
            num_workers=0,
            constraints_dir=work / "constraints",
            template_dir=work / "templates",
            extra_mols_dir=work / "mols",
        )

    def precision(self) -> AbstractContextManager[Any]:
        """As `boltz predict` runs it: matrix products in bf16."""
        return self.torch.autocast(self.place.type, dtype=self.torch.bfloat16)


def _no_features(_: int) -> None:
    raise RuntimeError("Boltz could not make features of its input; its log says why")


def _msas(given: dict[int, str | None], folder: Path, limit: int) -> dict[int, str]:
    """The MSAs (by the index of the chain that each is of) as Boltz reads them, files in `folder`.

    Boltz goes by the suffix, and tells MSAs apart by their paths. In CSV, rows of different chains with the same key
    become one row of the paired MSA; its own MSA server gives a key to one row of each species and chain.
    """
    paths = {index: Path(path) for index, path in given.items() if path is not None}
    paired = pair_by_species([read_a3m(path) for path in paths.values()], limit) if len(paths) > 1 else []
    found = {}
    if any(key != UNPAIRED for rows in paired for key, _ in rows):
        for index, rows in zip(paths, paired):  # noqa: B905 (Python 3.9 has no `strict`)
            path = folder / f"{index}.csv"
            path.write_text("".join(["key,sequence\n", *(f"{key},{letters}\n" for key, letters in rows)]))
            found[index] = str(path)
    else:
        for index, path in paths.items():
            found[index] = str(shutil.copyfile(path, folder / f"{index}.a3m"))
    return found


MODELS = {"boltz": Boltz1, "boltz2": Boltz2}

if __name__ == "__main__":
    serve(MODELS[sys.argv[1]]())
