"""What operators can do: sign what is to be done about an escalation, and have dead letters sent again. Each request is one transaction with its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from coordinator.answering import held
from coordinator.dossier import Dossier, FiledTicket
from coordinator.engine import Engine, Work
from coordinator.operators import STATE_REASONS, Admitted, OperatorRecord, admit
from coordinator.store import letters, notices, operators, requests
from coordinator.store.letters import DeadLetter
from coordinator.store.operators import Papers
from coordinator.store.requests import Request, RequestRaced
from coordinator.wakes import Flushed
from lockstep_kit.certificate import NotAuthorised
from lockstep_kit.errors import LockstepError, not_found, permission_denied, precondition
from lockstep_kit.ids import Digest, PlanId
from lockstep_kit.resolutions import ResolutionSignature
from lockstep_kit.values import dataclass, replace

if TYPE_CHECKING:
    from lockstep_kit.db import Connection

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
        return await _once(lambda: self._signed(request, plan_id, signed, respond))

    async def _signed(
        self, request: Request, plan_id: PlanId, signed: ResolutionSignature, respond: Callable[[Answer], bytes]
    ) -> bytes:
        try:
            async with self._engine.traces.span("coordinator.resolve", [plan_id]), self._engine.work("resolve") as work:
                told = await _told(work.tx, request)
                if told is not None:
                    return told
                answer = await self._sign(work, await held(work, plan_id), signed)
                response = respond(answer)
                await requests.keep(work.tx, [(request, response)])
                return response
        except asyncpg.UniqueViolationError as error:
            raise operators.nonce_reused(error) from None

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
        return await _once(lambda: self._replayed(request, letter_id, who, respond))

    async def _replayed(self, request: Request, letter_id: str, who: str, respond: Callable[[DeadLetter], bytes]) -> bytes:
        async with self._engine.db.transaction() as tx:
            known = await _told(tx, request)
            if known is not None:
                return known
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
            await requests.keep(tx, [(request, response)])
        if again:
            _log.warning("dead_letter_replayed", plan_id=letter.plan_id, leg_id=letter.leg_id, command=letter.command, who=who)
        self._engine.wake(Flushed(due=told))
        return response


async def _once(work: Callable[[], Awaitable[bytes]]) -> bytes:
    """What a request is answered; sent twice at once, the second finds what the first one did."""
    try:
        return await work()
    except RequestRaced:
        return await work()


async def _told(tx: Connection, request: Request) -> bytes | None:
    """What a request was answered before; None of a new one.

    Raises:
        LockstepError: REQUEST_ID_REUSED; the id was used for something else, or by another client.
    """
    found = (await requests.read(tx, [request])).answers.get(request.request_id)
    if isinstance(found, LockstepError):
        raise found
    return found


def _filed(dossier: Dossier, escalation_id: str) -> FiledTicket:
    return next(each for each in dossier.tickets if each.escalation_id == escalation_id)


def _with(papers: Papers, digest: Digest, admitted: Admitted, now: datetime) -> Papers:
    """The papers with one signature more."""
    signatures = dict(papers.signatures)
    signatures[digest] = (*signatures.get(digest, ()), admitted.record)
    effects = dict(papers.effects) | ({digest: now} if admitted.mandate is not None else {})
    return replace(papers, signatures=signatures, effects=effects)
