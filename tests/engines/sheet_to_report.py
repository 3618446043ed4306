"""A run of the workflow with one engine, from the sheet to the report, and what every engine must give there."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from snakefold.engines.driven import DrivenEngine
from snakefold.files import read_json
from tests.conftest import Clone, clone_into


def files_of(weights: Path, below: str = ".") -> list[dict[str, Any]]:
    """A folder's files as those of a database, in its folder `below`."""
    return [{"path": Path(below, path.name).as_posix(), "urls": [path.as_uri()]} for path in sorted(weights.iterdir())]


def clone_with_weights(folder: Path, engine: DrivenEngine, weights: Sequence[Mapping[str, Any]]) -> Clone:
    """A clone below `folder`, where `weights` take the place of the files of the engine's database."""
    assert engine.weights is not None
    clone = clone_into(folder / "clone")
    registry = clone.folder / "config/databases.yaml"
    content = yaml.safe_load(registry.read_text())
    content["databases"][engine.weights]["files"] = list(weights)
    registry.write_text(yaml.safe_dump(content))
    return clone


def run_sheet_to_report(
    folder: Path,
    engine: DrivenEngine,
    targets: Mapping[str, Sequence[str]],
    weights: Sequence[Mapping[str, Any]],
    *,
    parameters: Mapping[str, Any] | None = None,
    msas: Mapping[str, Path] | None = None,
    gives: Sequence[str] = ("ptm", "pae"),
) -> dict[str, dict[str, Any]]:
    """Run the engine on `targets` (name -> sequences) in a clone with `weights`; returns the scores of each.

    `msas` (sequence -> file) go into the sheet, of all
    sequences or none: then the miniature databases are searched. `gives` are the confidences that the engine has beside
    pLDDT.
    """
    clone = clone_with_weights(folder, engine, weights)
    columns = ["id", "sequence", "msa"] if msas else ["id", "sequence"]
    rows = [
        [name, ":".join(chains), *([":".join(str(msas[chain]) for chain in chains)] if msas else [])]
        for name, chains in targets.items()
    ]
    (clone.folder / "sheet.tsv").write_text("".join("\t".join(row) + "\n" for row in [columns, *rows]))
    arguments = ["--config", "samples=sheet.tsv", f"engines={engine.name}"]
    if parameters:
        arguments.append(f"{engine.name}={json.dumps(parameters)}")
    assert f"{len(targets)} done, 0 skipped, 0 failed" in clone.run(*arguments)
    found = {}
    for name, chains in targets.items():
        results = clone.folder / "results" / name / engine.name
        scores = found[name] = read_json(results / "scores.json")
        assert scores["confidence"]["kind"] == "pLDDT"
        assert 0 <= scores["ptm"] <= 1 if "ptm" in gives else scores["ptm"] is None
        assert len(scores["chains"]) == len(chains)
        assert engine.weights in {database["name"] for database in scores["databases"]}
        assert all(scores["software"][package] for package in engine.packages)
        assert (results / "pae.json").exists() == ("pae" in gives)
    assert "Nothing to be done" in clone.run(*arguments)
    return found
