"""The case study end to end on tiny models: its head, its fact, its tables and its prompts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from factrecall.experiments.case_study.attention_head import eager_attention, run_head
from factrecall.experiments.case_study.compute import choose_fact
from factrecall.experiments.case_study.settings import CaseStudySettings
from factrecall.experiments.case_study.stages import GraftedFiles, attention_case_study
from factrecall.experiments.case_study.tables import (
    ATTENTION,
    CASE,
    LENS,
    ROLES_ATTENDED,
    TOKENS,
)
from factrecall.experiments.circuits.settings import AllSteps, NodesPerStep
from factrecall.experiments.circuits.tables import NODES
from factrecall.experiments.common.prompts import ROLES, prompts
from factrecall.models.architectures import architecture_of
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.job import Job
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import RELATIONS
from tests.conftest import Tiny
from tests.unit.test_circuits import CPU, PEOPLE, open_mix, prepared, run


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    return prepared(tiny, tmp_path)


def study(folder: Path, case: CaseStudySettings) -> dict[str, pd.DataFrame]:
    schemas = {"out": CASE, "tokens": TOKENS, "attention": ATTENTION, "logits": LENS}
    schemas["looks"] = ROLES_ATTENDED
    paths = {name: folder / f"case.{name}.parquet" for name in schemas}
    grafted = [
        GraftedFiles(t, *(folder / f"{t}{part}" for part in ("", ".sets", ".masks", ".outcomes")))
        for t in ("mix", "stage")
    ]
    attention_case_study(
        Job(CPU), case=case, individuals=PEOPLE, max_eval_tokens=512, first_study_seed=7,
        base=folder / "base", grafted=grafted, bio=folder / "bio.parquet",
        qa=folder / "qa.parquet", **paths,
    )  # fmt: skip
    return {name: read_table(paths[name], schema) for name, schema in schemas.items()}


def test_the_case_is_the_head_of_most_shared_parameters(folder: Path, tiny: Tiny) -> None:
    found = study(folder, CaseStudySettings())
    case = found["out"].set_index("tuning")
    done = run(folder, "attention", "shared", NodesPerStep(), AllSteps(method="all", stride=99))
    nodes = read_table(done.nodes, NODES).query("projection == 'O'")
    assert case.loc["mix", "shared"] == nodes["members"].max()
    assert case.loc["mix", "shared_rank"] == 1
    place = nodes[(nodes["layer"] == case.loc["mix", "layer"])]
    place = place[place["head"] == case.loc["mix", "head"]]
    assert place["members"].item() == nodes["members"].max()

    # Weights are those of the whole grafted model, a row of each adds up to one.
    weights = found["attention"]
    sums = weights.groupby(["tuning", "format", "query"])["weight"].sum()
    assert sums.to_numpy() == pytest.approx(1.0, abs=1e-5)
    grafted = open_mix(folder)
    row = case.loc["mix"]
    tokens = found["tokens"]
    qa = tiny.facts.qa
    qa = qa[(qa["individual"] == row["individual"]) & (qa["relation"] == row["relation"])]
    question = qa.iloc[0].to_dict()
    text = question["text"][: question["attribute_start"]].rstrip()
    ids = grafted.tokenizer(text, return_tensors="pt")["input_ids"]
    assert (tokens["format"] == "qa").sum() == ids.shape[1]
    with grafted.weights, eager_attention(grafted.model), torch.inference_mode():
        grafted.weights.set(grafted.mask)
        every = grafted.model(input_ids=ids, output_attentions=True).attentions
    expected = every[row["layer"]][0, row["head"]].numpy()
    own = weights[(weights["tuning"] == "mix") & (weights["format"] == "qa")]
    assert own["weight"].to_numpy() == pytest.approx(expected[own["query"], own["key"]], abs=1e-6)
    lens = found["logits"]
    assert {"answer", "subject"} <= set(lens["role"])
    top = lens[lens["rank"] <= 10].groupby(["tuning", "format"]).size()
    assert (top == 10).all() and len(top) == 4

    attended = found["looks"]
    assert len(attended) == 2 * 2 * PEOPLE * len(RELATIONS) * len(ROLES)
    keys = ["tuning", "format", "individual", "relation"]
    assert attended.groupby(keys)["weight"].sum().to_numpy() == pytest.approx(1.0, abs=1e-4)
    last = own[own["query"] == own["query"].max()].set_index("key")["weight"]
    roles = tokens[tokens["format"] == "qa"].set_index("token")["role"]
    own = attended[(attended["tuning"] == "mix") & (attended["format"] == "qa")]
    own = own[(own["individual"] == row["individual"]) & (own["relation"] == row["relation"])]
    for role, weight in zip(own["role"], own["weight"], strict=True):
        assert weight == pytest.approx(last[roles == role].sum(), abs=1e-5)


def test_a_fact_is_preferred_that_mixed_training_alone_recalls(folder: Path) -> None:
    facts = pd.DataFrame(
        {
            "individual": [1, 1, 2, 2, 3],
            "relation": ["job", "university", "job", "university", "job"],
            "mix": [True, False, True, True, True],
            "stage": [True, True, False, False, False],
        }
    )
    assert choose_fact(CaseStudySettings(), facts) == 3  # of two such facts, the paper's relation
    assert choose_fact(CaseStudySettings(relation="job"), facts) == 2
    assert choose_fact(CaseStudySettings(individual=1), facts) == 0
    with pytest.raises(FactRecallError, match="individual = 9"):
        choose_fact(CaseStudySettings(individual=9), facts)


def test_a_head_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(FactRecallError, match="2 layers of 4 heads"):
        study(folder, CaseStudySettings(layer=5, head=0))


def test_a_heads_output_is_its_part_of_the_attention_output(tiny: Tiny) -> None:
    model = tiny.model.eval()
    tokens = torch.arange(3, 12)
    anatomy = architecture_of(model.config)
    project = anatomy.output_of(anatomy.layers_of(model)[1])
    said: list[torch.Tensor] = []
    handle = project.register_forward_hook(lambda _, __, out: said.append(out[0, -1]))
    with eager_attention(model):
        parts = [run_head(model, tokens, 1, head)[1] for head in range(4)]
    whole = said[0]
    handle.remove()
    bias = project.bias if project.bias is not None else torch.zeros_like(whole)
    torch.testing.assert_close(sum(parts) + bias, whole, rtol=0, atol=1e-5)
    assert model.config._attn_implementation == "sdpa"


def test_prompts_end_before_the_attribute_and_mark_their_parts(tiny: Tiny) -> None:
    facts = tiny.facts
    person = int(facts.qa["individual"].iloc[0])
    bio = facts.bio[(facts.bio["individual"] == person) & (facts.bio["biography"] == 0)]
    for question in facts.qa[facts.qa["individual"] == person].to_dict("records"):
        row = bio[bio["relation"] == question["relation"]].iloc[0]
        for name, prompt in prompts(bio, question).items():
            marked = prompt.tokens(tiny.tokenizer)
            value = question["text"][question["attribute_start"] : question["attribute_end"]]
            assert value not in prompt.text and not prompt.text.endswith(" ")
            parts = marked.groupby("role")["text"].agg(" ".join)
            assert parts["subject"].startswith(str(facts.individuals["name"][person]))
            if name == "bio":
                assert prompt.text.endswith(row["text"][: row["attribute_start"]].rstrip())
                before = RELATIONS.index(question["relation"])
                assert ("attribute" in parts) == (before > 0)
            else:
                assert "attribute" not in parts and parts["relation"].endswith("?")
