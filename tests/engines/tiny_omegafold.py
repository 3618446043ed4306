"""Write OmegaFold's two models, narrow and of random numbers, into a folder. Runs in the engine's Python.

What they predict tests a code path, and is no structure.
"""

# pyright: reportMissingImports=false
import json
import sys
from pathlib import Path

import omegafold
import torch

SMALL = {
    "plm.node": 32,
    "plm.edge": 3,
    "plm.proj_dim": 64,
    "plm.attn_dim": 16,
    "node_dim": 32,
    "edge_dim": 16,
    "geo_num_blocks": 2,
    "attn_c": 8,
    "attn_n_head": 2,
    "opm_dim": 4,
    "geom_c": 8,
    "geom_head": 2,
    "struct.node_dim": 32,
    "struct.edge_dim": 16,
    "struct.num_cycle": 2,
    "struct.num_head": 2,
    "struct.num_channel": 16,
    "struct.hidden_dim": 16,
}

folder = Path(sys.argv[1])
(folder / "config.json").write_text(json.dumps(SMALL))
for number in (1, 2):
    config = omegafold.make_config(number)
    for key, value in SMALL.items():
        section, _, name = key.rpartition(".")
        setattr(getattr(config, section) if section else config, name, value)
    torch.manual_seed(number)
    model = omegafold.OmegaFold(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    # Model 1 of the publisher's is laid out in one way or the other; the command line reads both.
    content = model.state_dict()
    torch.save({"model": content} if number == 1 else content, folder / f"release{number}.pt")
