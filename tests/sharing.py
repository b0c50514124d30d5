"""Trainings that several processes share, beside plain ones: run by torchrun, or by one process.

``torchrun --standalone --nproc-per-node 2 -m tests.sharing FILE`` writes what it found to a JSON
file. Everything is in float64, so that what differs is more than an order of additions.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.distributed.tensor import DTensor

from factrecall.config.facts import Facts
from factrecall.data.tables import make_facts
from factrecall.models.scratch import build_model
from factrecall.training.examples import training_set
from factrecall.training.execution import Execution
from factrecall.training.fully_sharded import FullySharded
from factrecall.training.loop import train
from factrecall.training.trace import GradientTrace
from tests.conftest import ARCHITECTURES, SMALL_POOLS, recipe, scratch, tokenizer_for

CPU = torch.device("cpu")
KEEP = 500

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "whole batches": ({}, {}),
    "small passes": ({"micro_batch_tokens": 64}, {"checkpointing": True}),
    "a batch of one": ({"batch_size": 1, "micro_batch_tokens": 64}, {"trace": "host"}),
    "rows, offloaded": ({"batch_size": 7}, {"packing": True, "optimiser": "cpu_offload"}),
}
"""Changes of recipe and mode. Passes and examples that cannot be dealt out evenly leave processes
idle."""

TIED = {
    "whole batches": False,
    "small passes": True,
    "a batch of one": False,
    "rows, offloaded": True,
}
"""Whether the model's embeddings are tied."""


def compare(architecture: str, case: str, processes: int) -> dict[str, float]:
    """Train the same model plainly and as several processes share it; return what differs.

    Returns
    -------
    dict of str to float
        The greatest difference in numbers of the history (losses, norm), in weights and in sums of
        the trace (as a share of the sum's greatest), the smallest share of rankings that agrees,
        and whether counts and names are equal. Empty but in the first process.
    """
    facts = make_facts(Facts(people=16, pretrain_people=4, pools=SMALL_POOLS), seed=3)
    tokenizer = tokenizer_for(facts)
    settings = scratch(architecture, tie_embeddings=TIED[case])
    plain = build_model(settings, tokenizer, seed=1).double()
    recipe_changes, mode_changes = CASES[case]
    steps, mode = recipe(updates=4, **recipe_changes), Execution(gpus=processes, **mode_changes)
    examples = training_set("mix", steps, facts.bio, facts.qa, tokenizer)
    people = {e.individual: "out" if e.individual % 4 == 0 else "in" for e in examples}

    strategy = FullySharded(mode, CPU)
    model = strategy.shard(copy.deepcopy(plain), CPU)
    trace = GradientTrace(model, people, mode.trace, strategy)
    mine = sum(strategy.local(p).numel() for p in model.parameters())
    split = all(isinstance(p, DTensor) for p in model.parameters())
    split &= mine <= 1.1 / processes * sum(p.numel() for p in plain.parameters())
    found = train(model, examples, steps, 5, trace=trace, mode=mode, strategy=strategy, device=CPU)
    whole, ranking = strategy.gather(model), trace.ranking(KEEP)
    sums = strategy.on_rank0(trace.sums, dict)
    if sums is None or ranking is None:
        return {}
    watched = GradientTrace(plain, people)
    history = train(plain, examples, steps, 5, trace=watched)
    expected = watched.ranking(KEEP)
    weights = dict(whole.named_parameters())
    assert expected is not None
    return {
        "history": float(np.nanmax(np.abs(found - history)[:, 2:])),
        "weights": max(
            float((weights[name] - p).detach().abs().max()) for name, p in plain.named_parameters()
        ),
        "sums": max(
            float((sums[k] - s).abs().max() / s.abs().max()) for k, s in watched.sums.items()
        ),
        "ranked": min(
            len(np.intersect1d(ranking[k].numpy(), e.numpy())) / len(e)
            for k, e in expected.items()
            if k.endswith("index")
        ),
        "equal": float(
            split
            and trace.counts == watched.counts
            and list(weights) == [name for name, _ in plain.named_parameters()]
            and sums.keys() == watched.sums.keys()
        ),
    }


def main(out: Path) -> None:
    """Make all comparisons."""
    torch.set_num_threads(1)
    processes = FullySharded(Execution(gpus=2), CPU).count
    found = {
        f"{architecture}, {case}": compare(architecture, case, processes)
        for architecture in ARCHITECTURES
        for case in CASES
    }
    if distributed.get_rank() == 0:
        out.write_text(json.dumps(found), encoding="utf-8")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
