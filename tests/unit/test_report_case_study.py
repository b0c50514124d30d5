"""The case study in the report: what is condensed, judged, said and drawn of made-up tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from factrecall.config.reading import read_study
from factrecall.experiments.case_study.measures import CaseStudy
from factrecall.experiments.case_study.report import SECTION, case_files
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
from factrecall.runtime.storage import read_table, write_table
from tests.conftest import draw_readable

PRESET = Path(__file__).parents[2] / "workflow/presets/ci.yaml"
HOSTILE = ("$x_{", "<script>alert(1)</script>", "名" * 40, "\n", "\\frac", "")
SETTINGS = {"seed": 0, "named": False}


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
            (1, HOSTILE[0], ""), (2, "", ""), (700, "Neb", "answer"),
            (3 if tuning == "mix" or form == "qa" else 44, HOSTILE[1], "subject"),
        )
    ]  # fmt: skip
    write_table(files["logits"], pd.DataFrame(said, columns=list(LENS)), LENS)
    looks = []
    for tuning in ("mix", "stage"):
        for form in ("bio", "qa"):
            less = diffuse if (tuning, form) == ("stage", "bio") else 0.0
            weights = {"subject": 0.9 - less, "relation": 0.1, "attribute": less}
            for person in range(10):
                off = 0.01 * (person % 3) * (tuning == "mix")
                for relation in ("job", "university"):
                    for role in ROLES:
                        key = (tuning, form, person, relation, True, role)
                        change = {"subject": -off, "attribute": off}.get(role, 0) * (form == "qa")
                        looks.append((*key, weights.get(role, 0.0) + change))
    write_table(files["looks"], pd.DataFrame(looks, columns=list(ROLES_ATTENDED)), ROLES_ATTENDED)
    return files


def case_study(folder: Path, settings: dict[str, Any] = SETTINGS, **made: Any) -> CaseStudy:
    """Write a case and read it as the report does."""
    return CaseStudy("m", write_case(folder, **made), settings, LLAMA)


def altered(case: CaseStudy, name: str, **columns: Any) -> CaseStudy:
    """Return a case with some columns of a table replaced."""
    tables = {**case._tables, name: case.rows(name).assign(**columns)}
    return CaseStudy(case.model, case.files, case.settings, LLAMA, tables)


EXCHANGED = {"mix": "stage", "stage": "mix"}


def exchanged(case: CaseStudy) -> CaseStudy:
    """Return the case with the labels of the two trainings exchanged."""
    for name in ("looks", "logits"):
        case = altered(case, name, tuning=case.rows(name)["tuning"].map(EXCHANGED))
    return case


def test_heads_that_attend_alike_are_judged_over_people(tmp_path: Path) -> None:
    alike, named = SECTION.judged(case_study(tmp_path))
    assert 0.1 < alike.low < alike.value < alike.high < 0.3
    assert (alike.people, alike.seeds) == (10, 1)
    # One training run says nothing of another, however clear it is.
    assert alike.verdict == named.verdict == "inconclusive"
    assert alike.reason == named.reason == "one training run"
    assert named.value == 0.5  # in both prompts against one of two
    assert not alike.is_extension and not named.is_extension


def test_exchanged_labels_turn_both_claims_and_a_model_is_as_itself(tmp_path: Path) -> None:
    case = case_study(tmp_path)
    for before, after in zip(SECTION.judged(case), SECTION.judged(exchanged(case)), strict=True):
        assert after.value == pytest.approx(-before.value)
        assert after.low == pytest.approx(-before.high) or before.people == 1
    same = case
    for name in ("looks", "logits"):
        mix = case.rows(name)[case.rows(name)["tuning"] == "mix"]
        both = pd.concat([mix, mix.assign(tuning="stage")])
        same = CaseStudy(case.model, case.files, case.settings, LLAMA, {**same._tables, name: both})
    assert [claim.value for claim in SECTION.judged(same)] == [0, 0]


def test_heads_that_rest_on_the_first_token_are_no_more_alike_for_it(tmp_path: Path) -> None:
    case = case_study(tmp_path)
    start = case.rows("looks")["role"] == "start"
    weight = (0.1 * case.rows("looks")["weight"]).mask(start, 0.9)
    resting = altered(case, "looks", weight=weight)
    pd.testing.assert_frame_equal(resting.overlap(), case.overlap())
    nothing = altered(case, "looks", weight=weight.where(start, 0.0))
    assert nothing.overlap()["same"].isna().all()  # nothing is left to be alike
    assert SECTION.judged(nothing)[0].verdict == "not measurable"


def test_cases_unlike_the_papers_are_told(tmp_path: Path) -> None:
    case = case_study(tmp_path / "like")
    assert SECTION.cautions(case) == []
    both = case_study(tmp_path / "both", right={"mix": True, "stage": True})
    assert "no trace of recall" in SECTION.cautions(both)[0]
    assert "number 1 in the Mix-tuned" in SECTION.cautions(altered(case, "case", shared_rank=1))[0]


def test_the_lens_lists_tokens_and_the_ranks_that_matter(tmp_path: Path) -> None:
    view = SECTION.tables[0].view(case_study(tmp_path))
    ((_, rows),) = view.groups
    column = view.head.index("Mix-tuned, statement")
    cells = {row[0]: row[column] for row in rows}
    assert cells == {
        "1": HOSTILE[0], "2": "(blank)", "3": f"{HOSTILE[1]} (subject)", "44": "–",
        "700": "Neb (answer)",
    }  # fmt: skip


def draw(case: CaseStudy, folder: Path) -> dict[str, bytes]:
    draw_readable(SECTION, case, folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_figures_are_the_same_twice_and_their_data_are_what_is_drawn(tmp_path: Path) -> None:
    case, folder = case_study(tmp_path), tmp_path / "one"
    one, two = draw(case, folder), draw(case, tmp_path / "two")
    assert one == two and len(one) == 3 * 2
    maps = read_table(folder / "case.parquet")
    assert len(maps) == 2 * sum(n * (n + 1) // 2 for n in (12, 6))
    sums = maps.groupby(["tuning", "format", "query"])["weight"].sum()
    assert sums.to_numpy() == pytest.approx(1)
    attended = read_table(folder / "looks.parquet")
    assert set(attended["role"]) == {"subject", "relation", "attribute"}  # the others get nothing
    assert set(attended["facts"]) == {20}
    case = attended[(attended["tuning"] == "mix") & (attended["format"] == "bio")]
    assert case.set_index("role")["case"]["subject"] == pytest.approx(0.9)


def test_long_prompts_are_cut_to_what_is_attended_to(tmp_path: Path) -> None:
    case = case_study(tmp_path, tokens=240)
    rows = case.rows("attention")
    strong = (rows["query"] == 239) & rows["key"].isin([3, 100, 101])
    case = altered(case, "attention", weight=rows["weight"].mask(strong, 0.3))
    shown = case.shown("bio")["token"].tolist()
    assert len(shown) == SHOWN and {3, 100, 101, 239} <= set(shown) and shown == sorted(shown)
    cells = case.cells()
    assert set(cells[cells["format"] == "bio"]["key"]) == set(shown)
    assert all(len(content) < 1_500_000 for content in draw(case, tmp_path / "f").values())


def test_the_section_says_which_head_and_fact_it_is(tmp_path: Path) -> None:
    case = case_study(tmp_path)
    assert case.title == "layer 21, head 17; university of person 3"


def test_claims_are_of_the_head_that_the_configuration_names(tmp_path: Path) -> None:
    most, named = (
        [claim.text for claim in SECTION.judged(case_study(tmp_path, {"seed": 0, "named": named}))]
        for named in (False, True)
    )
    usual, other = (
        "head with most shared parameters",
        "head that the configuration names (layer 21, head 17)",
    )
    assert all(usual in text for text in most)
    assert named == [text.replace(usual, other) for text in most]
    study = read_study(PRESET)
    head = study.circuits.case.model_copy(update={"layer": 0, "head": 1})
    circuits = study.circuits.model_copy(update={"case": head})
    studies = (study, study.model_copy(update={"circuits": circuits}))
    assert [SECTION.settings(one, "m")["named"] for one in studies] == [False, True]
