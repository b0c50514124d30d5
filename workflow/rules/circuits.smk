"""Circuits: which heads and neurons of a grafted model support recall, and what one head does."""


use rule model_stage as intervene with:
    input:
        base=base,
        tuned=TUNED,
        # The baseline does not depend on S.
        sets=lambda wildcards: SETS if wildcards.ranking == "shared" else [],
        masks=MASKS,
        outcomes=OUTCOMES,
        qa=table_of(QA),
    output:
        out=f"{CIRCUIT}.parquet",
        curves=f"{CIRCUIT}.curves.parquet",
        nodes=f"{CIRCUIT}.nodes.parquet",
        questions=f"{CIRCUIT}.questions.parquet",
    log:
        f"{LOGS}/intervene/{RUN}-{{kind}}-{{ranking}}.log",
    benchmark:
        f"{BENCHMARKS}/intervene/{RUN}-{{kind}}-{{ranking}}.tsv"
    wildcard_constraints:
        kind="|".join(runs.kinds_of(STUDY)),
        ranking="|".join(runs.RANKINGS),
    resources:
        **needs("intervene"),
    params:
        **job("intervene"),


use rule stage as summarise_circuits with:
    input:
        steps=each(CIRCUITS, rules.intervene.output.out),
        curves=each(CIRCUITS, rules.intervene.output.curves),
        nodes=each(CIRCUITS, rules.intervene.output.nodes),
        questions=each(CIRCUITS, rules.intervene.output.questions),
    output:
        out=f"{TABLES}/interventions.parquet",
        by_relation=f"{TABLES}/interventions_by_relation.parquet",
        continuity=f"{TABLES}/continuity.parquet",
        heads=f"{TABLES}/heads.parquet",
        sweeps=f"{TABLES}/sweeps.parquet",
        circuits=f"{TABLES}/circuits.parquet",
    log:
        f"{LOGS}/summarise_circuits.log",
    benchmark:
        f"{BENCHMARKS}/summarise_circuits.tsv"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        **job("summarise-circuits", interventions=CIRCUITS),


use rule model_stage as attention_case_study with:
    input:
        base=of_seed(BASE, STUDY.seed),
        tuned=each(CASES, TUNED),
        sets=each(CASES, SETS),
        masks=each(CASES, MASKS),
        outcomes=each(CASES, OUTCOMES),
        bio=of_seed(BIO, STUDY.seed),
        qa=of_seed(QA, STUDY.seed),
    output:
        out=f"{CASE}.parquet",
        tokens=f"{CASE}.tokens.parquet",
        attention=f"{CASE}.attention.parquet",
        logits=f"{CASE}.logits.parquet",
        looks=f"{CASE}.looks.parquet",
    log:
        f"{LOGS}/attention_case_study/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/attention_case_study/{{model}}.tsv"
    resources:
        **needs("attention-case-study"),
    params:
        **job("attention-case-study", grafted=CASES),
