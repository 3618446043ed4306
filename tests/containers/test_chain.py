"""Images that start from one another, what each engine's holds, the sources that a build is given, and pushing."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from containers import build
from containers.build import Builder, parser, sources_of
from containers.engine import Engine
from containers.images import ContainerError, Image, content_tag, image_named, read_images
from containers.push import base_of, repositories
from containers.source import Source, digest, read_sources
from snakefold.engines import ENGINES
from snakefold.engines.driven import DrivenEngine
from tests.conftest import ROOT

DIGEST = "sha256:" + "a" * 64
IMAGES = read_images()
FROM_WORKER = [name for name, image in IMAGES.items() if image.base == "worker"]


class Recorder(Engine):
    """Notes what an engine is called with; an image is there once it was built or tagged."""

    def __init__(self) -> None:
        super().__init__(name="podman")
        self.__dict__["calls"] = []

    def run(self, *arguments: str, show: bool = False) -> str:
        self.__dict__["calls"].append(arguments)
        return ""

    def image_id(self, reference: str) -> str | None:
        built = any(reference in call for call in self.__dict__["calls"])
        return "id-of-base" if reference == "a-base" or built else None

    @property
    def built(self) -> list[str]:
        """Name and tag of each image in the order of the builds."""
        builds = [call for call in self.__dict__["calls"] if call[0] == "build"]
        return [call[call.index("--tag") + 1].rpartition("/")[2] for call in builds]


def builder(*arguments: str, images: Mapping[str, Image] = IMAGES) -> Builder:
    options = parser().parse_args(["--base", "a-base", *arguments])
    return Builder(engine=Recorder(), images=images, options=options, sources=sources_of(options.source, images))


@pytest.mark.parametrize(
    "engine", [each for each in ENGINES.values() if isinstance(each, DrivenEngine)], ids=lambda each: each.name
)
def test_every_engine_in_a_driver_has_an_image_with_its_packages(engine: DrivenEngine) -> None:
    image = image_named(engine.image, IMAGES)
    assert image.base == "worker"
    lock = (ROOT / f"envs/engines/{engine.image}.lock").read_text()
    if image.source is None:
        for package in engine.packages:
            assert re.search(rf"^{package}==", lock, re.MULTILINE), f"{package} is not in the lock"


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "envs/engines").glob("*.txt"))])
def test_the_lock_of_a_list_of_packages_has_what_it_pins(name: str) -> None:
    """If not: `make lock`."""
    lock = (ROOT / f"envs/engines/{name}.lock").read_text()
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", lock, re.MULTILINE))
    normal = {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in pins.items()}
    given = ROOT / f"envs/engines/{name}.txt"
    for package, version in re.findall(r"^([A-Za-z0-9_.-]+)(?:\[\w+\])?==(\S+)", given.read_text(), re.MULTILINE):
        assert normal[re.sub(r"[-_.]+", "-", package).lower()] == version


@pytest.mark.parametrize("name", FROM_WORKER)
def test_all_packages_of_an_engine_have_hashes_and_none_an_address(name: str) -> None:
    lock = (ROOT / f"envs/engines/{name}.lock").read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry.partition("\n")[0])
    assert "://" not in lock
    assert "+cpu" not in lock


@pytest.mark.parametrize("name", FROM_WORKER)
def test_an_engines_lock_brings_cuda(name: str) -> None:
    lock = (ROOT / f"envs/engines/{name}.lock").read_text()
    assert re.search(r"^nvidia-(cudnn|cublas)[a-z0-9-]*==", lock, re.MULTILINE)


def test_an_image_is_built_after_the_one_it_starts_from_and_each_once() -> None:
    made = builder()
    references = [made.build(name) for name in ("esmfold", "boltz", "worker")]
    engine = made.engine
    assert isinstance(engine, Recorder)
    assert [name.partition(":")[0] for name in engine.built] == ["worker", "esmfold", "boltz"]
    esmfold = next(call for call in engine.__dict__["calls"] if call[0] == "build" and references[0] in call)
    assert f"BASE={references[2]}" in esmfold
    assert "ENGINE=esmfold" in esmfold


def test_tags_follow_from_content_through_the_chain(tmp_path: Path) -> None:
    tag = builder().build("esmfold")
    assert builder().build("esmfold") == tag
    worker = IMAGES["worker"].model_copy(update={"inputs": (*IMAGES["worker"].inputs, "LICENSE")})
    assert builder(images={**IMAGES, "worker": worker}).build("esmfold") != tag
    other = IMAGES["esmfold"].model_copy(update={"arguments": {"ENGINE": "esmfold", "MODULES": "torch"}})
    assert builder(images={**IMAGES, "esmfold": other}).build("esmfold") != tag


def test_where_an_image_was_pushed_does_not_change_its_tag() -> None:
    pushed = IMAGES["esmfold"].model_copy(update={"reference": "registry/esmfold", "digest": DIGEST})
    assert content_tag(pushed, "worker:1") == content_tag(IMAGES["esmfold"], "worker:1")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("base: worker", "base: nextone"), r"esmfold\.base: nextone must stand above esmfold"),
        (("base: worker", f"base: worker\n  base_digest: {DIGEST}"), r"esmfold\.base_digest: worker is built here"),
        (("arguments:", "argument:"), r"esmfold\.argument: Extra inputs"),
    ],
)
def test_faults_of_a_chain_are_one_line(tmp_path: Path, change: tuple[str, str], why: str) -> None:
    path = tmp_path / "images.yaml"
    text = (ROOT / "containers/images.yaml").read_text().partition("\n\nboltz:")[0]
    entry = text.partition("\nworker:\n")[2].partition("\n\n")[0]
    path.write_text(text.replace(*change, 1) + "\n\nnextone:\n" + entry + "\n")
    with pytest.raises(ContainerError, match=why) as caught:
        read_images(path)
    assert "\n" not in str(caught.value)


# Sources


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of one module, which takes the place of OmegaFold's."""
    folder = tmp_path / "checkout"
    (folder / "package").mkdir(parents=True)
    (folder / "package/code.py").write_text("print(1)\n")
    source = Source(
        distribution="something",
        repository="somebody/something",
        commit="c" * 40,
        digest=digest({("package", "code.py"): b"print(1)\n"}),
        folders={"package": "package"},
        path=(),
        licences=(),
    )
    monkeypatch.setattr("containers.build.read_sources", lambda: {"omegafold": source})
    return folder


def test_an_image_that_needs_a_source_gets_its_wheel(checkout: Path) -> None:
    given = builder("--source", f"omegafold={checkout}")
    given.build("omegafold")
    (context,) = [each for call in given.engine.__dict__["calls"] for each in call if each.startswith("source=")]
    assert not Path(context.partition("=")[2]).exists(), "it is removed after the build"
    (checkout / "package/code.py").write_text("print(2)\n")
    with pytest.raises(ContainerError, match="is not somebody/something at cccccccccccc"):
        builder("--source", f"omegafold={checkout}").build("omegafold")


def test_the_pinned_source_is_part_of_the_tag(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = build.read_sources()["omegafold"]
    tag = builder("--source", f"omegafold={checkout}").build("omegafold")
    other = source.model_copy(update={"commit": "d" * 40})
    monkeypatch.setattr("containers.build.read_sources", lambda: {"omegafold": other})
    assert builder("--source", f"omegafold={checkout}").build("omegafold") != tag


def test_an_image_without_its_source_is_left_out_of_all_and_refused_alone(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "omegafold" not in list(build.chosen(["esmfold", "omegafold"], builder(), all_of_them=True))
    assert capsys.readouterr().err.startswith("left out: omegafold: needs the source of somebody/something at cccccc")
    with pytest.raises(ContainerError, match=r"--source omegafold=FOLDER-OR-ARCHIVE"):
        list(build.chosen(["omegafold"], builder(), all_of_them=False))
    with pytest.raises(ContainerError, match=r"for an image that needs a source \(omegafold"):
        sources_of([f"worker={checkout}"], IMAGES)
    with pytest.raises(ContainerError, match="no-such is not there"):
        sources_of(["omegafold=no-such"], IMAGES)


def test_every_source_belongs_to_an_image() -> None:
    assert {image.source for image in IMAGES.values()} - {None} == set(read_sources())


# Pushing


def pinned_images() -> dict[str, Image]:
    return {**IMAGES, "worker": IMAGES["worker"].model_copy(update={"base_digest": DIGEST})}


def test_an_image_on_an_unpinned_base_is_not_pushed() -> None:
    images = {**IMAGES, "worker": IMAGES["worker"].model_copy(update={"base_digest": None})}
    assert base_of("esmfold", images) == "worker"
    with pytest.raises(ContainerError, match=r"^worker: its base is not pinned; .*--pin-base"):
        repositories(["esmfold"], images, "registry", Path("none"))


def test_images_go_to_the_repositories_that_terraform_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = {"repositories": {"value": {"worker": "ecr/snakefold/worker", "esmfold": "ecr/snakefold/esmfold"}}}
    (tmp_path / "terraform").write_text(f"#!/bin/sh\necho '{json.dumps(outputs)}'\n")
    (tmp_path / "terraform").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = repositories(["worker", "esmfold"], pinned_images(), None, tmp_path)
    assert found == outputs["repositories"]["value"]
    with pytest.raises(ContainerError, match=r"no repository for boltz; `terraform .* apply`"):
        repositories(["esmfold", "boltz"], pinned_images(), None, tmp_path)
    with pytest.raises(ContainerError, match=r"no-such: there is no such folder.*--to PREFIX"):
        repositories(["esmfold"], pinned_images(), None, Path("no-such"))
    assert repositories(["esmfold"], pinned_images(), "registry/mine/", tmp_path) == {
        "esmfold": "registry/mine/esmfold"
    }


# Makefile


@pytest.mark.parametrize(
    ("target", "arguments", "command"),
    [
        ("images", "", "-m containers.build"),
        ("images", "esmfold boltz", "-m containers.build esmfold boltz"),
        ("push-images", "", "-m containers.build --push"),
        ("push-images", "esmfold --to registry", "-m containers.build --push esmfold --to registry"),
        ("image", "--rebuild", "-m containers.build worker --rebuild"),
    ],
)
def test_make_builds_and_pushes_one_several_or_all(target: str, arguments: str, command: str) -> None:
    # Not as a part of the make that runs the tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    result = subprocess.run(
        ["make", "--dry-run", "--old-file=.venv/run", target, f"ARGS={arguments}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip().splitlines()[-1].rstrip().endswith(command)
    options = parser().parse_args(command.removeprefix("-m containers.build").split())
    assert set(options.images) <= set(IMAGES)
