"""The HTML report: a folder that opens from disk, fetches nothing, and holds what it shows.

    index.html               the page
    assets/                  app.js, style.css, 3Dmol.js and its licence
    data/index.js            the table, how the run was made
    data/timings.js          seconds: the one file that may differ between two runs of the same input
    data/<target>.<engine>.js   one prediction, loaded when it is chosen

Data files are scripts that hand one JSON value to a function of the page, because a browser refuses to `fetch` from
`file:` addresses but runs scripts from there.
"""

import contextlib
import html
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gemmi

from snakefold.errors import SnakefoldError
from snakefold.files import canonical_json
from snakefold.report.remedies import remedy_for
from snakefold.report.summary import Prediction, read_prediction, relative_path, row_of

# What the viewer reads of an atom; the rest of a ModelCIF file would only make the page's data larger.
_ATOM_TAGS = (
    "group_PDB",
    "id",
    "type_symbol",
    "label_atom_id",
    "label_comp_id",
    "auth_asym_id",
    "auth_seq_id",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
)
_BACKBONE = frozenset({"N", "CA", "C", "O"})

# What the panel reads of scores.json as it is.
_SCORES_SHOWN = ("templates", "clashes", "ramachandran", "geometry", "relaxed", "notes")

# Shown in this order; files that are not named here follow, by path.
_FILE_ORDER = ("model.cif", "model.pdb", "scores.json", "confidence.json", "pae.json", "alignment.fasta", "status.json")


def write_report(
    folders: Sequence[Path],
    folder: Path,
    *,
    results: Path,
    title: str,
    run: Mapping[str, Any],
    timings: Mapping[str, Any] | None,
) -> None:
    """Write the report of a run into `folder`, which appears whole or not at all.

    Args:
        folders: the predictions, each `<results>/<target>/<engine>`, in the order of the table.
        folder: the report's own folder, `<results>/report`; an older report there is replaced.
        results: the results folder; links lead into it by relative paths.
        title: the run's name, the page's heading.
        run: how the predictions were made, shown as it is. Known keys: `software` (name -> version), `databases`
            (list of mappings with `name`, `version`, `licence` and whatever else is worth saying), `config_digest`;
            any other key becomes a line of its own. Nothing in it may differ between two runs of the same input.
        timings: seconds, which do differ: `steps` (step -> seconds) and `predictions` ("target/engine" -> seconds),
            both optional. None where unknown.

    Raises:
        SnakefoldError: two predictions would share a data file.

    """
    predictions = [read_prediction(path) for path in folders]
    names = _data_names(predictions)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o777 & ~umask)  # mkdtemp lets only the owner in
        _write_page(beside, title)
        data = beside / "data"
        data.mkdir()
        for prediction, name in zip(predictions, names, strict=True):
            _write_script(data / name, "prediction", _details(prediction, report=folder))
        _write_script(data / "index.js", "index", _index(predictions, names, title, run, results, folder))
        _write_script(data / "timings.js", "timings", timings)
        _swap(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`. A folder cannot be renamed over a full one, so the old one steps aside."""
    if not folder.exists():
        new.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
    folder.rename(aside / folder.name)
    try:
        new.rename(folder)
    except OSError:
        (aside / folder.name).rename(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_page(folder: Path, title: str) -> None:
    here = resources.files("snakefold.report")
    page = (here / "templates" / "index.html").read_text(encoding="utf-8")
    (folder / "index.html").write_text(page.replace("{{ title }}", html.escape(title)), encoding="utf-8")
    assets = folder / "assets"
    assets.mkdir()
    for source in (
        here / "templates" / "app.js",
        here / "templates" / "style.css",
        here / "vendor" / "3Dmol-min.js",
        here / "vendor" / "3Dmol-LICENSE.txt",
    ):
        (assets / source.name).write_bytes(source.read_bytes())


def _write_script(path: Path, function: str, value: Any) -> None:
    # Every JSON text is a JavaScript expression. "<" is written as an escape so that the file stays harmless even if
    # someone pastes it into a page.
    text = canonical_json(value).replace("<", "\\u003c")
    path.write_text(f"snakefoldReport.{function}({text});\n", encoding="utf-8")


def _data_names(predictions: Sequence[Prediction]) -> list[str]:
    names = [f"{prediction.target}.{prediction.engine}.js" for prediction in predictions]
    seen: dict[str, str] = {"index.js": "the table", "timings.js": "the timings"}
    for prediction, name in zip(predictions, names, strict=True):
        key = f"{prediction.target}/{prediction.engine}"
        if "/" in name or "\\" in name:
            raise SnakefoldError(f"report: {key!r} cannot be a file name; rename the target in the sheet")
        if name in seen:
            raise SnakefoldError(
                f"report: {key} and {seen[name]} would share data/{name}; rename one target in the sheet"
            )
        seen[name] = key
    return names


def _index(
    predictions: Sequence[Prediction],
    names: Sequence[str],
    title: str,
    run: Mapping[str, Any],
    results: Path,
    folder: Path,
) -> dict[str, Any]:
    rows = []
    for prediction, name in zip(predictions, names, strict=True):
        row = row_of(prediction)
        row["step"] = prediction.status.get("step")
        row["data"] = "data/" + quote(name)
        if prediction.outcome != "done":
            row["log"] = bool(prediction.status.get("log"))
            row["remedy"] = remedy_for(prediction.outcome, prediction.status.get("kind"))
        rows.append({key: value for key, value in row.items() if value is not None})
    return {
        "title": title,
        "run": run,
        "rows": rows,
        "summary": quote(relative_path(results / "summary.tsv", folder)),
    }


def _details(prediction: Prediction, *, report: Path) -> dict[str, Any]:
    """Everything the panel of one prediction shows."""
    scores = prediction.scores
    model, confidence, overlay = None, {}, None
    # A structure that cannot be read costs this panel its picture, not the run its report.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if prediction.model is not None:
            model, confidence = _slim_model(prediction.model)
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if (prediction.folder / "reference.cif").is_file():
            overlay = _slim_backbone(prediction.folder / "reference.cif")
    per_residue_lddt = (scores.get("reference") or {}).get("per_residue_lddt") or []
    chains = []
    for index, chain in enumerate(prediction.chains):
        of_chain = confidence.get(chain["name"], {})
        chains.append(
            {
                "name": chain["name"],
                "sequence": chain["sequence"],
                "confidence": [of_chain.get(number) for number in range(1, len(chain["sequence"]) + 1)],
                "lddt": _percent(per_residue_lddt[index]) if index < len(per_residue_lddt) else None,
                "modelled": chain.get("modelled") or [],
                "invented": chain.get("invented") or [],
                "msa_depth": chain.get("msa_depth"),
                "msa_neff": chain.get("msa_neff"),
                "msa_coverage": chain.get("msa_coverage"),
            }
        )
    return {
        "target": prediction.target,
        "engine": prediction.engine,
        "log": prediction.status.get("log") or [],
        "scores": {key: scores.get(key) for key in _SCORES_SHOWN},
        "reference": {
            key: value for key, value in (scores.get("reference") or {}).items() if key != "per_residue_lddt"
        },
        "chains": chains,
        "model": model,
        "overlay": overlay,
        "alignment": _alignment(prediction),
        "files": _files(prediction.folder, report),
    }


def _percent(values: Sequence[float | None]) -> list[float | None]:
    """LDDT 0-1 per residue on the 0-100 scale of the confidence that it is drawn beside."""
    return [None if value is None else round(100 * value, 2) for value in values]


def _atoms(path: Path, *tags: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns of the first model's atoms, without alternate locations but the first of each.

    Author names stand in for the chain and number, label names where a file has no author's.
    """
    block = gemmi.cif.read(str(path)).sole_block()

    def column(tag: str) -> list[str]:
        return list(block.find_values(f"_atom_site.{tag}"))

    fallback = {"auth_asym_id": "label_asym_id", "auth_seq_id": "label_seq_id"}
    columns = [column(tag) or column(fallback.get(tag, tag)) for tag in tags]
    models, locations = column("pdbx_PDB_model_num"), column("label_alt_id")
    chain, number = tags.index("auth_asym_id"), tags.index("auth_seq_id")
    rows = []
    first_location: dict[tuple[str, str], str] = {}
    for index, row in enumerate(zip(*columns, strict=True)):
        if models and models[index] != models[0]:
            break
        if locations and locations[index] not in (".", "?"):
            residue = (row[chain], row[number])
            if first_location.setdefault(residue, locations[index]) != locations[index]:
                continue
        rows.append(row)
    return list(tags), rows


def _loop(tags: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        ["data_model", "loop_", *(f"_atom_site.{tag}" for tag in tags), *(" ".join(row) for row in rows), ""]
    )


def _slim_model(path: Path) -> tuple[str, dict[str, dict[int, float]]]:
    """The model as the viewer needs it, and its confidence: chain -> residue number -> 0-100, from the B-factors."""
    tags, rows = _atoms(path, *_ATOM_TAGS, "B_iso_or_equiv")
    atom, chain, number = (tags.index(tag) for tag in ("label_atom_id", "auth_asym_id", "auth_seq_id"))
    confidence: dict[str, dict[int, float]] = {}
    for row in rows:
        if row[atom] == "CA":
            confidence.setdefault(row[chain], {})[int(row[number])] = round(float(row[-1]), 2)
    return _loop(tags[:-1], [row[:-1] for row in rows]), confidence


def _slim_backbone(path: Path) -> str:
    """The backbone of a structure that is only laid over the model as a ribbon."""
    tags, rows = _atoms(path, *_ATOM_TAGS)
    atom, chain, number = (tags.index(tag) for tag in ("label_atom_id", "auth_asym_id", "auth_seq_id"))
    # Waters have an atom named O as well: only residues with a CA are a chain's.
    residues = {(row[chain], row[number]) for row in rows if row[atom].strip("\"'") == "CA"}
    return _loop(
        tags, [row for row in rows if row[atom].strip("\"'") in _BACKBONE and (row[chain], row[number]) in residues]
    )


def _alignment(prediction: Prediction) -> list[list[list[str]]]:
    """`alignment.fasta` as blocks of [name, aligned row], one block per chain, the target's row first."""
    path = prediction.folder / "alignment.fasta"
    if not path.is_file():
        return []
    records: list[list[str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(">"):
            records.append([line[1:].strip(), ""])
        elif records:
            records[-1][1] += line.strip()
    sequences = [chain["sequence"] for chain in prediction.chains]
    blocks: list[list[list[str]]] = []
    for name, row in records:
        # A block starts at the next chain's own row. A template may have that very sequence, so that a block always
        # takes a second row first.
        starts = len(blocks) < len(sequences) and row.replace("-", "").replace(".", "") == sequences[len(blocks)]
        if not blocks or (starts and len(blocks[-1]) > 1):
            blocks.append([])
        blocks[-1].append([name, row])
    return blocks


def _files(folder: Path, report: Path) -> list[dict[str, Any]]:
    # Snakemake leaves a `.snakemake_timestamp` in folders that are outputs; hidden files are nobody's download.
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    order = {name: index for index, name in enumerate(_FILE_ORDER)}
    return [
        {"name": name, "href": quote(relative_path(paths[name], report)), "bytes": paths[name].stat().st_size}
        for name in sorted(paths, key=lambda name: (order.get(name, len(order)), name))
    ]
