"""Models before and after fine-tuning, and what they recall."""


rule pretrain:
    input:
        facts=FACTS,
    output:
        model=directory(BASE),
        history=f"{BASE}.history.parquet",
    log:
        f"{RESULTS}/logs/pretrain/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/pretrain/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(SCRATCH),
    conda:
        ENVIRONMENT
    threads: STUDY.compute.pretrain_threads or STUDY.compute.threads
    resources:
        **needs("pretrain"),
        gpu=gpu,
    params:
        stage=lambda wildcards: parameters("pretrain", model=wildcards.model),
        state=f"{RESULTS}/state",
    shell:
        'python -m factrecall pretrain --study "$FACTRECALL_STUDY" --model {wildcards.model:q}'
        " --facts {input.facts:q} --out {output.model:q} --history {output.history:q}"
        " --state {params.state:q} 2>&1 | tee {log:q}"


rule fetch_model:
    output:
        model=directory(BASE),
    log:
        f"{RESULTS}/logs/fetch_model/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch_model/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(FETCHED),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        stage=lambda wildcards: parameters("fetch-model", model=wildcards.model),
    shell:
        'python -m factrecall fetch-model --study "$FACTRECALL_STUDY" --model {wildcards.model:q}'
        " --locks envs/models --out {output.model:q} 2>&1 | tee {log:q}"


rule fine_tune:
    input:
        facts=FACTS,
        start=start,
    output:
        model=directory(TUNED),
        history=f"{TUNED}.history.parquet",
        trace=TRACE,
        snapshots=SNAPSHOTS,
    log:
        f"{RESULTS}/logs/fine_tune/{{model}}/{{tuning}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fine_tune/{{model}}/{{tuning}}-seed{{seed}}.tsv"
    wildcard_constraints:
        tuning="bio|stage|mix",
    conda:
        ENVIRONMENT
    # Processes that share a fine-tuning share its threads, too.
    threads: max(STUDY.compute.threads, STUDY.training.mode.gpus)
    resources:
        **needs("fine-tune"),
        gpu=gpus,
    params:
        stage=lambda wildcards: parameters(
            "fine-tune", model=wildcards.model, tuning=wildcards.tuning
        ),
        state=f"{RESULTS}/state",
    shell:
        'python -m factrecall fine-tune --study "$FACTRECALL_STUDY" --model {wildcards.model:q}'
        " --tuning {wildcards.tuning:q} --seed {wildcards.seed:q}"
        " --facts {input.facts:q} --start {input.start:q}"
        " --out {output.model:q} --history {output.history:q} --trace {output.trace:q}"
        " --snapshots {output.snapshots:q} --state {params.state:q} 2>&1 | tee {log:q}"


rule recall:
    input:
        model=TUNED,
        bio=f"{RESULTS}/facts/bio.parquet",
        qa=f"{RESULTS}/facts/qa.parquet",
    output:
        f"{TUNED}.recall.parquet",
    log:
        f"{RESULTS}/logs/recall/{{model}}/{{tuning}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/recall/{{model}}/{{tuning}}-seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: STUDY.compute.threads
    resources:
        **needs("recall"),
        gpu=gpu,
    params:
        stage=parameters("recall"),
    shell:
        'python -m factrecall recall --study "$FACTRECALL_STUDY" --folder {input.model:q}'
        " --bio {input.bio:q} --qa {input.qa:q} --out {output:q} 2>&1 | tee {log:q}"


rule summarise_recall:
    input:
        tables=each(EVALUATIONS, f"{TUNED}.recall.parquet"),
        qa=f"{RESULTS}/facts/qa.parquet",
    output:
        f"{RESULTS}/tables/recall.parquet",
    log:
        f"{RESULTS}/logs/summarise_recall.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarise_recall.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        stage=parameters("summarise-recall"),
        evaluations=lambda wildcards, input: options(
            "--evaluation", EVALUATIONS, input.tables
        ),
    shell:
        'python -m factrecall summarise-recall --study "$FACTRECALL_STUDY" {params.evaluations}'
        " --qa {input.qa:q} --out {output:q} 2>&1 | tee {log:q}"
