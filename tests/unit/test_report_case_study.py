"""The case study in the report: what is condensed, judged, said and drawn of made-up tables."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib.image
import pandas as pd
import pytest

from factrecall.experiments.case_study.measures import CaseStudy
from factrecall.experiments.case_study.report import (
    SECTION,
    case_files,
    lens,
    no_trace_of_recall,
    same_rank,
)
from factrecall.experiments.case_study.tables import (
    ATTENTION,
    CASE,
    LENS,
    ROLES_ATTENDED,
    SHOWN,
    TOKENS,
)
from factrecall.experiments.common.prompts import ROLES
from factrecall.report.published import LLAMA
from factrecall.report.render import show_section
from factrecall.report.style import DOTS_PER_INCH, WIDTH
from factrecall.runtime.storage import read_table, write_table
from tests.unit.test_report_shared import cells

HOSTILE = ("$x_{", "<script>alert(1)</script>", "名" * 40, "\n", "\\frac", "")
SETTINGS = {"study_seed": 0, "seed": 0, "layer": None, "individual": None, "relation": None}


def write_case(
    folder: Path, *, tokens: int = 12, diffuse: float = 0.2, right: Any = None
) -> dict[str, Path]:
    """Make a head that attends to the name; in the Stage-tuned model less so in a statement."""
    files = {name: folder / path for name, path in case_files("m").items()}
    right = right or {"mix": True, "stage": False}
    case = [
        ("mix", 21, 17, 900, 2, 3, "university", HOSTILE[1], right["mix"]),
        ("stage", 21, 17, 300, 17, 3, "university", HOSTILE[1], right["stage"]),
    ]
    write_table(files["case"], pd.DataFrame(case, columns=list(CASE)), CASE)
    texts = [(HOSTILE * tokens)[i] for i in range(tokens)]
    marked = [
        (form, i, texts[i], ROLES[min(i, len(ROLES) - 1)])
        for form in ("bio", "qa")
        for i in range(tokens if form == "bio" else 6)
    ]
    write_table(files["tokens"], pd.DataFrame(marked, columns=list(TOKENS)), TOKENS)
    pairs = [
        (tuning, form, query, key, 1 / (query + 1))
        for tuning in ("mix", "stage")
        for form, length in (("bio", tokens), ("qa", 6))
        for query in range(length)
        for key in range(query + 1)
    ]
    write_table(files["attention"], pd.DataFrame(pairs, columns=list(ATTENTION)), ATTENTION)
    said = [
        (tuning, form, rank, text, 9.0 - rank, role)
        for tuning in ("mix", "stage")
        for form in ("bio", "qa")
        for rank, text, role in (
            (1, HOSTILE[0], ""), (2, HOSTILE[1], "subject"), (3, "", ""), (700, "Neb", "answer"),
        )
    ]  # fmt: skip
    write_table(files["logits"], pd.DataFrame(said, columns=list(LENS)), LENS)
    looks = []
    for tuning in ("mix", "stage"):
        for form in ("bio", "qa"):
            less = diffuse if (tuning, form) == ("stage", "bio") else 0.0
            weights = {"subject": 0.9 - less, "relation": 0.1, "attribute": less}
            for person in range(10):
                for relation in ("job", "university"):
                    for role in ROLES:
                        key = (tuning, form, person, relation, True, role)
                        looks.append((*key, weights.get(role, 0.0)))
    write_table(files["looks"], pd.DataFrame(looks, columns=list(ROLES_ATTENDED)), ROLES_ATTENDED)
    return files


def case_study(folder: Path, settings: dict[str, Any] = SETTINGS, **made: Any) -> CaseStudy:
    """Write a case and read it as the report does."""
    return CaseStudy("m", write_case(folder, **made), settings, LLAMA)


def altered(case: CaseStudy, name: str, **columns: Any) -> CaseStudy:
    """Return a case with some columns of a table replaced."""
    tables = {**case._tables, name: case.rows(name).assign(**columns)}
    return CaseStudy(case.model, case.files, case.settings, LLAMA, tables)


def test_heads_that_attend_alike_are_judged_over_people(tmp_path: Path) -> None:
    for diffuse, expected in ((0.2, "holds"), (-0.05, "does not hold"), (0.0, "inconclusive")):
        case = case_study(tmp_path / str(diffuse), diffuse=diffuse)
        if diffuse < 0:
            tuning = case.rows("looks")["tuning"].map({"mix": "stage", "stage": "mix"})
            case = altered(case, "looks", tuning=tuning)
        (claim,) = SECTION.judged(case)
        assert claim.verdict == expected
    assert "10 people, one seed" in claim.evidence
    assert "but for that to the token that begins every text" in claim.evidence
    assert claim.text.startswith("The head with most shared") and not claim.is_extension
    (named,) = SECTION.judged(case_study(tmp_path / "named", {**SETTINGS, "layer": 21}))
    assert named.text.startswith("The head that the configuration names") and named.is_extension


def test_heads_that_rest_on_the_first_token_are_no_more_alike_for_it(tmp_path: Path) -> None:
    case = case_study(tmp_path)
    start = case.rows("looks")["role"] == "start"
    weight = (0.1 * case.rows("looks")["weight"]).mask(start, 0.9)
    resting = altered(case, "looks", weight=weight)
    pd.testing.assert_frame_equal(resting.overlap(), case.overlap())
    nothing = altered(case, "looks", weight=weight.where(start, 0.0))
    assert nothing.overlap().dropna().empty  # nothing is left to be alike
    (claim,) = SECTION.judged(nothing)
    assert claim.verdict == "inconclusive" and claim.evidence == "Not measured."


def test_cases_unlike_the_papers_are_told(tmp_path: Path) -> None:
    case = case_study(tmp_path / "like")
    assert same_rank(case) is no_trace_of_recall(case) is None
    both = case_study(tmp_path / "both", right={"mix": True, "stage": True})
    assert "no trace of recall" in str(no_trace_of_recall(both))
    assert "(rank 1)" in str(same_rank(altered(case, "case", shared_rank=1)))


def test_the_lens_lists_tokens_and_the_ranks_that_matter(tmp_path: Path) -> None:
    table = lens(case_study(tmp_path))
    assert table.head[1] == "Mix-tuned, statement"
    assert cells(table, 0, 0)[1] == HOSTILE[0]
    assert cells(table, 0, 2)[1] == "(blank)"
    assert len(table.groups[0][1]) == 3  # not the 700th
    assert cells(table, 1, 0)[1] == "Neb 700"


def draw(case: CaseStudy, folder: Path) -> dict[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # missing glyphs, layouts that collapse
        SECTION.draw(case, folder)
    for path in folder.glob("*.png"):
        height, width, _ = matplotlib.image.imread(path).shape
        assert width == round(WIDTH * DOTS_PER_INCH) and 0.3 < height / width < 1.65
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_figures_are_the_same_twice_and_their_data_are_what_is_drawn(tmp_path: Path) -> None:
    case, folder = case_study(tmp_path), tmp_path / "one"
    one, two = draw(case, folder), draw(case, tmp_path / "two")
    assert one == two and len(one) == 3 * 2
    maps = read_table(folder / "case.parquet")
    assert len(maps) == 2 * (12**2 + 6**2)
    sums = maps.groupby(["tuning", "format", "query"])["weight"].sum()
    assert sums.to_numpy() == pytest.approx(1)
    attended = read_table(folder / "looks.parquet")
    assert set(attended["role"]) == {"subject", "relation", "attribute"}  # the others get nothing
    assert set(attended["facts"]) == {20}


def test_long_prompts_are_cut_to_what_is_attended_to(tmp_path: Path) -> None:
    case = case_study(tmp_path, tokens=240)
    rows = case.rows("attention")
    strong = (rows["query"] == 239) & rows["key"].isin([3, 100, 101])
    case = altered(case, "attention", weight=rows["weight"].mask(strong, 0.3))
    labels = case.places("bio")
    assert len(labels) <= SHOWN
    assert labels["tokens"].sum() == 240
    alone = labels[labels["tokens"] == 1]["first"].tolist()
    assert {3, 100, 101, 239} <= set(alone)
    pattern = case.pattern("mix", "bio")
    rows = case.rows("attention")
    plain = rows[(rows["tuning"] == "mix") & (rows["format"] == "bio")]
    last = plain[plain["query"] == 239].set_index("key")["weight"]
    gap = labels[labels["role"] == "between"].iloc[0]
    inside = last.loc[gap["first"] : gap["first"] + gap["tokens"] - 1]
    assert pattern[-1, gap["place"]] == pytest.approx(inside.sum(), abs=1e-5)
    assert all(len(content) < 1_500_000 for content in draw(case, tmp_path / "f").values())


def test_the_section_says_which_head_and_fact_it_is(tmp_path: Path) -> None:
    case = case_study(tmp_path)
    draw(case, tmp_path / "f")
    text = str(show_section(SECTION, case, tmp_path / "f", {}).parts[0][1])
    assert "The head is layer 21, head 17" in text and "(in S: Mix-tuned 900, rank 2" in text
    assert "university of person 3" in text and "<script>" not in text
    assert "the grafted Mix-tuned model is right" in text
    named = CaseStudy("m", case.files, {**SETTINGS, "layer": 21, "relation": "university"}, LLAMA)
    text = str(show_section(SECTION, named, tmp_path / "f", {}).parts[0][1])
    assert "the one that the configuration names" in text and "named by the configuration" in text
