"""The stage that makes the facts of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.runs import replicates
from factrecall.runtime.job import Job
from factrecall.runtime.stage import TABLES, Output, stage

if TYPE_CHECKING:
    from factrecall.config.facts import Facts


@stage(
    "make-facts",
    settings=lambda study: {"facts": study.facts},
    libraries=("faker", *TABLES),
    per=replicates,
)
def make_facts(
    job: Job,
    *,
    individuals: Output,
    bio: Output,
    qa: Output,
    facts: Facts,
    study_seed: int,
) -> None:
    """Make synthetic individuals, their biographies and questions on them.

    Parameters
    ----------
    individuals
        the table of individuals to write
    """
    from factrecall.data import tables
    from factrecall.data.files import BIO_COLUMNS, INDIVIDUAL_COLUMNS, QA_COLUMNS

    made = tables.make_facts(facts, study_seed)
    job.write(individuals, made.individuals, INDIVIDUAL_COLUMNS)
    job.write(bio, made.bio, BIO_COLUMNS)
    job.write(qa, made.qa, QA_COLUMNS)
