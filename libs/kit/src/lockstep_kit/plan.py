"""Plans: what is asked, its form rules, and its canonical bytes. Pure.

The plan digest is the SHA-256 of the head's RFC 8785 bytes; the head holds `legs_root`, the RFC 6962 root over the salted legs. So one digest binds
everything, and a participant can check its own leg without seeing another.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeAlias

from lockstep_kit import merkle
from lockstep_kit.amounts import CURRENCY_MINOR_UNITS_MAX, TOKEN_MINOR_UNITS_MAX, Amount, erc20_asset, is_currency
from lockstep_kit.canonical import Document, canonical, digest_of, time_text
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.forms import check_bic, check_chain, check_evm_address, check_fin_x, check_iban, check_lei, check_text
from lockstep_kit.ids import SALT_BYTES, Digest, LegId, PartyId, PlanId
from lockstep_kit.instruments import IssueInstrument, check_instrument, instrument_document
from lockstep_kit.keeping import kept
from lockstep_kit.values import dataclass

PLAN_FORMAT: Final = "lockstep/plan/v1"
LEG_FORMAT: Final = "lockstep/leg/v1"
LEGS_MAX: Final = 64
PARTIES_MAX: Final = 32


class LegKind(StrEnum):
    """What a leg does."""

    TOKEN_TRANSFER = "token_transfer"
    CREDIT_TRANSFER = "credit_transfer"
    ISSUE_INSTRUMENT = "issue_instrument"
    NOTARISATION = "notarisation"
    JOURNAL = "journal"

    #: Whether such a leg moves value; the others are evidence.
    settling: bool
    #: Whether nobody but a third party can undo what such a leg did, so that it is commanded when all others are done.
    irrevocable: bool

    def __init__(self, kind: str) -> None:
        # Asked for all the time: kept, not worked out.
        self.settling = kind in ("token_transfer", "credit_transfer", "issue_instrument")
        self.irrevocable = kind == "issue_instrument"


class ChargeBearer(StrEnum):
    """ISO 20022 ChargeBearerType1Code, without CRED, which deducts from principal."""

    DEBTOR = "DEBT"
    SHARED = "SHAR"
    SERVICE_LEVEL = "SLEV"


@dataclass(frozen=True, slots=True)
class Party:
    """Someone who gives or receives value."""

    #: Name inside the plan and in access rules.
    party_id: PartyId
    #: Legal name.
    name: str
    #: ISO 17442, or "".
    lei: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the signers allow beyond the rules."""

    #: Several legs whose promises lapse may be commanded together.
    accept_expiry_risk: bool = False
    #: A partially executed plan may be unwound once without operators.
    unwind_automatically: bool = False


@dataclass(frozen=True, slots=True)
class TokenTransfer:
    """Tokens from payer to payee through the escrow."""

    #: Asset is a CAIP-19 ERC-20 id.
    amount: Amount
    #: EIP-55 address of the escrow contract.
    escrow: str
    #: EIP-55 address.
    payer: str
    #: EIP-55 address.
    payee: str
    #: Party that pays.
    payer_party: PartyId
    #: Party that is paid.
    payee_party: PartyId


@dataclass(frozen=True, slots=True)
class BankAccount:
    """One side of a credit transfer."""

    #: Holder.
    party_id: PartyId
    #: Holder's name as the bank knows it.
    name: str
    #: ISO 13616.
    iban: str
    #: ISO 9362.
    agent_bic: str
    #: ISO 9362, of a holder that is itself a financial institution; "" for others.
    institution_bic: str = ""


@dataclass(frozen=True, slots=True)
class CreditTransfer:
    """Money from debtor to creditor."""

    #: Asset is an ISO 4217 code.
    amount: Amount
    #: Who pays.
    debtor: BankAccount
    #: Who is paid.
    creditor: BankAccount
    #: Who bears the charges.
    charge_bearer: ChargeBearer
    #: Unstructured remittance information, or "".
    remittance: str = ""


class Anchoring(StrEnum):
    """How digest and outcome get on chain in batches, as leaves under a Merkle root that stands there."""

    #: The notary answers when the root is final.
    BATCHED = "BATCHED"
    #: The notary answers when it holds the leaf durably, whether the chain is there or not.
    DEFERRED = "DEFERRED"


@dataclass(frozen=True, slots=True)
class Notarisation:
    """The plan's digest and outcome on chain."""

    #: CAIP-2.
    chain: str
    #: EIP-55 address of the NotaryRegistry.
    registry: str
    #: None: each has a record of its own there.
    anchoring: Anchoring | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """The plan's chain in the event journal."""


Terms: TypeAlias = TokenTransfer | CreditTransfer | IssueInstrument | Notarisation | Journal

_KINDS: Final[dict[type, LegKind]] = {
    TokenTransfer: LegKind.TOKEN_TRANSFER,
    CreditTransfer: LegKind.CREDIT_TRANSFER,
    IssueInstrument: LegKind.ISSUE_INSTRUMENT,
    Notarisation: LegKind.NOTARISATION,
    Journal: LegKind.JOURNAL,
}


@dataclass(frozen=True)
class Leg:
    """One leg of a plan."""

    #: Unique in the plan.
    leg_id: LegId
    #: 16 random bytes.
    salt: bytes
    #: Settling legs that come before.
    depends_on: tuple[LegId, ...]
    #: What it does.
    terms: Terms

    @property
    def kind(self) -> LegKind:
        """Kind of the terms."""
        return _KINDS[type(self.terms)]

    @property
    def settling(self) -> bool:
        """Whether it moves value."""
        return self.kind.settling

    @property
    @kept
    def leaf(self) -> Digest:
        """Its leaf hash under legs_root."""
        return merkle.leaf_hash(canonical(leg_document(self)))


@dataclass(frozen=True)
class PlanHeader:
    """The head of a plan: what binds it as a whole."""

    #: Drawn by the client.
    plan_id: PlanId
    #: The client's reference, or "".
    reference: str
    #: Who gives or receives value.
    parties: tuple[Party, ...]
    #: Until when the decision may be written; microseconds.
    deadline: datetime
    #: What is allowed beyond the rules.
    policy: Policy
    #: Version of the segregation-of-duties matrix.
    sod_version: int
    #: Legs under the root.
    leg_count: int
    #: RFC 6962 root over the legs.
    legs_root: Digest

    @property
    @kept
    def digest(self) -> Digest:
        """The plan digest."""
        return digest_of(header_document(self))


def header_document(header: PlanHeader) -> Document:
    """The head as the document whose canonical bytes are hashed."""
    return {
        "format": PLAN_FORMAT,
        "plan_id": header.plan_id,
        "reference": header.reference,
        "parties": [{"party_id": party.party_id, "name": party.name, "lei": party.lei} for party in header.parties],
        "deadline": time_text(header.deadline),
        "policy": {
            "accept_expiry_risk": header.policy.accept_expiry_risk,
            "unwind_automatically": header.policy.unwind_automatically,
        },
        "sod_version": header.sod_version,
        "leg_count": header.leg_count,
        "legs_root": header.legs_root.hex(),
    }


def leg_document(leg: Leg) -> Document:
    """A leg as the document whose canonical bytes are a leaf under legs_root."""
    return {
        "format": LEG_FORMAT,
        "leg_id": leg.leg_id,
        "salt": leg.salt.hex(),
        "depends_on": list(leg.depends_on),
        "kind": leg.kind.value,
        "terms": _terms_document(leg.terms),
    }


def legs_root(legs: Sequence[Leg]) -> Digest:
    """RFC 6962 root over legs in plan order."""
    return merkle.root([leg.leaf for leg in legs])


def inclusion_path(legs: Sequence[Leg], index: int) -> tuple[Digest, ...]:
    """Audit path of one leg."""
    return _path(tuple(leg.leaf for leg in legs), index)


@lru_cache(4_096)
def _path(leaves: tuple[Digest, ...], index: int) -> tuple[Digest, ...]:
    return merkle.audit_path(leaves, index)


def leg_belongs(leg: Leg, index: int, path: Sequence[bytes], header: PlanHeader) -> bool:
    """Whether the leg stands at that place under the head's legs_root."""
    return merkle.root_from_path(leg.leaf, index, header.leg_count, path) == header.legs_root


def _terms_document(terms: Terms) -> Document:
    match terms:
        case TokenTransfer():
            return {
                "amount": amount_document(terms.amount),
                "escrow": terms.escrow,
                "payer": terms.payer,
                "payee": terms.payee,
                "payer_party": terms.payer_party,
                "payee_party": terms.payee_party,
            }
        case CreditTransfer():
            return {
                "amount": amount_document(terms.amount),
                "debtor": _account_document(terms.debtor),
                "creditor": _account_document(terms.creditor),
                "charge_bearer": terms.charge_bearer.value,
                "remittance": terms.remittance,
            }
        case IssueInstrument():
            return instrument_document(terms, amount_document(terms.amount))
        case Notarisation():
            # Absent, and not null, where there is none: digests of plans that were made before there was a choice stay what they are.
            anchoring: dict[str, Document] = {"anchoring": terms.anchoring.value} if terms.anchoring is not None else {}
            return {"chain": terms.chain, "registry": terms.registry, **anchoring}
        case Journal():
            return {}


def amount_document(amount: Amount) -> Document:
    """An amount inside a canonical document."""
    return {"asset": amount.asset, "minor_units": str(amount.minor_units), "scale": amount.scale}


def _account_document(account: BankAccount) -> Document:
    document: dict[str, Document] = {
        "party_id": account.party_id,
        "name": account.name,
        "iban": account.iban,
        "agent_bic": account.agent_bic,
    }
    # Absent, and not empty, where the holder is none: so the digest of a plan does not depend on whether the field was known when it was made.
    if account.institution_bic:
        document["institution_bic"] = account.institution_bic
    return document


def check_header(header: PlanHeader) -> None:
    """Form rules of a head that need nothing but the head.

    Raises:
        FieldInvalid: the first rule that is broken, with its field.
    """
    check_text(header.reference, "reference", length_max=140, empty=True)
    require(1 <= len(header.parties) <= PARTIES_MAX, "parties", f"must be 1 to {PARTIES_MAX}")
    seen: set[PartyId] = set()
    for index, party in enumerate(header.parties):
        require(party.party_id not in seen, f"parties[{index}].party_id", "must be unique in the plan")
        seen.add(party.party_id)
        check_text(party.name, f"parties[{index}].name", length_max=140)
        if party.lei:
            check_lei(party.lei, f"parties[{index}].lei")
    require(header.sod_version >= 1, "sod_version", "must be at least 1")
    require(1 <= header.leg_count <= LEGS_MAX, "leg_count", f"must be 1 to {LEGS_MAX}")


def check_leg(leg: Leg, parties: Sequence[Party]) -> None:
    """Form rules of one leg.

    Raises:
        FieldInvalid: the first rule that is broken, with its field under the leg.
    """
    require(len(leg.salt) == SALT_BYTES, "salt", f"must be {SALT_BYTES} random bytes")
    require(len(set(leg.depends_on)) == len(leg.depends_on), "depends_on", "must name no leg twice")
    known = {party.party_id for party in parties}
    try:
        match leg.terms:
            case TokenTransfer():
                _check_token_transfer(leg.terms, known)
            case CreditTransfer():
                _check_credit_transfer(leg.terms, known)
            case IssueInstrument():
                check_instrument(leg.terms, known)
            case Notarisation():
                check_chain(leg.terms.chain, "chain")
                check_evm_address(leg.terms.registry, "registry")
            case Journal():
                pass
    except FieldInvalid as finding:
        raise finding.under(leg.kind.value) from None


def _check_token_transfer(terms: TokenTransfer, parties: set[PartyId]) -> None:
    require(not is_currency(terms.amount.asset), "amount.asset", "must be a CAIP-19 ERC-20 id")
    try:
        token = erc20_asset(terms.amount.asset).token
    except FieldInvalid as finding:
        raise finding.under("amount") from None
    require(terms.amount.minor_units > 0, "amount.minor_units", "must be greater than zero")
    require(terms.amount.minor_units <= TOKEN_MINOR_UNITS_MAX, "amount.minor_units", "must be below 2^96")
    check_evm_address(terms.escrow, "escrow")
    check_evm_address(terms.payer, "payer")
    check_evm_address(terms.payee, "payee")
    require(terms.payer != terms.payee, "payee", "must differ from payer")
    require(terms.escrow not in (terms.payer, terms.payee), "escrow", "must be neither payer nor payee")
    require(
        token not in (terms.payer, terms.payee, terms.escrow), "amount.asset", "must name a token that is no party to the transfer"
    )
    require(terms.payer_party in parties, "payer_party", "must be a party of the plan")
    require(terms.payee_party in parties, "payee_party", "must be a party of the plan")


def _check_credit_transfer(terms: CreditTransfer, parties: set[PartyId]) -> None:
    require(is_currency(terms.amount.asset), "amount.asset", "must be an ISO 4217 currency")
    require(terms.amount.minor_units > 0, "amount.minor_units", "must be greater than zero")
    require(terms.amount.minor_units <= CURRENCY_MINOR_UNITS_MAX, "amount.minor_units", "must have at most 18 digits")
    for side, account in (("debtor", terms.debtor), ("creditor", terms.creditor)):
        require(account.party_id in parties, f"{side}.party_id", "must be a party of the plan")
        check_fin_x(account.name, f"{side}.name", length_max=140)
        check_iban(account.iban, f"{side}.iban")
        check_bic(account.agent_bic, f"{side}.agent_bic")
        if account.institution_bic:
            check_bic(account.institution_bic, f"{side}.institution_bic")
    require(terms.debtor.iban != terms.creditor.iban, "creditor.iban", "must differ from debtor.iban")
    _check_institutions(terms)
    check_fin_x(terms.remittance, "remittance", length_max=140, empty=True)


def _check_institutions(terms: CreditTransfer) -> None:
    """Money moves between customers, or between financial institutions (pacs.009), whose messages carry no charge bearer."""
    between = bool(terms.debtor.institution_bic)
    rule = "must be present on both sides or on none"
    require(bool(terms.creditor.institution_bic) == between, "creditor.institution_bic", rule)
    service_level = terms.charge_bearer is ChargeBearer.SERVICE_LEVEL
    require(not between or service_level, "charge_bearer", "must be SLEV between financial institutions")
