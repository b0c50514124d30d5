"""Representations: probes, similarity of gradients, and what answers are attributed to."""


use rule model_stage as capture with:
    input:
        tuned=TUNED,
        individuals=table_of(INDIVIDUALS),
        bio=table_of(BIO),
        qa=table_of(QA),
    output:
        states=f"{REPRESENTED}.states.safetensors",
        attribution=f"{REPRESENTED}.attribution.parquet",
        patching=f"{REPRESENTED}.patching.parquet",
    log:
        f"{LOGS}/capture/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/capture/{RUN}.tsv"
    wildcard_constraints:
        tuning="stage|mix",
    resources:
        **needs("capture"),
    params:
        **job("capture"),


use rule model_stage as probe with:
    input:
        states=rules.capture.output.states,
    output:
        out=f"{REPRESENTED}.probes.parquet",
        fits=f"{REPRESENTED}.fits.parquet",
    log:
        f"{LOGS}/probe/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/probe/{RUN}.tsv"
    resources:
        **needs("probe"),
    params:
        **job("probe"),


use rule model_stage as gradient_similarity with:
    input:
        weights=weights_of_history,
        sets=SETS,
        masks=MASKS,
        outcomes=OUTCOMES,
        facts=facts,
    output:
        out=f"{REPRESENTED}.gradients.parquet",
    log:
        f"{LOGS}/gradient_similarity/{RUN}.log",
    benchmark:
        f"{BENCHMARKS}/gradient_similarity/{RUN}.tsv"
    resources:
        **needs("gradient-similarity"),
    params:
        **job(
            "gradient-similarity",
            moments=lambda wildcards: runs.moments(STUDY, wildcards.tuning),
        ),


use rule stage as summarise_representations with:
    input:
        probes=each(HISTORIES, rules.probe.output.out),
        fits=each(HISTORIES, rules.probe.output.fits),
        gradients=each(HISTORIES, rules.gradient_similarity.output.out),
    output:
        probes=f"{TABLES}/probes.parquet",
        consistency=f"{TABLES}/consistency.parquet",
        gradients=f"{TABLES}/gradients.parquet",
    log:
        f"{LOGS}/summarise_representations.log",
    benchmark:
        f"{BENCHMARKS}/summarise_representations.tsv"
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        **job("summarise-representations", runs=HISTORIES),
