"""`lockstep reconcile`: a booking day, three ways."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lockstep_client.commands.context import Config, Json, Refused, console, emit, read_configuration, run

if TYPE_CHECKING:
    from lockstep.bank.v1 import reconciliation_service_pb2 as reconciliation
    from lockstep.coordinator.v1.settlement_pb2 import Plan
    from lockstep_client.client import LockstepClient
    from lockstep_client.configuration import ClientConfiguration
    from lockstep_client.reconciliation import BankBooking, Difference, PlanResult
    from lockstep_kit.ids import LegId

#: A plan that is older than this when its day begins has ended before: no hold lasts that long.
LOOKED_BACK: Final = timedelta(days=14)
#: Plans whose bookings are asked for in one go.
ASKED_MAX: Final = 200


def reconcile(
    day: Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="Booking day, as the bank has it.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Compare a day of the bank's statements with the coordinator's evidence and the chain's, plan by plan; list what is open.

    Exits 1 while a break is open.
    """

    async def work() -> None:
        from lockstep_client.reconciliation_rendering import document_of, report_of

        configuration = read_configuration(config)
        report, plans = await _compared(configuration, _day(day))
        document = document_of(day, report, plans)
        if as_json:
            emit(document)
        else:
            console().print(report_of(document))
        if document["open"]:
            raise Refused(
                "RECONCILIATION_BREAKS", f"{document['open']} breaks are open; a person must look into each", {"date": day}
            )

    run(work, json_wanted=as_json)


def _day(text: str) -> date:
    from lockstep_kit.fields import FieldInvalid

    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise FieldInvalid("--date", "must be a day, as in 2026-11-21") from error


async def _compared(
    configuration: ClientConfiguration, day: date
) -> tuple[reconciliation.GetReconciliationResponse, Sequence[PlanResult]]:  # fmt: skip
    from lockstep_client.client import LockstepClient
    from lockstep_client.convert import plan_from_pb
    from lockstep_client.readers import ReconciliationClient
    from lockstep_client.reconciliation import compare
    from lockstep_kit.fields import FieldInvalid

    if configuration.bank_gateway is None:
        raise FieldInvalid("bank_gateway", "must be present in the configuration, to ask the bank-gateway for its reconciliation")
    async with (
        ReconciliationClient(configuration.bank_gateway, configuration.tls) as bank,
        LockstepClient(configuration.coordinator, configuration.tls) as coordinator,
    ):
        report = await bank.get_reconciliation(day)
        bookings = [each async for each in bank.list_bookings(day=day)]
        views = await _ended_on(coordinator, day)
        for plan_id in sorted({each.plan_id for each in bookings} - views.keys()):
            views[plan_id] = await coordinator.get_plan(plan_id)
        others = sorted(views.keys() - {each.plan_id for each in bookings})
        for begin in range(0, len(others), ASKED_MAX):
            bookings += [each async for each in bank.list_bookings(plan_ids=others[begin : begin + ASKED_MAX])]
    of_plan = _by_plan(bookings)
    breaks = _open(report.breaks)
    return report, [
        compare(plan_from_pb(plan), of_plan.get(plan_id, {}), breaks.get(plan_id, {}), _undone(plan))
        for plan_id, plan in sorted(views.items())
    ]


async def _ended_on(coordinator: LockstepClient, day: date) -> dict[str, Plan]:
    """Plans that came to their end on the day, by UTC."""
    from lockstep_client.convert import state_name
    from lockstep_client.reconciliation import OVER

    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found: dict[str, Plan] = {}
    async for plan in coordinator.list_plans(page_size=200):
        if plan.create_time.ToDatetime(UTC) < begin - LOOKED_BACK:
            break
        if begin <= plan.update_time.ToDatetime(UTC) < begin + timedelta(days=1) and state_name(plan.state) in OVER:
            found[plan.header.plan_id] = plan
    return found


def _undone(plan: Plan) -> frozenset[LegId]:
    """Legs that were executed and reversed since."""
    from lockstep_kit.convert import outcome_from_pb
    from lockstep_kit.ids import LegId
    from lockstep_kit.statements import OutcomeKind

    answered = [(each.leg.leg_id, outcome_from_pb(each.reversal)) for each in plan.legs if each.HasField("reversal")]
    return frozenset(LegId(leg_id) for leg_id, signed in answered if signed.outcome.kind is OutcomeKind.REVERSED)


def _by_plan(bookings: Sequence[reconciliation.Booking]) -> dict[str, dict[LegId, BankBooking]]:
    from lockstep_client.reconciliation import BankBooking
    from lockstep_kit.convert import amount_from_pb
    from lockstep_kit.ids import LegId

    found: dict[str, dict[LegId, BankBooking]] = {}
    for each in bookings:
        booking = BankBooking(each.uetr, amount_from_pb(each.amount), each.booking_date, each.booking_reference, each.stated)
        found.setdefault(each.plan_id, {})[LegId(each.leg_id)] = booking
    return found


def _open(breaks: Sequence[reconciliation.Break]) -> dict[str, dict[LegId, list[Difference]]]:
    from lockstep_client.reconciliation import Difference
    from lockstep_kit.ids import LegId

    found: dict[str, dict[LegId, list[Difference]]] = {}
    for each in breaks:
        if each.plan_id:
            found.setdefault(each.plan_id, {}).setdefault(LegId(each.leg_id), []).append(Difference(each.kind, each.sentence))
    return found
