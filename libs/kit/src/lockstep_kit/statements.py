"""What is signed: gates by people, votes and outcomes by participants; and the digests that people sign over. Pure.

Each statement has a domain, so that a signature for one purpose is never valid for another.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from lockstep_kit.canonical import Document, canonical, statement, time_text
from lockstep_kit.fields import require
from lockstep_kit.ids import NONCE_BYTES, Digest, LegId, PlanId, sha256
from lockstep_kit.keeping import kept
from lockstep_kit.signing import Signature, Signer, SigningKey
from lockstep_kit.values import dataclass

GATE_DOMAIN: Final = "lockstep/gate/v1"
VOTE_DOMAIN: Final = "lockstep/vote/v1"
OUTCOME_DOMAIN: Final = "lockstep/outcome/v1"


class Gate(StrEnum):
    """What a person decides about a plan."""

    MAKE = "MAKE"
    APPROVE = "APPROVE"
    RELEASE = "RELEASE"
    VALIDATE = "VALIDATE"
    CANCEL = "CANCEL"


class Verdict(StrEnum):
    """How a gate is answered."""

    APPROVE = "APPROVE"
    REJECT = "REJECT"


@dataclass(frozen=True)
class GateStatement:
    """What a person signs."""

    #: What is decided.
    gate: Gate
    #: How.
    verdict: Verdict
    #: Plan that it is about.
    plan_digest: Digest
    #: 16 random bytes.
    nonce: bytes
    #: From then on it opens nothing.
    expires_at: datetime
    #: Release only: digest over the votes.
    votes_digest: Digest | None = None
    #: Validate only: digest over the outcomes.
    evidence_digest: Digest | None = None

    @kept
    def signed_bytes(self) -> bytes:
        """The bytes that the signature is over."""
        document: dict[str, Document] = {
            "gate": self.gate.value,
            "verdict": self.verdict.value,
            "plan_digest": self.plan_digest.hex(),
            "nonce": self.nonce.hex(),
            "expires_at": time_text(self.expires_at),
        }
        if self.votes_digest is not None:
            document["votes_digest"] = self.votes_digest.hex()
        if self.evidence_digest is not None:
            document["evidence_digest"] = self.evidence_digest.hex()
        return statement(GATE_DOMAIN, document)

    def check(self) -> None:
        """Form rules.

        Raises:
            FieldInvalid: a field is missing or one too many.
        """
        require(len(self.nonce) == NONCE_BYTES, "nonce", f"must be {NONCE_BYTES} random bytes")
        # A refusal may come before there is anything to sign over; an approval never.
        approves, releases, validates = self.verdict is Verdict.APPROVE, self.gate is Gate.RELEASE, self.gate is Gate.VALIDATE
        votes, evidence = self.votes_digest is not None, self.evidence_digest is not None
        require(votes or not (approves and releases), "votes_digest", "must be present for the release gate")
        require(not votes or releases, "votes_digest", "must be absent but for the release gate")
        require(evidence or not (approves and validates), "evidence_digest", "must be present for the validate gate")
        require(not evidence or validates, "evidence_digest", "must be absent but for the validate gate")


@dataclass(frozen=True)
class GateSignature:
    """A person's signed statement."""

    #: What was signed.
    statement: GateStatement
    #: By whose key.
    signature: Signature


class PromiseKind(StrEnum):
    """How firm a promise is."""

    GUARANTEED = "GUARANTEED"
    BEST_EFFORT = "BEST_EFFORT"


@dataclass(frozen=True, slots=True)
class ChainEvidence:
    """An entry of a contract, read in a final block."""

    #: CAIP-2.
    chain: str
    #: EIP-55 address.
    contract: str
    #: Key of the entry (32 bytes).
    entry_key: bytes
    #: Status as the contract names it.
    entry_status: str
    #: Transaction that made the effect (32 bytes), or b"" where none of ours was needed.
    transaction_hash: bytes
    #: Block in which the effect was read.
    block_number: int
    #: Its hash.
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class BankEvidence:
    """A payment or hold at the bank."""

    #: Bank that answered.
    bank_bic: str
    #: Unique end-to-end transaction reference.
    uetr: str
    #: Last status or confirmation code.
    status: str
    #: Message that carried it, or "".
    message_id: str = ""
    #: SHA-256 of that message, or b"".
    message_sha256: bytes = b""
    #: Account servicer's reference of the booking, or "".
    booking_reference: str = ""
    #: SHA-256 of the booking notification, or b"".
    booking_sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class InstrumentEvidence:
    """An undertaking, or its draft, at the bank that issues it."""

    #: Bank that answered.
    bank_bic: str
    #: Applicant's reference, under which the bank keeps draft and undertaking.
    reference: str
    #: Number of the undertaking.
    undertaking_number: str
    #: What the bank last said.
    status: str
    #: Message that carried it.
    message_id: str
    #: SHA-256 of that message.
    message_sha256: bytes
    #: SHA-256 of the issuance's Document, exclusively canonicalised, or b"" where nothing was ever drawn up.
    issuance_sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class JournalEvidence:
    """A place in the plan's chain of events."""

    #: Entries up to here.
    entry_count: int
    #: Hash of the head.
    head_hash: bytes
    #: Whether a seal closes it.
    sealed: bool


@dataclass(frozen=True, slots=True)
class BatchEvidence:
    """A plan's leaf in a Merkle batch of the notary, which holds it durably."""

    #: RFC 6962 hash of the leaf.
    leaf_hash: bytes
    #: The registry's entry of the batch's root; None where the notary answered before it was anchored: then nothing is said to stand on chain.
    root: ChainEvidence | None


Evidence: TypeAlias = ChainEvidence | BankEvidence | InstrumentEvidence | JournalEvidence | BatchEvidence


@dataclass(frozen=True, slots=True)
class Promise:
    """What a YES promises."""

    #: How firm.
    kind: PromiseKind
    #: Until when; None: it does not lapse.
    expires_at: datetime | None
    #: What was put in place.
    evidence: Evidence | None = None

    @property
    def soft(self) -> bool:
        """Whether it may fail to be kept through no fault of anybody (DESIGN, "promise")."""
        return self.kind is PromiseKind.BEST_EFFORT or self.expires_at is not None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A definite refusal: the leg will never execute."""

    #: UPPER_SNAKE, docs/errors.md.
    reason: str
    #: Code of the outside world, or "".
    outside_code: str = ""
    #: One sentence, or "".
    detail: str = ""


@dataclass(frozen=True)
class Vote:
    """A participant's durable answer to Prepare."""

    #: Who votes.
    participant: str
    #: About which plan.
    plan_id: PlanId
    #: Its digest.
    plan_digest: Digest
    #: About which leg.
    leg_id: LegId
    #: The leg's lock.
    lock: Digest
    #: YES with a promise, or NO with a reason.
    answer: Promise | Refusal
    #: By the participant's clock.
    voted_at: datetime

    @property
    def promise(self) -> Promise | None:
        """The promise of a YES; None for a NO."""
        return self.answer if isinstance(self.answer, Promise) else None

    @kept
    def signed_bytes(self) -> bytes:
        """The bytes that the signature is over."""
        document: dict[str, Document] = {
            "participant": self.participant,
            "plan_id": self.plan_id,
            "plan_digest": self.plan_digest.hex(),
            "leg_id": self.leg_id,
            "lock": self.lock.hex(),
            "voted_at": time_text(self.voted_at),
        }
        if isinstance(self.answer, Promise):
            document["promise"] = _promise_document(self.answer)
        else:
            document["refusal"] = refusal_document(self.answer)
        return statement(VOTE_DOMAIN, document)


@dataclass(frozen=True)
class SignedVote:
    """A vote and the participant's signature."""

    #: What was signed.
    vote: Vote
    #: By the participant's key.
    signature: Signature


class OutcomeKind(StrEnum):
    """What became of a leg."""

    DONE = "DONE"
    REFUSED = "REFUSED"
    RELEASED = "RELEASED"
    #: What was executed is undone.
    REVERSED = "REVERSED"
    #: It cannot be undone; the leg is executed, as before.
    REVERSAL_REFUSED = "REVERSAL_REFUSED"


#: What becomes of an order to reverse: these stand beside the leg's DONE and never replace it.
REVERSALS: Final = (OutcomeKind.REVERSED, OutcomeKind.REVERSAL_REFUSED)


@dataclass(frozen=True)
class Outcome:
    """A participant's durable answer to Commit, Abort or Reverse."""

    #: Who answers.
    participant: str
    #: About which plan.
    plan_id: PlanId
    #: Its digest.
    plan_digest: Digest
    #: About which leg.
    leg_id: LegId
    #: What became of it.
    kind: OutcomeKind
    #: What shows it.
    evidence: Evidence | None
    #: Why, when refused.
    refusal: Refusal | None
    #: Revision of the leg's row.
    revision: int
    #: By the participant's clock.
    settled_at: datetime
    #: REVERSED and REVERSAL_REFUSED: digest of the order that it answers (`reversals.order_digest`).
    order: Digest | None = None
    #: DONE: digest of the decision that the participant was told (`decisions.decision_told`); None where it was told none.
    decision: Digest | None = None

    @kept
    def signed_bytes(self) -> bytes:
        """The bytes that the signature is over."""
        document: dict[str, Document] = {
            "participant": self.participant,
            "plan_id": self.plan_id,
            "plan_digest": self.plan_digest.hex(),
            "leg_id": self.leg_id,
            "kind": self.kind.value,
            "revision": self.revision,
            "settled_at": time_text(self.settled_at),
        }
        if self.evidence is not None:
            document["evidence"] = evidence_document(self.evidence)
        if self.refusal is not None:
            document["refusal"] = refusal_document(self.refusal)
        if self.order is not None:
            document["order"] = self.order.hex()
        if self.decision is not None:
            document["decision"] = self.decision.hex()
        return statement(OUTCOME_DOMAIN, document)


@dataclass(frozen=True)
class SignedOutcome:
    """An outcome and the participant's signature."""

    #: What was signed.
    outcome: Outcome
    #: By the participant's key.
    signature: Signature


def sign_gate(gate: GateStatement, key: Signer) -> GateSignature:
    """A gate statement, signed."""
    return GateSignature(gate, key.sign(gate.signed_bytes()))


def sign_vote(vote: Vote, key: SigningKey) -> SignedVote:
    """A vote, signed."""
    return SignedVote(vote, key.sign(vote.signed_bytes()))


def sign_outcome(outcome: Outcome, key: SigningKey) -> SignedOutcome:
    """An outcome, signed."""
    return SignedOutcome(outcome, key.sign(outcome.signed_bytes()))


def votes_digest(votes: Iterable[SignedVote]) -> Digest:
    """What the releaser signs over: every leg's signed vote, in plan order."""
    return sha256(b"[" + b",".join(map(_named, votes)) + b"]")


def evidence_digest(outcomes: Iterable[SignedOutcome]) -> Digest:
    """What the validator signs over: every settling leg's signed outcome, in plan order."""
    return sha256(b"[" + b",".join(map(_named, outcomes)) + b"]")


@kept
def _named(signed: SignedVote | SignedOutcome) -> bytes:
    told = signed.vote if isinstance(signed, SignedVote) else signed.outcome
    return canonical({"statement": sha256(told.signed_bytes()).hex(), **_mark(signed.signature)})


def gate_digest(signature: GateSignature) -> Digest:
    """A gate signature, named by what it holds: the same signature has the same digest."""
    return sha256(signature.statement.signed_bytes() + canonical(_mark(signature.signature)))


def _mark(signature: Signature) -> dict[str, str]:
    return {"key_id": signature.key_id, "signature": signature.octets.hex()}


def evidence_document(evidence: Evidence) -> Document:
    """Evidence inside a canonical document."""
    match evidence:
        case ChainEvidence():
            return {
                "kind": "chain",
                "chain": evidence.chain,
                "contract": evidence.contract,
                "entry_key": evidence.entry_key.hex(),
                "entry_status": evidence.entry_status,
                "transaction_hash": evidence.transaction_hash.hex(),
                "block_number": evidence.block_number,
                "block_hash": evidence.block_hash.hex(),
            }
        case BankEvidence():
            return {
                "kind": "bank",
                "bank_bic": evidence.bank_bic,
                "uetr": evidence.uetr,
                "status": evidence.status,
                "message_id": evidence.message_id,
                "message_sha256": evidence.message_sha256.hex(),
                "booking_reference": evidence.booking_reference,
                "booking_sha256": evidence.booking_sha256.hex(),
            }
        case InstrumentEvidence():
            return {
                "kind": "instrument",
                "bank_bic": evidence.bank_bic,
                "reference": evidence.reference,
                "undertaking_number": evidence.undertaking_number,
                "status": evidence.status,
                "message_id": evidence.message_id,
                "message_sha256": evidence.message_sha256.hex(),
                "issuance_sha256": evidence.issuance_sha256.hex(),
            }
        case JournalEvidence():
            head = evidence.head_hash.hex()
            return {"kind": "journal", "entry_count": evidence.entry_count, "head_hash": head, "sealed": evidence.sealed}
        case BatchEvidence():
            root: dict[str, Document] = {"root": evidence_document(evidence.root)} if evidence.root is not None else {}
            return {"kind": "batch", "leaf_hash": evidence.leaf_hash.hex(), **root}


def refusal_document(refusal: Refusal) -> Document:
    """A refusal inside a canonical document."""
    return {"reason": refusal.reason, "outside_code": refusal.outside_code, "detail": refusal.detail}


def _promise_document(promise: Promise) -> Document:
    document: dict[str, Document] = {"kind": promise.kind.value}
    if promise.expires_at is not None:
        document["expires_at"] = time_text(promise.expires_at)
    if promise.evidence is not None:
        document["evidence"] = evidence_document(promise.evidence)
    return document
