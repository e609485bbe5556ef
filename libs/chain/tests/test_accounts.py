"""Several accounts, and several replicas that share them: one queue, each intent once, and what troubles one account holds up no other."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

import pytest
from chain_world import CHAIN_ID, SILENCE_SECONDS, DrawingSigner, World, running
from eth_account.signers.local import LocalAccount

from lockstep_chain.ports import Answer, Signed, SignerUnavailable, Unsigned
from lockstep_chain.sender import TransactionMachine

KEYS = [f"key {number:02}" for number in range(60)]


async def carried(world: World) -> dict[str, list[int]]:
    """Account -> nonces that its transactions have, by the database."""
    async with world.database.as_owner() as connection:
        rows = await connection.fetch("select signer, nonce from evm_transaction where signer is not null order by nonce")
    found: dict[str, list[int]] = {each.address: [] for each in world.accounts}
    for row in rows:
        found[row["signer"]].append(row["nonce"])
    return found


async def holders(world: World) -> list[str]:
    """Who holds the leases, one entry for each account that is held."""
    async with world.database.as_owner() as connection:
        rows = await connection.fetch("select lease_holder from evm_signer where lease_until > clock_timestamp() order by address")
    return [row["lease_holder"] for row in rows]


async def shared(world: World, *shares: int) -> None:
    """Wait until replicas hold so many accounts each."""

    async def reached() -> bool:
        found = await holders(world)
        return sorted(found.count(each) for each in set(found)) == sorted(shares)

    await world.until(reached)


async def each_once(world: World, keys: Sequence[str]) -> None:
    """Every intent took effect once, and each account's nonces are dense, by the database and by the chain."""
    assert await world.effects() == sorted(key.encode() for key in keys)
    nonces = await carried(world)
    assert {address: list(range(len(found))) for address, found in nonces.items()} == nonces
    assert [await world.nonce(each) for each in world.accounts] == [len(nonces[each.address]) for each in world.accounts]
    assert sum(map(len, nonces.values())) == len(keys)


async def test_three_accounts(world: World) -> None:
    """A queue is spread over the accounts; each intent takes effect once, under dense nonces of one of them."""
    await world.add_account()
    await world.add_account()
    machine = await world.machine(assign_batch_max=5, unmined_max=10)
    async with running(machine):
        await world.enqueue(machine, *KEYS)
        assert await world.until_told(60) == dict.fromkeys(KEYS, "final")
    await each_once(world, KEYS)
    assert all((await carried(world)).values()), "every account had room"


async def test_death_among_accounts(world: World) -> None:
    """A process with several accounts that dies leaves nothing undone and nothing done twice."""
    await world.add_account()
    for place in ("chain.assign.in_tx", "chain.assign.after_commit", "chain.broadcast.after_send", "chain.mined.after_commit"):
        machine = await world.machine(assign_batch_max=3)
        await world.enqueue(machine, *(f"{place} {number}" for number in range(8)))
        await world.crash(machine, place, mining=True)
    async with running(await world.machine(assign_batch_max=3)):
        assert set((await world.until_told(32)).values()) == {"final"}
    await each_once(world, list(await world.told()))


async def test_an_account_without_funds_takes_nothing(world: World) -> None:
    """What an account cannot pay for is carried by another; once it has funds it carries too."""
    poor = await world.add_account(wei=0)
    machine = await world.machine(assign_batch_max=5, unmined_max=10)
    async with running(machine):
        await world.enqueue(machine, *KEYS[:30])
        assert await world.until_told(30) == dict.fromkeys(KEYS[:30], "final")
        assert (await carried(world))[poor.address] == []
        await world.node.call("anvil_setBalance", poor.address, hex(10**21))
        await world.enqueue(machine, *KEYS[30:])
        assert await world.until_told(60) == dict.fromkeys(KEYS, "final")
    await each_once(world, KEYS)
    assert (await carried(world))[poor.address]


async def test_an_account_takes_what_it_can_pay_for(world: World) -> None:
    """An account takes no more than its balance covers at the fees that it offers, what it has in flight counted; the rest stays queued."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        (attempt,) = await world.attempts("one")
        each = 200_000 * int(attempt["max_fee"])
        # Enough for three, one of which is in flight; and fees do not move while no block is made.
        await world.node.call("anvil_setBalance", world.account.address, hex(3 * each + each // 2))
        await world.enqueue(machine, "two", "three", "four")
        await world.until_state("three", "sent")
        await asyncio.sleep(1.5)
        assert await world.state("four") == "queued"
        await world.node.call("anvil_setBalance", world.account.address, hex(10**21))
        assert set((await world.until_told(4)).values()) == {"final"}


async def test_an_account_that_stands_still_takes_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an account's transactions are not mined, what is queued is carried by another; its own are carried by itself, later."""
    stuck = world.account
    await world.add_account()
    machine = await world.machine(assign_batch_max=3)
    evm = world.evms[-1]
    send = evm.broadcast

    async def swallow(raws: Sequence[bytes]) -> Sequence[Answer]:
        if world.sender_of(raws[0]) == stuck.address:
            return [Answer.ACCEPTED] * len(raws)
        return await send(raws)

    monkeypatch.setattr(evm, "broadcast", swallow)
    async with running(machine):
        first = await until_carries(world, machine, stuck)
        await world.mine(6, pause=0.1)
        await world.looked()
        before = (await carried(world))[stuck.address]
        await world.enqueue(machine, *KEYS)
        others = first - len(before) + len(KEYS)
        assert set((await world.until_told(others)).values()) == {"final"}
        assert (await carried(world))[stuck.address] == before
        monkeypatch.undo()
        assert set((await world.until_told(first + len(KEYS))).values()) == {"final"}
    await each_once(world, list(await world.told()))


async def until_carries(world: World, machine: TransactionMachine, account: LocalAccount) -> int:
    """Queue until an account has taken something; how many were queued."""
    for number in range(200):
        await world.enqueue(machine, f"first {number}")
        await world.until_state(f"first {number}", "sent")
        if (await carried(world))[account.address]:
            return number + 1
    raise AssertionError("the account took nothing")


async def test_a_hole_takes_one(world: World) -> None:
    """An account with a hole in its nonces takes one transaction, until the hole is filled; another carries the rest meanwhile."""
    async with world.database.as_owner() as connection:
        await connection.execute(
            "insert into evm_signer (chain_id, address, next_nonce) values ($1, $2, 2)", CHAIN_ID, world.account.address
        )
    await world.add_account()
    machine = await world.machine(assign_batch_max=5, resend_blocks=1)
    async with running(machine):
        await world.enqueue(machine, *KEYS[:30])

        async def taken() -> bool:
            return sum(map(len, (await carried(world)).values())) == 30

        await world.until(taken)
        assert len((await carried(world))[world.account.address]) <= 1
        assert await world.until_told(30) == dict.fromkeys(KEYS[:30], "final")
    assert await world.effects() == [key.encode() for key in KEYS[:30]]


async def test_a_lease_of_the_dead(world: World) -> None:
    """An account whose sender was killed waits for the end of its lease; the others carry what is queued."""
    async with world.database.as_owner() as connection:
        await connection.execute(
            "insert into evm_signer (chain_id, address, next_nonce, lease_holder, lease_until)"
            " values ($1, $2, 0, 'the dead', clock_timestamp() + interval '100 seconds')",
            CHAIN_ID, world.account.address,
        )  # fmt: skip
    await world.add_account()
    machine = await world.machine(lease_seconds=60.0)
    async with running(machine):
        await world.enqueue(machine, *KEYS)
        assert await world.until_told(60) == dict.fromkeys(KEYS, "final")
    assert "the dead" in await holders(world)
    await each_once(world, KEYS)


class BrokenSigner(DrawingSigner):
    """A key store that is not there."""

    broken = True
    #: Transactions that it was asked for while it was away, and that some chain would take.
    refused = 0

    async def sign(self, transactions: Sequence[Unsigned]) -> Sequence[Signed]:
        if self.broken:
            self.refused += sum(each.gas_limit > 0 for each in transactions)
            raise SignerUnavailable("the token was taken out")
        return await super().sign(transactions)


async def test_a_key_store_that_is_away(world: World) -> None:
    """An account whose key store gives no signature takes nothing, does not hold the queue while it asks again, and goes on when it is back."""
    away = await world.add_account()
    broken = BrokenSigner(away)
    machine = await world.machine(signing=[DrawingSigner(world.account), broken], assign_batch_max=3, unmined_max=6)
    async with running(machine):
        await world.enqueue(machine, *KEYS[:30])
        assert await world.until_told(30) == dict.fromkeys(KEYS[:30], "final")
        assert (await carried(world))[away.address] == []
        await asyncio.sleep(1.5)
        assert broken.refused <= 3
        broken.broken = False

        async def carries() -> bool:
            return bool((await carried(world))[away.address])

        await world.enqueue(machine, *KEYS[30:])
        await world.until(carries, mining=True)
        assert await world.until_told(60) == dict.fromkeys(KEYS, "final")
    await each_once(world, KEYS)


async def test_replicas_share_the_accounts(world: World) -> None:
    """Accounts spread over replicas, one more or less; one that is killed is replaced, and one that comes back gets its share; nothing is done twice."""
    for _ in range(3):
        await world.add_account()
    told: dict[str, Any] = {"assign_batch_max": 4, "unmined_max": 8, "lease_seconds": 1.0}
    first, second = await world.machine(**told), await world.machine(**told)
    async with running(first):
        await shared(world, 4)
        async with running(second):
            await shared(world, 2, 2)
            await world.enqueue(second, *KEYS[:30])
            await world.until_told(30)
        await shared(world, 4)
    # Killed: it gives no lease back.
    killed, survivor, back = [await world.machine(**told) for _ in range(3)]
    async with running(survivor):
        task = asyncio.create_task(killed.run())
        await shared(world, 2, 2)
        await world.enqueue(survivor, *KEYS[30:])
        for sender in killed._senders:
            sender.release_lease = lambda: asyncio.sleep(0)  # type: ignore[method-assign]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await world.until_told(60) == dict.fromkeys(KEYS, "final")
        await shared(world, 4)
        async with running(back):
            await shared(world, 2, 2)
    await each_once(world, KEYS)


async def test_the_dead_are_told_without_a_chain(world: World) -> None:
    """What was withdrawn is told at once, though no node answers, no account has funds, and another replica holds the lease."""
    await world.node.call("anvil_setBalance", world.account.address, "0x0")
    machine = await world.machine(request_seconds_max=SILENCE_SECONDS)
    async with world.database.as_owner() as connection:
        await connection.execute(
            "insert into evm_signer (chain_id, address, next_nonce, lease_holder, lease_until)"
            " values ($1, $2, 0, 'another', clock_timestamp() + interval '3 seconds')",
            CHAIN_ID, world.account.address,
        )  # fmt: skip
    world.process.send_signal(signal.SIGSTOP)
    try:
        async with running(machine):
            await world.enqueue(machine, "withdrawn", "waits")
            async with world.db.transaction() as tx:
                assert await machine.request_cancel(tx, "withdrawn")
            assert await world.until_told(1, mining=False) == {"withdrawn": "dead"}
            assert await world.state("waits") == "queued"
    finally:
        world.process.send_signal(signal.SIGCONT)
