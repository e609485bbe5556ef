"""A screen that is read anew again and again, with keys: q ends it, arrows scroll. What cannot be read now leaves the last picture, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from lockstep_client.commands.context import console
from lockstep_client.commands.failures import explained
from lockstep_client.fitting import span_text
from lockstep_client.overview import Overview, overview_renderable
from lockstep_kit.errors import LockstepError

#: Lines that the sums and what is below the plans take; a plan takes two at the most where it is narrow, and seldom more.
_LINES_BESIDE: Final = 9
_UP, _DOWN, _PAGE_UP, _PAGE_DOWN = b"\x1b[A", b"\x1b[B", b"\x1b[5~", b"\x1b[6~"
#: The last is what a terminal that is gone says.
_QUIT: Final = (b"q", b"Q", b"\x03", b"")
_STEPS: Final = {_UP: -1, _DOWN: 1, _PAGE_UP: -10, _PAGE_DOWN: 10}


class Screen:
    """What is on the screen, and what the keys did to it."""

    def __init__(self, overview: Overview) -> None:
        self.overview = overview
        self.trouble: LockstepError | None = None
        self.ended = asyncio.Event()
        self._skip = 0

    def key(self, pressed: bytes) -> None:
        """Heed a key."""
        if pressed in _QUIT:
            self.ended.set()
        self._skip = min(max(self._skip + _STEPS.get(pressed, 0), 0), max(len(self.overview.plans) - 1, 0))

    def drawn(self, height: int) -> RenderableType:
        """The picture for a terminal of so many lines."""
        parts = [overview_renderable(self.overview, skip=self._skip, rows_max=(height - _LINES_BESIDE) // 2)]
        if self.trouble is not None:
            age = span_text((datetime.now(UTC) - self.overview.moment).total_seconds())
            parts.append(Text(f"as of {age} ago: {explained(self.trouble).cause}", style="bold red"))
        return Group(*parts)


async def shown_again(read: Callable[[], Awaitable[Overview]], every_seconds: float) -> None:
    """Show an overview, read anew every so often, until q is pressed.

    Raises:
        LockstepError: it was refused, or the first could not be read.
    """
    out = console()
    screen = Screen(await read())
    with (
        _keys(screen.key),
        Live(get_renderable=lambda: screen.drawn(out.height), console=out, screen=True, refresh_per_second=4),
    ):
        while not screen.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_seconds):
                    await screen.ended.wait()
                    break
            try:
                screen.overview, screen.trouble = await read(), None
            except LockstepError as error:
                screen.trouble = error


@contextlib.contextmanager
def _keys(pressed: Callable[[bytes], None]) -> Iterator[None]:
    """Tell of every key at once, without its being shown; only where the input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    loop = asyncio.get_running_loop()
    tty.setcbreak(number)

    def read() -> None:
        try:
            said = os.read(number, 16)
        except OSError:
            said = b""
        pressed(said)

    loop.add_reader(number, read)
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
