"""`FakeAws`: the fake as a test uses it, a process of its own that goes when the test does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fake_aws import resources
from tests.fake_aws.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60


class FakeAws:
    """A running fake AWS. Use it by `with`; its settings are those of `Settings`, as keyword arguments.

    Jobs of the process engine find the Python that runs this test first in their PATH; give `images` for another
    environment: `{"image reference or *": {"PATH": ..., "PYTHONPATH": ...}}`.
    """

    def __init__(self, **settings: Any) -> None:
        usual = {"*": {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"}}
        self.settings = Settings.model_validate({"images": usual, **settings})
        self._process: subprocess.Popen[str] | None = None
        self._errors: Any = None
        self._clients: dict[str, resources.Clients] = {}
        self.endpoint = ""

    def __enter__(self) -> Self:
        # Standard input is the cord: it closes when this process ends, however it ends.
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fake_aws",
                "--until-stdin-closes",
                "--settings",
                self.settings.model_dump_json(),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._errors.close()

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which boto3, in any process, comes to the fake and to nowhere else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIAFAKE",
            "AWS_SECRET_ACCESS_KEY": "fake",
            "AWS_DEFAULT_REGION": resources.REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
        }

    def client(self, service: str, access_key: str = "AKIAFAKE") -> Any:
        """A boto3 client of the fake."""
        if access_key not in self._clients:
            self._clients[access_key] = resources.Clients(self.endpoint, access_key=access_key)
        return self._clients[access_key].client(service)

    def set_up(
        self, *, bucket: str = "fake-bucket", max_vcpus: int = 256, events: bool = False, image: str = "worker:latest"
    ) -> dict[str, Any]:
        """Makes bucket, roles, queues; returns the fleet in the form of its file. Counts start anew after it."""
        clients = resources.Clients(self.endpoint)
        fleet = resources.set_up(clients, bucket=bucket, max_vcpus=max_vcpus, events=events)
        fleet["images"] = {"worker": image}
        self.reset_stats()
        return fleet

    def stats(self) -> dict[str, int]:
        """Calls by `service:Operation`; `...:throttled` and `...:<fault>` count those of them that came to grief."""
        return self._control("GET", "stats")

    def reset_stats(self) -> None:
        """Starts counting anew."""
        self._control("DELETE", "stats")

    def reset(self) -> None:
        """As after `set_up`: no jobs, no faults, no objects, no counts, first settings. Queues and buckets stay."""
        self._control("POST", "reset")

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs ever submitted, as DescribeJobs shows them, whatever faults hide."""
        return self._control("GET", "jobs")

    def counts(self) -> dict[str, int]:
        """Number of jobs by status."""
        return self._control("GET", "counts")

    def job(self, job_id: str) -> dict[str, Any]:
        """One job."""
        return next(job for job in self.jobs() if job["jobId"] == job_id)

    def logs(self, job: str | dict[str, Any]) -> list[str]:
        """The log lines of a job (or its id), all attempts."""
        return self._control("GET", f"logs/{job if isinstance(job, str) else job['jobId']}")

    def faults(self, faults: Iterable[dict[str, Any]]) -> None:
        """Replaces the faults in force by these; see `JobFault` and `ServiceFault` for the fields."""
        self._control("PUT", "faults", list(faults))

    def configure(self, **settings: Any) -> None:
        """Changes settings."""
        self._control("PATCH", "settings", settings)

    def wait_for(self, condition: Callable[[], Any], seconds: float = 30, what: str = "the condition") -> Any:
        """Polls until `condition` gives something true and returns that."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} was not met in {seconds} s; jobs: {self.counts()}")
            time.sleep(0.02)
        return value

    def wait_for_job(
        self, job_id: str, statuses: Iterable[str] = ("SUCCEEDED", "FAILED"), seconds: float = 30
    ) -> dict[str, Any]:
        """Polls until a job has one of the statuses and returns the job."""
        wanted = set(statuses)
        self.wait_for(lambda: self.job(job_id)["status"] in wanted, seconds, f"{job_id} in {sorted(wanted)}")
        return self.job(job_id)

    def _wait_until_ready(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"the fake AWS did not start:\n{self._errors.read()}")
        self.endpoint = json.loads(line)["endpoint"]
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._control("GET", "health")
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.endpoint}/_fake/{path}", data=data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{method} {path}: {error.code} {error.read().decode()}") from None
