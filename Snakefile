"""factrecall: how language models come to recall facts, and which weights do it.

snakemake --cores all                                             the laptop study
snakemake --cores all --configfile workflow/presets/ci.yaml       a small one of everything
snakemake --profile slurm                                         the paper, on a SLURM cluster
"""

from snakemake.utils import min_version

min_version("9.19")


# Snakemake would merge a study given on the command line into this one.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/stage.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/shared.smk"
include: "workflow/rules/circuits.smk"
include: "workflow/rules/representations.smk"
include: "workflow/rules/report.smk"


# Short, and without a model: not worth a job of their own on a cluster.
localrules:
    make_facts,
    fetch_model,
    summarise_recall,
    summarise_shared,
    summarise_ablation,
    summarise_grafting,
    summarise_circuits,
    summarise_representations,
    draw_figures,
    write_report,


rule all:
    default_target: True
    input:
        SUMMARIES,
        rules.write_report.output,
