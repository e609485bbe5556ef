"""Undertakings at the bank: lodged against a facility, issued once by the very message that the draft names, withdrawn; judged by the bank's own register."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import secrets
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from bank_world import (
    ALICE,
    BANK,
    BLOCKED,
    BOB,
    CORRESPONDENT,
    SEED,
    Answer,
    Certificates,
    Gateway,
    World,
    as_possible_duplicate,
    draw,
    envelope,
    read,
    write_settings,
)
from lxml import etree

from lockstep_testkit.databases import TestDatabase

FACILITY = "100000.00"


@dataclass(frozen=True)
class Draft:
    """An undertaking that a test applies for."""

    amount: str = "60000.00"
    currency: str = "EUR"
    account: str = ALICE
    applicant: str = "Alice GmbH"
    issuer: str = BANK
    expires: date = field(default_factory=lambda: datetime.now(UTC).date() + timedelta(days=90))
    uetr: uuid.UUID = field(default_factory=uuid.uuid4)
    number: str = field(default_factory=lambda: f"U{secrets.token_hex(7).upper()}")

    def issuance(self, message_id: str, *, amount: str | None = None) -> bytes:
        details = (
            f"<UdrtkgIssncDtls><Id>{self.number}</Id><Nm>STBY</Nm><IssncTp>ISSU</IssncTp><Applcnt><Nm>{self.applicant}</Nm></Applcnt>"
            f"{bank('Issr', self.issuer)}<Bnfcry><Nm>Bob AG</Nm></Bnfcry><DtOfIssnc>{datetime.now(UTC).date()}</DtOfIssnc>"
            f'{bank("AdvsgPty", CORRESPONDENT)}<UdrtkgAmt><Amt Ccy="{self.currency}">{amount or self.amount}</Amt></UdrtkgAmt>'
            f"<XpryDtls><XpryTerms><DtTm><Dt>{self.expires}</Dt></DtTm></XpryTerms></XpryDtls>"
            "<GovncRulesAndLaw><RuleId><Cd>ISPR</Cd></RuleId></GovncRulesAndLaw>"
            "<UdrtkgTermsAndConds><Txt>TERMS</Txt></UdrtkgTermsAndConds></UdrtkgIssncDtls>"
        )
        inner = f"<UdrtkgIssnc>{details}<BkToBkInf>UETR {self.uetr}</BkToBkInf></UdrtkgIssnc>"
        return envelope("tsrv.001.001.01", inner, message_id)

    def application(self, message_id: str) -> bytes:
        document = etree.fromstring(self.issuance("ANY"))[1]
        digest = hashlib.sha256(etree.tostring(document, method="c14n", exclusive=True)).hexdigest().upper()
        details = (
            f"<UdrtkgApplDtls><ApplcntRefNb>{self.uetr.hex}</ApplcntRefNb><Purp>TEST</Purp><Nm>STBY</Nm><Tp><Cd>FINC</Cd></Tp>"
            f"<Oblgr><Nm>{self.applicant}</Nm></Oblgr><Applcnt><Nm>{self.applicant}</Nm></Applcnt>{bank('Issr', self.issuer)}"
            f"<Bnfcry><Nm>Bob AG</Nm></Bnfcry>{bank('AdvsgPty', CORRESPONDENT)}<CntrUdrtkgInd>false</CntrUdrtkgInd>"
            f'<UdrtkgAmt><Amt Ccy="{self.currency}">{self.amount}</Amt></UdrtkgAmt>'
            f"<XpryDtls><XpryTerms><DtTm><Dt>{self.expires}</Dt></DtTm></XpryTerms></XpryDtls>"
            "<GovncRulesAndLaw><RuleId><Cd>ISPR</Cd></RuleId></GovncRulesAndLaw><UdrtkgWrdg/>"
            "<DlvryChanl><Mtd>SWMX</Mtd><DlvrToPtyTp><Cd>ADVP</Cd></DlvrToPtyTp></DlvryChanl>"
            f"<OblgrLbltyAcct><Id><IBAN>{self.account}</IBAN></Id></OblgrLbltyAcct></UdrtkgApplDtls>"
        )
        lines = (f"UNDERTAKING {self.number}", f"ISSUANCE SHA-256 {digest}", f"UETR {self.uetr}")
        inner = f"<UdrtkgAppl>{details}{''.join(f'<InstrsToBk>{line}</InstrsToBk>' for line in lines)}</UdrtkgAppl>"
        return envelope("tsin.005.001.01", inner, message_id)

    def termination(self, message_id: str) -> bytes:
        named = (
            f"<UdrtkgId><Id>{self.number}</Id>{bank('Issr', self.issuer)}<ApplcntRefNb>{self.uetr.hex}</ApplcntRefNb></UdrtkgId>"
        )
        inner = (
            f"<UdrtkgAmdmntReq><UdrtkgAmdmntReqDtls><ApplcntReqNb>{message_id}</ApplcntReqNb>{named}<Applcnt><Nm>{self.applicant}</Nm></Applcnt>"
            f"<TermntnDtls><FctvDt>{datetime.now(UTC).date()}</FctvDt></TermntnDtls></UdrtkgAmdmntReqDtls></UdrtkgAmdmntReq>"
        )
        return envelope("tsrv.004.001.01", inner, message_id)


def bank(name: str, bic: str) -> str:
    return f"<{name}><Id><OrgId><AnyBIC>{bic}</AnyBIC></OrgId></Id></{name}>"


class Trade:
    """Somebody who has undertakings issued."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def send(self, body: bytes, message_id: str) -> int:
        return (await self.gateway.post(body, message_id))[0]

    async def apply(self, draft: Draft) -> tuple[str, str, str]:
        name = draw("A")
        assert await self.send(draft.application(name), name) == 202
        return told(await self.gateway.next("tsrv.019"))

    async def issue(self, draft: Draft, **changes: str) -> None:
        name = draw("S")
        assert await self.send(draft.issuance(name, **changes), name) == 202

    async def end(self, draft: Draft) -> None:
        name = draw("W")
        assert await self.send(draft.termination(name), name) == 202

    async def state(self, draft: Draft) -> str | None:
        found = (await self.gateway.control("GET", "/undertakings", params={"uetr": str(draft.uetr)}))["undertakings"]
        return found[0]["state"] if found else None


def told(answer: Answer) -> tuple[str, str, str]:
    """Category, status and reason of a tsrv.019."""
    return answer.all("StsCtgy")[0], answer.all("Sts")[0], next(iter(answer.all("Cd")), "")


@pytest_asyncio.fixture(loop_scope="session")
async def world(
    database_for: Callable[..., Awaitable[TestDatabase]],
    certificates: Certificates,
    gateway_tls: ssl.SSLContext,
    other_tls: ssl.SSLContext,
    tmp_path: Path,
) -> World:
    """A bank where Alice and Blocked have facilities."""
    database = await database_for("bank_simulator")
    seed: dict[str, Any] = copy.deepcopy(SEED)
    for account in seed["accounts"]:
        if account["account"] in (ALICE, BLOCKED):
            account["facility"] = FACILITY
    path = write_settings(tmp_path / "bank", certificates, database.owner_url, seed)
    return World(read(path), path, certificates, gateway_tls, other_tls, database.owner_url)


@pytest_asyncio.fixture(loop_scope="session")
async def trade(world: World) -> AsyncIterator[Trade]:
    async with world.open() as gateway:
        yield Trade(gateway)
        await gateway.conserved()


async def test_lodged_then_issued(trade: Trade) -> None:
    """A draft holds the facility; the issuance that it names makes it an undertaking, advised and notified once."""
    draft = Draft()
    assert await trade.apply(draft) == ("APPL", "ACCP", "")
    assert await trade.state(draft) == "LODGED"
    await trade.issue(draft)
    notice = await trade.gateway.next("tsrv.003")
    assert (notice.all("ApplcntRefNb"), notice.all("Amt"), notice.all("Id")[0]) == ([draft.uetr.hex], ["60000.00"], draft.number)
    (shown,) = (await trade.gateway.control("GET", "/undertakings", params={"uetr": str(draft.uetr)}))["undertakings"]
    assert (shown["state"], shown["advised_to"]) == ("ISSUED", CORRESPONDENT)
    book = await trade.gateway.book()
    assert [each["issues"] for each in book["undertakings"]] == [1]
    assert await trade.apply(Draft()) == ("APPL", "REJT", "AM02")


async def test_withdrawn_drafts_free_the_facility(trade: Trade) -> None:
    """A draft that is ended holds nothing, and is never issued."""
    draft = Draft()
    await trade.apply(draft)
    await trade.end(draft)
    assert told(await trade.gateway.next("tsrv.019")) == ("APPL", "WTHD", "")
    await trade.issue(draft)
    assert told(await trade.gateway.next("tsrv.019")) == ("APPL", "WTHD", "")
    assert await trade.state(draft) == "WITHDRAWN"
    assert await trade.apply(Draft()) == ("APPL", "ACCP", "")


async def test_issued_is_irrevocable(trade: Trade) -> None:
    """What is issued is not ended by its applicant: it says so, and notifies again, in the same bytes."""
    draft = Draft()
    await trade.apply(draft)
    await trade.issue(draft)
    first = await trade.gateway.next("tsrv.003")
    await trade.end(draft)
    assert [answer.kind for answer in await trade.gateway.rest()] == ["tsrv.003", "tsrv.019"]
    assert [answer.body for answer in await trade.gateway.mailbox(after=0)].count(first.body) == 2
    assert await trade.state(draft) == "ISSUED"


async def test_what_never_came_never_comes(trade: Trade) -> None:
    """An issuance or termination of what the bank does not know bars it."""
    for ask in (trade.issue, trade.end):
        draft = Draft()
        await ask(draft)
        assert told(await trade.gateway.next("tsrv.019")) == ("APPL", "REJT", "NOOR")
        assert await trade.state(draft) == "TOMBSTONED"
        assert await trade.apply(draft) == ("APPL", "REJT", "NOOR")


async def test_another_issuance_than_the_draft_names(trade: Trade) -> None:
    """What was not agreed is not issued: another amount ends the draft."""
    draft = Draft()
    await trade.apply(draft)
    await trade.issue(draft, amount="60000.01")
    assert told(await trade.gateway.next("tsrv.019")) == ("APPL", "REJT", "NARR")
    assert await trade.state(draft) == "REJECTED"


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        (Draft(amount="100000.01"), "AM02"),
        (Draft(account=BOB, applicant="Bob AG"), "AC01"),
        (Draft(account=BLOCKED, applicant="Blocked SE"), "AC06"),
        (Draft(applicant="Mallory GmbH"), "BE01"),
        (Draft(currency="USD"), "AM03"),
        (Draft(issuer=CORRESPONDENT), "RC03"),
        (Draft(expires=date(2020, 1, 1)), "DT01"),
        (Draft(expires=datetime.now(UTC).date() + timedelta(days=4 * 366)), "DT01"),
    ],
)
async def test_refusals(trade: Trade, draft: Draft, reason: str) -> None:
    """Each rule that an application breaks is named, and nothing is lodged."""
    assert await trade.apply(draft) == ("APPL", "REJT", reason)
    assert await trade.state(draft) == "REJECTED"


async def test_repeats_and_reused_references(trade: Trade) -> None:
    """The same again, marked or not, is answered in the same bytes; another undertaking under a known reference is not taken."""
    draft, name = Draft(), draw("A")
    body = draft.application(name)
    assert await trade.send(body, name) == 202
    first = await trade.gateway.next("tsrv.019")
    assert await trade.send(as_possible_duplicate(body), name) == 202
    assert (await trade.gateway.next("tsrv.019")).body == first.body
    other = draw("A")
    assert await trade.send(replace(draft, amount="1.00").application(other), other) == 400
    assert await trade.state(draft) == "LODGED"


async def test_a_facility_is_not_exceeded_by_many_at_once(trade: Trade) -> None:
    """Of applications that come at the same time as many are lodged as the facility holds."""
    drafts = [Draft(amount="30000.00") for _ in range(8)]
    names = [draw("A") for _ in drafts]
    await asyncio.gather(*(trade.send(draft.application(name), name) for draft, name in zip(drafts, names, strict=True)))
    states = [await trade.state(draft) for draft in drafts]
    assert (states.count("LODGED"), states.count("REJECTED")) == (3, 5)
    await trade.gateway.rest()


@pytest.mark.parametrize(
    "statement",
    [
        "update undertakings set state = 'LODGED' where state = 'ISSUED'",
        "update undertakings set amount = amount + 1",
        "update undertaking_issues set advised_to = 'NOBODY'",
        "delete from undertaking_issues",
        "insert into undertaking_issues select uetr, 'OTHER', issued_on, advised_to, document from undertaking_issues",
    ],
)
async def test_the_database_keeps_what_was_issued(trade: Trade, world: World, statement: str) -> None:
    """Whoever has the database cannot change what was undertaken."""
    draft = Draft()
    await trade.apply(draft)
    await trade.issue(draft)
    await trade.gateway.next("tsrv.003")
    async with world.inside() as books:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await books.execute(statement)
