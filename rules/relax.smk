rule relax:
    """Relax every model of one batch with OpenMM: several at once, one thread each."""
    input:
        models=FOLDING.models_of_relaxation,
    output:
        receipt="<work>/relax/{engine}/{batch}.json",
    log:
        "<logs>/relax/{engine}/{batch}.log",
    benchmark:
        "<benchmarks>/relax/{engine}/{batch}.jsonl"
    retries: FOLDING.retries_of_rule
    conda:
        "../envs/snakefold.yaml"
    threads: FOLDING.relax_threads
    resources:
        mem_mb=FOLDING.relax_memory_mb,
        runtime=FOLDING.relax_minutes,
        attempts_left=FOLDING.attempts_left,
    shell:
        "python -m snakefold relax {wildcards.engine} {wildcards.batch} --threads {threads}"
        " --attempts-left {resources.attempts_left} --minutes {resources.runtime}"
        " --models {input.models:q} --receipt {output.receipt:q} --log {log:q}"
