"""What the bank's tests are made of: certificates, a seeded bank, and a counterparty that builds its messages itself."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import asyncpg
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from lxml import etree

from bank_simulator.main import Listening, running
from bank_simulator.settings import Settings, read_settings

BANK, GATEWAY, STRANGER, CORRESPONDENT = "LSTPDEFFXXX", "LSTPDEFFGTW", "LSTPDEFFOTH", "COBADEFFXXX"
ALICE, BOB = "DE89370400440532013000", "DE02120300000000202051"
POOR, BLOCKED, YEN, CLOSED = "DE02500105170137075030", "DE02100500000054540402", "DE02300209000106531065", "DE02200505501015871393"
#: Has 30.00 of its own and may borrow 100.00 within the day.
THIN = "DE62370400440532013001"
LINE, PROVIDER = f"~credit:{THIN}", "MARKDEFFXXX"
LORO = "LORO-COBA-EUR"
FOREIGN = "FR1420041010050500013M02606"
SCHEMAS = Path(__file__).resolve().parents[3] / ".schemas" / "xsd"
TOKEN = "control-token-of-the-tests"
NS = {"r": "urn:lockstep:rail:v1", "h": "urn:iso:std:iso:20022:tech:xsd:head.001.001.02"}
WAIT_SECONDS = 60.0

SEED = {
    "bic": BANK,
    "name": "Lockstep Test Bank",
    "accounts": [
        {"account": ALICE, "owner": "Alice GmbH", "currency": "EUR", "opening_balance": "1000.00"},
        {"account": BOB, "owner": "Bob AG", "currency": "EUR", "opening_balance": "50.00"},
        {"account": POOR, "owner": "Poor KG", "currency": "EUR", "opening_balance": "1.00", "overdraft_limit": "10.00"},
        {"account": BLOCKED, "owner": "Blocked SE", "currency": "EUR", "opening_balance": "500.00", "status": "BLOCKED"},
        {"account": CLOSED, "owner": "Closed SE", "currency": "EUR", "status": "CLOSED"},
        {"account": YEN, "owner": "Yen KK", "currency": "JPY", "opening_balance": "100000"},
        {
            "account": THIN,
            "owner": "Thin GmbH",
            "currency": "EUR",
            "opening_balance": "30.00",
            "credit_line": {"provider": "Liquidity Bank", "provider_bic": PROVIDER, "limit": "100.00"},
        },
        {"account": LORO, "owner": "Correspondent", "currency": "EUR", "correspondent_bic": CORRESPONDENT},
    ],
    "counterparties": [
        {"name": "bank-gateway", "bic": GATEWAY, "identities": ["spiffe://lockstep.local/bank-gateway"]},
        {"name": "other", "bic": STRANGER, "identities": ["other.example"], "may_debit": [BOB]},
    ],
    "terms": {"hold_seconds_max": 86400, "hold_amount_max": {"EUR": "900.00"}},
}


class Certificates:
    """An authority and what it issues, as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        authority = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), True
        )
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(authority.add_extension(usage, True).sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, common_name: str, *names: x509.GeneralName) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        alternatives = [*names, x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = self._builder(subject, key.public_key()).add_extension(x509.SubjectAlternativeName(alternatives), False)
        certificate, private = self._folder / f"{common_name}.pem", self._folder / f"{common_name}-key.pem"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, private

    def client(self, common_name: str, *names: x509.GeneralName) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(*self.issue(common_name, *names))
        return context

    def nobody(self) -> ssl.SSLContext:
        """A client without a certificate."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(minutes=5))
        return builder.not_valid_after(now + timedelta(days=1))


@dataclass
class Order:
    """A payment that a test sends; by default one that the bank holds."""

    amount: str = "100.00"
    currency: str = "EUR"
    debtor: str = ALICE
    debtor_name: str | None = "Alice GmbH"
    creditor: str | None = BOB
    creditor_agent: str = BANK
    debtor_agent: str = BANK
    charge_bearer: str = "DEBT"
    conditional: bool = True
    expires_in: float = 3600.0
    uetr: uuid.UUID = field(default_factory=uuid.uuid4)
    instruction_id: str | None = field(default_factory=lambda: f"I{secrets.token_hex(7).upper()}")
    end_to_end_id: str = field(default_factory=lambda: f"E{secrets.token_hex(7).upper()}")
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def xml(self) -> str:
        lock = hashlib.sha256(self.key).hexdigest().upper()
        expiry = stamp(datetime.now(UTC) + timedelta(seconds=self.expires_in))
        account = f"<IBAN>{self.creditor}</IBAN>" if self.creditor != LORO else f"<Othr><Id>{LORO}</Id></Othr>"
        instruction = f"<InstrId>{self.instruction_id}</InstrId>" if self.instruction_id else ""
        return (
            f"<CdtTrfTxInf><PmtId>{instruction}<EndToEndId>{self.end_to_end_id}</EndToEndId><UETR>{self.uetr}</UETR></PmtId>"
            + ("<PmtTpInf><LclInstrm><Prtry>COND</Prtry></LclInstrm></PmtTpInf>" if self.conditional else "")
            + f'<IntrBkSttlmAmt Ccy="{self.currency}">{self.amount}</IntrBkSttlmAmt>'
            + (f"<AddtlDtTm><XpryDtTm>{expiry}</XpryDtTm></AddtlDtTm>" if self.conditional else "")
            + f"<ChrgBr>{self.charge_bearer}</ChrgBr>"
            + (f"<PmtSgntr><Sgntr>{lock}</Sgntr></PmtSgntr>" if self.conditional else "")
            + f"<Dbtr>{f'<Nm>{self.debtor_name}</Nm>' if self.debtor_name else ''}</Dbtr>"
            + f"<DbtrAcct><Id><IBAN>{self.debtor}</IBAN></Id></DbtrAcct>{agent('DbtrAgt', self.debtor_agent)}"
            + f"{agent('CdtrAgt', self.creditor_agent)}<Cdtr><Nm>Somebody</Nm></Cdtr>"
            + (f"<CdtrAcct><Id>{account}</Id></CdtrAcct>" if self.creditor else "")
            + "</CdtTrfTxInf>"
        )


def stamp(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds")


def agent(name: str, bic: str) -> str:
    return f"<{name}><FinInstnId><BICFI>{bic}</BICFI></FinInstnId></{name}>"


def draw(letter: str) -> str:
    return letter + secrets.token_hex(7).upper()


def pacs_008(orders: Sequence[Order], message_id: str, sender: str = GATEWAY) -> bytes:
    group = (
        f"<GrpHdr><MsgId>{message_id}</MsgId><CreDtTm>{stamp(datetime.now(UTC))}</CreDtTm><NbOfTxs>{len(orders)}</NbOfTxs>"
        f"<SttlmInf><SttlmMtd>CLRG</SttlmMtd></SttlmInf>{agent('InstgAgt', sender)}{agent('InstdAgt', BANK)}</GrpHdr>"
    )
    inner = f"<FIToFICstmrCdtTrf>{group}{''.join(order.xml() for order in orders)}</FIToFICstmrCdtTrf>"
    return envelope("pacs.008.001.13", inner, message_id, sender)


def message(body: bytes, key: str) -> dict[str, Any]:
    """A message as the rail carries it."""
    return {"idempotency_key": key, "body_base64": base64.b64encode(body).decode()}


def release(order: Order, *, key: bytes | None = None, idempotency_key: str = "") -> dict[str, Any]:
    """The key of a hold as the rail carries it."""
    name = idempotency_key or f"release-{order.uetr}"
    return {"idempotency_key": name, "uetr": str(order.uetr), "key": (key or order.key).hex().upper()}


def camt_056(uetrs: Sequence[uuid.UUID], message_id: str, *, amount: str = "", sender: str = GATEWAY) -> bytes:
    stated = f'<OrgnlIntrBkSttlmAmt Ccy="EUR">{amount}</OrgnlIntrBkSttlmAmt>' if amount else ""
    items = "".join(
        f"<Undrlyg><TxInf><CxlId>C{number}</CxlId><Case><Id>CASE{number}</Id><Cretr>{agent('Agt', sender)}</Cretr></Case>"
        f"<OrgnlUETR>{uetr}</OrgnlUETR>{stated}<CxlRsnInf><Rsn><Cd>DS24</Cd></Rsn></CxlRsnInf></TxInf></Undrlyg>"
        for number, uetr in enumerate(uetrs)
    )
    assignment = (
        f"<Assgnmt><Id>{message_id}</Id><Assgnr>{agent('Agt', sender)}</Assgnr><Assgne>{agent('Agt', BANK)}</Assgne>"
        f"<CreDtTm>{stamp(datetime.now(UTC))}</CreDtTm></Assgnmt>"
    )
    return envelope("camt.056.001.11", f"<FIToFIPmtCxlReq>{assignment}{items}</FIToFIPmtCxlReq>", message_id, sender)


def pacs_028(uetrs: Sequence[uuid.UUID], message_id: str, *, original: str = "", sender: str = GATEWAY) -> bytes:
    items = "".join(
        f"<TxInf><StsReqId>Q{number}</StsReqId><OrgnlUETR>{uetr}</OrgnlUETR></TxInf>" for number, uetr in enumerate(uetrs)
    )
    named = f"<OrgnlGrpInf><OrgnlMsgId>{original}</OrgnlMsgId><OrgnlMsgNmId>pacs.008.001.13</OrgnlMsgNmId></OrgnlGrpInf>"
    group = f"<GrpHdr><MsgId>{message_id}</MsgId><CreDtTm>{stamp(datetime.now(UTC))}</CreDtTm></GrpHdr>"
    inner = f"<FIToFIPmtStsReq>{group}{named if original else ''}{items}</FIToFIPmtStsReq>"
    return envelope("pacs.028.001.06", inner, message_id, sender)


def envelope(definition: str, inner: str, message_id: str, sender: str = GATEWAY, *, named: str | None = None) -> bytes:
    """A business message; `named` is what the header says it is, if that is something else."""
    parties = "".join(f"<{name}><FIId>{agent('', bic)[2:-3]}</FIId></{name}>" for name, bic in (("Fr", sender), ("To", BANK)))
    header = (
        f'<AppHdr xmlns="{NS["h"]}">{parties}<BizMsgIdr>{message_id}</BizMsgIdr><MsgDefIdr>{named or definition}</MsgDefIdr>'
        f"<CreDt>{stamp(datetime.now(UTC))}</CreDt></AppHdr>"
    )
    document = f'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:{definition}">{inner}</Document>'
    return f'<?xml version="1.0" encoding="UTF-8"?><BusinessMessage xmlns="{NS["r"]}">{header}{document}</BusinessMessage>'.encode()


def as_possible_duplicate(body: bytes) -> bytes:
    return body.replace(b"</CreDt></AppHdr>", b"</CreDt><PssblDplct>true</PssblDplct></AppHdr>")


class Answer:
    """A message from the mailbox."""

    def __init__(self, cursor: int, body: bytes) -> None:
        self.cursor, self.body = cursor, body
        self.root = etree.fromstring(body)
        self.kind = str(self.text("h:AppHdr/h:MsgDefIdr"))[:8]

    def text(self, path: str) -> str | None:
        return self.root.findtext(path, namespaces=NS)

    def all(self, name: str) -> list[str]:
        """The texts of all elements with this local name."""
        return [str(text) for text in self.root.xpath(f"//*[local-name()='{name}']/text()")]

    def items(self, name: str) -> list[dict[str, str]]:
        """For each element with this local name: the texts below it by local name."""
        found: list[Any] = self.root.xpath(f"//*[local-name()='{name}']")
        return [{etree.QName(leaf).localname: leaf.text for leaf in each.iter() if leaf.text} for each in found]

    def statuses(self) -> dict[uuid.UUID, tuple[str, str | None]]:
        """UETR -> status and reason, of a pacs.002."""
        return {uuid.UUID(item["OrgnlUETR"]): (item["TxSts"], item.get("Cd")) for item in self.items("TxInfAndSts")}


class Gateway:
    """A counterparty of the bank, and somebody who may look into its books."""

    def __init__(self, listening: Listening, tls: ssl.SSLContext, bic: str = GATEWAY) -> None:
        self.rail = f"https://127.0.0.1:{listening.rail_port}/rail/v1"
        self.control_url = f"http://127.0.0.1:{listening.control_port}"
        self._bic, self._tls, self._cursor = bic, tls, 0
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls))
        self._plain = aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"})
        self._waiting: list[Answer] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()
        await self._plain.close()

    async def ask_all(self, *requests: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
        """Sends requests in one; the status of each, and what else is said of it."""
        async with self._session.post(f"{self.rail}/requests", json={"requests": requests}) as response:
            assert response.status == 200, await response.text()
            answers = (await response.json())["answers"]
        return [(answer.pop("status"), answer) for answer in answers]

    async def post(self, body: bytes, key: str) -> tuple[int, dict[str, Any]]:
        (answer,) = await self.ask_all(message(body, key))
        return answer

    async def pay(self, *orders: Order) -> bytes:
        """Sends payments; returns the message."""
        message_id = draw("P")
        body = pacs_008(orders, message_id, self._bic)
        assert await self.post(body, message_id) == (202, {"accepted": True, "name": message_id})
        return body

    async def cancel(self, *uetrs: uuid.UUID, amount: str = "") -> bytes:
        message_id = draw("C")
        body = camt_056(uetrs, message_id, amount=amount, sender=self._bic)
        assert (await self.post(body, message_id))[0] == 202
        return body

    async def ask(self, *uetrs: uuid.UUID, original: str = "") -> None:
        message_id = draw("Q")
        assert (await self.post(pacs_028(uetrs, message_id, original=original, sender=self._bic), message_id))[0] == 202

    async def release(self, order: Order, *, key: bytes | None = None, idempotency_key: str = "") -> int:
        ((status, _),) = await self.ask_all(release(order, key=key, idempotency_key=idempotency_key))
        return status

    async def request(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self._session.request(method, f"{self.rail}{path}", **options) as response:
            return response.status, await response.json()

    async def raw(self, *, after: int, wait: float, least: int = 1) -> list[bytes]:
        """Messages as they came, however broken; waits for so many."""
        give_up = time.monotonic() + WAIT_SECONDS
        while True:
            query = {"wait": str(wait), "limit": "100", "after": str(after)}
            async with self._session.get(f"{self.rail}/mailbox", params=query) as response:
                messages = (await response.json())["messages"]
            if len(messages) >= least or time.monotonic() > give_up:
                return [base64.b64decode(item["body_base64"]) for item in messages]

    async def mailbox(self, *, after: int | None = None, wait: float = 0, limit: int = 100) -> list[Answer]:
        query = {"wait": str(wait), "limit": str(limit)} | ({} if after is None else {"after": str(after)})
        async with self._session.get(f"{self.rail}/mailbox", params=query) as response:
            assert response.status == 200, await response.text()
            messages = (await response.json())["messages"]
        answers = []
        for message in messages:
            body = base64.b64decode(message["body_base64"])
            assert hashlib.sha256(body).hexdigest() == message["sha256"]
            answers.append(Answer(message["cursor"], body))
        return answers

    async def next(self, kind: str) -> Answer:
        """The next message, which is of this kind."""
        give_up = time.monotonic() + WAIT_SECONDS
        while not self._waiting and time.monotonic() < give_up:
            self._waiting = await self.mailbox(after=self._cursor, wait=2)
            self._cursor = self._waiting[-1].cursor if self._waiting else self._cursor
        assert self._waiting, f"no {kind} came"
        answer = self._waiting.pop(0)
        assert answer.kind == kind, answer.body
        return answer

    async def rest(self) -> list[Answer]:
        """Everything that is there now."""
        found = [*self._waiting, *await self.mailbox(after=self._cursor)]
        self._waiting, self._cursor = [], found[-1].cursor if found else self._cursor
        return found

    async def nothing(self, seconds: float = 0.3) -> None:
        """Nothing comes for a while."""
        assert not self._waiting
        assert [answer.body for answer in await self.mailbox(after=self._cursor, wait=seconds)] == []

    async def hold(self, order: Order | None = None) -> Order:
        """A payment that the bank holds."""
        order = order or Order()
        await self.pay(order)
        assert (await self.next("pacs.002")).statuses() == {order.uetr: ("ACFW", None)}
        return order

    async def control(self, method: str, path: str, **options: Any) -> Any:
        async with self._plain.request(method, f"{self.control_url}{path}", **options) as response:
            content = await response.json()
            assert response.status < 300, content
            return content

    async def misbehave(self, kind: str, **script: Any) -> None:
        await self.control("POST", "/misbehaviours", json={"kind": kind} | script)

    async def account(self, account: str) -> tuple[str, str, str]:
        """Booked, held and available money."""
        found = await self.control("GET", f"/accounts/{account}")
        return found["booked"], found["held"], found["available"]

    async def drawn(self, account: str = THIN) -> tuple[str, str, str]:
        """Booked and held money of an account with a credit line, and what is drawn."""
        found = await self.control("GET", f"/accounts/{account}")
        return found["booked"], found["held"], found["drawn"]

    async def book(self) -> dict[str, Any]:
        """The whole book; it is right."""
        shown: dict[str, Any] = await self.control("GET", "/book")
        assert shown["conserved"], shown["violations"]
        return shown

    async def state(self, order: Order) -> str | None:
        found = (await self.control("GET", "/payments", params={"uetr": str(order.uetr)}))["payments"]
        return found[0]["state"] if found else None

    async def conserved(self) -> None:
        """The books are right."""
        verdict = await self.control("GET", "/audit")
        assert verdict["conserved"], verdict["violations"]


def write_settings(folder: Path, certificates: Certificates, database_url: str, seed: dict[str, Any] | None = None) -> Path:
    """The settings of a bank on a database, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = certificates.issue("bank")
    (folder / "token").write_text(TOKEN)
    (folder / "bank.yaml").write_text(yaml.safe_dump(seed or SEED))
    content = {
        "database": {"url": database_url},
        "rail": {
            "certificate_file": str(certificate),
            "key_file": str(key),
            "ca_file": str(certificates.ca_file),
            "port_file": "rail.port",
        },
        "control": {"token_file": "token", "port_file": "control.port"},
        "seed_file": "bank.yaml",
        "schemas": str(SCHEMAS),
    }
    path = folder / "bank-simulator.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@dataclass
class World:
    """A bank of its own for one test, and those who write to it."""

    settings: Settings
    settings_file: Path
    certificates: Certificates
    gateway_tls: ssl.SSLContext
    other_tls: ssl.SSLContext
    owner_url: str

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Gateway]:
        """The bank is open; the gateway is connected."""
        async with running(self.settings) as listening, Gateway(listening, self.gateway_tls) as gateway:
            yield gateway

    @asynccontextmanager
    async def open_to_both(self) -> AsyncIterator[tuple[Gateway, Gateway]]:
        async with (
            running(self.settings) as listening,
            Gateway(listening, self.gateway_tls) as gateway,
            Gateway(listening, self.other_tls, STRANGER) as other,
        ):
            yield gateway, other

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection with the bank's own rights, past all of its code."""
        connection = await asyncpg.connect(self.owner_url)
        try:
            yield connection
        finally:
            await connection.close()


def read(path: Path) -> Settings:
    return read_settings(path)
