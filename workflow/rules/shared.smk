"""Shared parameters: which they are, recall without them, and how few parameters carry recall."""


use rule stage as select_shared with:
    input:
        traces=lambda wildcards: [
            TRACE.replace("{tuning}", phase) for phase in PHASES[wildcards.tuning]
        ],
    output:
        out=SETS,
        overlap_curve=f"{SHARED}.overlap_curve.parquet",
        locations=f"{SHARED}.locations.parquet",
    log:
        f"{LOGS}/select_shared/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/select_shared/{RUN}.tsv"
    wildcard_constraints:
        tuning="stage|mix",
    resources:
        **needs("select-shared"),
    params:
        **job("select-shared"),


use rule stage as summarise_shared with:
    input:
        overlap_curve=each(HISTORIES, rules.select_shared.output.overlap_curve),
        locations=each(HISTORIES, rules.select_shared.output.locations),
    output:
        out=f"{TABLES}/shared.parquet",
        locations=f"{TABLES}/shared_locations.parquet",
    log:
        f"{LOGS}/summarise_shared.log",
    benchmark:
        f"{BENCHMARKS}/summarise_shared.tsv"
    params:
        **job("summarise-shared", selections=HISTORIES),


use rule model_stage as ablate with:
    input:
        base=BASE,
        tuned=TUNED,
        sets=SETS,
        bio=BIO,
        qa=QA,
    output:
        out=f"{RESULTS}/ablation/{{model}}/{{tuning}}/seed{{seed}}.parquet",
    log:
        f"{LOGS}/ablate/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/ablate/{RUN}.tsv"
    resources:
        **needs("ablate"),
    params:
        **job("ablate"),


use rule stage as summarise_ablation with:
    input:
        table=each(HISTORIES, rules.ablate.output.out),
    output:
        out=f"{TABLES}/ablation.parquet",
        intervals=f"{TABLES}/ablation_intervals.parquet",
    log:
        f"{LOGS}/summarise_ablation.log",
    benchmark:
        f"{BENCHMARKS}/summarise_ablation.tsv"
    params:
        **job("summarise-ablation", evaluations=HISTORIES),


use rule ablate as ablate_layers with:
    output:
        out=f"{RESULTS}/layer_ablation/{{model}}/{{tuning}}/seed{{seed}}.parquet",
    log:
        f"{LOGS}/ablate_layers/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/ablate_layers/{RUN}.tsv"
    resources:
        **needs("ablate-layers"),
    params:
        **job("ablate-layers"),


use rule stage as summarise_layer_ablation with:
    input:
        table=each(HISTORIES, rules.ablate_layers.output.out),
    output:
        out=f"{TABLES}/layer_ablation.parquet",
    log:
        f"{LOGS}/summarise_layer_ablation.log",
    benchmark:
        f"{BENCHMARKS}/summarise_layer_ablation.tsv"
    params:
        **job("summarise-layer-ablation", evaluations=HISTORIES),


use rule model_stage as graft with:
    input:
        base=BASE,
        tuned=TUNED,
        qa=QA,
    output:
        out=f"{GRAFTED}.masks.safetensors",
        table=f"{GRAFTED}.parquet",
        examples=f"{GRAFTED}.examples.parquet",
        checks=f"{GRAFTED}.checks.parquet",
    log:
        f"{LOGS}/graft/{RUN}-{{split}}.log",
    benchmark:
        f"{BENCHMARKS}/graft/{RUN}-{{split}}.tsv"
    wildcard_constraints:
        tuning="stage|mix",
        split="in|out",
    resources:
        **needs("graft"),
    params:
        **job("graft"),


use rule graft as graft_without_shared with:
    input:
        base=BASE,
        tuned=TUNED,
        sets=SETS,
        qa=QA,
    output:
        out=f"{GRAFTED}.without.masks.safetensors",
        table=f"{GRAFTED}.without.parquet",
        examples=f"{GRAFTED}.without.examples.parquet",
        shares=f"{GRAFTED}.without.shares.parquet",
    log:
        f"{LOGS}/graft_without_shared/{RUN}-{{split}}.log",
    benchmark:
        f"{BENCHMARKS}/graft_without_shared/{RUN}-{{split}}.tsv"
    resources:
        **needs("graft-without-shared"),
    params:
        **job("graft-without-shared"),


use rule stage as summarise_grafting with:
    input:
        table=each(GRAFTS, rules.graft.output.table),
        checks=each(GRAFTS, rules.graft.output.checks),
        masks=each(GRAFTS, rules.graft.output.out),
        without=each(GRAFTS, rules.graft_without_shared.output.table),
        shares=each(GRAFTS, rules.graft_without_shared.output.shares),
        sets=each(GRAFTS, SETS),
    output:
        out=f"{TABLES}/grafting.parquet",
        checks=f"{TABLES}/grafting_checks.parquet",
    log:
        f"{LOGS}/summarise_grafting.log",
    benchmark:
        f"{BENCHMARKS}/summarise_grafting.tsv"
    params:
        **job("summarise-grafting", grafts=GRAFTS),
