"""Reading the folders that `score` writes, and `summary.tsv`: one row per prediction."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snakefold.files import read_json, write_text

_OF_PAIR = {"tm_score", "lddt_ca", "rmsd_ca", "residues", "only", "chains", "per_residue_lddt", "superposition"}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What `score` left in one `<results>/<target>/<engine>/`.

    `status` is `status.json`; `scores` is `scores.json`, or an empty mapping where there is none (skipped, failed).
    `pairs` are those of the target's comparison: every two finished predictions of it in this run.
    """

    folder: Path
    target: str
    engine: str
    status: Mapping[str, Any]
    scores: Mapping[str, Any]
    pairs: Sequence[Mapping[str, Any]] = ()

    @property
    def own_pairs(self) -> Sequence[Mapping[str, Any]]:
        """The comparisons of this prediction with those of other engines."""
        return [pair for pair in self.pairs if self.engine in pair["engines"]]

    @property
    def outcome(self) -> str:
        """The prediction's status: "done", "skipped" or "failed"."""
        return self.status["status"]

    @property
    def chains(self) -> Sequence[Mapping[str, Any]]:
        """The chains of `scores.json`, in the target's order."""
        return self.scores.get("chains") or ()

    @property
    def model(self) -> Path | None:
        """The model as mmCIF, if there is one."""
        path = self.folder / "model.cif"
        return path if path.is_file() else None


def read_predictions(folders: Sequence[Path], comparisons: Sequence[Path] = ()) -> Iterator[Prediction]:
    """Read the predictions of a run one by one, with the comparisons of those targets that have one beside them."""
    compared = {comparison.parent: comparison for comparison in comparisons}
    before, pairs = None, ()
    for folder in folders:
        target = folder.parent
        if target != before:  # the predictions of a target come one after the other
            before, pairs = target, _read_pairs(compared[target]) if target in compared else ()
        yield replace(read_prediction(folder), pairs=pairs)


def _read_pairs(comparison: Path) -> Sequence[Mapping[str, Any]]:
    """The pairs of a target's comparison; none where it is missing or broken."""
    try:
        pairs = [dict(pair) for pair in read_json(comparison)["pairs"]]
        return [pair for pair in pairs if pair.keys() >= _OF_PAIR]
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def read_prediction(folder: Path) -> Prediction:
    """Read one prediction's folder.

    A folder whose JSON is missing or broken reads as failed, with that as the reason: the table and the report must
    come to be whatever happened to one prediction.
    """
    target, engine = folder.parent.name, folder.name
    try:
        status = dict(read_json(folder / "status.json"))
        if status.get("status") not in ("done", "skipped", "failed"):
            raise ValueError(f"its status is {status.get('status')!r}")
    except (OSError, ValueError, TypeError) as error:
        return _unreadable(folder, "status.json", error)
    scores: Mapping[str, Any] = {}
    # A failed or skipped prediction may have no scores at all; a finished one must.
    if status["status"] == "done" or (folder / "scores.json").is_file():
        try:
            scores = dict(read_json(folder / "scores.json"))
        except (OSError, ValueError, TypeError) as error:
            return _unreadable(folder, "scores.json", error)
    return Prediction(
        folder=folder,
        target=status.get("target") or target,
        engine=status.get("engine") or engine,
        status=status,
        scores=scores,
    )


def _unreadable(folder: Path, name: str, error: Exception) -> Prediction:
    what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"
    target, engine = folder.parent.name, folder.name
    # The path of this machine stays out: the report must be the same wherever it is made.
    status = {
        "target": target,
        "engine": engine,
        "status": "failed",
        "step": "score",
        "kind": "unreadable_result",
        "reason": f"{target}/{engine}/{name} {what}",
        "log": [],
    }
    return Prediction(folder=folder, target=target, engine=engine, status=status, scores={})


def modelled_residues(scores: Mapping[str, Any]) -> int | None:
    """Residues that have coordinates, over all chains; None where there are no scores."""
    chains = scores.get("chains")
    if not chains:
        return None
    return sum(end - start for chain in chains for start, end in chain.get("modelled") or ())


def msa_depth(scores: Mapping[str, Any]) -> int | None:
    """Rows of the shallowest MSA among the chains: the one that limits the prediction."""
    depths = [chain["msa_depth"] for chain in scores.get("chains") or () if chain.get("msa_depth") is not None]
    return min(depths, default=None)


def flags_of(prediction: Prediction) -> list[str]:
    """What a reader of a finished model should know before trusting it.

    `too_far`: the engine calls its template too distant; `partial`: residues are missing; `not_relaxed`; `clashes`: in
    the final model; `geometry`: wrong chirality, twisted peptide bonds or breaks.
    """
    if prediction.outcome != "done":
        return []
    scores = prediction.scores
    clashes = dig(scores, "clashes", "after")
    if clashes is None:
        clashes = dig(scores, "clashes", "before")
    found = {
        "too_far": bool(scores.get("too_far")),
        "partial": (modelled_residues(scores) or 0) < (scores.get("length") or 0),
        "not_relaxed": scores.get("relaxed") is False,
        "clashes": bool(clashes),
        "geometry": any(dig(scores, "geometry", kind) for kind in ("wrong_chirality", "twisted_peptides", "breaks")),
    }
    return [name for name, given in found.items() if given]


def template_name(template: Mapping[str, Any]) -> str:
    """A template as the field writes it: `4zhl_U`."""
    entry, chain = template.get("entry") or "", template.get("chain") or ""
    return f"{entry}_{chain}" if chain else str(entry)


def dig(value: Any, *keys: str | int) -> Any:
    """`value[k1][k2]...`, or None as soon as a step is not there. Scores that an engine does not give are absent."""
    for key in keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def relative_path(path: Path, start: Path) -> str:
    """The way from the folder `start` to `path`, with forward slashes."""
    # Path.relative_to(walk_up=True) would say it more plainly, from Python 3.12 on.
    return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()


def _scored(*keys: str | int) -> Callable[[Prediction], Any]:
    return lambda prediction: dig(prediction.scores, *keys)


def _agreed(score: str) -> Callable[[Prediction], Any]:
    def mean(prediction: Prediction) -> float | None:
        values = [pair[score] for pair in prediction.own_pairs]
        return sum(values) / len(values) if values else None

    return mean


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the table: its name, where its value comes from, and its decimals if it is a real number."""

    name: str
    value: Callable[[Prediction], Any]
    decimals: int | None = None


# confidence 0-100; pTM, ipTM, identity, TM-score, lDDT, DockQ and agreement 0-1; RMSD in angstrom; the rest are counts.
COLUMNS: tuple[Column, ...] = (
    Column(name="target", value=lambda p: p.target),
    Column(name="engine", value=lambda p: p.engine),
    Column(name="status", value=lambda p: p.outcome),
    Column(name="kind", value=lambda p: p.status.get("kind")),
    Column(name="reason", value=lambda p: p.status.get("reason")),
    Column(name="chains", value=lambda p: len(p.chains) or None),
    Column(name="length", value=_scored("length")),
    Column(name="modelled_residues", value=lambda p: modelled_residues(p.scores)),
    Column(name="confidence_kind", value=_scored("confidence", "kind")),
    Column(name="mean_confidence", value=_scored("confidence", "mean"), decimals=2),
    Column(name="ptm", value=_scored("ptm"), decimals=4),
    Column(name="iptm", value=_scored("iptm"), decimals=4),
    Column(name="template", value=lambda p: template_name(dig(p.scores, "templates", 0) or {})),
    Column(name="template_identity", value=_scored("templates", 0, "identity"), decimals=4),
    Column(name="msa_depth", value=lambda p: msa_depth(p.scores)),
    Column(name="clashes_before", value=_scored("clashes", "before")),
    Column(name="clashes_after", value=_scored("clashes", "after")),
    Column(name="ramachandran_outliers", value=_scored("ramachandran", "outliers")),
    Column(name="relaxed", value=_scored("relaxed")),
    Column(name="tm_score", value=_scored("reference", "tm_score"), decimals=4),
    Column(name="lddt", value=_scored("reference", "lddt"), decimals=4),
    Column(name="lddt_ca", value=_scored("reference", "lddt_ca"), decimals=4),
    Column(name="rmsd_ca", value=_scored("reference", "rmsd_ca"), decimals=3),
    Column(name="dockq", value=_scored("reference", "dockq"), decimals=4),
    Column(name="agreement_lddt", value=_agreed("lddt_ca"), decimals=4),
    Column(name="agreement_tm", value=_agreed("tm_score"), decimals=4),
    Column(name="flags", value=lambda p: ",".join(flags_of(p))),
)


def row_of(prediction: Prediction) -> dict[str, Any]:
    """The values of `COLUMNS`, rounded; None where unknown."""
    row = {}
    for column in COLUMNS:
        value = column.value(prediction)
        if column.decimals is not None and value is not None:
            value = round(float(value), column.decimals)
        row[column.name] = None if value == "" else value
    return row


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    # One row stays one line: a reason may hold the line ends of the program that failed.
    return " ".join(str(value).split())


def write_summary(folders: Sequence[Path], path: Path, comparisons: Sequence[Path] = ()) -> None:
    """Write `summary.tsv`: one row per prediction, in the order given; a cell is empty where nothing is known.

    `folders` are `<results>/<target>/<engine>`, `comparisons` lie beside those that they compare. The last column is
    the model's path relative to the table's folder.
    """
    lines = ["\t".join([*(column.name for column in COLUMNS), "model"])]
    for prediction in read_predictions(folders, comparisons):
        row = row_of(prediction)
        cells = []
        for column in COLUMNS:
            value = row[column.name]
            known = column.decimals is not None and value is not None
            cells.append(f"{value:.{column.decimals}f}" if known else _cell(value))
        cells.append("" if prediction.model is None else relative_path(prediction.model, path.parent))
        lines.append("\t".join(cells))
    write_text(path, "\n".join(lines) + "\n")
