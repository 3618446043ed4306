"""Builds images of containers/images.yaml and pushes them. Prints a line for each: its reference and its id.

`python -m containers.build worker esmfold` builds those two, `python -m containers.build` all.
"""

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from containers.base import base_from_packages
from containers.engine import ENGINES, Engine, build_command, find_engine
from containers.images import ROOT, ContainerError, Image, content_tag, image_named, read_images
from containers.push import pin_base, push, repositories
from containers.source import make_wheel, read_sources
from containers.wheels import download

REPOSITORY = "localhost/snakefold"
CACHE = ROOT / ".snakefold/containers"
"""Settings of the engine and downloaded packages; git does not know it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        images = read_images()
        names = [name for name in options.images if image_named(name, images)] or list(images)
        sources = sources_of(options.source, images)
        engine = find_engine(CACHE, options.engine)
        if options.pin_base:
            pin_bases(names, images, engine)
            return 0
        builder = Builder(engine=engine, images=images, options=options, sources=sources)
        wanted = list(chosen(names, builder, all_of_them=not options.images))
        # Before hours of building, not after.
        targets = repositories(wanted, images, options.to, options.terraform) if options.push else {}
        for name in wanted:
            reference = builder.build(name)
            if options.push:
                reference = push(name, images[name], engine, reference, targets[name], afresh=options.rebuild)
            print(f"{reference} {engine.image_id(reference) or ''}".strip(), flush=True)
    except ContainerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    result = argparse.ArgumentParser(prog="python -m containers.build", description=__doc__)
    result.add_argument("images", nargs="*", metavar="IMAGE", help="names in containers/images.yaml (default: all)")
    result.add_argument("--engine", choices=ENGINES, help="what builds; by default the first that is found")
    base = result.add_mutually_exclusive_group()
    base.add_argument("--base", metavar="REFERENCE", help="start from this image instead of the registry's")
    base.add_argument(
        "--base-from-packages",
        action="store_true",
        help="start from a Debian made by mmdebstrap here: for machines that reach no registry",
    )
    result.add_argument(
        "--host-packages",
        action="store_true",
        help="download Python packages with this machine's pip and its settings, not in the build",
    )
    result.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="IMAGE=PATH",
        help="the source (folder or tar archive) of an image whose engine is on no package index",
    )
    result.add_argument("--rebuild", action="store_true", help="build all of it afresh, with Debian's updates of today")
    result.add_argument(
        "--push", action="store_true", help="push them to the repositories that Terraform made; notes their digests"
    )
    result.add_argument("--to", metavar="PREFIX", help="push to PREFIX/IMAGE instead")
    result.add_argument(
        "--terraform",
        type=Path,
        default=Path("infra/terraform"),
        metavar="FOLDER",
        help="the root module whose output `repositories` says where to push (default: infra/terraform)",
    )
    result.add_argument(
        "--pin-base", action="store_true", help="only ask the registry for the base's digest and note it in images.yaml"
    )
    return result


@dataclass(kw_only=True)
class Builder:
    """Builds images, each after the one that it starts from, and none twice."""

    engine: Engine
    images: Mapping[str, Image]
    options: argparse.Namespace
    sources: Mapping[str, Path]
    built: dict[str, str] = field(default_factory=dict)

    def build(self, name: str) -> str:
        """Build an image unless it is there already; returns its reference, whose tag is a digest of what went in."""
        if name not in self.built:
            self.built[name] = self._build(name, self.images[name])
        return self.built[name]

    def lacks_source(self, name: str) -> bool:
        """Whether an image needs a source that was not given."""
        return self.images[name].source is not None and name not in self.sources

    def _build(self, name: str, image: Image) -> str:
        if image.base in self.images:
            base = self.build(image.base)
            pinned = base.removeprefix(f"{REPOSITORY}/")
        else:
            base = self._base(image)
            # A base without digest is known by what is here.
            pinned = base if "@" in base else self.engine.image_id(base) or base
        source = read_sources()[image.source].model_dump_json() if image.source else ""
        tag = content_tag(image, pinned, source=source)
        reference, latest = f"{REPOSITORY}/{name}:{tag}", f"{REPOSITORY}/{name}:latest"
        if self.engine.image_id(reference) and not self.options.rebuild:
            self.engine.run("tag", reference, latest)
            return reference
        with tempfile.TemporaryDirectory(prefix="snakefold-source-") as scratch:
            command = build_command(
                self.engine.name,
                dockerfile=image.dockerfile,
                context=ROOT,
                tags=[reference, latest],
                base=base,
                labels=labels(tag),
                arguments=image.arguments,
                contexts=self._contexts(name, image, Path(scratch)),
                afresh=self.options.rebuild,
            )
            self.engine.run(*command, show=True)
        return reference

    def _contexts(self, name: str, image: Image, scratch: Path) -> dict[str, Path]:
        """The folders that stand in for stages of the Dockerfile."""
        contexts = {}
        if self.options.host_packages:
            locks = [ROOT / path for path in image.locks]
            contexts["wheels"] = download(locks, CACHE / "wheels" / name)
        if image.source is not None:
            make_wheel(read_sources()[image.source], self.sources[name], scratch)
            contexts["source"] = scratch
        return contexts

    def _base(self, image: Image) -> str:
        if self.options.base_from_packages:
            return base_from_packages(self.engine, afresh=self.options.rebuild)
        return self.options.base or image.pinned_base


def sources_of(given: Sequence[str], images: Mapping[str, Image]) -> dict[str, Path]:
    """Where the sources of images are, by the command line's IMAGE=PATH. Raises ContainerError if it is wrong."""
    result = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals or image_named(name, images).source is None:
            needing = ", ".join(name for name, image in images.items() if image.source) or "none"
            raise ContainerError(f"--source {each}: write IMAGE=PATH, for an image that needs a source ({needing})")
        if not Path(path).exists():
            raise ContainerError(f"--source {each}: {path} is not there")
        result[name] = Path(path)
    return result


def chosen(names: Sequence[str], builder: Builder, *, all_of_them: bool) -> Iterator[str]:
    """The images to build. One that was not named, and whose source is not given, is left out, and that is said."""
    for name in names:
        if not builder.lacks_source(name):
            yield name
            continue
        source = read_sources()[str(builder.images[name].source)]
        commit = f"{source.repository} at {source.commit[:12]}"
        what = f"{name}: needs the source of {commit}: --source {name}=FOLDER-OR-ARCHIVE"
        if not all_of_them:
            raise ContainerError(what)
        print(f"left out: {what}", file=sys.stderr)


def labels(tag: str) -> Mapping[str, str]:
    """What an image says of itself, besides what its Dockerfile states."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.revision": asked or "unknown",
        "snakefold.content": tag,
    }


def pin_bases(names: Sequence[str], images: Mapping[str, Image], engine: Engine) -> None:
    """Ask the registry for the bases of these images that are not built here, and note their digests."""
    for name in names:
        if images[name].base not in images:
            pin_base(name, images[name], engine)


if __name__ == "__main__":
    sys.exit(main())
