"""Where and how a stage runs on this machine: threads, device, processes, training mode.

Nothing here is part of a stage: what is known of devices must not train models again.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from factrecall.config.study import Study
    from factrecall.runtime.stage import Stage
    from factrecall.training.execution import Execution


def device_of(study: Study, stage: Stage) -> torch.device:
    """Set threads and determinism; choose the device.

    Products of float32 matrices are made in TF32 on a GPU: seven times as fast by the data sheets,
    and closer than the bfloat16 that the models were trained in. Not so where a stage calls for
    exact results (probes solve equations), nor if the study trains in float32.

    Processes that share a training share the threads, and take a GPU each.
    """
    own = study.compute.pretrain_threads if stage.name == "pretrain" else None
    threads = own or study.compute.threads
    if os.environ.get("FACTRECALL_RUN"):  # Snakemake gives a job fewer where there are fewer cores
        threads = min(threads, int(os.environ.get("OMP_NUM_THREADS", threads)))
    rank, processes = (int(os.environ.get(*v)) for v in (("LOCAL_RANK", 0), ("WORLD_SIZE", 1)))
    threads = max(1, threads // processes)
    # Set before the libraries load: the number of threads decides how sums are split, and so
    # their last bits.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    from factrecall.models.loading import choose_device

    device = choose_device(study.compute.device)
    exact = stage.device == "exact" or study.training.precision == "float32"
    if device.type == "cuda" and not exact:
        torch.set_float32_matmul_precision("high")
    if processes > 1 and device.type == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    if processes == 1:
        told = f"{threads} thread{'s' if threads > 1 else ''}"
        print(f"runs on {_where(device)}, {told}", file=sys.stderr)
    return device


def _where(device: torch.device) -> str:
    """Return where a command runs, for its log."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    told = [socket.gethostname(), name]
    for variable in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"):
        if variable in os.environ:
            told.append(f"{variable}={os.environ[variable]}")
    return ", ".join(told)


def processes_of(stage: Stage, study: Study) -> int:
    """Return how many processes share a stage: models that are pre-trained here are small."""
    return study.training.mode.gpus if stage.name == "fine-tune" else 1


@contextmanager
def shared(argv: Sequence[str], device: torch.device, count: int) -> Iterator[bool]:
    """Run a stage in a block: here, or in several processes of this machine, which share it.

    Yields
    ------
    bool
        Whether it is to be done here; if not, it has been done.
    """
    from factrecall.training.launcher import is_process, joined, launch

    if count > 1 and not is_process():
        launch(argv, count, device)
        yield False
    else:
        with joined():
            yield True


def of_pretraining(
    study: Study, values: Mapping[str, Any], arguments: Mapping[str, Any], device: torch.device
) -> Execution:
    """Return how a model is pre-trained on this device."""
    from factrecall.cost.execution_choice import resolve
    from factrecall.cost.shapes import Shape

    scratch = values["scratch"]
    shape = Shape.of_scratch(scratch, scratch.vocabulary)
    return resolve(study, shape, scratch.pretrain, "base", device)


def of_fine_tuning(
    study: Study, values: Mapping[str, Any], arguments: Mapping[str, Any], device: torch.device
) -> Execution:
    """Return how a model is fine-tuned on this device."""
    from factrecall.cost.execution_choice import resolve
    from factrecall.cost.models import shape_of_folder

    shape, _ = shape_of_folder(arguments["start"])
    return resolve(study, shape, values["recipe"], arguments["tuning"], device)


def check_architecture(out: Path, **_: Any) -> None:
    """Refuse a fetched model of an unknown architecture before anything is trained.

    A new architecture in the table must not fetch, and so train, all models again.
    """
    from transformers import AutoConfig

    from factrecall.models.architectures import architecture_of

    architecture_of(AutoConfig.from_pretrained(out, local_files_only=True))
