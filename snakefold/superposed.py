"""The templates of a prediction laid over its model, for the report and for molecular viewers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snakefold.errors import SnakefoldError
from snakefold.structures.compare import superpose
from snakefold.structures.io import ModelChain, PolymerChain, read_assembly, read_chains
from snakefold.structures.residues import BACKBONE

_FEWEST_PAIRS = 4  # three points fix a superposition; one more guards against a chance fit


@dataclass(frozen=True, kw_only=True)
class AlignedTemplate:
    """A template as `alignment.fasta` has it: the target's chain, the entry's file, its chain, the two rows."""

    target_chain: int
    path: Path
    chain: str
    target_row: str
    template_row: str


def superposed_templates(
    templates: Sequence[AlignedTemplate | None], model: Sequence[ModelChain]
) -> tuple[ModelChain | None, ...]:
    """The backbones of `templates` moved onto `model` by the CA atoms of aligned residues; None where that fails.

    Chains of one entry that stand for different chains of the target move together, as the complex that they are.
    """
    entries: dict[Path, dict[str, PolymerChain]] = {}
    placed: list[tuple[PolymerChain, np.ndarray, np.ndarray] | None] = []
    groups: dict[tuple[Path, int], list[int]] = {}
    seen: dict[tuple[Path, int], int] = {}
    for index, template in enumerate(templates):
        pairs = None
        if template is not None:
            if template.path not in entries:
                entries[template.path] = _chains_of(template.path)
            chain = entries[template.path].get(template.chain)
            pairs = None if chain is None else _aligned(chain, template, model[template.target_chain])
        placed.append(pairs)
        if template is None or pairs is None:
            continue
        # The first use of an entry for each chain is one complex, the second another.
        use = (template.path, template.target_chain)
        seen[use] = seen.get(use, 0) + 1
        groups.setdefault((template.path, seen[use]), []).append(index)
    moved: list[ModelChain | None] = [None] * len(templates)
    for members in groups.values():
        of_group = [found for found in (placed[index] for index in members) if found is not None]
        mobile = np.concatenate([pair[1] for pair in of_group])
        if len(mobile) < _FEWEST_PAIRS:
            continue
        superposition, _ = superpose(mobile, np.concatenate([pair[2] for pair in of_group]))
        for index, (chain, _, _) in zip(members, of_group, strict=True):
            moved[index] = ModelChain(
                sequence=chain.sequence,
                atoms={
                    number: {name: superposition.apply(atoms[name]) for name in BACKBONE if name in atoms}
                    for number, atoms in chain.residues.items()
                    if "CA" in atoms
                },
                confidence=[None] * len(chain.sequence),
            )
    return tuple(moved)


def _chains_of(path: Path) -> dict[str, PolymerChain]:
    """Chains by name, those of the assembly and those of the file; none where it cannot be read."""
    try:
        return {chain.name: chain for chain in (*read_assembly(path), *read_chains(path))}
    except SnakefoldError:
        return {}


def _aligned(
    chain: PolymerChain, template: AlignedTemplate, model: ModelChain
) -> tuple[PolymerChain, np.ndarray, np.ndarray] | None:
    """The template's chain with the CA positions of aligned residues, its own and the model's, each (n, 3)."""
    start = chain.sequence.find(template.template_row.replace("-", ""))
    if start < 0:
        return None
    own: list[np.ndarray] = []
    of_model: list[np.ndarray] = []
    here, there = 0, start
    for letter, other in zip(template.target_row, template.template_row, strict=True):
        if letter != "-" and other != "-":
            target: Mapping[str, Any] = model.atoms.get(here, {})
            source = chain.residues.get(there, {})
            if "CA" in target and "CA" in source:
                own.append(source["CA"])
                of_model.append(target["CA"])
        here += letter != "-"
        there += other != "-"
    shape = (-1, 3)
    return chain, np.array(own, dtype=float).reshape(shape), np.array(of_model, dtype=float).reshape(shape)
