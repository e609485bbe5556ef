"""A plan's chain in the journal as an honest coordinator writes it, to be bent by tests in one place at a time.

    history = Told()
    history.begin(); history.votes_given(); history.approved(); history.released(); history.executed(); history.committed()
    delivered(history)                                    # as the journal delivers it

What a test bends is signed and chained again as whoever bends it could: the journal signs whatever the coordinator appends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from lockstep_kit.canonical import Document, time_text
from lockstep_kit.decisions import decision_digest
from lockstep_kit.ids import Digest
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import (
    Gate,
    GateSignature,
    Outcome,
    OutcomeKind,
    Promise,
    PromiseKind,
    Refusal,
    Verdict,
    evidence_digest,
    sign_outcome,
    votes_digest,
)
from lockstep_monitor.entries import Delivered
from lockstep_testkit.bundles.history import History
from lockstep_testkit.factories import PARTICIPANTS, key_of

COORDINATOR: Final = ("coordinator", "coordinator")


@dataclass(slots=True)
class Told(History):
    """A history whose entries hold the statements themselves."""

    #: The decision that participants are told; None before there is one.
    told: Digest | None = None
    #: When it was decided.
    decided_at: datetime | None = None

    def begin(self) -> None:
        """Made, started, checked."""
        self.record("plan.created", "alice", "maker", {**self.move("DRAFT", "CREATED"), **self.sign(Gate.MAKE)})
        self.record("plan.initiated", *COORDINATOR, self.move("INITIATED", "EXECUTE_ASKED"))
        self.record("plan.initiated", *COORDINATOR, self.move("PRECONDITIONS_PENDING", "CHECKS_BEGUN"))
        self.record("plan.ready", *COORDINATOR, self.move("READY_FOR_PREPARE", "CHECKS_PASSED"))

    def votes_given(self, *, but: Sequence[str] = (), until: datetime | None = None) -> None:
        """A YES of every leg."""
        for leg in self.case.legs:
            if leg.leg_id not in but:
                self.vote(leg.leg_id, Promise(PromiseKind.GUARANTEED, until))

    def approved(self, who: str = "bob", *, recorded: Mapping[str, Document] | None = None) -> None:
        """The approver signs."""
        gate = self.sign(Gate.APPROVE, who=who)
        self.record(
            "plan.approved", who, "approver", {**self.move("PREPARED", "PREPARED_AND_APPROVED"), **gate, **(recorded or {})}
        )

    def released(
        self, who: str = "carol", *, decided_at: datetime | None = None, bent: Mapping[str, Document] | None = None
    ) -> None:
        """The releaser signs, and with that it is decided; `bent` stands in the decision in place of what would."""
        gate = self.sign(Gate.RELEASE, who=who)
        votes = votes_digest(self.in_order(self.votes))
        self.decided_at = decided_at or self.tick()
        decision: dict[str, Document] = {
            "delegate": "",
            "decided_at": time_text(self.decided_at),
            "votes_digest": votes.hex(),
            "gates": list(self.gate_records),
            "legs": [leg.leg_id for leg in self.case.legs],
            **(bent or {}),
        }
        self.told = decision_digest(self.case.header.digest, self._deciding(), votes, "", self.decided_at)
        self.record(
            "plan.released", who, "releaser", {**self.move("EXECUTING", "RELEASED", "COMMIT"), **gate, "decision": decision}
        )

    def _deciding(self) -> list[GateSignature]:
        return [each for each in self.gates if each.statement.gate in (Gate.MAKE, Gate.APPROVE, Gate.RELEASE)]

    def acted(
        self,
        leg_id: str,
        kind: OutcomeKind = OutcomeKind.DONE,
        *,
        told: Digest | None = None,
        at: datetime | None = None,
        signed_by: str = "",
    ) -> None:
        """A leg's outcome, signed on what its participant was told."""
        leg, name = self.case.leg(leg_id), PARTICIPANTS[self.case.leg(leg_id).kind]
        done = kind is OutcomeKind.DONE
        outcome = Outcome(
            participant=name,
            plan_id=self.case.plan_id,
            plan_digest=self.case.header.digest,
            leg_id=leg.leg_id,
            kind=kind,
            evidence=self.evidence_of(leg, kind) if done else None,
            refusal=Refusal("BANK_EXECUTE_FAILED", "AM04") if kind is OutcomeKind.REFUSED else None,
            revision=4,
            settled_at=at or self.tick(),
            decision=(told or self.told) if done else None,
        )
        self.outcomes[leg_id] = sign_outcome(outcome, key_of(signed_by or name))

    def executed(self, *, but: Sequence[str] = ()) -> None:
        """Every leg that moves value takes effect."""
        legs = [leg.leg_id for leg in self.case.legs if leg.settling and leg.leg_id not in but]
        for leg_id in legs:
            self.acted(leg_id)
            last = leg_id == legs[-1] and not but
            self.said_executed(leg_id, self.move("VALIDATING", "ALL_DONE", "COMMIT") if last else {})

    def said_executed(self, leg_id: str, document: Mapping[str, Document] | None = None) -> None:
        """An entry that a leg took effect."""
        name = PARTICIPANTS[self.case.leg(leg_id).kind]
        self.record("leg.executed", name, "participant", {**self.leg(leg_id), **(document or {})})

    def validated(self, who: str = "dave") -> Digest:
        """The validator signs for the evidence."""
        gate, digest = self.sign(Gate.VALIDATE, who=who), evidence_digest(self.settled())
        self.record("evidence.validated", who, "validator", {**gate, "evidence_digest": digest.hex()})
        return digest

    def committed(self, digest: Digest | None = None) -> None:
        """The plan is committed and sealed."""
        shown = digest or evidence_digest(self.settled())
        moved = self.move("COMMITTED", "EVIDENCE_VALIDATED", "COMMIT")
        self.record("plan.committed", *COORDINATOR, {**moved, "evidence_digest": shown.hex()})
        self.seal("COMMITTED", shown)

    def aborted(self, who: str = "alice") -> None:
        """A person stops the plan."""
        gate = self.sign(Gate.CANCEL, who=who, verdict=Verdict.APPROVE)
        self.record("plan.aborted", who, "canceller", {**self.move("ABORTED", "CANCELLED", "ABORT"), **gate})

    def raised(self, reason: str = "LEG_REFUSED") -> None:
        """A person is called."""
        self.record("exception.raised", *COORDINATOR, {"reason": {"reason": reason, "detail": "look"}})

    def leg(self, leg_id: str) -> dict[str, Document]:
        """A leg with everything that its participant has signed about it, and the statements themselves."""
        said: Any = History.leg(self, leg_id)
        if leg_id in self.votes:
            said["leg"]["vote"]["statement"] = self.votes[leg_id].vote.signed_bytes().decode()
        if leg_id in self.outcomes:
            said["leg"]["outcome"]["statement"] = self.outcomes[leg_id].outcome.signed_bytes().decode()
        found: dict[str, Document] = said
        return found


def settled() -> Told:
    """A plan that went as all hoped, up to its seal."""
    history = Told()
    history.begin()
    history.votes_given()
    history.approved()
    history.released()
    history.executed()
    history.validated()
    history.committed()
    return history


def delivered(history: History, *, first: int = 1) -> list[Delivered]:
    """The chain as the journal delivers it, alone in its log from a position on."""
    return [
        Delivered(
            position=first + index,
            plan_id=str(each.document["plan_id"]),
            sequence=index + 1,
            type=str(each.document["type"]),
            actor=str(each.document["actor"]),
            event_time=datetime.fromisoformat(str(each.document["event_time"])),
            payload=each.payload,
            canonical_bytes=each.signed,
            signature=each.signature,
        )
        for index, each in enumerate(history.entries)
    ]


def signed_anew(given: Delivered, key: SigningKey) -> Delivered:
    """The same bytes under another key's signature."""
    return replace(given, signature=key.sign(given.canonical_bytes))
