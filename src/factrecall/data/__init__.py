"""Facts about invented people: who they are, and the texts that state or ask each fact.

A fact is a triple (subject, relation, attribute). `people` invents the individuals from the
values of `pools` (or `own` reads them), `templates` holds the wording, `render` writes a fact
as text with character spans, and `tables` puts it all into the tables of a study.
"""

from __future__ import annotations

RELATIONS: tuple[str, ...] = (
    "birth_date",
    "birth_city",
    "university",
    "job",
    "employer",
    "blood_type",
)
