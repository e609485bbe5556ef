"""Requests of clients, done together: one transaction for those that waited while the one before was under way, whether they came alone or in batches.

A transaction holds at most one request about each plan, so that each answer is of the plan as that request left it. A request that is refused keeps no other
from being done, and leaves no row; one that the database turns away, since another replica was faster, has the group taken apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import asyncpg

from coordinator.dossier import Dossier
from coordinator.engine import Engine, Work
from coordinator.store import plans, reading, requests
from coordinator.store.requests import Request, RequestRaced
from lockstep_kit.certificate import NotAuthorised
from lockstep_kit.db import violated
from lockstep_kit.errors import LockstepError, not_found, unavailable
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.grouping import Grouping, Measures
from lockstep_kit.ids import PlanId
from lockstep_kit.rpc.arrows import BATCH_MAX
from lockstep_kit.spans import apart, cause_traceparent, plan_spans
from lockstep_kit.statements import GateSignature
from lockstep_kit.values import dataclass, replace

if TYPE_CHECKING:
    from lockstep_kit.db import Connection

#: Requests that one transaction does: a whole batch.
_REQUESTS_MAX: Final = BATCH_MAX
#: Transactions of a kind of request that are under way at a time; the second is begun where enough waits, or one is held up by a lock.
_LANES_MAX: Final = 4
#: What a plan's answer is made of.
Respond = Callable[[Dossier], bytes]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """A request, and what is to be done."""

    #: The request.
    request: Request
    #: The plan that it is about.
    plan_id: PlanId
    #: Makes its answer.
    respond: Respond
    #: Trace context of the call, for the plan that it creates.
    cause: str | None = None
    #: Trace context that the work goes on in.
    traceparent: str | None = None

    @property
    def signature(self) -> GateSignature | None:
        """The person's signature that it brings."""
        return None

    @property
    def keys(self) -> frozenset[str]:
        """What no two requests of one transaction have in common."""
        signed = self.signature
        nonces = () if signed is None else (f"nonce {signed.signature.key_id} {signed.statement.nonce.hex()}",)
        return frozenset((f"plan {self.plan_id}", f"request {self.request.request_id}", *nonces))


_AskedT = TypeVar("_AskedT", bound=Asked)


@dataclass(frozen=True, slots=True)
class Refusals:
    """Why requests were refused, by request id."""

    errors: dict[str, Exception] = field(default_factory=dict)

    @contextmanager
    def of(self, asked: Asked) -> Iterator[None]:
        """What is refused inside is this request's answer, and nobody else's."""
        try:
            yield
        except (LockstepError, FieldInvalid, NotAuthorised) as error:
            self.errors[asked.request.request_id] = error

    def add(self, asked: Asked, error: Exception) -> None:
        """Refuse a request."""
        self.errors[asked.request.request_id] = error

    def __contains__(self, asked: Asked) -> bool:
        return asked.request.request_id in self.errors


class PlanRaced(Exception):
    """Another transaction has created a plan of the same id meanwhile; nothing of this one must stay."""

    def __init__(self, refusal: LockstepError) -> None:
        super().__init__(refusal)
        #: What the request is answered that comes second.
        self.refusal: Final = refusal


class _NothingDone(Exception):
    """Every request was answered before, or refused: nothing of the transaction must stay."""


#: Does new requests in a transaction, at the database's clock; what it notes as refused was not done.
Do = Callable[[Work, Sequence[_AskedT], datetime, Refusals], Awaitable[None]]


class Answering(Generic[_AskedT]):
    """Requests of one kind."""

    def __init__(self, engine: Engine, kind: str, do: Do[_AskedT]) -> None:
        self._engine: Final = engine
        self._kind: Final = kind
        self._do = do
        self._group: Grouping[_AskedT, bytes] = Grouping(
            f"coordinator.{kind}", self._carry, Measures(_REQUESTS_MAX, _LANES_MAX, _REQUESTS_MAX, lingers=True), distinct=True
        )

    async def one(self, asked: _AskedT) -> bytes:
        """A request's answer.

        Raises:
            FieldInvalid, LockstepError, NotAuthorised: it is refused.
        """
        async with self._telling([asked]) as told:
            with self._engine.pressure.timed(self._kind):
                return await self._begun(told[0])

    async def each(self, asked: Sequence[_AskedT]) -> list[bytes | Exception]:
        """The answer of each request, or why it has none; those about one plan are done in their order."""
        if not asked:
            return []
        async with self._telling(asked) as told:
            with self._engine.pressure.timed(self._kind):
                answers = await asyncio.gather(*map(self._begun, told), return_exceptions=True)
        found: list[bytes | Exception] = []
        for each in answers:
            if isinstance(each, BaseException) and not isinstance(each, Exception):
                raise each
            found.append(each)
        return found

    def _begun(self, asked: _AskedT) -> asyncio.Future[bytes]:
        return self._group.begun(asked, asked.keys, 1)

    @asynccontextmanager
    async def _telling(self, asked: Sequence[_AskedT]) -> AsyncIterator[list[_AskedT]]:
        """A span in the trace of each plan, in whose context the work goes on; a plan that is about to be created belongs to the trace of the call."""
        ids = list(dict.fromkeys(each.plan_id for each in asked))
        traces = dict.fromkeys(ids) if self._kind == "create" else await self._engine.traces.of(ids)
        with plan_spans(f"coordinator.{self._kind}", traces) as inside:
            cause = cause_traceparent()
            yield [replace(each, cause=cause, traceparent=inside[each.plan_id]) for each in asked]

    async def drained(self) -> None:
        """Return once nothing is under way."""
        await self._group.drained()

    async def _carry(self, group: Sequence[_AskedT]) -> Sequence[bytes | Exception]:
        # It is done for all of them, and is part of no one's call.
        apart()
        with plan_spans(f"coordinator.{self._kind}.group", {each.plan_id: each.traceparent for each in group}):
            try:
                return await self._done(group)
            except (RequestRaced, PlanRaced, asyncpg.UniqueViolationError) as error:
                if len(group) > 1:
                    raise
                return [await self._after(group[0], error)]

    async def _done(self, group: Sequence[_AskedT]) -> list[bytes | Exception]:
        answers: dict[str, bytes | Exception] = {}
        try:
            async with self._engine.work(self._kind) as work:
                known, refused = await requests.read(work.tx, [each.request for each in group]), Refusals()
                answers.update(known.answers)
                fresh = [each for each in group if each.request.request_id not in answers]
                if fresh:
                    await self._do(work, fresh, known.now, refused)
                    answers.update(refused.errors)
                    answers.update(await self._meanwhile(work.tx, [each for each in fresh if each in refused]))
                made = [(each.request, each.respond(work.result(each.plan_id))) for each in fresh if each not in refused]
                if not made:
                    raise _NothingDone
                await requests.keep(work.tx, made)
                answers.update((request.request_id, response) for request, response in made)
        except _NothingDone:
            pass
        return [answers[each.request.request_id] for each in group]

    @staticmethod
    async def _meanwhile(connection: Connection, refused: Sequence[_AskedT]) -> dict[str, bytes | LockstepError]:
        """Answers of those among refused requests that another replica did while this one waited for their plans: that is why they were refused."""
        return dict((await requests.read(connection, [each.request for each in refused])).answers) if refused else {}

    async def _after(self, asked: _AskedT, error: Exception) -> bytes | Exception:
        """What a request is answered whose transaction came second."""
        async with self._engine.db.connection() as connection:
            found = await self._meanwhile(connection, [asked])
        if asked.request.request_id in found:
            return found[asked.request.request_id]
        if violated(error) == plans.NONCE_KEY:
            return plans.nonce_reused()
        if isinstance(error, PlanRaced):
            return error.refusal
        raise error


async def held(work: Work, plan_id: PlanId) -> Dossier:
    """A plan that this replica holds until the transaction ends.

    Raises:
        LockstepError: no such plan, or another replica is working on it.
    """
    refused, asked = await _held(work, [plan_id])
    if plan_id in refused:
        raise refused[plan_id]
    return asked[plan_id]


async def load(work: Work, asked: Sequence[_AskedT], refused: Refusals) -> list[tuple[_AskedT, Dossier]]:
    """Requests with their plans, which this replica holds until the transaction ends; those whose plans it does not hold are refused."""
    errors, found = await _held(work, [each.plan_id for each in asked])
    for each in asked:
        if each.plan_id in errors:
            refused.add(each, errors[each.plan_id])
    return [(each, found[each.plan_id]) for each in asked if each not in refused]


async def _held(work: Work, ids: Sequence[PlanId]) -> tuple[dict[PlanId, LockstepError], dict[PlanId, Dossier]]:
    found = await work.load(ids)
    missing = [each for each in ids if each not in found]
    known = await reading.known(work.tx, missing) if missing else frozenset()
    why = {
        each: unavailable("PLAN_HELD_ELSEWHERE", "another replica is working on the plan; try again")
        if each in known
        else not_found("plan", each)
        for each in missing
    }
    return why, {each: found[each] for each in ids if each in found}
