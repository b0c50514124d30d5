"""The page in a browser: from a telephone to a wide screen and on paper, asking for nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_report_page import Made, made  # noqa: F401

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
AXE = os.environ.get("FACTRECALL_AXE", "")
"""Where axe-core's ``axe.min.js`` is; without it accessibility is not checked."""

OWN_ERRAND = "not an origin"
WIDTHS = (360, 768, 1280, 1920)
LINES = 5
"""No paragraph is longer on a screen of 1,280 pixels."""

MEASURE = """
const found = {};
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument, view = frame.contentWindow, width = frame.width;
  page.querySelectorAll("details").forEach(d => d.open = true);
  const top = q => page.querySelector(q).getBoundingClientRect().top;
  const texts = [...page.querySelectorAll("p, li > p, .trust li, .failed li, figcaption, dd")];
  view.scrollTo(0, 2000);
  found[width] = {
    scroll: page.documentElement.scrollWidth, window: page.documentElement.clientWidth,
    contents: top("nav"),
    row: view.getComputedStyle(page.querySelector(".board tbody tr")).display,
    marks: [...page.querySelectorAll(".marks")].map(m => m.getBoundingClientRect().width),
    figures: [...page.querySelectorAll("img")].map(i => i.complete && i.naturalWidth),
    long: texts.filter(t => t.clientHeight / parseFloat(view.getComputedStyle(t).lineHeight) > 5.5)
      .map(t => t.textContent),
  };
}
"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here")


def browse(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Open a page without a window; return what the browser said."""
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--allow-file-access-from-files",
        # Every host name leads nowhere: the page must not need any.
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={page.parent / 'profile'}",
        "--enable-logging=stderr",
        "--v=0",
        *arguments,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


def told(page: Path, html: str, script: str) -> Any:
    """Open a page of our own beside `page`; return what its script writes into ``found``."""
    asked = page.with_name("asked.html")
    end = "document.title = JSON.stringify(found)"
    asked.write_text(f"<title>-</title>{html}<script>onload = async () => {{{script}{end}}}"
                     "</script>", encoding="utf-8")  # fmt: skip
    said = browse(asked, "--virtual-time-budget=60000", "--dump-dom").stdout
    return json.loads(unescape(said.partition("<title>")[2].partition("</title>")[0]))


@pytest.fixture(scope="session")
def page(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Return the path of a report."""
    path = tmp_path_factory.mktemp("browsed") / "report.html"
    made.page(path)
    return path


@pytest.fixture(scope="session")
def measured(page: Path) -> dict[str, dict[str, Any]]:
    """Return what is measured of the page in windows of several widths."""
    # Windows cannot be made as narrow as a telephone, frames can.
    frames = "".join(f'<iframe src="report.html" width="{w}" height="800"></iframe>'
                     for w in WIDTHS)  # fmt: skip
    found: dict[str, dict[str, Any]] = told(page, frames, MEASURE)
    return found


def test_console_is_silent_and_names_stay_text(page: Path) -> None:
    said = browse(page, "--dump-dom")
    assert "CONSOLE" not in said.stderr
    assert "<script>" not in said.stdout
    assert "Example facts" in said.stdout


def fetched_by(page: Path) -> list[str]:
    """Return the addresses that a page asked for; the browser's own errands do not count."""
    log = page.parent / "net.json"
    browse(page, f"--log-net-log={log}", "--dump-dom")
    started = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    return [p["url"] for p in started if p.get("initiator", OWN_ERRAND) != OWN_ERRAND]


def test_nothing_is_fetched(page: Path) -> None:
    control = page.with_name("control.html")
    control.write_text('<!DOCTYPE html><img src="http://example.invalid/x.png">')
    assert set(fetched_by(control)) == {"http://example.invalid/x.png"}
    assert fetched_by(page) == []


def test_no_sideways_scrolling_and_all_figures_at_any_width(
    measured: dict[str, dict[str, Any]],
) -> None:
    assert set(measured) == {str(width) for width in WIDTHS}
    for width, found in measured.items():
        assert found["scroll"] <= found["window"] <= int(width)
        assert len(found["figures"]) == 2
        assert all(found["figures"])
        assert len(found["marks"]) == 5
        assert min(found["marks"]) > 250


def test_contents_stay_in_sight_and_rows_stack_where_the_screen_is_narrow(
    measured: dict[str, dict[str, Any]],
) -> None:
    assert [found["contents"] == 0 for found in measured.values()] == [False, False, True, True]
    assert [found["row"] for found in measured.values()] == ["block"] * 2 + ["table-row"] * 2


def test_no_paragraph_is_long(measured: dict[str, dict[str, Any]]) -> None:
    assert measured["1280"]["long"] == []
    assert measured["360"]["long"] != []


def test_it_prints_on_a4_with_what_is_folded_away(page: Path) -> None:
    pdf = page.with_name("report.pdf")
    browse(page, "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf.read_bytes())
    assert 3 <= len(boxes) <= 12
    for width, height in boxes:
        assert float(width) == pytest.approx(595, abs=1)
        assert float(height) == pytest.approx(842, abs=1)


@pytest.mark.skipif(not AXE, reason="FACTRECALL_AXE does not say where axe-core is")
@pytest.mark.parametrize("change", ["", "<img src='data:,'>"])
def test_no_serious_fault_of_accessibility(page: Path, change: str) -> None:
    # The page forbids scripts: the checker runs in a copy without that line.
    html = page.read_text(encoding="utf-8")
    free, removed = re.subn(r"<meta http-equiv=[^\n]*\n", "", html)
    assert removed == 1
    copied = free.partition("<body>")[2].partition("</body>")[0]
    head = free.partition("<body>")[0] + f"<script src='{Path(AXE).as_uri()}'></script><body>"
    asked = page.with_name(f"axe{len(change)}.html")
    script = """onload = async () => {
      document.querySelectorAll("details").forEach(d => d.open = true);
      const found = await axe.run({resultTypes: ["violations"]});
      document.title = JSON.stringify(found.violations.map(v => [v.impact, v.id,
        v.nodes.map(n => n.target.join(" ") + ": " + n.failureSummary).slice(0, 3)]));
    }"""
    asked.write_text(f"{head}{copied}{change}<script>{script}</script>", encoding="utf-8")
    said = browse(asked, "--virtual-time-budget=120000", "--dump-dom").stdout
    faults = json.loads(unescape(said.partition("<title>")[2].partition("</title>")[0]))
    serious = [fault for fault in faults if fault[0] in ("serious", "critical")]
    assert [fault[1] for fault in serious] == (["image-alt"] if change else []), serious
