rule score:
    """Write the folder of one prediction: status, structures, confidence and scores."""
    input:
        unpack(FOLDING.inputs_of_score),
    output:
        folder=report(
            directory("<results>/{target}/{engine}"),
            patterns=["model.{format}"],
            category="Models",
            labels={"target": "{target}", "engine": "{engine}", "format": "{format}"},
            caption="captions/model.rst",
        ),
    log:
        "<logs>/score/{engine}/{target}.log",
    benchmark:
        "<benchmarks>/score/{engine}/{target}.jsonl"
    retries: FOLDING.retries_of_rule
    conda:
        "../envs/snakefold.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "python -m snakefold score {wildcards.engine} {wildcards.target}"
        " --models {input.models:q} --relaxed {input.relaxed:q} --given {input.given:q}"
        " --folder {output.folder:q} --log {log:q}"


rule compare_engines:
    """Tell how far the engines of its name agree that predicted one target."""
    input:
        folders=FOLDING.predictions_compared,
    output:
        comparison="<results>/{target}/comparison.{engines}.json",
    log:
        "<logs>/compare_engines/{engines}/{target}.log",
    benchmark:
        "<benchmarks>/compare_engines/{engines}/{target}.jsonl"
    retries: FOLDING.retries_of_rule
    conda:
        "../envs/snakefold.yaml"
    resources:
        mem_mb=1000,
        runtime=FOLDING.compare_minutes,
    shell:
        "python -m snakefold compare-engines {input.folders:q} --comparison {output.comparison:q} --log {log:q}"


rule summarize:
    """Gather all predictions in one table, and the seconds that they took."""
    input:
        folders=FOLDING.predictions,
        comparisons=FOLDING.comparisons,
        receipts=FOLDING.receipts,
    output:
        table=report(
            "<results>/summary.tsv",
            category="Predictions",
            labels={"what": "table"},
            caption="captions/summary.rst",
        ),
        timings="<timings>",
    log:
        "<logs>/summarize.log",
    benchmark:
        "<benchmarks>/summarize.jsonl"
    retries: FOLDING.retries_of_rule
    conda:
        "../envs/snakefold.yaml"
    resources:
        mem_mb=1000,
        runtime=20,
    shell:
        "python -m snakefold summarize --table {output.table:q} --timings {output.timings:q} --log {log:q}"


rule report:
    """Write the pages that people look at."""
    input:
        folders=FOLDING.predictions,
        comparisons=FOLDING.comparisons,
        receipts=FOLDING.receipts,
        timings="<timings>",
    output:
        page="<results>/report/index.html",
        single=report(
            "<results>/report/single.html",
            category="Predictions",
            labels={"what": "page"},
            caption="captions/page.rst",
        ),
        assets=directory("<results>/report/assets"),
        data=directory("<results>/report/data"),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.jsonl"
    retries: FOLDING.retries_of_rule
    conda:
        "../envs/snakefold.yaml"
    resources:
        mem_mb=1000,
        runtime=20,
    shell:
        "python -m snakefold report --page {output.page:q} --timings {input.timings:q} --log {log:q}"


rule conclude:
    """State how the run ended; fail, naming them, if any target failed."""
    input:
        table="<results>/summary.tsv",
        timings="<timings>",
        page="<results>/report/index.html",
    output:
        outcome="<results>/outcome.json",
    log:
        "<logs>/conclude.log",
    localrule: True
    conda:
        "../envs/snakefold.yaml"
    resources:
        mem_mb=500,
        runtime=10,
    shell:
        "python -m snakefold conclude --table {input.table:q} --timings {input.timings:q}"
        " --outcome {output.outcome:q} --log {log:q}"
