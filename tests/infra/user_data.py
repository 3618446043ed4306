"""The machines' user data as Terraform renders it, for machines without Terraform."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.infra.terraform import MODULE

VARIANTS = {
    "root": {"databases_on": "root", "lustre": ""},
    "nvme": {"databases_on": "nvme", "lustre": ""},
    "fsx": {"databases_on": "fsx", "lustre": "fs-0123456789abcdef0.fsx.eu-west-1.amazonaws.com@tcp:/abcdefgh"},
}
FOLDER = "/mnt/databases"


def render(variables: Mapping[str, str]) -> str:
    """The template with its variables: the little of Terraform's language that it uses. A test compares the two."""
    text = (MODULE / "user_data.tftpl").read_text()
    for name, wanted, body in re.findall(r'(?s)%\{ if (\w+) == "(\w+)" ~\}\n(.*?)%\{ endif ~\}\n', text):
        block = f'%{{ if {name} == "{wanted}" ~}}\n{body}%{{ endif ~}}\n'
        text = text.replace(block, body if variables[name] == wanted else "")
    text = re.sub(r"(?<!\$)\$\{(\w+)\}", lambda match: variables[match[1]], text)
    return text.replace("$${", "${")


def script_of(user_data: str) -> str:
    """The shell script in user data."""
    (script,) = re.findall(r'(?s)charset="us-ascii"\n\n(#!/bin/bash\n.*?)--==SNAKEFOLD==--\n', user_data)
    return script
