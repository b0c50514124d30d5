"""Prompts with a part of another person's, to see what a model reads a fact from.

One part is exchanged at a time and all else stays as it is, so that the text remains a text as the
model was trained with. Two things follow what they belong to: "a" or "an" the attribute behind it,
and a pronoun the wording around it (whether "she" or "her" is asked for is its grammar; the other
person is of the same gender).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from factrecall.data.rendering import article
from factrecall.experiments.common.prompts import Sentence
from factrecall.runtime.seeds import generator
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

PARTS = ("subject", "relation", "attribute", "other")
"""Roles that can be exchanged: the name; the wording of the wanted sentence, which in a biography
another may have in other words; the attributes told before it; the wording of these."""

ANOTHER = "another relation"
"""The wording of the wanted sentence exchanged for that of another relation of the same person."""


@dataclass(frozen=True)
class Texts:
    """The sentences of all people of the study by format, individual and relation."""

    sentences: Mapping[str, Mapping[int, Mapping[str, Sentence]]]

    @classmethod
    def of(cls, bio: pd.DataFrame, qa: pd.DataFrame) -> Self:
        """Cut the tables of facts; the people of pre-training are left out."""
        forms = {"bio": (bio, "text"), "short": (bio, "short"), "qa": (qa, "text")}
        found: dict[str, dict[int, dict[str, Sentence]]] = {}
        for name, (table, form) in forms.items():
            people = found.setdefault(name, {})
            for row in table[table["split"] != "pretrain"].to_dict("records"):
                people.setdefault(row["individual"], {})[row["relation"]] = Sentence.of(row, form)
        return cls(found)

    def up_to(self, form: str, individual: int, relation: str) -> list[Sentence]:
        """Return what a prompt is made of: of a biography all sentences up to the wanted one."""
        person = self.sentences[form][individual]
        if form != "bio":
            return [person[relation]]
        return [person[told] for told in RELATIONS[: RELATIONS.index(relation) + 1]]

    def worded(self, form: str, individual: int, relation: str, other: str) -> list[Sentence]:
        """Return the prompt's sentences with the wanted fact in the wording of another relation.

        `other` is none that a biography begins with: that sentence is known with the name only.
        """
        own = self.up_to(form, individual, relation)
        named = "short" if form == "bio" and len(own) == 1 else form
        donor = self.sentences[named][individual][other]
        return [*own[:-1], _worded(own[-1], donor, named=len(own) == 1)]


def exchange(part: str, own: Sequence[Sentence], donor: Sequence[Sentence]) -> list[Sentence]:
    """Exchange one part of a prompt for that of another person.

    Parameters
    ----------
    part : str
        One of ``PARTS``.
    own, donor : sequence of Sentence
        From `Texts.up_to`, of the same format and relation.
    """
    first, wanted = own[0], own[-1]
    if part == "subject":  # later sentences have pronouns
        return [first._replace(subject=donor[0].subject), *own[1:]]
    if part == "relation":
        return [*own[:-1], _worded(wanted, donor[-1], named=len(own) == 1)]
    pairs = list(zip(own[:-1], donor[:-1], strict=True))
    if part == "attribute":
        return [*(_with(one, other.attribute) for one, other in pairs), wanted]
    worded = [_worded(one, other, named=not number) for number, (one, other) in enumerate(pairs)]
    return [*worded, wanted]


def _worded(own: Sentence, donor: Sentence, *, named: bool) -> Sentence:
    """Tell a fact in the words of another sentence."""
    worded = donor._replace(subject=own.subject if named else donor.subject, end=own.end)
    return _with(worded, own.attribute)


def _with(sentence: Sentence, attribute: str) -> Sentence:
    if attribute == sentence.attribute:
        return sentence
    after = re.sub(r"\ban? $", f"{article(attribute)} ", sentence.after)
    return sentence._replace(after=after, attribute=attribute)


def draw_facts(bio: pd.DataFrame, individuals: int | None, seed: int) -> pd.DataFrame:
    """Draw people of each side, and for each of their facts with whom to exchange parts.

    Parameters
    ----------
    bio : DataFrame
        The table of biographies.
    individuals : int or None
        How many people of each side are wanted; None takes all. Fewer are among more.
    seed : int
        The study's.

    Returns
    -------
    DataFrame
        A row a fact: split, individual, relation, `donor` (an individual) and `other` (a
        relation). The donor is drawn among those who agree best with what is wanted: before all
        another of the same side, then one whose attribute begins with another word, then one of
        the same gender; where nobody of the side has another word, the answers are alike. The other
        relation is none that a biography begins with (see `Texts`).
    """
    people = _people(bio)
    rows = []
    for split, side in people.groupby("split"):
        order = generator(seed, "people looked at", str(split)).permutation(side.index)
        for individual in sorted(order[:individuals].tolist()):
            own = people.loc[individual]
            for number, relation in enumerate(RELATIONS):
                rng = generator(seed, "donor", individual, number)
                fitting = (
                    4 * (people["split"] == own["split"])
                    + 2 * (people[relation] != own[relation])
                    + (people["female"] == own["female"])
                ).drop(individual)
                donors = fitting.index[fitting == fitting.max()]
                others = [name for name in RELATIONS[1:] if name != relation]
                found = int(rng.choice(donors)), str(rng.choice(others))
                rows.append((split, individual, relation, *found))
    return pd.DataFrame(rows, columns=["split", "individual", "relation", "donor", "other"])


def _people(bio: pd.DataFrame) -> pd.DataFrame:
    """Return, by individual, side, gender, and the first word of each attribute."""
    bio = bio[bio["split"] != "pretrain"]
    spans = zip(bio["text"], bio["attribute_start"], bio["attribute_end"], strict=True)
    words = [text[start:end].split()[0] for text, start, end in spans]
    people = bio.assign(word=words).pivot(index="individual", columns="relation", values="word")
    last = bio[bio["relation"] == RELATIONS[-1]].set_index("individual")
    spans = zip(last["text"], last["subject_start"], last["subject_end"], strict=True)
    female = [text[start:end].lower() in ("she", "her") for text, start, end in spans]
    known = pd.DataFrame({"split": last["split"], "female": np.array(female)}, index=last.index)
    return people.join(known)
