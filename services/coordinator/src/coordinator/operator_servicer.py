"""OperatorService: check, convert, call, convert.

Every method is about every plan: its callers are operators, and auditors where it only reads. The settings are refused where a row says otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import grpc

from coordinator import exposure
from coordinator.admission import Admission
from coordinator.convert import operators as convert
from coordinator.convert import settlement
from coordinator.dossier import Dossier
from coordinator.engine import Engine
from coordinator.exposure import AtRisk, Exposure
from coordinator.pages import octets_of, request_of, time_place, time_token
from coordinator.resolving import Answer, Resolving
from coordinator.store import letters, notices, operators, plans
from coordinator.store.letters import DeadLetter
from coordinator.store.operators import Wanted
from coordinator.waiting import waiting
from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.coordinator.v1 import operator_service_pb2_grpc
from lockstep_kit import ids
from lockstep_kit.errors import not_found
from lockstep_kit.fields import require
from lockstep_kit.forms import check_text
from lockstep_kit.ids import PlanId

Context = grpc.aio.ServicerContext[Any, Any]

PAGE_MAX: Final = 200
PAGE_DEFAULT: Final = 50
LEGS_PAGE_MAX: Final = 1_000
LEGS_PAGE_DEFAULT: Final = 200
#: Plans that are read at a time when all is summed up.
PLANS_AT_ONCE: Final = 200
#: A reason is short, and a filter need not take more.
REASON_LENGTH_MAX: Final = 63
#: The ids of escalations and dead letters are shorter.
ID_LENGTH_MAX: Final = 100
#: Ten years.
AGE_SECONDS_MAX: Final = 315_360_000


class OperatorServicer(operator_service_pb2_grpc.OperatorServiceServicer):
    """What operators call."""

    def __init__(self, engine: Engine, resolving: Resolving, admission: Admission) -> None:
        self._engine = engine
        self._resolving = resolving
        self._admission = admission

    async def ListEscalations(  # noqa: N802
        self, request: messages.ListEscalationsRequest, context: Context
    ) -> messages.ListEscalationsResponse:
        """Escalations, newest first."""
        del context
        size = _size(request.page_size, PAGE_MAX, PAGE_DEFAULT)
        before = time_place("escalations", request.page_token) if request.page_token else None
        check_text(request.reason, "reason", length_max=REASON_LENGTH_MAX, empty=True)
        plan_id = ids.plan_id(request.plan_id) if request.plan_id else ""
        wanted = Wanted(convert.open_from_pb(request.filter), plan_id, request.reason)
        async with self._engine.db.snapshot() as tx:
            page = await operators.page(tx, before, wanted, size + 1)
            files = await self._files(tx, [(name, plan_id) for name, plan_id, _ in page[:size]])
        last = page[size - 1] if len(page) > size else None
        return messages.ListEscalationsResponse(
            escalations=files,
            next_page_token="" if last is None else time_token("escalations", last[2], last[0]),
        )

    async def GetEscalation(  # noqa: N802
        self, request: messages.GetEscalationRequest, context: Context
    ) -> messages.GetEscalationResponse:
        """One escalation, with its plan."""
        del context
        check_text(request.escalation_id, "escalation_id", length_max=ID_LENGTH_MAX)
        async with self._engine.db.snapshot() as tx:
            plan_id = await operators.plan_of(tx, request.escalation_id)
            if plan_id is None:
                raise not_found("escalation", request.escalation_id)
            (file,) = await self._files(tx, [(request.escalation_id, plan_id)])
            read = await plans.read(tx, [plan_id])
        dossier, now = read.dossiers[plan_id], read.now
        if now is None:
            raise AssertionError("the plan of an escalation stays")
        return messages.GetEscalationResponse(
            escalation=file,
            plan=settlement.plan_to_pb(dossier, waiting(dossier, self._engine.registry, self._engine.limits)),
            legs=[convert.exposure_to_pb(dossier, each, now) for each in exposure.exposures(dossier)],
        )

    async def _files(self, connection: Any, wanted: Sequence[tuple[str, PlanId]]) -> list[messages.EscalationFile]:
        """The escalations, in the order in which they are wanted."""
        read = await plans.read(connection, {plan_id for _, plan_id in wanted})
        if read.now is None:
            return []
        papers = await operators.papers(connection, [name for name, _ in wanted])
        found = []
        for name, plan_id in wanted:
            dossier = read.dossiers[plan_id]
            filed = next(each for each in dossier.tickets if each.escalation_id == name)
            registry, limits = self._engine.registry, self._engine.limits
            found.append(convert.file_to_pb(dossier, filed, papers[name], registry, limits, read.now))
        return found

    async def SignResolution(  # noqa: N802
        self, request: messages.SignResolutionRequest, context: Context
    ) -> messages.SignResolutionResponse:
        """One operator's signature."""
        named = request_of("SignResolution", request.request_id, request, self._admission.client(context))
        signed = convert.signed_from_pb(request)

        def respond(answer: Answer) -> bytes:
            registry, limits = self._engine.registry, self._engine.limits
            file = convert.file_to_pb(answer.dossier, answer.filed, answer.papers, registry, limits, answer.now)
            return octets_of(messages.SignResolutionResponse(escalation=file, took_effect=answer.took_effect))

        return messages.SignResolutionResponse.FromString(await self._resolving.sign(named, signed, respond))

    # -- Money at risk -----------------------------------------------------------------------------------------------

    async def ListInDoubt(self, request: messages.ListInDoubtRequest, context: Context) -> messages.ListInDoubtResponse:  # noqa: N802
        """What is at risk: sums over every plan, and a page of legs."""
        del context
        size = _size(request.page_size, LEGS_PAGE_MAX, LEGS_PAGE_DEFAULT)
        after = ids.plan_id(request.page_token, "page_token") if request.page_token else ""
        require(0 <= request.age_min.seconds <= AGE_SECONDS_MAX, "age_min", f"must be 0 to {AGE_SECONDS_MAX} seconds")
        age = timedelta(seconds=request.age_min.seconds, microseconds=request.age_min.nanos // 1000)
        legs: list[messages.InDoubtLeg] = []
        totals: tuple[AtRisk, ...] = ()
        more, last, now = "", "", None
        async for dossier, now, found in self._at_risk(age):
            totals = exposure.together(totals, exposure.by_asset(found))
            if dossier.plan_id <= after or more:
                continue
            # A plan's legs stay on one page, so that a page ends between plans.
            if legs and len(legs) + len(found) > size:
                more = last
                continue
            legs.extend(convert.exposure_to_pb(dossier, each, now) for each in found)
            last = dossier.plan_id
        shown = [] if now is None else convert.totals_to_pb(totals, now)
        return messages.ListInDoubtResponse(totals=shown, legs=legs, next_page_token=more)

    async def _at_risk(self, age: timedelta) -> AsyncIterator[tuple[Dossier, datetime, tuple[Exposure, ...]]]:
        """Every plan of which something is at risk, by its id."""
        after = ""
        while True:
            async with self._engine.db.snapshot() as tx:
                page = await operators.at_risk(tx, after, PLANS_AT_ONCE)
                read = await plans.read(tx, page)
            for plan_id, dossier in sorted(read.dossiers.items()):
                if read.now is not None:
                    found = exposure.older_than(exposure.exposures(dossier), age, read.now)
                    if found:
                        yield dossier, read.now, found
                after = plan_id
            if len(page) < PLANS_AT_ONCE:
                return

    # -- Dead letters ------------------------------------------------------------------------------------------------

    async def ListDeadLetters(  # noqa: N802
        self, request: messages.ListDeadLettersRequest, context: Context
    ) -> messages.ListDeadLettersResponse:
        """Dead letters, newest first."""
        del context
        size = _size(request.page_size, PAGE_MAX, PAGE_DEFAULT)
        before = time_place("dead_letters", request.page_token) if request.page_token else None
        async with self._engine.db.connection() as connection:
            commands = await letters.page(connection, before, size + 1, replayed=request.include_replayed)
            told = await notices.page(connection, before, size + 1, replayed=request.include_replayed)
        page = sorted((*commands, *told), key=lambda each: (each.dead_at, each.dead_letter_id), reverse=True)[: size + 1]
        last = page[size - 1] if len(page) > size else None
        return messages.ListDeadLettersResponse(
            dead_letters=[convert.letter_to_pb(each) for each in page[:size]],
            next_page_token="" if last is None else time_token("dead_letters", last.dead_at, last.dead_letter_id),
        )

    async def ReplayDeadLetter(  # noqa: N802
        self, request: messages.ReplayDeadLetterRequest, context: Context
    ) -> messages.ReplayDeadLetterResponse:
        """Send a dead letter's command again."""
        client = self._admission.client(context)
        named = request_of("ReplayDeadLetter", request.request_id, request, client)
        check_text(request.dead_letter_id, "dead_letter_id", length_max=ID_LENGTH_MAX)

        def respond(letter: DeadLetter) -> bytes:
            return octets_of(messages.ReplayDeadLetterResponse(dead_letter=convert.letter_to_pb(letter)))

        answer = await self._resolving.replay(named, request.dead_letter_id, client.client_id, respond)
        return messages.ReplayDeadLetterResponse.FromString(answer)


def _size(asked: int, most: int, otherwise: int) -> int:
    """The page's size.

    Raises:
        FieldInvalid: it is out of bounds.
    """
    require(0 <= asked <= most, "page_size", f"must be at most {most}")
    return asked or otherwise
