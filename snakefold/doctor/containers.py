"""Images, and whether the registry has those that the fleet file names."""

import re
from collections.abc import Iterator
from functools import partial

from snakefold.away.aws_config import recorded_images
from snakefold.doctor.findings import Check, Finding
from snakefold.doctor.queues import Ask
from snakefold.errors import SnakefoldError
from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet

_IN_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z.]+/(?P<name>[^@:]+)(:(?P<tag>[^@]+))?(@(?P<digest>.+))?"
)


def image_checks(fleet: Fleet, ask: Ask) -> dict[str, Check]:
    """The check of images."""
    return {"images": partial(_images, fleet, ask)}


def _images(fleet: Fleet, ask: Ask) -> Iterator[Finding]:
    if "worker" not in fleet.images:
        remedy = '`make image ARGS="--push REPOSITORY"`, then `make aws-config`'
        try:
            noted = "" if "worker" in recorded_images() else "; containers/images.yaml records no digest of it (null)"
        except SnakefoldError:
            noted = ""
        text = f"the fleet file names no image `worker`, which all jobs need{noted}"
        yield Finding(check="images", level="fault", text=text, remedy=remedy)
    for name, reference in fleet.images.items():
        yield _image(name, reference, ask)


def _image(name: str, reference: str, ask: Ask) -> Finding:
    place = _IN_ECR.fullmatch(reference)
    if place is None:
        text = f"{name}: {reference} is not in ECR: nobody can be asked whether it is there"
        return Finding(check="images", level="warning", text=text, remedy="see that the machines can pull it")
    identity = {"imageDigest": place["digest"]} if place["digest"] else {"imageTag": place["tag"] or "latest"}
    answer = ask(
        "ecr",
        "DescribeImages",
        region=place["region"],
        absent=("ImageNotFoundException", "RepositoryNotFoundException"),
        registryId=place["account"],
        repositoryName=place["name"],
        imageIds=[identity],
    )
    if answer is None:
        remedy = f"push it (`python -m containers.build {name} --push REPOSITORY`), then `make aws-config`"
        return Finding(check="images", level="fault", text=f"{name}: ECR does not have {reference}", remedy=remedy)
    if not place["digest"]:
        text = f"{name}: {reference} is named by a tag, which may come to mean something else"
        return Finding(check="images", level="warning", text=text, remedy="name it by digest (`make aws-config`)")
    return Finding(check="images", level="ok", text=f"{name}: {place['name']}@{place['digest'][:19]}")
