"""Continuity: whether an attribute that is right stays right as more nodes are grafted.

If the MLP stores facts, an attribute that is once right stays so while nodes are grafted (paper,
appendix A.6.1 and table 4; docs/method.md). The ratios need a baseline: they are also taken of
outcomes shuffled, step by step, between the people of one relation. These have the same curves,
and no attribute of theirs stays right by itself. Those right from the start are shuffled apart from
the others: most of them need no node.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

CONTINUITY = {
    "model": "string",
    "tuning": "string",
    "seed": "int32",
    "kind": "string",
    "shuffled": "bool",
    "individual": "int32",
    "relation": "string",
    "evaluated": "int32",
    "right": "int32",
    "first": "int32",
    "last": "int32",
    "streak": "int32",
    "overall": "float64",
    "longest": "float64",
    "retained": "bool",
}
"""Columns of ``tables/continuity.parquet``: a row an attribute that is right at any step.

Of forward sweeps ranked by S. Of the `evaluated` steps `right` are right, `first` and `last` are
the ends of these, counted from 0, and `streak` the most in a row. `overall` and `longest` are right
and streak over the steps from first to last; `retained`: the last step of all is right. `shuffled`
rows are of outcomes shuffled between people.
"""


def measure_continuity(right: np.ndarray, questions: pd.DataFrame) -> pd.DataFrame:
    """Measure every attribute that is right at any step.

    Parameters
    ----------
    right : ndarray of bool, shape (steps, questions)
        Outcomes of a forward sweep, in the order of its steps.
    questions : DataFrame
        Columns ``individual`` and ``relation``.

    Returns
    -------
    DataFrame
        Columns of ``CONTINUITY`` from `individual` on.
    """
    steps = len(right)
    times = right.sum(0)
    first = right.argmax(0)
    last = steps - 1 - right[::-1].argmax(0)
    run = np.zeros(right.shape[1], dtype=np.int64)
    streak = np.zeros_like(run)
    for outcomes in right:
        run = np.where(outcomes, run + 1, 0)
        np.maximum(streak, run, out=streak)
    window = np.maximum(last - first + 1, 1)
    table = questions[["individual", "relation"]].assign(
        evaluated=steps,
        right=times,
        first=first,
        last=last,
        streak=streak,
        overall=times / window,
        longest=streak / window,
        retained=right[-1],
    )
    return table[times > 0]


def shuffle_outcomes(
    right: np.ndarray, questions: pd.DataFrame, rng: np.random.Generator
) -> np.ndarray:
    """Shuffle outcomes between people, anew at every step.

    They stay within a relation, and within those who are right, or wrong, at the first step.
    """
    result = right.copy()
    for columns in questions.groupby(["relation", right[0]]).indices.values():
        for row in result:
            row[columns] = rng.permutation(row[columns])
    return result
