"""Write Boltz-1 and Boltz-2 of random numbers, and the components of the twenty amino acids, each as Boltz's cache.

Runs in the engine's Python; the folders `boltz` and `boltz2` appear in the one that is named. What the models predict
tests a code path, and is no structure. Boltz's command line sets the number of blocks and heads; what is left to
choose, the widths, is small.
"""

# pyright: reportMissingImports=false
import io
import pickle
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path

import torch
from boltz.data import const
from boltz.main import (
    Boltz2DiffusionParams,
    BoltzDiffusionParams,
    BoltzSteeringParams,
    MSAModuleArgs,
    PairformerArgs,
    PairformerArgsV2,
)
from boltz.model.models.boltz1 import Boltz1
from boltz.model.models.boltz2 import Boltz2
from omegaconf import OmegaConf
from rdkit import Chem
from rdkit.Chem import rdDistGeom

SHAPE = {
    "atom_s": 16,
    "atom_z": 8,
    "token_s": 32,
    "token_z": 16,
    "num_bins": 64,
    "score_model_args": {
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
    "diffusion_loss_args": {},
    "validation_args": {},
    # The published checkpoints bear this kind of mapping.
    "training_args": OmegaConf.create(
        {"max_lr": 0.001, "weight_decay": 0.0, "diffusion_multiplicity": 16, "recycling_steps": 3}
    ),
    "steering_args": asdict(BoltzSteeringParams()),
    "confidence_prediction": True,
    "alpha_pae": 1,
}
CONFIDENCE = {
    "num_dist_bins": 64,
    "max_dist": 22,
    "add_s_to_z_prod": True,
    "add_s_input_to_s": True,
    "add_z_input_to_z": True,
    "confidence_args": {"num_plddt_bins": 50, "num_pde_bins": 64, "num_pae_bins": 64},
}


def components() -> dict[str, Chem.Mol]:
    """The twenty amino acids, and UNK, as Boltz wants them: atoms with names, and a conformer."""
    Chem.SetDefaultPickleProperties(Chem.PropertyPickleOptions.AllProps)
    found = {}
    for letter, name in const.prot_letter_to_token.items():
        if name == "-" or name in found:
            continue
        molecule = Chem.AddHs(Chem.MolFromSequence("A" if name == "UNK" else letter))
        rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
        for atom in molecule.GetAtoms():
            residue = atom.GetPDBResidueInfo()
            atom.SetProp("name", residue.GetName().strip() if residue else f"H{atom.GetIdx()}")
        molecule.GetConformer().SetProp("name", "Ideal")
        found[name] = molecule
    return found


def save(model: torch.nn.Module, path: Path) -> None:
    """Write a checkpoint as Lightning does, with random numbers in all parameters."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    content = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": "2.5.0",
    }
    torch.save(content, path)


def first(folder: Path) -> None:
    """Boltz-1."""
    folder.mkdir()
    with (folder / "ccd.pkl").open("wb") as file:
        pickle.dump(components(), file)
    torch.manual_seed(0)
    model = Boltz1(
        **SHAPE,
        atom_feature_dim=389,
        embedder_args={"atom_encoder_depth": 1, "atom_encoder_heads": 2},
        msa_args=asdict(MSAModuleArgs(use_paired_feature=False)),
        pairformer_args=asdict(PairformerArgs()),
        diffusion_process_args=asdict(BoltzDiffusionParams()),
        confidence_imitate_trunk=True,
        confidence_model_args={**CONFIDENCE, "use_s_diffusion": True},
    )
    save(model, folder / "boltz1_conf.ckpt")


def second(folder: Path) -> None:
    """Boltz-2, with the modules that the published one has."""
    folder.mkdir()
    with tarfile.open(folder / "mols.tar", "w") as archive:
        for name, molecule in components().items():
            content = pickle.dumps(molecule)
            entry = tarfile.TarInfo(f"mols/{name}.pkl")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    torch.manual_seed(0)
    flags = ("add_method_conditioning", "add_modified_flag", "add_cyclic_flag", "add_mol_type_feat")
    model = Boltz2(
        **SHAPE,
        atom_feature_dim=388,
        embedder_args={"atom_encoder_depth": 1, "atom_encoder_heads": 2, **dict.fromkeys(flags, True)},
        msa_args=asdict(MSAModuleArgs(use_paired_feature=True)),
        pairformer_args=asdict(PairformerArgsV2()),
        diffusion_process_args=asdict(Boltz2DiffusionParams()),
        confidence_model_args={
            **CONFIDENCE,
            "confidence_args": {**CONFIDENCE["confidence_args"], "use_separate_heads": True},
            "pairformer_args": {"num_blocks": 2, "num_heads": 2, "dropout": 0.0},
        },
        template_args={"template_dim": 16, "template_blocks": 1},
        use_templates=True,
        use_templates_v2=True,
        fix_sym_check=True,
        cyclic_pos_enc=True,
        bond_type_feature=True,
        validate_structure=False,
        predict_bfactor=True,
    )
    save(model, folder / "boltz2_conf.ckpt")


if __name__ == "__main__":
    first(Path(sys.argv[1]) / "boltz")
    second(Path(sys.argv[1]) / "boltz2")
