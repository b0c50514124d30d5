"""Recall, training, single gradients and the trace, against generation, Trainer, `torch.func`."""

from __future__ import annotations

import copy
import tempfile
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainingArguments

from factrecall.data.files import joined
from factrecall.data.traced import traced_individuals
from factrecall.evaluation.batching import Answers
from factrecall.models.forward import Encoded, encode
from factrecall.models.passes import pad
from factrecall.training.batches import (
    IGNORED,
    Example,
    batch_indices,
    example_loss,
    micro_batches,
    padded,
)
from factrecall.training.loop import train
from factrecall.training.trace import GradientTrace
from factrecall.vocabulary import TASKS
from tests.benchmarks.common import MODEL, STUDY, examples, ratios, recipe, setting
from tests.benchmarks.table import Row

TRANSFORMERS = version("transformers")


def bench_recall() -> list[Row]:
    """Teacher-forced verdicts against greedy generation and comparison of text.

    The bar is against `generate` as it is called for a prompt; batches of 64 padded prompts of
    like length are told too. On a question such a batch does the same arithmetic as a forced pass;
    on a biography it reads the shared text six times.
    """
    model, tokenizer, facts = setting()
    bio = [(text, spans) for _, text, spans in joined(facts.bio[facts.bio["split"] != "pretrain"])]
    qa = facts.qa[facts.qa["split"] != "pretrain"]
    asked = zip(qa["text"], qa["attribute_start"], qa["terminator_end"], strict=True)
    questions = [(text, [(start, end)]) for text, start, end in asked]
    rows = []
    for name, part in (("biographies", bio[:40]), ("questions", questions[:240])):
        texts = encode(tokenizer, [t for t, _ in part], [s for _, s in part])
        verdicts: dict[str, list[bool]] = {}

        def forced(texts: list[Encoded] = texts, verdicts: dict = verdicts) -> None:  # type: ignore[type-arg]
            found = Answers.of(texts, STUDY.recall.max_eval_tokens).right(model)
            verdicts["forced"] = found.tolist()

        def free(size: int, texts: list[Encoded] = texts, verdicts: dict = verdicts) -> None:  # type: ignore[type-arg]
            verdicts[f"free {size}"] = generate(model, tokenizer, texts, size)

        for size, bar in ((1, 10), (64, None)):
            found = ratios(3, lambda free=free, size=size: free(size), forced)  # type: ignore[misc]
            assert verdicts[f"free {size}"] == verdicts["forced"]
            against = "generate, a prompt at a time" if size == 1 else "generate, batches of 64"
            rows.append(Row.of(f"recall of {name}", against, found, bar, version=TRANSFORMERS))
        print(f"     {name}: {np.mean(verdicts['forced']):.0%} right")
    return rows


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[Encoded], size: int
) -> list[bool]:
    """Answer by greedy generation with a cache, `size` prompts of like length at a time."""
    tasks = [(t.tokens[:a], t.tokens[a:b]) for t in texts for a, b in t.answers]
    verdicts = [False] * len(tasks)
    order = sorted(range(len(tasks)), key=lambda i: len(tasks[i][0]))
    for begin in range(0, len(order), size):
        group = order[begin : begin + size]
        longest = max(len(tasks[i][0]) for i in group)
        tokens = torch.full((len(group), longest), tokenizer.pad_token_id)
        for row, i in enumerate(group):
            tokens[row, longest - len(tasks[i][0]) :] = torch.from_numpy(tasks[i][0])
        out = model.generate(
            input_ids=tokens,
            attention_mask=(tokens != tokenizer.pad_token_id).long(),
            max_new_tokens=max(len(tasks[i][1]) for i in group),
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=None,
        )
        for row, i in enumerate(group):
            answer = tasks[i][1].tolist()
            said = out[row, longest : longest + len(answer)].tolist()
            verdicts[i] = tokenizer.decode(said) == tokenizer.decode(answer)
    return verdicts


def bench_training() -> list[Row]:
    """Our loop against the Hugging Face Trainer with its padding collator, same examples."""
    start, tokenizer, facts = setting()
    data = examples(facts, tokenizer)
    updates, size = 30, 48

    def ours() -> None:
        train(copy.deepcopy(start), data, recipe(updates, size), 0)

    class Fixed(Trainer):
        """A Trainer that sees the examples in our order."""

        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    def theirs() -> None:
        order = [i for u in range(updates) for i in batch_indices(len(data), size, u, 0)]
        rows = [{"input_ids": data[i].tokens.tolist()} for i in order]
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            max_steps=updates,
            per_device_train_batch_size=size,
            learning_rate=recipe(updates).learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=20,
            weight_decay=0.1,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        from transformers import DataCollatorForLanguageModeling

        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        Fixed(copy.deepcopy(start), arguments, collator, rows).train()

    real = filled = kept = 0
    for update in range(updates):
        batch = [data[i] for i in batch_indices(len(data), size, update, 0)]
        real += sum(len(e.tokens) for e in batch)
        filled += size * max(len(e.tokens) for e in batch)
        kept += sum(micro.tokens.numel() for micro in micro_batches(batch, 16384))
    print(f"     real tokens: {real / filled:.0%} of theirs, {real / kept:.0%} of ours")
    found = ratios(3, theirs, ours)
    return [
        Row.of(
            f"mixed training, batch {size}",
            "Trainer, padding collator",
            found,
            2,
            version=TRANSFORMERS,
        )
    ]


def key(example: Example) -> tuple[str, int]:
    """Return what a trace knows an example by."""
    return example.kind, example.individual


def bench_gradients() -> list[Row]:
    """Gradients of single examples, added up as the trace does, against two usual ways.

    One way calls `backward` for each example and copies what it left. The other is
    `torch.func.vmap` over `grad` of a functional call, with eager attention, for which it has
    batching rules; biographies and questions go apart, so that little is padded. An update of a
    training brings traced examples one or two at a time (80 of 2,400 in batches of 16, at other
    weights each time); that is what the bar is for. All 80 at once are told too: no training
    has them so, and what `vmap` gains there it pays with 80 copies of all parameters.
    """
    start, tokenizer, facts = setting()
    model = copy.deepcopy(start).train()
    people = traced_individuals(facts.individuals, STUDY.trace, STUDY.seed)
    empty = GradientTrace(model, people)
    traced = [e for e in examples(facts, tokenizer) if empty.task(e.kind, e.individual)]
    names = [name for name, _ in model.named_parameters()]
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    detached = {name: p.detach() for name, p in eager.named_parameters()}
    rate, sums = 1e-3, {}

    def ours() -> None:
        trace = GradientTrace(model, people)
        for example in traced:
            trace.add(empty.task(*key(example)) or "", example_loss(model, padded([example])), rate)
        sums["ours"] = trace.sums

    def add(total: dict[str, torch.Tensor], task: str, name: str, g: torch.Tensor) -> None:
        """Add gradients, shape (examples, …), to the sums of lr·g and of |lr·g|."""
        for kind, part in (("signed", g.sum(0)), ("absolute", g.abs().sum(0))):
            place = f"{task}/{kind}/{name}"
            if place in total:
                total[place].add_(part, alpha=rate)
            else:
                total[place] = rate * part

    def loop() -> None:
        total: dict[str, torch.Tensor] = {}
        for example in traced:
            model.zero_grad()
            example_loss(model, padded([example])).backward()
            for name, p in model.named_parameters():
                assert p.grad is not None
                add(total, empty.task(*key(example)) or "", name, p.grad.detach().clone()[None])
        model.zero_grad()
        sums["loop"] = total

    def loss(
        weights: dict[str, torch.Tensor], tokens: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        inputs = {
            "input_ids": tokens[None],
            "position_ids": torch.arange(len(tokens))[None],
            "use_cache": False,
        }
        logits = torch.func.functional_call(eager, weights, (), inputs).logits[0]
        return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED)

    def mapped(size: int) -> None:
        total: dict[str, torch.Tensor] = {}
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
        for task in TASKS:
            group = [e for e in traced if empty.task(*key(e)) == task]
            for begin in range(0, len(group), size):
                some = group[begin : begin + size]
                tokens = pad([e.tokens for e in some], 0)
                found = each(detached, tokens, pad([e.targets for e in some], IGNORED))
                for name in names:
                    add(total, task, name, found[name])
        sums["func"] = total

    rows = []
    what = "gradients of 80 single examples, added up"
    for against, rival, bar in (
        ("zero_grad, backward, copy", loop, 1.0),
        ("torch.func, as they come", lambda: mapped(1), 1.0),
        ("torch.func, all at once", lambda: mapped(len(traced)), None),
    ):
        for warm in (ours, rival):
            warm()
        found = ratios(5, rival, ours)
        rows.append(Row.of(what, against, found, bar, version=version("torch")))
    for rival in ("loop", "func"):
        assert sums[rival].keys() == sums["ours"].keys()
        for name, total in sums["ours"].items():
            scale = float(total.abs().max())
            torch.testing.assert_close(sums[rival][name], total, rtol=1e-3, atol=1e-5 * scale)
    return rows


def bench_trace() -> list[Row]:
    """Training with the trace against training without."""
    start, tokenizer, facts = setting()
    data = examples(facts, tokenizer)
    people = traced_individuals(facts.individuals, STUDY.trace, STUDY.seed)
    size = MODEL.training.mix.batch_size
    updates = -(-len(data) // size)  # one pass, so that every traced example is met once

    def run(traced: bool) -> None:
        model = copy.deepcopy(start)
        trace = GradientTrace(model, people) if traced else None
        train(model, data, recipe(updates, size), 0, trace=trace)

    found = ratios(5, lambda: run(True), lambda: run(False))
    return [Row.of(f"mixed training with trace, batch {size}", "without", found, 1.2, least=False)]
