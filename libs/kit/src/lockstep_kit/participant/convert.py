"""Between protobuf and domain, for ParticipantService. The only module of the engine that knows both.

`read_*` checks the form of one item and raises FieldInvalid with the field's path inside the item; what the item may do is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, TypeAlias

from google.protobuf.duration_pb2 import Duration

from lockstep.participant.v1 import leg_pb2, participant_service_pb2
from lockstep.type.v1 import certificate_pb2, outcome_pb2, signature_pb2
from lockstep_kit import ids
from lockstep_kit.certificate import Binding, Certificate, Decision
from lockstep_kit.convert import (
    ANCHORINGS,
    PROMISES,
    authority_from_pb,
    binding_from_pb,
    certificate_from_pb,
    count_from_pb,
    enum_from_pb,
    enum_to_pb,
    epoch_from_pb,
    epoch_to_pb,
    gate_from_pb,
    outcome_to_pb,
    permit_from_pb,
    reverse_authority_from_pb,
    time_from_pb,
    time_to_pb,
    vote_from_pb,
    vote_to_pb,
)
from lockstep_kit.convert.hours import hours_to_pb
from lockstep_kit.fence import Phase, fence_digest
from lockstep_kit.fields import FieldInvalid, require, within
from lockstep_kit.participant.ports import Capabilities, Closing, LegWork, PlanOutcome
from lockstep_kit.participant.records import (
    AbortOrder,
    Answer,
    CommitOrder,
    Item,
    LegRecord,
    Order,
    PrepareOrder,
    Rejection,
    ReverseOrder,
    Verdict,
)
from lockstep_kit.permits import check_permit
from lockstep_kit.plan import LegKind, TokenTransfer
from lockstep_kit.spans import context_of, traceparent_of
from lockstep_kit.statements import SignedOutcome, SignedVote

PHASES: Final = {
    leg_pb2.LEG_PHASE_PREPARING: Phase.PREPARING,
    leg_pb2.LEG_PHASE_PREPARED: Phase.PREPARED,
    leg_pb2.LEG_PHASE_REFUSED: Phase.REFUSED,
    leg_pb2.LEG_PHASE_COMMITTING: Phase.COMMITTING,
    leg_pb2.LEG_PHASE_COMMITTED: Phase.COMMITTED,
    leg_pb2.LEG_PHASE_ABORTING: Phase.ABORTING,
    leg_pb2.LEG_PHASE_RELEASED: Phase.RELEASED,
    leg_pb2.LEG_PHASE_REVERSING: Phase.REVERSING,
    leg_pb2.LEG_PHASE_REVERSED: Phase.REVERSED,
}
PLAN_OUTCOMES: Final = {
    leg_pb2.PLAN_OUTCOME_COMMITTED: PlanOutcome.COMMITTED,
    leg_pb2.PLAN_OUTCOME_ABORTED: PlanOutcome.ABORTED,
    leg_pb2.PLAN_OUTCOME_REVERSED: PlanOutcome.REVERSED,
    leg_pb2.PLAN_OUTCOME_MIXED: PlanOutcome.MIXED,
}
VERDICTS: Final = {
    leg_pb2.COMMAND_VERDICT_DONE: Verdict.DONE,
    leg_pb2.COMMAND_VERDICT_REFUSED: Verdict.REFUSED,
    leg_pb2.COMMAND_VERDICT_REJECTED: Verdict.REJECTED,
    leg_pb2.COMMAND_VERDICT_PENDING: Verdict.PENDING,
}
#: Bounds of a batch, of a payer's signature (an ERC-1271 wallet may take a long one), and of a closing state's name.
BATCH_ITEMS_MAX: Final = 256
PAYER_SIGNATURE_BYTES_MAX: Final = 4096
STATE_NAME_LENGTH_MAX: Final = 64
#: Stored values that are remembered of each kind; each is some thousand bytes.
_REMEMBERED_MAX: Final = 2_048
#: So far ahead a participant whose promises do not lapse tells its hours.
HOURS_AHEAD: Final = timedelta(days=14)

CommandMessage: TypeAlias = leg_pb2.PrepareCommand | leg_pb2.CommitCommand | leg_pb2.AbortCommand | leg_pb2.ReverseCommand


def read_prepare(command: leg_pb2.PrepareCommand) -> Item:
    """One leg to prepare.

    Raises:
        FieldInvalid: with the field's path inside the command.
    """
    binding = _binding(command)
    require(command.HasField("make"), "make", "must be present")
    with within("make"):
        make = gate_from_pb(command.make)
    for field in ("prepare_by", "hold_until"):
        require(command.HasField(field), field, "must be present")
    prepare_by, hold_until = time_from_pb(command.prepare_by, "prepare_by"), time_from_pb(command.hold_until, "hold_until")
    require(hold_until >= binding.header.deadline, "hold_until", "must not be before the plan's deadline")
    signed = len(command.payer_signature)
    if binding.leg.kind is LegKind.TOKEN_TRANSFER:
        require(1 <= signed <= PAYER_SIGNATURE_BYTES_MAX, "payer_signature", f"must be 1 to {PAYER_SIGNATURE_BYTES_MAX} bytes")
    else:
        require(signed == 0, "payer_signature", "must be absent but for token transfers")
    permit = _permit_of(command, binding)
    return _item(command, binding, PrepareOrder(make, prepare_by, hold_until, command.payer_signature, permit))


def _permit_of(command: leg_pb2.PrepareCommand, binding: Binding) -> bytes | None:
    if not command.HasField("permit"):
        return None
    terms = binding.leg.terms
    if not isinstance(terms, TokenTransfer):
        raise FieldInvalid("permit", "must be absent but for token transfers")
    with within("permit"):
        check_permit(permit_from_pb(command.permit), terms, binding.header)
    return command.permit.SerializeToString(deterministic=True)


def read_commit(command: leg_pb2.CommitCommand, certificate: Certificate, message: certificate_pb2.DecisionCertificate) -> Item:
    """One leg to execute, with its plan's certificate.

    Raises:
        FieldInvalid: with the field's path inside the command.
    """
    binding = _binding(command)
    if binding.leg.settling:
        require(len(command.key) == ids.DIGEST_BYTES, "key", f"must be {ids.DIGEST_BYTES} bytes")
    else:
        require(not command.key, "key", "must be absent for evidence legs")
    not_after = time_from_pb(command.not_after, "not_after") if command.HasField("not_after") else None
    delegated = certificate.decision is Decision.DELEGATED
    # A decision to commit is never too late: only the delegated leg may be refused for the time it takes to arrive.
    require(
        delegated == (not_after is not None),
        "not_after",
        "must be present when, and only when, the decision is delegated to the leg",
    )
    closing = _closing_of(command, binding)
    order = CommitOrder(
        certificate=certificate,
        certificate_bytes=message.SerializeToString(deterministic=True),
        key=command.key,
        not_after=not_after,
        closing=closing,
        closing_bytes=command.closing.SerializeToString(deterministic=True) if closing is not None else None,
        own_vote=_vote_of(binding, certificate, message),
    )
    return _item(command, binding, order)


def read_abort(command: leg_pb2.AbortCommand) -> Item:
    """One leg to release.

    Raises:
        FieldInvalid: with the field's path inside the command.
    """
    binding = _binding(command)
    require(command.HasField("authority"), "authority", "must be present")
    with within("authority"):
        authority = authority_from_pb(command.authority)
    closing = _closing_of(command, binding)
    order = AbortOrder(
        authority=authority,
        authority_bytes=command.authority.SerializeToString(deterministic=True),
        closing=closing,
        closing_bytes=command.closing.SerializeToString(deterministic=True) if closing is not None else None,
    )
    return _item(command, binding, order)


def read_reverse(command: leg_pb2.ReverseCommand) -> Item:
    """One executed leg to reverse.

    Raises:
        FieldInvalid: with the field's path inside the command.
    """
    binding = _binding(command)
    require(command.HasField("authority"), "authority", "must be present")
    with within("authority"):
        authority = reverse_authority_from_pb(command.authority)
    return _item(command, binding, ReverseOrder(authority, command.authority.SerializeToString(deterministic=True)))


def read_certificates(
    messages: Mapping[str, tuple[int, certificate_pb2.DecisionCertificate]],
) -> dict[str, Certificate | Rejection]:
    """The certificates of a batch by plan id, each read once; one that cannot be read rejects its plan's items."""
    read: dict[str, Certificate | Rejection] = {}
    for plan_id, (index, message) in messages.items():
        try:
            with within(f"certificates[{index}]"):
                read[plan_id] = _stored_certificate(message.SerializeToString(deterministic=True))
        except FieldInvalid as finding:
            read[plan_id] = Rejection("FIELD_INVALID", str(finding), finding.field)
    return read


def _binding(command: CommandMessage) -> Binding:
    require(command.HasField("epoch"), "epoch", "must be present")
    require(command.HasField("binding"), "binding", "must be present")
    with within("binding"):
        return _stored_binding(command.binding.SerializeToString(deterministic=True))


def _item(command: CommandMessage, binding: Binding, order: Order) -> Item:
    octets = command.binding.SerializeToString(deterministic=True)
    # One that is malformed is none: no leg waits for a trace.
    traceparent = traceparent_of(context_of(command.traceparent))
    return Item(epoch_from_pb(command.epoch), binding, octets, fence_digest(binding), order, traceparent)


def _closing_of(command: leg_pb2.CommitCommand | leg_pb2.AbortCommand, binding: Binding) -> Closing | None:
    if not command.HasField("closing"):
        require(binding.leg.settling, "closing", "must be present for evidence legs")
        return None
    require(not binding.leg.settling, "closing", "must be absent for settling legs")
    with within("closing"):
        return closing_from_pb(command.closing, journal=binding.leg.kind is LegKind.JOURNAL)


def closing_from_pb(message: leg_pb2.Closing, *, journal: bool) -> Closing:
    """How a plan is to be closed.

    Raises:
        FieldInvalid: a field has another form, or one that the journal needs is absent.
    """
    if journal:
        require(message.journal_sequence >= 1, "journal_sequence", "must be at least 1 for the journal")
        require(message.transition_no >= 1, "transition_no", "must be at least 1 for the journal")
        require(message.from_state != "", "from_state", "must be present for the journal")
    require(len(message.from_state) <= STATE_NAME_LENGTH_MAX, "from_state", f"must have at most {STATE_NAME_LENGTH_MAX} characters")
    return Closing(
        outcome=enum_from_pb(PLAN_OUTCOMES, message.outcome, "outcome"),
        evidence_digest=ids.digest(message.evidence_digest, "evidence_digest"),
        journal_sequence=count_from_pb(message.journal_sequence, "journal_sequence"),
        transition_no=count_from_pb(message.transition_no, "transition_no"),
        from_state=message.from_state,
    )


def closing_to_pb(closing: Closing) -> leg_pb2.Closing:
    """How a plan is to be closed, as a message."""
    return leg_pb2.Closing(
        outcome=enum_to_pb(PLAN_OUTCOMES, closing.outcome),
        evidence_digest=closing.evidence_digest,
        journal_sequence=closing.journal_sequence,
        transition_no=closing.transition_no,
        from_state=closing.from_state,
    )


def _vote_of(
    binding: Binding, certificate: Certificate, message: certificate_pb2.DecisionCertificate
) -> tuple[SignedVote, bytes] | None:
    for signed, octets in zip(certificate.votes, message.votes, strict=True):
        if signed.vote.leg_id == binding.leg.leg_id:
            return signed, octets.SerializeToString(deterministic=True)
    return None


def work_of(record: LegRecord, binding: Binding | None = None) -> LegWork:
    """A stored leg as the participant's own code is told of it; its binding is read from the row unless it is at hand.

    Raises:
        AssertionError: the row holds an epoch and nothing else.
    """
    if record.fence.phase is None or record.binding is None or record.since is None:
        raise AssertionError("a leg that is not known has no work")
    if binding is None:
        binding = _stored_binding(record.binding)
    journal = binding.leg.kind is LegKind.JOURNAL
    return LegWork(
        binding=binding,
        phase=record.fence.phase,
        left=record.left,
        revision=record.fence.revision,
        hold_until=record.hold_until,
        payer_signature=record.payer_signature or b"",
        key=record.key or b"",
        not_after=record.not_after,
        decision=record.fence.decision,
        closing=closing_from_pb(leg_pb2.Closing.FromString(record.closing), journal=journal) if record.closing else None,
        vote=stored_vote(record),
        traceparent=record.traceparent,
        since=record.since,
        permit=permit_from_pb(signature_pb2.Permit.FromString(record.permit)) if record.permit else None,
        order_no=len(record.fence.reversals) if record.fence.phase is Phase.REVERSING else 1,
    )


def stored_vote(record: LegRecord) -> SignedVote | None:
    """The vote that a row holds."""
    return None if record.vote is None else _stored_vote(record.vote)


# The same bytes are the same value, and are read once, whether they come with a command or from a row.


@lru_cache(_REMEMBERED_MAX)
def _stored_binding(octets: bytes) -> Binding:
    return binding_from_pb(leg_pb2.LegBinding.FromString(octets))


@lru_cache(_REMEMBERED_MAX)
def _stored_vote(octets: bytes) -> SignedVote:
    return vote_from_pb(outcome_pb2.SignedVote.FromString(octets))


@lru_cache(_REMEMBERED_MAX)
def _stored_certificate(octets: bytes) -> Certificate:
    return certificate_from_pb(certificate_pb2.DecisionCertificate.FromString(octets))


def vote_bytes(signed: SignedVote) -> bytes:
    """A vote as it is stored, and from then on answered."""
    return vote_to_pb(signed).SerializeToString(deterministic=True)


def outcome_bytes(signed: SignedOutcome) -> bytes:
    """An outcome as it is stored, and from then on answered."""
    return outcome_to_pb(signed).SerializeToString(deterministic=True)


def stored_certificate(record: LegRecord) -> Certificate | None:
    """The certificate by which the leg was told to execute; None where it never was."""
    return None if record.certificate is None else _stored_certificate(record.certificate)


def lock_of_record(record: LegRecord) -> ids.Digest:
    """The lock that a stored leg is bound to."""
    if record.binding is None:
        raise AssertionError("a leg that is not known has no lock")
    return _stored_binding(record.binding).lock


def report_of(record: LegRecord) -> leg_pb2.LegReport:
    """Everything that is known of a leg, as a message; vote, outcome and reversal are the stored bytes."""
    if record.fence.phase is None or record.plan_digest is None:
        raise AssertionError("a leg that is not known has no report")
    report = leg_pb2.LegReport(
        plan_id=record.plan_id,
        leg_id=record.leg_id,
        plan_digest=record.plan_digest,
        phase=enum_to_pb(PHASES, record.fence.phase),
        revision=record.fence.revision,
        epoch=epoch_to_pb(record.fence.epoch),
        trouble=record.trouble,
    )
    if record.vote is not None:
        report.vote.ParseFromString(record.vote)
    if record.outcome is not None:
        report.outcome.ParseFromString(record.outcome)
    if record.reversal is not None:
        report.reversal.ParseFromString(record.reversal)
    return report


def everything_of(record: LegRecord) -> participant_service_pb2.GetLegResponse:
    """A leg with what it was bound to and what told it to execute, as a message; the stored bytes."""
    response = participant_service_pb2.GetLegResponse(report=report_of(record))
    if record.binding is not None:
        response.binding.ParseFromString(record.binding)
    if record.certificate is not None:
        response.certificate.ParseFromString(record.certificate)
    return response


def answer_to_pb(answer: Answer) -> leg_pb2.CommandAnswer:
    """How one command stands, as a message."""
    message = leg_pb2.CommandAnswer(plan_id=answer.plan_id, leg_id=answer.leg_id, verdict=enum_to_pb(VERDICTS, answer.verdict))
    if answer.record is not None:
        message.report.CopyFrom(report_of(answer.record))
    if answer.rejection is not None:
        rejection = answer.rejection
        message.rejection.CopyFrom(leg_pb2.Rejection(reason=rejection.reason, message=rejection.message, field=rejection.field))
    return message


def wait_seconds(message: Duration) -> float:
    """How long an answer may wait, in seconds.

    Raises:
        FieldInvalid: it is negative or no duration.
    """
    seconds: float = message.seconds + message.nanos / 1e9
    require(seconds >= 0 and abs(message.nanos) < 1_000_000_000, "wait", "must be a duration that is not negative")
    return seconds


def description(
    name: str, key_id: ids.KeyId, capabilities: Capabilities, incarnation: str, now: datetime
) -> participant_service_pb2.DescribeResponse:
    """What the participant is and can do, as a message."""
    response = participant_service_pb2.DescribeResponse(
        participant=name,
        leg_kinds=capabilities.leg_kinds,
        key_id=key_id,
        promise_kind=enum_to_pb(PROMISES, capabilities.promise_kind),
        promise_expires=capabilities.promise_max is not None,
        assets=[
            participant_service_pb2.AssetCapability(
                asset=each.asset,
                scale=each.scale,
                reversible=each.reversible,
                cut_offs=each.hours is not None,
                windows=[] if each.hours is None else hours_to_pb(each.hours, now, now + (capabilities.promise_max or HOURS_AHEAD)),
            )
            for each in capabilities.assets
        ],
        venues=capabilities.venues,
        firm_leg_kinds=capabilities.firm_kinds,
        anchoring=[enum_to_pb(ANCHORINGS, each) for each in capabilities.anchorings],
        log_incarnation=incarnation,
        clock_time=time_to_pb(now),
    )
    if capabilities.promise_margin:
        response.promise_margin.FromTimedelta(capabilities.promise_margin)
    if capabilities.promise_max is not None:
        response.promise_max.FromTimedelta(capabilities.promise_max)
    return response
