"""The stage of the attention case study: one head in the grafted models of both tunings.

The head is the output projection with most members of S in the Mix-tuned model. The fact is one
that the grafted Mix-tuned model recalls and the grafted Stage-tuned one does not (paper, section
4.2 and appendix A.7.2; docs/method.md). Of this fact the stage keeps the head's attention pattern
and the logit lens of its output at the last token, in a statement and in a question. One case
proves little, so it also keeps the last token's attention for every fact that masks were fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from factrecall.experiments.case_study.compute import (
    choose_fact,
    choose_head,
    output_projections,
    read_prompts,
    run_facts,
)
from factrecall.experiments.case_study.tables import (
    ATTENTION,
    CASE,
    LENS,
    ROLES_ATTENDED,
    TOKENS,
)
from factrecall.experiments.grafting.grafted_model import open_grafted
from factrecall.parameters.sets import read_set
from factrecall.runtime.storage import write_table

if TYPE_CHECKING:
    from factrecall.experiments.case_study.settings import CaseStudySettings


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
    """Study one head and one fact in both grafted models of a seed.

    Parameters
    ----------
    case, individuals, max_eval_tokens, study_seed
        As configured; `individuals`: how many people masks were fitted to.
    base : Path
        Folder of θpre.
    grafted : mapping of str to GraftedFiles
        The models "mix" and "stage".
    bio, qa : Path
        The tables of facts.
    out, tokens, attention, logits, looks : Path
        The tables to write, columns ``CASE``, ``TOKENS``, ``ATTENTION``, ``LENS`` and
        ``ROLES_ATTENDED``.
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
    evaluator = opened["mix"].questions(qa, individuals, None, study_seed, max_eval_tokens)
    facts = evaluator.rows[["individual", "relation"]].assign(
        **{tuning: model.right(evaluator) for tuning, model in opened.items()}
    )
    outputs = {
        tuning: output_projections(model, read_set(grafted[tuning].sets, "S", model.weights.space))
        for tuning, model in opened.items()
    }
    layer, head = choose_head(case, outputs["mix"])
    chosen = choose_fact(case, facts)
    texts = read_prompts(bio, qa, facts)
    parts = [
        run_facts(model, tuning, facts, texts, (layer, head), chosen)
        for tuning, model in opened.items()
    ]
    rows = [
        {
            "tuning": tuning,
            "layer": layer,
            "head": head,
            **outputs[tuning].loc[(layer, head)].to_dict(),
            **facts.loc[chosen, ["individual", "relation"]].to_dict(),
            "answer": texts[chosen].answer,
            "right": bool(facts.loc[chosen, tuning]),
        }
        for tuning in opened
    ]
    tokenizer = opened["mix"].tokenizer
    prompt_tokens = pd.concat(
        prompt.tokens(tokenizer).rename_axis("token").reset_index().assign(format=name)
        for name, prompt in texts[chosen].prompts.items()
    )
    write_table(out, pd.DataFrame(rows), CASE, provenance)
    write_table(tokens, prompt_tokens[list(TOKENS)], TOKENS, provenance)
    for name, path, schema in (
        ("attention", attention, ATTENTION),
        ("logits", logits, LENS),
        ("looks", looks, ROLES_ATTENDED),
    ):
        table = pd.concat(table for part in parts for table in part[name])
        write_table(path, table, schema, provenance)
