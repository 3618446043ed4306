"""Which quota of EC2 counts an instance. Its unit is a vCPU, of all running instances of the class in the region.

Names and codes as Service Quotas has them for the service `ec2`.
"""

import re
from dataclasses import dataclass

_STANDARD = frozenset("acdhimrtz")


@dataclass(frozen=True)
class Quota:
    """A quota's code and name."""

    code: str
    name: str


_ON_DEMAND = {
    "standard": Quota("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
    "g": Quota("L-DB2E81BA", "Running On-Demand G and VT instances"),
    "p": Quota("L-417A185B", "Running On-Demand P instances"),
    "p5": Quota("L-417A185B", "Running On-Demand P instances"),
}
_SPOT = {
    "standard": Quota("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
    "g": Quota("L-3819A6DF", "All G and VT Spot Instance Requests"),
    "p": Quota("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
    "p5": Quota("L-C4BD4855", "All P5 Spot Instance Requests"),
}


def quota_of(instance_type: str, *, spot: bool) -> Quota | None:
    """The quota that counts instances of a type or family such as `g5.2xlarge` or `g5`; None if it is not known."""
    letters = re.match(r"[a-z]+", instance_type)
    if letters is None:
        return None
    series = letters[0]
    if instance_type.startswith("p5"):
        kind = "p5"
    elif series in ("g", "gr", "vt"):
        kind = "g"
    elif series == "p":
        kind = "p"
    elif series in ("inf", "trn", "dl", "hpc", "mac"):
        return None
    elif series[0] in _STANDARD:
        kind = "standard"
    else:
        return None
    return (_SPOT if spot else _ON_DEMAND)[kind]
