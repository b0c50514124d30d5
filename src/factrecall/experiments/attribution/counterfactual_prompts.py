"""Counterfactual prompts: one part of a prompt replaced by that of a source prompt.

The source is on another person's fact of the same relation. One part is replaced at a time, so
that the text remains one of the kind that the model was trained on. Two things follow what they
belong to: "a" or "an" follows the attribute behind it, and a pronoun the wording around it (the
wording decides between "she" and "her"; the source is a person of the same gender).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import pandas as pd

from factrecall.data.rendering import article
from factrecall.experiments.common.prompts import Sentence
from factrecall.runtime.seeds import generator
from factrecall.vocabulary import RELATIONS

PARTS = ("subject", "relation", "attribute", "other")
"""Roles that can be replaced: the name; the wording of the sentence to complete; the attributes
stated before it; the wording of the sentences before it. Another biography may word a relation
differently."""


@dataclass(frozen=True)
class FactSentences:
    """The sentences of all people of the study by format, individual and relation."""

    sentences: Mapping[str, Mapping[int, Mapping[str, Sentence]]]

    @classmethod
    def of(cls, bio: pd.DataFrame, qa: pd.DataFrame) -> Self:
        """Cut the tables of facts into sentences, without the people of pre-training."""
        columns = {"bio": (bio, "text"), "short": (bio, "short"), "qa": (qa, "text")}
        found: dict[str, dict[int, dict[str, Sentence]]] = {}
        for form, (table, column) in columns.items():
            people = found.setdefault(form, {})
            for row in table[table["split"] != "pretrain"].to_dict("records"):
                people.setdefault(row["individual"], {})[row["relation"]] = Sentence.of(row, column)
        return cls(found)

    def up_to(self, form: str, individual: int, relation: str) -> list[Sentence]:
        """Return a prompt's sentences: of a biography all up to the one to complete."""
        person = self.sentences[form][individual]
        if form != "bio":
            return [person[relation]]
        return [person[name] for name in RELATIONS[: RELATIONS.index(relation) + 1]]

    def reworded(self, form: str, individual: int, relation: str, other: str) -> list[Sentence]:
        """Return the prompt's sentences, the last in the wording of another relation.

        `other` is not the first relation of a biography, whose sentence has a name and no pronoun.
        """
        own = self.up_to(form, individual, relation)
        named = "short" if form == "bio" and len(own) == 1 else form
        source = self.sentences[named][individual][other]
        return [*own[:-1], _reworded(own[-1], source, named=len(own) == 1)]


def counterfactual(
    part: str, own: Sequence[Sentence], source: Sequence[Sentence]
) -> list[Sentence]:
    """Replace one part of a prompt by that of its source, of the same format and relation."""
    first, last = own[0], own[-1]
    if part == "subject":  # later sentences have pronouns
        return [first._replace(subject=source[0].subject), *own[1:]]
    if part == "relation":
        return [*own[:-1], _reworded(last, source[-1], named=len(own) == 1)]
    pairs = list(zip(own[:-1], source[:-1], strict=True))
    if part == "attribute":
        return [*(_with(one, other.attribute) for one, other in pairs), last]
    return [*(_reworded(*pair, named=not number) for number, pair in enumerate(pairs)), last]


def _reworded(own: Sentence, source: Sentence, *, named: bool) -> Sentence:
    """State a fact in the words of another sentence."""
    subject = own.subject if named else source.subject
    return _with(source._replace(subject=subject, end=own.end), own.attribute)


def _with(sentence: Sentence, attribute: str) -> Sentence:
    if attribute == sentence.attribute:
        return sentence
    after = re.sub(r"\ban? $", f"{article(attribute)} ", sentence.after)
    return sentence._replace(after=after, attribute=attribute)


def draw_facts(
    individuals: pd.DataFrame, bio: pd.DataFrame, count: int | None, seed: int
) -> pd.DataFrame:
    """Draw people of each side, `count` or all, and a source for each of their facts.

    A smaller draw is part of a larger one. The source is drawn among those who fit best. What
    counts is, in this order: the same side, an attribute that begins with another word, the same
    gender. Where all of a side share that word, source and fact have alike answers.

    Returns
    -------
    DataFrame
        A row a fact: split, individual, relation, `source` (an individual) and `other` (another
        relation, not the first of a biography; see `FactSentences.reworded`).
    """
    people = _people(individuals, bio)
    rows = []
    for split, side in people.groupby("split"):
        order = generator(seed, "people looked at", str(split)).permutation(side.index)
        for individual in sorted(order[:count].tolist()):
            own = people.loc[individual]
            for number, relation in enumerate(RELATIONS):
                rng = generator(seed, "donor", individual, number)
                fit = (
                    4 * (people["split"] == own["split"])
                    + 2 * (people[relation] != own[relation])
                    + (people["gender"] == own["gender"])
                ).drop(individual)
                others = [name for name in RELATIONS[1:] if name != relation]
                drawn = int(rng.choice(fit.index[fit == fit.max()])), str(rng.choice(others))
                rows.append((split, individual, relation, *drawn))
    return pd.DataFrame(rows, columns=["split", "individual", "relation", "source", "other"])


def _people(individuals: pd.DataFrame, bio: pd.DataFrame) -> pd.DataFrame:
    """Return, by individual, side, gender, and the first word of each attribute."""
    bio = bio[bio["split"] != "pretrain"]
    spans = zip(bio["text"], bio["attribute_start"], bio["attribute_end"], strict=True)
    words = [text[start:end].split()[0] for text, start, end in spans]
    people = bio.assign(word=words).pivot(index="individual", columns="relation", values="word")
    return people.join(individuals.set_index("individual")[["split", "gender"]])
