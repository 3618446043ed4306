"""`retry` withdraws the same things from a folder and from S3, and nothing else."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from snakefold import conclusion, workflow
from snakefold.batch import MemberReceipt
from snakefold.config import Config
from snakefold.place import LocalPlace, Place, S3Place
from snakefold.workflow import Folding
from tests.unit.s3_server import S3Server
from tests.unit.store_helpers import put

ROOT = Path(__file__).parents[2]
PREFIX = "s3://bucket/runs/one"
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


@pytest.fixture(scope="module")
def running(running: S3Server) -> S3Server:
    running.client.create_bucket(Bucket="bucket")
    return running


@pytest.fixture(params=["folder", "s3"])
def folding(
    request: pytest.FixtureRequest, running: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Folding:
    """A run of two targets, one with a template of its own, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pdb").write_text("")
    (tmp_path / "s.tsv").write_text(f"id\tsequence\ttemplate\na\t{UBIQUITIN}\t\nb\t{UBIQUITIN[:50]}\tmine.pdb\n")
    config = Config(samples=("s.tsv",)).model_copy(
        update={"databases": Config().databases.model_copy(update={"registry": str(ROOT / "config/databases.yaml")})}
    )
    if request.param == "folder":
        return workflow.load(config, check_files=False)
    running.forget()
    running.environment(monkeypatch)
    for page in running.client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        for each in page.get("Contents", ()):
            running.client.delete_object(Bucket="bucket", Key=each["Key"])
    return workflow.load(config, check_files=False, prefix=PREFIX)


class Written:
    """The files of a run, in a folder or on S3."""

    def __init__(self, folding: Folding, running: S3Server) -> None:
        self.folding = folding
        self.running = running
        self.place: Place = S3Place(PREFIX) if folding.prefix else LocalPlace(Path())

    def write(self, path: str, content: str) -> None:
        if self.folding.prefix:
            self.running.client.put_object(Bucket="bucket", Key=f"runs/one/{path}", Body=content.encode())
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(content)

    def receipt(self, path: str, member: MemberReceipt) -> None:
        self.write(path, json.dumps({"step": "fold", "engine": None, "batch": "x", "members": {"a": asdict(member)}}))

    def there(self, *paths: str) -> set[str]:
        return set(self.place.read(paths))


@pytest.fixture
def written(folding: Folding, running: S3Server) -> Written:
    return Written(folding, running)


def stored(folding: Folding, folder: Path) -> str:
    """The digest of something that the store has."""
    from snakefold.store import open_store

    return put(open_store(folding.config.store), folder / "work").files["model.cif"]


def test_failures_and_what_the_store_has_lost_are_withdrawn_and_nothing_else(
    written: Written, folding: Folding, tmp_path: Path
) -> None:
    kept = stored(folding, tmp_path)
    good, failed, lost, broken = folding.receipts(None)[:4]
    written.receipt(good, MemberReceipt(step="fold", status="done", files={"model.cif": kept}))
    written.receipt(failed, MemberReceipt(step="fold", status="failed", kind="crash", reason="no luck"))
    written.receipt(lost, MemberReceipt(step="fold", status="done", files={"model.cif": kept, "pae.json": "0" * 64}))
    written.write(broken, "{half of")
    assert conclusion.withdraw_failures(folding) == 2
    assert written.there(good, failed, lost, broken) == {good, broken}
    assert conclusion.withdraw_failures(folding) == 0


def test_lists_of_the_sheets_files_go_when_the_store_has_lost_them(
    written: Written, folding: Folding, tmp_path: Path
) -> None:
    fold, score = sorted(path for path in folding.input_lists() if "search_msa" not in path)[:2]
    written.write(fold, json.dumps({"mine.pdb": "0" * 64}))
    written.write(score, json.dumps({"other.pdb": stored(folding, tmp_path)}))
    assert conclusion.withdraw_failures(folding) == 1
    assert written.there(fold, score) == {score}


def test_the_lists_are_those_that_the_rules_ask_for(folding: Folding) -> None:
    (batch,) = folding.plan.folds.values()
    wildcards = type("Wildcards", (), {"engine": "template", "batch": batch.id})
    (asked,) = folding.given_templates(wildcards)
    assert asked in folding.input_lists()


def test_folders_whose_scoring_failed_go_with_all_in_them(written: Written, folding: Folding) -> None:
    unscored, failed_before = folding.predictions(None)
    for folder, step in ((unscored, "score"), (failed_before, "fold")):
        written.write(f"{folder}/status.json", json.dumps({"status": "failed", "step": step}))
        written.write(f"{folder}/.snakemake_timestamp", "")
        written.write(f"{folder}/more/log.txt", "x")
    files = ("status.json", ".snakemake_timestamp", "more/log.txt")
    assert conclusion.withdraw_failures(folding) == 1
    assert not written.there(*(f"{unscored}/{name}" for name in files))
    assert len(written.there(*(f"{failed_before}/{name}" for name in files))) == 3


def test_the_hint_after_failures_names_the_place_of_the_run(
    folding: Folding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("{}")
    expected = "python -m snakefold retry "
    if folding.prefix:
        expected += "--profile aws-batch --run one "
    registry = folding.config.databases.model_dump(mode="json")
    table = tmp_path / "summary.tsv"
    table.write_text("target\tengine\tstatus\treason\na\ttemplate\tfailed\tno luck\n")
    (tmp_path / "timings.json").write_text('{"steps": {}}')
    # As in a job: all that the command knows of the run comes by the environment.
    monkeypatch.setenv(workflow.CONFIG_VARIABLE, json.dumps(folding.config.model_dump(mode="json")))
    monkeypatch.setenv(workflow.PREFIX_VARIABLE, folding.prefix or "")
    with pytest.raises(Exception, match="1 of 1 predictions failed") as error:
        conclusion.conclude(
            workflow.of_this_job(), table, tmp_path / "timings.json", tmp_path / "outcome.json", log=None
        )
    words = str(error.value)
    assert f"`{expected}--config " in words
    assert json.dumps(registry) in words.replace("'", "")
    assert "store=" not in words
    assert os.environ[workflow.PREFIX_VARIABLE] == (folding.prefix or "")
