"""Undertakings, before the real bank: lodged as drafts, issued by the very message that the draft names, or withdrawn; and never in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from real_bank import GATEWAY, POOR, Bank, outcome_of, promise_of, refusal_of
from real_trade import TradeGateway, guarantee, kinds, received, shown, state, uetr_of, undertaking
from test_crashes import OWN, survived

from bank_gateway import courier
from bank_gateway.iso20022 import undertakings as messages
from bank_gateway.references import number_of
from lockstep_kit import failpoints
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, PartyId
from lockstep_kit.instruments import InstrumentParty
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.statements import InstrumentEvidence, OutcomeKind, PromiseKind
from lockstep_testkit.databases import TestDatabase


@pytest_asyncio.fixture(loop_scope="session")
async def trade(
    bank: Bank, database_for: Callable[..., Awaitable[TestDatabase]], tls_for: Callable[[str], TlsSettings]
) -> AsyncIterator[TradeGateway]:
    """A gateway that runs, over a new database, before a bank that behaves; what is left of its books is sound."""
    await bank.behave()
    opened = TradeGateway(await database_for("bank_gateway"), bank, tls_for(GATEWAY))
    await opened.begin()
    yield opened
    await opened.close()
    await bank.sound()


async def test_draft_then_issue(trade: TradeGateway) -> None:
    """The bank holds a draft without an end; the issuance that was drawn up with it makes it an undertaking, once, and the evidence names it."""
    plan = guarantee()
    await trade.lodged(plan)
    promise = promise_of(await trade.record(plan))
    assert (promise.kind, promise.expires_at) == (PromiseKind.GUARANTEED, None)
    assert isinstance(promise.evidence, InstrumentEvidence)
    assert promise.evidence.status == "APPL/ACCP"
    assert await state(trade.bank, plan) == "LODGED"
    assert kinds(await received(trade.bank, plan)) == ["tsin.005"]
    (kept,) = await trade.rows("select issuance, issuance_sha256 from bank_undertaking")
    await trade.commit(plan)
    evidence = shown(await trade.reaches(plan, Phase.COMMITTED))
    told = await undertaking(trade.bank, plan)
    assert told is not None
    assert (told["state"], told["number"], told["advised_to"]) == (
        "ISSUED",
        number_of(plan.plan_id, LegId("guarantee")),
        "BNPAFRPP",
    )
    assert told["issuance_sha256"] == evidence.issuance_sha256.hex() == kept["issuance_sha256"].hex()
    assert (evidence.status, evidence.undertaking_number) == ("ISSU", told["number"])
    # What was sent at Commit is what was drawn up at Prepare, octet by octet.
    (sent,) = await trade.rows("select octets from bank_message where kind like 'tsrv.001%'")
    assert sent["octets"] == kept["issuance"]
    assert messages.document_sha256(sent["octets"]) == evidence.issuance_sha256
    assert await trade.messages(plan, "IN") == ["tsrv.019", "tsrv.003"]


async def test_abort_withdraws_the_draft(trade: TradeGateway) -> None:
    """A draft that is given up is withdrawn, its facility is free again, and a late application finds the door shut."""
    plan = guarantee(60_000_000_00)
    await trade.lodged(plan)
    await trade.abort(plan)
    record = await trade.reaches(plan, Phase.RELEASED)
    assert shown(record).status == "APPL/WTHD"
    assert await state(trade.bank, plan) == "WITHDRAWN"
    other = guarantee(60_000_000_00)
    await trade.lodged(other)
    await trade.abort(other)
    await trade.reaches(other, Phase.RELEASED)


async def test_abort_of_an_unknown_leg_bars_it(trade: TradeGateway) -> None:
    """A leg that was never prepared is asked about, and barred at the bank: released by the bank's word."""
    plan = guarantee()
    await trade.abort(plan)
    assert shown(await trade.reaches(plan, Phase.RELEASED)).status == "APPL/REJT"
    assert await state(trade.bank, plan) == "TOMBSTONED"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"minor_units": 10**11}, "AM02"),
        ({"account": POOR}, "AC01"),
        ({"applicant": InstrumentParty(PartyId("buyer"), "Somebody Else", "Berlin", "DE")}, "BE01"),
        ({"expiry_date": datetime.now(UTC).date() + timedelta(days=4 * 366)}, "DT01"),
        ({"issuing_bic": "DEUTDEFF"}, "RC03"),
    ],
)
async def test_refusals(trade: TradeGateway, changes: dict[str, Any], code: str) -> None:
    """What the applicant's facility or the agreement does not allow is a signed NO with its reason, and nothing is lodged."""
    plan = guarantee(**changes)
    await trade.prepare(plan)
    refusal = refusal_of(await trade.reaches(plan, Phase.REFUSED))
    assert (refusal.reason, refusal.outside_code) == ("BANK_PREPARE_FAILED", code)
    assert await state(trade.bank, plan) in (None, "REJECTED")


async def test_a_facility_is_not_exceeded(trade: TradeGateway) -> None:
    """Drafts that are held count against the limit: the second one that would exceed it is a NO."""
    first, second = guarantee(60_000_000_00), guarantee(60_000_000_00)
    await trade.lodged(first)
    await trade.prepare(second)
    assert refusal_of(await trade.reaches(second, Phase.REFUSED)).outside_code == "AM02"
    await trade.abort(first)
    await trade.reaches(first, Phase.RELEASED)


async def test_an_issued_undertaking_is_not_reversed(trade: TradeGateway) -> None:
    """Issued is irrevocable: an order to reverse is refused, signed, and the undertaking stands."""
    plan = guarantee()
    await trade.issued(plan)
    await trade.reverse(plan)
    record = await trade.record(plan)
    assert record.fence.phase is Phase.COMMITTED
    assert record.reversal is not None
    assert await state(trade.bank, plan) == "ISSUED"


# -- In doubt ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["application", "issuance", "termination"])
@pytest.mark.parametrize("harm", ["lose", "forget", "pause", "duplicate"])
async def test_lost_answers_are_asked_for(trade: TradeGateway, stage: str, harm: str) -> None:
    """Whatever answer is lost, late or doubled, and whatever request the bank forgot: the same is said again, and the leg ends once."""
    plan = guarantee()
    if stage != "application":
        await trade.lodged(plan)
    scripts: dict[str, dict[str, Any]] = {
        "lose": {},
        "duplicate": {"copies": 3},
        "forget": {"stage": stage},
        "pause": {"stage": stage, "delay_ms": 900},
    }
    await trade.bank.misbehave(harm, uetr=uetr_of(plan), **scripts[harm])
    if stage == "application":
        await trade.lodged(plan)
    elif stage == "issuance":
        await trade.commit(plan)
        await trade.reaches(plan, Phase.COMMITTED)
    else:
        await trade.abort(plan)
        await trade.reaches(plan, Phase.RELEASED)
    assert await state(trade.bank, plan) == {"application": "LODGED", "issuance": "ISSUED", "termination": "WITHDRAWN"}[stage]
    assert (await trade.record(plan)).trouble == ""
    if harm in ("lose", "forget"):
        sent = [message for message in await received(trade.bank, plan) if message["kind"].startswith(kind_of(stage))]
        assert len({message["idempotency_key"] for message in sent}) == 1
        assert len(sent) >= 2
        assert "PssblDplct" in sent[-1]["body"]


def kind_of(stage: str) -> str:
    return {"application": "tsin.005", "issuance": "tsrv.001", "termination": "tsrv.004"}[stage]


async def test_bank_is_away(trade: TradeGateway) -> None:
    """A bank that is down at Commit is no refusal: what was drawn up is handed over when it is back, and issued once."""
    plan = guarantee()
    await trade.lodged(plan)
    await trade.bank.stop()
    await trade.commit(plan)
    assert await trade.phase(plan) is Phase.COMMITTING
    await trade.bank.start()
    await trade.reaches(plan, Phase.COMMITTED)
    assert await state(trade.bank, plan) == "ISSUED"


async def test_refused_withdrawal_is_asked_again(trade: TradeGateway) -> None:
    """A bank that does not withdraw is neither believed to have done so nor given up on."""
    plan = guarantee()
    await trade.lodged(plan)
    await trade.bank.misbehave("refuse", stage="termination", reason="LEGL", uetr=uetr_of(plan))
    await trade.abort(plan)
    await trade.reaches(plan, Phase.RELEASED)
    assert await state(trade.bank, plan) == "WITHDRAWN"
    assert (await trade.messages(plan, "IN")).count("tsrv.019") >= 3


async def test_refused_at_issue_breaks_the_promise(trade: TradeGateway) -> None:
    """A bank that does not issue what it holds as a draft broke its promise, and says so once."""
    plan = guarantee()
    await trade.lodged(plan)
    await trade.bank.misbehave("refuse", stage="issuance", reason="AM04", uetr=uetr_of(plan))
    await trade.commit(plan)
    outcome = outcome_of(await trade.reaches(plan, Phase.REFUSED))
    assert outcome.kind is OutcomeKind.REFUSED
    assert outcome.refusal is not None
    assert (outcome.refusal.reason, outcome.refusal.outside_code) == ("BANK_COMMIT_FAILED", "AM04")
    assert await state(trade.bank, plan) == "REJECTED"


async def test_withdrawn_promise(trade: TradeGateway) -> None:
    """A draft that the bank says it turned down after all is no promise any more; the Abort that follows finds the draft and withdraws it."""
    plan = guarantee()
    await trade.bank.misbehave("contradict", stage="application", reason="AM02", uetr=uetr_of(plan))
    await trade.prepare(plan)
    outcome = outcome_of(await trade.reaches(plan, Phase.REFUSED))
    assert outcome.refusal is not None
    assert outcome.refusal.reason == "BANK_COMMIT_FAILED"
    await trade.abort(plan)
    await trade.reaches(plan, Phase.RELEASED)
    assert await state(trade.bank, plan) == "WITHDRAWN"


async def test_issued_otherwise_calls_a_person(trade: TradeGateway) -> None:
    """An undertaking over another amount is not the leg's: it settles nothing, and a person is told which field differs."""
    plan = guarantee()
    await trade.lodged(plan)
    await trade.bank.misbehave("misbook", message="tsrv.003", uetr=uetr_of(plan))
    await trade.commit(plan)
    assert "another amount" in await trade.troubled(plan)
    assert await trade.phase(plan) is Phase.COMMITTING


async def test_contradiction_after_the_issue(trade: TradeGateway) -> None:
    """A rejection after the notification calls a person; phase and signed outcome stay."""
    plan = guarantee()
    await trade.lodged(plan)
    await trade.bank.misbehave("contradict", stage="issuance", reason="AM04", uetr=uetr_of(plan))
    await trade.commit(plan)
    settled = await trade.reaches(plan, Phase.COMMITTED)
    assert "APPL REJT (AM04)" in await trade.troubled(plan)
    assert (await trade.record(plan)).outcome == settled.outcome


@pytest.mark.parametrize("before", ["LODGED", "ISSUED"])
async def test_a_restored_gateway_issues_the_same(
    trade: TradeGateway,
    before: str,
    database_for: Callable[..., Awaitable[TestDatabase]],
    tls_for: Callable[[str], TlsSettings],
) -> None:
    """A gateway that lost its database draws up the same issuance again: the bank issues it, or says again that it had."""
    plan = guarantee()
    await trade.lodged(plan)
    voted = await trade.record(plan)
    if before == "ISSUED":
        await trade.commit(plan)
        await trade.reaches(plan, Phase.COMMITTED)
    await trade.close()
    again = TradeGateway(await database_for("bank_gateway"), trade.bank, tls_for(GATEWAY))
    await again.open()
    try:
        await again.commit(plan, voted)
        evidence = shown(await again.reaches(plan, Phase.COMMITTED))
    finally:
        await again.close()
    told = await undertaking(trade.bank, plan)
    assert told is not None
    assert (told["state"], told["issuance_sha256"]) == ("ISSUED", evidence.issuance_sha256.hex())
    await trade.open()


# -- Crashes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead gateway had claimed is free again soon."""
    monkeypatch.setattr(courier, "CLAIM_LEASE", courier.CLAIM_LEASE / 6)


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("name", OWN)
async def test_dies_and_issues(trade: TradeGateway, name: str, nth: int) -> None:
    """A gateway that dies anywhere on the way goes on from its rows: one draft, one undertaking, one answer."""
    plan = guarantee()
    failpoints.arm(f"bank-gateway.{name}=raise@{nth}")
    try:
        deaths = await survived(trade, trade.prepare, plan, Phase.PREPARED)
        deaths += await survived(trade, trade.commit, plan, Phase.COMMITTED)
    finally:
        failpoints.arm("")
    assert deaths == 1
    assert await state(trade.bank, plan) == "ISSUED"
    assert (await trade.record(plan)).trouble == ""
    assert {message["idempotency_key"][0] for message in await received(trade.bank, plan)} == {"A", "S"}


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("name", OWN)
async def test_dies_and_withdraws(trade: TradeGateway, name: str) -> None:
    """A gateway that dies while a draft is given up: withdrawn, and never issued."""
    plan = guarantee()
    failpoints.arm(f"bank-gateway.{name}=raise@2")
    try:
        deaths = await survived(trade, trade.prepare, plan, Phase.PREPARED)
        deaths += await survived(trade, trade.abort, plan, Phase.RELEASED)
    finally:
        failpoints.arm("")
    assert deaths == 1
    assert await state(trade.bank, plan) == "WITHDRAWN"
