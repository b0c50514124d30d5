"""The sweep over heads, against the same sweep without what makes ours fast, and in two peers.

A random Llama of 12 layers gets a second set of weights at random, one head's slice of a projection
is grafted in a step, and 600 questions are asked at each of the 289 steps. Ours is measured whole.
What does not restart costs the same at every step, so rivals ask eight steps of even distance and
their seconds are scaled up; their verdicts there must be ours. Since a random model knows no fact,
the gold answers are what it generates at the first step to half of the questions, and at the last
step to the others.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from unittest.mock import patch

import numpy as np
import torch

from factrecall.config.model import Scratch
from factrecall.data.tables import make_facts
from factrecall.evaluation import prefix_sharing
from factrecall.evaluation.batching import Answers
from factrecall.evaluation.early_exit import EarlyExit
from factrecall.evaluation.incremental_forward import IncrementalForward
from factrecall.experiments.circuits.sweep import Circuit, rank_nodes
from factrecall.models.architectures import architecture_of
from factrecall.models.forward import Encoded, encode
from factrecall.models.scratch import build_model
from factrecall.models.tokenizers import train_tokenizer
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.sets import ParameterSet
from factrecall.runtime.seeds import generator
from tests.benchmarks.common import MODEL, STUDY
from tests.benchmarks.peers import PEERS, Padded, Step, sweep
from tests.benchmarks.table import Row

SAMPLED, TURNS, SIZE = 8, 2, 64
TOKENS = STUDY.recall.max_eval_tokens
SHAPE = {"layers": 12, "hidden_size": 256, "heads": 8, "key_value_heads": 4, "mlp_size": 688}
NAIVE = "tensors rebuilt by a mask, plain batches, all logits"
UNRESTARTED = "without restart"
UNPACKED = "without restart and shared rows"


class Bench:
    """Two sets of weights, γ, S, the questions, and ways to sweep over them."""

    def __init__(self) -> None:
        assert isinstance(MODEL, Scratch)
        facts = make_facts(STUDY.facts, STUDY.seed)
        texts = [*facts.bio["text"], *facts.qa["text"]]
        self.tokenizer = train_tokenizer(texts, "words", 4096, context=MODEL.context)
        self.model = build_model(MODEL.model_copy(update=SHAPE), self.tokenizer, 0)
        pre = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        draws = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in self.model.parameters():
                p.add_(torch.randn(p.shape, generator=draws), alpha=0.03)
        self.weights = PatchedWeights(self.model, pre)
        everything = ~ParameterSet.empty(self.weights.space)
        self.grafted, self.shared = (
            everything.sample(self.weights.space.size // 100, generator(0, name)) for name in "γS"
        )
        qa = facts.qa[facts.qa["split"] == "out"][:600]
        spans = zip(qa["attribute_start"], qa["terminator_end"], strict=True)
        self.texts = encode(self.tokenizer, list(qa["text"]), [[span] for span in spans])
        self.nodes = Nodes.of(self.model, "attention")
        self.by = rank_nodes(self.nodes, {"shared": self.shared}, 1, generator(0, "orders"))
        self.order = self.by["random", 0]
        with self.weights:
            outside = self.grafted - self.nodes.everything()
            self.ends = [self._held(members) for members in (outside, self.grafted)]
        for parity, end in enumerate(self.ends):
            self._generate(end, parity)
        self.gold = [torch.from_numpy(t.tokens[slice(*t.answers[0])]) for t in self.texts]

    def _generate(self, end: dict[str, torch.Tensor], parity: int) -> None:
        """Let every second text go on as the model would, token by token."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(end)
        for place in range(max(end - start for t in self.texts for start, end in t.answers)):
            padded = Padded(self.texts, SIZE)
            said = padded.said(lambda tokens: model(input_ids=tokens).logits.argmax(-1))
            for text, words in list(zip(self.texts, said, strict=True))[parity::2]:
                if place < len(words):
                    text.tokens[text.answers[0][0] + place] = words[place]

    def _held(self, members: ParameterSet) -> dict[str, torch.Tensor]:
        self.weights.set(members)
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def ours(
        self, nodes: Nodes, order: np.ndarray, texts: list[Encoded], per_step: int = 1
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Sweep as the package does: verdicts of each step, and its CPU seconds."""
        layers = architecture_of(self.model.config).layers_of(self.model)
        right, at = [], [time.process_time()]
        with IncrementalForward(self.model, layers, EarlyExit(texts, TOKENS), 1e9) as asked:
            steps = Circuit(self.weights, asked, nodes, self.grafted).sweep(order, "forward")
            for step in range(-(-len(nodes) // per_step) + 1):
                right.append(steps.at(min(step * per_step, len(nodes))))
                at.append(time.process_time())
        return right, np.diff(at)

    def members(self) -> Callable[[int], np.ndarray]:
        """Return what gives the flat indices of θtask with so many nodes grafted."""
        turn = np.empty(len(self.order), dtype=np.int64)
        turn[self.order] = np.arange(len(self.order))
        inside = self.grafted & self.nodes.everything()
        turns = np.concatenate([turn[node] for _, _, node in self.nodes.members(inside)])
        outside = (self.grafted - inside).index
        return lambda step: np.sort(np.concatenate([outside, inside.index[turns < step]]))

    def naive(self) -> Step:
        """Rebuild every tensor by a mask, then ask the texts 64 at a time as they come."""
        model, padded, members = copy.deepcopy(self.model), Padded(self.texts, SIZE), self.members()
        pre, task, space = self.weights.pre, dict(self.weights.task), self.weights.space

        def step(count: int) -> np.ndarray:
            mask = torch.zeros(space.size, dtype=torch.bool)
            mask[torch.from_numpy(members(count).astype(np.int64))] = True
            state = {
                name: torch.where(part.view(pre[name].shape), task[name], pre[name])
                for name, part in zip(space.names, mask.split(space.sizes), strict=True)
            }
            model.load_state_dict(state)
            return padded.right(lambda t: model(input_ids=t).logits.argmax(-1), self.gold)

        return step

    def unrestarted(self, answers: Answers) -> Step:
        """Write what differs, and ask from the first layer on."""
        members = self.members()

        def step(count: int) -> np.ndarray:
            self.weights.set(ParameterSet(self.weights.space, members(count)))
            return answers.right(self.model)

        return step


def bench_circuits() -> list[Row]:
    """Sweep in turns, whole with ours and at sampled steps with the others."""
    bench = Bench()
    nodes, answers = bench.nodes, Answers.of(bench.texts, TOKENS)
    with patch(
        "factrecall.evaluation.batching.pack",
        lambda t, _: [prefix_sharing.Row((i,), 0) for i in range(len(t))],
    ):
        unpacked = Answers.of(bench.texts, TOKENS)
    ratios: dict[str, list[float]] = {}
    thirds = []
    steps = list(map(int, np.linspace(0, len(nodes), SAMPLED).round()))
    with bench.weights:
        rivals = {
            NAIVE: bench.naive(),
            UNRESTARTED: bench.unrestarted(answers),
            UNPACKED: bench.unrestarted(unpacked),
        }
        common = nodes.table.iloc[bench.order], bench.ends, bench.texts, bench.gold
        for peer, (module, _) in PEERS.items():
            if find_spec(module):
                rivals[peer] = sweep(peer, bench.model, bench.tokenizer, *common)
        for _ in range(TURNS):
            right, seconds = bench.ours(nodes, bench.order, bench.texts)
            thirds.append(_last_third(seconds, nodes, bench.order))
            print(f"     ours: {seconds.sum():.0f} s, {seconds.mean():.2f} s a step", flush=True)
            for name, rival in rivals.items():
                begin = time.process_time()
                found = [rival(step) for step in steps]
                spent = (time.process_time() - begin) / SAMPLED
                assert all(map(np.array_equal, found, (right[s] for s in steps))), name
                ratios.setdefault(name, []).append(spent / seconds.mean())
                print(f"     {name}: {spent:.2f} s a step", flush=True)
        finer = _finer(bench)
    what = "sweep over heads, a step"
    rows = [Row.of(what, NAIVE, ratios[NAIVE], 3)]
    rows += [Row.of(what, name, ratios[name]) for name in (UNPACKED, UNRESTARTED)]
    for peer, (_, distribution) in PEERS.items():
        if peer in ratios:
            rows.append(Row.of(what, peer, ratios[peer], 5, version=version(distribution)))
        else:
            rows.append(Row.missing(what, peer, 5))
    return [
        *rows,
        Row.of("… a layer passed, last third of steps", "the first", thirds, 1.1, least=False),
        Row.of("288 steps over columns, a step", "72 steps", finer, 1.1, least=False),
    ]


def _last_third(seconds: np.ndarray, nodes: Nodes, order: np.ndarray) -> float:
    """Compare seconds a layer passed; what a step passes is the lot of its order, not its place."""
    layers = nodes.table["layer"].to_numpy()
    passed = layers.max() + 1 - layers[order]
    third = len(order) // 3
    first, last = (
        seconds[1:][part].sum() / passed[part].sum() for part in (slice(third), slice(-third, None))
    )  # step 0, a whole pass, belongs to no third
    return float(last / first)


def _finer(bench: Bench) -> list[float]:
    """Compare seconds a step in four times as many steps, at 60 questions: composing shows more."""
    nodes, texts = Nodes.of(bench.model, "column"), bench.texts[:60]
    order = rank_nodes(nodes, {}, 1, generator(0))["random", 0]

    def mean(steps: int) -> float:
        return float(bench.ours(nodes, order, texts, len(nodes) // steps)[1][1:].mean())

    return [mean(288) / mean(72) for _ in range(TURNS)]
