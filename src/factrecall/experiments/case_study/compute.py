"""The case study's head and fact, and what the head does in a grafted model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.experiments.case_study.attention_head import eager_attention, logit_lens, run_head
from factrecall.experiments.case_study.tables import TOP
from factrecall.experiments.common.prompts import Prompt, by_role, prompts
from factrecall.models.forward import encode
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.sets import ParameterSet
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.progress import progress
from factrecall.runtime.storage import read_table

if TYPE_CHECKING:
    from factrecall.experiments.case_study.settings import CaseStudySettings
    from factrecall.experiments.grafting.grafted_model import Grafted

PREFERRED = "university"
"""The relation of the paper's case: a biography states attributes before it."""


@dataclass(frozen=True)
class FactPrompts:
    """A fact's prompts by format, and its answer."""

    prompts: Mapping[str, Prompt]
    answer: str


def read_prompts(bio: Path, qa: Path, facts: pd.DataFrame) -> list[FactPrompts]:
    """Return the prompts of facts (columns individual and relation), in their order."""
    statements = read_table(bio, BIO_COLUMNS)
    biographies = dict(iter(statements[statements["biography"] == 0].groupby("individual")))
    questions = read_table(qa, QA_COLUMNS).set_index(["individual", "relation"], drop=False)
    found = []
    for person, relation in zip(facts["individual"], facts["relation"], strict=True):
        question = questions.loc[(person, relation)].to_dict()
        answer = question["text"][question["attribute_start"] : question["attribute_end"]]
        found.append(FactPrompts(prompts(biographies[person], question), answer))
    return found


def output_projections(model: Grafted, shared: ParameterSet) -> pd.DataFrame:
    """Return, by layer and head, the members of S in output projections, and their ranks."""
    nodes = Nodes.of(model.model, "attention")
    table = nodes.table.assign(shared=nodes.counts(shared))
    table = table[table["projection"] == "O"].set_index(["layer", "head"])[["shared"]]
    rank = table["shared"].rank(method="min", ascending=False)
    return table.assign(shared_rank=rank.astype(int))


def choose_head(case: CaseStudySettings, outputs: pd.DataFrame) -> tuple[int, int]:
    """Return the configured head or the one with most of S, as layer and head.

    Raises
    ------
    FactRecallError
        When the model has no such head.
    """
    if case.layer is None or case.head is None:
        layer, head = outputs.index[int(outputs["shared"].to_numpy().argmax())]
        return int(layer), int(head)
    if (case.layer, case.head) not in outputs.index:
        layers, heads = (int(outputs.index.get_level_values(i).max()) + 1 for i in (0, 1))
        raise FactRecallError(
            f"circuits.case: layer {case.layer}, head {case.head}",
            f"the model has {layers} layers of {heads} heads, both counted from 0",
            "name one of them, or set both to null",
        )
    return case.layer, case.head


def choose_fact(case: CaseStudySettings, facts: pd.DataFrame) -> int:
    """Return the row of the first fact that only the Mix-tuned model recalls, if there is one.

    Raises
    ------
    FactRecallError
        When masks were not fitted to the configured person or relation.
    """
    for key in ("individual", "relation"):
        wanted = getattr(case, key)
        if wanted is None:
            continue
        if not (facts[key] == wanted).any():
            there = ", ".join(map(str, facts[key].unique()[:8]))
            raise FactRecallError(
                f"circuits.case.{key} = {wanted}",
                f"the masks of QA out are fitted to no such question (but to: {there}, …)",
                "name another, or set it to null",
            )
        facts = facts[facts[key] == wanted]
    preference = 4 * facts["mix"] - 2 * facts["stage"] + (facts["relation"] == PREFERRED)
    return int(preference.idxmax())


def run_facts(
    model: Grafted,
    tuning: str,
    facts: pd.DataFrame,
    texts: list[FactPrompts],
    head: tuple[int, int],
    chosen: int,
) -> dict[str, list[pd.DataFrame]]:
    """Run a head over the prompts of all facts.

    Parameters
    ----------
    model, tuning : Grafted, str
        The model.
    facts : DataFrame
        Columns individual, relation and, by tuning, whether the model is right.
    texts : list of FactPrompts
        In the order of `facts`.
    head : (int, int)
        Layer and head.
    chosen : int
        The fact whose attention pattern and logit lens are kept.

    Returns
    -------
    dict of str to list of DataFrame
        Parts of the tables "attention", "logits" and "looks".
    """
    tables: dict[str, list[pd.DataFrame]] = {"attention": [], "logits": [], "looks": []}
    watching = progress(len(facts), f"attention, {tuning}", "fact")
    with model.weights, eager_attention(model.model), watching as watch:
        model.weights.set(model.mask)
        for number, (fact, text) in enumerate(zip(facts.itertuples(), texts, strict=True)):
            known = {"individual": fact.individual, "relation": fact.relation}
            known["right"] = getattr(fact, tuning)
            for name, prompt in text.prompts.items():
                label = {"tuning": tuning, "format": name}
                tokens = prompt.tokens(model.tokenizer)
                ids = torch.tensor(tokens["id"].to_numpy(), device=model.device)
                pattern, output = run_head(model.model, ids, *head)
                roles = pd.Series(by_role(pattern[-1], tokens), name="weight")
                table = roles.rename_axis("role").reset_index()
                tables["looks"].append(table.assign(**label, **known))
                if number == chosen:
                    tables["attention"].append(_pairs(pattern).assign(**label))
                    lens = _lens(model, output, tokens, prompt)
                    tables["logits"].append(lens.assign(**label))
            watch(number + 1)
    return tables


def _pairs(pattern: np.ndarray) -> pd.DataFrame:
    query, key = np.tril_indices(len(pattern))
    return pd.DataFrame({"query": query, "key": key, "weight": pattern[query, key]})


def _lens(
    model: Grafted, output: torch.Tensor, tokens: pd.DataFrame, prompt: Prompt
) -> pd.DataFrame:
    name = tokens["id"][tokens["role"] == "subject"].tolist()
    whole_text, span = prompt.whole
    (whole,) = encode(model.tokenizer, [whole_text], [[span]])
    gold = int(whole.tokens[whole.answers[0][0]])
    roles = {**dict.fromkeys(name, "subject"), gold: "answer"}
    table = logit_lens(model.model, output, TOP, [gold, *name])
    texts = [str(model.tokenizer.decode([token])).strip() for token in table["id"]]
    role = [roles.get(token, "") for token in table["id"]]
    return table.assign(text=texts, role=role)[["rank", "text", "logit", "role"]]
