"""Every way of training against the plain one, and what the plain one promises, in all of them."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from factrecall.cli import main
from factrecall.models import chunked_head
from factrecall.models.architectures import architecture_of
from factrecall.models.chunked_head import _Chunked, loss_at
from factrecall.models.scratch import build_model
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.safetensors_writer import read_tensors
from factrecall.training import loop
from factrecall.training.batches import Example, batch_indices, batch_loss, micro_batches
from factrecall.training.examples import training_set
from factrecall.training.execution import Execution
from factrecall.training.loader import ahead
from factrecall.training.loop import PLAIN, train
from factrecall.training.optimisers import learning_rate, make_optimiser
from factrecall.training.trace import GradientTrace
from factrecall.training.training_log import TrainingLog
from tests.conftest import Workspace, recipe, scratch, tokenizer_for
from tests.taught import FACTS

MODELS = [(a, tied) for a in ("llama", "gpt_neox") for tied in (False, True)]
PEOPLE = {0: "in", 1: "in", 9: "out", 11: "out"}
RECIPE = recipe(updates=20, batch_size=12, micro_batch_tokens=512)
FEW = 5000
"""Logits of about 16 positions."""


@cache
def tokenizer() -> Any:
    return tokenizer_for(FACTS)


@cache
def examples() -> list[Example]:
    return training_set("mix", RECIPE, FACTS.bio, FACTS.qa, tokenizer())


def start(
    architecture: str,
    tied: bool,
    dtype: torch.dtype = torch.float32,
    width: int = 64,
    layers: int = 2,
) -> PreTrainedModel:
    settings = scratch(architecture, tie_embeddings=tied, hidden_size=width, layers=layers)
    model: PreTrainedModel = build_model(settings, tokenizer(), seed=1).to(dtype)
    return model


@dataclass(frozen=True)
class Result:
    weights: dict[str, torch.Tensor]
    history: np.ndarray
    sums: dict[str, torch.Tensor]

    def close(self, other: Result, weights: float, losses: float, sums: float) -> None:
        """Check against another: weights absolutely, losses and sums in their largest's terms."""
        for name, weight in self.weights.items():
            torch.testing.assert_close(weight, other.weights[name], rtol=0, atol=weights)
        # Kinds that a batch lacks have no loss; update, rate and tokens are the same anyway.
        np.testing.assert_allclose(self.history, other.history, rtol=losses, atol=losses)
        assert self.sums.keys() == other.sums.keys()
        for name, value in self.sums.items():
            most = float(other.sums[name].abs().max())
            torch.testing.assert_close(value, other.sums[name], rtol=0, atol=sums * most)

    def same(self, other: Result) -> bool:
        """Say whether all bytes are those of another."""
        return (
            all(torch.equal(w, other.weights[n]) for n, w in self.weights.items())
            and self.history.tobytes() == other.history.tobytes()
            and all(torch.equal(s, other.sums[n]) for n, s in self.sums.items())
        )


def trained(
    architecture: str,
    tied: bool,
    mode: Execution = PLAIN,
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> Result:
    model = start(architecture, tied, dtype)
    trace = GradientTrace(model, PEOPLE, mode.trace)
    history = train(model, examples(), RECIPE, 5, trace=trace, mode=mode, **more)
    assert not model.training
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return Result(weights, history, trace.sums)


plain = cache(trained)


@pytest.fixture
def few_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_head, "LOGITS", FEW)


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """Compiling torchao's step takes a minute for each shape; its arithmetic is the same."""
    with torch.compiler.set_stance("force_eager"):
        yield


WAYS = {
    "packed": (Execution(packing=True), False),
    "chunked": (Execution(), True),
    "checkpointed": (Execution(checkpointing=True), False),
    "host": (Execution(trace="host"), False),
    "all": (Execution(packing=True, checkpointing=True, trace="host"), True),
}


@pytest.mark.parametrize(("architecture", "tied"), MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_modes_compute_the_same_updates(
    architecture: str, tied: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = plain(architecture, tied, dtype=torch.float64)
    mode, chunked = WAYS[way]
    if chunked:
        monkeypatch.setattr(chunked_head, "LOGITS", FEW)
    found = trained(architecture, tied, mode, torch.float64)
    # Sums in another order, in float64: 1e-16 each, which Adam's division by the root of small
    # squares enlarges; 20 updates were seen to make 4e-14 of weights, and 4e-14 of sums.
    found.close(expected, weights=1e-11, losses=1e-12, sums=1e-11)
    # Those that add up in another order show it in some last bits; others must not.
    assert found.same(expected) == (way in ("checkpointed", "host"))


@pytest.mark.parametrize(("architecture", "tied"), [MODELS[1], MODELS[2]])
@pytest.mark.parametrize("way", ["packed", "chunked"])
def test_modes_in_float32(
    architecture: str, tied: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, chunked = WAYS[way]
    expected = plain(architecture, tied)
    if chunked:
        monkeypatch.setattr(chunked_head, "LOGITS", FEW)
    # Gradients that ought to be 0 (of GPT-NeoX's key biases) are rounding, which Adam enlarges to
    # steps; 2e-5 was seen, of weights that move by 3e-2.
    trained(architecture, tied, mode).close(expected, weights=2e-4, losses=1e-5, sums=1e-3)


@pytest.mark.parametrize(("architecture", "tied"), [MODELS[1], MODELS[2]])
def test_moments_in_eight_bits_are_near(architecture: str, tied: bool, uncompiled: None) -> None:
    expected, found = (
        plain(architecture, tied),
        trained(architecture, tied, Execution("adamw_8bit")),
    )
    begun = dict(start(architecture, tied).named_parameters())
    # Eight bits hold a number to about 1 %, so weights end where the plain ones do but for some
    # hundredths of their way. (Without whole moments of embeddings some were off by 100 ways.)
    assert abs(found.history[:, 2] / expected.history[:, 2] - 1).max() < 2e-3
    assert not found.same(expected)
    for name, weight in found.weights.items():
        way = (expected.weights[name] - begun[name]).norm()
        assert (weight - expected.weights[name]).norm() < 0.1 * way, name


@pytest.mark.parametrize(
    "mode", [Execution("adamw_8bit"), Execution(packing=True)], ids=["adamw_8bit", "packed"]
)
def test_a_run_that_was_killed_ends_with_the_same_bytes(
    mode: Execution, tmp_path: Path, uncompiled: None
) -> None:
    whole = trained("llama", True, mode)

    def stop(update: int, loss: float) -> None:
        if update == 8:  # the state is that of update 7
            raise KeyboardInterrupt

    checkpoint = partial(Checkpoint, tmp_path / "state.safetensors", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained("llama", True, mode, checkpoint=checkpoint(), watch=stop)
    seen: list[int] = []
    again = trained(
        "llama", True, mode, checkpoint=checkpoint(), watch=lambda update, _: seen.append(update)
    )
    assert seen[0] == 7
    assert again.same(whole)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_activations_that_are_not_kept_are_computed_again(architecture: str) -> None:
    passes = {}
    for checkpointing in (False, True):
        model = start(architecture, True)
        count = 0

        def passed(*_: object) -> None:
            nonlocal count
            count += 1

        # Inside of the layer: newer versions of transformers call its own hooks once.
        layer = architecture_of(model.config).layers_of(model)[0]
        layer.mlp.register_forward_pre_hook(passed)
        train(model, examples(), RECIPE, 5, mode=Execution(checkpointing=checkpointing))
        passes[checkpointing] = count
    assert passes[True] == 2 * passes[False] > 0


def with_backend(backend: str, monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """Compile modules so; return a list of those that are, in time."""
    compiled, asked = torch.compile, list[torch.nn.Module]()

    def compile_module(module: torch.nn.Module, **more: Any) -> None:
        asked.append(module)
        implementation = compiled(module._call_impl, backend=backend, **more)
        module._compiled_call_impl = implementation  # type: ignore[assignment]

    monkeypatch.setattr(torch.nn.Module, "compile", compile_module)
    return asked


@pytest.mark.parametrize(("architecture", "tied"), [MODELS[1], MODELS[2]])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers(
    architecture: str, tied: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = with_backend("eager", monkeypatch)
    mode = Execution(compile=True, checkpointing=checkpointing, packing=True)
    found = trained(architecture, tied, mode)
    assert len(compiled) == 2  # the layers
    # The same kernels in the same order: what is compiled is only how they are called.
    assert found.same(trained(architecture, tied, Execution(packing=True)))


@pytest.mark.parametrize(("architecture", "tied"), [MODELS[1], MODELS[2]])
def test_kernels_that_are_fused(architecture: str, tied: bool) -> None:
    found = trained(architecture, tied, Execution(compile=True, packing=True))
    # Fused kernels round elsewhere; the bounds are those of other orders of addition.
    found.close(plain(architecture, tied), weights=2e-4, losses=1e-5, sums=1e-3)


@pytest.mark.parametrize("chunk", [FEW, 2**27])
def test_half_precision_with_few_logits_at_a_time(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = plain("llama", True)
    monkeypatch.setattr(chunked_head, "LOGITS", chunk)
    found = trained("llama", True, precision="bfloat16")
    # bfloat16 has 8 bits; chunks add to its rounding nothing that is seen beside it, since what
    # they add up is kept in float32.
    assert abs(found.history[:, 2] / expected.history[:, 2] - 1).max() < 1e-3
    for name, weight in found.weights.items():
        torch.testing.assert_close(weight, expected.weights[name], rtol=0, atol=2e-2, msg=name)


@given(
    positions=st.integers(1, 30),
    vocabulary=st.integers(2, 40),
    chunk=st.integers(1, 31),
    half=st.booleans(),
)
def test_chunks_give_losses_and_gradients_of_the_whole(
    positions: int, vocabulary: int, chunk: int, half: bool
) -> None:
    draw = torch.Generator().manual_seed(positions * 41 + vocabulary)
    kind = torch.float32 if half else torch.float64
    hidden = torch.randn(positions, 8, generator=draw, dtype=kind, requires_grad=True)
    weight = torch.randn(vocabulary, 8, generator=draw, dtype=kind, requires_grad=True)
    targets = torch.randint(vocabulary, (positions,), generator=draw)
    results = []
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        for chunked in (False, True):
            if chunked:
                total, losses = _Chunked.apply(hidden, weight, targets, chunk)
            else:
                logits = functional.linear(hidden, weight)
                logits = logits.float() if half else logits
                losses = functional.cross_entropy(logits, targets, reduction="none")
                total = losses.sum()
            slopes = torch.autograd.grad(total / positions, [hidden, weight])
            results.append([total, losses.detach(), *slopes])
    # float64: the last bits. bfloat16: derivatives of at most 1, halves of 1/128 apart.
    tolerance = {"rtol": 2e-2, "atol": 3e-2} if half else {"rtol": 1e-12, "atol": 1e-13}
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, **tolerance)


class Largest(TorchDispatchMode):
    """The most numbers in a float tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                self.numel = max(self.numel, leaf.numel())
        return found


@pytest.mark.parametrize(("architecture", "tied"), MODELS)
def test_no_tensor_of_tokens_times_vocabulary_is_made(
    architecture: str, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = start(architecture, tied, width=32)
    (batch,) = micro_batches([e for e in examples() if e.kind == "bio"][:12], 10**6)[-1:]
    logits = len(batch.targets) * model.config.vocab_size
    found = {}
    for most in (2**27, FEW):
        monkeypatch.setattr(chunked_head, "LOGITS", most)
        with Largest() as largest:
            batch_loss(model, batch)[0].backward()
        found[most] = largest.numel
    # The largest then are states of all tokens.
    assert found[2**27] >= logits > 2 * found[FEW]


def test_a_head_with_something_behind_it_is_left_alone(few_logits: None) -> None:
    model = start("llama", False)
    model.config.model_type = "gemma2"
    batch = micro_batches(examples()[:4], 10**6)[0]
    with Largest() as largest:
        loss_at(model, batch.tokens, batch.where, batch.targets)
    assert largest.numel >= len(batch.targets) * model.config.vocab_size


def test_an_idle_micro_batch_changes_nothing() -> None:
    model = start("gpt_neox", True)
    batch = micro_batches(examples()[:4], 10**6)[0].idle()
    total, losses = batch_loss(model, batch)
    total.backward()
    assert total.item() == 0 and losses.shape == (0,)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_numbers_fetched_late_tell_of_their_own_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "TrainingLog", lambda strategy, every: TrainingLog(strategy, 6))
    model = start("llama", False)
    updates = 0

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal updates
        updates += 1
        return gradient * (math.inf if updates == 4 else 1.0)

    model.model.norm.weight.register_hook(spoil)
    one_pass = recipe(updates=20, batch_size=12, micro_batch_tokens=10**6)
    seen: list[int] = []
    monkeypatch.setattr("factrecall.models.passes.PASS_COST", 10**6)
    monkeypatch.setattr("factrecall.training.batches.cut.__defaults__", (10**6,))
    with pytest.raises(FactRecallError) as caught:
        train(model, examples(), one_pass, 5, watch=lambda u, _: seen.append(u))
    assert seen[-1] == 5  # the sixth was computed already
    first = examples()[batch_indices(len(examples()), 12, 3, 5)[0]]
    text = str(caught.value)
    assert "update 3" in text and f"{learning_rate(one_pass, 3):.3g}" in text
    assert f"{first.kind} of {first.individual}" in text

    # Nothing is saved of it: the numbers are looked at before.
    updates = 0
    again = start("llama", False)
    again.model.norm.weight.register_hook(spoil)
    path = tmp_path / "state.safetensors"
    with pytest.raises(FactRecallError, match="update 3"):
        train(again, examples(), one_pass, 5, checkpoint=Checkpoint(path, 0.0))
    tensors, values = read_tensors(path)
    assert values["update"] == 3 and all(t.isfinite().all() for t in tensors.values() if t.ndim > 1)


@pytest.mark.parametrize("every", [1, 7])
def test_when_numbers_are_fetched_does_not_matter(
    every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "TrainingLog", lambda strategy, _: TrainingLog(strategy, every))
    assert trained("llama", False).same(plain("llama", False))


def test_what_a_thread_makes_comes_in_order_and_its_errors_too() -> None:
    def make(number: int) -> int:
        if number == 7:
            raise ValueError("seven")
        return number

    found = ahead(make, range(20))  # type: ignore[arg-type]
    assert [next(found) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(found)
    assert list(ahead(make, range(3))) == [0, 1, 2]  # type: ignore[arg-type]


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchao", "torchao.optim"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FactRecallError, match=r"pip install torchao"):
        make_optimiser(start("llama", False), RECIPE, Execution("adamw_8bit"))


def test_torchao_is_loaded_by_nobody_who_does_not_use_it() -> None:
    code = (
        "import sys; from factrecall.models.loading import quiet; quiet(); "
        "from transformers import LlamaForCausalLM; import factrecall.training.trace; "
        "assert 'torchao' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_outputs_say_how_they_were_made(workspace: Workspace, capfd: Any) -> None:
    assert main(workspace.command("fine-tune")) == 0
    assert "trains with" not in capfd.readouterr().err  # the plain way of a CPU
    _, metadata = read_tensors(workspace.folder / "out/trace.safetensors")
    assert metadata["provenance"]["mode"]["optimiser"] == "adamw"
    assert metadata["provenance"]["settings"]["mode"]["optimiser"] == "auto"
    text = workspace.study.read_text(encoding="utf-8")
    packed = text.replace("training:\n", "training:\n  mode: {packing: always}\n", 1)
    workspace.study.write_text(packed, encoding="utf-8")
    assert main(workspace.command("fine-tune")) == 0
    assert "trains with" in (told := capfd.readouterr().err) and "packing True" in told
    _, metadata = read_tensors(workspace.folder / "out/trace.safetensors")
    assert metadata["provenance"]["mode"]["packing"] is True
