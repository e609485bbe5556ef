"""Transactions that callers share: whatever waits when one ends is done together by the next.

One lease for all plans, one reading, one writing. Each caller's steps are its own: where they cannot be, it alone is told so, and the others go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from lockstep_kit.grouping import Grouping, Measures
from lockstep_kit.ids import PlanId
from lockstep_kit.spans import apart
from lockstep_kit.values import dataclass

if TYPE_CHECKING:
    from coordinator.engine import Engine, Work

Answer = TypeVar("Answer")

#: Plans in a transaction; a second one is begun where the first is full. More are for what waits behind somebody else's lock.
MEASURES: Final = Measures(group_max=256, lanes_max=4, lane_min=256, lingers=True)


@dataclass(frozen=True, slots=True)
class Share(Generic[Answer]):
    """What one caller has done in a transaction that it shares with others."""

    #: One of `KINDS`.
    kind: str
    #: Plans that it is about; those that this replica holds are loaded.
    ids: frozenset[PlanId]
    #: Gives loaded plans events. Where it raises, nothing of it stays, the others are none the worse, and `write` is left out.
    step: Callable[[Work], Answer]
    #: Writes what must be in the same transaction.
    write: Callable[[Work], Awaitable[None]] | None = None
    #: Shares are written in this order, so that transactions of several replicas lock in one order what they have in common.
    place: str = ""


class Sharing:
    """Does shares in groups. Shares of one plan are done in the order in which they came."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._group: Grouping[Share[Any], Any] = Grouping("coordinator", self._carry, MEASURES)

    async def done(self, share: Share[Answer]) -> Answer:
        """What a share's step returned, once it is committed.

        Raises:
            Exception: the step's own, or what the transaction ended with.
        """
        answer: Answer = await self._group.carried(share, share.ids, len(share.ids))
        return answer

    async def drained(self) -> None:
        """Return once nothing is under way."""
        await self._group.drained()

    async def _carry(self, shares: Sequence[Share[Any]]) -> Sequence[Any]:
        # It is done for all of them, and is part of no one's call.
        apart()
        about: dict[str, set[PlanId]] = {}
        for each in shares:
            about.setdefault(each.kind, set()).update(each.ids)
        async with AsyncExitStack() as stack:
            for kind, ids in about.items():
                await stack.enter_async_context(self._engine.traces.span(f"coordinator.{kind}", ids))
            work = await stack.enter_async_context(self._engine.work(*about))
            await work.load({plan_id for ids in about.values() for plan_id in ids})
            answers = [work.attempt(each) for each in shares]
            done = [each for each, answer in zip(shares, answers, strict=True) if not isinstance(answer, Exception)]
            for each in sorted(done, key=lambda share: share.place):
                if each.write is not None:
                    await each.write(work)
        return answers
