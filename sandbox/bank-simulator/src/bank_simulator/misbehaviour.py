"""What the bank can be told to do wrong. Pure: which script applies, and how a booking is falsified.

A script with a `chance` below one applies to some of the occasions that match it. Which, is decided by its seed, by the occasion itself and by how often
it has applied so far: the same occasions in the same order meet the same fate, and no occasion that comes again and again is hit for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bank_simulator.checks import certain
from bank_simulator.domain import AccountDay, BookedEntry, Original, StatedEntry


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
    #: The camt.054 states another amount, UETR or currency (`field`) than was booked; the tsrv.003 another amount than was issued.
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
    #: A message arrives broken, as `how` says: truncated, entity, encoding, schema, definition. A question brings it whole.
    GARBLE = "garble"
    #: A message arrives with a signature that does not hold, as `how` says: absent, content, value. A question brings it as it was signed.
    MISSIGN = "missign"
    #: A message names another payment by its UETR. A question brings it right.
    MISNAME = "misname"
    #: A message comes after everything else that the same request brings.
    REORDER = "reorder"
    #: A statement leaves out an entry, as do its sums and its closing balance.
    OMIT_ENTRY = "omit_entry"
    #: A statement has an entry that was never booked, as do its sums and its closing balance.
    ADD_ENTRY = "add_entry"
    #: A statement has an entry twice, under two references.
    REPEAT_ENTRY = "repeat_entry"
    #: A statement has an entry with another amount, as do its sums and its closing balance.
    MISSTATE_ENTRY = "misstate_entry"
    #: A statement's closing balance is not what its entries come to.
    MISSTATE_BALANCE = "misstate_balance"


#: What a statement can be told to state wrongly.
MISSTATEMENTS = frozenset({Kind.OMIT_ENTRY, Kind.ADD_ENTRY, Kind.REPEAT_ENTRY, Kind.MISSTATE_ENTRY, Kind.MISSTATE_BALANCE})
#: Kinds that are nothing without a time.
_TIMED = frozenset({Kind.DELAY, Kind.PAUSE})
#: Kinds that make a spoiled copy of a message, and in which ways each does.
SPOILS: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.GARBLE: frozenset({"truncated", "entity", "encoding", "schema", "definition"}),
    Kind.MISSIGN: frozenset({"absent", "content", "value"}),
    Kind.MISNAME: frozenset(),
}


Stage = Literal[
    "payment", "release", "cancellation", "inquiry", "reservation", "deletion", "application", "issuance", "termination"
]
#: Message definitions by the name that a script uses.
MessageName = Literal["pacs.002", "camt.029", "camt.053", "camt.054", "camt.025", "camt.047", "pacs.004", "tsrv.003", "tsrv.019"]


class Script(BaseModel):
    """One instruction to misbehave, for the next `times` occasions that match everything it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    times: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    uetr: UUID | None = None
    debtor_account: str | None = None
    #: For what happens to messages on their way: it meets what tells of several payments as it is; else whom it may meet is told of by itself.
    together: bool = False
    #: For what happens to messages on their way: only messages of this kind.
    message: MessageName | None = None
    #: For refuse, contradict, pause and forget: at which step. Nothing names the first that comes.
    stage: Stage | None = None
    delay_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    copies: Annotated[int, Field(ge=2, le=10)] = 2
    reason: Annotated[str, Field(pattern="^[A-Z0-9]{4}$")] = "AM04"
    field: Literal["amount", "uetr", "currency"] = "amount"
    #: For contradict: the status that is said; one that was just said is no contradiction.
    says: Literal["RJCT", "ACSC", "ACFW"] = "RJCT"
    #: For garble and missign: what is wrong with the message.
    how: Annotated[str, Field(pattern="^[a-z]*$")] = ""
    #: Share of the matching occasions to which it applies.
    chance: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Script:
        if self.kind in _TIMED and self.delay_ms == 0:
            raise ValueError(f"{self.kind} needs delay_ms")
        ways = SPOILS.get(self.kind, frozenset())
        if (self.how in ways) != bool(ways) or (self.how and not ways):
            raise ValueError(f"{self.kind} needs how: {', '.join(sorted(ways))}" if ways else f"{self.kind} knows no how")
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

    def concerns(self, kinds: Iterable[Kind], subject: Subject, *, message: str) -> bool:
        """Whether a script of these kinds may meet what is said of a payment by itself."""
        return any(
            each.remaining
            and not each.script.together
            and each.script.kind in kinds
            and self._applies(each.script, subject, message, None)
            for each in self._active
        )

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


def misstated(stated: AccountDay, script: Script) -> AccountDay:
    """A statement as a bank with a mistake makes it. What is left out, repeated or changed is the script's payment, else the first one that is stated."""
    if script.kind is Kind.MISSTATE_BALANCE:
        return replace(stated, closing=stated.closing + 1)
    entries = list(stated.entries)
    if script.kind is Kind.ADD_ENTRY:
        name = Original(
            end_to_end_id="NEVERBOOKED", uetr=UUID(bytes=hashlib.sha256(stated.statement_id.encode()).digest()[:16], version=4)
        )
        entries.append(StatedEntry(-1, "PAYMENT", f"X{stated.statement_id}"[:35], name))
    else:
        place = next(
            (place for place, entry in enumerate(entries) if entry.original and script.uetr in (None, entry.original.uetr)), None
        )
        if place is None:
            return stated
        entry = entries[place]
        match script.kind:
            case Kind.OMIT_ENTRY:
                del entries[place]
            case Kind.REPEAT_ENTRY:
                entries.insert(place, replace(entry, servicer_reference=f"{entry.servicer_reference}X"))
            case _:
                entries[place] = replace(entry, amount=entry.amount + (1 if entry.amount > 0 else -1))
    return replace(stated, entries=tuple(entries), closing=stated.opening + sum(entry.amount for entry in entries))
