"""Import of transformers without its messages, and without torchao."""

from __future__ import annotations

import sys
from importlib import import_module


def quiet() -> None:
    """Silence the library and keep it from loading torchao; called before it is first used."""
    if "torchao" not in sys.modules:
        # transformers loads it wherever it is installed, for kinds of models not used here: a
        # second of each job, and messages about kernels. A module that is None is not found.
        sys.modules["torchao"] = None  # type: ignore[assignment]
        try:
            import_module("transformers.modeling_utils")
        finally:
            sys.modules.pop("torchao", None)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
