"""Ablation: recall with shared parameters reset to θpre, all at once or layer by layer."""


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
