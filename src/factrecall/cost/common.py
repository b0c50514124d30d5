"""Cost of the stages that belong to no experiment, and of those that only read tables."""

from __future__ import annotations

from factrecall.cost.evaluation import JobContext
from factrecall.cost.job_cost import JobCost
from factrecall.cost.memory import FIGURES, LIGHT, PROCESS, TABLES, Memory
from factrecall.runs import run_seeds

PERSON = 8e-4  # seconds in which a person's texts are invented and written
PERSON_BYTES = 350.0  # bytes on the disk of a person's facts, statements and questions
DRAWN = {"draw-figures": 13.0, "write-report": 4.0}  # seconds of jobs that draw, all figures
JUDGED = 8.0  # seconds in which a model's claims are judged
SUMMARY = 1.5  # seconds of a summary of tables


def facts_cost(context: JobContext) -> JobCost:
    """Return the cost of writing the facts."""
    facts = context.study.facts
    people = facts.people + facts.pretrain_people * facts.pretrain_biographies
    # Every pair of a first and a last name is there once while names are drawn.
    names = 80.0 * facts.pools.first_names * facts.pools.last_names * (facts.individuals is None)
    memory = Memory({}, {"process": LIGHT, "tables": 2.0e4 * people + names})
    return JobCost(memory, more=PERSON * people, written=PERSON_BYTES * people, light=True)


def fetching_cost(context: JobContext) -> JobCost:
    """Return the cost of fetching a model: two bytes a parameter as a rule, dequantised four."""
    source = context.study.models[context.model.name].source
    size = (4.0 if source == "gguf" else 2.0) * context.n
    # A dequantised model is there twice: as the file's tensors and as the model's.
    reading = 2 * size if source == "gguf" else 1e8
    memory = Memory({}, {"process": PROCESS, "tokenizer": 2e8, "reading": reading})
    fetched = size if source == "hub" else 0.0
    return JobCost(memory, read=2 * size, written=size, fetched=fetched, models=1)


def tables_cost(context: JobContext) -> JobCost:
    """Return the cost of a summary, of the figures of a model, of verdicts or of the report."""
    study, stage = context.study, context.job.stage
    rows = 42.0 * study.facts.people * len(run_seeds(study)) * len(study.models)
    process = FIGURES if stage in DRAWN else TABLES
    memory = Memory({}, {"process": process, "tables": 60.0 * rows})
    seconds = JUDGED * len(study.models) if stage == "judge-claims" else DRAWN.get(stage, SUMMARY)
    return JobCost(memory, more=seconds + 1e-6 * rows, written=1e6)


COSTS = {
    "make-facts": facts_cost,
    "fetch-model": fetching_cost,
    "draw-figures": tables_cost,
    "judge-claims": tables_cost,
    "write-report": tables_cost,
}
