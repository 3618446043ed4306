"""snakefold: protein structures in bulk, from a sample sheet to relaxed models and a report."""

from snakemake.utils import min_version

min_version("9.13")


configfile: "config/config.yaml"


include: "rules/common.smk"


pathvars:
    results=FOLDING.config.results,
    work=FOLDING.config.work,
    logs=FOLDING.config.logs,
    benchmarks=FOLDING.config.benchmarks,
    manifests=FOLDING.manifests,
    timings=FOLDING.timings,


wildcard_constraints:
    database=r"[a-z0-9_]+",
    preset=r"[a-z0-9_]+",
    step=r"search_msa|fold|score",
    owner=r"[a-z0-9_]+",
    engine=r"[a-z0-9]+",
    engines=r"[a-z0-9]+(-[a-z0-9]+)+",
    batch=r"[0-9a-f]{12}",
    target=r"[A-Za-z0-9][A-Za-z0-9._-]*",


include: "rules/inputs.smk"
include: "rules/databases.smk"
include: "rules/search.smk"
include: "rules/fold.smk"
include: "rules/relax.smk"
include: "rules/report.smk"


onstart:
    FOLDING.check_files()


rule all:
    input:
        FOLDING.predictions,
        FOLDING.comparisons,
        # Their names say what they were made from: a folder of another plan is not taken for one of this.
        FOLDING.receipts,
        "<timings>",
        "<results>/summary.tsv",
        "<results>/report/index.html",
        "<results>/outcome.json",
