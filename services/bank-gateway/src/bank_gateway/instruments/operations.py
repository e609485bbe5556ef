"""What a bank's words about an undertaking mean for its leg: one literal table. Pure.

1. An undertaking is issued by the bank's notification of it (tsrv.003), if that states what was applied for; no status stands for it.
2. A leg is released by the bank's word that the draft is withdrawn, that it never was there and is barred, or that the bank turned it down for good; never
   once the bank has said that it issued the undertaking.
3. A draft that is lodged has no end: the bank holds it, and the applicant's facility for it, until it is issued or withdrawn. A bank that ends it by
   itself breaks a promise.
4. Whatever contradicts what was known calls a person. Repeats, and words that come late, change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from bank_gateway.instruments.values import Undertaking, UndertakingIssued, UndertakingWord, conditions_of
from bank_gateway.meanings import Meaning
from bank_gateway.messages import Envelope
from lockstep_kit.fence import Phase
from lockstep_kit.values import dataclass, replace


class Said(StrEnum):
    """What a bank says of an undertaking, in our words."""

    #: The draft is agreed and lodged, and the facility held for it.
    LODGED = "LODGED"
    #: Turned down for good: it is not issued, and nothing is held for it.
    REJECTED = "REJECTED"
    #: The draft is withdrawn.
    WITHDRAWN = "WITHDRAWN"
    #: The bank never had it, and never takes it.
    NEVER_THERE = "NEVER_THERE"
    #: It is not withdrawn.
    STAYS = "STAYS"
    #: Issued, as it was applied for.
    ISSUED = "ISSUED"
    #: Issued, and not as it was applied for.
    DIFFERS = "DIFFERS"
    STRANGE = "STRANGE"


#: (category, status) of a tsrv.019 -> what it says.
STATUSES: Final[Mapping[tuple[str, str], Said]] = {
    ("APPL", "ACCP"): Said.LODGED,
    ("APPL", "REJT"): Said.REJECTED,
    ("APPL", "WTHD"): Said.WITHDRAWN,
    ("TERM", "REJT"): Said.STAYS,
}
#: ExternalStatusReason1Code of what the bank never received.
NEVER_RECEIVED: Final = "NOOR"
#: ExternalStatusReason1Code of what was to be issued after its own day.
TOO_LATE: Final = "DT01"
#: Status of an undertaking that the bank notified of: the notification has no code of its own.
ISSUED: Final = "ISSU"

_ENDED: Final = (Said.REJECTED, Said.WITHDRAWN, Said.NEVER_THERE)

MEANINGS: Final[Mapping[tuple[Phase, Said], Meaning]] = {
    **{(phase, said): Meaning.TROUBLE for phase in Phase for said in (Said.DIFFERS, Said.STRANGE)},
    (Phase.PREPARING, Said.LODGED): Meaning.VOTES_YES,
    (Phase.PREPARING, Said.REJECTED): Meaning.VOTES_NO,
    (Phase.PREPARING, Said.WITHDRAWN): Meaning.TROUBLE,
    (Phase.PREPARING, Said.NEVER_THERE): Meaning.VOTES_NO,
    (Phase.PREPARING, Said.STAYS): Meaning.TROUBLE,
    (Phase.PREPARING, Said.ISSUED): Meaning.TROUBLE,
    (Phase.PREPARED, Said.LODGED): Meaning.NOTHING,
    (Phase.PREPARED, Said.REJECTED): Meaning.LAPSED,
    (Phase.PREPARED, Said.WITHDRAWN): Meaning.LAPSED,
    (Phase.PREPARED, Said.NEVER_THERE): Meaning.LAPSED,
    (Phase.PREPARED, Said.STAYS): Meaning.TROUBLE,
    (Phase.PREPARED, Said.ISSUED): Meaning.TROUBLE,
    (Phase.REFUSED, Said.LODGED): Meaning.TROUBLE,
    (Phase.REFUSED, Said.REJECTED): Meaning.NOTHING,
    (Phase.REFUSED, Said.WITHDRAWN): Meaning.NOTHING,
    (Phase.REFUSED, Said.NEVER_THERE): Meaning.NOTHING,
    (Phase.REFUSED, Said.STAYS): Meaning.TROUBLE,
    (Phase.REFUSED, Said.ISSUED): Meaning.SETTLES,
    # The confirmation of the draft may cross our issuance.
    (Phase.COMMITTING, Said.LODGED): Meaning.NOTHING,
    (Phase.COMMITTING, Said.REJECTED): Meaning.REFUSED,
    (Phase.COMMITTING, Said.WITHDRAWN): Meaning.REFUSED,
    (Phase.COMMITTING, Said.NEVER_THERE): Meaning.REFUSED,
    (Phase.COMMITTING, Said.STAYS): Meaning.TROUBLE,
    (Phase.COMMITTING, Said.ISSUED): Meaning.SETTLES,
    (Phase.COMMITTED, Said.LODGED): Meaning.NOTHING,
    (Phase.COMMITTED, Said.REJECTED): Meaning.TROUBLE,
    (Phase.COMMITTED, Said.WITHDRAWN): Meaning.TROUBLE,
    (Phase.COMMITTED, Said.NEVER_THERE): Meaning.TROUBLE,
    (Phase.COMMITTED, Said.STAYS): Meaning.NOTHING,
    (Phase.COMMITTED, Said.ISSUED): Meaning.NOTHING,
    # A late confirmation is what our request to withdraw is about.
    (Phase.ABORTING, Said.LODGED): Meaning.NOTHING,
    (Phase.ABORTING, Said.REJECTED): Meaning.RELEASED,
    (Phase.ABORTING, Said.WITHDRAWN): Meaning.RELEASED,
    (Phase.ABORTING, Said.NEVER_THERE): Meaning.RELEASED,
    # It is asked again; one that is issued is notified of beside it.
    (Phase.ABORTING, Said.STAYS): Meaning.NOTHING,
    (Phase.ABORTING, Said.ISSUED): Meaning.SETTLES,
    (Phase.RELEASED, Said.LODGED): Meaning.TROUBLE,
    (Phase.RELEASED, Said.REJECTED): Meaning.NOTHING,
    (Phase.RELEASED, Said.WITHDRAWN): Meaning.NOTHING,
    (Phase.RELEASED, Said.NEVER_THERE): Meaning.NOTHING,
    (Phase.RELEASED, Said.STAYS): Meaning.TROUBLE,
    (Phase.RELEASED, Said.ISSUED): Meaning.SETTLES,
    # What is issued stays issued, whatever was asked of its leg since.
    **{
        (phase, said): Meaning.TROUBLE if said in _ENDED else Meaning.NOTHING
        for phase in (Phase.REVERSING, Phase.REVERSED)
        for said in (Said.LODGED, *_ENDED, Said.STAYS, Said.ISSUED)
    },
}

#: What a refusal is -> reason of docs/errors.md.
REASONS: Final[Mapping[Meaning, str]] = {
    Meaning.VOTES_NO: "BANK_PREPARE_FAILED",
    Meaning.LAPSED: "BANK_COMMIT_FAILED",
    Meaning.REFUSED: "BANK_COMMIT_FAILED",
}
#: An undertaking that was to be issued when its own day was over: refused for good, and no promise was broken.
RAN_OUT: Final = "BANK_EXECUTE_FAILED"


@dataclass(frozen=True, slots=True)
class Known:
    """What the bank has said of an undertaking."""

    #: Last status that counted: category and status ("APPL/ACCP"), or "ISSU"; "" before.
    status: str = ""
    #: Reason beside it, or "".
    reason: str = ""
    #: Message that carried it, or "".
    message_id: str = ""
    #: Its SHA-256 in hex, or "".
    sha256: str = ""
    #: When the bank made that message (ISO 8601), or "".
    at: str = ""

    @property
    def issued(self) -> bool:
        """Whether the bank says that it issued the undertaking."""
        return self.status == ISSUED


@dataclass(frozen=True, slots=True)
class Heard:
    """What a statement changes."""

    #: What is known after it.
    known: Known
    #: What it means.
    meaning: Meaning
    #: One sentence, for TROUBLE, VOTES_NO, LAPSED and REFUSED.
    detail: str = ""
    #: Reason of docs/errors.md, for VOTES_NO, LAPSED and REFUSED.
    reason: str = ""


def hear(known: Known, phase: Phase, undertaking: Undertaking, told: UndertakingWord, envelope: Envelope, sha256: bytes) -> Heard:
    """What a bank's statement about an undertaking means, given what was known and where the leg stands."""
    said = said_of(undertaking, told)
    detail = _sentence(undertaking, told)
    if known.issued and said in (*_ENDED, Said.LODGED):
        late = said is Said.LODGED and phase is not Phase.PREPARING
        return Heard(known, Meaning.NOTHING if late else Meaning.TROUBLE, f"{detail}, after it had issued the undertaking")
    before = known.at != "" and envelope.created_at < datetime.fromisoformat(known.at)
    if before and said in (Said.LODGED, Said.STAYS):
        return Heard(known, Meaning.NOTHING)
    meaning = MEANINGS[phase, said]
    if said in (Said.LODGED, Said.ISSUED, *_ENDED):
        status = ISSUED if isinstance(told, UndertakingIssued) else f"{told.category}/{told.status}"
        reason = "" if isinstance(told, UndertakingIssued) else told.reason
        known = replace(
            known,
            status=status,
            reason=reason,
            message_id=envelope.message_id,
            sha256=sha256.hex(),
            at=envelope.created_at.isoformat(),
        )
    named = REASONS.get(meaning, "")
    # The day is over by the bank's clock, which may be hours before or after the end of the same day in UTC.
    if meaning is Meaning.REFUSED and known.reason == TOO_LATE and envelope.created_at.date() >= undertaking.terms.expiry_date:
        named = RAN_OUT
    return Heard(known, meaning, f"{detail}, while the leg is {phase}" if meaning is Meaning.TROUBLE else detail, named)


def said_of(undertaking: Undertaking, told: UndertakingWord) -> Said:
    """What a message says."""
    if isinstance(told, UndertakingIssued):
        return Said.DIFFERS if differing(undertaking, told) else Said.ISSUED
    said = STATUSES.get((told.category, told.status), Said.STRANGE)
    return Said.NEVER_THERE if said is Said.REJECTED and told.reason == NEVER_RECEIVED else said


def differing(undertaking: Undertaking, issued: UndertakingIssued) -> tuple[str, ...]:
    """Fields in which an undertaking as issued is not as it was applied for."""
    terms = undertaking.terms
    compared = {
        "number": (issued.number, undertaking.number),
        "form": (issued.form, terms.form.value),
        "amount": (issued.amount, terms.amount),
        "issuer": (issued.issuer_bic, terms.issuing_bic),
        "applicant": (issued.applicants, (terms.applicant.name,)),
        "beneficiary": (issued.beneficiaries, (terms.beneficiary.name,)),
        "advising bank": (issued.advising_bic, terms.advising_bic),
        "rules": (issued.rules, terms.governing_rules.value),
        "expiry": (issued.expiry_date, terms.expiry_date),
        "terms": (issued.conditions, conditions_of(terms)),
    }
    return tuple(name for name, (told, asked) in compared.items() if told != asked)


def _sentence(undertaking: Undertaking, told: UndertakingWord) -> str:
    if isinstance(told, UndertakingIssued):
        wrong = differing(undertaking, told)
        return f"the bank issued the undertaking with another {', '.join(wrong)}" if wrong else "the bank issued the undertaking"
    more = f"{f' ({told.reason})' if told.reason else ''}{f': {told.text}' if told.text else ''}"
    return f"the bank says {told.category} {told.status}{more}"


def stray(told: UndertakingWord) -> str:
    """What a person must know of a statement about an undertaking that nobody here knows; "" for one that binds nobody."""
    if isinstance(told, UndertakingIssued):
        return f"the bank issued undertaking {told.number} over {told.amount}, which is not known here"
    if STATUSES.get((told.category, told.status)) is Said.LODGED:
        return "the bank holds the draft of an undertaking that is not known here"
    return ""
