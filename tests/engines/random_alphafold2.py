"""Write AlphaFold 2 models of random numbers into a folder. Runs in the engine's Python.

    random_alphafold2.py FOLDER DRIVERS [--full]

What they predict tests a code path, and is no structure. They have the publisher's format and names, model 1 and model
3 of each kind. They have few blocks, and `config.json` says what is smaller than in the published network; with
`--full` they are of the published size, and model 3 alone is written.
"""

# pyright: reportMissingImports=false
import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

SMALL = {
    "model.global_config.bfloat16": False,
    "model.embeddings_and_evoformer.evoformer_num_block": 2,
    "model.embeddings_and_evoformer.extra_msa_stack_num_block": 1,
    "model.embeddings_and_evoformer.template.template_pair_stack.num_block": 1,
    "model.heads.structure_module.num_layer": 2,
}
PARAMETERS = {"recycles": 1, "max_msa_clusters": 8, "max_extra_msa": 8, "templates": True, "kernels": "plain"}
CHAINS = ("MKTAYIAKQRQISFVKSH", "GSHMRYFYTS")

target, drivers, full = Path(sys.argv[1]), sys.argv[2], "--full" in sys.argv
sys.path.insert(0, drivers)

import alphafold2  # noqa: E402

(target / "params").mkdir(parents=True)
scratch = tempfile.TemporaryDirectory()
changes = {} if full else SMALL
(target / "config.json").write_text(json.dumps({"monomer": changes, "multimer": changes}))
chains = []
for number, sequence in enumerate(CHAINS):
    msa = Path(scratch.name) / f"{number}.a3m"
    msa.write_text(f">query\n{sequence}\n")
    chains.append({"sequence": sequence, "msa": str(msa), "templates": None})
random = np.random.default_rng(0)
for kind, name, models, of in (
    (alphafold2.TemplateNetwork, "ptm", () if full else (1,), chains[:1]),
    (alphafold2.MonomerNetwork, "ptm", (3,), chains[:1]),
    (alphafold2.MultimerNetwork, "multimer_v3", (3,) if full else (1, 3), chains),
):
    network = kind(PARAMETERS, changes, 1)
    # The published files have all heads.
    for head in ("distogram", "masked_msa", "experimentally_resolved"):
        network.config.model.heads[head].weight = 1.0
    length = sum(len(chain["sequence"]) for chain in of)
    features = network.of_pass(network.features(of, length, 0), 0)
    state = {
        "prev_msa_first_row": np.zeros((length, 256)),
        "prev_pair": np.zeros((length, length, 128)),
        "prev_pos": np.zeros((length, 37, 3)),
    }
    shapes = jax.eval_shape(network.runner.init, jax.random.PRNGKey(0), {**features, "prev": state})
    for model in models:
        values = {}
        for scope, parameters in shapes.items():
            for parameter, shape in parameters.items():
                size = shape.shape
                # Random pairs are far larger than learned ones, and all of their errors would fall into the last bin.
                smaller = 0.02 if "predicted_aligned_error_head" in scope else 1
                fan = np.prod(size[:-1]) if parameter == "weights" and len(size) > 1 else 100
                if parameter == "scale":
                    values[f"{scope}//{parameter}"] = np.ones(size, np.float32)
                else:
                    values[f"{scope}//{parameter}"] = (smaller * random.normal(size=size) / np.sqrt(fan)).astype(
                        np.float32
                    )
        np.savez(target / "params" / f"params_model_{model}_{name}.npz", **values)
