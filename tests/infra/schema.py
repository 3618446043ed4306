"""The configuration checked without Terraform: by python-hcl2, against what the provider said of the resources used.

`python -m tests.infra.schema` writes `schema.json` anew, by Terraform; needed when a new kind of resource is used.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2

from tests.infra.terraform import MODULE, Terraform, find_mirror, initialised

SCHEMA = Path(__file__).with_name("schema.json")
META = {"count", "for_each", "provider", "lifecycle", "depends_on"}

Blocks = dict[str, Any]


def provider_schema(terraform: Terraform) -> Blocks:
    """What the provider says of the resources and data sources that the module uses, cut down to what is checked."""
    (provider,) = json.loads(terraform.run("providers", "schema", "-json"))["provider_schemas"].values()
    kinds = {"resource": provider["resource_schemas"], "data": provider["data_source_schemas"]}
    used = sorted({(kind, resource) for kind, resource, _, _ in blocks(MODULE)})
    return {f"{kind}.{resource}": _cut(kinds[kind][resource]["block"]) for kind, resource in used}


def _cut(block: Blocks) -> Blocks:
    attributes = block.get("attributes", {})
    settable = sorted(name for name, facts in attributes.items() if facts.get("required") or facts.get("optional"))
    nested = block.get("block_types", {})
    return {
        "arguments": settable,
        "required": sorted(name for name, facts in attributes.items() if facts.get("required"))
        + sorted(name for name, facts in nested.items() if facts.get("min_items")),
        "blocks": {name: _cut(facts["block"]) for name, facts in sorted(nested.items())},
    }


def blocks(folder: Path) -> Iterator[tuple[str, str, str, Blocks]]:
    """Kind (`resource`, `data`), type, name and body of every such block of a folder's files."""
    for file in sorted(folder.glob("*.tf")):
        content = hcl2.loads(file.read_text())
        for kind in ("resource", "data"):
            for item in content.get(kind, []):
                for resource, named in _own(item):
                    for name, body in _own(named):
                        yield kind, resource, name, body


def faults(folder: Path, schema: Blocks) -> list[str]:
    """A line for each argument or block that the provider does not know, does not find, or sets itself, and for each
    reference to what is not declared."""
    found = []
    for kind, resource, name, body in blocks(folder):
        where = f"{kind}.{resource}.{name}"
        if f"{kind}.{resource}" not in schema:
            found.append(f"{where}: no such {kind} is known; python -m tests.infra.schema brings it from the provider")
            continue
        found += _faults_of_body(body, schema[f"{kind}.{resource}"], where, META)
    return [*found, *_undeclared(folder)]


def _own(block: Blocks) -> Iterator[tuple[str, Any]]:
    """Keys and values of a block without the parser's remarks; keys without quotes."""
    for key, value in block.items():
        if not key.startswith("__"):
            yield key.strip('"'), value


def _faults_of_body(body: Blocks, schema: Blocks, where: str, free: set[str]) -> Iterator[str]:
    seen = set()
    for key, value in _own(body):
        if key == "dynamic":
            for item in value:
                for name, block in _own(item):
                    seen.add(name)
                    if name not in schema["blocks"]:
                        yield f"{where}: no block {name}"
                        continue
                    for content in block["content"]:
                        yield from _faults_of_body(content, schema["blocks"][name], f"{where}.{name}", set())
        elif key in schema["blocks"]:
            seen.add(key)
            for block in value:
                yield from _faults_of_body(block, schema["blocks"][key], f"{where}.{key}", set())
        elif key in schema["arguments"]:
            seen.add(key)
        elif key not in free:
            yield f"{where}: no argument {key}"
    yield from (f"{where}: {name} is missing" for name in schema["required"] if name not in seen)


def _undeclared(folder: Path) -> Iterator[str]:
    contents = [hcl2.loads(file.read_text()) for file in sorted(folder.glob("*.tf"))]

    def names(kind: str) -> set[str]:
        return {name for content in contents for item in content.get(kind, []) for name, _ in _own(item)}

    declared = {f"var.{name}" for name in names("variable")} | {f"local.{name}" for name in names("locals")}
    declared |= {f"{'data.' * (kind == 'data')}{resource}.{name}" for kind, resource, name, _ in blocks(folder)}
    pattern = re.compile(r"(?<![\w.\"-])(?:(?:var|local)\.\w+|(?:data\.)?aws_\w+\.\w+)")
    for file in sorted(folder.glob("*.tf")):
        code = re.sub(r"(?m)^\s*#.*$", "", file.read_text())
        yield from (f"{file.name}: {name} is not declared" for name in sorted({*pattern.findall(code)} - declared))


def main() -> None:
    """Write the schema."""
    if find_mirror() is None:
        raise SystemExit("no Terraform with a mirror of the provider was found")
    with tempfile.TemporaryDirectory() as folder:
        schema = provider_schema(initialised(Path(folder)))
    lines = (f"{json.dumps(name)}: {json.dumps(block, separators=(',', ':'))}" for name, block in schema.items())
    SCHEMA.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
