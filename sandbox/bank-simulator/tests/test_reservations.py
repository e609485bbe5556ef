"""Reservations, payments out of them, payments between institutions and returns: over real HTTPS and a real database, judged by the books."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from bank_world import ALICE, BANK, BOB, CORRESPONDENT, LORO, POOR, Answer, Gateway, Order, agent, draw, envelope, stamp


def header(message_id: str) -> str:
    return f"<MsgHdr><MsgId>{message_id}</MsgId><CreDtTm>{stamp(datetime.now(UTC))}</CreDtTm></MsgHdr>"


def named(order: Order, account: str) -> str:
    return f"<RsvatnId>{order.uetr.hex}</RsvatnId><Tp><Prtry>PMNT</Prtry></Tp><AcctId><IBAN>{account}</IBAN></AcctId>"


async def send(gateway: Gateway, definition: str, inner: str, message_id: str) -> bytes:
    body = envelope(definition, inner, message_id)
    assert (await gateway.post(body, message_id))[0] == 202
    return body


async def reserve(gateway: Gateway, order: Order, *, account: str = ALICE, start: datetime | None = None) -> tuple[str, bytes]:
    message_id = draw("R")
    begins = f"<StartDtTm><DtTm>{stamp(start or datetime.now(UTC))}</DtTm></StartDtTm>"
    amount = f'<Amt><AmtWthCcy Ccy="{order.currency}">{order.amount}</AmtWthCcy></Amt>'
    inner = f"<CretRsvatn>{header(message_id)}<RsvatnId>{named(order, account)}</RsvatnId><ValSet>{begins}{amount}</ValSet></CretRsvatn>"
    return message_id, await send(gateway, "camt.103.001.03", inner, message_id)


async def delete(gateway: Gateway, order: Order) -> None:
    message_id = draw("D")
    inner = f"<DelRsvatn>{header(message_id)}<CurRsvatn>{named(order, ALICE)}</CurRsvatn></DelRsvatn>"
    await send(gateway, "camt.049.001.07", inner, message_id)


async def ask(gateway: Gateway, order: Order) -> Answer:
    message_id = draw("N")
    criteria = f"<RsvatnQryDef><RsvatnCrit><QryNm>{order.uetr.hex}</QryNm></RsvatnCrit></RsvatnQryDef>"
    await send(gateway, "camt.046.001.08", f"<GetRsvatn>{header(message_id)}{criteria}</GetRsvatn>", message_id)
    answer = await gateway.next("camt.047")
    assert answer.all("RsvatnId") == [order.uetr.hex]
    return answer


async def receipt(gateway: Gateway) -> tuple[str, str | None]:
    """Status and reason of the camt.025 that comes next."""
    (handled,) = (await gateway.next("camt.025")).items("ReqHdlg")
    return handled.get("Cd", ""), handled.get("Prtry") or None


async def pay(gateway: Gateway, order: Order, *, reserved: bool = True) -> None:
    """The payment, out of its reservation."""
    message_id = draw("P")
    order.conditional = False
    group = (
        f"<GrpHdr><MsgId>{message_id}</MsgId><CreDtTm>{stamp(datetime.now(UTC))}</CreDtTm><NbOfTxs>1</NbOfTxs>"
        "<SttlmInf><SttlmMtd>CLRG</SttlmMtd></SttlmInf></GrpHdr>"
    )
    footing = "</PmtId><PmtTpInf><LclInstrm><Prtry>RSVD</Prtry></LclInstrm></PmtTpInf>" if reserved else "</PmtId>"
    inner = f"<FIToFICstmrCdtTrf>{group}{order.xml().replace('</PmtId>', footing)}</FIToFICstmrCdtTrf>"
    await send(gateway, "pacs.008.001.13", inner, message_id)


async def test_payment_out_of_its_reservation(gateway: Gateway) -> None:
    """Reserved money is gone for others; the payment moves it once; the reservation is then paid, and is not given back."""
    order = Order(amount="900.00")
    await reserve(gateway, order)
    assert await receipt(gateway) == ("ACPT", None)
    assert await gateway.account(ALICE) == ("1000.00", "900.00", "100.00")
    await gateway.pay(Order(amount="200.00"))
    assert list((await gateway.next("pacs.002")).statuses().values()) == [("RJCT", "AM04")]
    await pay(gateway, order)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    assert (await gateway.next("camt.054")).items("Ntry")[0]["UETR"] == str(order.uetr)
    assert await gateway.account(ALICE) == ("100.00", "0.00", "100.00")
    assert await gateway.account(BOB) == ("950.00", "0.00", "950.00")
    await delete(gateway, order)
    assert await receipt(gateway) == ("RJCT", "PAID")
    assert "PAID" in (await ask(gateway, order)).all("Prtry")
    await gateway.conserved()


async def test_reservation_is_given_back_once(gateway: Gateway) -> None:
    """Deleted, the money is back; again it is the same answer; a payment that comes for it is refused, though there is money."""
    order = Order()
    await reserve(gateway, order)
    assert await receipt(gateway) == ("ACPT", None)
    assert (await ask(gateway, order)).items("Rsvatn")[0]["Cd"] == "ENAB"
    for _ in range(2):
        await delete(gateway, order)
        assert await receipt(gateway) == ("ACPT", None)
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
    await pay(gateway, order)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "DS02")}
    assert (await ask(gateway, order)).items("Rsvatn")[0]["Cd"] == "DELD"
    await gateway.conserved()


@pytest.mark.parametrize("first", ["deletion", "question"])
async def test_tombstone(gateway: Gateway, first: str) -> None:
    """A reservation that is deleted or asked about before it comes never will be."""
    order = Order()
    if first == "deletion":
        await delete(gateway, order)
        assert await receipt(gateway) == ("RJCT", "NONE")
    else:
        assert "X050" in (await ask(gateway, order)).all("Cd")
    await reserve(gateway, order)
    (handled,) = (await gateway.next("camt.025")).items("ReqHdlg")
    assert "TM01" in handled.values()
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
    await gateway.conserved()


async def test_repeat_and_another_of_the_same_name(gateway: Gateway) -> None:
    """The same message again brings the same receipt; another amount by the same name is refused, and the first stays."""
    order = Order()
    message_id, body = await reserve(gateway, order)
    first = await gateway.next("camt.025")
    assert (await gateway.post(body, message_id))[0] == 202
    assert (await gateway.next("camt.025")).body == first.body
    await reserve(gateway, Order(uetr=order.uetr, amount="50.00"))
    assert "DU03" in (await gateway.next("camt.025")).all("Cd")
    assert await gateway.account(ALICE) == ("1000.00", "100.00", "900.00")
    await gateway.conserved()


async def test_reservation_that_is_turned_down(gateway: Gateway) -> None:
    """No money, and a time that was over before: refused with a reason, nothing reserved; a deletion says that it is over."""
    poor, late = Order(amount="500.00"), Order()
    await reserve(gateway, poor, account=POOR)
    assert "AM04" in (await gateway.next("camt.025")).all("Cd")
    await reserve(gateway, late, start=datetime.now(UTC) - timedelta(days=30))
    assert "TM01" in (await gateway.next("camt.025")).all("Cd")
    await delete(gateway, poor)
    assert await receipt(gateway) == ("RJCT", "OVER")
    await gateway.conserved()


async def test_reservation_expires(gateway: Gateway) -> None:
    """When its time is over the money goes back and its sender is told; a payment that comes for it is refused."""
    order = Order()
    await gateway.misbehave("expire_early", delay_ms=300)
    await reserve(gateway, order)
    assert await receipt(gateway) == ("ACPT", None)
    assert "AB03" in (await gateway.next("camt.025")).all("Cd")
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
    await pay(gateway, order)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "AB03")}
    await gateway.conserved()


async def test_payment_without_its_reservation(gateway: Gateway) -> None:
    """A payment that is to be paid out of a reservation is not paid out of free money, nor out of one of another amount."""
    none, other = Order(), Order()
    await pay(gateway, none)
    assert (await gateway.next("pacs.002")).statuses() == {none.uetr: ("RJCT", "AM04")}
    await reserve(gateway, other)
    assert await receipt(gateway) == ("ACPT", None)
    other.amount = "99.00"
    await pay(gateway, other)
    assert (await gateway.next("pacs.002")).statuses() == {other.uetr: ("RJCT", "AM09")}
    assert await gateway.account(ALICE) == ("1000.00", "100.00", "900.00")
    await gateway.conserved()


async def test_return_in_part_and_whole(gateway: Gateway) -> None:
    """Money comes back by a pacs.004 and its booking, no more than was paid; a payment that is not settled has nothing to give back."""
    order = Order(conditional=False)
    await gateway.pay(order)
    await gateway.next("pacs.002")
    await gateway.next("camt.054")
    for amount, left in (("40.00", "60.00"), ("60.00", "0.00")):
        await gateway.control("POST", f"/payments/{order.uetr}/return", json={"amount": amount, "reason": "AC04"})
        told = (await gateway.next("pacs.004")).items("TxInf")[0]
        assert (told["OrgnlUETR"], told["OrgnlIntrBkSttlmAmt"], told["RtrdIntrBkSttlmAmt"]) == (str(order.uetr), "100.00", amount)
        entry = (await gateway.next("camt.054")).items("Ntry")[0]
        assert (entry["CdtDbtInd"], entry["Amt"]) == ("CRDT", amount)
        assert (await gateway.account(BOB))[0] == f"{50 + float(left):.2f}"
    with pytest.raises(AssertionError):
        await gateway.control("POST", f"/payments/{order.uetr}/return", json={})
    held = await gateway.hold()
    with pytest.raises(AssertionError):
        await gateway.control("POST", f"/payments/{held.uetr}/return", json={})
    await gateway.conserved()


async def test_payment_between_institutions(gateway: Gateway) -> None:
    """A pacs.009 moves money between accounts of the institutions that it names, and no customer's; its status names it as what it is."""
    for account, code in ((LORO, "AC03"), (ALICE, "AG01")):
        order, message_id = Order(creditor=BOB), draw("P")
        held = f"<Othr><Id>{account}</Id></Othr>" if account == LORO else f"<IBAN>{account}</IBAN>"
        inner = (
            f"<FICdtTrf><GrpHdr><MsgId>{message_id}</MsgId><CreDtTm>{stamp(datetime.now(UTC))}</CreDtTm><NbOfTxs>1</NbOfTxs>"
            "<SttlmInf><SttlmMtd>CLRG</SttlmMtd></SttlmInf></GrpHdr>"
            f"<CdtTrfTxInf><PmtId><EndToEndId>{order.end_to_end_id}</EndToEndId><UETR>{order.uetr}</UETR></PmtId>"
            f'<IntrBkSttlmAmt Ccy="EUR">100.00</IntrBkSttlmAmt>{agent("Dbtr", CORRESPONDENT)}<DbtrAcct><Id>{held}</Id></DbtrAcct>'
            f"{agent('DbtrAgt', BANK)}{agent('CdtrAgt', BANK)}{agent('Cdtr', CORRESPONDENT)}<CdtrAcct><Id><IBAN>{BOB}</IBAN></Id></CdtrAcct>"
            "</CdtTrfTxInf></FICdtTrf>"
        )
        await send(gateway, "pacs.009.001.12", inner, message_id)
        answer = await gateway.next("pacs.002")
        assert answer.all("OrgnlMsgNmId")[0] == "pacs.009.001.12"
        # The first names a customer's account as an institution's.
        assert answer.statuses() == {order.uetr: ("RJCT", code)}
    await gateway.conserved()


async def test_name_of_a_reservation(gateway: Gateway) -> None:
    """A reservation that is not named after a UETR is no valid message, and changes nothing."""
    order, message_id = Order(), draw("D")
    bad = named(order, ALICE).replace(order.uetr.hex, uuid.uuid4().hex.upper())
    body = envelope("camt.049.001.07", f"<DelRsvatn>{header(message_id)}<CurRsvatn>{bad}</CurRsvatn></DelRsvatn>", message_id)
    status, told = await gateway.post(body, message_id)
    assert (status, told["rule"]) == (400, "RESERVATION_NAME")
