"""Write an ESMFold of half a million random numbers into a folder. Runs in the engine's Python.

What it predicts tests a code path, and is no structure.
"""

# pyright: reportMissingImports=false
import sys

import torch
from transformers import EsmConfig, EsmForProteinFolding

torch.manual_seed(0)
structure = {
    "sequence_dim": 64,
    "pairwise_dim": 32,
    "ipa_dim": 8,
    "resnet_dim": 16,
    "num_heads_ipa": 2,
    "num_blocks": 2,
}
trunk = {
    "num_blocks": 2,
    "sequence_state_dim": 64,
    "pairwise_state_dim": 32,
    "sequence_head_width": 16,
    "pairwise_head_width": 16,
    "position_bins": 8,
    "structure_module": structure,
}
config = EsmConfig(
    vocab_size=33,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=1026,
    position_embedding_type="rotary",
    is_folding_model=True,
    pad_token_id=1,
    mask_token_id=32,
    token_dropout=True,
    emb_layer_norm_before=False,
    esmfold_config={"trunk": trunk, "fp16_esm": False},
)
model = EsmForProteinFolding(config)
with torch.no_grad():
    for parameter in model.trunk.parameters():
        parameter += 0.2 * torch.randn_like(parameter)
model.save_pretrained(sys.argv[1])
