rule fold:
    """Fold every member of one batch with one engine, in warm processes."""
    input:
        msas=FOLDING.msas_of_fold,
        templates=FOLDING.templates_of_fold,
        given=FOLDING.given_templates,
        weights=FOLDING.weights_of_fold,
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
        gpu_mem_mb=FOLDING.fold_gpu_memory_mb,
        batch_image=FOLDING.fold_image,
        mem_mb=FOLDING.fold_memory_mb,
        runtime=FOLDING.fold_minutes,
        attempts_left=FOLDING.attempts_left,
    shell:
        "python -m snakefold fold {wildcards.engine} {wildcards.batch} --threads {threads}"
        " --attempts-left {resources.attempts_left} --minutes {resources.runtime}"
        " --msas {input.msas:q} --templates {input.templates:q} --given {input.given:q}"
        " --weights {input.weights:q}"
        " --receipt {output.receipt:q} --log {log:q}"
