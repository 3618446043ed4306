"""A result to store, and what a writing process does: apart, so that such a process need not import a server."""

from dataclasses import replace
from pathlib import Path

from snakefold.files import sha256_of_file
from snakefold.outcome import Outcome
from snakefold.store import Action, Record, Store, open_store

ACTION = Action(step="fold", tool="template", version="1", inputs={"msa.a3m": "0" * 64}, seed=0)


def put(store: Store, folder: Path, text: str = "ATOM", action: Action = ACTION) -> Record:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.cif").write_text(text)
    record = Record(
        step=action.step,
        outcome=Outcome(facts={"depth": 3}),
        files={"model.cif": sha256_of_file(folder / "model.cif")},
        seconds=1.5,
        peak_memory_mb=100.0,
        hardware="x86_64",
    )
    store.commit(action.key, record, folder)
    return record


def write_and_read(location: str, root: Path, number: int, rounds: int) -> None:
    store = open_store(location)
    for round_ in range(rounds):
        record = put(store, root / f"work{number}", f"content {round_}", replace(ACTION, seed=round_))
        found = store.lookup(replace(ACTION, seed=round_).key)
        assert found == record
        store.fetch(record.files["model.cif"], root / f"out{number}")
        assert (root / f"out{number}").read_text() == f"content {round_}"
