"""Runs that are stopped, killed, or meet a bad target: nothing finished is lost, and nothing bad goes unsaid."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Clone
from tests.e2e.test_example import computed, rows

SHEET = Callable[..., Path]


def records(clone: Clone) -> int:
    return len(list((clone.folder / ".snakefold/store/actions").glob("??/*.json")))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_goes_on_where_it_was(clone: Clone, how: signal.Signals) -> None:
    process = clone.start()
    deadline = time.monotonic() + 300
    # Five MSAs, five template searches, and the first models: stopped in the middle of the fold batch.
    while records(clone) < 12:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, how)
    process.communicate(timeout=60)
    kept = records(clone)
    assert process.returncode != 0
    assert not list((clone.folder / ".snakefold/work/fold").rglob("*.json"))
    assert not (clone.folder / "results/outcome.json").exists()

    if how is signal.SIGKILL:  # a killed Snakemake leaves its lock, and says so
        assert "--unlock" in clone.run(code=1)
        clone.run("--unlock")
    output = clone.run()
    assert "rule search_msa" not in output
    assert computed(output, "fold") == 16 - kept
    assert len(json.loads((clone.folder / "results/outcome.json").read_text())["done"]) == 5


def test_a_bad_target_fails_alone_by_name_and_can_be_retried(
    copy_of_finished: Clone, write_sheet: SHEET, tmp_path: Path
) -> None:
    sequences = {
        line.split("\t")[0]: line.split("\t")[1]
        for line in (copy_of_finished.folder / "config/samples.tsv").read_text().splitlines()[1:]
    }
    template = tmp_path / "template.cif.gz"
    shutil.copy(copy_of_finished.folder / "data/mini/templates/1orc.cif.gz", template)
    sheet = write_sheet(
        {"id": "good", "sequence": sequences["hla_b44"]},
        {"id": "bad", "sequence": sequences["trypsin"], "template": str(template)},
    )
    arguments = ("--config", f"samples={sheet}", "results=mixed")
    output = copy_of_finished.run(*arguments, code=1)
    assert "1 done, 0 skipped, 1 failed" in output
    assert re.search(r"failed +bad/template: \S+", output)
    table = copy_of_finished.folder / "mixed/summary.tsv"
    assert (copy_of_finished.folder / "mixed/report/index.html").exists()
    assert not (copy_of_finished.folder / "mixed/outcome.json").exists()
    lines = {line.split("\t")[0]: line.split("\t")[2] for line in table.read_text().splitlines()[1:]}
    assert lines == {"good": "done", "bad": "failed"}

    # Allowed failures end well.
    copy_of_finished.run(*arguments, "allow_failures=true")
    assert json.loads((copy_of_finished.folder / "mixed/outcome.json").read_text())["failed"] == ["bad/template"]

    # The user mends the cause: the same file now holds a usable template.
    shutil.copy(copy_of_finished.folder / "data/mini/templates/4zhl.cif.gz", template)
    output = copy_of_finished.run(*arguments)
    assert "2 done, 0 skipped, 0 failed" in output
    assert computed(output, "fold") == 1


def test_damage_in_the_store_is_found_named_and_mended_by_retry(copy_of_finished: Clone) -> None:
    (receipt,) = (copy_of_finished.folder / ".snakefold/work/fold/template").glob("*.json")
    digest = json.loads(receipt.read_text())["members"]["trypsin"]["files"]["model.cif"]
    blob = copy_of_finished.folder / ".snakefold/store/blobs" / digest[:2] / digest
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    shutil.rmtree(copy_of_finished.folder / "results/trypsin")
    output = copy_of_finished.run(code=1)
    assert "damaged" in output
    assert "snakefold retry" in output
    assert "Traceback" not in output
    assert "results withdrawn" in copy_of_finished.snakefold("retry")
    output = copy_of_finished.run()
    assert computed(output, "fold") == 1
    assert rows(copy_of_finished)["trypsin"]["status"] == "done"


def test_the_store_can_be_inspected_verified_and_emptied(copy_of_finished: Clone) -> None:
    statistics = copy_of_finished.snakefold("store", "stat")
    assert re.search(r"^search_msa +5 results$", statistics, re.MULTILINE)
    assert re.search(r"^relax +5 results$", statistics, re.MULTILINE)
    assert "0 faults" in copy_of_finished.snakefold("store", "verify")
    assert copy_of_finished.snakefold("store", "gc", "--keep-days", "1").startswith("0 results removed")
    assert copy_of_finished.snakefold("store", "gc", "--keep-days", "0").startswith("26 results removed")


def test_commands_typed_by_hand_use_the_config_of_the_folder(copy_of_finished: Clone) -> None:
    assert "search_msa" in copy_of_finished.snakefold("plan")
    assert "6 targets are fine, 0 faults" in copy_of_finished.snakefold("check")
    assert "0 faults" in copy_of_finished.snakefold("databases", "verify")
    assert "mini_templates" in copy_of_finished.snakefold("databases", "list")
    (receipt,) = (copy_of_finished.folder / ".snakefold/work/fold/template").glob("*.json")
    by_hand = copy_of_finished.folder / "by_hand.json"
    work = copy_of_finished.folder / ".snakefold/work"
    copy_of_finished.snakefold(
        "fold",
        "template",
        receipt.stem,
        "--msas",
        *map(str, (work / "search_msa/mini").glob("*.json")),
        "--templates",
        *map(str, (work / "search_templates/mini").glob("*.json")),
        "--receipt",
        str(by_hand),
    )
    assert by_hand.read_bytes() == receipt.read_bytes()
