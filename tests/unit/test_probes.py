"""Probes find what is planted and nothing else, and their tables count right."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from factrecall.experiments.representations import probes as module
from factrecall.experiments.representations.probe_summary import (
    Probed,
    summarise_probes,
)
from factrecall.experiments.representations.probes import Roles
from factrecall.experiments.representations.settings import ProbeSettings
from factrecall.experiments.representations.stages import probe
from factrecall.experiments.representations.tables import (
    ALL,
    BIO_FORMATS,
    CONSISTENCY,
    FITS,
    MEASURES,
    PROBE_EXAMPLES,
    PROBES,
)
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.job import Job
from factrecall.runtime.safetensors_writer import write_tensors
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import RELATIONS, STATE_FORMATS

CPU = torch.device("cpu")
SIX = len(RELATIONS)
CLASSES = (12, 5, 7, 3, 6, 4)
IN, OUT, WIDTH = 120, 60, 24


def planted(seed: int = 0, noise: float = 0.05) -> dict[str, torch.Tensor]:
    """Return states of two layers; the second holds a code of the class, the first noise.

    In long statements the code stands elsewhere than in questions; in short ones it is the same.
    """
    rng = generator(seed, "planted")
    people = IN + OUT
    first = np.stack([rng.integers(c, size=people) for c in CLASSES], 1)
    code = {name: rng.normal(size=(SIX, max(CLASSES), WIDTH)) for name in STATE_FORMATS}
    code["bio_short"] = code["qa"]
    tensors = {
        "individual": torch.arange(people, dtype=torch.int32).repeat_interleave(SIX) + 7,
        "relation": torch.arange(SIX).repeat(people),
        "in": torch.arange(people).repeat_interleave(SIX) < IN,
        "first": torch.from_numpy(first.ravel() * 10),
        "layers": torch.tensor([3, 5], dtype=torch.int32),
    }
    for name in STATE_FORMATS:
        states = rng.normal(size=(2, people, SIX, WIDTH))
        states[1] = noise * states[1] + 2 + code[name][np.arange(SIX), first]
        tensors[name] = torch.from_numpy(states.reshape(2, -1, WIDTH)).float()
    return tensors


def run(folder: Path, tensors: dict[str, torch.Tensor]) -> tuple[pd.DataFrame, pd.DataFrame]:
    write_tensors(folder / "s", tensors, {})
    files = {name: folder / name for name in ("out", "fits")}
    probe(
        Job(CPU),
        probes=ProbeSettings(penalties=[1e-3, 1e-1]),
        study_seed=1,
        states=folder / "s",
        **files,
    )
    return read_table(files["out"], PROBE_EXAMPLES), read_table(files["fits"], FITS)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    return run(tmp_path_factory.mktemp("probes"), planted())


def test_a_planted_code_is_read_exactly(found: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    examples, _ = found
    true = examples[(examples["layer"] == 5) & (examples["labels"] == "true")]
    right = true.groupby(["trained", "tested"])["right"].mean()
    for trained, tested in itertools.product(STATE_FORMATS, STATE_FORMATS):
        same = "bio_long" not in (trained, tested) or trained == tested
        if same:
            assert right[trained, tested] == 1
        else:
            assert right[trained, tested] < 0.5


def test_noise_and_shuffled_labels_are_read_at_chance(
    found: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    examples, _ = found
    for layer, labels in ((3, "true"), (3, "shuffled"), (5, "shuffled")):
        rows = examples[(examples["layer"] == layer) & (examples["labels"] == labels)]
        rows = rows[rows["trained"] == rows["tested"]]
        for number, relation in enumerate(RELATIONS):
            part = rows[rows["relation"] == relation]["right"].to_numpy().reshape(3, -1)
            rate = 1 / CLASSES[number]
            # The guess of each format alone: people are independent, formats may not be. What is
            # said may favour classes; of uniform ones it is right at the same rate all the same.
            bound = 4.5 * math.sqrt(rate * (1 - rate) / part.shape[1])
            if labels == "true":
                assert (abs(part.mean(1) - rate) < bound).all()
            else:
                # In the second layer people of a class all have the same prediction: fewer guesses.
                assert part.mean() < rate + bound * (3 if layer == 5 else 1)


def test_tables_are_complete(found: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    examples, fits = found
    test_people = 24 + OUT
    assert len(examples) == 2 * SIX * (9 + 3) * test_people
    assert not examples.duplicated([c for c in PROBE_EXAMPLES if c != "right"]).any()
    shuffled = examples[examples["labels"] == "shuffled"]
    assert (shuffled["trained"] == shuffled["tested"]).all()
    people = examples.groupby("split")["individual"].unique()
    assert set(people["out"]) == set(range(IN + 7, IN + OUT + 7))
    assert len(people["held"]) == 24 and max(people["held"]) < IN + 7
    assert len(fits) == 2 * SIX * 3 * 2 and (fits["rows"] == 96).all()
    assert fits.groupby("relation")["classes"].unique().map(tuple).to_dict() == {
        name: (count,) for name, count in zip(RELATIONS, CLASSES, strict=True)
    }
    # Chance by hand.
    tensors = planted()
    for number, relation in enumerate(RELATIONS):
        first = pd.Series(tensors["first"].reshape(-1, SIX)[:, number], index=range(7, 187))
        trained = first.drop([*people["held"], *people["out"]])
        usual = trained.value_counts().sort_index(ascending=True).idxmax()
        row = fits[fits["relation"] == relation].iloc[0]
        assert row["chance_held"] == (first[people["held"]] == usual).mean()
        assert row["chance_out"] == (first[people["out"]] == usual).mean()


def test_test_rows_change_nothing_in_the_fits(
    found: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    examples, fits = found
    tensors = planted()
    test = torch.from_numpy(np.isin(tensors["individual"], examples["individual"].unique()))
    tensors["first"][test] = 10 * torch.randint(3, tensors["first"][test].shape)
    for name in STATE_FORMATS:
        tensors[name][:, test] = 5 * torch.randn_like(tensors[name][:, test])
    other, again = run(tmp_path, tensors)
    same = ["layer", "relation", "trained", "labels", "penalty", "rows", "classes"]
    pd.testing.assert_frame_equal(fits[same], again[same])
    assert other["right"].mean() < examples["right"].mean()


def test_a_test_row_is_judged_by_itself(
    found: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    examples, _ = found
    tensors = planted()
    person = examples["individual"].max()
    row = tensors["individual"] == person
    for name in STATE_FORMATS:
        tensors[name][:, row] = 0
    other, _ = run(tmp_path, tensors)
    rest = examples["individual"] != person
    pd.testing.assert_frame_equal(examples[rest], other[rest])
    assert not examples[~rest].equals(other[~rest])


def test_rows_may_come_in_any_order_and_in_parts(
    found: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, fits = found
    tensors = planted()
    order = torch.from_numpy(generator(0).permutation((IN + OUT) * SIX))
    for name in ("individual", "relation", "in", "first"):
        tensors[name] = tensors[name][order]
    for name in STATE_FORMATS:
        tensors[name] = tensors[name][:, order]
    monkeypatch.setitem(module.NUMBERS, "cpu", 1)
    other, again = run(tmp_path, tensors)
    keys = [c for c in PROBE_EXAMPLES if c != "right"]
    both = [t.sort_values(keys, ignore_index=True) for t in (examples, other)]
    assert (both[0]["right"] == both[1]["right"]).mean() > 0.999
    keys = ["layer", "relation", "trained", "labels"]
    both = [t.sort_values(keys, ignore_index=True) for t in (fits, again)]
    pd.testing.assert_frame_equal(*both)


def test_half_precision_and_few_people(tmp_path: Path) -> None:
    tensors = planted()
    few = torch.arange((IN + OUT) * SIX) // SIX
    keep = (few < 2) | (few == IN)
    for name in ("individual", "relation", "in", "first"):
        tensors[name] = tensors[name][keep]
    for name in STATE_FORMATS:
        tensors[name] = tensors[name][:, keep].bfloat16()
    examples, fits = run(tmp_path, tensors)
    assert (fits["rows"] == 1).all() and (fits["classes"] == 1).all()
    assert (fits["penalty"] == 0.1).all()
    assert examples.groupby("split")["individual"].nunique().to_dict() == {"held": 1, "out": 1}
    tensors["in"][:] = False
    with pytest.raises(FactRecallError, match="fewer than two people"):
        run(tmp_path, tensors)


def test_roles_are_apart_and_the_same_for_all_models() -> None:
    inside = np.arange(100) < 60
    roles = Roles.draw(inside, 0.25, 3)
    assert (roles.train.sum(), roles.held.sum(), roles.out.sum()) == (45, 15, 40)
    assert roles.validation.sum() == 11 and not (roles.validation & ~roles.train).any()
    assert (roles.train.astype(int) + roles.held + roles.out == 1).all()
    again = Roles.draw(inside, 0.25, 3)
    assert np.array_equal(again.held, roles.held)
    assert not np.array_equal(Roles.draw(inside, 0.25, 4).held, roles.held)
    tiny = Roles.draw(np.array([True, True]), 0.9, 0)
    assert tiny.train.sum() == tiny.held.sum() == 1 and not tiny.validation.any()


def test_probing_loads_no_transformers() -> None:
    code = (
        "import factrecall.experiments.representations.probes, sys;"
        "print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def written(folder: Path, right: np.ndarray, tuning: str, seed: int) -> Probed:
    """Write verdicts [person, layer, relation, trained, tested], the first person held out."""
    axes = [range(len(right)), [0, 4], RELATIONS, STATE_FORMATS, STATE_FORMATS]
    keys = ["individual", "layer", "relation", "trained", "tested"]
    table = pd.DataFrame(itertools.product(*axes), columns=keys).assign(right=right.ravel() > 0)
    table["split"] = np.where(table["individual"] == 0, "held", "out")
    control = table[table["trained"] == table["tested"]].assign(right=False, labels="shuffled")
    table = pd.concat([table.assign(labels="true"), control])
    fits = table[["layer", "relation", "trained", "labels"]].drop_duplicates()
    fits = fits.assign(penalty=0.01, rows=8, classes=3, chance_held=0.25, chance_out=0.5)
    run = Probed("m", tuning, seed, folder / f"{tuning}{seed}.e", folder / f"{tuning}{seed}.f")
    write_table(run.examples, table.sample(frac=1, random_state=seed), PROBE_EXAMPLES)
    write_table(run.fits, fits, FITS)
    return run


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, int], np.ndarray]:
    rng = generator(0, "verdicts")
    shape = (9, 2, SIX, 3, 3)
    return {
        (t, s): (rng.random(shape) < (0.4 if t == "stage" else 0.7)).astype(int)
        for t, s in itertools.product(("stage", "mix"), (0, 1))
    }


@pytest.fixture(scope="module")
def tables(
    verdicts: dict[tuple[str, int], np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("tables")
    runs = [written(folder, right, *key) for key, right in verdicts.items()]
    out, consistency = folder / "p.parquet", folder / "c.parquet"
    accuracies, differences = summarise_probes(runs)
    write_table(out, accuracies, PROBES)
    write_table(consistency, differences, CONSISTENCY)
    return read_table(out, PROBES), read_table(consistency, CONSISTENCY)


def test_accuracies_by_hand(
    tables: tuple[pd.DataFrame, pd.DataFrame], verdicts: dict[tuple[str, int], np.ndarray]
) -> None:
    table, _ = tables
    keys = ["model", "tuning", "seed", "layer", "relation", "trained", "tested", "split"]
    assert len(table) == 4 * 2 * 7 * 9 * 2 and not table.duplicated(keys).any()
    for row in table.itertuples():
        right = verdicts[row.tuning, row.seed][:, [0, 4].index(row.layer)]
        right = right[:, :, STATE_FORMATS.index(row.trained), STATE_FORMATS.index(row.tested)]
        right = right[:1] if row.split == "held" else right[1:]
        one = slice(None) if row.relation == ALL else RELATIONS.index(row.relation)
        assert row.accuracy == pytest.approx(right[:, one].mean())
        assert row.chance == (0.25 if row.split == "held" else 0.5)
        assert row.shuffled == 0 if row.trained == row.tested else np.isnan(row.shuffled)
        many = SIX if row.relation == ALL else 1
        assert (row.rows, row.classes) == (8 * many, 3 * many)
        assert np.isnan(row.penalty) if row.relation == ALL else row.penalty == 0.01


def test_differences_by_hand(
    tables: tuple[pd.DataFrame, pd.DataFrame], verdicts: dict[tuple[str, int], np.ndarray]
) -> None:
    _, table = tables
    keys = [name for name in CONSISTENCY if name != "signed"]
    assert len(table) == 4 * 9 * 2 * 2 * 3 and not table.duplicated(keys).any()
    assert set(table["bio"]) == set(BIO_FORMATS) and set(table["measure"]) == set(MEASURES)
    qa = STATE_FORMATS.index("qa")
    for row in table.itertuples():
        right = verdicts[row.tuning, row.seed][row.individual, [0, 4].index(row.layer)]
        bio = STATE_FORMATS.index(row.bio)
        ours, theirs = {  # trained, tested
            "rep": ((qa, qa), (qa, bio)),
            "mech": ((qa, qa), (bio, qa)),
            "mech_bio": ((bio, bio), (qa, bio)),
        }[row.measure]
        means = right.mean(0)
        assert row.signed == pytest.approx(means[ours] - means[theirs])
        assert row.split == ("held" if row.individual == 0 else "out")


def test_people_who_miss_a_probe_are_refused(
    verdicts: dict[tuple[str, int], np.ndarray], tmp_path: Path
) -> None:
    run = written(tmp_path, verdicts["stage", 0], "stage", 0)
    rows = read_table(run.examples, PROBE_EXAMPLES)
    own = rows.index[(rows["labels"] == "true") & (rows["individual"] == 3)]
    write_table(run.examples, rows.drop(own[:1]), PROBE_EXAMPLES)
    with pytest.raises(ValueError, match=r"stage0\.e: it does not test every probe"):
        summarise_probes([run])
