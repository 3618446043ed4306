import gzip
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from snakefold.databases.registry import Unpacking
from snakefold.databases.unpack import unpack
from snakefold.errors import SnakefoldError
from snakefold.files import sha256_of_file

CONTENT = {"top/a.txt": b"alpha" * 1000, "top/sub/b.txt": b"beta", "./top/c.txt": b""}


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


GOOD_TAR = tar_of([(member(name, size=len(content)), content) for name, content in CONTENT.items()])

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "tar.gz": gzip.compress,
    # Two frames in a row, as parallel compressors write them.
    "tar.zst": lambda data: zstandard.compress(data[:2048]) + zstandard.compress(data[2048:]),
}


@pytest.mark.parametrize("how", ["tar", "tar.gz", "tar.zst"])
def test_a_tar_is_unpacked_with_digests(tmp_path: Path, how: Unpacking):
    (tmp_path / "archive").write_bytes(COMPRESS[how](GOOD_TAR))
    records = unpack(tmp_path / "archive", how, tmp_path / "out", "here", strip_components=1)
    assert set(records) == {"here/a.txt", "here/sub/b.txt", "here/c.txt"}
    assert (tmp_path / "out" / "here" / "a.txt").read_bytes() == CONTENT["top/a.txt"]
    for name, record in records.items():
        path = tmp_path / "out" / name
        assert (record.size, record.sha256) == (path.stat().st_size, sha256_of_file(path))


@pytest.mark.parametrize(("how", "compress"), [("gz", gzip.compress), ("zst", zstandard.compress)])
def test_a_compressed_file_is_unpacked(tmp_path: Path, how: Unpacking, compress: Callable[[bytes], bytes]):
    (tmp_path / "a").write_bytes(compress(b"MKV" * 1000))
    records = unpack(tmp_path / "a", how, tmp_path / "out", "db/a.fasta")
    assert (tmp_path / "out" / "db" / "a.fasta").read_bytes() == b"MKV" * 1000
    assert records["db/a.fasta"].size == 3000


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (member("/etc/evil", size=4), "absolute path"),
        (member("../evil", size=4), "leads out of its folder"),
        (member("top/../../evil", size=4), "leads out of its folder"),
        (member("evil", tarfile.SYMTYPE, "/etc"), "link or a device"),
        (member("evil", tarfile.LNKTYPE, "top/a.txt"), "link or a device"),
        (member("evil", tarfile.CHRTYPE), "link or a device"),
        (member("evil", tarfile.BLKTYPE), "link or a device"),
        (member("evil", tarfile.FIFOTYPE), "link or a device"),
        (member("manifest.json", size=4), "name that the downloader needs"),
        (member(".partial/x", size=4), "name that the downloader needs"),
        (member("top/a.txt", size=4), "twice"),
        (member("top/a.txt/b", size=4), "twice"),
    ],
)
def test_a_member_that_could_do_harm_is_refused(tmp_path: Path, info: tarfile.TarInfo, words: str):
    good = (member("top/a.txt", size=4), b"good")
    (tmp_path / "archive").write_bytes(tar_of([good, (info, b"evil"[: info.size])]))
    out = tmp_path / "sandbox" / "out"
    with pytest.raises(SnakefoldError, match=words):
        unpack(tmp_path / "archive", "tar", out, ".")
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        "archive",
        "sandbox/out/top/a.txt",
    }
    assert (out / "top" / "a.txt").read_bytes() == b"good"


def test_a_link_followed_by_a_file_through_it_writes_nothing_outside(tmp_path: Path):
    link = member("way", tarfile.SYMTYPE, str(tmp_path / "outside"))
    (tmp_path / "outside").mkdir()
    (tmp_path / "archive").write_bytes(tar_of([(link, b""), (member("way/evil", size=4), b"evil")]))
    with pytest.raises(SnakefoldError, match="link or a device"):
        unpack(tmp_path / "archive", "tar", tmp_path / "out", ".")
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("how", ["gz", "tar", "tar.gz", "zst"])
def test_a_damaged_archive_is_a_clear_error(tmp_path: Path, how: Unpacking):
    (tmp_path / "a").write_bytes(b"no archive at all" * 100)
    with pytest.raises(SnakefoldError, match="the archive is damaged"):
        unpack(tmp_path / "a", how, tmp_path / "out", "a")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_an_archive_that_ends_early_is_a_clear_error(tmp_path: Path, compress: Callable[[bytes], bytes], part: float):
    # Random bytes do not shrink: the cut falls among many blocks of the one frame.
    whole = compress(random.Random(1).randbytes(1_000_000))
    (tmp_path / "a").write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(SnakefoldError, match="the archive is damaged"):
        unpack(tmp_path / "a", "gz" if compress is gzip.compress else "zst", tmp_path / "out", "a")
