"""The contracts' twins do what the compiled contracts do on a real node, byte for byte."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from eth_typing import Hash32

from lockstep_chain.ports import Log
from lockstep_contracts import escrow, gas, notary
from lockstep_contracts.escrow import LegTerms
from lockstep_contracts.notary import AnchorKind, Finalisation, PlanStatus, Root
from lockstep_sandbox.chain import CHAIN_ID
from lockstep_sandbox.deployment import DLT_SIGNER, NOTARY_SIGNER
from lockstep_testkit.chains import HOLDER, MINTED, UNWILLING, SettlementChain
from lockstep_testkit.factories import address_of
from lockstep_testkit.simulation import chain_contracts
from lockstep_testkit.simulation.chain_contracts import UNLIMITED, Circumstances, Contracts, Escrow, State
from lockstep_testkit.simulation.registry_contract import NotaryRegistry

pytestmark = pytest.mark.integration

CALLS: Final = 120
DAY: Final = 86_400


@dataclass(frozen=True)
class Pair:
    """A real chain, and the twin that runs beside it."""

    real: SettlementChain
    twin: Contracts
    state: State

    @classmethod
    async def of(cls, real: SettlementChain) -> Pair:
        chain = real.chain
        contracts = Contracts(
            Escrow(real.escrow, real.token, [chain.address(DLT_SIGNER)], CHAIN_ID, controlled=True),
            NotaryRegistry(real.registry, [chain.address(NOTARY_SIGNER)]),
        )
        holder, unwilling = chain.address(HOLDER), chain.address(UNWILLING)
        balances = {each: await real.balance(each) for each in (holder, unwilling)}
        return cls(real, contracts, State(balances=balances, allowances={holder: UNLIMITED}))

    async def run(self, signer: str, to: str, data: bytes, gas_limit: int) -> None:
        """One transaction on both: the same logs of the contract, the same end."""
        node, account = self.real.chain.node, self.real.chain.accounts[signer]
        nonce = int(await node.call("eth_getTransactionCount", account.address, "latest"), 16)
        unsigned: dict[str, Any] = {
            "chainId": CHAIN_ID,
            "nonce": nonce,
            "to": to,
            "value": 0,
            "data": data,
            "gas": gas_limit,
            "maxFeePerGas": 100 * 10**9,
            "maxPriorityFeePerGas": 10**9,
        }
        signed = account.sign_transaction(unsigned)
        sent = await node.call("eth_sendRawTransaction", "0x" + bytes(signed.raw_transaction).hex())
        while (receipt := await node.call("eth_getTransactionReceipt", sent)) is None:  # noqa: ASYNC110 - nobody would set an event
            await asyncio.sleep(0.002)
        block = await node.call("eth_getBlockByNumber", receipt["blockNumber"], False)
        now = Circumstances(int(block["timestamp"], 16))
        ended = self.twin.execute(self.state, account.address, to, data, now)
        assert (ended.reverted is None) == (int(receipt["status"], 16) == 1)
        assert list(ended.logs) == [log_of(each, to) for each in receipt["logs"] if each["address"].lower() == to.lower()]

    async def read(self, to: str, data: bytes) -> None:
        """A question to both: the same answer."""
        assert self.twin.read(self.state, to, data) == await self.real.chain.node.read(to, data)


def log_of(found: dict[str, Any], address: str) -> Log:
    return Log(address, tuple(bytes.fromhex(each[2:]) for each in found["topics"]), bytes.fromhex(found["data"][2:]))


async def test_escrow(settlement_chain: SettlementChain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Legs in every order of prepare, commit, abort and reverse, with wrong keys, signatures, terms and amounts; the books agree at the end."""
    chance, pair, real = random.Random(1), await Pair.of(settlement_chain), settlement_chain
    names = {real.chain.address(each): each for each in (HOLDER, UNWILLING)}
    signatures: dict[bytes, bytes] = {}

    def sign(payer: str, signing_hash: bytes) -> bytes:
        # A real contract wants a real signature: the twin is given the same.
        account = real.chain.accounts[names[payer]]
        return signatures.setdefault(signing_hash, bytes(account.unsafe_sign_hash(Hash32(signing_hash)).signature))

    monkeypatch.setattr(chain_contracts, "payer_signature", sign)
    timestamp = int((await real.chain.node.call("eth_getBlockByNumber", "latest", False))["timestamp"], 16)

    def fresh() -> tuple[LegTerms, bytes]:
        key = chance.randbytes(32)
        payer, payee = real.chain.address(chance.choice((HOLDER, HOLDER, HOLDER, UNWILLING))), address_of("buyer")
        terms = LegTerms(
            plan_digest=chance.randbytes(32),
            leg_id_hash=chance.randbytes(32),
            token=real.token,
            payer=payer,
            payee=chance.choice((payee, payee, payee, payer)),
            amount=chance.choice((chance.randint(1, 10**6), chance.randint(1, 10**6), MINTED + 1)),
            lock=hashlib.sha256(key).digest(),
            prepare_by=timestamp + chance.choice((DAY, DAY, DAY, -DAY)),
        )
        return terms, key

    legs = [fresh() for _ in range(16)]
    for _ in range(CALLS):
        batch = [bent(chance, *each) for each in chance.sample(legs, chance.randint(1, 3))]
        terms = [each for each, _ in batch]
        match chance.choice(("prepare", "prepare", "commit", "abort", "reverse", "again")):
            case "prepare":
                signed = [sign(each.payer, escrow.leg_signing_hash(CHAIN_ID, real.escrow, each)) for each in terms]
                signed = [each if chance.random() < 0.9 else bytes(65) for each in signed]
                data, limit = escrow.encode_try_prepare_many(terms, signed), gas.prepare_gas(len(batch))
            case "commit":
                data, limit = escrow.encode_try_commit_many(terms, [key for _, key in batch]), gas.pay_out_gas(len(batch))
            case "abort":
                data, limit = escrow.encode_try_abort_many(terms), gas.pay_out_gas(len(batch))
            case "reverse":
                data, limit = escrow.encode_try_reverse_many(terms), gas.reverse_gas(len(batch))
            case _:
                legs[chance.randrange(len(legs))] = fresh()
                continue
        signer = DLT_SIGNER if chance.random() < 0.97 else NOTARY_SIGNER
        await pair.run(signer, real.escrow, data, limit)
        await pair.read(real.escrow, escrow.encode_status_of_many([each.leg_key for each, _ in legs]))
    for owner, units in pair.state.balances.items():
        assert await real.balance(owner) == units
    assert {status for status, _ in pair.state.legs.values()} == set(escrow.LegStatus) - {escrow.LegStatus.NONE}


def bent(chance: random.Random, terms: LegTerms, key: bytes) -> tuple[LegTerms, bytes]:
    """A leg as it is, or now and then with another key or another amount."""
    kind = chance.random()
    if kind < 0.05:
        return terms, chance.randbytes(32)
    return (replace(terms, amount=terms.amount + 1), key) if kind < 0.1 else (terms, key)


async def test_registry(settlement_chain: SettlementChain) -> None:
    """Plans registered and finalised in every order, with outcomes that contradict one another."""
    chance, pair, real = random.Random(1), await Pair.of(settlement_chain), settlement_chain
    digests = [chance.randbytes(32) for _ in range(8)]
    for _ in range(CALLS // 2):
        batch = chance.sample(digests, chance.randint(1, 3))
        if chance.random() < 0.4:
            data, limit = notary.encode_register_many(batch), gas.register_gas(len(batch))
        else:
            outcomes = (PlanStatus.COMMITTED, PlanStatus.ABORTED, PlanStatus.MIXED)
            ends = [Finalisation(each, chance.choice(outcomes), bytes([chance.randint(0, 1)]) * 32) for each in batch]
            data, limit = notary.encode_finalise_many(ends), gas.finalise_gas(len(batch))
        await pair.run(NOTARY_SIGNER if chance.random() < 0.95 else DLT_SIGNER, real.registry, data, limit)
        await pair.read(real.registry, notary.encode_plan_status_of_many(digests))


async def test_anchors(settlement_chain: SettlementChain) -> None:
    """Roots anchored again and again, with kinds and sizes that contradict one another."""
    chance, pair, real = random.Random(1), await Pair.of(settlement_chain), settlement_chain
    roots = [chance.randbytes(32) for _ in range(8)]
    for _ in range(CALLS // 4):
        batch = chance.sample(roots, chance.randint(1, 3))
        kinds = (AnchorKind.CHECKPOINT, AnchorKind.REGISTRATIONS)
        data = notary.encode_anchor_many([Root(chance.choice(kinds), each, chance.choice((1, 2**64 - 1))) for each in batch])
        await pair.run(NOTARY_SIGNER if chance.random() < 0.9 else DLT_SIGNER, real.registry, data, gas.anchor_gas(len(batch)))
        await pair.read(real.registry, notary.encode_anchor_of_many(roots))
