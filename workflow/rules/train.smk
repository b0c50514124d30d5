"""Models before and after fine-tuning, and what they recall."""


use rule model_stage as pretrain with:
    input:
        facts=FACTS,
    output:
        out=directory(BASE),
        history=f"{BASE}.history.parquet",
    log:
        f"{LOGS}/pretrain/{{model}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/pretrain/{{model}}/seed{{seed}}.tsv"
    wildcard_constraints:
        model=one_of(runs.scratch_models(STUDY)),
    threads: STUDY.compute.pretrain_threads or STUDY.compute.threads
    resources:
        **needs("pretrain"),
    params:
        **job("pretrain"),


use rule stage as fetch_model with:
    output:
        # One θpre for all replicates.
        out=directory(of_seed(BASE, STUDY.seed)),
    log:
        f"{LOGS}/fetch_model/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/fetch_model/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(runs.fetched_models(STUDY)),
    resources:
        # How long a download takes is not known.
        **{**needs("fetch-model"), "runtime": 240},
    params:
        **job("fetch-model", locks="envs/models"),


use rule model_stage as fine_tune with:
    input:
        facts=facts,
        start=lambda wildcards: (
            TUNED.replace("{tuning}", "bio")
            if wildcards.tuning == "stage"
            else base(wildcards)
        ),
    output:
        out=directory(TUNED),
        history=f"{TUNED}.history.parquet",
        trace=TRACE,
        snapshots=SNAPSHOTS,
    log:
        f"{LOGS}/fine_tune/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/fine_tune/{RUN}.tsv"
    wildcard_constraints:
        tuning="|".join(TUNINGS),
    # Processes that share a fine-tuning share its threads, too.
    threads: max(STUDY.compute.threads, STUDY.training.mode.gpus)
    resources:
        **needs("fine-tune"),
    params:
        **job("fine-tune"),


use rule model_stage as recall with:
    input:
        tuned=lambda wildcards: (
            base(wildcards) if wildcards.tuning == "base" else TUNED
        ),
        bio=table_of(BIO),
        qa=table_of(QA),
    output:
        out=f"{TUNED}.recall.parquet",
    log:
        f"{LOGS}/recall/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/recall/{RUN}.tsv"
    resources:
        **needs("recall"),
    params:
        **job("recall"),


use rule stage as summarise_recall with:
    input:
        table=each(runs.evaluations(STUDY), f"{TUNED}.recall.parquet"),
        qa=each(runs.replicates(STUDY), QA),
    output:
        out=f"{TABLES}/recall.parquet",
    log:
        f"{LOGS}/summarise_recall.log",
    benchmark:
        f"{BENCHMARKS}/summarise_recall.tsv"
    params:
        **job(
            "summarise-recall",
            evaluations=runs.evaluations(STUDY),
            questions=runs.replicates(STUDY),
        ),
