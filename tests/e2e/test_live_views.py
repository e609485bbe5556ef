"""`lockstep watch` and `lockstep top` as people have them: on a terminal, in place; on a pipe, line by line."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.command_line import PROGRAM, lockstep
from lockstep_testkit.crew import Crew

SECONDS_MAX = 180.0
COLUMNS, LINES = 100, 40
#: What moves the cursor up: a picture that is drawn over the one before.
REDRAWN = re.compile(rb"\x1b\[(?:\d+A|1A|H)")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Terminal:
    """A command on a terminal of its own."""

    process: asyncio.subprocess.Process
    number: int
    octets: bytearray = field(default_factory=bytearray)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def read(self) -> None:
        try:
            self.octets += os.read(self.number, 65_536)
        except OSError:
            # The other end is closed: the command has ended.
            asyncio.get_running_loop().remove_reader(self.number)
        self.news.set()

    @property
    def text(self) -> str:
        """What was written so far, without what moves and colours."""
        return ESCAPES.sub("", self.octets.decode(errors="replace"))

    async def until(self, shown: Callable[[str], bool]) -> None:
        try:
            async with asyncio.timeout(SECONDS_MAX):
                while not shown(self.text):
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(f"not shown: {self.text[-4_000:]}") from None


@asynccontextmanager
async def on_a_terminal(*arguments: str, sandbox: Sandbox) -> AsyncIterator[Terminal]:
    """The command, begun on a terminal; it is killed if it has not ended."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *arguments, "--config", str(sandbox.client_configuration),
        stdin=its, stdout=its, stderr=its, env=environ | {"TERM": "xterm-256color"}, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    terminal = Terminal(process, ours)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, terminal.read)
    try:
        yield terminal
    finally:
        loop.remove_reader(ours)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(ours)


async def test_a_plan_on_a_terminal(sandbox: Sandbox, crew: Crew) -> None:
    """A plan is drawn in place with what is left of its limits, through a restart of the coordinator, until it is closed; the exit code says how."""
    plan = await crew.started(crew.payments())
    plan_id = plan.header.plan_id
    async with on_a_terminal("watch", plan_id, sandbox=sandbox) as terminal:
        await crew.awaiting(plan_id, "release")
        await terminal.until(lambda text: "waits for release signature" in text and " left)" in text)
        await sandbox.supervisor.kill9("coordinator")
        await terminal.until(lambda text: "the coordinator does not answer" in text)
        await sandbox.supervisor.restart("coordinator")
        await crew.driven(plan_id)
        async with asyncio.timeout(SECONDS_MAX):
            code = await terminal.process.wait()
        await terminal.until(lambda text: "CLOSED / COMMIT / COMMITTED" in text)
    assert code == 0
    assert REDRAWN.search(terminal.octets)
    assert b"\x1b[3" in terminal.octets


async def test_a_plan_on_a_pipe(sandbox: Sandbox, crew: Crew) -> None:
    """On a pipe each change is one line, nothing is coloured or drawn over, and a plan that was aborted ends with 1."""
    plan = await crew.started(crew.payments())
    plan_id = plan.header.plan_id
    watching = asyncio.create_task(lockstep("watch", plan_id, sandbox=sandbox))
    await crew.awaiting(plan_id, "release")
    code, _, error = await lockstep("plan", "cancel", plan_id, "--key", str(sandbox.keys["approver"].private_file), sandbox=sandbox)
    assert code == 0, error
    code, printed, error = await watching
    assert code == 1
    assert error.startswith("PLAN_ABORTED: ")
    assert "\x1b" not in printed
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3}  CLOSED", printed, re.MULTILINE)


async def test_all_plans(sandbox: Sandbox, crew: Crew) -> None:
    """All open plans are shown with who is awaited: again and again on a terminal until q is pressed, once on a pipe."""
    plan_id, other_id = [(await crew.started(crew.payments())).header.plan_id for _ in range(2)]
    for each in (plan_id, other_id):
        await crew.awaiting(each, "release")
    code, printed, error = await lockstep("--color", "never", "top", sandbox=sandbox)
    assert (code, error) == (0, "")
    assert "\x1b" not in printed
    assert "awaited: " in printed
    assert plan_id in printed
    assert other_id in printed
    async with on_a_terminal("top", "--every", "1", sandbox=sandbox) as terminal:
        await terminal.until(lambda text: "releaser" in text)
        os.write(terminal.number, b"\x1b[B")
        await terminal.until(lambda text: "1 above" in text)
        os.write(terminal.number, b"q")
        async with asyncio.timeout(SECONDS_MAX):
            assert await terminal.process.wait() == 0
    await crew.driven(plan_id)
    await crew.driven(other_id)
