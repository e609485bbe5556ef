"""A real node with the real contracts, as participants and their counterparties use them; what stands on it is asked of the node itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_typing import Hash32

from lockstep_contracts.escrow import LegStatus, LegTerms, decode_status_of, encode_status_of, leg_key, leg_typed_data
from lockstep_contracts.events import Event, decode_log
from lockstep_contracts.notary import PlanStatus, decode_plan_status_of, encode_plan_status_of
from lockstep_contracts.token import (
    PermitTerms,
    decode_count,
    encode_balance_of,
    encode_domain_separator,
    encode_nonces,
    permit_signing_hash,
)
from lockstep_kit.amounts import Amount, AssetId
from lockstep_kit.permits import Permit
from lockstep_kit.plan import TokenTransfer
from lockstep_sandbox.chain import CHAIN_ID, Chain
from lockstep_sandbox.deployment import SIGNERS, TokenTerms, deploy_settlement
from lockstep_sandbox.processes import Supervisor
from lockstep_testkit.factories import BUYER, SELLER

SYMBOL: Final = "BOND"
#: A token that the escrow does not control: what was paid of it stays paid.
UNCONTROLLED: Final = "COIN"
SCALE: Final = 2
MINTED: Final = 10**15
BLOCK_SECONDS: Final = 0.1
#: Holder that lets the escrow take its tokens, and one that does not.
HOLDER: Final = "seller"
UNWILLING: Final = "unwilling"


@dataclass(frozen=True, slots=True)
class SettlementChain:
    """A node with contracts and a token."""

    #: The node, its accounts and contracts.
    chain: Chain

    @property
    def asset(self) -> AssetId:
        """CAIP-19 id of the token."""
        return AssetId(f"eip155:{CHAIN_ID}/erc20:{self.token}")

    @property
    def uncontrolled_asset(self) -> AssetId:
        """CAIP-19 id of the token that the escrow does not control."""
        return AssetId(f"eip155:{CHAIN_ID}/erc20:{self.chain.tokens[UNCONTROLLED]}")

    @property
    def token(self) -> str:
        """Address of the token."""
        return self.chain.tokens[SYMBOL]

    @property
    def escrow(self) -> str:
        """Address of the escrow."""
        return self.chain.contracts["SettlementEscrow"]

    @property
    def registry(self) -> str:
        """Address of the notary's registry."""
        return self.chain.contracts["NotaryRegistry"]

    def settings(self, service: str) -> dict[str, Any]:
        """The `chain` block of a participant's settings: a block is final when it is there."""
        return {
            "rpc_urls": [self.chain.node.url],
            "single_endpoint": True,
            "chain_id": CHAIN_ID,
            "finality_depth": 0,
            "signers": [self.chain.signer_settings(name) for name in SIGNERS[service]],
            "poll_seconds": 0.05,
            "lease_seconds": 1.0,
        }

    def transfer(self, minor_units: int = 1_000, *, payer: str = HOLDER, payee: str = "", **changes: Any) -> TokenTransfer:
        """A transfer of tokens to an address that nobody has used, unless told to whom."""
        terms: dict[str, Any] = {
            "amount": Amount(self.asset, minor_units, SCALE),
            "escrow": self.escrow,
            "payer": self.chain.address(payer),
            "payee": payee or draw_address(),
            "payer_party": SELLER.party_id,
            "payee_party": BUYER.party_id,
        }
        return TokenTransfer(**(terms | changes))

    def signature(self, terms: LegTerms, signer: str = HOLDER) -> bytes:
        """A payer's EIP-712 signature, made as wallets make it."""
        document = leg_typed_data(CHAIN_ID, self.escrow, terms)
        return bytes(self.chain.accounts[signer].sign_typed_data(full_message=document).signature)

    async def permit(self, value: int, deadline: datetime, signer: str = HOLDER) -> Permit:
        """A holder's allowance for the escrow, with the nonce that the token expects next."""
        owner = self.chain.accounts[signer]
        nonce = decode_count(await self.chain.node.read(self.token, encode_nonces(owner.address)))
        separator = await self.chain.node.read(self.token, encode_domain_separator())
        deadline = deadline.replace(microsecond=0)
        terms = PermitTerms(owner.address, self.escrow, value, nonce, int(deadline.timestamp()))
        digest = Hash32(permit_signing_hash(separator, terms))
        return Permit(value, deadline, bytes(owner.unsafe_sign_hash(digest).signature))

    @contextlib.asynccontextmanager
    async def mining(self) -> AsyncIterator[None]:
        """Empty blocks, as long as it is entered."""

        async def mine() -> None:
            while True:
                await self.chain.node.call("evm_mine")
                await asyncio.sleep(BLOCK_SECONDS)

        task = asyncio.create_task(mine(), name="miner")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def balance(self, owner: str) -> int:
        """Minor units of the token that an address holds."""
        return decode_count(await self.chain.node.read(self.token, encode_balance_of(owner)))

    async def leg_status(self, plan_digest: bytes, leg_id: str) -> LegStatus:
        """Where a leg stands on the escrow."""
        return decode_status_of(await self.chain.node.read(self.escrow, encode_status_of(leg_key(plan_digest, leg_id))))

    async def plan_status(self, plan_digest: bytes) -> PlanStatus:
        """Where a plan stands on the registry."""
        return decode_plan_status_of(await self.chain.node.read(self.registry, encode_plan_status_of(plan_digest)))

    async def events(self, contract: str, key: bytes) -> list[Event]:
        """Everything that a contract ever said about an entry, in order, from the chain's own logs."""
        asked = {"address": contract, "fromBlock": "0x0", "toBlock": "latest", "topics": [None, "0x" + key.hex()]}
        found = []
        for log in await self.chain.node.call("eth_getLogs", asked):
            event = decode_log([bytes.fromhex(topic[2:]) for topic in log["topics"]], bytes.fromhex(log["data"][2:]))
            if event is not None:
                found.append(event)
        return found


@contextlib.asynccontextmanager
async def settlement_chain(supervisor: Supervisor, folder: Path) -> AsyncIterator[SettlementChain]:
    """Start a node, deploy everything, mint; it mines a block for each transaction."""
    async with Chain(supervisor, folder) as chain:
        minted = {HOLDER: MINTED, UNWILLING: MINTED}
        tokens = [
            TokenTerms(SYMBOL, "Test bond", SCALE, minted, allowing=(HOLDER,), controlled=True),
            TokenTerms(UNCONTROLLED, "Test coin", SCALE, minted, allowing=(HOLDER,)),
        ]
        await deploy_settlement(chain, tokens)
        yield SettlementChain(chain)


def draw_address() -> str:
    """An address that nobody has used."""
    return str(Account.create().address)
