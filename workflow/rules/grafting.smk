"""Grafting: how few fine-tuned parameters recover recall, with shared parameters and without."""


use rule model_stage as graft with:
    input:
        base=base,
        tuned=TUNED,
        qa=table_of(QA),
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
        base=base,
        tuned=TUNED,
        sets=SETS,
        # The size chosen with S is shown without it.
        outcomes=f"{GRAFTED}.parquet",
        qa=table_of(QA),
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
