"""The steps of a run, as the rules call them: receipts in, one receipt (or one prediction's folder) out.

What a step computes lives in `search/`, `engines/` and `relax/`. Here stands what determines each result, its action,
which is the same wherever and for whomever it is computed.
"""

import platform
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from snakefold import __version__, versions
from snakefold.batch import (
    LOG_LINES,
    BatchRun,
    MemberReceipt,
    databases_behind,
    fetch_files,
    peak_memory_mb,
    read_receipt,
    run_in_driver,
    run_in_processes,
)
from snakefold.databases.local import local_folder
from snakefold.databases.manifest import Manifest, read_manifest
from snakefold.engines.base import ChainInputs, Engine, FoldTask
from snakefold.engines.driven import DrivenEngine
from snakefold.errors import MemberError, SnakefoldError
from snakefold.files import read_json, sha256_of_file, sha256_of_json, write_json
from snakefold.kernels import share_kernels, share_networks
from snakefold.outcome import Outcome
from snakefold.progress import Progress
from snakefold.sheet import Target, refusal, relocated
from snakefold.store import Action, Record, Store, open_store
from snakefold.workflow import Folding

if TYPE_CHECKING:
    from snakefold.score import Prediction

Receipts = Mapping[str, MemberReceipt]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every step needs: the run, its store, where to log, and whether several jobs share the terminal."""

    folding: Folding
    store: Store
    log: Path | None
    plain: bool

    @contextmanager
    def batch(
        self,
        step: str,
        batch: str,
        members: Sequence[str],
        *,
        engine: str | None = None,
        databases: Mapping[str, Sequence[Mapping[str, str]]] | None = None,
        attempts_left: int = 0,
        minutes: float | None = None,
    ) -> Iterator[BatchRun]:
        """Work on one batch: its progress and its scratch folder end with the block."""
        title = " ".join(filter(None, (step, engine, batch)))
        with (
            Progress(title, len(members), log=self.log, plain=self.plain) as progress,
            BatchRun(
                step,
                batch,
                members,
                self.store,
                engine=engine,
                databases=databases or {},
                reuse=self.folding.config.reuse,
                attempts_left=attempts_left,
                # On one machine nobody ends a job that takes long.
                minutes=minutes if self.folding.prefix else None,
                progress=progress,
            ) as run,
        ):
            yield run


def job(folding: Folding, *, log: Path | None, plain: bool) -> Job:
    """The job of one command."""
    return Job(folding=folding, store=open_store(folding.config.store), log=log, plain=plain)


def _version(own: str, *packages: str) -> str:
    """The version of a step as it enters a store key: its own, and those of the packages that compute."""
    return " ".join((own, *(f"{package}-{version(package)}" for package in packages)))


class Given:
    """The user's own files that a step reads, by the paths in the sheet; the store has them (see `take_inputs`)."""

    def __init__(self, job: Job, lists: Sequence[Path]) -> None:
        self._store = job.store
        self._digests: dict[str, str] = {}
        for path in lists:
            self._digests |= read_json(path)

    def digest(self, path: Path) -> str:
        """SHA-256 of a file's content."""
        return self._digests[path.as_posix()]

    def fetch(self, path: Path, folder: Path) -> Path:
        """Bring a file into `folder`, under its own name in a folder of its own; returns its absolute path."""
        digest = self.digest(path)
        copy = (folder / "given" / digest / path.name).absolute()
        if not copy.exists():
            self._store.fetch(digest, copy)
        return copy


def take_inputs(job: Job, step: str, owner: str, batch: str, digests: Path) -> None:
    """Put the files that the sheet names for one batch into the store, and list their digests."""
    taken = {}
    for path in job.folding.named_in_sheet(step, owner, batch):
        source = relocated(path)
        digest = sha256_of_file(source)
        action = Action(step="take_inputs", tool="copy", version="1", inputs={"file": digest})
        if job.store.lookup(action.key) is None:
            record = Record(
                step="take_inputs",
                outcome=Outcome(),
                files={source.name: digest},
                seconds=0,
                peak_memory_mb=0,
                hardware=platform.machine(),
            )
            job.store.commit(action.key, record, source.parent)
        taken[path.as_posix()] = digest
    write_json(digests, taken)


def search_msa(
    job: Job, batch: str, manifests: Sequence[Path], given: Sequence[Path], receipt: Path, *, threads: int
) -> None:
    """MSAs of the chains of one batch. Chains whose MSA the sheet gives are not searched for."""
    from snakefold.search.msa import import_msa, search_msas
    from snakefold.search.stream import Thresholds

    config = job.folding.config.search
    databases = [read_manifest(path) for path in manifests]
    chains = {member: job.folding.plan.chain(member) for member in job.folding.plan.search(batch).members}
    own = Given(job, given)
    read = {member: _named(databases) if chain.msa is None else [] for member, chain in chains.items()}
    with job.batch("search_msa", batch, list(chains), databases=read) as run:
        actions = {
            member: Action(
                step="search_msa",
                tool="pyhmmer",
                version=_version(versions.SEARCH_MSA, "pyhmmer"),
                # Of equal hits the first database's is kept.
                parameters=config.parameters() | {"databases": [each.name for each in databases]}
                if chain.msa is None
                else {},
                inputs={"sequence": sha256_of_json(chain.sequence)}
                | ({} if chain.msa is None else {"msa": own.digest(chain.msa)}),
                databases=_digests(databases) if chain.msa is None else {},
            )
            for member, chain in chains.items()
        }
        missing = run.find_stored(actions)
        searched = {}
        for member, action in missing.items():
            chain = chains[member]
            if chain.msa is None:
                searched[member] = chain.sequence
            else:
                msa = own.fetch(chain.msa, run.scratch)
                _compute_here(run, member, action, partial(import_msa, msa, chain.sequence))
        if searched:
            search_msas(
                searched,
                {
                    database.name: _fasta_of(database, local_folder(path, job.folding.config.databases))
                    for database, path in zip(databases, manifests, strict=True)
                },
                scratch=run.scratch / "searches",
                on_result=_keeper(run, {member: missing[member] for member in searched}),
                on_failure=lambda member, error: run.fail(member, error.kind, str(error)),
                progress=run.progress.share,
                thresholds=Thresholds(
                    evalue=config.evalue,
                    inclusion_evalue=config.inclusion_evalue,
                    f1=config.f1,
                    f2=config.f2,
                    f3=config.f3,
                ),
                iterations=config.iterations,
                max_sequences=config.max_sequences,
                threads=threads,
            )
        run.write_receipt(receipt)


def _compute_here(run: BatchRun, member: str, action: Action, call: Callable[[Path], Outcome]) -> None:
    """Compute a member in this process: for what takes no time."""
    folder = run.scratch / "members" / member
    folder.mkdir(parents=True)
    started = time.monotonic()
    try:
        outcome = call(folder)
    except MemberError as error:
        run.fail(member, error.kind, str(error))
    else:
        run.keep(member, action, folder, outcome, time.monotonic() - started, peak_memory_mb())


def _digests(databases: Sequence[Manifest]) -> dict[str, str]:
    return {database.name: database.digest for database in databases}


def _named(databases: Sequence[Manifest]) -> list[dict[str, str]]:
    return [
        {"name": each.name, "version": each.version, "licence": each.licence, "digest": each.digest}
        for each in databases
    ]


def _fasta_of(database: Manifest, folder: Path) -> Path:
    """The sequences of a database: the one FASTA file in its folder."""
    endings = (".fasta", ".fasta.gz", ".fa", ".fa.gz")
    found = [name for name in database.files if name.endswith(endings)]
    if len(found) != 1:
        raise SnakefoldError(f"{folder}: expected one FASTA file of sequences, found {len(found)}; see databases.yaml")
    return folder / found[0]


def search_templates(job: Job, batch: str, manifest: Path, msas: Path, receipt: Path, *, threads: int) -> None:
    """Template hits of the chains of one batch."""
    from snakefold.search.templates import search_templates as search

    config = job.folding.config.templates
    database = read_manifest(manifest)
    found = read_receipt(msas)
    members = job.folding.plan.template_search(batch).members
    with job.batch("search_templates", batch, members, databases=dict.fromkeys(members, _named([database]))) as run:
        ready = _hand_on(run, {member: found[member] for member in members})
        actions = {
            member: Action(
                step="search_templates",
                tool="pyhmmer",
                version=_version(versions.SEARCH_TEMPLATES, "pyhmmer"),
                parameters=config.parameters(),
                inputs={"msa.a3m": found[member].files["msa.a3m"]},
                databases=_digests([database]),
            )
            for member in ready
        }
        missing = run.find_stored(actions)
        alignments = {member: run.scratch / "inputs" / member / "msa.a3m" for member in missing}
        for member, path in alignments.items():
            job.store.fetch(found[member].files["msa.a3m"], path)
        if missing:
            search(
                alignments,
                {member: job.folding.plan.chain(member).sequence for member in missing},
                local_folder(manifest, job.folding.config.databases),
                scratch=run.scratch / "searches",
                on_result=_keeper(run, missing),
                on_failure=lambda member, error: run.fail(member, error.kind, str(error)),
                progress=run.progress.share,
                max_template_date=config.max_template_date,
                min_coverage=config.min_coverage,
                min_identity=config.min_identity,
                max_identity=config.max_identity,
                exclude=config.exclude,
                max_hits=config.max_hits,
                threads=threads,
            )
        run.write_receipt(receipt)


def _keeper(run: BatchRun, actions: Mapping[str, Action]) -> Callable[[str, Path, Outcome], None]:
    """Stores members as a joint search hands them over; the time is shared out evenly."""
    started = time.monotonic()

    def keep(member: str, folder: Path, outcome: Outcome) -> None:
        seconds = (time.monotonic() - started) / len(actions)
        run.keep(member, actions[member], folder, outcome, seconds, peak_memory_mb())

    return keep


def _hand_on(run: BatchRun, former: Receipts) -> list[str]:
    """End the members that the step before did not finish; return the others."""
    for member, end in former.items():
        if end.status != "done":
            run.hand_on(member, end)
    return [member for member, end in former.items() if end.status == "done"]


def _read_receipts(paths: Sequence[Path]) -> dict[str, MemberReceipt]:
    members: dict[str, MemberReceipt] = {}
    for path in paths:
        members.update(read_receipt(path))
    return members


def fold(
    job: Job,
    engine: str,
    batch: str,
    msas: Sequence[Path],
    templates: Sequence[Path],
    given: Sequence[Path],
    weights: Path | None,
    receipt: Path,
    *,
    threads: int,
    attempts_left: int,
    minutes: float | None,
) -> None:
    """Models of the targets of one batch, by one engine; `weights` is the manifest of its weights, if it has any."""
    predictor = job.folding.engines[engine]
    found_msas, found_templates = _read_receipts(msas), _read_receipts(templates)
    own = Given(job, given)
    parameters = job.folding.config.parameters_of_engine(engine)
    targets = {member: job.folding.plan.target(member) for member in job.folding.plan.fold(engine, batch).members}
    if not predictor.takes_template:
        targets = {member: replace(target, template=None) for member, target in targets.items()}
    needed = {member: _needs_of(target, found_msas, found_templates, predictor) for member, target in targets.items()}
    manifests = [] if weights is None else [read_manifest(weights)]
    databases = {member: [*databases_behind(needs.values()), *_named(manifests)] for member, needs in needed.items()}
    version = (
        predictor.versions()
        if isinstance(predictor, DrivenEngine)
        else _version(predictor.version, *predictor.packages)
    )
    with job.batch(
        "fold",
        batch,
        list(targets),
        engine=engine,
        databases=databases,
        attempts_left=attempts_left,
        minutes=minutes,
    ) as run:
        actions = {}
        for member, target in targets.items():
            refused = refusal(predictor.limits, target.chains)
            if refused is not None:
                run.skip(member, "not_accepted", f"the engine {engine} {refused}")
                continue
            needs = needed[member]
            ended = next((need for need in needs.values() if need.status != "done"), None)
            if ended is not None:
                run.hand_on(member, ended)
            else:
                actions[member] = Action(
                    step="fold",
                    tool=engine,
                    version=version,
                    parameters=parameters,
                    inputs=_inputs_of(target, needs, own),
                    databases=_digests(manifests),
                    seed=target.seed,
                )
        missing = run.find_stored(actions)
        tasks = {}
        for member in missing:
            target = targets[member]
            chains = [
                ChainInputs(
                    sequence=chain.sequence,
                    msa=_fetch(job.store, run, found_msas[chain.search_id], chain.search_id, "msa") / "msa.a3m"
                    if predictor.needs_msa
                    else None,
                    templates=_fetch(job.store, run, found_templates[chain.search_id], chain.search_id, "templates")
                    if predictor.reads_templates(len(target.chains)) and target.template is None
                    else None,
                )
                for chain in target.chains
            ]
            template = None if target.template is None else own.fetch(target.template, run.scratch)
            tasks[member] = FoldTask(chains=tuple(chains), seed=target.seed, template=template, parameters=parameters)
        if isinstance(predictor, DrivenEngine):
            share_networks()
            folder = None if weights is None else local_folder(weights, job.folding.config.databases)
            run_in_driver(run, missing, tasks, predictor, folder)
        else:
            share_kernels()
            calls = {member: partial(predictor.predict, task) for member, task in tasks.items()}
            run_in_processes(run, missing, calls, workers=threads)
        run.write_receipt(receipt)


def _needs_of(target: Target, msas: Receipts, templates: Receipts, engine: Engine) -> Receipts:
    """What an engine reads of the searches: `<chain number>/<step>` -> the member's receipt.

    A template of the user's own takes the place of those that were found. A target that the engine refuses has no
    searches behind it.
    """
    needs = {}
    templated = engine.reads_templates(len(target.chains)) and target.template is None
    for number, chain in enumerate(target.chains):
        if engine.needs_msa and chain.search_id in msas:
            needs[f"{number}/msa"] = msas[chain.search_id]
        if templated and chain.search_id in templates:
            needs[f"{number}/templates"] = templates[chain.search_id]
    return needs


def _inputs_of(target: Target, needs: Receipts, own: Given) -> dict[str, str]:
    """Digests of all that determines a prediction but its parameters; the target's name is not among it."""
    inputs = {f"{number}/sequence": sha256_of_json(chain.sequence) for number, chain in enumerate(target.chains)}
    for name, member in needs.items():
        inputs |= {f"{name}/{file}": digest for file, digest in member.files.items() if not file.endswith(".sto")}
    if target.template is not None:
        inputs["template"] = own.digest(target.template)
    return inputs


def _fetch(store: Store, run: BatchRun, member: MemberReceipt, search_id: str, step: str) -> Path:
    """The files of a search, brought here once for all the targets of the batch that share the chain."""
    folder = run.scratch / "inputs" / search_id / step
    return folder if folder.exists() else fetch_files(store, member, folder)


def relax(
    job: Job,
    engine: str,
    batch: str,
    models: Path,
    receipt: Path,
    *,
    threads: int,
    attempts_left: int,
    minutes: float | None,
) -> None:
    """Relaxed models of one batch."""
    from snakefold.relax import relax_model

    parameters = job.folding.config.relax.parameters()
    found = read_receipt(models)
    members = job.folding.plan.relaxation(engine, batch).members
    with job.batch("relax", batch, members, engine=engine, attempts_left=attempts_left, minutes=minutes) as run:
        ready = _hand_on(run, {member: found[member] for member in members})
        actions = {
            member: Action(
                step="relax",
                tool="openmm",
                version=_version(versions.RELAX, "openmm", "pdbfixer"),
                parameters=parameters,
                inputs={"model.cif": found[member].files["model.cif"]},
                seed=job.folding.plan.target(member).seed,
            )
            for member in ready
        }
        missing = run.find_stored(actions)
        calls = {}
        for member, action in missing.items():
            model = run.scratch / "inputs" / member / "model.cif"
            job.store.fetch(found[member].files["model.cif"], model)
            calls[member] = partial(relax_model, model, parameters=parameters, seed=action.seed or 0)
        run_in_processes(run, missing, calls, workers=threads)
        job.folding.withdraw_outdated(engine, batch)
        run.write_receipt(receipt)


def score(
    job: Job, engine: str, target_id: str, *, models: Path, relaxed: Path, given: Sequence[Path], folder: Path
) -> None:
    """Write the folder of one prediction, whole or not at all, whether it succeeded or not."""
    from snakefold.score import score_prediction, write_status

    model = read_receipt(models)[target_id]
    partial_folder = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    if model.status == "done":
        try:
            with TemporaryDirectory(prefix="snakefold-score-") as scratch:
                relaxation = read_receipt(relaxed)[target_id]
                prediction = _prediction(job, engine, target_id, model, relaxation, Given(job, given), Path(scratch))
                score_prediction(prediction, partial_folder)
        except Exception as error:  # whatever it was, it must not stop the other targets
            reason = str(error) if isinstance(error, SnakefoldError) else f"{type(error).__name__}: {error}"
            log = traceback.format_exc().splitlines()[-LOG_LINES:]
            shutil.rmtree(partial_folder)
            partial_folder.mkdir()
            write_status(
                partial_folder, target_id, engine, "failed", step="score", kind="error", reason=reason, log=log
            )
    else:
        write_status(
            partial_folder,
            target_id,
            engine,
            model.status,
            step=model.step,
            kind=model.kind,
            reason=model.reason,
            log=list(model.log),
        )
    shutil.rmtree(folder, ignore_errors=True)
    partial_folder.rename(folder)


def _prediction(
    job: Job,
    engine: str,
    target_id: str,
    model: MemberReceipt,
    relaxed: MemberReceipt,
    given: Given,
    scratch: Path,
) -> "Prediction":
    """Bring together in `scratch` what the steps made of one target. What the fold read is named by its receipt."""
    from snakefold.score import Prediction

    target = job.folding.plan.target(target_id)
    made = fetch_files(job.store, model, scratch / "model")

    def made_by_engine(name: str) -> Path | None:
        return made / name if (made / name).exists() else None

    def read_by_engine(name: str) -> Path | None:
        if name not in model.inputs:
            return None
        path = scratch / "inputs" / name
        if not path.exists():
            job.store.fetch(model.inputs[name], path)
        return path

    prediction = read_json(made / "prediction.json")
    numbers = range(len(target.chains))
    used: dict[str, Path] = {}
    for template in prediction["templates"]:
        entry = read_by_engine(f"{template['chain_index']}/templates/{template['entry']}.cif.gz")
        if entry is not None:
            used.setdefault(entry.name, entry)
    own = None
    if target.template is not None and "template" in model.inputs:
        own = scratch / "given" / target.template.name
        job.store.fetch(model.inputs["template"], own)
        used[own.name] = own
    msa_facts = [read_by_engine(f"{number}/msa/msa.json") for number in numbers]
    if relaxed.status == "done":
        relaxation = fetch_files(job.store, relaxed, scratch / "relaxed")
        relaxed_model, relax_facts = relaxation / "relaxed.cif", read_json(relaxation / "relax.json")
    else:  # the model stands without relaxation, and says so
        relaxed_model, relax_facts = None, {"relaxed": False, "reason": relaxed.reason}
    return Prediction(
        target_id=target.id,
        sequences=tuple(chain.sequence for chain in target.chains),
        chain_ids=tuple(chain.id for chain in target.chains),
        engine=engine,
        seed=target.seed,
        reference=None if target.reference is None else given.fetch(target.reference, scratch),
        model=made / "model.cif",
        prediction=prediction,
        relaxed=relaxed_model,
        relax=relax_facts,
        msas=tuple(read_by_engine(f"{number}/msa/msa.a3m") for number in numbers),
        msa_facts=tuple(None if path is None else read_json(path) for path in msa_facts),
        alignment=made_by_engine("alignment.fasta"),
        pae=made_by_engine("pae.json"),
        templates=tuple(used[name] for name in sorted(used)),
        given_template=own,
        software=_software(engine, model, relaxed),
        databases=model.databases,
    )


def _software(engine: str, model: MemberReceipt, relaxed: MemberReceipt) -> dict[str, str]:
    """Programs that made a model, with the versions that they had when it was made (see `_version`)."""
    packages = [package.rpartition("-") for made in (model, relaxed) for package in made.version.split()[1:]]
    own = {"snakefold": __version__, f"snakefold engine {engine}": model.version.split()[0]}
    return own | {name: version for name, _, version in packages}
