"""One error type for everything a user can fix.

The command line prints it without a traceback and exits with code 2; any other exception is a
defect of factrecall and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path

EXIT_CODE = 2

_REMAKE = "delete it and run the workflow again, which remakes it"


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


def out_of_memory(error: BaseException) -> FactRecallError | None:
    """Return the user's error for a GPU out of memory; None for any other exception."""
    if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which may not be loaded
        return None
    return FactRecallError(
        "the memory of the GPU",
        str(error).split(". ")[0],
        "lower micro_batch_tokens (training) or recall.max_eval_tokens (all else), or let fewer "
        "jobs share a GPU; factrecall plan says what each takes",
    )


class DamagedFile(FactRecallError):
    """A file of the study, or a model folder, that is there but not what was once written.

    A job of the workflow moves it aside, so that the next run remakes it (see `factrecall.cli`).

    Parameters
    ----------
    path : Path
        The file or folder.
    why : str
        The reason, in one sentence.
    remedy : str
        What to do where no workflow can mend it.
    """

    def __init__(self, path: Path, why: str, remedy: str = _REMAKE) -> None:
        self.path = path
        super().__init__(str(path), why, remedy)
