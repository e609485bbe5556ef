"""ERC-20 tokens (EIP-20), their permits (EIP-2612) and controllers (ERC-3643), and the sandbox's own that its owner mints. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eth_abi.abi import encode
from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak

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
TOTAL_SUPPLY: Final = function(TOKEN, "totalSupply")
PERMIT: Final = function(TOKEN, "permit")
NONCES: Final = function(TOKEN, "nonces")
DOMAIN_SEPARATOR: Final = function(TOKEN, "DOMAIN_SEPARATOR")

#: Fields of the EIP-712 struct `Permit` (EIP-2612), in order.
PERMIT_TYPE: Final = (
    ("owner", "address"),
    ("spender", "address"),
    ("value", "uint256"),
    ("nonce", "uint256"),
    ("deadline", "uint256"),
)
_PERMIT_TYPE_HASH: Final = keccak(text=f"Permit({','.join(f'{kind} {name}' for name, kind in PERMIT_TYPE)})")


@dataclass(frozen=True, slots=True)
class PermitTerms:
    """What an owner signs to give an allowance without a transaction of its own (EIP-2612)."""

    #: Whose tokens.
    owner: str
    #: Who may spend them.
    spender: str
    #: How many, in minor units.
    value: int
    #: How many permits of the owner the token has used before.
    nonce: int
    #: Unix seconds; refused in a later block.
    deadline: int


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


def permit_signing_hash(domain_separator: bytes, terms: PermitTerms) -> bytes:
    """The 32 bytes that an owner signs, under the domain that the token itself tells (DOMAIN_SEPARATOR)."""
    fields = (to_canonical_address(terms.owner), to_canonical_address(terms.spender), terms.value, terms.nonce, terms.deadline)
    return keccak(b"\x19\x01" + domain_separator + keccak(_PERMIT_TYPE_HASH + encode([kind for _, kind in PERMIT_TYPE], fields)))


def encode_nonces(owner: str) -> bytes:
    """Calldata of nonces (EIP-2612)."""
    return NONCES.encode(owner)


def encode_domain_separator() -> bytes:
    """Calldata of DOMAIN_SEPARATOR (EIP-2612)."""
    return DOMAIN_SEPARATOR.encode()


def encode_decimals() -> bytes:
    """Calldata of decimals."""
    return DECIMALS.encode()


def decode_count(result: bytes) -> int:
    """Result of allowance, balanceOf, decimals, nonces or totalSupply."""
    (count,) = BALANCE_OF.decode(result)
    return int(count)
