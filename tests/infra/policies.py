"""What IAM would say to a request, by the policies of a role: enough of its language for ours.

moto's own evaluation passes over resources (save of S3) and conditions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Statement = Mapping[str, Any]


def allowed(statements: Iterable[Statement], action: str, resource: str, context: Mapping[str, str]) -> bool:
    """Whether a statement allows a request and none denies it."""
    effects = {each["Effect"] for each in statements if _concerns(each, action, resource, context)}
    return effects == {"Allow"}


def _concerns(statement: Statement, action: str, resource: str, context: Mapping[str, str]) -> bool:
    unknown = statement.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}
    assert not unknown, f"not evaluated here: {unknown}"
    return (
        _matches(statement["Action"], action, re.IGNORECASE)
        and _matches(statement["Resource"], resource)
        and all(_holds(operator, keys, context) for operator, keys in statement.get("Condition", {}).items())
    )


def _holds(operator: str, keys: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    assert operator == "StringEquals", f"not evaluated here: {operator}"
    return all(context.get(key) in _list(values) for key, values in keys.items())


def _matches(patterns: str | list[str], value: str, flags: int = 0) -> bool:
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), value, flags)
        for pattern in _list(patterns)
    )


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
