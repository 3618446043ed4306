"""The workflow through `--profile aws-batch`: a real S3 and Batch API (moto's), whose jobs really run as processes.

Everything that AWS does to jobs happens here to those of short runs. What must hold in every case: the results are
those of an undisturbed run, and what was stored before a job ended is not computed again.
"""

import json
import os
import re
import shutil
import signal
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Clone
from tests.e2e.aws import Account, AwsClone, bring, make_aws_clone
from tests.e2e.test_example import TIMES, digests

SAMPLES = {
    row["id"]: row["sequence"]
    for header, *lines in [[line.split("\t") for line in Path("config/samples.tsv").read_text().splitlines()]]
    for row in [dict(zip(header, line, strict=False)) for line in lines]
}
SHORT = ("hiv_protease_monomer", "tcr_vbeta")
"""Two targets of about a hundred residues: seconds to fold."""

STORE = "stores/shared"
SEARCHES = ("databases", "search_msa", "search_templates")


def short_rows(*names: str) -> list[dict[str, str]]:
    return [{"id": name, "sequence": SAMPLES[name]} for name in names or SHORT]


@pytest.fixture(scope="session")
def searched(account: Account, tmp_path_factory: pytest.TempPathFactory) -> AwsClone:
    """A run that has searched for the two short targets, and gone no further."""
    folder = tmp_path_factory.mktemp("searched")
    clone = make_aws_clone(account, folder, "searched")
    (folder / "sheet.tsv").write_text("id\tsequence\n" + "".join(f"{name}\t{SAMPLES[name]}\n" for name in SHORT))
    clone.run("--config", f"samples={folder / 'sheet.tsv'}", f"store={STORE}", "--until", "search_templates")
    return clone


def seed_of_results(clone: AwsClone, name: str) -> int:
    return json.loads(clone.account.text(clone.prefix(f"results/{name}/template/scores.json")))["seed"]


def test_a_controller_without_records_takes_no_results_of_other_settings_for_its_own(
    aws_clone: AwsClone, searched: AwsClone, write_sheet
) -> None:
    """As a launched controller, or a colleague's, that finds another plan's results under its run's name."""
    bring(aws_clone.account, aws_clone.name, of="searched", steps=["databases"])
    name = "tcr_vbeta"
    sheet = write_sheet(*short_rows(name))
    for seed in (0, 1, 0):
        shutil.rmtree(aws_clone.folder / ".snakemake", ignore_errors=True)
        aws_clone.run("--config", f"samples={sheet}", f"store={STORE}", f"seed={seed}")
        assert seed_of_results(aws_clone, name) == seed
        assert outcome(aws_clone)["done"] == [f"{name}/template"]
    shutil.rmtree(aws_clone.folder / ".snakemake")
    assert "Nothing to be done" in aws_clone.run("--config", f"samples={sheet}", f"store={STORE}", "seed=0")


@pytest.fixture
def fold_only(aws_clone: AwsClone, searched: AwsClone, write_sheet) -> Callable[..., list[str]]:
    """Arguments of a run that begins with the folding of the two short targets, not folded before, and ends there.

    Targets that differ in their seeds share searches, but no models.
    """

    def arguments(seeds: int = 1, threads: int = 1) -> list[str]:
        bring(aws_clone.account, aws_clone.name, of="searched", steps=SEARCHES)
        first = zlib.crc32(aws_clone.name.encode()) // 2
        rows = [
            row | {"id": f"{row['id']}_{number}", "seed": str(first + number)}
            for row in short_rows()
            for number in range(seeds)
        ]
        settings = ["--config", f"samples={write_sheet(*rows)}", f"store={STORE}"]
        return [*settings, "--until", "fold", "--set-threads", f"fold={threads}"]

    return arguments


def folded(clone: AwsClone) -> list[str]:
    """How the members of the fold batch ended, as its receipt says."""
    (key,) = clone.account.objects(clone.prefix(".snakefold/work/fold/template/"))
    return [member["status"] for member in json.loads(clone.account.text(key))["members"].values()]


def members(text: str, step: str) -> tuple[int, int]:
    """How many members the batches of a step computed and how many they did not, as their last lines say."""
    found = re.findall(rf"^\[{step} .*\] (\d+) computed, (\d+) not", text, re.MULTILINE)
    assert found, text
    return sum(int(one) for one, _ in found), sum(int(two) for _, two in found)


def states(clone: AwsClone, rule: str = "") -> list[str]:
    return [job["status"] for job in clone.jobs(rule)]


def outcome(clone: AwsClone) -> dict[str, list[str]]:
    return json.loads(clone.account.text(clone.prefix("results/outcome.json")))


def wait_until(clone: AwsClone, condition, seconds: float = 120, what: str = "the condition"):
    return clone.account.aws.wait_for(condition, seconds, what)


def test_the_example_gives_the_same_files_as_a_run_on_one_machine(
    aws_clone: AwsClone, finished: Clone, tmp_path: Path
) -> None:
    output = aws_clone.run()
    assert "5 done, 1 skipped, 0 failed" in output
    jobs = aws_clone.jobs()
    # Six scores go with the relaxation; what takes in files and what concludes stays with the controller.
    assert len(jobs) == 10
    assert {job["status"] for job in jobs} == {"SUCCEEDED"}
    assert not list((aws_clone.folder / "results").glob("*")), "nothing of the results belongs on this machine"
    aws_clone.snakefold("pull", "--all", "--to", str(tmp_path / "home/results"))
    pulled = Clone(tmp_path / "home")
    here, there = digests(finished), digests(pulled)
    assert here.keys() == there.keys()
    assert {name for name in here if here[name] != there[name]} <= {TIMES}

    again = aws_clone.run()
    assert "Nothing to be done" in again
    assert len(aws_clone.jobs()) == 10

    # Another run finds the work of this one, whatever its own name.
    other = make_aws_clone(aws_clone.account, tmp_path / "other", f"{aws_clone.name[:50]}-2")
    other.run("--until", "search_templates")
    for step in ("search_msa", "search_templates"):
        (job,) = other.jobs(step)
        assert members(other.log_of(job), step)[0] == 0, step


def test_an_untracked_sheet_outside_the_repository_reaches_the_workers_with_its_files(
    aws_clone: AwsClone, searched: AwsClone, finished: Clone, write_sheet, tmp_path: Path
) -> None:
    name = "tcr_vbeta"
    model = next((finished.folder / "results").glob(f"{name}/template/template/*.cif.gz"))
    reference = finished.folder / f"data/mini/targets/{name}.cif.gz"
    files = tmp_path / "files"
    files.mkdir()
    (files / "chain.fasta").write_text(f">{name}\n{SAMPLES[name]}\n")
    (files / "chain.a3m").write_text(f">{name}\n{SAMPLES[name]}\n")
    (files / "own.cif.gz").write_bytes(model.read_bytes())
    (files / "truth.cif.gz").write_bytes(reference.read_bytes())
    row = {"fasta": "chain.fasta", "msa": "chain.a3m", "template": "own.cif.gz", "reference": "truth.cif.gz"}
    sheet = write_sheet({"id": name} | {column: f"files/{file}" for column, file in row.items()})
    bring(aws_clone.account, aws_clone.name, of="searched", steps=["databases"])
    process = aws_clone.start("--config", f"samples={sheet}", f"store={STORE}")
    # Once the jobs are on their way, the workers could reach none of these paths: all of it must have travelled.
    wait_until(aws_clone, lambda: aws_clone.jobs("fold"), what="the fold job")
    away = tmp_path / "away"
    files.rename(away)
    sheet.rename(tmp_path / "sheet.gone")
    output, _ = process.communicate(timeout=300)
    away.rename(files)
    (tmp_path / "sheet.gone").rename(sheet)
    assert "Finished jobid" in output
    assert {job["status"] for job in aws_clone.jobs()} == {"SUCCEEDED"}, output
    scores = json.loads(aws_clone.account.text(aws_clone.prefix(f"results/{name}/template/scores.json")))
    assert scores["reference"]["name"] == "truth.cif.gz"
    assert scores["chains"][0]["msa_depth"] == 1
    assert scores["templates"][0]["entry"]


def test_a_storm_of_faults_changes_no_result_and_repeats_no_finished_member(
    aws_clone: AwsClone, searched: AwsClone, finished: Clone, write_sheet, tmp_path: Path
) -> None:
    """Spot reclaim in the middle of a batch, an image that cannot be pulled, S3 and Batch that slow us down."""
    aws_clone.account.aws.configure(rates={"SubmitJob": 1, "DescribeJobs": 2})
    aws_clone.account.aws.faults(
        [
            {"kind": "spot", "match": "*-fold-*", "after_line": "1/2"},
            {"kind": "spot", "match": "*-relax_and_score*", "after_line": "1/2"},
            {"kind": "pull", "match": "*-search_msa-*"},
            {"kind": "slow_down", "service": "s3", "share": 0.1, "times": 40},
            {"kind": "internal_error", "service": "s3", "share": 0.05, "times": 10},
            {"kind": "cut_reply", "service": "s3", "operation": "GetObject", "share": 0.05, "times": 5},
        ]
    )
    bring(aws_clone.account, aws_clone.name, of="searched", steps=["databases"])
    settings = ["--config", f"samples={write_sheet(*short_rows())}", f"store=stores/{aws_clone.name}"]
    output = aws_clone.run(*settings, "--set-threads", "fold=1", "relax=1")
    assert "2 done, 0 skipped, 0 failed" in output
    for rule, step in (("fold", "fold"), ("relax_and_score", "relax")):
        (job,) = aws_clone.jobs(rule)
        assert len(job["attempts"]) == 2
        assert job["attempts"][0]["statusReason"].startswith("Host EC2")
        assert members(aws_clone.log_of(job), step) == (1, 1)
    (search,) = aws_clone.jobs("search_msa")
    assert "CannotPullContainerError" in json.dumps(search["attempts"][0])
    stats = aws_clone.account.aws.stats()
    assert any(key.endswith(":slow_down") for key in stats)
    aws_clone.snakefold("pull", "--all", "--to", str(tmp_path / "home"))
    for name in SHORT:
        for file in (f"{name}/template/model.cif", f"{name}/template/confidence.json"):
            here, there = finished.folder / "results", tmp_path / "home"
            assert (here / file).read_bytes() == (there / file).read_bytes()


def test_out_of_memory_gets_more_of_it_and_keeps_what_was_finished(
    aws_clone: AwsClone, fold_only: Callable[..., list[str]]
) -> None:
    # As the kernel does: the process that has most goes, not the container.
    aws_clone.account.aws.configure(oom_kills="largest")
    # Four workers need more than the least that the executor asks for.
    output = aws_clone.run(*fold_only(seeds=2, threads=4), "--set-resources", "fold:mem_mb=500 * attempt ** 2")
    assert "(out_of_memory)" in output
    first, *_, last = aws_clone.jobs("fold")
    assert (first["status"], last["status"]) == ("FAILED", "SUCCEEDED")
    assert folded(aws_clone) == ["done"] * 4


def test_a_job_over_its_time_limit_goes_on_where_it_was(
    aws_clone: AwsClone, fold_only: Callable[..., list[str]]
) -> None:
    aws_clone.account.aws.configure(time_scale=0.05)
    # Three seconds are too few for the first member, and the next attempts have more.
    output = aws_clone.run(*fold_only(), "--set-resources", "fold:runtime=5 ** (attempt - 1)")
    assert "(timeout)" in output
    *earlier, last = aws_clone.jobs("fold")
    assert {job["status"] for job in earlier} == {"FAILED"}
    assert last["status"] == "SUCCEEDED"
    assert folded(aws_clone) == ["done", "done"]


def test_killed_controllers_jobs_are_adopted_and_none_is_submitted_twice(
    aws_clone: AwsClone, fold_only: Callable[..., list[str]]
) -> None:
    folding = fold_only()
    controller = aws_clone.start(*folding)
    wait_until(aws_clone, lambda: "RUNNING" in states(aws_clone, "fold"), what="a running fold job")
    os.killpg(controller.pid, signal.SIGKILL)
    controller.communicate()
    output = aws_clone.run(*folding)
    assert len(aws_clone.jobs()) == 1, output
    assert folded(aws_clone) == ["done", "done"]
    (line,) = aws_clone.account.text(aws_clone.prefix(".fleet/ledger.jsonl")).splitlines()
    assert json.loads(line)["rule"] == "fold"


def test_ctrl_c_ends_every_job_and_a_second_controller_is_refused_before(
    aws_clone: AwsClone, fold_only: Callable[..., list[str]]
) -> None:
    aws_clone.account.aws.configure(time_scale=0.1)
    # A shell starts what runs in the background with Ctrl-C ignored, and so would these processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folding = fold_only()
    controller = aws_clone.start(*folding)
    wait_until(aws_clone, lambda: "RUNNING" in states(aws_clone, "fold"), what="a running fold job")
    second = make_aws_clone(aws_clone.account, aws_clone.folder.parent / "second", aws_clone.name)
    refused = second.run(*folding, code=1)
    assert "Traceback" not in refused
    assert f"process {controller.pid}" in refused, refused
    os.kill(controller.pid, signal.SIGINT)
    output, _ = controller.communicate(timeout=120)
    assert controller.returncode != 0
    assert "Ending 1 AWS Batch job" in output
    wait_until(aws_clone, lambda: states(aws_clone) == ["FAILED"], what="the end of the job")
    assert aws_clone.account.objects(aws_clone.prefix(".fleet/lock.json")) == []


def test_a_launched_run_survives_its_controller_and_its_report_comes_home(
    aws_clone: AwsClone, searched: AwsClone, write_sheet, tmp_path: Path
) -> None:
    bring(aws_clone.account, aws_clone.name, of="searched", steps=SEARCHES)
    settings = ["--config", f"samples={write_sheet(*short_rows())}", f"store={STORE}", "seed=7"]
    aws_clone.snakefold("launch", *settings)
    wait_until(aws_clone, lambda: "RUNNING" in states(aws_clone, "fold"), what="a fold job of the launched run")
    assert "fold" in aws_clone.snakefold("status")
    (controller,) = controllers(aws_clone)
    # As the loss of its machine: it has no time to end what it started.
    aws_clone.account.aws.configure(time_scale=0.001)
    aws_clone.account.aws.client("batch").terminate_job(jobId=controller["jobId"], reason="a test")
    wait_until(aws_clone, lambda: controllers(aws_clone)[0]["status"] == "FAILED", what="the end of the controller")
    aws_clone.account.aws.configure(time_scale=1.0)
    aws_clone.snakefold("launch", *settings)
    wait_until(aws_clone, lambda: controllers(aws_clone)[-1]["status"] == "SUCCEEDED", 300, "the end of the run")
    assert len(controllers(aws_clone)) == 2
    assert outcome(aws_clone)["done"] == [f"{name}/template" for name in SHORT]
    text = "\n".join(map(aws_clone.log_of, aws_clone.jobs("fold")))
    assert text.count("/2 tcr_vbeta done") == 1, "computed once, whoever waited for it"
    assert "2 done" in aws_clone.snakefold("logs", "--lines", "100")
    aws_clone.snakefold("pull", "--to", str(tmp_path / "home"))
    assert "tcr_vbeta" in (tmp_path / "home/summary.tsv").read_text()
    assert (tmp_path / "home/report/index.html").is_file()
    assert not (tmp_path / "home/tcr_vbeta").exists()


def controllers(clone: AwsClone) -> list[dict]:
    return clone.jobs("controller")
