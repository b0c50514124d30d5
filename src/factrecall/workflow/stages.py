"""The stages of a study: what each reads of the configuration, and what else determines it.

One table serves the workflow and the command line alike. A stage's settings are the keyword
arguments its function gets *and* the parameters of its workflow rule: it cannot read what its
rule does not declare, so an edit of the configuration reruns its readers and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factrecall.runtime.fingerprint import code_fingerprint, versions

if TYPE_CHECKING:
    from factrecall.config.study import Study

_TABLES = ("pandas", "pyarrow", "numpy")
_MODELS = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
_EXPERIMENTS = (*_MODELS, "pandas", "pyarrow")
_FIGURES = ("matplotlib", "seaborn", "pandas")

Settings = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A step of a study.

    Attributes
    ----------
    module : str
        Where its function lives, below the package; the code fingerprint starts there.
    settings : callable
        From the study and the rule's wildcards to the function's settings.
    libraries : tuple of str
        Distributions whose version may change its results.
    """

    module: str
    settings: Callable[..., Settings]
    libraries: tuple[str, ...]


def _experiment(
    module: str, settings: Callable[..., Settings], libraries: tuple[str, ...]
) -> Stage:
    return Stage(f"experiments.{module}", settings, libraries)


def _make_facts(study: Study) -> Settings:
    return {"settings": study.facts, "seed": study.seed}


def _pretrain(study: Study, model: str) -> Settings:
    settings = study.models[model].model_copy(update={"training": None})
    return {
        "settings": settings,
        "seed": study.seed,
        "precision": study.training.precision,
        "mode": study.training.mode,
    }


def _fetch_model(study: Study, model: str) -> Settings:
    return {"settings": study.models[model].model_copy(update={"training": None})}


def _fine_tune(study: Study, model: str, tuning: str) -> Settings:
    return {
        "recipe": getattr(study.models[model].training, tuning),
        "trace": study.trace,
        "precision": study.training.precision,
        "mode": study.training.mode,
        "study_seed": study.seed,
    }


def _recall(study: Study) -> Settings:
    return {"max_eval_tokens": study.recall.max_eval_tokens}


def _select_shared(study: Study) -> Settings:
    return {"k": study.shared.k, "influence": study.shared.influence}


def _ablate(study: Study) -> Settings:
    return {"max_eval_tokens": study.recall.max_eval_tokens, "study_seed": study.seed}


def _graft_without_shared(study: Study) -> Settings:
    return {
        "grafting": study.grafting,
        "max_eval_tokens": study.recall.max_eval_tokens,
        "study_seed": study.seed,
    }


def _graft(study: Study, seed: str) -> Settings:
    return {
        **_graft_without_shared(study),
        # One fine-tuning seed shows whether masks can be trusted; the time of all is not worth it.
        "thorough": int(seed) == study.training.seeds[0],
    }


def _intervene(study: Study, kind: str, by: str) -> Settings:
    return {
        "kind": kind,
        "size": getattr(study.circuits, kind),
        "steps": study.circuits.steps,
        "draws": study.circuits.random_orders if by == "baseline" else 0,
        "individuals": study.circuits.individuals,
        "grafted_individuals": study.grafting.fit_individuals,
        "max_eval_tokens": study.recall.max_eval_tokens,
        "study_seed": study.seed,
    }


def _study_case(study: Study) -> Settings:
    return {
        "case": study.circuits.case,
        "individuals": study.grafting.fit_individuals,
        "max_eval_tokens": study.recall.max_eval_tokens,
        "study_seed": study.seed,
    }


def _represent(study: Study) -> Settings:
    whole = study.representations
    # How probes are fitted is none of its business, only to whom.
    probes = whole.probes.model_copy(update={"held_out": None, "penalties": None})
    return {
        "representations": whole.model_copy(update={"gradient_similarity": None, "probes": probes}),
        "max_eval_tokens": study.recall.max_eval_tokens,
        "study_seed": study.seed,
    }


def _probe(study: Study) -> Settings:
    probes = study.representations.probes.model_copy(update={"individuals": None})
    return {"probes": probes, "study_seed": study.seed}


def _compare_gradients(study: Study) -> Settings:
    return {
        "gradients": study.representations.gradient_similarity,
        "trace": study.trace.model_copy(update={"top_fraction": None, "checkpoints": None}),
        "study_seed": study.seed,
    }


def _seed(study: Study) -> Settings:
    return {"seed": study.seed}


def _nothing(study: Study) -> Settings:
    return {}


def _draw_figures(study: Study, model: str) -> Settings:
    from factrecall.report.published import counterpart

    shown = counterpart(study.models[model].model_dump(mode="json"))
    return {
        "model": model,
        "published_model": shown,
        "k": study.shared.k,
        "influence": study.shared.influence,
        "recovery": study.grafting.target_recovery,
    }


def _report(study: Study) -> Settings:
    return {"study": study.model_copy(update={"compute": None})}


STAGES: dict[str, Stage] = {
    "make-facts": Stage("data.tables", _make_facts, ("faker", *_TABLES)),
    "pretrain": Stage("training.pretraining", _pretrain, _MODELS),
    "fetch-model": Stage("models.sources", _fetch_model, ()),
    "fine-tune": Stage("training.fine_tuning", _fine_tune, _MODELS),
    "recall": Stage("evaluation.exact_match", _recall, _EXPERIMENTS),
    "summarise-recall": Stage("evaluation.exact_match", _nothing, _TABLES),
    "select-shared": _experiment("shared_parameters.stage", _select_shared, _EXPERIMENTS),
    "summarise-shared": _experiment("shared_parameters.stage", _nothing, _TABLES),
    "ablate": _experiment("ablation.stage", _ablate, _EXPERIMENTS),
    "summarise-ablation": _experiment("ablation.stage", _seed, _TABLES),
    "graft": _experiment("grafting.stage", _graft, _EXPERIMENTS),
    "graft-without-shared": _experiment("grafting.stage", _graft_without_shared, _EXPERIMENTS),
    "summarise-grafting": _experiment("grafting.stage", _nothing, _TABLES),
    "intervene": _experiment("circuits.stage", _intervene, _EXPERIMENTS),
    "summarise-circuits": _experiment("circuits.summary", _seed, _TABLES),
    "study-case": _experiment("case_study.stage", _study_case, _EXPERIMENTS),
    "represent": _experiment("representations.stage", _represent, (*_EXPERIMENTS, "captum")),
    "probe": _experiment("representations.probes", _probe, _EXPERIMENTS),
    "compare-gradients": _experiment("gradient_similarity.stage", _compare_gradients, _EXPERIMENTS),
    "summarise-representations": _experiment("representations.summary", _seed, _TABLES),
    "draw-figures": Stage("report.figures", _draw_figures, _FIGURES),
    "write-report": Stage("report.study", _report, ("jinja2", *_FIGURES)),
}


def settings(study: Study, stage: str, **wildcards: str) -> Settings:
    """Return what a stage is to know of the configuration, as its function takes it."""
    return STAGES[stage].settings(study, **wildcards)


def parameters(study: Study, stage: str, **wildcards: str) -> dict[str, Any]:
    """Return all that determines a stage beside its input files, as plain sorted values.

    This is a rule's one parameter, and the provenance in the metadata of what the stage writes:
    settings, the code's fingerprint and the versions of the libraries that matter.
    """
    chosen = STAGES[stage]
    plain = {name: _plain(value) for name, value in settings(study, stage, **wildcards).items()}
    return {
        "code": code_fingerprint(chosen.module),
        "libraries": versions(chosen.libraries),
        "settings": dict(sorted(plain.items())),
        "stage": stage,
    }


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
