"""Figures and the report."""

from factrecall.report.names import FIGURES, SUFFIXES

RUNS = [
    {"tuning": tuning, "seed": seed}
    for tuning in TUNINGS
    for seed in STUDY.training.seeds
]
# Whose continuity is shown: the MLP's if it is intervened on, of Mix-tuned models, first seed, as
# nodes are added by their shared parameters.
SWEEP = {
    "tuning": "mix",
    "seed": STUDY.training.seeds[0],
    "kind": next((kind for kind in KINDS if kind != "attention"), "attention"),
    "by": "shared",
}


rule draw_figures:
    input:
        recall=f"{RESULTS}/tables/recall.parquet",
        shared=f"{RESULTS}/tables/shared.parquet",
        places=f"{RESULTS}/tables/shared_places.parquet",
        ablation=f"{RESULTS}/tables/ablation.parquet",
        grafting=f"{RESULTS}/tables/grafting.parquet",
        checks=f"{RESULTS}/tables/grafting_checks.parquet",
        interventions=f"{RESULTS}/tables/interventions.parquet",
        heads=f"{RESULTS}/tables/heads.parquet",
        sweep=lambda wildcards: [
            file.format(model=wildcards.model, **SWEEP)
            for file in (
                rules.intervene.output.steps,
                rules.intervene.output.questions,
            )
        ],
        case=rules.study_case.output,
        representations=rules.summarise_representations.output,
        histories=lambda wildcards: each(
            [{"model": wildcards.model, **run} for run in RUNS],
            f"{TUNED}.history.parquet",
        ),
    output:
        expand(
            f"{RESULTS}/figures/{{{{model}}}}/{{figure}}{{suffix}}",
            figure=FIGURES,
            suffix=SUFFIXES,
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
        kind=SWEEP["kind"],
        folder=subpath(output[0], parent=True),
    shell:
        'python -m factrecall draw-figures --study "$FACTRECALL_STUDY" --model {wildcards.model:q}'
        " --recall {input.recall:q} --shared {input.shared:q} --places {input.places:q}"
        " --ablation {input.ablation:q} --grafting {input.grafting:q} --checks {input.checks:q}"
        " --interventions {input.interventions:q} --heads {input.heads:q}"
        " --sweep {params.kind:q} {input.sweep:q} --case {input.case:q}"
        " --representations {input.representations:q}"
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
                "interventions",
                "circuits",
                "heads",
                "continuity",
                "sweeps",
            ],
        ),
        representations=rules.summarise_representations.output,
        case=expand(rules.study_case.output, model=STUDY.models),
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
