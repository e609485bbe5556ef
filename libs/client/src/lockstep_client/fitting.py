"""How what is shown fits the width that there is, and how times are told as people tell them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table

from lockstep_kit.values import dataclass

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
#: Below so many columns a table of several columns says nothing any more: its rows are shown as blocks.
NARROW: Final = 72


@dataclass(frozen=True, slots=True)
class Fitted:
    """Something that is made anew for each width, in columns, that it is shown in."""

    #: Makes it for a width.
    make: Callable[[int], RenderableType]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """As rich asks for it."""
        del console
        yield self.make(options.max_width)


def plain_table(*headings: str) -> Table:
    """A table without lines, whose cells are folded rather than cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in headings:
        table.add_column(heading, header_style="dim", overflow="fold")
    return table


def span_text(seconds: float) -> str:
    """A span of time in its two largest units."""
    whole = int(seconds)
    for unit, name, smaller, part in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "m"), (_MINUTE, "m", 1, "s")):
        if whole >= unit:
            return f"{whole // unit}{name} {whole % unit // smaller}{part}"
    return f"{max(whole, 0)}s"


def left_text(until: datetime, moment: datetime) -> str:
    """How long it is until then, or how long ago that was."""
    seconds = (until - moment).total_seconds()
    return f"{span_text(seconds)} left" if seconds > 0 else f"{span_text(-seconds)} overdue"
