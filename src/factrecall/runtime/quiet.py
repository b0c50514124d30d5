"""Importing transformers without what it prints, and without what no model here needs."""

from __future__ import annotations

import sys
from importlib import import_module


def quiet() -> None:
    """Keep the library from printing what is none of a job's log, and from loading torchao.

    Called by all that opens, builds or writes models, before they do, so that jobs without one need
    not load the library.
    """
    if "torchao" not in sys.modules:
        # transformers loads it wherever it is installed, for kinds of models that are none of ours:
        # a second of each job, and lines about kernels. A module that is None is not found.
        sys.modules["torchao"] = None  # type: ignore[assignment]
        try:
            import_module("transformers.modeling_utils")
        finally:
            sys.modules.pop("torchao", None)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
