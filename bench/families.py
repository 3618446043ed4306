"""Families of related chains with known structures, and an MSA for each: what several benches start from."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snakefold.search.msa import search_msas
from snakefold.structures.io import PolymerChain, read_chains


@dataclass(frozen=True, kw_only=True)
class Member:
    """A chain of a family."""

    family: str
    file: Path
    chain: str

    @property
    def name(self) -> str:
        """File and chain in one word."""
        return f"{self.file.name.split('.')[0]}_{self.chain}"

    def read(self) -> PolymerChain:
        """The chain."""
        return next(chain for chain in read_chains(self.file) if chain.name == self.chain)


def members(path: Path) -> list[Member]:
    """All chains of all families of a file {family: [{"file", "chain"}]}, whose files are relative to it."""
    listed = json.loads(path.read_text(encoding="utf-8"))
    return [
        Member(family=family, file=path.parent / one["file"], chain=one["chain"])
        for family, chains in listed.items()
        for one in chains
    ]


def msas(targets: Mapping[str, str], sequences: Path, cache: Path) -> dict[str, Path]:
    """An MSA for each target (name -> sequence), searched once."""
    digest = hashlib.sha256(sequences.read_bytes()).hexdigest()
    keys = {name: hashlib.sha256((digest + text).encode()).hexdigest()[:16] for name, text in targets.items()}
    lacking = {keys[name]: text for name, text in targets.items() if not (cache / f"{keys[name]}.a3m").exists()}

    def keep(name: str, folder: Path, _: object) -> None:
        (cache / f"{name}.a3m").write_bytes((folder / "msa.a3m").read_bytes())

    with tempfile.TemporaryDirectory() as scratch:
        search_msas(lacking, {"sequences": sequences}, scratch=Path(scratch), on_result=keep, iterations=2)
    return {name: cache / f"{key}.a3m" for name, key in keys.items()}
