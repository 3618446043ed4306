"""The workflow through `--profile aws-batch`: a real S3 and Batch API (moto's), whose jobs really run as processes.

Everything that AWS does to jobs happens here to those of short runs. What must hold in every case: the results are
those of an undisturbed run, and what was stored before a job ended is not computed again.
"""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.conftest import Clone
from tests.e2e.aws import AwsClone, bring_databases, make_aws_clone
from tests.e2e.test_example import TIMES, digests

SAMPLES = {
    row["id"]: row["sequence"]
    for header, *lines in [[line.split("\t") for line in Path("config/samples.tsv").read_text().splitlines()]]
    for row in [dict(zip(header, line, strict=False)) for line in lines]
}
SHORT = ("hiv_protease_monomer", "tcr_vbeta")
"""Two targets of about a hundred residues: seconds to fold."""


def short_run(clone: AwsClone, sheet: Path, *arguments: str) -> list[str]:
    """Arguments of a run of a sheet with a store of its own."""
    bring_databases(clone.account, clone.name)
    return ["--config", f"samples={sheet}", f"store=stores/{clone.name}", *arguments]


def short_rows(*names: str) -> list[dict[str, str]]:
    return [{"id": name, "sequence": SAMPLES[name]} for name in names or SHORT]


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


def test_a_new_run_of_the_same_targets_computes_nothing(aws_clone: AwsClone, write_sheet, tmp_path: Path) -> None:
    arguments = short_run(aws_clone, write_sheet(*short_rows()))
    aws_clone.run(*arguments)
    other = make_aws_clone(aws_clone.account, tmp_path / "other", f"{aws_clone.name}-2")
    bring_databases(other.account, other.name)
    other.run(*arguments)
    for step in ("search_msa", "search_templates", "fold", "relax"):
        rule = step.replace("relax", "relax_and_score")
        text = "\n".join(map(other.log_of, other.jobs(rule)))
        assert members(text, step) == (0, 2), step


def test_an_untracked_sheet_outside_the_repository_reaches_the_workers_with_its_files(
    aws_clone: AwsClone, finished: Clone, write_sheet, tmp_path: Path
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
    process = aws_clone.start(*short_run(aws_clone, sheet))
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
    aws_clone: AwsClone, finished: Clone, write_sheet, tmp_path: Path
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
    sheet = write_sheet(*short_rows())
    output = aws_clone.run(*short_run(aws_clone, sheet, "--set-threads", "fold=1", "relax=1"))
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


@pytest.mark.parametrize("kills", ["container", "largest"])
def test_out_of_memory_gets_more_of_it_and_keeps_what_was_finished(
    aws_clone: AwsClone, write_sheet, kills: str
) -> None:
    aws_clone.account.aws.configure(oom_kills=kills)
    sheet = write_sheet(*short_rows("tcr_vbeta"))
    output = aws_clone.run(*short_run(aws_clone, sheet, "--set-resources", "fold:mem_mb=250 * attempt ** 2"))
    assert "out_of_memory" in output
    assert "1 done, 0 skipped, 0 failed" in output
    first, *_, last = aws_clone.jobs("fold")
    assert (first["status"], last["status"]) == ("FAILED", "SUCCEEDED")


def test_a_job_over_its_time_limit_goes_on_where_it_was(aws_clone: AwsClone, write_sheet) -> None:
    # The fake's clock: a minute takes twelve seconds.
    sheet = write_sheet(*short_rows(*SHORT, "hla_b44"))
    arguments = short_run(aws_clone, sheet, "--set-threads", "fold=1", "--set-resources", "fold:runtime=2 ** attempt")
    output = aws_clone.run(*arguments)
    assert "timeout" in output
    assert "3 done, 0 skipped, 0 failed" in output
    *_, last = aws_clone.jobs("fold")
    computed, _ = members(aws_clone.log_of(last), "fold")
    assert computed < 3


def test_killed_controllers_jobs_are_adopted_and_none_is_submitted_twice(aws_clone: AwsClone, write_sheet) -> None:
    arguments = short_run(aws_clone, write_sheet(*short_rows("tcr_vbeta")))
    controller = aws_clone.start(*arguments)
    wait_until(aws_clone, lambda: "RUNNING" in states(aws_clone, "fold"), what="a running fold job")
    os.killpg(controller.pid, signal.SIGKILL)
    controller.communicate()
    output = aws_clone.run(*arguments)
    assert "1 done, 0 skipped, 0 failed" in output
    assert len(aws_clone.jobs("fold")) == 1
    names = [job["jobName"] for job in aws_clone.jobs()]
    assert len(names) == len(set(names))
    # The ledger of both controllers is one, with each attempt once.
    lines = aws_clone.account.text(aws_clone.prefix(".fleet/ledger.jsonl")).splitlines()
    assert len(lines) == len({(json.loads(line)["job_id"], json.loads(line)["attempt"]) for line in lines})
    assert {json.loads(line)["rule"] for line in lines} >= {"fold", "search_msa"}


def test_ctrl_c_ends_every_job_and_a_second_controller_is_refused_before(aws_clone: AwsClone, write_sheet) -> None:
    arguments = short_run(aws_clone, write_sheet(*short_rows("tcr_vbeta")))
    controller = aws_clone.start(*arguments)
    wait_until(aws_clone, lambda: "RUNNING" in states(aws_clone, "fold"), what="a running fold job")
    second = make_aws_clone(aws_clone.account, aws_clone.folder.parent / "second", aws_clone.name)
    refused = second.run(*arguments, code=1)
    assert "Traceback" not in refused
    assert re.search(r"(?i)another controller|is controlled by|holds", refused), refused
    os.kill(controller.pid, signal.SIGINT)
    output, _ = controller.communicate(timeout=120)
    assert controller.returncode != 0
    assert not {"SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"} & set(states(aws_clone)), output
    assert ".fleet/lock.json" not in "".join(aws_clone.account.objects(aws_clone.prefix(".fleet/")))
    assert "1 done" in aws_clone.run(*arguments)


def test_a_launched_run_survives_its_controller_and_its_report_comes_home(
    aws_clone: AwsClone, write_sheet, tmp_path: Path
) -> None:
    sheet = write_sheet(*short_rows("tcr_vbeta"))
    bring_databases(aws_clone.account, aws_clone.name)
    settings = ["--config", f"samples={sheet}", f"store=stores/{aws_clone.name}"]
    aws_clone.snakefold("launch", *settings)
    wait_until(aws_clone, lambda: aws_clone.jobs("fold"), what="the fold job of the launched run")
    assert "fold" in aws_clone.snakefold("status")
    (controller,) = [job for job in aws_clone.jobs() if "controller" in job["jobName"]]
    aws_clone.account.aws.client("batch").terminate_job(jobId=controller["jobId"], reason="a test")
    wait_until(aws_clone, lambda: states(aws_clone, "controller") == ["FAILED"], what="the end of the controller")
    aws_clone.snakefold("launch", *settings)
    wait_until(aws_clone, lambda: states(aws_clone, "controller") == ["FAILED", "SUCCEEDED"], 300, "the end")
    assert outcome(aws_clone)["done"] == ["tcr_vbeta/template"]
    assert "1 done" in aws_clone.snakefold("logs", "--lines", "100")
    aws_clone.snakefold("pull", "--to", str(tmp_path / "home"))
    assert "tcr_vbeta" in (tmp_path / "home/summary.tsv").read_text()
    assert (tmp_path / "home/report/index.html").is_file()
    assert not (tmp_path / "home/tcr_vbeta").exists()
