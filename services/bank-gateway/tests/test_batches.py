"""Many messages at a time: taken in one transaction in their order, sent side by side and noted together; one that spoils a batch is by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio
from bank_samples import BANK, NAMES, booking, one_status, status_report
from courier_bench import LEG, THEIR_BIC, Bench, bench_over, phase_of

from bank_gateway import courier
from bank_gateway.rail import Accepted, Delivery, NoAnswer, TurnedDown
from bank_gateway.references import references
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_kit.participant import convert
from lockstep_testkit import commands, factories
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import PlanCase

COUNT = 5


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_for: Callable[..., Awaitable[TestDatabase]]) -> TestDatabase:
    return await database_for("bank_gateway")


@pytest_asyncio.fixture(loop_scope="session")
async def benches(database: TestDatabase) -> AsyncIterator[list[Bench]]:
    """One gateway, and a leg of each of some plans."""
    async with bench_over(database) as bench:
        yield [bench, *(replace(bench, plan=factories.delivery_versus_payment()) for _ in range(COUNT - 1))]


def puts(bench: Bench, octets: bytes, name: str) -> None:
    """The bank puts a message about this leg's payment into the mailbox."""
    text = octets.decode().replace(BANK, THEIR_BIC).replace("ANSWER1", name)
    for each in ("message_id", "instruction_id", "end_to_end_id", "transaction_id", "uetr"):
        text = text.replace(getattr(NAMES, each), getattr(bench.names, each))
    bench.bank.waiting.append(Delivery(len(bench.bank.waiting) + 1, text.encode()))


async def transactions(bench: Bench, query: str) -> list[int]:
    """How many rows each transaction wrote last, most first."""
    async with bench.db.connection() as connection:
        rows = await connection.fetch(f"select count(*) as n from ({query}) as written (by) group by by order by n desc")
    return [row["n"] for row in rows]


async def prepared(plans: list[PlanCase], bench: Bench) -> None:
    for plan in plans:
        item = convert.read_prepare(commands.prepare(plan, LEG))
        await bench.engine.execute(item.command, [item], 0)


async def phases(benches: list[Bench]) -> list[Phase | None]:
    return [phase_of(await each.record()) for each in benches]


async def test_what_waits_in_the_mailbox_is_taken_in_one_transaction(benches: list[Bench]) -> None:
    """Each payment by itself: every leg is where its own messages bring it, and all were kept at once."""
    bench = benches[0]
    for each in benches:
        await each.prepare()
    for number, each in enumerate(benches):
        puts(each, status_report(one_status("RJCT", "AM04") if number == 2 else one_status("ACFW")), f"HELD{number}")
    await bench.courier.receive()
    yes, no = Phase.PREPARED, Phase.REFUSED
    assert await phases(benches) == [yes, yes, no, yes, yes]
    assert bench.bank.acknowledged == COUNT
    assert await transactions(bench, "select xmin::text from bank_message where direction = 'IN'") == [COUNT]


async def test_messages_about_one_payment_are_heard_in_their_order(benches: list[Bench]) -> None:
    """What a later one means depends on what the one before it did, in one batch as in many; both halves of a settlement may come at once."""
    for each in benches[:2]:
        await each.prepare()
    puts(benches[0], status_report(one_status("ACTC")), "FIRST1")
    puts(benches[1], status_report(one_status("RJCT", "AM04")), "FIRST2")
    puts(benches[0], status_report(one_status("ACFW")), "SECOND1")
    # A hold after a refusal is for a person.
    puts(benches[1], status_report(one_status("ACFW")), "SECOND2")
    await benches[0].courier.receive()
    assert await phases(benches[:2]) == [Phase.PREPARED, Phase.REFUSED]
    assert "while the leg is REFUSED" in (await benches[1].record()).trouble
    await benches[0].commit()
    puts(benches[0], booking(), "THIRD1")
    puts(benches[0], status_report(one_status("ACSC")), "FOURTH1")
    await benches[0].courier.receive()
    assert await phases(benches[:1]) == [Phase.COMMITTED]
    assert await transactions(benches[0], "select xmin::text from bank_message where direction = 'IN'") == [4, 2]


async def test_one_that_spoils_a_batch_is_by_itself(benches: list[Bench], database: TestDatabase) -> None:
    """What cannot be kept holds up what comes after it, and is tried again; what was before it is done. Once it can be kept, all are."""
    bench = benches[0]
    async with database.as_owner() as owner:
        await owner.execute("alter table bank_message add constraint bank_message_spoilt check (message_id <> 'HELD3')")
    for each in benches:
        await each.prepare()
    for number, each in enumerate(benches):
        puts(each, status_report(one_status("ACFW")), f"HELD{number}")
    yes, asked = Phase.PREPARED, Phase.PREPARING
    for _ in range(2):
        with pytest.raises(asyncpg.CheckViolationError):
            await bench.courier.receive()
        assert await phases(benches) == [yes, yes, yes, asked, asked]
    async with database.as_owner() as owner:
        await owner.execute("alter table bank_message drop constraint bank_message_spoilt")
    await bench.courier.receive()
    assert await phases(benches) == [yes] * COUNT
    assert bench.bank.acknowledged == COUNT


async def test_what_cannot_be_read_is_between_what_can(benches: list[Bench]) -> None:
    """Those before and behind it are taken, and it alone is in the quarantine."""
    for each in benches[:2]:
        await each.prepare()
    puts(benches[0], status_report(one_status("ACFW")), "HELD0")
    puts(benches[0], b"<!DOCTYPE a><a/>", "")
    puts(benches[1], status_report(one_status("ACFW")), "HELD1")
    await benches[0].courier.receive()
    assert await phases(benches[:2]) == [Phase.PREPARED] * 2
    async with benches[0].db.connection() as connection:
        assert await connection.fetchval("select array_agg(cursor) from bank_quarantine") == [2]


async def test_a_mailbox_that_another_replica_reads_is_read_again(benches: list[Bench]) -> None:
    """Between reading and keeping another replica has taken the first of three: nothing of them is taken twice, or acknowledged unseen."""
    bench = benches[0]
    for each in benches[:3]:
        await each.prepare()
    for number, each in enumerate(benches[:3]):
        puts(each, status_report(one_status("ACFW")), f"HELD{number}")
    all_three = list(bench.bank.waiting)
    bench.bank.waiting = all_three[:1]
    reading = bench.bank.receive

    async def late(after: int, wait_seconds: float) -> list[Delivery]:
        bench.bank.receive = reading  # type: ignore[method-assign]
        await bench.courier.receive()
        bench.bank.acknowledged = 0
        return all_three

    bench.bank.receive = late  # type: ignore[method-assign]
    await bench.courier.receive()
    assert await phases(benches[:3]) == [Phase.PREPARED, Phase.PREPARING, Phase.PREPARING]
    assert bench.bank.acknowledged == 0
    bench.bank.waiting = all_three
    await bench.courier.receive()
    assert await phases(benches[:3]) == [Phase.PREPARED] * 3
    assert await transactions(bench, "select xmin::text from bank_message where direction = 'IN'") == [2, 1]


async def test_what_the_bank_took_meanwhile_is_noted_together(benches: list[Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages go in one request; what became of them is noted in one transaction, each with its own end."""
    bench = benches[0]
    # However slow the machine is, what had no answer is not due again at once.
    monkeypatch.setattr(courier, "back_off_seconds", lambda *_, **__: courier.RETRY_SECONDS_MAX)
    await prepared([each.plan for each in benches], bench)
    bench.bank.handovers = [Accepted(), NoAnswer("timeout"), Accepted(), TurnedDown("400", "Document", "XSD"), Accepted()]
    await bench.courier.send_due()
    assert bench.bank.handed_over == [COUNT]
    query = "select xmin::text from bank_outbox where state = 'ACKED' or (state = 'SENT' and due_at > clock_timestamp() - interval '1 h')"
    assert await transactions(bench, query) == [COUNT - 1]
    async with bench.db.connection() as connection:
        ends = {row["uetr"]: row["state"] for row in await connection.fetch("select uetr, state from bank_outbox")}
    order = [octets for _, octets in bench.bank.sent]
    names = [references(each.plan.plan_id, LegId(LEG)).uetr for each in benches]
    sent = [next(name for name in names if name.encode() in octets) for octets in order]
    assert sorted(ends.values()) == ["ACKED", "ACKED", "ACKED", "FAILED", "SENT"]
    (refused,) = [name for name, state in ends.items() if state == "FAILED"]
    assert [phase_of(await each.record()) for each in benches if each.names.uetr == refused] == [Phase.REFUSED]
    assert sorted(sent) == sorted(names)


def joined(*parts: tuple[Bench, bytes], name: str, within: tuple[bytes, bytes]) -> bytes:
    """One message that says of several payments what each of some messages says of its own; `within` are the tags between which it says it."""
    first, last = within
    told = []
    for bench, octets in parts:
        text = octets.decode().replace(BANK, THEIR_BIC).replace("ANSWER1", name)
        for each in ("message_id", "instruction_id", "end_to_end_id", "transaction_id", "uetr"):
            text = text.replace(getattr(NAMES, each), getattr(bench.names, each))
        told.append(text.encode())
    begin, end = told[0].index(first), told[0].rindex(last) + len(last)
    said = b"".join(each[each.index(first) : each.rindex(last) + len(last)] for each in told)
    return told[0][:begin] + said + told[0][end:]


def delivers(bench: Bench, octets: bytes) -> None:
    bench.bank.waiting.append(Delivery(len(bench.bank.waiting) + 1, octets))


STATUSES = (b"<TxInfAndSts>", b"</TxInfAndSts>")
ENTRIES = (b"<Ntry>", b"</Ntry>")


async def test_one_message_tells_of_many_payments(benches: list[Bench]) -> None:
    """Held, refused, settled, booked: of each payment by itself, though one message says it; what is known of a payment is written once."""
    bench = benches[0]
    for each in benches:
        await each.prepare()
    answers = ["RJCT" if number == 1 else "ACFW" for number in range(COUNT)]
    parts = [
        (each, status_report(one_status(code, "AM04" if code == "RJCT" else "")))
        for each, code in zip(benches, answers, strict=True)
    ]
    delivers(bench, joined(*parts, name="HELD", within=STATUSES))
    await bench.courier.receive()
    yes, no = Phase.PREPARED, Phase.REFUSED
    assert await phases(benches) == [yes, no, yes, yes, yes]
    held = [each for each in benches if each is not benches[1]]
    for each in held:
        await each.commit()
    delivers(bench, joined(*((each, status_report(one_status("ACSC"))) for each in held), name="SETTLED", within=STATUSES))
    # The last one's booking is missing, and the second one's is of another amount.
    amounts = ["100.00", "100.01", "100.00"]
    booked = [(each, booking(amount)) for each, amount in zip(held, amounts, strict=False)]
    delivers(bench, joined(*booked, name="BOOKED", within=ENTRIES))
    await bench.courier.receive()
    done, asked = Phase.COMMITTED, Phase.COMMITTING
    assert await phases(held) == [done, asked, done, asked]
    assert "instead of" in (await held[1].record()).trouble
    assert [(await each.record()).trouble for each in (held[0], held[2], held[3])] == [""] * 3
    async with bench.db.connection() as connection:
        kept = await connection.fetch("select message_id, uetr from bank_message where direction = 'IN' order by id")
    assert [tuple(row) for row in kept] == [("HELD", None), ("SETTLED", None), ("BOOKED", None)]


async def test_what_concerns_nobody_here_holds_up_nothing_beside_it(benches: list[Bench]) -> None:
    """Of a payment that nobody knows money is an open matter; those that the same message tells of go on."""
    known, stranger = benches[:2]
    await known.prepare()
    parts = [(each, status_report(one_status("ACFW"))) for each in (stranger, known)]
    delivers(known, joined(*parts, name="HELD", within=STATUSES))
    await known.courier.receive()
    assert await phases([known]) == [Phase.PREPARED]
    async with known.db.connection() as connection:
        matters = await connection.fetch("select kind, uetr, place from bank_matter where closed_at is null")
    assert [tuple(row) for row in matters] == [("UNKNOWN_PAYMENT", stranger.names.uetr, 0)]
