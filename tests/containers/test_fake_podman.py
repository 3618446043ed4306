"""The podman engine of the fake AWS: what it says of jobs must be worded as AWS Batch words it."""

from pathlib import Path

import pytest

from tests.containers.podman import build_worker
from tests.fake_aws import FakeAws
from tests.unit.test_fake_aws import Account


@pytest.mark.podman
def test_the_podman_engine_mounts_limits_and_words_things_as_batch_does(tmp_path: Path) -> None:
    worker = build_worker(tmp_path)
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "file").write_text("hello\n")
    images = {"worker:latest": worker.image}
    environment = dict(worker.podman.environment)
    with FakeAws(engine="podman", podman_environment=environment, podman_images=images, time_scale=0.05) as aws:
        account = Account(aws, aws.set_up())
        account.define(
            "job",
            volumes=[{"name": "v", "host": {"sourcePath": str(tmp_path / "mounted")}}],
            mountPoints=[{"sourceVolume": "v", "containerPath": "/data", "readOnly": True}],
            linuxParameters={"sharedMemorySize": 96},
        )
        job = account.run("sh", "-c", "cat /data/file; df -m /dev/shm | tail -1; touch /data/x || exit 4")
        assert (job["container"]["exitCode"], aws.logs(job)[0]) == (4, "hello")
        assert aws.logs(job)[1].split()[1] == "96"
        hog = "x = b'1' * 600_000_000; import time; time.sleep(60)"
        assert account.run("python", "-c", hog)["container"]["reason"].startswith("OutOfMemoryError")
        child = account.run("sh", "-c", f'python -c "{hog}"; echo "tool ended with $?"; exit 1')
        assert child["container"]["exitCode"] == 1
        assert "tool ended with 137" in aws.logs(child)
        deaf = "trap 'echo asked; exit 5' TERM; while :; do sleep 0.1; done"
        late = account.run("sh", "-c", deaf, timeout={"attemptDurationSeconds": 60})
        assert (late["statusReason"], late["container"]["exitCode"]) == ("Job attempt duration exceeded timeout", 5)
        assert account.run("no-such-program")["container"]["reason"].startswith("CannotStartContainerError")
        account.define("elsewhere", image="no-such-image:1")
        assert account.run("true", definition="elsewhere")["container"]["reason"].startswith("CannotPullContainer")
