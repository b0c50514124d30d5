"""Recall, training and the trace, against generation, the Trainer and training alone."""

from __future__ import annotations

import copy
import statistics
import tempfile
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainingArguments

from factrecall.answers import Answers
from factrecall.facts.forms import joined
from factrecall.models.forward import Encoded, encode
from factrecall.training.batches import batch_indices, micro_batches
from factrecall.training.finetune import traced_individuals
from factrecall.training.loop import train
from factrecall.training.trace import GradientTrace
from tests.benchmarks.common import MODEL, STUDY, examples, ratios, recipe, report, setting


def bench_recall() -> bool:
    """Teacher-forced verdicts against greedy generation and comparison of text.

    The bar is against `generate` as it is called for a prompt; batches of 64 padded prompts of
    like length are told too. On a question such a batch does the same arithmetic as a forced pass;
    on a biography it reads the shared text six times.
    """
    model, tokenizer, facts = setting()
    bio = [(text, spans) for _, text, spans in joined(facts.bio[facts.bio["split"] != "pretrain"])]
    qa = facts.qa[facts.qa["split"] != "pretrain"]
    rows = zip(qa["text"], qa["attribute_start"], qa["terminator_end"], strict=True)
    questions = [(text, [(start, end)]) for text, start, end in rows]
    met = []
    for name, part in (("bio", bio[:40]), ("qa", questions[:240])):
        texts = encode(tokenizer, [t for t, _ in part], [s for _, s in part])
        verdicts: dict[str, list[bool]] = {}

        def forced(texts: list[Encoded] = texts, verdicts: dict = verdicts) -> None:  # type: ignore[type-arg]
            found = Answers.of(texts, STUDY.recall.batch_tokens).right(model)
            verdicts["forced"] = found.tolist()

        def free(size: int, texts: list[Encoded] = texts, verdicts: dict = verdicts) -> None:  # type: ignore[type-arg]
            verdicts[f"free {size}"] = generate(model, tokenizer, texts, size)

        single = ratios(3, lambda free=free: free(1), forced)
        batched = ratios(3, lambda free=free: free(64), forced)
        assert verdicts["free 1"] == verdicts["free 64"] == verdicts["forced"]
        right = np.mean(verdicts["forced"])
        print(f"     {name}: batches of 64 / ours {statistics.median(batched):.2f}")
        met.append(report(f"recall of {name} ({right:.0%} right), generate / ours", single, 10))
    return all(met)


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


def bench_training() -> bool:
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

    real = padded = kept = 0
    for update in range(updates):
        batch = [data[i] for i in batch_indices(len(data), size, update, 0)]
        real += sum(len(e.tokens) for e in batch)
        padded += size * max(len(e.tokens) for e in batch)
        kept += sum(tokens.numel() for tokens, _, _ in micro_batches(batch, 16384))
    print(f"     real tokens: {real / padded:.0%} of theirs, {real / kept:.0%} of ours")
    return report("training, Trainer / ours (same examples)", ratios(3, theirs, ours), 2)


def bench_trace() -> bool:
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
    return report("mixed training, with trace / without", found, 1.2, least=False)
