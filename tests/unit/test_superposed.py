"""Templates lie on the model as it was built on them, whether that was the entry's file or its assembly."""

from pathlib import Path

import gemmi
import numpy as np
import pytest

from snakefold.structures.io import ModelChain, read_assembly, read_chains, write_model
from snakefold.superposed import AlignedTemplate, superposed_templates

from .structure_helpers import MINI, model, moved, rotation

(LONE,) = read_chains(MINI / "templates" / "1a7g.cif.gz")
APART = np.array([0.0, 0.0, 35.0])


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """Two equal chains, of which the assembly has the second elsewhere."""
    path = tmp_path / "entry.cif"
    write_model(path, [model(LONE), moved(model(LONE), rotation(2), APART)])
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    assembly = gemmi.Assembly("1")
    for name, shift in (("A", 0.0), ("B", 50.0)):
        operator = gemmi.Assembly.Operator()
        operator.transform = gemmi.Transform(gemmi.Mat33(), gemmi.Vec3(shift, 0, 0))
        generator = gemmi.Assembly.Gen()
        generator.subchains = [span.subchain_id() for span in structure[0][name].subchains()]
        generator.operators.append(operator)
        assembly.generators.append(generator)
    structure.assemblies.append(assembly)
    structure.make_mmcif_document().write_file(str(path))
    return path


def template(path: Path, target_chain: int, copy: str, *, chain: str = "", copied: bool = True) -> AlignedTemplate:
    return AlignedTemplate(
        target_chain=target_chain,
        path=path,
        chain=chain or copy,
        copy=copy,
        copied=copied,
        target_row=LONE.sequence,
        template_row=LONE.sequence,
    )


def distance(first: ModelChain | None, second: ModelChain) -> float:
    assert first is not None
    return max(float(np.linalg.norm(atoms["CA"] - second.atoms[index]["CA"])) for index, atoms in first.atoms.items())


@pytest.mark.parametrize("read", [read_chains, read_assembly])
def test_a_complex_is_that_of_the_file_or_of_the_assembly(entry: Path, read) -> None:
    chains = [moved(model(chain), rotation(5), np.array([3.0, 2.0, 1.0])) for chain in read(entry)]
    laid = superposed_templates([template(entry, 0, "A"), template(entry, 1, "B")], chains)
    assert [distance(*pair) for pair in zip(laid, chains, strict=True)] == pytest.approx([0, 0], abs=0.01)


@pytest.mark.parametrize("copied", [True, False])
def test_a_copy_that_the_entry_has_not_is_its_chain_alone(entry: Path, copied: bool) -> None:
    chains = [model(LONE), moved(model(LONE), rotation(2), 2 * APART)]
    named = [template(entry, number, "A-7", chain="A", copied=copied) for number in range(2)]
    laid = superposed_templates([*named, None, template(entry, 0, "Z")], chains)
    assert [distance(*pair) for pair in zip(laid[:2], chains, strict=True)] == pytest.approx([0, 0], abs=0.01)
    assert laid[2:] == (None, None)


def test_a_file_that_cannot_be_read_shows_nothing(tmp_path: Path) -> None:
    assert superposed_templates([template(tmp_path / "absent.cif", 0, "A")], [model(LONE)]) == (None,)
