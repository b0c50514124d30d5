"""factrecall: how language models come to recall facts, and which weights do it.

Select a set of parameters, compose weights from it, evaluate what they recall. Each stage is a
plain function that a notebook, the command line and a workflow rule call alike; see
`factrecall.workflow.stages` for the list.
"""

from __future__ import annotations

__version__ = "0.2.0"
