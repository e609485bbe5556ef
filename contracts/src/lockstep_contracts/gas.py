"""Gas to send along. Pure.

A node's estimate is of no use for a batch: it looks for the least gas with which the transaction succeeds, and a batch whose
items are all skipped succeeds. So limits are fixed. They cover the dearest case that was measured (addresses and tokens that
were never touched before, a payout that fails) with room for tokens that do more than the plainest; what is not used is not
paid. An item that still lacks gas is skipped, and nothing else happens to it.
"""

from __future__ import annotations

from typing import Final

#: Most gas that one transaction may have on chains with EIP-7825.
TRANSACTION_GAS_MAX: Final = 2**24

_TRANSACTION_GAS: Final = 60_000
_PREPARE_GAS: Final = 135_000
_PERMIT_GAS: Final = 90_000
_PAY_OUT_GAS: Final = 100_000
_REVERSE_GAS: Final = 160_000
_TOMBSTONE_GAS: Final = 32_000
_REGISTER_GAS: Final = 32_000
_FINALISE_GAS: Final = 32_000
_ANCHOR_GAS: Final = 32_000
_ESCALATION_GAS: Final = 58_000
#: What the escrow wants to see left before a batch's prepare, its reversal, and before a payout or refund (PREPARE_GAS_LEFT_MIN,
#: REVERSE_GAS_LEFT_MIN, TRANSFER_GAS_LEFT_MIN): part of the limit, hardly ever of the bill.
_PREPARE_GAS_LEFT: Final = 1_061_250
_REVERSE_GAS_LEFT: Final = 1_061_250
_PAY_OUT_GAS_LEFT: Final = 492_500


def prepare_gas(legs: int, permits: int = 0) -> int:
    """Gas limit of prepare and tryPrepareMany; `permits` of the legs bring one."""
    return _TRANSACTION_GAS + _PREPARE_GAS_LEFT + legs * _PREPARE_GAS + permits * _PERMIT_GAS


def pay_out_gas(legs: int) -> int:
    """Gas limit of commit, abort, execute, tryCommitMany and tryAbortMany."""
    return _TRANSACTION_GAS + _PAY_OUT_GAS_LEFT + legs * _PAY_OUT_GAS


def reverse_gas(legs: int) -> int:
    """Gas limit of reverse and tryReverseMany. Tokens with rules of their own need more than plain ones."""
    return _TRANSACTION_GAS + _REVERSE_GAS_LEFT + legs * _REVERSE_GAS


def tombstone_gas(legs: int) -> int:
    """Gas limit of tombstone and tryTombstoneMany."""
    return _TRANSACTION_GAS + legs * _TOMBSTONE_GAS


def register_gas(plans: int) -> int:
    """Gas limit of register and registerMany."""
    return _TRANSACTION_GAS + plans * _REGISTER_GAS


def finalise_gas(plans: int) -> int:
    """Gas limit of finalise and finaliseMany."""
    return _TRANSACTION_GAS + plans * _FINALISE_GAS


def anchor_gas(roots: int) -> int:
    """Gas limit of anchorMany."""
    return _TRANSACTION_GAS + roots * _ANCHOR_GAS


def escalation_gas(records: int) -> int:
    """Gas limit of recordEscalations."""
    return _TRANSACTION_GAS + records * _ESCALATION_GAS


#: Most items that fit into one transaction of TRANSACTION_GAS_MAX; their calldata stays below 64 KiB.
PREPARE_LEGS_MAX: Final = (TRANSACTION_GAS_MAX - prepare_gas(0)) // _PREPARE_GAS
PAY_OUT_LEGS_MAX: Final = (TRANSACTION_GAS_MAX - pay_out_gas(0)) // _PAY_OUT_GAS
REGISTER_PLANS_MAX: Final = (TRANSACTION_GAS_MAX - register_gas(0)) // _REGISTER_GAS
FINALISE_PLANS_MAX: Final = (TRANSACTION_GAS_MAX - finalise_gas(0)) // _FINALISE_GAS
ANCHOR_ROOTS_MAX: Final = (TRANSACTION_GAS_MAX - anchor_gas(0)) // _ANCHOR_GAS
ESCALATIONS_MAX: Final = (TRANSACTION_GAS_MAX - escalation_gas(0)) // _ESCALATION_GAS
