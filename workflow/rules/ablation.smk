"""Ablation: recall with shared parameters, or others beside them, reset to θpre."""

ABLATED = f"{RESULTS}/ablation/{{model}}/{{tuning}}/seed{{seed}}"


use rule model_stage as ablate with:
    input:
        base=base,
        tuned=TUNED,
        traces=rules.select_shared.input.traces,
        sets=SETS,
        bio=table_of(BIO),
        qa=table_of(QA),
    output:
        out=f"{ABLATED}.parquet",
        members=f"{ABLATED}.members.parquet",
    log:
        f"{LOGS}/ablate/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/ablate/{RUN}.tsv"
    resources:
        **needs("ablate"),
    params:
        **job("ablate"),


use rule model_stage as transplant_shared with:
    input:
        donor=donor(TUNED),
        tuned=TUNED,
        traces=donor(TRACE, PHASES.get),
        sets=donor(SETS),
        bio=table_of(BIO),
        qa=table_of(QA),
    output:
        out=f"{ABLATED}.transplant.parquet",
        members=f"{ABLATED}.transplant.members.parquet",
    log:
        f"{LOGS}/transplant_shared/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/transplant_shared/{RUN}.tsv"
    wildcard_constraints:
        tuning="|".join(COMPARED),
    resources:
        **needs("transplant-shared"),
    params:
        **job("transplant-shared"),


use rule stage as summarise_ablation with:
    input:
        table=each(HISTORIES, rules.ablate.output.out),
        members=each(HISTORIES, rules.ablate.output.members),
        transplanted=each(HISTORIES, rules.transplant_shared.output.out),
        transplanted_members=each(HISTORIES, rules.transplant_shared.output.members),
    output:
        out=f"{TABLES}/ablation.parquet",
        people=f"{TABLES}/ablation_people.parquet",
        sets=f"{TABLES}/ablation_sets.parquet",
    log:
        f"{LOGS}/summarise_ablation.log",
    benchmark:
        f"{BENCHMARKS}/summarise_ablation.tsv"
    params:
        **job("summarise-ablation", evaluations=HISTORIES),
