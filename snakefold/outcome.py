"""How the computation of one member of a batch ended."""

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step says of one member. The files it made lie in the folder that it was given.

    `skipped` means that the step does not apply (no template found, too long); `reason` then says why.
    `kind` is a short class of the reason, for tables and tests. `facts` are small JSON values worth keeping
    (depth of an MSA, template used); they must not hold times, paths or anything else that differs between runs.
    Failures are raised, as MemberError or any other exception.
    """

    status: Literal["done", "skipped"] = "done"
    kind: str | None = None
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
