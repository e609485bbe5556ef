"""docs/bank.md: what the bank's words mean, as the bank-gateway's tables hold it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from protocol_page import table

from bank_gateway import operations, profiles
from bank_gateway.instruments import operations as undertakings
from bank_gateway.instruments.operations import Said as UndertakingSaid
from bank_gateway.meanings import Answer, Ground, Meaning, Word
from bank_gateway.messages import Kind
from bank_gateway.profiles import PROFILES, Hold, ProfileName, Step
from bank_gateway.reconciliation import BreakKind
from lockstep_kit.fence import Phase

Said = TypeVar("Said", bound=StrEnum)

INTRODUCTION = """\
# What the bank's words mean

This page is generated from the tables that the bank-gateway runs (`make docs`):
`services/bank-gateway/src/bank_gateway/operations.py` and `profiles.py` beside it. The rules around them, among them what a word means after one
that it contradicts, are told at the heads of these files; the messages and the rail in `services/bank-gateway/README.md`.

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
    Meaning.UNRESERVE: "the payment is never settled: its reservation is given back (camt.049)",
    Meaning.INQUIRE_RESERVATION: "the bank is asked what became of the reservation (camt.046)",
    Meaning.TROUBLE: "a person must look; no phase changes",
}

STATUSES = """\
## Statuses (pacs.002)

A status is first put in our words. A code that is not here is read as STRANGE, because the list grows every quarter. A rejection as a repeat
says nothing of the first copy, which the bank may hold: it is never a refusal, and the bank is asked.
"""

PROFILES_TEXT = """\
## Profiles

What the bank at the other end can do decides how a payment is promised and made; a gateway has one profile (setting `profile`). Steps are taken in
the transaction that enters the phase; what is sent waits in the outbox. While an answer is overdue, the two steps
of the second table are taken in turn.

- **conditional**: the bank holds the payment until the key of its lock is shown.
- **reservation**: the money is reserved apart from the payment, which is kept unsent; once sent it is paid out of its reservation or not at all.
- **plain**: nothing is promised but the best effort; the payment is kept unsent, and the plan's decision is delegated to the leg.
"""

STEPS: Mapping[Step, str] = {
    Step.PAY: "send the payment",
    Step.DRAFT: "keep the payment unsent",
    Step.RESERVE: "camt.103",
    Step.PROMISE: "vote YES",
    Step.SHOW_KEY: "show the key",
    Step.SEND: "send the kept payment",
    Step.WITHDRAW: "withdraw the payment for good",
    Step.CANCEL: "camt.056",
    Step.UNRESERVE: "camt.049",
    Step.INQUIRE: "pacs.028",
    Step.INQUIRE_RESERVATION: "camt.046",
    Step.SEND_AGAIN: "the payment again, as a possible duplicate",
    Step.RESERVE_AGAIN: "camt.103 again, as a possible duplicate",
}

UNSENT = """\
In the profiles reservation and plain, whose payments are kept unsent until the Commit and never wait for a key:
"""

HOLDS = """\
## Words about reservations (camt.025, camt.047)

A receipt (camt.025) answers one message of ours, by its name; a report (camt.047) answers a question. The reasons PAID, NONE and OVER are agreed for
the rail, since no list of ISO 20022 has them. A reservation is named after its payment's UETR. In ABORTING the leg is released when its payment
can never be settled **and** its reservation is over: whichever is told second releases. What is said of another amount than the payment's is trouble
in every phase, and so is, in the other profiles, every word about a reservation: nobody asked.
"""

RETURNS = """\
## Returns (pacs.004)

A return is matched by UETR, end-to-end reference, amount and currency. In every phase and every profile it changes no phase, calls a person and is an
open matter that says how much came back, whole or in part, in sum: of an executed leg it contradicts the Done, and is what a reversal would start
from. The same return again is no news; one that fits badly, changes, or goes beyond what is left is a matter of its own and counts for nothing. The
booking of a return (camt.054 with `RtrInf`) settles nothing: told before by a pacs.004 it is no news, alone it is a matter. The ledger gives the money
back when the return is booked, be it in a camt.054 or in a statement.
"""

IN_PHASES = """\
What they mean then depends on where the leg stands. In ABORTING a rejection releases when it says that the order was cancelled, or when the bank
had refused to cancel the payment.
"""

REASONS = """\
## What a refusal is called

The reason of a signed NO or refusal ([errors](errors.md)); the bank's own code stands beside it as `outside_code`. The second table is the profile
plain's, in which nothing was promised that could be broken. Whether a promise still stood is
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

UNDERTAKINGS = """\
## Undertakings (tsrv.003, tsrv.019)

Of a leg that issues an instrument, from `services/bank-gateway/src/bank_gateway/instruments/operations.py`. An undertaking is issued by the bank's notification
(tsrv.003), if that states what was applied for; a status (tsrv.019) never stands for it. The meanings are those above; the promise that VOTES_YES makes
has no end.
"""

MATTERS = """\
## Open matters

A booking, hold, settlement or return of a payment that is not known here, a booking that is not what the payment says, and a payment's return are
kept as open matters (`bank_matter`): one for each statement of a message, however often the message comes. One that names the end-to-end reference of
a leg is told on that leg as trouble, and goes on being told when the leg ends. A person closes it (`python -m bank_gateway.matters`); of a payment
that nobody knew it closes when the payment becomes known, as after a restore, since the bank is then told or asked about it anew.

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


RECONCILIATION = """\
## Reconciliation

A statement (camt.053) counts once all of its pages are there, its counts and sums are those of its entries, and its opening balance plus its entries is its
closing balance. Then it is compared with the gateway's books, both ways, in one transaction (`reconciliation.py`); a correction, or a statement that comes
late, is compared when it comes. An entry that fits a payment counts like the booking that a camt.054 tells; of a payment that is being executed and whose
status was lost it settles by itself, since the day's balances bear it out. It never releases anything. What differs is a break: an open matter with an amount,
told on the leg that it concerns, until a later statement ends it or a person closes it.

The same transaction compares the statement with the ledger (`ledger/reconciliation.py`): each entry of ours with its posting, each posting of the day with
the statement, whatever else was posted on the account since the statement before, and by how much the stated balances moved with by how much the ledger did.
A return that is stated, and that no pacs.004 told, is posted with the statement as its evidence, and calls a person besides being a break.
"""

BREAKS: Mapping[BreakKind, str] = {
    BreakKind.MISSING_AT_BANK: "the bank told the booking (camt.054), and the day's statement does not have it",
    BreakKind.MISSING_HERE: "the statement debits a transfer that nobody here ordered",
    BreakKind.AMOUNT_DIFFERS: "the entry has another amount than the payment; the break's amount is the difference",
    BreakKind.CURRENCY_DIFFERS: "the entry is in another currency than the payment",
    BreakKind.SIDE_DIFFERS: "the entry is on an account, or on a side of it, that is not the payment's",
    BreakKind.REFERENCE_DIFFERS: "UETR, end-to-end reference or the bank's own reference is not what was told before",
    BreakKind.BOOKED_TWICE: "the payment is booked more than once",
    BreakKind.REVERSED: "the bank took back an entry of the payment, or booked a return of it that no pacs.004 told",
    BreakKind.BOOKED_AFTER_RELEASE: "the payment was refused or released, and the bank booked it",
    BreakKind.BOOKED_UNRELEASED: "the payment's key was never shown, and the bank booked it",
    BreakKind.IN_DOUBT: "the key was shown for longer than a question may wait, and the statement does not have the payment; it ends with the doubt",
    BreakKind.OPENING_DIFFERS: "the statement does not open with the balance that the one before closed with",
    BreakKind.STATEMENT_BROKEN: "the statement is not a whole; it is quarantined, and nothing of it counts",
    BreakKind.STATEMENT_GAP: "a number of the account's statements was passed over",
    BreakKind.STATEMENT_OVERDUE: "the bank told bookings of the day, and its statement did not come in time; the amount is what it told",
    BreakKind.LEDGER_MISSING: "the statement has a payment or a return as our books have it, and the ledger has no posting of it",
    BreakKind.LEDGER_TWICE: "the ledger has more than one posting of the payment; the break's amount is what is too much",
    BreakKind.LEDGER_AMOUNT_DIFFERS: "the ledger's posting has another amount than the entry; the break's amount is the difference",
    BreakKind.LEDGER_ACCOUNT_DIFFERS: "the ledger's posting is on another account, or in another currency, than the entry",
    BreakKind.LEDGER_UNSTATED: "the ledger has a posting that the bank never booked, or a return that it told for the day and does not state",
    BreakKind.BALANCE_DIFFERS: "from opening to closing balance the account moved by another amount than the ledger, beyond what all other differences come to",
}


def page() -> str:
    """The page's text."""
    told = [(meaning.value, MEANINGS[meaning], profiles.CONSEQUENCES[meaning].value) for meaning in Meaning]
    meanings = "## Meanings\n\n" + table(("meaning", "what it is", "to whoever gave the command"), told)
    parts = [INTRODUCTION, PROFILES_TEXT, steps(), meanings, STATUSES, words(), IN_PHASES, by_phase(Word, operations.STATUSES)]
    parts += [UNSENT, by_phase(Word, profiles.UNSENT_STATUSES), HOLDS, holds(), by_phase(Hold, profiles.RESERVATIONS)]
    parts += [REASONS, reasons(operations.REASONS), reasons(profiles.PLAIN_REASONS)]
    parts += [RESOLUTIONS, wordings(), by_phase(Answer, operations.RESOLUTIONS), BOOKINGS, bookings(), RETURNS]
    parts += [UNDERTAKINGS, said_of_undertakings(), by_phase(UndertakingSaid, undertakings.MEANINGS)]
    parts += [MATTERS, RECONCILIATION, breaks(), messages()]
    return "\n".join(parts)


def said_of_undertakings() -> str:
    """What is said of undertakings, by how a bank words it."""
    worded = {said: f"tsrv.019 {category}/{status}" for (category, status), said in undertakings.STATUSES.items()}
    worded |= {
        UndertakingSaid.NEVER_THERE: f"tsrv.019 APPL/REJT with {undertakings.NEVER_RECEIVED}",
        UndertakingSaid.ISSUED: "tsrv.003 that states what was applied for",
        UndertakingSaid.DIFFERS: "tsrv.003 that states anything else",
        UndertakingSaid.STRANGE: "any other",
    }
    return table(("word", "as the bank says it"), [(said.value, worded[said]) for said in UndertakingSaid])


def words() -> str:
    """Codes by what they say."""
    codes = {word: [code for code, says in operations.WORDS.items() if says is word] for word in Word}
    codes[Word.REPEATED] = [f"RJCT with {', '.join(sorted(operations.REPEATS))}"]
    codes[Word.STRANGE] = ["any other"]
    return table(("word", "codes"), [(word.value, ", ".join(codes[word])) for word in Word])


def wordings() -> str:
    """Answers by how a bank words them."""
    return table(("answer", "as the bank says it"), [(answer.value, WORDINGS[answer]) for answer in Answer])


def steps() -> str:
    """What each profile does in which phase, and while an answer is overdue."""
    begun, overdue = [], []
    for name, phase in itertools.product(ProfileName, (Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING)):
        profile = PROFILES[name]
        begun += _either(name, phase, profile.begun, ("payment not sent", "payment sent"))
        overdue += _either(name, phase, profile.overdue, ("payment not over", "payment over"))
    first = table(("profile", "phase", "if", "steps"), begun)
    return first + "\n" + table(("profile", "phase", "if", "steps in turn"), overdue)


def _either(
    name: ProfileName, phase: Phase, taken: Mapping[tuple[Phase, bool], tuple[Step, ...]], either: tuple[str, str]
) -> list[tuple[str, ...]]:
    told = {so: ", then ".join(STEPS[step] for step in taken[phase, so]) for so in (False, True)}
    if told[False] == told[True]:
        return [(name.value, phase.value, "", told[True])]
    return [(name.value, phase.value, either[so], told[so]) for so in (False, True)]


def holds() -> str:
    """Codes about reservations by what they say."""
    codes = {hold: [f"{about}: {code}" for (about, code), says in profiles.HOLDS.items() if says is hold] for hold in Hold}
    for reason, hold in profiles.REFUSALS.items():
        codes[hold].append(f"{Kind.RESERVATION_DELETION.value}: RJCT with {reason}")
    codes[Hold.REPEATED] = [f"RJCT with {', '.join(sorted(operations.REPEATS))}"]
    codes[Hold.STRANGE] = ["any other"]
    return table(("word", "answer to: code"), [(hold.value, ", ".join(codes[hold])) for hold in Hold])


def reasons(names: Mapping[tuple[Meaning, Ground], str]) -> str:
    """Reasons by what a refusal is and why."""
    rows = [
        [meaning.value, *(names[meaning, ground] for ground in Ground)] for meaning in Meaning if (meaning, Ground.OTHER) in names
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


def breaks() -> str:
    """Breaks by what they are."""
    return table(("break", "what it is"), [(kind.value, BREAKS[kind]) for kind in BreakKind])


def messages() -> str:
    """Message definitions that are spoken."""
    names = "\n".join(f"- `{kind.value}`: {kind.name.lower()}" for kind in Kind)
    return f"## Message definitions\n\nEach is validated against the official schema, in both directions:\n\n{names}\n"
