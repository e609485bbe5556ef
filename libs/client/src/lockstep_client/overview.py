"""What `lockstep top` shows: all open plans in the order in which somebody should look at them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.text import Text

from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep_client.convert import state_name
from lockstep_client.documents import decision_name, outcome_name, present, time_text, waiting_document
from lockstep_client.fitting import Fitted, left_text, plain_table, span_text
from lockstep_client.operator_rendering import age_text
from lockstep_client.rendering import amount_text
from lockstep_kit.values import dataclass

#: Over how long settled plans are counted.
RECENT: Final = timedelta(minutes=10)
#: Below so many columns each plan is a block: a table would fold what it says.
_TABLE_MIN: Final = 110
_PERSONS: Final = frozenset({settlement.WAITING_KIND_GATE, settlement.WAITING_KIND_EXECUTE, settlement.WAITING_KIND_OPERATORS})


@dataclass(frozen=True, slots=True)
class Overview:
    """What was read of all plans at one moment."""

    #: When, by our clock.
    moment: datetime
    #: Open plans that were read.
    plans: tuple[settlement.Plan, ...]
    #: Whether there are more than were read.
    more: bool
    #: Open escalations, newest first.
    escalations: tuple[operators.EscalationFile, ...]
    #: What is at risk, by asset.
    totals: tuple[operators.AssetAtRisk, ...]
    #: Plans that were made within `RECENT`, open ones and closed ones.
    recent: tuple[settlement.Plan, ...]


def plan_time(time: Timestamp) -> datetime:
    """A time of a plan."""
    return time.ToDatetime(UTC)


def awaited_until(plan: settlement.Plan) -> datetime:
    """The first limit that the plan runs into: of what it waits for, else its deadline."""
    limits = [plan_time(each.until) for each in plan.waiting if each.HasField("until")]
    return min(limits, default=plan_time(plan.header.deadline))


def by_urgency(plans: Iterable[settlement.Plan]) -> list[settlement.Plan]:
    """Plans with open escalations first, the longest open first; then those that wait for people; each by its first limit."""

    def key(plan: settlement.Plan) -> tuple[int, datetime, str]:
        tickets = [plan_time(each.raise_time) for each in plan.escalations if not each.HasField("resolve_time")]
        if tickets:
            return 0, min(tickets), plan.header.plan_id
        persons = any(each.kind in _PERSONS for each in plan.waiting)
        return 1 if persons else 2, awaited_until(plan), plan.header.plan_id

    return sorted(plans, key=key)


def awaited_people(plans: Iterable[settlement.Plan]) -> list[tuple[str, int]]:
    """Who is awaited by how many plans, the most awaited first."""
    counted: Counter[str] = Counter()
    for plan in plans:
        counted.update({who for each in plan.waiting if each.kind in _PERSONS for who in each.who})
    return sorted(counted.items(), key=lambda each: (-each[1], each[0]))


def _states(plans: Iterable[settlement.Plan]) -> list[tuple[str, int]]:
    counted = Counter(plan.state for plan in plans)
    return [(state_name(state), counted[state]) for state in sorted(counted)]


def _recent_counts(plans: Sequence[settlement.Plan]) -> tuple[int, int, int]:
    """Of plans: how many were made, settled, and ended otherwise."""
    closed = [outcome_name(each) for each in plans if state_name(each.state) == "CLOSED"]
    settled = closed.count("COMMITTED")
    return len(plans), settled, len(closed) - settled


def overview_renderable(overview: Overview, *, skip: int = 0, rows_max: int | None = None) -> RenderableType:
    """All plans: sums, then one line (or, where it is narrow, a block) of each, from the `skip`th on."""
    return Fitted(lambda width: _overview(overview, width, skip, rows_max))


def _overview(overview: Overview, width: int, skip: int, rows_max: int | None) -> RenderableType:
    parts: list[RenderableType] = [_sums(overview)]
    ordered = by_urgency(overview.plans)
    shown = ordered[skip:] if rows_max is None else ordered[skip : skip + max(rows_max, 1)]
    if shown:
        parts.append(_rows(overview, shown) if width >= _TABLE_MIN else _blocks(overview, shown))
    below = len(ordered) - skip - len(shown)
    if skip or below > 0 or overview.more:
        parts.append(
            Text(f"{skip} above, {max(below, 0)} below{', and more that were not read' if overview.more else ''}", style="dim")
        )
    return Group(*parts)


def _sums(overview: Overview) -> Text:
    plans, more = overview.plans, " or more" if overview.more else ""
    text = Text(f"{len(plans)}{more} open plan{'' if len(plans) == 1 else 's'}")
    text.append("".join(f"  {name} {count}" for name, count in _states(plans)), style="cyan")
    if plans:
        oldest = min(plan_time(each.create_time) for each in plans)
        text.append(f"  oldest {span_text((overview.moment - oldest).total_seconds())}")
    made, settled, otherwise = _recent_counts(overview.recent)
    minutes = int(RECENT.total_seconds() // 60)
    per_minute = settled / minutes
    text.append(f"\nmade within {minutes} min: {made}, of which {settled} settled ({per_minute:.1f}/min), {otherwise} did not")
    at_risk = ", ".join(f"{amount_text(each.amount)} (for {age_text(each.oldest_age)})" for each in overview.totals)
    text.append("\nat risk: ").append(at_risk or "nothing", style="bold red" if at_risk else "green")
    tickets = len(overview.escalations)
    text.append("\nescalations: ").append(f"{tickets} open" if tickets else "none", style="bold red" if tickets else "green")
    if people := awaited_people(plans):
        text.append("\nawaited: " + ", ".join(f"{who} ({count})" for who, count in people), style="yellow")
    return text


def _why(plan: settlement.Plan) -> Text:
    tickets = [each for each in plan.escalations if not each.HasField("resolve_time")]
    if tickets:
        return Text(", ".join(f"{each.reason} {each.leg_id}".rstrip() for each in tickets), style="bold red")
    people = [each for each in plan.waiting if each.kind in _PERSONS]
    if people:
        return Text("; ".join(f"{_asked(each)} {', '.join(each.who)}".rstrip() for each in people), style="yellow")
    return Text(", ".join(sorted({f"{each.leg_id} at {', '.join(each.who)}" for each in plan.waiting})), style="dim")


def _asked(waiting: settlement.Waiting) -> str:
    document = waiting_document(waiting)
    return str(document.get("gate", document.get("kind", ""))).lower()


def _stands(plan: settlement.Plan) -> str:
    return " / ".join(each for each in (state_name(plan.state), decision_name(plan)) if each)


def _rows(overview: Overview, plans: Sequence[settlement.Plan]) -> RenderableType:
    table = plain_table("plan", "stands", "limit", "age", "waits for", "reference")
    # An id is there to be copied: it is never folded.
    table.columns[0].no_wrap = True
    for plan in plans:
        table.add_row(plan.header.plan_id, _stands(plan), *_times(overview, plan), _why(plan), plan.header.reference)
    return table


def _times(overview: Overview, plan: settlement.Plan) -> tuple[str, str]:
    """What is left until the plan's first limit, and its age."""
    age = span_text((overview.moment - plan_time(plan.create_time)).total_seconds())
    return left_text(awaited_until(plan), overview.moment), age


def _blocks(overview: Overview, plans: Sequence[settlement.Plan]) -> RenderableType:
    parts: list[Text] = []
    for plan in plans:
        limit, age = _times(overview, plan)
        parts.append(Text(f"{plan.header.plan_id}  {_stands(plan)}"))
        parts.append(Text(f"  {limit}, {age} old, ").append_text(_why(plan)).append(f"  {plan.header.reference}".rstrip()))
    return Group(*parts)


def overview_document(overview: Overview) -> dict[str, object]:
    """The same as JSON."""
    made, settled, otherwise = _recent_counts(overview.recent)
    return {
        "time": overview.moment.isoformat(),
        "open": len(overview.plans),
        "more": overview.more,
        "states": dict(_states(overview.plans)),
        "recent": {"minutes": int(RECENT.total_seconds() // 60), "made": made, "settled": settled, "did_not_settle": otherwise},
        "at_risk": [
            {"asset": each.amount.asset, "amount": amount_text(each.amount), "legs": each.leg_count} for each in overview.totals
        ],
        "escalations": [each.escalation.escalation_id for each in overview.escalations],
        "awaited": dict(awaited_people(overview.plans)),
        "plans": [
            present(
                {
                    "plan_id": plan.header.plan_id,
                    "state": state_name(plan.state),
                    "decision": decision_name(plan),
                    "reference": plan.header.reference,
                    "create_time": time_text(plan.create_time),
                    "until": awaited_until(plan).isoformat(),
                    "waits_for": _why(plan).plain,
                }
            )
            for plan in by_urgency(overview.plans)
        ],
    }
