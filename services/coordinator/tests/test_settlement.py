"""Whole settlements, over gRPC, with real databases."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest

from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit.errors import from_rpc
from lockstep_kit.statements import Gate


async def test_a_plan_settles(world: Any) -> None:
    """A plan whose participants promise, and whose people sign, is settled, notarised, sealed and closed."""
    async with world.coordinator():
        plan = await world.settled()
        found = await world.get(plan)
        assert found.reason == ""
        assert world.journal.types(plan) == [
            "plan.created",
            "plan.initiated",
            "plan.initiated",
            "plan.ready",
            *["leg.prepared"] * 4,
            "plan.approved",
            "plan.released",
            *["leg.executed"] * 2,
            "evidence.validated",
            "plan.committed",
        ]
        for name, phases in [(party.name, await party.phases(plan)) for party in world.parties.values()]:
            assert list(phases.values()) == ["COMMITTED"], name
