"""ERC-20 tokens (EIP-20), their controllers (ERC-3643), and the sandbox's own that its owner mints: the calldata of every call. Pure."""

from __future__ import annotations

from typing import Final

from lockstep_contracts.artifacts import artifact
from lockstep_contracts.calldata import WORD_BYTES, encode_deployment, function

TOKEN: Final = artifact("SandboxToken")

MINT: Final = function(TOKEN, "mint")
TRANSFER: Final = function(TOKEN, "transfer")
APPROVE: Final = function(TOKEN, "approve")
ALLOWANCE: Final = function(TOKEN, "allowance")
BALANCE_OF: Final = function(TOKEN, "balanceOf")
DECIMALS: Final = function(TOKEN, "decimals")
ADD_AGENT: Final = function(TOKEN, "addAgent")
REMOVE_AGENT: Final = function(TOKEN, "removeAgent")
IS_AGENT: Final = function(TOKEN, "isAgent")
FORCED_TRANSFER: Final = function(TOKEN, "forcedTransfer")
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


def encode_add_agent(agent: str) -> bytes:
    """Calldata of addAgent (ERC-3643): only the token's owner may."""
    return ADD_AGENT.encode(agent)


def encode_remove_agent(agent: str) -> bytes:
    """Calldata of removeAgent (ERC-3643): only the token's owner may."""
    return REMOVE_AGENT.encode(agent)


def encode_is_agent(account: str) -> bytes:
    """Calldata of isAgent (ERC-3643)."""
    return IS_AGENT.encode(account)


def decode_is_agent(result: bytes) -> bool:
    """Result of isAgent; False for a token that has no controllers and answers nothing."""
    return len(result) == WORD_BYTES and any(result)


def encode_decimals() -> bytes:
    """Calldata of decimals."""
    return DECIMALS.encode()


def decode_count(result: bytes) -> int:
    """Result of allowance, balanceOf, decimals or totalSupply."""
    (count,) = BALANCE_OF.decode(result)
    return int(count)
