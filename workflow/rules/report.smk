"""Figures and the report."""

HISTORIES = [(tuning, seed) for tuning in TUNINGS for seed in STUDY.training.seeds]


rule draw_figures:
    input:
        recall=f"{RESULTS}/tables/recall.parquet",
        histories=[
            f"{RESULTS}/models/{{model}}/{tuning}/seed{seed}.history.parquet"
            for tuning, seed in HISTORIES
        ],
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
        histories=lambda wildcards, input: [
            f"--history {tuning} {seed} {path}"
            for (tuning, seed), path in zip(HISTORIES, input.histories)
        ],
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
        traces=[
            f"{RESULTS}/traces/{model}/{tuning}/seed{seed}.safetensors"
            for model in STUDY.models
            for tuning, seed in HISTORIES
        ],
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
