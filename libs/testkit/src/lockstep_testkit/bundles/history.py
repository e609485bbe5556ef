"""What is signed and recorded of one plan from its making to its seal, by ways that end in each outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lockstep_kit.canonical import Document, canonical, statement, time_text
from lockstep_kit.ids import Digest, LegId, PlanId, journal_event_id, sha256, uetr
from lockstep_kit.keys import PLAN_KEY_BYTES
from lockstep_kit.plan import Journal, Leg, Notarisation, PlanHeader, Policy, Terms, legs_root
from lockstep_kit.resolutions import Resolution, ResolutionSignature, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.reversals import OperatorsResolution, order_digest
from lockstep_kit.signing import Signature, SigningKey
from lockstep_kit.statements import (
    BankEvidence,
    ChainEvidence,
    Evidence,
    Gate,
    GateSignature,
    GateStatement,
    Outcome,
    OutcomeKind,
    Promise,
    PromiseKind,
    Refusal,
    SignedOutcome,
    SignedVote,
    Verdict,
    Vote,
    evidence_digest,
    refusal_document,
    sign_gate,
    sign_outcome,
    sign_vote,
    votes_digest,
)
from lockstep_testkit.factories import (
    BUYER,
    CHAIN,
    PARTICIPANTS,
    SELLER,
    SIGNERS,
    PlanCase,
    address_of,
    credit_terms,
    key_of,
    token_terms,
)

BEGUN: Final = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
PLAN: Final = PlanId("5b8f2c1e-3d47-4a6b-9c0d-7e1f2a3b4c5d")
REGISTRY: Final = address_of("registry")
TOKEN: Final = token_terms().amount.asset
ESCALATION: Final = "escalation-1"


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry of the plan's chain."""

    #: What was hashed and signed.
    signed: bytes
    #: RFC 8785 bytes of its payload.
    payload: bytes
    #: By the journal.
    signature: Signature
    #: The document in it.
    document: Mapping[str, Document]


def the_plan(sod_version: int = 1, policy: Policy | None = None) -> PlanCase:
    """Tokens against cash, notarised and journalled; the same in every run."""
    terms: dict[str, Terms] = {
        "tokens": token_terms(),
        "cash": credit_terms(),
        "notarisation": Notarisation(CHAIN, REGISTRY),
        "journal": Journal(),
    }
    legs = tuple(Leg(LegId(name), sha256(name.encode())[:16], (), each) for name, each in terms.items())
    until = BEGUN + timedelta(hours=1)
    header = PlanHeader(PLAN, "VECTOR", (BUYER, SELLER), until, policy or Policy(), sod_version, len(legs), legs_root(legs))
    return PlanCase(header, legs, sha256(b"plan key")[:PLAN_KEY_BYTES])


@dataclass(slots=True)
class History:
    """A plan's history as it is written; each word takes a second."""

    #: The plan.
    case: PlanCase = field(default_factory=the_plan)
    #: The journal's keys in the order of their use, each with the number of entries that it signs (the last signs the rest).
    journal_keys: tuple[tuple[SigningKey, int], ...] = ()
    #: Who signs each gate.
    signers: Mapping[Gate, tuple[str, ...]] = field(default_factory=lambda: {gate: (who,) for gate, who in SIGNERS.items()})
    #: The operators who resolve.
    operators: tuple[str, ...] = ("erin", "frank")
    #: The chain.
    entries: list[Recorded] = field(default_factory=list)
    #: What was signed.
    gates: list[GateSignature] = field(default_factory=list)
    gate_records: list[Document] = field(default_factory=list)
    votes: dict[str, SignedVote] = field(default_factory=dict)
    outcomes: dict[str, SignedOutcome] = field(default_factory=dict)
    reversals: dict[str, SignedOutcome] = field(default_factory=dict)
    #: What operators resolved.
    resolved: list[Resolution] = field(default_factory=list)
    #: The order to reverse that was given last.
    order: Digest | None = None
    #: The abort audit log of a plan that did not settle.
    audit_log: bytes = b""
    #: As the seal says them.
    outcome: str = ""
    evidence: Digest = field(default_factory=lambda: Digest(bytes(32)))
    _seconds: int = 0
    _state: str = ""
    _transitions: int = 0

    @property
    def now(self) -> datetime:
        """The present moment of the history."""
        return BEGUN + timedelta(seconds=self._seconds)

    def tick(self) -> datetime:
        """The next moment."""
        self._seconds += 1
        return self.now

    def move(self, to: str, cause: str, decision: str = "") -> dict[str, Document]:
        """The next transition."""
        self._transitions += 1
        left, self._state = self._state, to
        moved: Document = {"transition_no": self._transitions, "from": left, "to": to, "decision": decision, "cause": cause}
        return {"transition": moved}

    def record(self, type_: str, actor: str, role: str, document: Mapping[str, Document], *, bound: bool = True) -> None:
        """Append an entry."""
        sequence = len(self.entries) + 1
        about: dict[str, Document] = {"plan_digest": self.case.header.digest.hex()} if bound else {}
        payload = canonical({"version": 1, **about, **document})
        key = self._key(sequence)
        said: dict[str, Document] = {
            "version": 1,
            "plan_id": self.case.plan_id,
            "sequence": sequence,
            "event_id": journal_event_id(self.case.plan_id, sequence),
            "type": type_,
            "actor": actor,
            "actor_role": role,
            "event_time": time_text(self.tick()),
            "payload_hash": sha256(payload).hex(),
            "previous_hash": sha256(self.entries[-1].signed).hex() if self.entries else bytes(32).hex(),
            "key_id": key.public.key_id,
        }
        signed = statement("lockstep/entry/v1", said)
        self.entries.append(Recorded(signed, payload, key.sign(signed), said))

    def _key(self, sequence: int) -> SigningKey:
        for key, until in self.journal_keys:
            if sequence <= until:
                return key
        return self.journal_keys[-1][0] if self.journal_keys else key_of("event-journal")

    def sign(self, gate: Gate, *, who: str | None = None, verdict: Verdict = Verdict.APPROVE) -> dict[str, Document]:
        """A gate's signature, and how an entry records it."""
        actor = who or self.signers[gate][0]
        # A person who signs a gate again does so with another nonce.
        again = sum(
            1 for each in self.gate_records if isinstance(each, dict) and (each["gate"], each["actor"]) == (gate.value, actor)
        )
        said = GateStatement(
            gate,
            verdict,
            self.case.header.digest,
            sha256(f"{gate} {actor}{again or ''}".encode())[:16],
            self.case.header.deadline,
            votes_digest(self.in_order(self.votes)) if gate is Gate.RELEASE else None,
            evidence_digest(self.settled()) if gate is Gate.VALIDATE else None,
        )
        signed = sign_gate(said, key_of(actor))
        self.gates.append(signed)
        self.gate_records.append(_gate_record(signed, actor))
        return {"gate": self.gate_records[-1]}

    def sign_all(self, gate: Gate) -> tuple[str, dict[str, Document]]:
        """The signatures of all who sign a gate: the last one of them, and how the entry of its signature records them."""
        records = [self.sign(gate, who=who)["gate"] for who in self.signers[gate]]
        further: dict[str, Document] = {"further_gates": records[:-1]} if len(records) > 1 else {}
        return self.signers[gate][-1], {"gate": records[-1], **further}

    def resolve(self, verb: Verb, document: Mapping[str, Document], /, **changes: Any) -> None:
        """What the operators sign about the exception, recorded with what it brings about."""
        said = Resolution(self.case.header.digest, ESCALATION, verb, detail="as the ticket says")
        said = replace(said, **changes)
        self.resolved.append(said)
        signed = [
            sign_resolution(
                ResolutionStatement(said, sha256(f"{verb} {index}".encode())[:16], self.case.header.deadline), key_of(who)
            )
            for index, who in enumerate(self.operators)
        ]
        if verb is Verb.REVERSE:
            self.order = order_digest(OperatorsResolution(tuple(signed)))
        mandate: Document = {
            "resolution": said.document(),
            "digest": said.digest.hex(),
            "signatures": [_operator_record(each, who) for each, who in zip(signed, self.operators, strict=True)],
        }
        self.record("exception.resolved", self.operators[-1], "operator", {**document, "resolution": mandate})

    def in_order(self, given: Mapping[str, SignedVote]) -> list[SignedVote]:
        """Votes in plan order."""
        return [given[leg.leg_id] for leg in self.case.legs if leg.leg_id in given]

    def settled(self) -> list[SignedOutcome]:
        """Outcomes of the legs that move value, in plan order."""
        return [self.outcomes[leg.leg_id] for leg in self.case.legs if leg.settling and leg.leg_id in self.outcomes]

    def vote(self, leg_id: str, answer: Promise | Refusal | None = None) -> None:
        """A leg's vote, recorded."""
        name = PARTICIPANTS[self.case.leg(leg_id).kind]
        given = answer or Promise(PromiseKind.GUARANTEED, None)
        vote = Vote(name, self.case.plan_id, self.case.header.digest, LegId(leg_id), self.case.lock(leg_id), given, self.tick())
        self.votes[leg_id] = sign_vote(vote, key_of(name))
        self.record("leg.prepared" if isinstance(given, Promise) else "leg.refused", name, "participant", self.leg(leg_id))

    def settle(self, leg_id: str, kind: OutcomeKind, *, type_: str = "", document: Mapping[str, Document] | None = None) -> None:
        """A leg's outcome, or its reversal; recorded where an event type is given."""
        leg, name = self.case.leg(leg_id), PARTICIPANTS[self.case.leg(leg_id).kind]
        reverses = kind is OutcomeKind.REVERSED
        outcome = Outcome(
            name,
            self.case.plan_id,
            self.case.header.digest,
            leg.leg_id,
            kind,
            self.evidence_of(leg, kind) if kind in (OutcomeKind.DONE, OutcomeKind.REVERSED) else None,
            Refusal("BANK_EXECUTE_FAILED", "AM04") if kind is OutcomeKind.REFUSED else None,
            8 if reverses else 4,
            self.tick(),
            self.order if reverses else None,
        )
        (self.reversals if reverses else self.outcomes)[leg_id] = sign_outcome(outcome, key_of(name))
        if type_:
            self.record(type_, name, "participant", {**self.leg(leg_id), **(document or {})})

    def evidence_of(self, leg: Leg, kind: OutcomeKind) -> Evidence:
        """What shows a leg's effect."""
        status = "ACSC" if kind is OutcomeKind.DONE else "CNCL"
        if leg.leg_id == "cash":
            reference = uetr(self.case.plan_id, leg.leg_id)
            return BankEvidence("COBADEFF", reference, status, "MSG-1", sha256(b"message"), "REF-1", sha256(b"booking"))
        place = REGISTRY if leg.leg_id == "notarisation" else address_of("escrow")
        return ChainEvidence(CHAIN, place, sha256(b"entry"), "Committed", sha256(b"transaction"), 17, sha256(b"block"))

    def leg(self, leg_id: str) -> dict[str, Document]:
        """A leg with everything that its participant has signed about it."""
        said: dict[str, Document] = {"leg_id": leg_id, "kind": self.case.leg(leg_id).kind.value}
        if leg_id in self.votes:
            vote = self.votes[leg_id]
            said["vote"] = {
                "statement_sha256": sha256(vote.vote.signed_bytes()).hex(),
                "key_id": vote.signature.key_id,
                "signature": vote.signature.octets.hex(),
                "vote": "YES" if vote.vote.promise is not None else "NO",
                **({"refusal": refusal_document(vote.vote.answer)} if isinstance(vote.vote.answer, Refusal) else {}),
            }
        for name, given in (("outcome", self.outcomes), ("reversal", self.reversals)):
            if leg_id in given:
                said[name] = _outcome_record(given[leg_id])
        return {"leg": said}

    def seal(self, outcome: str, evidence: Digest) -> None:
        """The journal's last word."""
        self.outcome, self.evidence = outcome, evidence
        self._transitions += 1
        document: dict[str, Document] = {
            "outcome": outcome,
            "evidence_digest": evidence.hex(),
            "transition": {"transition_no": self._transitions, "from": self._state, "to": "CLOSED"},
            "entry_count": len(self.entries),
            "head_hash": sha256(self.entries[-1].signed).hex(),
        }
        self.record("plan.closed", "event-journal", "journal", document, bound=False)


def _gate_record(signed: GateSignature, actor: str) -> Document:
    """A gate's signature as an entry records it."""
    said = signed.statement
    record: dict[str, Document] = {
        "gate": said.gate.value,
        "verdict": said.verdict.value,
        "actor": actor,
        "nonce": said.nonce.hex(),
        "expires_at": time_text(said.expires_at),
        "key_id": signed.signature.key_id,
        "signature": signed.signature.octets.hex(),
    }
    if said.votes_digest is not None:
        record["votes_digest"] = said.votes_digest.hex()
    if said.evidence_digest is not None:
        record["evidence_digest"] = said.evidence_digest.hex()
    return record


def _operator_record(signed: ResolutionSignature, actor: str) -> Document:
    """An operator's signature as an entry records it."""
    return {
        "actor": actor,
        "nonce": signed.statement.nonce.hex(),
        "expires_at": time_text(signed.statement.expires_at),
        "key_id": signed.signature.key_id,
        "signature": signed.signature.octets.hex(),
    }


def _outcome_record(signed: SignedOutcome) -> Document:
    refusal = signed.outcome.refusal
    return {
        "statement_sha256": sha256(signed.outcome.signed_bytes()).hex(),
        "key_id": signed.signature.key_id,
        "signature": signed.signature.octets.hex(),
        "kind": signed.outcome.kind.value,
        **({"refusal": refusal_document(refusal)} if refusal is not None else {}),
    }


def _begin(made: History) -> None:
    maker, make = made.sign_all(Gate.MAKE)
    made.record("plan.created", maker, "maker", {**made.move("DRAFT", "CREATED"), **make})
    coordinator = ("coordinator", "coordinator")
    made.record("plan.initiated", *coordinator, made.move("INITIATED", "EXECUTE_ASKED"))
    made.record("plan.initiated", *coordinator, made.move("PRECONDITIONS_PENDING", "CHECKS_BEGUN"))
    made.record("plan.ready", *coordinator, made.move("READY_FOR_PREPARE", "CHECKS_PASSED"))


def _release(made: History) -> None:
    for leg in made.case.legs:
        made.vote(leg.leg_id)
    approver, approve = made.sign_all(Gate.APPROVE)
    made.record("plan.approved", approver, "approver", {**made.move("PREPARED", "PREPARED_AND_APPROVED"), **approve})
    releaser, release = made.sign_all(Gate.RELEASE)
    # What came before the last one stands in the decision.
    release = {"gate": release["gate"]}
    decision: Document = {
        "delegate": "",
        "decided_at": time_text(made.tick()),
        "votes_digest": votes_digest(made.in_order(made.votes)).hex(),
        "gates": list(made.gate_records),
    }
    moved = made.move("EXECUTING", "RELEASED", "COMMIT")
    made.record("plan.released", releaser, "releaser", {**moved, **release, "decision": decision})


def committed(made: History) -> History:
    """Every leg is executed, the evidence validated, the plan committed and sealed."""
    _begin(made)
    _release(made)
    made.settle("tokens", OutcomeKind.DONE, type_="leg.executed")
    made.settle("cash", OutcomeKind.DONE, type_="leg.executed", document=made.move("VALIDATING", "ALL_DONE", "COMMIT"))
    digest = evidence_digest(made.settled())
    for validator in made.signers[Gate.VALIDATE]:
        validate = made.sign(Gate.VALIDATE, who=validator)
        made.record("evidence.validated", validator, "validator", {**validate, "evidence_digest": digest.hex()})
    moved = made.move("COMMITTED", "EVIDENCE_VALIDATED", "COMMIT")
    made.record("plan.committed", "coordinator", "coordinator", {**moved, "evidence_digest": digest.hex()})
    made.settle("notarisation", OutcomeKind.DONE)
    made.seal("COMMITTED", digest)
    return made


def aborted(made: History) -> History:
    """The bank refuses: nothing is executed, what was held is released."""
    _begin(made)
    made.vote("tokens")
    made.vote("cash", Refusal("BANK_PREPARE_FAILED", "AM04", "insufficient funds"))
    moved = made.move("ABORTED", "VOTED_NO", "ABORT")
    reason: Document = {"reason": "BANK_PREPARE_FAILED", "detail": "insufficient funds"}
    made.record("plan.aborted", "coordinator", "coordinator", {**moved, **made.leg("cash"), "reason": reason})
    made.settle("tokens", OutcomeKind.RELEASED)
    return _audited(made, "ABORTED")


def _stuck(made: History) -> None:
    _begin(made)
    _release(made)
    made.settle("tokens", OutcomeKind.DONE, type_="leg.executed")
    made.settle("cash", OutcomeKind.REFUSED, type_="leg.refused")
    moved = made.move("PARTIALLY_EXECUTED", "LEG_REFUSED", "COMMIT")
    told: dict[str, Document] = {
        "reason": {"reason": "BANK_EXECUTE_FAILED", "detail": ""},
        "escalation": {"escalation_id": ESCALATION, "at_risk": []},
    }
    made.record("exception.raised", "coordinator", "coordinator", {**moved, **made.leg("cash"), **told})


def mixed(made: History) -> History:
    """One leg is executed and the other refused, and two operators say that the plan was settled outside."""
    _stuck(made)
    made.resolve(Verb.RESOLVE, {})
    return _audited(made, "MIXED")


def reversed_(made: History) -> History:
    """One leg is executed and the other refused; the first is reversed."""
    _stuck(made)
    made.resolve(Verb.REVERSE, made.move("UNWIND_PENDING", "UNWIND_ORDERED", "COMMIT"))
    made.settle("tokens", OutcomeKind.REVERSED, type_="leg.reversed")
    made.record("plan.aborted", "coordinator", "coordinator", made.move("ABORTED", "UNWOUND", "COMMIT"))
    return _audited(made, "REVERSED")


def _audited(made: History, outcome: str) -> History:
    made.audit_log = canonical({"format": "lockstep/abort-audit/v1", "outcome": outcome, "plan_id": made.case.plan_id})
    made.seal(outcome, sha256(made.audit_log))
    return made
