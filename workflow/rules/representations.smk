"""Representations: probes, consistency of gradients, and what a fact is read from."""


rule represent:
    input:
        tuned=TUNED,
        bio=f"{RESULTS}/facts/bio.parquet",
        qa=f"{RESULTS}/facts/qa.parquet",
    output:
        states=f"{REPRESENTED}.states.safetensors",
        signature=f"{REPRESENTED}.signature.parquet",
        patching=f"{REPRESENTED}.patching.parquet",
    log:
        f"{RESULTS}/logs/represent/{{model}}/{{tuning}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/represent/{{model}}/{{tuning}}-seed{{seed}}.tsv"
    wildcard_constraints:
        tuning="stage|mix",
    conda:
        ENVIRONMENT
    threads: STUDY.compute.threads
    resources:
        **needs("represent"),
        gpu=gpu,
    params:
        stage=parameters("represent"),
    shell:
        'python -m factrecall represent --study "$FACTRECALL_STUDY" --tuned {input.tuned:q}'
        " --bio {input.bio:q} --qa {input.qa:q} --out {output.states:q}"
        " --signature {output.signature:q} --patching {output.patching:q}"
        " 2>&1 | tee {log:q}"


rule probe:
    input:
        f"{REPRESENTED}.states.safetensors",
    output:
        probes=f"{REPRESENTED}.probes.parquet",
        fits=f"{REPRESENTED}.fits.parquet",
    log:
        f"{RESULTS}/logs/probe/{{model}}/{{tuning}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/probe/{{model}}/{{tuning}}-seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: STUDY.compute.threads
    resources:
        **needs("probe"),
        gpu=gpu,
    params:
        stage=parameters("probe"),
    shell:
        'python -m factrecall probe --study "$FACTRECALL_STUDY" --states {input:q}'
        " --out {output.probes:q} --fits {output.fits:q} 2>&1 | tee {log:q}"


rule compare_gradients:
    input:
        moments=moments_of_history,
        sets=f"{SHARED}.sets.safetensors",
        masks=f"{GRAFTED_OUT}.masks.safetensors",
        outcomes=f"{GRAFTED_OUT}.parquet",
        facts=FACTS,
    output:
        f"{REPRESENTED}.gradients.parquet",
    log:
        f"{RESULTS}/logs/compare_gradients/{{model}}/{{tuning}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare_gradients/{{model}}/{{tuning}}-seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: STUDY.compute.threads
    resources:
        **needs("compare-gradients"),
        gpu=gpu,
    params:
        stage=parameters("compare-gradients"),
        moments=lambda wildcards, input: options(
            "--moment", phases_of_history(wildcards), input.moments
        ),
    shell:
        'python -m factrecall compare-gradients --study "$FACTRECALL_STUDY"'
        " {params.moments} --sets {input.sets:q} --masks {input.masks:q}"
        " --outcomes {input.outcomes:q} --facts {input.facts:q} --out {output:q}"
        " 2>&1 | tee {log:q}"


rule summarise_representations:
    input:
        probes=each(HISTORIES, rules.probe.output.probes),
        fits=each(HISTORIES, rules.probe.output.fits),
        gradients=each(HISTORIES, rules.compare_gradients.output[0]),
        signatures=each(HISTORIES, rules.represent.output.signature),
        patchings=each(HISTORIES, rules.represent.output.patching),
    output:
        probes=f"{RESULTS}/tables/probes.parquet",
        consistency=f"{RESULTS}/tables/consistency.parquet",
        gradients=f"{RESULTS}/tables/gradients.parquet",
        signature=f"{RESULTS}/tables/signature.parquet",
        patching=f"{RESULTS}/tables/patching.parquet",
    log:
        f"{RESULTS}/logs/summarise_representations.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarise_representations.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        stage=parameters("summarise-representations"),
        runs=lambda wildcards, input: options(
            "--represented",
            HISTORIES,
            input.probes,
            input.fits,
            input.gradients,
            input.signatures,
            input.patchings,
        ),
    shell:
        'python -m factrecall summarise-representations --study "$FACTRECALL_STUDY" {params.runs}'
        " --probes {output.probes:q} --consistency {output.consistency:q}"
        " --gradients {output.gradients:q} --signature {output.signature:q}"
        " --patching {output.patching:q} 2>&1 | tee {log:q}"
