"""Which of a participant's reports are news of a plan. Pure.

Only what the participant signed counts: a phase that no signed vote or outcome bears out is no news, whoever says so.
"""

from __future__ import annotations

from typing import Final

from coordinator import facts
from coordinator.dossier import Dossier, LegFile
from coordinator.model import LegNews, PersonNeeded
from lockstep_kit import fence
from lockstep_kit.certificate import NotAuthorised, check_outcome, check_vote
from lockstep_kit.fence import Phase
from lockstep_kit.ids import Digest, LegId, PlanId
from lockstep_kit.registry import Registry
from lockstep_kit.statements import REVERSALS, OutcomeKind, SignedOutcome, SignedVote
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class LegReport:
    """Everything that a participant says of a leg."""

    #: Plan of the leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: Digest of the plan, as the participant has it.
    plan_digest: Digest
    #: Where the leg stands.
    phase: Phase
    #: Grows with every change.
    revision: int
    #: Its vote, once given.
    vote: SignedVote | None
    #: Its outcome, once known.
    outcome: SignedOutcome | None
    #: What it complains of, or "".
    trouble: str
    #: Its answer to the last order to reverse the leg, once there is one.
    reversal: SignedOutcome | None = None


_OUTCOME_OF: Final = {Phase.COMMITTED: OutcomeKind.DONE, Phase.RELEASED: OutcomeKind.RELEASED}


def admit(report: LegReport, sender: str, dossier: Dossier, registry: Registry) -> tuple[LegNews | PersonNeeded, ...]:
    """The report as news; a call for a person where it is not to be believed; nothing where it is older than what is known."""
    file = dossier.file(report.leg_id)
    if file is None:
        return (PersonNeeded("PARTICIPANT_REPORT", "", f"{sender} reports a leg that the plan does not have"),)
    known = facts.leg(dossier.plan, report.leg_id)
    if report.revision <= known.revision:
        return ()
    refusal = unbelievable(report, sender, dossier, registry)
    if refusal is not None:
        return (PersonNeeded("PARTICIPANT_SIGNATURE", report.leg_id, f"{sender}: {refusal}"),)
    called: tuple[PersonNeeded, ...] = ()
    if known.vote is not None and report.vote is not None and not _same_vote(known.vote, report.vote):
        called = (PersonNeeded("PARTICIPANT_CONTRADICTS", report.leg_id, f"{sender} shows another vote than the one it gave"),)
        if report.outcome is None:
            # For the vote that is known something may be held, whatever the other one says: only an outcome shows what became of it.
            return called
    if known.phase is not None and _forgotten(report.phase, known.phase):
        return called
    # What was signed first stays: a participant that was put back, and found the same again, has signed it with another time.
    vote = known.vote or report.vote
    outcome = known.outcome if _same_kind(known.outcome, report.outcome) else report.outcome
    same = (
        _same_kind(known.reversal, report.reversal)
        and known.reversal is not None
        and _order(known.reversal) == _order(report.reversal)
    )
    reversal = known.reversal if same else report.reversal
    return LegNews(report.leg_id, report.phase, report.revision, vote, outcome, report.trouble, reversal), *called


def unbelievable(report: LegReport, sender: str, dossier: Dossier, registry: Registry) -> str | None:
    """Why a report about a leg of the plan is not to be believed, whatever it says; None where it is."""
    file = dossier.file(report.leg_id)
    if file is None:
        return "the plan has no such leg"
    try:
        _check_origin(report, sender, file, dossier, registry)
        _check_borne_out(report)
    except NotAuthorised as refusal:
        return refusal.detail
    return None


def _same_vote(first: SignedVote, second: SignedVote) -> bool:
    """Whether a vote says what an earlier one said: a participant whose database was put back may have had to give it again."""
    one, other = first.vote.promise, second.vote.promise
    if one is None or other is None:
        return first == second
    return (one.kind, one.expires_at) == (other.kind, other.expires_at)


def _same_kind(first: SignedOutcome | None, second: SignedOutcome | None) -> bool:
    return first is not None and second is not None and first.outcome.kind is second.outcome.kind


def _order(signed: SignedOutcome | None) -> Digest | None:
    return None if signed is None else signed.outcome.order


def _reachable() -> dict[Phase, frozenset[Phase]]:
    """Where a leg can still go from each phase, by any number of commands and findings."""
    steps = {(before, after) for (before, _), after in fence.TABLE.items() if isinstance(after, Phase) and before is not None}
    steps |= {(before, after) for (before, _), after in fence.FINDINGS.items()}
    found = {phase: frozenset({phase}) for phase in Phase}
    for _ in Phase:
        found = {
            phase: frozenset().union(*(found[after] for before, after in steps if before is phase), {phase}) for phase in Phase
        }
    return found


_REACHABLE: Final = _reachable()


def _forgotten(told: Phase, known: Phase) -> bool:
    """Whether a participant that goes on from a database that was put back tells of a phase that it had left for good when it was."""
    return not told.final and known in _REACHABLE[told] and told not in _REACHABLE[known]


def _check_origin(report: LegReport, sender: str, file: LegFile, dossier: Dossier, registry: Registry) -> None:
    """The one participant of the leg speaks, about this very plan, leg and lock, with its own signatures."""
    digest = dossier.plan.digest
    if sender != file.participant:
        raise NotAuthorised("REPORT_PARTICIPANT", "the leg is another participant's")
    if report.plan_digest != digest:
        raise NotAuthorised("REPORT_PLAN_DIGEST", "the report is about another plan with this id")
    if report.vote is not None:
        vote = report.vote.vote
        if (vote.participant, vote.plan_id, vote.plan_digest, vote.leg_id, vote.lock) != (
            sender,
            dossier.plan_id,
            digest,
            report.leg_id,
            file.lock,
        ):
            raise NotAuthorised("REPORT_VOTE", "the vote is about another plan, leg or lock")
        check_vote(report.vote, registry)
    for signed in (report.outcome, report.reversal):
        if signed is None:
            continue
        outcome = signed.outcome
        if (outcome.participant, outcome.plan_id, outcome.plan_digest, outcome.leg_id) != (
            sender,
            dossier.plan_id,
            digest,
            report.leg_id,
        ):
            raise NotAuthorised("REPORT_OUTCOME", "the outcome is about another plan or leg")
        check_outcome(signed, registry)


def _check_borne_out(report: LegReport) -> None:
    """The phase is what the signed vote and outcome say."""
    kind = report.outcome.outcome.kind if report.outcome is not None else None
    voted_yes = report.vote is not None and report.vote.vote.promise is not None
    voted_no = report.vote is not None and report.vote.vote.promise is None
    match report.phase:
        case Phase.PREPARED | Phase.COMMITTING:
            borne_out = voted_yes
        case Phase.REFUSED:
            borne_out = voted_no or kind is OutcomeKind.REFUSED
        case Phase.COMMITTED | Phase.RELEASED:
            borne_out = kind is _OUTCOME_OF[report.phase]
        case Phase.REVERSING:
            borne_out = kind is OutcomeKind.DONE
        case Phase.REVERSED:
            undone = report.reversal is not None and report.reversal.outcome.kind is OutcomeKind.REVERSED
            borne_out = kind is OutcomeKind.DONE and undone
        case Phase.PREPARING | Phase.ABORTING:
            borne_out = True
    if report.reversal is not None and report.reversal.outcome.kind not in REVERSALS:
        borne_out = False
    if not borne_out:
        raise NotAuthorised("REPORT_UNSIGNED", f"nothing signed bears out that the leg is {report.phase}")
