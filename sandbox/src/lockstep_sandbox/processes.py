"""Child processes that are stopped whatever happens.

What is guaranteed: each program runs in a process group of its own; it is killed by the kernel when the supervisor's process dies,
also by kill -9 (PR_SET_PDEATHSIG, through util-linux' setpriv, because code between fork and exec in a process with threads may
deadlock); it is stopped, in the reverse of the order of starting, when the supervisor is left by its end, an exception or a cancellation
(see `cancel_on_signals` for Ctrl-C and SIGTERM), and killed if it does not stop within its grace.

What is lost at the edge: the kernel's signal reaches a program, not the programs that it started itself; give such programs a shell
that passes it on, or none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

#: How often a process is asked whether it is ready or gone.
POLL_SECONDS = 0.02
LOG_LINES_SHOWN = 30
#: Longest until the kernel has taken away what was killed.
GONE_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Program:
    """What is started, and when it counts as ready. Starting it again uses the very same command: ports stay."""

    #: Unique within a supervisor; names its log file.
    name: str
    #: The program and its arguments.
    command: Sequence[str]
    #: Added to the environment of this process.
    environ: Mapping[str, str] = field(default_factory=dict)
    #: Asked until it answers True; an exception counts as no, and is told if it stays so. None: ready once started.
    ready: Callable[[], Awaitable[bool]] | None = None
    #: How long it may take until it is ready.
    ready_seconds_max: float = 300.0
    #: How it is asked to stop.
    stop_signal: signal.Signals = signal.SIGTERM
    #: How long it may take to stop before it is killed.
    grace_seconds: float = 30.0


class ProgramFailed(Exception):
    """A program ended, or was not ready in time; `log` holds the last lines that it wrote."""

    def __init__(self, name: str, reason: str, log: str) -> None:
        super().__init__(f"{name} {reason}" + (f"; its last lines:\n{log}" if log else ""))
        self.name = name
        self.reason = reason
        self.log = log


class Supervisor:
    """Starts, watches and stops programs; logs go to `<directory>/<name>.log`, appended over restarts.

    Use as an async context manager, from the main thread: the kernel ties a child's life to the thread that started it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._programs: dict[str, Program] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.shield(self.stop_all())

    async def start(self, *programs: Program) -> None:
        """Starts programs at the same time and returns when every one is ready.

        Raises:
            ProgramFailed: One ended or was not ready in time. The others stay; leaving the supervisor stops them.
            ValueError: A program of that name runs already.
        """
        for program in programs:
            if self.is_running(program.name):
                raise ValueError(f"{program.name} runs already")
            self._programs[program.name] = program
            self._running.pop(program.name, None)
            self._running[program.name] = self._spawn(program)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._wait_until_ready(program)) for program in programs]
        for task in tasks:
            if failure := task.result():
                raise failure

    async def restart(self, name: str) -> None:
        """Starts a program that ended, or stops and starts one that runs; returns when it is ready.

        Raises:
            ProgramFailed: It ended or was not ready in time.
            KeyError: No program of that name was ever started.
        """
        program = self._programs[name]
        await self.stop(name)
        await self.start(program)

    async def stop(self, name: str) -> None:
        """Asks a program to stop, and kills it when its grace is over. One that does not run is fine."""
        process = self._running.get(name)
        if process is None:
            return
        program = self._programs[name]
        if process.poll() is None:
            self._signal(process, program.stop_signal)
            if not await self._ended(process, program.grace_seconds):
                self._signal(process, signal.SIGKILL)
                await self._ended(process, GONE_SECONDS_MAX)
        self._sweep(process)
        self._running.pop(name, None)

    async def stop_all(self) -> None:
        """Stops everything, last started first."""
        for name in reversed(self.names()):
            await self.stop(name)

    async def kill9(self, name: str) -> None:
        """Kills a program and its group with SIGKILL and waits until it is gone; `restart` brings it back."""
        process = self._running[name]
        self._signal(process, signal.SIGKILL)
        await self._ended(process, GONE_SECONDS_MAX)

    async def wait_until_ended(self, name: str, seconds_max: float) -> int:
        """Waits for a program to end by itself, as at a failpoint; returns its exit code, -9 when it was killed.

        Raises:
            TimeoutError: It still runs.
        """
        process = self._running[name]
        if not await self._ended(process, seconds_max):
            raise TimeoutError(f"{name} still runs after {seconds_max} s")
        return process.returncode

    def program(self, name: str) -> Program:
        """What was started under a name.

        Raises:
            KeyError: no program of that name was ever started.
        """
        return self._programs[name]

    def pause(self, name: str) -> None:
        """Stops a program from running without ending it (SIGSTOP): the others see it hang."""
        self._signal(self._running[name], signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Lets a paused program run again."""
        self._signal(self._running[name], signal.SIGCONT)

    def is_running(self, name: str) -> bool:
        """Whether a program was started and has not ended."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def pid(self, name: str) -> int:
        """The process id of a running program.

        Raises:
            KeyError: It does not run.
        """
        return self._running[name].pid

    def names(self) -> list[str]:
        """The programs that were started and not stopped, in the order of their first start."""
        return [name for name in self._programs if name in self._running]

    def ended(self) -> dict[str, int]:
        """Exit codes of the programs that ended though nobody stopped them."""
        return {name: code for name, process in self._running.items() if (code := process.poll()) is not None}

    def log_path(self, name: str) -> Path:
        """Where a program's output goes."""
        return self._directory / f"{name}.log"

    def log_tail(self, name: str) -> str:
        """The last lines of a program's output."""
        try:
            text = self.log_path(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-LOG_LINES_SHOWN:])

    def resident_bytes(self) -> dict[str, int]:
        """Resident memory of each running program with the processes of its group, as the kernel counts it."""
        page = os.sysconf("SC_PAGE_SIZE")
        sums: dict[str, int] = {}
        groups = {process.pid: name for name, process in self._running.items() if process.poll() is None}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                name = groups.get(os.getpgid(int(entry.name)))
                if name is not None:
                    sums[name] = sums.get(name, 0) + int((entry / "statm").read_text().split()[1]) * page
        return sums

    # -- inside ------------------------------------------------------------------------------------------------------

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        with self.log_path(program.name).open("ab") as log:
            return subprocess.Popen(
                tied(program.command, "KILL"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **program.environ},
                start_new_session=True,
            )

    async def _wait_until_ready(self, program: Program) -> ProgramFailed | None:
        process, deadline = self._running[program.name], time.monotonic() + program.ready_seconds_max
        answer = ""
        while True:
            if (code := process.poll()) is not None:
                return ProgramFailed(program.name, f"ended with {code}", self.log_tail(program.name))
            if program.ready is None:
                return None
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), 0.1)):
                    if await program.ready():
                        return None
            except Exception as error:  # noqa: BLE001 - a client says in ways of its own that nobody answers yet
                answer = f" ({type(error).__name__}: {error})"
            if time.monotonic() > deadline:
                reason = f"was not ready within {program.ready_seconds_max:g} s{answer}"
                return ProgramFailed(program.name, reason, self.log_tail(program.name))
            await asyncio.sleep(POLL_SECONDS)

    @staticmethod
    async def _ended(process: subprocess.Popen[bytes], seconds_max: float) -> bool:
        deadline = time.monotonic() + seconds_max
        while process.poll() is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """To the whole group; its leader may be gone while others of it live."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    def _sweep(self, process: subprocess.Popen[bytes]) -> None:
        """Kills what an ended program left behind in its group."""
        self._signal(process, signal.SIGKILL)


@contextlib.contextmanager
def cancel_on_signals() -> Iterator[None]:
    """While inside, Ctrl-C, SIGTERM and a closed terminal cancel the current task, once: its context managers then stop everything.

    Raises:
        RuntimeError: There is no running task.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    if task is None:
        raise RuntimeError("outside of a task")
    asked = False

    def stop() -> None:
        nonlocal asked
        if not asked:
            asked = True
            task.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def tied(command: Sequence[str], death_signal: str) -> list[str]:
    """A command whose process is sent a signal when this process dies.

    The kernel tells nobody of a death before PR_SET_PDEATHSIG: a child whose parent is another one by then ends at once.

    Raises:
        FileNotFoundError: util-linux is not installed.
    """
    found = shutil.which("setpriv")
    if found is None:
        raise FileNotFoundError("setpriv is missing: install util-linux")
    still_mine = 'test "$PPID" = "$1" || exit 1; shift; exec "$@"'
    return [found, "--pdeathsig", death_signal, "--", "/bin/sh", "-c", still_mine, "sh", str(os.getpid()), *command]
