"""Receipts, reports of reservations and returns: what is read of them, and what the schemas let pass and the reader does not."""

from __future__ import annotations

import pytest
from bank_samples import AT, NAMES, ORIGINAL, SCHEMAS, booking, message

from bank_gateway.iso20022.reader import read
from bank_gateway.messages import AnyStatement, Booking, PaymentReturn, ReservationStatus
from lockstep_kit.amounts import amount_from_text
from lockstep_kit.fields import FieldInvalid

NAME = NAMES.uetr.replace("-", "")
HUNDRED = amount_from_text("EUR", "100.00", 2)


def receipt(handled: str, *, about: str = "<MsgNmId>camt.103.001.03</MsgNmId>", payment: str = "", created: str = AT) -> bytes:
    header = f"<MsgHdr><MsgId>ANSWER1</MsgId><CreDtTm>{created}</CreDtTm></MsgHdr>"
    details = f"<RctDtls><OrgnlMsgId><MsgId>R1</MsgId>{about}</OrgnlMsgId>{payment}{handled}</RctDtls>"
    return message("camt.025.001.09", f"<Rct>{header}{details}</Rct>")


def handling(code: str, reason: str = "", text: str = "") -> str:
    because = f"<StsRsn><Rsn>{reason}</Rsn>{f'<AddtlInf>{text}</AddtlInf>' if text else ''}</StsRsn>" if reason else ""
    return f"<ReqHdlg><Sts><Cd>{code}</Cd></Sts>{because}</ReqHdlg>"


def report(told: str, *, name: str = NAME, query: str = "<OrgnlBizQry><MsgId>N1</MsgId></OrgnlBizQry>") -> bytes:
    header = f"<MsgHdr><MsgId>ANSWER1</MsgId><CreDtTm>{AT}</CreDtTm>{query}</MsgHdr>"
    one = f"<CurRsvatn><RsvatnId><RsvatnId>{name}</RsvatnId><Tp><Prtry>PMNT</Prtry></Tp></RsvatnId><RsvatnOrErr>{told}</RsvatnOrErr></CurRsvatn>"
    return message("camt.047.001.08", f"<RtrRsvatn>{header}<RptOrErr><BizRpt>{one}</BizRpt></RptOrErr></RtrRsvatn>")


def money_back(*, count: int = 1, name: str = "<RtrId>R1</RtrId>", amount: str = "40.00", original: str = ORIGINAL) -> bytes:
    group = f"<GrpHdr><MsgId>ANSWER1</MsgId><CreDtTm>{AT}</CreDtTm><NbOfTxs>{count}</NbOfTxs><SttlmInf><SttlmMtd>CLRG</SttlmMtd></SttlmInf></GrpHdr>"
    item = (
        f'<TxInf>{name}{original}<OrgnlIntrBkSttlmAmt Ccy="EUR">100.00</OrgnlIntrBkSttlmAmt>'
        f'<RtrdIntrBkSttlmAmt Ccy="EUR">{amount}</RtrdIntrBkSttlmAmt><RtrRsnInf><Rsn><Cd>AC04</Cd></Rsn></RtrRsnInf></TxInf>'
    )
    return message("pacs.004.001.14", f"<PmtRtr>{group}{item}</PmtRtr>")


def said(octets: bytes) -> AnyStatement:
    (found,) = read(octets, SCHEMAS).statements
    return found


def test_receipt() -> None:
    """Which message it answers, for which payment, how, why and with what remark."""
    told = handling("RJCT", "<Cd>AM04</Cd>", "no  money")
    found = said(receipt(told, payment=f"<OrgnlPmtId><UETR>{NAMES.uetr}</UETR></OrgnlPmtId>"))
    assert found == ReservationStatus(NAMES.uetr, "camt.103.001.03", "RJCT", "AM04", "no money", "R1")
    own = said(receipt(handling("RJCT", "<Prtry>PAID</Prtry>"), about="<MsgNmId>camt.049.001.07</MsgNmId>"))
    assert own == ReservationStatus("", "camt.049.001.07", "RJCT", "PAID", "", "R1")


def test_report_of_a_reservation() -> None:
    """One that stands is told with its amount, one that was not found with the error's code; one that is named otherwise is nobody's."""
    stands = report('<Rsvatn><Amt><AmtWthCcy Ccy="EUR">100.00</AmtWthCcy></Amt><Sts><Cd>ENAB</Cd></Sts></Rsvatn>')
    assert said(stands) == ReservationStatus(NAMES.uetr, "camt.046.001.08", "ENAB", "", "", "N1", HUNDRED)
    none = report("<BizErr><Err><Cd>X050</Cd></Err><Desc>not found</Desc></BizErr>")
    assert said(none) == ReservationStatus(NAMES.uetr, "camt.046.001.08", "X050", "", "not found", "N1")
    other = said(report("<BizErr><Err><Cd>X050</Cd></Err></BizErr>", name="OURS"))
    assert isinstance(other, ReservationStatus)
    assert other.uetr == ""


def test_return() -> None:
    """How much of what comes back, by which name and why."""
    found = said(money_back())
    forty = amount_from_text("EUR", "40.00", 2)
    assert found == PaymentReturn(NAMES.uetr, NAMES.end_to_end_id, "R1", HUNDRED, forty, "AC04", "")


def test_booking_of_a_return_is_told_as_one() -> None:
    """An entry with return information is no settlement."""
    octets = booking().replace(b"</TxDtls>", b"<RtrInf><Rsn><Cd>AC04</Cd></Rsn></RtrInf></TxDtls>")
    found = said(octets)
    assert isinstance(found, Booking)
    assert found.returned


@pytest.mark.parametrize(
    ("octets", "field"),
    [
        (receipt(""), "RctDtls/ReqHdlg"),
        (receipt(handling("ACPT") * 2), "RctDtls/ReqHdlg"),
        (receipt(handling("ACPT"), about=""), "OrgnlMsgId/MsgNmId"),
        (receipt(handling("ACPT"), created="2026-11-21T12:00:00"), "MsgHdr/CreDtTm"),
        (report("<BizErr><Err><Cd>X050</Cd></Err></BizErr>", query=""), "MsgHdr/OrgnlBizQry/MsgId"),
        (report('<Rsvatn><Amt><AmtWthCcy Ccy="ZZZ">100.00</AmtWthCcy></Amt></Rsvatn>'), "Amt.asset"),
        (money_back(count=2), "GrpHdr/NbOfTxs"),
        (money_back(name=""), "RtrId"),
        (money_back(amount="40.001"), "Amt.amount"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_field(octets: bytes, field: str) -> None:
    """Handlings that are missing or two, messages that are not named, counts and amounts that are none: refused, and nothing of it is used."""
    with pytest.raises(FieldInvalid) as refused:
        read(octets, SCHEMAS)
    assert refused.value.field.partition(".")[0] == field.partition(".")[0]
