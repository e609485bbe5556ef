"""What the bank can be told to do wrong. Pure: which script applies, and how a booking is falsified.

A script with a `chance` below one applies to some of the occasions that match it. Which, is decided by its seed, by the occasion itself and by how often
it has applied so far: the same occasions in the same order meet the same fate, and no occasion that comes again and again is hit for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bank_simulator.checks import certain
from bank_simulator.domain import BookedEntry


class Kind(StrEnum):
    """Ways to misbehave."""

    #: A message is put into the mailbox `delay_ms` later.
    DELAY = "delay"
    #: A message is never put into the mailbox; a question or a repeat brings it.
    LOSE = "lose"
    #: A message is put into the mailbox `copies` times.
    DUPLICATE = "duplicate"
    #: A payment, a release (its hold then ends) or a cancellation is refused with `reason`.
    REFUSE = "refuse"
    #: After what was said of a payment, its release or its cancellation comes, `delay_ms` later, a pacs.002 that `says` otherwise; the books stay as they are.
    CONTRADICT = "contradict"
    #: The camt.054 states another amount, UETR or currency (`field`) than was booked.
    MISBOOK = "misbook"
    #: The hold ends `delay_ms` after it was placed, whatever was agreed.
    EXPIRE_EARLY = "expire_early"
    #: The release is booked and notified, but no pacs.002 comes.
    BOOK_WITHOUT_STATUS = "book_without_status"
    #: The release is answered by ACSC, but nothing is booked and the hold stays.
    STATUS_WITHOUT_BOOKING = "status_without_booking"
    #: The liquidity provider lends nothing for the next hold that needs credit.
    DENY_CREDIT = "deny_credit"
    #: A cancellation is answered as pending (PDCR), and nothing becomes of it; another request is decided.
    PEND = "pend"
    #: A request is carried out, and the rail keeps its sender waiting `delay_ms` for the acknowledgement.
    PAUSE = "pause"
    #: A request is acknowledged, and nothing comes of it.
    FORGET = "forget"


#: Kinds that are nothing without a time.
_TIMED = frozenset({Kind.DELAY, Kind.PAUSE})


Stage = Literal["payment", "release", "cancellation", "inquiry"]
#: Message definitions by the name that a script uses.
MessageName = Literal["pacs.002", "camt.029", "camt.054"]


class Script(BaseModel):
    """One instruction to misbehave, for the next `times` occasions that match everything it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    times: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    uetr: UUID | None = None
    debtor_account: str | None = None
    #: For delay, lose and duplicate: only messages of this kind.
    message: MessageName | None = None
    #: For refuse, contradict, pause and forget: at which step. Nothing names the first that comes.
    stage: Stage | None = None
    delay_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    copies: Annotated[int, Field(ge=2, le=10)] = 2
    reason: Annotated[str, Field(pattern="^[A-Z0-9]{4}$")] = "AM04"
    field: Literal["amount", "uetr", "currency"] = "amount"
    #: For contradict: the status that is said; one that was just said is no contradiction.
    says: Literal["RJCT", "ACSC", "ACFW"] = "RJCT"
    #: Share of the matching occasions to which it applies.
    chance: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Script:
        if self.kind in _TIMED and self.delay_ms == 0:
            raise ValueError(f"{self.kind} needs delay_ms")
        return self


@dataclass(slots=True)
class ActiveScript:
    """A script that still has occasions."""

    misbehaviour_id: int
    script: Script
    remaining: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What is about to happen, and to which payments."""

    uetrs: frozenset[UUID]
    debtor_accounts: frozenset[str]


class Mischief:
    """The scripts that are active in one transaction; counts down what is used."""

    def __init__(self, active: Sequence[ActiveScript]) -> None:
        self._active = active
        self._used: dict[int, int] = {}

    @property
    def active(self) -> bool:
        """Whether there is any script at all."""
        return bool(self._active)

    @property
    def used(self) -> dict[int, int]:
        """Script -> how often it was used."""
        return self._used

    def take(
        self,
        kinds: Iterable[Kind],
        subject: Subject,
        *,
        message: str | None = None,
        stage: Stage | None = None,
        said: str | None = None,
    ) -> Script | None:
        """The first script of these kinds that applies; it then has one occasion less. `said` is the status that a contradiction would be about."""
        for active in self._active:
            script = active.script
            matches = script.kind in kinds and script.says != said and self._applies(script, subject, message, stage)
            if active.remaining and matches and _drawn(active, subject, message or stage or ""):
                active.remaining -= 1
                self._used[active.misbehaviour_id] = self._used.get(active.misbehaviour_id, 0) + 1
                return script
        return None

    @staticmethod
    def _applies(script: Script, subject: Subject, message: str | None, stage: Stage | None) -> bool:
        return (
            (script.uetr is None or script.uetr in subject.uetrs)
            and (script.debtor_account is None or script.debtor_account in subject.debtor_accounts)
            and (script.message is None or (message is not None and message.startswith(script.message)))
            and (script.stage is None or script.stage == stage)
        )


def _drawn(active: ActiveScript, subject: Subject, occasion: str) -> bool:
    """Whether chance picks this occasion."""
    names = ",".join(sorted(map(str, subject.uetrs)))
    text = f"{active.script.seed}|{active.script.kind}|{active.remaining}|{occasion}|{names}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) < active.script.chance * 2**64


def falsified(entry: BookedEntry, script: Script) -> BookedEntry:
    """A booking as a bank with a mistake states it."""
    match script.field:
        case "amount":
            return replace(entry, amount=entry.amount + 1)
        case "currency":
            return replace(entry, currency="USD" if entry.currency != "USD" else "EUR", scale=2)
        case "uetr":
            other = UUID(int=certain(entry.original.uetr).int ^ 1)
            return replace(entry, original=replace(entry.original, uetr=other))
