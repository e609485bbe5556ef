from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Mapping, Sequence

import pytest
from chain_world import CHAIN_ID, SILENCE_SECONDS, World, running

from lockstep_chain import follower
from lockstep_chain.failpoints import PLACES
from lockstep_chain.machine import State
from lockstep_chain.ports import Block, EvmUnavailable, Receipt, SenderTransaction
from lockstep_chain.records import Ending, Reference
from lockstep_chain.sender import Intent
from lockstep_chain.settling import Settler
from lockstep_testkit import strict_node

#: Blocks under which one is final at the test's node, with some to spare.
FINAL_BLOCKS = 4
#: Places that every transaction passes.
PASSED = [place for place in PLACES if not place.startswith("chain.replace")]


@pytest.mark.parametrize("place", PASSED)
async def test_death_at_every_step(world: World, place: str) -> None:
    """Wherever the process dies, another one brings the transactions to their end: each effect once, each told once, no nonce lost."""
    first = await world.machine()
    await world.enqueue(first, "one", "two")
    await world.crash(first, place, mining=True)
    second = await world.machine()
    async with running(second):
        assert await world.until_told(2) == {"one": "final", "two": "final"}
        await world.mine(3, pause=0.05)
    assert await world.effects() == [b"one", b"two"]
    assert await world.nonce() == 2
    assert [len(await world.attempts(key)) for key in ("one", "two")] == [1, 1]


async def test_death_before_commit_loses_no_nonce(world: World) -> None:
    """A process that dies before its signed bytes are stored has sent nothing and used no nonce."""
    first = await world.machine()
    await world.enqueue(first, "one")
    await world.crash(first, "chain.assign.in_tx")
    assert (await world.state("one"), await world.attempts("one")) == ("queued", [])
    await world.mine(2)
    assert await world.nonce() == 0


async def test_stored_bytes_are_sent_after_a_death(world: World) -> None:
    """What was stored and not sent is sent by the next process, byte for byte."""
    first = await world.machine()
    await world.enqueue(first, "one")
    await world.crash(first, "chain.assign.after_commit")
    await world.mine(2)
    assert (await world.state("one"), await world.nonce()) == ("signed", 0)
    (stored,) = await world.attempts("one")
    async with running(await world.machine()):
        await world.until_told(1)
    assert (await world.row("one"))["transaction_hash"] == stored["transaction_hash"]


async def test_mined_while_down(world: World) -> None:
    """What was sent, and mined while no process ran, is found and told."""
    first = await world.machine()
    await world.enqueue(first, "one")
    await world.crash(first, "chain.broadcast.after_send")
    await world.mine(5)
    assert (await world.state("one"), await world.nonce()) == ("signed", 1)
    async with running(await world.machine()):
        assert await world.until_told(1, mining=False) == {"one": "final"}


async def test_dropped(world: World) -> None:
    """Bytes that the node has forgotten are sent again, the same."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        (sent,) = await world.attempts("one")
        await world.node.call("anvil_dropTransaction", "0x" + sent["transaction_hash"].hex())
        assert await world.until_told(1) == {"one": "final"}
    assert [each["transaction_hash"] for each in await world.attempts("one")] == [sent["transaction_hash"]]
    assert await world.effects() == [b"one"]


async def test_foreign_nonce(world: World) -> None:
    """A nonce that somebody else used is a person's matter, with evidence; nothing is sent again under another nonce."""
    first = await world.machine()
    await world.enqueue(first, "one")
    await world.crash(first, "chain.assign.after_commit")
    _, foreign_hash = await world.foreign(0)
    await world.mine()
    machine = await world.machine()
    async with running(machine):
        await asyncio.sleep(0.3)
        assert await world.state("one") == "signed", "not before the rival is final"
        assert await world.until_told(1) == {"one": "manual"}
        await world.enqueue(machine, "two")
        assert (await world.until_told(2))["two"] == "final"
    evidence = json.loads((await world.row("one"))["evidence"])
    assert (evidence["foreign_hash"], evidence["nonce"], evidence["foreign_block_number"]) == (foreign_hash, 0, 2)
    assert await world.effects() == [b"two"]


async def test_nonces_used_elsewhere_are_passed_over(world: World) -> None:
    """Nonces that others used, or that lie in the pool, before anything was signed are not given again."""
    await world.foreign(0)
    await world.mine()
    await world.foreign(1)
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        assert await world.until_told(1) == {"one": "final"}
    assert (await world.row("one"))["nonce"] == 2


async def test_reorganisation(world: World) -> None:
    """A transaction whose block is no longer canonical goes back to sent, and nothing was told meanwhile; then it is mined again, the same."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        await world.mine()
        await world.until_state("one", "mined")
        before = await world.row("one")
        await world.node.call("anvil_reorg", 1, [])
        await world.until_state("one", "sent")
        assert await world.told() == {}

        async def sent_again() -> bool:
            return await world.node.call("eth_getTransactionByHash", "0x" + before["transaction_hash"].hex()) is not None

        await world.until(sent_again)
        assert await world.until_told(1) == {"one": "final"}
    after = await world.row("one")
    assert after["transaction_hash"] == before["transaction_hash"]
    assert after["block_hash"] != before["block_hash"]
    assert await world.effects() == [b"one"]


async def test_reorganisation_with_a_rival(world: World) -> None:
    """A reorganisation that puts somebody else's transaction of the same nonce in our place ends with a person, not before finality."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        await world.mine()
        await world.until_state("one", "mined")
        raw, foreign_hash = await world.foreign(0, send=False)
        await world.node.call("anvil_reorg", 1, [["0x" + raw.hex(), 0]])
        await world.until_state("one", "sent")
        assert await world.told() == {}
        assert await world.until_told(1) == {"one": "manual"}
    assert json.loads((await world.row("one"))["evidence"])["foreign_hash"] == foreign_hash
    assert await world.effects() == []


async def test_reorganisation_to_another_attempt(world: World) -> None:
    """A reorganisation that puts what was cancelled in the place of its cancellation: what is told is the end that is final; no person is called."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        async with world.db.transaction() as tx:
            assert await machine.request_cancel(tx, "one")

        async def replaced() -> bool:
            return [each["answer"] for each in await world.attempts("one")][1:] == ["accepted"]

        await world.until(replaced)
        await world.mine()
        await world.until_state("one", "mined")
        sent, cancelling = await world.attempts("one")
        assert (await world.row("one"))["transaction_hash"] == cancelling["transaction_hash"]
        await world.node.call("anvil_reorg", 1, [["0x" + sent["raw"].hex(), 0]])
        assert await world.until_told(1) == {"one": "final"}
    assert (await world.row("one"))["transaction_hash"] == sent["transaction_hash"]
    assert (await world.effects(), await world.nonce()) == ([b"one"], 1)


async def no_receipts(hashes: Sequence[bytes]) -> Mapping[bytes, Receipt]:
    del hashes
    return {}


async def no_blocks(number: int) -> Sequence[SenderTransaction]:
    raise EvmUnavailable(f"there is no block {number}")


async def test_node_that_lags(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that finds neither a receipt nor who used the nonce says nothing: the transaction is not a person's, and its end is told once it is found."""
    machine = await world.machine()
    with monkeypatch.context() as patch:
        patch.setattr(world.evms[-1], "receipts", no_receipts)
        patch.setattr(world.evms[-1], "transactions_in", no_blocks)
        async with running(machine):
            await world.enqueue(machine, "one")
            await world.until_state("one", "sent")
            await world.mine(3 * FINAL_BLOCKS, pause=0.05)
            assert await world.told() == {}
            patch.undo()
            assert await world.until_told(1) == {"one": "final"}


async def doubted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """For some rounds the node shows each block with the nonce of the next one; nobody is told anything."""
    evm, shown = world.evms[-1], []
    real = evm.nonce

    async def ahead(address: str, number: int) -> int:
        shown.append(await real(address, number) + 1)
        return shown[-1]

    async def looked() -> bool:
        return len(shown) > 10

    with monkeypatch.context() as patch:
        patch.setattr(evm, "nonce", ahead)
        await world.until(looked)
    assert await world.told() == {}


async def test_node_that_runs_ahead(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that takes up a block may show its state by the number of the one before: a nonce that nobody used says nothing, and nobody is called."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        await doubted(world, monkeypatch)
        assert await world.until_told(1) == {"one": "final"}


async def test_a_doubt_that_was_dispelled_does_not_count_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nonce that turned out to be ours is looked for as long as any other when a reorganisation raises the doubt anew."""
    monkeypatch.setattr(follower, "SEARCH_BLOCKS_MAX", 1)
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        await doubted(world, monkeypatch)
        await world.mine()
        await world.until_state("one", "mined")
        await world.node.call("anvil_reorg", 1, [])
        await world.until_state("one", "sent")
        await doubted(world, monkeypatch)
        assert await world.until_told(1) == {"one": "final"}


async def test_node_that_has_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nonce is used and the node cannot say by whom, for many blocks: then it is a person's matter, without that evidence."""
    monkeypatch.setattr(follower, "SEARCH_BLOCKS_MAX", 3)
    first = await world.machine()
    await world.enqueue(first, "one")
    await world.crash(first, "chain.assign.after_commit")
    await world.foreign(0)
    await world.mine()
    machine = await world.machine()
    monkeypatch.setattr(world.evms[-1], "transactions_in", no_blocks)
    async with running(machine):
        assert await world.until_told(1) == {"one": "manual"}
    assert json.loads((await world.row("one"))["evidence"])["foreign_hash"] is None


async def spike(world: World, wei: int) -> None:
    """A block whose base fee keeps out what pays less."""
    await world.node.call("anvil_setNextBlockBaseFeePerGas", hex(wei))
    await world.mine(pause=0.1)


async def test_fee_spike(world: World) -> None:
    """A transaction that its fees keep out is replaced by one that pays at least 10 % more on both fields; one of the two takes effect."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")

        async def replaced() -> bool:
            await spike(world, 40 * 10**9)
            return len(await world.attempts("one")) > 1

        await world.until(replaced)
        assert await world.until_told(1) == {"one": "final"}
    first, second = (await world.attempts("one"))[:2]
    assert second["kind"] == "bump"
    assert (second["max_fee"] >= first["max_fee"] * 11 / 10, second["tip"] >= first["tip"] * 11 / 10) == (True, True)
    assert (await world.effects(), await world.nonce()) == ([b"one"], 1)


@pytest.mark.parametrize("place", ["chain.replace.in_tx", "chain.replace.after_commit"])
async def test_death_while_replacing(world: World, place: str) -> None:
    """A process that dies while it replaces leaves one effect and one nonce."""
    machine = await world.machine(resend_blocks=1)
    await world.enqueue(machine, "one")
    task = asyncio.create_task(spikes(world))
    try:
        await world.crash(machine, place)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with running(await world.machine()):
        assert await world.until_told(1) == {"one": "final"}
    assert (await world.effects(), await world.nonce()) == ([b"one"], 1)


async def spikes(world: World) -> None:
    """Expensive blocks, once a transaction is on its way."""
    await world.until_state("one", "sent")
    while True:
        await spike(world, 40 * 10**9)


async def test_the_ceiling(world: World) -> None:
    """No attempt ever offers more than the ceiling; while that is too little nothing is signed, and it goes on when fees have fallen."""
    machine = await world.machine(max_fee_ceiling_wei=5 * 10**9)
    await spike(world, 40 * 10**9)
    async with running(machine):
        await world.enqueue(machine, "one")
        await asyncio.sleep(0.3)
        assert await world.state("one") == "queued"
        await spike(world, 10**9)
        assert await world.until_told(1) == {"one": "final"}
    assert all(each["max_fee"] <= 5 * 10**9 for each in await world.attempts("one"))


async def test_cancel_unblocks(world: World) -> None:
    """A transaction that is cancelled in time never takes effect, is told so at finality, and blocks no other."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        async with world.db.transaction() as tx:
            assert await machine.request_cancel(tx, "one")

        async def replaced() -> bool:
            return [each["kind"] for each in await world.attempts("one")] == ["send", "cancel"]

        await world.until(replaced)
        await world.enqueue(machine, "two")
        assert await world.until_told(2) == {"one": "cancelled", "two": "final"}
        async with world.db.transaction() as tx:
            assert not await machine.request_cancel(tx, "one")
    assert await world.effects() == [b"two"]


async def test_cancelled_too_late(world: World) -> None:
    """Asking to cancel what is mined already changes nothing: what was mined is told."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        await world.mine()
        await world.until_state("one", "mined")
        async with world.db.transaction() as tx:
            assert not await machine.request_cancel(tx, "one")
        assert await world.until_told(1) == {"one": "final"}


async def test_gap(world: World) -> None:
    """A nonce that nobody has, below others, is used up by an empty transaction of which no service is told."""
    async with world.database.as_owner() as connection:
        await connection.execute(
            "insert into evm_signer (chain_id, address, next_nonce) values ($1, $2, 2)", CHAIN_ID, world.account.address
        )
    machine = await world.machine(resend_blocks=1)
    async with running(machine):
        await world.enqueue(machine, "one")
        assert await world.until_told(1) == {"one": "final"}
    assert (await world.row("one"))["nonce"] == 2
    assert (await world.nonce(), await world.effects()) == (3, [b"one"])


async def test_two_machines_are_one_sender(world: World) -> None:
    """Two machines on one account share its lease: nothing is done twice, and either goes on when the other ends."""
    first, second = await world.machine(), await world.machine()
    keys = [f"key {number:02}" for number in range(40)]
    async with running(first, second):
        for start in range(0, 20, 5):
            await world.enqueue(first, *keys[start : start + 3])
            await world.enqueue(second, *keys[start + 3 : start + 5])
        await world.until_told(20)
    third = await world.machine()
    async with running(second, third):
        await world.enqueue(third, *keys[20:])
        assert await world.until_told(40) == dict.fromkeys(keys, "final")
    assert await world.effects() == [key.encode() for key in keys]
    assert await world.nonce() == 40


async def test_take_over(world: World) -> None:
    """A machine whose predecessor was killed waits for the end of its lease, then goes on."""
    async with world.database.as_owner() as connection:
        await connection.execute(
            "insert into evm_signer (chain_id, address, next_nonce, lease_holder, lease_until)"
            " values ($1, $2, 0, 'the dead', clock_timestamp() + interval '100 seconds')",
            CHAIN_ID, world.account.address,
        )  # fmt: skip
    machine = await world.machine(lease_seconds=60.0)
    async with running(machine):
        await world.enqueue(machine, "one")
        await asyncio.sleep(0.5)
        assert await world.state("one") == "queued"
        async with world.database.as_owner() as connection:
            await connection.execute("update evm_signer set lease_until = clock_timestamp()")
        assert await world.until_told(1) == {"one": "final"}


async def test_no_block_can_hold_it(world: World) -> None:
    """Bytes that no block can hold free their nonce with an empty transaction, are told as cancelled, and block no other."""
    await world.node.call("evm_setBlockGasLimit", hex(190_000))
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "large")
        async with world.db.transaction() as tx:
            await machine.enqueue(tx, [Intent("small", world.contract, b"small", 100_000)])
        assert await world.until_told(2) == {"large": "cancelled", "small": "final"}
    assert await world.effects() == [b"small"]


async def test_without_money_it_waits(world: World) -> None:
    """An account that cannot pay for gas signs nothing; what it signed when it could, it sends again, the same, until it can again."""
    first = await world.machine()
    await world.enqueue(first, "one")
    await world.crash(first, "chain.assign.after_commit")
    await world.node.call("anvil_setBalance", world.account.address, "0x0")
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "two")
        await world.mine(5, pause=0.05)
        assert (await world.state("one"), await world.state("two")) == ("signed", "queued")
        await world.node.call("anvil_setBalance", world.account.address, hex(10**21))
        assert await world.until_told(2) == {"one": "final", "two": "final"}
    assert [len(await world.attempts(key)) for key in ("one", "two")] == [1, 1]


async def test_lost_answer(world: World) -> None:
    """Bytes that the node took without an answer are the transaction: it is found, and nothing is sent under another nonce."""
    machine = await world.machine(request_seconds_max=SILENCE_SECONDS)
    async with running(machine):
        world.strict.faults.unanswered = frozenset({strict_node.SEND})
        await world.enqueue(machine, "one", "two")

        async def taken() -> bool:
            return int((await world.node.call("txpool_status"))["pending"], 16) == 2

        await world.until(taken)
        await world.mine()
        assert (await world.nonce(), await world.told()) == (2, {})
        world.strict.faults.unanswered = frozenset()
        assert await world.until_told(2) == {"one": "final", "two": "final"}
    assert (await world.effects(), await world.nonce()) == ([b"one", b"two"], 2)
    assert [len(await world.attempts(key)) for key in ("one", "two")] == [1, 1]


async def test_a_lagging_endpoint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that knows the nonce is used but has not found the receipt yet is asked again: our own transaction is nobody else's."""
    first = await world.machine()
    await world.enqueue(first, "one")
    await world.crash(first, "chain.broadcast.after_send")
    await world.mine(5)
    machine = await world.machine()
    evm = world.evms[-1]
    read, asked = evm.receipts, 0

    async def lag(hashes: Sequence[bytes]) -> Mapping[bytes, Receipt]:
        nonlocal asked
        asked += 1
        return {} if asked <= 2 else await read(hashes)

    monkeypatch.setattr(evm, "receipts", lag)
    async with running(machine):
        assert await world.until_told(1, mining=False) == {"one": "final"}
    assert asked > 2


async def test_an_ending_is_told_once(world: World) -> None:
    """Whoever else settles the same transaction: it is told once."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
    await world.mine(4)
    (sent,) = await world.attempts("one")
    (receipt,) = (await world.evms[-1].receipts([sent["transaction_hash"]])).values()
    ending = Ending(Reference((await world.row("one"))["id"], "one", "", None, None, None), State.FINAL, receipt)
    settlers = [Settler(world.db, world.foresee, "test") for _ in range(8)]
    await asyncio.gather(*(settler.settle([ending], Block(2, bytes(32), 0, 0)) for settler in settlers))
    assert await world.told() == {"one": "final"}


async def test_without_a_chain_it_waits(world: World) -> None:
    """While the nonce cannot be asked nothing is signed; while receipts cannot be asked nothing is concluded; then it goes on."""
    machine = await world.machine()
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        world.process.send_signal(signal.SIGSTOP)
        await world.enqueue(machine, "two")
        await asyncio.sleep(1.5)
        assert (await world.state("one"), await world.state("two")) == ("sent", "queued")
        world.process.send_signal(signal.SIGCONT)
        assert await world.until_told(2) == {"one": "final", "two": "final"}
    assert await world.effects() == [b"one", b"two"]
