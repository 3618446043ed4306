"""Having a database where the config wants it: in a folder of this machine, or in S3."""

import shutil
from pathlib import Path

from snakefold.config import Databases
from snakefold.databases.download import download, download_database
from snakefold.databases.local import staged_folder, staging
from snakefold.databases.manifest import MANIFEST_NAME, Manifest, manifest_text, verify
from snakefold.databases.progress import DownloadProgress
from snakefold.databases.registry import Database, in_units, load_registry
from snakefold.databases.remote import RemoteDatabase, verify_remote
from snakefold.errors import SnakefoldError
from snakefold.files import write_text
from snakefold.locking import locked
from snakefold.s3 import S3Folder, is_s3


def obtain(
    name: str,
    databases: Databases,
    *,
    registry: Path | None = None,
    manifest: Path | None = None,
    log: Path | None = None,
    plain: bool = False,
) -> Manifest:
    """Have the database `name` in `databases.folder` as the registry pins it, and return its manifest.

    `registry` is the file, by default `databases.registry`. The manifest is copied to the path `manifest` if one is
    given that is not its own place. If S3 holds the database already, nothing is transferred; else it is downloaded,
    verified and unpacked in the cache first, where it then is at hand for the jobs of this machine. Raises
    SnakefoldError.
    """
    registry = registry or Path(databases.registry)
    if is_s3(databases.folder):
        wanted = load_registry(registry).database(name)
        with DownloadProgress(name, log=log, plain=plain) as progress:
            found = _obtain_remote(wanted, databases, registry.parent, progress)
        own = None
    else:
        found = download(name, registry, Path(databases.folder), log=log, plain=plain)
        own = Path(databases.folder) / name / MANIFEST_NAME
    if manifest is not None and (own is None or manifest.absolute() != own.absolute()):
        write_text(manifest, manifest_text(found))
    return found


def verify_databases(folder: str) -> list[str]:
    """Read all databases of a folder or an S3 location again; one line for each fault, none if all is well."""
    return verify_remote(folder) if is_s3(folder) else verify(Path(folder))


def mend(wanted: Database, databases: Databases, base: Path, progress: DownloadProgress, *, read: bool) -> Manifest:
    """Have a database in S3 with every byte as its manifest says, and nothing of it left on this machine.

    What is there is judged by sizes and, of objects that were written since the manifest, by digests; with `read`, all
    bytes are read. Damaged objects are brought again; what was brought is compared with S3's digests of it. `base` is
    where relative `file:` addresses begin. Raises SnakefoldError.
    """
    remote = RemoteDatabase(S3Folder(databases.folder), wanted.name)
    holding = remote.holding(wanted)
    if holding.manifest is not None and holding.reason is None:
        chosen = holding.manifest.files if read else holding.touched
        damaged = remote.altered(holding.manifest, chosen, read=read)
        if damaged:
            progress.note(f"{len(damaged)} files are damaged, such as {damaged[0]}: bringing them again")
            remote.withdraw(damaged)
    before = remote.held(wanted)
    manifest = before or _obtain_remote(wanted, databases, base, progress, keep=False)
    if before is None and (wrong := remote.altered(manifest, manifest.files)):
        raise SnakefoldError(f"{remote.folder.url(wrong[0])}: is not what was written; is somebody else writing there?")
    size = in_units(sum(record.size for record in manifest.files.values()))
    progress.note(f"{len(manifest.files)} files, {size}: all there, with the digests of the manifest")
    return manifest


def _obtain_remote(
    wanted: Database, databases: Databases, base: Path, progress: DownloadProgress, *, keep: bool = True
) -> Manifest:
    remote = RemoteDatabase(S3Folder(databases.folder), wanted.name)
    found = remote.held(wanted)
    if found is not None:
        progress.note(f"{remote.folder.url()} holds it already")
        return found
    scratch = Path(databases.cache) / ".downloads"
    scratch.mkdir(parents=True, exist_ok=True)
    with locked(scratch / f"{wanted.name}.publish.lock", progress.note, "brings this database to S3"):
        found = remote.held(wanted)
        if found is not None:
            return found
        remote.begin()
        manifest = download_database(wanted, scratch, base=base, progress=progress)
        remote.publish(scratch / wanted.name, manifest, progress)
        if keep:
            _keep(scratch / wanted.name, staged_folder(databases, manifest), progress)
        else:
            shutil.rmtree(scratch / wanted.name)
    progress.note(f"{len(manifest.files)} files in {remote.folder.url()}")
    return manifest


def _keep(folder: Path, staged: Path, progress: DownloadProgress) -> None:
    """Let what was downloaded be the staged copy of this machine, if there is none yet; else remove it."""
    staged.parent.mkdir(parents=True, exist_ok=True)
    (folder / ".placed.json").unlink(missing_ok=True)
    with staging(staged, progress):
        try:
            folder.rename(staged)  # whole as it is: verified, with its manifest
        except OSError:
            shutil.rmtree(folder)
