"""The invented people, their biographies and their questions."""


rule make_facts:
    output:
        individuals=f"{RESULTS}/facts/individuals.parquet",
        bio=f"{RESULTS}/facts/bio.parquet",
        qa=f"{RESULTS}/facts/qa.parquet",
    log:
        f"{RESULTS}/logs/make_facts.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_facts.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        stage=parameters("make-facts"),
        own=OWN_FILES,
    shell:
        'python -m factrecall make-facts --study "$FACTRECALL_STUDY"'
        " --individuals {output.individuals:q} --bio {output.bio:q} --qa {output.qa:q}"
        " 2>&1 | tee {log:q}"
