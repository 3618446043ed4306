"""Results may change, but not unsaid: a step whose results change must get a new version."""

import json
from typing import Any

import numpy as np
import pytest

from tests.conftest import Clone
from tests.e2e.golden import GOLDEN, STEP_VERSIONS, collect

SAY = "results of {step} changed: raise its version, then run `python -m tests.e2e.golden` where the example has run"
CA_TOLERANCE = 0.3
"""Angstrom, root mean square: processors differ by less, another algorithm by more."""


@pytest.fixture(scope="module")
def found(finished: Clone) -> dict[str, Any]:
    return collect(finished.folder)


@pytest.mark.parametrize("step", STEP_VERSIONS)
def test_results_are_those_of_the_steps_version(found: dict[str, Any], step: str) -> None:
    golden = json.loads(GOLDEN.read_text())[step]
    assert golden["version"] == STEP_VERSIONS[step], "new version: python -m tests.e2e.golden"
    assert found[step]["members"].keys() == golden["members"].keys()
    for name, expected in golden["members"].items():
        member = dict(found[step]["members"][name])
        trace, expected_trace = member.pop("trace", None), expected.pop("trace", None)
        for key, value in expected.items():
            near = pytest.approx(value, rel=0.01) if isinstance(value, float) else value
            assert member[key] == near, f"{name}: {key}; {SAY.format(step=step)}"
        if expected_trace is not None:
            assert np.shape(trace) == np.shape(expected_trace), f"{name}; {SAY.format(step=step)}"
            square = np.square(np.subtract(trace, expected_trace)).sum(axis=1).mean()
            assert np.sqrt(square) < CA_TOLERANCE, f"{name}; {SAY.format(step=step)}"
