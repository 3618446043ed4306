"""What the process that the plugin lives in is: a dry run, the main process of a run, or one of its jobs."""

import sys
from pathlib import Path
from typing import Any


class Process:
    """Answers from the workflow once it is known, from the command line before.

    Snakemake tells a storage provider nothing about the workflow, but shows each rule's files to the storage objects
    behind them (see `StorageObject._iofile`), and the rules know it.
    """

    def __init__(self) -> None:
        self.workflow: Any = None
        self._dry_by_command: bool | None = None

    def is_dry_run(self) -> bool:
        """Whether this is `snakemake --dry-run`."""
        # While the Snakefile is parsed, the workflow exists but has no executor yet and knows no better.
        if self.workflow is not None and self.workflow.executor_plugin is not None:
            return self.workflow.dryrun
        if self._dry_by_command is None:
            self._dry_by_command = _dry_by_command()
        return self._dry_by_command

    def is_main(self) -> bool:
        """Whether this is the process that the user started: the one that asks for every file of the run."""
        return self.workflow is not None and self.workflow.is_main_process

    def others_write(self) -> bool:
        """Whether files can appear while this process lives.

        They do in the main process once its remote jobs run. They do not while the graph is made, nor in local runs,
        whose outputs this process uploads, nor in jobs: a job is the only writer of its outputs. Snakemake marks the
        beginning of the run by turning its own cache off.
        """
        if self.workflow is None:
            return True
        if not self.workflow.is_main_process or self.workflow.executor_plugin is None:
            return False
        return not (self.workflow.dryrun or self.workflow.local_exec or self.workflow.iocache.active)

    def default_storage_prefix(self) -> str | None:
        """`--default-storage-prefix`."""
        settings = getattr(self.workflow, "storage_settings", None)
        return getattr(settings, "default_storage_prefix", None) or None


def _dry_by_command() -> bool:
    """Whether the command line is that of a dry run, read by Snakemake's own parser."""
    program = Path(sys.argv[0])
    cli = sys.modules.get("snakemake.cli")
    if cli is None or not (program.name == "snakemake" or program.parts[-2:] == ("snakemake", "__main__.py")):
        return False
    try:
        return bool(cli.parse_args(sys.argv[1:])[1].dryrun)
    except SystemExit:
        return False  # Snakemake has read the same line before us, so this is not to be expected
