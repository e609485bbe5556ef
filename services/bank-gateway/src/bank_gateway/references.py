"""Names of payments and messages, derived from plan and leg: the same leg has the same names, on any replica and after any loss. Pure."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from bank_gateway.messages import Kind, References
from lockstep_kit.ids import LegId, PlanId, uetr

_LETTERS: Final = {Kind.PAYMENT: "P", Kind.CANCELLATION: "C", Kind.INQUIRY: "Q"}


def references(plan_id: PlanId, leg_id: LegId) -> References:
    """All names of the leg's payment."""
    return References(
        message_id=message_id(Kind.PAYMENT, plan_id, leg_id),
        instruction_id=_short("I", plan_id, leg_id),
        end_to_end_id=_short("E", plan_id, leg_id),
        transaction_id=_short("T", plan_id, leg_id),
        uetr=uetr(plan_id, leg_id),
    )


def message_id(kind: Kind, plan_id: PlanId, leg_id: LegId, number: int = 1) -> str:
    """Name of a message about the leg; 16 characters, which fits every limit."""
    return _short(_LETTERS[kind], plan_id, leg_id, str(number))


def _short(letter: str, *parts: str) -> str:
    digest = hashlib.sha256("\x1f".join((letter, *parts)).encode()).digest()
    return letter + base64.b32encode(digest)[:15].decode()
