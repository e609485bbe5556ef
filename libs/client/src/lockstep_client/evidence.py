"""What a validator checks of a plan before it signs: pure comparisons of what the coordinator shows with what the outside world says.

Nothing that the coordinator, a participant or a bank's message claims is taken over: signatures are checked against the validator's own registry, digests are
recomputed, and effects are compared with facts that the validator read itself (`chain_reader`, `bank_reader`, the journal's chain). Every comparison gives
findings, each with a rule's name; no finding means that everything holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from lockstep_client.convert import LegView, PlanView
from lockstep_client.journal_chain import ChainVerdict
from lockstep_kit.certificate import NotAuthorised, check_distinct, check_gate, check_outcome, check_vote
from lockstep_kit.ids import ActorId
from lockstep_kit.plan import LegKind, legs_root
from lockstep_kit.registry import Registry
from lockstep_kit.sod import scope_of, signatures_needed
from lockstep_kit.statements import Gate, OutcomeKind, SignedOutcome, SignedVote, Verdict, evidence_digest, votes_digest
from lockstep_kit.values import dataclass

#: What a journal that is late or down leaves unsaid. A decided plan settles without it and waits in COMMITTED (docs/settlement-cycle.md).
JOURNAL_SILENT: Final = frozenset({"JOURNAL_BEHIND", "JOURNAL_CHAIN_EMPTY", "JOURNAL_UNREACHABLE"})
#: Gates that must have been opened before a plan executes.
_OPENED: Final = (Gate.MAKE, Gate.APPROVE, Gate.RELEASE)

#: Which participant serves which kind of leg, as the validator (not the coordinator) knows it.
Servers: TypeAlias = Mapping[LegKind, str]

SERVERS: Final[Servers] = {
    LegKind.TOKEN_TRANSFER: "dlt-gateway",
    LegKind.CREDIT_TRANSFER: "bank-gateway",
    LegKind.ISSUE_INSTRUMENT: "bank-gateway",
    LegKind.NOTARISATION: "notary",
    LegKind.JOURNAL: "event-journal",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold."""

    #: UPPER_SNAKE name of the rule.
    rule: str
    #: Leg that it is about, or "".
    leg_id: str
    #: One sentence.
    message: str
    #: Whether it may come to hold by itself: something outside has not been seen yet.
    may_pass: bool = False


class Findings(list[Finding]):
    """Findings, gathered one rule after the other."""

    def __init__(self, leg_id: str = "") -> None:
        super().__init__()
        self._leg_id = leg_id

    def expect(self, holds: bool, rule: str, message: str, *, may_pass: bool = False) -> bool:
        """Note a finding unless the rule holds; returns whether it does."""
        if not holds:
            self.note(rule, message, may_pass=may_pass)
        return holds

    def note(self, rule: str, message: str, *, may_pass: bool = False) -> None:
        """Note a finding."""
        self.append(Finding(rule, self._leg_id, message, may_pass))

    def allow(self, error: NotAuthorised) -> None:
        """Note what a check of signatures refused."""
        self.append(Finding(error.reason, self._leg_id, error.detail))


def check_plan(view: PlanView, registry: Registry, servers: Servers = SERVERS) -> list[Finding]:
    """Everything that can be told from the plan itself: digests, people, votes, outcomes.

    The digest that the validator is about to sign is the one recomputed here.
    """
    found = Findings()
    found.expect(view.header.digest == view.plan_digest, "PLAN_DIGEST_DIFFERS", "the plan's digest is not that of its head")
    legs = [each.leg for each in view.legs]
    same_root = len(legs) == view.header.leg_count and bool(legs) and legs_root(legs) == view.header.legs_root
    found.expect(same_root, "LEGS_ROOT_DIFFERS", "the legs are not those under the plan's legs_root")
    found.expect(len({leg.leg_id for leg in legs}) == len(legs), "LEG_TWICE", "a leg's id is there twice")
    _check_people(view, registry, found)
    for each in view.legs:
        found.extend(check_leg(each, view, registry, servers))
    settling = [each for each in view.legs if each.leg.settling]
    signed = [each.outcome for each in settling if each.outcome is not None]
    # What operators showed in place of an answer is looked up outside like any other effect; it is no outcome, and in no digest over outcomes.
    shown = [each for each in settling if each.outcome is not None or each.operators_evidence is not None]
    if found.expect(len(shown) == len(settling) > 0, "OUTCOMES_INCOMPLETE", "not every settling leg has an outcome"):
        found.expect(
            view.evidence_digest == evidence_digest(signed),
            "EVIDENCE_DIGEST_DIFFERS",
            "the plan's evidence digest is not that of its settling legs' outcomes",
        )
    return found


def _check_people(view: PlanView, registry: Registry, found: Findings) -> None:
    """Maker, approver and releaser signed this plan, are three persons, and the releaser signed over these votes."""
    people: list[ActorId] = []
    scope = scope_of(view.header, [each.leg for each in view.legs])
    over = votes_digest(each.vote for each in view.legs if each.vote is not None)
    matrix = registry.matrices.get(scope.sod_version)
    for gate in _OPENED:
        records = [
            each for each in view.gates if each.signed.statement.gate is gate and each.signed.statement.verdict is Verdict.APPROVE
        ]
        if not records:
            found.note("GATE_MISSING", f"nobody is shown to have opened the gate {gate}")
            continue
        signers: set[ActorId] = set()
        said = len(found)
        for record in records:
            try:
                signers.add(check_gate(record.signed, gate, scope, registry, record.signed_at).actor_id)
            except NotAuthorised as error:
                found.allow(error)
            if gate is Gate.RELEASE:
                same = record.signed.statement.votes_digest == over
                found.expect(same, "VOTES_DIGEST_DIFFERS", "the releaser signed over other votes")
        needed = 1 if matrix is None else signatures_needed(matrix, gate, scope)
        enough = len(signers) >= needed or len(found) > said
        found.expect(enough, "GATE_SIGNATURES", f"the gate {gate} takes {needed} persons' signatures")
        people.extend(sorted(signers))
    try:
        check_distinct(people)
    except NotAuthorised as error:
        found.allow(error)


#: What of a leg's check is about its vote.
_OF_VOTES: Final = frozenset(
    {"PARTICIPANT_WRONG", "VOTE_MISSING", "VOTE_SIGNATURE", "VOTE_PARTICIPANT", "VOTE_SUBJECT", "VOTE_LOCK", "VOTE_NO"}
)


def check_votes(view: PlanView, registry: Registry, servers: Servers = SERVERS) -> list[Finding]:
    """Every leg's vote is its participant's YES about this very leg, lock and plan, by the registry of whoever asks."""
    return [each for leg in view.legs for each in check_leg(leg, view, registry, servers) if each.rule in _OF_VOTES]


def check_leg(each: LegView, view: PlanView, registry: Registry, servers: Servers) -> list[Finding]:
    """A leg's vote is its participant's YES, and a settling leg's outcome its participant's Done, both about this leg of this plan."""
    found = Findings(each.leg.leg_id)
    server = servers[each.leg.kind]
    found.expect(
        each.participant == server,
        "PARTICIPANT_WRONG",
        f"a leg of the kind {each.leg.kind} is served by {server}, not {each.participant}",
    )
    if each.vote is None:
        found.note("VOTE_MISSING", "the leg has no vote")
    else:
        _check_vote(each, each.vote, view, server, registry, found)
    if each.leg.settling:
        if each.outcome is not None:
            _check_outcome(each, each.outcome, view, server, registry, found)
        elif each.operators_evidence is None:
            found.note("OUTCOME_MISSING", "the leg has no outcome")
    return found


def _check_vote(each: LegView, signed: SignedVote, view: PlanView, server: str, registry: Registry, found: Findings) -> None:
    vote = signed.vote
    try:
        check_vote(signed, registry)
    except NotAuthorised as error:
        found.allow(error)
    found.expect(vote.participant == server, "VOTE_PARTICIPANT", f"the vote is by {vote.participant}, not by {server}")
    same = (vote.plan_id, vote.plan_digest, vote.leg_id) == (view.header.plan_id, view.header.digest, each.leg.leg_id)
    found.expect(same, "VOTE_SUBJECT", "the vote is about another plan or leg")
    found.expect(vote.lock == each.lock, "VOTE_LOCK", "the vote is about another lock")
    found.expect(vote.promise is not None, "VOTE_NO", "the vote is a NO")


def _check_outcome(each: LegView, signed: SignedOutcome, view: PlanView, server: str, registry: Registry, found: Findings) -> None:
    outcome = signed.outcome
    try:
        check_outcome(signed, registry)
    except NotAuthorised as error:
        found.allow(error)
    found.expect(outcome.participant == server, "OUTCOME_PARTICIPANT", f"the outcome is by {outcome.participant}, not by {server}")
    same = (outcome.plan_id, outcome.plan_digest, outcome.leg_id) == (view.header.plan_id, view.header.digest, each.leg.leg_id)
    found.expect(same, "OUTCOME_SUBJECT", "the outcome is about another plan or leg")
    found.expect(outcome.kind is OutcomeKind.DONE, "OUTCOME_NOT_DONE", f"the outcome is {outcome.kind}")
    found.expect(outcome.evidence is not None, "EVIDENCE_MISSING", "the outcome shows nothing")


def check_journal(chain: ChainVerdict, view: PlanView, *, complete_to: int) -> list[Finding]:
    """The journal's chain of the plan holds, is about this very plan, and reaches as far as the coordinator says it recorded."""
    found = Findings()
    for each in chain.findings:
        found.note(f"JOURNAL_{each.rule}", f"entry {each.sequence}: {each.message}", may_pass=each.rule == "CHAIN_EMPTY")
    if chain.payloads_erased:
        found.note("JOURNAL_PAYLOADS_ERASED", "the plan's payloads in the journal were erased: what its chain said cannot be seen")
    elif chain.entry_count:
        same = chain.plan_digest == view.header.digest.hex()
        found.expect(same, "JOURNAL_PLAN_DIFFERS", "the journal's chain was opened for another plan")
    found.expect(
        chain.entry_count >= complete_to,
        "JOURNAL_BEHIND",
        f"the journal holds {chain.entry_count} of {complete_to} entries",
        may_pass=True,
    )
    return found
