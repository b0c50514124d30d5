"""A job that the fork server runs cannot be told from one that runs alone."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from snakemake.benchmark import BenchmarkRecord, BenchmarkTimer

from factrecall.runtime import fork_server
from factrecall.workflow import snakemake_patches
from tests.conftest import Workspace

SOURCES = Path(fork_server.__file__).parents[1]

STUB = """
import os, sys, time
from pathlib import Path
from factrecall.runtime import signals

def main():
    try:
        with signals.handle_signals():
            exec(sys.argv[1])
    except signals.Interrupted as left:
        print(left.reason, file=sys.stderr)
        return left.code
    return 0
"""
"""A command line whose only argument is code to run."""

SLEEP = "Path('began').touch(); time.sleep(60)"


@dataclass
class Server:
    """A fork server, and the environment of its clients."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    folder: Path

    def client(
        self, *words: str, program: Sequence[str] = (sys.executable,), **more: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*program, "-m", "factrecall", *words],
            cwd=self.folder,
            env=self.environment | more,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *words: str, **more: str) -> tuple[int, str, str]:
        client = self.client(*words, **more)
        told, errors = client.communicate(timeout=600)
        return client.returncode, told, errors

    def alone(self, *words: str, **more: str) -> tuple[int, str, str]:
        """Run a command without the server."""
        return self.run(*words, **more, FACTRECALL_FORK_SERVER="off")

    def forked(self, client: subprocess.Popen[str]) -> psutil.Process:
        file = Path(self.environment["FACTRECALL_FORK_SERVER"]).with_name(str(client.pid))
        wait_until(lambda: file.exists() and file.read_text())
        return psutil.Process(int(file.read_text()))

    def began(self, client: subprocess.Popen[str]) -> psutil.Process:
        wait_until((self.folder / "began").exists)
        return self.forked(client)


def wait_until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 600
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def serving(folder: Path, **environment: str) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FACTRECALL_FORK_SERVER", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        fork_server.start()
        (process,) = fork_server._running
        address = os.environ["FACTRECALL_FORK_SERVER"]
        yield Server(process, dict(os.environ), folder)
        patch.undo()
    os.environ.pop("FACTRECALL_FORK_SERVER", None)
    assert process.stdin is not None
    alive = process.poll() is None
    descendants = psutil.Process(process.pid).children(recursive=True) if alive else []
    process.stdin.close()
    process.wait(600)
    psutil.wait_procs(descendants, 60)
    assert not any(map(psutil.Process.is_running, descendants))
    shutil.rmtree(Path(address).parent, ignore_errors=True)  # if the server was killed


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Server]:
    """A fork server of a package that runs code, with no libraries to load."""
    package = tmp_path / "src" / "factrecall"
    for name in ("__init__", "__main__", "runtime/__init__", "runtime/signals"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCES / f"{name}.py", package / f"{name}.py")
    shutil.copy(SOURCES / "runtime/fork_client.py", package / "runtime")
    shutil.copy(SOURCES / "runtime/fork_server.py", package / "runtime")
    template = (SOURCES / "runtime/fork_template.py").read_text(encoding="utf-8")
    template = re.sub(r"LIBRARIES = \(.*?\n\)", "LIBRARIES = ()", template, flags=re.S)
    (package / "runtime/fork_template.py").write_text(template, encoding="utf-8")
    (package / "cli.py").write_text(STUB, encoding="utf-8")
    yield from serving(tmp_path, PYTHONPATH=str(tmp_path / "src"))


@pytest.mark.parametrize(
    "code",
    [
        "print(os.getcwd(), os.environ['OWN'], os.umask(0), sys.argv, sys.path[0])",
        "print('out'); print('error', file=sys.stderr); sys.exit(7)",
        "print(sorted(name for name in os.environ if name not in ('_', 'FACTRECALL_FORK_SERVER')))",
        "print(sys.stdin.read(), os.listdir('/proc/self/task') == [str(os.getpid())])",
        "print(sys.stdout.line_buffering, sys.stderr.line_buffering, os.isatty(1))",
        "raise SystemExit('a message')",
        "import atexit; atexit.register(print, 'the end')",
    ],
)
def test_what_a_command_sees_and_says(stub: Server, code: str) -> None:
    alone = stub.alone(code, OWN="1")
    assert stub.run(code, OWN="1") == alone
    if not alone[0]:
        assert stub.run(f"print(os.getppid() != {os.getpid()}); {code}")[1].startswith("True")


def test_a_defect_keeps_its_traceback_and_a_deadly_signal_its_number(stub: Server) -> None:
    code, _, errors = stub.run("1 / 0")
    assert code == 1 and "ZeroDivisionError" in errors and "Traceback" in errors
    assert stub.run("os.kill(os.getpid(), 9)")[0] == -9
    assert stub.run("os.abort()")[0] == -6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ignored", [False, True])
def test_signals_reach_the_command(
    stub: Server, number: signal.Signals, ignored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workflow's shells ignore them, and so do clients when they start."""
    before = signal.signal(number, signal.SIG_IGN) if ignored else None
    client = stub.client(SLEEP)
    if ignored:
        signal.signal(number, before)
    process = stub.began(client)
    client.send_signal(number)
    _, errors = client.communicate(timeout=600)
    assert client.returncode == 128 + number and "interrupted" in errors
    assert gone(process)


def test_a_signal_that_comes_before_the_command_can_handle_it_is_not_lost(stub: Server) -> None:
    for _ in range(5):
        client = stub.client(SLEEP)
        stub.forked(client)
        client.send_signal(signal.SIGTERM)
        client.communicate(timeout=600)
        # By its handler, or before it has one: to a shell both are the same.
        assert client.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)


def test_sigusr1_is_passed_on_and_short_work_goes_on(stub: Server) -> None:
    code = "Path('began').touch()\n"
    code += "while not signals.shutdown_requested(): time.sleep(.01)\nprint('asked')"
    client = stub.client(code)
    stub.began(client)
    client.send_signal(signal.SIGUSR1)
    told, _ = client.communicate(timeout=600)
    assert (client.returncode, told) == (0, "asked\n")


def test_a_killed_client_leaves_no_writer(stub: Server) -> None:
    client = stub.client(SLEEP)
    process = stub.began(client)
    client.kill()
    client.communicate()
    wait_until(lambda: gone(process))
    assert stub.run("print(1)")[1] == "1\n"


def test_when_the_template_is_killed_the_command_runs_alone(stub: Server) -> None:
    code = (
        "first = not Path('began').exists(); Path('began').touch(); "
        "time.sleep(60 * first); print('done')"
    )
    client = stub.client(code)
    process = stub.began(client)
    template = process.parent()
    assert template is not None and template.pid != stub.process.pid
    template.kill()
    told, errors = client.communicate(timeout=600)
    assert (client.returncode, told) == (0, "done\n") and "fork server" in errors
    assert gone(process)
    later = stub.client("time.sleep(1)")  # another template takes its place
    assert stub.forked(later).ppid() not in (later.pid, template.pid)
    assert later.wait(600) == 0


def test_a_process_that_nobody_waits_for_has_ended(stub: Server) -> None:
    """In a container the first process may take no notice of orphans: they stay zombies."""
    orphans_of_this_process = 36
    libc = ctypes.CDLL(None)
    libc.prctl(orphans_of_this_process, 1)
    try:
        code = "first = not Path('began').exists(); Path('began').touch(); time.sleep(60 * first)"
        client = stub.client(code)
        process = stub.began(client)
        template = process.parent()
        assert template is not None
        template.kill()
        client.communicate(timeout=600)
        assert client.returncode == 0 and process.status() == psutil.STATUS_ZOMBIE
        os.waitpid(process.pid, 0)
    finally:
        libc.prctl(orphans_of_this_process, 0)


def test_a_full_disk_ends_no_job(stub: Server) -> None:
    """The file with the number of a job's process cannot be written."""
    first = stub.client("Path('began').touch(); time.sleep(2); print(os.getppid())")
    template = stub.began(first).ppid()
    blocked = 'mkdir "${FACTRECALL_FORK_SERVER%/*}/$$"; exec "$0" "$@"'
    second = stub.client("print(os.getppid())", program=["bash", "-c", blocked, sys.executable])
    assert second.communicate(timeout=600)[0] == f"{template}\n"
    assert first.communicate(timeout=600)[0] == f"{template}\n"


def test_other_names_of_the_interpreter_are_the_same(stub: Server) -> None:
    names = {"python", "python3"} - {Path(sys.executable).name}
    other = Path(sys.executable).with_name(names.pop())
    client = stub.client("print(os.getppid())", program=[str(other)])
    assert client.communicate(timeout=600)[0] != f"{os.getpid()}\n"


def test_without_a_server_the_command_runs_alone(stub: Server) -> None:
    stub.process.kill()
    stub.process.wait()
    code, told, errors = stub.run("print(os.getppid())")
    assert (code, told, errors) == (0, f"{os.getpid()}\n", "")


def test_an_interpreter_with_other_variables_is_not_forked(stub: Server) -> None:
    asked = "print(os.getppid())"
    assert stub.run(asked, PYTHONHASHSEED="7")[1] == f"{os.getpid()}\n"
    parents = {n: stub.run(asked, OMP_NUM_THREADS=n)[1] for n in "12"}
    assert len({*parents.values(), f"{os.getpid()}\n"}) == 3  # libraries loaded with each
    assert stub.run(asked, OMP_NUM_THREADS="1")[1] == parents["1"]
    for n in range(3, 3 + fork_server.TEMPLATES):
        last = stub.run(asked, OMP_NUM_THREADS=str(n))[1]
    assert last == f"{os.getpid()}\n"


def test_edited_code_is_not_stale(stub: Server) -> None:
    assert stub.run("print(1)")[1] == "1\n"
    file = stub.folder / "src/factrecall/cli.py"
    file.write_text(STUB.replace("exec(sys.argv[1])", "print('edited')"), encoding="utf-8")
    assert stub.run("print(1)")[1] == "edited\n"


def test_a_job_outlives_the_workflow_and_the_server_ends_with_it(stub: Server) -> None:
    client = stub.client("Path('began').touch(); time.sleep(1); print('done')")
    stub.began(client)
    assert stub.process.stdin is not None
    stub.process.stdin.close()  # as when Snakemake is killed
    assert client.communicate(timeout=600)[0] == "done\n"
    stub.process.wait(600)
    assert not Path(stub.environment["FACTRECALL_FORK_SERVER"]).parent.exists()


def test_benchmarks_count_the_forked_process(stub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BenchmarkTimer, "__init__", BenchmarkTimer.__init__)
    snakemake_patches.count_forked_jobs()
    snakemake_patches.count_forked_jobs()  # as when a workflow is read twice
    monkeypatch.setenv("FACTRECALL_FORK_SERVER", stub.environment["FACTRECALL_FORK_SERVER"])
    work = "held = b'x' * (300 << 20); begin = time.process_time()\n"
    work += "while time.process_time() < begin + .5: pass\n" + SLEEP
    shell = subprocess.Popen(
        ["bash", "-c", '"$0" -m factrecall "$1" | cat', sys.executable, work],
        cwd=stub.folder,
        env=stub.environment,
    )
    wait_until((stub.folder / "began").exists)
    record = BenchmarkRecord()
    BenchmarkTimer(shell.pid, record).work()
    for process in psutil.Process(shell.pid).children(recursive=True):
        process.kill()
    shell.wait(600)
    assert record.max_rss > 300 and record.cpu_time >= 0.5


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTRECALL_FORK_SERVER", "off")
    before = list(fork_server._running)
    fork_server.start()
    assert fork_server._running == before and os.environ["FACTRECALL_FORK_SERVER"] == "off"


def test_without_a_folder_for_it_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**more: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    monkeypatch.setenv("FACTRECALL_FORK_SERVER", "/of/an/outer/workflow")
    fork_server.start()
    assert "FACTRECALL_FORK_SERVER" not in os.environ


@pytest.fixture
def safe(stub: Server) -> Iterator[Server]:
    """A fork server that, like its clients, does not look for modules in its folder."""
    yield from serving(stub.folder, PYTHONPATH=str(stub.folder / "src"), PYTHONSAFEPATH="1")


def test_a_search_path_without_the_folder_stays_so(safe: Server) -> None:
    asked = "print(sys.path)"
    assert safe.run(asked) == safe.alone(asked)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(tmp_path_factory.mktemp("server"), PYTHONPATH=str(SOURCES.parent))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bytes_and_log_as_alone(real: Server, workspace: Workspace, threads: int) -> None:
    study = workspace.study.read_text(encoding="utf-8")
    study = study.replace("device: cpu", f"device: cpu\n  threads: {threads}")
    workspace.study.write_text(study, encoding="utf-8")
    numbers = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    # Threads that spin while they wait take minutes where two share a busy core.
    environment = {**dict.fromkeys(numbers, str(threads)), "OMP_WAIT_POLICY": "passive"}
    out = workspace.folder / "out"
    found = []
    for run in (real.alone, real.run):
        code, _, log = run(*workspace.command("fine-tune"), **environment)
        assert code == 0, log
        files = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        # How often progress is told, and how fast it is, depends on the machine.
        first, *_, last = re.sub(r"[\d.]+/s", "", log).splitlines()
        found.append((files, first, last))
        shutil.rmtree(out)
    assert found[0] == found[1] and found[0][0]


def test_a_users_mistake_has_its_code_and_message(real: Server, workspace: Workspace) -> None:
    line = workspace.command("recall", folder="nowhere")
    alone = real.alone(*line)
    assert alone[0] == 2 and real.run(*line) == alone
