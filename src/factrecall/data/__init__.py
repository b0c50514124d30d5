"""Synthetic individuals and the texts that state their facts or ask for them.

A fact is a triple (subject, relation, attribute). `people` draws the individuals from the values
of `pools` (or `own_data` reads them), `templates` holds the sentences, `rendering` writes a fact as
text with character spans, and `tables` builds the tables of a study.
"""
