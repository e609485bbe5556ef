"""Which of a participant's reports are news of a plan. Pure.

Only what the participant signed counts: a phase that no signed vote or outcome bears out is no news, whoever says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coordinator import facts
from coordinator.dossier import Dossier, LegFile
from coordinator.model import LegNews, PersonNeeded
from lockstep_kit.certificate import NotAuthorised, check_outcome, check_vote
from lockstep_kit.fence import Phase
from lockstep_kit.ids import Digest, LegId, PlanId
from lockstep_kit.registry import Registry
from lockstep_kit.statements import OutcomeKind, SignedOutcome, SignedVote


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


_OUTCOME_OF: Final = {Phase.COMMITTED: OutcomeKind.DONE, Phase.RELEASED: OutcomeKind.RELEASED}


def admit(report: LegReport, sender: str, dossier: Dossier, registry: Registry) -> LegNews | PersonNeeded | None:
    """The report as news; a call for a person where it is not to be believed; None where it is older than what is known."""
    file = dossier.file(report.leg_id)
    if file is None:
        return PersonNeeded("PARTICIPANT_REPORT", "", f"{sender} reports a leg that the plan does not have")
    known = facts.leg(dossier.plan, report.leg_id)
    if report.revision <= known.revision:
        return None
    try:
        _check_origin(report, sender, file, dossier, registry)
        _check_borne_out(report)
    except NotAuthorised as refusal:
        return PersonNeeded("PARTICIPANT_SIGNATURE", report.leg_id, f"{sender}: {refusal.detail}")
    if known.vote is not None and report.vote is not None and report.vote != known.vote:
        return PersonNeeded("PARTICIPANT_CONTRADICTS", report.leg_id, f"{sender} shows another vote than the one it gave")
    vote = known.vote or report.vote
    return LegNews(report.leg_id, report.phase, report.revision, vote, report.outcome, report.trouble)


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
    if report.outcome is not None:
        outcome = report.outcome.outcome
        if (outcome.participant, outcome.plan_id, outcome.plan_digest, outcome.leg_id) != (
            sender,
            dossier.plan_id,
            digest,
            report.leg_id,
        ):
            raise NotAuthorised("REPORT_OUTCOME", "the outcome is about another plan or leg")
        check_outcome(report.outcome, registry)


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
        case Phase.PREPARING | Phase.ABORTING:
            borne_out = True
    if not borne_out:
        raise NotAuthorised("REPORT_UNSIGNED", f"nothing signed bears out that the leg is {report.phase}")
