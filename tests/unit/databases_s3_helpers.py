"""A database, and what jobs in other processes do with it: apart, so that such a process need not import a server."""

import random
from pathlib import Path

from snakefold.config import Databases
from snakefold.databases import local as staging_module
from snakefold.databases import remote as remote_module
from snakefold.databases.fetch import Transfer
from snakefold.databases.local import local_folder
from snakefold.databases.obtain import obtain
from snakefold.databases.progress import DownloadProgress

SMALL = {f"mmcif/{number}abc.cif": random.Random(number).randbytes(3_000) for number in range(5)}
LARGE = random.Random(9).randbytes(1_000_000)
CONTENT = {**SMALL, "proteins.fasta": LARGE}

SMALL_ENOUGH = 100_000
RANGES = Transfer(connections=3, segment=SMALL_ENOUGH, wait=0.01)


def assert_whole(folder: Path) -> None:
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        *CONTENT,
        "manifest.json",
    }


def obtain_it(registry: str, folder: str, cache: str) -> None:
    obtain("db", Databases(registry=registry, folder=folder, cache=cache))


def stage(manifest: str, folder: str, cache: str, sized: str, log: str) -> None:
    if sized == "in ranges":
        remote_module.LARGE = staging_module.LARGE = SMALL_ENOUGH
        staging_module._TRANSFER = RANGES
    with DownloadProgress("db", log=Path(log), plain=True) as progress:
        found = local_folder(Path(manifest), Databases(folder=folder, cache=cache), progress=progress)
    assert_whole(found)
