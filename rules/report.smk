rule score:
    """Write the folder of one prediction: status, structures, confidence and scores."""
    input:
        unpack(FOLDING.inputs_of_score),
    output:
        folder=directory("<results>/{target}/{engine}"),
    log:
        "<logs>/score/{engine}/{target}.log",
    benchmark:
        "<benchmarks>/score/{engine}/{target}.jsonl"
    conda:
        "../envs/snakefold.yaml"
    resources:
        mem_mb=1500,
        runtime=10,
    shell:
        "python -m snakefold score {wildcards.engine} {wildcards.target}"
        " --models {input.models:q} --relaxed {input.relaxed:q}"
        " --folder {output.folder:q} --log {log:q}"


rule summarize:
    """Gather all predictions in one table."""
    input:
        folders=FOLDING.predictions,
    output:
        table="<results>/summary.tsv",
    log:
        "<logs>/summarize.log",
    benchmark:
        "<benchmarks>/summarize.jsonl"
    conda:
        "../envs/snakefold.yaml"
    resources:
        mem_mb=1000,
        runtime=20,
    shell:
        "python -m snakefold summarize --table {output.table:q} --log {log:q}"


rule report:
    """Write the pages that people look at."""
    input:
        folders=FOLDING.predictions,
        receipts=FOLDING.receipts,
    output:
        folder=directory("<results>/report"),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.jsonl"
    conda:
        "../envs/snakefold.yaml"
    resources:
        mem_mb=1000,
        runtime=20,
    shell:
        "python -m snakefold report --folder {output.folder:q} --log {log:q}"


rule conclude:
    """State how the run ended; fail, naming them, if any target failed."""
    input:
        receipts=FOLDING.receipts,
        table="<results>/summary.tsv",
        report="<results>/report",
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
        "python -m snakefold conclude --table {input.table:q}"
        " --outcome {output.outcome:q} --log {log:q}"
