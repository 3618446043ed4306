"""The command line: `python -m snakefold COMMAND`. Rules call it; every command can also be typed by hand."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snakefold import __version__, workflow
from snakefold.errors import FaultsError, SnakefoldError

if TYPE_CHECKING:
    from snakefold.steps import Job

INTERRUPTED = 130  # exit code of a command stopped by Ctrl-C, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors that the user can mend are printed without a traceback."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int | None] = options.command
    try:
        return command(options) or 0
    except FaultsError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
    except SnakefoldError as error:
        print(f"snakefold: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("snakefold: stopped; finished members are in the store, run again to go on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="snakefold", description="Protein structure prediction in bulk.")
    parser.add_argument("--version", action="version", version=f"snakefold {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="look through sample sheets; print all faults at once")
    check.add_argument("sheets", nargs="*", type=Path, help="default: those of the config")
    _set(check, _check)

    plan = commands.add_parser("plan", help="print batches, jobs and expected hours of the run")
    _set(plan, _plan)

    schema = commands.add_parser("schema", help="write the JSON schema of the config")
    schema.add_argument("path", type=Path)
    schema.set_defaults(command=_schema)

    retry = commands.add_parser("retry", help="withdraw receipts that hold failures, so that the next run tries again")
    retry.add_argument("--profile", choices=["aws-batch"], help="of a run on AWS: as in Snakemake's --profile")
    retry.add_argument("--run", metavar="NAME", help="of a run on AWS: its name (default: $SNAKEFOLD_RUN or default)")
    _set(retry, _retry)

    doctor = commands.add_parser("doctor", help="what would keep a run from working, here or on AWS, and what to do")
    doctor.add_argument("--profile", choices=["aws-batch"], help="look at the AWS account: as in Snakemake's --profile")
    doctor.add_argument("--run", metavar="NAME", help="of a run on AWS: its name (default: $SNAKEFOLD_RUN or default)")
    doctor.add_argument("--json", action="store_true", help="for programs")
    _set(doctor, _doctor)

    _add_away(commands)

    _add_store(commands.add_parser("store", help="look after the store of results"))
    _add_databases(commands.add_parser("databases", help="download, list and verify databases"))
    _add_steps(commands)
    return parser


def _set(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int | None]) -> None:
    """A command for people: it knows the run by config/config.yaml and what `--config` changes of it."""
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as in Snakemake's --config")
    parser.set_defaults(command=command)


def _add_away(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from snakefold.away import commands as away

    away.add_to(commands, with_config=_set)


def _add_store(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _set(commands.add_parser("stat", help="count records, blobs, bytes"), _store_stat)
    _set(commands.add_parser("verify", help="read everything; remove and name what is damaged"), _store_verify)
    gc = commands.add_parser("gc", help="remove results that were not used for a while")
    gc.add_argument("--keep-days", type=_days, required=True, metavar="DAYS")
    _set(gc, _store_gc)


def _days(text: str) -> float:
    days = float(text)
    if days < 0:
        raise ValueError
    return days


def _add_databases(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _set(commands.add_parser("list", help="databases and presets, sizes, licences"), _databases_list)
    _set(commands.add_parser("verify", help="hash all files again"), _databases_verify)
    download = commands.add_parser("download", help="fetch, verify and unpack one database")
    download.add_argument("database")
    download.add_argument("--manifest", type=Path, help="default: <databases folder>/<database>/manifest.json")
    download.add_argument("--log", type=Path)
    _set(download, _databases_download)
    sync = commands.add_parser("sync", help="bring databases into the bucket, by a job on AWS Batch")
    sync.add_argument("databases", nargs="*", metavar="DATABASE", help="default: all that the config needs")
    sync.add_argument("--preset", help="all databases of this one")
    sync.add_argument("--read", action="store_true", help="read every byte that is there, and mend what is damaged")
    sync.add_argument("--queue", metavar="NAME", help="default: the cheapest on demand that has the disk")
    sync.add_argument("--here", action="store_true", help="do it on this machine, as the job does")
    _set(sync, _databases_sync)


def _add_steps(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    def step(name: str, command: Callable[[argparse.Namespace], None], about: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=about)
        parser.add_argument("--log", type=Path, help="also write progress to this file")
        parser.set_defaults(command=command)
        return parser

    def batch_step(
        name: str, command: Callable[[argparse.Namespace], None], about: str, *, engine: bool
    ) -> argparse.ArgumentParser:
        parser = step(name, command, about)
        if engine:
            parser.add_argument("engine")
            parser.add_argument(
                "--attempts-left", type=int, default=0, help="if any, do not settle for too little memory"
            )
            parser.add_argument("--minutes", type=float, help="the job's time limit, which ends it only on AWS")
        parser.add_argument("batch")
        parser.add_argument("--threads", type=int, default=1)
        parser.add_argument("--receipt", type=Path, required=True)
        return parser

    def given(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--given", type=Path, nargs="*", default=[], metavar="DIGESTS", help="by take-inputs")

    parser = step("take-inputs", _take_inputs, "put the files that the sheet names for one batch into the store")
    parser.add_argument("step", choices=["search_msa", "fold", "score"])
    parser.add_argument("owner", help="the engine, of a search the preset")
    parser.add_argument("batch")
    parser.add_argument("--digests", type=Path, required=True)

    parser = batch_step("search-msa", _search_msa, "MSAs of the chains of one batch", engine=False)
    parser.add_argument("--databases", type=Path, nargs="*", required=True, metavar="MANIFEST")
    given(parser)
    parser = batch_step("search-templates", _search_templates, "template hits of one batch", engine=False)
    parser.add_argument("--database", type=Path, required=True, metavar="MANIFEST")
    parser.add_argument("--msas", type=Path, required=True, metavar="RECEIPT")
    parser = batch_step("fold", _fold, "models of the targets of one batch", engine=True)
    parser.add_argument("--msas", type=Path, nargs="*", required=True, metavar="RECEIPT")
    parser.add_argument("--templates", type=Path, nargs="*", required=True, metavar="RECEIPT")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], metavar="MANIFEST")
    given(parser)
    parser = batch_step("relax", _relax, "relaxed models of one batch", engine=True)
    parser.add_argument("--models", type=Path, required=True, metavar="RECEIPT")

    parser = step("score", _score, "the folder of one prediction")
    parser.add_argument("engine")
    parser.add_argument("target")
    parser.add_argument("--models", type=Path, required=True, metavar="RECEIPT")
    parser.add_argument("--relaxed", type=Path, required=True, metavar="RECEIPT")
    given(parser)
    parser.add_argument("--folder", type=Path, required=True)

    parser = step("compare-engines", _compare_engines, "how far the engines that predicted one target agree")
    parser.add_argument("predictions", type=Path, nargs="+", metavar="FOLDER", help="<results>/<target>/<engine>")
    parser.add_argument("--comparison", type=Path, required=True)
    parser = step("summarize", _summarize, "one table of all predictions, and the seconds that they took")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--timings", type=Path, required=True)
    parser = step("report", _report, "the HTML report, a folder")
    parser.add_argument("--page", type=Path, required=True, help="<results>/report/index.html")
    parser.add_argument("--timings", type=Path, required=True)
    parser = step("conclude", _conclude, "state how the run ended; exit code 1 if a target failed")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--timings", type=Path, required=True)
    parser.add_argument("--outcome", type=Path, required=True)


# Heavy modules are imported by the command that needs them: `snakefold check` answers at once.


def _job(options: argparse.Namespace) -> "Job":
    from snakefold import steps

    folding = workflow.of_this_job()
    return steps.job(folding, log=options.log, plain=workflow.CONFIG_VARIABLE in os.environ)


def _check(options: argparse.Namespace) -> int:
    from snakefold.sheet import check_sheets

    config = workflow.config_of_this_job(options.config)
    targets, faults = check_sheets(options.sheets or [Path(path) for path in config.samples], config)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(targets)} targets are fine, {len(faults)} faults")
    return 1 if faults else 0


def _plan(options: argparse.Namespace) -> None:
    from rich.console import Console

    from snakefold.plan import describe_plan

    Console().print(describe_plan(workflow.of_this_job(options.config).plan))


def _schema(options: argparse.Namespace) -> None:
    from snakefold.config import write_schema

    write_schema(options.path)


def _retry(options: argparse.Namespace) -> None:
    from snakefold import conclusion

    if options.run and not options.profile:
        raise SnakefoldError("--run: names a run on AWS; give --profile aws-batch with it")
    prefix = None
    if options.profile:
        from snakefold.away.launch import refuse_if_controlled
        from snakefold.away.run import open_run

        run = open_run(options.run)
        # A controller counts on the receipts that it has seen.
        refuse_if_controlled(run)
        prefix = run.place.prefix
    withdrawn = conclusion.withdraw_failures(workflow.of_this_job(options.config, prefix))
    print(f"{withdrawn} results withdrawn; run the workflow again")


def _doctor(options: argparse.Namespace) -> int:
    from snakefold.doctor.findings import as_json, as_text, is_well

    if options.profile:
        from snakefold.doctor.account import examine_account

        findings = examine_account(options.run, options.config)
    else:
        from snakefold.doctor.machine import examine_machine

        findings = examine_machine(options.config)
    print(as_json(findings) if options.json else as_text(findings))
    return 0 if is_well(findings) else 1


def _store_stat(options: argparse.Namespace) -> None:
    from snakefold.store import open_store

    location = workflow.config_of_this_job(options.config).store
    statistics = open_store(location).statistics()
    for step, count in statistics.records.items():
        print(f"{step:18} {count:>9} results")
    print(f"{location}: {statistics.blobs} files, {statistics.size / 1e6:.1f} MB")


def _store_verify(options: argparse.Namespace) -> int:
    from snakefold.store import open_store

    location = workflow.config_of_this_job(options.config).store
    faults = open_store(location).verify()
    for fault in faults:
        print(fault)
    print(f"{location}: {len(faults)} faults" + ("; run `python -m snakefold retry`, then again" if faults else ""))
    return 1 if faults else 0


def _store_gc(options: argparse.Namespace) -> None:
    from snakefold.store import open_store

    records, size = open_store(workflow.config_of_this_job(options.config).store).collect_garbage(options.keep_days)
    print(f"{records} results removed, {size / 1e6:.1f} MB freed")


def _databases_list(options: argparse.Namespace) -> None:
    from snakefold.databases.registry import describe, load_registry

    print(describe(load_registry(Path(workflow.config_of_this_job(options.config).databases.registry))))


def _databases_verify(options: argparse.Namespace) -> int:
    from snakefold.databases.obtain import verify_databases

    folder = workflow.config_of_this_job(options.config).databases.folder
    faults = verify_databases(folder)
    for fault in faults:
        print(fault)
    print(f"{folder}: {len(faults)} faults")
    return 1 if faults else 0


def _databases_download(options: argparse.Namespace) -> None:
    from snakefold.databases.obtain import obtain
    from snakefold.sheet import relocated

    config = workflow.config_of_this_job(options.config).databases
    registry = relocated(Path(config.registry))
    plain = workflow.CONFIG_VARIABLE in os.environ
    obtain(options.database, config, registry=registry, manifest=options.manifest, log=options.log, plain=plain)


def _databases_sync(options: argparse.Namespace) -> int:
    from snakefold.away import sync
    from snakefold.away.run import open_run
    from snakefold.fleet import load_fleet

    if options.databases and options.preset:
        raise SnakefoldError("--preset: names databases, and so do you; give one or the other")
    wanted = sync.wanted(options.databases, options.preset, options.config, load_fleet(sync.RUN).prefix)
    place = wanted.config.databases.folder
    if options.here:
        sync.sync_here(wanted, read=options.read)
        return 0

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    run = open_run(sync.RUN)
    job = sync.sync(run, wanted, options.config, read=options.read, queue=options.queue, say=say)
    if job is None:
        print(f"{place}: nothing to do, {len(wanted.databases)} databases are there and whole")
        return 0
    try:
        sync.watch(run, job, say)
    except KeyboardInterrupt:
        print(f"\n{sync.how_to_go_on()}", file=sys.stderr)
        return INTERRUPTED
    if sync.lacking(wanted, say):
        raise SnakefoldError(f"{place}: the job succeeded, but not all is there; run the same command again")
    print(f"{place}: {len(wanted.databases)} databases are there and whole")
    return 0


def _take_inputs(options: argparse.Namespace) -> None:
    from snakefold import steps

    steps.take_inputs(_job(options), options.step, options.owner, options.batch, options.digests)


def _search_msa(options: argparse.Namespace) -> None:
    from snakefold import steps

    steps.search_msa(
        _job(options), options.batch, options.databases, options.given, options.receipt, threads=options.threads
    )


def _search_templates(options: argparse.Namespace) -> None:
    from snakefold import steps

    steps.search_templates(
        _job(options), options.batch, options.database, options.msas, options.receipt, threads=options.threads
    )


def _fold(options: argparse.Namespace) -> None:
    from snakefold import steps

    steps.fold(
        _job(options),
        options.engine,
        options.batch,
        options.msas,
        options.templates,
        options.given,
        next(iter(options.weights), None),
        options.receipt,
        threads=options.threads,
        attempts_left=options.attempts_left,
        minutes=options.minutes,
    )


def _relax(options: argparse.Namespace) -> None:
    from snakefold import steps

    steps.relax(
        _job(options),
        options.engine,
        options.batch,
        options.models,
        options.receipt,
        threads=options.threads,
        attempts_left=options.attempts_left,
        minutes=options.minutes,
    )


def _score(options: argparse.Namespace) -> None:
    from snakefold import steps

    steps.score(
        _job(options),
        options.engine,
        options.target,
        models=options.models,
        relaxed=options.relaxed,
        given=options.given,
        folder=options.folder,
    )


def _compare_engines(options: argparse.Namespace) -> None:
    from snakefold.comparison import compare_engines

    compare_engines(options.predictions, options.comparison)


def _summarize(options: argparse.Namespace) -> None:
    from snakefold import conclusion

    conclusion.summarize(workflow.of_this_job(), options.table, options.timings)


def _report(options: argparse.Namespace) -> None:
    from snakefold import conclusion

    conclusion.report(workflow.of_this_job(), options.page, options.timings)


def _conclude(options: argparse.Namespace) -> None:
    from snakefold import conclusion

    conclusion.conclude(workflow.of_this_job(), options.table, options.timings, options.outcome, log=options.log)
