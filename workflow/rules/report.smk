"""Figures and the report."""

RUNS = [
    {"tuning": tuning, "seed": seed}
    for tuning in TUNINGS
    for seed in STUDY.training.seeds
]
FIGURES = [
    "recall",
    "recall_by_relation",
    "loss",
    "shared",
    "shared_places",
    "ablation",
    "grafting",
    "grafting_size",
    "grafting_overlap",
]


rule draw_figures:
    input:
        recall=f"{RESULTS}/tables/recall.parquet",
        shared=f"{RESULTS}/tables/shared.parquet",
        places=f"{RESULTS}/tables/shared_places.parquet",
        ablation=f"{RESULTS}/tables/ablation.parquet",
        grafting=f"{RESULTS}/tables/grafting.parquet",
        checks=f"{RESULTS}/tables/grafting_checks.parquet",
        histories=lambda wildcards: each(
            [{"model": wildcards.model, **run} for run in RUNS],
            f"{TUNED}.history.parquet",
        ),
    output:
        expand(
            f"{RESULTS}/figures/{{{{model}}}}/{{figure}}.{{kind}}",
            figure=FIGURES,
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
        " --recall {input.recall:q} --shared {input.shared:q} --places {input.places:q}"
        " --ablation {input.ablation:q} --grafting {input.grafting:q} --checks {input.checks:q}"
        " {params.histories} --out {params.folder:q}"
        " 2>&1 | tee {log:q}"


rule write_report:
    input:
        facts=FACTS,
        tables=expand(
            f"{RESULTS}/tables/{{table}}.parquet",
            table=[
                "recall",
                "shared",
                "shared_places",
                "ablation",
                "ablation_intervals",
                "grafting",
                "grafting_checks",
            ],
        ),
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
