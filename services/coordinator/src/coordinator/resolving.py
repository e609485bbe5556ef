"""What operators can do: sign what is to be done about an escalation, and have dead letters sent again. Each request is one transaction with its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import asyncpg
import structlog

from coordinator.dossier import Dossier, FiledTicket
from coordinator.engine import Engine, Work
from coordinator.operators import STATE_REASONS, Admitted, OperatorRecord, admit
from coordinator.settlement import Request, held
from coordinator.store import letters, notices, operators, requests
from coordinator.store.letters import DeadLetter
from coordinator.store.operators import Papers
from coordinator.wakes import Flushed
from lockstep_kit.certificate import NotAuthorised
from lockstep_kit.errors import not_found, permission_denied, precondition
from lockstep_kit.ids import Digest, PlanId
from lockstep_kit.resolutions import ResolutionSignature

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operator's signature brought about."""

    #: The plan, as it is then.
    dossier: Dossier
    #: The escalation, as it is then.
    filed: FiledTicket
    #: What operators signed about it.
    papers: Papers
    #: Whether this signature made the resolution take effect.
    took_effect: bool
    #: The database's clock.
    now: datetime


class Resolving:
    """Escalations, as operators can resolve them."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Final = engine

    async def sign(self, request: Request, signed: ResolutionSignature, respond: Callable[[Answer], bytes]) -> bytes:
        """Keep one operator's signature; the second like one takes effect in the same transaction.

        Raises:
            LockstepError: no such escalation, the signer may not, it cannot be done as the plan stands, or another replica holds the plan.
        """
        resolution = signed.statement.resolution
        async with self._engine.db.connection() as connection:
            plan_id = await operators.plan_of(connection, resolution.escalation_id)
        if plan_id is None:
            raise not_found("escalation", resolution.escalation_id)
        async with self._request(request, plan_id) as (work, told):
            if isinstance(told, bytes):
                return told
            dossier = await held(work, plan_id)
            answer = await self._sign(work, dossier, signed)
            response = respond(answer)
            await requests.answer(work.tx, request.request_id, response)
            return response

    async def _sign(self, work: Work, dossier: Dossier, signed: ResolutionSignature) -> Answer:
        resolution, now = signed.statement.resolution, work.clock
        filed = _filed(dossier, resolution.escalation_id)
        papers = (await operators.papers(work.tx, [filed.escalation_id]))[filed.escalation_id]
        like = papers.signatures.get(resolution.digest, ())
        if resolution.digest in papers.effects or any(each.signed == signed for each in like):
            # What took effect is not done again, and the same signature counts once: this is what stands.
            return Answer(dossier, filed, papers, took_effect=False, now=now)
        admitted = self._admit(dossier, filed, signed, like, now)
        await operators.insert_signature(work.tx, dossier.plan_id, admitted.record)
        papers = _with(papers, resolution.digest, admitted, now)
        if admitted.mandate is not None and admitted.event is not None:
            await operators.insert_resolution(work.tx, dossier.plan_id, admitted.mandate, now)
            work.step(dossier.plan_id, admitted.event)
            _log.warning(
                "resolution",
                plan_id=dossier.plan_id,
                escalation_id=filed.escalation_id,
                verb=resolution.verb,
                leg_id=resolution.leg_id,
                actors=list(admitted.mandate.actors),
            )
        after = work.result(dossier.plan_id)
        return Answer(after, _filed(after, filed.escalation_id), papers, admitted.mandate is not None, now)

    def _admit(
        self, dossier: Dossier, filed: FiledTicket, signed: ResolutionSignature, like: tuple[OperatorRecord, ...], now: datetime
    ) -> Admitted:
        try:
            return admit(dossier, filed, signed, like, self._engine.registry, self._engine.limits, now)
        except NotAuthorised as refusal:
            raised = precondition if refusal.reason in STATE_REASONS else permission_denied
            told = {"plan_id": dossier.plan_id, "escalation_id": filed.escalation_id}
            raise raised(refusal.reason, refusal.detail, **told) from None

    async def replay(self, request: Request, letter_id: str, who: str, respond: Callable[[DeadLetter], bytes]) -> bytes:
        """Have a dead letter's command or notice sent again; one that was sent again before is answered as it stands.

        Raises:
            LockstepError: no such letter.
        """
        async with self._engine.db.transaction() as tx:
            claimed = await requests.claim(tx, request.request_id, request.method, request.digest, request.client)
            if isinstance(claimed, bytes):
                return claimed
            letter = await letters.lock(tx, letter_id)
            if letter is not None:
                found, told = await letters.replay(tx, [letter_id], who)
                letter, again = found[0] if found else letter, bool(found)
            else:
                letter, again = await notices.replay(tx, letter_id, who)
                told = frozenset()
            if letter is None:
                raise not_found("dead_letter", letter_id)
            response = respond(letter)
            await requests.answer(tx, request.request_id, response)
        if again:
            _log.warning("dead_letter_replayed", plan_id=letter.plan_id, leg_id=letter.leg_id, command=letter.command, who=who)
        self._engine.wake(Flushed(told))
        return response

    @asynccontextmanager
    async def _request(self, request: Request, plan_id: PlanId) -> AsyncIterator[tuple[Work, datetime | bytes]]:
        async with self._engine.traces.span("coordinator.resolve", [plan_id]):
            try:
                async with self._engine.work("resolve") as work:
                    yield work, await requests.claim(work.tx, request.request_id, request.method, request.digest, request.client)
            except asyncpg.UniqueViolationError as error:
                raise operators.nonce_reused(error) from None


def _filed(dossier: Dossier, escalation_id: str) -> FiledTicket:
    return next(each for each in dossier.tickets if each.escalation_id == escalation_id)


def _with(papers: Papers, digest: Digest, admitted: Admitted, now: datetime) -> Papers:
    """The papers with one signature more."""
    signatures = dict(papers.signatures)
    signatures[digest] = (*signatures.get(digest, ()), admitted.record)
    effects = dict(papers.effects) | ({digest: now} if admitted.mandate is not None else {})
    return replace(papers, signatures=signatures, effects=effects)
