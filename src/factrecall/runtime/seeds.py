"""Every random draw comes from a generator seeded by (study seed, purpose).

Draws for different purposes are independent, so that adding one never shifts another.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and every part of `purpose`."""
    text = "\x1f".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a NumPy generator for one purpose (see `derive`)."""
    return np.random.Generator(np.random.PCG64(derive(seed, *purpose)))
