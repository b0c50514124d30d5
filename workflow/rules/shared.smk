"""Shared parameters: which they are, what happens without them, how few carry recall."""


rule select_shared:
    input:
        traces=traces_of_history,
    output:
        sets=f"{SHARED}.sets.safetensors",
        curve=f"{SHARED}.curve.parquet",
        places=f"{SHARED}.places.parquet",
    log:
        f"{RESULTS}/logs/select_shared/{{model}}/{{tuning}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/select_shared/{{model}}/{{tuning}}-seed{{seed}}.tsv"
    wildcard_constraints:
        tuning="stage|mix",
    conda:
        ENVIRONMENT
    resources:
        **needs("select-shared"),
    params:
        stage=parameters("select-shared"),
    shell:
        'python -m factrecall select-shared --study "$FACTRECALL_STUDY"'
        " --traces {input.traces:q} --out {output.sets:q} --curve {output.curve:q}"
        " --places {output.places:q} 2>&1 | tee {log:q}"


rule summarise_shared:
    input:
        curves=each(HISTORIES, f"{SHARED}.curve.parquet"),
        places=each(HISTORIES, f"{SHARED}.places.parquet"),
    output:
        table=f"{RESULTS}/tables/shared.parquet",
        places=f"{RESULTS}/tables/shared_places.parquet",
    log:
        f"{RESULTS}/logs/summarise_shared.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarise_shared.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        stage=parameters("summarise-shared"),
        selections=lambda wildcards, input: options(
            "--selection", HISTORIES, input.curves, input.places
        ),
    shell:
        'python -m factrecall summarise-shared --study "$FACTRECALL_STUDY" {params.selections}'
        " --out {output.table:q} --places {output.places:q} 2>&1 | tee {log:q}"


rule ablate:
    input:
        base=BASE,
        tuned=TUNED,
        sets=f"{SHARED}.sets.safetensors",
        bio=f"{RESULTS}/facts/bio.parquet",
        qa=f"{RESULTS}/facts/qa.parquet",
    output:
        f"{RESULTS}/ablation/{{model}}/{{tuning}}/seed{{seed}}.parquet",
    log:
        f"{RESULTS}/logs/ablate/{{model}}/{{tuning}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/ablate/{{model}}/{{tuning}}-seed{{seed}}.tsv"
    wildcard_constraints:
        tuning="stage|mix",
    conda:
        ENVIRONMENT
    threads: STUDY.compute.threads
    resources:
        **needs("ablate"),
        gpu=gpu,
    params:
        stage=parameters("ablate"),
    shell:
        'python -m factrecall ablate --study "$FACTRECALL_STUDY" --base {input.base:q}'
        " --tuned {input.tuned:q} --seed {wildcards.seed:q} --sets {input.sets:q}"
        " --bio {input.bio:q} --qa {input.qa:q} --out {output:q} 2>&1 | tee {log:q}"


rule summarise_ablation:
    input:
        tables=each(HISTORIES, rules.ablate.output[0]),
    output:
        table=f"{RESULTS}/tables/ablation.parquet",
        intervals=f"{RESULTS}/tables/ablation_intervals.parquet",
    log:
        f"{RESULTS}/logs/summarise_ablation.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarise_ablation.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        stage=parameters("summarise-ablation"),
        evaluations=lambda wildcards, input: options(
            "--evaluation", HISTORIES, input.tables
        ),
    shell:
        'python -m factrecall summarise-ablation --study "$FACTRECALL_STUDY" {params.evaluations}'
        " --out {output.table:q} --intervals {output.intervals:q} 2>&1 | tee {log:q}"


rule graft:
    input:
        base=BASE,
        tuned=TUNED,
        qa=f"{RESULTS}/facts/qa.parquet",
    output:
        masks=f"{GRAFTED}.masks.safetensors",
        table=f"{GRAFTED}.parquet",
        examples=f"{GRAFTED}.examples.parquet",
        checks=f"{GRAFTED}.checks.parquet",
    log:
        f"{RESULTS}/logs/graft/{{model}}/{{tuning}}-seed{{seed}}-{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/graft/{{model}}/{{tuning}}-seed{{seed}}-{{split}}.tsv"
    wildcard_constraints:
        tuning="stage|mix",
        split="in|out",
    conda:
        ENVIRONMENT
    threads: STUDY.compute.threads
    resources:
        **needs("graft"),
        gpu=gpu,
    params:
        stage=lambda wildcards: parameters("graft", seed=wildcards.seed),
        state=f"{RESULTS}/state",
    shell:
        'python -m factrecall graft --study "$FACTRECALL_STUDY" --base {input.base:q}'
        " --tuned {input.tuned:q} --seed {wildcards.seed:q} --split {wildcards.split:q}"
        " --qa {input.qa:q} --out {output.masks:q} --table {output.table:q}"
        " --examples {output.examples:q} --checks {output.checks:q} --state {params.state:q}"
        " 2>&1 | tee {log:q}"


rule graft_without_shared:
    input:
        base=BASE,
        tuned=TUNED,
        sets=f"{SHARED}.sets.safetensors",
        qa=f"{RESULTS}/facts/qa.parquet",
    output:
        masks=f"{GRAFTED}.without.masks.safetensors",
        table=f"{GRAFTED}.without.parquet",
        examples=f"{GRAFTED}.without.examples.parquet",
        shares=f"{GRAFTED}.without.shares.parquet",
    log:
        f"{RESULTS}/logs/graft_without_shared/{{model}}/{{tuning}}-seed{{seed}}-{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/graft_without_shared/{{model}}/{{tuning}}-seed{{seed}}-{{split}}.tsv"
    wildcard_constraints:
        tuning="stage|mix",
        split="in|out",
    conda:
        ENVIRONMENT
    threads: STUDY.compute.threads
    resources:
        **needs("graft-without-shared"),
        gpu=gpu,
    params:
        stage=parameters("graft-without-shared"),
        state=f"{RESULTS}/state",
    shell:
        'python -m factrecall graft-without-shared --study "$FACTRECALL_STUDY"'
        " --base {input.base:q} --tuned {input.tuned:q} --seed {wildcards.seed:q}"
        " --split {wildcards.split:q} --sets {input.sets:q} --qa {input.qa:q}"
        " --out {output.masks:q} --table {output.table:q} --examples {output.examples:q}"
        " --shares {output.shares:q} --state {params.state:q} 2>&1 | tee {log:q}"


rule summarise_grafting:
    input:
        tables=each(GRAFTS, rules.graft.output.table),
        checks=each(GRAFTS, rules.graft.output.checks),
        masks=each(GRAFTS, rules.graft.output.masks),
        without=each(GRAFTS, rules.graft_without_shared.output.table),
        shares=each(GRAFTS, rules.graft_without_shared.output.shares),
        sets=each(GRAFTS, f"{SHARED}.sets.safetensors"),
    output:
        table=f"{RESULTS}/tables/grafting.parquet",
        checks=f"{RESULTS}/tables/grafting_checks.parquet",
    log:
        f"{RESULTS}/logs/summarise_grafting.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarise_grafting.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        stage=parameters("summarise-grafting"),
        grafts=lambda wildcards, input: options(
            "--graft",
            GRAFTS,
            input.tables,
            input.checks,
            input.masks,
            input.without,
            input.shares,
            input.sets,
        ),
    shell:
        'python -m factrecall summarise-grafting --study "$FACTRECALL_STUDY" {params.grafts}'
        " --out {output.table:q} --checks {output.checks:q} 2>&1 | tee {log:q}"
