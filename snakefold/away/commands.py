"""The commands of runs that are away, as the command line has them."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[[argparse.Namespace], int | None]
_MOST_LINES = 1_000_000


def add_to(commands: Any, *, with_config: Callable[[argparse.ArgumentParser, Command], None]) -> None:
    """Add the commands. `with_config` makes one a command that takes `--config`."""
    launch = _command(commands, "launch", "start a run on AWS Batch, Snakemake itself too")
    launch.add_argument("arguments", nargs="*", metavar="-- ARGUMENT", help="for Snakemake, such as -- --forceall")
    with_config(launch, _launch)

    status = _command(commands, "status", "how a run on AWS fares, and what to do next")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(command=_status)

    logs = _command(commands, "logs", "what the controller of a run on AWS says, or one of its jobs")
    logs.add_argument("job", nargs="?", metavar="JOB", help="a job's id or name, or a rule; default: the controller")
    logs.add_argument("--follow", "-f", action="store_true", help="go on until the job has ended")
    logs.add_argument("--lines", "-n", type=_lines, default=50, metavar="N", help="last lines to show (default: 50)")
    logs.set_defaults(command=_logs)

    stop = _command(commands, "stop", "end the controller and all jobs of a run on AWS; what is finished stays")
    stop.set_defaults(command=_stop)

    pull = _command(commands, "pull", "bring report and summary of a run on AWS here, and chosen results")
    pull.add_argument("targets", nargs="*", metavar="TARGET", help="TARGET or TARGET/ENGINE: bring its folder too")
    pull.add_argument("--all", action="store_true", dest="everything", help="bring all results")
    pull.add_argument("--to", type=Path, metavar="FOLDER", help="default: results, or results-NAME of a named run")
    pull.set_defaults(command=_pull)

    about = "write the fleet file from Terraform's outputs"
    config = commands.add_parser("aws-config", help=about, description=about)
    source = config.add_mutually_exclusive_group()
    source.add_argument(
        "--terraform", type=Path, metavar="FOLDER", help="of the root module (default: infra/terraform)"
    )
    source.add_argument("--from", dest="file", metavar="FILE", help="what `terraform output -json` printed; - is stdin")
    config.add_argument("--force", action="store_true", help="overwrite a fleet file that was edited")
    config.set_defaults(command=_aws_config)


def _command(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about)
    parser.add_argument("--run", metavar="NAME", help="the run's name (default: $SNAKEFOLD_RUN or default)")
    return parser


def _lines(text: str) -> int:
    lines = int(text)
    if not 1 <= lines <= _MOST_LINES:
        raise ValueError
    return lines


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _tell(text: str) -> None:
    print(text, flush=True)  # noqa: T201


# Heavy modules are imported by the command that needs them.


def _launch(options: argparse.Namespace) -> None:
    from snakefold.away.launch import launch
    from snakefold.away.run import COMMAND, open_run

    run = open_run(options.run)
    launched = launch(run, options.config, options.arguments, _say)
    named = f" --run {run.name}" if options.run else ""
    _tell(
        f"run {run.name}: {launched.targets} targets; the controller is job {launched.launch.job_id} in queue "
        f"{launched.launch.queue}\nfollow it with `{COMMAND} status{named}` and `{COMMAND} logs{named} --follow`"
    )


def _status(options: argparse.Namespace) -> None:
    from snakefold.away.run import open_run
    from snakefold.away.status import as_json, as_text, status

    found = status(open_run(options.run))
    _tell(as_json(found) if options.json else as_text(found))


def _logs(options: argparse.Namespace) -> None:
    from snakefold.away.logs import find, follow, tail
    from snakefold.away.run import open_run

    run = open_run(options.run)
    source = find(run, options.job)
    _say(f"[{source.rule}, job {source.job_id}, {source.state}]")
    if options.follow:
        _say(f"[{follow(run, source, options.lines, _tell)}]")
    else:
        for line in tail(run, source, options.lines)[0]:
            _tell(line)


def _stop(options: argparse.Namespace) -> None:
    from snakefold.away.run import open_run
    from snakefold.away.stop import refuse_failures, stop

    run = open_run(options.run)
    stopped = stop(run, _say)
    controller = "the controller" if stopped.controllers else "no controller"
    _tell(f"run {run.name}: ended {controller} and {stopped.jobs} jobs; what is finished stays")
    refuse_failures(stopped)


def _pull(options: argparse.Namespace) -> None:
    from snakefold.away.pull import pull
    from snakefold.away.run import open_run

    run = open_run(options.run)
    folder = options.to or Path("results" if run.name == "default" else f"results-{run.name}")
    pulled = pull(run, folder, options.targets, everything=options.everything)
    checks = ", ".join(f"{count} by {check}" for check, count in pulled.checked.items())
    fetched = f"{pulled.fetched} files fetched ({pulled.size / 1e6:.1f} MB)"
    _tell(f"{folder}: {fetched}, {pulled.kept} were here; checked: {checks}")


def _aws_config(options: argparse.Namespace) -> None:
    from snakefold.away import aws_config
    from snakefold.fleet import fleet_path

    if options.file:
        outputs, source = aws_config.outputs_of_file(options.file)
    else:
        outputs, source = aws_config.outputs_of_terraform(options.terraform or aws_config.TERRAFORM)
    path = fleet_path()
    written = aws_config.write_fleet(outputs, source, path, aws_config.recorded_images(), force=options.force)
    for line in written.changes:
        _say(f"  {line}")
    for note in written.notes:
        _say(note)
    _tell(
        f"{path}: {'written' if written.written else 'is up to date'}; `python -m snakefold doctor --profile aws-batch`"
    )
