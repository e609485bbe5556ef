"""Asks about a prepare's preconditions before its transaction is queued. Holds no rules: what is asked, and what answers mean, is the book's.

A leg against which something is known is refused at once, with a reason that says what, and costs no gas. Whatever a node does not answer is held against
nobody: then the transaction itself finds out, and the leg is judged by what that did. No database transaction is open while a node is asked.

What is lost at the edge: the answer is about the latest block. What changes until the transaction is mined is found at finality (`judging`).
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from lockstep_chain.book import Preconditions
from lockstep_chain.ports import Block, Evm, EvmUnavailable, Tag
from lockstep_kit.fields import require
from lockstep_kit.participant.ports import LegWork
from lockstep_kit.participant.records import LegKey
from lockstep_kit.statements import Refusal

_log = structlog.get_logger()


class LegInspector:
    """Asks about legs whose prepare has begun, and that no transaction carries yet."""

    def __init__(self, batch_max: int, preconditions: Preconditions, evm: Evm, operator: str) -> None:
        self._batch_max = batch_max
        self._preconditions = preconditions
        self._evm = evm
        self._operator = operator

    async def objections(self, work: Sequence[LegWork]) -> dict[LegKey, Refusal]:
        """What speaks against legs, each that something speaks against; asked a batch at a time."""
        found: dict[LegKey, Refusal] = {}
        for start in range(0, len(work), self._batch_max):
            batch = work[start : start + self._batch_max]
            for each, objection in zip(batch, await self._objections(batch), strict=True):
                if objection is not None:
                    found[each.plan_id, each.leg_id] = objection
        return found

    async def _objections(self, batch: Sequence[LegWork]) -> Sequence[Refusal | None]:
        try:
            head = await self._evm.block(Tag.LATEST)
            return [None] * len(batch) if head is None else await self._asked(batch, head)
        except EvmUnavailable as error:
            _log.warning("not_inspected", legs=len(batch), error=str(error))
            return [None] * len(batch)

    async def _asked(self, batch: Sequence[LegWork], head: Block) -> Sequence[Refusal | None]:
        rules = self._preconditions
        errors = await self._errors(batch, head)
        failing = [(work, error) for work, error in zip(batch, errors, strict=True) if error]
        if not failing:
            return [None] * len(batch)
        works = [work for work, _ in failing]
        answers = await self._evm.ask(rules.questions(works), at=head)
        refusals = iter(rules.refusals(works, [error for _, error in failing], answers))
        return [next(refusals) if error else None for error in errors]

    async def _errors(self, batch: Sequence[LegWork], head: Block) -> Sequence[str]:
        rules = self._preconditions
        told = await self._evm.rehearse(rules.rehearsal(batch, self._operator), at=head)
        if told is not None:
            return rules.rehearsed(batch, told)
        return rules.prepared(await self._evm.ask(rules.prepares(batch, self._operator), at=head))


async def check_landmarks(evm: Evm, preconditions: Preconditions) -> None:
    """Refuse to begin where a contract of the settings is not on the chain. What the node does not answer is asked again before every promise.

    Raises:
        FieldInvalid: there is no contract at an address, or it answers something else than the settings say.
    """
    landmarks = preconditions.landmarks()
    try:
        head = await evm.block(Tag.LATEST)
        found = [] if head is None else await evm.ask([each.question for each in landmarks], at=head)
    except EvmUnavailable as error:
        _log.warning("contracts_not_checked", error=str(error))
        return
    for landmark, told in zip(landmarks, found, strict=False):
        if told is None or not told.succeeded:
            continue
        require(told.output != b"", landmark.field, f"must be a contract on the chain; there is none at {landmark.question.to}")
        if landmark.answer is not None:
            answer = int.from_bytes(told.output[:32])
            require(answer == landmark.answer, landmark.field, f"must be {answer}, as the contract says")
