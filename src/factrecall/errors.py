"""One error type for everything a user can mend.

The command line prints it without a traceback and leaves with exit code 2; any
other exception is a defect of factrecall and keeps its traceback.
"""

from __future__ import annotations

EXIT_CODE = 2


class FactRecallError(Exception):
    """A mistake in the configuration, an input or the machine, and its remedy.

    Parameters
    ----------
    where : str
        What is wrong: a configuration key, a file, a column.
    why : str
        The reason, in one sentence.
    remedy : str
        What the user can do about it.
    """

    def __init__(self, where: str, why: str, remedy: str) -> None:
        self.where, self.why, self.remedy = where, why, remedy
        super().__init__(f"{where}\n  why:    {why}\n  remedy: {remedy}")
