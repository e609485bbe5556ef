"""A real node that mines when it is told to, a real database, and machines that can be made to die: the tests' own module."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from coincurve import PrivateKey
from eth_account import Account
from eth_account.signers.local import LocalAccount

from lockstep_chain.endpoints import EvmEndpoints
from lockstep_chain.ports import Block, Signed, Signer, Unsigned
from lockstep_chain.process import connected
from lockstep_chain.sender import Intent, OnSettled, SettledTransaction, TransactionMachine, declare_failpoints
from lockstep_chain.settings import ChainSettings
from lockstep_chain.signers.envelope import sealed, signing_hash
from lockstep_chain.signers.pkcs11 import ORDER
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import FailpointRaised, arm
from lockstep_sandbox.chain import anvil
from lockstep_sandbox.evm import Node
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.strict_node import BLOCK, StrictNode

CHAIN_ID = 138
SECONDS_MAX = 180.0
#: How long an endpoint that answers nothing is waited for, where a test has one: every such question costs so much.
SILENCE_SECONDS = 2.0
#: Questions about blocks in which a machine that follows the chain has surely made a whole round since the first of them.
ROUND_QUESTIONS = 12
#: Longest that a machine that may have nothing to look for is waited for.
LOOKED_SECONDS_MAX = 5.0

#: Runtime code of a contract: counts and logs every call's calldata under topic 1; reverts with it if it begins with 0xff; without calldata returns the count.
RUNTIME = bytes.fromhex(
    "361560275736600060003760003560f81c60ff146033576000546001016000556001366000a1005b60005460005260206000f35b366000fd"
)
CREATION = bytes.fromhex("6038600c60003960386000f3") + RUNTIME

MIGRATION = """
from alembic import context, op

from lockstep_chain import final_store, schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    role = context.config.attributes["role"]
    for statement in (*schema.V1_UPGRADE, *final_store.V1_UPGRADE, *schema.grants(role), *final_store.grants(role)):
        op.execute(statement)
    op.execute("create table told (id bigint generated always as identity primary key, key text, state text, detail text, hash bytea)")
    op.execute(f"grant select, insert on told to {role}")
"""

declare_failpoints("test")


class DrawingSigner:
    """`Signer` that draws a nonce for each signature, as hardware modules do: the same transaction never gives the same bytes twice."""

    def __init__(self, account: LocalAccount) -> None:
        self._secret = int.from_bytes(bytes(account.key))
        self.address = str(account.address)

    async def sign(self, transactions: Sequence[Unsigned]) -> Sequence[Signed]:
        return [self._sign(each) for each in transactions]

    def _sign(self, transaction: Unsigned) -> Signed:
        drawn = 1 + secrets.randbelow(ORDER - 1)
        x, y = PrivateKey.from_int(drawn).public_key.point()
        s = pow(drawn, -1, ORDER) * (int.from_bytes(signing_hash(transaction)) + x * self._secret) % ORDER
        return sealed(transaction, y % 2 if s <= ORDER // 2 else 1 - y % 2, x, min(s, ORDER - s))


@dataclass
class World:
    """A node, a database, an account, a contract; and what was told of transactions."""

    node: Node
    process: subprocess.Popen[bytes]
    db: Database
    database: TestDatabase
    account: LocalAccount
    contract: str
    #: What machines take for the chain: as strict as nodes of real networks, and as faulty as it is told to be.
    strict: StrictNode
    #: Other endpoints for machines that are made from now on.
    urls: list[str] = field(default_factory=list)
    evms: list[EvmEndpoints] = field(default_factory=list)
    #: Accounts of machines that are made from now on; the one account unless told otherwise.
    accounts: list[LocalAccount] = field(default_factory=list)
    #: Keys whose endings the service cannot take.
    refused: set[str] = field(default_factory=set)

    async def mine(self, blocks: int = 1, *, pause: float = 0.0) -> None:
        for _ in range(blocks):
            await self.node.call("evm_mine")
            await asyncio.sleep(pause)

    async def machine(self, *, signing: Sequence[Signer] = (), **settings: Any) -> TransactionMachine:
        urls = self.urls or [self.strict.url]
        told = ChainSettings.model_validate(
            {
                "rpc_urls": urls,
                "single_endpoint": len(urls) == 1,
                "request_seconds_max": 30.0,
                "chain_id": CHAIN_ID,
                "finality_tag": "finalized",
                "signers": [{"kind": "keystore", "keystore_file": "unused", "password_file": "unused"}],
                "poll_seconds": 0.02,
                "lease_seconds": 2.0,
            }
            | ({"finality_tag": None} if "finality_depth" in settings else {})
            | settings
        )
        evm = await connected(told)
        self.evms.append(evm)
        signers = signing or [DrawingSigner(each) for each in self.accounts or [self.account]]
        return TransactionMachine(self.db, evm, signers, told, self.foresee, service="test")

    async def add_account(self, wei: int = 10**21) -> LocalAccount:
        """Another account for machines that are made from now on."""
        account: LocalAccount = Account.create()
        await self.node.call("anvil_setBalance", account.address, hex(wei))
        self.accounts = [*(self.accounts or [self.account]), account]
        return account

    async def foresee(self, settled: Sequence[SettledTransaction], final: Block | None) -> OnSettled:
        del settled, final
        return self.on_settled

    async def on_settled(self, tx: Connection, settled: Sequence[SettledTransaction]) -> None:
        for each in settled:
            await tx.execute(
                "insert into told (key, state, detail, hash) values ($1, $2, $3, $4)",
                each.idempotency_key, each.state.value, each.detail, each.transaction_hash,
            )  # fmt: skip
            if each.idempotency_key in self.refused:
                raise ValueError("the service cannot take this one")

    def intent(self, key: str, data: bytes | None = None, **more: Any) -> Intent:
        return Intent(key, self.contract, key.encode() if data is None else data, 200_000, **more)

    async def enqueue(self, machine: TransactionMachine, *keys: str, **more: Any) -> None:
        async with self.db.transaction() as tx:
            await machine.enqueue(tx, [self.intent(key, **more) for key in keys])

    async def told(self) -> dict[str, str]:
        """Key -> state; fails if anything was told twice."""
        async with self.database.as_owner() as connection:
            rows = await connection.fetch("select key, state from told order by id")
        assert len({row["key"] for row in rows}) == len(rows), "a transaction was told twice"
        return {row["key"]: row["state"] for row in rows}

    async def row(self, key: str) -> Any:
        async with self.database.as_owner() as connection:
            return await connection.fetchrow("select * from evm_transaction where idempotency_key = $1", key)

    async def state(self, key: str) -> str:
        row = await self.row(key)
        return str(row["state"])

    async def attempts(self, key: str) -> list[Any]:
        async with self.database.as_owner() as connection:
            return await connection.fetch(
                "select a.* from evm_attempt a join evm_transaction t on t.id = a.transaction_id"
                " where idempotency_key = $1 order by number", key,
            )  # fmt: skip

    async def effects(self) -> list[bytes]:
        """Calldata of every call that took effect, by the chain's own logs."""
        logs = await self.node.call("eth_getLogs", {"address": self.contract, "fromBlock": "0x0", "toBlock": "latest"})
        return sorted(bytes.fromhex(each["data"][2:]) for each in logs)

    async def nonce(self, account: LocalAccount | None = None) -> int:
        return int(await self.node.call("eth_getTransactionCount", (account or self.account).address, "latest"), 16)

    def sender_of(self, raw: bytes) -> str:
        """Who signed a transaction."""
        return str(Account.recover_transaction(raw))

    async def foreign(self, nonce: int, *, send: bool = True) -> tuple[bytes, str]:
        """A transaction of the same account that the machine knows nothing of; its bytes and hash."""
        signed = self.account.sign_transaction(
            {
                "chainId": CHAIN_ID, "nonce": nonce, "to": self.account.address, "value": 1, "gas": 21_000,
                "maxFeePerGas": 50 * 10**9, "maxPriorityFeePerGas": 5 * 10**9,
            }
        )  # fmt: skip
        raw = bytes(signed.raw_transaction)
        if send:
            await self.node.call("eth_sendRawTransaction", "0x" + raw.hex())
        return raw, "0x" + bytes(signed.hash).hex()

    async def until(self, what: Callable[[], Awaitable[bool]], *, mining: bool = False, pause: float = 0.03) -> None:
        deadline = time.monotonic() + SECONDS_MAX
        while not await what():
            assert time.monotonic() < deadline, "took too long"
            if mining:
                await self.mine()
            await asyncio.sleep(pause)

    async def looked(self, seconds_max: float = SECONDS_MAX) -> None:
        """Wait until a machine has looked at the chain as it is now, at the newest block and at what became of its transactions; or has had its time."""
        before, give_up = self.strict.asked[BLOCK], time.monotonic() + seconds_max
        while self.strict.asked[BLOCK] < before + ROUND_QUESTIONS and time.monotonic() < give_up:  # noqa: ASYNC110 - it counts, and tells nobody
            await asyncio.sleep(0.01)

    async def until_state(self, key: str, state: str, *, mining: bool = False) -> None:
        async def reached() -> bool:
            return await self.state(key) == state

        await self.until(reached, mining=mining)

    async def until_told(self, count: int, *, mining: bool = True) -> dict[str, str]:
        async def reached() -> bool:
            return len(await self.told()) >= count

        await self.until(reached, mining=mining)
        return await self.told()

    async def crash(self, machine: TransactionMachine, place: str, *, mining: bool = False) -> None:
        """Run a machine until it dies at a failpoint."""
        arm(f"test.{place}=raise")
        task = asyncio.create_task(machine.run())

        async def dead_or_slow() -> bool:
            # So slowly that a transaction is seen mined before it is final, however slow the machine is that looks.
            if mining and not task.done():
                await self.looked(LOOKED_SECONDS_MAX)
            return task.done()

        try:
            await self.until(dead_or_slow, mining=mining)
            assert isinstance(task.exception(), FailpointRaised)
        finally:
            arm("")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def running(*machines: TransactionMachine) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(machine.run()) for machine in machines]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def started(port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [
            str(anvil()), "--chain-id", str(CHAIN_ID), "--host", "127.0.0.1", "--port", str(port), "--quiet", "--no-mining",
            "--accounts", "0", "--slots-in-an-epoch", "1", "--prune-history", "64",
            *options,
        ]
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)
