"""The rules of a batch that are the engine's own: how an item stands, what a finding that has no place means, what a stored row becomes. Pure.

What a command may do is `lockstep_kit.fence`; what authorises it is `lockstep_kit.certificate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from lockstep_kit.certificate import Certificate, NotAuthorised, check_abort, check_commit, check_prepare, check_vote
from lockstep_kit.fence import Action, Asked, Command, FenceRow, Finding, Phase, Ruling, rule
from lockstep_kit.participant.ports import Completion
from lockstep_kit.participant.records import (
    FENCE_MESSAGES,
    AbortOrder,
    Answer,
    CommitOrder,
    Item,
    ItemReason,
    LegKey,
    LegRecord,
    PrepareOrder,
    Rejection,
    ReverseOrder,
    Verdict,
)
from lockstep_kit.registry import Registry
from lockstep_kit.reversals import check_reverse
from lockstep_kit.values import replace


class Standing(StrEnum):
    """What a finding that changes no phase is."""

    #: It says again what is known.
    REPEATED = "REPEATED"
    #: It was overtaken, and what overtook it settles the matter.
    LATE = "LATE"
    #: It cannot be true beside what is known: a person must look.
    CONTRADICTS = "CONTRADICTS"


_REPEATED = frozenset(
    {
        (Phase.PREPARED, Finding.VOTED_YES),
        (Phase.REFUSED, Finding.VOTED_NO),
        (Phase.REFUSED, Finding.LAPSED),
        (Phase.REFUSED, Finding.REFUSED),
        (Phase.REFUSED, Finding.RELEASED),
        (Phase.COMMITTED, Finding.EXECUTED),
        (Phase.COMMITTED, Finding.REVERSAL_REFUSED),
        (Phase.REVERSING, Finding.EXECUTED),
        (Phase.REVERSED, Finding.EXECUTED),
        (Phase.REVERSED, Finding.REVERSED),
        (Phase.RELEASED, Finding.VOTED_NO),
        (Phase.RELEASED, Finding.LAPSED),
        (Phase.RELEASED, Finding.REFUSED),
        (Phase.RELEASED, Finding.RELEASED),
    }
)
_LATE = frozenset(
    {
        # The order to execute or to release came first; what becomes of that order says how the leg ends.
        (Phase.COMMITTING, Finding.VOTED_YES),
        (Phase.COMMITTING, Finding.LAPSED),
        (Phase.ABORTING, Finding.VOTED_YES),
        (Phase.ABORTING, Finding.VOTED_NO),
        (Phase.ABORTING, Finding.LAPSED),
        (Phase.ABORTING, Finding.REFUSED),
        (Phase.COMMITTED, Finding.VOTED_YES),
        (Phase.REVERSING, Finding.VOTED_YES),
        (Phase.REVERSED, Finding.VOTED_YES),
    }
)


def standing(phase: Phase, finding: Finding) -> Standing:
    """What a finding is that the fence's table has no place for."""
    if (phase, finding) in _REPEATED:
        return Standing.REPEATED
    return Standing.LATE if (phase, finding) in _LATE else Standing.CONTRADICTS


def contradiction(phase: Phase, completion: Completion) -> str:
    """The sentence that a contradiction is told in."""
    why = f" ({completion.refusal.reason})" if completion.refusal is not None else ""
    return f"Found {completion.finding}{why} while the leg stands as {phase}: this cannot be, look outside."


def authorise(item: Item, participant: str, registry: Registry, now: datetime, executed_by: Certificate | None = None) -> None:
    """What the item shows allows what it asks. `executed_by` is the certificate by which a leg that is to be reversed was executed.

    Raises:
        NotAuthorised: with the first reason found.
    """
    match item.order:
        case PrepareOrder() as prepare:
            check_prepare(item.binding, prepare.make, registry, now)
        case CommitOrder() as commit:
            check_commit(commit.certificate, item.binding, commit.key, participant, registry)
        case AbortOrder() as abort:
            check_abort(abort.authority, item.binding, participant, registry, now)
        case ReverseOrder() as reverse:
            check_reverse(reverse.authority, item.binding, registry, now, executed_by)


def holds_own_yes(item: Item, participant: str, registry: Registry) -> bool:
    """Whether a Commit's certificate holds this participant's own YES for this very leg, signed with a key of its own."""
    if not isinstance(item.order, CommitOrder) or item.order.own_vote is None:
        return False
    signed, _ = item.order.own_vote
    vote = signed.vote
    bound = (vote.plan_id, vote.plan_digest, vote.lock) == (
        item.binding.header.plan_id,
        item.binding.header.digest,
        item.binding.lock,
    )
    if vote.participant != participant or vote.promise is None or not bound:
        return False
    try:
        check_vote(signed, registry)
    except NotAuthorised:
        return False
    return True


def asked_of(item: Item, *, own_yes: bool) -> Asked:
    """The item as the fence sees it."""
    match item.order:
        case PrepareOrder() as prepare:
            not_after: datetime | None = prepare.prepare_by
        case CommitOrder() as commit:
            not_after = commit.not_after
        case AbortOrder() | ReverseOrder():
            not_after = None
    order = item.order.digest if isinstance(item.order, ReverseOrder) else None
    return Asked(item.command, item.digest, item.epoch, not_after, item.decision, own_yes, order)


def judge(
    record: LegRecord | None, item: Item, refusal: NotAuthorised | None, now: datetime, *, own_yes: bool
) -> Ruling | Rejection:
    """What becomes of an item: the fence's ruling, or why what it shows does not let it begin.

    A replay is answered whatever it shows: it does nothing, and signatures run out.
    """
    ruling = rule(None if record is None else record.fence, asked_of(item, own_yes=own_yes), now)
    if ruling.action is Action.BEGIN and refusal is not None:
        return Rejection(refusal.reason, refusal.detail)
    return ruling


def begun(record: LegRecord | None, item: Item, fence: FenceRow, now: datetime, traceparent: str | None) -> LegRecord:
    """The row of a leg that has just entered a working phase by a command."""
    plan_id, leg_id = item.key_of_leg
    left = None if record is None else record.fence.phase
    if record is None or left is None:
        record = LegRecord(plan_id, leg_id, fence, None, item.binding.header.digest, item.binding_bytes)
    record = replace(record, fence=fence, left=left, trouble="", traceparent=traceparent, since=now)
    match item.order:
        case PrepareOrder() as prepare:
            return replace(
                record,
                prepare_by=prepare.prepare_by,
                hold_until=prepare.hold_until,
                payer_signature=prepare.payer_signature or None,
                permit=prepare.permit,
            )
        case CommitOrder() as commit:
            restored = commit.own_vote[1] if record.vote is None and commit.own_vote is not None else record.vote
            return replace(
                record,
                key=commit.key or None,
                not_after=commit.not_after,
                closing=commit.closing_bytes,
                certificate=commit.certificate_bytes,
                vote=restored,
            )
        case AbortOrder() as abort:
            return replace(record, authority=abort.authority_bytes, closing=abort.closing_bytes)
        case ReverseOrder() as reverse:
            return replace(record, reverse_authority=reverse.authority_bytes, reversal=None)


def answer(item: Item, record: LegRecord | None, ruled: Ruling | Rejection) -> Answer:
    """How an item stands, given the row as it is now."""
    plan_id, leg_id = item.key_of_leg
    known = record if record is not None and record.fence.phase is not None else None
    if isinstance(ruled, Rejection):
        return Answer(plan_id, leg_id, Verdict.REJECTED, known, ruled)
    if ruled.reason is not None:
        return Answer(plan_id, leg_id, Verdict.REJECTED, known, Rejection(ruled.reason, FENCE_MESSAGES[ruled.reason]))
    if known is None or known.fence.phase is None:
        raise AssertionError("a command that was not rejected left no row")
    verdict = verdict_of(item.command, known.fence.phase)
    if verdict is Verdict.REJECTED:
        executed = Rejection(ItemReason.LEG_COMMITTED, "the leg was executed; it cannot be released")
        return Answer(plan_id, leg_id, verdict, known, executed)
    return Answer(plan_id, leg_id, verdict, known)


def verdict_of(command: Command, phase: Phase) -> Verdict:
    """How a command that the fence accepted stands in a phase; another command may have overtaken it meanwhile."""
    if phase.working and command is not Command.REVERSE and phase not in _PAST[command]:
        return Verdict.PENDING
    match command, phase:
        case Command.REVERSE, Phase.REVERSED:
            return Verdict.DONE
        case Command.REVERSE, Phase.REVERSING:
            return Verdict.PENDING
        case Command.REVERSE, _:
            return Verdict.REFUSED
        case Command.ABORT, Phase.COMMITTED | Phase.REVERSING | Phase.REVERSED:
            # Nothing was released, and REFUSED would say that it never executes: the report says that it did.
            return Verdict.REJECTED
        case Command.ABORT, _:
            return Verdict.DONE
        case _, Phase.REFUSED | Phase.RELEASED:
            return Verdict.REFUSED
        case _:
            return Verdict.DONE


#: (command) -> working phases that are entered after it was answered.
_PAST = {
    Command.PREPARE: (Phase.COMMITTING, Phase.REVERSING),
    Command.COMMIT: (Phase.REVERSING,),
    Command.ABORT: (Phase.REVERSING,),
    Command.REVERSE: (),
}


def once_each(entries: Sequence[Item | Answer]) -> list[Item | Answer]:
    """The same batch, in which a leg that comes again is Rejected."""
    seen: set[LegKey] = set()
    kept: list[Item | Answer] = []
    for entry in entries:
        if isinstance(entry, Item) and entry.key_of_leg in seen:
            twice = Rejection(ItemReason.LEG_TWICE, "the leg has been named before in this batch")
            kept.append(Answer(*entry.key_of_leg, Verdict.REJECTED, rejection=twice))
            continue
        if isinstance(entry, Item):
            seen.add(entry.key_of_leg)
        kept.append(entry)
    return kept
