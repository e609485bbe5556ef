"""What a leg costs in gas: prepare, with and without a permit, commit and abort, in batches; read from receipts of a real node."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32
from eth_utils.address import to_checksum_address

from lockstep_contracts import escrow, gas, token
from lockstep_contracts.escrow import LegTerms, Permit
from lockstep_contracts.events import Skipped, event_topic
from lockstep_sandbox.chain import CHAIN_ID, Chain
from lockstep_sandbox.deployment import DLT_SIGNER
from lockstep_sandbox.evm import prefixed

SYMBOL: Final = "BOND"
PAYER: Final = "payer"
AMOUNT: Final = 100
#: Unix seconds far enough off for any run.
FAR_OFF: Final = 2**32
_WEI_PER_GAS: Final = 10**11
_MINED_SECONDS_MAX: Final = 20.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Legs that go into one transaction."""

    #: What was signed, by whom, and the keys that commit it.
    legs: Sequence[LegTerms]
    signatures: Sequence[bytes]
    keys: Sequence[bytes]
    #: The payers' permits; empty where they allowed the escrow before.
    permits: Sequence[Permit] = ()

    def prepare(self) -> bytes:
        """Calldata that prepares them."""
        return escrow.encode_try_prepare_many(self.legs, self.signatures, self.permits)

    def commit(self) -> bytes:
        """Calldata that commits them."""
        return escrow.encode_try_commit_many(self.legs, self.keys)

    def abort(self) -> bytes:
        """Calldata that aborts them."""
        return escrow.encode_try_abort_many(self.legs)


async def measure_gas(chain: Chain, sizes: Sequence[int]) -> dict[str, dict[int, int]]:
    """Gas per leg by step and batch size: one payer, who allowed the escrow before, and one payee, who holds tokens, unless the step says otherwise."""
    found: dict[str, dict[int, int]] = {}

    async def measured(name: str, calldata: bytes, size: int) -> None:
        found.setdefault(name, {})[size] = await _per_leg(chain, calldata, size)

    payer = chain.accounts[PAYER]
    holders = [_drawn() for _ in range(max(sizes))]
    for holder in holders:
        await chain.transact(chain.tokens[SYMBOL], token.encode_mint(holder, AMOUNT))
    for size in sizes:
        committed, aborted = (_batch(chain, [payer] * size, holders[:1] * size) for _ in range(2))
        await measured("prepare", committed.prepare(), size)
        await measured("commit", committed.commit(), size)
        await _per_leg(chain, aborted.prepare(), size)
        await measured("abort", aborted.abort(), size)
        for name, payees in (
            ("commit, a payee each", holders[:size]),
            ("commit, a payee each, without tokens", [_drawn() for _ in range(size)]),
        ):
            several = _batch(chain, [payer] * size, payees)
            await _per_leg(chain, several.prepare(), size)
            await measured(name, several.commit(), size)
        if gas.prepare_gas(size, size) <= gas.TRANSACTION_GAS_MAX:
            permitting = await _permitting(chain, size, holders)
            await measured("prepare, a payer and a permit each", permitting.prepare(), size)
    return found


def _batch(chain: Chain, payers: Sequence[LocalAccount], payees: Sequence[str]) -> Batch:
    legs, keys, signatures = [], [], []
    for payer, payee in zip(payers, payees, strict=True):
        key = secrets.token_bytes(32)
        terms = LegTerms(
            plan_digest=secrets.token_bytes(32),
            leg_id_hash=escrow.leg_id_hash("delivery"),
            token=chain.tokens[SYMBOL],
            payer=payer.address,
            payee=payee,
            amount=AMOUNT,
            lock=hashlib.sha256(key).digest(),
            prepare_by=FAR_OFF,
        )
        legs.append(terms)
        keys.append(key)
        signatures.append(_signed(payer, escrow.leg_signing_hash(CHAIN_ID, _escrow(chain), terms)))
    return Batch(legs, signatures, keys)


async def _permitting(chain: Chain, size: int, payees: Sequence[str]) -> Batch:
    """Legs of payers who never sent a transaction, each with a permit."""
    payers: list[LocalAccount] = [Account.create() for _ in range(size)]
    separator = await chain.node.read(chain.tokens[SYMBOL], token.encode_domain_separator())
    permits = []
    for payer in payers:
        await chain.transact(chain.tokens[SYMBOL], token.encode_mint(payer.address, 2 * AMOUNT))
        terms = token.PermitTerms(payer.address, _escrow(chain), AMOUNT, nonce=0, deadline=FAR_OFF)
        permits.append(Permit(AMOUNT, FAR_OFF, _signed(payer, token.permit_signing_hash(separator, terms))))
    batch = _batch(chain, payers, payees[:size])
    return Batch(batch.legs, batch.signatures, batch.keys, permits)


async def _per_leg(chain: Chain, calldata: bytes, size: int) -> int:
    """Gas of a batch, divided by its legs.

    Raises:
        RuntimeError: a leg was skipped, so that there is nothing to divide.
    """
    receipt = await _sent(chain, calldata)
    skipped = prefixed(event_topic(Skipped))
    if int(receipt["status"], 16) != 1 or any(log["topics"][0] == skipped for log in receipt["logs"]):
        raise RuntimeError(f"not all of {size} legs took effect")
    return int(receipt["gasUsed"], 16) // size


async def _sent(chain: Chain, calldata: bytes) -> dict[str, Any]:
    """The receipt of a transaction of the operator with all the gas that one may have: an estimate is of no use for batches."""
    operator = chain.accounts[DLT_SIGNER]
    nonce = int(await chain.node.call("eth_getTransactionCount", operator.address, "pending"), 16)
    signed = operator.sign_transaction(
        {
            "chainId": CHAIN_ID,
            "nonce": nonce,
            "to": to_checksum_address(_escrow(chain)),
            "data": calldata,
            "value": 0,
            "gas": gas.TRANSACTION_GAS_MAX,
            "maxFeePerGas": _WEI_PER_GAS,
            "maxPriorityFeePerGas": 0,
        }
    )
    transaction_hash = await chain.node.call("eth_sendRawTransaction", prefixed(bytes(signed.raw_transaction)))
    give_up = time.monotonic() + _MINED_SECONDS_MAX
    while time.monotonic() < give_up:
        receipt: dict[str, Any] | None = await chain.node.call("eth_getTransactionReceipt", transaction_hash)
        if receipt is not None:
            return receipt
        await asyncio.sleep(0.02)
    raise TimeoutError(f"transaction {transaction_hash} was not mined within {_MINED_SECONDS_MAX:g} s")


def _escrow(chain: Chain) -> str:
    return chain.contracts["SettlementEscrow"]


def _drawn() -> str:
    return to_checksum_address(secrets.token_bytes(20))


def _signed(account: LocalAccount, digest: bytes) -> bytes:
    return bytes(account.unsafe_sign_hash(Hash32(digest)).signature)
