"""AlphaFold 2 (Jumper et al., Nature 596 (2021), 583) and AlphaFold-Multimer (Evans et al. 2021), by ColabFold's code.

Runs in the engine's own Python; see driver_protocol.py. A target of one chain goes through the monomer models with pTM
head, one of several chains through the multimer models (v3). MSAs come from the supervisor; nothing is searched or
downloaded, and no templates are used.

Writes `prediction.npz` for each member, of its best model: `positions` (residues, 37, 3) in angstrom, in AlphaFold's
order of atoms, `exists` (residues, 37), `plddt` (residues), 0-100, `pae` (residues, residues) in angstrom, `ptm`,
`iptm` (of several chains), `model` (1-5), `seed`, `candidates` (how many it was the best of), and `crop`: the rows of
the MSA that went in at most, as (clusters, further ones), if want of memory made them fewer than asked for.

Weights are a folder with the publisher's archive in `params/`. Weights of another network than the published one state
beside it how that differs, in `config.json`: {"monomer": {...}, "multimer": {...}}, of dotted keys of AlphaFold's model
configuration.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from driver_protocol import JaxDriver, Task, serve

# What the MSA's crop is divided by, one after the other, when the GPU's memory does not suffice.
DIVISORS = (1, 2, 4, 16)

Arrays = dict[str, Any]


class AlphaFold2(JaxDriver):
    """Parameters: those of the section `alphafold2` of the config (snakefold/config.py)."""

    eases = len(DIVISORS) - 1

    def load(self, settings: dict[str, Any]) -> None:
        """Find the weights, `params/params_model_*.npz` in a folder; they are read when a member first needs them."""
        # So that `gpu_memory_mb` is what was taken, and not three quarters of what there is.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax

        # A folder that outlives the job saves compiling: nothing that is compiled depends on weights or sequences.
        cache = Path(os.environ.get("SNAKEFOLD_JAX_CACHE") or settings["cache"])
        cache.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(cache))
        self.parameters = settings["parameters"]
        self.weights = Path(settings["weights"])
        changes = self.weights / "config.json"
        self.changes = json.loads(changes.read_text(encoding="utf-8")) if changes.exists() else {}
        for multimer in (False, True):
            for model in self.parameters["models"]:
                path = self.weights / "params" / f"params_model_{model}_{'multimer_v3' if multimer else 'ptm'}.npz"
                if not path.exists():
                    raise FileNotFoundError(f"{path} is missing")
        self._models: dict[tuple[bool, int], Any] = {}
        self._networks: dict[tuple[bool, int], Network] = {}
        self._following: dict[str, Task] = {}
        self._ahead: tuple[tuple[str, int, int], Future[Arrays]] | None = None
        # One thread: the package's random numbers have a state of their own, for the whole process.
        self._thread = ThreadPoolExecutor(max_workers=1)

    def groups(self, tasks: list[Task]) -> list[list[Task]]:
        """One member at a time, those of one compilation one after the other."""
        ordered = sorted(tasks, key=lambda task: (_is_complex(task), self.padded(task), task["id"]))
        self._following = {task["id"]: ordered[place] for place, task in enumerate(ordered[:-1], start=1)}
        return [[task] for task in ordered]

    def padded(self, task: Task) -> int:
        """The length that a target is padded to."""
        residues = sum(len(chain["sequence"]) for chain in task["chains"])
        return residues + -residues % self.parameters["bucket"]

    def predict(self, tasks: list[Task], ease: int) -> None:
        """Write prediction.npz, of the best of all models and seeds."""
        (task,) = tasks
        multimer = _is_complex(task)
        network = self.network(multimer, ease)
        order = _order_of_residues([chain["sequence"] for chain in task["chains"]])
        ranked: list[tuple[float, Arrays]] = []
        for number in range(self.parameters["seeds"]):
            seed = _seed(task, number)
            features = self.features(task, number, ease)
            for model in self.parameters["models"]:
                score, found = network.predict(self.model(multimer, model), features, seed, order)
                # Only the best so far is kept; of an overflow, nothing is better.
                score = score if np.isfinite(score) else -np.inf
                if not ranked or score > ranked[0][0]:
                    ranked = [(score, {**found, "model": np.int32(model), "seed": np.int64(seed)})]
        best = ranked[0][1]
        best["candidates"] = np.int32(self.parameters["seeds"] * len(self.parameters["models"]))
        if ease:
            best["crop"] = np.array(network.crop)
        np.savez_compressed(Path(task["folder"]) / "prediction.npz", **best)

    def features(self, task: Task, number: int, ease: int) -> Arrays:
        """The features for a member's seed of that number. Those that come next are made while the GPU predicts."""
        wanted = task["id"], number, ease
        future = self._ahead[1] if self._ahead and self._ahead[0] == wanted else self._submit(task, number, ease)
        features = future.result()
        self._ahead = None
        if number + 1 < self.parameters["seeds"]:
            self._ahead = (task["id"], number + 1, ease), self._submit(task, number + 1, ease)
        elif following := self._following.get(task["id"]):
            self._ahead = (following["id"], 0, 0), self._submit(following, 0, 0)
        return features

    def _submit(self, task: Task, number: int, ease: int) -> Future[Arrays]:
        network = self.network(_is_complex(task), ease)
        return self._thread.submit(network.features, task["chains"], self.padded(task), _seed(task, number))

    def model(self, multimer: bool, number: int) -> Any:
        """The parameters of one model, read once."""
        from colabfold.alphafold.models import get_model_haiku_params

        if (multimer, number) not in self._models:
            kind = "alphafold2_multimer_v3" if multimer else "alphafold2_ptm"
            found = get_model_haiku_params(str(self.weights), kind, str(number))
            if not multimer:
                # Of the monomer models, 1 and 2 take templates. Without that part all five are one network.
                found = {scope: values for scope, values in found.items() if "/template_" not in scope}
            self._models[multimer, number] = found
        return self._models[multimer, number]

    def network(self, multimer: bool, ease: int) -> Network:
        """The network that a target goes through. All models share its compilations."""
        if (multimer, ease) not in self._networks:
            changes = self.changes.get("multimer" if multimer else "monomer", {})
            kind = MultimerNetwork if multimer else MonomerNetwork
            self._networks[multimer, ease] = kind(self.parameters, changes, DIVISORS[ease])
        return self._networks[multimer, ease]


class Network:
    """One of the two networks in AlphaFold's own code, in the configuration of its model 3, as ColabFold has it."""

    name: str
    clusters: str
    further: str

    def __init__(self, parameters: dict[str, Any], changes: dict[str, Any], divisor: int) -> None:
        from alphafold.model.config import model_config
        from alphafold.model.model import RunModel

        config = model_config(self.name)
        config.update_from_flattened_dict(changes)
        flat = {}
        for key, asked in ((self.clusters, "max_msa_clusters"), (self.further, "max_extra_msa")):
            flat[key] = max(1, (parameters[asked] or _at(config, key)) // divisor)
        if parameters["recycles"] is not None:
            flat["model.num_recycle"] = parameters["recycles"]
        # Heads whose output nobody takes.
        flat.update({f"model.heads.{head}.weight": 0.0 for head in ("distogram", "masked_msa")})
        flat["model.heads.experimentally_resolved.weight"] = 0.0
        if parameters["kernels"] == "fused" and _fuses():
            flat["model.global_config.use_pallas"] = True
        config.update_from_flattened_dict(flat)
        self.config = config
        self.crop = flat[self.clusters], flat[self.further]
        self.passes = config.model.num_recycle + 1
        self.runner = RunModel(config)

    def features(self, chains: list[dict[str, Any]], length: int, seed: int) -> Arrays:
        """The network's input, padded to `length` residues."""
        raise NotImplementedError

    def of_pass(self, features: Arrays, number: int) -> Arrays:
        """The part of it that one pass takes."""
        raise NotImplementedError

    def predict(self, model: Any, features: Arrays, seed: int, order: np.ndarray) -> tuple[float, Arrays]:
        """What ranks one model's prediction, and its arrays; `order` are the places of the target's residues.

        The package's own loop brings everything to the host after each pass and rounds it to 16 bits, positions
        included: up to 0.03 angstrom at 100 angstrom from the origin. Here the state stays on the device, and
        positions keep their 32 bits.
        """
        import jax
        import jax.numpy as jnp

        length = features["aatype"].shape[-1]
        state = {
            "prev_msa_first_row": jnp.zeros((length, 256), jnp.float16),
            "prev_pair": jnp.zeros((length, length, 128), jnp.float16),
            "prev_pos": jnp.zeros((length, 37, 3), jnp.float32),
        }
        key = jax.random.PRNGKey(seed)
        result: Arrays = {}
        for number in range(self.passes):
            key, of_pass = jax.random.split(key)
            result = self.runner.apply(model, of_pass, {**self.of_pass(features, number), "prev": state})
            state = {name: value.astype(state[name].dtype) for name, value in result.pop("prev").items()}
            # Negative (the monomer's: 0) means that all passes are made.
            if number and float(result["tol"]) < self.config.model.recycle_early_stop_tolerance:
                break
        structure = result["structure_module"]
        found = {
            "positions": _rows(structure["final_atom_positions"], order),
            "exists": _rows(structure["final_atom_mask"], order) > 0.5,
            "plddt": _rows(result["plddt"], order),
            "pae": _rows(result["predicted_aligned_error"], order)[:, order],
            "ptm": np.float32(result["ptm"]),
        }
        if "iptm" in result:
            found["iptm"] = np.float32(result["iptm"])
        return float(result["ranking_confidence"]), found


class MonomerNetwork(Network):
    """One chain."""

    name = "model_3_ptm"
    clusters = "data.eval.max_msa_clusters"
    further = "data.common.max_extra_msa"

    def __init__(self, parameters: dict[str, Any], changes: dict[str, Any], divisor: int) -> None:
        super().__init__(parameters, changes, divisor)
        # The data's part of the configuration draws an MSA for each pass.
        self.config.data.common.num_recycle = self.passes - 1

    def features(self, chains: list[dict[str, Any]], length: int, seed: int) -> Arrays:
        """AlphaFold's features: an MSA drawn for each pass, by `seed`; the residues' axis padded by ColabFold."""
        from colabfold.alphafold.msa import make_fixed_size

        (chain,) = chains
        features = self.runner.process_features(_of_chain(chain), random_seed=seed)
        schema = {name: [None, *axes] for name, axes in self.config.data.eval.feat.items()}
        return make_fixed_size(features, schema, self.crop[0], self.crop[1], length)

    def of_pass(self, features: Arrays, number: int) -> Arrays:
        """The MSA drawn for it."""
        return {name: values[number : number + 1] for name, values in features.items()}


class MultimerNetwork(Network):
    """Several chains."""

    name = "model_3_multimer_v3"
    clusters = "model.embeddings_and_evoformer.num_msa"
    further = "model.embeddings_and_evoformer.num_extra_msa"

    def features(self, chains: list[dict[str, Any]], length: int, seed: int) -> Arrays:  # noqa: ARG002
        """AlphaFold-Multimer's features, by its own recipe, padded to `length` residues and a power of two of rows.

        Of different chains, rows of one species are paired, the more alike to the target with the more alike; what
        has no partner follows block by block. Species are read from UniProt's names (`tr|A0A146SKV9|A0A146SKV9_FUNHE`).
        """
        from alphafold.data import feature_processing, pipeline_multimer
        from alphafold.notebooks.notebook_utils import empty_placeholder_template_features

        hetero = len({chain["sequence"] for chain in chains}) > 1
        found: dict[str, Arrays] = {}
        by_chain = {}
        for number, chain in enumerate(chains, start=1):
            sequence = chain["sequence"]
            if sequence not in found:
                features = _of_chain(chain)
                if hetero:
                    kept = ("msa", "deletion_matrix_int", "msa_species_identifiers")
                    features |= {f"{name}_all_seq": features[name] for name in kept}
                found[sequence] = features | empty_placeholder_template_features(0, len(sequence))
            name = pipeline_multimer.int_id_to_str_id(number)
            by_chain[name] = pipeline_multimer.convert_monomer_features(dict(found[sequence]), name)
        features = feature_processing.pair_and_merge(pipeline_multimer.add_assembly_features(by_chain))
        # Four templates of nothing give what one gives.
        features.update({name: features[name][:1] for name in features if name.startswith("template_")})
        rows = max(len(features["msa"]), sum(self.crop))
        return _padded(pipeline_multimer.pad_msa(features, 1 << (rows - 1).bit_length()), length)

    def of_pass(self, features: Arrays, number: int) -> Arrays:  # noqa: ARG002
        """All: the network draws for itself."""
        return features


def _of_chain(chain: dict[str, Any]) -> Arrays:
    """AlphaFold's features of one chain and its MSA."""
    from alphafold.data import parsers, pipeline

    sequence = chain["sequence"]
    msa = parsers.parse_a3m(Path(chain["msa"]).read_text(encoding="utf-8"))
    return {
        **pipeline.make_sequence_features(sequence=sequence, description="query", num_res=len(sequence)),
        **pipeline.make_msa_features([msa]),
    }


def _padded(features: Arrays, length: int) -> Arrays:
    """The residues' axis of a complex's features padded with zeros, which mean no residue."""
    padded = {}
    for name, values in features.items():
        array = np.asarray(values)
        axis = 1 if name.startswith("template_") or name in ("msa", "msa_mask", "deletion_matrix", "bert_mask") else 0
        if array.ndim and name != "cluster_bias_mask":
            widths = [(0, 0)] * array.ndim
            widths[axis] = (0, length - array.shape[axis])
            array = np.pad(array, widths)
        padded[name] = array
    return padded


def _order_of_residues(sequences: list[str]) -> np.ndarray:
    """Where the target's residues are in the network's order, which has chains of one sequence together."""
    first = {sequence: number for number, sequence in reversed(list(enumerate(sequences)))}
    starts = {}
    start = 0
    for number in sorted(range(len(sequences)), key=lambda number: first[sequences[number]]):
        starts[number] = start
        start += len(sequences[number])
    return np.concatenate([np.arange(len(each)) + starts[number] for number, each in enumerate(sequences)])


def _rows(values: Any, order: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)[order]


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def _seed(task: Task, number: int) -> int:
    """The seed of a member's prediction of that number. JAX takes seeds of 31 bits."""
    return (task["seed"] + number) % 2**31


def _fuses() -> bool:
    """Whether the package's fused kernels run here: on NVIDIA's GPUs from Ampere on."""
    import jax

    capability = getattr(jax.devices()[0], "compute_capability", "")
    return capability.replace(".", "", 1).isdigit() and float(capability) >= 8


def _is_complex(task: Task) -> bool:
    return len(task["chains"]) > 1


if __name__ == "__main__":
    serve(AlphaFold2())
