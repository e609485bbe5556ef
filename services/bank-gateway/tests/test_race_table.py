"""The race table, against the real bank: each pair of events in both orders, each ending as docs/bank.md says, and the bank's books audited after each.

What the bank says is kept back and told in the order that a test names; what reaches the bank out of order is brought there by hand, in the gateway's own
octets.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import pytest
import pytest_asyncio
from bank_samples import SCHEMAS
from real_bank import BANK_BIC, GATEWAY, OUR_BIC, PAYEE, RICH, Bank, Gateway, outcome_of, transfer, until

from bank_gateway import http_rail
from bank_gateway.http_rail import HttpRail
from bank_gateway.iso20022 import writer
from bank_gateway.messages import Envelope
from bank_gateway.rail import Accepted, Handover, Message, Release, TurnedDown
from bank_gateway.references import references
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_kit.participant import convert
from lockstep_kit.rpc import TlsSettings
from lockstep_testkit import commands
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import PlanCase

pytestmark = pytest.mark.integration

HOUR_MS: Final = 3_600_000
BOOKED: Final = {RICH: -100_00, PAYEE: 100_00}
HELD: Final = {RICH: -100_00, "~hold:EUR": 100_00}
STATUS, BOOKING, RESOLUTION = "pacs.002", "camt.054", "camt.029"
#: The gateway asks nothing by itself, so that a test alone decides who says what when.
SILENT: Final = {"inquiry_seconds": 600.0, "inquiry_seconds_max": 600.0, "hold_margin_seconds": 0.5}
ASKING: Final = {**SILENT, "inquiry_seconds": 0.4, "inquiry_seconds_max": 2.0}


@dataclass
class Course:
    """One payment, and who says what of it when."""

    gateway: Gateway
    plan: PlanCase

    @property
    def bank(self) -> Bank:
        return self.gateway.bank

    @property
    def uetr(self) -> str:
        return references(self.plan.plan_id, LegId("cash")).uetr

    async def restart(self, changes: dict[str, Any]) -> None:
        await self.gateway.close()
        self.gateway.changes = changes
        await self.gateway.open()

    async def keep(self, *kinds: str) -> None:
        """From now on the bank keeps back what it says in these kinds of messages."""
        for kind in kinds:
            await self.bank.misbehave("delay", message=kind, uetr=self.uetr, delay_ms=HOUR_MS, times=20)

    async def hear(self, *kinds: str) -> None:
        """The bank says what it kept back, kind by kind, and the gateway has heard it."""
        for kind in kinds:
            before = await self.cursor()
            said = (await self.bank.command(f"/payments/{self.uetr}/deliver", message=kind))["delivered"]
            assert said > 0, f"the bank kept no {kind} back"
            await self.heard(before + said)

    async def heard(self, place: int) -> None:
        async def there() -> bool:
            return await self.cursor() >= place

        await until(there, f"place {place} of the mailbox")

    async def cursor(self) -> int:
        rows = await self.gateway.rows("select cursor from bank_mailbox")
        return rows[0]["cursor"] if rows else 0

    async def bank_has(self, state: str) -> None:
        async def there() -> bool:
            return await self.bank.state(self.plan) == state

        await until(there, state)

    async def bank_has_all(self) -> None:
        """Until the bank acknowledged everything that the gateway sent."""

        async def acknowledged() -> bool:
            return not await self.gateway.rows("select from bank_outbox where uetr = $1 and state <> 'ACKED'", self.uetr)

        await until(acknowledged, "acknowledgement")

    async def ask(self) -> None:
        """Ask the bank, by hand, what became of the payment."""
        name = f"Q{uuid4().hex[:15].upper()}"
        envelope = Envelope(OUR_BIC, BANK_BIC, name, datetime.now(UTC))
        await self.bring(writer.inquiry(envelope, references(self.plan.plan_id, LegId("cash")), SCHEMAS), name)

    async def bring(self, octets: bytes, key: str, *, expected: type[Handover] = Accepted) -> None:
        """Bring octets to the bank by hand."""
        rail = HttpRail(self.bank.rail_url, self.gateway.tls)
        try:
            (done,) = await rail.hand_over([Message(octets, key)])
            assert isinstance(done, expected)
        finally:
            await rail.close()

    async def bring_queued(self, order: Sequence[str]) -> None:
        """Bring to the bank by hand, in an order of letters, what the gateway has queued: Payment, Cancellation, Release."""
        rows = {
            "R" if row["action"] == "RELEASE" else row["idempotency_key"][0]: row
            for row in await self.gateway.rows("select * from bank_outbox where uetr = $1 and state <> 'ACKED'", self.uetr)
        }
        assert sorted(rows) == sorted(order)
        rail = HttpRail(self.bank.rail_url, self.gateway.tls)
        try:
            for letter in order:
                row = rows[letter]
                name, octets = row["idempotency_key"], row["octets"]
                (done,) = await rail.hand_over([Release(row["uetr"], octets, name) if letter == "R" else Message(octets, name)])
                assert isinstance(done, Accepted)
        finally:
            await rail.close()

    async def ends(self, phase: Phase, state: str, *, trouble: bool = False) -> None:
        """Leg and book come to the same end, and stay there; a person is called or is not."""
        record = await self.gateway.reaches(self.plan, phase)
        assert await self.bank.state(self.plan) == state
        assert await self.bank.booked(self.plan) == {"SETTLED": BOOKED, "HELD": HELD}.get(state, {})
        assert (record.trouble != "") == trouble, record.trouble

    async def refusal(self) -> tuple[str, str]:
        refusal = outcome_of(await self.gateway.record(self.plan)).refusal
        assert refusal is not None
        return refusal.reason, refusal.outside_code


@pytest_asyncio.fixture(loop_scope="session")
async def course(
    bank: Bank, database_for: Callable[..., Awaitable[TestDatabase]], tls_for: Callable[[str], TlsSettings]
) -> AsyncIterator[Course]:
    """A payment before a gateway that asks nothing by itself, and has nothing to read in the bank's mailbox. Its ledger is right at the end."""
    await bank.behave()
    gateway = Gateway(await database_for("bank_gateway"), bank, tls_for(GATEWAY), SILENT)
    await gateway.begin()
    yield Course(gateway, transfer())
    assert await gateway.wrong_on_the_books() == []
    await gateway.close()


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _audited(course: Course) -> AsyncIterator[None]:
    """After each test, by the bank's book alone: money was conserved, nothing is held that no leg is about, and each payment is booked as its leg says."""
    before = await course.bank.get("/book")
    yield
    await course.bank.behave()
    book = await course.bank.get("/book")
    assert (book["conserved"], book["violations"]) == (True, [])
    assert {each["uetr"] for each in book["holds"]} <= {each["uetr"] for each in before["holds"]}
    assert all(each["bookings"] == 1 for each in book["bookings"])
    booked = {each["uetr"] for each in book["bookings"]} - {each["uetr"] for each in before["bookings"]}
    query = "select uetr, phase from bank_payment join participant_leg using (plan_id, leg_id)"
    legs = {row["uetr"]: row["phase"] for row in await course.gateway.rows(query)}
    matters = {row["uetr"] for row in await course.gateway.matters()}
    assert booked - matters == {uetr for uetr, phase in legs.items() if phase == "COMMITTED"}


# -- Commit against expiry ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", list(itertools.permutations([STATUS, BOOKING])))
async def test_key_before_expiry(course: Course, words: Sequence[str]) -> None:
    """The key comes first: the hold is gone and cannot expire; settled, in whichever order that is told."""
    await course.gateway.held(course.plan)
    await course.keep(STATUS, BOOKING)
    await course.gateway.commit(course.plan)
    await course.bank_has("SETTLED")
    assert await course.bank.command(f"/payments/{course.uetr}/expire") == {"expired": False}
    await course.hear(words[0])
    assert await course.gateway.phase(course.plan) is Phase.COMMITTING
    await course.hear(words[1])
    await course.ends(Phase.COMMITTED, "SETTLED")


@pytest.mark.parametrize("told", ["before the key", "after the key"])
async def test_expiry_before_key(course: Course, told: str) -> None:
    """The hold ends first, earlier than agreed: refused by the name of a broken promise, whether that is heard before the key is shown or after it."""
    await course.gateway.held(course.plan)
    if told == "after the key":
        await course.keep(STATUS)
    assert await course.bank.command(f"/payments/{course.uetr}/expire") == {"expired": True}
    if told == "after the key":
        await course.gateway.commit(course.plan)
        await course.bank_has_all()
        assert await course.gateway.phase(course.plan) is Phase.COMMITTING
        await course.hear(STATUS)
    else:
        await course.gateway.reaches(course.plan, Phase.REFUSED)
        await course.gateway.commit(course.plan)
    await course.ends(Phase.REFUSED, "EXPIRED")
    assert await course.refusal() == ("BANK_COMMIT_FAILED", "AB03")


@pytest.mark.parametrize("first", ["key", "expiry"])
async def test_key_against_the_agreed_end(course: Course, first: str) -> None:
    """The hold ends as agreed: a key before that settles for good; one that finds it ended is refused, and no promise was broken."""
    course.plan = transfer(deadline=datetime.now(UTC) + timedelta(seconds=20))
    ends = course.plan.header.deadline + timedelta(seconds=1)
    item = convert.read_prepare(commands.prepare(course.plan, "cash", hold_until=ends))
    await course.gateway.engine.execute(item.command, [item], 0)
    await course.gateway.reaches(course.plan, Phase.PREPARED)
    if first == "expiry":
        await course.bank.stop()
    await course.gateway.commit(course.plan)
    if first == "key":
        await course.gateway.reaches(course.plan, Phase.COMMITTED)

    async def over() -> bool:
        return datetime.now(UTC) > ends + timedelta(seconds=1)

    await until(over, "end of the hold")
    if first == "key":
        await course.ends(Phase.COMMITTED, "SETTLED")
    else:
        await course.bank.start()
        await course.ends(Phase.REFUSED, "EXPIRED")
        assert await course.refusal() == ("BANK_EXECUTE_FAILED", "AB03")


# -- Abort against a late ACFW ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", list(itertools.permutations([STATUS, RESOLUTION])))
async def test_abort_against_a_late_hold(course: Course, words: Sequence[str]) -> None:
    """The hold was placed and then cancelled; whichever is heard first, the leg is released, and a hold told late is no news."""
    await course.keep(STATUS, RESOLUTION)
    await course.gateway.prepare(course.plan)
    await course.bank_has("HELD")
    await course.gateway.abort(course.plan)
    await course.bank_has("CANCELLED")
    assert await course.gateway.phase(course.plan) is Phase.ABORTING
    await course.hear(*words)
    await course.ends(Phase.RELEASED, "CANCELLED")
    assert await course.bank.postings(course.plan) == ["HOLD", "RELEASE"]


@pytest.mark.parametrize(("order", "state"), [("PC", "CANCELLED"), ("CP", "TOMBSTONED")])
async def test_abort_against_the_payment(course: Course, order: str, state: str) -> None:
    """Payment and cancellation overtake each other on their way: held and given back, or barred and then turned down; released either way."""
    await course.bank.stop()
    await course.gateway.prepare(course.plan)
    await course.gateway.abort(course.plan)
    await course.gateway.close()
    await course.bank.start()
    await course.bring_queued(order)
    await course.gateway.open()
    await course.bank_has_all()
    await course.ends(Phase.RELEASED, state)


# -- camt.029 against ACSC ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", list(itertools.permutations([STATUS, BOOKING, RESOLUTION])))
async def test_cancellation_refused_because_settled(course: Course, words: Sequence[str]) -> None:
    """The bank settles, and then will not cancel (ARDT): executed, in whichever order its three words are heard."""
    await course.gateway.held(course.plan)
    await course.keep(STATUS, BOOKING, RESOLUTION)
    await course.gateway.commit(course.plan)
    await course.bank_has("SETTLED")
    assert (await course.gateway.abort(course.plan)).rejection is None
    await course.bank_has_all()
    await course.hear(*words)
    await course.ends(Phase.COMMITTED, "SETTLED")


@pytest.mark.parametrize(("order", "phase", "state"), [("RC", Phase.COMMITTED, "SETTLED"), ("CR", Phase.RELEASED, "CANCELLED")])
async def test_key_and_cancellation_overtake_each_other(course: Course, order: str, phase: Phase, state: str) -> None:
    """Whichever the bank gets first decides, and the leg says the same as the book."""
    await course.gateway.held(course.plan)
    await course.bank.stop()
    await course.gateway.commit(course.plan)
    assert (await course.gateway.abort(course.plan)).rejection is None
    await course.gateway.close()
    await course.bank.start()
    await course.bring_queued(order)
    await course.gateway.open()
    await course.bank_has_all()
    await course.ends(phase, state)


@pytest.mark.parametrize("first", [RESOLUTION, STATUS])
async def test_granted_and_said_to_be_settled(course: Course, first: str) -> None:
    """A bank that grants a cancellation and says that it settled contradicts itself: a person is called, and nothing is told as executed."""
    await course.gateway.held(course.plan)
    await course.bank.misbehave("contradict", stage="cancellation", says="ACSC", uetr=course.uetr)
    await course.keep(STATUS, RESOLUTION)
    await course.gateway.abort(course.plan)
    await course.bank_has("CANCELLED")
    await course.hear(first, *({STATUS, RESOLUTION} - {first}))
    # CNCL alone releases; after a word of settlement it does not, and the leg waits for a person.
    await course.ends(Phase.RELEASED if first == RESOLUTION else Phase.ABORTING, "CANCELLED", trouble=True)


# -- Replay with a changed amount ---------------------------------------------------------------------------------------


def twice_as_much(octets: bytes, renamed: dict[str, str]) -> bytes:
    """The same payment with another amount, and some of its names changed."""
    changed = octets.replace(b">100.00<", b">200.00<")
    assert changed != octets
    for name, other in renamed.items():
        assert name.encode() in changed
        changed = changed.replace(name.encode(), other.encode())
    return changed


def other_message(plan: PlanCase) -> dict[str, str]:
    """New names for message, instruction and transaction; the UETR stays."""
    names = references(plan.plan_id, LegId("cash"))
    return {name: f"X{name[1:]}" for name in (names.message_id, names.instruction_id, names.transaction_id)}


@pytest.mark.parametrize("same_message", [True, False])
async def test_original_before_the_changed_replay(course: Course, same_message: bool) -> None:
    """What comes second with another amount is refused, as message or as payment; the hold stays what it was, and settles."""
    await course.gateway.held(course.plan)
    (row,) = await course.gateway.rows("select octets, message_id from bank_message where direction = 'OUT'")
    place, renamed = await course.cursor(), {} if same_message else other_message(course.plan)
    changed, key = twice_as_much(row["octets"], renamed), renamed.get(row["message_id"], row["message_id"])
    await course.bring(changed, key, expected=TurnedDown if same_message else Accepted)
    if not same_message:
        await course.heard(place + 1)
    assert await course.gateway.phase(course.plan) is Phase.PREPARED
    await course.gateway.commit(course.plan)
    await course.ends(Phase.COMMITTED, "SETTLED")


async def test_changed_replay_before_the_original(course: Course) -> None:
    """The bank holds another amount under our UETR, for a message that is not ours: no YES, a person is called, and what is held is given back."""
    await course.bank.stop()
    await course.gateway.prepare(course.plan)
    await course.gateway.close()
    await course.bank.start()
    (row,) = await course.gateway.rows("select octets, message_id from bank_message where direction = 'OUT'")
    renamed = other_message(course.plan)
    await course.bring(twice_as_much(row["octets"], renamed), renamed[row["message_id"]])
    await course.gateway.open()
    assert "another message" in await course.gateway.troubled(course.plan)
    assert await course.gateway.phase(course.plan) is Phase.PREPARING
    await course.gateway.abort(course.plan)
    await course.ends(Phase.RELEASED, "CANCELLED")


async def test_changed_message_before_the_original(course: Course) -> None:
    """The bank holds another amount under our very message: nothing that it books of it settles the leg, and the booking is an open matter."""
    await course.bank.stop()
    await course.gateway.prepare(course.plan)
    await course.gateway.close()
    await course.bank.start()
    (row,) = await course.gateway.rows("select octets, message_id from bank_message where direction = 'OUT'")
    await course.bring(twice_as_much(row["octets"], {}), row["message_id"])
    await course.restart(ASKING)
    await course.gateway.reaches(course.plan, Phase.PREPARED)
    await course.gateway.commit(course.plan)
    assert "instead of 100.00 EUR" in await course.gateway.troubled(course.plan)
    assert await course.gateway.phase(course.plan) is Phase.COMMITTING
    assert {each["kind"] for each in await course.gateway.matters()} == {"BOOKING_DIFFERS"}


# -- Two payments with one end-to-end reference -------------------------------------------------------------------------


@pytest.mark.parametrize("ours_first", [True, False])
async def test_two_payments_with_one_reference(course: Course, ours_first: bool) -> None:
    """Another payment bears our end-to-end reference: it is an open matter told on our leg, and our leg ends by its own payment alone."""
    other = str(uuid4())
    names = references(course.plan.plan_id, LegId("cash"))
    if ours_first:
        await course.gateway.held(course.plan)
    else:
        await course.bank.stop()
        await course.gateway.prepare(course.plan)
        await course.gateway.close()
        await course.bank.start()
    (row,) = await course.gateway.rows("select octets, message_id from bank_message where direction = 'OUT'")
    renamed = other_message(course.plan) | {names.uetr: other}
    await course.bring(twice_as_much(row["octets"], renamed), renamed[row["message_id"]])
    if not ours_first:
        await course.gateway.open()

    async def told() -> bool:
        return bool(await course.gateway.matters())

    await until(told, "matter")
    (matter,) = await course.gateway.matters()
    assert (matter["uetr"], matter["plan_id"]) == (other, course.plan.plan_id)
    await course.gateway.reaches(course.plan, Phase.PREPARED)
    await course.gateway.commit(course.plan)
    await course.ends(Phase.COMMITTED, "SETTLED", trouble=True)
    assert await course.bank.command(f"/payments/{other}/expire") == {"expired": True}


# -- Repeats, and halves in either order --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps", [(STATUS, "ask", BOOKING), (STATUS, BOOKING, "ask"), (BOOKING, STATUS, "ask"), (BOOKING, "ask", STATUS)]
)
async def test_repeated_settlement(course: Course, steps: Sequence[str]) -> None:
    """ACSC again, before its booking or after it, or the booking before any status: settled once, by both halves, and repeats change nothing."""
    await course.gateway.held(course.plan)
    await course.keep(STATUS, BOOKING)
    await course.gateway.commit(course.plan)
    await course.bank_has("SETTLED")
    await course.bank.behave()
    said: set[str] = set()
    for step in steps:
        if step == "ask":
            place = await course.cursor()
            await course.ask()
            await course.heard(place + len(said))
        else:
            await course.hear(step)
            said.add(step)
        expected = Phase.COMMITTED if said == {STATUS, BOOKING} else Phase.COMMITTING
        assert await course.gateway.phase(course.plan) is expected
    record = await course.gateway.record(course.plan)
    place = await course.cursor()
    await course.ask()
    await course.heard(place + 2)
    again = await course.gateway.record(course.plan)
    assert (again.outcome, again.fence.revision) == (record.outcome, record.fence.revision)
    await course.ends(Phase.COMMITTED, "SETTLED")


# -- Replies that are lost ----------------------------------------------------------------------------------------------

#: Each message of each phase, and each acknowledgement: (kind or stage, what is lost).
LOST: Final = (
    ("payment", STATUS), ("payment", "acknowledgement"), ("release", STATUS), ("release", BOOKING), ("release", "both"),
    ("release", "acknowledgement"), ("cancellation", RESOLUTION), ("cancellation", "acknowledgement"), ("inquiry", STATUS),
    ("inquiry", "acknowledgement"),
)  # fmt: skip


@pytest.mark.parametrize("fate", ["lost", "late"])
@pytest.mark.parametrize(("stage", "what"), LOST)
async def test_reply_is_lost(course: Course, stage: str, what: str, fate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply of any phase is lost, or comes after the bank was asked for it: the leg ends as the book says, and the money moves once."""
    monkeypatch.setattr(http_rail, "REQUEST_SECONDS_MAX", 3.0)
    await course.restart(ASKING)
    if stage in ("release", "cancellation"):
        await course.gateway.held(course.plan)
    kinds = {"both": (STATUS, BOOKING), "acknowledgement": ()}.get(what, (what,))
    if stage == "inquiry":
        # A question is asked because another answer was lost before it.
        await course.bank.misbehave("lose", message=STATUS, uetr=course.uetr)
    for kind in kinds:
        if fate == "late":
            await course.bank.misbehave("delay", message=kind, uetr=course.uetr, delay_ms=HOUR_MS)
        else:
            await course.bank.misbehave("lose", message=kind, uetr=course.uetr)
    if what == "acknowledgement":
        # Late: it comes before the time is over after which it counts as lost.
        await course.bank.misbehave("pause", stage=stage, uetr=course.uetr, delay_ms=6_000 if fate == "lost" else 200)
    phase, state = Phase.PREPARED, "HELD"
    match stage:
        case "payment" | "inquiry":
            await course.gateway.prepare(course.plan)
        case "release":
            await course.gateway.commit(course.plan)
            phase, state = Phase.COMMITTED, "SETTLED"
        case "cancellation":
            await course.gateway.abort(course.plan)
            phase, state = Phase.RELEASED, "CANCELLED"
    if fate == "late" and kinds:
        if stage == "cancellation":
            # Another request to cancel was answered, and the first answer comes after that.
            await course.gateway.reaches(course.plan, phase)
        else:
            # What is on its way is not said twice: the question was asked, and the first answer comes after it.
            await asked(course)
        await course.hear(*kinds)
    await course.ends(phase, state)
    if phase is Phase.PREPARED:
        await course.gateway.commit(course.plan)
        await course.ends(Phase.COMMITTED, "SETTLED")
    assert (await course.bank.postings(course.plan))[1:] in (["SETTLE"], ["RELEASE"])


async def asked(course: Course) -> None:
    """Until the bank was asked about the payment."""

    async def received() -> bool:
        return any(each["kind"].startswith("pacs.028") for each in await course.bank.received(course.plan))

    await until(received, "question")
