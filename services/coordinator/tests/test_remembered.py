"""What is remembered of plans is asked for by their ids: a request costs the same however many other plans are remembered beside its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, cast

from coordinator.plan_traces import PlanTraces
from coordinator.store import changes
from lockstep_kit.db import Connection, Database
from lockstep_kit.ids import PlanId

OWN, OTHER = PlanId("own"), PlanId("other")


class Walked(AssertionError):
    """Everything that is remembered was gone through."""


class ByKeyOnly(OrderedDict[PlanId, Any]):
    """Tells what stands under a key, and refuses to be gone through."""

    def __iter__(self) -> Iterator[PlanId]:
        raise Walked

    def keys(self) -> Any:
        raise Walked


class Log:
    """A connection on which the log of changes is read."""

    def __init__(self, plan_ids: tuple[PlanId, ...]) -> None:
        self._rows = [
            {"sequence": at, "plan_id": each, "event": b"", "state": "PREPARED"} for at, each in enumerate(plan_ids, start=8)
        ]
        #: The plans of which it was asked how many changes they had before.
        self.counted: list[PlanId] = []

    async def fetch(self, statement: str, *values: Any) -> list[Mapping[str, Any]]:
        """What a statement shows."""
        if statement == changes.LOG:
            return [*self._rows]
        assert statement == changes.BEFORE
        self.counted.extend(values[0])
        return [{"plan_id": each, "number": 4} for each in values[0]]


async def test_traces_are_asked_for_by_plan() -> None:
    """Of plans that are remembered nothing else is looked at, and the database is not asked."""
    traces = PlanTraces(cast("Database", None))
    traces._known = ByKeyOnly({OWN: "00-a", OTHER: None})
    assert await traces.of([OWN, OTHER]) == {OWN: "00-a", OTHER: None}


async def test_changes_are_counted_by_plan() -> None:
    """Only of a plan that is not known it is asked how many changes it had."""
    log = Log((OWN, OTHER, OWN))
    found = await changes.log(cast("Connection", log), 7, 10, ByKeyOnly({OWN: 2}))
    assert [(each.plan_id, each.number) for each in found] == [(OWN, 3), (OTHER, 5), (OWN, 4)]
    assert log.counted == [OTHER]
