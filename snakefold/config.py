"""The configuration of a run: `config/config.yaml`, checked."""

import datetime
import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from snakefold.databases.registry import Preset
from snakefold.engines import ENGINES, engines_for
from snakefold.engines.base import Engine
from snakefold.errors import FaultsError
from snakefold.files import is_address, write_json

MAX_SEED = 2**31 - 1
"""The largest seed that every engine and OpenMM can take (a signed 32-bit integer)."""


class Section(BaseModel):
    """A part of the configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def parameters(self) -> dict[str, Any]:
        """The settings as plain JSON values (dates as text), fit to enter a store key."""
        return self.model_dump(mode="json")


def _one_or_several(value: Any) -> Any:
    """One path or name stands for a list of one, as on the command line: --config samples=my.tsv."""
    return [value] if isinstance(value, str) else value


_Texts = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_one_or_several, json_schema_input_type=str | tuple[str, ...]),
]


def _without_last_slash(value: Any) -> Any:
    """`results/` names the same folder as `results`, but makes other paths."""
    return value.rstrip("/") or value if isinstance(value, str) else value


Folder = Annotated[str, BeforeValidator(_without_last_slash), Field(min_length=1)]


class Databases(Section):
    """Which databases are searched, and where they lie."""

    registry: str = Field(
        default="config/databases.yaml", min_length=1, description="What databases and presets there are."
    )
    preset: str = Field(default="mini", min_length=1, description="The group of databases that is searched.")
    folder: Folder = Field(
        default=".snakefold/databases",
        min_length=1,
        description="Where downloaded databases are kept: a folder or an S3 prefix.",
    )
    cache: Folder = Field(
        default=".snakefold/databases",
        min_length=1,
        description="Where jobs find databases that are kept on S3: mounted there, or brought there by the first job.",
    )

    @field_validator("cache")
    @classmethod
    def _cache_is_local(cls, cache: str) -> str:
        if cache.startswith("s3:") or is_address(cache):
            raise ValueError("must be a folder of the machine that runs a job")
        return cache


class Search(Section):
    """How homologues are found: jackhmmer's parameters. The defaults are AlphaFold's."""

    iterations: int = Field(default=1, ge=1, le=10, description="Rounds of jackhmmer (-N).")
    evalue: float = Field(default=1e-4, gt=0, description="Largest E-value of a hit that is kept (-E).")
    inclusion_evalue: float = Field(
        default=1e-4, gt=0, description="Largest E-value of a hit that shapes the profile (--incE)."
    )
    f1: float = Field(default=5e-4, gt=0, le=1, description="P-value that passes the MSV filter (--F1).")
    f2: float = Field(default=5e-5, gt=0, le=1, description="P-value that passes the Viterbi filter (--F2).")
    f3: float = Field(default=5e-7, gt=0, le=1, description="P-value that passes the Forward filter (--F3).")
    max_sequences: int = Field(default=10_000, ge=1, description="Best hits kept for each chain and database.")


class Templates(Section):
    """Which hits may serve as structural templates."""

    max_template_date: datetime.date = Field(
        default=datetime.date(2026, 11, 1), description="Structures released after this day are not used."
    )
    max_hits: int = Field(
        default=20, ge=1, le=1000, description="Best hits kept for each chain, with their coordinates."
    )
    min_coverage: float = Field(default=0.1, ge=0, le=1, description="Least part of the chain that a hit must cover.")
    min_identity: float = Field(default=0.0, ge=0, le=1, description="Least identity of the aligned residues.")
    max_identity: float = Field(default=1.0, ge=0, le=1, description="Largest identity of the aligned residues.")
    exclude: _Texts = Field(default=(), description="Entries that are never used.")

    @model_validator(mode="after")
    def _identities_in_order(self) -> "Templates":
        if self.min_identity > self.max_identity:
            raise ValueError(f"min_identity ({self.min_identity}) exceeds max_identity ({self.max_identity})")
        return self


class Template(Section):
    """Parameters of the engine `template`."""

    keep_tails: bool = Field(
        default=False, description="Build ends that no template covers, however long; else only up to three residues."
    )


class EsmFold(Section):
    """Parameters of the engine `esmfold`."""

    recycles: int = Field(default=3, ge=0, le=20, description="Passes through the trunk after the first.")
    tokens: int = Field(
        default=1024, ge=1, description="Residues that go through the network at once, in several sequences if short."
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        default="tf32", description="Of matrix products in the trunk; docs/engines.md says what it changes."
    )


class OmegaFold(Section):
    """Parameters of the engine `omegafold`. The defaults are those of OmegaFold's own command line, but for memory."""

    model: Literal[1, 2] = Field(default=1, description="Which of the two published models.")
    cycles: int = Field(default=10, ge=1, le=100, description="Passes; the structure of the surest one is kept.")
    subbatch_size: int | None = Field(
        default=128,
        ge=1,
        description="Rows that attention works on at a time: less takes less memory and more time; null takes all.",
    )
    precision: Literal["fp32", "tf32"] = Field(default="tf32", description="Of matrix products.")


class RoseTTAFold(Section):
    """Parameters of the engine `rosettafold`. The defaults are those of RoseTTAFold2's own command line."""

    recycles: int = Field(default=3, ge=0, le=100, description="Passes after the first; the surest one is kept.")
    seeds: int = Field(default=1, ge=1, le=100, description="Predictions, from the target's seed on; the best is kept.")
    max_msa: int = Field(default=256, ge=1, description="Rows of the MSA that go through the main blocks, by chance.")
    max_extra_msa: int = Field(default=2048, ge=1, description="Rows of each MSA that are used at all, by chance.")
    pair: bool = Field(
        default=False, description="Put rows of one species (docs/engines.md) of different chains side by side."
    )
    neighbours: int = Field(
        default=1536,
        ge=-1,
        description="Nearest residues that each residue's structure update looks at; -1 takes all.",
    )


class Boltz(Section):
    """Parameters of the engine `boltz`. The defaults are those of Boltz's own command line."""

    recycles: int = Field(default=3, ge=0, le=20, description="Passes through the trunk after the first.")
    sampling_steps: int = Field(default=200, ge=2, le=1000, description="Steps of the diffusion that places the atoms.")
    diffusion_samples: int = Field(
        default=1, ge=1, le=100, description="Structures that are drawn; the one that Boltz ranks first is kept."
    )
    step_scale: float = Field(
        default=1.638, gt=0, le=5, description="Temperature of the drawing: lower gives more diverse samples."
    )
    max_msa_seqs: int = Field(default=8192, ge=1, le=16384, description="Rows of each MSA that are read at most.")


class Boltz2(Boltz):
    """Parameters of the engine `boltz2`. The defaults are those of Boltz's own command line."""

    step_scale: float = Field(
        default=1.5, gt=0, le=5, description="Temperature of the drawing: lower gives more diverse samples."
    )


def _one_number_or_several(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class AlphaFold2(Section):
    """Parameters of the engine `alphafold2`."""

    models: Annotated[
        tuple[Annotated[int, Field(ge=1, le=5)], ...],
        BeforeValidator(_one_number_or_several, json_schema_input_type=int | tuple[int, ...]),
    ] = Field(
        default=(1, 2, 3, 4, 5), min_length=1, description="Which of the five models predict; the best one is kept."
    )
    seeds: int = Field(default=1, ge=1, le=100, description="Predictions by each model, from the target's seed on.")
    recycles: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Passes after the first; default: 3 of one chain, at most 20 of several, until they change little.",
    )
    max_msa_clusters: int | None = Field(
        default=None,
        ge=1,
        description="Rows of the MSA that go through the trunk; default: 512 or, of several chains, 508.",
    )
    max_extra_msa: int | None = Field(
        default=None, ge=1, description="Further rows; default: 5,120 of one chain, 2,048 of several."
    )
    bucket: int = Field(
        default=64, ge=1, description="Lengths are padded to a multiple of it; one compilation serves each multiple."
    )
    templates: bool = Field(
        default=False, description="Search templates and give up to four to models 1 and 2, or to all of a complex."
    )
    kernels: Literal["fused", "plain"] = Field(
        default="fused", description="Attention and triangles of the package's fused kernels, where the GPU has them."
    )

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(models)) < len(models):
            raise ValueError("must name each model once")
        return models


class OpenFold(Section):
    """Parameters of the engine `openfold`. The defaults are those of OpenFold3's own command line."""

    recycles: int = Field(default=3, ge=0, le=20, description="Passes through the trunk after the first.")
    sampling_steps: int = Field(default=200, ge=2, le=1000, description="Steps of the diffusion that places the atoms.")
    diffusion_samples: int = Field(
        default=5, ge=1, le=100, description="Structures that are drawn; the one that OpenFold3 ranks first is kept."
    )
    max_msa_rows: int = Field(
        default=16384, ge=2, le=16384, description="Rows of the MSA that are read; each pass draws 1,024 of them."
    )


class Relax(Section):
    """The restrained minimisation. The defaults are AlphaFold's."""

    tolerance: float = Field(default=10.0, gt=0, description="Force (kJ/mol/nm) at which the minimiser stops.")
    stiffness: float = Field(
        default=10.0, ge=0, description="Stiffness of the restraints on heavy atoms (kcal/mol/A^2)."
    )
    max_iterations: int = Field(default=0, ge=0, description="Steps of the minimiser at most; 0 sets no limit.")
    max_rounds: int = Field(default=3, ge=1, description="Rounds at most, each freeing residues with violations.")
    platform: Literal["auto", "CPU", "CUDA", "OpenCL", "HIP", "Reference"] = Field(
        default="auto", description="What OpenMM computes on; auto takes CUDA where there is one, else the CPU."
    )


class Planning(Section):
    """How much work goes into one job."""

    minutes: float = Field(default=30.0, gt=0, description="Aim for one batch, in minutes of one core or one GPU.")
    max_members: int = Field(default=500, ge=1, description="Chains or targets of one batch at most.")
    gpu_memory_mb: int = Field(
        default=80_000,
        ge=0,
        description="Memory of the largest GPU there is, in MB; targets that need more are refused at the start.",
    )
    search_seconds: float = Field(
        default=20.0,
        gt=0,
        description="Seconds of one core to search all databases of the preset with 300 residues, once.",
    )


class Config(Section):
    """The configuration of a run. Paths are relative to the working directory."""

    samples: _Texts = Field(
        default=("config/samples.tsv",),
        min_length=1,
        description="The sample sheet, or a list of several.",
    )
    results: Folder = Field(default="results", min_length=1, description="Where predictions, summary and report go.")
    work: Folder = Field(default=".snakefold/work", min_length=1, description="Where receipts of batches go.")
    logs: Folder = Field(default=".snakefold/logs", min_length=1, description="Where the logs of jobs go.")
    benchmarks: Folder = Field(
        default=".snakefold/benchmarks", min_length=1, description="Where times and memory of jobs go."
    )
    store: Folder = Field(
        default=".snakefold/store",
        min_length=1,
        description="Where expensive results are kept: a folder or an S3 prefix.",
    )
    reuse: bool = Field(
        default=True, description="Take results from the store; false computes all afresh and stores anew."
    )
    retries: int | None = Field(
        default=None,
        ge=0,
        description="Further attempts of a failed job, each with more memory and time; default: 2 on AWS, else none.",
    )
    allow_failures: bool = Field(default=False, description="End well even if targets failed.")
    engines: _Texts = Field(
        default=("template",),
        min_length=1,
        description="The engines of targets that name none in the sheet.",
    )
    seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="The random seed of targets that name none in the sheet."
    )
    databases: Databases = Databases()
    search: Search = Search()
    templates: Templates = Templates()
    template: Template = Template()
    esmfold: EsmFold = EsmFold()
    omegafold: OmegaFold = OmegaFold()
    rosettafold: RoseTTAFold = RoseTTAFold()
    boltz: Boltz = Boltz()
    boltz2: Boltz2 = Boltz2()
    alphafold2: AlphaFold2 = AlphaFold2()
    openfold: OpenFold = OpenFold()
    relax: Relax = Relax()
    plan: Planning = Planning()

    @model_validator(mode="before")
    @classmethod
    def _empty_section_is_default(cls, data: Any) -> Any:
        # YAML reads a section as null when all of its keys are commented out.
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if value is not None or not _is_section(key)}

    def databases_of(self, preset: Preset) -> list[str]:
        """Names of the databases that the config's engines need: those of the preset that they read, and weights.

        Engines that a sheet names for its rows are not counted.
        """
        engines = engines_for(self)
        names: list[str] = []
        for engine in (engines[name] for name in self.engines):
            names += preset.msa if engine.needs_msa or engine.needs_templates else ()
            names += [preset.templates] if engine.needs_templates else []
            names += [] if engine.weights is None else [engine.weights]
        return list(dict.fromkeys(names))

    def parameters_of_engine(self, engine: str) -> dict[str, Any]:
        """The settings of one engine, in the section of its name, as plain JSON values; empty for one that has none."""
        section = getattr(self, engine, None)
        return section.parameters() if isinstance(section, Section) else {}


def load_config(mapping: Mapping[str, Any], *, engines: Mapping[str, Engine] = ENGINES) -> Config:
    """Check a configuration, such as Snakemake's `config`.

    Raises FaultsError with one line for each fault: `config: search.iterations: what is wrong; what to do`.
    """
    try:
        config = Config.model_validate(dict(mapping))
    except ValidationError as error:
        raise FaultsError(map(_line, error.errors())) from None
    unknown = [name for name in config.engines if name not in engines]
    if unknown:
        raise FaultsError(f"config: engines: {unknown_engine(name, engines)}" for name in unknown)
    return config


def unknown_engine(name: str, engines: Mapping[str, Engine]) -> str:
    """The fault of naming an engine that does not exist, and what to write instead."""
    return _unknown(f"there is no engine {name!r}", name, engines)


def write_schema(path: Path) -> None:
    """Write the JSON schema (draft 2020-12) of the configuration, for editors that check YAML while one types."""
    write_json(path, schema())


def schema() -> dict[str, Any]:
    """The JSON schema of the configuration."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(mode="validation"),
        "title": "snakefold configuration",
    }


def _is_section(key: str) -> bool:
    field = Config.model_fields.get(key)
    return field is not None and isinstance(field.default, Section)


def _line(error: ErrorDetails) -> str:
    """One fault as one line."""
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in error["loc"])
    section = _section_at(error["loc"][:-1])
    start = f"config: {place}: " if place else "config: "
    if error["type"] == "extra_forbidden":
        return _unknown(f"{start}there is no such key", str(error["loc"][-1]), section.model_fields)
    what = _WORDS.get(error["type"], _pydantic_words)(error)
    field = section.model_fields.get(str(error["loc"][-1])) if error["loc"] else None
    if field is None or isinstance(field.default, Section):
        return f"{start}{what}; see config/README.md"
    default = json.dumps(section().parameters()[str(error["loc"][-1])])
    found = json.dumps(error["input"], default=str)
    return f"{start}{what}, but is {_short(found)}; correct it or take the key out (default: {default})"


def _section_at(location: tuple[int | str, ...]) -> type[Section]:
    section: type[Section] = Config
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None or not isinstance(field.default, Section):
            break
        section = type(field.default)
    return section


def _unknown(start: str, name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{start}; " + (f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}")


def _pydantic_words(error: ErrorDetails) -> str:
    return error["msg"][:1].lower() + error["msg"][1:]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _must_be(what: str) -> Callable[[ErrorDetails], str]:
    def words(error: ErrorDetails) -> str:
        limits = {name: _plain(value) for name, value in error.get("ctx", {}).items()}
        return f"must be {what.format(**limits)}"

    return words


def _plain(value: Any) -> Any:
    """Limits of numbers come as 0.0 even where one would write 0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WORDS: Mapping[str, Callable[[ErrorDetails], str]] = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), _must_be("a whole number")),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), _must_be("a number")),
    **dict.fromkeys(("bool_parsing", "bool_type"), _must_be("true or false")),
    **dict.fromkeys(
        ("date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact"),
        _must_be("a date such as 2026-11-01"),
    ),
    **dict.fromkeys(("tuple_type", "list_type"), _must_be("a list of texts")),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _must_be("a section with keys of its own")),
    "string_type": _must_be("text"),
    "string_too_short": _must_be("text that is not empty"),
    "too_short": _must_be("a list that is not empty"),
    "greater_than": _must_be("greater than {gt}"),
    "greater_than_equal": _must_be("at least {ge}"),
    "less_than": _must_be("less than {lt}"),
    "less_than_equal": _must_be("at most {le}"),
    "literal_error": _must_be("one of {expected}"),
    "value_error": lambda error: str(error.get("ctx", {}).get("error", error["msg"])),
}
