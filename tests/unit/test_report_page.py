"""The page as a reader gets it: one closed file, nothing unescaped, found from its first screen."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factrecall.config.reading import read_study
from factrecall.config.study import Study
from factrecall.experiments.recall.examples import Asked, Person, Piece
from factrecall.report.ledger import CLAIMS, VERDICTS, Judged
from factrecall.report.marks import Bars
from factrecall.report.observations import TOGETHER
from factrecall.report.page import write_page
from factrecall.report.plots import Axis, Figure
from factrecall.report.render import LONGEST, first_sentence, numbers
from factrecall.report.scoreboard import MARGIN, WIDTH, Scale, written
from factrecall.report.section import Section
from factrecall.report.style import COLOURS, TUNING_LABELS
from factrecall.report.tables import Table, View
from factrecall.report.timings import Timing
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import write_table
from factrecall.vocabulary import TUNINGS

PRESET = Path(__file__).parents[2] / "workflow/presets/ci.yaml"
SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x>'
VOID = {"meta", "link", "img", "br", "hr"}
REFERENCES = ("src", "href", "srcset", "action", "data", "poster", "formaction")
NAN = math.nan


def judged(**fields: Any) -> Judged:
    """Return a claim that holds, but for these fields."""
    usual: dict[str, Any] = {
        "model": "tiny", "section": "recall", "id": "recall.more", "unit": "points", "part": "",
        "text": f"Mix-tuned models recall more {SCRIPT}", "source": "v1, figure 8", "bound": 0.02,
        "comparison": "more", "why": f"Two points are the spread of seeds {SCRIPT}.",
        "value": 0.172, "low": 0.123, "high": 0.221, "seeds": 3, "people": 100,
        "method": "people and seeds (t)", "published": 0.388, "quote": f"Far more {IMAGE}.",
        "verdict": "holds", "reason": "",
    }  # fmt: skip
    return Judged(**{**usual, **fields})


LEDGER = (
    judged(),
    judged(id="recall.bio", text="Both recall biographies", comparison="less", verdict="does not "
           "hold", value=0.36, low=0.31, high=0.41, part="Stage-tuned"),
    judged(id="masks.scale", section="masks", text="Masks are small", verdict="not measurable",
           value=NAN, low=NAN, high=NAN, seeds=0, people=0, reason=f"too small {SCRIPT}"),
    judged(id="masks.wide", section="masks", text="Masks are shared", verdict="inconclusive",
           value=0.1, low=-4.0, high=9.0, reason="the interval holds the bound", published=NAN),
    judged(id="masks.own", section="masks", text="Random masks do nothing", source=""),
)  # fmt: skip


def bars(m: Any) -> pd.DataFrame:
    """Return a short figure's data."""
    rows = [(t, s, k, 0.1 * s + (t == "mix") * 0.5) for t in ("stage", "mix") for s in (0, 1)
            for k in ("qa_in", "qa_out")]  # fmt: skip
    return pd.DataFrame(rows, columns=["tuning", "seed", "split", "accuracy"])


def many(m: Any) -> pd.DataFrame:
    """Return a figure's data that is too long for the page."""
    return pd.DataFrame({"step": range(LONGEST + 1), "loss": 1.0})


BARS = Figure(
    "bars",
    data=bars,
    schema={"tuning": "string", "seed": "int32", "split": "string", "accuracy": "float64"},
    layers=(Bars("accuracy", "tuning"),),
    row="split",
    x=Axis("right (%)", percent=("accuracy",)),
    caption="<b>How much is recalled.</b> Of {{ m.name }}.",
)
MANY = replace(BARS, name="many", data=many, schema={"step": "int32", "loss": "float64"}, row=None,
               layers=(), x=Axis(), caption="<b>How losses fall.</b> By step.")  # fmt: skip
SECTIONS = (
    Section(
        name="recall",
        title="Recall",
        question="Does mixed training recall more?",
        figures=(BARS,),
        trust=(lambda m: f"Beware of {m.name}.", lambda m: None),
        method="<p>Asked of {{ m.name }}.</p>",
        tables=(Table("", data=lambda m: View("Seeds.", ["Seed", "n"], [(None, [["0", IMAGE]])])),),
        read=lambda **request: SimpleNamespace(model=request["model"], name=SCRIPT),
        headline=lambda m: f"Mix-tuned models recall 40.3 %, Stage-tuned ones 23.1 % {SCRIPT}.",
    ),
    Section(
        name="masks",
        title="Masks",
        question="Are masks shared?",
        figures=(MANY, replace(MANY, name="hidden", when=lambda m: False)),
        read=lambda **request: SimpleNamespace(model=request["model"], name=SCRIPT),
    ),
)


@dataclass(frozen=True)
class Made:
    """A made-up study with drawn figures and judged claims."""

    study: Study
    results: Path

    def page(self, out: Path, *, timed: bool = True) -> str:
        """Write the page and return it."""
        benchmark = self.results / "make_facts.tsv"
        benchmark.write_text("s\tmax_rss\n90\t612\n", encoding="utf-8")
        text = [Piece("Who is ", ""), Piece(f"{SCRIPT}0", "subject"), Piece(IMAGE, "attribute")]
        person = Person(f"{SCRIPT}0", "questions never seen", [text],
                        [Asked("Job", text, [True, False])], [5, 6])  # fmt: skip
        write_page(
            SECTIONS,
            self.study,
            results=self.results,
            sizes={},
            formats={},
            examples={"people": [person], "answer_heads": ["Stage-tuned", "Mix-tuned"],
                      "people_in": 20, "people_out": 20},
            timings=[Timing("make_facts", "", "", benchmark)] if timed else [],
            provenance={"versions": {"numpy": SCRIPT}},
            out=out,
        )  # fmt: skip
        return out.read_text(encoding="utf-8")


def make(results: Path, models: Sequence[str] = ("tiny",)) -> Made:
    """Draw the figures of a made-up study and write its claims."""
    for model in models:
        for section in SECTIONS:
            section.draw(SimpleNamespace(name=SCRIPT), results / "figures" / model)
    claims = [claim._replace(model=model) for model in models for claim in LEDGER]
    write_table(results / "tables/claims.parquet", pd.DataFrame(claims, columns=list(CLAIMS)),
                CLAIMS)  # fmt: skip
    study = read_study(PRESET)
    (shape, *_) = study.models.values()
    changed = {"name": SCRIPT, "models": dict.fromkeys(models, shape)}
    return Made(study.model_copy(update=changed), results)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a made-up study whose texts are markup, to be read only."""
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def html(made: Made, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return its page."""
    return made.page(tmp_path_factory.mktemp("page") / "report.html")


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def said(html: str) -> str:
    """Return the text of a page, or of a stretch of one, as it is read."""
    return " ".join(unescape(re.sub(r"(?s)<style>.*?</style>|<[^>]*>", "", html)).split())


def stretch(html: str, start: str, end: str) -> str:
    """Return the text between two pieces of a page's source."""
    return said(html.partition(start)[2].partition(end)[0])


# --- the page ---------------------------------------------------------------------------------


def test_page_is_whole_and_closed(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert page.elements[0] == ("html", {"lang": "en"})
    references = [a[k] or "" for _, a in page.elements for k in REFERENCES if k in a]
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)
    assert not page.all("script")
    assert not [k for _, a in page.elements for k in a if k.startswith("on")]
    assert "url(" not in html
    assert "@import" not in html
    assert "/tmp" not in html


def test_page_can_be_found_ones_way_in(html: str) -> None:
    page = Page(html)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in page.all("a")} <= {f"#{i}" for i in ids}
    levels = [int(tag[1]) for tag, _ in page.elements if tag[0] == "h" and tag[1:].isdigit()]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in th for th in page.all("th"))
    assert [image["alt"] for image in page.all("img")] == [
        "Figure: How much is recalled. Its data are below, under Numbers.",
        "Figure: How losses fall. Its data are below, under Numbers.",
    ]
    marks = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(marks) == len(LEDGER)
    assert all(svg["aria-label"] for svg in marks)


def test_all_text_is_escaped(html: str) -> None:
    assert SCRIPT not in html
    assert "<img src=x>" not in html
    text = said(html)
    for shown in (f"study {SCRIPT}", f"{SCRIPT}0", IMAGE, f"name: {SCRIPT}", f"Of {SCRIPT}.",
                  f"recall more {SCRIPT}", f"seeds {SCRIPT}.", f"Far more {IMAGE}.",
                  f"too small {SCRIPT}", f"Beware of {SCRIPT}.", f"of {SCRIPT}."):  # fmt: skip
        assert shown in text
    assert f'<mark class="attribute">{"&#34;&gt;&lt;img src=x&gt;"}</mark>' in html


def test_first_screen_says_what_was_found_how_sure_and_what_did_not_replicate(html: str) -> None:
    first = stretch(html, '<section id="result"', '<section id="board-1"')
    assert "Mix-tuned models recall 40.3 %, Stage-tuned ones 23.1 %" in first
    assert "The difference is 17.2 points (95 % interval 12.3 to 22.1; " in first
    assert "two seeds, 100 people asked in all; in the paper 38.8). Claim: it is more than" in first
    assert "more than 2.0 points. Verdict: holds." in first
    counted = "4 claims of the paper: ✓ 1 hold ✕ 1 do not hold ? 1 inconclusive – 1 not measurable"
    assert counted in first
    assert "these claims of the paper do not hold here Both recall biographies The words" in first


@pytest.mark.parametrize(
    ("replicates", "seeds", "runs"),
    [
        (1, 3, "three seeds"),
        (4, 1, "four replicates"),
        (2, 3, "two replicates, each with three seeds"),
    ],
)
def test_first_screen_counts_replicates_and_seeds(
    made: Made, tmp_path: Path, replicates: int, seeds: int, runs: str
) -> None:
    training = made.study.training.model_copy(update={"seeds": list(range(seeds))})
    study = made.study.model_copy(update={"training": training, "replicates": replicates})
    page = replace(made, study=study).page(tmp_path / "report.html")
    assert f"{runs}, 100 people asked in all; in the paper" in stretch(
        page, '<section id="result"', "</p>"
    )


def test_every_tuning_has_a_label_and_a_colour_of_its_own() -> None:
    every = {"base", "majority", *TUNINGS}
    assert set(TUNING_LABELS) == every == set(COLOURS)
    assert len(set(TUNING_LABELS.values())) == len(set(COLOURS.values())) == len(every)


def test_scoreboard_has_a_row_a_claim_and_our_own_checks_apart(html: str) -> None:
    paper = stretch(html, '<section id="board-1"', "<details>")
    assert "claims that this study can decide, about" in paper
    for text in ("Both recall biographies ✕ does not hold 36.0 31.0 to 41.0 38.8",
                 f"Masks are small too small {SCRIPT} – not measurable"):  # fmt: skip
        assert text in paper
    own = "Random masks do nothing"
    assert own not in paper
    assert own in stretch(html, "<details><summary>1 checks of our own", "</details>")
    rows = html.count('<tr><th scope="row"><a href="#')
    assert rows == len(LEDGER)


def test_a_section_asks_shows_judges_and_folds_its_numbers(html: str) -> None:
    text = said(html)
    places = [text.index(shown) for shown in (
        "Does mixed training recall more?", "How much is recalled.", "What it shows",
        "Effect 17.2, 95 % interval 12.3 to 22.1 (people and seeds (t); 100 people; 3 seeds).",
        "How far to trust it", "Beware of", "this figure: figures/tiny/bars.parquet", "Asked of",
        "Are masks shared?",
    )]  # fmt: skip
    assert places == sorted(places)
    after = [text.rindex(shown) for shown in ("Are masks shared?", "Example facts", "Departures "
             "from the paper", "Configuration and versions", "Run times")]  # fmt: skip
    assert after == sorted(after)
    assert "decided by Stage-tuned" in text
    assert "figures/tiny/many.parquet" in text
    assert "figures/tiny/hidden" not in text
    assert html.count("<details>") == 6


def test_several_models_and_no_timings(tmp_path: Path) -> None:
    page = make(tmp_path, ("one", "two")).page(tmp_path / "report.html", timed=False)
    text = said(page)
    assert "Results: two" in text
    assert text.count("4 claims of the paper:") == 2
    assert "peak MB" not in text
    ids = [a["id"] for _, a in Page(page).elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_report_is_the_same_twice_and_names_what_is_missing(tmp_path: Path) -> None:
    made = make(tmp_path)
    one, two = (made.page(tmp_path / f"{i}.html") for i in (1, 2))
    assert one == two
    for missing in ("figures/tiny/bars.svg", "tables/claims.parquet"):
        (tmp_path / missing).unlink()
        with pytest.raises(FactRecallError, match=missing):
            made.page(tmp_path / "3.html")


# --- numbers of a figure ----------------------------------------------------------------------


def test_numbers_are_means_over_seeds_with_tunings_side_by_side() -> None:
    view = numbers(BARS, bars(None), "Recall.")
    assert view is not None
    assert view.head == ["split", "Stage-tuned", "Mix-tuned"]
    assert [row[1:] for row in view.groups[0][1]] == [["5.0", "55.0"], ["5.0", "55.0"]]
    assert view.caption == "Recall. Means over seeds."


def test_numbers_take_the_mean_that_is_there_and_group_by_the_first_of_several_keys() -> None:
    schema = {"split": "string", "layer": "int32", "seed": "int32", "lost": "float64"}
    labels = {"layer": {0: "", 1: "Up-\nper\nlayer"}}
    figure = replace(BARS, schema=schema, labels=labels)
    rows = [("qa_in", 0, 0, 9.0), ("qa_in", 0, TOGETHER, -1.5), ("bio", 1, TOGETHER, NAN)]
    view = numbers(figure, pd.DataFrame(rows, columns=["split", "layer", "seed", "lost"]), "")
    assert view is not None
    assert view.head == ["layer", "lost"]
    assert view.groups == [
        ("QA in: questions trained on", [["0", "\u22121.5"]]),
        ("BIO: biographies", [["Upper layer", "\u2013"]]),
    ]


def test_numbers_that_are_too_many_or_none_are_left_to_the_file() -> None:
    assert numbers(MANY, many(None), "") is None
    assert numbers(MANY, many(None)[:LONGEST], "") is not None
    assert numbers(MANY, many(None)[:0], "") is None
    assert numbers(replace(MANY, schema={"step": "int32"}), many(None), "") is None


def test_first_sentence_of_a_caption() -> None:
    assert first_sentence("<b>What S &amp; γ hold.</b> More.") == "What S & γ hold."
    assert first_sentence("No markup") == "No markup"


# --- the scoreboard ---------------------------------------------------------------------------

shares = st.floats(-9, 9)


@given(st.lists(shares, min_size=3, max_size=9), shares, shares)
def test_places_keep_the_order_and_stay_on_the_axis(
    known: list[float], one: float, two: float
) -> None:
    scale = Scale.of([judged(low=low, high=0.0) for low in known])
    low, high = sorted((one, two))
    assert MARGIN <= scale.place(low) <= scale.place(high) <= WIDTH - MARGIN
    assert scale.low <= 100 * max(-1.0, *known[:1])


def test_axis_is_a_signed_square_root() -> None:
    scale = Scale(-100, 100)
    assert scale.place(0) == WIDTH / 2
    unit = scale.place(0.01) - WIDTH / 2
    assert scale.place(0.25) - WIDTH / 2 == pytest.approx(5 * unit, abs=0.5)
    assert scale.place(-0.25) - WIDTH / 2 == pytest.approx(-5 * unit, abs=0.5)
    assert [label for label, _ in Scale.of([judged()]).ticks] == ["\u221225", "\u22124", "0", "4",
                                                                  "25", "100"]  # fmt: skip


def test_marks_of_a_row(html: str) -> None:
    more, less, unknown, wide, own = re.findall(r'(?s)<svg class="marks".*?</svg>', html)
    bound = Scale.of(LEDGER[:4]).place(0.02)
    assert f'<rect class="side" x="{bound}" width="{WIDTH - bound}"' in more
    assert f'<rect class="side" x="0" width="{bound}"' in less
    drawn = ['class="value"', 'class="interval"', 'class="published"']
    assert [mark in more for mark in drawn] == [True, True, True]
    assert [mark in unknown for mark in drawn] == [False, False, True]
    assert [mark in wide for mark in drawn] == [True, True, False]
    assert [svg.count("arrow") for svg in (more, less, unknown, wide, own)] == [0, 0, 0, 2, 0]
    assert ('aria-label="Effect 17.2, 95 % interval 12.3 to 22.1, claimed: more than 2.0, '
            'published: 38.8"') in more  # fmt: skip


def test_effects_are_written_as_precisely_as_they_need() -> None:
    assert written(judged(), "low", "high") == "12.3 to 22.1"
    assert written(judged(value=-0.002, low=-0.004, high=0.001), "value") == "\u22120.20"
    assert written(judged(unit="%"), "value") == "17.2\u00a0%"
    assert written(judged(published=NAN), "published") == "\u2013"
    assert {claim.verdict for claim in LEDGER} == set(VERDICTS)
