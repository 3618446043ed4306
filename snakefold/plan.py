"""The plan of a run: which chains are searched and which targets folded together in one job.

A pure function of targets, configuration and engines: no files, clock, network or order of the sheet enters it, so that
a worker that parses the workflow again gets the same jobs. The name of a batch is a digest of all that determines its
results, so a changed setting names new jobs even where Snakemake's own records of former runs are missing.

Members are dealt into batches by their own digest (`_dealt`), not by their place in the sheet: one more target changes
one batch and not all that follow it.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from snakefold import versions
from snakefold.config import Config
from snakefold.engines import ENGINES
from snakefold.engines.base import Engine
from snakefold.errors import SnakefoldError
from snakefold.files import sha256_of_json
from snakefold.sheet.targets import Chain, Target, refusal

if TYPE_CHECKING:
    from rich.table import Table

Step = Literal["search_msa", "search_templates", "fold", "relax"]

LENGTH_BUCKETS = (256, 512, 768, 1024, 1280, 1536, 2048, 2560, 3072, 3584, 4096, 4608, 5120)
"""Upper ends of the length buckets in residues: AlphaFold 3's, one compilation each in engines that compile."""

# Estimates for the steps that are no engine's, on one core.
_JOB_START_SECONDS = 20  # imports and weights, measured at 15-20 s for a full-size ESMFold
_DATABASE_PASS_SECONDS = 30
_SEARCH_RESIDUES = 300  # the length that `plan.search_seconds` of the configuration speaks of
_TEMPLATE_SEARCH_SECONDS = 3.0
_SCORE_SECONDS = 5.0
_COMPARE_SECONDS = 2.0
_COMPARE_LARGE_SECONDS = 15.0
_FINAL_SECONDS = 10.0
_PROCESS_MB = 500
_CHAINS_OF_A_PASS = 32  # as search_msas takes them
_DATABASES = 3  # that have as many hits as are kept; which databases there are is not known here

_Member = TypeVar("_Member")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The members that one job works through, shortest first.

    `members` are search ids of chains ("search_msa", "search_templates") or target ids ("fold", "relax"). `seconds` is
    the estimated work of one core (or one GPU, if `gpus` is not 0) and `longest_seconds` the part of the slowest
    member; `memory_mb` (decimal MB) is the estimated peak of the largest member, `gpu_memory_mb` that on the GPU,
    `residues` the length of the longest.
    """

    id: str
    step: Step
    engine: str | None
    members: tuple[str, ...]
    seconds: float
    longest_seconds: float
    memory_mb: int
    residues: int
    gpus: int = 0
    gpu_memory_mb: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """Which databases the steps read: names and digests of their entries in the registry; of `weights`, by engine.

    `msa` in their order: of equal hits the first database's is kept.
    """

    msa: Sequence[tuple[str, str]] = ()
    templates: tuple[str, str] | None = None
    weights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The jobs of one rule: how many, of how many members, and the estimated hours of one core or one GPU."""

    rule: str
    engine: str | None
    jobs: int
    members: int
    hours: float
    memory_mb: int
    residues: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All batches of a run, and in which of them a chain or target is. Look-ups take constant time.

    `searches` and `template_searches` are by batch id, `folds` and `relaxations` by (engine, batch id).
    `predictions` are (target id, engine), in the order of the sheet.
    """

    predictions: tuple[tuple[str, str], ...]
    searches: Mapping[str, Batch]
    template_searches: Mapping[str, Batch]
    folds: Mapping[tuple[str, str], Batch]
    relaxations: Mapping[tuple[str, str], Batch]
    _refused: frozenset[tuple[str, str]] = field(repr=False)
    _targets: Mapping[str, Target] = field(repr=False)
    _chains: Mapping[str, Chain] = field(repr=False)
    _search_of: Mapping[str, Batch] = field(repr=False)
    _template_search_of: Mapping[str, Batch] = field(repr=False)
    _fold_of: Mapping[tuple[str, str], Batch] = field(repr=False)
    _relaxation_of: Mapping[tuple[str, str], Batch] = field(repr=False)
    _inputs_of_fold: Mapping[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = field(repr=False)
    _search_of_template_search: Mapping[str, str] = field(repr=False)
    _fold_of_relaxation: Mapping[tuple[str, str], str] = field(repr=False)

    def target(self, target_id: str) -> Target:
        """The target of this id. Raises SnakefoldError if the sheet has none."""
        return _found(self._targets, target_id, f"target {target_id!r}")

    def chain(self, search_id: str) -> Chain:
        """The chain of this search id. Raises SnakefoldError if no target has it."""
        return _found(self._chains, search_id, f"chain {search_id!r}")

    def search(self, batch_id: str) -> Batch:
        """The MSA search batch of this id. Raises SnakefoldError if the plan has none."""
        return _found(self.searches, batch_id, f"search batch {batch_id!r}")

    def template_search(self, batch_id: str) -> Batch:
        """The template search batch of this id. Raises SnakefoldError if the plan has none."""
        return _found(self.template_searches, batch_id, f"template search batch {batch_id!r}")

    def fold(self, engine: str, batch_id: str) -> Batch:
        """The fold batch of this engine and id. Raises SnakefoldError if the plan has none."""
        return _found(self.folds, (engine, batch_id), f"{engine} batch {batch_id!r}")

    def relaxation(self, engine: str, batch_id: str) -> Batch:
        """The relax batch of this engine and id. Raises SnakefoldError if the plan has none."""
        return _found(self.relaxations, (engine, batch_id), f"relax batch {batch_id!r} of {engine}")

    def search_of(self, search_id: str) -> Batch:
        """The batch that makes the MSA of a chain. Raises SnakefoldError if nothing needs it."""
        return _found(self._search_of, search_id, f"search of chain {search_id!r}")

    def template_search_of(self, search_id: str) -> Batch:
        """The batch that finds the templates of a chain. Raises SnakefoldError if nothing needs them."""
        return _found(self._template_search_of, search_id, f"template search of chain {search_id!r}")

    def fold_of(self, engine: str, target_id: str) -> Batch:
        """The batch that predicts a target. Raises SnakefoldError if the engine was not chosen for it."""
        return _found(self._fold_of, (engine, target_id), f"prediction of {target_id!r} with {engine}")

    def relaxation_of(self, engine: str, target_id: str) -> Batch:
        """The batch that relaxes a prediction. Raises SnakefoldError if the engine was not chosen for the target."""
        return _found(self._relaxation_of, (engine, target_id), f"prediction of {target_id!r} with {engine}")

    def searches_of_fold(self, engine: str, batch_id: str) -> tuple[str, ...]:
        """Sorted ids of the MSA search batches that a fold batch needs; empty for an engine that needs none."""
        return _found(self._inputs_of_fold, (engine, batch_id), f"{engine} batch {batch_id!r}")[0]

    def template_searches_of_fold(self, engine: str, batch_id: str) -> tuple[str, ...]:
        """Sorted ids of the template search batches that a fold batch needs."""
        return _found(self._inputs_of_fold, (engine, batch_id), f"{engine} batch {batch_id!r}")[1]

    def search_of_template_search(self, batch_id: str) -> str:
        """Id of the one MSA search batch that holds all members of a template search batch."""
        return _found(self._search_of_template_search, batch_id, f"template search batch {batch_id!r}")

    def fold_of_relaxation(self, engine: str, batch_id: str) -> str:
        """Id of the one fold batch that holds all members of a relax batch."""
        return _found(self._fold_of_relaxation, (engine, batch_id), f"relax batch {batch_id!r} of {engine}")

    @property
    def compared(self) -> tuple[str, ...]:
        """Ids of the targets that several engines accept, in the order of the sheet."""
        return tuple(target for target in self._targets if len(self.engines_compared(target)) > 1)

    def engines_compared(self, target_id: str) -> tuple[str, ...]:
        """The engines chosen for a target that accept it, in its order. Raises SnakefoldError without such a target."""
        target = self.target(target_id)
        return tuple(name for name in target.engines if (target_id, name) not in self._refused)

    def workloads(self) -> tuple[Workload, ...]:
        """The estimated work of every rule, in the order in which they run."""
        rules: dict[tuple[str, str | None], list[Batch]] = defaultdict(list)
        for batches in (self.searches, self.template_searches, self.folds, self.relaxations):
            for batch in batches.values():
                rules[batch.step, batch.engine].append(batch)
        loads = [
            Workload(
                rule=rule,
                engine=engine,
                jobs=len(batches),
                members=sum(len(batch.members) for batch in batches),
                hours=sum(batch.seconds for batch in batches) / 3600,
                memory_mb=max(batch.memory_mb for batch in batches),
                residues=max(batch.residues for batch in batches),
            )
            for (rule, engine), batches in rules.items()
        ]
        number = len(self.predictions)
        longest = max((target.length for target in self._targets.values()), default=0)
        compared = len(self.compared)
        for rule, jobs, members, seconds in (
            ("score", number, number, number * _SCORE_SECONDS),
            *([("compare_engines", compared, compared, compared * _COMPARE_SECONDS)] if compared else []),
            ("summarize", 1, number, _FINAL_SECONDS),
            ("report", 1, number, _FINAL_SECONDS),
            ("conclude", 1, number, 0.0),
        ):
            loads.append(
                Workload(
                    rule=rule,
                    engine=None,
                    jobs=jobs,
                    members=members,
                    hours=seconds / 3600,
                    memory_mb=_PROCESS_MB,
                    residues=longest,
                )
            )
        return tuple(loads)


def make_plan(targets: Sequence[Target], config: Config, pins: Pins, engines: Mapping[str, Engine] = ENGINES) -> Plan:
    """Plan the batches of a run. The order of the targets decides the order of `predictions` and nothing else.

    The ids of the targets must be unique, as `read_targets` makes sure.
    """
    accepted, refused = _predictions_by_engine(targets, engines)
    chains = {chain.search_id: chain for target in targets for chain in target.chains}
    searched, templated = _searched_chains(accepted, engines)

    searches = _search_batches([chains[key] for key in searched], config, pins)
    search_of = _by_member(searches)
    template_searches: list[Batch] = []
    search_of_template_search: dict[str, str] = {}
    for search in searches:
        members = [member for member in search.members if member in templated]
        if members:
            batch = _template_search_batch(search, [chains[member] for member in members], config, pins)
            template_searches.append(batch)
            search_of_template_search[batch.id] = search.id
    template_search_of = _by_member(template_searches)

    folds: dict[tuple[str, str], Batch] = {}
    relaxations: dict[tuple[str, str], Batch] = {}
    fold_of: dict[tuple[str, str], Batch] = {}
    relaxation_of: dict[tuple[str, str], Batch] = {}
    inputs_of_fold: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {}
    fold_of_relaxation: dict[tuple[str, str], str] = {}
    by_id = {target.id: target for target in targets}
    digests = {target.id: _digest_of_target(target) for target in targets}
    for name in accepted:
        engine = engines[name]
        settings = _fold_settings(engine, config, pins)
        batches = _fold_batches(engine, accepted[name], digests, settings, config)
        refusals = _refusal_batches(engine, refused[name], digests, settings, config)
        for fold, works in (*((fold, True) for fold in batches), *((fold, False) for fold in refusals)):
            folds[name, fold.id] = fold
            fold_of.update(((name, member), fold) for member in fold.members)
            for relaxation in _relax_batches(fold, by_id, digests, config, works=works):
                relaxations[name, relaxation.id] = relaxation
                fold_of_relaxation[name, relaxation.id] = fold.id
                relaxation_of.update(((name, member), relaxation) for member in relaxation.members)
            members = [by_id[member] for member in fold.members]
            chains_of_fold = {chain.search_id for target in members for chain in target.chains}
            with_msa = chains_of_fold if works and (engine.needs_msa or engine.needs_templates) else ()
            with_templates = _templated_chains(engine, members) if works else ()
            inputs_of_fold[name, fold.id] = (
                tuple(sorted({search_of[key].id for key in with_msa})),
                tuple(sorted({template_search_of[key].id for key in with_templates})),
            )

    return Plan(
        predictions=tuple((target.id, name) for target in targets for name in target.engines),
        searches={batch.id: batch for batch in searches},
        template_searches={batch.id: batch for batch in template_searches},
        folds=folds,
        relaxations=relaxations,
        _refused=frozenset((target.id, name) for name, of_engine in refused.items() for target in of_engine),
        _targets=by_id,
        _chains=chains,
        _search_of=search_of,
        _template_search_of=template_search_of,
        _fold_of=fold_of,
        _relaxation_of=relaxation_of,
        _inputs_of_fold=inputs_of_fold,
        _search_of_template_search=search_of_template_search,
        _fold_of_relaxation=fold_of_relaxation,
    )


# What a job of a batch needs. Rules scale these by the attempt.


def search_minutes(batch: Batch, threads: int = 1) -> int:
    """Estimated minutes of an MSA or template search batch on so many cores, its start included."""
    return max(1, math.ceil((_JOB_START_SECONDS + batch.seconds / threads) / 60))


def search_memory_mb(batch: Batch, threads: int = 1) -> int:
    """Estimated peak memory (MB) of a search batch; threads share the block of the database that they search."""
    return batch.memory_mb + 100 * threads


def fold_minutes(batch: Batch, threads: int = 1) -> int:
    """Estimated minutes of a fold batch: on CPUs `threads` members run side by side, on a GPU one after the other."""
    return _minutes(batch, threads)


def fold_memory_mb(batch: Batch, threads: int = 1) -> int:
    """Estimated peak memory (MB) of a fold batch with its members side by side, as in `fold_minutes`."""
    return _PROCESS_MB + batch.memory_mb * _workers(batch, threads)


def relax_minutes(batch: Batch, threads: int = 1) -> int:
    """Estimated minutes of a relax batch, `threads` members side by side on a core each."""
    return _minutes(batch, threads)


def relax_memory_mb(batch: Batch, threads: int = 1) -> int:
    """Estimated peak memory (MB) of a relax batch with `threads` members side by side."""
    return _PROCESS_MB + batch.memory_mb * _workers(batch, threads)


def compare_minutes(engines: int) -> int:
    """Estimated minutes to compare so many engines of one target, two by two, if it is large.

    Two models of 26 equal chains of 76 residues took 9 s on one core.
    """
    return max(1, math.ceil(math.comb(engines, 2) * _COMPARE_LARGE_SECONDS / 60))


def relax_seconds(residues: int) -> float:
    """Estimated seconds to relax one model on one core, from `bench/relax.py`: 2 s for 115 residues, 13 s for 791."""
    return 1 + 0.02 * residues


def describe_plan(plan: Plan) -> "Table":
    """A table of the batches, jobs and estimated hours of every rule, for rich's Console.print."""
    from rich.table import Table

    table = Table(title="Planned jobs", title_justify="left", caption_justify="left")
    table.add_column("rule")
    for heading in ("jobs", "members", "longest (residues)", "memory (GB)", "hours"):
        table.add_column(heading, justify="right")
    loads = plan.workloads()
    for load in loads:
        name = load.rule if load.engine is None else f"{load.rule} ({load.engine})"
        memory = f"{load.memory_mb / 1000:.1f}"
        table.add_row(name, str(load.jobs), str(load.members), str(load.residues), memory, f"{load.hours:.2f}")
    table.add_section()
    total = sum(load.hours for load in loads)
    table.add_row("all", str(sum(load.jobs for load in loads)), str(len(plan.predictions)), "", "", f"{total:.2f}")
    table.caption = (
        "Hours of one core, or of one GPU for engines that use one, and memory of one member: estimates for results "
        "that are not in the store yet. Downloads of databases come on top."
    )
    return table


def _predictions_by_engine(
    targets: Iterable[Target], engines: Mapping[str, Engine]
) -> tuple[dict[str, list[Target]], dict[str, list[Target]]]:
    """The targets that each engine accepts, and those that it was chosen for but refuses; engines in sorted order."""
    accepted: dict[str, list[Target]] = {}
    refused: dict[str, list[Target]] = {}
    for target in targets:
        for name in target.engines:
            refuses = refusal(engines[name].limits, target.chains) is not None
            accepted.setdefault(name, [])
            refused.setdefault(name, [])
            (refused if refuses else accepted)[name].append(target)
    return {name: accepted[name] for name in sorted(accepted)}, refused


def _templated_chains(engine: Engine, targets: Iterable[Target]) -> set[str]:
    """Search ids of the chains whose templates an engine reads."""
    read = (target for target in targets if engine.reads_templates(len(target.chains)))
    return {chain.search_id for target in read for chain in target.chains}


def _searched_chains(
    accepted: Mapping[str, Sequence[Target]], engines: Mapping[str, Engine]
) -> tuple[list[str], set[str]]:
    """Sorted search ids of all chains whose MSA some engine needs, and those of them whose templates one needs.

    Templates are searched with the MSA, so who needs templates needs both.
    """
    searched: set[str] = set()
    with_templates: set[str] = set()
    for name, targets in accepted.items():
        engine = engines[name]
        chains = {chain.search_id for target in targets for chain in target.chains}
        if engine.needs_msa or engine.needs_templates:
            searched |= chains
        with_templates |= _templated_chains(engine, targets)
    return sorted(searched), with_templates


def _search_settings(config: Config, pins: Pins) -> dict[str, Any]:
    # Where the databases lie does not change what is found; which they are does.
    return {"version": versions.SEARCH_MSA, "search": config.search.parameters(), "databases": pins.msa}


def _template_settings(config: Config, pins: Pins) -> dict[str, Any]:
    return {"version": versions.SEARCH_TEMPLATES, "databases": pins.templates, **config.templates.parameters()}


def _search_batches(chains: Sequence[Chain], config: Config, pins: Pins) -> list[Batch]:
    """One pass over the databases serves all chains of a batch, so there are no length buckets.

    The size of the databases is not known when the workflow is parsed: `plan.search_seconds` stands for it.
    """

    def seconds(chain: Chain) -> float:
        if chain.msa is not None:
            return 1.0
        # Half of the work goes by the residues (dynamic programming), half does not (reading, hits, output).
        share = 0.5 + 0.5 * len(chain.sequence) / _SEARCH_RESIDUES
        return config.plan.search_seconds * config.search.iterations * share

    parts = _dealt(chains, digest=lambda chain: _sha256(chain.search_id), seconds=seconds, config=config)
    settings = _search_settings(config, pins)
    return [
        _batch(
            step="search_msa",
            engine=None,
            members=[(len(chain.sequence), chain.search_id, seconds(chain)) for chain in part],
            identity={"settings": settings, "members": sorted(_identity_of_chain(chain) for chain in part)},
            overhead=_DATABASE_PASS_SECONDS,
            memory_mb=600 + _hits_mb(part, config),
        )
        for part in parts
    ]


def _hits_mb(chains: Sequence[Chain], config: Config) -> int:
    """Memory (MB) of as many hits as a pass may keep; measured: 0.4 kB each, and 2.2 bytes a residue."""
    longest = max(len(chain.sequence) for chain in chains)
    hits = min(_CHAINS_OF_A_PASS, len(chains)) * _DATABASES * config.search.max_sequences
    return math.ceil(hits * (400 + 2.2 * longest) / 1e6)


def _identity_of_chain(chain: Chain) -> list[str | None]:
    return [chain.search_id, None if chain.msa is None else chain.msa.as_posix()]


def _template_search_batch(search: Batch, chains: Sequence[Chain], config: Config, pins: Pins) -> Batch:
    return _batch(
        step="search_templates",
        engine=None,
        members=[(len(chain.sequence), chain.search_id, _TEMPLATE_SEARCH_SECONDS) for chain in chains],
        identity={
            "search": search.id,
            "settings": _template_settings(config, pins),
            "members": sorted(chain.search_id for chain in chains),
        },
        overhead=0,
        memory_mb=600 + max(len(chain.sequence) for chain in chains),
    )


def _digest_of_target(target: Target) -> str:
    """Digest of what a prediction is made from, whatever the target is called."""
    return sha256_of_json(
        {
            "chains": [_identity_of_chain(chain) for chain in target.chains],
            "seed": target.seed,
            "template": _path(target.template),
        }
    )


def _path(path: Path | None) -> str:
    return "" if path is None else path.as_posix()


def _fold_settings(engine: Engine, config: Config, pins: Pins) -> dict[str, Any]:
    return {
        "engine": engine.name,
        "version": engine.version,
        "parameters": config.parameters_of_engine(engine.name),
        "weights": pins.weights.get(engine.name),
        "search": _search_settings(config, pins) if engine.needs_msa or engine.needs_templates else None,
        "templates": _template_settings(config, pins) if engine.needs_templates else None,
    }


def _fold_batches(
    engine: Engine,
    targets: Sequence[Target],
    digests: Mapping[str, str],
    settings: Mapping[str, Any],
    config: Config,
) -> list[Batch]:
    buckets: dict[int, list[Target]] = defaultdict(list)
    for target in targets:
        buckets[_bucket(target.length)].append(target)
    batches: list[Batch] = []
    for _, bucket in sorted(buckets.items()):
        parts = _dealt(
            bucket,
            digest=lambda target: digests[target.id],
            seconds=lambda target: engine.seconds(target.length),
            config=config,
        )
        for part in parts:
            longest = max(target.length for target in part)
            batches.append(
                _batch(
                    step="fold",
                    engine=engine.name,
                    members=[(target.length, target.id, engine.seconds(target.length)) for target in part],
                    identity={
                        "settings": settings,
                        "members": sorted([target.id, digests[target.id]] for target in part),
                    },
                    overhead=0,
                    memory_mb=engine.memory_mb(longest),
                    gpus=engine.gpus,
                    gpu_memory_mb=engine.gpu_memory_mb(longest),
                )
            )
    return batches


def _refusal_batches(
    engine: Engine,
    targets: Sequence[Target],
    digests: Mapping[str, str],
    settings: Mapping[str, Any],
    config: Config,
) -> list[Batch]:
    """Batches of targets that the engine refuses: jobs that only say so, and must not ask for a large machine."""
    parts = _dealt(targets, digest=lambda target: digests[target.id], seconds=lambda _: 0.0, config=config)
    return [
        _batch(
            step="fold",
            engine=engine.name,
            members=[(target.length, target.id, 0.0) for target in part],
            identity={
                "settings": settings,
                "refused": sorted([target.id, digests[target.id]] for target in part),
            },
            overhead=0,
            memory_mb=0,
        )
        for part in parts
    ]


def _relax_batches(
    fold: Batch, targets: Mapping[str, Target], digests: Mapping[str, str], config: Config, *, works: bool
) -> list[Batch]:
    """The relaxation of a fold batch, in several jobs where it takes much longer than the fold.

    Their ids are their own, so that a changed setting of `relax` folds nothing again.
    """

    def seconds(member: str) -> float:
        return relax_seconds(targets[member].length) if works else 0.0

    parts = _dealt(fold.members, digest=digests.__getitem__, seconds=seconds, config=config)
    return [
        _batch(
            step="relax",
            engine=fold.engine,
            members=[(targets[member].length, member, seconds(member)) for member in part],
            identity={
                "fold": fold.id,
                "settings": {"version": versions.RELAX, **config.relax.parameters()},
                # Scores are made after this batch: another reference must show in its name, if in no model.
                "members": sorted([member, _path(targets[member].reference)] for member in part),
            },
            overhead=0,
            memory_mb=400 + max(targets[member].length for member in part) // 2 if works else 0,
        )
        for part in parts
    ]


def _batch(
    *,
    step: Step,
    engine: str | None,
    members: Iterable[tuple[int, str, float]],
    identity: Mapping[str, Any],
    overhead: float,
    memory_mb: int,
    gpus: int = 0,
    gpu_memory_mb: int = 0,
) -> Batch:
    """A batch of members (length, name, seconds), named by the digest of its identity."""
    ordered = sorted(members)
    return Batch(
        id=sha256_of_json({"receipt": versions.RECEIPT, "step": step, "engine": engine, **identity})[:12],
        step=step,
        engine=engine,
        members=tuple(name for _, name, _ in ordered),
        # Summed in a fixed order: the sum of floats depends on it, and rules show it.
        seconds=overhead + math.fsum(seconds for _, _, seconds in ordered),
        longest_seconds=overhead + max(seconds for _, _, seconds in ordered),
        memory_mb=memory_mb,
        residues=ordered[-1][0],
        gpus=gpus,
        gpu_memory_mb=gpu_memory_mb,
    )


def _bucket(residues: int) -> int:
    """The upper end of the length bucket; beyond the last, multiples of 1024."""
    return next((end for end in LENGTH_BUCKETS if residues <= end), math.ceil(residues / 1024) * 1024)


def _dealt(
    members: Iterable[_Member],
    *,
    digest: Callable[[_Member], str],
    seconds: Callable[[_Member], float],
    config: Config,
) -> list[list[_Member]]:
    """Members in parts of about `plan.minutes` and at most `plan.max_members`, by the bits of their digests.

    A part that is too large is split in two by the next bit of its members' digests. So a part depends on its own
    members only, and a new member can split its own part but moves nothing else; cutting a sorted list would shift
    every part after the new member. Members of one digest are the same work and stay together.
    """
    # Halving leaves parts between half of the limit and all of it; with this limit, the aim lies in the middle.
    limit = config.plan.minutes * 60 * math.sqrt(2)
    weighed = [(int(digest(member), 16), seconds(member), member) for member in members]
    waiting = [(255, weighed)] if weighed else []
    parts: list[list[_Member]] = []
    while waiting:
        bit, part = waiting.pop()
        small = len(part) <= config.plan.max_members and math.fsum(weight for _, weight, _ in part) <= limit
        if small or all(item[0] == part[0][0] for item in part):
            parts.append([member for _, _, member in part])
            continue
        halves = [[item for item in part if item[0] >> bit & 1 == side] for side in (1, 0)]
        waiting += [(bit - 1, half) for half in halves if half]
    return parts


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _by_member(batches: Iterable[Batch]) -> dict[str, Batch]:
    return {member: batch for batch in batches for member in batch.members}


def _workers(batch: Batch, threads: int) -> int:
    """Members that a job works on at a time."""
    return 1 if batch.gpus else max(1, min(threads, len(batch.members)))


def _minutes(batch: Batch, threads: int) -> int:
    shared = batch.seconds / _workers(batch, threads)
    # Side by side, the last member to end may have started when the others were done: at worst one more of the slowest.
    waiting = batch.longest_seconds if _workers(batch, threads) > 1 else 0
    return max(1, math.ceil((_JOB_START_SECONDS + shared + waiting) / 60))


def _found(mapping: Mapping[Any, Any], key: Any, what: str) -> Any:
    try:
        return mapping[key]
    except KeyError:
        raise SnakefoldError(f"there is no {what} in this plan; was the sheet or config changed meanwhile?") from None
