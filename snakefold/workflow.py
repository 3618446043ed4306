"""What the rules ask: the batches of this run, the receipts that a job reads, the resources that it needs.

Everything here is a function of the config, the sample sheet and the database registry. Nothing looks at results, the
clock or the network, so that a worker which parses the workflow again finds the same jobs.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snakefold import plan as planning
from snakefold.config import Config, load_config
from snakefold.databases.registry import Preset, Registry, load_registry
from snakefold.errors import SnakefoldError
from snakefold.plan import Batch, Plan, make_plan
from snakefold.sheet import Target, check_sheets, read_targets

CONFIG_VARIABLE = "SNAKEFOLD_CONFIG"
"""Environment variable with the run's whole config as JSON: how a job's command learns what Snakemake was told."""

MAX_THREADS = 8
"""Threads of one job; Snakemake lowers them to the cores there are."""

SLACK = 4
"""Time limits are this many times the estimate: they are there to end what hangs, not what is slow."""


class Folding:
    """One run: config, targets, plan, and the questions that rules ask of them.

    The methods that take `wildcards` are input, resource and thread functions of Snakemake's.
    """

    def __init__(self, config: Config, targets: tuple[Target, ...], registry: Registry) -> None:
        self.config = config
        self.databases: Registry = registry
        self.preset: Preset = registry.preset(config.databases.preset)
        self._refuse_profiles()
        self.plan: Plan = make_plan(targets, config)
        self.registry = config.databases.registry

    # Databases

    def _refuse_profiles(self) -> None:
        """A preset that no search here can read is refused before half a terabyte has come."""
        profiles = [name for name in self.preset.msa if self.databases.database(name).kind != "sequences"]
        if profiles:
            raise SnakefoldError(
                f"config: databases.preset: {self.config.databases.preset} has {', '.join(profiles)}: profiles, which "
                "this version cannot search; choose a preset of sequences"
            )

    def manifest(self, database: str) -> str:
        """Path of a database's manifest."""
        return f"{self.config.databases.folder}/{database}/manifest.json"

    def sequence_databases(self, _: Any) -> list[str]:
        """Manifests of the databases that `search_msa` reads."""
        return [self.manifest(name) for name in self.preset.msa]

    def template_database(self, _: Any) -> str:
        """Manifest of the structures that `search_templates` reads."""
        return self.manifest(self.preset.templates)

    def download_minutes(self, wildcards: Any, attempt: int) -> int:
        """Minutes for a download at 20 MB/s and its unpacking, at least 30."""
        size = self.databases.database(wildcards.database).download_size
        return max(30, round(size / 20e6 / 60)) * attempt

    # Searches

    def given_msas(self, wildcards: Any) -> list[str]:
        """MSAs that the sheet gives for chains of this batch."""
        chains = (self.plan.chain(member) for member in self.plan.search(wildcards.batch).members)
        return [str(chain.msa) for chain in chains if chain.msa is not None]

    def search_memory_mb(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Memory of an MSA search, MB."""
        return planning.search_memory_mb(self.plan.search(wildcards.batch), threads) * attempt

    def search_minutes(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Time limit of an MSA search, minutes."""
        return planning.search_minutes(self.plan.search(wildcards.batch), threads) * SLACK * attempt

    def msas_of_template_search(self, wildcards: Any) -> str:
        """Receipt with the MSAs of a template search."""
        return self._search_receipt("search_msa", self.plan.search_of_template_search(wildcards.batch))

    def template_search_memory_mb(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Memory of a template search, MB."""
        return planning.search_memory_mb(self.plan.template_search(wildcards.batch), threads) * attempt

    def template_search_minutes(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Time limit of a template search, minutes."""
        return planning.search_minutes(self.plan.template_search(wildcards.batch), threads) * SLACK * attempt

    def _search_receipt(self, step: str, batch: str) -> str:
        return f"{self.config.work}/{step}/{self.config.databases.preset}/{batch}.json"

    # Folding and relaxation

    def _fold(self, wildcards: Any) -> Batch:
        return self.plan.fold(wildcards.engine, wildcards.batch)

    def _relaxation(self, wildcards: Any) -> Batch:
        return self.plan.relaxation(wildcards.engine, wildcards.batch)

    def msas_of_fold(self, wildcards: Any) -> list[str]:
        """Receipts with the MSAs of a fold batch."""
        batches = self.plan.searches_of_fold(wildcards.engine, wildcards.batch)
        return [self._search_receipt("search_msa", batch) for batch in batches]

    def templates_of_fold(self, wildcards: Any) -> list[str]:
        """Receipts with the template hits of a fold batch."""
        batches = self.plan.template_searches_of_fold(wildcards.engine, wildcards.batch)
        return [self._search_receipt("search_templates", batch) for batch in batches]

    def given_templates(self, wildcards: Any) -> list[str]:
        """Templates that the sheet gives for targets of this batch."""
        targets = (self.plan.target(member) for member in self._fold(wildcards).members)
        return sorted({str(target.template) for target in targets if target.template is not None})

    def fold_gpus(self, wildcards: Any) -> int:
        """GPUs of one fold job."""
        return self._fold(wildcards).gpus

    def fold_threads(self, wildcards: Any) -> int:
        """Members that a fold job on CPUs works on at a time; a GPU takes one after the other."""
        return min(MAX_THREADS, len(self._fold(wildcards).members))

    def fold_memory_mb(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Memory of a fold job with all its threads at work, MB."""
        return planning.fold_memory_mb(self._fold(wildcards), threads) * attempt

    def fold_minutes(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Time limit of a fold job, minutes."""
        return planning.fold_minutes(self._fold(wildcards), threads) * SLACK * attempt

    def models_of_relaxation(self, wildcards: Any) -> str:
        """Receipt with the models that a relax batch starts from."""
        fold = self.plan.fold_of_relaxation(wildcards.engine, wildcards.batch)
        return f"{self.config.work}/fold/{wildcards.engine}/{fold}.json"

    def relax_threads(self, wildcards: Any) -> int:
        """Members that a relax job works on at a time."""
        return min(MAX_THREADS, len(self._relaxation(wildcards).members))

    def relax_memory_mb(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Memory of a relax job with all its threads at work, MB."""
        return planning.relax_memory_mb(self._relaxation(wildcards), threads) * attempt

    def relax_minutes(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Time limit of a relax job, minutes."""
        return planning.relax_minutes(self._relaxation(wildcards), threads) * SLACK * attempt

    # Predictions

    def inputs_of_score(self, wildcards: Any) -> dict[str, str | list[str]]:
        """Receipts with the model and the relaxed model of a prediction, and the reference if the sheet names one.

        One function for all of them: a run has as many of these jobs as targets, and Snakemake spends a tenth of a
        large dry run on inspecting input functions.
        """
        engine, target = wildcards.engine, wildcards.target
        fold = self.plan.fold_of(engine, target).id
        relaxation = self.plan.relaxation_of(engine, target).id
        reference = self.plan.target(target).reference
        return {
            "models": f"{self.config.work}/fold/{engine}/{fold}.json",
            "relaxed": f"{self.config.work}/relax/{engine}/{relaxation}.json",
            "reference": [str(reference)] if reference is not None else [],
        }

    def predictions(self, _: Any) -> list[str]:
        """Folders of all predictions, in the order of the sheet."""
        return [f"{self.config.results}/{target}/{engine}" for target, engine in self.plan.predictions]

    def prediction_folders(self, results: Path) -> list[Path]:
        """The same folders below another path: where a storage plugin has put the results for a job."""
        return [results / target / engine for target, engine in self.plan.predictions]

    def receipts(self, _: Any) -> list[str]:
        """Receipts of all batches, step by step: from them the report learns the keys of what took time."""
        preset = self.config.databases.preset
        return [
            f"{self.config.work}/{batch.step}/{batch.engine or preset}/{batch.id}.json"
            for batches in (self.plan.searches, self.plan.template_searches, self.plan.folds, self.plan.relaxations)
            for batch in batches.values()
        ]

    def check_files(self) -> None:
        """Open all files that the sheet names, once, before the first job: a wrong reference must not fail hours later.

        Parsing does not do it, since a dry run of thousands of targets must take seconds.
        """
        from snakemake.exceptions import WorkflowError

        _, faults = check_sheets([Path(path) for path in self.config.samples], self.config)
        if faults:
            raise WorkflowError("\n".join(faults))


def load(config: Config, *, check_files: bool) -> Folding:
    """Read a run's sheet and registry. Raises FaultsError with all faults of the sheet.

    `check_files` asks whether the files that the sheet names exist; a worker does not, it may lack some of them.
    """
    targets = read_targets(
        [Path(path) for path in config.samples],
        engines=config.engines,
        seed=config.seed,
        check_files=check_files,
    )
    return Folding(config, targets, load_registry(Path(config.databases.registry)))


def prepare(config: Mapping[str, Any], *, basedir: str, check_files: bool) -> Folding:
    """Called once by the workflow: read the run, and set up what the commands of its jobs inherit.

    Faults end Snakemake with their lines, and the place in the Snakefile below them.
    """
    from snakemake.exceptions import WorkflowError

    try:
        folding = load(load_config(config), check_files=check_files)
    except SnakefoldError as error:
        raise WorkflowError(str(error)) from None
    os.environ[CONFIG_VARIABLE] = json.dumps(folding.config.model_dump(mode="json"))
    # `python` in a rule is the one that runs Snakemake, and finds the package of this workflow from any directory.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (basedir, os.environ.get("PYTHONPATH"))))
    return folding


def config_of_this_job(changes: Sequence[str] = ()) -> Config:
    """The config of a command: the workflow's, or, typed by hand, config/config.yaml with `changes` ("key=value").

    Values are YAML, and sections are merged, as with Snakemake's own `--config`.
    """
    if given := os.environ.get(CONFIG_VARIABLE):
        return load_config(json.loads(given))
    settings = _read_config_file()
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise SnakefoldError(f"--config {change}: write KEY=VALUE")
        new = _yaml(value, f"--config {key}")
        old = settings.get(key)
        settings[key] = {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new
    return load_config(settings)


def changes_of(config: Config) -> list[str]:
    """What makes this config differ from config/config.yaml, as `key=value` for `--config`."""
    usual = load_config(_read_config_file()).model_dump(mode="json")
    changed = {key: value for key, value in config.model_dump(mode="json").items() if value != usual[key]}
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in changed.items()]


def _read_config_file() -> dict[str, Any]:
    path = Path("config/config.yaml")
    try:
        return _yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    except FileNotFoundError:
        raise SnakefoldError(f"{path}: not found; run this command in the folder that holds config/") from None


def _yaml(text: str, where: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SnakefoldError(f"{where}: {' '.join(str(error).split())}") from None


def of_this_job(changes: Sequence[str] = ()) -> Folding:
    """The run that a command belongs to (see `config_of_this_job`)."""
    return load(config_of_this_job(changes), check_files=False)
