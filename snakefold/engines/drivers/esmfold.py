"""ESMFold (Z. Lin et al., Science 379 (2023), 1123) by transformers, several sequences a forward pass.

Runs in the engine's own Python; see driver_protocol.py. Writes `prediction.npz` for each member:
`positions` (residues, 37, 3) in angstrom, in AlphaFold's order of atoms, `exists` (residues, 37), `plddt` (residues),
0-100, `pae` (residues, residues) in angstrom, `ptm`.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from driver_protocol import Task, TorchDriver, serve

# Chains of a complex are joined by a flexible stretch and a gap in the numbering, as in the authors' code.
LINKER = "G" * 25
GAP = 512

# Rows of the pair representation that attention works on at a time, when memory is short: slower, and equal results.
CHUNKS = (None, 128, 32, 8)

# Fast kernels read rows in pieces of so many numbers.
ALIGNMENT = 8


class EsmFold(TorchDriver):
    """ESMFold. Parameters: `recycles`, `tokens` (residues of a forward pass, padding included), `precision`."""

    eases = len(CHUNKS) - 1

    def load(self, settings: dict[str, Any]) -> None:
        """Read the weights, a folder as transformers writes it."""
        import torch
        from transformers import EsmForProteinFolding
        from transformers.models.esm.openfold_utils import atom14_to_atom37
        from transformers.models.esm.openfold_utils.loss import compute_predicted_aligned_error

        self.torch = torch
        self.to_atom37, self.aligned_errors = atom14_to_atom37, compute_predicted_aligned_error
        self.parameters = settings["parameters"]
        torch.set_float32_matmul_precision("highest" if self.parameters["precision"] == "fp32" else "high")
        self.place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with torch.device(self.place):
            model = EsmForProteinFolding.from_pretrained(settings["weights"], local_files_only=True)
        self.model = model.to(self.place).eval().requires_grad_(False)
        if self.place.type == "cuda":
            self.model.esm.half()
        else:
            self.model.float()
        for block in self.model.trunk.blocks:
            for attention in (block.tri_att_start, block.tri_att_end):
                attention.forward = _fused(torch, attention)
        if self.parameters["precision"] == "bf16":
            _run_in_bf16(torch, self.model.trunk.blocks)

    def groups(self, tasks: list[Task]) -> list[list[Task]]:
        """Members of like lengths together, as many as `tokens` allows."""
        groups: list[list[Task]] = []
        for task in sorted(tasks, key=lambda task: (len(_joined(task)), task["id"])):
            longest = len(_joined(task))
            if groups and longest * (len(groups[-1]) + 1) <= self.parameters["tokens"]:
                groups[-1].append(task)
            else:
                groups.append([task])
        return groups

    def forward(self, tasks: list[Task]) -> Any:
        """The network's output for one group, padded to a common length."""
        torch = self.torch
        sequences = [_joined(task) for task in tasks]
        longest = max(map(len, sequences))
        longest += -longest % ALIGNMENT
        letters = torch.tensor([[_number(letter) for letter in each.ljust(longest, "X")] for each in sequences])
        mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in sequences])
        positions = torch.tensor([_numbering(task, longest) for task in tasks])
        return self.model(
            letters.to(self.place),
            mask.to(self.place),
            position_ids=positions.to(self.place),
            num_recycles=self.parameters["recycles"],
        )

    def predict(self, tasks: list[Task], ease: int) -> None:
        """Write prediction.npz for each member."""
        torch = self.torch
        self.model.trunk.set_chunk_size(CHUNKS[ease])
        with torch.inference_mode():
            output = self.forward(tasks)
            atoms = self.to_atom37(output.positions[-1].float(), output).cpu().numpy()
            exists = output.atom37_atom_exists.cpu().numpy() > 0.5
            plddt = output.plddt[..., 1].float().cpu().numpy() * 100
            for number, task in enumerate(tasks):
                kept = _kept(task)
                # Over the residues of this member alone: padding and linkers must count for nothing.
                chosen = torch.tensor(kept, device=self.place)
                logits = output.ptm_logits[number][chosen][:, chosen].float()
                errors = self.aligned_errors(logits, max_bin=31, no_bins=logits.shape[-1])["predicted_aligned_error"]
                np.savez_compressed(
                    Path(task["folder"]) / "prediction.npz",
                    positions=atoms[number][kept].astype(np.float32),
                    exists=exists[number][kept],
                    plddt=plddt[number][kept].astype(np.float32),
                    pae=errors.cpu().numpy().astype(np.float32),
                    ptm=np.float32(_ptm(torch, logits)),
                )


def _fused(torch: Any, attention: Any) -> Any:
    """A triangular attention's `forward` that never holds the weights of all rows at once.

    They are the largest thing in the network, rows x heads x columns x columns, and reading and writing them takes most
    of the time. A fused kernel keeps them in registers. It takes one bias, the same for all rows: the mask can go
    into it, since what comes out for masked rows is masked later on.
    """
    stock = attention.forward

    def forward(x: Any, mask: Any = None, chunk_size: int | None = None, **options: Any) -> Any:
        if chunk_size is not None:
            return stock(x, mask=mask, chunk_size=chunk_size, **options)
        if not attention.starting:
            x = x.transpose(-2, -3)
        x = attention.layer_norm(x)
        bias = attention.linear(x).permute(0, 3, 1, 2)
        if mask is not None:
            columns = mask.amax(dim=-1 if not attention.starting else -2)
            bias = bias + (attention.inf * (columns - 1))[:, None, None, :].to(bias.dtype)
        length = bias.shape[-1]
        aligned = bias.new_empty(*bias.shape[:-1], length + -length % ALIGNMENT)[..., :length]
        aligned.copy_(bias)
        query, key, value = attention.mha._prep_qkv(x, x)
        rows = [
            # The query is scaled already.
            torch.nn.functional.scaled_dot_product_attention(
                query[number],
                key[number],
                value[number],
                attn_mask=aligned[number].expand(query.shape[1], -1, -1, -1),
                scale=1.0,
            )
            for number in range(len(query))
        ]
        x = attention.mha._wrap_up(torch.stack(rows).transpose(-2, -3), x)
        return x if attention.starting else x.transpose(-2, -3)

    return forward


def _run_in_bf16(torch: Any, blocks: Any) -> None:
    """Let the trunk's blocks compute with eight bits of mantissa, and all around them as before."""
    for block in blocks:
        block.to(torch.bfloat16)

    def lower(_: Any, arguments: Any, options: dict[str, Any]) -> Any:
        return tuple(each.to(torch.bfloat16) for each in arguments), options

    def raise_again(_: Any, __: Any, states: Any) -> Any:
        return tuple(each.float() for each in states)

    blocks[0].register_forward_pre_hook(lower, with_kwargs=True)
    blocks[-1].register_forward_hook(raise_again)


def _ptm(torch: Any, logits: Any) -> float:
    """PTM from the logits (residues, residues, bins) of the aligned error: Jumper et al. 2021, supplement 1.9.7."""
    length, bins = logits.shape[0], logits.shape[-1]
    edges = torch.linspace(0, 31, bins - 1, device=logits.device)
    step = edges[1] - edges[0]
    centres = torch.cat([edges + step / 2, edges[-1:] + 1.5 * step])
    d0 = 1.24 * (max(length, 19) - 15) ** (1 / 3) - 1.8
    terms = (logits.softmax(-1) / (1 + (centres / d0) ** 2)).sum(-1)
    return float(terms.mean(-1).max())


def _joined(task: Task) -> str:
    return LINKER.join(chain["sequence"] for chain in task["chains"])


def _kept(task: Task) -> list[int]:
    """The places of the target's residues in the joined sequence."""
    kept: list[int] = []
    start = 0
    for chain in task["chains"]:
        kept += range(start, start + len(chain["sequence"]))
        start += len(chain["sequence"]) + len(LINKER)
    return kept


def _numbering(task: Task, longest: int) -> list[int]:
    """Residue numbers in the joined sequence, with a gap before each further chain; padded to `longest`."""
    numbers: list[int] = []
    for number, chain in enumerate(task["chains"]):
        start = len(numbers)
        numbers += [index + number * GAP for index in range(start, start + len(chain["sequence"]) + len(LINKER))]
    numbers = numbers[: -len(LINKER)]
    return numbers + [0] * (longest - len(numbers))


def _number(letter: str) -> int:
    place = "ARNDCQEGHILKMFPSTWYV".find(letter)
    return place if place >= 0 else 20


if __name__ == "__main__":
    serve(EsmFold())
