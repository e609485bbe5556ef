"""A reconciled day as a document, and as people read it. Colour carries nothing that the words do not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lockstep.bank.v1 import reconciliation_service_pb2 as reconciliation
from lockstep_client.reconciliation import Difference, PlanResult, Result
from lockstep_kit.amounts import Amount, AssetId


def document_of(day: str, report: reconciliation.GetReconciliationResponse, plans: Sequence[PlanResult]) -> dict[str, Any]:
    """Everything that was found. `open` counts the open breaks: the bank-gateway's, and the differences that only the comparison shows."""
    breaks = [_break(each) for each in report.breaks]
    told = {(each["plan_id"], each["leg_id"], each["kind"]) for each in breaks}
    found = [each for plan in plans for each in _found_here(plan, told)]
    return {
        "date": day,
        "accounts": [_account(each) for each in report.accounts],
        "plans": [_plan(each) for each in plans],
        "breaks": breaks,
        "more_breaks": report.more_breaks,
        "at_risk": _totals(breaks),
        "matched": sum(leg.result is Result.MATCHED for plan in plans for leg in plan.legs),
        "open": len(breaks) + len(found),
    }


def _found_here(plan: PlanResult, told: set[tuple[str, str, str]]) -> list[Difference]:
    of_legs = [each for leg in plan.legs for each in leg.differences if (plan.plan_id, leg.leg_id, each.rule) not in told]
    return [*plan.differences, *of_legs]


def _account(each: reconciliation.AccountDay) -> dict[str, Any]:
    names = ("account", "statement_id", "number", "times", "entries", "matched", "settled", "others", "breaks")
    return {name: getattr(each, name) for name in names}


def _break(each: reconciliation.Break) -> dict[str, Any]:
    amount = Amount(AssetId(each.amount.asset), int(each.amount.minor_units), each.amount.scale)
    return {
        "matter": each.matter,
        "kind": each.kind,
        "account": each.account,
        "booking_date": each.booking_date,
        "amount": str(amount),
        "asset": amount.asset,
        "minor_units": str(amount.minor_units),
        "scale": amount.scale,
        "plan_id": each.plan_id,
        "leg_id": each.leg_id,
        "uetr": each.uetr,
        "sentence": each.sentence,
        "open_since": each.open_time.ToDatetime(UTC).isoformat(timespec="seconds"),
    }


def _totals(breaks: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the open breaks are about, asset by asset."""
    sums: dict[str, tuple[int, int]] = {}
    for each in breaks:
        sums[each["asset"]] = (sums.get(each["asset"], (0, 0))[0] + int(each["minor_units"]), each["scale"])
    return {asset: str(Amount(AssetId(asset), count, scale)) for asset, (count, scale) in sums.items()}


def _plan(each: PlanResult) -> dict[str, Any]:
    legs = [
        {
            "leg_id": leg.leg_id,
            "amount": str(leg.amount),
            "reference": leg.reference,
            "result": leg.result.value,
            "differences": _differences(leg.differences),
        }
        for leg in each.legs
    ]
    return {"plan_id": each.plan_id, "state": each.state, "legs": legs, "differences": _differences(each.differences)}


def _differences(found: Sequence[Difference]) -> list[dict[str, str]]:
    return [{"rule": each.rule, "message": each.message} for each in found]


def report_of(document: Mapping[str, Any]) -> RenderableType:
    """The document for people."""
    parts: list[RenderableType] = [Text(f"Booking day {document['date']}", style="bold")]
    for each in document["accounts"]:
        line = f"{each['account']}: statement {each['number']}, {each['entries']} entries, {each['matched']} matched"
        parts.append(Text(f"{line}, {each['settled']} settled by it, {each['others']} of others, {each['breaks']} breaks"))
    if not document["accounts"]:
        parts.append(Text("no statement of this day was reconciled yet"))
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("plan", "state", "leg", "amount", "result", "reference"):
        table.add_column(heading, header_style="dim", overflow="fold")
    for plan in document["plans"]:
        for leg in plan["legs"]:
            style = "bold red" if leg["result"] == Result.BREAK else ""
            table.add_row(
                plan["plan_id"], plan["state"], leg["leg_id"], leg["amount"], Text(leg["result"], style=style), leg["reference"]
            )
    parts.append(table)
    for plan in document["plans"]:
        noted = [*plan["differences"], *(each for leg in plan["legs"] for each in leg["differences"])]
        parts += [Text(f"{plan['plan_id']}: {each['rule']}: {each['message']}", style="red") for each in noted]
    for each in document["breaks"]:
        parts.append(
            Text(f"open since {each['open_since']}, matter {each['matter']}: {each['kind']} {each['amount']}: {each['sentence']}")
        )
    risk = ", ".join(document["at_risk"].values()) or "nothing"
    parts.append(Text(f"{document['matched']} legs matched, {document['open']} breaks open, {risk} at risk"))
    return Group(*parts)
