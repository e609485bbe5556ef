"""Valid plans, people, keys, signatures and certificates, for tests; each test bends what it is about and leaves the rest.

    plan = delivery_versus_payment()                            # tokens, cash, notarisation, journal; signed by the cast
    plan.binding("cash"), plan.certificate(), plan.vote("tokens"), plan.gate(Gate.CANCEL, "alice")

Keys are derived from names, so that they are the same in every run; plan ids, salts and nonces are drawn.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from eth_utils.address import to_checksum_address

from lockstep_kit.amounts import Amount, AssetId
from lockstep_kit.certificate import Binding, Certificate, Decision
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId, Digest, LegId, PartyId, PlanId, sha256
from lockstep_kit.instruments import GoverningRules, InstrumentParty, IssueInstrument, TermsDocument, UndertakingForm
from lockstep_kit.keys import leg_key, lock_of
from lockstep_kit.participant.ports import Closing, LegWork, PlanOutcome
from lockstep_kit.plan import (
    BankAccount,
    ChargeBearer,
    CreditTransfer,
    Journal,
    Leg,
    LegKind,
    Notarisation,
    Party,
    PlanHeader,
    Policy,
    Terms,
    TokenTransfer,
    inclusion_path,
    legs_root,
)
from lockstep_kit.registry import Actor, GateRule, Limits, Matrix, Participant, RegisteredKey, Registry, Role, RoleLimits
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.reversals import OperatorsResolution
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import (
    BankEvidence,
    ChainEvidence,
    Evidence,
    Gate,
    GateSignature,
    GateStatement,
    InstrumentEvidence,
    JournalEvidence,
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
    sign_gate,
    sign_outcome,
    sign_vote,
    votes_digest,
)

#: When registered keys begin and end to count.
KEYS_FROM: Final = datetime(2020, 1, 1, tzinfo=UTC)
KEYS_UNTIL: Final = datetime(2090, 1, 1, tzinfo=UTC)

#: Who may do what in tests.
PEOPLE: Final[Mapping[str, Role]] = {
    "alice": Role.MAKER,
    "bob": Role.APPROVER,
    "carol": Role.RELEASER,
    "dave": Role.VALIDATOR,
    "erin": Role.OPERATOR,
    "frank": Role.OPERATOR,
    "grace": Role.AUDITOR,
}
#: Who opens each gate in tests.
SIGNERS: Final[Mapping[Gate, str]] = {
    Gate.MAKE: "alice",
    Gate.APPROVE: "bob",
    Gate.RELEASE: "carol",
    Gate.VALIDATE: "dave",
    Gate.CANCEL: "alice",
}
#: Who opens each gate by the first version of the matrix: one person each, whatever a plan is worth, and no agents.
MATRIX: Final = Matrix(
    version=1,
    gates={
        Gate.MAKE: GateRule(frozenset({Role.MAKER})),
        Gate.APPROVE: GateRule(frozenset({Role.APPROVER})),
        Gate.RELEASE: GateRule(frozenset({Role.RELEASER})),
        Gate.VALIDATE: GateRule(frozenset({Role.VALIDATOR})),
        Gate.CANCEL: GateRule(frozenset({Role.MAKER, Role.APPROVER, Role.RELEASER, Role.OPERATOR})),
    },
    different_persons=(frozenset({Gate.MAKE, Gate.APPROVE, Gate.RELEASE, Gate.VALIDATE}),),
)
#: Who serves each kind of leg.
PARTICIPANTS: Final[Mapping[LegKind, str]] = {
    LegKind.TOKEN_TRANSFER: "dlt-gateway",
    LegKind.CREDIT_TRANSFER: "bank-gateway",
    LegKind.ISSUE_INSTRUMENT: "bank-gateway",
    LegKind.NOTARISATION: "notary",
    LegKind.JOURNAL: "event-journal",
}

CHAIN: Final = "eip155:138"
#: Nothing is held.
BEST_EFFORT: Final = Promise(PromiseKind.BEST_EFFORT, None)
BUYER: Final = Party(PartyId("buyer"), "Buyer GmbH")
SELLER: Final = Party(PartyId("seller"), "Seller SA")


def key_of(name: str) -> SigningKey:
    """The key of a person or participant, the same in every run."""
    return SigningKey(hashlib.sha256(f"lockstep test key of {name}".encode()).digest())


def address_of(name: str) -> str:
    """An EVM address with its checksum, the same in every run."""
    return str(to_checksum_address(hashlib.sha256(f"lockstep test address of {name}".encode()).digest()[:20]))


def registered(key: SigningKey, not_before: datetime = KEYS_FROM, not_after: datetime = KEYS_UNTIL) -> RegisteredKey:
    """A key as a registry lists it."""
    return RegisteredKey(key.public, not_before, not_after)


def registry_of(people: Mapping[str, Iterable[Role]] | None = None, participants: Iterable[str] | None = None) -> Registry:
    """A registry; of everybody, unless told of whom."""
    roles = {name: (role,) for name, role in PEOPLE.items()} if people is None else people
    names = dict.fromkeys(PARTICIPANTS.values()) if participants is None else participants
    return Registry(
        [actor_of(name, has) for name, has in roles.items()],
        [Participant(name, (registered(key_of(name)),)) for name in names],
        [MATRIX],
    )


def actor_of(name: str, roles: Iterable[Role], limits: Limits = None, *, agent: bool = False) -> Actor:
    """A person, or an agent, as a registry lists it; without limits unless told otherwise."""
    has = frozenset(roles)
    return Actor(ActorId(name), has, (registered(key_of(name)),), tuple(RoleLimits(role, limits) for role in sorted(has)), agent)


def token_terms(minor_units: int = 1_000_000, *, token: str | None = None, scale: int = 6) -> TokenTransfer:
    """Tokens from the seller to the buyer."""
    return TokenTransfer(
        amount=Amount(AssetId(f"{CHAIN}/erc20:{token or address_of('token')}"), minor_units, scale),
        escrow=address_of("escrow"),
        payer=address_of("seller"),
        payee=address_of("buyer"),
        payer_party=SELLER.party_id,
        payee_party=BUYER.party_id,
    )


def credit_terms(minor_units: int = 10_000, *, currency: str = "EUR", scale: int = 2) -> CreditTransfer:
    """Money from the buyer to the seller."""
    return CreditTransfer(
        amount=Amount(AssetId(currency), minor_units, scale),
        debtor=BankAccount(BUYER.party_id, BUYER.name, "DE89370400440532013000", "COBADEFF"),
        creditor=BankAccount(SELLER.party_id, SELLER.name, "FR1420041010050500013M02606", "BNPAFRPP"),
        charge_bearer=ChargeBearer.SHARED,
        remittance="INVOICE 4711",
    )


def instrument_terms(minor_units: int = 50_000_00, *, expiry_date: date | None = None) -> IssueInstrument:
    """A standby letter of credit for the buyer in favour of the seller, for a year unless told otherwise."""
    return IssueInstrument(
        form=UndertakingForm.STANDBY,
        amount=Amount(AssetId("EUR"), minor_units, 2),
        applicant=InstrumentParty(BUYER.party_id, BUYER.name, "Berlin", "DE"),
        applicant_account="DE89370400440532013000",
        beneficiary=InstrumentParty(SELLER.party_id, SELLER.name, "Paris", "FR"),
        issuing_bic="COBADEFF",
        advising_bic="BNPAFRPP",
        expiry_date=expiry_date or datetime.now(UTC).date() + timedelta(days=365),
        expiry_place="FRANKFURT AM MAIN",
        governing_rules=GoverningRules.ISP,
        terms=TermsDocument("SBLC-4711.pdf", "application/pdf", sha256(b"the terms")),
    )


def leg_of(leg_id: str, terms: Terms, *depends_on: str) -> Leg:
    """A leg with a salt of its own."""
    return Leg(LegId(leg_id), os.urandom(16), tuple(LegId(each) for each in depends_on), terms)


def leg_work(binding: Binding, phase: Phase, **changes: Any) -> LegWork:
    """A leg that something is to be done about, with nothing known of it yet unless told otherwise."""
    known: dict[str, Any] = {"left": None, "revision": 1, "hold_until": None, "payer_signature": b"", "key": b"", "not_after": None}
    found: dict[str, Any] = {"decision": None, "closing": None, "vote": None, "traceparent": None, "since": datetime.now(UTC)}
    return LegWork(binding=binding, phase=phase, **known | found | changes)


def delivery_versus_payment(**changes: object) -> PlanCase:
    """Tokens against cash, notarised and journalled: legs "tokens", "cash", "notarisation", "journal"."""
    return plan_of(
        [
            leg_of("tokens", token_terms()),
            leg_of("cash", credit_terms()),
            leg_of("notarisation", Notarisation(CHAIN, address_of("registry"))),
            leg_of("journal", Journal()),
        ],
        **changes,  # type: ignore[arg-type]  # the same keywords
    )


def plan_of(
    legs: Sequence[Leg],
    *,
    deadline: datetime | None = None,
    plan_id: str | None = None,
    parties: Sequence[Party] = (BUYER, SELLER),
    policy: Policy | None = None,
    plan_key: bytes | None = None,
    sod_version: int = 1,
) -> PlanCase:
    """A plan over legs; its deadline is in an hour unless told otherwise."""
    moment = deadline or datetime.now(UTC) + timedelta(hours=1)
    header = PlanHeader(
        plan_id=PlanId(plan_id or str(uuid.uuid4())),
        reference="TEST",
        parties=tuple(parties),
        deadline=moment,
        policy=policy or Policy(),
        sod_version=sod_version,
        leg_count=len(legs),
        legs_root=legs_root(legs),
    )
    return PlanCase(header, tuple(legs), plan_key or os.urandom(32))


@dataclass(frozen=True, slots=True)
class PlanCase:
    """A plan with everything that anybody would sign about it."""

    #: Its head.
    header: PlanHeader
    #: Its legs.
    legs: tuple[Leg, ...]
    #: The coordinator's key of the plan.
    plan_key: bytes = field(repr=False)

    @property
    def plan_id(self) -> PlanId:
        """Id of the plan."""
        return self.header.plan_id

    def index(self, leg_id: str) -> int:
        """Place of a leg."""
        return [leg.leg_id for leg in self.legs].index(LegId(leg_id))

    def leg(self, leg_id: str) -> Leg:
        """A leg."""
        return self.legs[self.index(leg_id)]

    def key(self, leg_id: str) -> bytes:
        """A leg's decision key."""
        return leg_key(self.plan_key, self.plan_id, LegId(leg_id))

    def lock(self, leg_id: str) -> Digest:
        """A leg's lock."""
        return lock_of(self.key(leg_id))

    def binding(self, leg_id: str) -> Binding:
        """A leg, bound to the plan."""
        index = self.index(leg_id)
        return Binding(self.header, self.legs[index], index, inclusion_path(self.legs, index), self.lock(leg_id))

    def gate(
        self,
        gate: Gate,
        who: str | None = None,
        *,
        verdict: Verdict = Verdict.APPROVE,
        votes: Sequence[SignedVote] | None = None,
        outcomes: Sequence[SignedOutcome] | None = None,
        expires_at: datetime | None = None,
    ) -> GateSignature:
        """A gate's signature: by who signs there, unless told who."""
        statement = GateStatement(
            gate=gate,
            verdict=verdict,
            plan_digest=self.header.digest,
            nonce=os.urandom(16),
            expires_at=expires_at or self.header.deadline,
            votes_digest=votes_digest(votes) if votes is not None else None,
            evidence_digest=evidence_digest(outcomes) if outcomes is not None else None,
        )
        return sign_gate(statement, self.signing_key(gate, who))

    def signing_key(self, gate: Gate, who: str | None) -> SigningKey:
        """The key of a person: of who signs at the gate in tests, unless told who."""
        return key_of(who or SIGNERS[gate])

    def vote(
        self,
        leg_id: str,
        answer: Promise | Refusal | None = None,
        *,
        participant: str | None = None,
        signed_by: str | None = None,
        voted_at: datetime | None = None,
    ) -> SignedVote:
        """A leg's vote: a guaranteed YES by who serves the leg, unless told otherwise."""
        name = participant or PARTICIPANTS[self.leg(leg_id).kind]
        vote = Vote(
            participant=name,
            plan_id=self.plan_id,
            plan_digest=self.header.digest,
            leg_id=LegId(leg_id),
            lock=self.lock(leg_id),
            answer=answer or Promise(PromiseKind.GUARANTEED, None),
            voted_at=voted_at or datetime.now(UTC),
        )
        return sign_vote(vote, key_of(signed_by or name))

    def votes(self, *given: SignedVote) -> tuple[SignedVote, ...]:
        """One vote of every leg in plan order: those given, else YES."""
        by_leg = {each.vote.leg_id: each for each in given}
        return tuple(by_leg.get(leg.leg_id) or self.vote(leg.leg_id) for leg in self.legs)

    def outcome(
        self,
        leg_id: str,
        kind: OutcomeKind = OutcomeKind.DONE,
        *,
        participant: str | None = None,
        revision: int = 4,
        order: Digest | None = None,
    ) -> SignedOutcome:
        """A leg's outcome by who serves the leg."""
        leg = self.leg(leg_id)
        name = participant or PARTICIPANTS[leg.kind]
        refused = kind in (OutcomeKind.REFUSED, OutcomeKind.REVERSAL_REFUSED)
        refusal = Refusal("BANK_EXECUTE_FAILED", "AM04") if refused else None
        outcome = Outcome(
            participant=name,
            plan_id=self.plan_id,
            plan_digest=self.header.digest,
            leg_id=LegId(leg_id),
            kind=kind,
            evidence=evidence_of(leg) if kind in (OutcomeKind.DONE, OutcomeKind.REVERSED) else None,
            refusal=refusal,
            revision=revision,
            settled_at=datetime.now(UTC),
            order=order,
        )
        return sign_outcome(outcome, key_of(name))

    def certificate(self, *given: SignedVote, decision: Decision = Decision.COMMIT, delegated: str = "") -> Certificate:
        """Why the plan may be committed, with the given votes among them; `delegated` leaves it to a leg, soft unless its vote is given."""
        soft = () if not delegated or any(each.vote.leg_id == delegated for each in given) else (self.vote(delegated, BEST_EFFORT),)
        votes = self.votes(*given, *soft)
        done = self.outcome(delegated) if delegated and decision is Decision.COMMIT else None
        return Certificate(
            header=self.header,
            make=self.gate(Gate.MAKE),
            approve=self.gate(Gate.APPROVE),
            release=self.gate(Gate.RELEASE, votes=votes),
            votes=votes,
            decision=decision,
            delegated_leg_id=delegated,
            delegated_outcome=done,
            decided_at=min(datetime.now(UTC), self.header.deadline - timedelta(microseconds=1)),
        )

    def reversal(
        self,
        *who: str,
        verb: Verb = Verb.REVERSE,
        escalation_id: str = "escalation-1",
        expires_at: datetime | None = None,
    ) -> OperatorsResolution:
        """Two operators order that the plan be reversed, each time anew, unless told who orders what."""
        resolution = Resolution(self.header.digest, escalation_id, verb)
        until = expires_at or datetime.now(UTC) + timedelta(hours=1)
        return OperatorsResolution(
            tuple(
                sign_resolution(ResolutionStatement(resolution, os.urandom(16), until), key_of(name))
                for name in who or ("erin", "frank")
            )
        )

    def closing(self, outcome: PlanOutcome = PlanOutcome.COMMITTED, from_state: str | None = None) -> Closing:
        """How the plan is closed."""
        settling = [self.outcome(leg.leg_id) for leg in self.legs if leg.settling]
        return Closing(outcome, evidence_digest(settling), 12, 8, from_state or outcome)

    def with_lock_of(self, other: PlanCase) -> PlanCase:
        """The same plan, locked with other keys: what a coordinator that lost its keys would send."""
        return replace(self, plan_key=other.plan_key)


def evidence_of(leg: Leg) -> Evidence:
    """Evidence of the kind that belongs to a leg."""
    match leg.terms:
        case TokenTransfer():
            return _chain_evidence(leg.terms.escrow, "Committed")
        case Notarisation():
            return _chain_evidence(leg.terms.registry, "Committed")
        case CreditTransfer():
            return BankEvidence("COBADEFF", str(uuid.uuid4()), "ACSC", "MSG-1", sha256(b"message"), "REF-1", sha256(b"booking"))
        case IssueInstrument():
            reference = uuid.uuid4().hex
            return InstrumentEvidence("COBADEFF", reference, "U234567", "ISSU", "MSG-1", sha256(b"message"), sha256(b"issuance"))
        case Journal():
            return JournalEvidence(12, sha256(b"head"), sealed=True)


def _chain_evidence(contract: str, status: str) -> ChainEvidence:
    return ChainEvidence(CHAIN, contract, sha256(b"entry"), status, sha256(b"transaction"), 17, sha256(b"block"))
