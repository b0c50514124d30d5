"""The stages of layer-wise ablation (not in the paper): one model, and all of a study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from factrecall.runs import RUN, Evaluation, histories
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, TABLES, Input, Output, stage

ALL = -2
"""In the column `layer`: all parameters; -1 are those outside the layers."""

RESET = {"layer": "int32", "ablated": "string"}
DROP = {"drop": "float64", "low": "float64", "high": "float64"}
LAYER_ABLATION = {**RUN, "split": "string", **RESET, **DROP}
"""Columns of ``tables/layer_ablation.parquet``: the accuracy lost, with its 95 % bootstrap interval
over people; seed -1 are all seeds together."""


@stage(
    "ablate-layers",
    settings=lambda study: {"tokens": study.recall.max_eval_tokens, "study_seed": study.seed},
    libraries=EXPERIMENTS,
    per=histories,
    device="model",
)
def ablate_layers(
    job: Job, *, base: Input, tuned: Input, seed: int, sets: Input, bio: Input, qa: Input,
    out: Output, tokens: int, study_seed: int,
) -> None:  # fmt: skip
    """Evaluate a fine-tuned model with each layer's shared parameters reset to θpre, in turn.

    Parameters
    ----------
    out
        the per-example table to write
    """
    from factrecall.evaluation.exact_match import PER_EXAMPLE
    from factrecall.experiments.ablation.compute import evaluate_resets
    from factrecall.parameters.sets import ParameterSet
    from factrecall.runtime.seeds import generator

    def resets(shared: ParameterSet, _: Any) -> Iterator[tuple[dict[str, Any], ParameterSet]]:
        yield {"layer": ALL, "ablated": "none"}, ParameterSet.empty(shared.space)
        yield {"layer": ALL, "ablated": "shared"}, shared
        rng, tensors = generator(study_seed, "layer-ablation", seed), defaultdict(list)
        for name in shared.space.names:
            tensors[shared.space.place(name)[0]].append(name)
        for layer, names in tensors.items():
            whole = ParameterSet.tensors(shared.space, names)
            own = whole & shared
            yield {"layer": layer, "ablated": "shared"}, own
            yield {"layer": layer, "ablated": "random"}, whole.sample(len(own), rng)

    examples = evaluate_resets(job, (base, tuned), (bio, qa), sets, tokens, resets)
    job.write(out, examples, {**RESET, **PER_EXAMPLE})


@stage("summarise-layer-ablation", settings=lambda s: {"study_seed": s.seed}, libraries=TABLES)
def summarise_layer_ablation(
    job: Job, *, evaluations: list[Evaluation], out: Output, study_seed: int
) -> None:
    """Count what resetting each layer's shared parameters costs.

    Parameters
    ----------
    evaluations
        the per-example table of a model, tuning and seed; give one for each
    out
        the table to write
    """
    import pandas as pd

    from factrecall.evaluation.exact_match import PER_EXAMPLE
    from factrecall.experiments.common.summaries import read_runs
    from factrecall.runtime.seeds import generator
    from factrecall.runtime.statistics import TOGETHER, paired_interval

    examples = read_runs(evaluations, {**RESET, **PER_EXAMPLE})
    rows = []
    for (model, tuning, split), part in examples.groupby(["model", "tuning", "split"]):
        index = ["seed", "individual", "relation"]
        right = part.pivot(index=index, columns=list(RESET), values="correct").astype(int)
        lost = right.rsub(right[ALL, "none"], axis=0)
        runs = {TOGETHER: lost, **{s: lost.xs(s, drop_level=False) for s in lost.index.levels[0]}}
        for (seed, run), reset in ((r, c) for r in runs.items() for c in lost):
            rng = generator(study_seed, "layer-ablation", model, tuning, split, seed, *reset)
            rows.append((model, tuning, seed, split, *reset, *paired_interval(run[reset], rng)))
    job.write(out, pd.DataFrame(rows, columns=list(LAYER_ABLATION)), LAYER_ABLATION)
