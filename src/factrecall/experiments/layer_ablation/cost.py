"""Cost of layer-wise ablation: two sets a layer, two outside the layers, and none and all of S."""

from factrecall.cost.common import tables_cost
from factrecall.experiments.ablation.cost import ablation_cost

COSTS = {
    "ablate-layers": lambda context: ablation_cost(context, 2 * context.model.shape.layers + 4),
    "summarise-layer-ablation": tables_cost,
}
