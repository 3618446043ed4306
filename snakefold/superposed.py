"""The templates of a prediction laid over its model, for the report and for molecular viewers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snakefold.errors import SnakefoldError
from snakefold.structures.compare import Superposition, superpose
from snakefold.structures.io import ModelChain, PolymerChain, read_assembly, read_chains
from snakefold.structures.residues import BACKBONE

_FEWEST_PAIRS = 4  # three points fix a superposition; one more guards against a chance fit


@dataclass(frozen=True, kw_only=True)
class AlignedTemplate:
    """A template as `alignment.fasta` has it: the target's chain, the entry's file, its chain, the two rows.

    `chain` is the author's name, `copy` that of the copy in the assembly (`A-2`), else the same. `copied` tells whether
    residues of the model are those of the template, or an engine only learned from it.
    """

    target_chain: int
    path: Path
    chain: str
    copy: str
    copied: bool
    target_row: str
    template_row: str


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A chain of an entry, and the CA positions of aligned residues, its own and the model's, each (n, 3)."""

    chain: PolymerChain
    own: np.ndarray
    of_model: np.ndarray


Chains = Mapping[str, PolymerChain]
"""The chains of one unit of an entry by name."""


def superposed_templates(
    templates: Sequence[AlignedTemplate | None], model: Sequence[ModelChain]
) -> tuple[ModelChain | None, ...]:
    """The backbones of `templates` moved onto `model` by the CA atoms of aligned residues; None where that fails.

    Chains of one entry that different chains of the model were copied from move together, as the complex that they are.
    A template that was only learned from moves alone: what the entry has beside that chain was no part of it.
    """
    units = {
        path: _units_of(path) for path in dict.fromkeys(template.path for template in templates if template is not None)
    }
    moved: list[ModelChain | None] = [None] * len(templates)
    for named in _moved_together(templates, units):
        for index, chain in _superposed(named, templates, units, model).items():
            moved[index] = chain
    return tuple(moved)


def _units_of(path: Path) -> tuple[Chains, ...]:
    """The chains of the file and those of the assembly, each by name; none where it cannot be read."""
    try:
        return tuple({chain.name: chain for chain in read(path)} for read in (read_chains, read_assembly))
    except SnakefoldError:
        return ()


def _moved_together(
    templates: Sequence[AlignedTemplate | None], units: Mapping[Path, Sequence[Chains]]
) -> list[dict[int, str]]:
    """Groups of templates, by index, with the name of the chain that each is."""
    alone: list[dict[int, str]] = []
    groups: dict[tuple[Path, int], dict[int, str]] = {}
    seen: dict[tuple[Path, int], int] = {}
    for index, template in enumerate(templates):
        if template is None:
            continue
        if not any(template.copy in unit for unit in units[template.path]):
            alone.append({index: template.chain})
        elif not template.copied:
            alone.append({index: template.copy})
        else:
            # The first use of an entry for each chain is one complex, the second another.
            use = (template.path, template.target_chain)
            seen[use] = seen.get(use, 0) + 1
            groups.setdefault((template.path, seen[use]), {})[index] = template.copy
    return [*groups.values(), *alone]


def _superposed(
    named: Mapping[int, str],
    templates: Sequence[AlignedTemplate | None],
    units: Mapping[Path, Sequence[Chains]],
    model: Sequence[ModelChain],
) -> dict[int, ModelChain]:
    """The templates of one group, moved as one body, as far as there are such chains."""
    found: list[tuple[tuple[int, float], Superposition, dict[int, _Pair]]] = []
    of_group = {index: template for index in named if (template := templates[index]) is not None}
    for unit in units[next(iter(of_group.values())).path]:
        pairs: dict[int, _Pair] = {}
        for index, template in of_group.items():
            chain = unit.get(named[index])
            pair = None if chain is None else _aligned(chain, template, model[template.target_chain])
            if pair is not None:
                pairs[index] = pair
        if sum(len(pair.own) for pair in pairs.values()) < _FEWEST_PAIRS:
            continue
        superposition, rmsd = superpose(
            np.concatenate([pair.own for pair in pairs.values()]),
            np.concatenate([pair.of_model for pair in pairs.values()]),
        )
        found.append(((-len(pairs), round(rmsd, 2)), superposition, pairs))
    if not found:
        return {}
    # A chain may lie elsewhere in the assembly than in the file: the model was built on one of the two.
    _, superposition, pairs = min(found, key=lambda each: each[0])
    return {index: _backbone(pair.chain, superposition) for index, pair in pairs.items()}


def _backbone(chain: PolymerChain, superposition: Superposition) -> ModelChain:
    return ModelChain(
        sequence=chain.sequence,
        atoms={
            number: {name: superposition.apply(atoms[name]) for name in BACKBONE if name in atoms}
            for number, atoms in chain.residues.items()
            if "CA" in atoms
        },
        confidence=[None] * len(chain.sequence),
    )


def _aligned(chain: PolymerChain, template: AlignedTemplate, model: ModelChain) -> _Pair | None:
    """None if the row is not of the chain's sequence."""
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
    return _Pair(
        chain=chain,
        own=np.array(own, dtype=float).reshape(shape),
        of_model=np.array(of_model, dtype=float).reshape(shape),
    )
