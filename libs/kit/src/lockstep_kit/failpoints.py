"""Named places at which a test can make the process die, wait or fail. Inert unless armed.

A name is `<service>.<operation>.<where>`. Every name is declared where it is used, so that a campaign can count them all and find one that was never hit.
Armed by the setting LOCKSTEP_FAILPOINTS: `name=action[@nth][/subject]`, parted by semicolons; an action is kill, raise or sleep:<milliseconds>.
With a subject (a plan id) only passes that are about it count: what else the process has to do goes on.
LOCKSTEP_FAILPOINTS_FILE names a file that holds the same and is read again whenever it has changed, so that a campaign need not restart a process to arm it;
every place that is passed is appended to that file's neighbour `<file>.passed`, a line each.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENVIRONMENT: Final = "LOCKSTEP_FAILPOINTS"
FILE_ENVIRONMENT: Final = "LOCKSTEP_FAILPOINTS_FILE"
SLEEP_MILLISECONDS_MAX: Final = 600_000

_declared: set[str] = set()
_passed: dict[str, int] = {}
_armed: dict[str, _Armed] = {}
_watched: _Watched | None = None


class FailpointRaised(BaseException):
    """A failpoint was armed with `raise`; no handler for ordinary errors may swallow it."""


@dataclass(slots=True)
class _Armed:
    action: str
    nth: int
    subject: str
    hits: int = 0


@dataclass(slots=True)
class _Watched:
    """The file that arms this process, and what was last read of it."""

    path: Path
    read: tuple[int, int] = (0, 0)

    def look(self) -> None:
        """Arm anew if the file has changed; one that is gone or says nothing disarms."""
        try:
            stat = self.path.stat()
            found = stat.st_mtime_ns, stat.st_ino
            text = self.path.read_text() if found != self.read else ""
        except FileNotFoundError:
            found, text = (0, 0), ""
        if found != self.read:
            self.read = found
            arm(text)

    def note(self, name: str) -> None:
        """Write down that a place was passed; one write, so that lines of several processes do not mix."""
        with self.path.with_name(f"{self.path.name}.passed").open("a") as file:
            file.write(f"{name}\n")


def declare(*names: str) -> None:
    """Make names known, so that they can be armed and counted."""
    _declared.update(names)


def failpoint_names() -> tuple[str, ...]:
    """Every name that the loaded modules declare, sorted."""
    return tuple(sorted(_declared))


def passed() -> dict[str, int]:
    """How often each place was passed since failpoints were last armed; nothing is counted while none is."""
    return dict(_passed)


def arm(text: str) -> None:
    """Arm failpoints instead of those armed before; an empty text disarms all.

    Raises:
        ValueError: a name that nobody declared, an action that is none, or a count below one; nothing is armed then.
    """
    _armed.clear()
    _passed.clear()
    wanted: dict[str, _Armed] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, _, told = part.partition("=")
        told, _, subject = told.partition("/")
        action, _, nth = told.partition("@")
        verb, _, argument = action.partition(":")
        if name not in _declared:
            raise ValueError(f"no failpoint is named {name}")
        known = verb in ("kill", "raise") and not argument
        sleeps = verb == "sleep" and argument.isdigit() and int(argument) <= SLEEP_MILLISECONDS_MAX
        if not known and not sleeps:
            raise ValueError(f"{action} is no action of a failpoint")
        if nth and not (nth.isdigit() and int(nth) >= 1):
            raise ValueError(f"{nth} is no count of hits")
        wanted[name] = _Armed(action, int(nth or 1), subject)
    _armed.update(wanted)


def arm_from_environment() -> None:
    """Arm what the environment says; called once, when everything is imported."""
    global _watched  # noqa: PLW0603 - one process, one file
    arm(os.environ.get(ENVIRONMENT, ""))
    path = os.environ.get(FILE_ENVIRONMENT, "")
    _watched = _Watched(Path(path)) if path else None


async def failpoint(name: str, about: Collection[str] = ()) -> None:
    """Do what this place is armed with at its nth hit; nothing otherwise. `about` names the plans that this pass serves."""
    if _watched is not None:
        _watched.look()
        _watched.note(name)
    if not _armed:
        return
    _passed[name] = _passed.get(name, 0) + 1
    armed = _armed.get(name)
    if armed is None or (armed.subject and armed.subject not in about):
        return
    armed.hits += 1
    if armed.hits != armed.nth:
        return
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if armed.action == "raise":
        raise FailpointRaised(name)
    await asyncio.sleep(int(armed.action.partition(":")[2]) / 1000)
