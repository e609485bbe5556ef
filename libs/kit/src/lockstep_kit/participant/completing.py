"""What a finding makes of a leg's row: the phase after it, and what is signed about it. No I/O, clock or randomness."""

from __future__ import annotations

from datetime import datetime

from lockstep_kit import fence
from lockstep_kit.decisions import decision_told
from lockstep_kit.fence import FenceRow, Finding
from lockstep_kit.participant.convert import lock_of_record, outcome_bytes, stored_certificate, vote_bytes
from lockstep_kit.participant.ports import Completion
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.participant.rules import Standing, contradiction, standing
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import REVERSALS, Outcome, OutcomeKind, Vote, sign_outcome, sign_vote
from lockstep_kit.values import dataclass, replace

#: What an outcome says that a finding leads to; votes lead to none.
_OUTCOMES = {
    Finding.LAPSED: OutcomeKind.REFUSED,
    Finding.EXECUTED: OutcomeKind.DONE,
    Finding.REFUSED: OutcomeKind.REFUSED,
    Finding.RELEASED: OutcomeKind.RELEASED,
    Finding.REVERSED: OutcomeKind.REVERSED,
    Finding.REVERSAL_REFUSED: OutcomeKind.REVERSAL_REFUSED,
}


@dataclass(frozen=True, slots=True)
class Signer:
    """The participant as its votes and outcomes name it."""

    #: Name.
    name: str
    #: Its key now.
    key: SigningKey

    def found(self, record: LegRecord, completion: Completion, now: datetime) -> LegRecord | None:
        """The row after a finding; None when the finding changes nothing.

        A finding that contradicts what is known changes no phase, and says so in the row for a person.

        Raises:
            ValueError: the finding lacks what shows it.
        """
        _check(completion)
        if record.fence.phase is None:
            raise ValueError(f"a finding about leg {record.leg_id} of plan {record.plan_id}, which is not known here")
        after = fence.complete(record.fence, completion.finding)
        if after is None:
            if standing(record.fence.phase, completion.finding) is not Standing.CONTRADICTS:
                return None
            sentence = contradiction(record.fence.phase, completion)
            if sentence == record.trouble:
                return None
            return replace(record, fence=replace(record.fence, revision=record.fence.revision + 1), trouble=sentence)
        changed = replace(record, fence=after, left=record.fence.phase, trouble="", since=now)
        if completion.finding in (Finding.VOTED_YES, Finding.VOTED_NO):
            return replace(changed, vote=self._vote(record, completion, now))
        signed = self._outcome(record, after, completion, now)
        # What became of a reversal stands beside the leg's Done, which stays what it was.
        return replace(changed, reversal=signed) if _OUTCOMES[completion.finding] in REVERSALS else replace(changed, outcome=signed)

    def _vote(self, record: LegRecord, completion: Completion, now: datetime) -> bytes:
        answer = completion.promise if completion.finding is Finding.VOTED_YES else completion.refusal
        if answer is None or record.plan_digest is None:
            raise AssertionError("a vote that says nothing")
        vote = Vote(self.name, record.plan_id, record.plan_digest, record.leg_id, lock_of_record(record), answer, now)
        return vote_bytes(sign_vote(vote, self.key))

    def _outcome(self, record: LegRecord, after: FenceRow, completion: Completion, now: datetime) -> bytes:
        if record.plan_digest is None:
            raise AssertionError("an outcome of no plan")
        kind = _OUTCOMES[completion.finding]
        certificate = stored_certificate(record)
        outcome = Outcome(
            participant=self.name,
            plan_id=record.plan_id,
            plan_digest=record.plan_digest,
            leg_id=record.leg_id,
            kind=kind,
            evidence=completion.evidence,
            refusal=completion.refusal,
            revision=after.revision,
            settled_at=now,
            order=after.reversals[-1] if kind in REVERSALS else None,
            decision=decision_told(certificate) if kind is OutcomeKind.DONE and certificate is not None else None,
        )
        return outcome_bytes(sign_outcome(outcome, self.key))


def _check(completion: Completion) -> None:
    match completion.finding:
        case Finding.VOTED_YES:
            shown = completion.promise is not None
        case Finding.EXECUTED | Finding.REVERSED:
            shown = completion.evidence is not None
        case Finding.VOTED_NO | Finding.LAPSED | Finding.REFUSED | Finding.REVERSAL_REFUSED:
            shown = completion.refusal is not None
        case Finding.RELEASED:
            shown = True
    if not shown:
        raise ValueError(f"the finding {completion.finding} about leg {completion.leg_id} lacks what shows it")
