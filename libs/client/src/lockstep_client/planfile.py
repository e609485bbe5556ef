"""Plan files: what a person writes, and the plan that it asks for. Pure: time, ids and salts are arguments.

Amounts are decimal text in the asset's units; an amount that the asset's scale cannot hold is refused. The evidence legs (notarisation and journal)
are added here, so that nobody has to write them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from lockstep_kit import ids, plan
from lockstep_kit.amounts import Amount, amount_from_text, known_scale
from lockstep_kit.fields import FieldInvalid, require, within
from lockstep_kit.instruments import (
    GoverningRules,
    InstrumentParty,
    IssueInstrument,
    TermsDocument,
    UndertakingForm,
    expiry_date_of,
)
from lockstep_kit.values import dataclass

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)")
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
#: What the plan calls its fields -> what the file calls them; each at the end of a path, or followed by a dot.
_WRITTEN: Final = {
    "payer_party": "from.party",
    "payee_party": "to.party",
    "payer": "from.address",
    "payee": "to.address",
    "debtor.party_id": "debtor.party",
    "creditor.party_id": "creditor.party",
    "applicant.party_id": "applicant.party",
    "beneficiary.party_id": "beneficiary.party",
    "applicant_account": "applicant.iban",
    "issuing_bic": "issuer",
    "advising_bic": "advised_by",
    "expiry_date": "expiry.date",
    "expiry_place": "expiry.place",
    "governing_rules": "rules",
    "agent_bic": "bic",
    "charge_bearer": "charges",
    "amount.asset": "asset",
    "amount.minor_units": "amount",
    "minor_units": "amount",
    "party_id": "id",
    "leg_count": "legs",
}
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class PartyFile(_Strict):
    """Someone who gives or receives value."""

    #: Name inside the plan.
    id: str
    #: Legal name.
    name: str
    #: ISO 17442.
    lei: str = ""


class HolderFile(_Strict):
    """A holder of tokens."""

    #: Party.
    party: str
    #: EIP-55 address.
    address: str


class TokenTransferFile(_Strict):
    """Tokens from one holder to another."""

    #: Name of the asset in the configuration, or a CAIP-19 id.
    asset: str
    #: Decimal text.
    amount: str
    #: Who gives.
    payer: HolderFile = Field(alias="from")
    #: Who receives.
    payee: HolderFile = Field(alias="to")


class AccountFile(_Strict):
    """A holder of an account."""

    #: Party.
    party: str
    #: Name as the bank knows it.
    name: str
    #: ISO 13616.
    iban: str
    #: ISO 9362.
    bic: str
    #: ISO 9362, of a holder that is itself a financial institution.
    institution_bic: str = ""


class CreditTransferFile(_Strict):
    """Money from one account to another."""

    #: ISO 4217 code.
    asset: str
    #: Decimal text.
    amount: str
    #: Who pays.
    debtor: AccountFile
    #: Who is paid.
    creditor: AccountFile
    #: ISO 20022 code of who bears the charges.
    charges: Literal["DEBT", "SHAR", "SLEV"] = "SLEV"
    #: Remittance information.
    remittance: str = ""


class BeneficiaryFile(_Strict):
    """Who is secured by an undertaking."""

    #: Party.
    party: str
    #: Name.
    name: str
    #: Town.
    town: str
    #: ISO 3166-1, two letters.
    country: str


class ApplicantFile(BeneficiaryFile):
    """For whom an undertaking is issued."""

    #: Account at the issuing bank, to which the facility for undertakings belongs.
    iban: str


class ExpiryFile(_Strict):
    """When and where an undertaking ends."""

    #: ISO 8601 date.
    date: str
    #: Place.
    place: str


class TermsFile(_Strict):
    """The document that holds an undertaking's terms."""

    #: Its name.
    name: str
    #: Its media type.
    media_type: str = "application/pdf"
    #: SHA-256 of its octets, hex.
    sha256: str


class IssueInstrumentFile(_Strict):
    """An undertaking that a bank issues."""

    #: ISO 20022 code: standby letter of credit, or demand guarantee.
    form: Literal["STBY", "DGAR"] = "STBY"
    #: ISO 4217 code.
    asset: str
    #: Decimal text.
    amount: str
    #: For whom.
    applicant: ApplicantFile
    #: In whose favour.
    beneficiary: BeneficiaryFile
    #: BIC of the bank that issues it.
    issuer: str
    #: BIC of the bank that advises it.
    advised_by: str
    #: When and where it ends.
    expiry: ExpiryFile
    #: ISO 20022 code of the rules that govern it.
    rules: Literal["ISPR", "UCPR", "URDG", "NONE"] = "ISPR"
    #: Its terms.
    terms: TermsFile


class LegFile(_Strict):
    """One leg."""

    #: Unique in the plan.
    id: str
    #: Legs that come before it.
    depends_on: list[str] = []
    #: Tokens.
    token_transfer: TokenTransferFile | None = None
    #: Money.
    credit_transfer: CreditTransferFile | None = None
    #: An undertaking.
    issue_instrument: IssueInstrumentFile | None = None


class PolicyFile(_Strict):
    """What is allowed beyond the rules."""

    #: Several promises may lapse.
    accept_expiry_risk: bool = False
    #: One unwind without operators.
    unwind_automatically: bool = False


class PlanFile(_Strict):
    """A plan as a person writes it."""

    #: The writer's own reference.
    reference: str = ""
    #: RFC 3339 time with offset, or a time from now: "15m", "2h".
    deadline: str
    #: Who gives or receives value.
    parties: list[PartyFile]
    #: What is to be done.
    legs: list[LegFile]
    #: What is allowed.
    policy: PolicyFile = PolicyFile()
    #: How the plan gets on chain in batches: "batched" waits for the block, "deferred" does not; absent: by records of its own.
    anchoring: Literal["batched", "deferred"] | None = None
    #: Version of the matrix of duties: who opens which gate.
    sod_version: int = 1


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset by its everyday name."""

    #: ISO 4217 code or CAIP-19 id.
    asset: str
    #: Decimal places.
    scale: int


@dataclass(frozen=True, slots=True)
class Venue:
    """Where plans are settled."""

    #: Assets by name.
    assets: Mapping[str, Asset]
    #: EIP-55 address of the escrow.
    escrow: str
    #: CAIP-2 id of the chain of the registry.
    chain: str
    #: EIP-55 address of the NotaryRegistry.
    registry: str


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """A plan, ready to be signed by its maker."""

    #: Its head.
    header: plan.PlanHeader
    #: Its legs, in plan order.
    legs: tuple[plan.Leg, ...]


def draft(file: PlanFile, venue: Venue, *, plan_id: str, now: datetime, draw_salt: Callable[[], bytes]) -> DraftPlan:
    """The plan that a file asks for.

    Raises:
        FieldInvalid: the first rule that is broken, with its field as the file names it.
    """
    try:
        return _draft(file, venue, plan_id, now, draw_salt)
    except FieldInvalid as finding:
        raise FieldInvalid(as_written(finding.field), finding.rule) from None


def as_written(field: str) -> str:
    """The path of a plan's field as the file names it."""
    for name, written in _WRITTEN.items():
        if field == name or field.endswith(f".{name}"):
            return field.removesuffix(name) + written
    return field


def _draft(file: PlanFile, venue: Venue, plan_id: str, now: datetime, draw_salt: Callable[[], bytes]) -> DraftPlan:
    parties = tuple(
        plan.Party(ids.party_id(party.id, f"parties[{index}].id"), party.name, party.lei)
        for index, party in enumerate(file.parties)
    )
    for index, party in enumerate(parties):
        if party.party_id in {each.party_id for each in parties[:index]}:
            raise FieldInvalid(f"parties[{index}].id", "must be unique in the plan")
    legs: list[plan.Leg] = []
    for index, leg in enumerate(file.legs):
        field = f"legs[{index}]"
        if leg.id in {each.leg_id for each in legs}:
            raise FieldInvalid(f"{field}.id", "must be unique in the plan")
        try:
            legs.append(_leg(leg, venue, draw_salt()))
            plan.check_leg(legs[-1], parties)
        except FieldInvalid as finding:
            raise finding.under(field) from None
    anchoring = plan.Anchoring(file.anchoring.upper()) if file.anchoring is not None else None
    legs.extend(_evidence_legs(venue, anchoring, legs, draw_salt))
    header = plan.PlanHeader(
        plan_id=ids.plan_id(plan_id),
        reference=file.reference,
        parties=parties,
        deadline=deadline(file.deadline, now),
        policy=plan.Policy(file.policy.accept_expiry_risk, file.policy.unwind_automatically),
        sod_version=file.sod_version,
        leg_count=len(legs),
        legs_root=plan.legs_root(legs),
    )
    plan.check_header(header)
    return DraftPlan(header, tuple(legs))


def deadline(text: str, now: datetime) -> datetime:
    """A deadline from RFC 3339 text with an offset, or from a duration.

    Raises:
        FieldInvalid: another form, or in the past.
    """
    match = _DURATION.fullmatch(text)
    if match is not None:
        moment = now + timedelta(**{_UNITS[match.group(2)]: int(match.group(1))})
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise FieldInvalid("deadline", 'must be an RFC 3339 time or a duration such as "15m"') from error
        if moment.tzinfo is None:
            raise FieldInvalid("deadline", "must name its offset from UTC")
    if moment <= now:
        raise FieldInvalid("deadline", "must lie in the future")
    return moment.astimezone(UTC)


def _leg(leg: LegFile, venue: Venue, salt: bytes) -> plan.Leg:
    terms: plan.Terms
    match leg.token_transfer, leg.credit_transfer, leg.issue_instrument:
        case TokenTransferFile() as token, None, None:
            terms = _token_transfer(token, venue)
        case None, CreditTransferFile() as credit, None:
            terms = _credit_transfer(credit, venue)
        case None, None, IssueInstrumentFile() as instrument:
            terms = _issue_instrument(instrument, venue)
        case _:
            raise FieldInvalid("", "must have exactly one of token_transfer, credit_transfer and issue_instrument")
    depends_on = tuple(ids.leg_id(each, f"depends_on[{index}]") for index, each in enumerate(leg.depends_on))
    return plan.Leg(ids.leg_id(leg.id, "id"), salt, depends_on, terms)


def _amount(asset: str, text: str, venue: Venue, field: str) -> Amount:
    known = venue.assets.get(asset) or next((each for each in venue.assets.values() if each.asset == asset), None)
    try:
        if known is None:
            known_scale(asset)
            raise FieldInvalid("asset", f"must be one of {', '.join(sorted(venue.assets))}")
        return amount_from_text(known.asset, text, known.scale)
    except FieldInvalid as finding:
        raise finding.under(field) from None


def _token_transfer(file: TokenTransferFile, venue: Venue) -> plan.TokenTransfer:
    return plan.TokenTransfer(
        amount=_amount(file.asset, file.amount, venue, "token_transfer"),
        escrow=venue.escrow,
        payer=file.payer.address,
        payee=file.payee.address,
        payer_party=ids.party_id(file.payer.party, "token_transfer.from.party"),
        payee_party=ids.party_id(file.payee.party, "token_transfer.to.party"),
    )


def _credit_transfer(file: CreditTransferFile, venue: Venue) -> plan.CreditTransfer:
    return plan.CreditTransfer(
        amount=_amount(file.asset, file.amount, venue, "credit_transfer"),
        debtor=_account(file.debtor, "debtor"),
        creditor=_account(file.creditor, "creditor"),
        charge_bearer=plan.ChargeBearer(file.charges),
        remittance=file.remittance,
    )


def _account(file: AccountFile, field: str) -> plan.BankAccount:
    party = ids.party_id(file.party, f"credit_transfer.{field}.party")
    return plan.BankAccount(party, file.name, file.iban, file.bic, file.institution_bic)


def _issue_instrument(file: IssueInstrumentFile, venue: Venue) -> IssueInstrument:
    with within("issue_instrument"):
        digest = file.terms.sha256
        require(_SHA256.fullmatch(digest) is not None, "terms.sha256", "must be 64 hex digits")
        applicant, beneficiary = (
            InstrumentParty(ids.party_id(each.party, f"{field}.party"), each.name, each.town, each.country)
            for field, each in (("applicant", file.applicant), ("beneficiary", file.beneficiary))
        )
        expiry_date = expiry_date_of(file.expiry.date, "expiry.date")
    return IssueInstrument(
        form=UndertakingForm(file.form),
        amount=_amount(file.asset, file.amount, venue, "issue_instrument"),
        applicant=applicant,
        applicant_account=file.applicant.iban,
        beneficiary=beneficiary,
        issuing_bic=file.issuer,
        advising_bic=file.advised_by,
        expiry_date=expiry_date,
        expiry_place=file.expiry.place,
        governing_rules=GoverningRules(file.rules),
        terms=TermsDocument(file.terms.name, file.terms.media_type, bytes.fromhex(digest)),
    )


def _evidence_legs(
    venue: Venue, anchoring: plan.Anchoring | None, legs: Sequence[plan.Leg], draw_salt: Callable[[], bytes]
) -> list[plan.Leg]:
    taken = {leg.leg_id for leg in legs}
    added: list[plan.Leg] = []
    for name, terms in (("notarisation", plan.Notarisation(venue.chain, venue.registry, anchoring)), ("journal", plan.Journal())):
        if name in taken:
            raise FieldInvalid("legs", f'must not use the id "{name}", which belongs to a leg that is added')
        added.append(plan.Leg(ids.leg_id(name), draw_salt(), (), terms))
    return added
