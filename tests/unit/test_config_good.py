"""Configurations that are right: presets, overrides, merging, round trips and what is generated."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factrecall.config.facts import Facts
from factrecall.config.reading import parse_study, read_study
from factrecall.config.schema import configuration_page, study_schema
from factrecall.config.section import ConfigSection
from factrecall.config.study import Study
from factrecall.data.people import draw_split
from factrecall.runtime.errors import FactRecallError

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "config.yaml", *sorted((ROOT / "workflow/presets").glob("*.yaml"))]
OVERLAYS = sorted((ROOT / "workflow/overlays").glob("*.yaml"))
SMALL = ROOT / "workflow/presets/ci.yaml"


@pytest.fixture(autouse=True)
def model_of_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a file where a preset expects a model that `make pretrained` fetches."""
    monkeypatch.chdir(tmp_path)
    model = load(ROOT / "workflow/presets/smollm2.yaml")["models"]["smollm2-135m"]["path"]
    (tmp_path / model).parent.mkdir(parents=True)
    (tmp_path / model).touch()


def load(path: Path) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return raw


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_study_is_read_and_round_trips(path: Path) -> None:
    study = read_study(path)
    assert parse_study(study.model_dump(mode="json"), "dump") == study
    assert Study.model_validate_json(study.model_dump_json()) == study


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_study_gives_every_key(path: Path) -> None:
    def missing(section: ConfigSection, raw: Any, where: str) -> list[str]:
        found = []
        for key in type(section).model_fields:
            value, place = getattr(section, key), f"{where}.{key}"
            if key not in raw:
                found.append(place)
            elif isinstance(value, ConfigSection) and place.split(".")[-1] != "training":
                found += missing(value, raw[key], place)
        return found

    study, raw = read_study(path), load(path)
    assert missing(study, raw, "") == []
    assert missing(study.training, raw["training"], "training") == []
    for name, model in study.models.items():
        assert missing(model, raw["models"][name], name) == []


def test_studies_have_names_of_their_own() -> None:
    assert len({read_study(path).name for path in FILES}) == len(FILES)


def test_the_paper_preset_has_the_numbers_of_the_paper() -> None:
    study = read_study(ROOT / "workflow/presets/paper.yaml")
    updates = {
        name: (m.training.bio.updates, m.training.stage.updates, m.training.mix.updates)
        for name, m in study.models.items()
    }
    assert updates == {"llama-3.2-3b": (6820, 400, 10571), "pythia-2.8b": (13981, 800, 19437)}
    assert study.training.bio.batch_size == study.training.mix.batch_size == 32
    assert study.training.stage.batch_size == 256
    assert study.facts.sides == (5000, 5000)
    assert study.shared.k == 10**8


def test_a_model_overrides_single_keys_of_a_recipe() -> None:
    raw = load(SMALL)
    raw["models"]["llama-tiny"]["training"] = {"bio": {"updates": 7}}
    study = parse_study(raw, "raw")
    shared, own = study.training, study.models["llama-tiny"].training
    assert own.bio == shared.bio.model_copy(update={"updates": 7})
    assert (own.stage, own.mix) == (shared.stage, shared.mix)
    assert study.models["gpt-neox-tiny"].training.bio == shared.bio
    assert raw["models"]["llama-tiny"]["training"] == {"bio": {"updates": 7}}


def test_a_model_may_leave_training_out() -> None:
    raw = load(SMALL)
    del raw["models"]["llama-tiny"]["training"]
    assert parse_study(raw, "raw") == read_study(SMALL)


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\ntraining: {seeds: [7], bio: {updates: 99}}\n", encoding="utf-8")
    study, base = read_study(SMALL, mine), read_study(SMALL)
    assert (study.name, study.training.seeds) == ("mine", [7])
    assert study.training.bio == base.training.bio.model_copy(update={"updates": 99})
    assert study.facts == base.facts


def test_overlays_make_other_studies_of_the_laptop_study() -> None:
    base = read_study(FILES[0])
    names = {read_study(FILES[0], path).name for path in OVERLAYS}
    assert names and base.name not in names and len(names) == len(OVERLAYS)
    other = read_study(FILES[0], ROOT / "workflow/overlays/gpt-neox.yaml")
    assert [m.architecture for m in other.models.values()] == ["gpt_neox"]  # type: ignore[union-attr]
    assert other.training == base.training


def test_anchors_and_merge_keys_are_read(tmp_path: Path) -> None:
    text = SMALL.read_text(encoding="utf-8").replace("  bio:", "  bio: &bio", 1)
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        text.replace("    training: {}", "    training: {mix: {<<: *bio, updates: 61}}", 1),
        encoding="utf-8",
    )
    study = read_study(mine)
    bio = study.training.bio
    assert study.models["llama-tiny"].training.mix == bio.model_copy(update={"updates": 61})


def test_a_resolved_study_is_read_back_from_json(tmp_path: Path) -> None:
    raw = load(SMALL)
    raw["training"]["bio"]["learning_rate"] = 0.00001
    study = parse_study(raw, "raw")
    path = tmp_path / "study.json"
    path.write_text(json.dumps(study.model_dump(mode="json")), encoding="utf-8")
    assert "1e-05" in path.read_text(encoding="utf-8")
    assert read_study(path) == study


def test_a_model_folder_and_own_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    own = tmp_path / "people.csv"
    own.write_text("", encoding="utf-8")
    raw = load(SMALL)
    raw["models"]["mine"] = {"source": "folder", "path": str(tmp_path)}
    raw["facts"] |= {"individuals": str(own), "people": 2}
    assert parse_study(raw, "raw").facts.individuals == own


@pytest.mark.parametrize(("k", "keep"), [(1, 1), (1.0, 1.0), (0.1, 0.1), (10**8, 10**9)])
def test_counts_and_fractions_keep_their_unit(k: float, keep: float) -> None:
    raw = load(SMALL) | {
        "trace": {"in_distribution": 1, "out_of_distribution": 1, "top_fraction": keep}
    }
    study = parse_study(raw | {"shared": {"k": k}}, "raw")
    assert (type(study.shared.k), type(study.trace.top_fraction)) == (type(k), type(keep))


def test_bounds_between_values_may_be_reached() -> None:
    raw = load(SMALL)
    raw["trace"] |= {"in_distribution": 20, "out_of_distribution": 20}
    raw["facts"]["pools"] |= {"first_names": 8, "last_names": 10, "last_year": 1900}
    raw["training"]["bio"]["warmup"] = raw["training"]["bio"]["updates"] - 1
    assert parse_study(raw, "raw").facts.sides == (20, 20)


@given(people=st.integers(2, 300), share=st.floats(0.001, 0.999))
def test_sides_are_those_of_the_split(people: int, share: float) -> None:
    split = draw_split(people, share, seed=0).tolist()
    sides = Facts(people=people, in_distribution=share).sides
    assert sides == (split.count("in"), split.count("out"))


RECIPE = st.fixed_dictionaries(
    {
        "updates": st.integers(10, 10**6),
        "batch_size": st.integers(1, 512),
        "learning_rate": st.floats(1e-8, 0.9),
    },
    optional={
        "warmup": st.integers(0, 9),
        "weight_decay": st.floats(0, 1),
        "betas": st.tuples(st.floats(0, 0.9), st.floats(0, 0.999)).map(list),
        "clip": st.none() | st.floats(0.1, 10),
        "loss": st.sampled_from(["all", "answer"]),
        "questions_per_example": st.sampled_from(["one", "all"]),
    },
)
SWITCH = st.sampled_from(["auto", "always", "never"])
MODE = st.fixed_dictionaries(
    {},
    optional={
        "optimiser": st.sampled_from(["auto", "adamw", "cpu_offload"]),
        "checkpointing": SWITCH,
        "trace": st.sampled_from(["auto", "device", "host"]),
        "gpus": st.integers(1, 8),
        "packing": SWITCH,
        "compile": st.sampled_from(["auto", "never"]),  # "always" goes with one GPU only
    },
)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,9}", fullmatch=True)
HUB = st.fixed_dictionaries(
    {"source": st.just("hub"), "repository": st.just("a/b")},
    optional={
        "revision": st.none() | st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
        "training": st.fixed_dictionaries({}, optional={"bio": RECIPE, "mix": RECIPE}),
    },
)
# All of one replicate.
SEEDS = st.integers(0, 10**5).flatmap(
    lambda thousand: st.lists(
        st.integers(1000 * thousand, 1000 * thousand + 999), min_size=1, max_size=4, unique=True
    )
)
STUDIES = st.fixed_dictionaries(
    {
        "name": NAMES,
        "facts": st.fixed_dictionaries(
            {"people": st.integers(40, 1000)}, optional={"in_distribution": st.floats(0.3, 0.7)}
        ),
        "training": st.fixed_dictionaries(
            {
                "bio": RECIPE,
                "stage": RECIPE,
                "mix": RECIPE,
                "seeds": SEEDS,
            },
            optional={"mode": MODE},
        ),
        "models": st.dictionaries(NAMES, HUB, min_size=1, max_size=2),
    },
    optional={"seed": st.integers(0, 10**9), "compute": st.just({"threads": 2})},
)


@given(raw=STUDIES)
def test_any_study_round_trips(raw: dict[str, Any]) -> None:
    study = parse_study(raw, "raw")
    assert parse_study(yaml.safe_load(yaml.safe_dump(study.model_dump(mode="json"))), "") == study


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.sampled_from(["1e-4", "scratch", "hub", "yes", "0.5", ".inf", "10_0", "1e999"])
)
KEYS = st.sampled_from(
    ["bio", "training", "source", "count", "hub", "updates", "facts", "keep", "k", "seeds", "m"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | st.text(max_size=4) | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=12,
)


def places(raw: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(raw, dict):
        return [above]
    return [above, *(p for key, value in raw.items() for p in places(value, (*above, key)))]


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_nothing_but_the_error_of_users_is_raised(data: st.DataObject) -> None:
    raw = load(SMALL)
    *above, key = data.draw(st.sampled_from(places(raw)[1:]))
    section = raw
    for part in above:
        section = section[part]
    section[key] = data.draw(VALUES)
    with suppress(FactRecallError):
        parse_study(raw, "raw")


@given(raw=st.dictionaries(KEYS | st.integers(), VALUES, max_size=5))
def test_no_garbage_is_a_study(raw: dict[Any, Any]) -> None:
    with pytest.raises(FactRecallError):
        parse_study(raw, "raw")


WORDS = "name : - [ ] { } &a *a << !!int !!timestamp !!bool ' # | > ? --- % 1e5 0x ~ 2024-02-30 é ,"
TOKENS = st.sampled_from([*WORDS.split(), '"', " ", "\n", "\t"])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(TOKENS, max_size=20).map("".join).map(str.encode) | st.binary(max_size=40))
def test_no_bytes_are_a_study(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(data)
    with pytest.raises(FactRecallError):
        read_study(path)


REMAKE = "run `python -m factrecall.config.schema` at the root of the repository"


def test_the_schema_is_current() -> None:
    path = ROOT / "workflow/schema/study.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == study_schema(), REMAKE


def test_the_page_is_current() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert page == configuration_page(), REMAKE


def test_the_page_has_every_key_with_its_meaning() -> None:
    page = configuration_page()
    for name, node in study_schema()["$defs"].items():
        for key, child in node["properties"].items():
            assert f"| `{key}` |" in page, name
            assert child.get("description") or "$ref" in child, f"{name}.{key} has no description"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_schema_accepts_what_is_shipped(path: Path) -> None:
    schema = study_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(load(path), schema)


@pytest.mark.parametrize(
    "place", ["", "training", "models/llama-tiny", "models/llama-tiny/pretrain"]
)
def test_the_schema_refuses_an_unknown_key(place: str) -> None:
    raw = load(SMALL)
    section = raw
    for part in filter(None, place.split("/")):
        section = section[part]
    section["unknown"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw, study_schema())
