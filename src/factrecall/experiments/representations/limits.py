"""Bounds of what is computed at a time, which the cost counts with, too (no PyTorch)."""

NUMBERS = {"cpu": 2**19, "cuda": 2**27}
"""How large a tensor of problems that are solved together may be: for the cache, or for memory."""
