"""What machines run when they start: rendered for every kind, checked, run with stand-ins for the system's tools."""

import email
import email.policy
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from snakefold.engines.supervisor import GRACE_SECONDS
from tests.infra.terraform import MODULE, NONE_FOUND, find_mirror
from tests.infra.user_data import FOLDER, VARIANTS, render, script_of

every_kind = pytest.mark.parametrize("kind", VARIANTS)


def rendered(kind: str) -> str:
    return render({"folder": FOLDER, **VARIANTS[kind]})


@every_kind
def test_user_data_is_a_mime_message_of_one_script(kind: str) -> None:
    """AWS Batch adds parts of its own, and takes user data in no other form."""
    message = email.message_from_string(rendered(kind), policy=email.policy.default)
    assert message.get_content_type() == "multipart/mixed"
    (part,) = message.iter_parts()
    assert part.get_content_type() == "text/x-shellscript"
    assert part.get_content().startswith("#!/bin/bash\n")
    assert len(rendered(kind)) < 16384


@every_kind
def test_shell_and_shellcheck_find_no_fault(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(script_of(rendered(kind)))
    for command in (["bash", "-n"], ["shellcheck", "--severity=style"]):
        result = subprocess.run([*command, str(script)], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_terraform_renders_it_likewise() -> None:
    if find_mirror() is None:
        pytest.skip(NONE_FOUND)
    for variables in VARIANTS.values():
        given = json.dumps({"folder": FOLDER, **variables})
        result = subprocess.run(
            ["terraform", "console", "-no-color"],
            # Not in the module's folder, which would have to be initialised.
            cwd=MODULE / "examples",
            env={**os.environ, "TF_CLI_CONFIG_FILE": os.devnull},
            input=f'jsonencode(templatefile("{MODULE}/user_data.tftpl", {given}))\n',
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert json.loads(json.loads(result.stdout)) == render({"folder": FOLDER, **variables})


class Machine:
    """A folder that stands for a machine's disk, and commands that note how they were called."""

    COMMANDS = ("systemctl", "shutdown", "dnf", "mdadm", "mkfs.xfs", "mount", "mountpoint", "chown", "lsblk")

    def __init__(self, folder: Path, *, disks: int = 0, failing: str = "") -> None:
        self.folder, self.calls_file = folder, folder / "calls"
        (folder / "bin").mkdir()
        for name in ("etc/ecs", "etc/systemd/system", "run", "mnt", "dev"):
            (folder / name).mkdir(parents=True)
        (folder / "etc/ecs/ecs.config").write_text("ECS_CLUSTER=given-by-batch\n")
        listing = "/dev/nvme0n1 Amazon Elastic Block Store\n"
        listing += "".join(f"/dev/nvme{n}n1 Amazon EC2 NVMe Instance Storage\n" for n in range(1, disks + 1))
        (folder / "listing").write_text(listing)
        for command in self.COMMANDS:
            stand_in = folder / "bin" / command
            end = f"cat {folder}/listing" if command == "lsblk" else f"exit {int(command == failing)}"
            stand_in.write_text(f'#!/bin/sh\necho "{command} $*" >> {self.calls_file}\n{end}\n')
            stand_in.chmod(0o755)

    def start(self, kind: str) -> bool:
        """Run the script; whether it said that all went well."""
        script = re.sub(r"(?<![\w/])/(etc|run|mnt|dev/console)", rf"{self.folder}/\1", script_of(rendered(kind)))
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        return subprocess.run(["bash", "-c", script], env={"PATH": path}, capture_output=True).returncode == 0

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().replace(str(self.folder), "").splitlines()

    @property
    def joins(self) -> bool:
        """Whether systemd would let the ECS agent start: by the condition that the script gave it."""
        (drop_in,) = (self.folder / "etc/systemd/system/ecs.service.d").iterdir()
        (test,) = re.findall(r"(?m)^ExecStartPre=(.*)$", drop_in.read_text())
        return subprocess.run(test.split()).returncode == 0


@every_kind
def test_a_machine_with_its_folder_joins_the_cluster(kind: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, disks=1)
    assert machine.start(kind)
    assert machine.joins
    assert machine.calls[-1] == "chown 1000:1000 /mnt/databases"
    assert (tmp_path / "mnt/databases").is_dir()
    settings = (tmp_path / "etc/ecs/ecs.config").read_text().splitlines()
    assert settings[0] == "ECS_CLUSTER=given-by-batch", "what AWS Batch wrote must stay"
    assert "ECS_IMAGE_PULL_BEHAVIOR=prefer-cached" in settings


def test_a_job_that_is_told_to_end_has_its_time_before_it_is_killed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.start("root")
    settings = dict(line.split("=") for line in (tmp_path / "etc/ecs/ecs.config").read_text().splitlines())
    assert settings["ECS_ENABLE_SPOT_INSTANCE_DRAINING"] == "true"
    # After its notice a Spot machine has 120 s.
    assert GRACE_SECONDS < float(settings["ECS_CONTAINER_STOP_TIMEOUT"].removesuffix("s")) < 120


@pytest.mark.parametrize(
    ("kind", "disks", "failing"),
    [
        ("nvme", 0, ""),
        ("nvme", 1, "mkfs.xfs"),
        ("nvme", 1, "mount"),
        ("nvme", 2, "mdadm"),
        ("fsx", 0, "dnf"),
        ("fsx", 0, "mount"),
        ("fsx", 0, "mountpoint"),
        ("root", 0, "chown"),
    ],
)
def test_a_machine_without_its_folder_never_joins_and_goes(kind: str, disks: int, failing: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, disks=disks, failing=failing)
    assert not machine.start(kind)
    assert not machine.joins
    assert "shutdown -h +10" in machine.calls


def test_one_disk_needs_no_raid_and_several_become_one(tmp_path: Path) -> None:
    for disks in (1, 4):
        (tmp_path / str(disks)).mkdir()
        machine = Machine(tmp_path / str(disks), disks=disks)
        assert machine.start("nvme")
        raids = [call for call in machine.calls if call.startswith("mdadm")]
        device = "/dev/nvme1n1" if disks == 1 else "/dev/md0"
        assert f"mkfs.xfs -f {device}" in machine.calls
        assert len(raids) == (disks > 1)
    assert "--raid-devices=4 /dev/nvme1n1 /dev/nvme2n1 /dev/nvme3n1 /dev/nvme4n1" in raids[0]


def test_nothing_but_the_folder_is_prepared_where_the_root_volume_holds_databases(tmp_path: Path) -> None:
    machine = Machine(tmp_path, disks=2)
    assert machine.start("root")
    assert [call.split()[0] for call in machine.calls] == ["systemctl", "chown"]
