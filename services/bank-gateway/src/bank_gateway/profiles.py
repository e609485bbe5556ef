"""How a payment is promised and made, by what the bank at the other end can do: one literal table for each question. Pure.

conditional    Prepare sends the payment, which the bank holds until the key of its lock is shown: the hold is the promise, and the key is the Commit.
reservation    Prepare reserves the money (camt.103) and keeps the payment unsent; Commit sends it, and it is paid out of its reservation or not at all;
               Abort gives the reservation back (camt.049). The reservation is the promise, until the end that is agreed for reservations.
plain          Prepare proves what can be proved, keeps the payment unsent, and promises its best effort; Commit sends it; Abort withdraws it. The plan's
               decision is delegated to such a leg.

A payment that was kept unsent and is withdrawn is never sent: the database sees to it. The bank is asked to cancel it all the same, since a database that
was put back may have forgotten that it was sent: RELEASED is the bank's word in every profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Final

from bank_gateway.meanings import Ground, Meaning, Word
from bank_gateway.messages import Footing, Kind, ReservationStatus
from bank_gateway.operations import CONDITIONAL, REASONS, REPEATS, STATUSES, Tables
from lockstep_kit.fence import Phase
from lockstep_kit.statements import PromiseKind
from lockstep_kit.values import dataclass


class ProfileName(StrEnum):
    """Profiles, as the settings name them."""

    CONDITIONAL = "conditional"
    RESERVATION = "reservation"
    PLAIN = "plain"


class Step(StrEnum):
    """What the gateway does about a leg."""

    #: Build the payment and send it.
    PAY = "PAY"
    #: Build the payment and keep it unsent.
    DRAFT = "DRAFT"
    #: Reserve the money.
    RESERVE = "RESERVE"
    #: Vote YES at once.
    PROMISE = "PROMISE"
    #: Show the key.
    SHOW_KEY = "SHOW_KEY"
    #: Send the payment that was kept.
    SEND = "SEND"
    #: Make sure that a payment that was kept is never sent.
    WITHDRAW = "WITHDRAW"
    #: Ask the bank to cancel the payment.
    CANCEL = "CANCEL"
    #: Give the reservation back.
    UNRESERVE = "UNRESERVE"
    #: Ask what became of the payment.
    INQUIRE = "INQUIRE"
    #: Ask what became of the reservation.
    INQUIRE_RESERVATION = "INQUIRE_RESERVATION"
    #: The same payment again, marked as a possible duplicate.
    SEND_AGAIN = "SEND_AGAIN"
    #: The same reservation again, marked as a possible duplicate.
    RESERVE_AGAIN = "RESERVE_AGAIN"


class Hold(StrEnum):
    """What is said of a reservation, in our words."""

    RESERVED = "RESERVED"
    WORKING = "WORKING"
    #: It was turned down, or its end came.
    OVER = "OVER"
    #: Rejected as a repeat of something that the bank has.
    REPEATED = "REPEATED"
    DELETED = "DELETED"
    NEVER_THERE = "NEVER_THERE"
    #: The payment was paid out of it.
    PAID = "PAID"
    #: The bank does not delete it.
    REFUSED = "REFUSED"
    STRANGE = "STRANGE"


#: Words by which a reservation does not stand, and nothing was paid out of it.
ENDED: Final = frozenset({Hold.OVER, Hold.DELETED, Hold.NEVER_THERE})
#: Words that are remembered; the others say nothing of how things are.
REMEMBERED: Final = ENDED | {Hold.RESERVED, Hold.PAID}

#: (message of ours, code of the answer) -> what it says; of RJCT, `REFUSALS` says more.
HOLDS: Final[Mapping[tuple[str, str], Hold]] = {
    **{(about.value, code): Hold.WORKING for about in (Kind.RESERVATION, Kind.RESERVATION_DELETION) for code in ("RCVD", "PDNG")},
    (Kind.RESERVATION.value, "ACPT"): Hold.RESERVED,
    (Kind.RESERVATION.value, "RJCT"): Hold.OVER,
    (Kind.RESERVATION_DELETION.value, "ACPT"): Hold.DELETED,
    (Kind.RESERVATION_DELETION.value, "RJCT"): Hold.REFUSED,
    (Kind.RESERVATION_QUERY.value, "ENAB"): Hold.RESERVED,
    (Kind.RESERVATION_QUERY.value, "REQD"): Hold.WORKING,
    (Kind.RESERVATION_QUERY.value, "DISA"): Hold.OVER,
    (Kind.RESERVATION_QUERY.value, "DELD"): Hold.DELETED,
    (Kind.RESERVATION_QUERY.value, "PAID"): Hold.PAID,
    (Kind.RESERVATION_QUERY.value, "X050"): Hold.NEVER_THERE,
}
#: Reason of a deletion that was turned down, as agreed for the rail -> what it says of the reservation.
REFUSALS: Final[Mapping[str, Hold]] = {"PAID": Hold.PAID, "NONE": Hold.NEVER_THERE, "OVER": Hold.OVER}


def hold_of(said: ReservationStatus) -> Hold:
    """What is said of a reservation."""
    hold = HOLDS.get((said.about, said.status), Hold.STRANGE)
    if said.status == "RJCT" and said.reason in REPEATS:
        return Hold.REPEATED
    return REFUSALS.get(said.reason, hold) if hold is Hold.REFUSED else hold


_AFTER_PAYMENT: Final = (Phase.COMMITTED, Phase.REVERSING, Phase.REVERSED)
_NO_NEWS: Final = dict.fromkeys((Hold.WORKING, Hold.OVER, Hold.REPEATED, Hold.DELETED, Hold.NEVER_THERE), Meaning.NOTHING)

RESERVATIONS: Final[Mapping[tuple[Phase, Hold], Meaning]] = {
    **{(phase, hold): Meaning.TROUBLE for phase in Phase for hold in Hold},
    (Phase.PREPARING, Hold.RESERVED): Meaning.VOTES_YES,
    (Phase.PREPARING, Hold.WORKING): Meaning.NOTHING,
    (Phase.PREPARING, Hold.OVER): Meaning.VOTES_NO,
    # The bank may hold the first copy.
    (Phase.PREPARING, Hold.REPEATED): Meaning.INQUIRE_RESERVATION,
    (Phase.PREPARING, Hold.NEVER_THERE): Meaning.VOTES_NO,
    (Phase.PREPARED, Hold.RESERVED): Meaning.NOTHING,
    (Phase.PREPARED, Hold.WORKING): Meaning.NOTHING,
    (Phase.PREPARED, Hold.OVER): Meaning.LAPSED,
    (Phase.PREPARED, Hold.REPEATED): Meaning.NOTHING,
    (Phase.PREPARED, Hold.DELETED): Meaning.LAPSED,
    **{(Phase.REFUSED, hold): meaning for hold, meaning in _NO_NEWS.items()},
    (Phase.COMMITTING, Hold.RESERVED): Meaning.NOTHING,
    (Phase.COMMITTING, Hold.WORKING): Meaning.NOTHING,
    # The payment is on its way: what becomes of it decides.
    (Phase.COMMITTING, Hold.OVER): Meaning.INQUIRE,
    (Phase.COMMITTING, Hold.REPEATED): Meaning.NOTHING,
    (Phase.COMMITTING, Hold.PAID): Meaning.NOTHING,
    **{
        (phase, hold): Meaning.NOTHING
        for phase in _AFTER_PAYMENT
        for hold in (Hold.RESERVED, Hold.WORKING, Hold.OVER, Hold.REPEATED, Hold.PAID)
    },
    # A late word of the reservation is what our request to delete it is about.
    (Phase.ABORTING, Hold.RESERVED): Meaning.NOTHING,
    (Phase.ABORTING, Hold.WORKING): Meaning.NOTHING,
    (Phase.ABORTING, Hold.OVER): Meaning.RELEASED,
    (Phase.ABORTING, Hold.REPEATED): Meaning.NOTHING,
    (Phase.ABORTING, Hold.DELETED): Meaning.RELEASED,
    (Phase.ABORTING, Hold.NEVER_THERE): Meaning.RELEASED,
    (Phase.ABORTING, Hold.PAID): Meaning.INQUIRE,
    (Phase.ABORTING, Hold.REFUSED): Meaning.INQUIRE_RESERVATION,
    **{(Phase.RELEASED, hold): meaning for hold, meaning in _NO_NEWS.items()},
}

#: Nothing is reserved in the other profiles, and nobody asked.
UNASKED: Final[Mapping[tuple[Phase, Hold], Meaning]] = {(phase, hold): Meaning.TROUBLE for phase in Phase for hold in Hold}

#: What a status means where the payment is kept unsent until it is committed, and never waits for a key.
UNSENT_STATUSES: Final[Mapping[tuple[Phase, Word], Meaning]] = {
    **STATUSES,
    **{(phase, Word.HELD): Meaning.TROUBLE for phase in Phase},
    # Of a payment that was never sent the bank can say nothing but that it does not take it.
    **{(phase, word): Meaning.TROUBLE for phase in (Phase.PREPARING, Phase.PREPARED) for word in Word},
    (Phase.PREPARING, Word.REJECTED): Meaning.VOTES_NO,
    (Phase.PREPARED, Word.REJECTED): Meaning.LAPSED,
}

#: What is refused where nothing was promised breaks nothing.
PLAIN_REASONS: Final[Mapping[tuple[Meaning, Ground], str]] = {
    **{(meaning, ground): "BANK_PREPARE_FAILED" for meaning in (Meaning.VOTES_NO, Meaning.LAPSED) for ground in Ground},
    **{(Meaning.REFUSED, ground): "BANK_EXECUTE_FAILED" for ground in Ground},
    **{(meaning, Ground.NO_CREDIT): "LIQUIDITY_DENIED" for meaning in (Meaning.VOTES_NO, Meaning.LAPSED, Meaning.REFUSED)},
}

#: A return of money is a person's business wherever the leg stands: of a settled payment it contradicts the Done, of any other it contradicts more.
RETURNS: Final[Mapping[Phase, Meaning]] = dict.fromkeys(Phase, Meaning.TROUBLE)


class Consequence(StrEnum):
    """What a meaning is to whoever gave the command."""

    DONE = "Done"
    REFUSED = "Refused"
    UNKNOWN = "Unknown"
    ESCALATES = "escalates"


CONSEQUENCES: Final[Mapping[Meaning, Consequence]] = {
    Meaning.NOTHING: Consequence.UNKNOWN,
    Meaning.VOTES_YES: Consequence.DONE,
    Meaning.VOTES_NO: Consequence.REFUSED,
    Meaning.LAPSED: Consequence.REFUSED,
    Meaning.SETTLES: Consequence.DONE,
    Meaning.REFUSED: Consequence.REFUSED,
    Meaning.RELEASED: Consequence.DONE,
    Meaning.INQUIRE: Consequence.UNKNOWN,
    Meaning.UNRESERVE: Consequence.UNKNOWN,
    Meaning.INQUIRE_RESERVATION: Consequence.UNKNOWN,
    Meaning.TROUBLE: Consequence.ESCALATES,
}


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to promise and make payments."""

    #: Name.
    name: ProfileName
    #: On what its payments are made.
    footing: Footing
    #: How firm its promise is.
    promise: PromiseKind
    #: What statuses mean, and what refusals are called.
    tables: Tables
    #: (phase, what is said of a reservation) -> meaning.
    reservations: Mapping[tuple[Phase, Hold], Meaning]
    #: (phase that is entered, whether the payment was sent) -> what is done, in order.
    begun: Mapping[tuple[Phase, bool], tuple[Step, ...]]
    #: (phase in which an answer is overdue, whether the payment is over) -> what is done, in turn.
    overdue: Mapping[tuple[Phase, bool], tuple[Step, Step]]
    #: Meaning of what the bank said -> what is done about it, beside what it finds.
    answered: Mapping[Meaning, Step] = field(default_factory=lambda: {Meaning.INQUIRE: Step.INQUIRE})

    @property
    def reserves(self) -> bool:
        """Whether the money is reserved apart from its payment."""
        return self.footing is Footing.RESERVED


def _whether(steps: Mapping[Phase, tuple[Step, ...]]) -> dict[tuple[Phase, bool], tuple[Step, ...]]:
    return {(phase, either): done for phase, done in steps.items() for either in (False, True)}


_PAYMENT_OVERDUE: Final[Mapping[tuple[Phase, bool], tuple[Step, Step]]] = {
    **{(Phase.COMMITTING, over): (Step.SEND_AGAIN, Step.INQUIRE) for over in (False, True)},
    **{(Phase.ABORTING, over): (Step.CANCEL, Step.INQUIRE) for over in (False, True)},
}

PROFILES: Final[Mapping[ProfileName, Profile]] = {
    profile.name: profile
    for profile in (
        Profile(
            name=ProfileName.CONDITIONAL,
            footing=Footing.CONDITIONAL,
            promise=PromiseKind.GUARANTEED,
            tables=CONDITIONAL,
            reservations=UNASKED,
            begun=_whether(
                {Phase.PREPARING: (Step.PAY,), Phase.COMMITTING: (Step.SHOW_KEY,), Phase.ABORTING: (Step.CANCEL,)},
            ),
            overdue={
                (phase, over): steps
                for phase, steps in {
                    Phase.PREPARING: (Step.INQUIRE, Step.INQUIRE),
                    # A bank that forgot that the key was shown would hold the money for ever, so it is shown again in turn.
                    Phase.COMMITTING: (Step.INQUIRE, Step.SHOW_KEY),
                    # What is lost may be the answer to our request to cancel, so that is repeated in turn with the question.
                    Phase.ABORTING: (Step.CANCEL, Step.INQUIRE),
                }.items()
                for over in (False, True)
            },
        ),
        Profile(
            name=ProfileName.RESERVATION,
            footing=Footing.RESERVED,
            promise=PromiseKind.GUARANTEED,
            tables=Tables(UNSENT_STATUSES, REASONS),
            reservations=RESERVATIONS,
            begun={
                **_whether({Phase.PREPARING: (Step.DRAFT, Step.RESERVE), Phase.COMMITTING: (Step.SEND,)}),
                (Phase.ABORTING, False): (Step.WITHDRAW, Step.UNRESERVE),
                # First what moves money, then what held it.
                (Phase.ABORTING, True): (Step.CANCEL,),
            },
            overdue={
                **_PAYMENT_OVERDUE,
                **{(Phase.PREPARING, over): (Step.RESERVE_AGAIN, Step.INQUIRE_RESERVATION) for over in (False, True)},
                (Phase.ABORTING, True): (Step.UNRESERVE, Step.INQUIRE_RESERVATION),
            },
            answered={
                Meaning.INQUIRE: Step.INQUIRE,
                Meaning.INQUIRE_RESERVATION: Step.INQUIRE_RESERVATION,
                Meaning.UNRESERVE: Step.UNRESERVE,
                # What was reserved for a payment that the bank turns down is not left to run out.
                Meaning.REFUSED: Step.UNRESERVE,
            },
        ),
        Profile(
            name=ProfileName.PLAIN,
            footing=Footing.ORDINARY,
            promise=PromiseKind.BEST_EFFORT,
            tables=Tables(UNSENT_STATUSES, PLAIN_REASONS),
            reservations=UNASKED,
            begun={
                **_whether({Phase.PREPARING: (Step.DRAFT, Step.PROMISE), Phase.COMMITTING: (Step.SEND,)}),
                (Phase.ABORTING, False): (Step.WITHDRAW, Step.CANCEL),
                (Phase.ABORTING, True): (Step.CANCEL,),
            },
            # A leg has voted before anything can be overdue; the question is for a row whose vote was lost.
            overdue={**_PAYMENT_OVERDUE, **{(Phase.PREPARING, over): (Step.INQUIRE, Step.INQUIRE) for over in (False, True)}},
        ),
    )
}
