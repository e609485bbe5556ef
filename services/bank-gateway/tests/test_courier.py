"""Messages out and in on a real database, with a rail that the test answers itself: what is told of a leg, and what is sent again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bank_samples import BANK, NAMES, OURS, SCHEMAS, booking, group_status, one_status, resolution, status_report

from bank_gateway import courier, matters
from bank_gateway.courier import Courier
from bank_gateway.gateway import BankOperations
from bank_gateway.ledger import __main__ as ledger
from bank_gateway.messages import References
from bank_gateway.rail import Accepted, Delivery, Handover, MailboxUnavailable, Message, NoAnswer, Request, TurnedDown
from bank_gateway.references import references
from bank_gateway.settings import BankGatewaySettings
from lockstep_kit.certificate import Decision
from lockstep_kit.convert import certificate_to_pb, outcome_from_pb
from lockstep_kit.db import Database
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_kit.loops import TaskSupervisor
from lockstep_kit.participant import convert
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.statements import BankEvidence
from lockstep_testkit import commands, factories
from lockstep_testkit.clocks import JumpingClock
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import PlanCase

LEG = "cash"
THEIR_BIC = "COBADEFF"


@dataclass
class Mailbox:
    """A bank that says what the test puts into its mailbox, and takes what it is sent."""

    sent: list[tuple[str, bytes]] = field(default_factory=list)
    released: list[tuple[str, bytes]] = field(default_factory=list)
    handovers: list[Handover] = field(default_factory=list)
    waiting: list[Delivery] = field(default_factory=list)
    #: Delivered whatever was asked for.
    behind: list[Delivery] = field(default_factory=list)
    acknowledged: int = 0
    away: bool = False
    reads: int = 0
    #: How much came in each request.
    handed_over: list[int] = field(default_factory=list)

    async def hand_over(self, requests: Sequence[Request]) -> Sequence[Handover]:
        self.handed_over.append(len(requests))
        for each in requests:
            if isinstance(each, Message):
                self.sent.append((each.idempotency_key, each.octets))
            else:
                self.released.append((each.uetr, each.key))
        return [self.handovers.pop(0) if self.handovers else Accepted() for _ in requests]

    async def receive(self, after: int, wait_seconds: float) -> Sequence[Delivery]:
        self.reads += 1
        if self.away:
            raise MailboxUnavailable("nobody there")
        return self.behind or [each for each in self.waiting if each.cursor > after]

    async def acknowledge(self, upto: int) -> None:
        self.acknowledged = upto

    async def close(self) -> None:
        self.waiting.clear()


@dataclass
class Bench:
    """One leg at a gateway."""

    db: Database
    engine: ParticipantEngine
    courier: Courier
    bank: Mailbox
    plan: PlanCase
    settings: BankGatewaySettings

    @property
    def names(self) -> References:
        return references(self.plan.plan_id, LegId(LEG))

    async def prepare(self) -> None:
        item = convert.read_prepare(commands.prepare(self.plan, LEG))
        await self.engine.execute(item.command, [item], 0)
        await self.courier.send_due()

    async def commit(self) -> None:
        vote = convert.stored_vote(await self.record())
        assert vote is not None
        # The bank's hold ends, so the leg is soft: the decision is delegated to it.
        certificate = self.plan.certificate(vote, decision=Decision.DELEGATED, delegated=LEG)
        item = convert.read_commit(commands.commit(self.plan, LEG, certificate), certificate, certificate_to_pb(certificate))
        (answer,) = await self.engine.execute(item.command, [item], 0)
        assert answer.rejection is None
        await self.courier.send_due()

    async def abort(self) -> None:
        item = convert.read_abort(commands.abort(self.plan, LEG))
        await self.engine.execute(item.command, [item], 0)
        await self.courier.send_due()

    async def told(self, *messages: bytes) -> LegRecord:
        """The bank says something, about this leg's payment."""
        await self.hears(*messages)
        return await self.record()

    async def hears(self, *messages: bytes) -> None:
        """The bank says something, whether or not the leg is known."""
        for octets in messages:
            text = octets.decode().replace(BANK, THEIR_BIC)
            for name in ("message_id", "instruction_id", "end_to_end_id", "transaction_id", "uetr"):
                text = text.replace(getattr(NAMES, name), getattr(self.names, name))
            self.bank.waiting.append(Delivery(len(self.bank.waiting) + 1, text.encode()))
        await self.courier.receive()
        assert self.bank.acknowledged == len(self.bank.waiting)

    async def record(self) -> LegRecord:
        record = await self.engine.get((self.plan.plan_id, self.plan.leg(LEG).leg_id), None)
        assert record is not None
        return record

    def sent(self) -> list[str]:
        """Kinds of the messages that were sent."""
        return [octets.split(b"<MsgDefIdr>")[1][:8].decode() for _, octets in self.bank.sent]


@contextlib.asynccontextmanager
async def bench_over(database: TestDatabase, **changes: Any) -> AsyncIterator[Bench]:
    """A gateway over a database; its ledger is right when the test is over."""
    db = await Database.connect(database.settings, application_name="test")
    settings = BankGatewaySettings.model_construct(
        **{
            "own_bic": OURS, "bank_bic": THEIR_BIC, "currencies": ("EUR",), "hold_max_hours": 144.0, "mailbox_wait_seconds": 1.0,
            "inquiry_seconds": 0.001, "inquiry_seconds_max": 0.02, "poll_seconds": 0.1, **changes,
        }
    )  # fmt: skip
    operations = BankOperations(settings, SCHEMAS)
    participant = ParticipantSettings(signing_key_file=Path("unused"), registry_file=Path("unused"))
    engine = ParticipantEngine(
        db=db,
        name="bank-gateway",
        signing_key=factories.key_of("bank-gateway"),
        registry=factories.registry_of(),
        operations=operations,
        settings=participant,
    )
    bank = Mailbox()
    yield Bench(db, engine, Courier(db, engine, operations, bank), bank, factories.delivery_versus_payment(), settings)
    assert (await ledger.audit(db))[1] == []
    await engine.drain()
    await db.close()


@pytest_asyncio.fixture(loop_scope="session")
async def bench(database_for: Callable[..., Awaitable[TestDatabase]]) -> AsyncIterator[Bench]:
    database = await database_for("bank_gateway", Path(__file__).parents[1] / "migrations")
    async with bench_over(database) as opened:
        yield opened


def phase_of(record: LegRecord) -> Phase | None:
    return record.fence.phase


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


async def test_found_settled_after_a_release(bench: Bench) -> None:
    """Money that moves after the bank's CNCL is told as executed, and the row says so."""
    await bench.prepare()
    await bench.abort()
    assert phase_of(await bench.told(resolution("CNCL", "ACCR"))) is Phase.RELEASED
    half = await bench.told(status_report(one_status("ACSC")))
    assert phase_of(half) is Phase.RELEASED
    assert half.trouble
    assert phase_of(await bench.told(booking())) is Phase.COMMITTED


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


async def test_one_that_hangs_does_not_hold_up_the_others(bench: Bench) -> None:
    """What is due goes in one request: a bank that does not answer costs all payments one time-out, and not each its own."""
    plans = [bench.plan] + [factories.delivery_versus_payment() for _ in range(7)]
    for plan in plans:
        item = convert.read_prepare(commands.prepare(plan, LEG))
        await bench.engine.execute(item.command, [item], 0)
    await bench.courier.send_due()
    assert bench.bank.handed_over == [len(plans)]


async def sends(bench: Bench, count: int) -> None:
    """Send what becomes due, until so much was sent."""
    for _ in range(1200):
        if len(bench.bank.sent) >= count:
            return
        await asyncio.sleep(0.05)
        await bench.courier.send_due()
    raise AssertionError(f"only {len(bench.bank.sent)} were sent")


async def asks(bench: Bench) -> None:
    """What is overdue by now is asked for."""
    await asyncio.sleep(0.05)
    await bench.courier.inquire()
    await bench.courier.send_due()


async def queued(bench: Bench) -> int:
    async with bench.db.connection() as connection:
        return int(await connection.fetchval("select count(*) from bank_outbox where state = 'QUEUED'"))


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
