"""The end of a run: what came of it, in a report, in a file, and in a few lines on the terminal."""

import csv
import json
import shlex
import sys
from collections import defaultdict
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from snakefold import __version__
from snakefold.batch import databases_behind, parse_receipt, read_receipt
from snakefold.errors import SnakefoldError
from snakefold.files import read_json, sha256_of_json, write_json
from snakefold.place import LocalPlace, Place, S3Place
from snakefold.s3 import parallel
from snakefold.store import open_store
from snakefold.workflow import Folding, changes_of

SOFTWARE = ("snakemake", "pyhmmer", "openmm", "pdbfixer", "gemmi", "biotite", "modelcif")
"""Packages whose versions the report names."""

_LISTED = 20  # failed targets that the terminal names; the report names all


def summarize(folding: Folding, table: Path, timings: Path) -> None:
    """Write the table of all predictions, and the seconds that they took."""
    from snakefold.report.summary import write_summary

    root = folding.root_of(table)
    folding.withdraw_timings()
    write_summary(folding.prediction_folders(root), table, folding.comparison_paths(root))
    write_json(timings, _timings(folding, root))


def report(folding: Folding, page: Path, timings: Path) -> None:
    """Write the HTML report of a run into the folder of its first `page`."""
    from snakefold.report.report import write_report

    folder = page.parent
    results = folder.parent
    root = folding.root_of(folder)
    science = folding.config.model_dump(mode="json", include={"seed", "search", "templates", "template", "relax"})
    members = (member for path in folding.receipt_paths(root) for member in read_receipt(path).values())
    databases = databases_behind(members)
    write_report(
        folding.prediction_folders(root),
        folder,
        results=results,
        title=", ".join(Path(path).stem for path in folding.config.samples),
        run={
            "software": {"snakefold": __version__} | {name: version(name) for name in SOFTWARE},
            "databases": [{**each, "digest": each["digest"][:16]} for each in databases],
            "config_digest": sha256_of_json(science)[:16],
        },
        timings=read_json(timings),
        comparisons=folding.comparison_paths(root),
    )


def _timings(folding: Folding, root: Path) -> dict[str, Any]:
    """Seconds of computing: by step, and by prediction for the steps that work on predictions.

    They come from the store, so a result found there shows what it once took.
    """
    keys: dict[str, str] = {}  # of results, each with its step: equal targets share one
    of_predictions: dict[str, list[str]] = defaultdict(list)
    for path in folding.receipt_paths(root):
        receipt = read_json(path)
        made = {name: member["key"] for name, member in receipt["members"].items() if member["key"]}
        keys |= dict.fromkeys(made.values(), receipt["step"])
        if receipt["engine"]:
            for name, key in made.items():
                of_predictions[f"{name}/{receipt['engine']}"].append(key)
    seconds = {key: record.seconds for key, record in open_store(folding.config.store).lookup_many(keys).items()}
    steps: dict[str, float] = defaultdict(float)
    for key, took in seconds.items():
        steps[keys[key]] += took
    predictions = {name: sum(seconds.get(key, 0) for key in made) for name, made in of_predictions.items()}
    return {"steps": dict(steps), "predictions": predictions}


def conclude(folding: Folding, table: Path, timings: Path, outcome: Path, *, log: Path | None) -> None:
    """Say how the run ended, by its summary `table`, and what it took; write how it ended to `outcome`.

    Raises SnakefoldError when predictions failed, unless the config allows that; `outcome` is then not written, so that
    the run stays unfinished.
    """
    with table.open(encoding="utf-8", newline="") as handle:
        statuses = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
    by_status = {
        status: [f"{each['target']}/{each['engine']}" for each in statuses if each["status"] == status]
        for status in ("done", "skipped", "failed")
    }
    lines = [", ".join(f"{len(names)} {status}" for status, names in by_status.items())]
    unfinished = [each for each in statuses if each["status"] != "done"]
    lines += [
        f"  {each['status']:8}{each['target']}/{each['engine']}: {each['reason']}" for each in unfinished[:_LISTED]
    ]
    if len(unfinished) > _LISTED:
        lines.append(f"  ... and {len(unfinished) - _LISTED} more")
    seconds = read_json(timings)["steps"]
    if seconds:
        lines.append("computing, on one core: " + ", ".join(f"{step} {took:.0f} s" for step, took in seconds.items()))
    lines.append(f"structures, summary.tsv and report/index.html are in {folding.config.results}/")
    text = "\n".join(lines)
    print(f"\n{text}\n", file=sys.stderr)  # noqa: T201
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text + "\n")
    if by_status["failed"] and not folding.config.allow_failures:
        raise SnakefoldError(
            f"{len(by_status['failed'])} of {len(statuses)} predictions failed; see above and the report, mend the "
            f"cause, then `{_retry_command(folding)}` and run again"
        )
    write_json(outcome, by_status)


def _retry_command(folding: Folding) -> str:
    changes = changes_of(folding.config, folding.prefix)
    away = []
    if folding.prefix:
        run = folding.prefix.rpartition("/")[2]
        away = ["--profile", "aws-batch", *([] if run == "default" else ["--run", run])]
    return shlex.join(["python", "-m", "snakefold", "retry", *away, *(["--config", *changes] if changes else [])])


def withdraw_failures(folding: Folding) -> int:
    """Remove the receipts that hold failures or name results that the store has lost; returns how many.

    Folders whose scoring failed, and lists of the sheet's files that the store has lost, go with them, and count. The
    next run makes these again, and takes from the store whatever did not fail.
    """
    place: Place = S3Place(folding.prefix) if folding.prefix else LocalPlace(Path())
    named: dict[str, set[str]] = {}
    withdrawn: set[str] = set()
    for path, content in place.read(folding.receipts(None)).items():
        # What cannot be read is left: Snakemake knows best what becomes of a file that it did not finish.
        with suppress(json.JSONDecodeError):
            members = parse_receipt(json.loads(content)).values()
            named[path] = {digest for member in members for digest in member.files.values()}
            if any(member.status == "failed" for member in members):
                withdrawn.add(path)
    for path, content in place.read(folding.input_lists()).items():
        with suppress(json.JSONDecodeError):
            named[path] = set(json.loads(content).values())
    store = open_store(folding.config.store)
    # Members and batches share files: each is asked for once.
    digests = sorted(set().union(*named.values()))
    lost = {digest for digest, held in zip(digests, parallel(store.holds, digests), strict=True) if not held}
    withdrawn.update(path for path, wanted in named.items() if wanted & lost)
    place.delete(sorted(withdrawn))
    unscored = [
        path.removesuffix("/status.json")
        for path, content in place.read(f"{folder}/status.json" for folder in folding.predictions(None)).items()
        if _is_unscored(content)
    ]
    for folder in unscored:
        place.delete_folder(folder)
    return len(withdrawn) + len(unscored)


def _is_unscored(content: bytes) -> bool:
    """Whether a prediction's status says that its scoring failed."""
    try:
        status = json.loads(content)
    except json.JSONDecodeError:
        return False
    return status["status"] == "failed" and status["step"] == "score"
