"""What passes between the gateway and a bank about undertakings, as values. Pure; `iso20022.undertakings` makes XML of it and reads XML into it."""

from __future__ import annotations

from datetime import date
from typing import TypeAlias
from uuid import UUID

from bank_gateway.references import number_of
from lockstep_kit.amounts import Amount
from lockstep_kit.certificate import Binding
from lockstep_kit.ids import LegId, PlanId, uetr
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Undertaking:
    """An undertaking as it is applied for. It follows from the plan alone, so that it is drawn up the same at any time."""

    #: Applicant's reference: the leg's UETR without hyphens, which fits.
    reference: str
    #: Its number, out of the series that is agreed with the bank.
    number: str
    #: Its terms.
    terms: IssueInstrument
    #: Day that its draft bears: the one by which the plan is decided. The bank's notification states the day of issue.
    dated: date


@dataclass(frozen=True, slots=True)
class UndertakingStatus:
    """What a tsrv.019 says."""

    #: Applicant's reference, or "".
    reference: str
    #: ExternalUndertakingStatusCategory1Code: APPL, TERM, …
    category: str
    #: UndertakingStatus3Code: ACCP, REJT, WTHD, …
    status: str
    #: ExternalStatusReason1Code, or "".
    reason: str
    #: What the bank adds.
    text: str


@dataclass(frozen=True, slots=True)
class UndertakingIssued:
    """What a tsrv.003 says: the undertaking as it was issued."""

    #: Applicant's reference.
    reference: str
    #: Number of the undertaking.
    number: str
    #: UndertakingIssuanceName1Code.
    form: str
    #: The most that can be demanded.
    amount: Amount
    #: BIC of its issuer, or "".
    issuer_bic: str
    #: Names of its applicants.
    applicants: tuple[str, ...]
    #: Names of its beneficiaries.
    beneficiaries: tuple[str, ...]
    #: BIC of the bank that advises it, or "".
    advising_bic: str
    #: GovernanceIdentification1Code, or "".
    rules: str
    #: Day on which it expires; None where it states none.
    expiry_date: date | None
    #: Its terms and conditions, text by text.
    conditions: tuple[str, ...]
    #: Day of its issue.
    issued_on: date


UndertakingWord: TypeAlias = UndertakingStatus | UndertakingIssued


def undertaking_of(binding: Binding) -> Undertaking:
    """The undertaking of a leg that issues one."""
    terms, header = binding.leg.terms, binding.header
    if not isinstance(terms, IssueInstrument):
        raise AssertionError("the gateway hands over legs that issue instruments only")
    leg = header.plan_id, binding.leg.leg_id
    return Undertaking(reference_of(*leg), number_of(*leg), terms, header.deadline.date())


def reference_of(plan_id: PlanId, leg_id: LegId) -> str:
    """The applicant's reference of a leg's undertaking."""
    return uetr(plan_id, leg_id).replace("-", "")


def uetr_of(reference: str) -> str:
    """The UETR that a reference stands for; "" for one that is none of ours."""
    try:
        found = str(UUID(hex=reference))
    except ValueError:
        return ""
    return found if found.replace("-", "") == reference else ""


def conditions_of(terms: IssueInstrument) -> tuple[str, ...]:
    """Terms and conditions as the undertaking states them: where the terms lie, by their hash; where it expires; that demands may be partial."""
    document = terms.terms
    return (
        f"THE TERMS ARE THOSE OF THE DOCUMENT {document.name} ({document.media_type}) WITH SHA-256 {document.sha256.hex().upper()}",
        f"DEMANDS ARE PRESENTED AT {terms.expiry_place} UNTIL THE CLOSE OF BUSINESS THERE ON {terms.expiry_date.isoformat()}",
    )
