"""OperatorService's messages, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from coordinator import exposure
from coordinator.convert.settlement import STATES, ticket_to_pb
from coordinator.dossier import Dossier, FiledTicket, signers
from coordinator.exposure import AtRisk, Doubt, Exposure
from coordinator.model import Limits
from coordinator.operators import Move, OperatorRecord, counting, options
from coordinator.store.escalation_documents import KeptDocument
from coordinator.store.letters import DeadLetter
from coordinator.store.operators import Papers
from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep_kit.convert import DECISIONS, VERBS, amount_to_pb, enum_to_pb, resolution_from_pb, resolution_to_pb, time_to_pb
from lockstep_kit.fields import require, within
from lockstep_kit.registry import Registry, Role
from lockstep_kit.resolutions import SIGNERS, ResolutionSignature

DOUBTS: Final = {getattr(messages, f"DOUBT_KIND_{each.value}"): each for each in Doubt}


def signed_from_pb(message: messages.SignResolutionRequest) -> ResolutionSignature:
    """An operator's signature in a request.

    Raises:
        FieldInvalid: a form rule is broken.
    """
    require(message.HasField("signature"), "signature", "must be present")
    with within("signature"):
        return resolution_from_pb(message.signature)


def open_from_pb(number: int) -> bool | None:
    """Which escalations: open ones, closed ones, or all.

    Raises:
        FieldInvalid: a value that is not known.
    """
    known = {
        messages.ESCALATION_FILTER_UNSPECIFIED: True,
        messages.ESCALATION_FILTER_OPEN: True,
        messages.ESCALATION_FILTER_CLOSED: False,
        messages.ESCALATION_FILTER_ALL: None,
    }
    for value, told in known.items():
        if value == number:
            return told
    require(condition=False, field="filter", rule="must be a known filter")
    return None


def file_to_pb(
    dossier: Dossier, filed: FiledTicket, papers: Papers, registry: Registry, limits: Limits, now: datetime
) -> messages.EscalationFile:
    """An escalation with all that an operator needs to decide about it."""
    barred = signers(dossier.plan)
    message = messages.EscalationFile(
        escalation=ticket_to_pb(filed),
        plan_id=dossier.plan_id,
        plan_digest=dossier.plan.digest,
        state=enum_to_pb(STATES, dossier.plan.state),
        age=_duration((filed.resolved_at or now) - filed.ticket.at),
        at_risk=[amount_to_pb(each.amount) for each in exposure.by_asset(exposure.exposures(dossier))],
        options=[_option_to_pb(each, filed) for each in Move if each in options(dossier.plan, filed, now, limits)],
        resolutions=[_record_to_pb(digest, records, papers, now) for digest, records in papers.signatures.items()],
        who=[each.actor_id for each in registry.with_role({Role.OPERATOR}) if each.actor_id not in barred],
    )
    if dossier.plan.decision is not None:
        message.decision = enum_to_pb(DECISIONS, dossier.plan.decision)
    message.documents.extend(_document_to_pb(each) for each in papers.documents)
    return message


def _document_to_pb(kept: KeptDocument) -> messages.EscalationDocument:
    message = messages.EscalationDocument(document=kept.document, refusal=kept.refusal)
    if kept.told_at is not None:
        message.tell_time.CopyFrom(time_to_pb(kept.told_at))
    return message


def _option_to_pb(move: Move, filed: FiledTicket) -> messages.ResolutionOption:
    return messages.ResolutionOption(verb=enum_to_pb(VERBS, move.verb), leg_id=filed.ticket.leg_id if move.names_leg else "")


def _record_to_pb(digest: bytes, records: Sequence[OperatorRecord], papers: Papers, now: datetime) -> messages.ResolutionRecord:
    effect = next((at for known, at in papers.effects.items() if known == digest), None)
    shown = list(records) if effect is not None else counting(records, now)
    message = messages.ResolutionRecord(
        resolution=resolution_to_pb(records[0].signed).resolution,
        digest=digest,
        signatures=[
            messages.OperatorSignature(actor_id=each.actor, signature=resolution_to_pb(each.signed), sign_time=time_to_pb(each.at))
            for each in shown
        ],
        missing_count=0 if effect is not None else SIGNERS - len(shown),
    )
    if effect is not None:
        message.effect_time.CopyFrom(time_to_pb(effect))
    return message


def exposure_to_pb(dossier: Dossier, found: Exposure, now: datetime) -> messages.InDoubtLeg:
    """A leg whose amount is at risk."""
    return messages.InDoubtLeg(
        plan_id=dossier.plan_id,
        state=enum_to_pb(STATES, dossier.plan.state),
        leg_id=found.leg_id,
        participant=found.participant,
        amount=amount_to_pb(found.amount),
        kind=enum_to_pb(DOUBTS, found.doubt),
        since_time=time_to_pb(found.since),
        age=_duration(now - found.since),
        escalation_ids=[each.escalation_id for each in dossier.tickets if each.resolved_at is None],
    )


def totals_to_pb(found: Iterable[AtRisk], now: datetime) -> list[messages.AssetAtRisk]:
    """What is at risk, by asset."""
    return [
        messages.AssetAtRisk(amount=amount_to_pb(each.amount), leg_count=each.legs, oldest_age=_duration(now - each.oldest))
        for each in found
    ]


def letter_to_pb(letter: DeadLetter) -> messages.DeadLetter:
    """A dead letter."""
    message = messages.DeadLetter(
        dead_letter_id=letter.dead_letter_id,
        plan_id=letter.plan_id,
        leg_id=letter.leg_id,
        command=letter.command,
        participant=letter.participant,
        reason=letter.reason,
        detail=letter.detail,
        attempt_count=letter.attempts,
        dead_time=time_to_pb(letter.dead_at),
        replayed_by=letter.replayed_by or "",
    )
    if letter.replayed_at is not None:
        message.replay_time.CopyFrom(time_to_pb(letter.replayed_at))
    return message


def _duration(age: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(max(age, timedelta(0)))
    return message
