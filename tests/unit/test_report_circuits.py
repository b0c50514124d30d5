"""Circuits in the report: what is condensed, judged, said and drawn of made-up tables."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from factrecall.experiments.circuits import caveats, views
from factrecall.experiments.circuits.claims import claims as circuit_claims
from factrecall.experiments.circuits.continuity import CONTINUITY
from factrecall.experiments.circuits.measures import Circuits
from factrecall.experiments.circuits.report import SECTION
from factrecall.experiments.circuits.summary import (
    CIRCUITS,
    HEADS,
    INTERVENTIONS,
    SWEEPS,
    curve_measures,
)
from factrecall.experiments.circuits.tables import CURVE, PEOPLE, QUESTIONS, STEPS
from factrecall.experiments.grafting.grafter import GRAFTING
from factrecall.experiments.grafting.mask_checks import CHECKS
from factrecall.report import style
from factrecall.report.claims import Judged
from factrecall.report.published import LLAMA, PYTHIA
from factrecall.report.render import show_section
from factrecall.report.section import Caveats
from factrecall.report.style import WIDTH
from factrecall.report.tables import MISSING
from factrecall.runtime.storage import read_table, write_table
from tests.unit import test_report_shared as shared

SEEDS = (0, 1, 2)
NODES = {"attention": 48, "column": 4000, "unit": 512}

BENT: dict[tuple[str, str], dict[str, float]] = {
    ("attention", "forward"): {"shared": 0.3, "grafted": 0.7, "random": 1},
    ("attention", "backward"): {"shared": 25, "grafted": 5, "random": 1},
    ("column", "forward"): {"shared": 1.1, "grafted": 1.5, "random": 2},
    ("column", "backward"): {"shared": 2000, "grafted": 10, "random": 1},
    ("unit", "forward"): {"shared": 1.1, "grafted": 1.5, "random": 2},
    ("unit", "backward"): {"shared": 200, "grafted": 10, "random": 1},
}
"""Exponents that bend the curves as the paper's are bent."""

CONCENTRATED = {"attention": 12, "column": 1000, "unit": 300}


def intervention_rows(
    kinds: tuple[str, ...] = ("attention", "column"),
    seeds: tuple[int, ...] = SEEDS,
    *,
    floor: float = 0.0,
    draws: int = 2,
    bent: dict[tuple[str, str], dict[str, float]] = BENT,
) -> pd.DataFrame:
    """Make sweeps that are as the paper's, asked at uneven steps that differ by seed."""
    parts = []
    orders = [("shared", 0), ("grafted", 0), *(("random", draw) for draw in range(draws))]
    for kind, tuning, seed in [(k, t, s) for k in kinds for t in ("stage", "mix") for s in seeds]:
        whole = NODES[kind]
        nodes = np.unique(np.r_[0:6, np.linspace(6 + seed, whole, 9).astype(int)])
        share = nodes / whole
        for direction in ("forward", "backward"):
            for priority, draw in orders:
                power = bent[kind, direction][priority]
                forward = direction == "forward"
                part = share**power if forward else (1 - share) ** power
                held = 1 - (1 - share) ** (CONCENTRATED[kind] if priority == "shared" else 2)
                table = pd.DataFrame({"nodes": nodes, "step": range(len(nodes))})
                parts.append(
                    table.assign(
                        model="m", tuning=tuning, seed=seed, kind=kind, direction=direction,
                        ranking=priority, random_order=draw,
                        completeness=floor + (1 - floor) * part,
                        accuracy=0.4 * part, shared_fraction=held, grafted_fraction=share,
                    )
                )  # fmt: skip
    return pd.concat(parts, ignore_index=True)[list(INTERVENTIONS)]


def circuit_rows(interventions: pd.DataFrame) -> pd.DataFrame:
    """Read the numbers off sweeps, as the experiment does."""
    run = ["model", "tuning", "seed", "kind"]
    parts = [
        pd.DataFrame(curve_measures(rows, str(key[3]), node_rows(rows, NODES[str(key[3])]))).assign(
            **dict(zip(run, key, strict=True))
        )
        for key, rows in interventions.groupby(run, sort=False)
    ]
    return pd.concat(parts)[list(CIRCUITS)] if parts else pd.DataFrame(columns=list(CIRCUITS))


def node_rows(interventions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Make nodes that hold as much of S, one by one, as the steps say."""
    rows = interventions[interventions["ranking"] == "shared"].sort_values("nodes")
    rows = rows.drop_duplicates("nodes")
    held = np.interp(np.arange(count + 1), rows["nodes"], rows["shared_fraction"])
    shared = np.rint(1e6 * np.diff(held)).astype(int)
    return pd.DataFrame({"shared": shared, "grafted": shared, "weight": 1.0})


def head_rows(seeds: tuple[int, ...] = SEEDS, layers: int = 2, heads: int = 8) -> pd.DataFrame:
    """Make nodes with ever fewer shared parameters; those of K and V count twice."""
    rows = []
    for tuning, seed in [(t, s) for t in ("stage", "mix") for s in seeds]:
        node = 0
        for layer in range(layers):
            for projection, count in (
                ("Q", heads), ("K", heads // 2), ("V", heads // 2), ("O", heads),
            ):  # fmt: skip
                weight = heads / count
                for head in range(count):
                    shared = max(0, 500 - 10 * node - seed)
                    rows.append(
                        ("m", tuning, seed, node, layer, projection, head, weight, 900, shared,
                         node, node + 1, 100 - node)
                    )  # fmt: skip
                    node += 1
    return pd.DataFrame(rows, columns=list(HEADS))


def continuity_rows(
    kinds: tuple[str, ...] = ("attention", "column"), seeds: tuple[int, ...] = SEEDS
) -> pd.DataFrame:
    """Make attributes that stay right once they are, and exchanged outcomes that do not."""
    rows = []
    for kind, tuning, seed in [(k, t, s) for k in kinds for t in ("stage", "mix") for s in seeds]:
        key = ("m", tuning, seed, kind)
        for person in range(20):
            rows.append((*key, False, person, "job", 20, 14, 5, 19, 14, 0.95, 0.9, person > 0))
            rows.append((*key, True, person, "job", 20, 8, 0, 19, 3, 0.4, 0.15, person > 9))
    return pd.DataFrame(rows, columns=list(CONTINUITY))


def sweep_rows(interventions: pd.DataFrame, worst: float = 0.004) -> pd.DataFrame:
    """Make sweeps of which not all steps were asked."""
    keys = ["model", "tuning", "seed", "kind", "direction", "ranking", "random_order"]
    table = interventions.groupby(keys, sort=False).size().rename("evaluated").reset_index()
    return table.assign(steps=4000, held_out=5, worst=worst)[list(SWEEPS)]


SCHEMAS = {
    "interventions": INTERVENTIONS,
    "circuits": CIRCUITS,
    "heads": HEADS,
    "continuity": CONTINUITY,
    "sweeps": SWEEPS,
    "grafting": GRAFTING,
    "grafting_checks": CHECKS,
}
SETTINGS = {"kind": "column", "random_orders": 2, "recovery": 0.92, "seed": 0}


def frames(interventions: pd.DataFrame | None = None, **replaced: pd.DataFrame) -> dict[str, Any]:
    """Return the tables by name, some replaced."""
    steps = intervention_rows() if interventions is None else interventions
    return {
        "interventions": steps,
        "circuits": circuit_rows(steps),
        "heads": head_rows(),
        "continuity": continuity_rows(),
        "sweeps": sweep_rows(steps),
        "grafting": shared.grafting_rows(),
        "grafting_checks": shared.check_rows(),
    } | replaced


def write_circuit_tables(folder: Path, models: tuple[str, ...] = ("m",)) -> None:
    """Write the synthetic tables of some models."""
    for name, table in frames().items():
        if name.startswith("grafting"):
            continue
        every = pd.concat(table.assign(model=model) for model in models)
        write_table(folder / f"{name}.parquet", every, SCHEMAS[name])


def measures_of(folder: Path, tables: dict[str, Any], paper: str = LLAMA, **sweep: Any) -> Circuits:
    """Write tables and a sweep, and read them as the report does."""
    files = {name: folder / f"{name}.parquet" for name in SECTION.tables}
    for name, table in tables.items():
        write_table(files[name], table, SCHEMAS[name])
    return Circuits("m", {**files, **write_sweep(folder / "sweep", **sweep)}, SETTINGS, paper)


def write_sweep(folder: Path, *, steps: int = 8, ever: bool = True) -> dict[str, Path]:
    """Make a sweep in which ever more questions are answered rightly; the first person's never."""
    files = {f"sweep_{name}": folder / f"{name}.parquet" for name in ("steps", "questions")}
    people = [person for person in range(7) for _ in range(2)]
    questions = pd.DataFrame(
        {
            "question": range(14),
            "individual": people,
            "relation": ["job", "employer"] * 7,
            "grafted": [ever and person > 0 for person in people],
        }
    )
    write_table(files["sweep_questions"], questions, QUESTIONS)
    rows = [
        (direction, "shared", 0, step, 100 * step,
         [n for n in range(2, 14) if ever and n <= 2 * step + 1])
        for direction in ("forward", "backward")
        for step in range(steps)
    ]  # fmt: skip
    write_table(files["sweep_steps"], pd.DataFrame(rows, columns=list(STEPS)), STEPS)
    return files


@pytest.fixture
def measures(tmp_path: Path) -> Circuits:
    """Return measures that are as the paper says."""
    return measures_of(tmp_path, frames())


def about(claims: list[Judged], *words: str) -> list[str]:
    """Return the verdicts on the claims with all these words."""
    return [c.verdict for c in claims if all(w in c.text for w in words)]


def said_of(measures: Circuits) -> list[str]:
    """Return all caveats of the section."""
    parts = (part for part in SECTION.body if isinstance(part, Caveats))
    return [text for part in parts for text in part.said(measures)]


# --- measures ---------------------------------------------------------------------------------


def test_curves_of_seeds_are_laid_on_one_another(measures: Circuits) -> None:
    curves = measures.curves("attention")
    line = curves[
        (curves["tuning"] == "mix")
        & (curves["direction"] == "forward")
        & (curves["ranking"] == "random")
        & (curves["quantity"] == "completeness")
    ].set_index("nodes")
    # Random curves are straight here, so that steps which a seed lacks are on its lines.
    assert line["mean"].to_numpy() == pytest.approx(line.index.to_numpy() / 48)
    assert (line["low"] <= line["mean"] + 1e-12).all() and (
        line["mean"] <= line["high"] + 1e-12
    ).all()
    assert line["share"].iloc[-1] == 1


def test_numbers_are_read_between_steps(measures: Circuits) -> None:
    reached = measures.reached("attention", "mix", "random", 0.55)
    assert reached == pytest.approx(dict.fromkeys(SEEDS, 0.55))
    lost = measures.lost("attention", "mix", "random", 0.25)
    assert lost == pytest.approx(dict.fromkeys(SEEDS, 0.25))
    first = measures.at("column", "mix", "shared", "shared_fraction", 1e-9, "forward")
    assert first[0] == pytest.approx(1 - (1 - 1 / 4000) ** 1000)
    assert measures.at("unit", "mix", "shared", "completeness", 0.1, "forward") == {}


def test_what_nodes_hold_is_counted_node_by_node_where_it_can_be(tmp_path: Path) -> None:
    tables = frames()
    counted = tables["circuits"]
    counted.loc[counted["measure"] == "held", "value"] = 0.123
    measures = measures_of(tmp_path, tables)
    for priority in ("shared", "grafted"):
        held = measures.held("attention", "mix", priority, 0.6)
        assert held == pytest.approx(dict.fromkeys(SEEDS, 0.123))
    assert measures.held("attention", "mix", "random", 0.6)[0] == pytest.approx(
        1 - 0.4**2, abs=0.02
    )
    assert measures.held("attention", "mix", "shared", 0.5)[0] > 0.9  # no such share was counted


def test_the_first_step_is_the_one_that_every_seed_took(tmp_path: Path) -> None:
    rows = intervention_rows()
    late = (rows["seed"] == 1) & (rows["direction"] == "backward") & (rows["tuning"] == "mix")
    measures = measures_of(tmp_path, frames(rows[~(late & rows["nodes"].between(1, 5))]))
    assert measures.first_step("attention", "mix", "shared", "backward") == 7
    assert measures.first_step("attention", "mix", "shared", "forward") == 1
    assert measures.first_step("attention", "stage", "shared", "backward") == 1
    assert measures.first_step("unit", "mix", "shared", "forward") == 0
    assert measures.lost("attention", "mix", "shared", 0.1) == {}  # 4.8 of 48
    assert measures.reached("attention", "mix", "shared", 0.1)


def test_what_a_kind_adds_leaves_out_what_all_else_gives(tmp_path: Path) -> None:
    high = measures_of(tmp_path, frames(intervention_rows(floor=0.75)))
    assert high.floor("attention", "mix") == pytest.approx(dict.fromkeys(SEEDS, 0.75))
    added = high.added("attention", "mix", high.reached("attention", "mix", "random", 0.5))
    assert added == pytest.approx(dict.fromkeys(SEEDS, 0.5))
    whole = measures_of(tmp_path, frames(intervention_rows(floor=1.0)))
    nothing = whole.added("attention", "mix", whole.reached("attention", "mix", "random", 0.5))
    assert np.isnan(list(nothing.values())).all()


# --- claims -----------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", [LLAMA, PYTHIA])
def test_claims_hold_of_circuits_like_the_papers(tmp_path: Path, paper: str) -> None:
    claims = SECTION.judged(measures_of(tmp_path, frames(), paper))
    assert {c.verdict for c in claims} == {"holds"}
    assert [c.section for c in claims].count("Attention heads") == 11
    assert [c.section for c in claims].count("MLP nodes") == 8
    assert sum(c.is_extension for c in claims) == 5
    assert all(c.paper for c in claims if not c.is_extension)
    for said in (
        "Grafting nodes brings recall back sooner when they are ranked by shared parameters than "
        "at random: mean completeness over all steps.",
        "Resetting nodes costs recall sooner when they are ranked by shared parameters than by "
        "grafted parameters: mean completeness lost over all steps.",
    ):
        assert about(claims, said) == ["holds", "holds"]
    early = [c for c in claims if c.section == "MLP nodes" and c.text.startswith("Grafting")]
    assert [(c.is_extension, c.paper) for c in early] == [
        (True, "in steps 1 to 20 of 49 (Llama)")
    ] * 2


def test_claims_of_circuits_the_other_way_round_do_not_hold(tmp_path: Path) -> None:
    turned = {
        key: {"shared": p["random"], "grafted": p["grafted"], "random": p["shared"]}
        for key, p in {
            ("attention", "forward"): {"shared": 0.5, "grafted": 3.0, "random": 9.0},
            ("attention", "backward"): BENT["attention", "backward"],
            ("column", "forward"): {"shared": 0.01, "grafted": 0.02, "random": 0.05},
            ("column", "backward"): BENT["column", "backward"],
        }.items()
    }
    rows = intervention_rows(bent=turned)
    rows["shared_fraction"] = rows["grafted_fraction"]  # S is spread evenly
    same = continuity_rows().assign(overall=0.4, longest=0.2, retained=False)
    claims = SECTION.judged(measures_of(tmp_path, frames(rows, continuity=same)))
    beside = about(claims, "shuffled between people")
    assert beside == ["inconclusive"]  # nothing is above, nothing below
    assert {c.verdict for c in claims if "shuffled" not in c.text} == {"does not hold"}


def test_completeness_that_is_there_before_is_told_and_judged_by_what_is_added(
    tmp_path: Path,
) -> None:
    slow = {**BENT, ("attention", "forward"): {"shared": 2, "grafted": 3, "random": 4}}
    high = measures_of(tmp_path, frames(intervention_rows(floor=0.9, bent=slow)))
    claims = SECTION.judged(high)
    assert about(claims, "are enough for") == ["holds"]
    assert about(claims, "Of what heads add") == ["does not hold"]
    assert about(claims, "costs more than 90 % of completeness") == ["does not hold"]
    assert about(claims, "of what heads add to everything else", "Resetting") == ["holds"]
    assert "no head grafted: 90.0" in claims[0].evidence
    said = caveats.attention(high)
    assert "already high (Mix-tuned 90.0\u00a0%, Stage-tuned 90.0\u00a0%)" in said[0]
    assert "reached with no node at all" in said[0] and "more than 10.0 %" in said[0]


def test_a_share_finer_than_the_first_step_is_not_read_off(tmp_path: Path) -> None:
    rows = intervention_rows()
    rows = rows[(rows["kind"] != "column") | ~rows["nodes"].between(1, 5)]
    coarse = measures_of(tmp_path, frames(rows))
    claims = SECTION.judged(coarse)
    assert about(claims, "that share of them") == ["inconclusive"]
    lost = next(c for c in claims if "that share of them" in c.text)
    assert "fewer than the first step takes" in lost.evidence
    assert any("would be 3.2 of the 4,000" in c for c in caveats.mlp(coarse))
    table = views.numbers("column", coarse)
    for name, known in (("reached with", False), ("lost without", False), ("of S in", True)):
        column = table.head.index(f"{name} 0.08\u00a0%")
        assert (cells(table, 0, 0)[column] != MISSING) == known
        assert cells(table, 0, 2)[column] == MISSING  # at random
    # What nodes hold is known node by node, however coarse the steps.
    fine = intervention_rows()
    fine = fine[(fine["direction"] == "backward") | ~fine["nodes"].between(1, 5)]
    claims = SECTION.judged(measures_of(tmp_path, frames(fine)))
    assert about(claims, "320 of 401,408") == ["holds"]


# --- caveats ----------------------------------------------------------------------------------


def test_s_in_one_tensor_and_its_end_are_told(tmp_path: Path) -> None:
    heads = head_rows()
    one = (heads["layer"] == 0) & (heads["projection"] == "V")
    heads.loc[~one, "shared"] = 1
    rows = intervention_rows()
    rows.loc[(rows["nodes"] >= 10) & (rows["ranking"] == "shared"), "shared_fraction"] = 1.0
    placed = measures_of(tmp_path, frames(rows, heads=heads))
    said = " ".join(caveats.attention(placed))
    assert "V of layer 0, which has 8.3 % of the nodes" in said
    assert "or fewer of 48" in said and "each is 2.1 % of them" in said


def test_circuits_like_the_papers_need_no_caution(tmp_path: Path) -> None:
    rows = intervention_rows(("column",))
    rows["shared_fraction"] = rows["grafted_fraction"]
    assert caveats.mlp(measures_of(tmp_path, frames(rows))) == []


def test_attributes_that_need_no_node_are_told(measures: Circuits, tmp_path: Path) -> None:
    assert caveats.always_right(measures) is None
    always = continuity_rows().assign(right=20, first=0)
    said = caveats.always_right(measures_of(tmp_path, frames(continuity=always)))
    assert said is not None and "100.0\u00a0% of the attributes are right at every step" in said


# --- tables -----------------------------------------------------------------------------------


def cells(table: Any, group: int, row: int) -> list[str]:
    found: list[str] = table.groups[group][1][row]
    return found


def test_tables_hold_our_numbers_and_theirs(measures: Circuits, tmp_path: Path) -> None:
    pythia = measures_of(tmp_path / "pythia", frames(), PYTHIA)
    heads = views.numbers("attention", measures)
    assert heads.head[1:7] == [
        "80\u00a0% needs", "reached with 10\u00a0%", "reached with 60\u00a0%",
        "reached with 80\u00a0%", "lost without 10\u00a0%", "lost without 60\u00a0%",
    ]  # fmt: skip
    assert cells(heads, 0, 2)[3] == "60.0 ± 0.0"  # at random, straight
    assert cells(heads, 0, 3)[:6] == [
        "paper: shared",
        "< 60",
        "–",
        "> 80",
        "–",
        "> 90",
    ]
    assert cells(heads, 0, 4)[3] == "≤ 70"
    assert "reached with 80\u00a0%" in views.numbers("attention", pythia).head
    columns = views.numbers("column", measures)
    assert cells(columns, 0, 3) == [
        "paper: shared", "–", "–", "–", "> 60", "–", "> 30", "–", "–", "–",
    ]  # fmt: skip
    nodes = views.top_heads(measures)
    # Twice its count, the first K is ahead of the first Q.
    assert [cells(nodes, 0, i)[0] for i in (0, 1)] == ["layer 0, K 0", "layer 0, K 1"]
    assert cells(nodes, 0, 0)[1:4] == ["419", "3.3", "9, 9, 9"]
    lasting = views.continuity(measures)
    assert cells(lasting, 1, 0) == ["Mix-tuned", "20", "95.0 ± 0.0", "90.0 ± 0.0", "95.0 ± 0.0"]
    assert cells(lasting, 1, 6)[2:] == ["92.0", "80.7", "91.4"]
    asked = views.grids(measures)
    assert cells(asked, 0, 0)[1] == "4,001" and cells(asked, 0, 0)[3:] == ["5", "0.4"]
    for table in (heads, columns, nodes, lasting, asked):
        assert all(len(r) == len(table.head) for _, rows in table.groups for r in rows)


def test_a_seed_that_never_gets_there_is_counted(tmp_path: Path) -> None:
    rows = intervention_rows()
    rows.loc[(rows["seed"] == 0) & (rows["tuning"] == "mix"), "completeness"] *= 0.5
    table = views.numbers("attention", measures_of(tmp_path, frames(rows)))
    assert cells(table, 0, 0)[1].endswith("(2 of 3 seeds)")


def test_sweeps_asked_at_every_step_need_no_table(tmp_path: Path) -> None:
    rows = intervention_rows()
    every = sweep_rows(rows).assign(steps=7, evaluated=8)
    assert views.grids(measures_of(tmp_path, frames(rows, sweeps=every))).groups == []


# --- figures ----------------------------------------------------------------------------------


def draw(measures: Circuits, folder: Path) -> dict[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # missing glyphs, layouts that collapse
        SECTION.draw(measures, folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def check_size(folder: Path) -> None:
    """Check that figures are as wide as a page and can be read on it."""
    for path in folder.glob("*.png"):
        height, width, _ = matplotlib.image.imread(path).shape
        assert width == round(WIDTH * style.DOTS_PER_INCH)
        assert 0.3 < height / width < 1.65


def test_data_of_figures_are_what_is_drawn(measures: Circuits, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    draw(measures, folder)
    curves = read_table(folder / "circuits_mlp.parquet", CURVE)
    assert set(curves["kind"]) == {"column"}
    assert len(curves.drop_duplicates(["tuning", "direction", "ranking", "quantity"])) == 36
    parts = read_table(folder / "heads.parquet")
    sums = parts.groupby(["tuning", "chosen"])["part"].sum()
    assert sums.tolist() == pytest.approx([1.0] * 4)
    steps = read_table(folder / "continuity.parquet")
    # The first person has nothing right at any step; the next ones are shown, all their facts.
    assert steps["individual"].drop_duplicates().tolist() == list(range(1, 1 + PEOPLE))
    assert len(steps) == 2 * PEOPLE * 8
    first = steps[(steps["individual"] == 1) & (steps["relation"] == "job")]
    assert first.sort_values("step")["right"].tolist() == [False] + [True] * 7


def test_large_models_and_many_steps_stay_readable(tmp_path: Path) -> None:
    heads = head_rows(layers=28, heads=24)
    drawn = draw(measures_of(tmp_path, frames(heads=heads), steps=300), tmp_path / "figures")
    assert all(len(content) < 1_500_000 for content in drawn.values())
    check_size(tmp_path / "figures")


# --- what is missing --------------------------------------------------------------------------

NOTHING = intervention_rows().assign(completeness=np.nan, accuracy=0.0)
SPARSE = {
    "one seed": frames(
        intervention_rows(seeds=(1,)), heads=head_rows((1,)), continuity=continuity_rows(seeds=(1,))
    ),
    "one tuning": {n: t[t["tuning"] == "mix"] for n, t in frames().items()},
    "attention alone": frames(
        intervention_rows(("attention",)), continuity=continuity_rows(("attention",))
    ),
    "no attention": frames(
        intervention_rows(("column", "unit")),
        heads=head_rows().iloc[:0],
        continuity=continuity_rows(("column", "unit")),
    ),
    "no random orders": frames(intervention_rows(draws=0)),
    "no rows": {n: t.iloc[:0] for n, t in frames().items()},
    "nothing recalled": frames(NOTHING, continuity=continuity_rows().iloc[:0]),
    "no shared and no grafted ones": frames(heads=head_rows().assign(shared=0, grafted=0)),
    "nothing ever wrong": frames(
        intervention_rows(floor=1.0), continuity=continuity_rows().assign(first=0)
    ),
}


@pytest.mark.parametrize("tables", SPARSE.values(), ids=SPARSE)
def test_missing_rows_are_shown_as_missing(tables: dict[str, Any], tmp_path: Path) -> None:
    measures = measures_of(tmp_path, tables, ever=False)
    draw(measures, tmp_path / "figures")
    study = {"circuits": {"individuals": None}}
    shown = show_section(SECTION, measures, tmp_path / "figures", study)
    text = str([[part for kind, part in shown.parts if kind != "figure"], SECTION.judged(measures)])
    assert not re.search(r"\bnan\b|\binf\b", text)
    figures = [part for kind, part in shown.parts if kind == "figure"]
    assert len(figures) == 2 * ("attention" in measures.kinds) + bool(measures.mlp) + bool(
        measures.kinds
    )


def test_without_random_orders_nothing_is_said_of_chance(
    measures: Circuits, tmp_path: Path
) -> None:
    plain = measures_of(tmp_path / "plain", SPARSE["no random orders"])
    assert measures.random and not plain.random
    claims = SECTION.judged(plain)
    assert not about(claims, "at random")
    assert len(claims) == len(SECTION.judged(measures)) - 3
    assert "random orders," not in views.numbers("column", plain).caption
    assert b"at random" not in draw(plain, tmp_path / "figures")["circuits_mlp.parquet"]


def test_models_that_know_nothing_are_judged_of_nothing(tmp_path: Path) -> None:
    claims = SECTION.judged(measures_of(tmp_path, SPARSE["nothing recalled"]))
    held = [c for c in claims if "hold" in c.text]
    assert {c.verdict for c in claims if c not in held} == {"inconclusive"}
    assert {c.verdict for c in held} == {"holds"}  # where S is does not depend on what is known


def test_kinds_that_were_left_out_are_not_claimed_of(tmp_path: Path) -> None:
    for name, sections in (
        ("attention alone", {"Attention heads"}),
        ("no attention", {"MLP nodes"}),
        ("no rows", set()),
    ):
        measures = measures_of(tmp_path / name, SPARSE[name])
        assert {c.section for c in circuit_claims(measures)} == sections


def test_masks_that_were_not_chosen_or_learnt_are_told(tmp_path: Path) -> None:
    grafting = shared.grafting_rows(chosen={"stage": None, "mix": 0.05})
    learnt, poor = caveats.grafted_models(measures_of(tmp_path, frames(grafting=grafting)))
    assert "40.0\u00a0% of the questions that the fine-tuned Mix-tuned model has wrong" in learnt
    assert "Stage-tuned seed 0 40.0\u00a0%" in poor and "Mix-tuned seed" not in poor
