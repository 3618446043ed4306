"""Write a Boltz-1 of random numbers, and the components of the twenty amino acids, into a folder as Boltz's cache.

Runs in the engine's Python. What it predicts tests a code path, and is no structure. Boltz's command line sets the
number of blocks and heads; what is left to choose, the widths, is small.
"""

# pyright: reportMissingImports=false
import pickle
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from boltz.data import const
from boltz.main import BoltzDiffusionParams, BoltzSteeringParams, MSAModuleArgs, PairformerArgs
from boltz.model.models.boltz1 import Boltz1
from rdkit import Chem
from rdkit.Chem import rdDistGeom

folder = Path(sys.argv[1])

Chem.SetDefaultPickleProperties(Chem.PropertyPickleOptions.AllProps)
components = {}
for letter, name in const.prot_letter_to_token.items():
    if name == "-" or name in components:
        continue
    molecule = Chem.AddHs(Chem.MolFromSequence("A" if name == "UNK" else letter))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
    for atom in molecule.GetAtoms():
        residue = atom.GetPDBResidueInfo()
        atom.SetProp("name", residue.GetName().strip() if residue else f"H{atom.GetIdx()}")
    molecule.GetConformer().SetProp("name", "Ideal")
    components[name] = molecule
with (folder / "ccd.pkl").open("wb") as file:
    pickle.dump(components, file)

torch.manual_seed(0)
model = Boltz1(
    atom_s=16,
    atom_z=8,
    token_s=32,
    token_z=16,
    num_bins=64,
    atom_feature_dim=389,
    embedder_args={"atom_encoder_depth": 1, "atom_encoder_heads": 2},
    msa_args=asdict(MSAModuleArgs(use_paired_feature=False)),
    pairformer_args=asdict(PairformerArgs()),
    score_model_args={
        "sigma_data": 16,
        "dim_fourier": 16,
        "atom_encoder_depth": 1,
        "atom_encoder_heads": 2,
        "token_transformer_depth": 2,
        "token_transformer_heads": 2,
        "atom_decoder_depth": 1,
        "atom_decoder_heads": 2,
        "conditioning_transition_layers": 1,
    },
    diffusion_process_args=asdict(BoltzDiffusionParams()),
    diffusion_loss_args={},
    training_args={},
    validation_args={},
    steering_args=asdict(BoltzSteeringParams()),
    confidence_prediction=True,
    confidence_imitate_trunk=True,
    alpha_pae=1,
    confidence_model_args={
        "num_dist_bins": 64,
        "max_dist": 22,
        "add_s_to_z_prod": True,
        "add_s_input_to_s": True,
        "use_s_diffusion": True,
        "add_z_input_to_z": True,
        "confidence_args": {"num_plddt_bins": 50, "num_pde_bins": 64, "num_pae_bins": 64},
    },
)
with torch.no_grad():
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
content = {
    "state_dict": model.state_dict(),
    "hyper_parameters": dict(model.hparams),
    "pytorch-lightning_version": "2.5.0",
}
torch.save(content, folder / "boltz1_conf.ckpt")
