"""ReconciliationService: what the bank's statements say against our books. Read-only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import grpc

from bank_gateway import statement_store
from bank_gateway.operations import Known
from bank_gateway.payments import credit_terms
from lockstep.bank.v1 import reconciliation_service_pb2 as messages
from lockstep.bank.v1 import reconciliation_service_pb2_grpc
from lockstep.type.v1 import amount_pb2
from lockstep_kit import ids
from lockstep_kit.convert import amount_to_pb, time_to_pb
from lockstep_kit.db import Database
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import LegWork

#: Breaks that are listed at the most.
BREAKS_MAX: Final = 1000
PAGE_DEFAULT: Final = 200
PAGE_MAX: Final = 500
PLANS_MAX: Final = 200
TOKEN_LENGTH_MAX: Final = 100


class ReconciliationServicer(reconciliation_service_pb2_grpc.ReconciliationServiceServicer):
    """Read-only."""

    def __init__(self, db: Database, engine: ParticipantEngine) -> None:
        self._db = db
        self._engine = engine

    async def GetReconciliation(  # noqa: N802 - the protocol's name
        self, request: messages.GetReconciliationRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> messages.GetReconciliationResponse:
        """What was reconciled of a booking day, and every break that is open."""
        del context
        day = _day(request.booking_date)
        async with self._db.connection() as connection:
            accounts = await statement_store.day(connection, day)
            breaks = await statement_store.open_breaks(connection, BREAKS_MAX + 1)
        return messages.GetReconciliationResponse(
            accounts=[_account(row) for row in accounts],
            breaks=[_break(row) for row in breaks[:BREAKS_MAX]],
            more_breaks=len(breaks) > BREAKS_MAX,
        )

    async def ListBookings(  # noqa: N802 - the protocol's name
        self, request: messages.ListBookingsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> messages.ListBookingsResponse:
        """The bookings that the bank told, of a booking day or of plans."""
        del context
        size = request.page_size or PAGE_DEFAULT
        require(1 <= size <= PAGE_MAX, "page_size", f"must be 1 to {PAGE_MAX}")
        require(bool(request.booking_date) != bool(request.plan_ids), "booking_date", "must be present, or plan_ids, but not both")
        require(len(request.plan_ids) <= PLANS_MAX, "plan_ids", f"must be at most {PLANS_MAX}")
        plan_ids = [ids.plan_id(each, f"plan_ids[{place}]") for place, each in enumerate(request.plan_ids)]
        day = _day(request.booking_date) if request.booking_date else None
        require(
            len(request.page_token) <= TOKEN_LENGTH_MAX and request.page_token.isprintable(),
            "page_token",
            "must be the token of a response",
        )
        after_plan, _, after_leg = request.page_token.partition("/")
        async with self._db.transaction() as tx:
            rows = await statement_store.bookings(tx, day, plan_ids, (after_plan, after_leg), size + 1)
            works = await self._engine.load(tx, [(PlanId(row["plan_id"]), LegId(row["leg_id"])) for row in rows[:size]])
        last = rows[size - 1] if len(rows) > size else None
        legs = {(each.plan_id, each.leg_id): each for each in works}
        return messages.ListBookingsResponse(
            bookings=[_booking(row, legs[row["plan_id"], row["leg_id"]]) for row in rows[:size]],
            next_page_token="" if last is None else f"{last['plan_id']}/{last['leg_id']}",
        )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise FieldInvalid("booking_date", "must be a day, as in 2026-11-21") from error


def _account(row: Mapping[str, Any]) -> messages.AccountDay:
    counts = {
        name: row[name]
        for name in ("account", "statement_id", "number", "times", "entries", "matched", "settled", "others", "breaks")
    }
    return messages.AccountDay(**counts, reconcile_time=time_to_pb(row["reconciled_at"]))


def _break(row: Mapping[str, Any]) -> messages.Break:
    return messages.Break(
        matter=row["matter"],
        kind=row["kind"],
        account=row["account"],
        booking_date=row["booking_date"].isoformat(),
        amount=amount_pb2.Amount(asset=row["asset"], minor_units=row["minor_units"], scale=row["scale"]),
        plan_id=row["plan_id"] or "",
        leg_id=row["leg_id"] or "",
        uetr=row["uetr"],
        sentence=row["sentence"],
        open_time=time_to_pb(row["recorded_at"]),
    )


def _booking(row: Mapping[str, Any], work: LegWork) -> messages.Booking:
    known = Known(**json.loads(row["status"]))
    return messages.Booking(
        plan_id=row["plan_id"],
        leg_id=row["leg_id"],
        uetr=row["uetr"],
        amount=amount_to_pb(credit_terms(work.binding).amount),
        account=known.booking_account,
        booking_date=known.booked_on,
        booking_reference=known.booking_reference,
        stated=row["stated"],
    )
