"""Images, and whether the registry has those that the fleet file names."""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from snakefold.away.aws_config import recorded_images
from snakefold.doctor.findings import Check, Finding
from snakefold.doctor.queues import Ask
from snakefold.engines import ENGINES
from snakefold.engines.driven import DrivenEngine
from snakefold.workflow import config_of_this_job
from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet

_IN_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z.]+/(?P<name>[^@:]+)(:(?P<tag>[^@]+))?(@(?P<digest>.+))?"
)


def image_checks(fleet: Fleet, changes: Sequence[str], ask: Ask) -> dict[str, Check]:
    """The check of images; `changes` are for `--config`, which names engines."""
    return {"images": partial(_images, fleet, changes, ask)}


def _images(fleet: Fleet, changes: Sequence[str], ask: Ask) -> Iterator[Finding]:
    recorded = recorded_images()
    for name, why in _needed(changes).items():
        if name not in fleet.images:
            noted = "" if name in recorded else "; containers/images.yaml records no digest of it (null)"
            remedy = f"`make push-images ARGS={name}`, then `make aws-config`"
            text = f"the fleet file names no image `{name}`, which {why}{noted}"
            yield Finding(check="images", level="fault", text=text, remedy=remedy)
    for name, reference in fleet.images.items():
        yield _image(name, reference, ask)


def _needed(changes: Sequence[str]) -> dict[str, str]:
    """The images that a run of the config takes, with why."""
    engines = [ENGINES[name] for name in config_of_this_job(changes).engines]
    driven = {each.image: f"the engine {each.name} needs" for each in engines if isinstance(each, DrivenEngine)}
    return {"worker": "all jobs need", **driven}


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
        remedy = f"push it (`make push-images ARGS={name}`), then `make aws-config`"
        return Finding(check="images", level="fault", text=f"{name}: ECR does not have {reference}", remedy=remedy)
    if not place["digest"]:
        text = f"{name}: {reference} is named by a tag, which may come to mean something else"
        return Finding(check="images", level="warning", text=text, remedy="name it by digest (`make aws-config`)")
    return Finding(check="images", level="ok", text=f"{name}: {place['name']}@{place['digest'][:19]}")
