"""How requests are sent again; what they are put to answers as it is told, without a sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest

from lockstep.coordinator.v1.settlement_pb2 import Plan
from lockstep_bench.transport import OVERLOADED, SETTINGS, TRIES_MAX, asked
from lockstep_client.gathering import Gathered
from lockstep_kit.errors import LockstepError


async def test_only_what_was_begun_waits_for_room() -> None:
    """A plan that is turned away is not brought again; one that is there is started once there is room; any other trouble is tried again, not for ever."""
    tried: list[str] = []

    async def full(requests: Sequence[int]) -> list[Plan | LockstepError]:
        tried.append("full")
        away = LockstepError(grpc.StatusCode.UNAVAILABLE, OVERLOADED, "too much is under way", retry_after=timedelta())
        return [away if len(tried) < TRIES_MAX + 3 else Plan() for _ in requests]

    async def down(requests: Sequence[int]) -> list[Plan | LockstepError]:
        tried.append("down")
        raise LockstepError(grpc.StatusCode.UNAVAILABLE, "DOWN", "nobody answers")

    brief = replace(SETTINGS, pause_seconds_max=0.001)
    with pytest.raises(LockstepError, match=OVERLOADED):
        await asked(Gathered(full), 1, patient=False, settings=brief)
    assert tried == ["full"]
    await asked(Gathered(full), 1, patient=True, settings=brief)
    assert tried == ["full"] * (TRIES_MAX + 3)
    with pytest.raises(LockstepError, match="DOWN"):
        await asked(Gathered(down), 1, patient=True, settings=brief)
    assert tried.count("down") == TRIES_MAX
