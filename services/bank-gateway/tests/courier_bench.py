"""One leg at a gateway over a real database, with a rail that the test answers itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bank_samples import BANK, NAMES, OURS, SCHEMAS

from bank_gateway.courier import Courier
from bank_gateway.gateway import BankOperations
from bank_gateway.ledger import __main__ as ledger
from bank_gateway.messages import References
from bank_gateway.rail import Accepted, Delivery, Handover, MailboxUnavailable, Message, Request
from bank_gateway.references import references
from bank_gateway.settings import BankGatewaySettings
from lockstep_kit.certificate import Decision
from lockstep_kit.convert import certificate_to_pb
from lockstep_kit.db import Database
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_kit.participant import convert
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_testkit import commands, factories
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


def phase_of(record: LegRecord) -> Phase | None:
    return record.fence.phase


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
