"""The attention case study: one head, one fact, told and asked, in two grafted models.

The head is that whose output projection has most shared parameters in the Mix-tuned model, the
fact one that the grafted Mix-tuned model recalls and the grafted Stage-tuned one does not (paper,
section 4.2 and appendix A.7.2; method, section 9). For each model and prompt: where the head looks,
and what its output at the last token says when read as logits. One case proves little, so where
the head looks from the last token is also taken of every fact that the masks were fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.experiments.case_study.attention_head import lens, look, telling
from factrecall.experiments.common.prompts import Prompt, by_role, prompts
from factrecall.experiments.grafting.grafted_model import Grafted, open_grafted
from factrecall.models.forward import encode
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.sets import ParameterSet, read_set
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.progress import progress
from factrecall.runtime.storage import read_table, write_table

if TYPE_CHECKING:
    from factrecall.experiments.case_study.settings import CaseStudySettings

TOP = 10
"""How many tokens of the logit lens are kept."""

PREFERRED = "university"
"""The relation of the paper's case; it has attributes told before it."""

CASE = {
    "tuning": "string",
    "layer": "int32",
    "head": "int32",
    "shared": "int64",
    "shared_rank": "int32",
    "individual": "int32",
    "relation": "string",
    "answer": "string",
    "right": "bool",
}
"""Columns of the case: a row a tuning.

`shared` counts the shared parameters of the head's output projection, `shared_rank` ranks it among
all output projections of that tuning, `right` says whether that grafted model recalls the fact.
"""

TOKENS = {"format": "string", "token": "int32", "text": "string", "role": "string"}
"""Columns of the case's prompts: a row a token; for `role` see `prompts.ROLES`."""

ATTENTION = {
    "tuning": "string",
    "format": "string",
    "query": "int32",
    "key": "int32",
    "weight": "float32",
}
"""Columns of the head's attention: a row a pair of tokens."""

LENS = {
    "tuning": "string",
    "format": "string",
    "rank": "int32",
    "text": "string",
    "logit": "float32",
    "role": "string",
}
"""Columns of the logit lens of the head's output at the last token.

The likeliest tokens and, with their ranks, the first of the answer (`role` answer) and those of the
name (subject); `role` of the others is empty.
"""

LOOKS = {
    "tuning": "string",
    "format": "string",
    "individual": "int32",
    "relation": "string",
    "right": "bool",
    "role": "string",
    "weight": "float32",
}
"""Columns of where the head looks from the last token: a row a fact, format and role.

`weight` is the attention to all tokens of the role, `right` whether that grafted model is right
when asked.
"""


@dataclass(frozen=True)
class GraftedFiles:
    """The files of one tuning: of its grafted model (see `open_grafted`), and its shared sets."""

    tuned: Path
    sets: Path
    masks: Path
    outcomes: Path


def study_case(
    case: CaseStudySettings,
    individuals: int | None,
    max_eval_tokens: int,
    study_seed: int,
    *,
    base: Path,
    grafted: Mapping[str, GraftedFiles],
    bio: Path,
    qa: Path,
    out: Path,
    tokens: Path,
    attention: Path,
    logits: Path,
    looks: Path,
    device: torch.device,
    provenance: Mapping[str, Any],
) -> None:
    """Look at one head and one fact in both grafted models of a seed.

    Parameters
    ----------
    case, individuals, max_eval_tokens, study_seed
        What the configuration says; `individuals` masks were fitted to.
    base : Path
        Folder of θpre.
    grafted : mapping of str to GraftedFiles
        The models "mix" and "stage".
    bio, qa : Path
        The tables of facts.
    out, tokens, attention, logits, looks : Path
        The tables to write, columns ``CASE``, ``TOKENS``, ``ATTENTION``, ``LENS`` and ``LOOKS``.
    device : torch.device
        Where to run.
    provenance : mapping
        Kept in the metadata of every file.

    Raises
    ------
    FactRecallError
        When the configured head, person or relation is not there.
    """
    opened = {
        tuning: open_grafted(base, files.tuned, files.masks, files.outcomes, device)
        for tuning, files in grafted.items()
    }
    judge = opened["mix"].questions(qa, individuals, None, study_seed, max_eval_tokens)
    facts = judge.rows[["individual", "relation"]].assign(
        **{tuning: model.right(judge) for tuning, model in opened.items()}
    )
    places = {
        tuning: _outputs(model, read_set(grafted[tuning].sets, "S", model.weights.space))
        for tuning, model in opened.items()
    }
    layer, head = _head(case, places["mix"])
    chosen = _fact(case, facts)
    texts = _prompts(bio, qa, facts)
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in ("attention", "logits", "looks")}
    for tuning, model in opened.items():
        watching = progress(len(facts), f"attention, {tuning}", "fact")
        with model.weights, telling(model.model), watching as watch:
            model.weights.set(model.mask)
            for number, (fact, forms) in enumerate(zip(facts.itertuples(), texts, strict=True)):
                known = {"individual": fact.individual, "relation": fact.relation}
                known["right"] = getattr(fact, tuning)
                for name, prompt in forms.prompts.items():
                    label = {"tuning": tuning, "format": name}
                    marked = prompt.tokens(model.tokenizer)
                    ids = torch.tensor(marked["id"].to_numpy(), device=device)
                    weights, output = look(model.model, ids, layer, head)
                    roles = pd.Series(by_role(weights[-1], marked), name="weight")
                    table = roles.rename_axis("role").reset_index()
                    tables["looks"].append(table.assign(**label, **known))
                    if number == chosen:
                        tables["attention"].append(_pairs(weights).assign(**label))
                        read = _read(model, output, marked, prompt)
                        tables["logits"].append(read.assign(**label))
                watch(number + 1)
    shown = texts[chosen]
    told = [
        {
            "tuning": tuning,
            "layer": layer,
            "head": head,
            **places[tuning].loc[(layer, head)].to_dict(),
            **facts.loc[chosen, ["individual", "relation"]].to_dict(),
            "answer": shown.answer,
            "right": bool(facts.loc[chosen, tuning]),
        }
        for tuning in opened
    ]
    tokenizer = opened["mix"].tokenizer
    marked = pd.concat(p.tokens(tokenizer).assign(format=f) for f, p in shown.prompts.items())
    marked = marked.rename_axis("token").reset_index()
    write_table(out, pd.DataFrame(told), CASE, provenance)
    write_table(tokens, marked[list(TOKENS)], TOKENS, provenance)
    write_table(attention, pd.concat(tables["attention"]), ATTENTION, provenance)
    write_table(logits, pd.concat(tables["logits"]), LENS, provenance)
    write_table(looks, pd.concat(tables["looks"]), LOOKS, provenance)


@dataclass(frozen=True)
class _Forms:
    """A fact's prompts by format, and its answer."""

    prompts: dict[str, Prompt]
    answer: str


def _prompts(bio: Path, qa: Path, facts: pd.DataFrame) -> list[_Forms]:
    told = read_table(bio, BIO_COLUMNS)
    biographies = dict(iter(told[told["biography"] == 0].groupby("individual")))
    asked = read_table(qa, QA_COLUMNS).set_index(["individual", "relation"], drop=False)
    found = []
    for person, relation in zip(facts["individual"], facts["relation"], strict=True):
        question = asked.loc[(person, relation)].to_dict()
        answer = question["text"][question["attribute_start"] : question["attribute_end"]]
        found.append(_Forms(prompts(biographies[person], question), answer))
    return found


def _outputs(model: Grafted, shared: ParameterSet) -> pd.DataFrame:
    """Return, by layer and head, the shared parameters of output projections and their ranks."""
    nodes = Nodes.of(model.model, "attention")
    table = nodes.table.assign(shared=nodes.counts(shared))
    table = table[table["projection"] == "O"].set_index(["layer", "head"])[["shared"]]
    rank = table["shared"].rank(method="min", ascending=False)
    return table.assign(shared_rank=rank.astype(int))


def _head(case: CaseStudySettings, outputs: pd.DataFrame) -> tuple[int, int]:
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


def _fact(case: CaseStudySettings, facts: pd.DataFrame) -> int:
    """Return the row of the fact to look at: of those asked for the first most telling one."""
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
    telling_ = 4 * facts["mix"] - 2 * facts["stage"] + (facts["relation"] == PREFERRED)
    return int(telling_.idxmax())


def _pairs(weights: np.ndarray) -> pd.DataFrame:
    query, key = np.tril_indices(len(weights))
    return pd.DataFrame({"query": query, "key": key, "weight": weights[query, key]})


def _read(
    model: Grafted, output: torch.Tensor, marked: pd.DataFrame, prompt: Prompt
) -> pd.DataFrame:
    name = marked["id"][marked["role"] == "subject"].tolist()
    whole_text, span = prompt.whole
    (whole,) = encode(model.tokenizer, [whole_text], [[span]])
    gold = int(whole.tokens[whole.answers[0][0]])
    roles = {**dict.fromkeys(name, "subject"), gold: "answer"}
    table = lens(model.model, output, TOP, [gold, *name])
    said = [str(model.tokenizer.decode([token])).strip() for token in table["id"]]
    role = [roles.get(token, "") for token in table["id"]]
    return table.assign(text=said, role=role)[["rank", "text", "logit", "role"]]
