"""A bank's words in ours, and what they can mean for a leg. Pure; `operations`, `profiles` and `judging` say which means what."""

from __future__ import annotations

from enum import StrEnum


class Word(StrEnum):
    """What a status says, in our words."""

    HELD = "HELD"
    WORKING = "WORKING"
    SETTLED = "SETTLED"
    REJECTED = "REJECTED"
    #: Rejected as a repeat of something that the bank has: says nothing about what it has.
    REPEATED = "REPEATED"
    STRANGE = "STRANGE"


class Answer(StrEnum):
    """What a request to cancel was answered with, in our words."""

    CANCELLED = "CANCELLED"
    PENDING = "PENDING"
    NEVER_THERE = "NEVER_THERE"
    #: The bank had rejected the payment, or let its hold end, before.
    TURNED_DOWN = "TURNED_DOWN"
    SETTLED_ALREADY = "SETTLED_ALREADY"
    REFUSED = "REFUSED"
    STRANGE = "STRANGE"


class Meaning(StrEnum):
    """What it means for the leg."""

    #: Nothing new.
    NOTHING = "NOTHING"
    #: Money is on hold.
    VOTES_YES = "VOTES_YES"
    #: The bank does not take the payment.
    VOTES_NO = "VOTES_NO"
    #: The hold ended before it was released.
    LAPSED = "LAPSED"
    #: Settled, if the booking is there too.
    SETTLES = "SETTLES"
    #: It will never be settled.
    REFUSED = "REFUSED"
    #: The bank will never settle it, by our own request.
    RELEASED = "RELEASED"
    #: Ask the bank what became of it.
    INQUIRE = "INQUIRE"
    #: The payment will never be settled: give its reservation back.
    UNRESERVE = "UNRESERVE"
    #: Ask the bank what became of the reservation.
    INQUIRE_RESERVATION = "INQUIRE_RESERVATION"
    #: A person must look.
    TROUBLE = "TROUBLE"


class Ground(StrEnum):
    """Why a bank refuses, as far as the refusal's name depends on it."""

    #: The hold that it had promised had come to the end that was agreed.
    RAN_OUT = "RAN_OUT"
    #: Intraday credit was denied or withdrawn.
    NO_CREDIT = "NO_CREDIT"
    #: Anything else.
    OTHER = "OTHER"
