"""Training as it is done on a GPU gives what a plain loop over examples gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from factrecall.models import chunked_head
from factrecall.training.batches import example_loss, padded
from factrecall.training.execution import Execution
from factrecall.training.launcher import strategy_of
from factrecall.training.loop import train
from factrecall.training.trace import GradientTrace
from factrecall.training.training_log import HISTORY
from tests import synthetic
from tests.gpu.tiny import PEOPLE, VOCABULARY, Tiny, naive_loss, naive_training

pytestmark = pytest.mark.gpu

DATA = synthetic.examples(PEOPLE, VOCABULARY)
RECIPE = synthetic.Recipe(6, 8, 3e-3, warmup=2, micro_batch_tokens=512)
LOSS = list(HISTORY).index("loss")

MODES = {
    "plain": Execution(),
    "packed": Execution(packing=True),
    "checkpointed": Execution(packing=True, checkpointing=True),
    "compiled": Execution(packing=True, compile=True),
    "cpu_offload": Execution(packing=True, optimiser="cpu_offload"),
    "offloaded and checkpointed": Execution(
        packing=True, optimiser="cpu_offload", checkpointing=True
    ),
}


def trained(tiny: Tiny, mode: Execution, precision: str) -> np.ndarray:
    """Return the losses of the updates."""
    strategy = strategy_of(mode, tiny.device)
    whole = tiny.fresh()
    model = strategy.shard(whole.cpu(), tiny.device)
    history = train(
        model,
        DATA,
        RECIPE,  # type: ignore[arg-type]
        0,
        mode=mode,
        strategy=strategy,
        device=tiny.device,
        precision=precision,
    )
    return history[:, LOSS]


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    # Float32 differs by the order of additions; bfloat16 has eight bits, and losses are means of
    # hundreds of tokens.
    [("float32", 2e-4), ("bfloat16", 1e-2)],
)
def test_every_mode_has_the_losses_of_the_naive_loop(
    tiny: Tiny, name: str, precision: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So few that the head's logits are made in chunks.
    monkeypatch.setattr(chunked_head, "LOGITS", 64 * VOCABULARY)
    wanted = naive_training(tiny.fresh(), DATA, RECIPE, 0)
    np.testing.assert_allclose(trained(tiny, MODES[name], precision), wanted, rtol=tolerance)


@pytest.mark.parametrize("where", ["device", "host"])
def test_the_trace_adds_up_the_gradients_of_a_naive_loop(tiny: Tiny, where: str) -> None:
    model, rate = tiny.fresh(), 0.1
    traced = {0: "in", 1: "out"}
    trace = GradientTrace(model, traced, where)  # type: ignore[arg-type]
    wanted: dict[str, torch.Tensor] = {}
    for example in DATA * 2:  # twice, so that sums are added to
        if not (task := trace.task(example.kind, example.individual)):
            continue
        trace.add(task, example_loss(model, padded([example]).to(tiny.device)), rate)
        loss = naive_loss(model, example) / (len(example.tokens) - 1)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for (name, _), g in zip(model.named_parameters(), gradients, strict=True):
            for kind, value in (("signed", g), ("absolute", g.abs())):
                key = f"{task}/{kind}/{name}"
                wanted[key] = wanted.get(key, torch.zeros_like(g)) + rate * value
    assert trace.sums.keys() == wanted.keys()
    for key, value in wanted.items():
        assert trace.sums[key].device.type == ("cpu" if where == "host" else tiny.device.type)
        scale = float(value.abs().max())
        torch.testing.assert_close(trace.sums[key].to(value), value, rtol=1e-3, atol=1e-5 * scale)


def test_a_traced_training_is_the_same_training(tiny: Tiny) -> None:
    mode = Execution(packing=True, trace="host")
    model = tiny.fresh()
    trace = GradientTrace(model, {0: "in", 2: "in", 1: "out"}, mode.trace)
    traced = train(model, DATA, RECIPE, 0, mode=mode, trace=trace)  # type: ignore[arg-type]
    plain = train(tiny.fresh(), DATA, RECIPE, 0, mode=mode)  # type: ignore[arg-type]
    assert sum(trace.counts.values()) > 0
    # Atomic additions of a GPU come in any order.
    np.testing.assert_allclose(traced[:, LOSS], plain[:, LOSS], rtol=1e-3)
