"""What a check finds, how checks are run side by side, and how findings are shown."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line. A fault keeps runs from working; a warning may, or says that something could not be looked at."""

    check: str
    level: Level
    text: str
    remedy: str = ""
    """What to do; empty if all is well."""

    def __str__(self) -> str:
        level = self.level.upper() if self.level == "fault" else self.level
        return f"{level:8} {self.check:12} {self.text}" + (f"; {self.remedy}" if self.remedy else "")


Check = Callable[[], Iterator[Finding]]
"""Yields findings. What it raises ends this check alone."""


def run_checks(checks: Mapping[str, Check], explain: Callable[[str, Exception], Finding]) -> list[Finding]:
    """Run all checks at once; their findings in the order of the checks.

    `explain` makes a finding of what a check (its name) raised.
    """

    def one(name: str, check: Check) -> list[Finding]:
        found: list[Finding] = []
        try:
            found.extend(check())
        except Exception as error:
            found.append(explain(name, error))
        return found

    with ThreadPoolExecutor(len(checks)) as pool:
        pending = [pool.submit(one, name, check) for name, check in checks.items()]
        return [finding for each in pending for finding in each.result()]


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether there is no fault."""
    return all(finding.level != "fault" for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    """Findings for people, and how many there are of each level."""
    levels = [finding.level for finding in findings]
    numbers = {"warning": levels.count("warning"), "fault": levels.count("fault")}
    counts = ", ".join(
        [f"{levels.count('ok')} ok", *(f"{number} {what}{'s' * (number != 1)}" for what, number in numbers.items())]
    )
    return "\n".join([*map(str, findings), counts])


def as_json(findings: Sequence[Finding]) -> str:
    """Findings for programs."""
    return json.dumps({"ok": is_well(findings), "findings": [asdict(each) for each in findings]}, indent=1)
