"""The judge beside another replica's: what that has seen to meanwhile is no matter for a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from lockstep_chain import leg_store, legs
from lockstep_chain.legs import WORKING, LegJudge
from lockstep_kit.fence import Phase
from lockstep_kit.participant.ports import LegWork
from lockstep_kit.participant.records import LegKey
from lockstep_testkit.factories import delivery_versus_payment, leg_work


class _Database:
    """Hands out connections that ask nothing."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        yield None


class _Engine:
    """Legs as they stand when they are loaded, which is later than they were listed."""

    def __init__(self, legs: dict[LegKey, LegWork]) -> None:
        self._legs = legs

    async def load(self, _: object, legs: Sequence[LegKey], *, phases: Collection[Phase]) -> list[LegWork]:
        return [self._legs[key] for key in legs if self._legs[key].phase in phases]


async def test_a_leg_that_was_answered_since_it_was_listed_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the list and the legs another replica answers one: it owes nothing, and the pages behind it are judged all the same."""
    plans = [delivery_versus_payment() for _ in range(2)]
    answered, owing = (
        leg_work(plan.binding("tokens"), phase) for plan, phase in zip(plans, (Phase.PREPARED, Phase.PREPARING), strict=True)
    )
    listed: list[list[LegKey]] = [[(each.plan_id, each.leg_id)] for each in (answered, owing)] + [[]]
    judged: list[LegWork] = []

    async def unanswered(*_: object) -> list[LegKey]:
        return listed.pop(0)

    async def last_orders(_: object, due: Sequence[LegWork]) -> dict[LegKey, Any]:
        return {}

    async def judge_batch(due: Sequence[LegWork], _: object) -> None:
        judged.extend(due)

    monkeypatch.setattr(leg_store, "unanswered", unanswered)
    monkeypatch.setattr(leg_store, "last_orders", last_orders)
    monkeypatch.setattr(legs, "JUDGED_MAX", 1)
    engine = _Engine({(each.plan_id, each.leg_id): each for each in (answered, owing)})
    nothing = cast("Any", None)
    judge = LegJudge(cast("Any", _Database()), cast("Any", engine), nothing, nothing, nothing, nothing)
    monkeypatch.setattr(judge, "_judge_batch", judge_batch)
    assert await judge.round() is None
    assert judged == [owing]
    assert Phase.PREPARED not in WORKING
