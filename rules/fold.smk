rule fold:
    """Fold every member of one batch with one engine, in warm processes."""
    input:
        msas=FOLDING.msas_of_fold,
        templates=FOLDING.templates_of_fold,
        given=FOLDING.given_templates,
    output:
        receipt="<work>/fold/{engine}/{batch}.json",
    log:
        "<logs>/fold/{engine}/{batch}.log",
    benchmark:
        "<benchmarks>/fold/{engine}/{batch}.jsonl"
    retries: FOLDING.retries_of_rule
    conda:
        "../envs/snakefold.yaml"
    threads: FOLDING.fold_threads
    resources:
        gpu=FOLDING.fold_gpus,
        mem_mb=FOLDING.fold_memory_mb,
        runtime=FOLDING.fold_minutes,
        attempts_left=FOLDING.attempts_left,
    shell:
        "python -m snakefold fold {wildcards.engine} {wildcards.batch} --threads {threads}"
        " --attempts-left {resources.attempts_left} --minutes {resources.runtime}"
        " --msas {input.msas:q} --templates {input.templates:q} --given {input.given:q}"
        " --receipt {output.receipt:q} --log {log:q}"
