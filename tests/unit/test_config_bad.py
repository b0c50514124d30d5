"""Every mistake in a configuration is one error with the key, the reason and the remedy."""

# One mistake a line reads best, however long the line.
# ruff: noqa: E501

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from factrecall.config.reading import StudyError, parse_study, read_study
from factrecall.runtime.errors import FactRecallError

ROOT = Path(__file__).parents[2]
CI = (ROOT / "workflow/presets/ci.yaml").read_text(encoding="utf-8")
ABSENT = object()
M = "models/llama-tiny"


def ci(*changes: tuple[str, Any]) -> dict[str, Any]:
    """Return the ci study with values changed; paths are separated by slashes."""
    raw: dict[str, Any] = yaml.safe_load(CI)
    for path, value in changes:
        *above, key = path.split("/")
        section = raw
        for part in above:
            section = section.setdefault(part, {})
        if value is ABSENT:
            del section[key]
        else:
            section[key] = value
    return raw


# Changes, then fragments of where, why and remedy.
Case = tuple[list[tuple[str, Any]], str, str, str]
CASES: dict[str, Case] = {
    # Keys.
    "unknown": ([("training/bio/batchsize", 4)], "training.bio.batchsize = 4", "no such key", "did you mean batch_size?"),
    "unknown in model": ([(f"{M}/hiden_size", 4)], "models.llama-tiny.hiden_size", "no such key", "hidden_size"),
    "unknown in override": ([(f"{M}/training", {"boi": {}})], "models.llama-tiny.training.boi", "no such key", "did you mean bio"),
    "unknown section": ([("tracing", {})], "tracing = {}", "no such key", "did you mean"),
    "key of elsewhere": ([("training/checkpoint_interval_s", 9.0)], "training.checkpoint_interval_s", "no such key", "compute.checkpoint_interval_s"),
    "nothing near": ([("zzz", 1)], "zzz = 1", "no such key", "the keys here are name, seed"),
    "named as a kind": ([("trace/count", 1)], "trace.count", "no such key", "keys here are"),
    "named as its source": ([("models/hub", {"source": "hub", "repository": "a/b", "hub": 1})], "models.hub.hub = 1", "no such key", "repository"),
    "number as key": ([("trace", {1: 2})], "trace[1] = 2", "no such key", "in_distribution"),
    "missing": ([("training/bio/updates", ABSENT)], "training.bio.updates", "missing (Optimiser steps)", "whole number at least 1"),
    "missing section": ([("facts", ABSENT)], "facts", "missing", "at least the keys people"),
    "missing in model": ([(f"{M}/layers", ABSENT)], "models.llama-tiny.layers", "missing", "whole number"),
    "missing source": ([(f"{M}/source", ABSENT)], "models.llama-tiny.source", "missing", "folder, gguf, hub, scratch"),
    "missing repository": ([("models", {"hub": {"source": "hub"}})], "models.hub.repository", "missing", "pythia-2.8b"),
    # Numbers.
    "zero batch": ([("training/bio/batch_size", 0)], "training.bio.batch_size = 0", "at least 1", "whole number"),
    "negative seed": ([("seed", -1)], "seed = -1", "at least 0", "default: 0"),
    "rate of 1": ([("training/mix/learning_rate", 1.0)], "training.mix.learning_rate = 1.0", "below 1", "above 0 and below 1"),
    "share of 0": ([("facts/in_distribution", 0.0)], "facts.in_distribution", "above 0", "default: 0.5"),
    "pool too large": ([("facts/pools/universities", 301)], "facts.pools.universities = 301", "at most 300", "from 2 to 300"),
    "exponent": ([("training/stage/learning_rate", "1e-4")], "training.stage.learning_rate = '1e-4'", "YAML reads 1e-4 as text", "write 1.0e-4"),
    "exponent without sign": ([("training/stage/learning_rate", "1.5e4")], "learning_rate", "with a sign", "write 1.5e+4"),
    "count with exponent": ([("shared/k", "1e8")], "shared.k = '1e8'", "as text", "write 100000000"),
    "number in quotes": ([("facts/people", "40")], "facts.people = '40'", "in quotes", "remove the quotes: 40"),
    "thousands": ([("facts/people", "1,000")], "facts.people", "as text", "write 1000"),
    "word for number": ([("training/bio/clip", "none")], "training.bio.clip", "text", "or null"),
    "whole with a point": ([("training/bio/updates", 60.0)], "updates = 60.0", "decimal point", "write 60"),
    "no whole": ([("training/bio/updates", 2.5)], "updates = 2.5", "decimal point", "write 2 or 3"),
    "not a number": ([("training/bio/learning_rate", float("nan"))], "learning_rate = .nan", "not finite", "give a number"),
    "infinite": ([("compute/checkpoint_interval_s", float("inf"))], "checkpoint_interval_s = .inf", "not finite", "above 0"),
    "endless digits": ([("seed", -(16**5000))], "thousands of digits", "at least 0", "whole number"),
    "true for number": ([("seed", True)], "seed = true", "it is true", "yes, no, on and off"),
    "list for number": ([("training/bio/updates", [60])], "updates = [60]", "it is a list", "single value"),
    "section for number": ([("training/bio/updates", {"a": 1})], "updates = {...}", "it is a section", "in place of a section"),
    "too much kept": ([("trace/top_fraction", 1.0e8)], "trace.top_fraction", "with a decimal point it is a fraction", "100000000"),
    "nothing kept": ([("trace/top_fraction", 0)], "trace.top_fraction = 0", "at least 1", "number above 0"),
    # Other kinds.
    "yes in quotes": ([("grafting/exclude_embeddings", "yes")], "exclude_embeddings = 'yes'", "text", "write true"),
    "unclear boolean": ([("grafting/exclude_embeddings", 1)], "exclude_embeddings = 1", "whole number", "true or false"),
    "moments in 8 bits on two GPUs": ([("training/mode", {"optimiser": "adamw_8bit", "gpus": 2})], "training.mode.optimiser", "single GPU", "set adamw"),
    "compiled layers on two GPUs": ([("training/mode", {"compile": "always", "gpus": 2})], "training.mode.compile", "not tested", "set auto"),
    "unknown switch": ([("training/mode", {"packing": "sometimes"})], "training.mode.packing", "one of", "always"),
    "no value": ([("training/bio/updates", None)], "updates = null", "no value", "whole number"),
    "no value, default": ([("trace/top_fraction", None)], "trace.top_fraction = null", "no value", "remove the key for 0.2"),
    "empty section": ([("facts/pools", None)], "facts.pools = null", "no value", "{} stands for none"),
    "number for section": ([("training/bio", 3)], "training.bio = 3", "takes a section", "lines below, indented"),
    "list of models": ([("models", [{"source": "hub"}])], "models = [{...}]", "it is a list", "lines below"),
    "number as model": ([("models/m", 3)], "models.m = 3", "source: folder, gguf, hub, scratch", "lines below"),
    "no models": ([("models", {})], "models = {}", "too few entries", "named models"),
    "number for list": ([("training/seeds", 3)], "training.seeds = 3", "takes a list", "[3]"),
    "no seeds": ([("training/seeds", [])], "training.seeds = []", "too few", "one or more"),
    "text among seeds": ([("training/seeds", [0, "1"])], "training.seeds[1] = '1'", "quotes", "remove the quotes"),
    "three betas": ([("training/bio/betas", [0.1, 0.2, 0.3])], "training.bio.betas", "at most 2", "list of 2"),
    "one beta": ([("training/bio/betas", [0.9])], "training.bio.betas[1]", "too short", "add an entry"),
    "beta of 1": ([("training/bio/betas", [0.9, 1])], "betas[1] = 1", "below 1", "give"),
    "unknown choice": ([("shared/influence", "absolut")], "shared.influence = 'absolut'", "none of absolute", "did you mean absolute?"),
    "off for choice": ([("training/precision", False)], "precision = false", "yes, no, on and off", "auto, float32"),
    "unknown source": ([(f"{M}/source", "huub")], "models.llama-tiny.source = 'huub'", "none of", "did you mean hub?"),
    "source is a list": ([(f"{M}/source", ["hub"])], "models.llama-tiny.source = ['hub']", "none of", "hub"),
    "missing method": ([("grafting/optimiser", {"updates": 4})], "grafting.optimiser.method", "missing", "dual_averaging, sigmoid_sgd"),
    "source for method": ([("grafting/optimiser", {"source": "dual_averaging"})], "grafting.optimiser.method", "missing", "sigmoid_sgd"),
    "unknown method": ([("grafting/optimiser/method", "sgd")], "grafting.optimiser.method = 'sgd'", "none of", "sigmoid_sgd"),
    "wrong in method": ([("grafting/optimiser", {"method": "sigmoid_sgd", "updates": 0})], "grafting.optimiser.updates = 0", "at least 1", "whole number"),
    "layer without head": ([("circuits/case/layer", 1)], "circuits.case.head", "layer is given", "both or neither"),
    "no such head": ([("circuits/case/layer", 1), ("circuits/case/head", 4)], "circuits.case.head = 4", "models.llama-tiny has 4", "name another"),
    "no such relation": ([("circuits/case/relation", "hobby")], "circuits.case.relation = 'hobby'", "no such relation", "birth_date"),
    "no such person": ([("circuits/case/individual", 40)], "circuits.case.individual = 40", "there are 40 people", "out of distribution"),
    "no kind of nodes": ([("circuits/attention", None), ("circuits/unit", None)], "circuits.attention", "nothing to intervene on", "set one"),
    "step of no nodes": ([("circuits/attention/forward", 0)], "circuits.attention.forward = 0", "at least 1", "whole number"),
    "unknown steps": ([("circuits/steps/method", "some")], "circuits.steps.method = 'some'", "none of", "adaptive"),
    "no such layer": ([("representations/layers", [1, 2])], "representations.layers = [1, 2]", "models.llama-tiny has 2", "null"),
    "no layers": ([("representations/layers", [])], "representations.layers = []", "there are none", "null"),
    "layers twice": ([("representations/layers", [1, 1])], "representations.layers", "not in rising order", "each once"),
    "penalties": ([("representations/probes/penalties", [0.1, 0.01])], "representations.probes.penalties", "not in rising order", "sort"),
    "nobody held out": ([("representations/probes/held_out", 0.0)], "representations.probes.held_out = 0.0", "above 0", "number"),
    "one person": ([("representations/patching/individuals", 1)], "representations.patching.individuals = 1", "at least 2", "whole number"),
    "alphas": ([("grafting/alphas", [0.2, 0.1])], "grafting.alphas", "not in rising order", "[0.1, 0.2]"),
    "number for name": ([("name", 2024)], "name = 2024", "whole number", 'quotes: "2024"'),
    "name as a path": ([("name", "a/b")], "name = 'a/b'", "letters, digits", "that form"),
    "name too long": ([("name", "a" * 65)], "name", "up to 64", "that form"),
    "model as a path": ([("models/..", {"source": "hub", "repository": "a/b"})], "models...", "cannot be that of a folder", "letters"),
    "model a number": ([("models", {3: {"source": "hub", "repository": "a/b"}})], "models[3]", "not text", "quotes"),
    "no hub id": ([("models/m", {"source": "hub", "repository": "a b"})], "models.m.repository", "as on the hub", "form"),
    "no commit": ([("models/m", {"source": "hub", "repository": "a/b", "revision": "main"})], "models.m.revision", "40 hexadecimal", "form"),
    "number for path": ([("facts/templates", 3)], "facts.templates = 3", "takes a path", "quotes"),
    # Former names.
    "old trace.keep": ([("trace/keep", 0.2)], "trace.keep = 0.2", "renamed to top_fraction", "write trace.top_fraction"),
    "old trace.snapshots": ([("trace/snapshots", 2)], "trace.snapshots", "renamed to checkpoints", "write trace.checkpoints"),
    "no gold": ([("grafting/objectives", ["distilled"])], "grafting.objectives", "gold is missing", "[gold, distilled]"),
    "nobody to test masks": ([("grafting/fit_individuals", None), ("grafting/held_out_individuals", 5)], "grafting.held_out_individuals", "nobody is left", "set fit_individuals"),
    "refined sigmoid": ([("grafting/optimiser", {"method": "sigmoid_sgd"}), ("grafting/refine", 1.2)], "grafting.refine", "fits each size anew", "refine: null"),
    "old grafting.recovery": ([("grafting/recovery", 0.9)], "grafting.recovery", "renamed", "write grafting.target_recovery"),
    "old grafting.individuals": ([("grafting/individuals", 5)], "grafting.individuals", "renamed", "write grafting.fit_individuals"),
    "old circuits.draws": ([("circuits/draws", 3)], "circuits.draws", "renamed", "write circuits.random_orders"),
    "old circuits.steps.method": ([("circuits/steps", {"method": "each"})], "circuits.steps.method = 'each'", "renamed to all", "write all"),
    "old representations.signature": ([("representations/signature", {})], "representations.signature", "renamed", "write representations.attribution"),
    "old representations.gradients": ([("representations/gradients", {})], "representations.gradients", "renamed", "write representations.gradient_similarity"),
    "old coordinates": ([("representations/gradient_similarity/coordinates", 9)], "gradient_similarity.coordinates", "renamed", "gradient_similarity.sampled_parameters"),
    "old compute.save_seconds": ([("compute/save_seconds", 9.0)], "compute.save_seconds", "renamed", "write compute.checkpoint_interval_s"),
    "old recall.batch_tokens": ([("recall/batch_tokens", 512)], "recall.batch_tokens", "renamed", "write recall.max_eval_tokens"),
    "old questions": ([("training/mix/questions", "all")], "training.mix.questions", "renamed", "write training.mix.questions_per_example"),
    "old questions of a model": ([(f"{M}/pretrain/questions", "all")], "models.llama-tiny.pretrain.questions", "renamed", "questions_per_example"),
    "old plain": ([("training/mode/optimiser", "plain")], "training.mode.optimiser = 'plain'", "renamed to adamw", "write adamw"),
    "old eight_bit": ([("training/mode/optimiser", "eight_bit")], "training.mode.optimiser", "renamed", "write adamw_8bit"),
    "old offloaded": ([("training/mode/optimiser", "offloaded")], "training.mode.optimiser", "renamed", "write cpu_offload"),
    # Values that do not go together.
    "too few names": ([("facts/people", 400)], "facts.people = 400", "20 last names make 400", "first_names"),
    "years": ([("facts/pools/last_year", 1800)], "facts.pools.last_year = 1800", "before first_year (1900)", "swap"),
    "own people missing": ([("facts/individuals", "no.csv")], "facts.individuals = 'no.csv'", "no such file", "mend the path"),
    "seed too large": ([("training/seeds", [2**31])], "training.seeds[0] = 2147483648", "at most", "whole number"),
    "own templates missing": ([("facts/templates", "no.yaml")], "facts.templates", "no such file", "remove the key"),
    "own people, few names": ([("facts/individuals", str(ROOT / "config.yaml")), ("facts/pretrain_people", 401)], "facts.pretrain_people", "unique names", "last_names"),
    "no folder": ([("models/m", {"source": "folder", "path": "/no/where"})], "models.m.path = '/no/where'", "no such folder", "save_pretrained"),
    "no model folder": ([("models/m", {"source": "folder", "path": str(ROOT)})], "models.m.path", "no config.json", "save_pretrained"),
    "warmup": ([("training/bio/warmup", 60)], "training.bio.warmup = 60", "not be up", "below 60"),
    "warmup against override": ([("training/bio/warmup", 20), (f"{M}/training", {"bio": {"updates": 9}})], "models.llama-tiny.training.bio.warmup = 20", "(9)", "below 9"),
    "pretrain warmup": ([(f"{M}/pretrain/warmup", 99)], "models.llama-tiny.pretrain.warmup", "not be up", "raise updates"),
    "seed twice": ([("training/seeds", [1, 2, 1])], "training.seeds = [1, 2, 1]", "twice", "[1, 2]"),
    "seed of another replicate": ([("seed", 1000), ("replicates", 2)], "seed = 1000", "the next 1000 seeds", "below 1000, or replicates to 1"),
    "seeds of another replicate": ([("training/seeds", [0, 1000]), ("replicates", 3)], "training.seeds = [0, 1000]", "further replicates", "all below 1000"),
    "seeds of two replicates": ([("training/seeds", [7, 2024])], "training.seeds = [7, 2024]", "further replicates", "all below 1000"),
    "no replicate": ([("replicates", 0)], "replicates = 0", "at least 1", "default: 1"),
    "heads": ([(f"{M}/heads", 3), (f"{M}/key_value_heads", None)], "models.llama-tiny.hidden_size = 64", "heads (3)", "multiple of 6"),
    "odd head": ([(f"{M}/hidden_size", 12)], "hidden_size = 12", "even multiple", "multiple of 8"),
    "key value heads": ([(f"{M}/key_value_heads", 3)], "models.llama-tiny.key_value_heads = 3", "heads (4)", "divisor of 4"),
    "neox heads": ([("models/gpt-neox-tiny/key_value_heads", 2)], "models.gpt-neox-tiny.key_value_heads", "gpt_neox has one", "null"),
    "nobody to pre-train on": ([("facts/pretrain_people", 0)], "facts.pretrain_people = 0", "llama-tiny, gpt-neox-tiny", "facts.people"),
    "traced inside": ([("trace/in_distribution", 21)], "trace.in_distribution = 21", "only 20 of 40", "20 or less"),
    "traced outside": ([("facts/in_distribution", 0.95)], "trace.out_of_distribution = 4", "only 2 of 40", "2 or less"),
    "traced by default": ([("trace", {"out_of_distribution": 1}), ("facts/people", 6)], "trace.in_distribution = 10", "only 3 of 6", "3 or less"),
    "one person inside": ([("facts/in_distribution", 0.03), ("trace/in_distribution", 1)], "facts.in_distribution = 0.03", "only one person is in distribution", "0.05 or more"),
    "two people": ([("facts/people", 2), ("trace", {"in_distribution": 1, "out_of_distribution": 1})], "facts.people = 2", "only one person is in distribution", "3 or more"),
    "k above keep": ([("shared/k", 0.3)], "shared.k = 0.3", "keeps only 0.2", "trace.top_fraction"),
    "k and keep in other units": ([("shared/k", 1000)], "shared.k = 1000", "one is a count", "both as counts"),
    "names by case": ([("models/Llama-Tiny", {"source": "hub", "repository": "a/b"})], "models.Llama-Tiny", "differ by case", "another name"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "where", "why", "remedy"), CASES.values(), ids=CASES.keys())
def test_a_mistake_is_reported(
    changes: list[tuple[str, Any]], where: str, why: str, remedy: str
) -> None:
    with pytest.raises(FactRecallError) as caught:
        parse_study(ci(*changes), "study.yaml")
    assert isinstance(caught.value, StudyError)
    (mistake,) = caught.value.mistakes
    assert mistake.where.startswith("study.yaml: ")
    assert where in mistake.where
    assert why in mistake.why
    assert remedy in mistake.remedy
    assert str(caught.value) == str(mistake)


FILES: dict[str, tuple[bytes, str, str, str]] = {
    "empty": (b"", "study.yaml", "empty", "key: value"),
    "comments": (b"# nothing\n", "study.yaml", "empty", "presets"),
    "list": (b"- a\n", "study.yaml", "no mapping", "key: value"),
    "text": (b"hello\n", "study.yaml", "no mapping", "key: value"),
    "twice": (CI.encode() + b"name: again\n", "name", "given twice, first in line 4", "keep one"),
    "tab": (b"name: a\nfacts:\n\tpeople: 3\n", "study.yaml:3, column 1", "tab", "spaces"),
    "bracket": (b"name: [a\nseed: 0\n", "study.yaml:2, column", "not YAML", "mend this line"),
    "colon": (b"name: a: b\n", "study.yaml:1, column 8", "not YAML", "quotes"),
    "two documents": (b"name: a\n---\nname: b\n", "study.yaml:2", "not YAML", "one study"),
    "latin-1": (b"name: a\nseed: \xe9\n", "study.yaml:2", "not UTF-8", "UTF-8"),
    "control character": (b"name: \x00\n", "study.yaml", "not valid", "key: value"),
    "unknown tag": (b"name: !!python/name:os.system\n", "study.yaml:1", "not YAML", "mend"),
    "no date": (b"name: 2024-99-99\n", "study.yaml", "not valid", "key: value"),
    "no boolean": (b"name: !!bool maybe\n", "study.yaml", "not valid", "key: value"),
    "unhashable": (b"? [a]\n: b\n? {a: b}\n: c\n", "study.yaml", "not YAML", "mend"),
    "recursive": (b"name: &a [*a]\n", "study.yaml:1", "contains itself", "mend"),
    "deep": (b"[" * 5000, "study.yaml", "deep", "key: value"),
}


@pytest.mark.parametrize(("text", "where", "why", "remedy"), FILES.values(), ids=FILES.keys())
def test_a_bad_file_is_reported(
    text: bytes, where: str, why: str, remedy: str, tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(text)
    with pytest.raises(StudyError) as caught:
        read_study(path)
    (mistake,) = caught.value.mistakes
    assert mistake.where.startswith(str(path))
    assert where in mistake.where
    assert why in mistake.why
    assert remedy in mistake.remedy


def test_files_that_cannot_be_read_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        read_study(tmp_path / "none.yaml", tmp_path)
    missing, folder = caught.value.mistakes
    assert "no such file" in missing.why
    assert "cannot be read" in folder.why


def test_all_mistakes_are_reported_together() -> None:
    raw = ci(("training/bio/batch_size", 0), ("name", "a b"), (f"{M}/layers", "two"))
    with pytest.raises(StudyError) as caught:
        parse_study(raw, "study.yaml")
    assert len(caught.value.mistakes) == 3
    assert all(str(mistake) in str(caught.value) for mistake in caught.value.mistakes)


def test_a_mistake_in_a_shared_recipe_is_reported_once_and_in_an_override_there() -> None:
    shared = ci(("training/bio/batch_size", 0), (f"{M}/training", {"bio": {"batch_size": -1}}))
    with pytest.raises(StudyError) as caught:
        parse_study(shared, "study.yaml")
    assert [mistake.where for mistake in caught.value.mistakes] == [
        "study.yaml: training.bio.batch_size = 0",
        "study.yaml: models.llama-tiny.training.bio.batch_size = -1",
    ]


@pytest.mark.parametrize("broken", [None, 3, {}, {"bio": 3}])
def test_a_broken_training_section_does_not_blame_the_models(broken: Any) -> None:
    with pytest.raises(StudyError) as caught:
        parse_study(ci(("training", broken)), "study.yaml")
    assert not any("models" in mistake.where for mistake in caught.value.mistakes)


def test_messages_name_the_file_and_line_that_hold_the_value(tmp_path: Path) -> None:
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text(CI.replace("seed: 0", "seed: -1"), encoding="utf-8")
    mine.write_text("# mine\nfacts:\n  people: 1\n", encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        read_study(base, mine)
    assert [mistake.where for mistake in caught.value.mistakes] == [
        f"{base}:5: seed = -1",
        f"{mine}:3: facts.people = 1",
    ]


def test_a_missing_key_is_placed_in_its_section(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(CI.replace("  people: 40\n", "", 1), encoding="utf-8")
    with pytest.raises(StudyError, match=r"study.yaml:8: facts.people\n"):
        read_study(path)


def test_values_merged_elsewhere_are_traced_to_their_files(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(CI.replace("seed: 0", "seed: -1") + "seed: -1\n", encoding="utf-8")
    raw = ci(("seed", -1), ("facts/people", 1))
    with pytest.raises(StudyError) as caught:
        parse_study(raw, "--config", [path])
    wheres = [mistake.where for mistake in caught.value.mistakes]
    last = len(path.read_text(encoding="utf-8").splitlines())
    assert wheres == [
        f"{path}:{last}: seed",
        f"{path}:{last}: seed = -1",
        "--config: facts.people = 1",
    ]
