"""What many tests need: tiny models of both architectures, a few people, a recipe."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from hypothesis import settings

from factrecall.cli import main
from factrecall.config.facts import Facts, PoolSizes
from factrecall.config.model import Scratch
from factrecall.config.training import Recipe
from factrecall.data.tables import FactTables, make_facts
from factrecall.models.scratch import build_model
from factrecall.models.tokenizers import train_tokenizer
from factrecall.report import style
from factrecall.runtime.storage import read_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from factrecall.report.section import Section

# No test is timed: machines are shared.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ARCHITECTURES = ("llama", "gpt_neox")
SMALL_POOLS = PoolSizes(first_names=8, last_names=12, cities=5, universities=5, jobs=5, companies=5)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums split over threads differ in their last bits; two cores are shared anyway."""
    torch.set_num_threads(1)


def recipe(**changes: Any) -> Recipe:
    """Return a short recipe with some keys changed."""
    usual = {"updates": 6, "batch_size": 8, "learning_rate": 3e-3, "warmup": 2}
    return Recipe.model_validate(usual | changes)


def scratch(architecture: str, **changes: Any) -> Scratch:
    """Return the settings of a tiny model; llama has grouped-query attention."""
    short = recipe().model_dump()
    usual = {
        "source": "scratch",
        "architecture": architecture,
        "layers": 2,
        "hidden_size": 32,
        "heads": 4,
        "key_value_heads": 2 if architecture == "llama" else None,
        "mlp_size": 48,
        "pretrain": short,
        "training": {"bio": short, "stage": short, "mix": short},
    }
    return Scratch.model_validate(usual | changes)


@dataclass(frozen=True)
class Tiny:
    """A tiny model that knows nothing yet, its tokenizer, and facts to teach it."""

    architecture: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    facts: FactTables


@pytest.fixture(scope="session")
def facts() -> FactTables:
    return make_facts(Facts(people=16, pretrain_people=4, pools=SMALL_POOLS), seed=3)


def tokenizer_for(facts: FactTables, kind: str = "words") -> PreTrainedTokenizerFast:
    """Train a tokenizer on all text of some facts."""
    texts = [*facts.bio["text"], *facts.bio["short"], *facts.qa["text"]]
    return train_tokenizer(texts, kind, 400, context=256)  # type: ignore[arg-type]


def tiny_of(architecture: str, facts: FactTables) -> Tiny:
    """Build the tiny model of an architecture."""
    tokenizer = tokenizer_for(facts)
    model = build_model(scratch(architecture), tokenizer, seed=1)
    return Tiny(architecture, model, tokenizer, facts)


@pytest.fixture(params=ARCHITECTURES)
def tiny(request: pytest.FixtureRequest, facts: FactTables) -> Tiny:
    return tiny_of(request.param, facts)


@pytest.fixture
def llama(facts: FactTables) -> Tiny:
    """One architecture, for what does not depend on it."""
    return tiny_of("llama", facts)


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are small and in one format; `tests/workflow` draws all of them as they are."""
    monkeypatch.setattr(style, "IMAGE_SUFFIXES", (".png",))
    monkeypatch.setattr(style, "DOTS_PER_INCH", 50)


def draw_readable(
    section: Section, measures: Any, folder: Path, *, tallest: float = 1.65, empty: bool = False
) -> None:
    """Draw a section's figures and check them: no warning, their data, a size to be read at."""
    import matplotlib.image

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # missing glyphs, layouts that collapse
        section.draw(measures, folder)
    for figure in section.figures:
        stem = folder / figure.name
        assert empty or len(read_table(stem.with_suffix(".parquet"), dict(figure.schema)))
        height, width, _ = matplotlib.image.imread(stem.with_suffix(".png")).shape
        assert width == round(style.WIDTH * style.DOTS_PER_INCH)
        assert 0.2 < height / width < tallest


@dataclass(frozen=True)
class Workspace:
    """A folder with a tiny study, its facts and base model.

    Of the study's models, `m` is built from scratch and `own` is in a folder.
    """

    folder: Path

    @property
    def study(self) -> Path:
        return self.folder / "study.yaml"

    @property
    def facts(self) -> list[Path]:
        return [self.folder / f"{name}.parquet" for name in ("individuals", "bio", "qa")]

    def command(self, name: str, **changes: str | Path | None) -> list[str]:
        """Return a command line; changed options are space-separated, None leaves one out."""
        facts = "individuals.parquet bio.parquet qa.parquet"
        usual: dict[str, dict[str, str]] = {
            "make-facts": {
                "seed": "0",
                **{t: f"out/{t}.parquet" for t in ("individuals", "bio", "qa")},
            },
            "pretrain": {
                "model": "m",
                "seed": "0",
                "facts": facts,
                "out": "base",
                "history": "base.history.parquet",
                "state": "state",
            },
            "fetch-model": {"model": "own", "locks": "locks", "out": "out/fetched"},
            "fine-tune": {
                "model": "m",
                "tuning": "mix",
                "seed": "1",
                "facts": facts,
                "start": "base",
                "out": "out/model",
                "history": "out/history.parquet",
                "trace": "out/trace.safetensors",
                "snapshots": "out/1of2.safetensors out/2of2.safetensors",
                "state": "state",
            },
            "recall": {
                "tuned": "base",
                "bio": "bio.parquet",
                "qa": "qa.parquet",
                "out": "out/recall.parquet",
            },
            "summarise-recall": {
                "questions": "0 qa.parquet",
                "evaluations": "m base 0 examples.parquet",
                "out": "out/summary.parquet",
            },
        }
        words, records = {"model", "tuning", "seed"}, {"evaluations", "questions"}
        line = [name, "--study", str(self.study)]
        for option, value in (usual[name] | changes).items():
            if value is None:
                continue
            line.append(f"--{option}")
            for part in str(value).split():
                there = part if option in words else str(self.folder / part)
                is_path = option not in records or part.endswith(".parquet")
                line.append(there if is_path else part)
        return line


@pytest.fixture(scope="session")
def finished_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which all has been run that comes before fine-tuning."""
    space = begin_workspace(tmp_path_factory.mktemp("workspace"))
    assert main(space.command("recall", out="examples.parquet")) == 0
    return space.folder


def begin_workspace(folder: Path) -> Workspace:
    """Write a tiny study into a folder, make its facts and pre-train its model."""
    short = recipe(updates=4, warmup=1).model_dump(mode="json")
    model = scratch("llama", context=128).model_dump(mode="json")
    model["pretrain"] = recipe(updates=3, warmup=1).model_dump(mode="json")
    study = {
        "name": "tiny",
        "facts": {"people": 8, "pretrain_people": 4, "pools": SMALL_POOLS.model_dump()},
        "training": {"seeds": [1], **dict.fromkeys(("bio", "stage", "mix"), short)},
        "models": {"m": model | {"training": {}}},
        "trace": {"in_distribution": 1, "out_of_distribution": 1, "top_fraction": 0.2},
        "compute": {"device": "cpu", "checkpoint_interval_s": 60.0},
    }
    space = Workspace(folder)
    space.study.write_text(yaml.safe_dump(study), encoding="utf-8")
    tables = {t: f"{t}.parquet" for t in ("individuals", "bio", "qa")}
    assert main(space.command("make-facts", **tables)) == 0
    assert main(space.command("pretrain")) == 0
    return space


@pytest.fixture
def workspace(finished_workspace: Path, tmp_path: Path) -> Workspace:
    """A copy of the finished workspace, to spoil."""
    folder = tmp_path / "workspace"
    shutil.copytree(finished_workspace, folder)
    space = Workspace(folder)
    study = yaml.safe_load(space.study.read_text(encoding="utf-8"))
    shutil.copytree(folder / "base", folder / "own")
    study["models"]["own"] = {"source": "folder", "path": str(folder / "own"), "training": {}}
    space.study.write_text(yaml.safe_dump(study), encoding="utf-8")
    return space
