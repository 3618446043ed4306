"""The fleet file: where a run's files lie, and what a profile does without one."""

from pathlib import Path

import pytest

from snakefold import workflow
from snakefold.config import Config
from snakefold.errors import SnakefoldError
from snakefold.fleet import fleet_of_profile, fleet_of_run, load_fleet
from tests.conftest import ROOT


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SNAKEFOLD_FLEET", "fleet.yaml")
    monkeypatch.delenv("SNAKEFOLD_RUN", raising=False)
    return tmp_path / "fleet.yaml"


def test_runs_of_different_names_do_not_meet(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.write_text("{region: eu-west-1, bucket: my-bucket, queues: []}")
    assert load_fleet().prefix == "s3://my-bucket/runs/default"
    monkeypatch.setenv("SNAKEFOLD_RUN", "casp17")
    assert load_fleet().prefix == "s3://my-bucket/runs/casp17"
    monkeypatch.setenv("SNAKEFOLD_RUN", "../default")
    with pytest.raises(SnakefoldError, match="cannot name a run"):
        load_fleet()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{bucket: my-bucket}", "region: is missing"),
        ("{region: eu-west-1, bucket: s3://my-bucket}", "without s3://"),
        ("[", "cannot be read"),
        ("- one", "not a list of keys"),
    ],
)
def test_a_fault_is_one_line_with_file_and_key(fleet: Path, content: str, said: str) -> None:
    fleet.write_text(content)
    with pytest.raises(SnakefoldError, match=said) as caught:
        load_fleet()
    assert str(caught.value).startswith("fleet.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [["-n"], ["-np"], ["--dry-run"], ["--lint"], ["all", "-n", "-q"], ["--filegraph"]]
)
@pytest.mark.usefixtures("fleet")
def test_a_dry_run_needs_no_fleet_file(arguments: list[str]) -> None:
    assert fleet_of_profile(["snakemake", *arguments]).bucket


@pytest.mark.parametrize("arguments", [[], ["--notemp"], ["--config", "engines=[template]"], ["-j", "4"], ["all"]])
@pytest.mark.usefixtures("fleet")
def test_a_real_run_without_a_fleet_file_ends_in_one_line(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fleet_of_profile(["snakemake", *arguments])
    assert str(caught.value).startswith("snakefold: fleet.yaml: there is no fleet file")
    assert "\n" not in str(caught.value)


def test_a_faulty_fleet_file_ends_a_dry_run_too(fleet: Path) -> None:
    fleet.write_text("{region: eu-west-1}")
    with pytest.raises(SystemExit, match="bucket: is missing"):
        fleet_of_profile(["snakemake", "-n"])


def test_the_fleet_of_a_run_is_the_one_whose_bucket_it_lies_in(fleet: Path) -> None:
    assert fleet_of_run("s3://my-bucket/runs/default") is None
    fleet.write_text("{region: eu-west-1, bucket: my-bucket, queues: [], images: {worker: a, esmfold: b}}")
    found = fleet_of_run("s3://my-bucket/runs/default")
    assert found is not None
    assert found.images == ("worker", "esmfold")
    assert fleet_of_run("s3://other-bucket/runs/default") is None


def test_a_run_needs_the_image_of_each_of_its_engines_and_no_other(fleet: Path) -> None:
    fleet.with_name("s.tsv").write_text("id\tsequence\na\tMKTAYIAKQRQISFVKSHFSRQLEERLGLIEV\n")
    databases = Config().databases.model_copy(update={"registry": str(ROOT / "config/databases.yaml")})
    config = Config(samples=("s.tsv",), engines=("template", "esmfold", "boltz"), databases=databases)
    folding = workflow.load(config, check_files=False)
    folding.check_images({"esmfold": "a", "boltz": "b"}, fleet)
    with pytest.raises(SnakefoldError) as caught:
        folding.check_images({"worker": "a", "esmfold": "b"}, fleet)
    assert str(caught.value) == (
        f'config: engines: boltz: the fleet file {fleet} lists no image boltz; `make push-images ARGS="boltz"` builds '
        "and pushes it, then `make aws-config`"
    )
