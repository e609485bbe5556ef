"""What the command shows to people: one plan, still or live. Colour carries nothing that the words do not say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.type.v1 import amount_pb2, outcome_pb2, resolution_pb2
from lockstep_client.convert import state_name
from lockstep_client.documents import (
    decision_name,
    evidence_document,
    gate_name,
    name_of,
    outcome_name,
    phase_name,
    plan_document,
    time_text,
    waiting_document,
)
from lockstep_client.fitting import NARROW, Fitted, left_text, span_text
from lockstep_kit.convert import amount_from_pb

#: The way of a plan that settles, in order.
_WAY: Final = (
    "DRAFT",
    "INITIATED",
    "PRECONDITIONS_PENDING",
    "READY_FOR_PREPARE",
    "PREPARED",
    "EXECUTING",
    "VALIDATING",
    "COMMITTED",
    "CLOSED",
)
_COLOURS: Final = {
    "COMMITTED": "green",
    "CLOSED": "green",
    "PREPARED": "cyan",
    "EXECUTING": "yellow",
    "VALIDATING": "yellow",
    "ABORTED": "red",
    "PARTIALLY_EXECUTED": "bold red",
    "UNWIND_PENDING": "red",
}
_PHASE_COLOURS: Final = {
    "PREPARED": "cyan",
    "COMMITTED": "green",
    "REFUSED": "red",
    "RELEASED": "magenta",
    "PREPARING": "yellow",
    "COMMITTING": "yellow",
    "ABORTING": "yellow",
}


def plan_renderable(plan: settlement.Plan, moment: datetime | None = None) -> RenderableType:
    """A plan as it stands: state, legs, gates, what it waits for, tickets; at a moment also how long is left for what has a limit."""
    return Fitted(lambda width: _plan(plan, moment, width))


def _plan(plan: settlement.Plan, moment: datetime | None, width: int) -> RenderableType:
    parts: list[RenderableType] = [_title(plan), _way(plan)]
    if moment is not None and state_name(plan.state) != "CLOSED":
        parts.append(Text(f"  deadline {_until(plan.header.deadline, moment)}"))
    parts.append(_legs(plan) if width >= NARROW else _leg_blocks(plan))
    if plan.gates:
        parts.append(_gates(plan))
    parts.extend(Text(f"  waits for {waiting_text(waiting, moment)}", style="yellow") for waiting in plan.waiting)
    parts.extend(_ticket(ticket, moment) for ticket in plan.escalations)
    return Group(*parts)


def _until(time: Timestamp, moment: datetime) -> str:
    return f"{time_text(time)} ({left_text(time.ToDatetime(UTC), moment)})"


def _ticket(ticket: settlement.Escalation, moment: datetime | None) -> Text:
    resolved = ticket.HasField("resolve_time")
    stands = "resolved" if resolved else "OPEN"
    if moment is not None and not resolved:
        stands = f"OPEN for {span_text((moment - ticket.raise_time.ToDatetime(UTC)).total_seconds())}"
    return Text(
        f"  escalation {ticket.escalation_id} {stands}: {ticket.reason} {ticket.detail}", style="dim" if resolved else "bold red"
    )


def _title(plan: settlement.Plan) -> Text:
    state = state_name(plan.state)
    words = [state, decision_name(plan), outcome_name(plan)]
    text = Text(f"plan {plan.header.plan_id}  ")
    text.append(" / ".join(word for word in words if word), style=_title_colour(state, outcome_name(plan)))
    if plan.header.reference:
        text.append(f"  {plan.header.reference}")
    if plan.reason:
        text.append(f"\n  {' '.join(part for part in (plan.reason, plan.reason_leg_id, plan.reason_detail) if part)}", style="red")
    return text


def _title_colour(state: str, outcome: str) -> str:
    return "red" if state == "CLOSED" and outcome not in ("COMMITTED", "") else _COLOURS.get(state, "default")


def _way(plan: settlement.Plan) -> Text:
    """The states of a plan that settles, those behind it marked."""
    state, text = state_name(plan.state), Text("  ")
    if state not in _WAY or outcome_name(plan) not in ("", "COMMITTED"):
        return Text(f"  deadline {time_text(plan.header.deadline)}")
    place = _WAY.index(state)
    for index, each in enumerate(_WAY):
        done = index < place or state == "CLOSED"
        mark, style = ("✓ ", "green") if done else ("▶ ", "bold yellow") if index == place else ("· ", "dim")
        text.append(f"{mark}{each.lower()}  ", style=style)
    return text


def _legs(plan: settlement.Plan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("  leg", "what", "served by", "stands", "shown by"):
        table.add_column(heading, header_style="dim")
    for leg in plan.legs:
        table.add_row(f"  {leg.leg.leg_id}", terms_text(leg), leg.participant, _stands(leg), shown_by(leg))
    return table


def _leg_blocks(plan: settlement.Plan) -> RenderableType:
    """The legs where there is no room for a table."""
    parts: list[Text] = []
    for leg in plan.legs:
        parts.append(Text(f"  {leg.leg.leg_id}  ").append_text(_stands(leg)))
        parts.append(Text(f"    {terms_text(leg)}; {leg.participant}", overflow="fold"))
        if shown := shown_by(leg):
            parts.append(Text(f"    {shown}", style="dim", overflow="fold"))
    return Group(*parts)


def _stands(leg: settlement.PlanLeg) -> Text:
    phase = phase_name(leg) or "-"
    state = Text(phase, style=_PHASE_COLOURS.get(phase, "default"))
    if leg.trouble:
        state.append(f" ({leg.trouble})", style="red")
    if leg.HasField("operators_executed"):
        state.append(f" (operators: {'took effect' if leg.operators_executed else 'took no effect'})", style="magenta")
    return state


def terms_text(leg: settlement.PlanLeg) -> str:
    """What a leg does, in a few words."""
    match leg.leg.WhichOneof("terms"):
        case "token_transfer":
            token = leg.leg.token_transfer
            return f"{amount_text(token.amount)} from {token.payer_party} to {token.payee_party}"
        case "credit_transfer":
            credit = leg.leg.credit_transfer
            return f"{amount_text(credit.amount)} from {credit.debtor.party_id} to {credit.creditor.party_id}"
        case "issue_instrument":
            instrument = leg.leg.issue_instrument
            sides = f"for {instrument.applicant.party_id} in favour of {instrument.beneficiary.party_id}"
            return f"{amount_text(instrument.amount)} undertaking {sides} until {instrument.expiry_date}"
        case kind:
            return kind or ""


def amount_text(message: amount_pb2.Amount) -> str:
    """An amount, with its asset as short as people can read it."""
    amount = amount_from_pb(message)
    asset = amount.asset if ":" not in amount.asset else f"token {amount.asset.rsplit(':', 1)[1][:8]}…"
    return f"{amount.text()} {asset}"


def shown_by(leg: settlement.PlanLeg) -> str:
    """What shows where a leg stands: its reversal's evidence, else its outcome's, else its vote's."""
    if leg.HasField("outcome"):
        told = leg.reversal if leg.HasField("reversal") else leg.outcome
        if told.HasField("refusal"):
            return f"{told.refusal.reason} {told.refusal.outside_code}".strip()
        return _evidence_text(told.evidence) if told.HasField("evidence") else ""
    match leg.vote.WhichOneof("vote"):
        case "refusal":
            return f"NO: {leg.vote.refusal.reason} {leg.vote.refusal.outside_code} {leg.vote.refusal.detail}".strip()
        case "promise":
            until = f" until {time_text(leg.vote.promise.expire_time)}" if leg.vote.promise.HasField("expire_time") else ""
            return f"YES{until} {_evidence_text(leg.vote.promise.evidence)}".strip()
        case _:
            return ""


def _evidence_text(evidence: outcome_pb2.Evidence) -> str:
    document = evidence_document(evidence)
    match document.get("kind"):
        case "chain":
            transaction = document.get("transaction_hash", "")
            shown = f"tx 0x{transaction[:12]}… " if transaction else ""
            return f"{shown}block {document.get('block_number', 0)} {document.get('entry_status', '')}"
        case "bank":
            return " ".join(str(document[name]) for name in ("status", "uetr", "booking_reference") if name in document)
        case "instrument":
            return " ".join(str(document[name]) for name in ("status", "undertaking_number", "bank_bic") if name in document)
        case "batch":
            root = document.get("root", {})
            shown = f"batch 0x{root.get('entry_key', '')[:12]}… block {root.get('block_number', 0)}" if root else "not anchored yet"
            return f"leaf 0x{document.get('leaf_hash', '')[:12]}… {shown}"
        case "journal":
            return f"{document.get('entry_count', 0)} entries{' sealed' if document.get('sealed') else ''}"
        case _:
            return ""


def _gates(plan: settlement.Plan) -> Text:
    text = Text("  signed: ")
    shown = (f"{gate_name(each.signature.gate).lower()} by {each.actor_id}" for each in plan.gates)
    return text.append(", ".join(shown), style="cyan")


def waiting_text(waiting: settlement.Waiting, moment: datetime | None = None) -> str:
    """What is awaited, from whom, until when; at a moment also how long is left."""
    document = waiting_document(waiting)
    missing = document.get("signatures_missing", 1)
    signatures = (
        f"{document.get('gate', '').lower()} signature"
        if missing == 1
        else f"{missing} {document.get('gate', '').lower()} signatures"
    )
    what = {"GATE": signatures, "EXECUTE": "execution", "OPERATORS": "operators"}.get(
        document.get("kind", ""), document.get("leg_id", "")
    )
    who = f" by {', '.join(document['who'])}" if document.get("who") else ""
    until = f" until {document['until']}" if document.get("until") else ""
    if until and moment is not None:
        until = f" until {_until(waiting.until, moment)}"
    return f"{what}{who}{until}"


def event_text(event: settlement.PlanEvent) -> str:
    """A change in one line."""
    moment = time_text(event.event_time)[11:23]
    match event.WhichOneof("event"):
        case "transition":
            decision = decision_name(event.transition)
            what = f"{state_name(event.transition.to_state)}{f' / {decision}' if decision else ''}  ({event.transition.cause})"
        case "leg":
            what = f"leg {event.leg.leg.leg_id}: {phase_name(event.leg) or '-'}  {shown_by(event.leg)}{event.leg.trouble}"
        case "gate":
            what = f"gate {gate_name(event.gate.signature.gate).lower()} signed by {event.gate.actor_id}"
        case "escalation":
            raised = "closed:" if event.escalation.HasField("resolve_time") else ""
            what = f"ESCALATION {raised} {event.escalation.reason}: {event.escalation.detail}".replace("  ", " ")
        case "resolution":
            told, who = event.resolution.resolution, " and ".join(event.resolution.actor_ids)
            verb = name_of(resolution_pb2.Verb, told.verb, "VERB_")
            what = f"RESOLUTION {verb} {told.leg_id} by {who}: {told.detail}".replace("  ", " ")
        case "notice":
            what = f"{'ACT' if event.notice.action_required else 'note'}: {event.notice.what_happened} {event.notice.what_to_do}"
        case _:
            what = "changed"
    return f"{moment}  {what}".rstrip()


def summary_line(plan: settlement.Plan) -> str:
    """A plan in one line of a list."""
    document = plan_document(plan)
    words = (document["plan_id"], document["state"], document.get("decision", "-"), document.get("outcome", "-"))
    return "  ".join((*words, document.get("create_time", ""), document.get("reference", ""))).rstrip()
