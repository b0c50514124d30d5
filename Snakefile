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
include: "workflow/rules/shared_parameters.smk"
include: "workflow/rules/ablation.smk"
include: "workflow/rules/grafting.smk"
include: "workflow/rules/circuits.smk"
include: "workflow/rules/representations.smk"
include: "workflow/rules/report.smk"


# Stages without a model are too short for a job of their own on a cluster, but for this one.
workflow.localrules(
    *(
        stage.rule
        for stage in stages.STAGES.values()
        if stage.device == "none" and stage.name != "select-shared"
    )
)


rule all:
    default_target: True
    input:
        SUMMARIES,
        rules.write_report.output,
