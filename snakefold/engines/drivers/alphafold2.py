"""AlphaFold 2 (Jumper et al., Nature 596 (2021), 583) and AlphaFold-Multimer (Evans et al. 2021), by ColabFold's code.

Runs in the engine's own Python; see driver_protocol.py. A target of one chain goes through the monomer models with pTM
head, one of several chains through the multimer models (v3). MSAs and templates come from the supervisor; nothing is
searched or downloaded.

Writes `prediction.npz` for each member, of its best model: `positions` (residues, 37, 3) in angstrom, in AlphaFold's
order of atoms, `exists` (residues, 37), `plddt` (residues), 0-100, `pae` (residues, residues) in angstrom, `ptm`,
`iptm` (of several chains), `model` (1-5), `seed`, `candidates` (how many it was the best of), `templates` (those that
the model had, as rows of chain and place among its hits), and `crop`: the rows of the MSA that went in at most, as
(clusters, further ones), if want of memory made them fewer than asked for.

Weights are a folder with the publisher's archive in `params/`. Weights of another network than the published one state
beside it how that differs, in `config.json`: {"monomer": {...}, "multimer": {...}}, of dotted keys of AlphaFold's model
configuration.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import gzip
import json
import os
import string
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from driver_protocol import JaxDriver, Task, serve
from msa_rows import Row, a3m_text, read_a3m, species_of_rows

# What the MSA's crop is divided by, one after the other, when the GPU's memory does not suffice.
DIVISORS = (1, 2, 4, 16)

# What the networks take of each chain.
TEMPLATES = 4

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
        self._models: dict[tuple[type[Network], int], Any] = {}
        self._networks: dict[tuple[type[Network], int], Network] = {}
        self._following: dict[str, Task] = {}
        self._ahead: tuple[tuple[str, Step, int], Future[Arrays]] | None = None
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
        order = _order_of_residues([chain["sequence"] for chain in task["chains"]])
        best: tuple[float, Arrays] | None = None
        for step in self.steps(task):
            kind, number, models = step
            network, seed = self.network(kind, ease), _seed(task, number)
            features = self.features(task, step, ease)
            for model in models:
                score, found = network.predict(self.model(kind, model), features, seed, order)
                # Only the best so far is kept; of an overflow, nothing is better.
                score = score if np.isfinite(score) else -np.inf
                if best is None or score > best[0]:
                    best = score, {**found, "model": np.int32(model), "seed": np.int64(seed)}
                    if network.with_templates:
                        best[1]["templates"] = _used(task)
                    if ease:
                        best[1]["crop"] = np.array(network.crop)
        if best is None:
            raise ValueError("no model was asked for")
        best[1]["candidates"] = np.int32(self.parameters["seeds"] * len(self.parameters["models"]))
        np.savez_compressed(Path(task["folder"]) / "prediction.npz", **best[1])

    def steps(self, task: Task) -> list[Step]:
        """What a member goes through: for each seed, the networks with the models that are theirs."""
        models = self.parameters["models"]
        if _is_complex(task):
            shares: list[tuple[type[Network], list[int]]] = [(MultimerNetwork, models)]
        elif self.parameters["templates"]:
            with_templates = [model for model in models if model in (1, 2)]
            shares = [(TemplateNetwork, with_templates), (MonomerNetwork, [m for m in models if m not in (1, 2)])]
        else:
            shares = [(MonomerNetwork, models)]
        return [
            (kind, number, tuple(share))
            for number in range(self.parameters["seeds"])
            for kind, share in shares
            if share
        ]

    def features(self, task: Task, step: Step, ease: int) -> Arrays:
        """The features of one of a member's steps. Those that come next are made while the GPU predicts."""
        wanted = task["id"], step, ease
        future = self._ahead[1] if self._ahead and self._ahead[0] == wanted else self._submit(task, step, ease)
        features = future.result()
        self._ahead = None
        steps = self.steps(task)
        if step != steps[-1]:
            following = steps[steps.index(step) + 1]
            self._ahead = (task["id"], following, ease), self._submit(task, following, ease)
        elif after := self._following.get(task["id"]):
            following = self.steps(after)[0]
            self._ahead = (after["id"], following, 0), self._submit(after, following, 0)
        return features

    def _submit(self, task: Task, step: Step, ease: int) -> Future[Arrays]:
        kind, number, _ = step
        make = self.network(kind, ease).features
        return self._thread.submit(make, task["chains"], self.padded(task), _seed(task, number))

    def model(self, kind: type[Network], number: int) -> Any:
        """The parameters of one model, read once, as far as the network has them."""
        from colabfold.alphafold.models import get_model_haiku_params

        if (kind, number) not in self._models:
            found = get_model_haiku_params(str(self.weights), kind.published, str(number))
            if kind is MonomerNetwork:
                # Of the monomer models, 1 and 2 take templates. Without that part all five are one network.
                found = {scope: values for scope, values in found.items() if "/template_" not in scope}
            self._models[kind, number] = found
        return self._models[kind, number]

    def network(self, kind: type[Network], ease: int) -> Network:
        """The network of a kind. All its models share its compilations."""
        if (kind, ease) not in self._networks:
            self._networks[kind, ease] = kind(self.parameters, self.changes.get(kind.changed, {}), DIVISORS[ease])
        return self._networks[kind, ease]


class Network:
    """One of the networks in AlphaFold's own code, in the configuration of one of its models, as ColabFold has it."""

    name: str
    published: str
    changed: str
    takes_templates = True
    least = 1
    clusters: str
    further: str

    def __init__(self, parameters: dict[str, Any], changes: dict[str, Any], divisor: int) -> None:
        from alphafold.model.config import model_config
        from alphafold.model.model import RunModel

        config = model_config(self.name)
        config.update_from_flattened_dict(changes)
        flat = {}
        for key, asked in ((self.clusters, "max_msa_clusters"), (self.further, "max_extra_msa")):
            flat[key] = max(self.least, (parameters[asked] or _at(config, key)) // divisor)
        if parameters["recycles"] is not None:
            flat["model.num_recycle"] = parameters["recycles"]
        # Heads whose output nobody takes.
        flat.update({f"model.heads.{head}.weight": 0.0 for head in ("distogram", "masked_msa")})
        flat["model.heads.experimentally_resolved.weight"] = 0.0
        if parameters["kernels"] == "fused" and _fuses():
            flat["model.global_config.use_pallas"] = True
        config.update_from_flattened_dict(flat)
        self.config = config
        self.with_templates = parameters["templates"] and self.takes_templates
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


Step = tuple[type[Network], int, tuple[int, ...]]
"""A network, the number of the seed, and the models."""


class MonomerNetwork(Network):
    """One chain, without templates."""

    name = "model_3_ptm"
    takes_templates = False
    reserved = 0
    published = "alphafold2_ptm"
    changed = "monomer"
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
        raw = _of_chain(chain["sequence"], Path(chain["msa"]).read_text(encoding="utf-8")) | self.of_templates(chain)
        features = self.runner.process_features(raw, random_seed=seed)
        schema = {name: [None, *axes] for name, axes in self.config.data.eval.feat.items()}
        return make_fixed_size(features, schema, self.crop[0] - self.reserved, self.crop[1], length, TEMPLATES)

    def of_templates(self, chain: dict[str, Any]) -> Arrays:  # noqa: ARG002
        """What the network takes of templates."""
        return {}

    def of_pass(self, features: Arrays, number: int) -> Arrays:
        """The MSA drawn for it."""
        return {name: values[number : number + 1] for name, values in features.items()}


class TemplateNetwork(MonomerNetwork):
    """One chain with templates, for models 1 and 2. Without any it still has their places, empty."""

    name = "model_1_ptm"
    takes_templates = True
    # Rows among the clusters that templates take.
    reserved = TEMPLATES
    least = TEMPLATES + 1

    def of_templates(self, chain: dict[str, Any]) -> Arrays:
        """Up to four."""
        return _of_templates(chain)


class MultimerNetwork(Network):
    """Several chains."""

    name = "model_3_multimer_v3"
    published = "alphafold2_multimer_v3"
    changed = "multimer"
    clusters = "model.embeddings_and_evoformer.num_msa"
    further = "model.embeddings_and_evoformer.num_extra_msa"

    def features(self, chains: list[dict[str, Any]], length: int, seed: int) -> Arrays:  # noqa: ARG002
        """AlphaFold-Multimer's features, by its own recipe, padded to `length` residues and a power of two of rows.

        Of different chains, rows of one species are paired, the more alike to the target with the more alike; what
        has no partner follows block by block.
        """
        from alphafold.data import feature_processing, pipeline_multimer

        distinct = {chain["sequence"]: chain for chain in chains}
        msas = named_by_species([read_a3m(chain["msa"]) for chain in distinct.values()])
        found: dict[str, Arrays] = {}
        for (sequence, chain), msa in zip(distinct.items(), msas, strict=True):
            features = _of_chain(sequence, msa)
            if len(distinct) > 1:
                kept = ("msa", "deletion_matrix_int", "msa_species_identifiers")
                features |= {f"{name}_all_seq": features[name] for name in kept}
            found[sequence] = features | _of_templates(chain)
        by_chain = {}
        for number, chain in enumerate(chains, start=1):
            name = pipeline_multimer.int_id_to_str_id(number)
            by_chain[name] = pipeline_multimer.convert_monomer_features(dict(found[chain["sequence"]]), name)
        features = feature_processing.pair_and_merge(pipeline_multimer.add_assembly_features(by_chain))
        if not self.with_templates:
            # Four templates of nothing give what one gives.
            features.update({name: features[name][:1] for name in features if name.startswith("template_")})
        rows = max(len(features["msa"]), sum(self.crop))
        return _padded(pipeline_multimer.pad_msa(features, 1 << (rows - 1).bit_length()), length)

    def of_pass(self, features: Arrays, number: int) -> Arrays:  # noqa: ARG002
        """All: the network draws for itself."""
        return features


def _of_chain(sequence: str, msa: str) -> Arrays:
    """AlphaFold's features of one chain and its MSA, as A3M."""
    from alphafold.data import parsers, pipeline

    return {
        **pipeline.make_sequence_features(sequence=sequence, description="query", num_res=len(sequence)),
        **pipeline.make_msa_features([parsers.parse_a3m(msa)]),
    }


def named_by_species(msas: Sequence[Sequence[Row]]) -> list[str]:
    """The MSAs as A3M whose rows state their species, where it is known, as UniProt's names do: AlphaFold knows those.

    Of a species it takes five letters or digits. UniProt's codes are in capitals; numbers become small letters.
    """
    named = []
    for rows, species in zip(msas, species_of_rows(msas), strict=True):
        headers = [
            header if name is None else f"tr|AAAAAA|A_{_code(name)}"
            for (header, _), name in zip(rows, species, strict=True)
        ]
        named.append(a3m_text(zip(headers, (letters for _, letters in rows), strict=True)))
    return named


def _code(species: str) -> str:
    if not species.isdecimal():
        return species
    number, letters = int(species), ""
    while number:
        number, digit = divmod(number, 26)
        letters = string.ascii_lowercase[digit] + letters
    return letters


def _used(task: Task) -> np.ndarray:
    """The templates of all chains, as rows of chain and place among its hits."""
    rows = [
        (number, place) for number, chain in enumerate(task["chains"]) for place, *_ in _templates(chain["templates"])
    ]
    return np.array(rows, dtype=int).reshape(-1, 2)


def _of_templates(chain: dict[str, Any]) -> Arrays:
    """AlphaFold's features of one chain's templates: all atoms of the aligned residues. Empty if it has none."""
    from alphafold.common import residue_constants
    from alphafold.notebooks.notebook_utils import empty_placeholder_template_features

    length = len(chain["sequence"])
    found = _templates(chain["templates"])
    features = dict(empty_placeholder_template_features(len(found), length))
    for number, (_, pairs, letters, atoms) in enumerate(found):
        row = ["-"] * length
        for residue, partner in pairs:
            row[residue] = letters[partner]
            for name, position in atoms[partner].items():
                if name in residue_constants.atom_order:
                    place = number, residue, residue_constants.atom_order[name]
                    features["template_all_atom_positions"][place] = position
                    features["template_all_atom_masks"][place] = 1
        features["template_aatype"][number] = residue_constants.sequence_to_onehot(
            "".join(row), residue_constants.HHBLITS_AA_TO_ID
        )
    return features


@lru_cache(maxsize=16)
def _templates(
    folder: str | None,
) -> list[tuple[int, list[tuple[int, int]], dict[int, str], dict[int, dict[str, np.ndarray]]]]:
    """The best hits of one chain, at most four that have atoms.

    Each as its place among the hits, pairs of residues, and of the entry's chain, by residue, the letter and the
    positions of AlphaFold's atoms.
    """
    found = []
    hits = json.loads((Path(folder) / "hits.json").read_text(encoding="utf-8"))["hits"] if folder else []
    for place, hit in enumerate(hits):
        letters, atoms = _chain_of_entry(Path(str(folder)) / hit["file"], hit["chain"])
        pairs = [(first, second) for first, second, _ in hit["pairs"] if second in atoms]
        if pairs:
            found.append((place, pairs, letters, atoms))
        if len(found) == TEMPLATES:
            break
    return found


def _chain_of_entry(path: Path, chain: str) -> tuple[dict[int, str], dict[int, dict[str, np.ndarray]]]:
    """Letters and atoms of an entry's chain, named as its authors do, by place in the chain's whole sequence.

    The package's own reader refuses files that do not say which of their components are amino acids.
    """
    from Bio.Data.PDBData import protein_letters_3to1_extended
    from Bio.PDB.MMCIF2Dict import MMCIF2Dict

    with gzip.open(path, "rt", encoding="utf-8") as file:
        content = MMCIF2Dict(file)
    columns = ("auth_asym_id", "label_seq_id", "label_comp_id", "label_atom_id", "occupancy", "pdbx_PDB_model_num")
    values = [content[f"_atom_site.{name}"] for name in (*columns, "Cartn_x", "Cartn_y", "Cartn_z")]
    first = values[5][0]
    letters: dict[int, str] = {}
    atoms: dict[int, dict[str, np.ndarray]] = {}
    taken: dict[tuple[int, str], float] = {}
    for owner, number, residue, atom, occupancy, model, *xyz in zip(*values, strict=True):
        if owner != chain or model != first or not number.isdigit():
            continue
        place = int(number) - 1
        name = "SD" if (residue, atom) == ("MSE", "SE") else atom
        # Of alternatives the one that is there most of the time.
        share = 1.0 if occupancy in ("?", ".") else float(occupancy)
        if share > taken.get((place, name), -1.0):
            taken[place, name] = share
            letters[place] = protein_letters_3to1_extended.get(residue, "X")
            atoms.setdefault(place, {})[name] = np.array([float(value) for value in xyz], dtype=np.float32)
    for place, named in atoms.items():
        # As AlphaFold does with arginines whose ends are named the wrong way round.
        if letters[place] == "R" and {"CD", "NH1", "NH2"} <= set(named):
            near, far = (np.linalg.norm(named[end] - named["CD"]) for end in ("NH1", "NH2"))
            if near > far:
                named["NH1"], named["NH2"] = named["NH2"], named["NH1"]
    return letters, atoms


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
