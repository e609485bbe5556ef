"""One plan's chain, entry by entry: what the journal says happened, held against what persons and participants signed. Pure.

A participant checks its own leg and its own certificate. What it cannot see is what the others were told, whether the decision's time is true, and what is
left undone elsewhere; all of that stands in the plan's chain, and is looked at here. Where something went wrong and the coordinator called a person
(`exception.raised`), nothing is hidden, and nothing is raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from datetime import datetime, timedelta
from typing import Any, Final

from lockstep_kit.canonical import time_from_text
from lockstep_kit.decisions import decision_digest
from lockstep_kit.ids import Digest
from lockstep_kit.plan import LegKind
from lockstep_kit.registry import Registry
from lockstep_kit.values import dataclass
from lockstep_monitor.entries import GENESIS, JOURNAL, Entry, gates_of, legs_of
from lockstep_monitor.findings import Finding, Rule
from lockstep_monitor.signed import (
    Said,
    Unsigned,
    check_mandate,
    check_person,
    digest_over,
    gate_signature,
    read_outcome,
    read_vote,
)
from lockstep_verify.transitions import TRANSITIONS

CREATED: Final = "plan.created"
RELEASED: Final = "plan.released"
COMMITTED: Final = "plan.committed"
CLOSED: Final = "plan.closed"
RAISED: Final = "exception.raised"
#: Gates that different persons open, and those that a decision rests on.
_PARTED: Final = ("MAKE", "APPROVE", "RELEASE", "VALIDATE")
_DECIDING: Final = ("MAKE", "APPROVE", "RELEASE")
#: Which outcomes a plan can end with from which state.
_ENDS: Final = {"COMMITTED": ("COMMITTED",), "ABORTED": ("ABORTED", "REVERSED", "MIXED"), "PARTIALLY_EXECUTED": ("MIXED",)}
_SETTLING: Final = frozenset(kind.value for kind in LegKind if kind.settling)


@dataclass(frozen=True, slots=True)
class Patience:
    """What is put down to clocks and outages."""

    #: How far clocks of honest services are apart at the most.
    skew: timedelta = timedelta(seconds=30)
    #: How long a decided plan may stand still without anybody being called.
    silent: timedelta = timedelta(hours=1)
    #: How much older than what stands before it in the log a decision may be.
    late: timedelta = timedelta(minutes=15)


@dataclass(slots=True)
class PlanChain:
    """What a plan's chain has said so far."""

    #: The plan.
    plan_id: str
    #: Its digest; None until the first entry was read.
    digest: Digest | None = None
    #: Entries read.
    count: int = 0
    #: Hash of the last of them.
    head: Digest = GENESIS
    #: Place in the log of the last of them.
    position: int = 0
    #: Its time.
    moment: datetime | None = None
    #: State and decision that the last transition entered.
    state: str = ""
    decision: str = ""
    #: Number of that transition.
    transition_no: int = 0
    #: Whether a payload was erased: then what it said is not known.
    erased: bool = False
    #: Whether a person was ever called.
    called: bool = False
    #: Whether it is sealed.
    sealed: bool = False
    #: Who opened which gate.
    opened: dict[str, set[str]] = field(default_factory=dict)
    #: Signatures by which each gate was opened.
    signatures: dict[str, set[str]] = field(default_factory=dict)
    #: Evidence that the validator signed for.
    validated: str = ""
    #: Legs in plan order, as the decision names them.
    legs: tuple[str, ...] = ()
    #: Kind of each leg that was named.
    kinds: dict[str, str] = field(default_factory=dict)
    #: YES of each leg.
    votes: dict[str, Said] = field(default_factory=dict)
    #: Last outcome of each leg.
    outcomes: dict[str, Said] = field(default_factory=dict)
    #: When it was decided, and what everybody must have been told.
    decided_at: datetime | None = None
    told: Digest | None = None
    #: What is not right unless a person is called about it.
    unexplained: list[Finding] = field(default_factory=list)

    def read(self, entry: Entry, registry: Registry, patience: Patience, floor: datetime | None) -> Iterator[Finding]:
        """Take the next entry; `floor` is a time before which nothing behind this place of the log was written."""
        given = entry.delivered
        yield from self._linked(entry)
        payload = entry.payload
        if payload is None:
            self.erased = True
        else:
            yield from self._said(given.type, payload, entry, registry, patience, floor)
        self.count, self.head, self.position, self.moment = self.count + 1, entry.hash, given.position, given.event_time
        if given.type == CLOSED:
            self.sealed = True
            if not self.called:
                yield from self.unexplained
            self.unexplained = []

    def overdue(self, now: datetime, patience: Patience) -> Iterator[Finding]:
        """What is missing by now."""
        if self.sealed or self.called or self.moment is None or now - self.moment <= patience.silent:
            return
        yield from self.unexplained
        if self.decision:
            missing = [leg for leg in self.legs if leg not in self.outcomes and self.kinds.get(leg, "") in ("", *_SETTLING)]
            named = f"; nothing is known of {', '.join(missing)}" if missing and self.decision != "ABORT" else ""
            message = f"nothing has happened since entry {self.count}, though {self.decision} was decided{named}"
            yield self._finding(Rule.PLAN_SILENT, message)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _finding(self, rule: Rule, message: str, leg_id: str = "", *, sequence: int | None = None) -> Finding:
        return Finding(rule, message, self.plan_id, self.count if sequence is None else sequence, self.position, leg_id)

    def _linked(self, entry: Entry) -> Iterator[Finding]:
        given = entry.delivered
        place = {"plan_id": self.plan_id, "sequence": given.sequence, "position": given.position}
        if self.sealed:
            yield Finding(Rule.AFTER_SEAL, f"an entry of the type {given.type} stands behind the seal", **place)  # type: ignore[arg-type]
        if given.sequence != self.count + 1 or (given.type == CREATED) != (given.sequence == 1):
            message = f"entry {self.count + 1} of the chain has the sequence {given.sequence} and the type {given.type}"
            yield Finding(Rule.SEQUENCE_GAP, message, **place)  # type: ignore[arg-type]
        if entry.previous_hash != self.head:
            yield Finding(Rule.LINK_BROKEN, "the entry does not name the hash of the one before", **place)  # type: ignore[arg-type]

    def _said(
        self, kind: str, payload: dict[str, Any], entry: Entry, registry: Registry, patience: Patience, floor: datetime | None
    ) -> Iterator[Finding]:
        given = entry.delivered
        note = _Notes(self.plan_id, given.sequence, given.position)
        if kind == CLOSED:
            yield from self._seal(payload, entry, note)
            return
        digest = Digest(bytes.fromhex(payload["plan_digest"]))
        if self.digest is None:
            self.digest = digest
        elif digest != self.digest:
            yield note.of(Rule.PLAN_DIGEST_DIFFERS, "the entry is about another plan digest than the plan's first entry")
        if kind == RAISED:
            self.called, self.unexplained = True, []
        if "transition" in payload:
            yield from self._moved(payload["transition"], note)
        for record in gates_of(payload):
            yield from self._gate(record, given.event_time, registry, note)
        for leg in legs_of(payload):
            yield from self._leg(leg, registry, patience, note)
        if "resolution" in payload:
            try:
                barred = frozenset().union(*self.opened.values())
                check_mandate(payload["resolution"], self.digest, registry, given.event_time, barred)
            except Unsigned as error:
                yield note.of(Rule.RESOLUTION_NOT_AUTHORISED, str(error))
        if kind == RELEASED:
            yield from self._decided(payload["decision"], given.event_time, registry, patience, floor, note)
        if kind == COMMITTED:
            yield from self._committed(payload["evidence_digest"], note)

    def _moved(self, moved: dict[str, Any], note: _Notes) -> Iterator[Finding]:
        number, after = moved["transition_no"], moved.get("decision", self.decision)
        if number != self.transition_no + 1 or moved["from"] != self.state:
            message = (
                f"transition {number} leaves {moved['from'] or 'nothing'} behind transition {self.transition_no} into {self.state}"
            )
            yield note.of(Rule.TRANSITION_GAP, message)
        first = (moved.get("cause"), moved["to"], after) == ("CREATED", "DRAFT", "")
        known = (moved["from"], self.decision, moved.get("cause"), moved["to"], after) in TRANSITIONS
        sealing = "cause" not in moved and any(
            (moved["from"], self.decision, "CLOSED") == (a, b, c) for a, b, _, c, _ in TRANSITIONS
        )
        if not (first if self.transition_no == 0 else known or sealing):
            message = (
                f"no rule leads from {moved['from']} ({self.decision or 'undecided'}) to {moved['to']} by {moved.get('cause')}"
            )
            yield note.of(Rule.TRANSITION_UNKNOWN, message)
        self.transition_no, self.state, self.decision = number, moved["to"], after

    def _gate(self, record: dict[str, Any], moment: datetime, registry: Registry, note: _Notes) -> Iterator[Finding]:
        try:
            check_person(record, self._digest, registry, moment, open_at=False)
        except Unsigned as error:
            yield note.of(Rule.GATE_NOT_AUTHORISED, str(error))
        gate, actor = record["gate"], record["actor"]
        if record["verdict"] != "APPROVE" or gate not in _PARTED:
            return
        for other, people in self.opened.items():
            if actor in people and other != gate:
                yield note.of(Rule.DUTIES_NOT_SEPARATE, f"{actor} opened the gates {other} and {gate}")
        self.opened.setdefault(gate, set()).add(actor)
        self.signatures.setdefault(gate, set()).add(record["signature"])
        if gate == "VALIDATE":
            self.validated = record.get("evidence_digest", "")

    @property
    def _digest(self) -> Digest:
        return self.digest if self.digest is not None else GENESIS

    def _leg(self, leg: dict[str, Any], registry: Registry, patience: Patience, note: _Notes) -> Iterator[Finding]:
        leg_id = leg["leg_id"]
        self.kinds[leg_id] = leg["kind"]
        if "vote" in leg:
            try:
                vote = read_vote(leg, self.plan_id, self._digest, registry)
            except Unsigned as error:
                yield note.of(Rule.VOTE_INVALID, str(error), leg_id)
            else:
                before = self.votes.get(leg_id)
                if before is not None and before.answer != vote.answer:
                    yield note.of(Rule.VOTE_CONTRADICTED, f"{vote.participant} has voted both YES and NO", leg_id)
                self.votes[leg_id] = vote
        if "outcome" in leg:
            try:
                outcome = read_outcome(leg, "outcome", self.plan_id, self._digest, registry)
            except Unsigned as error:
                yield note.of(Rule.OUTCOME_INVALID, str(error), leg_id)
            else:
                yield from self._outcome(outcome, patience, note)
        if "reversal" in leg:
            try:
                read_outcome(leg, "reversal", self.plan_id, self._digest, registry)
            except Unsigned as error:
                yield note.of(Rule.OUTCOME_INVALID, str(error), leg_id)

    def _outcome(self, outcome: Said, patience: Patience, note: _Notes) -> Iterator[Finding]:
        leg_id, done = outcome.leg_id, outcome.answer == "DONE"
        before = self.outcomes.get(leg_id)
        self.outcomes[leg_id] = outcome
        settling = self.kinds[leg_id] in _SETTLING
        if before == outcome:
            return
        if before is not None and (before.answer == "DONE") != done:
            self._unexplained(
                note.of(Rule.OUTCOME_CONTRADICTED, f"first {before.answer} was signed, then {outcome.answer}", leg_id)
            )
        if not done:
            if settling and self.decision == "COMMIT":
                self._unexplained(note.of(Rule.LEG_FAILED, f"the leg is {outcome.answer}, though it was to be executed", leg_id))
            return
        if settling and self.decision == "ABORT":
            self._unexplained(note.of(Rule.EXECUTED_AFTER_ABORT, "the leg took effect, though ABORT was decided", leg_id))
        if settling and not self.decision:
            self._unexplained(note.of(Rule.EXECUTED_UNDECIDED, "the leg took effect, though nothing was decided", leg_id))
        yield from self._told_alike(outcome, patience, note)

    def _unexplained(self, finding: Finding) -> None:
        if not self.called:
            self.unexplained.append(finding)

    def _told_alike(self, outcome: Said, patience: Patience, note: _Notes) -> Iterator[Finding]:
        """What its participant was told is what the chain says was decided, and the leg took effect behind it."""
        if self.told is not None and outcome.decision not in (None, self.told):
            message = f"{outcome.participant} acted on another decision than the one that the chain records"
            yield note.of(Rule.TOLD_DIFFERENTLY, message, outcome.leg_id)
        if self.decided_at is not None and outcome.at is not None and outcome.at < self.decided_at - patience.skew:
            yield note.of(Rule.DECIDED_OUT_OF_ORDER, "the leg took effect before it was decided", outcome.leg_id)

    def _decided(
        self,
        decision: dict[str, Any],
        moment: datetime,
        registry: Registry,
        patience: Patience,
        floor: datetime | None,
        note: _Notes,
    ) -> Iterator[Finding]:
        self.legs = tuple(decision.get("legs", ()))
        if not decision["decided_at"] or not decision["votes_digest"]:
            yield note.of(Rule.VOTES_DIFFER, "the decision names no time or no votes")
            return
        decided_at = time_from_text(decision["decided_at"])
        self.decided_at = decided_at
        if abs(decided_at - moment) > patience.skew:
            yield note.of(Rule.DECIDED_AT_DIFFERS, f"decided at {decided_at.isoformat()}, recorded as of {moment.isoformat()}")
        if floor is not None and decided_at < floor - patience.late:
            message = f"decided at {decided_at.isoformat()}, and the log before it reaches to {floor.isoformat()}"
            yield note.of(Rule.DECIDED_LONG_BEFORE, message)
        yield from self._decided_by(decision, decided_at, registry, note)
        yield from self._decided_over(decision, decided_at, patience, note)
        if {record["gate"] for record in decision["gates"]} >= set(_DECIDING):
            votes = Digest(bytes.fromhex(decision["votes_digest"]))
            signed = [gate_signature(record, self._digest) for record in decision["gates"]]
            self.told = decision_digest(self._digest, signed, votes, decision["delegate"], decided_at)
        for outcome in self.outcomes.values():
            if outcome.answer == "DONE":
                yield from self._told_alike(outcome, patience, note)

    def _decided_by(self, decision: dict[str, Any], decided_at: datetime, registry: Registry, note: _Notes) -> Iterator[Finding]:
        """Maker, approver and releaser had opened their gates, and they still counted."""
        people: list[str] = []
        for gate in _DECIDING:
            if not any((each["gate"], each["verdict"]) == (gate, "APPROVE") for each in decision["gates"]):
                yield note.of(Rule.GATE_NOT_AUTHORISED, f"the decision rests on no open gate {gate}")
        for record in decision["gates"]:
            gate = record["gate"]
            if record["verdict"] != "APPROVE":
                yield note.of(Rule.GATE_NOT_AUTHORISED, f"the decision rests on a refusal of the gate {gate}")
                continue
            people.append(record["actor"])
            try:
                check_person(record, self._digest, registry, decided_at, open_at=True)
            except Unsigned as error:
                yield note.of(Rule.GATE_NOT_AUTHORISED, str(error))
            if record["signature"] not in self.signatures.get(gate, {record["signature"]}):
                yield note.of(
                    Rule.GATE_DIFFERS, f"the decision rests on another signature of the gate {gate} than the chain records"
                )
            if gate == "RELEASE" and record.get("votes_digest") != decision["votes_digest"]:
                yield note.of(Rule.VOTES_DIFFER, "the releaser signed over other votes than the decision names")
        if len(set(people)) != len(people):
            yield note.of(Rule.DUTIES_NOT_SEPARATE, "one person opened two of the gates that the decision rests on")

    def _decided_over(self, decision: dict[str, Any], decided_at: datetime, patience: Patience, note: _Notes) -> Iterator[Finding]:
        """Every leg had voted YES, the promises still stood, and the votes are those that the decision names."""
        if not self.legs or self.erased:
            return
        given = [self.votes[leg] for leg in self.legs if leg in self.votes and self.votes[leg].answer == "YES"]
        if len(given) != len(self.legs):
            yield note.of(Rule.VOTES_DIFFER, "the chain does not record a YES of every leg")
            return
        if digest_over([vote.mark for vote in given]).hex() != decision["votes_digest"]:
            yield note.of(Rule.VOTES_DIFFER, "the votes that the chain records are not those that the decision names")
        for vote in given:
            if vote.promised_until is not None and vote.promised_until <= decided_at:
                yield note.of(Rule.PROMISE_LAPSED, "the promise had lapsed when it was decided", vote.leg_id)
            if vote.at is not None and vote.at > decided_at + patience.skew:
                yield note.of(Rule.DECIDED_OUT_OF_ORDER, "it was decided before the leg's participant had voted", vote.leg_id)

    def _committed(self, evidence: str, note: _Notes) -> Iterator[Finding]:
        if self.erased:
            return
        if self.validated != evidence:
            yield note.of(Rule.NOT_VALIDATED, "no validator's signature over the evidence that was committed is recorded")
        settling = [leg for leg in self.legs if self.kinds.get(leg, "") in _SETTLING]
        done = [self.outcomes[leg] for leg in settling if leg in self.outcomes and self.outcomes[leg].answer == "DONE"]
        if self.legs and (len(done) != len(settling) or digest_over([each.mark for each in done]).hex() != evidence):
            yield note.of(Rule.EVIDENCE_DIFFERS, "the outcomes that the chain records are not the evidence that was committed")

    def _seal(self, payload: dict[str, Any], entry: Entry, note: _Notes) -> Iterator[Finding]:
        if entry.delivered.actor != JOURNAL or (payload["entry_count"], payload["head_hash"]) != (self.count, self.head.hex()):
            yield note.of(Rule.SEAL_WRONG, "the seal is not the journal's own, or is about another chain")
        if not self.erased and payload["outcome"] not in _ENDS.get(self.state, ()):
            yield note.of(Rule.SEAL_WRONG, f"the seal says {payload['outcome']} of a plan that stands at {self.state}")
        yield from self._moved(payload["transition"], note)


@dataclass(frozen=True, slots=True)
class _Notes:
    """Where an entry stands."""

    plan_id: str
    sequence: int
    position: int

    def of(self, rule: Rule, message: str, leg_id: str = "") -> Finding:
        """A finding about the entry."""
        return Finding(rule, message, self.plan_id, self.sequence, self.position, leg_id)
