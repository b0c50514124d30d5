"""Own individuals, read from a CSV or Parquet file.

Values are any Unicode text, stripped of outer white space. What would break a sentence or the
uniqueness of a subject is refused, with its column and row.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from factrecall.data.people import GENDERS, draw_genders, draw_split, with_pretrain_people
from factrecall.data.pools import make_pools
from factrecall.runtime.errors import FactRecallError
from factrecall.vocabulary import RELATIONS, SIDES

if TYPE_CHECKING:
    from factrecall.config.facts import Facts

REQUIRED = ("name", *RELATIONS)
OPTIONAL = ("gender", "split")

# Control characters, and the separators of lines and paragraphs.
_LINE_BREAKING = frozenset({"Cc", "Cs", "Zl", "Zp"})


def read_people(path: Path, settings: Facts, seed: int) -> pd.DataFrame:
    """Read own individuals; those of pre-training remain synthetic.

    Parameters
    ----------
    path : Path
        A ``.csv`` (UTF-8, header line) or ``.parquet`` file with the columns `name`, the six
        relations, and optionally `gender` ("F"/"M") and `split` ("in"/"out"). Optional columns
        that are absent are drawn; other columns are ignored.
    settings : factrecall.config.facts.Facts
        `people` is the number of rows; `in_distribution` counts when there is no column split.
    seed : int
        The study seed.

    Returns
    -------
    pandas.DataFrame
        As of `factrecall.data.people.sample_people`, rows in the order of the file.

    Raises
    ------
    FactRecallError
        On the first mistake found in the file, with its column and row.
    """
    path = Path(path)
    where = f"facts.individuals: {path}"
    people = _clean(_load(path, where), where)
    _check_count(len(people), settings.people, where)
    _check_names(people["name"], where)
    if "gender" not in people:
        people["gender"] = draw_genders(len(people), seed)
    _check_choices(people["gender"], GENDERS, where)
    if "split" not in people:
        people["split"] = draw_split(len(people), settings.in_distribution, seed)
    _check_choices(people["split"], SIDES, where)
    if people["split"].nunique() != len(SIDES):
        raise FactRecallError(
            f"{where}, column split",
            "all people are in the same split, the study compares both",
            "put some people in 'in' and some in 'out', or leave the column out",
        )
    return with_pretrain_people(people, make_pools(settings.pools, seed), settings, seed)


def _load(path: Path, where: str) -> pd.DataFrame:
    if not path.is_file():
        raise FactRecallError(where, "there is no such file", "mend the path, or remove the key")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise FactRecallError(
            where, "its name ends with neither .csv nor .parquet", "save it as one of the two"
        )
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path).reset_index(drop=True)
        # Names such as Null or NA are names.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas, pyarrow and Unicode errors are ValueErrors
        raise FactRecallError(
            where, f"the file cannot be read ({error})", "save it again as UTF-8 CSV or Parquet"
        ) from error
    # pandas takes the first columns for an index when rows are longer than the header.
    if not isinstance(table.index, pd.RangeIndex):
        raise FactRecallError(
            where,
            "the rows have more fields than the header has columns",
            'put values that hold a comma in double quotes: "February 1, 2089"',
        )
    return table


def _clean(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Keep the known columns, as stripped text without anything that breaks a line."""
    missing = [column for column in REQUIRED if column not in table]
    if missing:
        raise FactRecallError(
            where,
            f"missing columns: {', '.join(missing)}",
            f"the file needs the columns {', '.join(REQUIRED)}; {', '.join(OPTIONAL)} may be there",
        )
    columns = [column for column in (*REQUIRED, *OPTIONAL) if column in table]
    return pd.DataFrame({column: _texts(table[column], column, where) for column in columns})


def _texts(values: pd.Series, column: str, where: str) -> list[str]:
    texts = []
    for row, value in enumerate(values, start=1):
        place = f"{where}, column {column}, row {row}"
        if pd.api.types.is_scalar(value) and pd.isna(value):
            value = ""
        if not isinstance(value, str):
            raise FactRecallError(
                place, f"{value!r} is not text", "store the column as text, as it shall be read"
            )
        text = value.strip()
        if not text:
            raise FactRecallError(place, "the value is empty", "fill it in, or leave the row out")
        if any(unicodedata.category(character) in _LINE_BREAKING for character in text):
            raise FactRecallError(
                place,
                f"{text!r} holds a line break or a control character",
                "replace it by a space",
            )
        texts.append(text)
    return texts


def _check_count(rows: int, people: int, where: str) -> None:
    if rows < 2:
        raise FactRecallError(
            where, f"it holds {rows} people, a study needs at least 2", "add people to the file"
        )
    if rows != people:
        raise FactRecallError(
            "facts.people",
            f"it is {people}, but facts.individuals holds {rows} people",
            f"set facts.people to {rows}",
        )


def _check_names(names: pd.Series, where: str) -> None:
    if (repeated := names.duplicated()).any():
        place, name = _first(repeated, names, where)
        raise FactRecallError(
            place,
            f"{name!r} is there twice, a name must identify one person",
            "make the names unique, for instance with a middle name",
        )


def _check_choices(values: pd.Series, choices: tuple[str, ...], where: str) -> None:
    if (wrong := ~values.isin(choices)).any():
        place, value = _first(wrong, values, where)
        raise FactRecallError(
            place,
            f"{value!r} is none of {', '.join(choices)}",
            "mend it, or leave the column out to have it drawn",
        )


def _first(wrong: pd.Series, values: pd.Series, where: str) -> tuple[str, str]:
    row = int(wrong.to_numpy().argmax())
    return f"{where}, column {values.name}, row {row + 1}", values.iloc[row]
