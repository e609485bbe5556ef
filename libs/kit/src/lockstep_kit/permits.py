"""Permits (EIP-2612): a payer's allowance by signature, which travels beside the payer's signature over the terms. Pure.

A permit is an authority, like that signature, and no term of the plan: the plan's digest does not bind it, and who altered it on the way could bring
about nothing but a refusal. It is bound to the token, the payer, the escrow, the value and the deadline by the payer's own signature.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Final

from lockstep_kit.fields import require
from lockstep_kit.plan import PlanHeader, TokenTransfer
from lockstep_kit.values import dataclass

#: EIP-2612 knows the signatures of keys alone: r, s and v.
PERMIT_SIGNATURE_BYTES: Final = 65
#: Allowances are unsigned 256-bit numbers.
PERMIT_VALUE_MAX: Final = 2**256 - 1


@dataclass(frozen=True, slots=True)
class Permit:
    """An allowance for the escrow that a token's payer signed."""

    #: Allowance in minor units, as signed.
    value: int
    #: Whole seconds: the token refuses it in a later block.
    deadline: datetime
    #: r, s and v (65 bytes).
    signature: bytes = field(repr=False)


def check_permit(permit: Permit, terms: TokenTransfer, header: PlanHeader) -> None:
    """A permit must be able to do what it is for, as long as the leg may be prepared.

    Raises:
        FieldInvalid: its value is below the leg's amount, or it ends before the plan's deadline.
    """
    require(permit.value >= terms.amount.minor_units, "value", "must not be below the leg's amount")
    require(permit.deadline >= header.deadline.replace(microsecond=0), "deadline", "must not be before the plan's deadline")
