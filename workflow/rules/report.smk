"""Figures and the report."""

RUNS = [
    {"tuning": tuning, "seed": seed}
    for tuning in TUNINGS
    for seed in STUDY.training.seeds
]


rule draw_figures:
    input:
        recall=f"{RESULTS}/tables/recall.parquet",
        histories=lambda wildcards: each(
            [{"model": wildcards.model, **run} for run in RUNS],
            f"{TUNED}.history.parquet",
        ),
    output:
        expand(
            f"{RESULTS}/figures/{{{{model}}}}/{{figure}}.{{kind}}",
            figure=["recall", "recall_by_relation", "loss"],
            kind=["png", "svg", "parquet"],
        ),
    log:
        f"{RESULTS}/logs/draw_figures/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_figures/{{model}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        stage=lambda wildcards: parameters("draw-figures", model=wildcards.model),
        histories=lambda wildcards, input: options("--history", RUNS, input.histories),
        folder=subpath(output[0], parent=True),
    shell:
        'python -m factrecall draw-figures --study "$FACTRECALL_STUDY" --model {wildcards.model:q}'
        " --recall {input.recall:q} {params.histories} --out {params.folder:q}"
        " 2>&1 | tee {log:q}"


rule write_report:
    input:
        facts=FACTS,
        recall=f"{RESULTS}/tables/recall.parquet",
        figures=expand(rules.draw_figures.output, model=STUDY.models),
        examples=rules.summarise_recall.input.tables,
        traces=each(
            [{"model": model, **run} for model in STUDY.models for run in RUNS], TRACE
        ),
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/write_report.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_report.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        stage=parameters("write-report"),
        results=subpath(output[0], parent=True),
    shell:
        'python -m factrecall write-report --study "$FACTRECALL_STUDY" --results {params.results:q}'
        " --out {output:q} 2>&1 | tee {log:q}"
