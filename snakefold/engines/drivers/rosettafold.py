"""RoseTTAFold2 (M. Baek et al., bioRxiv 2023.05.24.542179) by its authors' code: chains and complexes, with MSAs.

Runs in the engine's own Python; see driver_protocol.py. What this code takes from dgl comes from graphs.py. MSAs come
from the supervisor; nothing is searched or downloaded, and no templates are used. Writes `prediction.npz` for each
member, of the best of its predictions: `positions` (residues, 14, 3) in angstrom, `names` (residues, 14), the atoms'
names, empty where there is none, `plddt` (residues), 0-100, `pae` (residues, residues) in angstrom, `seed`,
`candidates` (how many it was the best of), and `rows`: how many rows of the MSA went in at most, as (through the main
blocks, through the extra ones), if want of memory made them fewer than asked for.

`weights` is a folder with `RF2_jan24.pt` somewhere below it. Weights of another network than the published one state
beside it how that differs, in `config.json`: keys of the `MODEL_PARAM` of RoseTTAFold2's predict.py.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import contextlib
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from driver_protocol import Task, TorchDriver, serve
from msa_rows import Row, a3m_text, read_a3m, species_of_rows

# Measures against want of memory: whether to work in smaller pieces, and what the MSA's rows are divided by.
MEASURES = ((False, 1), (True, 1), (True, 4), (True, 16))

# Heads that nobody takes anything from.
UNUSED = ("aa_pred.", "bind_pred.", "c6d_pred.", "exp_pred.")

# Of the 27 atoms of a residue the rest are hydrogens.
HEAVY = 14

WITHOUT_INSERTIONS = str.maketrans("", "", string.ascii_lowercase)

# The dummy templates that predict.py makes, of which it uses one.
TEMPLATES = 4


class RoseTTAFold(TorchDriver):
    """RoseTTAFold2. Parameters: those of the section `rosettafold` of the config (snakefold/config.py)."""

    eases = len(MEASURES) - 1

    def load(self, settings: dict[str, Any]) -> None:
        """Read the checkpoint; on a GPU most of the network computes with 16 bits, as the authors have it."""
        import torch

        self.place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.half = self.place.type == "cuda"
        if not self.half:
            # Marks for NVIDIA's profiler, which PyTorch without CUDA refuses to set.
            torch.cuda.nvtx.range = lambda *_: contextlib.nullcontext()
        import graphs

        graphs.install()
        import predict
        import util

        self.torch, self.recipe = torch, predict
        self.letters = {letter: number for number, letter in enumerate("ARNDCQEGHILKMFPSTWYVX")}
        self.names = [[(name or "").strip() for name in names[:HEAVY]] for names in util.aa2long]
        self.parameters = settings["parameters"]
        self.converter = predict.XYZConverter().to(self.place)
        self.model = self._read(Path(settings["weights"])).to(self.place).eval()
        self.symmetry = predict.symm_subunit_matrix("C1")

    def _read(self, weights: Path) -> Any:
        found = sorted(weights.rglob("RF2_jan24.pt"))
        if not found:
            raise FileNotFoundError(f"{weights} has no RF2_jan24.pt")
        changes = found[0].with_name("config.json")
        more = json.loads(changes.read_text(encoding="utf-8")) if changes.exists() else {}
        model = self.recipe.RoseTTAFoldModule(**{**self.recipe.MODEL_PARAM, **more})
        # A training checkpoint, with arrays of numpy beside the weights, which PyTorch's own reader refuses.
        content = self.torch.load(found[0], map_location="cpu", weights_only=False)
        missing = model.load_state_dict(content["model_state_dict"], strict=False).missing_keys
        if missing := [name for name in missing if not name.startswith(UNUSED)]:
            raise ValueError(f"{found[0].name} lacks {len(missing)} weights of the network, {missing[0]} among them")
        if self.half:
            for block in (*model.simulator.extra_block, *model.simulator.main_block):
                for part in (block.pair2pair, block.msa2msa, block.msa2pair):
                    part.half()
            for part in (model.latent_emb, model.full_emb, model.templ_emb, model.recycle):
                part.half()
        return model

    def predict(self, tasks: list[Task], ease: int) -> None:
        """Write prediction.npz, of the seed of highest mean pLDDT."""
        (task,) = tasks
        smaller, divisor = MEASURES[ease]
        rows = tuple(max(1, self.parameters[name] // divisor) for name in ("max_msa", "max_extra_msa"))
        best: dict[str, Any] = {}
        for number in range(self.parameters["seeds"]):
            # numpy takes seeds of 32 bits.
            seed = (task["seed"] + number) % 2**32
            found = self._of_seed(task, seed, rows, smaller)
            if not best or found["plddt"].mean() > best["plddt"].mean():
                best = {**found, "seed": np.int64(seed)}
        best["candidates"] = np.int32(self.parameters["seeds"])
        if divisor > 1:
            best["rows"] = np.array(rows)
        np.savez_compressed(Path(task["folder"]) / "prediction.npz", **best)

    def _of_seed(self, task: Task, seed: int, rows: tuple[int, ...], smaller: bool) -> dict[str, Any]:
        """One prediction: predict.py's way from MSAs to the best pass, without symmetry and templates."""
        torch, recipe = self.torch, self.recipe
        np.random.seed(seed)
        torch.manual_seed(seed)
        lengths = [len(chain["sequence"]) for chain in task["chains"]]
        msa, insertions = (each.to(self.place) for each in self._msa(task, rows[1]))
        features, state = self._start(lengths)
        number_type = torch.float16 if self.half else torch.float32
        bins = torch.linspace(1 / 50, 1, 50, device=self.place) - 1 / 100
        best: dict[str, Any] = {}
        for _ in range(self.parameters["recycles"] + 1):
            sequence, _, seeds, extra, _ = recipe.MSAFeaturize(
                msa, insertions, p_mask=0.0, params={"MAXLAT": rows[0], "MAXSEQ": rows[1]}
            )
            with torch.no_grad(), torch.autocast(self.place.type, dtype=torch.float16, enabled=self.half):
                output = self.model(
                    seeds[None].to(number_type),
                    extra[None].to(number_type),
                    sequence[None],
                    striping=recipe.get_striping_parameters(smaller),
                    topk_crop=self.parameters["neighbours"],
                    low_vram=smaller,
                    **features,
                    **state,
                )
                _, _, _, pae, _, frames, torsions, subunits, lddt, msa_prev, pair_prev, state_prev = output
                _, atoms = self.converter.compute_all_atom(sequence[None], frames[-1], torsions[-1])
                plddt = (lddt.float().softmax(1) * bins[None, :, None]).sum(1)[0]
                state = {
                    "xyz": atoms,
                    "symmsub": subunits,
                    "mask_recycle": None,
                    "msa_prev": msa_prev.cpu(),
                    "pair_prev": pair_prev.cpu(),
                    "state_prev": state_prev,
                }
                if not best or plddt.mean() >= best["plddt"].mean():
                    best = {
                        "positions": atoms[0, :, :HEAVY].float(),
                        "plddt": plddt,
                        "pae": recipe.pae_unbin(pae.float())[0],
                    }
            del output, pae, frames, torsions, lddt, msa_prev, pair_prev, state_prev
        found = {name: values.float().cpu().numpy() for name, values in best.items()}
        found["plddt"] *= 100
        return {**found, "names": self._names(task, found["positions"])}

    def _msa(self, task: Task, limit: int) -> tuple[Any, Any]:
        """The MSA of all chains, paired or block by block, and the lengths of insertions: (rows, residues) each."""
        torch = self.torch
        texts = [a3m_text(_rows(chain)) for chain in task["chains"]]
        if self.parameters["pair"] and len(texts) > 1:
            texts = _paired([_rows(chain) for chain in task["chains"]]) or texts
        merged: dict[str, Any] = {}
        residues = 0
        path = Path(task["folder"]) / "msa.a3m"
        for text in texts:
            path.write_text(text, encoding="utf-8")
            rows, insertions, lengths = self.recipe.parse_a3m(str(path))
            path.unlink()
            if len(rows) > limit:
                kept = np.random.permutation(len(rows))[:limit]
                kept[0] = 0
                rows, insertions = rows[kept], insertions[kept]
            block = {"msa": torch.tensor(rows).long(), "ins": torch.tensor(insertions).long()}
            merged = self.recipe.merge_a3m_hetero(merged, block, [residues, sum(lengths)]) if merged else block
            residues += sum(lengths)
        return merged["msa"], merged["ins"]

    def _start(self, lengths: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What stays the same in all passes, and what the first one starts from: one template that says nothing."""
        torch, recipe = self.torch, self.recipe
        residues = sum(lengths)
        number_type = torch.float16 if self.half else torch.float32
        start = recipe.INIT_CRDS.reshape(1, 1, 27, 3).repeat(TEMPLATES, residues, 1, 1)
        start = (start + torch.rand(TEMPLATES, residues, 1, 3) * 5.0 - 2.5)[None, :1].float()
        no_letter = torch.nn.functional.one_hot(torch.full((1, 1, residues), 20), num_classes=21).float()
        template = torch.cat((no_letter, torch.zeros((1, 1, residues, 1))), -1)
        torsions, _, known, _ = recipe.XYZConverter().get_torsions(
            start[0], torch.full((1, residues), 20), mask_in=torch.zeros((1, residues, 27), dtype=torch.bool)
        )
        known = known & ~torsions[..., 0].isnan()
        torsions = torch.cat((torsions.nan_to_num(), known[..., None]), -1)
        unknown = torch.zeros((1, 1, residues, residues))
        matrices, rotations, neighbours, _ = self.symmetry
        placed, subunits = recipe.find_symm_subs(start[:, 0], rotations, neighbours)
        chain = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        features = {
            # Chains are 100 residues apart in the numbering.
            "idx": (torch.arange(residues) + 100 * chain)[None],
            "same_chain": (chain[:, None] == chain[None, :])[None].long(),
            "t1d": template.to(number_type),
            "t2d": recipe.xyz_to_t2d(start, unknown).to(number_type),
            "xyz_t": start[:, :, :, 1],
            "alpha_t": torsions.reshape(1, 1, residues, 30),
            "mask_t": unknown,
            "symmids": matrices,
            "symmRs": rotations,
        }
        state = {"xyz": placed, "symmsub": subunits, "mask_recycle": unknown[0]}
        features, state = ({name: values.to(self.place) for name, values in each.items()} for each in (features, state))
        orders, nearest = neighbours
        features["symmmeta"] = [each.to(self.place) for each in orders], nearest
        return features, state

    def _names(self, task: Task, positions: np.ndarray) -> np.ndarray:
        """The atoms' names, (residues, 14)."""
        sequence = "".join(chain["sequence"] for chain in task["chains"])
        names = np.array([self.names[self.letters[letter]] for letter in sequence])
        # Of histidine RoseTTAFold2 may have the ring the other way round (util.writepdb).
        for place in (place for place, letter in enumerate(sequence) if letter == "H"):
            if np.linalg.norm(positions[place, 9] - positions[place, 5]) < 1.7:
                names[place, [6, 9]] = "NE2", "ND1"
        return names


def _rows(chain: dict[str, Any]) -> list[Row]:
    """The rows of a chain's MSA, without insertions after the last residue.

    A3M allows these, and RoseTTAFold2's parser fails at them.
    """
    if chain["msa"] is None:
        return [("query", chain["sequence"])]
    return [(header, row.rstrip(string.ascii_lowercase)) for header, row in read_a3m(chain["msa"])]


def _paired(msas: list[list[Row]]) -> list[str]:
    """One A3M of all chains, whose rows go on from chain to chain after a slash; none if no species is in two of them.

    The authors' recipe (input_prep/make_paired_MSA_simple.py): of each chain and species the row most like the query,
    rows of one species side by side, gaps where a chain has none; those that fill most chains first. Rows that name no
    species are left out.
    """
    queries = [rows[0][1] for rows in msas]
    best: list[dict[str, str]] = []
    for rows, named, query in zip(msas, species_of_rows(msas), queries):  # noqa: B905
        of_species: dict[str, tuple[int, str]] = {}
        for (_, row), species in zip(rows[1:], named[1:]):  # noqa: B905
            if species is None:
                continue
            columns = row.translate(WITHOUT_INSERTIONS)
            alike = sum(one == other for one, other in zip(query, columns))  # noqa: B905
            if species not in of_species or alike > of_species[species][0]:
                of_species[species] = alike, row
        best.append({species: row for species, (_, row) in of_species.items()})
    # In the order of the chains, and of the rows in each.
    order = list(dict.fromkeys(each for of_species in best for each in of_species))
    chains_of = {each: sum(each in of_species for of_species in best) for each in order}
    if max(chains_of.values(), default=0) < 2:
        return []
    order.sort(key=chains_of.__getitem__, reverse=True)
    lines = [("query", "/".join(queries))]
    for each in order:
        of_chains = [of.get(each, "-" * len(query)) for of, query in zip(best, queries)]  # noqa: B905
        lines.append((each, "/".join(of_chains)))
    return [a3m_text(lines)]


if __name__ == "__main__":
    serve(RoseTTAFold())
