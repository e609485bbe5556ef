"""What is read from rows, periodically: one statement gives several metrics. Only reads, and at the most `ROWS_MAX` rows of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from lockstep_kit.db import Connection
from lockstep_kit.metrics.definitions import Definition, Kind
from lockstep_kit.values import dataclass

#: A statement that gives more rows has a label whose values are not few; what is above is left out.
ROWS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Sampled:
    """One number."""

    #: Name of its metric.
    name: str
    #: Values of its labels, in their order.
    labels: tuple[str, ...]
    #: The number, in the unit of the name.
    value: float


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of a statement, and the metric that it is."""

    #: The column.
    column: str
    #: Name of the metric.
    name: str
    #: One sentence, with the unit.
    text: str


class Reading(Protocol):
    """Something that is read."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """The metrics that come of it, all of them gauges."""
        ...

    async def read(self, connection: Connection) -> Sequence[Sampled]:
        """Their numbers now, in a read-only transaction."""
        ...


@dataclass(frozen=True, slots=True)
class Query:
    """A statement, whose columns are labels and numbers."""

    #: For people.
    name: str
    #: It selects the labels and the measures by their names.
    statement: str
    #: Columns that are labels.
    labels: tuple[str, ...]
    #: Columns that are numbers.
    measures: tuple[Measure, ...]
    #: Labels that are shown with zeros where no row has them: what is not there cannot be told from what was not read.
    known: tuple[tuple[str, ...], ...] = ()

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """A gauge for each measure."""
        return tuple(Definition(each.name, Kind.GAUGE, each.text, self.labels) for each in self.measures)

    async def read(self, connection: Connection) -> Sequence[Sampled]:
        """A number for each row and measure."""
        rows = await connection.fetch(f"select * from ({self.statement}) as reading limit {ROWS_MAX}")
        found = {tuple(str(row[label]) for label in self.labels): row for row in rows}
        return [
            Sampled(measure.name, labels, float((found[labels][measure.column] if labels in found else None) or 0))
            for labels in dict.fromkeys((*self.known, *found))
            for measure in self.measures
        ]


@dataclass(frozen=True, slots=True)
class Connected:
    """What takes code to tell from rows."""

    #: For people.
    name: str
    #: The metrics that come of it.
    definitions: tuple[Definition, ...]
    #: Reads them.
    work: Callable[[Connection], Awaitable[Sequence[Sampled]]]

    async def read(self, connection: Connection) -> Sequence[Sampled]:
        """What the code tells."""
        return await self.work(connection)
