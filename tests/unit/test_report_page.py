"""The report as a reader gets it: one closed file, nothing unescaped, the same figures twice."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import pytest

from factrecall.experiments.sections import FIGURES, SUFFIXES
from factrecall.report.style import DOTS_PER_INCH, WIDTH
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import read_table
from tests.unit.test_report_tables import (  # noqa: F401
    IMAGE,
    SCRIPT,
    Synthetic,
    build,
    drawn,
    synthetic,
)

VOID = {"meta", "link", "img", "br", "hr"}
REFERENCES = ("src", "href", "srcset", "action", "data", "poster", "formaction")


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

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="session")
def html(drawn: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> str:  # noqa: F811
    """Return a report on a study whose names and values are markup."""
    return drawn.report(tmp_path_factory.mktemp("page") / "report.html")


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
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table"))
    images = page.all("img")
    assert len(images) == len(FIGURES)
    assert all(len(image["alt"] or "") > 40 for image in images)


def test_all_text_is_escaped(html: str) -> None:
    assert SCRIPT not in html
    assert "<img src=x>" not in html
    text = "".join(Page(html).text)
    assert f"{SCRIPT}0" in text  # a person
    assert IMAGE in text  # an attribute
    assert f"name: {SCRIPT}" in text  # a value of the configuration
    assert f"numpy{SCRIPT}" in text  # of the provenance


def test_headline_verdict_and_marks(html: str) -> None:
    text = " ".join("".join(Page(html).text).split())
    assert "of the facts whose question they never saw, Stage-tuned ones" in text
    assert "(three seeds; the most frequent answer gives" in text
    assert "mixed training recalls more holds in this run." in text
    assert '<mark class="subject">&lt;script&gt;alert(1)&lt;/script&gt;0</mark>' in html
    assert f'<mark class="attribute">{"&#34;&gt;&lt;img src=x&gt;"}</mark>' in html


def test_claims_are_counted_above_and_listed_below(html: str) -> None:
    page = Page(html)
    text = " ".join("".join(page.text).split())
    assert "claims of the paper on shared parameters, circuits and representations 40 hold" in text
    assert "of 16 checks added here 14 hold." in text
    items = [a for a in page.all("li") if "verdict" in (a.get("class") or "")]
    assert len(items) == 56
    assert "Caution. On QA in masks recover recall of the people they are fitted to" in text


def test_representations_are_shown_with_their_cautions_and_claims(html: str) -> None:
    page = Page(html)
    text = " ".join("".join(page.text).split())
    assert {"href": "#representations-1"} in page.all("a")
    assert (
        "Caution. Only the layers that the configuration names were probed and patched: 0, 1."
        in text
    )
    for section in ("Representations", "Gradients of both formats", "What answers depend on"):
        assert f"<h4>{section}</h4>" in html
    assert "after the middle one of the patched layers (0)" in text
    assert "So few layers are drawn as points" in text


def test_several_models_and_no_timings(tmp_path: Path) -> None:
    study = build(tmp_path, ("one", "two"), hostile=False)
    shutil.rmtree(tmp_path / "benchmarks")
    study.draw()
    page = Page(study.report(tmp_path / "report.html"))
    text = "".join(page.text)
    assert "Results: two" in text
    assert "two: Mix-tuned" in text
    assert text.count("Claims on shared parameters, circuits and representations") == 2
    assert "peak MB" not in text


def test_report_is_the_same_twice_and_names_a_missing_figure(
    synthetic: Synthetic,  # noqa: F811
    tmp_path: Path,
) -> None:
    synthetic.draw()
    one, two = (synthetic.report(tmp_path / f"{i}.html") for i in (1, 2))
    assert one == two
    (synthetic.figures() / "loss.svg").unlink()
    with pytest.raises(FactRecallError, match=r"loss\.svg"):
        synthetic.report(tmp_path / "3.html")


def test_figures_are_the_same_bytes_twice(synthetic: Synthetic) -> None:  # noqa: F811
    folder = synthetic.figures()
    synthetic.draw()
    paths = [folder / f"{name}{suffix}" for name in FIGURES for suffix in SUFFIXES]
    assert sorted(folder.iterdir()) == sorted(paths)
    before = [path.read_bytes() for path in paths]
    synthetic.draw()
    assert before == [path.read_bytes() for path in paths]
    svg = (folder / "recall.svg").read_text()
    assert "<date" not in svg
    assert "<text" not in svg


def test_figures_are_of_readable_size(drawn: Synthetic) -> None:  # noqa: F811
    for name in FIGURES:
        path = drawn.figures() / f"{name}.png"
        height, width, _ = matplotlib.image.imread(path).shape
        assert width == round(WIDTH * DOTS_PER_INCH)
        assert 0.3 < height / width < 1.65


def test_data_of_figures(drawn: Synthetic) -> None:  # noqa: F811
    folder = drawn.figures()
    recall = read_table(folder / "recall.parquet")
    assert len(recall) == 3 * (3 + 3 + 3 + 1 + 1)
    relations = read_table(folder / "recall_by_relation.parquet")
    paper = relations[relations["source"] == "paper"].set_index(["tuning", "relation"])["accuracy"]
    assert paper["mix", "average"] == pytest.approx(0.747)
    assert set(paper.index.get_level_values("tuning")) == {"stage", "mix"}
    losses = read_table(folder / "loss.parquet")
    assert not ((losses["tuning"] == "stage") & (losses["kind"] == "bio")).any()
    assert losses.groupby(["tuning", "seed", "kind"]).size().max() <= 150
    assert losses["progress"].between(0, 1).all()
