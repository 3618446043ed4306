"""Write an OpenFold3 of random numbers into a folder, as the publisher's parameters, with what makes it small.

Runs in the engine's Python. What it predicts tests a code path, and is no structure.
"""

# pyright: reportMissingImports=false
import json
import sys
from pathlib import Path

import torch
from openfold3.projects.of3_all_atom.project_entry import ModelUpdate, OF3ProjectEntry

ATTENTION = {"c_hidden": 8, "no_heads": 2, "no_blocks": 1}
TRIANGLES = {"c_hidden_mul": 8, "c_hidden_pair_att": 4, "no_heads_pair": 2}
PAIRFORMER = {**TRIANGLES, "c_hidden_pair_bias": 8, "no_heads_pair_bias": 4}
TEMPLATES = {"no_blocks": 1, "no_heads": 2, "c_hidden_tri_att": 8, "c_hidden_tri_mul": 8}
MSA = {**TRIANGLES, "c_hidden_msa_att": 4, "c_hidden_opm": 4, "no_heads_msa": 2, "no_blocks": 2}
CHANGES = {
    "architecture": {
        "shared": {"c_s": 32, "c_z": 16, "c_s_input": 81},
        "input_embedder": {"atom_attn_enc": {**ATTENTION, "c_atom": 16, "c_atom_pair": 8, "c_token": 16}},
        "template": {"c_t": 8, "template_pair_stack": TEMPLATES},
        "msa": {"msa_module_embedder": {"c_m": 8}, "msa_module": MSA},
        "pairformer": {**PAIRFORMER, "no_blocks": 2},
        "diffusion_module": {
            "diffusion_module": {"c_token": 32},
            "diffusion_conditioning": {"c_fourier_emb": 16},
            "atom_attn_enc": ATTENTION,
            "diffusion_transformer": {"c_hidden": 8, "no_heads": 4, "no_blocks": 2},
            "atom_attn_dec": ATTENTION,
        },
        "heads": {"pairformer_embedding": {"pairformer": {**PAIRFORMER, "no_blocks": 1}}},
    }
}

folder = Path(sys.argv[1])
entry = OF3ProjectEntry()
torch.manual_seed(0)
model = entry.runner(entry.get_model_config_with_update(ModelUpdate(presets=["predict"], custom=CHANGES))).model
with torch.no_grad():
    # Many begin as zeros, and would pass nothing on.
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
torch.save(model.state_dict(), folder / "of3-ob-2025-06-30-174k.pt")
(folder / "config.json").write_text(json.dumps(CHANGES))
