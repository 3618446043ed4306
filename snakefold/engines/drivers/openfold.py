"""OpenFold3 (the OpenFold consortium's network after AlphaFold 3) by its own package: its features, network and scores.

Runs in the engine's own Python; see driver_protocol.py. MSAs come from the supervisor; nothing is searched or
downloaded, and no templates are used. `weights` is a folder with the publisher's parameters. Weights of another network
than the published one state beside it how that differs, in `config.json`: changes to OpenFold3's model configuration.

Writes `prediction.npz` for each member, of the sample that OpenFold3 ranks first: by atom, `residues` (of the whole
target, from 0), `names`, `positions` (atoms, 3) in angstrom and `plddt`, 0-100; `pae` (residues, residues) in
angstrom, rows being the aligned residue; `ptm`, `iptm`, `sample` (from 1), `samples` (how many it was the best of), and
`rows`: of the MSA that were read at most, if want of memory made them fewer than asked for.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from driver_protocol import Task, TorchDriver, serve
from msa_rows import a3m_text, read_a3m, species_of_rows

CHECKPOINT = "of3-ob-2025-06-30-174k.pt"
NAME = "member"
CHAIN_NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# What is done against want of memory, by ease: whether OpenFold3's settings for little memory hold (tensors go to the
# machine's memory while they are not needed, samples one by one), which change no more than rounding; and rows of the
# MSA at most. For each pass the network draws 1,024 of those there are.
MEASURES = ((False, None), (True, None), (True, 1024), (True, 128))

# OpenFold3 reads MSAs by the names of their files.
MSA, PAIRABLE = "msa", "uniprot_hits"


class OpenFold(TorchDriver):
    """OpenFold3. Parameters: `recycles`, `sampling_steps`, `diffusion_samples`, `max_msa_rows`."""

    eases = len(MEASURES) - 1

    def load(self, settings: dict[str, Any]) -> None:
        """Build the network and read the parameters, as `run_openfold predict` does."""
        import torch

        weights, cache = Path(settings["weights"]), Path(settings["cache"])
        cache.mkdir(parents=True, exist_ok=True)
        # OpenFold3, when imported, makes a temporary folder that bears the name of the user: some containers have none.
        tempfile.tempdir = str(cache)
        os.environ.setdefault("LOGNAME", "nobody")
        from openfold3.entry_points.experiment_runner import InferenceExperimentRunner
        from openfold3.entry_points.validator import InferenceExperimentConfig

        # The command line's default.
        torch.set_float32_matmul_precision("high")
        self.parameters = settings["parameters"]
        self.place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        changes = weights / "config.json"
        custom = json.loads(changes.read_text(encoding="utf-8")) if changes.exists() else {}
        config = InferenceExperimentConfig(
            inference_ckpt_path=weights / CHECKPOINT,
            cache_path=cache,
            experiment_settings={"output_dir": cache, "use_msa_server": False, "use_templates": False},
            model_update={"presets": ["predict"], "custom": custom},
            template_preprocessor_settings={"mode": "predict", "output_directory": cache / "templates"},
        )
        runner = InferenceExperimentRunner(config)
        network = runner.model_config.architecture.shared
        network.num_recycles = self.parameters["recycles"]
        network.diffusion.no_full_rollout_steps = self.parameters["sampling_steps"]
        network.diffusion.no_full_rollout_samples = self.parameters["diffusion_samples"]
        runner.setup()
        self.config = config
        self.module = runner.lightning_module.eval().to(self.place)
        self.memory = {low: _memory_settings(low=low) for low in (False, True)}

    def predict(self, tasks: list[Task], ease: int) -> None:
        """Write prediction.npz of the one member."""
        import torch
        from pytorch_lightning import seed_everything

        (task,) = tasks
        low, rows = MEASURES[ease]
        asked = self.parameters["max_msa_rows"]
        limit = asked if rows is None else min(rows, asked)
        self._economise(low)
        folder = Path(task["folder"])
        work = folder / "work"
        # Anew for each member, so that a result does not depend on what came before it. Features draw conformers.
        seed = task["seed"] % 2**32
        seed_everything(seed)
        batch = self._features(task, work, limit)
        # As OpenFold3's own loop does before the network.
        seed_everything(seed)
        # Not by way of `predict_step`, which catches whatever is raised, writes it to a file and goes on.
        with torch.inference_mode():
            batch, outputs = self.module(self.module.transfer_batch_to_device(batch, self.place, 0))
            scores = self.module._compute_confidence_scores(batch, outputs)
        found = _best(batch["atom_array"][0], outputs, scores)
        if limit < asked:
            found["rows"] = np.int32(limit)
        np.savez_compressed(folder / "prediction.npz", **found)
        shutil.rmtree(work)

    def _economise(self, low: bool) -> None:
        """Let OpenFold3's settings for little memory hold, or not."""
        settings = self.module.config.settings
        settings.update(self.memory[low])
        # The only one of them that is copied where it is used.
        self.module.model.aux_heads.per_sample_token_cutoff = settings.memory.eval.per_sample_token_cutoff

    def _features(self, task: Task, work: Path, limit: int) -> dict[str, Any]:
        """OpenFold3's features of one member, as a batch of one, with at most `limit` rows of the MSA."""
        from openfold3.core.data.framework.data_module import openfold_batch_collator
        from openfold3.core.data.framework.single_datasets.inference import InferenceDataset
        from openfold3.projects.of3_all_atom.config.dataset_config_components import MSASettings, TemplateSettings
        from openfold3.projects.of3_all_atom.config.dataset_configs import InferenceJobConfig
        from openfold3.projects.of3_all_atom.config.inference_query_format import InferenceQuerySet

        query = InferenceQuerySet.model_validate({"queries": {NAME: {"chains": list(_chains(task, work))}}})
        defaults = MSASettings()
        msa = MSASettings(
            max_rows=limit,
            max_rows_paired=min(defaults.max_rows_paired, limit // 2),
            max_seq_counts={MSA: None, PAIRABLE: defaults.max_seq_counts[PAIRABLE]},
            msas_to_pair=[PAIRABLE],
            aln_order=[MSA],
            subsample_main=False,
        )
        config = InferenceJobConfig(
            query_set=query,
            msa=msa,
            # Of nothing: one gives what four give.
            template=TemplateSettings(n_templates=1, take_top_k=True),
            template_preprocessor_settings=self.config.template_preprocessor_settings,
        )
        # Not by its index: then it would catch what is raised, and hand out a sample marked as invalid.
        features = InferenceDataset(config).create_all_features(query.queries[NAME])
        return openfold_batch_collator([features])


def _memory_settings(*, low: bool) -> dict[str, Any]:
    """The part of OpenFold3's model configuration that says how memory is spent."""
    import torch
    from openfold3.projects.of3_all_atom.project_entry import ModelUpdate, OF3ProjectEntry

    presets = ["predict", "low_mem"] if low else ["predict"]
    settings = OF3ProjectEntry().get_model_config_with_update(ModelUpdate(presets=presets)).settings
    # A CPU has none of Triton's kernels, and OpenFold3 asks for them all the same.
    settings.memory.eval.use_triton_triangle_kernels = torch.cuda.is_available()
    return {
        "clear_cache_between_steps": settings.clear_cache_between_steps,
        "memory": {"eval": settings.memory.eval.to_dict()},
    }


def _chains(task: Task, work: Path) -> Iterator[dict[str, Any]]:
    """The chains as OpenFold3's query has them, in the target's order; it knows copies by their sequence.

    Where MSAs differ, OpenFold3 pairs rows of one species. It takes an MSA of which each row states its species, and
    ends in an error at any other name: those rows are written apart.
    """
    chains = [(chain["sequence"], chain["msa"]) for chain in task["chains"]]
    distinct = list(dict.fromkeys(chains))
    msas = [[("query", sequence)] if msa is None else read_a3m(msa) for sequence, msa in distinct]
    # MSAs are told apart by their folders.
    folders = {chain: work / f"msa{number}" for number, chain in enumerate(distinct)}
    for folder, rows in zip(folders.values(), msas):  # noqa: B905 (Python 3.9)
        folder.mkdir(parents=True)
        (folder / f"{MSA}.a3m").write_text(a3m_text(rows), encoding="utf-8")
    if len(distinct) > 1:
        for folder, rows, species in zip(folders.values(), msas, species_of_rows(msas)):  # noqa: B905
            pairable = [(f"|||{name}||", row) for (_, row), name in zip(rows[1:], species[1:]) if name]  # noqa: B905
            if pairable:
                (folder / f"{PAIRABLE}.a3m").write_text(a3m_text([rows[0], *pairable]), encoding="utf-8")
    for index, chain in enumerate(chains):
        yield {
            "molecule_type": "protein",
            "chain_ids": [CHAIN_NAMES[index]],
            "sequence": chain[0],
            "main_msa_file_paths": [str(folders[chain])],
        }


def _best(atoms: Any, outputs: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    """The arrays of the sample that OpenFold3 ranks first."""

    def of(values: Any) -> np.ndarray:
        return values[0].float().cpu().numpy()

    # Of an overflow, nothing is better.
    ranking = np.nan_to_num(of(scores["sample_ranking_score"]), nan=-np.inf)
    best = int(ranking.argmax())
    return {
        "residues": np.asarray(atoms.token_position, dtype=np.int32),
        "names": np.asarray(atoms.atom_name),
        "positions": of(outputs["atom_positions_predicted"])[best],
        "plddt": of(scores["plddt"])[best],
        "pae": of(scores["pae"])[best],
        "ptm": of(scores["ptm"])[best],
        "iptm": of(scores["iptm"])[best],
        "sample": np.int32(best + 1),
        "samples": np.int32(len(ranking)),
    }


if __name__ == "__main__":
    serve(OpenFold())
