"""What the workflow plans: few jobs, the same ones whatever lies on disk, and clear words for a bad sheet."""

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Clone

SHEET = Callable[..., Path]


def job_counts(output: str) -> dict[str, int]:
    """The last "Job stats" table of a dry run."""
    table = output[output.rindex("Job stats:") :]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def commands(output: str) -> set[str]:
    """The shell commands that a dry run with --printshellcmds shows."""
    return set(re.findall(r"python -m snakefold .*", output))


def sequences(number: int, length: int = 80) -> list[str]:
    chance = random.Random(5)
    return ["".join(chance.choices("ACDEFGHIKLMNPQRSTVWY", k=length)) for _ in range(number)]


def test_the_example_needs_one_job_a_step_and_one_score_a_target(clone: Clone) -> None:
    assert job_counts(clone.run("--dry-run")) == {
        "all": 1,
        "conclude": 1,
        "download_database": 4,
        "fold": 1,
        "relax": 1,
        "report": 1,
        "score": 6,
        "search_msa": 1,
        "search_templates": 1,
        "summarize": 1,
        "take_inputs": 1,
        "total": 19,
    }


def test_a_dry_run_writes_nothing_of_ours_and_reads_no_results(clone: Clone) -> None:
    before = clone.run("--dry-run", "--forceall", "--printshellcmds")
    assert not (clone.folder / ".snakefold").exists()
    assert not (clone.folder / "results").exists()
    for place in ("results/trypsin/template", ".snakefold/work/fold/template", ".snakefold/store/blobs"):
        (clone.folder / place).mkdir(parents=True)
    (clone.folder / "results/trypsin/template/status.json").write_text("not even JSON")
    after = clone.run("--dry-run", "--forceall", "--printshellcmds")
    assert commands(before) == commands(after)
    assert len(commands(before)) == 18


def test_the_order_of_the_sheet_does_not_change_the_jobs(clone: Clone, write_sheet: SHEET) -> None:
    rows = [{"id": f"t{number}", "sequence": sequence} for number, sequence in enumerate(sequences(40))]
    one = clone.run("-n", "-p", "--config", f"samples={write_sheet(*rows)}")
    two = clone.run("-n", "-p", "--config", f"samples={write_sheet(*reversed(rows))}")

    def without_receipts(output: str) -> set[str]:
        return {command.split(" --receipts")[0] for command in commands(output)}

    assert without_receipts(one) == without_receipts(two)


def test_a_thousand_targets_need_few_jobs_beside_their_scores(clone: Clone, write_sheet: SHEET) -> None:
    rows = [{"id": f"t{number}", "sequence": sequence} for number, sequence in enumerate(sequences(1000))]
    counts = job_counts(clone.run("--dry-run", "--quiet", "rules", "--config", f"samples={write_sheet(*rows)}"))
    assert counts["score"] == 1000
    assert counts["total"] - counts["score"] < 150


def test_a_changed_setting_of_a_late_step_leaves_the_early_steps_alone(copy_of_finished: Clone) -> None:
    assert "Nothing to be done" in copy_of_finished.run("--dry-run")
    config = copy_of_finished.folder / "config/config.yaml"
    config.write_text(config.read_text().replace("tolerance: 10.0", "tolerance: 20.0"))
    counts = job_counts(copy_of_finished.run("--dry-run"))
    assert counts["relax"] == 1
    assert counts["score"] == 6
    assert not {"search_msa", "search_templates", "fold", "download_database"} & counts.keys()


def test_all_faults_of_a_sheet_come_at_once_each_on_its_line_and_no_traceback(clone: Clone, write_sheet: SHEET) -> None:
    good = sequences(1)[0]
    sheet = write_sheet(
        {"id": "fine", "sequence": good},
        {"id": "fine", "sequence": good},
        {"id": "two words", "sequence": good},
        {"id": "letters", "sequence": good[:10] + "1" + good[10:]},
        {"id": "nothing", "sequence": ""},
        {"id": "lost", "sequence": good, "reference": "no/such.cif"},
        {"id": "engine", "sequence": good, "engines": "alphafold9"},
    )
    output = clone.run("--dry-run", "--config", f"samples={sheet}", code=1)
    for row in (3, 4, 5, 6, 7, 8):
        assert f"{sheet}:{row}: " in output
    assert f"\n{sheet}:2:" not in output
    assert "Traceback" not in output


def test_a_reference_that_does_not_match_ends_the_run_before_the_first_job(clone: Clone, write_sheet: SHEET) -> None:
    reference = clone.folder / "data/mini/targets/ubiquitin.cif.gz"
    sheet = write_sheet({"id": "wrong", "sequence": sequences(1)[0], "reference": str(reference)})
    clone.run("--dry-run", "--config", f"samples={sheet}")
    output = clone.run("--config", f"samples={sheet}", code=1)
    assert f"{sheet}:2: reference" in output
    assert "Traceback" not in output
    assert not (clone.folder / ".snakefold/databases").exists()
    assert f"{sheet}:2: reference" in clone.snakefold("check", str(sheet), code=1)


def test_a_wrong_setting_is_named_in_one_line(clone: Clone) -> None:
    output = clone.run("--dry-run", "--config", "engine=[template]", code=1)
    assert "config: engine: there is no such key; did you mean engines?" in output
    assert "Traceback" not in output


def test_a_preset_that_cannot_be_searched_is_refused_before_its_download(clone: Clone) -> None:
    output = clone.run("--dry-run", "--config", "databases={preset: colabfold}", code=1)
    assert "this version cannot search" in output
    assert "Traceback" not in output


def test_an_engine_on_a_gpu_asks_for_one_and_its_weights_and_for_no_search(clone: Clone, write_sheet: SHEET) -> None:
    sheet = write_sheet(*({"id": f"t{number}", "sequence": each} for number, each in enumerate(sequences(3, 400))))
    output = clone.run("--dry-run", "--config", f"samples={sheet}", "engines=esmfold")
    counts = job_counts(output)
    assert (counts["download_database"], counts["fold"], "search_msa" in counts) == (1, 1, False)
    assert "esmfold_v1/manifest.json" in output
    resources = dict(re.findall(r"(\w+)=([^,\s]+)", output[output.index("rule fold:") :].partition("resources: ")[2]))
    assert (resources["gpu"], resources["batch_image"]) == ("1", "esmfold")
    assert 15_000 < int(resources["gpu_mem_mb"]) < 24_000


def test_only_targets_of_several_engines_have_them_compared(clone: Clone, write_sheet: SHEET) -> None:
    engines = ("template", "template,esmfold", "esmfold", "esmfold,boltz,template")
    rows = [
        {"id": f"t{number}", "sequence": sequence, "engines": of_row}
        for number, (sequence, of_row) in enumerate(zip(sequences(4), engines, strict=True))
    ]
    output = clone.run("--dry-run", "-p", "--config", f"samples={write_sheet(*rows)}")
    counts = job_counts(output)
    assert (counts["score"], counts["compare_engines"]) == (7, 2)
    compared = sorted(line for line in commands(output) if "compare-engines" in line)
    folders = "results/t1/template results/t1/esmfold"
    assert f"compare-engines {folders} --comparison results/t1/comparison.template-esmfold.json" in compared[0]
    assert "results/t3/esmfold results/t3/boltz results/t3/template --comparison" in compared[1]


def test_without_records_the_table_of_another_choice_of_engines_is_not_taken_for_this_ones(
    clone: Clone, write_sheet: SHEET
) -> None:
    sheet = write_sheet({"id": "one", "sequence": sequences(1)[0]})
    run = ("-n", "--config", f"samples={sheet}", "engines=[template,esmfold]")
    made = re.findall(r"[^\s,]+", " ".join(re.findall(r"^    output: (.*)$", clone.run(*run), re.MULTILINE)))
    # All is there but the timings: so a run with other engines leaves it on a storage when it has summarized.
    for path in (clone.folder / name for name in made if "/timings/" not in name):
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True)
            (path / ".snakemake_timestamp").touch()
    for path in clone.folder.rglob("*"):
        os.utime(path, (1, 1))
    counts = job_counts(clone.run(*run))
    assert {name for name in counts if name != "total"} == {"summarize", "report", "conclude", "all"}


def test_a_target_too_long_for_the_largest_gpu_is_a_fault_of_the_sheet(clone: Clone, write_sheet: SHEET) -> None:
    sheet = write_sheet({"id": "long", "sequence": sequences(1, 900)[0]})
    output = clone.run("-n", "--config", f"samples={sheet}", "engines=esmfold", "plan={gpu_memory_mb: 24000}", code=1)
    assert "sheet.tsv:2: " in output
    assert "takes at most 642 residues, the target has 900" in output
