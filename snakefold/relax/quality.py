"""What relaxation must not make worse, and where it did."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from snakefold.relax.violations import Violations
from snakefold.structures.compare import lddt_of_same_atoms
from snakefold.structures.geometry import (
    PeptideBond,
    ResidueId,
    chain_breaks,
    find_clashes,
    open_peptide_bonds,
    peptide_bonds,
    ramachandran,
)
from snakefold.structures.io import ModelChain

LEAST_LDDT = 0.9
"""Below this lDDT to its input, over all atoms or over CA, a relaxed model is another model and the input is kept.
Sound models stay above .99, and atoms displaced at random by 0.5 angstrom in all still come out at .93 to .95."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Faults of a whole model, by count. None of them may increase."""

    clashes: int
    violations: int
    residues_with_violations: int
    centres_of_wrong_chirality: int
    chain_breaks: int
    ramachandran_outliers: int
    peptides_neither_trans_nor_cis_proline: int


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How near a relaxed model is to its input.

    `lddt` (0-1) over all atoms of the input, `lddt_ca` over CA atoms; `turned` counts peptide bonds that went from
    trans to cis, or from cis to trans before proline.
    """

    lddt: float
    lddt_ca: float
    turned: int


def quality(chains: Sequence[ModelChain], violations: Violations) -> Quality:
    """The faults of a model, with the violations that were found in it."""
    bonds = peptide_bonds(chains)
    return Quality(
        clashes=len(find_clashes(chains)),
        violations=violations.bonds + violations.angles + violations.clashes,
        residues_with_violations=len(violations.residues),
        centres_of_wrong_chirality=violations.inverted,
        chain_breaks=len({*chain_breaks(chains), *open_peptide_bonds(chains)}),
        ramachandran_outliers=ramachandran(chains).outliers,
        peptides_neither_trans_nor_cis_proline=sum(not _is_sound(chains, bond) for bond in bonds),
    )


def likeness(chains: Sequence[ModelChain], relaxed: Sequence[ModelChain]) -> Likeness:
    """How near the relaxed chains are to the input's."""
    lddt_ca, lddt = lddt_of_same_atoms(chains, relaxed)
    turned = sum({bond.kind, kind} == {"trans", "cis"} for bond, kind in _changed(chains, relaxed))
    return Likeness(lddt=lddt, lddt_ca=lddt_ca, turned=turned)


def worse(before: Quality, after: Quality, near: Likeness) -> str | None:
    """Why a relaxed model is worse than its input, in one line; None if it is not."""
    for field in fields(Quality):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if new > old:
            name = field.name.replace("_", " ").replace("ramachandran", "Ramachandran")
            return f"relaxation made the model worse: {name} {old} -> {new}"
    if near.turned:
        return f"relaxation made the model worse: {near.turned} peptide bonds turned between cis and trans"
    for name, value in (("lDDT", near.lddt), ("lDDT-CA", near.lddt_ca)):
        # NaN, of models with but one residue, is no sign of a change.
        if value < LEAST_LDDT:
            return f"relaxation changed the model too much: {name} to the input {value:.2f}, less than {LEAST_LDDT}"
    return None


def spoiled_residues(chains: Sequence[ModelChain], relaxed: Sequence[ModelChain]) -> frozenset[ResidueId]:
    """Residues that became Ramachandran outliers, and those on both sides of a peptide bond that was sound and is not.

    A cis peptide before anything but proline that became trans is mended, not spoiled.
    """
    new = {*ramachandran(relaxed).outlier_residues} - {*ramachandran(chains).outlier_residues}
    for bond, _ in _changed(chains, relaxed):
        new |= {bond.residue, ResidueId(bond.residue.chain, bond.residue.residue - 1)}
    return frozenset(new)


def _changed(chains: Sequence[ModelChain], relaxed: Sequence[ModelChain]) -> Iterator[tuple[PeptideBond, str]]:
    """Sound peptide bonds of the input that are of another kind after relaxation, which is given beside."""
    kinds = {bond.residue: bond.kind for bond in peptide_bonds(relaxed)}
    for bond in peptide_bonds(chains):
        kind = kinds.get(bond.residue, bond.kind)
        if kind != bond.kind and _is_sound(chains, bond):
            yield bond, kind


def _is_sound(chains: Sequence[ModelChain], bond: PeptideBond) -> bool:
    chain, residue = bond.residue
    return bond.kind == "trans" or (bond.kind == "cis" and chains[chain].sequence[residue] == "P")
