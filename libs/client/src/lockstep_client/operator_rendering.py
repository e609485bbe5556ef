"""What the operators' commands show to people. Colour carries nothing that the words do not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from rich.console import Group, RenderableType
from rich.text import Text

from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.type.v1 import amount_pb2
from lockstep_client.convert import state_name
from lockstep_client.documents import time_text
from lockstep_client.escalation_record import RecordView, Stands
from lockstep_client.evidence import Finding
from lockstep_client.fitting import plain_table, span_text
from lockstep_client.operator_documents import doubt_name, seconds, verb_name
from lockstep_client.rendering import amount_text, plan_renderable


def age_text(age: Duration) -> str:
    """An age in its two largest units."""
    return span_text(seconds(age))


def escalations_table(files: Sequence[messages.EscalationFile]) -> RenderableType:
    """Escalations, one a line."""
    if not files:
        return Text("no escalations")
    table = plain_table("escalation", "plan", "stands", "reason", "leg", "at risk", "age", "signed")
    for each in files:
        closed = each.escalation.HasField("resolve_time")
        signed = ", ".join(_signed_text(record) for record in each.resolutions if not record.HasField("effect_time"))
        table.add_row(
            each.escalation.escalation_id,
            each.plan_id,
            state_name(each.state),
            Text(each.escalation.reason, style="dim" if closed else "bold red"),
            each.escalation.leg_id,
            _amounts(each.at_risk),
            age_text(each.age),
            "closed" if closed else signed,
        )
    return table


def _signed_text(record: messages.ResolutionRecord) -> str:
    who = ", ".join(each.actor_id for each in record.signatures)
    return f"{verb_name(record.resolution.verb)} by {who or 'nobody any more'}, {record.missing_count} missing"


def _amounts(amounts: Sequence[amount_pb2.Amount]) -> str:
    return ", ".join(amount_text(each) for each in amounts)


def escalation_renderable(answer: messages.GetEscalationResponse) -> RenderableType:
    """An escalation: what happened, what is at risk, what may be done, who signed what, and the plan."""
    file = answer.escalation
    ticket = file.escalation
    state = f"closed {time_text(ticket.resolve_time)}" if ticket.HasField("resolve_time") else f"OPEN for {age_text(file.age)}"
    title = Text(f"escalation {ticket.escalation_id}  {state}\n")
    title.append(f"  {ticket.reason} {ticket.leg_id}".rstrip(), style="bold red")
    title.append(f"  {ticket.detail}")
    parts: list[RenderableType] = [title]
    if file.at_risk:
        parts.append(Text(f"  at risk   {_amounts(file.at_risk)}", style="yellow"))
        parts.append(doubts_table(answer.legs))
    if file.options:
        told = ", ".join(f"{verb_name(each.verb).lower()}{f' --leg {each.leg_id}' if each.leg_id else ''}" for each in file.options)
        parts.append(Text(f"  allowed   {told}"))
        parts.append(Text(f"  who       two of {', '.join(file.who)}"))
    parts.extend(_resolution(each) for each in file.resolutions)
    return Group(*parts, plan_renderable(answer.plan))


_STANDS: Final = {
    Stands.UNTOLD: "not told to the notary yet",
    Stands.REFUSED: "refused by the notary",
    Stands.TOLD: "told to the notary, which was not asked or does not answer",
    Stands.KEPT: "kept by the notary, in no final block yet",
    Stands.RECORDED: "in block {block}, by the notary's word",
    Stands.ON_CHAIN: "on chain{where}",
}


def records_renderable(views: Sequence[RecordView], findings: Sequence[Finding]) -> RenderableType:
    """What stands on chain of an escalation, and what does not hold."""
    lines = [Text("  on chain  nothing is recorded of it")] if not views else []
    for each in views:
        where = f" in block {each.block_number}" if each.block_number else ""
        stands = _STANDS[each.stands].format(block=each.block_number, where=where)
        lines.append(Text(f"  on chain  {each.kind.value} {each.document_hash.hex()}: {stands}"))
    lines.extend(Text(f"  WRONG     {each.rule}: {each.message}", style="bold red") for each in findings)
    return Group(*lines)


def _resolution(record: messages.ResolutionRecord) -> Text:
    told = record.resolution
    what = " ".join(part for part in (verb_name(told.verb), told.leg_id) if part)
    if told.HasField("executed"):
        what += " took effect" if told.executed else " took no effect"
    who = ", ".join(each.actor_id for each in record.signatures) or "nobody any more"
    stands = f"took effect {time_text(record.effect_time)}" if record.HasField("effect_time") else f"{record.missing_count} missing"
    return Text(f"  signed    {what} ({told.detail}) by {who}; {stands}", style="cyan")


def doubts_table(legs: Sequence[messages.InDoubtLeg]) -> RenderableType:
    """Legs whose amounts are at risk, one a line."""
    table = plain_table("plan", "stands", "leg", "amount", "served by", "why", "since", "age")
    for each in legs:
        table.add_row(
            each.plan_id,
            state_name(each.state),
            each.leg_id,
            amount_text(each.amount),
            each.participant,
            doubt_name(each.kind),
            time_text(each.since_time)[:19] + "Z",
            age_text(each.age),
        )
    return table


def totals_table(totals: Sequence[messages.AssetAtRisk]) -> RenderableType:
    """What is at risk, one asset a line."""
    if not totals:
        return Text("nothing is at risk")
    table = plain_table("at risk", "legs", "oldest")
    for each in totals:
        table.add_row(amount_text(each.amount), str(each.leg_count), age_text(each.oldest_age))
    return table


def letters_table(letters: Sequence[messages.DeadLetter]) -> RenderableType:
    """Dead letters, one a line."""
    if not letters:
        return Text("no dead letters")
    table = plain_table("dead letter", "plan", "leg", "command", "participant", "reason", "given up", "sent again")
    for each in letters:
        again = f"{time_text(each.replay_time)[:19]}Z by {each.replayed_by}" if each.HasField("replay_time") else ""
        table.add_row(
            each.dead_letter_id,
            each.plan_id,
            each.leg_id,
            each.command,
            each.participant,
            f"{each.reason} {each.detail}".strip(),
            time_text(each.dead_time)[:19] + "Z",
            again,
        )
    return table
