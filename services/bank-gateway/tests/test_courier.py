"""Messages out, on a real database, with a rail that the test answers itself: what is sent, sent again, and asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from bank_samples import booking, one_status, resolution, status_report
from courier_bench import LEG, Bench, asks, bench_over, phase_of, sends

from bank_gateway import courier
from bank_gateway.rail import Accepted, NoAnswer, TurnedDown
from bank_gateway.references import references
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_kit.participant import convert
from lockstep_testkit import commands, factories
from lockstep_testkit.clocks import JumpingClock
from lockstep_testkit.databases import TestDatabase


async def test_lost_answer_to_a_cancellation_is_asked_for(bench: Bench) -> None:
    """Overdue in ABORTING, the request to cancel goes out again under a new name, in turn with a question; never twice at once."""
    await bench.prepare()
    await bench.abort()
    for _ in range(3):
        await asyncio.sleep(0.05)
        await bench.courier.inquire()
        await bench.courier.send_due()
    assert bench.sent() == ["pacs.008", "camt.056", "camt.056", "pacs.028", "camt.056"]
    assert len({name for name, _ in bench.bank.sent}) == 5
    assert phase_of(await bench.told(resolution("CNCL", "ACCR"))) is Phase.RELEASED


async def test_no_answer_is_sent_again_as_a_possible_duplicate(bench: Bench) -> None:
    """The same document under the same key, marked; a bank that turns down a repeat has said nothing about the first."""
    bench.bank.handovers = [NoAnswer("timeout"), Accepted()]
    await bench.prepare()
    await sends(bench, 2)
    (first_key, first), (second_key, second) = bench.bank.sent
    assert first_key == second_key
    assert b"<PssblDplct>true</PssblDplct>" in second
    assert first.split(b"<Document", 1)[1] == second.split(b"<Document", 1)[1]
    assert phase_of(await bench.told(status_report(one_status("ACFW")))) is Phase.PREPARED


async def test_payment_that_is_turned_down_is_a_no(bench: Bench) -> None:
    """The rail refuses the message itself: the leg votes NO with the rule that the bank named."""
    bench.bank.handovers = [TurnedDown("400", "Document", "XSD")]
    await bench.prepare()
    assert phase_of(await bench.record()) is Phase.REFUSED


async def test_payment_whose_name_the_bank_knows_is_no_no(bench: Bench) -> None:
    """The bank has other content under the payment's name, as after a restore: nobody says NO before the bank was asked what it holds."""
    bench.bank.handovers = [TurnedDown("409", "Idempotency-Key", "SAME_CONTENT", differs=True)]
    await bench.prepare()
    doubtful = await bench.record()
    assert (phase_of(doubtful), "SAME_CONTENT" in doubtful.trouble) == (Phase.PREPARING, True)
    await asyncio.sleep(0.05)
    await bench.courier.inquire()
    await bench.courier.send_due()
    assert bench.sent() == ["pacs.008", "pacs.028"]
    held = await bench.told(status_report(one_status("ACFW")))
    assert (phase_of(held), held.trouble) == (Phase.PREPARED, "")


async def test_question_that_is_turned_down_is_no_no(bench: Bench) -> None:
    """The bank took the payment and turns down a question about it: that says nothing of the payment."""
    bench.bank.handovers = [Accepted(), TurnedDown("400", "Document", "XSD")]
    await bench.prepare()
    await asyncio.sleep(0.05)
    await bench.courier.inquire()
    await bench.courier.send_due()
    assert bench.sent() == ["pacs.008", "pacs.028"]
    record = await bench.record()
    assert (phase_of(record), "turned down" in record.trouble) == (Phase.PREPARING, True)


async def test_question_that_is_turned_down_after_its_answer_is_nobodys_business(bench: Bench) -> None:
    """What is turned down about a payment whose leg has its answer already contradicts nothing, and calls nobody."""
    await bench.prepare()
    await bench.told(status_report(one_status("ACFW")))
    await bench.commit()
    await asyncio.sleep(0.05)
    await bench.courier.inquire()
    await bench.told(status_report(one_status("ACSC")), booking())
    bench.bank.handovers = [TurnedDown("400", "Document", "XSD")]
    await bench.courier.send_due()
    assert bench.sent() == ["pacs.008", "pacs.028"]
    record = await bench.record()
    assert (phase_of(record), record.trouble) == (Phase.COMMITTED, "")


async def test_repeat_that_is_turned_down_is_no_no(bench: Bench) -> None:
    """The first attempt may have arrived: turning down the second leaves open what the bank holds."""
    bench.bank.handovers = [NoAnswer("timeout"), TurnedDown("400", "Document", "XSD")]
    await bench.prepare()
    await sends(bench, 2)
    record = await bench.record()
    assert (phase_of(record), "turned down" in record.trouble) == (Phase.PREPARING, True)


async def test_what_comes_later_waits_for_what_comes_before(bench: Bench) -> None:
    """While nobody knows whether the payment arrived, its cancellation stays behind it; another leg's payment does not."""
    bench.bank.handovers = [NoAnswer("timeout")]
    await bench.prepare()
    await bench.abort()
    first = bench.plan
    bench.plan = factories.delivery_versus_payment()
    await bench.prepare()
    bench.plan = first
    await sends(bench, 4)
    assert [kind for kind in bench.sent() if kind != "pacs.008"] == ["camt.056"]
    own = [octets for _, octets in bench.bank.sent if bench.names.uetr.encode() in octets]
    assert [b"camt.056" in octets[:600] for octets in own] == [False, False, True]


async def test_a_clock_that_is_set_back_makes_no_message_wait(bench: Bench) -> None:
    """What is tried again later is not sent before; what would be later than anything is put off for is sent at once, since the clock was set back."""
    bench.bank.handovers = [NoAnswer("timeout")]
    await bench.prepare()
    for ahead, sent in (("20 s", 1), ("1 h", 2)):
        async with bench.db.connection() as connection:
            await connection.execute(f"update bank_outbox set due_at = clock_timestamp() + interval '{ahead}'")
        await bench.courier.send_due()
        assert len(bench.bank.sent) == sent


async def test_questions_begin_anew_in_each_phase(bench: Bench) -> None:
    """However often the hold was asked about, the first question about the settlement does not wait for it."""
    bench.settings.inquiry_seconds_max = 3600.0
    await bench.prepare()
    async with bench.db.connection() as connection:
        await connection.execute(
            "update bank_payment set inquiries = 40, inquired_at = clock_timestamp(), "
            "inquiries_since = (select phase_since from participant_leg where leg_id = 'cash')"
        )
    await asks(bench)
    assert bench.sent() == ["pacs.008"]
    await bench.told(status_report(one_status("ACFW")))
    await bench.commit()
    await asks(bench)
    assert bench.sent() == ["pacs.008", "pacs.028"]


async def test_questions_never_stop(bench: Bench) -> None:
    """However often it was asked, the bank is asked again after the longest wait, and not before; a clock that was set back makes nobody wait."""
    bench.settings.inquiry_seconds_max = 600.0
    await bench.prepare()
    for inquired_at, asked in (("- interval '599 s'", False), ("- interval '601 s'", True), ("+ interval '1 h'", True)):
        async with bench.db.connection() as connection:
            await connection.execute(
                f"update bank_payment set inquiries = 1000000, inquired_at = clock_timestamp() {inquired_at}, "
                "inquiries_since = (select phase_since from participant_leg where leg_id = 'cash')"
            )
        before = len(bench.bank.sent)
        await asks(bench)
        assert bench.sent()[before:] == ["pacs.028"] * asked


async def test_key_is_shown_again_while_the_leg_is_executed(bench: Bench) -> None:
    """A bank that forgot that the key was shown is shown it again, in turn with the question; a leg that is given up meanwhile is not released again."""
    await bench.prepare()
    await bench.told(status_report(one_status("ACFW")))
    await bench.commit()
    for _ in range(4):
        await asks(bench)
    assert bench.sent() == ["pacs.008", "pacs.028", "pacs.028"]
    assert bench.bank.released == [(bench.names.uetr, bench.plan.key(LEG))] * 3
    await bench.abort()
    for _ in range(4):
        await asks(bench)
    assert len(bench.bank.released) == 3


async def test_asking_waits_for_nobody(bench: Bench) -> None:
    """A payment that somebody is working on is left to the next time: two who ask, or one who asks and one who listens, never wait in a circle."""
    await bench.prepare()
    await asyncio.sleep(0.05)
    async with bench.db.transaction() as tx:
        await tx.fetch("select from bank_payment for update")
        async with asyncio.timeout(60):
            await bench.courier.inquire()
    assert await queued(bench) == 0
    await bench.courier.inquire()
    assert await queued(bench) == 1


async def test_one_that_hangs_does_not_hold_up_the_others(bench: Bench) -> None:
    """What is due goes in one request: a bank that does not answer costs all payments one time-out, and not each its own."""
    plans = [bench.plan] + [factories.delivery_versus_payment() for _ in range(7)]
    for plan in plans:
        item = convert.read_prepare(commands.prepare(plan, LEG))
        await bench.engine.execute(item.command, [item], 0)
    await bench.courier.send_due()
    assert bench.bank.handed_over == [len(plans)]


async def queued(bench: Bench) -> int:
    async with bench.db.connection() as connection:
        return int(await connection.fetchval("select count(*) from bank_outbox where state = 'QUEUED'"))


async def test_questions_are_bounded_in_each_round(
    database_for: Callable[..., Awaitable[TestDatabase]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many legs owe an answer, a round asks about so many; the others have their turn in the next, longest waiting first."""
    monkeypatch.setattr(courier, "INQUIRED_MAX", 2)
    database = await database_for("bank_gateway")
    clock = JumpingClock(database.owner_url)
    await clock.prepare()
    async with bench_over(database, inquiry_seconds=300.0, inquiry_seconds_max=3_600.0) as bench:
        await assert_questions_are_bounded(bench, clock)


async def assert_questions_are_bounded(bench: Bench, clock: JumpingClock) -> None:
    """Five legs, which are all overdue once the clock has gone on; nothing is overdue again before the last was asked about."""
    plans = [factories.delivery_versus_payment() for _ in range(5)]
    for plan in plans:
        item = convert.read_prepare(commands.prepare(plan, LEG))
        await bench.engine.execute(item.command, [item], 0)
    await bench.courier.send_due()
    await clock.set(timedelta(seconds=301))
    asked: list[int] = []
    for _ in range(3):
        await bench.courier.inquire()
        await bench.courier.send_due()
        asked.append(bench.sent().count("pacs.028"))
    assert asked == [2, 4, 5]
    uetrs = [references(plan.plan_id, LegId(LEG)).uetr.encode() for plan in plans]
    questions = [octets for _, octets in bench.bank.sent if b"pacs.028" in octets[:900]]
    assert [sum(uetr in octets for octets in questions) for uetr in uetrs] == [1] * 5
