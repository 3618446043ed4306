"""Write a RoseTTAFold2 of few, narrow blocks and random numbers into a folder. Runs in the engine's Python.

What it predicts tests a code path, and is no structure.
"""

# pyright: reportMissingImports=false
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "snakefold" / "engines" / "drivers"))
import graphs
import numpy as np
import torch

graphs.install()
import predict  # noqa: E402

SMALL = {
    "n_extra_block": 1,
    "n_main_block": 2,
    "d_msa": 32,
    "d_pair": 32,
    "d_templ": 16,
    "n_head_msa": 2,
    "n_head_pair": 2,
    "n_head_templ": 2,
    "d_hidden": 8,
    "d_hidden_templ": 8,
    "SE3_param_full": {**predict.SE3_param_full, "num_channels": 16, "l0_in_features": 8, "num_edge_features": 8},
    "SE3_param_topk": {**predict.SE3_param_topk, "num_channels": 16, "l0_in_features": 8, "num_edge_features": 8},
}

folder = Path(sys.argv[1]) / "weights"
folder.mkdir()
(folder / "config.json").write_text(json.dumps(SMALL))
torch.manual_seed(0)
model = predict.RoseTTAFoldModule(**{**predict.MODEL_PARAM, **SMALL})
with torch.no_grad():
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
weights = model.state_dict()
# The driver does without a head that nobody takes anything from.
weights = {name: values for name, values in weights.items() if not name.startswith("bind_pred.")}
content = {"epoch": 1, "model_state_dict": weights, "train_loss": np.float64(0.5), "valid_acc": np.zeros(3)}
torch.save(content, folder / "RF2_jan24.pt")
