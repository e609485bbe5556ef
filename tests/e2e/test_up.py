"""`make up`: it stays while all its processes do, says which one ended if one did, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

SECONDS_MAX = 120


def processes(base: Path) -> dict[int, str]:
    """The processes that were started with a path below `base`, by id: what they were started with."""
    found = {}
    for each in Path("/proc").glob("[0-9]*"):
        try:
            line = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(base) in line:
            found[int(each.name)] = line
    return found


@asynccontextmanager
async def up(base: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Everything, once it says that it is up."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lockstep_sandbox.up", cwd=base, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS_MAX):
            line = await process.stdout.readuntil(b"\n")
        assert b"Everything is up" in line
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


@pytest.mark.parametrize("ends", ["notary", "nothing"])
async def test_up(ends: str, tmp_path: Path) -> None:
    """A process that ends by itself ends everything, with its name, its log and a failure; whoever asks for the end gets it without one."""
    async with up(tmp_path) as process:
        running = processes(tmp_path)
        assert len(running) > 5
        if ends == "notary":
            os.kill(next(pid for pid, line in running.items() if " -m notary " in line), signal.SIGKILL)
        else:
            process.terminate()
        async with asyncio.timeout(SECONDS_MAX):
            _, said = await process.communicate()
    if ends == "notary":
        assert process.returncode == 1
        assert b"notary ended by itself with -9; the end of " in said
        assert b'"service": "notary"' in said
    else:
        assert (process.returncode, said) == (0, b"")
    assert processes(tmp_path) == {}
