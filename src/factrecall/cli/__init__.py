"""The command line: one subcommand a stage, each also one workflow rule.

Everything heavy is imported by the command that needs it, so that ``--help`` and ``validate``
answer at once. A user's mistake ends with one message and exit code 2, never a traceback.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence

from factrecall.cli import circuits, experiments, models, plan, reports, representations
from factrecall.cli.common import moved_aside, writing
from factrecall.runtime.errors import EXIT_CODE, DamagedFile, FactRecallError, out_of_memory
from factrecall.runtime.signals import TAKEN_OVER, Interrupted, handle_signals
from factrecall.runtime.storage import disk_error

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""A full or read-only disk may show wherever a command writes, and is never its defect."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    options = _parser().parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with handle_signals(), writing(options):
            try:
                options.run(options)
            except DamagedFile as error:
                raise moved_aside(error) from error
    except FactRecallError as error:
        print(f"factrecall: {error}", file=sys.stderr)
        return EXIT_CODE
    except Interrupted as left:
        remedy = "" if left.code == TAKEN_OVER else "; run again to go on"
        print(f"factrecall: {left.reason}{remedy}", file=sys.stderr)
        return left.code
    except RuntimeError as error:
        if not (told := out_of_memory(error)):
            raise
        print(f"factrecall: {told}", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        print("factrecall: interrupted (from the keyboard); run again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        told = disk_error(error.filename or "its files", error)
        print(f"factrecall: {told}", file=sys.stderr)
        return EXIT_CODE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="factrecall",
        description="How do language models come to recall facts, and which weights do it? "
        "Each command is a stage of a study; `make run` or `snakemake` runs them all in order.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (models, experiments, circuits, representations, reports, plan):
        module.add(commands)
    return parser
