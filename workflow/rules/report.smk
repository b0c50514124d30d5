"""Figures and the report."""

SUMMARIES = [
    file
    for stage in stages.STAGES.values()
    if stage.name.startswith("summarise-")
    for file in getattr(rules, stage.rule).output
]


use rule stage as draw_figures with:
    input:
        lambda wildcards: results_of(wildcards.model),
    output:
        expand(
            f"{RESULTS}/figures/{{{{model}}}}/{{figure}}{{suffix}}",
            figure=sections.FIGURES,
            suffix=sections.SUFFIXES,
        ),
    log:
        f"{LOGS}/draw_figures/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/draw_figures/{{model}}.tsv"
    params:
        **job(
            "draw-figures",
            results=RESULTS,
            out=lambda wildcards: f"{RESULTS}/figures/{wildcards.model}",
        ),


use rule stage as write_report with:
    input:
        facts=FACTS,
        results=[file for model in STUDY.models for file in results_of(model)],
        figures=expand(rules.draw_figures.output, model=STUDY.models),
    output:
        out=f"{RESULTS}/report.html",
    log:
        f"{LOGS}/write_report.log",
    benchmark:
        f"{BENCHMARKS}/write_report.tsv"
    params:
        **job("write-report", results=RESULTS),
