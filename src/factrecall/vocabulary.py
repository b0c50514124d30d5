"""The words of a study, each list once: relations, fine-tunings, splits, tasks, kinds.

Stages import this module, so that a new word reruns them. Labels for the reader are the report's.
"""

from __future__ import annotations

from typing import Literal

RELATIONS = ("birth_date", "birth_city", "university", "job", "employer", "blood_type")
"""Relations of the synthetic individuals; own data use them too."""

Tuning = Literal["bio", "stage", "mix"]
TUNINGS: tuple[Tuning, ...] = ("bio", "stage", "mix")
"""Fine-tunings of a model, in the order in which they are trained."""
