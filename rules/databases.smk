rule download_database:
    """Fetch, verify and unpack one database; the manifest says what lies on disk."""
    output:
        manifest="<manifests>/{database}/manifest.json",
    log:
        "<logs>/download_database/{database}.log",
    benchmark:
        "<benchmarks>/download_database/{database}.jsonl"
    retries: 2
    conda:
        "../envs/snakefold.yaml"
    threads: 2
    resources:
        mem_mb=2000,
        runtime=FOLDING.download_minutes,
    params:
        pin=FOLDING.pin,
    shell:
        "python -m snakefold databases download {wildcards.database}"
        " --manifest {output.manifest:q} --log {log:q}"
