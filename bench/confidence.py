"""How true the estimated lDDT of the template engine is, and the fit of its weights.

    python -m bench.confidence FAMILIES --sequences FASTA --cache FOLDER [--figure SVG] [--pairs NUMBER]

FAMILIES is a file {family: [{"file", "chain"}]} of structures (files relative to it). Members of a family are modelled
on one another, each target on one template with an MSA searched in --sequences, and on proteins of other families, as a
wrong template would be. Backbones are judged as they are before minimisation, which moves CA atoms little.

Everything printed is told by weights that were fitted without the family in question. Families weigh the same. The last
lines are the weights of all families together, as snakefold/engines/template/confidence.py has them. --cache keeps MSAs
and models; models are made anew when the engine's sources change. --figure writes the reliability curve.
"""

import argparse
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path

import numpy as np

from bench.families import Member, members, msas
from snakefold.engines import template as engine
from snakefold.engines.base import ChainInputs, FoldTask
from snakefold.engines.template import confidence
from snakefold.engines.template.backbone import Backbone, copy_backbone
from snakefold.engines.template.loops import close_gaps, grow_tails
from snakefold.engines.template.realign import realigned
from snakefold.engines.template.templates import NoTemplateError, hits_of_task, select_templates
from snakefold.errors import SnakefoldError
from snakefold.structures.compare import lddt, tm_score
from snakefold.structures.io import PolymerChain

UNRELATED = "unrelated"
"""Models on templates of other families go under families of this name and a number, left out one at a time too."""

_LONGEST_TAIL = 25
# Modules of the engine that leave the backbone as it is: models are kept when these change.
_LATER_STAGES = (
    "confidence",
    "contacts",
    "disulfides",
    "minimise",
    "model",
    "packing",
    "rotamers",
    "sidechains",
    "stitch",
)
_BINS = 10
_RESAMPLES = 500
_UNRELATED_GROUPS = 8
_RIDGE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A model and the truth about it.

    `truth` (residues,) is lDDT-CA (0-1), NaN where the residue is not modelled or not seen in the experiment; `tm` the
    TM-score of the modelled residues alone, `identity` that of the aligned pairs (0-1).
    """

    family: str
    name: str
    backbone: Backbone
    truth: np.ndarray
    tm: float
    identity: float


def pairs(everyone: Sequence[Member], most: int) -> Iterator[tuple[str, Member, Member]]:
    """Family, target and template: at most `most` of each family, every member about as often; then unrelated ones."""
    families: dict[str, list[Member]] = {}
    for member in everyone:
        families.setdefault(member.family, []).append(member)
    chosen: list[list[tuple[str, Member, Member]]] = []
    for family, group in families.items():
        turns = [
            (target, group[(index + shift) % len(group)])
            for shift in range(1, len(group))
            for index, target in enumerate(group)
        ]
        different = [(target, template) for target, template in turns if target.file != template.file]
        chosen.append([(family, target, template) for target, template in different[:most]])
    names = list(families)
    chosen.append(
        [
            (
                f"{UNRELATED} {index % _UNRELATED_GROUPS + 1}",
                families[names[index]][0],
                families[names[(index + step) % len(names)]][-1],
            )
            for index in range(0, len(names), 3)
            for step in (7, 19)
        ]
    )
    # In turns, so that whatever has been made after some time holds all families.
    for turn in zip_longest(*chosen):
        yield from (pair for pair in turn if pair is not None)


def backbone_of(target: PolymerChain, template: Path, msa: Path) -> Backbone:
    """The backbone as the engine builds it, ends of up to 25 residues included."""
    task = FoldTask(chains=(ChainInputs(sequence=target.sequence, msa=msa),), template=template)
    mains = realigned(task, select_templates(task, hits_of_task(task)))
    backbone = copy_backbone(target.sequence, mains)
    if backbone.modelled.sum() < 15:
        raise NoTemplateError("too_little_template", "too little to model")
    close_gaps([backbone], 0)
    backbone.drop_islands()
    grow_tails([backbone], 0, _LONGEST_TAIL)
    return backbone


def judge(family: str, name: str, backbone: Backbone, reference: PolymerChain) -> Judged | None:
    """Compare a backbone with the experiment; None if they share fewer than 15 residues."""
    seen = np.array([index for index, atoms in sorted(reference.residues.items()) if "CA" in atoms])
    wanted = np.array([reference.residues[index]["CA"] for index in seen])
    found = backbone.atoms[seen, 1]
    both = np.isfinite(found).all(axis=1)
    if both.sum() < 15:
        return None
    truth = np.full(len(reference.sequence), np.nan)
    truth[seen] = np.where(both, lddt(wanted, found, np.arange(len(seen)))[1], np.nan)
    copied = backbone.template_index >= 0
    equal = [a == b for a, b in zip(backbone.sequence, backbone.template_letters, strict=True)]
    return Judged(
        family=family,
        name=name,
        backbone=backbone,
        truth=truth,
        tm=tm_score(wanted[both], found[both])[0],
        identity=float(np.mean(np.array(equal)[copied])),
    )


def gather(families: Path, sequences: Path, cache: Path, most: int) -> list[Judged]:
    """All models, from the cache where they are there."""
    cache.mkdir(parents=True, exist_ok=True)
    chosen = list(pairs(members(families), most))
    chains = {member: member.read() for member in dict.fromkeys(target for _, target, _ in chosen)}
    found = msas({member.name: chain.sequence for member, chain in chains.items()}, sequences, cache)
    folder = Path(engine.__file__).parent
    used = (path for path in sorted(folder.iterdir()) if path.is_file() and path.stem not in _LATER_STAGES)
    sources = hashlib.sha256(b"".join(path.read_bytes() for path in used)).hexdigest()
    judged: list[Judged] = []
    for family, target, template in chosen:
        msa = found[target.name]
        key = hashlib.sha256("\n".join([sources, msa.name, target.name, template.name]).encode()).hexdigest()[:24]
        path = cache / f"{key}.npz"
        if not path.exists():
            try:
                made = backbone_of(chains[target], template.file, msa)
            except (NoTemplateError, SnakefoldError):
                np.savez(path)
                continue
            np.savez(
                path,
                atoms=made.atoms,
                template_index=made.template_index,
                posterior=made.posterior,
                source=made.source,
                sequence=made.sequence,
                template_letters=made.template_letters,
            )
        with np.load(path) as kept:  # empty where there is no model
            if "atoms" not in kept:
                continue
            backbone = Backbone(
                sequence=str(kept["sequence"]),
                atoms=kept["atoms"],
                template_index=kept["template_index"],
                posterior=kept["posterior"],
                source=kept["source"],
                template_letters=str(kept["template_letters"]),
            )
        one = judge(family, f"{target.name} <- {template.name}", backbone, chains[target])
        if one is not None:
            judged.append(one)
    return judged


def shares(models: Sequence[Judged]) -> list[float]:
    """The weight of each model: families weigh the same, and so do the models of one."""
    count: dict[str, int] = {}
    for model in models:
        count[model.family] = count.get(model.family, 0) + 1
    return [1 / count[model.family] for model in models]


@dataclass(frozen=True, kw_only=True)
class Residues:
    """All residues with a truth: (residues, features), truth (0-1), weight, number of the model."""

    inputs: np.ndarray
    truth: np.ndarray
    weight: np.ndarray
    model: np.ndarray


def residues_of(models: Sequence[Judged]) -> Residues:
    """Features and truth of all residues; the weights of a model's residues add up to that of the model."""
    inputs, truth, weight, number = [], [], [], []
    for index, (model, share) in enumerate(zip(models, shares(models), strict=True)):
        backbone = model.backbone
        found = confidence.features(backbone, backbone.atoms[backbone.modelled, 1])
        known = np.isfinite(found).all(axis=1) & np.isfinite(model.truth)
        inputs.append(found[known])
        truth.append(model.truth[known])
        weight.append(np.full(int(known.sum()), share / known.sum()))
        number.append(np.full(int(known.sum()), index))
    return Residues(
        inputs=np.concatenate(inputs),
        truth=np.concatenate(truth),
        weight=np.concatenate(weight),
        model=np.concatenate(number),
    )


def fit(data: Residues, chosen: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression on fractional outcomes over the chosen residues, with a slight ridge."""
    inputs, truth = data.inputs[chosen], np.clip(data.truth[chosen], 0.01, 0.99)
    weight = data.weight[chosen] / data.weight[chosen].sum()
    weights = np.zeros(inputs.shape[1])
    ridge = _RIDGE * np.eye(inputs.shape[1])
    # Newton's method; the likelihood is concave, so that a few steps suffice.
    for _ in range(50):
        estimate = confidence.probability(inputs @ weights)
        gradient = inputs.T @ (weight * (truth - estimate)) - ridge @ weights
        curvature = (inputs * (weight * estimate * (1 - estimate))[:, None]).T @ inputs + ridge
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights


def left_out(models: Sequence[Judged], data: Residues) -> np.ndarray:
    """The estimate (0-1) of every residue by weights that were fitted without its family."""
    family = np.array([model.family for model in models])[data.model]
    estimate = np.empty(len(data.truth))
    for name in dict.fromkeys(family.tolist()):
        out = family == name
        estimate[out] = confidence.probability(data.inputs[out] @ fit(data, ~out))
    return estimate


@dataclass(frozen=True, kw_only=True)
class Points:
    """Estimates and truths (0-1) with weights and families: of residues, or of whole targets."""

    estimate: np.ndarray
    truth: np.ndarray
    weight: np.ndarray
    family: np.ndarray

    def where(self, chosen: np.ndarray) -> "Points":
        """Some of them."""
        return Points(
            estimate=self.estimate[chosen],
            truth=self.truth[chosen],
            weight=self.weight[chosen],
            family=self.family[chosen],
        )

    def summary(self) -> str:
        """Number, correlation, mean error, bias."""
        if len(self.truth) < 2:
            return f"{len(self.truth):6d} | | | "
        weight = self.weight / self.weight.sum()
        a, b = self.estimate - weight @ self.estimate, self.truth - weight @ self.truth
        spread = np.sqrt((weight @ a**2) * (weight @ b**2))
        correlation = f"{weight @ (a * b) / spread:.2f}" if spread > 1e-9 and len(self.truth) > 2 else ""
        difference = self.estimate - self.truth
        return f"{len(self.truth):6d} | {correlation} | {weight @ np.abs(difference):.3f} | {weight @ difference:+.3f} "


def points_of(models: Sequence[Judged], data: Residues, estimate: np.ndarray) -> tuple[Points, Points]:
    """The residues' points, and those of the targets: means over the modelled residues."""
    family = np.array([model.family for model in models])
    of_residues = Points(estimate=estimate, truth=data.truth, weight=data.weight, family=family[data.model])
    count = np.bincount(data.model, minlength=len(models))
    of_targets = Points(
        estimate=np.bincount(data.model, estimate, len(models)) / count,
        truth=np.bincount(data.model, data.truth, len(models)) / count,
        weight=np.array(shares(models)),
        family=family,
    )
    return of_residues, of_targets


@dataclass(frozen=True, kw_only=True)
class Bin:
    """One bin of a reliability curve: mean estimate and truth (0-1), the truth's 90 % range, number of points."""

    estimate: float
    truth: float
    low: float
    high: float
    count: int


def reliability(points: Points) -> list[Bin]:
    """The curve in bins of 0.1 of the estimate, with ranges from families drawn anew 500 times, with repetition."""
    place = np.minimum((points.estimate * _BINS).astype(int), _BINS - 1)
    names = sorted(set(points.family.tolist()))
    index = np.array([names.index(name) for name in points.family.tolist()])
    drawn = np.random.default_rng(0).integers(len(names), size=(_RESAMPLES, len(names)))
    times = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    bins: list[Bin] = []
    for number in range(_BINS):
        here = place == number
        if not here.any():
            continue
        weight, truth = points.weight[here], points.truth[here]
        total = np.bincount(index[here], weight, len(names))
        summed = np.bincount(index[here], weight * truth, len(names))
        drawn_total = times @ total
        means = (times @ summed)[drawn_total > 0] / drawn_total[drawn_total > 0]
        low, high = np.quantile(means, [0.05, 0.95])
        bins.append(
            Bin(
                estimate=float(np.average(points.estimate[here], weights=weight)),
                truth=float(np.average(truth, weights=weight)),
                low=float(low),
                high=float(high),
                count=int(here.sum()),
            )
        )
    return bins


def print_bins(title: str, bins: Sequence[Bin]) -> None:
    """A reliability curve as a table."""
    print(f"\n{title}\n\n| mean estimate | mean truth | 90 % range | number |\n|---|---|---|---|")
    for one in bins:
        print(f"| {one.estimate:.2f} | {one.truth:.2f} | {one.low:.2f}-{one.high:.2f} | {one.count} |")


def print_too_far(models: Sequence[Judged], targets: Points) -> None:
    """How well a threshold of the mean estimate tells models whose fold is wrong (TM-score below 0.5)."""
    wrong = np.array([model.tm < 0.5 for model in models])
    print(f"\nModels with a TM-score below 0.5: {wrong.sum()} of {len(models)}\n")
    print("| threshold | marked | of these wrong | of the wrong ones marked |\n|---|---|---|---|")
    for threshold in np.arange(0.30, 0.71, 0.05):
        marked = targets.estimate < threshold
        right = int((marked & wrong).sum())
        print(f"| {threshold:.2f} | {marked.sum()} | {right} | {right / max(wrong.sum(), 1):.0%} |")


def print_families(models: Sequence[Judged], residues: Points, targets: Points) -> None:
    """One line for each family."""
    print(
        "\n| family | models | identity | residues | correlation | error | bias "
        "| targets | correlation | error | bias |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for family in sorted(set(targets.family.tolist())):
        identities = [model.identity for model in models if model.family == family]
        print(
            f"| {family} | {len(identities)} | {min(identities):.0%}-{max(identities):.0%} "
            f"| {residues.where(residues.family == family).summary()}"
            f"| {targets.where(targets.family == family).summary()}|"
        )


def print_identities(models: Sequence[Judged], targets: Points) -> None:
    """One line for each range of identity between target and template, wrong templates left out."""
    identity, related = np.array([model.identity for model in models]), is_related(targets.family)
    tm = np.array([model.tm for model in models])
    print("\n| identity | targets | correlation | error | bias | TM-score | lDDT-CA |\n|---|---|---|---|---|---|---|")
    for low, high in pairwise((0.0, 0.2, 0.3, 0.4, 0.6, 0.9, 1.01)):
        chosen = related & (identity >= low) & (identity < high)
        weight = targets.weight[chosen] / targets.weight[chosen].sum()
        reached = f"{weight @ tm[chosen]:.2f} | {weight @ targets.truth[chosen]:.2f}"
        print(f"| {low:.0%}-{min(high, 1):.0%} | {targets.where(chosen).summary()}| {reached} |")


def print_within(title: str, points: Points) -> None:
    """How many points lie how near the truth."""
    error = np.abs(points.estimate - points.truth)
    near = (
        f"{np.average(error < limit, weights=points.weight):.0%} within {limit}" for limit in (0.05, 0.1, 0.15, 0.2)
    )
    print(f"{title}: {', '.join(near)}")


def figure(curves: Mapping[str, Sequence[Bin]]) -> str:
    """Reliability curves side by side, as SVG text."""
    size, margin, gap = 300, 56, 70
    width, height = margin + len(curves) * (size + gap), size + 110
    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="13" role="img" aria-label="Reliability of the estimated lDDT">',
        "<style>.ink{fill:#222}.line{stroke:#222}.grid{stroke:#ddd}.paper{fill:#fff}"
        "@media (prefers-color-scheme:dark){.ink{fill:#ddd}.line{stroke:#ddd}.grid{stroke:#444}.paper{fill:#111}}"
        "</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
    ]
    for number, (title, bins) in enumerate(curves.items()):
        left, top = margin + number * (size + gap), 44

        def x(value: float, left: int = left) -> str:
            return f"{left + value * size:.1f}"

        def y(value: float, top: int = top) -> str:
            return f"{top + (1 - value) * size:.1f}"

        text.append(f'<text class="ink" x="{left}" y="{top - 16}" font-weight="bold">{title}</text>')
        for tick in range(0, 11, 2):
            value = tick / 10
            text.append(f'<path class="grid" d="M{x(value)} {y(0)}V{y(1)}M{x(0)} {y(value)}H{x(1)}"/>')
            text.append(
                f'<text class="ink" x="{x(value)}" y="{top + size + 18}" text-anchor="middle">{tick * 10}</text>'
            )
            text.append(
                f'<text class="ink" x="{left - 8}" y="{float(y(value)) + 4:.1f}" text-anchor="end">{tick * 10}</text>'
            )
        text.append(f'<path class="line" stroke-dasharray="4 4" d="M{x(0)} {y(0)}L{x(1)} {y(1)}"/>')
        text += [
            f'<path stroke="#0072b2" stroke-width="2" d="M{x(one.estimate)} {y(one.low)}V{y(one.high)}"/>'
            for one in bins
        ]
        path = "L".join(f"{x(one.estimate)} {y(one.truth)}" for one in bins)
        text.append(f'<path fill="none" stroke="#0072b2" stroke-width="2" d="M{path}"/>')
        text += [
            f'<circle cx="{x(one.estimate)}" cy="{y(one.truth)}" r="4" fill="#0072b2">'
            f"<title>{one.count}: estimated {100 * one.estimate:.0f}, true {100 * one.truth:.0f}</title></circle>"
            for one in bins
        ]
        text.append(
            f'<text class="ink" x="{left + size / 2}" y="{top + size + 42}" text-anchor="middle">'
            "estimated lDDT, without the family</text>"
        )
        text.append(
            f'<text class="ink" text-anchor="middle" transform="translate({left - 38} {top + size / 2}) rotate(-90)">'
            "lDDT-CA against the experiment</text>"
        )
    return "\n".join([*text, "</svg>", ""])


def is_related(family: np.ndarray) -> np.ndarray:
    """Which points are of models on relatives."""
    return np.array([not name.startswith(UNRELATED) for name in family.tolist()])


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", type=Path)
    parser.add_argument("--sequences", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--pairs", type=int, default=4, help="models of each family, at most")
    arguments = parser.parse_args()
    models = gather(arguments.families, arguments.sequences, arguments.cache, arguments.pairs)
    data = residues_of(models)
    residues, targets = points_of(models, data, left_out(models, data))
    print_families(models, residues, targets)
    related = is_related(residues.family)
    parts = {
        "residues": related,
        "copied": related & ~confidence.is_loop(data.inputs) & ~confidence.is_end(data.inputs),
        "built loops": related & confidence.is_loop(data.inputs),
        "built ends": related & confidence.is_end(data.inputs),
    }
    print("\n| all families but the unrelated | number | correlation | error | bias |\n|---|---|---|---|---|")
    for name, chosen in parts.items():
        print(f"| {name} | {residues.where(chosen).summary()}|")
    print(f"| targets | {targets.where(is_related(targets.family)).summary()}|")
    print(f"| targets, unrelated too | {targets.summary()}|")
    print_identities(models, targets)
    print()
    print_within("residues", residues.where(related))
    print_within("targets", targets.where(is_related(targets.family)))
    curves = {"Residues": reliability(residues), "Targets": reliability(targets)}
    for title, bins in curves.items():
        print_bins(title, bins)
    print_too_far(models, targets)
    if arguments.figure:
        arguments.figure.write_text(figure(curves), encoding="utf-8")
    print("\nweights of all families:")
    for name, weight in zip(confidence.FEATURES, fit(data, np.ones(len(data.truth), dtype=bool)), strict=True):
        print(f'    "{name}": {weight:.2f},')


if __name__ == "__main__":
    main()
