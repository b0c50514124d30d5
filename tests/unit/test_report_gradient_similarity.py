"""Gradient similarity in the report: what is judged, said and drawn of made-up cosines."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factrecall.experiments.gradient_similarity.report import SECTION, Gradients
from factrecall.experiments.gradient_similarity.summary import mean_cosines
from factrecall.experiments.gradient_similarity.tables import (
    GRADIENT_SUMMARY,
    GRADIENTS,
    KINDS,
)
from factrecall.report.ledger import Judged
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import COMPARED, PHASES, RELATIONS

SEEDS = (0, 1, 2)
GROUPS = ("all", "S", "gamma", "random", "rest", "layer 0", "layer 1", "embeddings")
ABOVE = {
    "stage": {"all": 0.05, "S": 0.06},
    "mix": {"all": 0.2, "S": 0.4},
}
"""What the matched pair is above the others' at the end, of people who were not traced."""


def facts(tuning: str, seed: int, above: Any, traced_above: float) -> pd.DataFrame:
    """Make one history: three traced people at every moment, eight others at its end."""
    rng = np.random.default_rng((seed, len(tuning)))
    rows = []
    for phase in PHASES[tuning]:
        for share in (0.0, 0.5, 1.0) if phase != "stage" else (0.5, 1.0):
            last = share == 1 and phase == tuning
            people = [*range(3), *(range(3, 11) if last else ())]
            for split, person, relation, group in product(
                ("in", "out"), people, RELATIONS[:2], GROUPS
            ):
                level = above.get(group, 0.1) if person > 2 else traced_above
                for kind in KINDS:
                    cosine = 0.1 + level * (kind == "matched") * last + rng.normal(0, 0.002)
                    row = (phase, share, split, person < 3, person, relation, group, kind, cosine)
                    rows.append(row)
    return pd.DataFrame(rows, columns=list(GRADIENTS))


def measured(
    folder: Path, above: Any = ABOVE, seeds: tuple[int, ...] = SEEDS,
    traced: tuple[float, float] = (0.1, 0.1),
) -> Gradients:  # fmt: skip
    """Write the tables of a study and read them as the report does; `traced`: Stage, Mix."""
    files, every = {}, []
    for (tuning, level), seed in product(zip(COMPARED, traced, strict=True), seeds):
        table = facts(tuning, seed, above[tuning], level)
        files[f"facts/{tuning}/{seed}"] = folder / f"{tuning}{seed}"
        write_table(folder / f"{tuning}{seed}", table, GRADIENTS)
        every.append(table.assign(model="m", tuning=tuning, seed=seed))
    files["gradients"] = folder / "gradients"
    write_table(files["gradients"], mean_cosines(pd.concat(every)), GRADIENT_SUMMARY)
    return Gradients("m", files)


def judged(m: Gradients) -> dict[str, Judged]:
    return {c.id.removeprefix("gradient_similarity."): c for c in SECTION.judged(m)}


def test_claims_are_of_the_end_and_of_people_who_were_not_traced(tmp_path: Path) -> None:
    found = judged(measured(tmp_path))
    more = found["mix-more-alike"]
    assert more.verdict == "holds" and more.value == pytest.approx(0.15, abs=0.01)
    assert (more.seeds, more.people) == (3, 8)
    assert found["sits-in-s"].verdict == found["mix-more-alike-in-s"].verdict == "holds"
    assert found["sits-in-s"].value == pytest.approx(0.3, abs=0.01)
    traced = found["mix-more-alike-traced"]
    assert traced.people == 3 and traced.verdict != "holds"


def test_traced_people_decide_nothing_but_their_own_claim(tmp_path: Path) -> None:
    same = {tuning: ABOVE["stage"] for tuning in COMPARED}
    found = judged(measured(tmp_path, same, traced=(0.1, 0.5)))
    assert {name for name, claim in found.items() if claim.verdict == "holds"} == {
        "mix-more-alike-traced"
    }


def test_s_must_be_ahead_of_both(tmp_path: Path) -> None:
    above = {**ABOVE, "mix": {"all": 0.2, "S": 0.4, "rest": 0.4}}
    found = judged(measured(tmp_path, above))["sits-in-s"]
    assert found.verdict == "does not hold" and found.part == "neither S nor γ"


def test_exchanged_tunings_turn_every_comparison_and_equal_ones_hold_none(tmp_path: Path) -> None:
    m = measured(tmp_path)

    def relabelled(labels: dict[str, str]) -> dict[str, Judged]:
        class Relabelled(Gradients):
            def runs(self, kind: str) -> dict[tuple[str, int], Path]:
                found = super().runs(kind)
                return {(tuning, seed): found[labels[tuning], seed] for tuning, seed in found}

        fields = {f.name: getattr(m, f.name) for f in dataclasses.fields(m) if f.init}
        return judged(Relabelled(**{**fields, "_tables": {}}))

    before = judged(m)
    after, same = (
        relabelled({"stage": "mix", "mix": "stage"}),
        relabelled(dict.fromkeys(COMPARED, "stage")),
    )
    assert isinstance(SECTION.claims, tuple)
    compared = [claim.id.partition(".")[2] for claim in SECTION.claims if claim.compares_tunings]
    assert len(compared) == 3
    for name in compared:
        assert after[name].value == pytest.approx(-before[name].value)
        assert after[name].verdict != "holds"
        assert same[name].value == 0 and same[name].verdict != "holds"


def test_no_more_alike_is_told_of_the_tuning(tmp_path: Path) -> None:
    above = {**ABOVE, "stage": {"all": 0.0, "S": 0.06}}
    (said,) = SECTION.cautions(measured(tmp_path, above))
    assert said.startswith("Stage-tuned: at the end")
    (tmp_path / "b").mkdir()
    assert SECTION.cautions(measured(tmp_path / "b")) == []


def test_the_second_stage_stands_behind_the_first(tmp_path: Path) -> None:
    m = measured(tmp_path)
    (figure,) = SECTION.figures
    assert figure.prepare is not None
    rows = figure.prepare(m.drawn(), m)
    places: dict[tuple[Any, ...], list[float]] = {
        key: sorted(set(found["progress"]))
        for key, found in rows.groupby(["panel", "tuning", "traced"])
    }
    for group in GROUPS[:5]:
        assert places[group, "stage", True] == [0, 0.5, 1, 1.5, 2]
        assert places[group, "mix", True] == [0, 0.5, 1]
        # Beside the end: people who were not traced.
        assert places[group, "stage", False] == [2.16] and places[group, "mix", False] == [1.08]
    # The layers are those of people who were not traced, embeddings before the first.
    assert {key[1:] for key in places if key[0] == "layers"} == {(t, False) for t in COMPARED}
    assert places["layers", "mix", False] == places["layers", "stage", False] == [-1, 0, 1]


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize("seeds", [SEEDS, (1,)])
def test_the_figure_shows_all_moments_and_both_kinds_of_people(
    tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    m = measured(tmp_path, seeds=seeds)
    SECTION.draw(m, tmp_path)
    drawn = read_table(tmp_path / "gradients.parquet")
    assert set(drawn[drawn["traced"]]["share"]) == {0.0, 0.5, 1.0}
    assert set(drawn[~drawn["traced"]]["share"]) == {1.0}
    if len(seeds) == 1:
        assert {claim.verdict for claim in judged(m).values()} == {"inconclusive"}
