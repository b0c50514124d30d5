"""Pages with numbers, made from one stored run: README.md and docs/claims.md.

``python -m tests.pages results/laptop`` reads a finished study, stores what the pages say of it in
``docs/laptop-run.json`` (claims, recall, hardware, date, versions) and the picture in
``docs/images``, and writes the pages. Without a folder it writes them from the stored run.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STORED = ROOT / "docs" / "laptop-run.json"
PICTURE = "recall.svg"
ON_SHARED = ("shared", "ablation", "layer_ablation", "grafting", "circuits")
"""Sections with claims on shared parameters."""

SAID = {
    "holds": "holds",
    "does not hold": "does not hold",
    "inconclusive": "is inconclusive",
    "not measurable": "cannot be measured",
}

WIDTH = 110
"""Characters of a line of prose."""


def store(results: Path) -> dict[str, Any]:
    """Return what the pages say of a finished study."""
    from factrecall.report.ledger import CLAIMS
    from factrecall.runtime.storage import read_table

    claims = read_table(results / "tables" / "claims.parquet", CLAIMS)
    recall = read_table(results / "tables" / "recall.parquet")
    sums = recall.groupby(["tuning", "split", "seed"])[["correct", "n"]].sum()
    shares = 100 * sums["correct"] / sums["n"]
    by_split = shares.groupby(["tuning", "split"]).agg(["mean", "std"])
    unseen = shares.xs("qa_out", level="split").unstack("tuning")
    made = (results / "tables" / "claims.parquet").stat().st_mtime
    return {
        "date": datetime.fromtimestamp(made, UTC).date().isoformat(),
        "hardware": hardware(),
        "claims": [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
            for row in claims.to_dict("records")
        ],
        "ahead": int((unseen["mix"] > unseen["stage"]).sum()),
        "recall": {
            f"{tuning}/{split}": [round(float(x), 3) if x == x else None for x in row]
            for (tuning, split), row in zip(by_split.index, by_split.to_numpy(), strict=True)
        },
    }


def hardware() -> str:
    """Return the processor and the number of its cores."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor()}"


def number(share: float | None, sign: bool = True) -> str:
    """Write a share in points."""
    if share is None:
        return "\N{EN DASH}"
    return f"{100 * share:{'+' if sign else ''}.1f}".replace("-", "\N{MINUS SIGN}")


def effect(claim: dict[str, Any]) -> str:
    """Write a claim's quantity with its interval."""
    if claim["value"] is None:
        return "\N{EN DASH}"
    ends = [number(claim[end]) for end in ("low", "high")]
    interval = f" ({ends[0]} to {ends[1]})" if claim["low"] is not None else ""
    return f"{number(claim['value'])}{interval}{' %' if claim['unit'] == '%' else ''}"


def tally(claims: list[dict[str, Any]]) -> str:
    """Count verdicts in words."""
    count = [c["verdict"] for c in claims].count
    return (
        f"{count('holds')} hold, {count('does not hold')} do not, {count('inconclusive')} are "
        f"inconclusive, {count('not measurable')} cannot be measured in this study"
    )


def claims_page(run: dict[str, Any]) -> str:
    """Return docs/claims.md."""
    from factrecall.report.ledger import ERROR, RULE, SEEDS
    from factrecall.report.words import WORDS

    theirs = [c for c in run["claims"] if c["source"]]
    own = [c for c in run["claims"] if not c["source"]]
    judged = sum(
        c["verdict"] != "not measurable" and c["seeds"] >= SEEDS and c["low"] is not None
        for c in run["claims"]
    )
    lines = [
        "# Claims",
        "",
        "This page lists every claim that is judged: those of the paper, and checks of this "
        "project. It is made from the stored laptop run "
        f"({run['date']}, {run['hardware']}) by `python -m tests.pages`.",
        "",
        f"**The rule.** {RULE} A claim with several parts holds if all of them do, and does not "
        "hold if one does not. In brackets: the first part with the deciding verdict.",
        "",
        "Numbers are percentage points; those marked % are relative changes. Cosines are "
        "multiplied by 100. "
        f"Of the {judged} claims that this study can decide, {ERROR * judged:.1f} would hold by "
        "chance if every true value lay exactly at its bound.",
        "",
        "**When the bounds were set.** They were written on 2026-11-30, when results of earlier "
        "runs of the laptop study were known, and before the run shown here. For any other study "
        "they are set beforehand.",
        "",
        "**The reading of influence.** S is selected by `absolute`. It was chosen in a small trial "
        "by what is judged here: sets that overlap, and whose ablation hurts. What Mix-tuned "
        "models lose, and how large S is, is therefore judged for the other readings as well.",
    ]
    lines += ["", "## Words", "", *(f"- **{word}**: {what}." for word, what in WORDS.items())]
    for title, rows in (("The paper's claims", theirs), ("Checks of this project", own)):
        lines += ["", f"## {title}", "", f"Of {len(rows)}, {tally(rows)}.", ""]
        lines += ["| claim | verdict | here | bound | paper |", "|---|---|---|---|---|"]
        lines += [_row(claim) for claim in rows]
    lines += ["", "## Bounds and intervals", "", "| claim | source | bound | interval |"]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| `{c['id']}` | {_cell(c['source'] or 'this project')} | {_cell(c['why'])} "
        f"| {_cell(c['method'] or 'none')}; {c['people'] or 'no'} people, "
        f"{_repeats(c)}: {c['seeds']} |"
        for c in run["claims"]
    ]
    return "\n".join(lines) + "\n"


def _row(claim: dict[str, Any]) -> str:
    than = f"{'over' if claim['comparison'] == 'more' else 'under'} {number(claim['bound'])}"
    part = f" [{claim['part']}]" if claim["part"] else ""
    reason = f" ({claim['reason']})" if claim["reason"] else ""
    paper = number(claim["published"]) if claim["published"] is not None else claim["quote"]
    cells = (
        f"{claim['text']} `{claim['id']}`", claim["verdict"] + reason, effect(claim) + part, than,
        paper or "\N{EN DASH}",
    )  # fmt: skip
    return f"| {' | '.join(map(_cell, cells))} |"


def _repeats(claim: dict[str, Any]) -> str:
    """Return what is counted as a claim's seeds."""
    return "replicates" if claim["method"].startswith("replicates") else "seeds"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def blocks(run: dict[str, Any]) -> dict[str, str]:
    """Return the parts of README.md that have numbers."""
    theirs = [c for c in run["claims"] if c["source"]]
    first = run["claims"][0]
    on_s = [c for c in theirs if c["section"] in ON_SHARED]

    def recalled(tuning: str, split: str = "qa_out") -> str:
        mean, deviation = run["recall"][f"{tuning}/{split}"]
        return f"{mean:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else "")

    rows = [("bio", "BIO-tuned"), ("stage", "Stage-tuned"), ("mix", "Mix-tuned")]
    table = ["| % right | BIO | QA in | QA out |", "|---|---|---|---|"]
    table += [
        f"| {name} | {' | '.join(recalled(t, split) for split in ('bio', 'qa_in', 'qa_out'))} |"
        for t, name in rows
    ]
    repeats = f"{first['seeds']} {_repeats(first)}"
    finding = (
        f"Mix-tuned models answer {recalled('mix')} % of the questions that were never trained "
        f"on, Stage-tuned models {recalled('stage')} %. The difference is {effect(first)} points "
        f"(95 % interval over {repeats}, {first['people']} people in all; the paper's "
        f"Llama-3.2-3B: {number(first['published'])}). Mix-tuned models are ahead in "
        f"{run['ahead']} of {repeats}; by the rule, for which less than 2 points do not matter, "
        f"that they recall more {SAID[first['verdict']]}. Of the paper's {len(theirs)} claims, "
        f"{tally(theirs)}; of the {len(on_s)} on shared parameters, {tally(on_s)}. "
        "[docs/claims.md](docs/claims.md) lists each."
    )
    where = (
        f"Laptop study, {run['date']}, {run['hardware']}; "
        f"mean ± standard deviation over {_repeats(first)}."
    )
    return {"finding": _wrapped(finding), "recall": "\n".join(table), "where": _wrapped(where)}


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def filled(page: str, parts: dict[str, str]) -> str:
    """Return a page with its marked parts replaced."""
    for name, text in parts.items():
        begin, end = f"<!-- run: {name} -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        page, found = pattern.subn(lambda _, t=f"{begin}\n{text}\n{end}": t, page)
        if found != 1:
            raise ValueError(f"README.md has {found} parts {begin!r}")
    return page


def pages(run: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield the pages of a stored run, each with its text."""
    readme = ROOT / "README.md"
    yield readme, filled(readme.read_text(encoding="utf-8"), blocks(run))
    yield ROOT / "docs" / "claims.md", claims_page(run)


def main(folders: list[str]) -> None:
    """Store the run of a folder, if one is given, and write the pages."""
    if folders:
        results = Path(folders[0])
        text = json.dumps(store(results), indent=1, ensure_ascii=False, allow_nan=False)
        STORED.write_text(text + "\n", encoding="utf-8")
        (picture,) = (results / "figures").glob(f"*/{PICTURE}")
        shutil.copyfile(picture, ROOT / "docs" / "images" / PICTURE)
    for path, text in pages(json.loads(STORED.read_text(encoding="utf-8"))):
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
