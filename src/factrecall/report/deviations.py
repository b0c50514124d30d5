"""Which of the known departures from the paper a study makes (``deviations.yaml``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from factrecall.vocabulary import COMPARED, TUNINGS

Study = Mapping[str, Any]

_PAPER_POOLS = {"cities": 200, "universities": 300, "jobs": 100, "companies": 263}
_PAPER_UPDATES = {(6820, 400, 10571), (13981, 800, 19437)}
_PAPER_STEPS = {
    "attention": {"forward": 1, "backward": 1},
    "column": {"forward": 8192, "backward": 64},
}
_PAPER_ALPHAS = {0.00055, 0.00095, 0.001, 0.00135, 0.0018, 0.003, 0.005, 0.007}


class Deviation(NamedTuple):
    """One departure: what differs, how the paper and this study do it, and why."""

    what: str
    paper: str
    here: str
    why: str


def _recipes(study: Study) -> Iterator[Mapping[str, Any]]:
    for model in study["models"].values():
        yield from model["training"].values()


def _updates(model: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(model["training"][tuning]["updates"] for tuning in TUNINGS)


CONDITIONS: dict[str, Callable[[Study], bool]] = {
    "always": lambda study: True,
    "scratch": lambda study: any(m["source"] == "scratch" for m in study["models"].values()),
    "gguf": lambda study: any(m["source"] == "gguf" for m in study["models"].values()),
    "fewer_people": lambda study: study["facts"]["people"] < 10_000,
    "smaller_pools": lambda study: any(
        study["facts"]["pools"][pool] < size for pool, size in _PAPER_POOLS.items()
    ),
    "one_question": lambda study: any(
        model["training"][tuning]["questions_per_example"] == "one"
        for model in study["models"].values()
        for tuning in COMPARED
    ),
    "learning_rate": lambda study: any(r["learning_rate"] > 1e-4 for r in _recipes(study)),
    "updates": lambda study: any(
        _updates(model) not in _PAPER_UPDATES for model in study["models"].values()
    ),
    "absolute": lambda study: study["shared"]["influence"] == "absolute",
    "mask_optimiser": lambda study: study["grafting"]["optimiser"]["method"] == "dual_averaging",
    "grafted_embeddings": lambda study: not study["grafting"]["exclude_embeddings"],
    # The paper's tables hold eight sizes; a grid that has all of them is as fine as its own.
    "mask_sizes": lambda study: not set(study["grafting"]["alphas"]) >= _PAPER_ALPHAS,
    "distilled": lambda study: "distilled" in study["grafting"]["objectives"],
    "fewer_grafted": lambda study: study["grafting"]["fit_individuals"] != 1_000,
    "fewer_in_circuits": lambda study: (
        study["circuits"]["individuals"] is not None
        and study["circuits"]["individuals"] < (study["grafting"]["fit_individuals"] or 1_000_000)
    ),
    "few_orders": lambda study: study["circuits"]["random_orders"] < 5,
    "node_steps": lambda study: any(
        study["circuits"][kind] not in (None, steps) for kind, steps in _PAPER_STEPS.items()
    ),
    "steps_left_out": lambda study: study["circuits"]["steps"] != {"method": "all", "stride": 1},
    "unit_nodes": lambda study: study["circuits"]["unit"] is not None,
    "fewer_probed": lambda study: study["representations"]["probes"]["individuals"] is not None,
    "layers_named": lambda study: study["representations"]["layers"] is not None,
    "head_chosen": lambda study: study["circuits"]["case"]["layer"] is None,
    "fact_chosen": lambda study: any(
        study["circuits"]["case"][part] is None for part in ("individual", "relation")
    ),
}


def deviations(study: Study) -> list[Deviation]:
    """Return the departures of a study.

    Parameters
    ----------
    study : mapping
        The resolved configuration.
    """
    import yaml

    text = Path(__file__).with_name("deviations.yaml").read_text(encoding="utf-8")
    return [
        Deviation(entry["what"], entry["paper"], entry["here"], entry["why"])
        for entry in yaml.safe_load(text)
        if CONDITIONS[entry["when"]](study)
    ]
