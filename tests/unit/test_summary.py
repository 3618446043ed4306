"""`results/summary.tsv`: one row per prediction, whatever became of it."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from snakefold.report.summary import COLUMNS, read_prediction, write_summary


def chain(name: str, length: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "chain": "0" * 16,
        "sequence": "A" * length,
        "length": length,
        "modelled": [[0, length]],
        **more,
    }


SCORES: dict[str, Any] = {
    "target": "p53",
    "engine": "template",
    "seed": 0,
    "length": 30,
    "chains": [
        chain("A", 20, modelled=[[2, 10], [12, 20]], invented=[[12, 14]], msa_depth=90, msa_neff=11.5),
        chain("B", 10, invented=[], msa_depth=7, msa_neff=2.0),
    ],
    "confidence": {"kind": "estimated lDDT", "mean": 81.23456},
    "ptm": None,
    "iptm": None,
    "templates": [
        {"entry": "4zhl", "chain": "U", "identity": 0.40349, "coverage": 0.97, "evalue": 3e-71},
        {"entry": "1gbt", "chain": "A", "identity": 0.3, "coverage": 0.9, "evalue": 3e-41},
    ],
    "clashes": {"before": 41, "after": 0},
    "ramachandran": {"favoured": 25, "allowed": 2, "outliers": 1, "outlier_residues": [["A", 12, "SER"]]},
    "relaxed": True,
    "notes": [],
    "reference": {
        "name": "1tup",
        "tm_score": 0.95,
        "lddt": 0.78125,
        "lddt_ca": 0.86,
        "rmsd_ca": 1.2345,
        "coverage": 1.0,
        "dockq": None,
        "per_residue_lddt": [[1.0] * 20, [1.0] * 10],
    },
}


def predict(
    results: Path, target: str, status: str = "done", scores: dict[str, Any] | None = None, **more: Any
) -> Path:
    folder = results / target / "template"
    folder.mkdir(parents=True)
    record = {"target": target, "engine": "template", "status": status, "step": "score", "kind": None, "reason": None}
    (folder / "status.json").write_text(json.dumps({**record, "log": [], **more}))
    if scores is not None:
        (folder / "scores.json").write_text(json.dumps(scores))
        (folder / "model.cif").write_text("data_model\n")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_a_finished_prediction_fills_its_row(tmp_path: Path) -> None:
    write_summary([predict(tmp_path, "p53", scores=SCORES)], tmp_path / "summary.tsv")
    assert rows_of(tmp_path / "summary.tsv") == [
        {
            "target": "p53",
            "engine": "template",
            "status": "done",
            "kind": "",
            "reason": "",
            "chains": "2",
            "length": "30",
            "modelled_residues": "26",
            "confidence_kind": "estimated lDDT",
            "mean_confidence": "81.23",
            "ptm": "",
            "iptm": "",
            "template": "4zhl_U",
            "template_identity": "0.4035",
            "msa_depth": "7",
            "clashes_before": "41",
            "clashes_after": "0",
            "ramachandran_outliers": "1",
            "relaxed": "yes",
            "tm_score": "0.9500",
            "lddt": "0.7812",
            "lddt_ca": "0.8600",
            "rmsd_ca": "1.234",
            "dockq": "",
            "agreement_lddt": "",
            "agreement_tm": "",
            "flags": "partial",
            "model": "p53/template/model.cif",
        }
    ]


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        ({"chains": [chain("A", 30)]}, ""),
        ({"too_far": True}, "too_far,partial"),
        (
            {"chains": [chain("A", 30)], "relaxed": False, "clashes": {"before": 2, "after": None}},
            "not_relaxed,clashes",
        ),
        ({"chains": [chain("A", 30)], "geometry": {"breaks": [["A", 3, "ALA"]]}}, "geometry"),
        ({"chains": [chain("A", 30)], "geometry": {"cis_peptides": [["A", 3, "PRO"]]}}, ""),
    ],
)
def test_flags_say_what_to_know_before_trusting_a_model(tmp_path: Path, change: dict[str, Any], flags: str) -> None:
    write_summary([predict(tmp_path, "p53", scores={**SCORES, **change})], tmp_path / "summary.tsv")
    assert rows_of(tmp_path / "summary.tsv")[0]["flags"] == flags


def test_rows_keep_the_order_given(tmp_path: Path) -> None:
    folders = [predict(tmp_path, target, scores=SCORES) for target in ("zeta", "alpha", "T10", "T9")]
    write_summary(folders, tmp_path / "summary.tsv")
    assert [row["target"] for row in rows_of(tmp_path / "summary.tsv")] == ["zeta", "alpha", "T10", "T9"]


def test_a_skipped_prediction_has_its_reason_and_empty_numbers(tmp_path: Path) -> None:
    folder = predict(tmp_path, "orphan", "skipped", kind="no_template", reason="no template found")
    write_summary([folder], tmp_path / "summary.tsv")
    (row,) = rows_of(tmp_path / "summary.tsv")
    told = {name: value for name, value in row.items() if value}
    assert told == {
        "target": "orphan",
        "engine": "template",
        "status": "skipped",
        "kind": "no_template",
        "reason": "no template found",
    }


def test_a_reason_with_tabs_and_line_ends_stays_in_its_cell(tmp_path: Path) -> None:
    folder = predict(tmp_path, "bad", "failed", kind="crash", reason='Traceback:\n\tKeyError:\r\n "A"\t1')
    write_summary([folder], tmp_path / "summary.tsv")
    (row,) = rows_of(tmp_path / "summary.tsv")
    assert row["reason"] == 'Traceback: KeyError: "A" 1'
    assert len((tmp_path / "summary.tsv").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("status.json", None, "is missing"),
        ("status.json", "{", "cannot be read"),
        ("status.json", '{"status": "perhaps"}', "cannot be read"),
        ("status.json", "[]", "cannot be read"),
        ("scores.json", None, "is missing"),
        ("scores.json", "not JSON", "cannot be read"),
    ],
)
def test_a_damaged_folder_is_a_failed_row_not_an_error(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    folder = predict(tmp_path, "p53", scores=SCORES)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    write_summary([folder], tmp_path / "summary.tsv")
    (row,) = rows_of(tmp_path / "summary.tsv")
    assert (row["target"], row["status"], row["kind"]) == ("p53", "failed", "unreadable_result")
    assert row["reason"].startswith(f"p53/template/{name} {said}")
    assert str(tmp_path) not in row["reason"]


def test_a_failed_prediction_that_left_scores_keeps_them(tmp_path: Path) -> None:
    folder = predict(tmp_path, "p53", "failed", scores=SCORES, kind="crash", reason="score stopped")
    assert read_prediction(folder).scores["length"] == 30


def test_the_table_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    results = tmp_path / "results"
    folder = predict(results, "p53", scores=SCORES)
    table = tmp_path / "elsewhere" / "summary.tsv"
    write_summary([folder], table)
    first = table.read_bytes()
    write_summary([folder], table)
    assert table.read_bytes() == first
    assert [path.name for path in table.parent.iterdir()] == ["summary.tsv"]
    assert rows_of(table)[0]["model"] == "../results/p53/template/model.cif"


def test_column_names_are_unique() -> None:
    names = [column.name for column in COLUMNS]
    assert len(names) == len(set(names))
