"""People that the user brings: taken as they are, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from factrecall.config.facts import Facts
from factrecall.data.own_data import read_people
from factrecall.data.people import PEOPLE_COLUMNS
from factrecall.data.tables import make_facts
from factrecall.runtime.errors import FactRecallError
from factrecall.vocabulary import RELATIONS

COUNT = 4
SETTINGS = Facts(people=COUNT)


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": ["Zoë Ångström", "李 小龙", "Null", "O'Brien {x}"],
            "gender": ["F", "M", "F", "M"],
            "split": ["in", "out", "out", "in"],
            "birth_date": ["February 1, 2089", "三月三日", "NA", "May 5, 1955"],
            "birth_city": ["Amyville, GA", "北京", "São Paulo", "Kraków 🏰"],
            "university": ["École Normale", "清华大学", "A “quoted” school", "Reed College"],
            "job": ["actor", "engineer, civil", "it trainer", "nurse"],
            "employer": ["Bell, Ramos and Romero", "A&B", "C/D", "É"],
            "blood_type": ["A+", "O-", "AB+", "B-"],
        }
    )


def save(table: pd.DataFrame, folder: Path, kind: str = "csv") -> Path:
    path = folder / f"people.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


def refusal(path: Path, settings: Facts = SETTINGS) -> FactRecallError:
    with pytest.raises(FactRecallError) as error:
        read_people(path, settings, 0)
    return error.value


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_round_trip(table: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    people = read_people(save(table, tmp_path, kind), SETTINGS, 0)
    assert tuple(people.columns) == PEOPLE_COLUMNS
    assert people["individual"].tolist() == [0, 1, 2, 3]
    for column in table.columns:
        assert people[column].tolist() == table[column].tolist()


def test_own_people_go_all_the_way_to_text(table: pd.DataFrame, tmp_path: Path) -> None:
    facts = make_facts(Facts(people=COUNT, individuals=save(table, tmp_path)), 0)
    assert facts.qa["text"][6] == "What is the birth date of 李 小龙? 三月三日."
    rows = zip(facts.bio["short"], table["name"].repeat(6), strict=True)
    assert all(name in sentence for sentence, name in rows)


def test_byte_order_mark_white_space_and_other_columns(table: pd.DataFrame, tmp_path: Path) -> None:
    spaced = table.assign(name=[f"  {name} " for name in table["name"]], note="x")
    path = tmp_path / "people.csv"
    spaced.to_csv(path, index=False, encoding="utf-8-sig")
    people = read_people(path, SETTINGS, 0)
    assert people["name"].tolist() == table["name"].tolist()
    assert "note" not in people


def test_gender_and_split_are_drawn_when_absent(table: pd.DataFrame, tmp_path: Path) -> None:
    big = pd.concat([table.assign(name=table["name"] + str(i)) for i in range(50)])
    path = save(big.drop(columns=["gender", "split"]), tmp_path)
    settings = Facts(people=200, in_distribution=0.25)
    people = read_people(path, settings, 0)
    assert people["split"].value_counts().to_dict() == {"out": 150, "in": 50}
    assert set(people["gender"]) == {"F", "M"}
    pd.testing.assert_frame_equal(people, read_people(path, settings, 0))
    assert not people["gender"].equals(read_people(path, settings, 1)["gender"])


def test_pretrain_people_are_invented_under_other_names(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    pools = SETTINGS.pools.model_copy(update={"first_names": 2, "last_names": 3})
    settings = SETTINGS.model_copy(update={"pools": pools, "pretrain_people": 6})
    invented = read_people(save(table, tmp_path), settings, 0)["name"].iloc[COUNT:]
    assert invented.nunique() == 6
    table.loc[0, "name"] = invented.iloc[0]
    error = refusal(save(table, tmp_path), settings)
    assert error.where == "facts.pretrain_people"
    assert "only 5" in error.why
    fewer = read_people(
        save(table, tmp_path), settings.model_copy(update={"pretrain_people": 5}), 0
    )
    assert fewer["name"].is_unique


def test_file_is_missing_or_of_another_kind(table: pd.DataFrame, tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.csv").why
    path = tmp_path / "people.txt"
    path.write_text("name", encoding="utf-8")
    assert "neither .csv nor .parquet" in refusal(path).why


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("people.csv", b""),
        ("people.csv", "name\nZoë".encode("latin-1")),
        ("people.csv", b'name,job\n"a,b\n'),
        ("people.parquet", b"PAR1 not really"),
        ("people.parquet", b""),
    ],
)
def test_file_is_corrupt(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "cannot be read" in refusal(tmp_path / name).why


def test_commas_outside_quotes_do_not_shift_columns(table: pd.DataFrame, tmp_path: Path) -> None:
    header, *rows = save(table.iloc[[0]], tmp_path).read_text(encoding="utf-8").splitlines()
    path = tmp_path / "unquoted.csv"
    text = "\n".join([header, *(row.replace('"', "") for row in rows)])
    path.write_text(text, encoding="utf-8")
    assert "more fields than the header" in refusal(path).why


@pytest.mark.parametrize("column", ["name", *RELATIONS])
def test_missing_columns_are_named(table: pd.DataFrame, tmp_path: Path, column: str) -> None:
    error = refusal(save(table.drop(columns=column), tmp_path))
    assert error.why == f"missing columns: {column}"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["name", "job", "gender", "split"])
@pytest.mark.parametrize("empty", ["", "  ", None])
def test_empty_values_are_located(
    table: pd.DataFrame, tmp_path: Path, column: str, empty: str | None, kind: str
) -> None:
    table.loc[2, column] = empty
    error = refusal(save(table, tmp_path, kind))
    assert f"column {column}, row 3" in error.where
    assert "empty" in error.why


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("name", "Zoë Ångström", "twice"),
        ("gender", "X", "none of F, M"),
        ("gender", "f", "none of F, M"),
        ("split", "pretrain", "none of in, out"),
        ("job", "a\nb", "line break"),
        ("employer", "a\tb", "control character"),
        ("name", "a\u2028b", "line break"),
        ("birth_city", "a\x00b", "control character"),
    ],
)
def test_bad_values_are_located(
    table: pd.DataFrame, tmp_path: Path, column: str, value: str, why: str
) -> None:
    table.loc[3, column] = value
    error = refusal(save(table, tmp_path, "parquet"))
    assert f"column {column}, row 4" in error.where
    assert why in error.why


def test_values_that_are_no_text(table: pd.DataFrame, tmp_path: Path) -> None:
    for values in ([1, 2, 3, 4], [[1], [2], [3], [4]]):
        table["birth_date"] = pd.Series(values)
        assert "is not text" in refusal(save(table, tmp_path, "parquet")).why


def test_too_few_people_or_not_as_many_as_set(table: pd.DataFrame, tmp_path: Path) -> None:
    assert "at least 2" in refusal(save(table.iloc[:1], tmp_path)).why
    assert "at least 2" in refusal(save(table.iloc[:0], tmp_path)).why
    error = refusal(save(table, tmp_path), Facts(people=9))
    assert error.where == "facts.people"
    assert error.remedy == f"set facts.people to {COUNT}"


def test_one_split_alone_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    assert "same split" in refusal(save(table.assign(split="in"), tmp_path)).why
