"""The account that the fleet file describes, and whether it has what runs on AWS Batch need.

Every check asks AWS on its own; a right that lacks for one is told and holds up no other. Nothing is changed, but for
one small object of the run's prefix, which is written, read and deleted.
"""

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from botocore import xform_name
from snakemake_interface_common.exceptions import WorkflowError

from snakefold.away.run import COMMAND
from snakefold.databases.registry import in_units
from snakefold.databases.remote import RemoteDatabase
from snakefold.doctor.containers import image_checks
from snakefold.doctor.findings import Finding, run_checks
from snakefold.doctor.queues import queue_checks
from snakefold.errors import SnakefoldError
from snakefold.fleet import Fleet as Place
from snakefold.fleet import load_fleet
from snakefold.s3 import Patience, S3Error, S3Folder
from snakemake_executor_plugin_aws_batch_fleet.aws import RENEW, Aws, error_code, is_credentials_error, preflight
from snakemake_executor_plugin_aws_batch_fleet.fleet import DEFAULT_LOG_GROUP, Fleet
from snakemake_executor_plugin_aws_batch_fleet.fleet import load_fleet as load_table

_DENIED = frozenset(("AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "403"))
_NO_BUCKET = ("404", "NoSuchBucket")
_SKEW_WARNING = 60
_SKEW_FAULT = 240
"""Seconds. AWS refuses requests signed five minutes (S3: fifteen) from its own time."""


class DeniedError(Exception):
    """AWS does not let us look."""

    def __init__(self, right: str) -> None:
        super().__init__(right)
        self.right = right


@dataclass(frozen=True, kw_only=True)
class Account:
    """The fleet file's account as this user sees it."""

    place: Place
    fleet: Fleet
    clients: "Clients"
    id: str
    """Twelve digits."""
    caller: str
    """ARN of who asks."""


class Clients:
    """Clients that give up soon: a doctor answers in seconds. Made one at a time, used by all threads."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], Any] = {}
        self._session: Any = None

    def ask(
        self,
        service: str,
        operation: str,
        *,
        right: str | None = None,
        absent: Collection[str] = (),
        region: str | None = None,
        **arguments: Any,
    ) -> Any:
        """Call an operation, such as `batch`, `DescribeJobQueues`; None if the error's code is one of `absent`.

        Raises DeniedError with the `right` that it takes (by default named as the operation), and what botocore raises.
        """
        from botocore.exceptions import ClientError

        client = self._client(service, region or self.region)
        try:
            return getattr(client, xform_name(operation))(**arguments)
        except ClientError as error:
            if error_code(error) in absent:
                return None
            if error_code(error) in _DENIED:
                raise DeniedError(right or f"{_PREFIXES.get(service, service)}:{operation}") from None
            raise

    def _client(self, service: str, region: str) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=5,
            read_timeout=20,
            max_pool_connections=32,
        )
        with self._lock:
            if self._session is None:
                self._session = boto3.Session(region_name=self.region)
            if (service, region) not in self._clients:
                self._clients[service, region] = self._session.client(service, region_name=region, config=config)
            return self._clients[service, region]


_PREFIXES = {"service-quotas": "servicequotas"}
"""Of rights, where they are not the service's name."""


def examine_account(run: str | None, changes: Sequence[str]) -> list[Finding]:
    """Look at all that the fleet file names; `run` is the name of a run, `changes` are for `--config`."""
    try:
        place = load_fleet(run)
        fleet = load_table(str(place.path))
    except (SnakefoldError, WorkflowError) as error:
        return [Finding(check="fleet file", level="fault", text=line) for line in str(error).splitlines()]
    found = [Finding(check="fleet file", level="ok", text=f"{place.path}: {len(fleet.queues)} queues")]
    clients = Clients(fleet.region)
    account = _identify(place, fleet, clients, found)
    if account is None:
        return found
    checks = {
        "bucket": partial(_bucket, account),
        "privacy": partial(_privacy, account),
        "bucket use": partial(_bucket_use, account),
        **queue_checks(fleet, clients.ask),
        **image_checks(fleet, changes, clients.ask),
        "roles": partial(_roles, account),
        "rights": partial(_rights, account),
        "log group": partial(_log_group, account),
        "events": partial(_events, account),
        "databases": partial(_databases, account, changes),
    }
    return found + run_checks(checks, explain)


def explain(check: str, error: Exception) -> Finding:
    """A finding of what a check raised."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    if isinstance(error, DeniedError):
        remedy = "give it that right, or let somebody look who has it"
        text = f"cannot be looked at: your user or role lacks {error.right}"
        return Finding(check=check, level="warning", text=text, remedy=remedy)
    if is_credentials_error(error):
        return Finding(
            check=check, level="fault", text=f"AWS refuses the credentials ({error_code(error)})", remedy=RENEW
        )
    if isinstance(error, S3Error):
        level = "warning" if error.denied else "fault"
        return Finding(check=check, level=level, text=str(error))
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, SnakefoldError):
        return Finding(check=check, level="fault", text=text)
    if isinstance(error, BotoCoreError | ClientError | ResponseParserError):
        remedy = "look at the network, and try again later"
        return Finding(check=check, level="warning", text=f"cannot be asked: {text}", remedy=remedy)
    return Finding(check=check, level="warning", text=f"the check itself failed: {type(error).__name__}: {text}")


def _identify(place: Place, fleet: Fleet, clients: Clients, found: list[Finding]) -> Account | None:
    """Who asks, from where, at what time. None if all else would be in vain."""
    from botocore.exceptions import BotoCoreError, ClientError

    def say(check: str, level: Any, text: str, remedy: str = "") -> None:
        found.append(Finding(check=check, level=level, text=text, remedy=remedy))

    try:
        preflight(Aws(fleet.region))
        answer = clients.ask("sts", "GetCallerIdentity")
    except WorkflowError as error:
        say("credentials", "fault", str(error))
        return None
    except DeniedError as error:
        say("credentials", "fault", f"AWS denies {error.right}, which takes no right", "ask who runs the account")
        return None
    except ClientError as error:
        if (skew := _skew(error.response)) is not None and abs(skew) >= _SKEW_FAULT:
            found.append(_clock(skew))
        say("credentials", "fault", f"AWS refuses them ({error_code(error)})", RENEW)
        return None
    except BotoCoreError as error:
        if is_credentials_error(error):
            say("credentials", "fault", " ".join(str(error).split()), RENEW)
        else:
            say("region", "fault", f"AWS does not answer in {fleet.region}: {error}", "see the network, and the region")
        return None
    say("credentials", "ok", answer["Arn"])
    if (skew := _skew(answer)) is not None:
        found.append(_clock(skew))
    account = answer["Account"]
    arns = [fleet.job_role_arn, fleet.execution_role_arn, fleet.controller_role_arn, fleet.database_role_arn]
    others = sorted({arn.split(":")[4] for arn in arns if arn and arn.count(":") >= 5} - {account})
    if others:
        remedy = "set AWS_PROFILE to one of that account, or SNAKEFOLD_FLEET to the other fleet file"
        say("account", "fault", f"you are in account {account}, the fleet file is of {', '.join(others)}", remedy)
    else:
        say("account", "ok", f"{account}, region {fleet.region}")
    return Account(place=place, fleet=fleet, clients=clients, id=account, caller=answer["Arn"])


def _skew(answer: Mapping[str, Any]) -> float | None:
    """Seconds by which this machine is ahead of AWS."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return time.time() - parsedate_to_datetime(date).timestamp() if date else None


def _clock(skew: float) -> Finding:
    text = f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of AWS"
    if abs(skew) < _SKEW_WARNING:
        return Finding(check="clock", level="ok", text="agrees with that of AWS")
    level = "fault" if abs(skew) >= _SKEW_FAULT else "warning"
    return Finding(check="clock", level=level, text=text, remedy="set it (NTP): AWS refuses requests of another time")


# The bucket


def _bucket(account: Account) -> Iterator[Finding]:
    name, own = account.fleet.bucket or "", account.fleet.region
    answer = account.clients.ask("s3", "HeadBucket", right="s3:ListBucket", absent=_NO_BUCKET, Bucket=name)
    if answer is None:
        remedy = "correct its name in the fleet file, or have it made (Terraform)"
        yield Finding(check="bucket", level="fault", text=f"there is no bucket {name}", remedy=remedy)
        return
    region = answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region") or own
    if region == own:
        yield Finding(check="bucket", level="ok", text=f"{name}, in {region}")
    else:
        remedy = "use a bucket there: what crosses regions is slow and is charged for"
        text = f"{name} is in {region}, the queues are in {own}"
        yield Finding(check="bucket", level="warning", text=text, remedy=remedy)


def _privacy(account: Account) -> Iterator[Finding]:
    name = account.fleet.bucket or ""
    answer = account.clients.ask(
        "s3",
        "GetPublicAccessBlock",
        right="s3:GetBucketPublicAccessBlock",
        absent=(*_NO_BUCKET, "NoSuchPublicAccessBlockConfiguration"),
        Bucket=name,
    )
    settings = answer["PublicAccessBlockConfiguration"] if answer else {}
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    if open_ones := [each for each in names if not settings.get(each)]:
        text = f"{name}: public access is not blocked ({', '.join(open_ones)} off)"
        remedy = "switch all four on: `aws s3api put-public-access-block`, unless the whole account blocks it"
        yield Finding(check="privacy", level="warning", text=text, remedy=remedy)
    else:
        yield Finding(check="privacy", level="ok", text=f"{name}: public access is blocked")


def _bucket_use(account: Account) -> Iterator[Finding]:
    """Write, read and delete an object of the run's own, which no run looks at."""
    folder = S3Folder(f"{account.place.prefix}/.fleet", patience=Patience(attempts=2, wait=0.2))
    name = f"doctor-{uuid.uuid4().hex}"
    steps: tuple[tuple[str, str, Callable[[], object]], ...] = (
        ("write", "s3:PutObject", lambda: folder.write(name, b"snakefold doctor")),
        ("read", "s3:GetObject", lambda: folder.read(name)),
        ("delete", "s3:DeleteObject", lambda: folder.delete([name])),
    )
    well = True
    for what, right, step in steps:
        try:
            step()
        except S3Error as error:
            well = False
            remedy = f"give your user or role {right} below {folder.url()}" if error.denied else ""
            text = f"you cannot {what} below {folder.url()}" if error.denied else str(error)
            yield Finding(check="bucket use", level="fault", text=text, remedy=remedy)
            if what == "write":
                return
    if well:
        text = f"you can write, read and delete below {account.place.prefix}"
        yield Finding(check="bucket use", level="ok", text=text)


# Roles


def _roles(account: Account) -> Iterator[Finding]:
    fleet = account.fleet
    roles = {
        "job_role_arn": fleet.job_role_arn,
        "execution_role_arn": fleet.execution_role_arn,
        "controller_role_arn": fleet.controller_role_arn,
        "database_role_arn": fleet.database_role_arn,
    }
    if fleet.job_role_arn is None:
        text = "no job_role_arn in the fleet file: jobs have no rights of their own"
        yield Finding(check="roles", level="fault", text=text, remedy="name the role of the jobs there")
    named: dict[str, list[str]] = {}
    for key, arn in roles.items():
        if arn:
            named.setdefault(arn, []).append(key)
    for arn, keys in named.items():
        name = arn.rpartition("/")[2]
        what = f"{name} ({', '.join(keys)})"
        answer = account.clients.ask("iam", "GetRole", absent=("NoSuchEntity",), RoleName=name)
        if answer is None:
            remedy = "correct the fleet file (`make aws-config`)"
            yield Finding(check="roles", level="fault", text=f"there is no role {what}", remedy=remedy)
            continue
        if "ecs-tasks.amazonaws.com" in str(answer["Role"].get("AssumeRolePolicyDocument")):
            yield Finding(check="roles", level="ok", text=what)
        else:
            remedy = "let ecs-tasks.amazonaws.com assume it"
            yield Finding(check="roles", level="fault", text=f"{what} cannot be used by containers", remedy=remedy)


def _rights(account: Account) -> Iterator[Finding]:
    """Whether this caller may submit jobs and pass them their roles, by IAM's simulator."""
    arn = account.caller
    if arn.endswith(":root"):
        yield Finding(check="rights", level="warning", text="you are the root user", remedy="use a role for daily work")
        return
    if ":assumed-role/" in arn:
        # arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION; the role's own ARN may have a path.
        arn = account.clients.ask("iam", "GetRole", RoleName=arn.split("/")[1])["Role"]["Arn"]
    fleet = account.fleet
    passed = {fleet.job_role_arn, fleet.execution_role_arn, fleet.controller_role_arn, fleet.database_role_arn}
    roles = sorted(each for each in passed if each)
    # A policy that names resources allows nothing of `*`: each action is asked for what a run would do it to.
    here = f"{arn.split(':')[0]}:{arn.split(':')[1]}:batch:{fleet.region}:{account.id}"
    definition = f"{here}:job-definition/snakemake-{'0' * 24}"
    questions: list[dict[str, Any]] = [
        {"ActionNames": ["batch:ListJobs", "batch:DescribeJobs"]},
        {"ActionNames": ["batch:RegisterJobDefinition"], "ResourceArns": [definition]},
        {"ActionNames": ["batch:TerminateJob"], "ResourceArns": [f"{here}:job/{uuid.uuid4()}"]},
        {
            "ActionNames": ["batch:SubmitJob"],
            "ResourceArns": [*(f"{here}:job-queue/{queue.name}" for queue in fleet.queues), definition],
        },
    ]
    if roles:
        context = {
            "ContextKeyName": "iam:PassedToService",
            "ContextKeyType": "string",
            "ContextKeyValues": ["ecs-tasks.amazonaws.com"],
        }
        questions.append({"ActionNames": ["iam:PassRole"], "ResourceArns": roles, "ContextEntries": [context]})
    denied = []
    for question in questions:
        answer = account.clients.ask("iam", "SimulatePrincipalPolicy", PolicySourceArn=arn, **question)
        for each in answer["EvaluationResults"]:
            if each["EvalDecision"] != "allowed":
                resource = each.get("EvalResourceName", "*")
                denied.append(each["EvalActionName"] + (f" of {resource}" if resource != "*" else ""))
    if denied:
        # A policy may ask for conditions that the simulator is not told.
        text = f"IAM's simulator says that you lack {', '.join(denied)}"
        yield Finding(
            check="rights", level="warning", text=text, remedy="attach the submitter's policy if a run is refused"
        )
    else:
        yield Finding(check="rights", level="ok", text="you may submit, list and end jobs, and pass them their roles")


# What jobs say


def _log_group(account: Account) -> Iterator[Finding]:
    group = account.fleet.log_group
    answer = account.clients.ask("logs", "DescribeLogGroups", logGroupNamePrefix=group)
    if any(each["logGroupName"] == group for each in answer["logGroups"]):
        yield Finding(check="log group", level="ok", text=group)
    elif group == DEFAULT_LOG_GROUP:
        yield Finding(check="log group", level="ok", text=f"{group}: AWS Batch makes it with the first job")
    else:
        remedy = "make it, or correct log_group in the fleet file: jobs do not start without it"
        yield Finding(check="log group", level="fault", text=f"there is no log group {group}", remedy=remedy)


def _events(account: Account) -> Iterator[Finding]:
    url = account.fleet.events_queue_url
    if url is None:
        yield Finding(check="events", level="ok", text="no events queue: jobs are asked for every few seconds")
        return
    missing = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
    answer = account.clients.ask("sqs", "GetQueueAttributes", absent=missing, QueueUrl=url, AttributeNames=["QueueArn"])
    if answer is None:
        remedy = "correct events_queue_url in the fleet file, or take it out"
        yield Finding(check="events", level="fault", text=f"there is no queue {url}", remedy=remedy)
    else:
        yield Finding(check="events", level="ok", text=url.rpartition("/")[2])


# Databases


def _databases(account: Account, changes: Sequence[str]) -> Iterator[Finding]:
    from snakefold.away.sync import wanted

    chosen = wanted([], None, changes, account.place.prefix)
    folder = S3Folder(chosen.config.databases.folder, patience=Patience(attempts=2, wait=0.2))
    for database in chosen.databases:
        holding = RemoteDatabase(folder, database.name).holding(database)
        if holding.reason is None:
            yield Finding(check="databases", level="ok", text=f"{database.name}: {in_units(database.size)}")
        else:
            # The run would bring it, if the role of its jobs may write there.
            level = "fault" if account.fleet.database_role_arn else "warning"
            text = f"{database.name}: {holding.reason}"
            remedy = f"`{COMMAND} databases sync` brings it ({in_units(database.size)})"
            yield Finding(check="databases", level=level, text=text, remedy=remedy)
