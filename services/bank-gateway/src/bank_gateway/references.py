"""Names of payments and messages, derived from plan and leg: the same leg has the same names, on any replica and after any loss. Pure."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from typing import Final

from bank_gateway.messages import Kind, References
from lockstep_kit.ids import LegId, PlanId, uetr

#: Of so many legs names are worked out once: each is named at every step.
LEGS_KEPT: Final = 4096
_REPEAT: Final = "#"
#: A leg has one payment, whichever definition carries it.
_LETTERS: Final = {
    Kind.PAYMENT: "P",
    Kind.INSTITUTION_PAYMENT: "P",
    Kind.CANCELLATION: "C",
    Kind.INQUIRY: "Q",
    Kind.RESERVATION: "R",
    Kind.RESERVATION_DELETION: "D",
    Kind.RESERVATION_QUERY: "N",
    Kind.APPLICATION: "A",
    Kind.ISSUANCE: "S",
    Kind.TERMINATION: "W",
}


@lru_cache(maxsize=LEGS_KEPT)
def references(plan_id: PlanId, leg_id: LegId) -> References:
    """All names of the leg's payment."""
    return References(
        message_id=message_id(Kind.PAYMENT, plan_id, leg_id),
        instruction_id=_short("I", plan_id, leg_id),
        end_to_end_id=_short("E", plan_id, leg_id),
        transaction_id=_short("T", plan_id, leg_id),
        uetr=uetr(plan_id, leg_id),
    )


@lru_cache(maxsize=LEGS_KEPT)
def message_id(kind: Kind, plan_id: PlanId, leg_id: LegId, number: int = 1) -> str:
    """Name of a message about the leg; 16 characters, which fits every limit."""
    return _short(_LETTERS[kind], plan_id, leg_id, str(number))


def number_of(plan_id: PlanId, leg_id: LegId) -> str:
    """Number of the leg's undertaking, out of the series that is agreed with the bank."""
    return _short("U", plan_id, leg_id)


def repeat_key(name: str, number: int) -> str:
    """What a message is queued by when it is sent once more, after the bank had it; the rail knows it by its own name all the same."""
    return f"{name}{_REPEAT}{number}"


def is_repeat(key: str) -> bool:
    """Whether a message was queued to be sent once more."""
    return _REPEAT in key


def rail_key(key: str) -> str:
    """By which key the rail knows what was queued."""
    return key.partition(_REPEAT)[0]


def _short(letter: str, *parts: str) -> str:
    digest = hashlib.sha256("\x1f".join((letter, *parts)).encode()).digest()
    return letter + base64.b32encode(digest)[:15].decode()


def return_name(reference: str) -> str:
    """How the ledger names a booking that gave money back, by the bank's own reference, which may be any text."""
    return hashlib.sha256(reference.encode()).hexdigest()[:16]
