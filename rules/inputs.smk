rule take_inputs:
    """Put the files that the sheet names for one batch into the store: from there they reach any worker."""
    input:
        files=FOLDING.given_files,
    output:
        digests="<work>/inputs/{step}/{owner}/{batch}.json",
    log:
        "<logs>/take_inputs/{step}/{owner}/{batch}.log",
    localrule: True
    conda:
        "../envs/snakefold.yaml"
    resources:
        mem_mb=500,
        runtime=30,
    shell:
        "python -m snakefold take-inputs {wildcards.step} {wildcards.owner} {wildcards.batch}"
        " --digests {output.digests:q} --log {log:q}"
