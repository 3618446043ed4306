"""The configuration itself: its form, its types, its plans, its examples."""

import re
import subprocess
import warnings
from pathlib import Path

import pytest
import yaml

from tests.infra.schema import SCHEMA, blocks, faults, provider_schema
from tests.infra.terraform import MODULE, NONE_FOUND, ROOT, Terraform, copy_module, find_mirror, initialised
from tests.infra.user_data import VARIANTS

EXAMPLES = sorted((MODULE / "examples").glob("*.tfvars"))


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    if find_mirror() is None:
        pytest.skip(NONE_FOUND)
    return initialised(tmp_path_factory.mktemp("module"))


def schema() -> dict:
    return yaml.safe_load(SCHEMA.read_text())


def test_every_argument_and_reference_is_known() -> None:
    """By python-hcl2: on machines without Terraform, all that is checked."""
    if find_mirror() is None:
        warnings.warn(NONE_FOUND, stacklevel=1)
    assert faults(MODULE, schema()) == []
    assert len(list(blocks(MODULE))) > 50


def test_the_check_without_terraform_finds_faults(tmp_path: Path) -> None:
    folder = copy_module(tmp_path)
    (folder / "wrong.tf").write_text(
        'resource "aws_s3_bucket_versioning" "wrong" {\n  bucket = aws_s3_bucket.that.id\n  colour = var.name\n}\n'
        'resource "aws_no_such_thing" "wrong" {}\n'
    )
    assert [line.partition("; ")[0] for line in faults(folder, schema())] == [
        "resource.aws_s3_bucket_versioning.wrong: no argument colour",
        "resource.aws_s3_bucket_versioning.wrong: versioning_configuration is missing",
        "resource.aws_no_such_thing.wrong: no such resource is known",
        "wrong.tf: aws_s3_bucket.that is not declared",
    ]


def test_that_check_knows_what_the_provider_says(terraform: Terraform) -> None:
    assert provider_schema(terraform) == schema(), "python -m tests.infra.schema writes it anew"


def test_the_files_are_formatted_and_valid(terraform: Terraform) -> None:
    terraform.run("fmt", "-check", "-recursive", "-diff", str(MODULE))
    terraform.run("validate", "-no-color")


def test_plans_with_a_mocked_aws(terraform: Terraform) -> None:
    """tests/plan.tftest.hcl says what must hold; the examples are planned in the same run."""
    runs = [
        f'run "{path.stem}" {{\n  command = plan\n  variables {{\n{path.read_text()}\n  }}\n}}\n' for path in EXAMPLES
    ]
    mocks = (MODULE / "tests/plan.tftest.hcl").read_text().partition('\nrun "')[0]
    (terraform.folder / "tests/examples.tftest.hcl").write_text("\n".join([mocks, *runs]))
    output = terraform.run("test", "-no-color")
    assert f"{9 + len(EXAMPLES)} passed, 0 failed" in output


def test_the_example_of_every_kind_is_there_and_says_why() -> None:
    assert [path.stem for path in EXAMPLES] == ["fsx", "large-gpu", "minimal", "own-vpc"]
    assert all(path.read_text().startswith("# ") for path in EXAMPLES)


def test_user_data_is_rendered_for_every_kind_that_the_module_has() -> None:
    kinds = set(re.findall(r'databases_on == "(\w+)"', (MODULE / "user_data.tftpl").read_text()))
    assert kinds | {"root"} == set(VARIANTS)


def test_every_image_has_a_repository_and_nothing_else_is_downloaded() -> None:
    images = yaml.safe_load((ROOT / "containers/images.yaml").read_text())
    assert "worker" in images
    for path in [*MODULE.glob("*.tf"), *MODULE.glob("*.tftpl"), *EXAMPLES]:
        assert "https://" not in path.read_text(), path
    tracked = subprocess.run(["git", "ls-files", str(MODULE)], cwd=ROOT, capture_output=True, text=True).stdout
    assert "README.md" in tracked
    assert ".terraform" not in tracked, "a lock file made on one platform holds up others"


def test_every_exception_from_checkov_has_a_reason_that_the_readme_repeats() -> None:
    readme = (MODULE / "README.md").read_text()
    for path in MODULE.glob("*.tf"):
        for check, reason in re.findall(r"#checkov:skip=(\w+):(.*)", path.read_text()):
            assert len(reason) > 30, f"{path.name}: {check}"
            assert f"`{check}`" in readme, f"{check} is not in the README's table"
