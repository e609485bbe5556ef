"""The gateway before the real bank over the other rail, and with signatures: what settles over HTTPS settles by files, and dies as harmlessly."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from keys import Identity, identity
from real_bank import (
    ACCEPTS_RISK,
    BANK_BIC,
    GATEWAY,
    LEG,
    OUR_BIC,
    PAYEE,
    RICH,
    SCHEMA_FOLDER,
    Bank,
    Gateway,
    start_bank,
    transfer,
    until,
)  # fmt: skip
from real_trade import TradeGateway, guarantee

from bank_gateway import courier
from bank_gateway.file_rail import FAILPOINTS
from bank_gateway.iso20022.agreement import Agreement
from bank_gateway.iso20022.signatures import Pinned
from bank_gateway.references import references
from lockstep.participant.v1 import participant_service_pb2_grpc
from lockstep_kit import failpoints
from lockstep_kit.failpoints import FailpointRaised
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_kit.rpc import TlsSettings
from lockstep_sandbox.processes import Supervisor
from lockstep_testkit.databases import Databases, TestDatabase
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.participant_conformance import DONE, ParticipantHarness
from lockstep_testkit.participants import ParticipantProcess

Tls = Callable[[str], TlsSettings]
Making = Callable[..., Awaitable[TestDatabase]]


@dataclass(frozen=True)
class Signing:
    """Both sides' keys."""

    ours: Identity
    banks: Identity
    stranger: Identity

    @property
    def agreement(self) -> Agreement:
        return Agreement(signer=self.ours.signer, pinned=Pinned([self.banks.fingerprint]))


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Signing:
    folder = tmp_path_factory.mktemp("keys")
    return Signing(identity(folder, "ours", rsa_bits=2048), identity(folder, "bank"), identity(folder, "stranger"))


@pytest.fixture(scope="module")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that gateway and bank share."""
    return tmp_path_factory.mktemp("drop")


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["https", "files"])
async def signed_bank(
    request: pytest.FixtureRequest,
    databases: Databases,
    tls_for: Tls,
    tmp_path_factory: pytest.TempPathFactory,
    signing: Signing,
    drop: Path,
) -> AsyncIterator[tuple[Bank, Path | None]]:
    """A bank that takes and sends signed messages, over HTTPS or by files."""
    folder = tmp_path_factory.mktemp("bank")
    database = await databases.create("bank_simulator")
    by_files = request.param == "files"
    shared = {
        "counterparty": "Lockstep", "inbox": str(drop / "out"), "outbox": str(drop / "in"), "done": str(folder / "done"),
        "refused": str(folder / "refused"),
    }  # fmt: skip
    async with Supervisor(folder / "logs") as supervisor:
        bank = await start_bank(
            supervisor,
            folder / "bank",
            database,
            tls_for("spiffe://lockstep.local/bank-simulator"),
            GATEWAY,
            certificates=[signing.ours.fingerprint.hex()],
            signing={"key_file": str(signing.banks.key_file), "certificate_file": str(signing.banks.certificate_file)},
            file_drops=[shared] if by_files else [],
        )
        yield bank, drop if by_files else None
    await databases.drop(database)


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(
    signed_bank: tuple[Bank, Path | None], database_for: Making, tls_for: Tls, signing: Signing
) -> AsyncIterator[Gateway]:
    bank, files = signed_bank
    await bank.behave()
    opened = Gateway(await database_for("bank_gateway"), bank, tls_for(GATEWAY), agreement=signing.agreement, files=files)
    await opened.open()
    yield opened
    await opened.close()
    await bank.sound()


async def settled(gateway: Gateway, plan: PlanCase) -> None:
    await gateway.held(plan)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)


async def test_signed_payment_settles(gateway: Gateway) -> None:
    """Prepared, committed, booked once; every message of both sides is kept with its signature, as it went over the rail."""
    plan = transfer()
    await settled(gateway, plan)
    assert await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
    sent, received = await gateway.kept(plan, "OUT"), await gateway.kept(plan, "IN")
    assert all(row["octets"].count(b"<ds:Signature ") == 1 for row in (*sent, *received))
    assert {row["octets"] for row in received} <= {message["body"].encode() for message in await gateway.bank.sent(plan)}
    payments = [message["body"].encode() for message in await gateway.bank.received(plan) if message["kind"] == "pacs.008.001.13"]
    assert payments == [row["octets"] for row in sent if row["kind"] == "pacs.008.001.13"]
    assert await gateway.rows("select * from bank_quarantine where counterparty = $1", "COBADEFF") == []


async def test_every_profile_and_undertakings_are_signed(
    signed_bank: tuple[Bank, Path | None], database_for: Making, tls_for: Tls, signing: Signing
) -> None:
    """Reserved, kept unsent, or drawn up: what goes out is signed when it goes, also once more after the first was lost; and so is all that the bank says."""
    bank, files = signed_bank
    await bank.behave()
    reserving = Gateway(
        await database_for("bank_gateway"),
        bank,
        tls_for(GATEWAY),
        {"profile": "reservation"},
        agreement=signing.agreement,
        files=files,
    )
    await reserving.open()
    plan, given_up = transfer(), transfer()
    await bank.misbehave("forget", stage="reservation")
    await settled(reserving, plan)
    await reserving.held(given_up)
    await reserving.abort(given_up)
    await reserving.reaches(given_up, Phase.RELEASED)
    await bank.give_back(plan, amount="1.00")
    await reserving.troubled(plan)
    await reserving.close()
    assert await reserving.wrong_on_the_books() == []
    trade = TradeGateway(await database_for("bank_gateway"), bank, tls_for(GATEWAY), agreement=signing.agreement, files=files)
    await trade.open()
    guaranteed = guarantee()
    await bank.misbehave("forget", stage="issuance")
    await trade.issued(guaranteed)
    await trade.close()
    for gateway in (reserving, trade):
        kept = await gateway.rows("select kind, octets from bank_message")
        assert {row["kind"] for row in kept if row["octets"].count(b"<ds:Signature ") != 1} == set()
        assert await gateway.rows("select * from bank_quarantine") == []
    await bank.sound()


async def test_signed_payment_is_given_up(gateway: Gateway) -> None:
    """Aborted after the hold: cancelled at the bank, released here, nothing booked."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.abort(plan)
    await gateway.reaches(plan, Phase.RELEASED)
    assert await gateway.bank.state(plan) == "CANCELLED"
    assert await gateway.bank.booked(plan) == {}


async def test_bank_that_was_away(gateway: Gateway) -> None:
    """A bank that is away takes what was meant for it when it comes back; each payment is booked once."""
    await gateway.bank.stop()
    plan = transfer()
    assert (await gateway.prepare(plan)).rejection is None
    await gateway.bank.start()
    await gateway.reaches(plan, Phase.PREPARED)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


async def test_resent_message_is_the_same(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that died after sending sends again, marked and signed anew: the bank knows the repeat, and the document is the same."""
    monkeypatch.setattr(courier, "CLAIM_LEASE", courier.CLAIM_LEASE / 6)
    plan = transfer()
    failpoints.arm("bank-gateway.send.after_send=raise@1")
    try:
        await gateway.prepare(plan)
        with pytest.raises(FailpointRaised):
            await gateway.ended()
    finally:
        failpoints.arm("")
    await gateway.close()
    await until(lambda: gateway.bank.state(plan), "hold")
    await gateway.open()
    await gateway.reaches(plan, Phase.PREPARED)

    async def repeated() -> list[str]:
        return [message["body"] for message in await gateway.bank.received(plan) if message["repeat_of"]]

    for body in await until(repeated, "repeat"):
        assert "<PssblDplct>true</PssblDplct>" in body
        assert body.count("<ds:Signature ") == 1
    # Meanwhile it may have been asked about, too.
    sent = [message["body"] for message in await gateway.bank.received(plan) if message["kind"] == "pacs.008.001.13"]
    documents = {body.partition("<Document")[2] for body in sent}
    assert len(documents) == 1
    assert await gateway.bank.postings(plan) == ["HOLD"]


@pytest.mark.parametrize("signed_bank", ["files"], indirect=True)
async def test_resent_release_is_the_same(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that is put out again after a death is the file that was put out first, octet by octet, and was kept before either."""
    monkeypatch.setattr(courier, "CLAIM_LEASE", courier.CLAIM_LEASE / 6)
    plan = transfer()
    await gateway.held(plan)
    failpoints.arm("bank-gateway.send.after_send=raise@1")
    try:
        await gateway.commit(plan)
        with pytest.raises(FailpointRaised):
            await gateway.ended()
    finally:
        failpoints.arm("")
    await gateway.close()
    name = references(plan.plan_id, LegId(LEG)).uetr

    async def orders() -> list[bytes]:
        found = (await gateway.bank.get("/messages"))["received"]
        return [each["body"].encode() for each in found if "ReleaseOrder" in each["body"] and name in each["body"]]

    await until(orders, "release")
    (kept,) = [row["octets"] for row in await gateway.kept(plan, "OUT") if row["kind"] == "ReleaseOrder"]
    assert await orders() == [kept]
    await gateway.open()
    await gateway.reaches(plan, Phase.COMMITTED)

    async def twice() -> bool:
        return len(await orders()) > 1

    await until(twice, "the release again")
    assert set(await orders()) == {kept}
    assert kept.count(b"<ds:Signature ") == 1
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


@pytest.mark.parametrize("how", ["absent", "content", "value"])
async def test_answer_with_a_signature_that_does_not_hold(gateway: Gateway, how: str) -> None:
    """It is quarantined by the signature's field and changes nothing; the question that follows brings the answer, and the leg settles."""
    await gateway.bank.misbehave("missign", how=how, message="pacs.002")
    plan = transfer()
    await settled(gateway, plan)
    # The mailbox brings what the bank said to the tests before, too.
    *_, row = await gateway.rows("select * from bank_quarantine order by id")
    assert row["field"] == "AppHdr/Sgntr"
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


async def test_payment_that_is_not_signed_by_us(gateway: Gateway, signing: Signing) -> None:
    """The bank takes no message and no release with another's signature: nothing is held, the leg ends in a NO by the bank's word."""
    await gateway.close()
    honest = gateway.agreement
    gateway.agreement = Agreement(signer=signing.stranger.signer, pinned=honest.pinned)
    await gateway.open()
    plan = transfer()
    await gateway.prepare(plan)
    found = await until(lambda: gateway.bank.get("/quarantine"), "quarantined message")
    assert {row["rule"] for row in found["quarantine"]} <= {"CERTIFICATE"}
    assert await gateway.bank.booked(plan) == {}
    assert await gateway.bank.state(plan) is None
    await gateway.close()
    gateway.agreement = honest
    await gateway.open()


@pytest.mark.parametrize("signed_bank", ["files"], indirect=True)
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", FAILPOINTS)
async def test_files_survive_deaths(gateway: Gateway, point: str, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead at any step of the file rail: prepared, committed and booked once by whoever comes next; each delivery is kept once."""
    monkeypatch.setattr(courier, "CLAIM_LEASE", courier.CLAIM_LEASE / 6)
    plan = transfer()
    failpoints.arm(f"{point}=raise@{nth}")
    deaths = 0

    async def committed() -> bool:
        nonlocal deaths
        try:
            await gateway.prepare(plan)
            if await gateway.phase(plan) is Phase.PREPARED:
                await gateway.commit(plan)
            # It may be dead of what it did when the leg was there already: that is waited for.
            if await gateway.phase(plan) is Phase.COMMITTED and deaths:
                return True
            await gateway.ended_within(0.2)
        except FailpointRaised:
            deaths += 1
            await gateway.close()
            await gateway.open()
        return False

    try:
        await until(committed, "settlement")
    finally:
        failpoints.arm("")
    assert deaths == 1
    assert await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]
    kept = [hashlib.sha256(row["octets"]).digest() for row in await gateway.kept(plan, "IN")]
    assert len(set(kept)) == len(kept) >= 3
    assert (await gateway.record(plan)).trouble == ""


@pytest.mark.parametrize("signed_bank", ["files"], indirect=True)
async def test_broken_files_are_quarantined(gateway: Gateway) -> None:
    """What the bank drops that is no message is kept in the database with field and rule, and moved; what comes after it is read."""
    folder = gateway.files
    assert folder is not None
    (folder / "in" / "00.part").write_bytes(b"not yet")
    (folder / "in" / "00-broken").write_bytes(b"<broken")

    async def moved() -> list[Path]:
        return list((folder / "quarantine").glob("*.00-broken"))

    await until(moved, "quarantined file")
    *_, row = await gateway.rows("select * from bank_quarantine order by id")
    assert (row["octets"], row["field"]) == (b"<broken", "message")
    await settled(gateway, transfer())
    assert (folder / "in" / "00.part").exists()
    (folder / "in" / "00.part").unlink()


@pytest_asyncio.fixture(loop_scope="session")
async def service(
    signed_bank: tuple[Bank, Path | None], participant_for: Callable[..., Awaitable[ParticipantProcess]], signing: Signing
) -> ParticipantProcess:
    """The service's own process, by its settings."""
    bank, files = signed_bank
    await bank.behave()
    return await participant_for(
        "bank-gateway",
        own_bic=OUR_BIC,
        bank_bic=BANK_BIC,
        currencies=["EUR"],
        rail={"http": {"url": bank.rail_url, "together": True}}
        if files is None
        else {"files": {"folder": str(files), "look_seconds": 0.05}},
        signatures={
            "key_file": str(signing.ours.key_file),
            "certificate_file": str(signing.ours.certificate_file),
            "pinned": [signing.banks.fingerprint.hex(), signing.stranger.fingerprint.hex()],
            "algorithms": ["ecdsa-sha256"],
        },
        inbound={"messages": ["pacs.002.001.15", "camt.029.001.13", "camt.054.001.13"]},
        schemas=str(SCHEMA_FOLDER),
        inquiry_seconds=0.5,
    )


@pytest.mark.parametrize("signed_bank", ["files"], indirect=True)
async def test_service_by_its_settings(signed_bank: tuple[Bank, Path | None], service: ParticipantProcess) -> None:
    """The process that the settings describe settles by files, signed, also when it is killed while it takes the answer."""

    async def new_plan() -> PlanCase:
        return transfer(policy=ACCEPTS_RISK)

    async def harness() -> ParticipantHarness:
        stub = participant_service_pb2_grpc.ParticipantServiceStub(await service.channel())
        return ParticipantHarness("bank-gateway", stub, LEG, new_plan)

    plan = await new_plan()
    vote = await (await harness()).prepare(plan)
    first = await harness()
    await service.dies_at("bank-gateway.receive.in_tx", lambda: first.commit(plan, vote.report))
    assert (await (await harness()).commit(plan, vote.report)).verdict == DONE
    bank, _ = signed_bank
    assert await bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
    assert await bank.postings(plan) == ["HOLD", "SETTLE"]
