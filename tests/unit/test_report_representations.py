"""Representations in the report: what is condensed, judged, said and drawn of made-up tables."""

from __future__ import annotations

import re
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from factrecall.experiments.attribution.claims import ROLES as ROLE_LABELS
from factrecall.experiments.attribution.report import SECTION as ATTRIBUTION
from factrecall.experiments.attribution.tables import (
    ATTRIBUTION_SUMMARY,
    OTHER_RELATION,
    PATCHING_SUMMARY,
)
from factrecall.experiments.attribution.tokenised_prompts import POSITIONS
from factrecall.experiments.common import estimates
from factrecall.experiments.common.estimates import Estimate, absolute, apart, chosen, together
from factrecall.experiments.common.prompts import ROLES
from factrecall.experiments.gradient_similarity.report import SECTION as GRADIENTS
from factrecall.experiments.gradient_similarity.tables import GRADIENT_SUMMARY
from factrecall.experiments.representations.report import SECTION as REPRESENTATIONS
from factrecall.experiments.representations.tables import CONSISTENCY, PROBES
from factrecall.report import style
from factrecall.report.claims import NOT_MEASURED, Judged
from factrecall.report.plots import Figure
from factrecall.report.published import LLAMA, PYTHIA
from factrecall.report.section import Caveats, Section
from factrecall.report.style import WIDTH
from factrecall.report.tables import MISSING, Table
from factrecall.runtime.statistics import TOGETHER
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import FORMATS, RELATIONS

pytestmark = pytest.mark.usefixtures("quick_figures")

SECTIONS = (REPRESENTATIONS, GRADIENTS, ATTRIBUTION)
SEEDS = (0, 1, 2)
EVERY = (*SEEDS, TOGETHER)
TUNINGS = ("stage", "mix")

DELTA = {
    ("stage", "rep", "bio_long"): 0.3,
    ("mix", "rep", "bio_long"): 0.05,
    ("stage", "rep", "bio_short"): 0.04,
    ("mix", "rep", "bio_short"): 0.02,
    ("stage", "mech", "bio_long"): 0.12,
    ("mix", "mech", "bio_long"): 0.03,
    ("stage", "mech", "bio_short"): 0.02,
    ("mix", "mech", "bio_short"): 0.01,
    ("stage", "mech_bio", "bio_long"): 0.2,
    ("mix", "mech_bio", "bio_long"): 0.04,
    ("stage", "mech_bio", "bio_short"): 0.02,
    ("mix", "mech_bio", "bio_short"): 0.01,
}
"""Signed differences as the paper would have them; seeds differ by a thousandth."""

LEVEL = {"stage": 0.5, "mix": 0.8}
"""Accuracy of QA probes on QA states."""


def delta_rows(
    deltas: dict[tuple[str, str, str], float] = DELTA,
    layers: int = 2,
    seeds: tuple[int, ...] = SEEDS,
    width: float = 0.01,
) -> pd.DataFrame:
    """Make differences that are the same at all layers, with intervals of `width` either way."""
    rows = []
    for (_, measure, bio), seed, layer, relation, split in product(
        [key for key in deltas if key[0] == "mix"], (*seeds, TOGETHER), range(-1, layers),
        ("all", *RELATIONS), ("held", "out"),
    ):  # fmt: skip
        cell = ("m", seed, layer, relation, bio, split, measure)
        signed = {t: deltas[t, measure, bio] + 0.001 * max(seed, 0) for t in TUNINGS}
        for tuning in TUNINGS:
            found = signed[tuning]
            rows.append((*cell, tuning, abs(found), found, found - width, found + width))
        ahead = abs(signed["stage"]) - abs(signed["mix"])
        signed_ahead = signed["stage"] - signed["mix"]
        rows.append((*cell, "stage - mix", ahead, signed_ahead, ahead - width, ahead + width))
    columns = ["model", "seed", "layer", "relation", "bio", "split", "measure", "tuning", "value",
               "signed", "low", "high"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(people=300)[list(CONSISTENCY)]


def probe_rows(
    deltas: dict[tuple[str, str, str], float] = DELTA,
    layers: int = 2,
    seeds: tuple[int, ...] = SEEDS,
    levels: dict[str, float] = LEVEL,
) -> pd.DataFrame:
    """Make accuracies that go with the differences."""
    rows = []
    for tuning, seed, layer, relation, split in product(
        TUNINGS, seeds, range(layers), ("all", *RELATIONS), ("held", "out")
    ):
        level = levels[tuning] + 0.01 * seed
        for trained, tested in product(("bio_long", "bio_short", "qa"), repeat=2):
            if (trained, tested) in (("bio_long", "bio_short"), ("bio_short", "bio_long")):
                continue
            lost = 0.0
            if trained != tested:
                measure, bio = ("rep", tested) if trained == "qa" else ("mech", trained)
                lost = deltas[tuning, measure, bio]
            shuffled = 0.1 if trained == tested else np.nan
            rows.append(
                ("m", tuning, seed, layer, relation, trained, tested, split, level - lost,
                 shuffled, 0.1, 0.01, 240, 20)
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(PROBES))


COSINE = {
    "stage": {"all": 0.05, "S": 0.06, "random": 0.05, "gamma": 0.05, "rest": 0.04},
    "mix": {"all": 0.2, "S": 0.3, "random": 0.15, "gamma": 0.25, "rest": 0.1},
}
"""What the matched pair is above the others', over training."""


def gradient_rows(
    cosines: dict[str, dict[str, float]] = COSINE,
    layers: int = 2,
    seeds: tuple[int, ...] = SEEDS,
    width: float = 0.01,
) -> pd.DataFrame:
    """Make moments that start alike and then are as `cosines` says."""
    rows = []
    for tuning, seed, split in product(TUNINGS, (*seeds, TOGETHER), ("in", "out")):
        phases = ("bio", "stage") if tuning == "stage" else ("mix",)
        moments = [(p, s) for p in phases for s in (0.0, 1 / 3, 2 / 3, 1.0) if s or p != "stage"]
        places = {"embeddings": 0.1, **{f"layer {n}": 0.2 for n in range(layers)}}
        for (phase, share), (group, above) in product(
            moments, [*cosines[tuning].items(), *places.items()]
        ):
            above = above * bool(share or phase == "stage")
            kinds = {
                "matched": 0.2 + above, "person": 0.2, "relation": 0.15,
                "matched - person": above, "matched - relation": above + 0.05,
            }  # fmt: skip
            for kind, value in kinds.items():
                value += 0.001 * max(seed, 0)
                key = ("m", tuning, seed, phase, share, split, group, kind)
                rows.append((*key, value, value - width, value + width, 30))
        for (phase, share), group in product(moments, ("random", "rest")):
            above = cosines[tuning]["S"] - cosines[tuning][group]
            above = (above + 0.001 * max(seed, 0)) * bool(share or phase == "stage")
            for kind in ("matched", "matched - person", "matched - relation"):
                key = ("m", tuning, seed, phase, share, split, f"S - {group}", kind)
                rows.append((*key, above, above - width, above + width, 30))
    return pd.DataFrame(rows, columns=list(GRADIENT_SUMMARY))


SHARE = {
    "stage": {"subject": 0.2, "relation": 0.2, "attribute": 0.3, "other": 0.2, "start": 0.1},
    "mix": {"subject": 0.5, "relation": 0.3, "attribute": 0.05, "other": 0.1, "start": 0.05},
}


def attribution_rows(
    shares: dict[str, dict[str, float]] = SHARE,
    seeds: tuple[int, ...] = SEEDS,
    width: float = 0.01,
) -> pd.DataFrame:
    """Make shares of attribution, and drops in proportion; nothing stated before in a question."""
    rows = []
    sides = {t: {**shares[t], OTHER_RELATION: np.nan} for t in TUNINGS}
    sides["mix - stage"] = {
        r: sides["mix"][r] - sides["stage"][r] for r in (*ROLES, OTHER_RELATION)
    }
    for tuning, seed, split, relation, form, role in product(
        sides, (*seeds, TOGETHER), ("in", "out"), ("all", "job"), FORMATS, (*ROLES, OTHER_RELATION)
    ):
        if form == "qa" and role in ("attribute", "other"):
            continue
        share = sides[tuning][role] + 0.001 * max(seed, 0)
        drop = np.nan if role == "start" else 2.0 if role == OTHER_RELATION else 10 * share
        rows.append(
            {
                "model": "m", "tuning": tuning, "seed": seed, "split": split,
                "relation": relation, "format": form, "role": role, "facts": 180,
                "replaced": 0 if np.isnan(drop) else 180, "tokens": 3.0,
                "share": share, "share_low": share - width, "share_high": share + width,
                "logit_drop": drop, "logit_drop_low": drop - 0.5, "logit_drop_high": drop + 0.5,
                "still_right": 0.4, "source_answer": 0.3,
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(**{c: np.nan for c in ATTRIBUTION_SUMMARY if c not in table})[
        list(ATTRIBUTION_SUMMARY)
    ]


def patching_rows(
    restored: float = 0.4, layers: int = 2, seeds: tuple[int, ...] = SEEDS, width: float = 0.05
) -> pd.DataFrame:
    """Make gains that are largest at the last token and late; another's state costs a little."""
    rows = []
    for tuning, seed, split, (source, target), layer, position in product(
        TUNINGS, (*seeds, TOGETHER), ("in", "out"),
        (("bio", "qa"), ("short", "qa"), ("qa", "bio")), range(layers), POSITIONS,
    ):  # fmt: skip
        unpatched = {"qa": {"stage": 0.15, "mix": 0.6}, "bio": {"stage": 0.7, "mix": 0.95}}
        before = unpatched[target][tuning]
        scale = {"subject": 0.2, "relation": 0.5, "last": 1.0}[position]
        same = scale * restored * (layer + 1) / layers + 0.001 * max(seed, 0)
        gains = {"same": same - 0.1, "other": -0.1, "same - other": same}
        for source_fact, gain in gains.items():
            start = before if source_fact in ("same", "other") else 0.0
            rows.append(
                {
                    "model": "m", "tuning": tuning, "seed": seed, "split": split,
                    "source": source, "target": target, "layer": layer, "position": position,
                    "source_fact": source_fact, "facts": 180, "accuracy": start + gain,
                    "unpatched": start, "gain": gain, "gain_low": gain - width,
                    "gain_high": gain + width, "source_answer": 0.2,
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(**{c: np.nan for c in PATCHING_SUMMARY if c not in table})[
        list(PATCHING_SUMMARY)
    ]


SCHEMAS = {
    "probes": PROBES,
    "consistency": CONSISTENCY,
    "gradients": GRADIENT_SUMMARY,
    "attribution": ATTRIBUTION_SUMMARY,
    "patching": PATCHING_SUMMARY,
}


def frames(**replaced: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables by name, some replaced."""
    return {
        "probes": probe_rows(),
        "consistency": delta_rows(),
        "gradients": gradient_rows(),
        "attribution": attribution_rows(),
        "patching": patching_rows(),
    } | replaced


def write_representation_tables(folder: Path, models: tuple[str, ...] = ("m",)) -> None:
    """Write the synthetic tables of some models."""
    for name, table in frames().items():
        every = pd.concat(table.assign(model=model) for model in models)
        write_table(folder / f"{name}.parquet", every, SCHEMAS[name])


def measured(section: Section, folder: Path, layers: Any = None, **replaced: pd.DataFrame) -> Any:
    """Write tables, some replaced, and read them as the section does."""
    files = {name: folder / f"{name}.parquet" for name in section.tables}
    for name, path in files.items():
        write_table(path, frames(**replaced)[name], SCHEMAS[name])
    return section.read("m", files, {"layers": layers}, LLAMA)


def claims_of(folder: Path, **replaced: pd.DataFrame) -> list[Judged]:
    """Judge the claims of all sections, some tables replaced."""
    return [c for s in SECTIONS for c in s.judged(measured(s, folder, **replaced))]


def caveats_of(section: Section, measures: Any) -> list[str]:
    """Return all that a section says against itself."""
    return [text for part in section.body if isinstance(part, Caveats)
            for text in part.said(measures)]  # fmt: skip


def about(claims: list[Judged], *words: str) -> list[str]:
    """Return the verdicts on the claims with all these words."""
    return [c.verdict for c in claims if all(w in c.text for w in words)]


# --- measures ---------------------------------------------------------------------------------


def test_middle_is_the_lower_one_of_two(tmp_path: Path) -> None:
    for layers, middle in ((1, 0), (2, 0), (3, 1), (28, 13)):
        measures = measured(ATTRIBUTION, tmp_path, patching=patching_rows(layers=layers))
        assert measures.middle == middle
    assert measured(ATTRIBUTION, tmp_path, patching=patching_rows().iloc[:0]).middle is None


def test_consistency_over_training_leaves_out_the_start(tmp_path: Path) -> None:
    measures = measured(GRADIENTS, tmp_path)
    assert measures.mean("mix", "all", "matched - person").value == pytest.approx(0.2)
    moments = chosen(measures.moments(), tuning="stage", seed=TOGETHER, group="S", kind="matched")
    assert moments["progress"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    (figure,) = GRADIENTS.figures
    assert figure.prepare is not None
    drawn = figure.prepare(figure.data(measures), measures)
    ends = drawn[drawn["panel"] == "by layer"]
    assert set(zip(ends["tuning"], ends["phase"], ends["share"], strict=True)) == {
        ("stage", "stage", 1.0),
        ("mix", "mix", 1.0),
    }
    assert set(ends["layer"]) == {-1, 0, 1}


def test_accuracies_are_condensed_over_seeds(tmp_path: Path) -> None:
    table = measured(REPRESENTATIONS, tmp_path).accuracies()
    row = chosen(table, tuning="mix", trained="qa", tested="bio_long", layer=1).iloc[0]
    assert [row["low"], row["mean"], row["high"]] == pytest.approx([0.75, 0.76, 0.77])
    assert np.isnan(row["shuffled"])


def test_roles_without_tokens_have_no_share(tmp_path: Path) -> None:
    rows = attribution_rows()
    rows.loc[rows["role"] == "start", "tokens"] = 0.0
    table = measured(ATTRIBUTION, tmp_path, attribution=rows).attributions()
    start = table["role"] == "start"
    assert table.loc[start, ["share", "share_low"]].isna().all(axis=None)
    assert table.loc[~start, "logit_drop"].notna().all()


def test_bounds_by_hand() -> None:
    assert absolute(Estimate(0.1, 0.05, 0.2)) == (0.05, 0.2)
    assert absolute(Estimate(-0.1, -0.2, -0.05)) == (0.05, 0.2)
    assert absolute(Estimate(0.0, -0.3, 0.2)) == (0.0, 0.3)
    assert apart(Estimate(3, 2, 4), Estimate(1, 0, 2)) == Estimate(2, 0, 4)
    assert Estimate(0.1, 0.05, 0.2).write() == "+10.0 (+5.0 to +20.0)"
    assert Estimate(0.1).write() == "+10.0" and Estimate().write() == MISSING
    assert estimates.TOGETHER == TOGETHER


# --- claims -----------------------------------------------------------------------------------


def test_claims_hold_of_representations_like_the_papers(tmp_path: Path) -> None:
    claims = claims_of(tmp_path)
    assert {c.verdict for c in claims} == {"holds"}
    assert [c.section for c in claims].count("Representations") == 10 and len(claims) == 16
    assert sum(c.is_extension for c in claims) == 2
    assert all(bool(c.paper) != c.is_extension for c in claims)
    first = claims[0].evidence
    assert "Stage-tuned 30.1\u00a0points, Mix-tuned 5.1\u00a0points" in first
    assert "by seed +25.0, +25.0, +25.0 points" in first
    assert "95 % interval +24.0 to +26.0." in first
    assert not any(f"(of {LLAMA})" in c.paper for c in claims)
    measures = measured(REPRESENTATIONS, tmp_path)
    other = REPRESENTATIONS.read("m", measures.files, measures.settings, PYTHIA)
    assert all(c.paper.endswith(f"(of {LLAMA})") for c in REPRESENTATIONS.judged(other))


TURNED: dict[str, pd.DataFrame] = {
    "consistency": delta_rows({key: 0.5 - delta for key, delta in DELTA.items()}),
    "gradients": gradient_rows(
        {
            "stage": COSINE["mix"],
            "mix": {"all": 0.01, "S": 0.0, "random": 0.1, "rest": 0.1},
        }
    ),
    "attribution": attribution_rows({"stage": SHARE["mix"], "mix": SHARE["stage"]}),
    "patching": patching_rows(restored=-0.4),
}
UNSURE: dict[str, pd.DataFrame] = {
    "consistency": delta_rows(width=0.5),
    "gradients": gradient_rows(width=0.5),
    "attribution": attribution_rows(width=0.5),
    "patching": patching_rows(width=0.5),
}


def test_claims_the_other_way_round_do_not_hold(tmp_path: Path) -> None:
    claims = claims_of(tmp_path, **TURNED)
    assert {c.verdict for c in claims} == {"does not hold"}


def test_claims_within_the_intervals_are_inconclusive(tmp_path: Path) -> None:
    assert {c.verdict for c in claims_of(tmp_path, **UNSURE)} == {"inconclusive"}


def test_seeds_that_disagree_are_inconclusive(tmp_path: Path) -> None:
    rows = delta_rows()
    one = (rows["seed"] == 1) & (rows["tuning"] == "stage") & (rows["measure"] == "rep")
    rows.loc[one & (rows["bio"] == "bio_long"), "value"] = 0.0
    words = about(claims_of(tmp_path, consistency=rows), "BIO long", "larger than in")
    assert words == 2 * ["inconclusive"]


def test_each_side_is_judged_by_its_own_rows(tmp_path: Path) -> None:
    rows = delta_rows()
    turned = delta_rows({key: 0.5 - delta for key, delta in DELTA.items()})
    held = rows["split"] == "held"
    claims = claims_of(tmp_path, consistency=pd.concat([rows[~held], turned[held]]))
    assert about(claims, "Δrep", "larger than in", "(facts out)") == ["holds"]
    assert about(claims, "Δrep", "larger than in", "(facts in") == ["does not hold"]
    assert about(claims, "Δrep is below", "(facts out)") == ["holds"]
    assert about(claims, "Δrep is below", "(facts in") == ["does not hold"]


def test_one_layer_above_the_bound_is_enough(tmp_path: Path) -> None:
    rows = delta_rows()
    high = (rows["layer"] == 1) & (rows["bio"] == "bio_short") & (rows["tuning"] == "mix")
    high &= rows["measure"] == "rep"
    rows.loc[high, ["value", "signed", "low", "high"]] = [0.2, -0.2, -0.25, -0.15]
    claims = claims_of(tmp_path / "high", consistency=rows)
    assert about(claims, "Δrep is below 10 points") == 2 * ["does not hold"]
    said = next(c.evidence for c in claims if "Δrep is below" in c.text)
    assert "Largest of all layers and both models by seed 20.0, 20.0, 20.0 points" in said
    assert "Mix-tuned, all seeds, layer 1: signed \u221220.0 (\u221225.0 to \u221215.0)" in said
    rows.loc[high, ["low", "high"]] = [-0.25, -0.05]
    claims = claims_of(tmp_path / "unsure", consistency=rows)
    assert about(claims, "Δrep is below 10 points") == 2 * ["inconclusive"]


def test_patching_is_judged_behind_the_middle_layer(tmp_path: Path) -> None:
    rows = patching_rows(layers=3)
    late = rows["layer"] == 2
    rows.loc[~late & (rows["source_fact"] == "same - other"), ["gain", "gain_low", "gain_high"]] = [
        0.0, -0.1, 0.1,
    ]  # fmt: skip
    claims = claims_of(tmp_path, patching=rows)
    assert about(claims, "after the middle one of the patched layers") == ["inconclusive"]
    assert "after layer 1" in claims[-1].evidence
    assert "0: 0.0, 1: 0.0, 2: +40.0" in claims[-1].evidence
    assert "gained: 0: +3.3, 1: +16.7, 2: +30.0" in claims[-1].evidence


def test_a_state_that_restores_nothing_is_not_ahead_of_one_that_does_harm(tmp_path: Path) -> None:
    rows = patching_rows()
    for source, gain in {"same": 0.0, "other": -0.08, "same - other": 0.08}.items():
        mine = rows["source_fact"] == source
        rows.loc[mine, ["gain", "gain_low", "gain_high"]] = [gain, gain - 0.01, gain + 0.01]
    claims = claims_of(tmp_path, patching=rows)
    assert about(claims, "know what they do not recall") == ["inconclusive"]
    said = claims[-1].evidence
    assert "own state, points by seed 0.0, 0.0, 0.0; 95 % interval \u22121.0 to +1.0" in said
    assert "by seed +8.0, +8.0, +8.0; 95 % interval +7.0 to +9.0" in said
    rows.loc[rows["source_fact"] == "same", ["gain", "gain_low", "gain_high"]] = [
        -0.02,
        -0.03,
        -0.01,
    ]
    claims = claims_of(tmp_path, patching=rows)
    assert about(claims, "know what they do not recall") == ["does not hold"]


def test_s_is_judged_against_random_parameters(tmp_path: Path) -> None:
    high = {t: {**COSINE[t], "random": COSINE[t]["S"]} for t in TUNINGS}
    claims = claims_of(tmp_path / "equal", gradients=gradient_rows(high))
    assert about(claims, "larger in S than in random") == ["inconclusive"]
    said = next(c.evidence for c in claims if "larger in S than" in c.text)
    assert "S +0.300" in said and "random +0.300" in said and "neither S nor γ +0.100" in said
    rows = gradient_rows()
    none = rows[~rows["group"].isin(["random", "S - random"])]
    claims = claims_of(tmp_path / "none", gradients=none)
    said = [c.evidence for c in claims if "larger in S than" in c.text or "random ones" in c.text]
    assert said == [NOT_MEASURED] * 2
    assert about(claims, "two formats are more consistent") == ["holds"]


def test_a_moment_without_bounds_leaves_none(tmp_path: Path) -> None:
    rows = gradient_rows()
    one = (rows["share"] == 1.0) & (rows["seed"] == TOGETHER) & (rows["phase"] == "mix")
    rows.loc[one, "low"] = np.nan
    measures = measured(GRADIENTS, tmp_path, gradients=rows)
    found = measures.over_training("mix", "all", "matched - person")
    all_seeds = together(found, "cosine")
    assert all_seeds.value == pytest.approx(0.2) and not all_seeds.known
    assert np.isnan(all_seeds.high)
    assert found.loc[found["seed"] >= 0, ["low", "high"]].notna().all(axis=None)


def test_the_number_of_the_papers_text_is_of_bio_states(tmp_path: Path) -> None:
    rows = delta_rows({**DELTA, ("stage", "mech_bio", "bio_long"): 0.0})
    claims = claims_of(tmp_path, consistency=rows)
    assert about(claims, "Δmech of BIO states", "is larger") == 2 * ["does not hold"]
    assert about(claims, "Δmech is below 20 points") == 2 * ["holds"]
    paper = next(c.paper for c in claims if "Δmech is below 20" in c.text)
    assert "our reading" in paper and "of BIO states" in paper


def test_what_was_not_measured_is_said_so(tmp_path: Path) -> None:
    claims = claims_of(tmp_path, **{name: table.iloc[:0] for name, table in frames().items()})
    assert {(c.verdict, c.evidence) for c in claims} == {("inconclusive", NOT_MEASURED)}


# --- caveats ----------------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_runs_like_the_papers_need_no_caveat(section: Section, tmp_path: Path) -> None:
    caveats = caveats_of(section, measured(section, tmp_path))
    assert [c for c in caveats if "people" not in c] == []


def test_what_leaves_differences_no_room_is_said(tmp_path: Path) -> None:
    low = {"probes": probe_rows(levels={"stage": 0.1, "mix": 1})}
    stage, mix, *_, layers = caveats_of(
        REPRESENTATIONS, measured(REPRESENTATIONS, tmp_path / "low", [3, 7], **low)
    )
    assert "Stage-tuned: the states of a question hold little" in stage
    assert "decode 11.0\u00a0%, where the most frequent answer gives 10.0\u00a0%" in stage
    assert "Mix-tuned: QA probes decode 101.0" in mix
    assert layers.endswith("patched: 3, 7.")
    few = measured(REPRESENTATIONS, tmp_path, consistency=delta_rows().assign(people=12))
    assert any("over 12\u00a0people" in c for c in caveats_of(REPRESENTATIONS, few))


def test_what_speaks_against_the_other_measures_is_said(tmp_path: Path) -> None:
    shares = {t: {**SHARE[t], "start": -0.4} for t in TUNINGS}
    attributed = attribution_rows(shares)
    attributed.loc[attributed["role"] == "other", "replaced"] = 20
    patched = patching_rows()
    patched.loc[patched["target"] == "bio", "unpatched"] = 0.3
    none = {t: dict.fromkeys(COSINE[t], 0.0) for t in TUNINGS}
    alike = measured(GRADIENTS, tmp_path, gradients=gradient_rows(none))
    said = caveats_of(GRADIENTS, alike)
    assert "Stage-tuned and Mix-tuned" in said[0] and "other people" in said[0]
    assert "over 5\u00a0people" in said[-1]
    odd = measured(ATTRIBUTION, tmp_path, attribution=attributed, patching=patched)
    start, short, known, *_ = caveats_of(ATTRIBUTION, odd)
    assert "up to 40.0" in start
    assert "all other wording, statements (20 of 180)" in short
    assert "Stage-tuned model continues only 30.0" in known


# --- figures, and what is missing -------------------------------------------------------------

DRAWN: dict[str, tuple[Section, Figure]] = {f.name: (s, f) for s in SECTIONS for f in s.figures}


def draw(folder: Path, *names: str, **replaced: pd.DataFrame) -> dict[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # missing glyphs, layouts that collapse
        for name in names or DRAWN:
            section, figure = DRAWN[name]
            figure.save(measured(section, folder / "tables", **replaced), folder / name)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_figures_of_many_layers_are_of_readable_size_and_hold_their_data(tmp_path: Path) -> None:
    seeds = (0,)
    draw(
        tmp_path,
        probes=probe_rows(layers=28, seeds=seeds),
        consistency=delta_rows(layers=28, seeds=seeds),
        gradients=gradient_rows(layers=28, seeds=seeds),
        attribution=attribution_rows(seeds=seeds),
        patching=patching_rows(layers=28, seeds=seeds),
    )
    assert set(DRAWN) == {"probes", "consistency", "gradients", "attribution", "patching"}
    for name, (_, figure) in DRAWN.items():
        assert len(read_table(tmp_path / f"{name}.parquet", dict(figure.schema)))
        height, width, _ = matplotlib.image.imread(tmp_path / f"{name}.png").shape
        assert width == round(WIDTH * style.DOTS_PER_INCH)
        assert 0.3 < height / width < 2.1
    assert set(read_table(tmp_path / "consistency.parquet")["tuning"]) == {"stage", "mix"}
    assert set(read_table(tmp_path / "patching.parquet")["source_fact"]) == {"same", "other"}


SPARSE = {
    "one seed": frames(
        probes=probe_rows(seeds=(1,)),
        consistency=delta_rows(seeds=(1,)),
        gradients=gradient_rows(seeds=(1,)),
        attribution=attribution_rows(seeds=(1,)),
        patching=patching_rows(seeds=(1,)),
    ),
    "one tuning": {n: t[t["tuning"] == "mix"] for n, t in frames().items()},
    "no rows": {n: t.iloc[:0] for n, t in frames().items()},
    "nothing known": {
        n: t.assign(**{c: np.nan for c in t if SCHEMAS[n][c] == "float64" and c != "share"})
        for n, t in frames().items()
        if n != "attribution"
    }
    | {"attribution": attribution_rows().iloc[:0]},
}


@pytest.mark.parametrize("tables", SPARSE.values(), ids=SPARSE)
def test_missing_rows_are_shown_as_missing(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    claims = claims_of(tmp_path, **tables)
    text = [str(claims)]
    for section in SECTIONS:
        measures = measured(section, tmp_path, **tables)
        shown = [part.view(measures) for part in section.body if isinstance(part, Table)]
        alternatives = [f.alt(measures) for f in section.figures if callable(f.alt)]
        text.append(str([shown, alternatives, caveats_of(section, measures)]))
    assert not re.search(r"\bnan\b|\binf\b", str(text))
    if tables is not SPARSE["one seed"]:
        compared = [claim for claim in claims if "in S than" not in claim.text]
        assert {claim.verdict for claim in compared} == {"inconclusive"}


def test_figures_of_missing_rows_are_drawn(tmp_path: Path) -> None:
    for case, names in (("no rows", tuple(DRAWN)), ("one tuning", ("gradients", "attribution"))):
        assert len(draw(tmp_path / case, *names, **SPARSE[case])) == 2 * len(names)


def test_every_role_has_a_label() -> None:
    assert set(ROLE_LABELS) == {*ROLES, OTHER_RELATION}


def test_what_stands_for_figures_says_what_they_show(tmp_path: Path) -> None:
    said = {}
    for name, (section, figure) in DRAWN.items():
        assert callable(figure.alt)
        said[name] = figure.alt(measured(section, tmp_path))
    assert "Δrep, BIO long, Stage-tuned: +30.0" in said["consistency"]
    assert "Mix-tuned 50.0 and 30.0 %" in said["attribution"]
    assert "Stage-tuned +20.0 points" in said["patching"]
