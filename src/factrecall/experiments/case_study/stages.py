"""The stage of the attention case study: one head in the grafted models of both tunings.

The head is the output projection with most members of S in the Mix-tuned model. The fact is one
that the grafted Mix-tuned model recalls and the grafted Stage-tuned one does not (paper, section
4.2 and appendix A.7.2; docs/method.md). Of this fact the stage keeps the head's attention pattern
and the logit lens of its output at the last token, in a statement and in a question. One case
proves little, so it also keeps the last token's attention for every fact that masks were fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.runs import models
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, Input, Output, stage

if TYPE_CHECKING:
    from factrecall.experiments.case_study.settings import CaseStudySettings


@dataclass(frozen=True)
class GraftedFiles:
    """The files of one tuning: its grafted model (see `open_grafted`), and its shared sets."""

    tuning: str
    tuned: Path
    sets: Path
    masks: Path
    outcomes: Path


@stage(
    "attention-case-study",
    settings=lambda study: {
        "case": study.circuits.case,
        "individuals": study.grafting.fit_individuals,
    },
    libraries=EXPERIMENTS,
    per=models,
    device="model",
)
def attention_case_study(
    job: Job,
    *,
    base: Input,
    grafted: list[GraftedFiles],
    bio: Input,
    qa: Input,
    out: Output,
    tokens: Output,
    attention: Output,
    logits: Output,
    looks: Output,
    case: CaseStudySettings,
    individuals: int | None,
    max_eval_tokens: int,
    first_study_seed: int,
) -> None:
    """Study one head and one fact in both grafted models of a seed.

    Parameters
    ----------
    grafted
        the files of one grafted model; give it once for mix and once for stage
    out
        the table of the case to write
    tokens
        the table of its prompts to write
    attention
        the table of the head's attention to write
    logits
        the table of the logit lens to write
    looks
        the table of where the head attends for every fact to write
    """
    import pandas as pd

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

    paths = {one.tuning: one for one in grafted}
    if set(paths) != {"mix", "stage"}:
        remedy = "give it once for mix and once for stage"
        raise FactRecallError("--grafted", f"it names {', '.join(paths)}", remedy)
    opened = {
        tuning: open_grafted(base, files.tuned, files.masks, files.outcomes, job.device)
        for tuning, files in paths.items()
    }
    evaluator = opened["mix"].questions(qa, individuals, None, first_study_seed, max_eval_tokens)
    facts = evaluator.rows[["individual", "relation"]].assign(
        **{tuning: model.right(evaluator) for tuning, model in opened.items()}
    )
    outputs = {
        tuning: output_projections(model, read_set(paths[tuning].sets, "S", model.weights.space))
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
    job.write(out, pd.DataFrame(rows), CASE)
    job.write(tokens, prompt_tokens[list(TOKENS)], TOKENS)
    for name, path, schema in (
        ("attention", attention, ATTENTION),
        ("logits", logits, LENS),
        ("looks", looks, ROLES_ATTENDED),
    ):
        table = pd.concat(table for part in parts for table in part[name])
        job.write(path, table, schema)
