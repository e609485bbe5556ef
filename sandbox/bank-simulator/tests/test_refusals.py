"""What the bank turns down, and what it does not even take."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from bank_world import (
    ALICE,
    BLOCKED,
    CLOSED,
    CORRESPONDENT,
    FOREIGN,
    GATEWAY,
    POOR,
    SEED,
    YEN,
    Gateway,
    Order,
    World,
    camt_056,
    draw,
    envelope,
    message,
    pacs_008,
    pacs_028,
    read,
    release,
    write_settings,
)

OTHER = "DE75512108001245126199"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount": "1000.01"}, "AM04"),
        ({"debtor": POOR, "debtor_name": "Poor KG", "amount": "11.01"}, "AM04"),
        ({"amount": "900.01"}, "AM14"),
        ({"debtor": OTHER}, "AC01"),
        ({"debtor": BLOCKED, "debtor_name": None}, "AC06"),
        ({"debtor": CLOSED, "debtor_name": None}, "AC04"),
        ({"debtor_name": "Mallory"}, "BE01"),
        ({"creditor": OTHER}, "AC03"),
        ({"creditor": None}, "AC03"),
        ({"creditor": ALICE}, "AC03"),
        ({"creditor": BLOCKED}, "AC06"),
        ({"creditor": CLOSED}, "AC07"),
        ({"creditor": YEN}, "AM03"),
        ({"currency": "JPY", "amount": "100"}, "AM03"),
        ({"currency": "USD"}, "AM11"),
        ({"creditor": FOREIGN, "creditor_agent": "BNPAFRPPXXX"}, "RC04"),
        ({"debtor": YEN, "debtor_name": "Yen KK", "currency": "JPY", "amount": "1", "creditor_agent": CORRESPONDENT}, "AM03"),
        ({"debtor_agent": "BNPAFRPPXXX"}, "RC03"),
        ({"charge_bearer": "CRED"}, "BE19"),
        ({"expires_in": -1.0}, "TM01"),
        ({"expires_in": 86500.0}, "CH03"),
    ],
)
async def test_turned_down(shared: Gateway, change: dict[str, Any], reason: str) -> None:
    """A payment that breaks a rule of the business is RJCT with the reason for it, and moves no money."""
    order = replace(Order(amount="1000.01" if reason == "AM04" else "1.00"), **change)
    order.conditional = reason != "AM04"
    await shared.pay(order)
    assert (await shared.next("pacs.002")).statuses() == {order.uetr: ("RJCT", reason)}
    assert (await shared.control("GET", "/entries", params={"uetr": str(order.uetr)}))["entries"] == []
    assert await shared.state(order) == "REJECTED"
    await shared.conserved()


async def test_overdraft_limit(gateway: Gateway) -> None:
    """An agreed overdraft may be used to the cent."""
    await gateway.hold(Order(debtor=POOR, debtor_name="poor  kg", amount="11.00"))
    assert await gateway.account(POOR) == ("1.00", "11.00", "0.00")


async def test_duplicates(gateway: Gateway) -> None:
    """A UETR or instruction id that is used again for something else is refused; what was there stays as it was."""
    first = await gateway.hold()
    await gateway.pay(replace(first, amount="1.00", instruction_id=draw("I")))
    assert (await gateway.next("pacs.002")).statuses() == {first.uetr: ("RJCT", "DU03")}
    again = Order(instruction_id=first.instruction_id)
    await gateway.pay(again)
    assert (await gateway.next("pacs.002")).statuses() == {again.uetr: ("RJCT", "DU05")}
    await gateway.hold(Order(end_to_end_id=first.end_to_end_id, amount="2.00"))
    await gateway.ask(first.uetr)
    assert (await gateway.next("pacs.002")).statuses() == {first.uetr: ("ACFW", None)}
    assert await gateway.account(ALICE) == ("1000.00", "102.00", "898.00")
    await gateway.conserved()


async def test_same_key_other_content(gateway: Gateway) -> None:
    """An idempotency key that comes with other content is a conflict, and nothing of it happens."""
    order, message_id = Order(), draw("P")
    assert (await gateway.post(pacs_008([order], message_id), message_id))[0] == 202
    status, refusal = await gateway.post(pacs_008([replace(order, amount="1.00")], message_id), message_id)
    assert (status, refusal["field"]) == (409, "idempotency_key")
    await gateway.next("pacs.002")
    await gateway.nothing()
    assert await gateway.account(ALICE) == ("1000.00", "100.00", "900.00")


async def test_cut_off(world: World, tmp_path: Any) -> None:
    """After the currency's cut-off time, and on a date too far away, a payment is refused."""
    path = write_settings(
        tmp_path / "late", world.certificates, world.owner_url, SEED | {"terms": {"cut_off": {"EUR": "00:00"}}, "time_zone": "UTC"}
    )
    async with replace(world, settings=read(path)).open() as gateway:
        order = Order(amount="1.00")
        await gateway.pay(order)
        assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "TM01")}
        for days, reason in ((-7, "DT01"), (7, "DT01")):
            order, message_id = Order(amount="1.00"), draw("P")
            day = (datetime.now(UTC) + timedelta(days=days)).date().isoformat()
            body = pacs_008([order], message_id).replace(
                b"<AddtlDtTm>", f"<IntrBkSttlmDt>{day}</IntrBkSttlmDt><AddtlDtTm>".encode()
            )
            assert (await gateway.post(body, message_id))[0] == 202
            assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", reason)}


async def test_other_counterparty(world: World) -> None:
    """A counterparty reaches neither another's payments, nor its mailbox, nor accounts that it has no mandate for."""
    async with world.open_to_both() as (gateway, other):
        order = await gateway.hold()
        await other.nothing(0.1)
        assert await other.release(order) == 404
        await other.cancel(order.uetr)
        assert "AGNT" in (await other.next("camt.029")).all("Cd")
        await other.ask(order.uetr)
        assert (await other.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "AGNT")}
        await other.pay(order)
        assert (await other.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "DU03")}
        forbidden = Order()
        await other.pay(forbidden)
        assert (await other.next("pacs.002")).statuses() == {forbidden.uetr: ("RJCT", "AG01")}
        message_id = draw("P")
        status, refusal = await other.post(pacs_008([Order()], message_id, GATEWAY), message_id)
        assert (status, refusal["field"], refusal["rule"]) == (400, "AppHdr/Fr", "PARTY_MATCH")
        await gateway.nothing(0.1)
        assert await gateway.state(order) == "HELD"


async def test_certificates(world: World) -> None:
    """Without a certificate nobody gets in; with one that names no counterparty nobody gets far."""
    async with world.open() as gateway:
        unknown = world.certificates.client("unknown.example")
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=unknown)) as session,
            session.get(f"{gateway.rail}/mailbox") as response,
        ):
            assert (response.status, (await response.json())["rule"]) == (403, "KNOWN_IDENTITY")
        nobody = aiohttp.TCPConnector(ssl=world.certificates.nobody())
        async with aiohttp.ClientSession(connector=nobody) as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"{gateway.rail}/mailbox")
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(gateway.rail.replace("https", "http") + "/mailbox")


def changed(old: str, new: str, order: Order | None = None) -> tuple[bytes, str]:
    message_id = draw("P")
    body = pacs_008([order or Order()], message_id)
    assert old.encode() in body
    return body.replace(old.encode(), new.encode()), message_id


def cases() -> dict[str, tuple[bytes, str, str, str]]:
    """Name -> message, its key, and the field and rule that the refusal names."""
    transfer, orders = "Document/FIToFICstmrCdtTrf", [Order(), Order()]
    message_id = draw("P")
    two = pacs_008(orders, message_id)
    same = pacs_008([orders[0], replace(orders[1], uetr=orders[0].uetr)], message_id)
    mixed = envelope("pacs.008.001.13", "<FIToFICstmrCdtTrf/>", message_id, named="pacs.009.001.12")
    signed = b'<Sgntr><s:Signature xmlns:s="http://www.w3.org/2000/09/xmldsig#"/></Sgntr></AppHdr>'
    bad_iban = replace(Order(), debtor="DE89370400440532013001")
    total = '<NbOfTxs>2</NbOfTxs><TtlIntrBkSttlmAmt Ccy="EUR">1.00</TtlIntrBkSttlmAmt>'
    return {
        "zero": (*changed(">100.00<", ">0.00<"), f"{transfer}/CdtTrfTxInf/IntrBkSttlmAmt", "AMOUNT"),
        "plus sign": (*changed(">100.00<", ">+5.00<"), f"{transfer}/CdtTrfTxInf/IntrBkSttlmAmt", "AMOUNT"),
        "too many decimals": (*changed(">100.00<", ">100.001<"), f"{transfer}/CdtTrfTxInf/IntrBkSttlmAmt", "AMOUNT"),
        "negative": (*changed(">100.00<", ">-1.00<"), f"{transfer}/CdtTrfTxInf/IntrBkSttlmAmt", "XSD_CVC_MININCLUSIVE_VALID"),
        "no such currency": (*changed('Ccy="EUR"', 'Ccy="ZZZ"'), f"{transfer}/CdtTrfTxInf/IntrBkSttlmAmt", "AMOUNT"),
        "gold": (*changed('Ccy="EUR"', 'Ccy="XAU"'), f"{transfer}/CdtTrfTxInf/IntrBkSttlmAmt", "AMOUNT"),
        "IBAN": (pacs_008([bad_iban], "IBAN1"), "IBAN1", f"{transfer}/CdtTrfTxInf/DbtrAcct/Id/IBAN", "IBAN"),
        "BIC": (*changed("LSTPDEFFXXX</BICFI></FinInstnId></CdtrAgt>", "LSTPZZFFXXX</BICFI></FinInstnId></CdtrAgt>"),
                f"{transfer}/CdtTrfTxInf/CdtrAgt/FinInstnId/BICFI", "BIC"),
        "UETR": (*changed("-4", "-5"), f"{transfer}/CdtTrfTxInf/PmtId/UETR", "XSD_CVC_PATTERN_VALID"),
        "no UETR": (*changed("<UETR>", "<ClrSysRef>"), "BusinessMessage", "WELL_FORMED"),
        "lock without condition": (*changed("<Prtry>COND</Prtry>", "<Prtry>INST</Prtry>"),
                                   f"{transfer}/CdtTrfTxInf/PmtTpInf/LclInstrm/Prtry", "LOCK"),
        "no offset": (*changed("+00:00</XpryDtTm>", "</XpryDtTm>"), f"{transfer}/CdtTrfTxInf/AddtlDtTm/XpryDtTm", "OFFSET_DATE_TIME"),
        "count": (two.replace(b"<NbOfTxs>2", b"<NbOfTxs>3"), message_id, f"{transfer}/GrpHdr/NbOfTxs", "COUNT"),
        "sum": (two.replace(b"<NbOfTxs>2</NbOfTxs>", total.encode()), message_id, f"{transfer}/GrpHdr/TtlIntrBkSttlmAmt", "SUM"),
        "one of two": (two.replace(b'"EUR">100.00', b'"EUR">1.001', 1), message_id,
                              f"{transfer}/CdtTrfTxInf[1]/IntrBkSttlmAmt", "AMOUNT"),
        "same UETR": (same, message_id, f"{transfer}/CdtTrfTxInf/PmtId/UETR", "UNIQUE"),
        "order of elements": (*changed("<ChrgBr>DEBT</ChrgBr>", "" ), f"{transfer}/CdtTrfTxInf/PmtSgntr", "XSD_ELEMENT_CONTENT"),
        "definition": (mixed, message_id, "AppHdr/MsgDefIdr", "DEFINITION_MATCH"),
        "message id": (two.replace(b"<MsgId>P", b"<MsgId>X"), message_id, f"{transfer}/GrpHdr/MsgId", "BUSINESS_MESSAGE_MATCH"),
        "key": (two, "another", "AppHdr/BizMsgIdr", "IDEMPOTENCY_KEY_MATCH"),
        "reference": (*changed("<EndToEndId>E", "<EndToEndId>/E"), f"{transfer}/CdtTrfTxInf/PmtId/EndToEndId", "REFERENCE"),
        "agent": (two.replace(b"<InstgAgt><FinInstnId><BICFI>LSTPDEFFGTW", b"<InstgAgt><FinInstnId><BICFI>LSTPDEFFOTH"), message_id,
                  f"{transfer}/GrpHdr/InstgAgt", "AGENT_MATCH"),
        "signature": (two.replace(b"</AppHdr>", signed), message_id, "AppHdr/Sgntr", "SIGNATURE_NOT_AGREED"),
        "message not taken": (envelope("pacs.002.001.15", "<FIToFIPmtStsRpt/>", message_id), message_id, "Document", "DOCUMENT"),
        "question about nothing": (pacs_028([], message_id), message_id, "Document/FIToFIPmtStsReq/TxInf/OrgnlUETR", "REQUIRED"),
        "cancellation of nothing": (
            camt_056([orders[0].uetr], message_id).replace(f"<OrgnlUETR>{orders[0].uetr}</OrgnlUETR>".encode(), b""), message_id,
            "Document/FIToFIPmtCxlReq/Undrlyg/TxInf/OrgnlUETR", "REQUIRED",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(cases()))
async def test_not_valid(shared: Gateway, name: str) -> None:
    """What is not valid is refused with field and rule, kept in quarantine byte for byte, and has no effect."""
    body, key, field, rule = cases()[name]
    before = await shared.control("GET", "/payments")
    status, refusal = await shared.post(body, key)
    assert (status, refusal["field"], refusal["rule"]) == (400, field, rule), refusal
    kept = (await shared.control("GET", "/quarantine"))["quarantine"][0]
    assert (kept["field"], kept["rule"], kept["idempotency_key"]) == (field, rule, key)
    assert base64.b64decode(kept["body_base64"]) == body
    assert await shared.control("GET", "/payments") == before
    await shared.nothing(0)


async def test_requests(gateway: Gateway) -> None:
    """A request that is none of the rail's says so."""
    body = pacs_008([Order()], "M1")
    good = message(body, "M1")
    assert (
        await gateway.request("POST", "/requests", data=json.dumps({"requests": [good]}), headers={"Content-Type": "text/plain"})
    )[0] == 415
    assert (await gateway.request("POST", "/requests", json={"requests": [good], "more": " " * (8 << 20)}))[0] == 413
    none: tuple[Any, ...] = ({}, [good], {"requests": good}, {"requests": []}, {"requests": [good] * 129})
    for listed in none:
        assert (await gateway.request("POST", "/requests", json=listed))[0] == 400, listed
    broken: tuple[Any, ...] = (
        {},
        7,
        good | {"more": ""},
        good | {"idempotency_key": ""},
        good | {"body_base64": "?"},
        release(Order()) | {"uetr": str(uuid.uuid1())},
    )
    for request in broken:
        assert (await gateway.ask_all(request))[0][0] == 400, request
    assert (await gateway.post(body + b" " * (1 << 20), "M1"))[1]["rule"] == "SIZE"
    for path in (
        "/mailbox?after=-1",
        "/mailbox?wait=21",
        "/mailbox?wait=x",
        "/mailbox?limit=0",
        "/mailbox?limit=501",
        "/mailbox?cursor=1",
    ):
        assert (await gateway.request("GET", path))[0] == 400, path
    for content in ({"upto": "1"}, {"upto": -1}, {"upto": True}, {}, {"upto": 0, "more": 1}, [1]):
        assert (await gateway.request("POST", "/mailbox/ack", json=content))[0] == 400, content
    assert (await gateway.request("GET", "/nothing"))[0] == 404
