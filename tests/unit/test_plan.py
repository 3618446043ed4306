import dataclasses
import io
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from snakefold.batch import MemberReceipt
from snakefold.config import Config, load_config
from snakefold.engines.base import STANDARD_LETTERS, Engine, FoldTask, Limits
from snakefold.errors import SnakefoldError
from snakefold.outcome import Outcome
from snakefold.plan import (
    LENGTH_BUCKETS,
    Batch,
    Pins,
    Plan,
    describe_plan,
    fold_memory_mb,
    fold_minutes,
    make_plan,
    relax_memory_mb,
    relax_minutes,
    relax_seconds,
    search_memory_mb,
    search_minutes,
)
from snakefold.sheet import Chain, Target
from snakefold.steps import _needs_of


class Predictor:
    """An engine of which only what the plan asks for matters."""

    licence = "Apache-2.0"
    packages: tuple[str, ...] = ()
    weights: str | None = None

    def __init__(
        self,
        name: str,
        *,
        msa: bool = False,
        templates: bool = False,
        least_templated: int = 1,
        gpus: int = 0,
        version: str = "1",
        most: int = 2000,
        seconds_per_residue: float = 0.1,
    ) -> None:
        self.seconds_per_residue = seconds_per_residue
        self.name = name
        self.version = version
        self.needs_msa = msa
        self.needs_templates = templates
        self.takes_template = templates
        self.least_templated = least_templated
        self.gpus = gpus
        self.limits = Limits(min_length=20, max_length=most, max_chains=10)

    def seconds(self, residues: int) -> float:
        return residues * self.seconds_per_residue

    def reads_templates(self, chains: int) -> bool:
        return self.needs_templates and chains >= self.least_templated

    def memory_mb(self, residues: int) -> int:
        return 100 + residues

    def gpu_memory_mb(self, residues: int) -> int:
        return residues if self.gpus else 0

    def predict(self, task: FoldTask, folder: Path) -> Outcome:
        raise AssertionError("planning does not predict")


def engines(**changed: Any) -> dict[str, Engine]:
    known = [
        Predictor("template", msa=True, templates=True, **changed),
        Predictor("alone", gpus=1, most=500),
        Predictor("aligned", msa=True),
    ]
    return {engine.name: engine for engine in known}


def target(name: str, *chains: Chain | str, engines: Sequence[str] = ("template",), **fields: Any) -> Target:
    return Target(
        id=name,
        chains=tuple(Chain(sequence=chain) if isinstance(chain, str) else chain for chain in chains),
        engines=tuple(engines),
        seed=fields.get("seed", 0),
        template=fields.get("template"),
        reference=fields.get("reference"),
        file=fields.get("file", Path("s.tsv")),
        row=fields.get("row", 2),
    )


def random_targets(number: int, seed: int) -> list[Target]:
    """Targets of 1-3 chains that share some chains; some have an MSA, a template, a seed or several engines."""
    chance = random.Random(seed)
    letters = sorted(STANDARD_LETTERS)
    pool = [
        Chain(
            sequence="".join(chance.choices(letters, k=chance.randint(30, 400))),
            msa=Path(f"{index}.a3m") if chance.random() < 0.1 else None,
        )
        for index in range(number)
    ]
    return [
        target(
            f"t{index}",
            *chance.choices(pool, k=chance.choice((1, 1, 1, 2, 3))),
            engines=chance.sample(("template", "alone", "aligned"), k=chance.randint(1, 3)),
            seed=chance.randint(0, 1),
            template=Path(f"{index}.cif") if chance.random() < 0.1 else None,
            row=index + 2,
        )
        for index in range(number)
    ]


def config(**settings: Any) -> Config:
    return load_config({"plan": {"minutes": 5}, **settings})


def plan(targets: Iterable[Target], known: dict[str, Engine] | None = None, **settings: Any) -> Plan:
    return make_plan(tuple(targets), config(**settings), Pins(), known or engines())


def batches(made: Plan) -> list[Batch]:
    """All batches of a plan, in an order of their own."""
    groups = (made.searches, made.template_searches, made.folds, made.relaxations)
    return sorted((batch for group in groups for batch in group.values()), key=lambda batch: (batch.step, batch.id))


def test_a_target_whose_templates_an_engine_does_not_read_does_not_depend_on_their_search() -> None:
    of_complexes = Predictor("template", msa=True, templates=True, least_templated=2)
    one, two = target("one", "M" * 30), target("two", "A" * 30, "A" * 30)
    made = plan([one, two], {"template": of_complexes})
    searched = {member for batch in made.template_searches.values() for member in batch.members}
    assert searched == {two.chains[0].id}
    (fold,) = made.folds.values()
    assert made.template_searches_of_fold("template", fold.id) == tuple(made.template_searches)
    alone = plan([one], {"template": of_complexes})
    assert alone.searches and not alone.template_searches
    # A search that failed concerns those alone who read what it finds.
    ends = MemberReceipt(step="search_msa", status="done"), MemberReceipt(step="search_templates", status="failed")
    msas, templates = ({chain.id: end for chain in (*one.chains, *two.chains)} for end in ends)
    for each, status in ((one, {"done"}), (two, {"done", "failed"})):
        needs = _needs_of(each, msas, templates, of_complexes)
        assert {need.status for need in needs.values()} == status


def ids(made: Plan, *steps: str) -> set[str]:
    return {batch.id for batch in batches(made) if not steps or batch.step in steps}


@pytest.mark.parametrize("seed", range(5))
def test_every_member_is_in_exactly_one_batch_and_every_look_up_finds_it(seed: int) -> None:
    targets = random_targets(80, seed)
    known = engines()
    made = plan(targets, known)
    assert made.predictions == tuple((item.id, name) for item in targets for name in item.engines)
    for group in (made.folds, made.relaxations):
        members = [(engine, member) for (engine, _), batch in group.items() for member in batch.members]
        assert sorted(members) == sorted((engine, name) for name, engine in made.predictions)
    for item in targets:
        assert made.target(item.id) is item
        for engine in item.engines:
            fold = made.fold_of(engine, item.id)
            relaxation = made.relaxation_of(engine, item.id)
            assert item.id in fold.members
            assert item.id in relaxation.members
            assert made.fold(engine, fold.id) is fold
            assert made.relaxation(engine, relaxation.id) is relaxation
            assert made.fold_of_relaxation(engine, relaxation.id) == fold.id
            accepted = item.length <= known[engine].limits.max_length
            if accepted and engine != "alone":
                for chain in item.chains:
                    assert made.chain(chain.search_id) == chain
                    search = made.search_of(chain.search_id)
                    assert chain.search_id in search.members
                    assert search.id in made.searches_of_fold(engine, fold.id)
            if accepted and engine == "template":
                for chain in item.chains:
                    templates = made.template_search_of(chain.search_id)
                    assert chain.search_id in templates.members
                    assert templates.id in made.template_searches_of_fold(engine, fold.id)
                    assert made.search_of_template_search(templates.id) == made.search_of(chain.search_id).id
    for engine, batch_id in made.folds:
        for found in (made.searches_of_fold(engine, batch_id), made.template_searches_of_fold(engine, batch_id)):
            assert list(found) == sorted(set(found))
            assert engine != "alone" or not found
    searched = [member for batch in made.searches.values() for member in batch.members]
    assert len(searched) == len(set(searched)) > 0


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_and_sheets_changes_no_batch(seed: int) -> None:
    targets = random_targets(80, seed)
    shuffled = [
        dataclasses.replace(item, row=row, file=Path("other.tsv"))
        for row, item in enumerate(random.Random(seed).sample(targets, k=len(targets)), start=2)
    ]
    assert batches(plan(targets)) == batches(plan(shuffled))


def test_another_process_makes_the_same_plan() -> None:
    # Python orders sets differently in every process unless PYTHONHASHSEED is set.
    code = (
        "from tests.unit.test_plan import batches, plan, random_targets;"
        "print([(batch, batch.members) for batch in batches(plan(random_targets(80, 1)))])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert "search_templates" in printed.pop()


@pytest.mark.parametrize("seed", range(5))
def test_renaming_a_target_changes_only_the_batches_that_hold_it(seed: int) -> None:
    targets = random_targets(80, seed)
    before = plan(targets)
    renamed = targets[seed]
    after = plan([dataclasses.replace(item, id="zz") if item is renamed else item for item in targets])
    assert ids(before, "search_msa", "search_templates") == ids(after, "search_msa", "search_templates")
    held = {batch.id for batch in batches(before) if renamed.id in batch.members}
    holds = {batch.id for batch in batches(after) if "zz" in batch.members}
    # A relaxation is named after its fold, and one fold may have several.
    held |= {
        batch.id
        for (engine, key), batch in before.relaxations.items()
        if before.fold_of_relaxation(engine, key) in held
    }
    holds |= {
        batch.id for (engine, key), batch in after.relaxations.items() if after.fold_of_relaxation(engine, key) in holds
    }
    assert ids(before) - ids(after) == held
    assert ids(after) - ids(before) == holds
    assert held
    assert ids(before, "fold") - held, "the sheet is too small to show anything"


@pytest.mark.parametrize("seed", range(5))
def test_a_sheet_that_grows_by_one_target_keeps_almost_all_batches(seed: int) -> None:
    targets = random_targets(300, seed)
    before, after = plan(targets[:-1]), plan(targets)
    new = targets[-1]
    for step, places in (("search_msa", len(new.chains)), ("fold", len(new.engines))):
        assert len(ids(before, step)) > 3 * places
        assert len(ids(before, step) - ids(after, step)) <= places
        # A batch that overflows becomes two, rarely more.
        assert len(ids(after, step) - ids(before, step)) <= 3 * places


def test_the_place_in_a_file_enters_no_batch_and_the_reference_the_last_one_alone() -> None:
    plain = plan([target("a", "M" * 50)])
    assert batches(plain) == batches(plan([target("a", "M" * 50, file=Path("b.csv"), row=9)]))
    compared = plan([target("a", "M" * 50, reference=Path("r.cif"))])
    assert ids(plain, "search_msa", "search_templates", "fold") == ids(
        compared, "search_msa", "search_templates", "fold"
    )
    assert not ids(plain, "relax") & ids(compared, "relax")


@pytest.mark.parametrize(
    "changed",
    [
        target("a", "M" * 50, seed=1),
        target("a", "M" * 50, template=Path("t.cif")),
        target("a", "M" * 50, "M" * 50),
        target("a", Chain(sequence="M" * 50, msa=Path("m.a3m"))),
    ],
)
def test_whatever_determines_a_prediction_enters_the_id_of_its_batch(changed: Target) -> None:
    before, after = plan([target("a", "M" * 50)]), plan([changed])
    assert not ids(before, "fold", "relax") & ids(after, "fold", "relax")


@pytest.mark.parametrize(
    ("settings", "changed_steps"),
    [
        ({"search": {"iterations": 2}}, {"search_msa", "search_templates", "fold template", "fold aligned"}),
        ({"databases": {"folder": "elsewhere"}}, set()),
        ({"templates": {"exclude": ["4zhl"]}}, {"search_templates", "fold template"}),
        ({"template": {"keep_tails": True}}, {"fold template"}),
        ({"relax": {"tolerance": 100}}, {"relax template", "relax aligned", "relax alone"}),
        ({"results": "elsewhere", "reuse": False, "store": "s3://bucket/x", "allow_failures": True}, set()),
    ],
)
def test_a_changed_setting_renames_the_batches_of_the_steps_that_read_it(
    settings: dict[str, Any], changed_steps: set[str]
) -> None:
    targets = [target("a", "M" * 50, "A" * 60, engines=("template", "alone", "aligned"))]
    assert changed(plan(targets), plan(targets, **settings)) == with_relaxations(changed_steps)


def changed(one: Plan, other: Plan) -> set[str]:
    """The steps, with their engines, whose batches have other ids."""

    def by_step(made: Plan) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for batch in batches(made):
            found.setdefault(batch.step + (f" {batch.engine}" if batch.engine else ""), set()).add(batch.id)
        return found

    before, after = by_step(one), by_step(other)
    assert before.keys() == after.keys()
    return {step for step in before if before[step] != after[step]}


def with_relaxations(steps: set[str]) -> set[str]:
    """A relaxation follows its fold."""
    return steps | {step.replace("fold", "relax") for step in steps}


def test_a_new_version_of_an_engine_renames_its_batches_alone() -> None:
    targets = [target("a", "M" * 50, engines=("template", "aligned"))]
    assert changed(plan(targets), plan(targets, engines(version="2"))) == {"fold template", "relax template"}


@pytest.mark.parametrize(
    ("pins", "changed_steps"),
    [
        ({"msa": [("b", "2"), ("a", "1")]}, {"search_msa", "search_templates", "fold template", "fold aligned"}),
        ({"msa": [("a", "1"), ("b", "3")]}, {"search_msa", "search_templates", "fold template", "fold aligned"}),
        ({"templates": ("c", "2")}, {"search_templates", "fold template"}),
        ({"weights": {"alone": "2"}}, {"fold alone"}),
    ],
)
def test_another_database_renames_the_batches_of_the_steps_that_read_it(
    pins: dict[str, Any], changed_steps: set[str]
) -> None:
    targets = [target("a", "M" * 50, "A" * 60, engines=("template", "alone", "aligned"))]
    first = Pins(msa=[("a", "1"), ("b", "2")], templates=("c", "1"), weights={"alone": "1"})
    before, after = (
        make_plan(targets, config(), each, engines()) for each in (first, dataclasses.replace(first, **pins))
    )
    assert changed(before, after) == with_relaxations(changed_steps)


def test_targets_that_share_a_chain_share_its_search() -> None:
    shared = "MKV" * 20
    made = plan([target("a", shared), target("b", shared, shared, "G" * 40), target("c", shared, engines=("alone",))])
    members = [member for batch in made.searches.values() for member in batch.members]
    assert sorted(members) == sorted({Chain(sequence=shared).id, Chain(sequence="G" * 40).id})


def test_what_no_engine_needs_is_not_searched() -> None:
    alone = plan([target("a", "M" * 50, engines=("alone",))])
    assert not alone.searches
    assert not alone.template_searches
    aligned = plan([target("a", "M" * 50, engines=("aligned",))])
    assert len(aligned.searches) == 1
    assert not aligned.template_searches


def test_a_target_that_one_engine_refuses_gets_a_small_job_that_needs_nothing() -> None:
    long, short = "M" * 900, "M" * 100
    made = plan([target("long", long, engines=("alone", "aligned")), target("short", short, engines=("alone",))])
    refused = made.fold_of("alone", "long")
    assert refused.members == ("long",)
    assert (refused.seconds, refused.memory_mb, refused.gpus) == (0, 0, 0)
    assert made.relaxation_of("alone", "long").seconds == 0
    assert made.fold_of("alone", "short").gpus == 1
    # Of the two engines of `long` one is left, so there is nothing to compare.
    assert made.compared == ()
    assert made.engines_compared("long") == ("aligned",)
    both = plan([target("short", short, engines=("alone", "aligned"))])
    assert (both.compared, both.engines_compared("short")) == (("short",), ("alone", "aligned"))
    only_refused = plan([target("long", "M" * 2100, engines=("template",))])
    assert not only_refused.searches
    assert only_refused.searches_of_fold("template", only_refused.fold_of("template", "long").id) == ()


def test_batches_are_of_like_length_shortest_first_and_of_about_the_wanted_time() -> None:
    targets = random_targets(400, 1)
    made = plan(targets)
    lengths = {item.id: item.length for item in targets}
    for (engine, _), batch in made.folds.items():
        if batch.memory_mb == 0:
            continue
        members = [lengths[member] for member in batch.members]
        assert members == sorted(members)
        assert batch.residues == members[-1]
        assert len({sum(length > end for end in LENGTH_BUCKETS) for length in members}) == 1
        assert batch.seconds == pytest.approx(sum(members) / 10)
        assert batch.longest_seconds == pytest.approx(members[-1] / 10)
        assert batch.memory_mb == 100 + members[-1]
        assert batch.seconds <= 5 * 60 * 1.42
        assert engine == batch.engine
    full = [batch.seconds for batch in made.folds.values() if batch.engine == "template" and batch.residues <= 256]
    assert 0.5 * 300 < sum(full) / len(full) < 1.42 * 300


def test_max_members_bounds_a_batch_but_equal_work_stays_together() -> None:
    targets = random_targets(60, 3)
    made = plan(targets, plan={"max_members": 4, "minutes": 1000})
    assert max(len(batch.members) for batch in batches(made)) <= 4
    equal = [target(f"t{index}", "M" * 50) for index in range(20)]
    (fold,) = plan(equal, plan={"max_members": 4}).folds.values()
    assert len(fold.members) == 20


def test_relaxations_that_take_long_are_spread_over_several_jobs_of_one_fold() -> None:
    chance = random.Random(2)
    letters = sorted(STANDARD_LETTERS)
    targets = [target(f"t{index}", "".join(chance.choices(letters, k=480))) for index in range(5)]
    made = plan(targets, engines(seconds_per_residue=0.001), plan={"minutes": 0.5})
    (fold,) = made.folds.values()
    assert len(made.relaxations) > 1
    assert sorted(member for batch in made.relaxations.values() for member in batch.members) == sorted(fold.members)
    assert relax_seconds(791) == pytest.approx(13.3, rel=0.3)


def test_needs_grow_with_the_members_side_by_side_and_minutes_shrink() -> None:
    cpu = Batch(
        id="x",
        step="fold",
        engine="template",
        members=tuple("abcdefgh"),
        seconds=1600,
        longest_seconds=200,
        memory_mb=1000,
        residues=300,
    )
    gpu = dataclasses.replace(cpu, gpus=1)
    assert fold_minutes(cpu) == fold_minutes(gpu, 8) == 27
    assert fold_minutes(cpu, 4) < fold_minutes(cpu, 2) < 27
    assert fold_minutes(cpu, 4) * 60 >= 1600 / 4 + 200
    assert fold_minutes(cpu, 100) == fold_minutes(cpu, 8)
    assert fold_memory_mb(cpu, 4) - fold_memory_mb(cpu, 2) == 2000
    assert fold_memory_mb(cpu, 100) == fold_memory_mb(cpu, 8)
    assert fold_memory_mb(gpu, 8) == fold_memory_mb(gpu)
    assert relax_minutes(cpu, 2) < relax_minutes(cpu)
    assert relax_memory_mb(cpu, 2) > relax_memory_mb(cpu)
    assert search_minutes(cpu, 4) < search_minutes(cpu) == 27
    assert search_memory_mb(cpu, 4) < 2 * search_memory_mb(cpu)


def test_an_empty_sheet_plans_no_batches() -> None:
    made = plan([])
    assert not batches(made)
    assert made.predictions == ()


def test_look_ups_of_what_is_not_there_say_so_in_one_line() -> None:
    made = plan([target("a", "M" * 50)])
    for call in (
        lambda: made.target("b"),
        lambda: made.chain("b"),
        lambda: made.search_of("b"),
        lambda: made.template_search_of("b"),
        lambda: made.fold_of("alone", "a"),
        lambda: made.relaxation_of("alone", "a"),
        lambda: made.search("b"),
        lambda: made.template_search("b"),
        lambda: made.fold("template", "b"),
        lambda: made.relaxation("template", "b"),
        lambda: made.searches_of_fold("template", "b"),
        lambda: made.template_searches_of_fold("template", "b"),
        lambda: made.search_of_template_search("b"),
        lambda: made.fold_of_relaxation("template", "b"),
    ):
        with pytest.raises(SnakefoldError, match=r"^there is no .* in this plan; .*$"):
            call()


def test_workloads_count_the_jobs_of_every_rule() -> None:
    targets = random_targets(50, 4)
    made = plan(targets)
    loads = {(load.rule, load.engine): load for load in made.workloads()}
    assert loads["search_msa", None].jobs == len(made.searches)
    assert loads["search_templates", None].jobs == len(made.template_searches)
    assert sum(load.jobs for (rule, _), load in loads.items() if rule == "fold") == len(made.folds)
    assert sum(load.jobs for (rule, _), load in loads.items() if rule == "relax") == len(made.relaxations)
    assert loads["score", None].jobs == len(made.predictions)
    assert loads["compare_engines", None].jobs == len(made.compared)
    for name in ("template", "alone", "aligned"):
        total = sum(batch.seconds for (engine, _), batch in made.folds.items() if engine == name)
        assert loads["fold", name].hours == pytest.approx(total / 3600)
        assert loads["fold", name].members == sum(engine == name for _, engine in made.predictions)


def test_the_table_of_a_plan_fits_a_terminal_and_sums_up() -> None:
    made = plan(random_targets(50, 4))
    written = io.StringIO()
    Console(width=80, file=written).print(describe_plan(made))
    text = written.getvalue()
    jobs = sum(load.jobs for load in made.workloads())
    last = next(line for line in text.split("\n") if " all " in line)
    assert str(jobs) in last
    for name in ("search_msa", "search_templates", "fold (template)", "relax (alone)", "score", "report"):
        assert name in text
    assert max(map(len, text.split("\n"))) <= 80
