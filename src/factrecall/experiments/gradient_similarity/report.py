"""Gradient similarity in the report: whether both formats of a fact train the same parameters."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from factrecall.experiments.gradient_similarity.tables import GRADIENT_SUMMARY
from factrecall.report.ledger import Claim
from factrecall.report.marks import Estimates, Reference
from factrecall.report.observations import minus, mix_minus_stage, observe, where
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.section import Section, Source
from factrecall.report.style import TUNING_LABELS
from factrecall.runs import histories
from factrecall.runtime.intervals import estimate
from factrecall.vocabulary import COMPARED, PHASES

if TYPE_CHECKING:
    import pandas as pd

SPLIT = "out"
"""Whose facts are judged and drawn: no question on them was ever trained on."""

GROUPS = {
    "all": "all parameters",
    "S": "S",
    "random": "random,\nas many as S",
    "gamma": "γ",
    "rest": "neither S\nnor γ",
    "layers": "single layers,\nat the end",
}
KINDS = {
    "matched": "question on the same fact",
    "person": "on other people, same relation",
    "relation": "on the same person, other relations",
}
PEOPLE = {True: "people who were traced", False: "people who were not, at the end"}
COLOURS = {"matched": "#aa3377", "person": "#444444", "relation": "#009e73"}
KEYS = ["tuning", "seed", "traced", "group", "individual", "relation"]


class Gradients(Source):
    """One model's gradient similarities."""

    @cached_property
    def ends(self) -> pd.DataFrame:
        """The facts at the end of training: by how much their cosine is `above` other people's."""
        facts = self.per_run("facts")
        rows = where(facts[facts["phase"] != "bio"], split=SPLIT, share=1.0)
        wide = rows.pivot(index=KEYS, columns="kind", values="cosine")
        return (wide["matched"] - wide["person"]).rename("above").reset_index()

    def above(self, tuning: str, group: str) -> pd.DataFrame:
        """Observe `above` of people who were not traced."""
        return observe(self.ends, "above", tuning=tuning, group=group, traced=False)

    def mix_minus_stage(self, group: str, *, traced: bool) -> pd.DataFrame:
        """Observe `above`, Mix-tuned minus Stage-tuned."""
        return mix_minus_stage(self.ends, "above", group=group, traced=traced)

    def drawn(self) -> pd.DataFrame:
        """Return the mean cosines at every moment."""
        return where(self.rows("gradients"), split=SPLIT)


def _panels(data: pd.DataFrame, m: Gradients) -> pd.DataFrame:
    """Return traced people's rows by group over training, and those of layers at its end.

    `progress` is the phases done, 0 to 2 or 0 to 1; of the layers it is their place.
    """
    import pandas as pd

    before = {phase: n for order in PHASES.values() for n, phase in enumerate(order)}
    rows = data.assign(progress=data["share"] + data["phase"].map(before), panel=data["group"])
    places = {group: int(group.removeprefix("layer ")) for group in rows["group"].unique()
              if group.startswith("layer ")} | {"embeddings": -1}  # fmt: skip
    ends = where(rows[rows["group"].isin(places)], traced=False)
    # People who were not traced stand beside the end.
    rows["progress"] *= rows["traced"].map({True: 1.0, False: 1.08})
    layers = ends.assign(progress=ends["group"].map(places), panel="layers")
    return pd.concat([rows[rows["group"].isin(GROUPS)], layers], ignore_index=True)


def _ticks(panel: Panel) -> None:
    """Name the phases of training, or the layers."""
    if panel.key["panel"] == "layers":
        layers = sorted(panel.rows["progress"].unique())
        layers = layers[:: max(1, len(layers) // 6)]
        panel.axes.set_xticks(layers, ["emb." if x < 0 else f"{x:g}" for x in layers])
        return
    names = ("start", "BIO end", "QA end") if panel.key["tuning"] == "stage" else ("start", "end")
    end = len(names) - 1
    panel.axes.set_xticks(range(end + 1), names)
    panel.axes.set_xlim(-0.15 * end, 1.2 * end)


ABSTRACT = "abstract of version 2"
WHY = "A difference of 0.02 in cosine; a smaller one is negligible."
AGREE = "gradient agreement between a fact's statement and question is higher"
CLAIMS = (
    *(
        Claim(
            id=f"gradient_similarity.mix-more-alike{suffix}",
            text=f"At the end of training, {AGREE} in Mix-tuned than in Stage-tuned models{place}.",
            observe=partial(Gradients.mix_minus_stage, group=group, traced=traced),
            bound=0.02, why=WHY, source=source, compares_tunings=True,
            quote="more consistent in mixed training, no number printed" if source else "",
        )
        for suffix, place, group, traced, source in (
            ("", "", "all", False, ABSTRACT),
            ("-in-s", ", within S", "S", False, ""),
            ("-traced", ", for people whose gradients selected S", "all", True, ""),
        )
    ),
    Claim(
        id="gradient_similarity.sits-in-s",
        text=f"In Mix-tuned models, {AGREE} within S than among as many random parameters of each "
        "tensor (S not excluded), and than among parameters outside S and γ.",
        observe=lambda m: {
            GROUPS[group].replace("\n", " "): minus(m.above("mix", "S"), m.above("mix", group))
            for group in ("random", "rest")
        },
        bound=0.02, why=WHY, source=ABSTRACT,
        quote="in what both formats update, no number printed",
    ),
)  # fmt: skip


def no_more_alike(m: Gradients) -> str | None:
    """Say where gradients of a fact are no more alike than those of other people's facts."""
    found = {TUNING_LABELS[tuning]: estimate(m.above(tuning, "all")) for tuning in COMPARED}
    poor = [name for name, one in found.items() if one.low <= 0]
    if not poor:
        return None
    return (
        f"{' and '.join(poor)}: at the end, a statement's gradient is not surely more like that of "
        "its own question than like those of other people's questions."
    )


SECTION = Section(
    name="gradient_similarity",
    title="Gradients of both formats",
    question="Do a fact's statement and its question train the same parameters?",
    read=Gradients,
    reads=("gradients",),
    files=lambda study, model: {
        f"facts/{run['tuning']}/{run['seed']}":
        f"representations/{model}/{run['tuning']}/seed{run['seed']}.gradients.parquet"
        for run in histories(study) if run["model"] == model
    },
    claims=CLAIMS,
    trust=(no_more_alike,),
    figures=(
        Figure(
            "gradients",
            data=Gradients.drawn,
            schema={name: kind for name, kind in GRADIENT_SUMMARY.items()
                    if name not in ("model", "split")},
            prepare=_panels,
            row="panel",
            col="tuning",
            layers=(
                Reference(0, "zero"),
                Estimates("progress", "cosine", "low", "high", hue="kind", style="traced",
                          connect=True, places=10_000),
            ),
            labels={"panel": GROUPS, "kind": KINDS, "traced": PEOPLE},
            palettes={"kind": COLOURS},
            annotate=_ticks,
            share_x=False,
            share_y="row",
            height=0.79,
            legend_columns=1,
            y=Axis("cosine of the gradients of statement and question", grid=True),
            caption="<b>Whether both formats train the same parameters.</b> A fact's statement, "
            "and which question; facts out, with 95 % intervals over people and seeds. Layers are "
            "of people who were not traced. The cosine of a small group is easily large: compare "
            "within a row.",
        ),
    ),
    method="<p>The gradient of the loss on a fact's answer shows which parameters would learn it. "
    "The paper names no method; this is ours. The cosine of a fact's two gradients is compared "
    "with that of its statement and other questions: on the same relation of other people, and on "
    "other relations of the same person. Claims are of the end of training and of people who were "
    "not traced, for S was selected by the traced people's gradients.</p>",
)  # fmt: skip
