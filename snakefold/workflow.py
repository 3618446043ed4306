"""What the rules ask: the batches of this run, the receipts that a job reads, the resources that it needs.

Everything here is a function of the config, the sample sheet and the database registry. Nothing looks at results, the
clock or the network, so that a worker which parses the workflow again finds the same jobs.
"""

import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from snakefold import plan as planning
from snakefold.config import Config, load_config
from snakefold.databases.registry import Preset, Registry, load_registry
from snakefold.engines import engines_for
from snakefold.engines.driven import DrivenEngine
from snakefold.errors import FaultsError, SnakefoldError
from snakefold.files import is_address, sha256_of_json
from snakefold.fleet import fleet_of_run
from snakefold.place import LocalPlace, S3Place
from snakefold.plan import Batch, Pins, Plan, make_plan
from snakefold.sheet import Target, Travelling, check_sheets, files_of_sheets, read_targets, relocated

CONFIG_VARIABLE = "SNAKEFOLD_CONFIG"
"""Environment variable with the run's whole config as JSON: how a job's command learns what Snakemake was told."""

PREFIX_VARIABLE = "SNAKEFOLD_PREFIX"
"""Environment variable beside it with the storage prefix of the run's files; empty if they lie on this machine."""

CACHE_VARIABLE = "SNAKEFOLD_DATABASE_CACHE"
"""Environment variable that an image sets: the folder of the machine into which databases on S3 are brought."""

GPU_THREADS = 4
"""Threads of a job on a GPU: what AWS's smallest machines with one have."""

MAX_THREADS = 8
"""Threads of one job; Snakemake lowers them to the cores there are."""

SLACK = 4
"""Time limits are this many times the estimate: they are there to end what hangs, not what is slow."""


START_MINUTES = 10
"""Added to time limits on machines that start from nothing: Snakemake's own start, kernels to be compiled."""

STAGING_RATE = 100e6
"""Bytes of a database that reach a machine from S3 in a second, at the least."""


class Folding:
    """One run: config, targets, plan, and the questions that rules ask of them.

    The methods that take `wildcards` are input, resource and thread functions of Snakemake's.
    """

    def __init__(
        self,
        config: Config,
        targets: tuple[Target, ...],
        registry: Registry,
        *,
        prefix: str | None = None,
        is_main_process: bool = True,
    ) -> None:
        self.config = config
        self.prefix = prefix
        self._is_main_process = is_main_process
        self.databases: Registry = registry
        self.preset: Preset = registry.preset(config.databases.preset)
        self._refuse_profiles()
        self.engines = engines_for(config)
        self.plan: Plan = make_plan(targets, config, self._pins(targets), self.engines)
        self.sheets = [Path(path) for path in config.samples]

    # Databases

    def _refuse_profiles(self) -> None:
        """A preset that no search here can read is refused before half a terabyte has come."""
        profiles = [name for name in self.preset.msa if self.databases.database(name).kind != "sequences"]
        if profiles:
            raise SnakefoldError(
                f"config: databases.preset: {self.config.databases.preset} has {', '.join(profiles)}: profiles, which "
                "this version cannot search; choose a preset of sequences"
            )

    @property
    def manifests(self) -> str:
        """Where the rules find the manifests: beside the databases, or copies of those of databases on S3."""
        folder = self.config.databases.folder
        if not is_address(folder):
            return folder
        # Another controller remembers no parameters: other pins must show in the path.
        weights = {self.engines[str(batch.engine)].weights for batch in self.plan.folds.values()} - {None}
        pins = {name: self.pin(name) for name in sorted({*self.preset.databases, *map(str, weights)})}
        return f"{self.config.work}/databases/{sha256_of_json(pins)[:12]}"

    def pin(self, wildcards: Any) -> str:
        """Digest of a database's entry in the registry: what was downloaded for another entry is downloaded anew."""
        name = wildcards if isinstance(wildcards, str) else wildcards.database
        return sha256_of_json(self.databases.database(name).model_dump(mode="json"))[:16]

    def _pins(self, targets: Sequence[Target]) -> Pins:
        chosen = {name for target in targets for name in target.engines}
        weights = {name: self.engines[name].weights for name in sorted(chosen)}
        return Pins(
            msa=[(name, self.pin(name)) for name in self.preset.msa],
            templates=(self.preset.templates, self.pin(self.preset.templates)),
            weights={name: self.pin(database) for name, database in weights.items() if database is not None},
        )

    def manifest(self, database: str) -> str:
        """Path of a database's manifest."""
        return f"{self.manifests}/{database}/manifest.json"

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

    # Files that the sheet names

    def given_files(self, wildcards: Any) -> list[Any]:
        """The files that the sheet names for one batch, where they lie on this machine."""
        from snakemake.io import flag

        paths = self.named_in_sheet(wildcards.step, wildcards.owner, wildcards.batch)
        # As `local()` in a Snakefile: they lie here, whatever storage holds the rest of the run.
        return [flag(str(relocated(path)), "local") for path in paths]

    def named_in_sheet(self, step: str, owner: str, batch: str) -> list[Path]:
        """What a step reads of the user's own files; `owner` is the engine, of a search the preset."""
        if step == "search_msa":
            named = [self.plan.chain(member).msa for member in self.plan.search(batch).members]
        else:
            targets = [self.plan.target(member) for member in self.plan.fold(owner, batch).members]
            named = [target.template if step == "fold" else target.reference for target in targets]
        return sorted({path for path in named if path is not None})

    def _taken_inputs(self, step: str, owner: str, batch: str) -> list[str]:
        if not self.named_in_sheet(step, owner, batch):
            return []
        return [self._input_list(step, owner, batch)]

    def _input_list(self, step: str, owner: str, batch: str) -> str:
        return f"{self.config.work}/inputs/{step}/{owner}/{batch}.json"

    def input_lists(self) -> list[str]:
        """The lists of digests of all batches for which the sheet may name files, whether it does or not."""
        searches = [("search_msa", self.config.databases.preset, batch.id) for batch in self.plan.searches.values()]
        folds = [
            (step, str(batch.engine), batch.id) for batch in self.plan.folds.values() for step in ("fold", "score")
        ]
        return [self._input_list(*each) for each in (*searches, *folds)]

    # Searches

    def given_msas(self, wildcards: Any) -> list[str]:
        """Digests of the MSAs that the sheet gives for chains of this batch, if it gives any."""
        return self._taken_inputs("search_msa", wildcards.preset, wildcards.batch)

    def search_memory_mb(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Memory of an MSA search, MB."""
        return planning.search_memory_mb(self.plan.search(wildcards.batch), threads) * attempt

    def search_minutes(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Time limit of an MSA search, minutes."""
        estimate = planning.search_minutes(self.plan.search(wildcards.batch), threads)
        return self._limit(estimate, attempt, self.preset.msa)

    def msas_of_template_search(self, wildcards: Any) -> str:
        """Receipt with the MSAs of a template search."""
        return self._search_receipt("search_msa", self.plan.search_of_template_search(wildcards.batch))

    def template_search_memory_mb(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Memory of a template search, MB."""
        return planning.search_memory_mb(self.plan.template_search(wildcards.batch), threads) * attempt

    def template_search_minutes(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Time limit of a template search, minutes."""
        estimate = planning.search_minutes(self.plan.template_search(wildcards.batch), threads)
        return self._limit(estimate, attempt, [self.preset.templates])

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
        """Digests of the templates that the sheet gives for targets of this batch, if it gives any."""
        return self._taken_inputs("fold", wildcards.engine, wildcards.batch)

    def weights_of_fold(self, wildcards: Any) -> list[str]:
        """Manifest of an engine's weights, if it has any."""
        weights = self.engines[wildcards.engine].weights
        return [] if weights is None else [self.manifest(weights)]

    def fold_image(self, wildcards: Any) -> str:
        """The image of a fold job, by its name in the fleet file: engines that are other people's have their own."""
        engine = self.engines[wildcards.engine]
        return engine.image if isinstance(engine, DrivenEngine) else "worker"

    def fold_gpu_memory_mb(self, wildcards: Any, attempt: int) -> int:
        """Memory of the GPU of a fold job, MB: more with each attempt, up to the largest GPU there is."""
        needed = self._fold(wildcards).gpu_memory_mb
        return min(needed * attempt, max(needed, self.config.plan.gpu_memory_mb))

    def fold_gpus(self, wildcards: Any) -> int:
        """GPUs of one fold job."""
        return self._fold(wildcards).gpus

    def fold_threads(self, wildcards: Any) -> int:
        """Members that a fold job on CPUs works on at a time; a GPU takes one after the other, cores feed it."""
        batch = self._fold(wildcards)
        return GPU_THREADS if batch.gpus else min(MAX_THREADS, len(batch.members))

    def fold_memory_mb(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Memory of a fold job with all its threads at work, MB."""
        return planning.fold_memory_mb(self._fold(wildcards), threads) * attempt

    def fold_minutes(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Time limit of a fold job, minutes."""
        weights = self.engines[wildcards.engine].weights
        estimate = planning.fold_minutes(self._fold(wildcards), threads)
        return self._limit(estimate, attempt, [] if weights is None else [weights])

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
        return self._limit(planning.relax_minutes(self._relaxation(wildcards), threads), attempt)

    def compare_minutes(self, wildcards: Any, attempt: int) -> int:
        """Time limit (minutes) of a comparison of engines."""
        return self._limit(planning.compare_minutes(len(self.predictions_compared(wildcards))), attempt)

    # Attempts

    def _limit(self, estimate: int, attempt: int, databases: Sequence[str] = ()) -> int:
        """Time limit (minutes) of a job; elsewhere it may have to bring the databases to its machine first."""
        if not self.prefix:
            return estimate * SLACK * attempt
        size = sum(self.databases.database(name).size for name in databases)
        return (estimate * SLACK + START_MINUTES + round(size / STAGING_RATE / 60)) * attempt

    @property
    def retries(self) -> int:
        """Attempts of a job after the first: by default two on machines that may be taken away, here none."""
        if self.config.retries is not None:
            return self.config.retries
        return 2 if self.prefix else 0

    @property
    def retries_of_rule(self) -> int:
        """What the rules say: a worker gets one attempt, others are for the process that sent it the job."""
        return self.retries if self._is_main_process else 0

    def attempts_left(self, _: Any, attempt: int) -> int:
        """Attempts that a job has after this one (`attempt` is 1 for the first)."""
        return self.retries + 1 - attempt

    # Predictions

    def inputs_of_score(self, wildcards: Any) -> dict[str, str | list[str]]:
        """Receipts with the model and the relaxed model of a prediction, and the reference's digest if there is one.

        One function for all of them: a run has as many of these jobs as targets, and Snakemake spends a tenth of a
        large dry run on inspecting input functions.
        """
        engine, target = wildcards.engine, wildcards.target
        fold = self.plan.fold_of(engine, target).id
        relaxation = self.plan.relaxation_of(engine, target).id
        has_reference = self.plan.target(target).reference is not None
        return {
            "models": f"{self.config.work}/fold/{engine}/{fold}.json",
            "relaxed": f"{self.config.work}/relax/{engine}/{relaxation}.json",
            "given": [self._input_list("score", engine, fold)] if has_reference else [],
        }

    def predictions(self, _: Any) -> list[str]:
        """Folders of all predictions, in the order of the sheet."""
        return [f"{self.config.results}/{target}/{engine}" for target, engine in self.plan.predictions]

    def predictions_compared(self, wildcards: Any) -> list[str]:
        """Folders of the predictions that a comparison is of, in its order."""
        return [f"{self.config.results}/{wildcards.target}/{engine}" for engine in wildcards.engines.split("-")]

    def comparisons(self, _: Any) -> list[str]:
        """Comparisons of the engines of each target that several accept.

        Their names tell which: a controller without records must not take those of other engines for this plan's.
        """
        return [
            f"{self.config.results}/{target}/comparison.{'-'.join(self.plan.engines_compared(target))}.json"
            for target in self.plan.compared
        ]

    def root_of(self, in_results: Path) -> Path:
        """Where the paths of this run begin for a job, by the path of a file directly in its results folder.

        A storage plugin puts a job's files into a folder of its own, below which all is as in the working directory.
        """
        return in_results.parents[len(Path(self.config.results).parts)]

    def prediction_folders(self, root: Path = Path()) -> list[Path]:
        """The same folders below `root` (see `root_of`)."""
        return [root / folder for folder in self.predictions(None)]

    def comparison_paths(self, root: Path = Path()) -> list[Path]:
        """The comparisons of engines below `root` (see `root_of`)."""
        return [root / comparison for comparison in self.comparisons(None)]

    def receipt_paths(self, root: Path = Path()) -> list[Path]:
        """The receipts of all batches below `root` (see `root_of`)."""
        return [root / receipt for receipt in self.receipts(None)]

    @property
    def timings(self) -> str:
        """The seconds that this plan's predictions took. The summary of another plan has it under another name."""
        plan = sha256_of_json(sorted([*self.predictions(None), *self.receipts(None)]))
        return f"{self.config.work}/timings/{plan[:12]}.json"

    def withdraw_outdated(self, engine: str, batch: str) -> None:
        """Remove relax receipts of other plans that hold members of this batch, from a run on S3.

        Their predictions are about to be written anew. If such a plan comes back, its receipt is missing, and they are
        written again: nothing else tells so to a controller on another machine. On one machine Snakemake's records do.
        """
        if not self.prefix:
            return
        place = S3Place(self.prefix)
        folder = f"{self.config.work}/relax/{engine}"
        own, members = f"{folder}/{batch}.json", set(self.plan.relaxation(engine, batch).members)
        others = place.read(path for path in place.names(folder) if path != own)
        place.delete(path for path, content in others.items() if members & json.loads(content)["members"].keys())

    def withdraw_timings(self) -> None:
        """Remove the timings of other plans, whose summary is about to be replaced: who has them seems up to date."""
        place = S3Place(self.prefix) if self.prefix else LocalPlace(Path())
        place.delete([path for path in place.names(f"{self.config.work}/timings") if path != self.timings])

    def receipts(self, _: Any) -> list[str]:
        """Receipts of all batches, step by step: from them the report learns the keys of what took time."""
        preset = self.config.databases.preset
        return [
            f"{self.config.work}/{batch.step}/{batch.engine or preset}/{batch.id}.json"
            for batches in (self.plan.searches, self.plan.template_searches, self.plan.folds, self.plan.relaxations)
            for batch in batches.values()
        ]

    def check_images(self, listed: Collection[str], fleet: Path) -> None:
        """Raises SnakefoldError if the fleet file `fleet`, which lists these images, lacks one that a fold needs."""
        engines = [self.engines[name] for name in sorted({str(batch.engine) for batch in self.plan.folds.values()})]
        lacking = [each for each in engines if isinstance(each, DrivenEngine) and each.image not in listed]
        if lacking:
            names = sorted({engine.image for engine in lacking})
            raise SnakefoldError(
                f"config: engines: {', '.join(engine.name for engine in lacking)}: the fleet file {fleet} lists no "
                f'image {", ".join(names)}; `make push-images ARGS="{" ".join(names)}"` builds and pushes it, then '
                "`make aws-config`"
            )

    def check_files(self) -> None:
        """Open all files that the sheet names, once, before the first job: a wrong reference must not fail hours later.

        Parsing does not do it, since a dry run of thousands of targets must take seconds.
        """
        from snakemake.exceptions import WorkflowError

        _, faults = check_sheets([Path(path) for path in self.config.samples], self.config)
        if faults:
            raise WorkflowError("\n".join(faults))


def load(config: Config, *, check_files: bool, prefix: str | None = None) -> Folding:
    """Read a run's sheet and registry. Raises FaultsError with all faults of the sheet.

    `prefix` is Snakemake's default storage prefix, if the run's files lie on a storage. `check_files` asks whether the
    files that the sheet names exist; a worker does not, it may lack some of them.
    """
    if prefix:
        config = on_storage(config, prefix)
    targets = read_targets(
        [Path(path) for path in config.samples],
        engines=config.engines,
        seed=config.seed,
        check_files=check_files,
        registry=engines_for(config),
    )
    registry = load_registry(relocated(Path(config.databases.registry)))
    return Folding(config, targets, registry, prefix=prefix, is_main_process=check_files)


def prepare(workflow: Any, config: Mapping[str, Any]) -> Folding:
    """Called once by the Snakefile: read the run, and set up what the commands of its jobs inherit.

    Faults end Snakemake with their lines, and the place in the Snakefile below them.
    """
    from snakemake.exceptions import WorkflowError

    prefix = workflow.storage_settings.default_storage_prefix
    try:
        folding = load(load_config(config), check_files=workflow.is_main_process, prefix=prefix)
        if prefix and workflow.is_main_process and (fleet := fleet_of_run(prefix)):
            folding.check_images(fleet.images, fleet.path)
    except SnakefoldError as error:
        raise WorkflowError(str(error)) from None
    if prefix and workflow.is_main_process:  # the jobs run elsewhere
        registry = Path(folding.config.databases.registry)
        workflow.configfiles += map(Travelling, [registry, *files_of_sheets(folding.sheets)])
    os.environ[CONFIG_VARIABLE] = json.dumps(folding.config.model_dump(mode="json"))
    os.environ[PREFIX_VARIABLE] = prefix or ""
    # `python` in a rule is the one that runs Snakemake, and finds the package of this workflow from any directory.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (workflow.basedir, os.environ.get("PYTHONPATH"))))
    return folding


def on_storage(config: Config, prefix: str) -> Config:
    """The config of a run whose files lie below a storage prefix such as `s3://bucket/runs/one`.

    Store and databases are for all runs: their relative paths count from the bucket.
    """
    bucket = "/".join(prefix.split("/")[:3])
    absolute = [key for key in ("results", "work", "logs", "benchmarks") if Path(getattr(config, key)).is_absolute()]
    if absolute:
        raise FaultsError(
            f"config: {key}: must be a relative path when the run lies on {prefix}, but is {getattr(config, key)}"
            for key in absolute
        )

    if Path(config.store).is_absolute():
        raise SnakefoldError(
            f"config: store: workers do not have the folder {config.store}; give s3://... or a relative path"
        )

    def shared(location: str) -> str:
        return location if is_address(location) else f"{bucket}/{Path(location).as_posix().lstrip('/')}"

    databases = config.databases.model_copy(
        update={
            "folder": shared(config.databases.folder),
            "cache": os.environ.get(CACHE_VARIABLE) or config.databases.cache,
        }
    )
    return config.model_copy(update={"store": shared(config.store), "databases": databases})


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


def changes_of(config: Config, prefix: str | None = None) -> list[str]:
    """What makes the config of a run (on the storage `prefix`) differ from config/config.yaml, for `--config`."""
    read = load_config(_read_config_file())
    usual = (on_storage(read, prefix) if prefix else read).model_dump(mode="json")
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


def of_this_job(changes: Sequence[str] = (), prefix: str | None = None) -> Folding:
    """The run that a command belongs to (see `config_of_this_job`), by default where the workflow says that it lies."""
    return load(config_of_this_job(changes), check_files=False, prefix=prefix or os.environ.get(PREFIX_VARIABLE))
