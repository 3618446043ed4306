"""The fleet file is what Terraform put out, whole, checked, and never written over an edit."""

import json
from pathlib import Path
from typing import Any

import pytest

from containers.images import read_images
from snakefold.away.aws_config import outputs_of_file, outputs_of_terraform, recorded_images, write_fleet
from snakefold.cli import main
from snakefold.errors import FaultsError, SnakefoldError
from snakemake_executor_plugin_aws_batch_fleet.fleet import load_fleet

REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/snakefold/worker"
PUSHED = {"worker": f"{REPOSITORY}@sha256:{'a' * 64}"}
ROLE = "arn:aws:iam::123456789012:role/databases"


def outputs(**changes: Any) -> dict[str, Any]:
    queue = {"name": "cpu", "vcpus": 96, "memory_mb": 768000, "gpus": 0, "purchase": "spot", "share_identifier": None}
    fleet = {"region": "eu-west-1", "bucket": "my-bucket", "database_role_arn": ROLE, "events_queue_url": None}
    fleet |= {"tags": {"Project": "x"}, "images": {}, "queues": [queue], **changes}
    return {"fleet": {"value": fleet, "type": "any"}, "repositories": {"value": {"worker": REPOSITORY}}}


def test_the_fleet_file_is_what_the_executor_reads_with_images_by_digest(tmp_path: Path) -> None:
    path = tmp_path / "profile" / "fleet.yaml"
    written = write_fleet(outputs(), "Terraform", path, PUSHED)
    assert (written.written, written.notes) == (True, ())
    fleet = load_fleet(str(path))
    assert fleet.images == PUSHED
    assert (fleet.database_role_arn, fleet.queues[0].purchase, fleet.tags) == (ROLE, "spot", {"Project": "x"})
    assert path.read_text().startswith("# Written by `make aws-config` from Terraform.")


def test_an_image_of_another_repository_is_told_and_not_taken(tmp_path: Path) -> None:
    elsewhere = {"worker": f"elsewhere/worker@sha256:{'a' * 64}"}
    written = write_fleet(outputs(), "Terraform", tmp_path / "fleet.yaml", elsewhere)
    assert load_fleet(str(tmp_path / "fleet.yaml")).images == {}
    (note,) = written.notes
    assert "elsewhere/worker" in note
    assert REPOSITORY in note
    assert "make push-images ARGS=worker" in note
    (note,) = write_fleet(outputs(), "Terraform", tmp_path / "fleet.yaml", {}).notes
    assert "nothing is recorded in containers/images.yaml" in note


def test_what_this_clone_records_is_read() -> None:
    assert set(recorded_images()) <= set(read_images())


def test_an_unchanged_fleet_is_not_written_and_a_changed_one_says_what(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    write_fleet(outputs(), "Terraform", path, PUSHED)
    before = path.stat().st_mtime_ns
    assert not write_fleet(outputs(), "Terraform", path, PUSHED).written
    assert path.stat().st_mtime_ns == before
    changed = write_fleet(outputs(bucket="other-bucket"), "Terraform", path, PUSHED)
    assert changed.changes == ("bucket (my-bucket -> other-bucket)",)
    assert load_fleet(str(path)).bucket == "other-bucket"


def test_an_edited_fleet_is_not_overwritten_without_force(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    write_fleet(outputs(), "Terraform", path, PUSHED)
    edited = path.read_text().replace("vcpus: 96", "vcpus: 64")
    path.write_text(edited)
    with pytest.raises(SnakefoldError, match=r"edited by hand .*queues\[cpu\].vcpus \(64 -> 96\)"):
        write_fleet(outputs(), "Terraform", path, PUSHED)
    assert path.read_text() == edited
    assert write_fleet(outputs(), "Terraform", path, PUSHED, force=True).written
    path.write_text("region: eu-west-1\n")
    with pytest.raises(SnakefoldError, match="edited by hand"):
        write_fleet(outputs(), "Terraform", path, PUSHED)


def test_faults_of_the_fleet_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    with pytest.raises(FaultsError, match=r"Terraform: oops: unknown key"):
        write_fleet(outputs(oops=1), "Terraform", path, {})
    with pytest.raises(SnakefoldError, match="bucket: is missing"):
        write_fleet(outputs(bucket=None), "Terraform", path, {})
    with pytest.raises(SnakefoldError, match="no output `fleet`"):
        write_fleet({"bucket": {"value": "x"}}, "Terraform", path, {})
    assert not path.exists()


def test_terraform_that_is_missing_or_has_nothing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SnakefoldError, match="there is no such folder"):
        outputs_of_terraform(tmp_path / "nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SnakefoldError, match="terraform: not found"):
        outputs_of_terraform(tmp_path)
    fake = tmp_path / "terraform"
    for script, said in (("echo '{}'", "nothing was applied"), ("echo broken >&2; exit 1", "terraform says: broken")):
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
        with pytest.raises(SnakefoldError, match=said) as caught:
            outputs_of_terraform(tmp_path)
        assert "\n" not in str(caught.value)
    fake.write_text(f"#!/bin/sh\necho '{json.dumps(outputs())}'\n")
    assert outputs_of_terraform(tmp_path)[0] == outputs()


def test_the_command_takes_outputs_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNAKEFOLD_FLEET", str(tmp_path / "fleet.yaml"))
    (tmp_path / "all.json").write_text(json.dumps(outputs()))
    (tmp_path / "one.json").write_text(json.dumps(outputs()["fleet"]["value"]))
    (tmp_path / "bad.json").write_text("{")
    assert main(["aws-config", "--from", str(tmp_path / "all.json")]) == 0
    assert "fleet.yaml: written" in capsys.readouterr().out
    assert main(["aws-config", "--from", str(tmp_path / "one.json")]) == 0
    assert "is up to date" in capsys.readouterr().out
    assert main(["aws-config", "--from", str(tmp_path / "bad.json")]) == 1
    assert "bad.json: cannot be read" in capsys.readouterr().err
    with pytest.raises(SnakefoldError, match="holds no outputs"):
        (tmp_path / "list.json").write_text("[]")
        outputs_of_file(str(tmp_path / "list.json"))
