"""Which databases and presets there are: `config/databases.yaml`, checked.

Cheap to import and to read, because every parse of the workflow does it.
"""

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from snakefold.errors import FaultsError, SnakefoldError

Kind = Literal["sequences", "templates", "profiles", "weights"]
Unpacking = Literal["none", "gz", "zst", "tar", "tar.gz", "tar.zst"]

RESERVED_NAMES = frozenset({"manifest.json", ".placed.json", ".partial"})
"""Names at the top of a database's folder that are the downloader's own."""

_Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=64)]
_Size = Annotated[int, Field(ge=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseFile(_Entry):
    """One file to download, and what becomes of it.

    `path` is relative to the database's folder: the file that results or, for a tar, the folder that it is unpacked in
    ("." is the database's own). `urls` are mirrors, tried in order: https, s3, file (relative to the registry's
    folder), or http where a checksum is pinned. `size` (bytes), `sha256` and `md5` are of the file as downloaded; null
    where the publisher gives none, and then the manifest records what was found. `strip_components` leading folders of
    a tar are dropped.
    """

    path: _Text
    urls: Annotated[tuple[_Text, ...], Field(min_length=1)]
    size: _Size | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    unpack: Unpacking = "none"
    strip_components: Annotated[int, Field(ge=0)] = 0

    @property
    def pinned(self) -> bool:
        """Whether a checksum says which bytes are meant."""
        return self.sha256 is not None or self.md5 is not None

    @property
    def is_tar(self) -> bool:
        """Whether `path` is a folder for the members of an archive."""
        return self.unpack.startswith("tar")

    @model_validator(mode="after")
    def _check(self) -> Self:
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"path {self.path!r} leaves the database's folder; give a path within it")
        if path.parts and path.parts[0] in RESERVED_NAMES:
            raise ValueError(f"path {self.path!r} is the downloader's own; choose another name")
        if not path.parts and not self.is_tar:
            raise ValueError("path is empty; name the file")
        if self.strip_components and not self.is_tar:
            raise ValueError("strip_components is for tar archives; leave it out")
        for url in self.urls:
            scheme = urlsplit(url).scheme
            if scheme not in ("https", "s3", "file", "http"):
                raise ValueError(f"url {url!r} is none of https, s3 and file")
            if scheme == "http" and not self.pinned:
                raise ValueError(f"url {url!r} can be altered on its way; use https or pin sha256")
        return self


class Database(_Entry):
    """One database: a sequence, structure or profile collection, or a set of weights, in one version.

    `unpacked_size` (bytes) is what lies on disk in the end, roughly: it serves the check for free space.
    """

    name: _Name
    kind: Kind
    version: _Text
    licence: _Text
    description: _Text
    files: Annotated[tuple[DatabaseFile, ...], Field(min_length=1)]
    unpacked_size: _Size | None = None

    @property
    def download_size(self) -> int:
        """Bytes to download; where the registry does not know them, the unpacked size stands in."""
        sizes = [file.size for file in self.files]
        known = sum(size for size in sizes if size is not None)
        return known if None not in sizes else max(known, self.unpacked_size or 0)

    @property
    def size(self) -> int:
        """Bytes on disk in the end, roughly."""
        return self.unpacked_size if self.unpacked_size is not None else self.download_size

    @model_validator(mode="after")
    def _check(self) -> Self:
        places = Counter(str(PurePosixPath(file.path)) for file in self.files)
        twice = [path for path, number in places.items() if number > 1]
        if twice:
            raise ValueError(f"two downloads have the path {twice[0]!r}; give each its own")
        return self


class Preset(_Entry):
    """Databases that are searched together: for homologues (`msa`), and for structures (`templates`)."""

    msa: Annotated[tuple[_Name, ...], Field(min_length=1)]
    templates: _Name

    @property
    def databases(self) -> tuple[str, ...]:
        """The names of all its databases."""
        return (*self.msa, self.templates)


class Registry(_Entry):
    """All databases and presets."""

    databases: dict[_Name, Database]
    presets: dict[_Name, Preset]

    def database(self, name: str) -> Database:
        """The database of that name. Raises SnakefoldError if there is none."""
        return _named(self.databases, name, "database")

    def preset(self, name: str) -> Preset:
        """The preset of that name. Raises SnakefoldError if there is none."""
        return _named(self.presets, name, "preset")

    @model_validator(mode="before")
    @classmethod
    def _name_databases(cls, value: Any) -> Any:
        """The key is the name: a database need not repeat it."""
        if isinstance(value, dict) and isinstance(value.get("databases"), dict):
            entries = {
                name: {"name": name, **entry} if isinstance(entry, dict) else entry
                for name, entry in value["databases"].items()
            }
            return {**value, "databases": entries}
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, database in self.databases.items():
            if database.name != name:
                raise ValueError(f"database {name!r} calls itself {database.name!r}; leave `name` out")
        for name, preset in self.presets.items():
            for role, allowed in (("msa", ("sequences", "profiles")), ("templates", ("templates",))):
                chosen = preset.msa if role == "msa" else (preset.templates,)
                if len(set(chosen)) != len(chosen):
                    raise ValueError(f"preset {name!r} names a database twice in `{role}`")
                for each in chosen:
                    if each not in self.databases:
                        raise ValueError(f"preset {name!r} names database {each!r}, which there is not")
                    if self.databases[each].kind not in allowed:
                        kind = self.databases[each].kind
                        raise ValueError(f"preset {name!r} has {each!r} in `{role}`, but it holds {kind}")
        return self


def load_registry(path: Path) -> Registry:
    """Read and check a registry.

    Raises FaultsError with one line for each fault, `file: place: what is wrong`, and SnakefoldError if the file cannot
    be read at all.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SnakefoldError(f"{path}: cannot be read ({error}); see databases.registry in the config") from None
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SnakefoldError(f"{path}: {' '.join(str(error).split())}") from None
    try:
        return Registry.model_validate(content)
    except ValidationError as error:
        raise FaultsError(_line(path, each) for each in _causes(error.errors())) from None


def describe(registry: Registry) -> str:
    """Databases and presets as lines of text, for people."""
    width = max(map(len, registry.databases), default=0)
    lines = ["databases:"]
    for name, database in registry.databases.items():
        size = in_units(database.size)
        lines.append(f"  {name:{width}}  {database.kind:9}  {size:>8}  {database.version}  ({database.licence})")
        lines.append(f"  {'':{width}}  {database.description}")
    lines.append("presets:")
    for name, preset in registry.presets.items():
        total = sum(registry.databases[each].size for each in set(preset.databases))
        lines.append(f"  {name}: {', '.join(preset.msa)}; templates: {preset.templates}; {in_units(total)}")
    return "\n".join(lines)


def in_units(size: float) -> str:
    """A number of bytes for people, in decimal units as disks are sold: `1.7 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class _Loader(yaml.SafeLoader):
    """YAML, but a key that occurs twice is an error: the second would silently hide the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=deep)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} occurs twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_T = TypeVar("_T")


def _named(entries: dict[str, _T], name: str, what: str) -> _T:
    if name not in entries:
        raise SnakefoldError(f"there is no {what} {name!r}; there are {', '.join(entries) or 'none'}")
    return entries[name]


def _causes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without "too short": pydantic says that of a list with wrong entries too, because it leaves them out."""
    places = [each["loc"] for each in errors]
    return [
        each
        for each in errors
        if each["type"] != "too_short" or not any(each["loc"] == place[: len(each["loc"])] != place for place in places)
    ]


def _line(path: Path, error: ErrorDetails) -> str:
    place = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "there is no such key"
    return f"{path}: {place}: {message}" if place else f"{path}: {message}"
