"""Batch's decision whether an attempt that failed is followed by another."""

from __future__ import annotations

from typing import Any

from tests.fake_aws.engines import Outcome


def retried(strategy: dict[str, Any], attempts_made: int, outcome: Outcome) -> bool:
    """Whether Batch starts another attempt.

    The first rule of `evaluateOnExit` of which every condition holds decides. When none does, Batch retries: the trap
    for which a list of rules needs a last one that exits.
    """
    if outcome.final or attempts_made >= strategy.get("attempts", 1):
        return False
    exit_code = "" if outcome.exit_code is None else str(outcome.exit_code)
    for rule in strategy.get("evaluateOnExit") or []:
        conditions = (
            ("onExitCode", exit_code),
            ("onReason", outcome.reason or ""),
            ("onStatusReason", outcome.status_reason),
        )
        if all(name not in rule or _matches(rule[name], text) for name, text in conditions):
            return rule["action"].upper() == "RETRY"
    return True


def _matches(pattern: str, text: str) -> bool:
    """A pattern is the whole text, or its start when it ends with an asterisk."""
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
