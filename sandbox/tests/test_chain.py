from __future__ import annotations

import asyncio
import json
import re
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from eth_account import Account

from lockstep_contracts.escrow import HAS_ROLE, OPERATOR_ROLE
from lockstep_contracts.notary import PlanStatus, decode_plan_status_of, encode_plan_status_of, encode_register
from lockstep_contracts.token import (
    decode_count,
    encode_allowance,
    encode_balance_of,
    encode_decimals,
    encode_mint,
    encode_transfer,
)
from lockstep_sandbox.chain import CHAIN_ID, NAME, Chain
from lockstep_sandbox.deployment import DLT_SIGNER, NOTARY_SIGNER, SIGNERS, TokenTerms, deploy_settlement
from lockstep_sandbox.evm import NodeRefused
from lockstep_sandbox.processes import Supervisor

pytestmark = pytest.mark.integration

BOND = TokenTerms("BOND", "A bond", 2, {"seller": 5_000_000, "stranger": 100}, allowing=("seller",))


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    async with Supervisor(tmp_path) as supervisor, Chain(supervisor, tmp_path) as chain:
        await deploy_settlement(chain, [BOND])
        yield chain


async def test_everything_is_deployed(chain: Chain) -> None:
    """After deployment holders have their tokens, the escrow may take those of who allows it, and the signers have their roles."""
    bond, escrow = chain.tokens["BOND"], chain.contracts["SettlementEscrow"]
    seller, stranger = chain.address("seller"), chain.address("stranger")
    assert int(await chain.node.call("eth_chainId"), 16) == CHAIN_ID
    assert decode_count(await chain.node.read(bond, encode_decimals())) == 2
    assert decode_count(await chain.node.read(bond, encode_balance_of(seller))) == 5_000_000
    assert decode_count(await chain.node.read(bond, encode_allowance(seller, escrow))) > 5_000_000
    assert decode_count(await chain.node.read(bond, encode_allowance(stranger, escrow))) == 0
    registry = chain.contracts["NotaryRegistry"]
    for number, signer in enumerate(SIGNERS[NOTARY_SIGNER]):
        digest = bytes([7, number]) * 16
        await chain.transact(registry, encode_register(digest), by=signer)
        assert decode_plan_status_of(await chain.node.read(registry, encode_plan_status_of(digest))) is PlanStatus.REGISTERED
    for signer in SIGNERS[DLT_SIGNER]:
        assert int((await chain.node.read(escrow, HAS_ROLE.encode(OPERATOR_ROLE, chain.address(signer)))).hex(), 16) == 1


async def test_nobody_else_can_do_it(chain: Chain) -> None:
    """A signer without the role is refused, and the node knows no developer account."""
    with pytest.raises(NodeRefused) as refused:
        await chain.transact(chain.contracts["NotaryRegistry"], encode_register(b"\x08" * 32), by=DLT_SIGNER)
    assert refused.value.revert_data
    with pytest.raises(NodeRefused):
        await chain.transact(chain.tokens["BOND"], encode_mint(chain.address("seller"), 1), by="seller")
    assert await chain.node.call("eth_accounts") == []


async def test_blocks_come_by_the_clock_and_become_final(chain: Chain) -> None:
    """Once mining begins a block comes every second, and calls at `finalized` are answered and catch up."""
    await chain.begin_mining(1)
    bond, receiver = chain.tokens["BOND"], chain.address("stranger")
    began = time.monotonic()
    receipt = await chain.transact(bond, encode_transfer(receiver, 5), by="seller")
    assert time.monotonic() - began < 60
    while int((await chain.node.call("eth_getBlockByNumber", "finalized", False))["number"], 16) < int(receipt["blockNumber"], 16):
        assert time.monotonic() - began < 180
        await asyncio.sleep(0.1)
    assert decode_count(await chain.node.read(bond, encode_balance_of(receiver), "finalized")) == 105


async def test_keys_are_written_encrypted(chain: Chain) -> None:
    """A signer's key is written as an encrypted keystore that its password opens, and chain.json holds no key."""
    files = chain.write_keystore(DLT_SIGNER)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (files.keystore_file, files.password_file)} == {0o600}
    keystore = json.loads(files.keystore_file.read_text())
    assert keystore["version"] == 3
    opened = Account.from_key(Account.decrypt(keystore, files.password_file.read_text()))
    assert opened.address == files.address == chain.address(DLT_SIGNER)
    described = chain.describe()
    assert described.tokens == chain.tokens
    written = (chain.directory / "chain.json").read_text()
    assert json.loads(written) == described.model_dump()
    assert not re.search("[0-9a-f]{64}", written.lower())


async def test_the_node_ends_with_the_sandbox(tmp_path: Path) -> None:
    """Leaving the chain stops the node; nothing answers at its address any more."""
    async with Supervisor(tmp_path) as supervisor:
        async with Chain(supervisor, tmp_path) as chain:
            assert supervisor.is_running(NAME)
            node = chain.node
        assert not supervisor.is_running(NAME)
        async with node:
            assert not await node.answers()
