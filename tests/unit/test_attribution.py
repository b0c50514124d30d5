"""Attributions add up, and counterfactual prompts differ in the part that they replace."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factrecall.experiments.attribution import integrated_gradients as module
from factrecall.experiments.attribution.attribution import attribute
from factrecall.experiments.attribution.counterfactual_prompts import (
    PARTS,
    counterfactual,
    draw_facts,
)
from factrecall.experiments.attribution.integrated_gradients import integrated_gradients
from factrecall.experiments.attribution.settings import AttributionSettings
from factrecall.experiments.attribution.tables import (
    ATTRIBUTION,
    OTHER_RELATION,
)
from factrecall.experiments.attribution.tokenised_prompts import TokenisedPrompt, tokenise
from factrecall.experiments.common.model_facts import ModelFacts
from factrecall.experiments.common.prompts import ROLES, Prompt, compose, prompts
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import FORMATS, RELATIONS
from tests.conftest import ARCHITECTURES, Tiny, tokenizer_for
from tests.taught import DRAWN, FACTS, TEXTS, taught

PEOPLE = sorted(TEXTS.sentences["qa"])

someone = st.sampled_from(PEOPLE)
some_form = st.sampled_from(("bio", "short", "qa"))
some_relation = st.sampled_from(RELATIONS)


@pytest.fixture(params=ARCHITECTURES)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    """A model that has learnt the facts."""
    return taught(request.param)


def prompt(form: str, person: int, relation: str) -> Prompt:
    return compose(TEXTS.up_to(form, person, relation))


def prompts_of(tiny: Tiny, count: int = 10) -> list[TokenisedPrompt]:
    """Return prompts of both formats, of many lengths."""
    keys = [(f, p, r) for p in PEOPLE[:3] for r in RELATIONS[::2] for f in FORMATS]
    return tokenise(tiny.tokenizer, [prompt(*key) for key in keys[:count]])


# --- texts ------------------------------------------------------------------------------------


def test_prompts_say_what_the_tables_say() -> None:
    facts = FACTS
    for question in facts.qa[facts.qa["split"] != "pretrain"].to_dict("records"):
        stated = facts.bio[facts.bio["individual"] == question["individual"]]
        stated = stated[stated["biography"] == 0]
        found = prompts(stated, question)
        sentence = stated[stated["relation"] == question["relation"]].iloc[0]
        start = sentence["start"] + sentence["attribute_start"]
        assert found["bio"].text == " ".join(stated["text"])[:start].rstrip()
        assert found["qa"].text == question["text"][: question["attribute_start"]].rstrip()
        for form, row, offset in (("bio", sentence, sentence["start"]), ("qa", question, 0)):
            pairs = zip(row["relation_start"], row["relation_end"], strict=True)
            spans = [(role, start, end) for role, start, end in found[form].spans]
            assert [s[1:] for s in spans if s[0] == "relation"] == [
                (start + offset, end + offset) for start, end in pairs
            ]
            own = ("subject", row["subject_start"] + offset, row["subject_end"] + offset)
            assert own in spans and spans.count(own) == 1
            whole, (start, end) = found[form].whole
            value = question["text"][question["attribute_start"] : question["attribute_end"]]
            assert whole[start:end] == value and whole.endswith(f"{value}.")
        assert sum(role == "attribute" for role, *_ in found["bio"].spans) == RELATIONS.index(
            question["relation"]
        )


@settings(max_examples=60)
@given(some_form, someone, someone, some_relation, st.sampled_from(PARTS))
def test_one_part_is_exchanged_and_no_other(
    form: str, person: int, source: int, relation: str, part: str
) -> None:
    own, other = (TEXTS.up_to(form, who, relation) for who in (person, source))
    assert counterfactual(part, own, own) == own
    found = counterfactual(part, own, other)
    assert len(found) == len(own)
    wording = ("before", "after")
    for number, (mine, theirs, new) in enumerate(zip(own, other, found, strict=True)):
        wanted, named = number == len(own) - 1, not number
        replaced = {
            "subject": ("subject",) if named else (),
            "relation": wording if wanted else (),
            "attribute": () if wanted else ("attribute",),
            "other": () if wanted else wording,
        }[part]
        agrees = {"after"} if {"attribute", *wording} & set(replaced) else set()
        pronoun = {"subject"} if replaced == wording and not named else set()
        for name in new._fields:
            expected = getattr(theirs if name in (*replaced, *pronoun) else mine, name)
            if name in agrees:  # "a" or "an"
                expected, value = (
                    text.replace(" an ", " a ") for text in (expected, getattr(new, name))
                )
                assert value == expected
            else:
                assert getattr(new, name) == expected


def test_an_article_goes_with_its_attribute() -> None:
    found = 0
    for person in PEOPLE:
        for source in PEOPLE:
            own, other = (TEXTS.up_to("bio", who, "employer") for who in (person, source))
            for part in ("attribute", "other"):
                job = counterfactual(part, own, other)[RELATIONS.index("job")]
                if job.after.endswith((" a ", " an ")):
                    found += 1
                    assert job.after.endswith(" an ") == (job.attribute[0] in "aeiou")
    assert found > 20


@settings(max_examples=40)
@given(some_form, someone, some_relation, st.sampled_from(RELATIONS[1:]))
def test_another_relation_is_stated_of_the_same_person(
    form: str, person: int, relation: str, other: str
) -> None:
    if other == relation:
        return
    own, new = TEXTS.up_to(form, person, relation), TEXTS.reworded(form, person, relation, other)
    assert new[:-1] == own[:-1] and new[-1].attribute == own[-1].attribute
    source = "short" if form == "bio" and relation == RELATIONS[0] else form
    there = TEXTS.sentences[source][person][other]
    assert (new[-1].before, new[-1].subject) == (there.before, there.subject)


def test_sources_are_of_the_same_side_and_state_another_answer() -> None:
    few, many = (draw_facts(FACTS.individuals, FACTS.bio, count, 5) for count in (3, None))
    assert set(many["individual"]) == set(PEOPLE) and len(few) == 2 * 3 * len(RELATIONS)
    pd.testing.assert_frame_equal(
        few.reset_index(drop=True),
        many[many["individual"].isin(few["individual"])].reset_index(drop=True),
    )
    people = FACTS.individuals.set_index("individual")
    assert (many["source"] != many["individual"]).all() and (
        many["other"] != many["relation"]
    ).all()
    same = many["source"].map(people["split"]) == many["split"]
    gender = many["source"].map(people["gender"]) == many["individual"].map(people["gender"])
    values = [people.loc[[f.individual, f.source], f.relation] for f in many.itertuples()]
    other = np.mean([value.iloc[0].split()[0] != value.iloc[1].split()[0] for value in values])
    assert same.all() and gender.mean() > 0.9 and other > 0.9
    alone = FACTS.individuals[FACTS.individuals["individual"].isin(PEOPLE[:2])]
    alone = alone.assign(split=["in", "out"])
    bio = FACTS.bio[FACTS.bio["individual"].isin(PEOPLE[:2])]
    assert set(draw_facts(alone, bio, None, 5)["source"]) == set(PEOPLE[:2])


def test_gender_is_that_of_the_table_whatever_the_pronouns() -> None:
    # Own templates may have no pronouns at all.
    bio = FACTS.bio.copy()
    ends = zip(bio["text"], bio["subject_start"], bio["subject_end"], strict=True)
    bio["text"] = [f"{text[:start]}{'X' * (end - start)}{text[end:]}" for text, start, end in ends]
    drawn = draw_facts(FACTS.individuals, bio, None, 5)
    pd.testing.assert_frame_equal(drawn, draw_facts(FACTS.individuals, FACTS.bio, None, 5))


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_tokens_have_the_role_of_what_they_stand_for(kind: str) -> None:
    tokenizer = tokenizer_for(FACTS, kind)
    for form in ("bio", "short", "qa"):
        (one,) = tokenise(tokenizer, [prompt(form, PEOPLE[0], "university")])
        words = [str(tokenizer.decode([token])).strip() for token in one.tokens]
        sentence = TEXTS.sentences[form][PEOPLE[0]]["university"]
        assert sentence.subject.endswith(words[one.positions["subject"]])
        wording = (sentence.before + sentence.after).replace("?", " ").replace(",", " ").split()
        assert wording[-1].endswith(words[one.positions["relation"]])
        assert one.positions["last"] == len(one.roles) - 1
        assert sentence.attribute.startswith(words[len(one.roles)]) and words[-1].endswith(".")
        assert one.roles[0] == "start" and (one.roles[1:] != "start").all()
        stated = "".join(np.array(words)[: len(one.roles)][one.roles == "attribute"])
        before = TEXTS.up_to(form, PEOPLE[0], "university")[:-1]
        assert stated == "".join(s.attribute.replace(" ", "") for s in before)


# --- integrated gradients ---------------------------------------------------------------------


def logit(tiny: Tiny, one: TokenisedPrompt, embedded: torch.Tensor) -> torch.Tensor:
    """Return the logit of an answer's first token, the plain way."""
    logits = tiny.model(inputs_embeds=embedded[None], use_cache=False).logits
    return torch.as_tensor(logits[0, -1, one.first])


def ends(tiny: Tiny, one: TokenisedPrompt) -> tuple[torch.Tensor, torch.Tensor]:
    matrix: torch.Tensor = tiny.model.get_input_embeddings().weight.detach()  # type: ignore[operator]
    embedded = matrix[torch.as_tensor(one.tokens[: len(one.roles)])]
    return matrix.mean(0).expand_as(embedded), embedded


def test_attributions_add_up_to_what_the_prompt_adds(tiny: Tiny) -> None:
    tokenised = prompts_of(tiny)
    gaps = {}
    for steps in (4, 96):
        found = integrated_gradients(tiny.model, tokenised, steps, 512)
        sums = np.array([tokens.sum() for tokens in found.tokens])
        gaps[steps] = np.abs(sums - found.totals).max()
    assert gaps[96] < 2e-4 and gaps[96] < 0.1 * gaps[4]
    for one, tokens, total in zip(tokenised, found.tokens, found.totals, strict=True):
        assert tokens.shape == one.roles.shape
        with torch.no_grad():
            begin, end = (float(logit(tiny, one, at)) for at in ends(tiny, one))
        assert total == pytest.approx(end - begin, abs=1e-5)


def test_attributions_are_those_of_a_plain_sum_along_the_path(tiny: Tiny) -> None:
    tokenised = prompts_of(tiny, 4)
    found = integrated_gradients(tiny.model, tokenised, 64, 4096)
    for one, tokens in zip(tokenised, found.tokens, strict=True):
        begin, end = ends(tiny, one)
        total = torch.zeros_like(end)
        points = (np.arange(400) + 0.5) / 400
        for point in points.tolist():
            at = (begin + point * (end - begin)).requires_grad_()
            total += torch.autograd.grad(logit(tiny, one, at), at)[0] / len(points)
        plain = ((end - begin) * total).sum(-1).numpy()
        np.testing.assert_allclose(tokens, plain, atol=1e-3)


def test_attributions_do_not_depend_on_the_batch(tiny: Tiny) -> None:
    tokenised = prompts_of(tiny)
    together = integrated_gradients(tiny.model, tokenised, 8, 4096)
    for number, one in enumerate(tokenised):
        alone = integrated_gradients(tiny.model, [one], 8, 16)
        np.testing.assert_allclose(alone.tokens[0], together.tokens[number], atol=2e-5)
        assert alone.totals[0] == pytest.approx(together.totals[number], abs=2e-5)


def test_weights_take_no_part_and_batches_are_small(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenised = copy.deepcopy(tiny.model), prompts_of(tiny)
    whole = integrated_gradients(model, tokenised, 8, 4096)
    weights = list(model.parameters())
    sizes: list[tuple[int, bool]] = []

    def seen(_: object, tokens: tuple[torch.Tensor, ...], given: dict[str, Any]) -> None:
        asking = any(weight.requires_grad for weight in weights)
        sizes.append(((tokens[0] if tokens else given["input_ids"]).numel(), asking))

    model.base_model.register_forward_pre_hook(seen, with_kwargs=True)
    monkeypatch.setattr(module, "BATCH_TOKENS", 64)
    weights[0].requires_grad_(False)
    found = integrated_gradients(model, tokenised, 8, 4096)
    assert not weights[0].requires_grad and all(weight.requires_grad for weight in weights[1:])
    longest = max(len(one.roles) for one in tokenised)
    assert sizes and all(size <= max(64, longest) and not asking for size, asking in sizes)
    for one, other in zip(found.tokens, whole.tokens, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert all(weight.grad is None for weight in weights[1:])


# --- the table --------------------------------------------------------------------------------


def attributed(tiny: Tiny, out: Path, tokenizer: Any = None) -> pd.DataFrame:
    model, tokenizer = tiny.model, tokenizer or tiny.tokenizer
    facts = (FACTS.individuals, FACTS.bio, FACTS.qa)
    opened = ModelFacts(model, tokenizer, *facts, study_seed=5, max_eval_tokens=1024)
    write_table(out, attribute(opened, AttributionSettings(individuals=2, steps=8)), ATTRIBUTION)
    return read_table(out, ATTRIBUTION)


def said(tiny: Tiny, text: str, gold: int) -> tuple[float, float, int]:
    with torch.no_grad():
        ids = torch.tensor([tiny.tokenizer(text)["input_ids"]])
        logits = tiny.model(input_ids=ids).logits[0, -1].double()
    return float(logits[gold]), float(logits.log_softmax(-1)[gold]), int(logits.argmax())


def test_a_table_holds_every_fact_and_role(tiny: Tiny, tmp_path: Path) -> None:
    table = attributed(tiny, tmp_path / "one.parquet")
    assert attributed(tiny, tmp_path / "two.parquet").equals(table)
    key = ["format", "individual", "relation"]
    assert len(table) == len(DRAWN) * 2 * (len(ROLES) + 1)
    assert not table.duplicated([*key, "role"]).any()
    sums = table.groupby(key)["attribution"].sum()
    first = table.drop_duplicates(key).set_index(key)
    np.testing.assert_allclose(sums, (first["total"] + first["gap"])[sums.index], atol=1e-6)
    sources = DRAWN.set_index(["individual", "relation"])
    seen: dict[str, int] = {}
    for row in table.itertuples():
        own = TEXTS.up_to(row.format, row.individual, row.relation)
        fact = sources.loc[(row.individual, row.relation)]
        (one,) = tokenise(tiny.tokenizer, [compose(own)])
        usual = said(tiny, compose(own).text, one.first)
        assert (row.logit, row.log_probability) == pytest.approx(usual[:2], abs=1e-4)
        assert row.right == (usual[2] == one.first)
        role = "relation" if row.role == OTHER_RELATION else row.role
        assert row.tokens == (one.roles == role).sum()
        if row.role == OTHER_RELATION:
            changed = TEXTS.reworded(row.format, row.individual, row.relation, fact["other"])
            calls = (row.individual, fact["other"])
        elif row.role in PARTS:
            source = TEXTS.up_to(row.format, fact["source"], row.relation)
            changed, calls = counterfactual(row.role, own, source), (fact["source"], row.relation)
        if row.role == "start" or compose(changed).text == compose(own).text:
            assert np.isnan(row.replaced_logit) and np.isnan(row.replaced_log_probability)
            assert row.replaced_right == row.right and not row.source_answer
            continue
        seen[row.role] = seen.get(row.role, 0) + 1
        new = said(tiny, compose(changed).text, one.first)
        found = (row.replaced_logit, row.replaced_log_probability)
        assert found == pytest.approx(new[:2], abs=1e-4)
        assert row.replaced_right == (new[2] == one.first)
        (called,) = tokenise(tiny.tokenizer, [prompt("qa", *calls)])
        assert row.source_answer == (new[2] == called.first != one.first)
    assert set(seen) == {*PARTS, OTHER_RELATION}
    assert all(table[name].nunique() == 2 for name in ("right", "replaced_right", "source_answer"))


def test_a_text_that_does_not_fit_is_left_out(tiny: Tiny, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tiny.tokenizer)
    own = [prompt("bio", f.individual, f.relation) for f in DRAWN.itertuples()]
    tokenizer.model_max_length = max(len(one.tokens) for one in tokenise(tokenizer, own))
    table = attributed(tiny, tmp_path / "short.parquet", tokenizer)
    whole = attributed(tiny, tmp_path / "whole.parquet")
    assert table["replaced_logit"].isna().sum() > whole["replaced_logit"].isna().sum()
    assert table["logit"].equals(whole["logit"])
