"""What the experiments do that ask whole models: recall, ablation, grafting, the case study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.cost.job_cost import SELECTED, JobCost, Kind, Passes
from factrecall.cost.memory import CONTEXT, Memory, evaluation_memory, text_bytes
from factrecall.cost.training import kept
from factrecall.experiments.grafting.settings import DualAveraging

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.cost.devices import Device
    from factrecall.cost.jobs import Job
    from factrecall.cost.models import ModelInfo

PADDED = 1.1
"""Tokens that pass over those of texts: questions of like length share batches."""

ABLATED = 5
"""What is set back: nothing, S, and three controls."""

PATH_POINTS, FIRST = 12, 3
"""Of `experiments.masks`, which takes PyTorch: batches at points of the path from θpre to θtask,
and how many times more updates the first size gets."""

CHECKED = 6
"""Evaluations of a mask's checks on the fitted people: θpre, θtask, three random masks and, where
there is a fit to them, shuffled answers."""

HELD = 12.0
"""Bytes a parameter that holding another set moves: θpre or θtask is read and written."""

SCORED = 16.0
"""Bytes a parameter and batch: gradient, change and score are read, the score is written."""

PAIR, DUAL_AVERAGING, SIGMOID, SPARE = 8.0, 16.0, 21.0, 4e9
"""Of `parameters.placement`, which takes PyTorch: bytes a parameter that jobs keep on the device
beside the model, if it has room for them and so many bytes more."""

FETCHED = 8.0
"""Bytes a parameter that come over the link for each set that is held, where θpre and θtask are in
main memory."""


def recall_cost(study: Study, known: ModelInfo, job: Job, device: Device) -> JobCost:
    """Return what an evaluation does."""
    people = study.facts.people
    texts = 7.0 * people
    n = known.shape.parameters
    return JobCost(
        memory=memory_of(
            study, known, copies=1, gpu=device.is_gpu, texts=6.0 * people, told=people
        ),
        shape=known.shape,
        passes=everything(study, known, 1),
        texts=texts,
        link_bytes=4.0 * n,
        read=4.0 * n,
        written=3.0 * 12 * study.facts.people,
        models=1,
        threads=study.compute.threads,
    )


def ablation_cost(study: Study, known: ModelInfo, job: Job, device: Device) -> JobCost:
    """Return what the ablations of one model do."""
    people, n = study.facts.people, known.shape.parameters
    texts = 7.0 * people
    sets = 5 * 4.0 * kept(study, n)
    beside, fetched = placed(n, device, PAIR)
    return JobCost(
        memory=memory_of(
            study,
            known,
            copies=1 + beside / 4,
            gpu=device.is_gpu,
            texts=6.0 * people,
            told=people,
            host_bytes=sets + fetched * n,
        ),
        shape=known.shape,
        passes=everything(study, known, ABLATED),
        texts=texts,
        device_bytes=ABLATED * HELD * n + SELECTED * n,
        link_bytes=8.0 * n + (ABLATED + 3) * fetched * n,
        sorted=4.0 * kept(study, n),
        read=8.0 * n,
        written=ABLATED * 3.0 * 12 * study.facts.people,
        models=2,
        threads=study.compute.threads,
    )


def grafting_cost(study: Study, known: ModelInfo, job: Job, device: Device) -> JobCost:
    """Return what fitting and judging the masks of one model and split does."""
    grafting, texts, n = study.grafting, known.texts, known.shape.parameters
    side = study.facts.sides[job.split == "out"]
    fitted = min(side, grafting.fit_individuals or side)
    others, sizes = side - fitted, len(grafting.alphas)
    thorough = job.stage == "graft" and job.seed == study.training.seeds[0]
    fits = 3 if thorough else 1
    optimiser = grafting.optimiser
    if isinstance(optimiser, DualAveraging):
        updates = PATH_POINTS + optimiser.updates * (sizes + FIRST - 1)
        looks = 0
    else:
        updates = optimiser.updates * sizes
        looks = updates // optimiser.check
    batches = passes_of(study, known, optimiser.batch_size, fits * updates, "train")
    # Each mask is asked the fitted people's questions: the whole, and of each size two.
    judged = (
        1 + 1 + 2 * sizes + (CHECKED - (not thorough) if job.stage == "graft" else 0) + fits * looks
    )
    passes = [*batches, *passes_of(study, known, 6 * fitted, judged, "forward")]
    if others and job.stage == "graft":
        passes += passes_of(study, known, 6 * others, 1 + sizes + 2, "forward")
    chosen = sum(grafting.alphas) * n
    averaged = isinstance(optimiser, DualAveraging)
    beside, fetched = placed(n, device, DUAL_AVERAGING if averaged else SIGMOID)
    # What is descended on stays where the model is.
    fixed = DUAL_AVERAGING - PAIR - 4.0 if averaged else SIGMOID - PAIR - 4.0
    size = min(study.recall.max_eval_tokens, optimiser.batch_size * texts.asked * PADDED)
    return JobCost(
        memory=memory_of(
            study,
            known,
            copies=1 + max(beside, fixed) / 4,
            gpu=device.is_gpu,
            texts=6.0 * side,
            backward=size,
            host_bytes=4 * 4.0 * chosen + fetched * n,
        ),
        shape=known.shape,
        passes=tuple(passes),
        texts=6.0 * side + fits * updates * optimiser.batch_size,
        device_bytes=fits * updates * (SCORED + SELECTED + HELD) * n + judged * HELD * n,
        # An update holds a set, and takes the changes once more.
        link_bytes=8.0 * n + (2 * fits * updates + judged) * fetched * n,
        # Of each update's mask only those collected are put in order.
        sorted=(fits * updates / sizes + 4) * chosen,
        read=8.0 * n,
        written=4.0 * chosen + 12.0 * 6 * (fitted * (2 * sizes + 1) + others * (sizes + 1)),
        scratch=fits * 4.0 * n,
        held=4.0 * n,
        models=2,
        threads=study.compute.threads,
    )


def case_cost(study: Study, known: ModelInfo, job: Job, device: Device) -> JobCost:
    """Return what the case study does: both grafted models, fact by fact."""
    n, side = known.shape.parameters, study.facts.sides[1]
    # The second model is opened beside the first with all that it keeps.
    beside, fetched = placed(n, device, PAIR, (4.0 + PAIR) * n)
    facts = 6 * min(side, study.grafting.fit_individuals or side)
    texts = known.texts
    told = texts.bio.mean() / 2 + texts.short.mean() + texts.question.mean() - 2 * texts.answer
    passes = [*passes_of(study, known, facts, 2, "forward")]
    # One prompt a pass, of three formats in two models.
    passes.append(Passes(6.0 * facts, told / 3, 1.0, told / 3, "forward", precision_of(study)))
    return JobCost(
        memory=memory_of(
            study,
            known,
            copies=2 * (1 + beside / 4),
            gpu=device.is_gpu,
            texts=3.0 * facts,
            host_bytes=(8.0 * max(study.grafting.alphas) + fetched) * 2 * n,
        ),
        shape=known.shape,
        passes=tuple(passes),
        texts=4.0 * facts,
        device_bytes=6 * HELD * n,
        link_bytes=16.0 * n + 6 * fetched * n,
        read=16.0 * n,
        written=20.0 * 24 * facts,
        more=1.5e-3 * 6 * facts,  # prompts are cut into roles and rows in Python
        models=4,
        threads=study.compute.threads,
    )


def placed(n: int, device: Device, beside: float, spare: float = 0.0) -> tuple[float, float]:
    """Return the bytes a parameter kept beside the model, and those fetched for each set held.

    One of the two is 0 (see `parameters.placement.choose_place`). What is in main memory are pages
    of the models' files, which the system takes back where it has to.
    """
    if device.memory is None:
        return beside, 0.0
    free = device.memory - CONTEXT - 4.0 * n
    return (beside, 0.0) if n * beside + SPARE + spare <= free else (0.0, FETCHED)


def everything(study: Study, known: ModelInfo, times: float) -> tuple[Passes, ...]:
    """Return passes that ask everything of everyone: biographies and questions."""
    facts, texts = study.facts, known.texts
    length = float(texts.bio.mean())
    total, most = facts.people * length * PADDED, study.recall.max_eval_tokens
    count = max(1.0, total / most)
    told = Passes(
        times * count,
        total / count,
        facts.people * 6 * texts.answer / count,
        length,
        "forward",
        precision_of(study),
        short=True,
    )
    return told, *passes_of(study, known, 6 * facts.people, times, "forward")


def precision_of(study: Study) -> str:
    """Return what models are asked in on a GPU (`cli.common.device_of`); a CPU has float32 only."""
    return "float32" if study.training.precision == "float32" else "tf32"


def passes_of(
    study: Study, known: ModelInfo, questions: float, times: float, kind: Kind
) -> list[Passes]:
    """Return passes that ask some questions a number of times."""
    texts = known.texts
    total = questions * texts.asked * PADDED
    count = max(1.0, total / study.recall.max_eval_tokens)
    targets = questions * texts.answer / count
    length = float(texts.question.mean())
    return [
        Passes(
            times * count,
            total / count,
            targets,
            length,
            kind,
            precision_of(study),
            short=True,
        )
    ]


def memory_of(
    study: Study,
    known: ModelInfo,
    *,
    copies: float,
    gpu: bool,
    texts: float,
    told: float = 0.0,
    backward: float = 0.0,
    device_bytes: float = 0.0,
    host_bytes: float = 0.0,
) -> Memory:
    """Return the peak memory of asking (see `evaluation_memory`).

    `texts` are questions, `told` biographies. Passes have `recall.max_eval_tokens` tokens, or
    `backward`, if gradients are taken.
    """
    there = texts * float(known.texts.question.mean()) + told * float(known.texts.bio.mean())
    tokens = backward or min(float(study.recall.max_eval_tokens), there)
    share = known.texts.answer / known.texts.asked
    return evaluation_memory(
        known.shape,
        tokens,
        tokens * share,
        copies,
        gpu=gpu,
        backward=bool(backward),
        prepared=text_bytes(texts + told, there),
        device_bytes=device_bytes,
        host_bytes=host_bytes,
    )
