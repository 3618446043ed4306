"""The three statements of what snakefold depends on must agree."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9_.-]+)==([^ ;\\]+)", path.read_text(), re.MULTILINE))


def test_conda_environment_pins_the_direct_dependencies_as_the_lock_does() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.split(r"[<>=\[]", dependency)[0].lower() for dependency in project["dependencies"]}
    environment = yaml.safe_load((ROOT / "envs/snakefold.yaml").read_text())
    pinned = dict(line.split("==") for line in environment["dependencies"][-1]["pip"])
    lock = pins(ROOT / "envs/requirements.lock")
    assert set(pinned) == direct
    assert pinned == {name: lock[name] for name in direct}


def test_the_development_lock_extends_the_lock_of_a_run() -> None:
    run, development = pins(ROOT / "envs/requirements.lock"), pins(ROOT / "envs/requirements-dev.lock")
    assert {name: development.get(name) for name in run} == run


def test_locks_carry_hashes_and_no_addresses() -> None:
    for path in (ROOT / "envs").glob("*.lock"):
        text = path.read_text()
        assert "://" not in text
        assert "--index-url" not in text
        requirements = re.findall(r"^[a-z0-9_.-]+==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", text, re.MULTILINE)
        assert len(requirements) == len(re.findall(r"^[a-z0-9_.-]+(?:\[.*\])?==", text, re.MULTILINE))
