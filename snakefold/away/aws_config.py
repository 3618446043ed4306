"""`snakefold aws-config`: the fleet file, written from what Terraform put out. No name is copied by hand."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from snakemake_interface_common.exceptions import WorkflowError

from snakefold.errors import FaultsError, SnakefoldError
from snakefold.files import write_text
from snakefold.fleet import check_content
from snakemake_executor_plugin_aws_batch_fleet.fleet import Fleet, Queue, parse_fleet

TERRAFORM = Path("infra/terraform")
"""The root module whose outputs are read by default."""

_MARK = "# content: sha256:"
_MOST_DIFFERENCES = 8


@dataclass(frozen=True, kw_only=True)
class Written:
    """What came of it: `changes` are lines that tell the new file from the old; `notes` are for the user."""

    written: bool
    changes: tuple[str, ...]
    notes: tuple[str, ...]


def outputs_of_terraform(folder: Path) -> tuple[Mapping[str, Any], str]:
    """The outputs of a root module as `terraform output -json` has them, and where they came from.

    Raises SnakefoldError if there is no terraform, no such folder, no state, or no access to it.
    """
    if not folder.is_dir():
        raise SnakefoldError(
            f"{folder}: there is no such folder; name the one with the Terraform module by --terraform"
        )
    command = ["terraform", f"-chdir={folder}", "output", "-json", "-no-color"]
    try:
        result = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise SnakefoldError(
            "terraform: not found; install it, or give what `terraform output -json` prints elsewhere by --from FILE"
        ) from None
    if result.returncode:
        why = " ".join(result.stderr.replace("│", " ").replace("╷", " ").replace("╵", " ").split())
        why = why.partition("Error: ")[2] or why
        raise SnakefoldError(f"{folder}: terraform says: {why[:200]}; `terraform -chdir={folder} init`, then again")
    outputs = json.loads(result.stdout)
    if not outputs:
        raise SnakefoldError(
            f"{folder}: Terraform has no outputs there, so nothing was applied yet; `terraform -chdir={folder} apply`, "
            "in the workspace and with the backend that you mean"
        )
    return outputs, f"the outputs of Terraform in {folder}"


def outputs_of_file(name: str) -> tuple[Mapping[str, Any], str]:
    """The outputs in a file, or in what comes by standard input if the name is `-`. Raises SnakefoldError."""
    where = "standard input" if name == "-" else name
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        outputs = json.loads(text)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SnakefoldError(f"{where}: cannot be read ({reason}); give what `terraform output -json` prints") from None
    if not isinstance(outputs, dict):
        raise SnakefoldError(f"{where}: holds no outputs; give what `terraform output -json` prints")
    # `terraform output -json fleet` prints the value alone.
    return ({"fleet": {"value": outputs}} if "queues" in outputs else outputs), where


def write_fleet(
    outputs: Mapping[str, Any], source: str, path: Path, recorded: Mapping[str, str], *, force: bool = False
) -> Written:
    """Write the fleet file `path` from Terraform's outputs.

    `recorded` are the images that were pushed, `name -> repository@digest`. Raises FaultsError with a line for each
    fault of the fleet, and SnakefoldError if there is none, or if the file was edited and `force` is not given.
    """
    content, notes = _content(outputs, source, recorded)
    text = yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True)
    head = (
        f"# Written by `make aws-config` from {source}.\n"
        "# Change it there: what is edited here is not overwritten without --force. docs/aws.md tells of the keys.\n"
        f"{_MARK}{_digest(text)}\n"
    )
    changes, edited = _compare(path, content)
    if edited and changes and not force:
        raise SnakefoldError(
            f"{path}: was edited by hand and differs from {source} in {'; '.join(_shortened(changes))}; "
            "bring your edits there, or overwrite them by --force (make aws-config ARGS=--force)"
        )
    written = bool(changes) or not path.exists()
    if written:
        write_text(path, head + text)
    return Written(written=written, changes=tuple(changes), notes=tuple(notes))


def recorded_images() -> dict[str, str]:
    """The images that were pushed, by name: `repository@digest`, from containers/images.yaml. Raises SnakefoldError."""
    try:
        from containers.images import ContainerError, read_images
    except ModuleNotFoundError:
        raise SnakefoldError("containers/images.yaml: not found; run this in the clone's root") from None
    try:
        images = read_images()
    except ContainerError as error:
        raise SnakefoldError(str(error)) from None
    return {name: f"{image.reference or ''}@{image.digest}" for name, image in images.items() if image.digest}


def _content(outputs: Mapping[str, Any], source: str, recorded: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The fleet with images by digest, checked, and notes on images."""
    fleet = _value(outputs, "fleet")
    if fleet is None:
        raise SnakefoldError(
            f"{source}: there is no output `fleet`; apply the module of this version (infra/terraform), which has it"
        )
    repositories = _value(outputs, "repositories") or {}
    content = _without_nulls(fleet)
    images = dict(content.get("images") or {})
    notes, missing = [], []
    for name in sorted({*repositories, *images, *recorded}):
        repository, pushed = repositories.get(name), recorded.get(name)
        if pushed and (repository is None or pushed.partition("@")[0] == repository):
            images[name] = pushed
        elif pushed and name not in images:
            notes.append(
                f"image {name}: was pushed to {pushed.partition('@')[0] or 'no registry'}, not to {repository}; push "
                f"it there: `make push-images ARGS={name}`"
            )
        elif name not in images:
            missing.append(name)
    if missing:
        notes.append(
            f"images {', '.join(missing)}: nothing is recorded in containers/images.yaml; push the worker and those of "
            f"your engines, such as `make push-images ARGS={missing[-1]}`, then `make aws-config`"
        )
    content["images"] = images
    # Terraform sorts keys by name; a reader begins with region and bucket.
    content = _ordered(content, ("region", "bucket", *Fleet.model_fields))
    if isinstance(content.get("queues"), list):
        content["queues"] = [_ordered(queue, Queue.model_fields) for queue in content.pop("queues")]
    try:
        parse_fleet(content, source)
    except WorkflowError as error:
        raise FaultsError(f"snakefold: {line}" for line in str(error).splitlines()) from None
    check_content(content, Path(source))
    return content, notes


def _value(outputs: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    found = outputs.get(name)
    value = found.get("value") if isinstance(found, dict) else None
    return value if isinstance(value, dict) else None


def _ordered(value: Any, keys: Iterable[str]) -> Any:
    """A mapping with these keys first."""
    if not isinstance(value, dict):
        return value
    return {key: value[key] for key in dict.fromkeys((*keys, *value)) if key in value}


def _without_nulls(value: Any) -> Any:
    """Optional attributes of Terraform's objects are null, where a key of ours is left out."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _compare(path: Path, content: dict[str, Any]) -> tuple[list[str], bool]:
    """What differs from the file that is there, and whether somebody edited that."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return [], False
    except (OSError, UnicodeDecodeError) as error:
        raise SnakefoldError(f"{path}: cannot be read ({error}); remove it, then again") from None
    head, mark, rest = text.partition(_MARK)
    digest, _, body = rest.partition("\n")
    edited = not mark or not head.startswith("# Written by") or digest.strip() != _digest(body)
    try:
        old = yaml.safe_load(text)
    except yaml.YAMLError:
        return ["all of it: it is no YAML"], True
    return _differences(_named(old), _named(content)), edited


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _named(content: Any) -> dict[str, Any]:
    """The fleet as flat keys such as `queues[cpu].vcpus`."""
    flat: dict[str, Any] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == "queues" and isinstance(value, list):
            for queue in value:
                fields = queue.items() if isinstance(queue, dict) else ()
                flat |= {f"queues[{dict(fields).get('name')}].{field}": each for field, each in fields}
        elif isinstance(value, dict):
            flat |= {f"{key}.{name}": each for name, each in value.items()}
        else:
            flat[key] = value
    # What is empty or null means the same as what is not there.
    return {key: value for key, value in flat.items() if value not in (None, [], {})}


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    keys = sorted({key for key in {*old, *new} if old.get(key) != new.get(key)})
    return [f"{key} ({old.get(key, 'none')} -> {new.get(key, 'none')})" for key in keys]


def _shortened(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_DIFFERENCES
    return lines if more <= 0 else [*lines[:_MOST_DIFFERENCES], f"and {more} more"]
