"""A fast sweep against a naive one, at every step and for every question."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from factrecall.evaluation.early_exit import EarlyExit
from factrecall.evaluation.incremental_forward import IncrementalForward
from factrecall.experiments.circuits.sweep import Circuit, rank_nodes
from factrecall.experiments.circuits.tables import DIRECTIONS, Direction
from factrecall.models.architectures import architecture_of
from factrecall.models.forward import Encoded, encode
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.sets import ParameterSet
from factrecall.runtime.seeds import generator
from factrecall.training.examples import training_set
from factrecall.training.loop import train
from factrecall.vocabulary import NODE_KINDS, NodeKind
from tests.conftest import Tiny, recipe, scratch, tokenizer_for
from tests.unit.test_patched_weights import naive, weights_of


@dataclass
class Case:
    """Two sets of weights between which answers change, a mask and questions."""

    architecture: str
    model: torch.nn.Module
    bare: torch.nn.Module
    pre: dict[str, torch.Tensor]
    task: dict[str, torch.Tensor]
    texts: list[Encoded]
    shared: ParameterSet
    mask: ParameterSet

    @contextmanager
    def circuit(self, kind: NodeKind, memory: float = 1e9) -> Iterator[Circuit]:
        nodes = Nodes.of(self.model, kind)
        layers = architecture_of(self.model.config).layers_of(self.model)
        asked_ = EarlyExit(self.texts, 400)
        with (
            PatchedWeights(self.model, self.pre) as weights,
            IncrementalForward(self.model, layers, asked_, memory) as asked,
        ):
            yield Circuit(weights, asked, nodes, self.mask)

    def naive(self, on: ParameterSet) -> np.ndarray:
        """Compose a model anew and ask it text by text, everything computed everywhere."""
        model = copy.deepcopy(self.bare)  # which nothing else touches
        dense = naive(on.space, on, self.pre, self.task)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(dense[name])
            right = []
            for text in self.texts:
                said = model(torch.from_numpy(text.tokens)[None]).logits[0].argmax(-1)
                for first, last in text.answers:
                    gold = torch.from_numpy(text.tokens[first:last])
                    right.append(bool((said[first - 1 : last - 1] == gold).all()))
        return np.array(right)


@pytest.fixture(scope="module", params=["llama", "gpt_neox"])
def case(request: pytest.FixtureRequest) -> Case:
    """A model of three layers, trained until it is right at times, its MLP the more."""
    from factrecall.config.facts import Facts
    from factrecall.data.tables import make_facts
    from factrecall.models.scratch import build_model
    from tests.conftest import SMALL_POOLS

    facts = make_facts(Facts(people=16, pretrain_people=4, pools=SMALL_POOLS), seed=3)
    tokenizer = tokenizer_for(facts)
    model = build_model(scratch(request.param, layers=3), tokenizer, seed=1)
    pre = weights_of(model)
    settings = recipe(updates=120, batch_size=16, learning_rate=6e-3)
    train(model, training_set("mix", settings, facts.bio, facts.qa, tokenizer), settings, 0)
    model.eval()
    qa = facts.qa[facts.qa["split"] == "in"]
    spans = zip(qa["attribute_start"], qa["terminator_end"], strict=True)
    texts = encode(tokenizer, list(qa["text"]), [[s] for s in spans])
    with PatchedWeights(model, pre) as weights:
        shared = weights.largest_change(weights.space.size // 4)
        # Most of the parameters, so that answers are right and nodes matter.
        mask = shared | (~shared).sample(weights.space.size // 2, generator(0))
    bare = copy.deepcopy(model)
    return Case(request.param, model, bare, pre, weights_of(model), texts, shared, mask)


def test_the_case_tells_right_from_wrong(case: Case) -> None:
    whole = case.naive(case.mask)
    assert whole.mean() > 0.1
    assert not (case.naive(ParameterSet.empty(case.mask.space)) == whole).all()


@pytest.mark.parametrize("kind", NODE_KINDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_step_is_a_fresh_model_per_question(
    case: Case, kind: NodeKind, direction: Direction
) -> None:
    seen = []
    with case.circuit(kind) as circuit:
        nodes = circuit.nodes
        by = rank_nodes(nodes, {"shared": case.shared, "grafted": case.mask}, 1, generator(1))
        # Node by node in one case; all others take the same code.
        fine = (case.architecture, kind, direction) == ("llama", "attention", "forward")
        chunk = 1 if fine else len(nodes) // 12
        steps = [*range(0, len(nodes), chunk), len(nodes)]
        for offset, order in enumerate(by.values()):
            sweep = circuit.sweep(order, direction)
            found = [sweep.at(step) for step in steps]
            # Of single nodes every fourth, other ones in every order: the naive way is slow.
            every = slice(offset, None, 4) if fine else slice(None)
            for step, right in zip(steps[every], found[every], strict=True):
                gone = order[:step] if direction == "backward" else order[step:]
                lost = [
                    starts + local[np.isin(node, gone)]
                    for starts, (_, local, node) in _placed(nodes, case.mask)
                ]
                on = case.mask - ParameterSet.of(nodes.space, np.concatenate(lost))
                expected = case.naive(on)
                # Verdicts, not logits: equal unless two tokens tie to the last place.
                assert right.tolist() == expected.tolist(), (kind, direction, step)
                seen.append(right.sum())
    assert len(set(seen)) > 3  # or there would be nothing to compare


def _placed(
    nodes: Nodes, mask: ParameterSet
) -> Iterator[tuple[int, tuple[str, np.ndarray, np.ndarray]]]:
    starts = dict(nodes.space.offsets())
    for member in nodes.members(mask):
        yield starts[member[0]], member


@pytest.mark.parametrize("kind", NODE_KINDS)
def test_the_ends_are_the_grafted_model_and_pre(case: Case, kind: NodeKind) -> None:
    whole = case.naive(case.mask)
    with case.circuit(kind) as circuit:
        floor = case.naive(case.mask - circuit.nodes.everything())
        order = generator(5).permutation(len(circuit.nodes))
        forward = circuit.sweep(order, "forward")
        assert (forward.at(0) == floor).all() and (forward.at(len(order)) == whole).all()
        backward = circuit.sweep(order, "backward")
        assert (backward.at(0) == whole).all() and (backward.at(len(order)) == floor).all()
    assert not (floor == whole).all()


def test_a_sweep_ends_when_another_begins(case: Case) -> None:
    with case.circuit("attention") as circuit:
        order = np.arange(len(circuit.nodes))
        first = circuit.sweep(order, "forward")
        first.at(3)
        circuit.sweep(order, "backward")
        with pytest.raises(RuntimeError, match="another sweep"):
            first.at(4)


def test_steps_may_be_asked_in_any_order(case: Case) -> None:
    with case.circuit("attention") as circuit:
        order = generator(2).permutation(len(circuit.nodes))
        sweep = circuit.sweep(order, "forward")
        every = [sweep.at(n).copy() for n in range(len(order) + 1)]
        for n in generator(3).permutation(len(order) + 1).tolist():
            assert (sweep.at(n) == every[n]).all()


@pytest.mark.parametrize(("memory", "every"), [(0.0, 3), (1e9, 1), (None, 2)])
def test_less_memory_keeps_fewer_layers_and_no_verdict_changes(
    case: Case, memory: float | None, every: int
) -> None:
    with case.circuit("attention") as circuit:
        one = circuit.incremental.asked.answers.tokens * 32 * 4
        order = generator(2).permutation(len(circuit.nodes))
        expected = [circuit.sweep(order, "backward").at(n) for n in range(0, len(order), 5)]
    with case.circuit("attention", float(one) if memory is None else memory) as circuit:
        assert circuit.incremental.every == every
        sweep = circuit.sweep(order, "backward")
        found = [sweep.at(n) for n in range(0, len(order), 5)]
    assert np.array_equal(found, expected)


def test_layers_below_are_not_run(case: Case) -> None:
    ran: list[int] = []
    layers = architecture_of(case.model.config).layers_of(case.model)
    handles = [
        layer.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, layer in enumerate(layers)
    ]
    inner = [
        layer.get_submodule(architecture_of(case.model.config).mlp["down"]).register_forward_hook(
            lambda *_, i=i: ran.append(10 + i)
        )
        for i, layer in enumerate(layers)
    ]
    with case.circuit("attention") as circuit:
        circuit.incremental.right(0)
        batches = len(circuit.incremental.asked.answers.batches)
        assert sorted(set(ran)) == [0, 1, 2, 10, 11, 12]
        ran.clear()
        circuit.incremental.right(2)
        assert [ran.count(10 + i) for i in range(3)] == [0, 0, batches]
        table, sweep = circuit.nodes.table, None
        order = np.argsort(-table["layer"].to_numpy(), kind="stable")  # from the top
        sweep = circuit.sweep(order, "forward")
        sweep.at(0)
        ran.clear()
        top = int((table["layer"] == 2).sum())
        for n in range(1, top + 1):
            sweep.at(n)
        # Only answers that begin rightly after all, or a cut anew, take a whole pass.
        assert ran.count(10) == ran.count(11) < ran.count(12) / 3
    for handle in (*handles, *inner):
        handle.remove()
    assert all("forward" not in vars(layer) for layer in layers)


def test_passes_are_counted_until_a_sweep_forgets(case: Case) -> None:
    with case.circuit("attention") as circuit:
        order = np.argsort(-circuit.nodes.table["layer"].to_numpy(), kind="stable")
        sweep = circuit.sweep(order, "forward")
        assert sweep.passes == 0.0
        first = sweep.at(0).copy()
        whole = sweep.passes
        assert whole == 1.0
        sweep.at(1)  # of the last of three layers
        assert 0.0 < sweep.passes - whole < 0.5
        sweep.forget()
        assert sweep.passes == 0.0
        assert (sweep.at(0) == first).all() and sweep.passes == whole


def test_nothing_is_left_after_an_error(case: Case) -> None:
    layers = architecture_of(case.model.config).layers_of(case.model)
    with pytest.raises(KeyboardInterrupt), case.circuit("attention") as circuit:
        circuit.incremental.right(0)
        handle = layers[2].register_forward_pre_hook(_interrupt)
        try:
            circuit.incremental.right(1)
        finally:
            handle.remove()
    assert all("forward" not in vars(layer) and not layer._forward_pre_hooks for layer in layers)
    for name, parameter in case.model.named_parameters():
        assert torch.equal(parameter, case.task[name])
    with pytest.raises(RuntimeError, match="with"):
        circuit.incremental.right(0)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_node_without_grafted_parameters_asks_nothing(case: Case) -> None:
    space = case.mask.space
    nodes = Nodes.of(case.model, "attention")
    top = [name for name in nodes.lines if ".2." in name]
    few = replace(case, mask=ParameterSet.tensors(space, top))
    with few.circuit("attention") as circuit:
        order = np.arange(len(nodes))  # the lower layers' nodes first
        sweep = circuit.sweep(order, "forward")
        first = sweep.at(0)
        assert sweep.at(5) is first
        last = int((nodes.table["layer"] < 2).sum())
        assert sweep.at(last + 1) is not first


def test_orders_put_most_first_and_break_ties_by_chance(tiny: Tiny) -> None:
    nodes = Nodes.of(tiny.model, "attention")
    everything = ~ParameterSet.empty(nodes.space)
    shared, grafted = (everything.sample(n, generator(n)) for n in (3000, 40))
    counted = {"shared": shared, "grafted": grafted}
    by = rank_nodes(nodes, counted, 3, generator(0))
    assert list(by) == [("shared", 0), ("grafted", 0), *(("random", d) for d in range(3))]
    weight = nodes.table["weight"].to_numpy()
    for name, chosen in counted.items():
        score = (nodes.counts(chosen) * weight)[by[name, 0]]
        assert (np.diff(score) <= 0).all()
    assert all(sorted(order.tolist()) == list(range(len(nodes))) for order in by.values())
    assert len({order.tobytes() for order in by.values()}) == 5
    again = rank_nodes(nodes, counted, 3, generator(0))
    assert all(np.array_equal(by[key], again[key]) for key in by)
    # Without any count all orders are chance: equal nodes are not in the order of layers.
    nothing = ParameterSet.empty(nodes.space)
    tied = rank_nodes(nodes, {"shared": nothing}, 0, generator(0))
    assert tied["shared", 0].tolist() != list(range(len(nodes)))
    if tiny.architecture == "llama":  # two key and value heads for four query heads
        assert set(weight.tolist()) == {1.0, 2.0}
