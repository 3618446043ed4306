"""What images there are (`images.yaml`) and what goes into each."""

import hashlib
import json
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import pydantic
import yaml

ROOT = Path(__file__).parents[1]
IMAGES = Path(__file__).with_name("images.yaml")
DIGEST = r"^sha256:[0-9a-f]{64}$"


class ContainerError(Exception):
    """A fault to be shown as one line."""


class Image(pydantic.BaseModel):
    """One entry of images.yaml; the comment at the head of that file says what each key means."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    dockerfile: str
    inputs: tuple[str, ...]
    arguments: Mapping[str, str] = {}
    source: str | None = None
    base: str
    base_digest: str | None = pydantic.Field(default=None, pattern=DIGEST)
    reference: str | None
    digest: str | None = pydantic.Field(pattern=DIGEST)
    tag: str | None
    purpose: str

    @property
    def pinned_base(self) -> str:
        """The base as a build names it: by digest where that is known."""
        return f"{self.base}@{self.base_digest}" if self.base_digest else self.base

    @property
    def locks(self) -> tuple[str, ...]:
        """Those of the inputs that list packages with their hashes."""
        return tuple(name for name in self.inputs if name.endswith(".lock"))


def read_images(path: Path = IMAGES) -> Mapping[str, Image]:
    """The images by name.

    Raises:
        ContainerError: naming the first key that is wrong.

    """
    try:
        entries = yaml.safe_load(path.read_text())
        images = pydantic.TypeAdapter(dict[str, Image]).validate_python(entries)
    except (OSError, yaml.YAMLError) as error:
        raise ContainerError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ContainerError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    names = list(images)
    for name, image in images.items():
        if image.base in names[names.index(name) :]:
            raise ContainerError(f"{path}: {name}.base: {image.base} must stand above {name}")
        if image.base in images and image.base_digest:
            raise ContainerError(f"{path}: {name}.base_digest: {image.base} is built here; leave it out")
    return images


def image_named(name: str, images: Mapping[str, Image]) -> Image:
    """The entry of that name.

    Raises:
        ContainerError: naming those that there are.

    """
    if name not in images:
        raise ContainerError(f"no image {name!r} in containers/images.yaml; there are: {', '.join(images)}")
    return images[name]


def files_of(image: Image, root: Path = ROOT) -> Iterator[Path]:
    """Every file that goes into an image, in a fixed order.

    Raises:
        ContainerError: an input is not there.

    """
    for name in (image.dockerfile, *image.inputs):
        path = root / name
        if path.is_file():
            yield path
        elif path.is_dir():
            # What .dockerignore leaves out.
            yield from (p for p in sorted(path.rglob("*")) if p.is_file() and "__pycache__" not in p.parts)
        else:
            raise ContainerError(f"{name}: not there, but containers/images.yaml lists it as an input")


def content_tag(image: Image, base: str, root: Path = ROOT, *, source: str = "") -> str:
    """Twelve hex digits of the SHA-256 of all that goes into an image.

    Args:
        image: the entry of images.yaml.
        base: what pins the base: its reference with digest, the id of a local image, or the tag of one of ours.
        root: the repository.
        source: what pins the source that a build is given, if the image needs one.

    """
    digest = hashlib.sha256(base.encode())
    if image.arguments or source:
        digest.update(json.dumps([dict(image.arguments), source], sort_keys=True).encode())
    for path in files_of(image, root):
        executable = bool(path.stat().st_mode & stat.S_IXUSR)
        name = PurePosixPath(path.relative_to(root))
        digest.update(f"\0{name}\0{executable}\0{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()[:12]


def record(name: str, values: Mapping[str, str], path: Path) -> None:
    """Write values of one entry into images.yaml, and leave its comments as they are.

    Raises:
        ContainerError: the entry or a key is not there.

    """
    text = path.read_text()
    entry = re.search(rf"^{re.escape(name)}:\n(?:(?:  .*|\s*)\n)*", text, re.MULTILINE)
    if entry is None:
        raise ContainerError(f"{path}: no entry {name}")
    changed = entry[0]
    for key, value in values.items():
        changed, count = re.subn(rf"^  {key}: .*$", f"  {key}: {value}", changed, flags=re.MULTILINE)
        if count != 1:
            raise ContainerError(f"{path}: {name}: no key {key}")
    path.write_text(text[: entry.start()] + changed + text[entry.end() :])
