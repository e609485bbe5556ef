"""Roles, which both contracts keep in the same way (OpenZeppelin AccessControl). Pure."""

from __future__ import annotations

from lockstep_contracts.escrow import GRANT_ROLE, OPERATOR_ROLE


def encode_grant_operator(account: str) -> bytes:
    """Calldata with which the admin lets another account operate a contract."""
    return GRANT_ROLE.encode(OPERATOR_ROLE, account)
