"""From facts to training sequences: which tokens are answers, and which are learnt."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from factrecall.data.files import joined
from factrecall.data.tables import FactTables, make_bio, make_qa
from factrecall.data.templates import load_templates
from factrecall.models.forward import Encoded, encode
from factrecall.runtime.errors import FactRecallError
from factrecall.training.batches import IGNORED, Example
from factrecall.training.examples import (
    bio_examples,
    qa_examples,
    short_examples,
    shuffled_examples,
    training_set,
)
from factrecall.vocabulary import RELATIONS
from tests.conftest import recipe, tokenizer_for

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = ("words", "bpe")


def learnt(example: Example) -> np.ndarray:
    """Return the positions whose tokens are predicted."""
    positions = np.flatnonzero(example.targets != IGNORED)
    assert (example.targets[positions] == example.tokens[positions + 1]).all()
    return positions + 1


def answers_of(table: pd.DataFrame) -> list[str]:
    rows = zip(table["text"], table["attribute_start"], table["terminator_end"], strict=True)
    return [str(text)[start:end] for text, start, end in rows]


def decoded(tokenizer: PreTrainedTokenizerBase, encoded: Encoded) -> list[str]:
    return [
        tokenizer.decode(encoded.tokens[start:end], skip_special_tokens=True).strip()
        for start, end in encoded.answers
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_in_context_are_the_attributes_with_their_full_stops(
    facts: FactTables, kind: str
) -> None:
    tokenizer = tokenizer_for(facts, kind)
    for table in (facts.bio, facts.qa):
        _, texts, spans = zip(*joined(table), strict=True)
        encoded = encode(tokenizer, texts, spans)
        found = [answer for e in encoded for answer in decoded(tokenizer, e)]
        assert found == answers_of(table)
        assert len(found) == len(table)


def merging_tokenizer(merges: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """Return byte-level BPE that makes hand-made merges across any boundary."""
    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(m) for m in merges)]
    vocabulary = {symbol: i for i, symbol in enumerate(dict.fromkeys(symbols))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def test_a_token_of_last_character_and_full_stop_belongs_to_the_answer() -> None:
    tokenizer = merging_tokenizer([("-", "."), ("r", "."), ("Ġ", "O")])
    texts = ["What is her blood type? O-.", "What is his job? engineer."]
    spans = [[(texts[0].index("O-."), 27)], [(texts[1].index("engineer"), 26)]]
    assert [text[s:e] for text, ((s, e),) in zip(texts, spans, strict=True)] == ["O-.", "engineer."]
    first, second = encode(tokenizer, texts, spans)
    ((start, end),) = first.answers
    assert tokenizer.convert_ids_to_tokens(first.tokens[start:end]) == ["ĠO", "-."]
    assert end == len(first.tokens)
    ((start, end),) = second.answers
    assert tokenizer.convert_ids_to_tokens(second.tokens[start:end])[-1] == "r."
    assert decoded(tokenizer, second) == ["engineer."]


def test_a_token_that_goes_on_into_the_next_sentence_belongs_to_the_answer() -> None:
    tokenizer = merging_tokenizer([("-", "."), ("Ġ", "S"), ("-.", "ĠS")])
    text = "Type O-. She"
    (encoded,) = encode(tokenizer, [text], [[(5, 8)]])
    ((start, end),) = encoded.answers
    assert tokenizer.convert_ids_to_tokens(encoded.tokens[start:end]) == ["O", "-.ĠS"]


WORDS = st.text(alphabet="ab.-é東 O", min_size=1, max_size=8).map(str.strip).filter(bool)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), st.integers(0, 60))
def test_located_tokens_are_the_shortest_run_that_holds_the_answer(
    parts: list[tuple[str, str]], merges: int
) -> None:
    text, spans = "Q", []
    for prompt, answer in parts:
        text += f" {prompt} "
        spans.append((len(text), len(text) + len(answer) + 1))
        text += f"{answer}."
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [text, *(f"{a}." for _, a in parts)],
        trainers.BpeTrainer(
            vocab_size=256 + merges, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    if len(tokenizer(text)["input_ids"]) == 1:
        return  # one token for everything: there is no prompt
    try:
        (encoded,) = encode(tokenizer, [text], [spans])
    except FactRecallError:
        return  # the first token reaches into an answer
    for (start, end), (first, last) in zip(encoded.answers, spans, strict=True):
        wanted = text[first:last]
        run = tokenizer.decode(encoded.tokens[start:end])
        assert wanted in run
        if len(re.findall(f"(?={re.escape(wanted)})", run)) > 1:
            continue  # tokens that reach beyond the answer hold the same text once more
        assert wanted not in tokenizer.decode(encoded.tokens[start + 1 : end])
        assert wanted not in tokenizer.decode(encoded.tokens[start : end - 1])


def test_an_answer_without_tokens_is_told() -> None:
    tokenizer = merging_tokenizer([])
    for span in ((50, 60), (0, 2)):  # behind the text; nothing before it to predict it from
        with pytest.raises(FactRecallError, match="characters"):
            encode(tokenizer, ["She is O-."], [[span]])


def test_a_text_beyond_the_context_is_told(facts: FactTables) -> None:
    tokenizer = tokenizer_for(facts)
    tokenizer.model_max_length = 20
    with pytest.raises(FactRecallError, match="takes 20"):
        bio_examples(facts.bio, tokenizer, "all")


@pytest.mark.parametrize("kind", KINDS)
def test_all_tokens_but_the_first_are_learnt_with_loss_all(facts: FactTables, kind: str) -> None:
    tokenizer = tokenizer_for(facts, kind)
    for example in (
        *bio_examples(facts.bio, tokenizer, "all"),
        *qa_examples(facts.qa, tokenizer, "all", "one"),
    ):
        assert learnt(example).tolist() == list(range(1, len(example.tokens)))
        assert example.targets[-1] == IGNORED


@pytest.mark.parametrize("kind", KINDS)
def test_only_answers_are_learnt_with_loss_answer(facts: FactTables, kind: str) -> None:
    tokenizer = tokenizer_for(facts, kind)

    def said(example: Example) -> str:
        # A space before an answer may be a token of its own, which is not the answer's.
        return tokenizer.decode(example.tokens[learnt(example)]).replace(" ", "")

    for table, examples in (
        (facts.bio, bio_examples(facts.bio, tokenizer, "answer")),
        (facts.qa, qa_examples(facts.qa, tokenizer, "answer", "all")),
    ):
        answers = np.array(answers_of(table), dtype=object).reshape(-1, len(RELATIONS))
        wanted = ["".join(row).replace(" ", "") for row in answers]
        assert [said(example) for example in examples] == wanted
    one = qa_examples(facts.qa, tokenizer, "answer", "one")
    assert [said(e) for e in one] == [a.replace(" ", "") for a in answers_of(facts.qa)]


def test_questions_are_one_or_all_of_a_person(facts: FactTables) -> None:
    tokenizer = tokenizer_for(facts)
    one = qa_examples(facts.qa, tokenizer, "all", "one")
    packed = qa_examples(facts.qa, tokenizer, "all", "all")
    assert [e.individual for e in one] == facts.qa["individual"].tolist()
    assert [e.individual for e in packed] == list(dict.fromkeys(facts.qa["individual"]))
    six = one[: len(RELATIONS)]
    inside = np.concatenate([e.tokens[1:] for e in six])
    assert packed[0].tokens[1:].tolist() == inside.tolist()


@pytest.mark.parametrize(
    ("tuning", "bio", "qa"),
    [
        ("bio", {"in", "out"}, set()),
        ("stage", set(), {"in"}),
        ("mix", {"in", "out"}, {"in"}),
        ("base", {"pretrain"}, set()),
    ],
)
def test_each_tuning_learns_its_people(
    facts: FactTables, tuning: str, bio: set[str], qa: set[str]
) -> None:
    examples = training_set(tuning, recipe(), facts.bio, facts.qa, tokenizer_for(facts))
    split = dict(zip(facts.individuals["individual"], facts.individuals["split"], strict=True))
    for kind, wanted in (("bio", bio), ("qa", qa)):
        people = {e.individual for e in examples if e.kind == kind}
        assert people == {i for i, side in split.items() if side in wanted}


@pytest.mark.parametrize("loss", ["all", "answer"])
def test_shuffled_sentences_are_the_single_ones_in_an_order_of_the_seed(
    facts: FactTables, loss: Literal["all", "answer"]
) -> None:
    tokenizer, six = tokenizer_for(facts), len(RELATIONS)
    single = short_examples(facts.bio, tokenizer, loss)
    orders = set()
    for number, text in enumerate(shuffled_examples(facts.bio, tokenizer, loss, seed=0)):
        own = single[number * six : (number + 1) * six]
        assert {e.individual for e in own} == {text.individual}
        parts = {tuple(e.tokens[1:]): tuple(e.targets[:-1]) for e in own}
        tokens, targets, order, at = text.tokens, text.targets, [], 1
        while at < len(tokens):
            (part,) = (p for p in parts if tuple(tokens[at : at + len(p)]) == p)
            order.append([tuple(e.tokens[1:]) for e in own].index(part))
            if loss == "answer":  # with loss all the first token is learnt, too, as behind any text
                assert tuple(targets[at - 1 : at - 1 + len(part)]) == parts[part]
            at += len(part)
        assert sorted(order) == list(range(six))
        orders.add(tuple(order))
    assert len(orders) > 1
    other = shuffled_examples(facts.bio, tokenizer, loss, seed=1)
    again = shuffled_examples(facts.bio, tokenizer, loss, seed=0)
    assert [e.tokens.tolist() for e in again] != [e.tokens.tolist() for e in other]


def test_answers_that_begin_alike_have_spans_of_their_own() -> None:
    row = {"name": "Ann Lee", "gender": "F", "birth_date": "May 1, 1990", "birth_city": "Ayr, GA"}
    row |= {"university": "MIT", "employer": "Oak, Inc.", "blood_type": "O-"}
    jobs = ["engineer", "engineer, civil"]
    people = pd.DataFrame(
        [
            {"individual": i, "split": "in", **row, "name": f"Ann Lee{'e' * i}", "job": job}
            for i, job in enumerate(jobs)
        ]
    )
    templates = load_templates()
    table = FactTables(people, make_bio(people, templates, 0), make_qa(people, templates))
    for kind in KINDS:
        tokenizer = tokenizer_for(table, kind)
        examples = qa_examples(table.qa, tokenizer, "answer", "one")
        found = [tokenizer.decode(e.tokens[learnt(e)]).strip() for e in examples]
        assert [found[3], found[9]] == ["engineer.", "engineer, civil."]
        assert found[4:6] == ["Oak, Inc..", "O-."]
