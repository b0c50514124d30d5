"""The report in a browser: it opens from disk, asks for nothing and complains of nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.test_report_tables import Synthetic, drawn  # noqa: F401

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

OWN_ERRAND = "not an origin"

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
        # Every host name leads nowhere: the page must not need any.
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={page.parent / 'profile'}",
        "--enable-logging=stderr",
        "--v=0",
        *arguments,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(scope="session")
def page(drawn: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Return the path of a report."""
    path = tmp_path_factory.mktemp("browsed") / "report.html"
    drawn.report(path)
    return path


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


def test_no_sideways_scrolling_on_a_telephone(page: Path) -> None:
    # Windows cannot be made that narrow, frames can. The frame's page is measured from outside,
    # which its security policy does not concern.
    probe = page.with_name("probe.html")
    frame = '<iframe src="report.html" style="width:360px;height:640px;border:0"></iframe>'
    script = (
        "<script>onload=()=>{const d=frames[0].document.documentElement;"
        "document.title=d.scrollWidth+' of '+d.clientWidth}</script>"
    )
    probe.write_text(f"<!DOCTYPE html><title>-</title>{frame}{script}", encoding="utf-8")
    said = browse(probe, "--allow-file-access-from-files", "--dump-dom")
    title = said.stdout.partition("<title>")[2].partition("</title>")[0]
    wide, window = title.split(" of ")
    assert int(wide) <= int(window) <= 360
