"""Speed against naive ways and peers: ratios within one run, on this machine, one thread.

    make bench                                   all of them, on the laptop study's sizes
    python -m tests.benchmarks recall trace      some of them

Contestants take turns, and each ratio is the median of the turns', so that a noisy machine hurts
both alike. Verdicts, losses and examples are the same on both sides, and that is asserted.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.utils import logging

from factrecall.answers import Answers
from factrecall.config import Recipe
from factrecall.config.reading import read_study
from factrecall.facts.forms import joined
from factrecall.facts.tables import FactTables, make_facts
from factrecall.models.forward import Encoded, encode
from factrecall.models.scratch import build_model
from factrecall.models.tokenizer import train_tokenizer
from factrecall.training.batches import Example, batch_indices, micro_batches
from factrecall.training.examples import training_set
from factrecall.training.finetune import traced_individuals
from factrecall.training.loop import train
from factrecall.training.trace import GradientTrace

ROOT = Path(__file__).parents[2]
STUDY = read_study(ROOT / "config.yaml")
MODEL = STUDY.models["llama-small"]


@cache
def setting() -> tuple[PreTrainedModel, PreTrainedTokenizerFast, FactTables]:
    """Return the laptop study's facts and its model, trained for a while."""
    facts = make_facts(STUDY.facts, STUDY.seed)
    texts = [*facts.bio["text"], *facts.qa["text"]]
    tokenizer = train_tokenizer(texts, "words", 4096, context=MODEL.context)
    model = build_model(MODEL, tokenizer, 0)
    train(
        model, examples(facts, tokenizer), recipe(600).model_copy(update={"learning_rate": 3e-3}), 0
    )
    return model, tokenizer, facts


def recipe(updates: int, batch_size: int = 16) -> Recipe:
    """Return the laptop study's mix recipe, shortened."""
    changes = {"updates": updates, "batch_size": batch_size, "warmup": min(20, updates - 1)}
    return MODEL.training.mix.model_copy(update=changes)


def examples(facts: FactTables, tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Return the examples of mixed training."""
    return training_set("mix", recipe(2), facts.bio, facts.qa, tokenizer)


def ratios(turns: int, slow: Callable[[], Any], fast: Callable[[], Any]) -> list[float]:
    """Run both in turns; return CPU time of `slow` over that of `fast`, turn by turn."""

    def seconds(run: Callable[[], Any]) -> float:
        begin = time.process_time()
        run()
        return time.process_time() - begin

    return [seconds(slow) / seconds(fast) for _ in range(turns)]


def report(name: str, found: list[float], bar: float, *, least: bool = True) -> bool:
    """Print a result against its bar; return whether it is met."""
    middle = statistics.median(found)
    met = middle >= bar if least else middle <= bar
    wanted = "at least" if least else "at most"
    spread = f"{min(found):.2f} to {max(found):.2f}"
    print(
        f"{'ok  ' if met else 'FAIL'} {name}: {middle:.2f} ({spread} in {len(found)} turns; "
        f"{wanted} {bar})",
        flush=True,
    )
    return met


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


BENCHMARKS = {"recall": bench_recall, "training": bench_training, "trace": bench_trace}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; return 1 if one misses its bar."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    return 0 if all([BENCHMARKS[name]() for name in names or BENCHMARKS]) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
