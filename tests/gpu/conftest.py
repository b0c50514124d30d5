"""Checks of what a CPU cannot show, on a GPU; here, that they run at all.

    PYTHONPATH=src pytest --confcutdir tests/gpu tests/gpu                           on a GPU
    FACTRECALL_GPU_TESTS_ON=cpu PYTHONPATH=src pytest tests/gpu                      on the CPU

They need PyTorch, transformers, numpy, pandas, pyarrow and pytest, nothing else of the lock.
"""

from __future__ import annotations

import os

import pytest
import torch

from tests import synthetic
from tests.gpu.tiny import Tiny

ON = os.environ.get("FACTRECALL_GPU_TESTS_ON", "cuda")


@pytest.fixture(scope="session")
def device() -> torch.device:
    if ON == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA GPU; FACTRECALL_GPU_TESTS_ON=cpu runs these on the CPU")
    return torch.device(ON)


@pytest.fixture(params=synthetic.TINY)
def tiny(request: pytest.FixtureRequest, device: torch.device) -> Tiny:
    return Tiny(request.param, device)
