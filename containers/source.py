"""Makes a wheel of an engine's source: `python -m containers.source omegafold FOLDER_OR_TAR --to wheels`.

For engines that are on no package index (sources.yaml). The source is a folder, such as a clone, or a tar archive, of
the commit that sources.yaml names; that it is that one is told by its files. Nothing of it is run. Prints the wheel's
path, for pip to install.
"""

import argparse
import base64
import hashlib
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pydantic
import yaml

from containers.images import ContainerError

SOURCES = Path(__file__).with_name("sources.yaml")


class Source(pydantic.BaseModel):
    """One entry of sources.yaml; the comment at the head of that file says what each key means."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    distribution: str
    repository: str
    commit: str = pydantic.Field(pattern=r"^[0-9a-f]{40}$")
    digest: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    folders: Mapping[str, str]
    path: tuple[str, ...]
    licences: tuple[str, ...]

    @property
    def version(self) -> str:
        """The wheel's version: a local one, which no package index can have."""
        return f"0+g{self.commit[:12]}"


def read_sources(path: Path = SOURCES) -> Mapping[str, Source]:
    """The sources by engine.

    Raises:
        ContainerError: naming the first key that is wrong.

    """
    try:
        return pydantic.TypeAdapter(dict[str, Source]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ContainerError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def make_wheel(source: Source, given: Path, folder: Path) -> Path:
    """Make the wheel of a folder or a tar archive; returns its path.

    The same source gives the same bytes.

    Raises:
        ContainerError: the source cannot be read, or is another than the one that is meant.

    """
    if not given.is_dir():
        with tempfile.TemporaryDirectory(prefix="snakefold-source-") as scratch:
            return make_wheel(source, _unpacked(given, Path(scratch)), folder)
    modules = _modules(source, given)
    found = digest(modules)
    if found != source.digest:
        raise ContainerError(
            f"{given}: is not {source.repository} at {source.commit[:12]}: its {len(modules)} modules have the digest "
            f"{found[:12]} and not {source.digest[:12]}; check out that commit (containers/sources.yaml)"
        )
    files = {f"{source.folders[root]}/{name}": content for (root, name), content in modules.items()}
    if source.path:
        files[f"{source.distribution}.pth"] = "".join(f"{each}\n" for each in source.path).encode()
    information = f"{source.distribution}-{source.version}.dist-info"
    for name in source.licences:
        files[f"{information}/licenses/{name}"] = (given / name).read_bytes()
    files[f"{information}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {source.distribution}\nVersion: {source.version}\n"
        f"Summary: {source.repository} at commit {source.commit}\n"
    ).encode()
    files[f"{information}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: snakefold\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{information}/RECORD"] = _record(files, f"{information}/RECORD")
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{source.distribution}-{source.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # With the time stamp that zip begins with, so that no clock is in the bytes.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return wheel


def digest(modules: Mapping[tuple[str, str], bytes]) -> str:
    """SHA-256 over lines of path and SHA-256 of the content, in the order of the paths."""
    lines = [f"{root}/{name} {hashlib.sha256(content).hexdigest()}\n" for (root, name), content in modules.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _modules(source: Source, given: Path) -> Mapping[tuple[str, str], bytes]:
    """The Python files, by folder of the source and path in it."""
    found = {}
    for root in source.folders:
        for path in sorted((given / root).rglob("*.py")):
            found[root, path.relative_to(given / root).as_posix()] = path.read_bytes()
    return found


def _unpacked(archive: Path, folder: Path) -> Path:
    """The folder that an archive holds: itself, or the one that all else is in."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (OSError, tarfile.TarError) as error:
        first = str(error).splitlines()[0]
        raise ContainerError(f"{archive}: cannot be read as a folder or a tar archive: {first}") from error
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _record(files: Mapping[str, bytes], name: str) -> bytes:
    lines = []
    for path, content in files.items():
        encoded = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={encoded},{len(content)}\n")
    return "".join([*lines, f"{name},,\n"]).encode()


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m containers.source", description=(__doc__ or "").splitlines()[0])
    sources = read_sources()
    parser.add_argument("engine", choices=list(sources))
    parser.add_argument("source", type=Path, help="folder or tar archive of the commit that sources.yaml names")
    parser.add_argument("--to", type=Path, default=Path(), help="folder of the wheel (default: here)")
    options = parser.parse_args(arguments)
    try:
        print(make_wheel(sources[options.engine], options.source, options.to))
    except ContainerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
