"""A validator's own look at a real node: a leg that was prepared under our payer's signature and committed, and everything that is not so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lockstep_client.chain_evidence import ChainFacts, check_chain_leg
from lockstep_client.chain_reader import BATCH_MAX, ChainReader, LegAsked
from lockstep_client.configuration import PayerPart
from lockstep_client.convert import LegView
from lockstep_client.making import unlock
from lockstep_client.reading import ReadingFailed
from lockstep_client.signing import escrow_terms, payer_signature
from lockstep_contracts.escrow import LegStatus, encode_commit, encode_prepare, leg_key
from lockstep_contracts.token import decode_count, encode_balance_of
from lockstep_kit.amounts import Amount
from lockstep_kit.ids import sha256
from lockstep_kit.plan import PlanHeader, TokenTransfer
from lockstep_kit.statements import ChainEvidence
from lockstep_sandbox.chain import Chain
from lockstep_sandbox.deployment import DLT_SIGNER, TokenTerms, deploy_settlement
from lockstep_sandbox.processes import Supervisor

pytestmark = pytest.mark.integration

KEY = sha256(b"the leg's key")
BOND = TokenTerms("BOND", "A bond", 2, {"seller": 5_000_000, "buyer": 1}, allowing=("seller",))


@dataclass
class Settled:
    """A leg that took effect on a real chain."""

    chain: Chain
    header: PlanHeader
    view: LegView
    evidence: ChainEvidence

    async def found(self, reader: ChainReader, **changes: Any) -> set[str]:
        evidence = replace(self.evidence, **changes)
        (facts,) = await reader.facts([LegAsked(self.view.leg, self.header, evidence)])
        return self.rules(facts, evidence)

    def rules(self, facts: ChainFacts | ReadingFailed, evidence: ChainEvidence) -> set[str]:
        """What is found of the leg by facts that were read for an evidence."""
        if isinstance(facts, ReadingFailed):
            raise facts
        outcome = self.view.outcome
        assert outcome is not None
        view = replace(self.view, outcome=replace(outcome, outcome=replace(outcome.outcome, evidence=evidence)))
        return {each.rule for each in check_chain_leg(view, self.header, facts)}


@pytest.fixture(scope="module")
async def chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    async with Supervisor(folder) as supervisor, Chain(supervisor, folder) as chain:
        await deploy_settlement(chain, [BOND])
        yield chain


@pytest.fixture
async def settled(chain: Chain, world: Any) -> Settled:
    """A leg, locked under the payer's signature from its keystore, and paid out with the leg's key."""
    seller, buyer, escrow = chain.address("seller"), chain.address("buyer"), chain.contracts["SettlementEscrow"]
    asset = f"eip155:138/erc20:{chain.tokens['BOND']}"
    terms = TokenTransfer(Amount(asset, 10_000, 2), escrow, seller, buyer, "seller", "buyer")  # type: ignore[arg-type]
    header = replace(world.draft.header, deadline=world.draft.header.deadline + timedelta(days=3650))
    view = replace(world.view().legs[0], leg=replace(world.leg("delivery"), terms=terms), lock=sha256(KEY))
    files = chain.write_keystore("seller")
    account = unlock({seller: PayerPart(keystore_file=files.keystore_file, password_file=files.password_file)}, {seller})[seller]
    on_chain = escrow_terms(header, view.leg, view.lock)
    await chain.transact(escrow, encode_prepare(on_chain, payer_signature(header, view.leg, view.lock, account)), by=DLT_SIGNER)
    receipt = await chain.transact(escrow, encode_commit(on_chain, KEY), by=DLT_SIGNER)
    evidence = ChainEvidence(
        "eip155:138",
        escrow,
        leg_key(header.digest, "delivery"),
        "Committed",
        bytes.fromhex(receipt["transactionHash"][2:]),
        int(receipt["blockNumber"], 16),
        bytes.fromhex(receipt["blockHash"][2:]),
    )
    return Settled(chain, header, view, evidence)


async def test_a_leg_that_took_effect(settled: Settled) -> None:
    """Of a leg that the real escrow paid out, under our payer's signature, nothing is found, with its transaction named or not."""
    async with ChainReader(settled.chain.node.url) as reader:
        assert await settled.found(reader) == set()
        assert await settled.found(reader, transaction_hash=b"") == set()
    token, buyer = settled.chain.tokens["BOND"], settled.chain.address("buyer")
    assert decode_count(await settled.chain.node.read(token, encode_balance_of(buyer))) == 10_001


async def test_what_is_not_so(settled: Settled) -> None:
    """Another block's hash, a block that is not there, a transaction that did something else or is not known: found by name."""
    before = (await settled.chain.node.call("eth_getBlockByNumber", hex(settled.evidence.block_number - 1), True))["transactions"][
        0
    ]["hash"]
    async with ChainReader(settled.chain.node.url) as reader:
        assert await settled.found(reader, block_hash=b"\x01" * 32) == {"CHAIN_BLOCK_NOT_CANONICAL"}
        assert await settled.found(reader, block_number=10**6) == {"CHAIN_BLOCK_NOT_CANONICAL"}
        assert await settled.found(reader, transaction_hash=b"\x01" * 32) == {"CHAIN_TRANSACTION_FAILED", "CHAIN_EVENT_MISSING"}
        assert await settled.found(reader, transaction_hash=bytes.fromhex(before[2:])) == {"CHAIN_EVENT_MISSING"}


async def test_legs_are_read_together(settled: Settled) -> None:
    """More legs than a batch holds are each told apart: the one that was paid out, and those that are not there."""
    others = [replace(settled.view.leg, leg_id=f"leg-{number}") for number in range(BATCH_MAX)]  # type: ignore[arg-type]
    asked = [LegAsked(leg, settled.header, settled.evidence) for leg in (*others, settled.view.leg)]
    async with ChainReader(settled.chain.node.url) as reader:
        *absent, there = await reader.facts(asked)
    assert settled.rules(there, settled.evidence) == set()
    for each in absent:
        assert isinstance(each, ChainFacts)
        assert (each.status, each.commits) == (LegStatus.NONE, ())


async def test_a_leg_that_was_never_there(settled: Settled) -> None:
    """Of a leg that the escrow does not know it says so."""
    leg = replace(settled.view.leg, leg_id="another")  # type: ignore[arg-type]
    async with ChainReader(settled.chain.node.url) as reader:
        (facts,) = await reader.facts([LegAsked(leg, settled.header, replace(settled.evidence, transaction_hash=b""))])
    assert isinstance(facts, ChainFacts)
    assert (facts.status, facts.commits) == (LegStatus.NONE, ())


async def test_a_node_that_cannot_be_asked(settled: Settled, tmp_path: Path) -> None:
    """No node, or an address without the contract: nothing is known, which is not the same as nothing found."""
    async with ChainReader("http://127.0.0.1:1") as reader:
        with pytest.raises(ReadingFailed, match="cannot be asked"):
            await settled.found(reader)
    assert isinstance(settled.view.leg.terms, TokenTransfer)
    terms = replace(settled.view.leg.terms, escrow=settled.chain.address("buyer"))
    async with ChainReader(settled.chain.node.url) as reader:
        wrong, right = await reader.facts(
            [LegAsked(leg, settled.header, settled.evidence) for leg in (replace(settled.view.leg, terms=terms), settled.view.leg)]
        )
    assert isinstance(wrong, ReadingFailed)
    assert "does not answer as an escrow does" in wrong.message
    assert settled.rules(right, settled.evidence) == set()
