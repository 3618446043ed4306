rule search_msa:
    """Find homologues of every chain of one batch; each database is read once for all of them."""
    input:
        databases=FOLDING.sequence_databases,
        given=FOLDING.given_msas,
    output:
        receipt="<work>/search_msa/{preset}/{batch}.json",
    log:
        "<logs>/search_msa/{preset}/{batch}.log",
    benchmark:
        "<benchmarks>/search_msa/{preset}/{batch}.jsonl"
    retries: FOLDING.retries_of_rule
    conda:
        "../envs/snakefold.yaml"
    threads: 8
    resources:
        mem_mb=FOLDING.search_memory_mb,
        runtime=FOLDING.search_minutes,
    shell:
        "python -m snakefold search-msa {wildcards.batch} --threads {threads}"
        " --databases {input.databases:q} --given {input.given:q} --receipt {output.receipt:q} --log {log:q}"


rule search_templates:
    """Find structural templates of every chain of one batch, none released after the cut-off date."""
    input:
        database=FOLDING.template_database,
        msas=FOLDING.msas_of_template_search,
    output:
        receipt="<work>/search_templates/{preset}/{batch}.json",
    log:
        "<logs>/search_templates/{preset}/{batch}.log",
    benchmark:
        "<benchmarks>/search_templates/{preset}/{batch}.jsonl"
    retries: FOLDING.retries_of_rule
    conda:
        "../envs/snakefold.yaml"
    threads: 4
    resources:
        mem_mb=FOLDING.template_search_memory_mb,
        runtime=FOLDING.template_search_minutes,
    shell:
        "python -m snakefold search-templates {wildcards.batch} --threads {threads}"
        " --database {input.database:q} --msas {input.msas:q}"
        " --receipt {output.receipt:q} --log {log:q}"
