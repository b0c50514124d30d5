"""The parts of the GPU benchmark: each goes through the package's own functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from factrecall.evaluation.batching import Answers
from factrecall.evaluation.early_exit import EarlyExit
from factrecall.evaluation.incremental_forward import IncrementalForward
from factrecall.experiments.circuits.sweep import Circuit, rank_nodes
from factrecall.experiments.grafting import dual_averaging
from factrecall.models.architectures import architecture_of
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.sets import ParameterSet
from factrecall.runtime.seeds import generator
from factrecall.training.batches import batch_indices
from factrecall.training.execution import Execution
from factrecall.training.launcher import strategy_of
from factrecall.training.loop import train
from factrecall.training.trace import GradientTrace
from tests import synthetic
from tests.benchmarks.gpu_bed import Bench, Found, precision

SEED = 0
WARM = 3
"""Updates before those that are timed: kernels are chosen, compiled and loaded in them."""


def matrices(bench: Bench) -> Iterator[Found]:
    """Time products of large matrices: what this device can do at most, by precision."""
    size = bench.scale.matrix
    kinds = {"bfloat16": "highest", "tf32": "high", "float32": "highest"}
    if bench.device.type != "cuda":
        del kinds["tf32"]
    for name, products in kinds.items():
        dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
        one, other = (torch.randn(size, size, device=bench.device).to(dtype) for _ in range(2))
        several = partial(_several, one, other, torch.empty_like(one))
        with precision(products):
            several(3)
            spent = bench.seconds(partial(several, 10))
        rate = 10 * 2 * size**3 / spent
        if name == "bfloat16":
            bench.rate = rate
        yield Found("matrices", f"{name}, {size} x {size}", rate / 1e12, "TFLOP/s")


def _several(one: torch.Tensor, other: torch.Tensor, out: torch.Tensor, times: int) -> None:
    for _ in range(times):
        torch.mm(one, other, out=out)


def training(bench: Bench) -> Iterator[Found]:
    """Train on biographies and questions as the paper's mixed training does, in the plan's mode."""
    scale = bench.scale
    mode = bench.expected.mode(scale.micro_batch_tokens, tasks=0)
    bench.clear()
    bench.updates[mode], tokens = spent, tokens = _train(bench, mode)
    passes = math.ceil(tokens / scale.micro_batch_tokens)
    told = bench.expected.training_memory(mode, round(tokens / passes), tasks=0)
    peak = list(bench.peak("training", predicted=told))
    yield Found(
        "training",
        f"an update, {scale.batch} examples",
        spent,
        "s",
        predicted=bench.expected.training(mode, tokens, passes, tokens / scale.batch),
        note=_said(mode),
    )
    yield Found("training", "tokens", tokens / spent, "a second")
    if bench.rate:
        done = bench.expected.operations(tokens, tokens / scale.batch)
        share = 100 * done / spent / bench.rate
        yield Found("training", "of the matrix rate", share, "%", goal=45, least=True)
    yield from peak


def tracing(bench: Bench) -> Iterator[Found]:
    """Train with two traced examples in each update, and compare."""
    tokens = bench.scale.micro_batch_tokens
    mode = bench.expected.mode(tokens, tasks=3)
    if mode not in bench.updates:
        bench.updates[mode], _ = _train(bench, mode)
    bench.clear()
    each = (_train(bench, mode, traced=True)[0] - bench.updates[mode]) / 2
    yield Found("trace", "a traced example", each, "s", note=_said(mode))
    yield Found("trace", "… in updates without", each / bench.updates[mode], "")
    told = bench.expected.training_memory(mode, tokens, tasks=3)
    yield from bench.peak("trace", predicted=told)


def recall(bench: Bench) -> Iterator[Found]:
    """Ask six questions of each person."""
    scale = bench.scale
    texts = synthetic.questions(scale.people, bench.vocabulary)
    begin = bench.now()
    answers = Answers.of(texts, scale.max_eval_tokens, bench.device)
    laid = bench.now() - begin
    length = float(np.mean([len(text.tokens) for text in texts]))
    predicted = bench.expected.asking(answers.tokens, _targets(answers), length, 1.0)
    bench.clear()
    first = bench.seconds(lambda: answers.right(bench.model))
    again = bench.seconds(lambda: answers.right(bench.model))
    what = f"{len(texts):,} questions"
    yield Found("recall", what, again, "s", goal=2.5, predicted=predicted, note=bench.asks)
    yield Found("recall", "the first time", first, "s", note=f"and {laid:.2g} s to batch them")
    if bench.device.type == "cuda":
        with precision("highest"):
            spent = bench.seconds(lambda: answers.right(bench.model))
        yield Found("recall", what, spent, "s", note="float32")
        with torch.autocast("cuda", torch.bfloat16):
            answers.right(bench.model)
            spent = bench.seconds(lambda: answers.right(bench.model))
        yield Found("recall", what, spent, "s", note="bfloat16 autocast")
    yield from bench.peak("recall")


def interventions(bench: Bench) -> Iterator[Found]:
    """Sweep over heads in random order; steps of even distance are timed."""
    scale, model = bench.scale, bench.model
    model.eval()
    with torch.no_grad():
        draws = torch.Generator(bench.device).manual_seed(1)
        pre = {
            name: p + 0.1 * p.std() * _like(p, draws) if p.ndim > 1 else p.clone()
            for name, p in model.named_parameters()
        }
    texts = synthetic.questions(scale.people, bench.vocabulary)
    bench.clear()
    nodes = Nodes.of(model, "attention")
    with PatchedWeights(model, pre) as weights:
        everything = ~ParameterSet.empty(weights.space)
        grafted = everything.sample(round(scale.grafted * weights.space.size), generator(0, "γ"))
        held = bench.seconds(lambda: weights.set(grafted))
        texts = _half_right(bench, texts)
        ((_, order),) = rank_nodes(nodes, {}, 1, generator(0, "orders")).items()
        layers = architecture_of(model.config).layers_of(model)
        asked = EarlyExit(texts, scale.max_eval_tokens, bench.device)
        with IncrementalForward(model, layers, asked, 20e9) as restart:
            sweep = Circuit(weights, restart, nodes, grafted).sweep(order, "forward")
            whole = bench.seconds(lambda: sweep.at(0))
            spent, right = [], 0.0
            for step in np.linspace(1, len(nodes), scale.steps).round().astype(int).tolist():
                sweep.at(step - 1)
                spent.append(bench.seconds(lambda s=step: sweep.at(s)))  # type: ignore[misc]
                right += float(sweep.at(step).mean()) / scale.steps
    yield Found(
        "interventions",
        f"a step over heads, {len(texts):,} questions",
        float(np.mean(spent)),
        "s",
        goal=1.5,
        predicted=_half(bench, asked.answers),
        note=f"{min(spent):.2g} to {max(spent):.2g} in {scale.steps} steps, {right:.0%} right",
    )
    yield Found("interventions", "the first step, whole", whole, "s")
    yield Found("interventions", f"holding {len(grafted):,} parameters", held, "s")
    yield from bench.peak("interventions")


def grafting(bench: Bench) -> Iterator[Found]:
    """Fit a mask: one update along the path from θpre, and three of the mask."""
    scale, model = bench.scale, bench.model
    model.eval()
    with torch.no_grad():
        draws = torch.Generator(bench.device).manual_seed(2)
        pre = {n: p + 0.1 * p.std() * _like(p, draws) for n, p in model.named_parameters()}
    asked = scale.people  # as many questions as the paper's study has people
    texts = synthetic.questions(asked, bench.vocabulary)[:: len(synthetic.ANSWERS)]
    questions = dual_averaging.Questions(
        texts, scale.max_eval_tokens, bench.device, generator(0, "graft")
    )
    settings: Any = SimpleNamespace(method="dual_averaging", updates=1, batch_size=asked, step=0.3)
    laid = Answers.of(texts, scale.max_eval_tokens)
    length = float(np.mean([len(text.tokens) for text in texts]))
    size = round(scale.grafted * sum(p.numel() for p in model.parameters()))
    at: list[float] = []
    bench.clear()
    with PatchedWeights(model, pre) as weights, patch.object(dual_averaging, "PATH_POINTS", 1):
        nothing = ParameterSet.empty(weights.space)
        dual_averaging.dual_averaging(
            settings,
            dual_averaging.MaskProblem(
                weights, model, questions, [size], nothing, lambda _: at.append(bench.now())
            ),
        )
    path, *updates = np.diff(at).tolist()
    yield Found(
        "grafting",
        f"an update, {asked:,} questions",
        float(np.mean(updates)),
        "s",
        predicted=bench.expected.descending(laid.tokens, _targets(laid), length),
    )
    yield Found("grafting", "an update along the path", path, "s")
    yield from bench.peak("grafting")


def _train(bench: Bench, mode: Execution, traced: bool = False) -> tuple[float, float]:
    """Return seconds and tokens of an update."""
    scale = bench.scale
    recipe: Any = synthetic.Recipe(
        WARM + scale.updates, scale.batch, 1e-5, micro_batch_tokens=scale.micro_batch_tokens
    )
    # Each example is in one update, and two of each update are traced people's.
    data = synthetic.examples(scale.batch * recipe.updates, bench.vocabulary)
    data = data[: scale.batch * recipe.updates]
    individuals = {}
    for update in range(recipe.updates):
        for i in batch_indices(len(data), scale.batch, update, SEED)[:2].tolist():
            data[i] = replace(data[i], individual=-1 - i)
            individuals[-1 - i] = "in" if data[i].kind == "qa" or i % 4 == 0 else "out"
    strategy = strategy_of(mode, bench.device)
    if mode.optimiser == "cpu_offload":
        # Its weights stay in main memory, and it is of no use to other parts afterwards.
        bench.__dict__.pop("model", None)
        bench.clear()
        model = strategy.shard(synthetic.build(scale.shape, "cpu"), bench.device)
    else:
        model = bench.model
    trace = GradientTrace(model, individuals, mode.trace, strategy) if traced else None
    at: dict[int, float] = {}

    def watch(done: int, _: float) -> None:
        if done in (WARM, recipe.updates):
            at[done] = bench.now()

    history = train(
        model,
        data,
        recipe,
        SEED,
        trace=trace,
        mode=mode,
        strategy=strategy,
        device=bench.device,
        watch=watch,
    )
    tokens = history[WARM:, -1].sum() / scale.updates
    return (at[recipe.updates] - at[WARM]) / scale.updates, float(tokens)


def _half_right(bench: Bench, texts: list[Any]) -> list[Any]:
    """Let every second question have the answer that the model gives, token by token."""
    gold = [text.tokens[slice(*text.answers[0])] for text in texts]
    for place in range(max(map(len, gold))):
        asked = synthetic.answered(gold, texts)
        answers = Answers.of(asked, bench.scale.max_eval_tokens, bench.device)
        said: list[list[int]] = [[] for _ in texts]
        with torch.inference_mode():
            for batch in answers.batches:
                best = batch.logits(bench.model).argmax(-1).tolist()
                for number, token in zip(batch.answer.tolist(), best, strict=True):
                    said[number].append(token)
        for number in range(0, len(texts), 2):
            if place < len(gold[number]):
                gold[number][place] = said[number][place]
    return synthetic.answered(gold, texts)


def _targets(answers: Answers) -> float:
    """Return the number of tokens that are predicted."""
    return float(sum(len(batch.gold) for batch in answers.batches))


def _half(bench: Bench, answers: Answers) -> float | None:
    """Return what the plan says of a step: in random order half of the layers are passed."""
    layers = bench.expected.shape.layers
    depth = (layers + 1) / 2 / layers
    length = answers.tokens / len(answers.places)
    return bench.expected.asking(answers.tokens, _targets(answers), length, depth)


def _like(p: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    return torch.randn(p.shape, generator=draws, device=p.device, dtype=p.dtype)


def _said(mode: Execution) -> str:
    return ", ".join(f"{key}={value}" for key, value in asdict(mode).items())


PARTS: Mapping[str, tuple[Callable[[Bench], Iterator[Found]], float]] = {
    "matrices": (matrices, 30),
    "training": (training, 150),
    "recall": (recall, 60),
    "interventions": (interventions, 150),
    "trace": (tracing, 120),
    "grafting": (grafting, 90),
}
"""What is measured, the most telling first, and the seconds that it may take."""
