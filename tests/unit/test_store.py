"""The store must never give back anything but what was put in, whoever writes and whenever a writer dies."""

import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from snakefold.errors import SnakefoldError
from snakefold.files import sha256_of_file
from snakefold.outcome import Outcome
from snakefold.store import DAY, Action, LocalStore, Record, StoreError, open_store

ACTION = Action(step="fold", tool="template", version="1", inputs={"msa.a3m": "0" * 64}, seed=0)


def put(store: LocalStore, folder: Path, text: str = "ATOM", action: Action = ACTION) -> Record:
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


def blob_of(store: LocalStore, record: Record) -> Path:
    digest = record.files["model.cif"]
    return store.root / "blobs" / digest[:2] / digest


def test_a_committed_result_is_found_and_fetched(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    record = put(store, tmp_path / "work")
    assert store.lookup(ACTION.key) == record
    store.fetch(record.files["model.cif"], tmp_path / "out" / "model.cif")
    assert (tmp_path / "out" / "model.cif").read_text() == "ATOM"


def test_nothing_is_found_for_another_action(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    put(store, tmp_path / "work")
    assert store.lookup(replace(ACTION, seed=1).key) is None
    assert store.lookup(replace(ACTION, version="2").key) is None
    assert store.lookup(replace(ACTION, parameters={"keep_tails": True}).key) is None
    assert store.lookup(replace(ACTION, databases={"mini": "1" * 64}).key) is None


def test_the_key_does_not_depend_on_the_order_of_names() -> None:
    first = replace(ACTION, parameters={"a": 1, "b": 2})
    second = replace(ACTION, parameters={"b": 2, "a": 1})
    assert first.key == second.key


def test_a_damaged_blob_is_refused_removed_and_then_missing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    record = put(store, tmp_path / "work")
    blob = blob_of(store, record)
    blob.chmod(0o644)
    blob.write_text("ATOX")
    with pytest.raises(StoreError, match="damaged"):
        store.fetch(record.files["model.cif"], tmp_path / "model.cif")
    assert not (tmp_path / "model.cif").exists()
    assert store.lookup(ACTION.key) is None
    with pytest.raises(StoreError, match="gone"):
        store.fetch(record.files["model.cif"], tmp_path / "model.cif")


def test_a_torn_record_counts_as_absent(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    put(store, tmp_path / "work")
    (path,) = (tmp_path / "store" / "actions").glob("??/*.json")
    path.write_text(path.read_text()[:20])
    assert store.lookup(ACTION.key) is None
    put(store, tmp_path / "work")
    assert store.lookup(ACTION.key) is not None


def test_verify_names_and_removes_what_is_damaged(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    record = put(store, tmp_path / "one")
    put(store, tmp_path / "two", "OTHER", replace(ACTION, seed=1))
    assert store.verify() == []
    blob = blob_of(store, record)
    blob.chmod(0o644)
    blob.write_text("ATOX")
    faults = store.verify()
    assert len(faults) == 2
    assert "damaged" in faults[0]
    assert "model.cif missing" in faults[1]
    assert store.verify() == []
    assert store.lookup(replace(ACTION, seed=1).key) is not None


def test_garbage_collection_keeps_what_is_used_and_what_is_young(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    old = put(store, tmp_path / "old", "old")
    used = put(store, tmp_path / "used", "used", replace(ACTION, seed=1))
    long_ago = time.time() - 40 * DAY
    for path in (tmp_path / "store").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    assert store.lookup(replace(ACTION, seed=1).key) == used  # a look-up is a use
    young = put(store, tmp_path / "young", "young", replace(ACTION, seed=2))
    assert store.collect_garbage(30) == (1, 3)
    assert not blob_of(store, old).exists()
    assert blob_of(store, used).exists()
    assert blob_of(store, young).exists()
    assert store.lookup(ACTION.key) is None


def test_statistics_count_records_blobs_and_bytes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    put(store, tmp_path / "one", "same")
    put(store, tmp_path / "two", "same", replace(ACTION, step="relax"))
    statistics = store.statistics()
    assert statistics.records == {"fold": 1, "relax": 1}
    assert (statistics.blobs, statistics.size) == (1, 4)


def test_a_store_on_s3_is_refused_in_one_line() -> None:
    with pytest.raises(SnakefoldError, match="local directory"):
        open_store("s3://bucket/prefix")


def _write_and_read(root: Path, number: int) -> None:
    store = LocalStore(root / "store")
    for round_ in range(30):
        record = put(store, root / f"work{number}", f"content {round_}", replace(ACTION, seed=round_))
        found = store.lookup(replace(ACTION, seed=round_).key)
        assert found == record
        store.fetch(record.files["model.cif"], root / f"out{number}")
        assert (root / f"out{number}").read_text() == f"content {round_}"


def test_many_writers_of_the_same_results_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_and_read, args=(tmp_path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert LocalStore(tmp_path / "store").verify() == []
    assert LocalStore(tmp_path / "store").statistics().blobs == 30


def test_a_partial_file_of_a_killed_writer_is_never_seen_and_is_collected(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    record = put(store, tmp_path / "work")
    leftover = blob_of(store, record).with_name(".abc.xyz.partial")
    leftover.write_text("half")
    long_ago = time.time() - 2 * DAY
    os.utime(leftover, (long_ago, long_ago))
    assert store.verify() == []
    assert store.statistics().blobs == 1
    store.collect_garbage(30)
    assert not leftover.exists()
    assert store.lookup(ACTION.key) == record
