"""The HTML report: a folder that opens from disk, fetches nothing, and holds what it shows.

    index.html               the page
    single.html              the same page with all it needs in one file, to be sent to somebody
    assets/                  the page's scripts, style.css, 3Dmol.js and its licence
    data/index.js            the table, how the run was made
    data/timings.js          seconds: the one file that may differ between two runs of the same input
    data/<target>.<engine>.js   one prediction, loaded when it is chosen
    data/pae/<target>.<engine>.js   its aligned errors, where the engine gives them

Data files are scripts that hand one JSON value to a function of the page, because a browser refuses to `fetch` from
`file:` addresses but runs scripts from there.
"""

import base64
import contextlib
import hashlib
import html
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import gemmi

from snakefold.errors import SnakefoldError
from snakefold.files import canonical_json
from snakefold.report.agreement import pair_shown, per_residue_agreement
from snakefold.report.alignment import read_alignments
from snakefold.report.pae import pae_picture
from snakefold.report.remedies import remedy_for
from snakefold.report.summary import Prediction, read_predictions, relative_path, row_of
from snakefold.structures.ramachandran import ResidueClass, outlines

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
_HERE = resources.files("snakefold.report")
_BACKBONE = frozenset({"N", "CA", "C", "O"})

# What the panel reads of scores.json as it is.
_SCORES_SHOWN = (
    "seed",
    "templates",
    "interfaces",
    "too_far",
    "clashes",
    "ramachandran",
    "geometry",
    "relaxed",
    "notes",
    "software",
    "databases",
)

# Classic scripts, in this order: browsers refuse modules from `file:`. base.js makes the name space of the others.
_SCRIPTS = ("base", "colours", "link", "viewer", "tracks", "plots", "panel", "table", "sections", "keys", "app")
_FOLDER_POLICY = (
    # `file:` stands beside 'self' because not every browser counts a file's own folder as itself.
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data: blob:; "
    "connect-src 'none'; form-action 'none'; base-uri 'none'"
)
_SINGLE_LIMIT = 25_000_000  # bytes of predictions in single.html; browsers open larger pages slowly
_RESIDUE_CLASSES: tuple[ResidueClass, ...] = (
    "general",
    "isoleucine-valine",
    "pre-proline",
    "glycine",
    "trans-proline",
    "cis-proline",
)

# Shown in this order; files that are not named here follow, by path.
_FILE_ORDER = (
    "model.cif",
    "model.pdb",
    "scores.json",
    "confidence.json",
    "pae.json",
    "alignment.fasta",
    "templates.cif",
    "reference.cif",
    "status.json",
)


def write_report(
    folders: Sequence[Path],
    folder: Path,
    *,
    results: Path,
    title: str,
    run: Mapping[str, Any],
    timings: Mapping[str, Any] | None,
    comparisons: Sequence[Path] = (),
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
        comparisons: those of targets that several engines predicted, beside their predictions.

    Raises:
        SnakefoldError: two predictions would share a data file.

    """
    predictions = list(read_predictions(folders, comparisons))
    names = _data_names(predictions)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o777 & ~umask)  # mkdtemp lets only the owner in
        _write_assets(beside)
        (beside / "data" / "pae").mkdir(parents=True)
        index = _index(predictions, names, title, run, results, folder)
        with (beside / "single.html").open("w", encoding="utf-8") as single:
            _write_single_page(single, beside, predictions, names, index, folder)
        if not any((beside / "data" / "pae").iterdir()):
            (beside / "data" / "pae").rmdir()
        index["single"] = {"href": "single.html", "bytes": (beside / "single.html").stat().st_size}
        _write_script(beside / "data" / "index.js", "index", index)
        _write_script(beside / "data" / "timings.js", "timings", timings)
        scripts = [f"assets/{name}.js" for name in _SCRIPTS]
        scripts[1:1] = ["data/index.js", "data/timings.js"]
        (beside / "index.html").write_text(
            _page(
                title,
                policy=_FOLDER_POLICY,
                style='<link rel="stylesheet" href="assets/style.css">',
                scripts="\n".join(f'<script src="{script}"></script>' for script in scripts),
            ),
            encoding="utf-8",
        )
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


def _page(title: str, *, policy: str, style: str, scripts: str) -> str:
    template = (_HERE / "templates" / "index.html").read_text(encoding="utf-8")
    parts = {"title": html.escape(title), "policy": policy, "style": style, "scripts": scripts}
    # In one pass, so that a title cannot name another part.
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: parts[match[1]], template)


def _write_assets(folder: Path) -> None:
    assets = folder / "assets"
    assets.mkdir()
    for source in (
        *(_HERE / "templates" / f"{name}.js" for name in _SCRIPTS),
        _HERE / "templates" / "style.css",
        _HERE / "vendor" / "3Dmol-min.js",
        _HERE / "vendor" / "3Dmol-LICENSE.txt",
    ):
        (assets / source.name).write_bytes(source.read_bytes())


def _write_single_page(
    page: TextIO,
    folder: Path,
    predictions: Sequence[Prediction],
    names: Sequence[str],
    index: dict[str, Any],
    report: Path,
) -> None:
    """Write the data of all predictions into `folder`, and into one page as many of them as it may hold.

    Data in the page are JSON that no browser runs; its scripts and style are allowed by their digests alone.
    """
    assets = folder / "assets"
    scripts = {name: (assets / f"{name}.js").read_text(encoding="utf-8") for name in ("3Dmol-min", *_SCRIPTS)}
    style = (assets / "style.css").read_text(encoding="utf-8")
    allowed = " ".join(_digest(script) for script in scripts.values())
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; img-src data: blob:; "
        "connect-src 'none'; form-action 'none'; base-uri 'none'"
    )
    whole = _page(index["title"], policy=policy, style=f"<style>{style}</style>", scripts="\0")
    before, after = whole.split("\0")
    page.write(before)
    written, held = 0, 0
    for prediction, name in zip(predictions, names, strict=True):
        blocks = {f"data/{quote(name)}": _details(prediction, report=report)}
        picture = _pae(prediction)
        if picture is not None:
            blocks[f"data/pae/{quote(name)}"] = picture
            _write_script(folder / "data" / "pae" / name, "pae", picture)
        blocks[f"data/{quote(name)}"]["pae"] = f"data/pae/{quote(name)}" if picture is not None else None
        _write_script(folder / "data" / name, "prediction", blocks[f"data/{quote(name)}"])
        texts = {source: _json(value) for source, value in blocks.items()}
        size = sum(map(len, texts.values()))
        if written + size > _SINGLE_LIMIT:
            continue
        written += size
        held += 1
        for source, text in texts.items():
            page.write(f'<script type="application/json" id="{html.escape(source)}">{text}</script>\n')
    single = {**index, "alone": {"held": held, "of": len(predictions)}}
    page.write(f'<script type="application/json" id="data/index.js">{_json(single)}</script>\n')
    for script in scripts.values():
        page.write(f"<script>{script}</script>\n")
    page.write(after)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Any) -> str:
    # "<" is written as an escape, so that no text of the data can end the script element that it stands in.
    return canonical_json(value).replace("<", "\\u003c")


def _write_script(path: Path, function: str, value: Any) -> None:
    # Every JSON text is a JavaScript expression.
    path.write_text(f"snakefoldReport.{function}({_json(value)});\n", encoding="utf-8")


def _pae(prediction: Prediction) -> dict[str, Any] | None:
    # A matrix that cannot be read costs this panel its picture, not the run its report.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        return pae_picture(prediction.folder / "pae.json")
    return None


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
        "ramachandran": {
            name: [[outline.tolist() for outline in region] for region in outlines(name)] for name in _RESIDUE_CLASSES
        },
        "summary": quote(relative_path(results / "summary.tsv", folder)),
    }


def _details(prediction: Prediction, *, report: Path) -> dict[str, Any]:
    """Everything the panel of one prediction shows."""
    scores = prediction.scores
    model, confidence, reference, templates = None, {}, None, None
    # A structure that cannot be read costs this panel its picture, not the run its report.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if prediction.model is not None:
            model, confidence = _slim_model(prediction.model)
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if (prediction.folder / "reference.cif").is_file():
            reference = _slim_backbone(prediction.folder / "reference.cif")
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if (prediction.folder / "templates.cif").is_file():
            templates = _slim_backbone(prediction.folder / "templates.cif")
    agreement = per_residue_agreement(prediction)
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
                "agreement": _percent(agreement[index]) if agreement else None,
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
        "pairs": [pair_shown(pair) for pair in prediction.pairs],
        "model": model,
        "overlays": {"reference": reference, "template": templates},
        "alignment": [
            {"chain": alignment.chain, "rows": list(alignment.rows)}
            for alignment in read_alignments(
                prediction.folder / "alignment.fasta",
                [chain["sequence"] for chain in prediction.chains],
                [
                    template.get("chain_index")
                    for template in scores.get("templates") or []
                    if "chain_index" in template
                ],
            )
        ],
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
