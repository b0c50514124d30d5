"""Teacher-forced exact match against free greedy generation, on trained models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedConfig

from factrecall.config.facts import Facts
from factrecall.data.people import sample_people
from factrecall.data.tables import FactTables, make_bio, make_qa
from factrecall.data.templates import load_templates
from factrecall.evaluation.exact_match import Evaluator, majority, summarise
from factrecall.models.forward import encode
from factrecall.models.scratch import build_model
from factrecall.training.examples import training_set
from factrecall.training.loop import train
from factrecall.vocabulary import RELATIONS
from tests.conftest import ARCHITECTURES, SMALL_POOLS, recipe, scratch, tokenizer_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PREFIXES = {"job": ["engineer", "engineer, civil"], "blood_type": ["O+", "O-"]}


def prefix_facts() -> FactTables:
    """Return people whose jobs and blood types begin alike."""
    people = sample_people(Facts(people=14, pretrain_people=2, pools=SMALL_POOLS), 0)
    for relation, values in PREFIXES.items():
        people[relation] = [values[i % 2] for i in range(len(people))]
    templates = load_templates()
    return FactTables(people, make_bio(people, templates, 0), make_qa(people, templates))


def merging_tokenizer(facts: FactTables) -> PreTrainedTokenizerFast:
    """Train a BPE without word borders, which merges an answer's end with its full stop."""
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<bos>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=8,
        show_progress=False,
    )
    core.train_from_iterator([*facts.bio["text"], *facts.qa["text"]], trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", pad_token="<pad>", unk_token="<unk>"
    )


def generated(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, start: int, end: int
) -> bool:
    """Say whether free greedy generation from the prompt gives the answer's text."""
    (encoded,) = encode(tokenizer, [text], [[(start, end)]])
    first, last = encoded.answers[0]
    prompt = torch.from_numpy(encoded.tokens[:first])[None]
    out = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=last - first,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=None,
    )[0].tolist()
    # Compared as text: what was generated, cut where the answer's full stop ends.
    gold = tokenizer.decode(encoded.tokens[:last].tolist(), skip_special_tokens=True)
    return bool(tokenizer.decode(out, skip_special_tokens=True) == gold)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["words", "merging"])
def test_verdicts_are_those_of_greedy_generation(architecture: str, kind: str) -> None:
    facts = prefix_facts()
    tokenizer = tokenizer_for(facts) if kind == "words" else merging_tokenizer(facts)
    if kind == "merging":
        ends = encode(tokenizer, ["What? engineer, civil."], [[(6, 22)]])[0]
        last = tokenizer.convert_ids_to_tokens(int(ends.tokens[ends.answers[0][1] - 1]))
        assert last != "." and last.endswith(".")
    model = build_model(scratch(architecture, hidden_size=48, mlp_size=96), tokenizer, 0)
    settings = recipe(updates=150, batch_size=16, learning_rate=5e-3, warmup=10)
    train(model, training_set("mix", settings, facts.bio, facts.qa, tokenizer), settings, 0)
    found = Evaluator.of(tokenizer, facts.bio, facts.qa, 1024).evaluate(model)

    expected = []
    for split, table in (("bio", facts.bio), ("qa", facts.qa)):
        rows = table[table["split"] != "pretrain"]
        texts = rows.groupby("individual")["text"].agg(" ".join)
        for row in rows.itertuples():
            text, offset = (texts[row.individual], row.start) if split == "bio" else (row.text, 0)
            span = offset + row.attribute_start, offset + row.terminator_end
            expected.append(generated(model, tokenizer, text, *span))
    assert found["correct"].tolist() == expected
    # Both verdicts occur, in statements and in questions: else the test would show nothing.
    assert found.groupby("split")["correct"].mean().between(0.02, 0.98).any()
    assert 0.05 < np.mean(expected) < 0.95


def test_a_prefix_of_the_answer_is_no_match() -> None:
    facts = prefix_facts()
    tokenizer = tokenizer_for(facts)

    class Says:
        """A model that says one text whatever it is asked."""

        def __init__(self, text: str) -> None:
            self.head = torch.nn.Identity()
            self.answer = tokenizer(text)["input_ids"][1:]

        def parameters(self):  # type: ignore[no-untyped-def]
            return iter([torch.zeros(1)])

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.head

        dtype = torch.float32
        config = PreTrainedConfig()

        def __call__(  # type: ignore[no-untyped-def]
            self,
            input_ids: torch.Tensor,
            use_cache: bool,
            position_ids: torch.Tensor,
            attention_mask: torch.Tensor,
        ):
            logits = torch.zeros(*input_ids.shape, len(tokenizer))
            question = tokenizer.convert_tokens_to_ids("?")
            for row, tokens in enumerate(input_ids):
                for place in range(len(tokens)):
                    context = tokens[attention_mask[row, 0, place] == 0].tolist()
                    said = len(context) - 1 - context.index(question) if question in context else -1
                    assert len(context) - 1 == position_ids[row, place] or not tokens[place]
                    if 0 <= said < len(self.answer):
                        logits[row, place, self.answer[said]] = 1.0
            return type("Output", (), {"logits": self.head(logits)})()

    qa = facts.qa[facts.qa["relation"] == "job"]
    empty = facts.bio.iloc[:0]
    for said, right in (("engineer.", "engineer"), ("engineer, civil.", "engineer, civil")):
        verdicts = Evaluator.of(tokenizer, empty, qa, 512).evaluate(Says(said))  # type: ignore[arg-type]
        jobs = facts.individuals.set_index("individual")["job"]
        assert (
            verdicts["correct"].to_numpy() == (jobs[verdicts["individual"]] == right).to_numpy()
        ).all()


def test_batch_size_changes_no_verdict(facts: FactTables) -> None:
    tokenizer = tokenizer_for(facts)
    model = build_model(scratch("llama"), tokenizer, 0)
    settings = recipe(updates=80, batch_size=16, learning_rate=5e-3)
    train(model, training_set("mix", settings, facts.bio, facts.qa, tokenizer), settings, 0)
    tables = [
        Evaluator.of(tokenizer, facts.bio, facts.qa, size).evaluate(model)
        for size in (64, 700, 100_000)
    ]
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])
    assert 0 < tables[0]["correct"].mean() < 1


def test_majority_is_the_most_frequent_trained_answer(facts: FactTables) -> None:
    found = majority(facts.qa)
    people = facts.individuals[facts.individuals["split"] != "pretrain"]
    asked = people[people["split"] == "in"]
    for split, trained, rows in (
        ("bio", people, people),
        ("qa_in", asked, asked),
        ("qa_out", asked, people[people["split"] == "out"]),
    ):
        for relation in RELATIONS:
            counts = trained[relation].value_counts()
            usual = min(counts[counts == counts.max()].index)
            part = found[(found["split"] == split) & (found["relation"] == relation)]
            assert len(part) == len(rows)
            assert part["correct"].sum() == (rows[relation] == usual).sum()


def test_summary_counts_by_split_and_relation() -> None:
    table = pd.DataFrame(
        {
            "split": ["bio", "bio", "qa_in"],
            "individual": [0, 1, 0],
            "relation": ["job", "job", "job"],
            "correct": [True, False, True],
        }
    )
    found = summarise(table, "m", "mix", 2)
    assert found["n"].tolist() == [2, 1] and found["correct"].tolist() == [1, 1]
    assert found["accuracy"].tolist() == [0.5, 1.0]
    assert set(found["model"]) == {"m"} and set(found["seed"]) == {2}


def test_progress_counts_texts_up_to_all_of_them(facts: FactTables) -> None:
    tokenizer = tokenizer_for(facts)
    model = build_model(scratch("llama"), tokenizer, 0)
    seen: list[int] = []
    Evaluator.of(tokenizer, facts.bio, facts.qa, 700).evaluate(model, seen.append)
    people = int((facts.individuals["split"] != "pretrain").sum())
    assert len(seen) > 2 and seen == sorted(set(seen))
    assert seen[-1] == people * (1 + len(RELATIONS))
