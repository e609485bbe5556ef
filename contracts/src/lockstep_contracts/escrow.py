"""The SettlementEscrow: a leg's terms, its key, what its payer signs, and the calldata of every call. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final

from eth_abi.abi import encode
from eth_utils.address import is_address, to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

from lockstep_contracts.artifacts import artifact
from lockstep_contracts.calldata import encode_deployment, function, same_length

AMOUNT_MAX: Final = 2**96 - 1
PREPARE_BY_MAX: Final = 2**64 - 1
#: EIP-2612 knows the signatures of keys alone.
PERMIT_SIGNATURE_BYTES: Final = 65

DOMAIN_NAME: Final = "Lockstep SettlementEscrow"
DOMAIN_VERSION: Final = "1"

#: Fields of the EIP-712 domain, in order.
DOMAIN_TYPE: Final = (("name", "string"), ("version", "string"), ("chainId", "uint256"), ("verifyingContract", "address"))
#: Fields of the EIP-712 struct `Leg`, in order.
LEG_TYPE: Final = (
    ("planDigest", "bytes32"),
    ("legIdHash", "bytes32"),
    ("token", "address"),
    ("payer", "address"),
    ("payee", "address"),
    ("amount", "uint256"),
    ("lock", "bytes32"),
    ("prepareBy", "uint64"),
)
_DOMAIN_TYPE_HASH: Final = keccak(text=f"EIP712Domain({','.join(f'{kind} {name}' for name, kind in DOMAIN_TYPE)})")
_LEG_TYPE_HASH: Final = keccak(text=f"Leg({','.join(f'{kind} {name}' for name, kind in LEG_TYPE)})")

ESCROW: Final = artifact("SettlementEscrow")

PREPARE: Final = function(ESCROW, "prepare")
COMMIT: Final = function(ESCROW, "commit")
ABORT: Final = function(ESCROW, "abort")
TOMBSTONE: Final = function(ESCROW, "tombstone")
TRY_PREPARE_MANY: Final = function(ESCROW, "tryPrepareMany")
TRY_COMMIT_MANY: Final = function(ESCROW, "tryCommitMany")
TRY_ABORT_MANY: Final = function(ESCROW, "tryAbortMany")
REVERSE: Final = function(ESCROW, "reverse")
TRY_REVERSE_MANY: Final = function(ESCROW, "tryReverseMany")
TRY_TOMBSTONE_MANY: Final = function(ESCROW, "tryTombstoneMany")
ANNOUNCE: Final = function(ESCROW, "announce")
RETRACT: Final = function(ESCROW, "retract")
EXECUTE: Final = function(ESCROW, "execute")
CLAIM: Final = function(ESCROW, "claim")
PAUSE: Final = function(ESCROW, "pause")
UNPAUSE: Final = function(ESCROW, "unpause")
STATUS_OF: Final = function(ESCROW, "statusOf")
STATUS_OF_MANY: Final = function(ESCROW, "statusOfMany")
LEG_OF: Final = function(ESCROW, "legOf")
ANNOUNCEMENT_OF: Final = function(ESCROW, "announcementOf")
LOCKED_TOTAL: Final = function(ESCROW, "lockedTotal")
CLAIMABLE_TOTAL: Final = function(ESCROW, "claimableTotal")
CLAIMABLE_OF: Final = function(ESCROW, "claimableOf")
PAUSED: Final = function(ESCROW, "paused")
HAS_ROLE: Final = function(ESCROW, "hasRole")
GRANT_ROLE: Final = function(ESCROW, "grantRole")
REVOKE_ROLE: Final = function(ESCROW, "revokeRole")

OPERATOR_ROLE: Final = keccak(text="OPERATOR_ROLE")
ARBITER_ROLE: Final = keccak(text="ARBITER_ROLE")
PAUSER_ROLE: Final = keccak(text="PAUSER_ROLE")


#: An address as bytes; few of them stand in many legs.
_canonical: Final = lru_cache(4_096)(to_canonical_address)


class LegStatus(IntEnum):
    """Where a leg stands on the contract. ABORTED and REVERSED are final; COMMITTED is left by a reversal alone."""

    NONE = 0
    PREPARED = 1
    COMMITTED = 2
    ABORTED = 3
    REVERSED = 4


class Side(IntEnum):
    """In whose favour an arbiter ends a hold."""

    PAYEE = 0
    PAYER = 1


@dataclass(frozen=True, slots=True)
class LegTerms:
    """What a payer signs: one transfer of one plan, complete."""

    #: SHA-256 of the plan's canonical bytes.
    plan_digest: bytes
    #: `leg_id_hash` of the leg's id in the plan.
    leg_id_hash: bytes
    #: Address of the ERC-20 contract.
    token: str
    #: Address that the tokens come from.
    payer: str
    #: Address that the tokens go to if the plan commits.
    payee: str
    #: Minor units, 1 to 2^96 - 1.
    amount: int
    #: SHA-256 of the 32-byte key that commits the leg.
    lock: bytes
    #: Unix seconds; the contract refuses a prepare in a later block.
    prepare_by: int

    def __post_init__(self) -> None:
        """Keep terms from existing that cannot be encoded: one such item would make a whole batch undecodable."""
        if not all(len(word) == 32 for word in (self.plan_digest, self.leg_id_hash, self.lock)):
            raise ValueError("plan digest, leg id hash and lock have 32 bytes")
        if not all(is_address(address) for address in (self.token, self.payer, self.payee)):
            raise ValueError("token, payer and payee are addresses")
        if not 1 <= self.amount <= AMOUNT_MAX or not 0 <= self.prepare_by <= PREPARE_BY_MAX:
            raise ValueError("amount is 1 to 2^96-1 minor units, prepare_by unix seconds")

    @property
    def leg_key(self) -> bytes:
        """The leg's name on the contract."""
        return _key(self.plan_digest, self.leg_id_hash)

    def fields(self) -> tuple[Any, ...]:
        """The members of the contract's struct, in order."""
        return (
            self.plan_digest,
            self.leg_id_hash,
            _canonical(self.token),
            _canonical(self.payer),
            _canonical(self.payee),
            self.amount,
            self.lock,
            self.prepare_by,
        )


@dataclass(frozen=True, slots=True)
class Permit:
    """An allowance for the escrow that the payer of a leg signed (EIP-2612)."""

    #: Allowance in minor units, as signed.
    value: int
    #: Unix seconds; the token refuses the permit in a later block. Never 0, which stands for none.
    deadline: int
    #: r, s and v (65 bytes).
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Keep a permit from existing that cannot be encoded: it would make a whole batch undecodable."""
        if not 0 <= self.value < 2**256 or not 1 <= self.deadline < 2**256:
            raise ValueError("value and deadline are unsigned 256-bit numbers, the deadline is not 0")
        if len(self.signature) != PERMIT_SIGNATURE_BYTES:
            raise ValueError(f"the signature has {PERMIT_SIGNATURE_BYTES} bytes")

    def fields(self) -> tuple[Any, ...]:
        """The members of the contract's struct, in order."""
        return (self.value, self.deadline, self.signature[64], self.signature[:32], self.signature[32:64])


_NO_PERMIT: Final = (0, 0, 0, bytes(32), bytes(32))


def _permit_fields(permit: Permit | None) -> tuple[Any, ...]:
    return _NO_PERMIT if permit is None else permit.fields()


def leg_id_hash(leg_id: str) -> bytes:
    """keccak256 of a leg's id as UTF-8."""
    return keccak(text=leg_id)


def leg_key(plan_digest: bytes, leg_id: str) -> bytes:
    """A leg's name on the contract: keccak256(abi.encode(plan digest, keccak256(bytes(leg id))))."""
    return _key(plan_digest, leg_id_hash(leg_id))


def _key(plan_digest: bytes, id_hash: bytes) -> bytes:
    return keccak(plan_digest + id_hash)


# -- what the payer signs ----------------------------------------------------------------------------------------------


def leg_typed_data(chain_id: int, escrow: str, terms: LegTerms) -> dict[str, Any]:
    """The EIP-712 document of a leg as wallets take it (eth_signTypedData_v4): JSON values only."""
    return {
        "types": {
            "EIP712Domain": [{"name": name, "type": kind} for name, kind in DOMAIN_TYPE],
            "Leg": [{"name": name, "type": kind} for name, kind in LEG_TYPE],
        },
        "primaryType": "Leg",
        "domain": {
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": chain_id,
            "verifyingContract": to_checksum_address(escrow),
        },
        "message": {
            "planDigest": "0x" + terms.plan_digest.hex(),
            "legIdHash": "0x" + terms.leg_id_hash.hex(),
            "token": to_checksum_address(terms.token),
            "payer": to_checksum_address(terms.payer),
            "payee": to_checksum_address(terms.payee),
            "amount": str(terms.amount),  # a JSON number loses digits above 2^53
            "lock": "0x" + terms.lock.hex(),
            "prepareBy": str(terms.prepare_by),
        },
    }


def terms_hash(terms: LegTerms) -> bytes:
    """The EIP-712 struct hash of a leg; the contract keeps its first 31 bytes."""
    return keccak(_LEG_TYPE_HASH + encode([kind for _, kind in LEG_TYPE], terms.fields()))


def leg_signing_hash(chain_id: int, escrow: str, terms: LegTerms) -> bytes:
    """The 32 bytes that the payer of a leg signs (EIP-712)."""
    name, version = keccak(text=DOMAIN_NAME), keccak(text=DOMAIN_VERSION)
    fields = (_DOMAIN_TYPE_HASH, name, version, chain_id, to_canonical_address(escrow))
    domain = keccak(encode(["bytes32", "bytes32", "bytes32", "uint256", "address"], fields))
    return keccak(b"\x19\x01" + domain + terms_hash(terms))


# -- calldata ----------------------------------------------------------------------------------------------------------


def encode_escrow_deployment(*, admin: str, operator: str, arbiter: str, pauser: str) -> bytes:
    """Data of the transaction that deploys an escrow with its first role holders."""
    return encode_deployment(ESCROW, admin, operator, arbiter, pauser)


def encode_prepare(terms: LegTerms, signature: bytes, permit: Permit | None = None) -> bytes:
    """Calldata of prepare."""
    return PREPARE.encode(terms.fields(), signature, _permit_fields(permit))


def encode_commit(terms: LegTerms, key: bytes) -> bytes:
    """Calldata of commit."""
    return COMMIT.encode(terms.fields(), key)


def encode_abort(terms: LegTerms) -> bytes:
    """Calldata of abort: refunds a prepared leg, leaves a tombstone for one that is not."""
    return ABORT.encode(terms.fields())


def encode_reverse(terms: LegTerms) -> bytes:
    """Calldata of reverse: takes what was paid back from the payee."""
    return REVERSE.encode(terms.fields())


def encode_tombstone(key: bytes) -> bytes:
    """Calldata of tombstone: aborts a leg that was never prepared, named by its leg key."""
    return TOMBSTONE.encode(key)


def encode_try_prepare_many(legs: Sequence[LegTerms], signatures: Sequence[bytes], permits: Sequence[Permit | None] = ()) -> bytes:
    """Calldata of tryPrepareMany; permits are left out where no leg has one.

    Raises:
        ValueError: not one signature, or neither one permit or None nor nothing, for each leg.
    """
    same_length("legs and signatures", legs, signatures)
    sent = [] if all(permit is None for permit in permits) else [_permit_fields(permit) for permit in permits]
    if sent:
        same_length("legs and permits", legs, sent)
    return TRY_PREPARE_MANY.encode([terms.fields() for terms in legs], signatures, sent)


def encode_try_commit_many(legs: Sequence[LegTerms], keys: Sequence[bytes]) -> bytes:
    """Calldata of tryCommitMany.

    Raises:
        ValueError: not one key for each leg.
    """
    same_length("legs and keys", legs, keys)
    return TRY_COMMIT_MANY.encode([terms.fields() for terms in legs], keys)


def encode_try_abort_many(legs: Sequence[LegTerms]) -> bytes:
    """Calldata of tryAbortMany."""
    return TRY_ABORT_MANY.encode([terms.fields() for terms in legs])


def encode_try_reverse_many(legs: Sequence[LegTerms]) -> bytes:
    """Calldata of tryReverseMany."""
    return TRY_REVERSE_MANY.encode([terms.fields() for terms in legs])


def encode_try_tombstone_many(keys: Sequence[bytes]) -> bytes:
    """Calldata of tryTombstoneMany, by leg keys."""
    return TRY_TOMBSTONE_MANY.encode(keys)


def encode_announce(key: bytes, pay_to: Side) -> bytes:
    """Calldata of announce, by leg key."""
    return ANNOUNCE.encode(key, int(pay_to))


def encode_retract(key: bytes) -> bytes:
    """Calldata of retract, by leg key."""
    return RETRACT.encode(key)


def encode_execute(terms: LegTerms) -> bytes:
    """Calldata of execute."""
    return EXECUTE.encode(terms.fields())


def encode_claim(token: str, owner: str) -> bytes:
    """Calldata of claim."""
    return CLAIM.encode(token, owner)


# -- views -------------------------------------------------------------------------------------------------------------


def encode_status_of(key: bytes) -> bytes:
    """Calldata of statusOf, by leg key."""
    return STATUS_OF.encode(key)


def decode_status_of(result: bytes) -> LegStatus:
    """Result of statusOf."""
    return LegStatus(STATUS_OF.decode(result)[0])


def encode_status_of_many(keys: Sequence[bytes]) -> bytes:
    """Calldata of statusOfMany, by leg keys."""
    return STATUS_OF_MANY.encode(keys)


def decode_status_of_many(result: bytes) -> tuple[LegStatus, ...]:
    """Result of statusOfMany, in the order asked."""
    return tuple(LegStatus(status) for status in STATUS_OF_MANY.decode(result)[0])


def encode_leg_of(key: bytes) -> bytes:
    """Calldata of legOf, by leg key."""
    return LEG_OF.encode(key)


def decode_leg_of(result: bytes) -> tuple[LegStatus, bytes]:
    """Result of legOf: where the leg stands, and the first 31 bytes of `terms_hash`; zeros after a tombstone by key."""
    status, digest = LEG_OF.decode(result)
    return LegStatus(status), digest
