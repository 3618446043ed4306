"""Images to a registry, and their digests to images.yaml."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from containers.engine import Engine
from containers.images import IMAGES, ContainerError, Image, record
from snakefold.away.aws_config import outputs_of_terraform
from snakefold.errors import SnakefoldError


def repositories(
    names: Sequence[str], images: Mapping[str, Image], prefix: str | None, terraform: Path
) -> dict[str, str]:
    """Where each image is pushed to: below a prefix, else the repository that Terraform made for it.

    Raises:
        ContainerError: Terraform has none for an image, or a registry's base is not pinned.

    """
    for name in names:
        bottom = base_of(name, images)
        if images[bottom].base_digest is None:
            first = f"python -m containers.build {bottom} --pin-base"
            raise ContainerError(f"{bottom}: its base is not pinned; first: {first}")
    if prefix is not None:
        return {name: f"{prefix.rstrip('/')}/{name}" for name in names}
    try:
        outputs, where = outputs_of_terraform(terraform)
    except SnakefoldError as error:
        raise ContainerError(f"{error} (or give --to PREFIX)") from None
    known = (outputs.get("repositories") or {}).get("value") or {}
    if missing := [name for name in names if name not in known]:
        raise ContainerError(
            f"{where}: no repository for {', '.join(missing)}; `terraform -chdir={terraform} apply` makes one for each "
            "image of containers/images.yaml"
        )
    return {name: str(known[name]) for name in names}


def base_of(name: str, images: Mapping[str, Image]) -> str:
    """The image at the bottom of those that an image is built upon: the one that starts from a registry's."""
    while images[name].base in images:
        name = images[name].base
    return name


def push(name: str, image: Image, engine: Engine, reference: str, repository: str, *, afresh: bool = False) -> str:
    """Push an image and note where it is; returns the reference by digest, the form that jobs use.

    What was pushed there before, and is there still, is not pushed again: it could get another digest (podman
    compresses it anew), and registries whose tags cannot change refuse that. So one that was built `afresh` from the
    same content gets a tag of its own.

    Raises:
        ContainerError: the engine cannot, or it failed.

    """
    if engine.name == "buildah":
        raise ContainerError("buildah does not tell the digest of what it pushed; use podman or docker")
    tag = reference.rpartition(":")[2]
    if afresh:
        tag += f"-{str(engine.image_id(reference)).removeprefix('sha256:')[:12]}"
    elif image.digest and image.reference == repository and str(image.tag).partition("-")[0] == tag:
        pushed = f"{repository}@{image.digest}"
        if engine.is_pushed(pushed):
            return pushed
    target = f"{repository}:{tag}"
    engine.run("tag", reference, target)
    if engine.name == "podman":
        with tempfile.TemporaryDirectory(prefix="snakefold-push-") as folder:
            note = Path(folder) / "digest"
            engine.run("push", "--digestfile", str(note), target, show=True)
            digest = note.read_text().strip()
    else:
        engine.run("push", target, show=True)
        digest = digest_of(engine, target)
    record(name, {"reference": repository, "digest": digest, "tag": tag}, IMAGES)
    return f"{repository}@{digest}"


def pin_base(name: str, image: Image, engine: Engine) -> None:
    """Ask the registry for the base and note its digest."""
    engine.run("pull", image.base, show=True)
    digest = digest_of(engine, image.base)
    record(name, {"base_digest": digest}, IMAGES)
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
