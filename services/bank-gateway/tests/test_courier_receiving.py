"""Messages in, on a real database, with a rail that the test answers itself: what is told of a leg, and what cannot be read."""

from __future__ import annotations

import asyncio
import json

import pytest
from bank_samples import NAMES, booking, group_status, one_status, resolution, status_report
from courier_bench import LEG, Bench, phase_of

from bank_gateway import matters
from bank_gateway.rail import Delivery, MailboxUnavailable
from lockstep_kit.convert import outcome_from_pb
from lockstep_kit.fence import Phase
from lockstep_kit.loops import TaskSupervisor
from lockstep_kit.participant import convert
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.statements import BankEvidence


async def test_held_released_booked(bench: Bench) -> None:
    """ACFW votes YES; the key goes out at Commit; status and booking settle, and both messages are named in the evidence."""
    await bench.prepare()
    assert bench.sent() == ["pacs.008"]
    assert phase_of(await bench.told(status_report(one_status("ACFW")))) is Phase.PREPARED
    await bench.commit()
    assert bench.bank.released == [(bench.names.uetr, bench.plan.key(LEG))]
    assert phase_of(await bench.told(status_report(one_status("ACSC")))) is Phase.COMMITTING
    settled = await bench.told(booking())
    assert (phase_of(settled), settled.trouble) == (Phase.COMMITTED, "")
    evidence = evidence_of(settled)
    assert (evidence.status, evidence.booking_reference, len(evidence.booking_sha256)) == ("ACSC", "B1", 32)


async def test_group_rejection_reaches_the_leg(bench: Bench) -> None:
    """A pacs.002 that rejects the whole message and names no payment is a NO for the payment in it."""
    await bench.prepare()
    assert phase_of(await bench.told(status_report(group_status("RJCT", "AC04")))) is Phase.REFUSED


async def test_release_is_signed_with_the_bank_s_answer(bench: Bench) -> None:
    """The outcome of an Abort names the camt.029."""
    await bench.prepare()
    await bench.told(status_report(one_status("ACFW")))
    await bench.abort()
    released = await bench.told(resolution("CNCL", "ACCR"))
    assert phase_of(released) is Phase.RELEASED
    assert evidence_of(released).status == "CNCL"


async def test_found_settled_after_a_release(bench: Bench) -> None:
    """Money that moves after the bank's CNCL is told as executed, and the row says so."""
    await bench.prepare()
    await bench.abort()
    assert phase_of(await bench.told(resolution("CNCL", "ACCR"))) is Phase.RELEASED
    half = await bench.told(status_report(one_status("ACSC")))
    assert phase_of(half) is Phase.RELEASED
    assert half.trouble
    assert phase_of(await bench.told(booking())) is Phase.COMMITTED


async def test_each_message_is_judged_once(bench: Bench) -> None:
    """Two readers of one mailbox: what one has stored is nothing for the other, also when its own view of the mailbox is older."""
    await bench.prepare()
    await bench.told(status_report(one_status("ACFW")))
    before = await bench.record()
    stale = Delivery(1, bench.bank.waiting[0].octets.replace(b"ACFW", b"XXXX"))
    bench.bank.behind = [stale, Delivery(1, b"<not-xml")]
    await bench.courier.receive()
    assert await bench.record() == before
    async with bench.db.connection() as connection:
        assert await connection.fetchval("select count(*) from bank_quarantine") == 0


async def test_mailbox_that_never_waits_is_not_hammered(bench: Bench) -> None:
    """A bank that answers an empty mailbox at once, and one that is away, are asked a few times a second, not thousands of times."""
    for away in (False, True):
        bench.bank.away, bench.bank.reads = away, 0
        supervisor = TaskSupervisor()
        began = asyncio.get_running_loop().time()
        supervisor.start(*bench.courier.loops())
        for _ in range(1200):
            if bench.bank.reads:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        await supervisor.stop()
        assert 1 <= bench.bank.reads <= 15 * (asyncio.get_running_loop().time() - began)


async def test_unreadable_message_is_kept_and_passed_over(bench: Bench) -> None:
    """A message that breaks a rule is quarantined octet by octet; the next one is read all the same."""
    await bench.prepare()
    record = await bench.told(b"<!DOCTYPE a><a/>", status_report(one_status("ACFW")))
    assert phase_of(record) is Phase.PREPARED
    async with bench.db.connection() as connection:
        kept = await connection.fetch("select octets, field, rule from bank_quarantine")
    assert [(row["octets"], row["field"]) for row in kept] == [(b"<!DOCTYPE a><a/>", "message")]


def evidence_of(record: LegRecord) -> BankEvidence:
    assert record.outcome is not None
    evidence = outcome_from_pb(convert.report_of(record).outcome).outcome.evidence
    assert isinstance(evidence, BankEvidence)
    return evidence


async def test_damaged_delivery_holds_up_nothing(bench: Bench) -> None:
    """A delivery that is not whole is read again a few times, then kept in the quarantine and passed over; what was before it is taken at once."""
    await bench.prepare()
    await bench.told(status_report(one_status("ACTC")))
    answer = bench.bank.waiting[0].octets.replace(b"ACTC", b"ACFW").replace(b"ANSWER1", b"ANSWER2")
    bench.bank.waiting += [Delivery(2, answer[:-1], "has another hash"), Delivery(3, answer)]
    for read in range(1, 4):
        if read < 3:
            with pytest.raises(MailboxUnavailable, match="another hash"):
                await bench.courier.receive()
            assert (phase_of(await bench.record()), bench.bank.acknowledged) == (Phase.PREPARING, 1)
        else:
            await bench.courier.receive()
    assert (phase_of(await bench.record()), bench.bank.acknowledged) == (Phase.PREPARED, 3)
    async with bench.db.connection() as connection:
        (kept,) = await connection.fetch("select cursor, octets, field from bank_quarantine")
    assert (kept["cursor"], kept["octets"], kept["field"]) == (2, answer[:-1], "sha256")


async def test_damage_on_the_way_is_read_again(bench: Bench) -> None:
    """What was damaged once and is whole the next time is no business of the quarantine."""
    await bench.prepare()
    await bench.told(status_report(one_status("ACTC")))
    answer = bench.bank.waiting[0].octets.replace(b"ACTC", b"ACFW").replace(b"ANSWER1", b"ANSWER2")
    bench.bank.waiting.append(Delivery(2, answer[:-1], "has another hash"))
    with pytest.raises(MailboxUnavailable):
        await bench.courier.receive()
    bench.bank.waiting[1] = Delivery(2, answer)
    await bench.courier.receive()
    assert phase_of(await bench.record()) is Phase.PREPARED
    async with bench.db.connection() as connection:
        assert await connection.fetchval("select count(*) from bank_quarantine") == 0


async def test_repeat_is_no_no(bench: Bench) -> None:
    """RJCT as a repeat while nobody knows whether the first copy is held: asked for once, not once for each copy; the hold is then a YES."""
    await bench.prepare()
    repeated = status_report(one_status("RJCT", "DU03"))
    assert phase_of(await bench.told(repeated, repeated)) is Phase.PREPARING
    await bench.courier.send_due()
    assert bench.sent() == ["pacs.008", "pacs.028"]
    assert phase_of(await bench.told(status_report(one_status("ACFW")))) is Phase.PREPARED


async def test_wrong_booking_is_not_forgotten_by_the_right_one(bench: Bench) -> None:
    """Another amount and then the right one: settled, and the leg goes on saying what a person must look into."""
    await bench.prepare()
    await bench.told(status_report(one_status("ACFW")))
    await bench.commit()
    await bench.told(status_report(one_status("ACSC")), booking("99.00").replace(b"ANSWER1", b"ANSWER2"))
    settled = await bench.told(booking())
    assert phase_of(settled) is Phase.COMMITTED
    assert "booked 99.00 EUR" in settled.trouble
    (matter,) = [json.loads(line) for line in await matters.show(bench.db)]
    assert await matters.close(bench.db, matter["id"], "the bank corrected its statement")
    closed = await bench.record()
    assert (closed.trouble, closed.fence.revision) == ("", settled.fence.revision + 1)
    again = await bench.told(booking("99.00").replace(b"ANSWER1", b"ANSWER2"))
    assert (again, await open_matters(bench)) == (closed, [])


async def test_money_for_a_payment_that_becomes_known(bench: Bench) -> None:
    """Words about a payment that a restored database does not know are an open matter until the payment is known again; what says nothing of money is none."""
    await bench.hears(status_report(one_status("RJCT", "AM04")))
    assert await open_matters(bench) == []
    await bench.hears(status_report(one_status("ACFW")))
    assert await open_matters(bench) == ["UNKNOWN_PAYMENT"]
    await bench.prepare()
    assert await open_matters(bench) == []


async def test_matters_are_shown_and_closed_by_a_person(bench: Bench) -> None:
    """Each matter is one line; closing wants one that is open, and is done once."""
    stranger = booking().replace(NAMES.uetr.encode(), b"0e1c2d3a-1b2c-4d3e-8f4a-5b6c7d8e9f01")
    await bench.hears(stranger)
    (shown,) = [json.loads(line) for line in await matters.show(bench.db)]
    assert (shown["kind"], shown["uetr"], shown["plan_id"]) == ("UNKNOWN_PAYMENT", "0e1c2d3a-1b2c-4d3e-8f4a-5b6c7d8e9f01", None)
    assert "debited 100.00 EUR (B1)" in shown["sentence"]
    assert [await matters.close(bench.db, shown["id"], "a payment by hand") for _ in range(2)] == [True, False]
    assert await matters.show(bench.db) == []


async def open_matters(bench: Bench) -> list[str]:
    return [json.loads(line)["kind"] for line in await matters.show(bench.db)]


async def test_contradictions_after_the_end_are_told_and_change_nothing(bench: Bench) -> None:
    """After Done: a booking of another amount, a reversal, a second booking, RJCT, CNCL. Each is told on the leg; phase and signed outcome stay."""
    await bench.prepare()
    await bench.told(status_report(one_status("ACFW")))
    await bench.commit()
    settled = await bench.told(status_report(one_status("ACSC")), booking())
    assert (phase_of(settled), settled.trouble) == (Phase.COMMITTED, "")
    contradictions = (
        (booking("100.01"), "100.01 EUR"),
        (booking(currency="USD"), "100.00 USD"),
        (booking(reversal="<RvslInd>true</RvslInd>"), "reversed"),
        (booking().replace(b"B1", b"B2"), "twice"),
        (status_report(one_status("RJCT", "AM04")), "RJCT (AM04)"),
        (resolution("CNCL", "ACCR"), "CNCL"),
    )
    for number, (octets, told) in enumerate(contradictions):
        before = (await bench.record()).fence.revision
        record = await bench.told(octets.replace(b"ANSWER1", f"LATE{number}".encode()))
        assert told in record.trouble
        assert (phase_of(record), record.outcome, record.fence.revision) == (Phase.COMMITTED, settled.outcome, before + 1)
    assert await open_matters(bench) == ["BOOKING_DIFFERS"] * 4


async def test_wrong_booking_is_not_forgotten_within_one_delivery(bench: Bench) -> None:
    """Also where status, wrong booking and right booking are taken together: the leg is executed, and says what a person must look into."""
    await bench.prepare()
    await bench.told(status_report(one_status("ACFW")))
    await bench.commit()
    settled = await bench.told(booking("100.01"), status_report(one_status("ACSC")), booking())
    assert phase_of(settled) is Phase.COMMITTED
    assert "instead of" in settled.trouble
    assert await open_matters(bench) == ["BOOKING_DIFFERS"]
