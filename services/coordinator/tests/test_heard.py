"""When a participant was last heard is shown: it goes on while nothing happens, and stands still where its stream brings nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from prometheus_client import CollectorRegistry


async def test_a_participant_is_heard_while_nothing_happens(world: Any, shown: CollectorRegistry) -> None:
    """Its heartbeats count; a stream that is lost again and again does not, whatever other participants show."""

    def heard(name: str) -> float:
        found = shown.get_sample_value("lockstep_participant_heard_timestamp_seconds", {"participant": name})
        return 0.0 if found is None else found

    async def until(name: str, moment: float) -> None:
        async with asyncio.timeout(30):
            while heard(name) <= moment:  # noqa: ASYNC110 - a metric tells nobody
                await asyncio.sleep(0.02)

    cash, other = world.parties["bank-gateway"], world.parties["dlt-gateway"]
    began = time.time()
    async with world.coordinator():
        await until(cash.name, began)
        await until(cash.name, time.time())
        cash.servicer.hoarse = True
        # What was under way when it was lost may still be taken.
        lost = time.time()
        await until(other.name, lost + 1.0)
        still = heard(cash.name)
        await until(other.name, time.time() + 1.0)
        assert heard(cash.name) == still
        cash.servicer.hoarse = False
        await until(cash.name, time.time())
