"""What the rules of all stages share: the rest of a rule says `use rule stage as ... with`."""


# It makes nothing itself.
rule stage:
    log:
        f"{LOGS}/stage.log",
    conda:
        str(Path(workflow.basedir) / "envs/environment.yaml")
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        command="--help",
    shell:
        'python -m factrecall {params.command} --study "$FACTRECALL_STUDY" 2>&1 | tee {log:q}'


use rule stage as model_stage with:
    threads: STUDY.compute.threads
