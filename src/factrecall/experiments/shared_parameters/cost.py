"""Cost of selecting shared parameters."""

from __future__ import annotations

from factrecall.cost.common import tables_cost
from factrecall.cost.evaluation import JobContext
from factrecall.cost.job_cost import JobCost
from factrecall.cost.memory import BARE, Memory
from factrecall.cost.training import KEPT, RANKED

ENTRY = 32.0  # bytes of main memory of a kept parameter
SORTS = 8  # sorts of kept parameters for each influence: two pairs of two, and their union


def selection_cost(context: JobContext) -> JobCost:
    """Return the cost of selecting the shared parameters of a model."""
    keep = context.kept
    # Above 10^9 parameters rankings are as long as before, and so is what is written.
    return JobCost(
        Memory({}, {"process": BARE, "rankings": ENTRY * keep}),
        sorted=3.0 * SORTS * keep,
        read=3 * RANKED * KEPT * keep,
        written=4.0 * 1.5 * keep,
    )


COSTS = {"select-shared": selection_cost, "summarise-shared": tables_cost}
