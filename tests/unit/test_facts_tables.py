"""The tables of a study: forms, spans, biographies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from factrecall.config.facts import Facts
from factrecall.data.files import BIO_COLUMNS, INDIVIDUAL_COLUMNS, QA_COLUMNS, joined
from factrecall.data.tables import FactTables, make_facts
from factrecall.data.templates import load_templates
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import RELATIONS


@pytest.fixture(scope="module")
def facts() -> FactTables:
    return make_facts(Facts(people=400, pretrain_people=100), seed=0)


def attributes(facts: FactTables) -> list[str]:
    return [str(v) for v in facts.individuals[list(RELATIONS)].to_numpy(dtype=object).ravel()]


def cut(table: pd.DataFrame, text: str, start: str, end: str) -> list[str]:
    rows = zip(table[text], table[start], table[end], strict=True)
    return [str(sentence)[first:last] for sentence, first, last in rows]


def test_forms(facts: FactTables) -> None:
    assert list(facts.individuals) == list(INDIVIDUAL_COLUMNS)
    assert list(facts.bio) == list(BIO_COLUMNS)
    assert list(facts.qa) == list(QA_COLUMNS)
    for table, columns in ((facts.bio, BIO_COLUMNS), (facts.qa, QA_COLUMNS)):
        assert len(table) == 500 * 6
        assert tuple(table["relation"]) == RELATIONS * 500
        assert table["individual"].tolist() == np.repeat(np.arange(500), 6).tolist()
        for column, kind in columns.items():
            assert kind != "int32" or table[column].dtype == np.int32


@pytest.mark.parametrize(
    ("name", "columns"),
    [("individuals", INDIVIDUAL_COLUMNS), ("bio", BIO_COLUMNS), ("qa", QA_COLUMNS)],
)
def test_tables_survive_storage(facts, tmp_path, name, columns) -> None:  # type: ignore[no-untyped-def]
    table = getattr(facts, name)
    write_table(tmp_path / "t.parquet", table, columns)
    back = read_table(tmp_path / "t.parquet", columns)
    assert [list(map(str, row)) for row in back.map(_plain).to_numpy()] == [
        list(map(str, row)) for row in table.map(_plain).to_numpy()
    ]


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize(
    ("table", "text", "prefix"),
    [("bio", "text", ""), ("bio", "short", "short_"), ("qa", "text", "")],
)
def test_spans_cut_out_attribute_and_terminator(
    facts: FactTables, table: str, text: str, prefix: str
) -> None:
    rows = getattr(facts, table)
    found = cut(rows, text, f"{prefix}attribute_start", f"{prefix}attribute_end")
    assert found == attributes(facts)
    ends = cut(rows, text, f"{prefix}attribute_end", f"{prefix}terminator_end")
    assert set(ends) == {"."}


def test_subject_is_the_name_where_the_format_says_so(facts: FactTables) -> None:
    names = facts.individuals["name"].repeat(6).tolist()
    bio = facts.bio
    assert cut(facts.qa, "text", "subject_start", "subject_end") == names
    assert cut(bio, "short", "short_subject_start", "short_subject_end") == names
    first = bio[bio["relation"] == "birth_date"]
    assert cut(first, "text", "subject_start", "subject_end") == names[::6]
    assert (first["text"] == first["short"]).all()
    later = bio[bio["relation"] != "birth_date"]
    pronouns = [p.lower() for p in cut(later, "text", "subject_start", "subject_end")]
    genders = facts.individuals["gender"].repeat(5)
    expected = {"F": {"she", "her"}, "M": {"he", "his"}}
    assert all(p in expected[g] for p, g in zip(pronouns, genders, strict=True))


def test_relation_spans_are_the_rest_of_the_text(facts: FactTables) -> None:
    for row in facts.bio.head(300).itertuples():
        rest = row.text[: row.subject_start] + row.text[row.subject_end : row.attribute_start]
        runs = zip(row.relation_start, row.relation_end, strict=True)
        words = " ".join(row.text[start:end] for start, end in runs)
        assert words.split() == rest.split() or words.replace(" ", "") == rest.replace(" ", "")


def test_biographies_join_sentences_at_their_starts(facts: FactTables) -> None:
    people, texts, spans = zip(*joined(facts.bio), strict=True)
    assert list(people) == facts.individuals["individual"].tolist()
    whole = [text for text in texts for _ in RELATIONS]
    for text, row in zip(whole, facts.bio.itertuples(), strict=True):
        assert text[row.start : row.start + len(row.text)] == row.text
    found = [text[a:b] for text, pairs in zip(texts, spans, strict=True) for a, b in pairs]
    assert found == [f"{attribute}." for attribute in attributes(facts)]
    assert [pairs[-1][1] for pairs in spans] == [len(text) for text in texts]


def test_questions_of_a_person_join_like_sentences(facts: FactTables) -> None:
    texts = list(joined(facts.qa))
    found = [text[a:b] for _, text, pairs in texts for a, b in pairs]
    assert found == [f"{attribute}." for attribute in attributes(facts)]


def test_joining_takes_whole_people_only(facts: FactTables) -> None:
    some = facts.bio[facts.bio["individual"].isin([7, 3])]
    assert [person for person, _, _ in joined(some)] == [3, 7]
    with pytest.raises(ValueError, match="six rows"):
        list(joined(facts.bio.iloc[1:7]))
    with pytest.raises(ValueError, match="six rows"):
        list(joined(facts.bio.iloc[:5]))


def test_templates_are_used_evenly(facts: FactTables) -> None:
    sentences = load_templates().sentences
    big = make_facts(Facts(people=3000), seed=0).bio
    for relation in RELATIONS:
        counts = big[big["relation"] == relation]["template"].value_counts()
        kinds = len(sentences[relation])
        expected = 3000 / kinds
        assert sorted(counts.index) == list(range(kinds))
        statistic = ((counts - expected) ** 2 / expected).sum()
        # Mean and standard deviation of chi-square; fixed seed.
        assert abs(statistic - (kinds - 1)) < 4.5 * np.sqrt(2 * (kinds - 1))


def test_same_seed_same_tables_other_seed_others() -> None:
    settings = Facts(people=30, pretrain_people=5)
    one, same, other = (make_facts(settings, seed) for seed in (1, 1, 2))
    for name in ("individuals", "bio", "qa"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(same, name))
        assert not getattr(one, name).equals(getattr(other, name))
    assert not one.bio["template"].equals(other.bio["template"])


def test_pretrain_people_leave_the_texts_of_others_unchanged() -> None:
    few = make_facts(Facts(people=30), 1)
    many = make_facts(Facts(people=30, pretrain_people=20), 1)
    pd.testing.assert_frame_equal(few.bio, many.bio.iloc[:180])
    pd.testing.assert_frame_equal(few.qa, many.qa.iloc[:180])


def test_people_of_pretraining_have_several_biographies_of_the_same_facts() -> None:
    one, three = (
        make_facts(Facts(people=20, pretrain_people=10, pretrain_biographies=n), seed=0)
        for n in (1, 3)
    )
    rows = three.bio[three.bio["split"] == "pretrain"]
    assert rows.groupby(["individual", "relation"]).size().eq(3).all()
    assert (rows["biography"].to_numpy().reshape(10, 3, 6) == [[[0] * 6, [1] * 6, [2] * 6]]).all()
    values = [t[a:b] for t, a, b in rows[["text", "attribute_start", "attribute_end"]].to_numpy()]
    assert (
        rows.assign(value=values).groupby(["individual", "relation"])["value"].nunique().eq(1).all()
    )
    assert rows.groupby(["individual", "relation"])["template"].nunique().gt(1).mean() > 0.8
    assert len(list(joined(rows))) == 30
    # The people of the study have one each, whatever those of pre-training have.
    study = [tables.bio[tables.bio["split"] != "pretrain"] for tables in (one, three)]
    pd.testing.assert_frame_equal(*study)
    assert study[0]["biography"].eq(0).all()
