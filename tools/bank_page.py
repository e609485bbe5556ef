"""docs/bank.md: what the bank's words mean, as the bank-gateway's tables hold it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from protocol_page import table

from bank_gateway import operations
from bank_gateway.messages import Kind
from bank_gateway.operations import Answer, Ground, Meaning, Word
from lockstep_kit.fence import Phase

Said = TypeVar("Said", bound=StrEnum)

INTRODUCTION = """\
# What the bank's words mean

This page is generated from the tables that the bank-gateway runs (`make docs`):
`services/bank-gateway/src/bank_gateway/operations.py`. The rules around them, among them what a word means after one that it contradicts, are
told at the head of that file; the messages and the rail in `services/bank-gateway/README.md`.

A leg is settled by a status **and** the matching booking. It is released by the bank's word alone. What contradicts what was known,
and what nobody foresaw, calls a person and changes no phase. A leg's phases are those of the fence ([protocol](protocol.md)).
"""

MEANINGS: Mapping[Meaning, str] = {
    Meaning.NOTHING: "no news, or not enough yet",
    Meaning.VOTES_YES: "the money is on hold: a signed YES until the hold ends",
    Meaning.VOTES_NO: "the bank does not take the payment: a signed NO with the bank's reason",
    Meaning.LAPSED: "the hold ended before it was released: a signed refusal",
    Meaning.SETTLES: "settled, once status and booking are both there: a signed Done",
    Meaning.REFUSED: "the bank does not settle what it was told to: a signed refusal",
    Meaning.RELEASED: "the bank will never settle it: a signed release",
    Meaning.INQUIRE: "the bank is asked what became of the payment (pacs.028)",
    Meaning.TROUBLE: "a person must look; no phase changes",
}

STATUSES = """\
## Statuses (pacs.002)

A status is first put in our words. A code that is not here is read as STRANGE, because the list grows every quarter. A rejection as a repeat
says nothing of the first copy, which the bank may hold: it is never a refusal, and the bank is asked.
"""

IN_PHASES = """\
What they mean then depends on where the leg stands. In ABORTING a rejection releases when it says that the order was cancelled, or when the bank
had refused to cancel the payment.
"""

REASONS = """\
## What a refusal is called

The reason of a signed NO or refusal ([errors](errors.md)); the bank's own code stands beside it as `outside_code`. Whether a promise still stood is
judged by the bank's clock: when it made the message, against the end of the hold that it had said to place (ACFW).
"""

RESOLUTIONS = """\
## Answers to a cancellation (camt.029)

The payment's own status goes before the whole message's. A payment that the bank had turned down before is one that was never there. One that the
bank says it has rejected, though its last word was that it holds the money, is asked about.
"""

BOOKINGS = """\
## Bookings (camt.054)

A booking counts when its status is BOOK and its UETR, end-to-end reference, account, side, amount and currency are the payment's; with any other
value it is trouble in every phase, and an open matter besides. The second column is what one means whose status is there too, the third what either
half means without the other.
"""

MATTERS = """\
## Open matters

A booking, hold or settlement of a payment that is not known here, and a booking that is not what the payment says, are kept as open matters
(`bank_matter`): one for each statement of a message, however often the message comes. One that names the end-to-end reference of a leg is told on
that leg as trouble, and goes on being told when the leg ends. A person closes it (`python -m bank_gateway.matters`); of a payment that nobody knew it
closes when the payment becomes known, as after a restore, since the bank is then told or asked about it anew.

Nothing is asked for the last time: while a leg owes an answer the bank is asked again, after twice as long each time up to a longest wait.
"""

#: Why a bank refuses.
GROUNDS: Mapping[Ground, str] = {
    Ground.RAN_OUT: "the hold's agreed end was reached",
    Ground.NO_CREDIT: f"intraday credit denied ({', '.join(sorted(operations.CREDIT_DENIED))})",
    Ground.OTHER: "anything else",
}

#: How a bank words each answer.
WORDINGS: Mapping[Answer, str] = {
    Answer.CANCELLED: "CNCL, ACCR",
    Answer.PENDING: "PDCR, PECR",
    Answer.NEVER_THERE: "RJCR with NOOR",
    Answer.SETTLED_ALREADY: "RJCR with ARDT",
    Answer.TURNED_DOWN: "RJCR with ARJT",
    Answer.REFUSED: "RJCR with any other reason",
    Answer.STRANGE: "anything else",
}


def page() -> str:
    """The page's text."""
    meanings = "## Meanings\n\n" + table(("meaning", "what it is"), [(meaning.value, MEANINGS[meaning]) for meaning in Meaning])
    parts = [INTRODUCTION, meanings, STATUSES, words(), IN_PHASES, by_phase(Word, operations.STATUSES)]
    parts += [REASONS, reasons(), RESOLUTIONS, wordings(), by_phase(Answer, operations.RESOLUTIONS), BOOKINGS, bookings()]
    parts += [MATTERS, messages()]
    return "\n".join(parts)


def words() -> str:
    """Codes by what they say."""
    codes = {word: [code for code, says in operations.WORDS.items() if says is word] for word in Word}
    codes[Word.REPEATED] = [f"RJCT with {', '.join(sorted(operations.REPEATS))}"]
    codes[Word.STRANGE] = ["any other"]
    return table(("word", "codes"), [(word.value, ", ".join(codes[word])) for word in Word])


def wordings() -> str:
    """Answers by how a bank words them."""
    return table(("answer", "as the bank says it"), [(answer.value, WORDINGS[answer]) for answer in Answer])


def reasons() -> str:
    """Reasons by what a refusal is and why."""
    rows = [
        [meaning.value, *(operations.REASONS[meaning, ground] for ground in Ground)]
        for meaning in Meaning
        if (meaning, Ground.OTHER) in operations.REASONS
    ]
    return table(("refusal", *(GROUNDS[ground] for ground in Ground)), rows)


def by_phase(said: type[Said], meanings: Mapping[tuple[Phase, Said], Meaning]) -> str:
    """A table of meanings: phases down, words across."""
    rows = [[phase.value, *(meanings[phase, each].value for each in said)] for phase in Phase]
    return table(("phase", *(each.value for each in said)), rows)


def bookings() -> str:
    """What a booking means in each phase, and either half of a settlement alone."""
    halves = {phase.value: meaning.value for phase, meaning in operations.HALF_SETTLED.items()}
    rows = [(phase.value, operations.BOOKINGS[phase].value, halves.get(phase.value, "")) for phase in Phase]
    return table(("phase", "booking", "half alone"), rows)


def messages() -> str:
    """Message definitions that are spoken."""
    names = "\n".join(f"- `{kind.value}`: {kind.name.lower()}" for kind in Kind)
    return f"## Message definitions\n\nEach is validated against the official schema, in both directions:\n\n{names}\n"
