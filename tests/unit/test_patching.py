"""Patched states do what they should, as one patch at a time does, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from factrecall.experiments.attribution import patching
from factrecall.experiments.attribution.patching import (
    SOURCES,
    States,
    chosen_layers,
    patch,
    patched,
    states_of,
)
from factrecall.experiments.attribution.settings import PatchingSettings
from factrecall.experiments.attribution.tables import PATCHING, SOURCE_FACTS
from factrecall.experiments.attribution.tokenised_prompts import (
    POSITIONS,
    TokenisedPrompt,
    tokenise,
)
from factrecall.experiments.common.model_facts import ModelFacts
from factrecall.experiments.common.prompts import compose
from factrecall.experiments.representations.settings import RepresentationSettings
from factrecall.models.architectures import architecture_of
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import read_table, write_table
from tests.conftest import ARCHITECTURES, Tiny
from tests.taught import DRAWN, FACTS, TEXTS, taught

LAYERS = (0, 1)


@pytest.fixture(params=ARCHITECTURES)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    """A model that has learnt the facts."""
    return taught(request.param)


def prompts_of(tiny: Tiny, form: str, column: str = "individual") -> list[TokenisedPrompt]:
    """Return the facts of two people of each side, or of their sources."""
    keys = zip(DRAWN[column], DRAWN["relation"], strict=True)
    return tokenise(tiny.tokenizer, [compose(TEXTS.up_to(form, *key)) for key in keys])


def opened(tiny: Tiny) -> ModelFacts:
    facts = (FACTS.individuals, FACTS.bio, FACTS.qa)
    return ModelFacts(tiny.model, tiny.tokenizer, *facts, study_seed=5, max_eval_tokens=1024)


def plain(
    tiny: Tiny, target: TokenisedPrompt, source: TokenisedPrompt | None, layer: int, at: str
) -> tuple[bool, float, int]:
    """Patch one text the plain way: one whole pass for the state, one whole pass with it."""
    module = architecture_of(tiny.model.config).layers_of(tiny.model)[layer]
    state: list[torch.Tensor] = []

    def put(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, target.positions[at]] = state[0]
        return out

    with torch.no_grad():
        if source is not None:
            keep = module.register_forward_hook(
                lambda _, __, out: state.append(out[0, source.positions[at]])
            )
            tiny.model(input_ids=torch.as_tensor(source.tokens)[None])
            keep.remove()
        handle = module.register_forward_hook(put) if source is not None else None
        logits = tiny.model(input_ids=torch.as_tensor(target.tokens)[None]).logits[0].double()
        if handle is not None:
            handle.remove()
    begin = len(target.roles)
    first = logits[begin - 1]
    right = (logits[begin - 1 : -1].argmax(-1).numpy() == target.tokens[begin:]).all()
    return bool(right), float(first.log_softmax(-1)[target.first]), int(first.argmax())


def test_a_state_put_where_it_is_changes_nothing(tiny: Tiny) -> None:
    tokenised = prompts_of(tiny, "bio")
    states: States = {("bio", "same"): states_of(tiny.model, LAYERS, tokenised, 512)}
    table = patched(tiny.model, LAYERS, tokenised, states, 512)
    assert len(table) == len(tokenised) * len(LAYERS) * len(POSITIONS)
    assert (table["right"] == table["unpatched"]).all()
    # Not to the bit: states come from batches without answers, whose sums are ordered otherwise.
    np.testing.assert_allclose(
        table["log_probability"], table["unpatched_log_probability"], atol=1e-5
    )


def test_anothers_whole_state_gives_anothers_answer(tiny: Tiny) -> None:
    # Behind the last layer the last token's state is all that is left of a prompt.
    own, others = (prompts_of(tiny, "qa", column) for column in ("individual", "source"))
    states: States = {("qa", "other"): states_of(tiny.model, LAYERS, others, 512)}
    table = patched(tiny.model, LAYERS, own, states, 512)
    table = table[(table["layer"] == LAYERS[-1]) & (table["position"] == "last")]
    usual = [plain(tiny, other, None, 0, "last")[2] for other in others]
    assert table["likeliest"].tolist() == [usual[fact] for fact in table["fact"]]
    assert len(set(usual)) > 10
    # Behind it, nothing reads the states of other tokens.
    rest = patched(tiny.model, LAYERS, own, states, 512).query("layer == 1 and position != 'last'")
    assert (rest["log_probability"] == rest["unpatched_log_probability"]).all()


@pytest.mark.parametrize("target", SOURCES)
def test_batches_do_what_one_patch_at_a_time_does(tiny: Tiny, target: str) -> None:
    own = prompts_of(tiny, target)
    sources = {
        (source, whose): prompts_of(tiny, source, column)
        for source in SOURCES[target]
        for whose, column in zip(SOURCE_FACTS, ("individual", "source"), strict=True)
    }
    states = {
        key: states_of(tiny.model, LAYERS, tokenised, 1024) for key, tokenised in sources.items()
    }
    table = patched(tiny.model, LAYERS, own, states, 1024)
    assert len(table) == len(own) * len(states) * len(LAYERS) * len(POSITIONS)
    assert table["right"].nunique() == 2 and (table["right"] != table["unpatched"]).any()
    for row in table.sample(100, random_state=1).itertuples():
        source = sources[row.source, row.source_fact][row.fact]
        right, said, likeliest = plain(tiny, own[row.fact], source, row.layer, row.position)
        assert (row.right, row.likeliest) == (right, likeliest)
        assert row.log_probability == pytest.approx(said, abs=1e-4)
        usual = plain(tiny, own[row.fact], None, row.layer, row.position)
        assert row.unpatched == usual[0]
        assert row.unpatched_log_probability == pytest.approx(usual[1], abs=1e-4)


def test_a_table_holds_every_patch_and_the_model_is_left_as_it_was(
    tiny: Tiny, tmp_path: Path
) -> None:
    tokens = torch.as_tensor(prompts_of(tiny, "bio")[-1].tokens)[None]
    with torch.no_grad():
        before = tiny.model(input_ids=tokens).logits
    tables = {}
    for layers in (None, [1]):
        out = tmp_path / f"{layers}.parquet"
        write_table(
            out,
            patch(
                opened(tiny),
                RepresentationSettings(layers=layers, patching=PatchingSettings(individuals=2)),
            ),
            PATCHING,
        )
        tables[layers is None] = read_table(out, PATCHING)
    with torch.no_grad():
        assert torch.equal(tiny.model(input_ids=tokens).logits, before)
    table = tables[True]
    keys = [
        k for k in PATCHING if k not in ("right", "unpatched", "source_answer") and "log" not in k
    ]
    assert len(table) == 24 * 3 * 2 * 3 * 2 and not table.duplicated(keys).any()
    top = table[table["layer"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(top, tables[False], rtol=1e-6)
    own, others = prompts_of(tiny, "qa"), prompts_of(tiny, "bio", "source")
    assert table["source_answer"].nunique() == 2
    chosen = table.query("source == 'bio' and layer == 0 and position == 'subject'")
    chosen = chosen[chosen["source_fact"] == "other"].set_index(["individual", "relation"])
    for i, fact in enumerate(DRAWN.itertuples()):
        row = chosen.loc[(fact.individual, fact.relation)]
        right, said, likeliest = plain(tiny, own[i], others[i], 0, "subject")
        assert (row["right"], row["split"]) == (right, fact.split)
        assert row["log_probability"] == pytest.approx(said, abs=1e-4)
        assert row["source_answer"] == (likeliest == others[i].first != own[i].first)


def test_a_source_with_the_same_answer_is_no_control(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = FACTS.individuals.set_index("individual")
    alike = people.groupby("university").filter(lambda found: len(found) > 1)
    one, other = alike.index[alike["university"] == alike["university"].iloc[0]][:2]
    facts = DRAWN.copy()
    place = facts.index[facts["relation"] == "university"][0]
    facts.loc[place, ["individual", "source"]] = one, other
    monkeypatch.setattr(patching, "draw_facts", lambda *_: facts)
    out = tmp_path / "out.parquet"
    write_table(out, patch(opened(tiny), RepresentationSettings(layers=[1])), PATCHING)
    counts = read_table(out, PATCHING).groupby(["individual", "relation", "source_fact"]).size()
    assert (one, "university", "other") not in counts.index
    assert counts[one, "university", "same"] == 9 and len(counts) == 2 * len(facts) - 1


def test_layers_that_are_not_there_are_refused(tiny: Tiny) -> None:
    assert chosen_layers(tiny.model, None) == [0, 1] and chosen_layers(tiny.model, [1]) == [1]
    with pytest.raises(FactRecallError, match="2 layers"):
        chosen_layers(tiny.model, [0, 2])
