"""Lease on a job's outputs: one writer at a time.

A killed workflow engine leaves its jobs running or queued; its next start would be a second writer
of the same files. So each job holds a lease on its outputs. The later start has precedence: the
earlier job gets a shutdown request, saves its state and exits, and the later one begins. A job of
an earlier start that begins after a later claim exits without writing.

Each job has two files in the study's folder ``claims``. The *claim* names the latest claimant and
stays. The *heartbeat* is a counter that its holder increments. A claimant that sees it unchanged
for `STALE` seconds (clocks are never compared) deletes it: the lease has expired. Without its
heartbeat file a process cannot rename a file into place (`storage.atomic` checks).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from factrecall.runtime import signals

HEARTBEAT = 2.0  # seconds
STALE = 90.0
"""Seconds without a heartbeat until a lease expires; network file systems lag by up to a minute."""

HEARTBEAT_BYTES = 600  # of the file, so that each heartbeat overwrites the one before
HELD = "FACTRECALL_BEAT"
"""Environment variable: the heartbeat file of a process and those it starts."""

NOTE = 30.0  # seconds between two messages about the holder that is waited for


@dataclass(frozen=True)
class _Heartbeat:
    """Of a claimant: where it runs, whether it holds the lease, the counter."""

    place: str
    pid: int
    holder: str
    holds: bool
    count: int

    @classmethod
    def read(cls, path: Path) -> _Heartbeat | None:
        """Read a heartbeat file; None if it is gone."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # just being written, or cut off
            return cls("", 0, "another job", False, 0)

    @property
    def dead(self) -> bool:
        """Whether its process ran on this machine and has ended."""
        return self.place == _place() and signals.ended(self.pid)


class Lease:
    """The right to write a job's outputs, for a block.

    Parameters
    ----------
    folder : Path
        Of the study's claims.
    output : Path
        The job's first output, which stands for all of them.
    run : str
        The job's start of the workflow (see `begin_run`).

    Raises
    ------
    Interrupted
        When a later start has claimed the outputs, or a shutdown is requested while it waits.
    """

    def __init__(self, folder: Path, output: Path, run: str) -> None:
        self._output, self._run = output, run
        self._id = uuid.uuid4().hex
        # Relative to the results: another machine may see them below another path.
        place = os.path.relpath(output, folder)
        key = hashlib.sha256(os.fsencode(place)).hexdigest()[:24]
        self._folder, self._key, self._claim = folder, key, folder / f"{key}.claim"
        self._beat = folder / f"{key}.{self._id}.beat"
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._run_heartbeat, daemon=True, name="lease")
        self._writing = threading.Lock()
        self._count = 0
        self._holds = self._notified = False

    def __enter__(self) -> Lease:
        global _held
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._claimant()[0] > self._run:
            raise self._lost()
        self._write_heartbeat()
        self._heart.start()
        try:
            self._put_claim()
            self._wait_for_others()
            self._holds = True
            self._write_heartbeat()
        except BaseException:
            self._release()
            raise
        _held = self
        os.environ[HELD] = str(self._beat)
        return self

    def __exit__(self, *raised: object) -> None:
        global _held
        _held = None
        os.environ.pop(HELD, None)
        self._release()

    def check(self) -> None:
        """Raise `Interrupted` if another job was given the lease."""
        if _Heartbeat.read(self._beat) is None:
            raise self._lost()

    def _run_heartbeat(self) -> None:
        """Write heartbeats, and request a shutdown when a later claimant waits.

        They continue while the command saves its state, however long that takes.
        """
        while not self._stop.wait(HEARTBEAT):
            try:
                self._write_heartbeat()
                if self._holds and not self._notified:
                    self._check_claim()
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ESTALE):  # the heartbeat was deleted
                    signals.request_shutdown("another job has taken over")
                    return
                # A file system that is away for a while is no reason to exit.

    def _check_claim(self) -> None:
        """Check whether the claim is still this job's."""
        run, identity = self._claimant()
        if run < self._run:  # an earlier start came between, and will see this
            self._put_claim()
        elif identity != self._id:
            self._notified = True
            signals.request_shutdown("another job takes over")

    def _write_heartbeat(self) -> None:
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        if job := os.environ.get("SLURM_JOB_ID"):
            holder += f", job {job}"
        with self._writing:
            self._count += 1
            beat = _Heartbeat(_place(), os.getpid(), holder, self._holds, self._count)
            # Written in place: it must not reappear once a claimant has deleted it.
            with self._beat.open("w" if self._count == 1 else "r+", encoding="utf-8") as file:
                file.write(json.dumps(vars(beat)).ljust(HEARTBEAT_BYTES))

    def _claimant(self) -> tuple[str, str]:
        """Return the run and the id of whoever claimed last; empty if nobody did."""
        try:
            run, identity = self._claim.read_text(encoding="utf-8").split()
        except (FileNotFoundError, ValueError):
            return "", ""
        return run, identity

    def _put_claim(self) -> None:
        temporary = self._folder / f".{self._key}.{self._id}.tmp"
        temporary.write_text(f"{self._run} {self._id}\n", encoding="utf-8")
        os.replace(temporary, self._claim)

    def _wait_for_others(self) -> None:
        """Return when no other job holds the outputs and the claim is still this one's."""
        seen: dict[Path, tuple[int, float]] = {}
        holders: dict[Path, str] = {}
        noted = time.monotonic() - NOTE + 3 * HEARTBEAT
        while True:
            signals.exit_if_requested()
            try:
                run, identity = self._claimant()
            except OSError:  # not readable just now
                time.sleep(HEARTBEAT)
                continue
            if run < self._run:  # two claimed at once, and the one of the earlier start was last
                self._put_claim()
                time.sleep(HEARTBEAT / 8)
                continue
            if identity != self._id:
                raise self._lost()
            others = [
                path
                for path in sorted(self._folder.glob(f"{self._key}.*.beat"))
                if path != self._beat and not self._gone(path, seen, holders)
            ]
            if not others:
                return
            if time.monotonic() - noted > NOTE and others[0] in holders:
                noted = time.monotonic()
                print(f"{self._output}: waiting for {holders[others[0]]} to exit", file=sys.stderr)
            time.sleep(HEARTBEAT / 8)

    def _gone(
        self, path: Path, seen: dict[Path, tuple[int, float]], holders: dict[Path, str]
    ) -> bool:
        """Say whether a holder is gone; delete the heartbeat of one that has expired."""
        try:
            beat = _Heartbeat.read(path)
        except OSError:
            return False  # not known to be
        if beat is None:
            return True
        holders[path] = beat.holder
        if seen.get(path, (-1, 0.0))[0] != beat.count:
            seen[path] = (beat.count, time.monotonic())
        gone = beat.dead or time.monotonic() - seen[path][1] > STALE
        if gone:
            path.unlink(missing_ok=True)
        return gone

    def _lost(self) -> signals.Interrupted:
        return signals.Interrupted(
            f"{self._output}: another job has taken this one over (a later start of the workflow, "
            "or a second try after this machine stood still)",
            signals.TAKEN_OVER,
        )

    def _release(self) -> None:
        self._stop.set()
        self._heart.join()
        self._beat.unlink(missing_ok=True)


_held: Lease | None = None


def is_over(folder: Path, run: str) -> bool:
    """Say whether a start of the workflow is over: a later one has begun."""
    try:
        return any(path.name > run for path in (folder / "runs").iterdir())
    except FileNotFoundError:
        return False


def begin_run(folder: Path) -> str:
    """Return the number of this start of the workflow, greater than that of every earlier one.

    Starts are counted by files that only one process can make, since machines' clocks differ.
    """
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    while True:
        before = sorted(path.name for path in runs.iterdir())
        run = f"{int(before[-1]) + 1 if before else 1:010d}"
        try:
            (runs / run).touch(exist_ok=False)
        except FileExistsError:
            continue
        for name in before[:-1]:
            (runs / name).unlink(missing_ok=True)
        return run


def check() -> None:
    """Raise `Interrupted` if this process, or the one that started it, has lost its lease."""
    beat = os.environ.get(HELD)
    if _held is not None:
        _held.check()
    elif beat is not None and _Heartbeat.read(Path(beat)) is None:
        raise signals.Interrupted("another job has taken over", signals.TAKEN_OVER)


def _place() -> str:
    """Return what makes a process number unique: host, boot, namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux: only heartbeats tell
        return f"{uuid.uuid4()}"
