"""An image pushed by podman to a registry on this machine, and what is noted of it."""

import shutil
from pathlib import Path

import pytest

from containers.engine import Engine, podman_environment
from containers.images import read_images
from containers.push import push
from tests.conftest import ROOT
from tests.containers.registry import digest_of, running

pytestmark = pytest.mark.podman


def test_the_digest_that_is_noted_is_the_registrys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Path(shutil.copy(ROOT / "containers/images.yaml", tmp_path))
    monkeypatch.setattr("containers.push.IMAGES", images)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY images.yaml /\n")
    with running() as registry:
        settings = tmp_path / "registries.conf"
        settings.write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')
        environment = {**podman_environment(tmp_path), "CONTAINERS_REGISTRIES_CONF": str(settings)}
        podman = Engine(name="podman", environment=environment)
        image, repository = "localhost/snakefold/test-push:tag", f"{registry.address}/snakefold/esmfold"
        podman.run("build", "--format", "docker", "--tag", image, str(tmp_path))
        try:
            pushed = push("esmfold", read_images(images)["esmfold"], podman, image, repository)
            known = dict(registry.manifests)
            digest = digest_of(registry.manifests["snakefold/esmfold:tag"])
            entry = read_images(images)["esmfold"]
            assert (entry.reference, entry.digest, entry.tag) == (repository, digest, "tag")
            again = push("esmfold", entry, podman, image, repository)
            assert pushed == again == f"{repository}@{digest}"
            assert known == registry.manifests
            # The repository was made anew.
            registry.manifests.clear()
            push("esmfold", entry, podman, image, repository)
            assert list(registry.manifests) == ["snakefold/esmfold:tag"]
            # The same content built afresh: registries that keep tags would refuse the old one.
            push("esmfold", entry, podman, image, repository, afresh=True)
            (_, afresh) = registry.manifests
            entry = read_images(images)["esmfold"]
            assert afresh == f"snakefold/esmfold:{entry.tag}"
            assert str(entry.tag).startswith("tag-")
            known = dict(registry.manifests)
            push("esmfold", entry, podman, image, repository)
            assert known == registry.manifests
        finally:
            podman.run("rmi", "--force", str(podman.image_id(image)))  # by all of its names
    assert read_images(images)["worker"].digest is None
