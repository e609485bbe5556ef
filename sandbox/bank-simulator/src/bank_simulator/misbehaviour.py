"""What the bank can be told to do wrong. Pure: which script applies, and how a booking is falsified."""

from __future__ import annotations

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
    #: After ACFW (stage payment) or ACSC (stage release) comes an RJCT with `reason`; the books stay as they are.
    CONTRADICT = "contradict"
    #: The camt.054 states another amount, UETR or currency (`field`) than was booked.
    MISBOOK = "misbook"
    #: The hold ends `delay_ms` after it was placed, whatever was agreed.
    EXPIRE_EARLY = "expire_early"
    #: The release is booked and notified, but no pacs.002 comes.
    BOOK_WITHOUT_STATUS = "book_without_status"
    #: The release is answered by ACSC, but nothing is booked and the hold stays.
    STATUS_WITHOUT_BOOKING = "status_without_booking"


Stage = Literal["payment", "release", "cancellation"]
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
    #: For refuse and contradict: at which step. Nothing names the first that comes.
    stage: Stage | None = None
    delay_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    copies: Annotated[int, Field(ge=2, le=10)] = 2
    reason: Annotated[str, Field(pattern="^[A-Z0-9]{4}$")] = "AM04"
    field: Literal["amount", "uetr", "currency"] = "amount"

    @model_validator(mode="after")
    def _fits(self) -> Script:
        if self.kind is Kind.DELAY and self.delay_ms == 0:
            raise ValueError("delay needs delay_ms")
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
        self, kinds: Iterable[Kind], subject: Subject, *, message: str | None = None, stage: Stage | None = None
    ) -> Script | None:
        """The first script of these kinds that applies; it then has one occasion less."""
        for active in self._active:
            script = active.script
            if active.remaining and script.kind in kinds and self._applies(script, subject, message, stage):
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
