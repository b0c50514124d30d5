"""Figures, verdicts on all claims, and the report."""

SUMMARIES = [
    file
    for stage in stages.STAGES.values()
    if stage.name.startswith("summarise-")
    for file in getattr(rules, stage.rule).output
]
CAPTIONS = f"{RESULTS}/captions"


use rule stage as draw_figures with:
    input:
        lambda wildcards: results_of(wildcards.model),
    output:
        expand(
            f"{RESULTS}/figures/{{{{model}}}}/{{figure}}{{suffix}}",
            figure=sections.FIGURES,
            suffix=[s for s in sections.SUFFIXES if s != ".svg"],
        ),
        [
            report(
                f"{RESULTS}/figures/{{model}}/{figure.name}.svg",
                caption=Path(f"{CAPTIONS}/{figure.name}.rst").absolute(),
                category=section.title,
                subcategory="{model}",
                labels={"figure": figure.name.replace("_", " "), "model": "{model}"},
            )
            for section in sections.SECTIONS
            for figure in section.figures
        ],
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


use rule stage as judge_claims with:
    input:
        results=[file for model in STUDY.models for file in results_of(model)],
    output:
        out=f"{TABLES}/claims.parquet",
    log:
        f"{LOGS}/judge_claims.log",
    benchmark:
        f"{BENCHMARKS}/judge_claims.tsv"
    params:
        **job("judge-claims", results=RESULTS),


use rule stage as write_report with:
    input:
        facts=[of_seed(table, STUDY.seed) for table in FACTS],
        claims=rules.judge_claims.output.out,
        results=[file for model in STUDY.models for file in results_of(model)],
        figures=expand([*map(str, rules.draw_figures.output)], model=STUDY.models),
    output:
        expand(f"{CAPTIONS}/{{figure}}.rst", figure=sections.FIGURES),
        out=report(f"{RESULTS}/report.html", category="Report"),
    log:
        f"{LOGS}/write_report.log",
    benchmark:
        f"{BENCHMARKS}/write_report.tsv"
    params:
        **job("write-report", results=RESULTS, captions=CAPTIONS),
