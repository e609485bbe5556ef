"""Messages as a bank writes them, as text; each is valid by the official schemas unless a test breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.references import references
from lockstep_kit.ids import LegId, PlanId

PLAN, LEG = PlanId("1b4e28ba-2fa1-4d3b-8bd4-0a1f0f9c2b11"), LegId("cash")
NAMES: Final = references(PLAN, LEG)
BANK, OURS = "SNDBDEFFXXX", "LCKSDEFFXXX"
DEBTOR, CREDITOR = "DE89370400440532013000", "DE75512108001245126199"
AT: Final = "2026-11-21T12:00:00.000+00:00"
ORIGINAL: Final = (
    f"<OrgnlGrpInf><OrgnlMsgId>{NAMES.message_id}</OrgnlMsgId><OrgnlMsgNmId>pacs.008.001.13</OrgnlMsgNmId></OrgnlGrpInf>"
    f"<OrgnlInstrId>{NAMES.instruction_id}</OrgnlInstrId><OrgnlEndToEndId>{NAMES.end_to_end_id}</OrgnlEndToEndId>"
    f"<OrgnlTxId>{NAMES.transaction_id}</OrgnlTxId><OrgnlUETR>{NAMES.uetr}</OrgnlUETR>"
)
SCHEMA_FOLDER: Final = next(
    parent / ".schemas" / "xsd" for parent in Path(__file__).parents if (parent / ".schemas" / "xsd").is_dir()
)
SCHEMAS: Final = Schemas(SCHEMA_FOLDER)


def agent(bic: str) -> str:
    return f"<FinInstnId><BICFI>{bic}</BICFI></FinInstnId>"


def message(definition: str, body: str, *, message_id: str = "ANSWER1", extra: str = "", named: str = "") -> bytes:
    """A BusinessMessage; `extra` goes to the end of the header, `named` is what the header calls the message."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<BusinessMessage xmlns="urn:lockstep:rail:v1">'
        '<AppHdr xmlns="urn:iso:std:iso:20022:tech:xsd:head.001.001.02">'
        f"<Fr><FIId>{agent(BANK)}</FIId></Fr><To><FIId>{agent(OURS)}</FIId></To><BizMsgIdr>{message_id}</BizMsgIdr>"
        f"<MsgDefIdr>{named or definition}</MsgDefIdr><CreDt>{AT}</CreDt>{extra}</AppHdr>"
        f'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:{definition}">{body}</Document></BusinessMessage>'
    ).encode()


def reason(code: str, text: str = "") -> str:
    return f"<StsRsnInf><Rsn><Cd>{code}</Cd></Rsn>{f'<AddtlInf>{text}</AddtlInf>' if text else ''}</StsRsnInf>" if code else ""


def one_status(code: str, why: str = "", rest: str = "", original: str = ORIGINAL) -> str:
    return f"<TxInfAndSts>{original}{f'<TxSts>{code}</TxSts>' if code else ''}{reason(why)}{rest}</TxInfAndSts>"


def group_status(code: str, why: str = "", message_id: str = NAMES.message_id) -> str:
    return (
        f"<OrgnlGrpInfAndSts><OrgnlMsgId>{message_id}</OrgnlMsgId><OrgnlMsgNmId>pacs.008.001.13</OrgnlMsgNmId>"
        f"<GrpSts>{code}</GrpSts>{reason(why)}</OrgnlGrpInfAndSts>"
    )


def status_report(*content: str, created: str = AT, **header: str) -> bytes:
    body = (
        f"<FIToFIPmtStsRpt><GrpHdr><MsgId>ANSWER1</MsgId><CreDtTm>{created}</CreDtTm></GrpHdr>{''.join(content)}</FIToFIPmtStsRpt>"
    )
    return message("pacs.002.001.15", body, **header)


def resolution(confirmation: str, individual: str = "", why: str = "", *, details: bool = True) -> bytes:
    status = f"<TxCxlSts>{individual}</TxCxlSts>" if individual else ""
    because = f"<CxlStsRsnInf><Rsn><Cd>{why}</Cd></Rsn></CxlStsRsnInf>" if why else ""
    item = f"<CxlDtls><TxInfAndSts>{ORIGINAL}{status}{because}</TxInfAndSts></CxlDtls>" if details else ""
    return message(
        "camt.029.001.13",
        f"<RsltnOfInvstgtn><Assgnmt><Id>ANSWER1</Id><Assgnr><Agt>{agent(BANK)}</Agt></Assgnr><Assgne><Agt>{agent(OURS)}</Agt></Assgne>"
        f"<CreDtTm>{AT}</CreDtTm></Assgnmt><Sts><Conf>{confirmation}</Conf></Sts>{item}</RsltnOfInvstgtn>",
    )


def booking(
    amount: str = "100.00",
    currency: str = "EUR",
    *,
    side: str = "DBIT",
    account: str = DEBTOR,
    reversal: str = "",
    charges: str = "",
) -> bytes:
    money = f'<Amt Ccy="{currency}">{amount}</Amt>'
    return message(
        "camt.054.001.13",
        f"<BkToCstmrDbtCdtNtfctn><GrpHdr><MsgId>ANSWER1</MsgId><CreDtTm>{AT}</CreDtTm></GrpHdr><Ntfctn><Id>N1</Id>"
        f"<Acct><Id><IBAN>{account}</IBAN></Id></Acct><Ntry>{money}<CdtDbtInd>{side}</CdtDbtInd>{reversal}<Sts><Cd>BOOK</Cd></Sts>"
        f"<AcctSvcrRef>B1</AcctSvcrRef><BkTxCd><Prtry><Cd>X</Cd></Prtry></BkTxCd><NtryDtls><TxDtls><Refs>"
        f"<EndToEndId>{NAMES.end_to_end_id}</EndToEndId><UETR>{NAMES.uetr}</UETR></Refs>{money}<CdtDbtInd>{side}</CdtDbtInd>{charges}</TxDtls>"
        f"</NtryDtls></Ntry></Ntfctn></BkToCstmrDbtCdtNtfctn>",
    )
