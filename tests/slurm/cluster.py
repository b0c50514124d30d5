"""A private SLURM cluster on loopback: a controller and two nodes on this machine, without systemd.

Nodes claim more than there is and have GPUs that are only files, so that SLURM hands them out and
sets ``CUDA_VISIBLE_DEVICES``. There is no accounting; the state of jobs is asked of the controller.
Daemons are started and ended by the process numbers in their own files.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel")
SYSTEM = Path("/etc/slurm/slurm.conf")
"""Where clients without ``SLURM_CONF`` look, as the inner ``srun`` of the executor plugin does."""

PLACE = "/tmp/slurm-test-"
"""How folders of clusters begin: short, since sockets lie in them."""

NULL = os.makedev(1, 3)

NODES = ("n1", "n2")
GPUS = 2
KILL_WAIT = 20
"""Seconds between SIGTERM and SIGKILL at a time limit or after a cancellation."""

PATIENCE = 3600.0
"""Seconds to wait for what must come; long, since other tests may have the processor meanwhile."""

CONF = """\
ClusterName=factrecall
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={base}/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool.%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=3,batch_sched_delay=1
PriorityType=priority/basic
AccountingStorageType=accounting_storage/none
MinJobAge=900
SlurmctldTimeout=60
SlurmdTimeout=15
InactiveLimit=0
KillWait={kill_wait}
ReturnToService=2
CompleteWait=0
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=1-00:00:00 State=UP
"""
# With Debian's SLURM 22.05 a GPU needs a file, or the node is invalid.
GRES = "NodeName={name} Name=gpu Type=fake File={base}/gpus/{name}-[0-{last}]\n"
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=8000 "
    "Gres=gpu:fake:{gpus} State=UNKNOWN"
)
CGROUP = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"


def missing() -> str | None:
    """Say why no cluster can be started here; None if one can."""
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"SLURM is not installed ({', '.join(absent)})"
    if os.geteuid() != 0:
        return "only root may start SLURM's daemons"
    ours = SYSTEM.is_symlink() and os.readlink(SYSTEM).startswith(PLACE)
    if not ours and (SYSTEM.exists() or SYSTEM.is_symlink()):
        return f"this machine has a SLURM of its own ({SYSTEM})"
    return None


class Cluster:
    """The cluster; `start` and `stop` it.

    Parameters
    ----------
    base : Path
        An empty folder that all may enter, with a short name (a socket lies in it).
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.conf = base / "slurm.conf"

    # --- as a whole --------------------------------------------------------------------------

    def start(self) -> None:
        """Write the configuration, start all daemons and wait for the nodes."""
        for name in ("munge", "state", "gpus", *(f"spool.{node}" for node in NODES)):
            (self.base / name).mkdir(parents=True)
        self.base.chmod(0o755)
        (self.base / "munge").chmod(0o700)
        host, ports = socket.gethostname().split(".")[0], _free_ports(1 + len(NODES))
        nodes = [
            NODE.format(name=name, host=host, port=port, gpus=GPUS)
            for name, port in zip(NODES, ports[1:], strict=True)
        ]
        self.conf.write_text(
            CONF.format(
                host=host,
                port=ports[0],
                base=self.base,
                nodes="\n".join(nodes),
                names=",".join(NODES),
                kill_wait=KILL_WAIT,
            )
        )
        gres = [GRES.format(name=name, base=self.base, last=GPUS - 1) for name in NODES]
        (self.base / "gres.conf").write_text("".join(gres))
        (self.base / "cgroup.conf").write_text(CGROUP)
        for name in NODES:
            for number in range(GPUS):
                # The null device: SLURM numbers only what is a device.
                os.mknod(self.base / f"gpus/{name}-{number}", stat.S_IFCHR | 0o666, NULL)
        SYSTEM.parent.mkdir(parents=True, exist_ok=True)
        SYSTEM.unlink(missing_ok=True)
        SYSTEM.symlink_to(self.conf)
        key = self.base / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        munge = self.base / "munge"
        _run(
            *("munged", f"--key-file={key}", f"--socket={self.base / 'socket'}"),
            *(f"--pid-file={self.base / 'munged.pid'}", f"--log-file={munge / 'log'}"),
            f"--seed-file={munge / 'seed'}",
        )
        self.start_controller()
        for name in NODES:
            self.start_node(name)
        wait_until(self.is_up, "the nodes did not come up")

    def stop(self) -> None:
        """End all jobs and daemons."""
        if self._pid("slurmctld"):
            _run("scancel", "--quiet", "--user=root", check=False)
            wait_until(lambda: not self.jobs(), seconds=2 * KILL_WAIT)
        for name in (*NODES, "slurmctld", "munged"):
            if name in NODES:
                self.crash(name)
            self._end(name)
        if SYSTEM.is_symlink() and Path(os.readlink(SYSTEM)) == self.conf:
            SYSTEM.unlink()

    def is_up(self) -> bool:
        """Say whether all nodes can take jobs."""
        shown = _run("sinfo", "--noheader", "--Node", "--format=%N %t", check=False)
        states = dict(line.split() for line in shown.splitlines())
        return set(states) == set(NODES) and set(states.values()) <= {"idle", "mix", "alloc"}

    # --- its parts ---------------------------------------------------------------------------

    def start_controller(self) -> None:
        """Start the controller; it goes on with the jobs it knew."""
        _run("slurmctld", "-f", str(self.conf))
        wait_until(
            lambda: "is UP" in _run("scontrol", "ping", check=False), "no controller answers"
        )

    def stop_controller(self) -> None:
        """End the controller; jobs run on."""
        self._end("slurmctld")

    def start_node(self, name: str) -> None:
        """Start a node's daemon."""
        _run("slurmd", "-f", str(self.conf), "-N", name)

    def crash(self, name: str) -> None:
        """Kill a node's daemon and everything that runs on the node, as when its power fails."""
        self._end(name, signal.SIGKILL)
        for step in _processes("slurmstepd"):
            # A step of this node holds the node's own log open.
            if str(self.base / f"{name}.log") in _open_files(step):
                for pid in _tree(step):
                    _kill(pid, signal.SIGKILL)

    # --- its jobs ----------------------------------------------------------------------------

    def jobs(self) -> dict[str, str]:
        """Return the node of each running job, by its number."""
        shown = _run(
            "squeue", "--noheader", "--states=R,CG,S", "--format=%A %N", check=False
        ).splitlines()
        return dict(line.split() for line in shown if len(line.split()) == 2)

    def _pid(self, name: str) -> int | None:
        try:
            pid = int((self.base / f"{name}.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        except (OSError, ValueError):
            return None
        return pid if "slurm" in command or "munge" in command else None

    def _end(self, name: str, by: signal.Signals = signal.SIGTERM) -> None:
        pid = self._pid(name)
        if pid is None:
            return
        _kill(pid, by)
        gone = wait_until(lambda: self._pid(name) is None, seconds=15)
        if not gone:
            _kill(pid, signal.SIGKILL)
        (self.base / f"{name}.pid").unlink(missing_ok=True)


def wait_until(
    true: Callable[[], object], complaint: str | None = None, seconds: float = PATIENCE
) -> bool:
    """Wait for a condition; if it does not come true, fail with `complaint` (None: say False)."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            assert complaint is None, complaint
            return False
        time.sleep(0.2)
    return True


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


def _processes(name: str) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if (folder / "comm").read_text().strip() == name:
                    yield int(folder.name)
            except OSError:
                continue


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            found.add(os.readlink(link))
    except OSError:
        pass
    return found


def _tree(pid: int) -> list[int]:
    found = [pid]
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += _tree(int(child))
    except OSError:
        pass
    return found


def _kill(pid: int, by: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, by)
