"""What the data of a run say against the paper's reading of it.

The paper explains the gap between the tunings by how facts are stored: its Stage-tuned model
still knows the biographies, and its BIO-tuned model answers nothing before it has met questions.
Where a run shows otherwise, the report says so beside the verdict.
"""

from __future__ import annotations

import pandas as pd

from factrecall.report.summaries import by_seed, spread

LOST = 0.05
"""Recall of biographies that the second stage may cost before it counts as forgetting."""


def cautions(recall: pd.DataFrame) -> list[str]:
    """Return sentences on a model's recall, none if the run looks as the paper's does.

    Parameters
    ----------
    recall : DataFrame
        One model's rows of the table of recall.
    """
    found = spread(by_seed(recall)).set_index(["tuning", "split"])["mean"]

    def percent(tuning: str, split: str) -> str:
        return f"{100 * found[tuning, split]:.1f}\N{NO-BREAK SPACE}%"

    said = []
    if found["bio", "bio"] - found["stage", "bio"] > LOST:
        said.append(
            f"The second stage also forgets: it takes recall of biographies from "
            f"{percent('bio', 'bio')} to {percent('stage', 'bio')} (in the paper from 98.7 % to "
            "97.2 % for Llama). Part of the difference between the tunings is therefore loss of "
            "facts, which the paper rules out for its models."
        )
    if found["bio", "qa_out"] > found["majority", "qa_out"] + LOST:
        compared = "more" if found["bio", "qa_out"] > found["stage", "qa_out"] else "fewer"
        said.append(
            f"The BIO-tuned model answers {percent('bio', 'qa_out')} of the unseen questions with "
            f"no question of the study trained on, {compared} than the Stage-tuned one (in the "
            "paper 0.2 %). The model it starts from has met questions, about other people."
        )
    return said
