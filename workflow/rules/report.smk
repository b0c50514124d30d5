"""Figures and the report."""

from factrecall.report.names import FIGURES, SUFFIXES
from factrecall.report.stages import shown_kind

# Whose continuity is shown: of Mix-tuned models, first seed, as nodes are added by their shared
# parameters.
SWEEP = {
    "tuning": "mix",
    "seed": STUDY.training.seeds[0],
    "kind": shown_kind(STUDY),
    "ranking": "shared",
}
SUMMARIES = [
    file
    for stage in stages.STAGES.values()
    if stage.name.startswith("summarise-")
    for file in getattr(rules, stage.rule).output
]


use rule stage as draw_figures with:
    input:
        tables=SUMMARIES,
        sweep=lambda wildcards: [
            file.format(model=wildcards.model, **SWEEP)
            for file in (rules.intervene.output.out, rules.intervene.output.questions)
        ],
        case=rules.attention_case_study.output,
        histories=lambda wildcards: [
            f"{TUNED}.history.parquet".format(**run)
            for run in runs.trainings(STUDY)
            if run["model"] == wildcards.model
        ],
    output:
        expand(
            f"{RESULTS}/figures/{{{{model}}}}/{{figure}}{{suffix}}",
            figure=FIGURES,
            suffix=SUFFIXES,
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
        tables=SUMMARIES,
        case=expand(rules.attention_case_study.output, model=STUDY.models),
        figures=expand(rules.draw_figures.output, model=STUDY.models),
        examples=rules.summarise_recall.input.table,
        traces=each(runs.trainings(STUDY), TRACE),
    output:
        out=f"{RESULTS}/report.html",
    log:
        f"{LOGS}/write_report.log",
    benchmark:
        f"{BENCHMARKS}/write_report.tsv"
    params:
        **job("write-report", results=RESULTS),
