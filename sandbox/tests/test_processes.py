from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep_sandbox.ports import free_ports, listens
from lockstep_sandbox.processes import Program, ProgramFailed, Supervisor, tied

pytestmark = pytest.mark.integration

PYTHON = sys.executable
FOREVER = (PYTHON, "-c", "import time; print('up', flush=True); time.sleep(600)")
STUBBORN = (
    PYTHON,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
)
#: Starts two children of which one has a child of its own, says so, and waits to be ended.
PARENT = """
import asyncio, sys
from pathlib import Path
from lockstep_sandbox.processes import Program, Supervisor, cancel_on_signals

async def main():
    folder = Path(sys.argv[1])
    with cancel_on_signals():
        async with Supervisor(folder) as supervisor:
            for name in ("one", "two"):
                await supervisor.start(Program(name, (sys.executable, "-c", "import time; time.sleep(600)")))
            (folder / "pids").write_text(" ".join(str(supervisor.pid(name)) for name in ("one", "two")))
            await asyncio.Event().wait()

try:
    asyncio.run(main())
except asyncio.CancelledError:
    (Path(sys.argv[1]) / "left").touch()
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not come to hold in time"
        await asyncio.sleep(0.02)


async def start_parent(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    parent = subprocess.Popen([PYTHON, "-c", PARENT, str(folder)], start_new_session=True)  # noqa: ASYNC220 - is quick
    await until(lambda: (folder / "pids").exists() and len((folder / "pids").read_text().split()) == 2)
    return parent, [int(pid) for pid in (folder / "pids").read_text().split()]


def test_a_child_of_a_dead_parent_begins_nothing(tmp_path: Path) -> None:
    """A child that comes to its tie after its parent's death, here under a parent of another number, ends at once."""
    touched = tmp_path / "touched"
    orphan = subprocess.run(["/bin/sh", "-c", '"$@"; exit $?', "sh", *tied(["touch", str(touched)], "KILL")], check=False)
    assert (orphan.returncode, touched.exists()) == (1, False)
    subprocess.run(tied(["touch", str(touched)], "KILL"), check=True)
    assert touched.exists()


async def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    """When the supervisor's process is killed with SIGKILL, no child outlives it."""
    parent, children = await start_parent(tmp_path)
    assert all(lives(pid) for pid in children)
    parent.kill()
    parent.wait()
    await until(lambda: not any(lives(pid) for pid in children))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal stop every child before the process ends."""
    parent, children = await start_parent(tmp_path)
    parent.send_signal(number)
    parent.send_signal(number)
    await until(lambda: parent.poll() is not None)
    assert not any(lives(pid) for pid in children)
    assert (tmp_path / "left").exists()


async def test_children_stop_in_reverse_order_on_an_exception(tmp_path: Path) -> None:
    """An exception inside the supervisor stops the children, last started first."""
    ends = tmp_path / "ends"
    program = f"import signal, sys, time; signal.signal(15, lambda *_: (open({str(ends)!r}, 'a').write(sys.argv[1]), sys.exit()))"
    program += "; print('up', flush=True); time.sleep(600)"
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - what happens before the exception is the point
        async with Supervisor(tmp_path) as supervisor:
            for name in "abc":

                async def ready(name: str = name) -> bool:
                    return "up" in supervisor.log_tail(name)

                await supervisor.start(Program(name, (PYTHON, "-c", program, name), ready=ready))
            raise ZeroDivisionError
    assert ends.read_text() == "cba"


async def test_a_stubborn_child_is_killed_after_its_grace(tmp_path: Path) -> None:
    """A child that does not answer SIGTERM is killed once its grace is over."""
    async with Supervisor(tmp_path) as supervisor:

        async def ready() -> bool:
            return "up" in supervisor.log_tail("stubborn")

        await supervisor.start(Program("stubborn", STUBBORN, ready=ready, grace_seconds=0.3))
        pid, began = supervisor.pid("stubborn"), time.monotonic()
        await supervisor.stop("stubborn")
        assert not lives(pid)
        assert 0.3 <= time.monotonic() - began < 30


async def test_grandchildren_are_stopped_too(tmp_path: Path) -> None:
    """What a child started itself is stopped with it, even if the child was killed."""
    code = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(Program("parent", (PYTHON, "-c", f"{code}; print(p.pid, flush=True); time.sleep(600)")))
        await until(lambda: supervisor.log_tail("parent").strip().isdigit())
        grandchild = int(supervisor.log_tail("parent"))
        await supervisor.kill9("parent")
        await until(lambda: not lives(grandchild))


async def test_a_failing_program_is_reported_with_its_log(tmp_path: Path) -> None:
    """A program that ends before it is ready is reported with its exit code and the last lines of its log."""

    async def never() -> bool:
        return False

    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(ProgramFailed, match="ended with 3") as failure:
            await supervisor.start(Program("fails", (PYTHON, "-c", "print('no such table'); raise SystemExit(3)"), ready=never))
        assert "no such table" in failure.value.log


async def test_a_program_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    """Waiting for readiness is bounded, also when the check itself hangs."""

    async def hangs() -> bool:
        await asyncio.sleep(600)
        return True

    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(ProgramFailed, match=r"not ready within 0\.3 s"):
            await supervisor.start(Program("slow", FOREVER, ready=hangs, ready_seconds_max=0.3))


async def test_why_a_program_is_not_ready_is_told(tmp_path: Path) -> None:
    """Whatever the check raises counts as not ready, and the last of it is told when the time is over."""

    async def refuses() -> bool:
        raise LookupError("no such service")

    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(ProgramFailed, match="LookupError: no such service"):
            await supervisor.start(Program("odd", FOREVER, ready=refuses, ready_seconds_max=0.2))


async def test_a_restarted_program_keeps_its_place(tmp_path: Path) -> None:
    """What was started first is stopped last, even if it was restarted since: others may stand on it."""
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(Program("base", FOREVER))
        await supervisor.start(Program("above", FOREVER))
        await supervisor.restart("base")
        assert supervisor.names() == ["base", "above"]


async def test_a_killed_program_comes_back_on_its_port(tmp_path: Path) -> None:
    """After kill -9, restart starts the same command on the same port, and the log goes on."""
    (port,) = free_ports(1)
    command = (PYTHON, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path))

    async def ready() -> bool:
        return await listens(port)

    async with Supervisor(tmp_path / "logs") as supervisor:
        await supervisor.start(Program("web", command, ready=ready))
        first = supervisor.pid("web")
        await supervisor.kill9("web")
        assert supervisor.ended() == {"web": -signal.SIGKILL}
        assert not await listens(port)
        await supervisor.restart("web")
        assert supervisor.pid("web") != first
        assert await listens(port)
        assert supervisor.resident_bytes()["web"] > 1_000_000
    assert not await listens(port)


async def test_a_name_is_used_once(tmp_path: Path) -> None:
    """Two running programs cannot have one name: the first would be forgotten."""
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(Program("same", FOREVER))
        with pytest.raises(ValueError, match="same runs already"):
            await supervisor.start(Program("same", FOREVER))


async def test_a_program_that_kills_itself_is_waited_for(tmp_path: Path) -> None:
    """A crash at a failpoint is seen as exit code -9; a program that goes on is a timeout."""
    told = tmp_path / "told"
    crash = f"import os, time\nwhile not os.path.exists({str(told)!r}): time.sleep(0.01)\nos.kill(os.getpid(), 9)"
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(Program("crash", (PYTHON, "-c", crash)), Program("lives", FOREVER))
        # Not before it was seen to have started: one that ends before that has failed.
        told.touch()
        assert await supervisor.wait_until_ended("crash", 60) == -signal.SIGKILL
        with pytest.raises(TimeoutError):
            await supervisor.wait_until_ended("lives", 0.1)


def test_ports_are_distinct_and_free() -> None:
    """No port is given twice, even before its owner listens."""
    ports = [*free_ports(20), *free_ports(20)]
    assert len(set(ports)) == 40
