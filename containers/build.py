"""Builds an image of containers/images.yaml: `python -m containers.build worker`. Prints its reference and its id."""

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence

from containers.base import base_from_packages
from containers.engine import ENGINES, Engine, build_command, find_engine
from containers.images import ROOT, ContainerError, Image, content_tag, image_named, read_images, record
from containers.wheels import download

REPOSITORY = "localhost/snakefold"
CACHE = ROOT / ".snakefold/containers"
"""Settings of the engine and downloaded packages; git does not know it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        images = read_images()
        image = image_named(options.image, images)
        engine = find_engine(CACHE, options.engine)
        if options.pin_base:
            pin_base(options.image, image, engine)
            return 0
        reference = build(options.image, image, engine, options)
        if options.push:
            reference = push(options.image, image, engine, reference, options.push)
        print(f"{reference} {engine.image_id(reference) or ''}".strip(), flush=True)
    except ContainerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    result = argparse.ArgumentParser(prog="python -m containers.build", description=__doc__)
    result.add_argument("image", help="a name in containers/images.yaml")
    result.add_argument("--engine", choices=ENGINES, help="what builds; by default the first that is found")
    base = result.add_mutually_exclusive_group()
    base.add_argument("--base", metavar="REFERENCE", help="start from this image instead of the listed one")
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
    result.add_argument("--rebuild", action="store_true", help="build all of it afresh, with Debian's updates of today")
    result.add_argument("--push", metavar="REPOSITORY", help="push it there and note its digest in images.yaml")
    result.add_argument(
        "--pin-base", action="store_true", help="only ask the registry for the base's digest and note it in images.yaml"
    )
    return result


def build(name: str, image: Image, engine: Engine, options: argparse.Namespace) -> str:
    """Build the image unless it is there already; returns its reference, whose tag is a digest of what went in."""
    base = options.base or image.pinned_base
    if options.base_from_packages:
        base = base_from_packages(engine, afresh=options.rebuild)
    tag = content_tag(image, engine.image_id(base) or base)
    reference = f"{REPOSITORY}/{name}:{tag}"
    latest = f"{REPOSITORY}/{name}:latest"
    if engine.image_id(reference) and not options.rebuild:
        engine.run("tag", reference, latest)
        return reference
    locks = [ROOT / path for path in image.inputs if path.endswith(".lock")]
    command = build_command(
        engine.name,
        dockerfile=image.dockerfile,
        context=ROOT,
        tags=[reference, latest],
        base=base,
        labels=labels(tag),
        wheels=download(locks, CACHE / "wheels") if options.host_packages else None,
        afresh=options.rebuild,
    )
    engine.run(*command, show=True)
    return reference


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


def push(name: str, image: Image, engine: Engine, reference: str, repository: str) -> str:
    """Push an image and note where it is; returns the reference by digest, the form that jobs use."""
    if engine.name == "buildah":
        raise ContainerError("buildah does not tell the digest of what it pushed; use podman or docker")
    if image.base_digest is None:
        raise ContainerError(f"{name}: its base is not pinned; first: python -m containers.build {name} --pin-base")
    target = f"{repository}:{reference.rpartition(':')[2]}"
    engine.run("tag", reference, target)
    engine.run("push", target, show=True)
    digest = digest_of(engine, target)
    record(name, {"reference": repository, "digest": digest})
    return f"{repository}@{digest}"


def pin_base(name: str, image: Image, engine: Engine) -> None:
    """Ask the registry for the base and note its digest."""
    engine.run("pull", image.base, show=True)
    digest = digest_of(engine, image.base)
    record(name, {"base_digest": digest})
    print(f"{image.base}@{digest}")


def digest_of(engine: Engine, reference: str) -> str:
    """The digest under which a registry knows an image that was pulled or pushed."""
    if engine.name == "buildah":
        raise ContainerError("buildah does not tell the digests of a registry; use podman or docker")
    listed = engine.run("image", "inspect", "--format", "{{range .RepoDigests}}{{println .}}{{end}}", reference)
    wanted = reference.rpartition(":")[0]
    for line in listed.splitlines():
        repository, _, digest = line.strip().partition("@")
        # docker and podman write the same repository with and without the registry's host.
        if digest and (repository == wanted or repository.endswith("/" + wanted)):
            return digest
    raise ContainerError(f"{reference}: {engine.name} knows no digest of it")


if __name__ == "__main__":
    sys.exit(main())
