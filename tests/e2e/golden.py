"""What the steps made of the shipped example, in few numbers: kept in tests/data/golden.json.

    python -m tests.e2e.golden      # after a change of results and version, in a clone where the example has run

Bytes depend on the processor (vector units round differently), so the golden results are numbers with tolerances, not
digests; that two runs on one machine give the same bytes is another test.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snakefold import versions
from snakefold.batch import MemberReceipt, fetch_files, read_receipt
from snakefold.engines import ENGINES
from snakefold.files import read_json
from snakefold.store import LocalStore
from snakefold.structures.io import read_model

GOLDEN = Path(__file__).parents[1] / "data" / "golden.json"

STEP_VERSIONS = {
    "search_msa": versions.SEARCH_MSA,
    "search_templates": versions.SEARCH_TEMPLATES,
    "fold": ENGINES["template"].version,
    "relax": versions.RELAX,
}


def collect(clone: Path) -> dict[str, Any]:
    """The numbers of a clone in which the example has run: step -> version and, by member, facts."""
    return {
        step: {"version": version, "members": dict(sorted(_members(clone, step)))}
        for step, version in STEP_VERSIONS.items()
    }


def _members(clone: Path, step: str) -> Iterator[tuple[str, dict[str, Any]]]:
    store = LocalStore(clone / ".snakefold/store")
    for receipt in (clone / ".snakefold/work" / step).rglob("*.json"):
        for name, member in read_receipt(receipt).items():
            with tempfile.TemporaryDirectory() as folder:
                facts = _facts(step, member, fetch_files(store, member, Path(folder)))
            yield name, {"status": member.status, "kind": member.kind, **facts}


def _facts(step: str, member: MemberReceipt, folder: Path) -> dict[str, Any]:
    if not member.files:
        return {}
    if step == "search_msa":
        msa = read_json(folder / "msa.json")
        return {"depth": msa["depth"], "neff": msa["neff"], "coverage": sum(msa["coverage"])}
    if step == "search_templates":
        hits = read_json(folder / "hits.json")["hits"]
        return {"hits": [[hit["entry"], hit["chain"], len(hit["pairs"])] for hit in hits]}
    if step == "fold":
        confidence = read_json(folder / "prediction.json")["mean_confidence"]
        return {"confidence": confidence, "trace": _trace(folder / "model.cif")}
    relaxed = read_json(folder / "relax.json")
    return {"clashes": relaxed["clashes_after"], "trace": _trace(folder / "relaxed.cif")}


def _trace(path: Path) -> list[list[float]]:
    """CA positions (angstrom) of all chains, to one decimal."""
    return [
        [round(float(value), 1) for value in chain.atoms[index]["CA"]]
        for chain in read_model(path)
        for index in sorted(chain.atoms)
    ]


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(collect(Path.cwd()), separators=(",", ":"), sort_keys=True) + "\n")
    sys.stdout.write(f"{GOLDEN}\n")
