"""ERC-20 tokens (EIP-20), and the sandbox's own that its owner mints: the calldata of every call. Pure."""

from __future__ import annotations

from typing import Final

from lockstep_contracts.artifacts import artifact
from lockstep_contracts.calldata import encode_deployment, function

TOKEN: Final = artifact("SandboxToken")

MINT: Final = function(TOKEN, "mint")
TRANSFER: Final = function(TOKEN, "transfer")
APPROVE: Final = function(TOKEN, "approve")
ALLOWANCE: Final = function(TOKEN, "allowance")
BALANCE_OF: Final = function(TOKEN, "balanceOf")
DECIMALS: Final = function(TOKEN, "decimals")
TOTAL_SUPPLY: Final = function(TOKEN, "totalSupply")


def encode_token_deployment(*, name: str, symbol: str, decimals: int, owner: str) -> bytes:
    """Data of the transaction that deploys a sandbox token."""
    return encode_deployment(TOKEN, name, symbol, decimals, owner)


def encode_mint(to: str, amount: int) -> bytes:
    """Calldata of mint, in minor units; only the sandbox token has it."""
    return MINT.encode(to, amount)


def encode_transfer(to: str, amount: int) -> bytes:
    """Calldata of transfer, in minor units."""
    return TRANSFER.encode(to, amount)


def encode_approve(spender: str, amount: int) -> bytes:
    """Calldata of approve, in minor units."""
    return APPROVE.encode(spender, amount)


def encode_allowance(owner: str, spender: str) -> bytes:
    """Calldata of allowance."""
    return ALLOWANCE.encode(owner, spender)


def encode_balance_of(owner: str) -> bytes:
    """Calldata of balanceOf."""
    return BALANCE_OF.encode(owner)


def encode_decimals() -> bytes:
    """Calldata of decimals."""
    return DECIMALS.encode()


def decode_count(result: bytes) -> int:
    """Result of allowance, balanceOf, decimals or totalSupply."""
    (count,) = BALANCE_OF.decode(result)
    return int(count)
