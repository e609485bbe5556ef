from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep_kit import failpoints
from lockstep_kit.failpoints import FailpointRaised, arm, declare, failpoint, failpoint_names, passed

#: Passes a place five times and says so.
PROGRAM = """
import asyncio
from lockstep_kit.failpoints import arm_from_environment, declare, failpoint

async def main():
    for n in range(1, 6):
        await failpoint("test.write.in_tx", about=[f"plan-{n}", "plan-all"])
        print(n, flush=True)

declare("test.write.in_tx")
arm_from_environment()
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _disarmed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    declare("test.write.in_tx", "test.write.after_commit")
    yield
    monkeypatch.delenv(failpoints.FILE_ENVIRONMENT, raising=False)
    failpoints.arm_from_environment()
    arm("")


def run(armed: str) -> tuple[int, list[str]]:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={failpoints.ENVIRONMENT: armed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stdout.split()


def test_unarmed_nothing_happens() -> None:
    """Without the setting every place is passed."""
    assert run("") == (0, ["1", "2", "3", "4", "5"])


def test_kill_is_kill_9_at_the_nth_pass() -> None:
    """The process dies by SIGKILL in the middle of the third pass."""
    assert run("test.write.in_tx=kill@3") == (-9, ["1", "2"])


def test_passes_about_something_else_do_not_count() -> None:
    """With a subject the process dies at a pass that is about it, counted among those alone."""
    assert run("test.write.in_tx=kill/plan-4") == (-9, ["1", "2", "3"])
    assert run("test.write.in_tx=kill@2/plan-all") == (-9, ["1"])
    assert run("test.write.in_tx=kill@2/plan-4") == (0, ["1", "2", "3", "4", "5"])


async def test_raising_once_and_not_for_ordinary_handlers() -> None:
    """The exception is raised at the nth pass alone, and escapes `except Exception`."""
    arm("test.write.in_tx=raise@2")
    await failpoint("test.write.in_tx")
    assert not issubclass(FailpointRaised, Exception)
    with pytest.raises(FailpointRaised, match="in_tx"):
        await failpoint("test.write.in_tx")
    await failpoint("test.write.in_tx")


async def test_sleeping_takes_the_time() -> None:
    """A sleep takes its milliseconds, at that place only."""
    arm("test.write.in_tx=sleep:120")
    with pytest.raises(StopIteration):
        failpoint("test.write.after_commit").send(None)  # it does not even yield
    began = time.monotonic()
    await failpoint("test.write.in_tx")
    assert time.monotonic() - began >= 0.12


async def test_passes_are_counted_while_armed() -> None:
    """A campaign sees which places were passed since arming, and how often."""
    await failpoint("test.write.in_tx")
    arm("test.write.after_commit=raise@9")
    for name in ("test.write.in_tx", "test.write.in_tx", "test.write.after_commit"):
        await failpoint(name)
    assert passed() == {"test.write.in_tx": 2, "test.write.after_commit": 1}


async def test_a_file_arms_and_disarms_a_running_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file says counts from the next pass on, whether it was written, changed or removed; every pass is noted beside it."""
    file = tmp_path / "armed"
    monkeypatch.setenv(failpoints.FILE_ENVIRONMENT, str(file))
    failpoints.arm_from_environment()
    await failpoint("test.write.in_tx")
    file.write_text("test.write.in_tx=raise")
    with pytest.raises(FailpointRaised):
        await failpoint("test.write.in_tx")
    file.write_text("test.write.after_commit=raise")
    await failpoint("test.write.in_tx")
    file.unlink()
    await failpoint("test.write.after_commit")
    assert (tmp_path / "armed.passed").read_text().split() == [*["test.write.in_tx"] * 3, "test.write.after_commit"]


def test_names_are_known_before_they_are_passed() -> None:
    """Every declared name is listed, once."""
    declare("test.write.in_tx")
    assert failpoint_names().count("test.write.in_tx") == 1


@pytest.mark.parametrize(
    "text",
    ["test.unknown.place=kill", "test.write.in_tx=explode", "test.write.in_tx=kill@0", "test.write.in_tx=kill@x",
     "test.write.in_tx=sleep", "test.write.in_tx=sleep:x", "test.write.in_tx=sleep:9999999", "test.write.in_tx", "test.write.in_tx=kill:1"],
)  # fmt: skip
async def test_what_cannot_be_armed_is_refused(text: str) -> None:
    """An unknown name, action or count arms nothing, not even what stands before it."""
    with pytest.raises(ValueError, match="no "):
        arm(f"test.write.after_commit=raise;{text}")
    await failpoint("test.write.after_commit")


async def test_unarmed_places_cost_next_to_nothing() -> None:
    """A hundred thousand unarmed passes take well under a second of this thread's own time, whatever else the machine does."""
    began = time.thread_time()
    for _ in range(100_000):
        await failpoint("test.write.in_tx")
    assert time.thread_time() - began < 1.0
