from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from chain_world import World, running

from lockstep_chain.ports import CallReverted, Conditions
from lockstep_chain.sender import IdempotencyConflict, Intent
from lockstep_kit.fields import FieldInvalid


async def test_an_intent_becomes_final(world: World) -> None:
    """What was enqueued takes effect once, and is told once, at finality, with its block and hash."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        await world.mine()
        await world.until_state("one", "mined")
        assert await world.told() == {}
        assert await world.until_told(1) == {"one": "final"}
    row = await world.row("one")
    receipt = await world.node.call("eth_getTransactionReceipt", "0x" + row["transaction_hash"].hex())
    assert (receipt["blockHash"], int(receipt["blockNumber"], 16)) == ("0x" + row["block_hash"].hex(), row["block_number"])
    assert (row["gas_used"], int(row["effective_gas_price"])) == (
        int(receipt["gasUsed"], 16), int(receipt["effectiveGasPrice"], 16)
    )  # fmt: skip
    assert await world.effects() == [b"one"]


async def test_by_depth(world: World) -> None:
    """Where blocks are final at once, a transaction is final with its block."""
    machine = await world.machine(finality_depth=0)
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        await world.mine()
        assert await world.until_told(1, mining=False) == {"one": "final"}


async def test_many_in_one_batch(world: World) -> None:
    """What is queued together is signed and sent together, with dense nonces in the order of the queue."""
    machine = await world.machine()
    keys = [f"key {number:03}" for number in range(60)]
    async with running(machine):
        await world.enqueue(machine, *keys)
        await world.until_state(keys[-1], "sent")
        async with world.database.as_owner() as connection:
            rows = await connection.fetch("select nonce, idempotency_key from evm_transaction order by nonce")
            batches = await connection.fetchval("select count(distinct xmin::text) from evm_attempt")
        assert await world.until_told(60) == dict.fromkeys(keys, "final")
    assert await world.effects() == [key.encode() for key in keys]
    assert [(row["nonce"], row["idempotency_key"]) for row in rows] == list(enumerate(keys))
    assert batches == 1


async def test_the_limit_of_unmined(world: World) -> None:
    """No more than so many are signed and unmined; the rest follows when there is room."""
    machine = await world.machine(unmined_max=3)
    keys = [f"key {number}" for number in range(8)]
    async with running(machine):
        await world.enqueue(machine, *keys)
        await world.until_state("key 2", "sent")
        assert await world.state("key 3") == "queued"
        assert set((await world.until_told(8)).values()) == {"final"}


async def test_rolled_back(world: World) -> None:
    """An intent whose transaction rolled back does not exist."""
    machine = await world.machine()
    with contextlib.suppress(ZeroDivisionError):
        async with world.db.transaction() as tx:
            await machine.enqueue(tx, [world.intent("one")])
            raise ZeroDivisionError
    assert await world.row("one") is None


async def test_idempotency(world: World) -> None:
    """The same key with the same payload is the same transaction; with another payload it is refused and changes nothing."""
    machine = await world.machine()
    async with world.db.transaction() as tx:
        first = await machine.enqueue(tx, [world.intent("one")])
    async with world.db.transaction() as tx:
        assert await machine.enqueue(tx, [world.intent("one")]) == first
    for other in (
        world.intent("one", b"other"),
        world.intent("one", value=1),
        Intent("one", world.account.address, b"one", 200_000),
    ):
        with pytest.raises(IdempotencyConflict):
            async with world.db.transaction() as tx:
                await machine.enqueue(tx, [other])
    # A key beside others, and twice in one call.
    with pytest.raises(IdempotencyConflict):
        async with world.db.transaction() as tx:
            await machine.enqueue(tx, [world.intent("two"), world.intent("one", b"other")])
    with pytest.raises(IdempotencyConflict):
        async with world.db.transaction() as tx:
            await machine.enqueue(tx, [world.intent("two"), world.intent("two", b"other")])
    assert await world.row("two") is None
    async with world.db.transaction() as tx:
        two, one, again = await machine.enqueue(tx, [world.intent("two"), world.intent("one"), world.intent("two")])
    assert [one] == first
    assert again == two
    async with running(machine):
        await world.until_told(2)
        async with world.db.transaction() as tx:
            assert await machine.enqueue(tx, [world.intent("one")]) == first
        await world.mine(4, pause=0.05)
    assert await world.effects() == [b"one", b"two"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"to": "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"}, "to"),
        ({"gas_limit": 21_000}, "gas_limit"),
        ({"gas_limit": 2**24 + 1}, "gas_limit"),
        ({"data": bytes(128 * 1024)}, "data"),
        ({"value": -1}, "value"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"purpose": "gap"}, "purpose"),
    ],
)
async def test_malformed(world: World, change: dict[str, object], field: str) -> None:
    """What no network would take is refused at the door, and nothing is queued."""
    machine = await world.machine()
    given: dict[str, object] = {"idempotency_key": "one", "to": world.contract, "data": b"x", "gas_limit": 200_000} | change
    with pytest.raises(FieldInvalid) as refused:
        async with world.db.transaction() as tx:
            await machine.enqueue(tx, [Intent(**given)])  # type: ignore[arg-type]
    assert refused.value.field == field


async def test_dead(world: World) -> None:
    """What can never be signed any more is dead, is told at once, and takes no nonce from the others."""
    machine = await world.machine()
    await world.enqueue(machine, "too much", "withdrawn")
    async with world.db.transaction() as tx:
        assert await machine.request_cancel(tx, "withdrawn")
    strict = await world.machine(gas_limit_max=150_000)
    async with running(strict):
        assert await world.until_told(2, mining=False) == {"too much": "dead", "withdrawn": "dead"}
        async with world.db.transaction() as tx:
            await strict.enqueue(tx, [Intent("fits", world.contract, b"fits", 100_000)])
        assert (await world.until_told(3))["fits"] == "final"
    assert (await world.row("fits"))["nonce"] == 0
    assert (await world.row("too much"))["nonce"] is None


async def test_reverted(world: World) -> None:
    """A transaction that reverts is told as reverted, with what the contract said; the next ones go on."""
    machine = await world.machine()
    async with running(machine):
        async with world.db.transaction() as tx:
            await machine.enqueue(tx, [world.intent("bad", b"\xff\x01\x02")])
            await machine.enqueue(tx, [Intent("starved", world.contract, b"starved", 22_000)])
        await world.enqueue(machine, "good")
        assert await world.until_told(3) == {"bad": "reverted", "starved": "reverted", "good": "final"}
    assert "ff0102" in (await world.row("bad"))["detail"]
    assert "lack of gas" in (await world.row("starved"))["detail"]
    assert await world.effects() == [b"good"]


async def test_one_ending_holds_up_no_other(world: World) -> None:
    """An ending that the service cannot take is not stored, is told again, and holds up no other."""
    machine = await world.machine()
    world.refused.add("poison")
    async with running(machine):
        await world.enqueue(machine, "before", "poison", "after")
        await world.until_state("after", "sent")
        await world.mine()
        # Seen in a block before that is final.
        await world.until_state("poison", "mined")
        assert await world.until_told(2) == {"before": "final", "after": "final"}
        assert await world.state("poison") == "mined"
        world.refused.clear()
        assert (await world.until_told(3))["poison"] == "final"


async def test_a_dead_one_holds_up_no_other(world: World) -> None:
    """A dead letter that the service cannot take stays queued, is told again, and takes no nonce."""
    machine = await world.machine()
    await world.enqueue(machine, "withdrawn", "one")
    async with world.db.transaction() as tx:
        assert await machine.request_cancel(tx, "withdrawn")
    world.refused.add("withdrawn")
    async with running(machine):
        assert await world.until_told(1) == {"one": "final"}
        assert await world.state("withdrawn") == "queued"
        world.refused.clear()
        assert (await world.until_told(2))["withdrawn"] == "dead"


async def test_a_whole_batch_of_dead_ones_holds_up_no_other(world: World) -> None:
    """As many dead letters as are taken at once, which the service cannot take, stand before others: these are sent, and nothing spins."""
    machine = await world.machine(assign_batch_max=2)
    withdrawn = [f"withdrawn {number}" for number in range(5)]
    await world.enqueue(machine, *withdrawn, "one")
    async with world.db.transaction() as tx:
        for key in withdrawn:
            assert await machine.request_cancel(tx, key)
    world.refused.update(withdrawn)
    asked = 0
    conditions = world.evms[-1].conditions

    async def counted(address: str) -> Conditions:
        nonlocal asked
        asked += 1
        return await conditions(address)

    world.evms[-1].conditions = counted  # type: ignore[method-assign]
    async with running(machine):
        assert await world.until_told(1) == {"one": "final"}
        before, began = asked, time.monotonic()
        await asyncio.sleep(1.5)
        assert asked - before < 13 * (time.monotonic() - began)
        world.refused.clear()
        assert await world.until_told(6) == {"one": "final"} | dict.fromkeys(withdrawn, "dead")


async def test_reads_at_finality(world: World) -> None:
    """A call at finality reads the state of a final block, and says which."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        await world.mine()
        result, block = await machine.call_at_final(world.contract, b"")
        assert int.from_bytes(result) == 0
        await world.mine(2)
        result, block = await machine.call_at_final(world.contract, b"")
        assert int.from_bytes(result) == 1
        assert block == await machine.final_head()
        assert "0x" + block.hash.hex() == (await world.node.call("eth_getBlockByNumber", "finalized", False))["hash"]
        with pytest.raises(CallReverted) as reverted:
            await machine.call_at_final(world.contract, b"\xff\x07")
        assert reverted.value.revert_data == b"\xff\x07"
