"""The build of images, as far as it needs no container engine."""

import re
import resource
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from containers import build
from containers.engine import Engine, build_command, find_engine, limited_settings
from containers.images import ContainerError, Image, content_tag, files_of, image_named, read_images, record
from containers.wheels import download_command
from tests.conftest import ROOT

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def image() -> Image:
    return Image(
        dockerfile="Dockerfile",
        inputs=("lock", "plugin"),
        base="debian:bookworm-slim",
        base_digest=None,
        reference=None,
        digest=None,
        tag=None,
        purpose="A test.",
    )


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "plugin").mkdir()
    for name in ("Dockerfile", "lock", "plugin/code.py"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_every_listed_image_has_its_files_and_the_context_lets_them_in() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for name, listed in read_images().items():
        assert list(files_of(listed)), name
        for path in listed.inputs:
            assert any(fnmatch(f"!{path}", line) for line in allowed), f"{name}: .dockerignore hides {path}"


def test_dockerfiles_copy_only_what_images_yaml_lists() -> None:
    """Else a change of a file would not change the tag, and an old image would be taken for the new one."""
    for listed in read_images().values():
        text = (ROOT / listed.dockerfile).read_text()
        for key, value in listed.arguments.items():
            assert re.search(rf"^ARG {key}=?$", text, re.MULTILINE), f"{listed.dockerfile} takes no argument {key}"
            text = text.replace(f"${{{key}}}", value)
        lines = text.splitlines()
        copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from=" not in line]
        assert {name for names in copied for name in names} == set(listed.inputs)


@pytest.mark.parametrize("changed", ["Dockerfile", "lock", "plugin/code.py", "plugin/new.py"])
def test_tag_changes_with_each_input(sources: Path, image: Image, changed: str) -> None:
    before = content_tag(image, "base", sources)
    (sources / changed).write_text("something else")
    assert content_tag(image, "base", sources) != before


def test_tag_changes_with_the_base_and_with_nothing_else(sources: Path, image: Image) -> None:
    before = content_tag(image, "base", sources)
    assert content_tag(image, "another", sources) != before
    (sources / "README").write_text("not an input")
    (sources / "plugin/__pycache__").mkdir()
    (sources / "plugin/__pycache__/code.pyc").write_text("left out by .dockerignore")
    assert content_tag(image, "base", sources) == before


def test_a_missing_input_is_named(sources: Path, image: Image) -> None:
    (sources / "lock").unlink()
    with pytest.raises(ContainerError, match=r"^lock: not there"):
        content_tag(image, "base", sources)


def test_faults_of_the_list_are_one_line(tmp_path: Path) -> None:
    text = (ROOT / "containers/images.yaml").read_text()
    path = tmp_path / "images.yaml"
    path.write_text(text.replace("base_digest: null", "base_digest: latest"))
    with pytest.raises(ContainerError, match=r"images\.yaml: worker\.base_digest: String should match pattern"):
        read_images(path)
    path.write_text(text.replace("  purpose: Searches", "  colour: red\n  purpose: Searches"))
    with pytest.raises(ContainerError, match=r"worker\.colour: Extra inputs are not permitted"):
        read_images(path)
    with pytest.raises(ContainerError, match=r"no image 'wroker' in containers/images\.yaml; there are: worker"):
        image_named("wroker", read_images())


def test_digests_are_noted_and_comments_kept(tmp_path: Path) -> None:
    path = Path(shutil.copy(ROOT / "containers/images.yaml", tmp_path))
    text = path.read_text()
    path.write_text(text + "\n# The next one.\nother:\n" + text.partition("worker:\n")[2].partition("\n\n")[0] + "\n")
    record("worker", {"base_digest": DIGEST, "reference": "registry/worker", "digest": DIGEST}, path)
    images = read_images(path)
    assert images["worker"].pinned_base == f"debian:bookworm-slim@{DIGEST}"
    assert (images["worker"].reference, images["worker"].digest) == ("registry/worker", DIGEST)
    assert images["other"].digest is None
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in path.read_text().splitlines() if line.startswith("#")] == [*comments, "# The next one."]


@pytest.mark.parametrize("name", ["podman", "docker", "buildah"])
def test_build_commands_keep_the_health_check_and_the_cache(tmp_path: Path, name: str) -> None:
    command = build_command(
        name,
        dockerfile="containers/Dockerfile.worker",
        context=tmp_path,
        tags=["localhost/worker:1"],
        base="debian:bookworm-slim",
        labels={"key": "value"},
        arguments={"ENGINE": "esmfold"},
        contexts={"wheels": tmp_path / "wheels"},
    )
    joined = " ".join(command)
    assert "--build-arg BASE=debian:bookworm-slim" in joined
    assert "--build-arg ENGINE=esmfold" in joined
    assert f"--build-context wheels={tmp_path}/wheels" in joined
    assert ("--format docker" in joined) == (name != "docker")
    assert ("--layers" in joined) == (name == "buildah")
    assert command[-1] == str(tmp_path)


def test_without_an_engine_the_error_names_what_to_install(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match="install one of podman, docker and buildah"):
        find_engine(tmp_path)
    with pytest.raises(ContainerError, match=r"^podman: not found"):
        find_engine(tmp_path, "podman")


def test_podman_is_used_as_it_is_where_it_works(programs: Path, tmp_path: Path) -> None:
    write_program(programs / "podman", "exit 0")
    assert find_engine(tmp_path / "settings") == Engine(name="podman")
    assert not (tmp_path / "settings").exists()


def test_podman_gets_settings_of_its_own_where_it_fails_without(programs: Path, tmp_path: Path) -> None:
    write_program(programs / "podman", '[ -n "$CONTAINERS_CONF" ] || { echo "Error: setrlimit" >&2; exit 126; }')
    found = find_engine(tmp_path / "settings")
    assert found.environment == {"CONTAINERS_CONF": str(tmp_path / "settings/containers.conf")}
    assert (tmp_path / "settings/containers.conf").read_text() == limited_settings()


def test_podman_that_cannot_run_says_why(programs: Path, tmp_path: Path) -> None:
    write_program(programs / "podman", 'echo "Error: cannot clone: Operation not permitted" >&2; exit 125')
    with pytest.raises(ContainerError, match="cannot clone: Operation not permitted"):
        find_engine(tmp_path)


def test_limits_are_never_above_those_of_this_process() -> None:
    files = int(limited_settings().partition("nofile=")[2].partition(":")[0])
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert 0 < files <= (allowed if allowed != resource.RLIM_INFINITY else files)


def test_host_packages_are_for_the_python_of_the_image(tmp_path: Path) -> None:
    command = download_command(tmp_path / "requirements.lock", tmp_path)
    assert "--require-hashes" in command
    assert command[command.index("--python-version") + 1] == "3.11"
    for name in ("Dockerfile.worker", "Dockerfile.engine"):
        assert "/lib/python3.11/" in (ROOT / "containers" / name).read_text()
    assert "bookworm" in (ROOT / "containers/Dockerfile.worker").read_text()
    assert "--python-version 3.11" in (ROOT / "Makefile").read_text().partition("cd envs/engines")[2]


def test_faults_end_the_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["wroker"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_where_podman_is_missing_the_tests_left_out_are_named(tmp_path: Path) -> None:
    """PATH without mmdebstrap and podman, as on a machine where nothing could be installed."""
    for name in ("bash", "dirname", "grep", "sed", "sort"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    script = ROOT / "tests/containers/available.sh"
    result = subprocess.run(["bash", str(script)], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert result.returncode == 1
    assert "mmdebstrap: not found" in result.stdout
    assert "  tests/containers/test_worker_image.py\n" in result.stdout
