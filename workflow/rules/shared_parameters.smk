"""Shared parameters: the sets S_I, S_II and S, and how large they are."""


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
