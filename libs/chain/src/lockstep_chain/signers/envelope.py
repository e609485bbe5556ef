"""A transaction's bytes before and after it is signed: type 2 (EIP-1559) inside its envelope (EIP-2718). Pure."""

from __future__ import annotations

from typing import Final

import rlp
from eth_utils.crypto import keccak

from lockstep_chain.ports import Signed, Unsigned

_TYPE: Final = b"\x02"


def signing_hash(transaction: Unsigned) -> bytes:
    """What is signed (32 bytes)."""
    return keccak(_TYPE + rlp.encode(_fields(transaction)))


def sealed(transaction: Unsigned, y_parity: int, r: int, s: int) -> Signed:
    """The bytes that a node takes, and their hash."""
    raw = _TYPE + rlp.encode([*_fields(transaction), y_parity, r, s])
    return Signed(keccak(raw), raw)


def _fields(transaction: Unsigned) -> list[object]:
    return [
        transaction.chain_id,
        transaction.nonce,
        transaction.fees.tip,
        transaction.fees.max_fee,
        transaction.gas_limit,
        bytes.fromhex(transaction.to[2:]),
        transaction.value,
        transaction.data,
        # No access list.
        [],
    ]
