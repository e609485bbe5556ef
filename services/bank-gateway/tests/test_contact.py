"""When the bank was last heard of: whatever it answers counts, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bank_gateway.contact import NotedRail
from bank_gateway.rail import Accepted, Delivery, Handover, MailboxUnavailable, Message, NoAnswer, Release, Request, TurnedDown


class ScriptedRail:
    """Gives the next of some answers; an error is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.closed = False

    def _next(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def hand_over(self, requests: Sequence[Request]) -> Sequence[Handover]:
        return [self._next() for _ in requests]

    async def receive(self, after: int, wait_seconds: float) -> Sequence[Delivery]:
        del after, wait_seconds
        answer: Sequence[Delivery] = self._next()
        return answer

    async def acknowledge(self, upto: int) -> None:
        del upto
        self._next()

    async def close(self) -> None:
        self.closed = True


async def test_answers_and_silence_are_noted() -> None:
    """A bank that takes, turns down or lets its mailbox be read has answered; silence is noted with its reason and takes nothing back."""
    refused = MailboxUnavailable("the mailbox is shut")
    inner = ScriptedRail(NoAnswer("timed out"), Accepted(), NoAnswer("reset"), TurnedDown("400", "", "no"), refused, [], None)
    rail = NotedRail(inner)
    assert (rail.answered_at, rail.failure) == (None, "")
    assert await rail.hand_over([Message(b"x", "1")]) == [NoAnswer("timed out")]
    assert (rail.answered_at, rail.failure) == (None, "timed out")
    assert await rail.hand_over([Release("u", b"k", "2")]) == [Accepted()]
    first = rail.answered_at
    assert first is not None
    assert rail.failure == ""
    assert await rail.hand_over([Message(b"x", "3")]) == [NoAnswer("reset")]
    assert (rail.answered_at, rail.failure) == (first, "reset")
    assert await rail.hand_over([Message(b"x", "3")]) == [TurnedDown("400", "", "no")]
    assert rail.failure == ""
    with pytest.raises(MailboxUnavailable):
        await rail.receive(0, 1.0)
    assert rail.failure == "the mailbox is shut"
    assert await rail.receive(0, 1.0) == []
    assert rail.failure == ""
    await rail.acknowledge(1)
    await rail.close()
    assert inner.closed
