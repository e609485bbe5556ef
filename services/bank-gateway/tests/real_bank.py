"""The real bank as a process, and a gateway in this process before it: started, cut off, started again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import aiohttp
import yaml

from bank_gateway.courier import Courier
from bank_gateway.gateway import BankOperations
from bank_gateway.iso20022.agreement import Agreement
from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.ledger import __main__ as ledger
from bank_gateway.ledger.lines import CreditLines
from bank_gateway.main import rail_of
from bank_gateway.readmission import Readmission
from bank_gateway.reconciler import Reconciler
from bank_gateway.references import references
from bank_gateway.settings import BankGatewaySettings, FileRailSettings, HttpRailSettings, RailSettings
from lockstep_kit.certificate import Decision
from lockstep_kit.convert import certificate_to_pb, outcome_from_pb, vote_from_pb
from lockstep_kit.db import Database
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, uetr
from lockstep_kit.loops import TaskSupervisor
from lockstep_kit.participant import convert
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.records import Answer, LegRecord
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.plan import BankAccount, ChargeBearer, CreditTransfer, Journal, Notarisation, Policy
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.statements import BankEvidence, Outcome, Promise, Refusal, Vote
from lockstep_sandbox.ports import free_ports, listens
from lockstep_sandbox.processes import Program, Supervisor
from lockstep_testkit import commands, factories
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import BUYER, CHAIN, SELLER, PlanCase, address_of, leg_of, plan_of

T = TypeVar("T")
LEG: Final = "cash"
#: The gateway's own identity.
GATEWAY: Final = "spiffe://lockstep.local/bank-gateway"
BANK_BIC, OUR_BIC = "COBADEFF", "LCKSDEFFXXX"
RICH, PAYEE, POOR, NOBODY = (
    "DE89370400440532013000", "DE75512108001245126199", "DE12500105170648489890", "DE02120300000000202051",
)  # fmt: skip
#: Has 25.00 of its own and may borrow 1000.00 within the day.
THIN: Final = "DE62370400440532013001"
#: Up to what the bank issues undertakings for RICH's owner.
FACILITY: Final = "100000000.00"
#: Accounts of financial institutions at the bank.
NOSTRO_A, NOSTRO_B = "DE91100000000123456789", "DE17500105170648489800"
INSTITUTION_A, INSTITUTION_B = "MARKDEFFXXX", "BNPAFRPPXXX"
#: Longest that anything here may take.
SECONDS_MAX: Final = 240.0
SCHEMA_FOLDER: Final = next(
    parent / ".schemas" / "xsd" for parent in Path(__file__).parents if (parent / ".schemas" / "xsd").is_dir()
)


def between_institutions(minor_units: int = 100_00, institution: str = INSTITUTION_A, **changes: Any) -> PlanCase:
    """A plan that pays from one financial institution to another, by their accounts at the bank."""
    terms = CreditTransfer(
        amount=factories.credit_terms(minor_units).amount,
        debtor=BankAccount(BUYER.party_id, BUYER.name, NOSTRO_A, BANK_BIC, institution),
        creditor=BankAccount(SELLER.party_id, SELLER.name, NOSTRO_B, BANK_BIC, INSTITUTION_B),
        charge_bearer=ChargeBearer.SERVICE_LEVEL,
        remittance="COVER 1",
    )
    return plan_of([leg_of("tokens", factories.token_terms()), leg_of("cash", terms)], **changes)


def transfer(minor_units: int = 100_00, *, debtor: str = RICH, creditor: str = PAYEE, **changes: Any) -> PlanCase:
    """A plan that pays from one account to another at the same bank."""
    terms = CreditTransfer(
        amount=factories.credit_terms(minor_units).amount,
        debtor=BankAccount(BUYER.party_id, BUYER.name, debtor, BANK_BIC),
        creditor=BankAccount(SELLER.party_id, SELLER.name, creditor, BANK_BIC),
        charge_bearer=ChargeBearer.SHARED,
        remittance="INVOICE 4711",
    )
    legs = [
        leg_of("cash", terms),
        leg_of("notarisation", Notarisation(CHAIN, address_of("registry"))),
        leg_of("journal", Journal()),
    ]
    return plan_of([leg_of("tokens", factories.token_terms()), *legs], **changes)


@dataclass
class Bank:
    """The bank's process and what it shows to auditors."""

    supervisor: Supervisor
    rail_port: int
    control_port: int
    token: str
    #: The bank's own database, for what it shows to nobody.
    database: TestDatabase
    name: str = "bank-simulator"

    @property
    def rail_url(self) -> str:
        return f"https://127.0.0.1:{self.rail_port}"

    async def get(self, path: str, **query: str) -> Any:
        async with self._session() as session, session.get(self._url(path), params=query) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def misbehave(self, kind: str, **script: Any) -> None:
        async with self._session() as session, session.post(self._url("/misbehaviours"), json={"kind": kind, **script}) as answer:
            assert answer.status == 201, await answer.text()

    async def command(self, path: str, **query: str) -> Any:
        async with self._session() as session, session.post(self._url(path), params=query) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def behave(self) -> None:
        async with self._session() as session, session.delete(self._url("/misbehaviours")) as answer:
            answer.raise_for_status()

    async def payment(self, plan: PlanCase) -> dict[str, Any] | None:
        found = (await self.get("/payments", uetr=uetr(plan.plan_id, LegId(LEG))))["payments"]
        return found[0] if found else None

    async def state(self, plan: PlanCase) -> str | None:
        payment = await self.payment(plan)
        return None if payment is None else payment["state"]

    async def booked(self, plan: PlanCase) -> dict[str, int]:
        """What all entries of a payment come to, account by account."""
        sums: dict[str, int] = {}
        for entry in (await self.get("/entries", uetr=uetr(plan.plan_id, LegId(LEG))))["entries"]:
            sums[entry["account_id"]] = sums.get(entry["account_id"], 0) + int(entry["amount"])
        return {account: amount for account, amount in sums.items() if amount}

    async def postings(self, plan: PlanCase) -> list[str]:
        """Kinds of the postings of a payment, and of the credit that goes with it, in order."""
        name = uetr(plan.plan_id, LegId(LEG))
        found = (await self.get("/entries", uetr=name))["entries"] + (await self.get("/entries", credit_for=name))["entries"]
        return list(dict(sorted((entry["posting_id"], entry["kind"]) for entry in found)).values())

    async def received(self, plan: PlanCase) -> list[dict[str, Any]]:
        """What the bank received about a payment, oldest first."""
        found: list[dict[str, Any]] = (await self.get("/messages", uetr=uetr(plan.plan_id, LegId(LEG))))["received"]
        return found[::-1]

    async def sent(self, plan: PlanCase) -> list[dict[str, Any]]:
        """What the bank made about a payment, oldest first."""
        found: list[dict[str, Any]] = (await self.get("/messages", uetr=uetr(plan.plan_id, LegId(LEG))))["sent"]
        return found[::-1]

    async def end_day(self) -> date:
        """End the bank's booking day, which is stated then; returns it."""
        async with self._session() as session, session.post(self._url("/end-of-day")) as answer:
            answer.raise_for_status()
            return date.fromisoformat((await answer.json())["day"])

    async def state_again(self, account: str, day: date) -> None:
        """Have an account's statement of a day made anew."""
        body = {"account": account, "day": day.isoformat()}
        async with self._session() as session, session.post(self._url("/statements"), json=body) as answer:
            assert (answer.status, (await answer.json())["messages"] > 0) == (200, True)

    async def sound(self) -> None:
        """Money was conserved."""
        assert (await self.get("/audit"))["violations"] == []

    async def reservation(self, plan: PlanCase) -> str | None:
        """Where the reservation for a payment stands."""
        found = (await self.get("/reservations", uetr=uetr(plan.plan_id, LegId(LEG))))["reservations"]
        return found[0]["state"] if found else None

    async def give_back(self, plan: PlanCase, **terms: str) -> None:
        """Money of a settled payment comes back."""
        url = self._url(f"/payments/{uetr(plan.plan_id, LegId(LEG))}/return")
        async with self._session() as session, session.post(url, json=terms) as answer:
            assert answer.status == 201, await answer.text()

    async def set_status(self, account: str, status: str) -> None:
        url = self._url(f"/accounts/{account}/status")
        async with self._session() as session, session.post(url, json={"status": status}) as answer:
            answer.raise_for_status()

    async def line(self, state: str) -> int:
        """What the liquidity provider says of THIN's credit; returns how many holds end by it."""
        url = self._url(f"/accounts/{THIN}/credit")
        async with self._session() as session, session.post(url, json={"state": state}) as answer:
            answer.raise_for_status()
            return int((await answer.json())["holds_ended"])

    async def drawn(self) -> int:
        """What is drawn of THIN's credit, in cents; the whole book is right."""
        book = await self.get("/book")
        assert book["violations"] == []
        (line,) = book["credit_lines"]
        return int(line["drawn_minor"])

    async def said(self) -> int:
        """The last place in the mailbox."""
        async with self.database.as_owner() as owner:
            return int(await owner.fetchval("select last_cursor from mailboxes"))

    async def stop(self) -> None:
        await self.supervisor.kill9(self.name)

    async def start(self) -> None:
        await self.supervisor.restart(self.name)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token}"})

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.control_port}{path}"


async def start_bank(
    supervisor: Supervisor,
    folder: Path,
    database: TestDatabase,
    tls: TlsSettings,
    gateway_identity: str,
    *,
    certificates: Sequence[str] | None = None,
    terms: Mapping[str, Any] | None = None,
    **more: Any,
) -> Bank:
    """The bank, open: RICH has money, POOR hardly any. With `certificates` messages are signed; `terms` are the bank's, `more` settings of its process."""
    rail_port, control_port = free_ports(2)
    token = secrets.token_urlsafe(16)
    settings = {
        "database": {"url": database.owner_url},
        "rail": {"port": rail_port, **{name: str(path) for name, path in tls}},
        "control": {"port": control_port, "token_file": "control.token"},
        "seed_file": "seed.yaml",
        "schemas": str(SCHEMA_FOLDER),
        **more,
    }
    seeded = seed(gateway_identity)
    if certificates is not None:
        seeded["counterparties"][0]["certificates"] = list(certificates)
    if terms is not None:
        seeded["terms"] = dict(terms)
    configuration = write_files(
        folder, {"bank.yaml": yaml.safe_dump(settings), "seed.yaml": yaml.safe_dump(seeded), "control.token": token}
    )
    bank = Bank(supervisor, rail_port, control_port, token, database)
    command = (sys.executable, "-m", "bank_simulator", "--config", str(configuration / "bank.yaml"))
    await supervisor.start(Program(bank.name, command, ready=lambda: listens(control_port), ready_seconds_max=SECONDS_MAX))
    return bank


def seed(gateway_identity: str) -> dict[str, Any]:
    """With what the bank opens."""
    owners = {RICH: (BUYER.name, "1000000.00"), PAYEE: (SELLER.name, "0"), POOR: (BUYER.name, "25.00")}
    accounts: list[dict[str, Any]] = [
        {"account": account, "owner": owner, "currency": "EUR", "opening_balance": opening}
        for account, (owner, opening) in owners.items()
    ]
    accounts[0]["facility"] = FACILITY
    line = {"provider": "Liquidity Bank", "provider_bic": "MARKDEFF", "limit": "1000.00"}
    accounts.append({"account": THIN, "owner": BUYER.name, "currency": "EUR", "opening_balance": "25.00", "credit_line": line})
    for account, institution in ((NOSTRO_A, INSTITUTION_A), (NOSTRO_B, INSTITUTION_B)):
        names = {"account": account, "owner": institution, "correspondent_bic": institution}
        accounts.append({**names, "currency": "EUR", "opening_balance": "500000.00"})
    counterparty = {"name": "Lockstep", "bic": OUR_BIC, "identities": [gateway_identity]}
    return {"bic": BANK_BIC, "name": "Bank of the tests", "accounts": accounts, "counterparties": [counterparty]}


def write_files(folder: Path, contents: dict[str, str]) -> Path:
    """Files in a new folder."""
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_text(content)
    return folder


@functools.cache
def schemas() -> Schemas:
    """The schemas, compiled once for all gateways."""
    return Schemas(SCHEMA_FOLDER)


@dataclass
class Gateway:
    """A gateway in this process, over its database, before the bank; what the process of the service is made of."""

    #: The leg that it serves.
    leg_id: ClassVar[str] = LEG
    database: TestDatabase
    bank: Bank
    tls: TlsSettings
    changes: dict[str, Any] = field(default_factory=dict)
    #: What is agreed with the bank about messages, and the way to it where that is not HTTPS.
    agreement: Agreement = field(default_factory=Agreement)
    files: Path | None = None
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _loops: TaskSupervisor = field(default_factory=TaskSupervisor)
    _engine: ParticipantEngine | None = None

    @property
    def engine(self) -> ParticipantEngine:
        assert self._engine is not None, "not open"
        return self._engine

    async def begin(self) -> None:
        """Start it over a new database: what the bank said to others before is passed over, or each test would read the mailbox of all before it."""
        place = await self.bank.said()
        async with self.database.as_owner() as owner:
            await owner.execute("insert into bank_mailbox (counterparty, cursor) values ($1, $2)", BANK_BIC, place)
        await self.open()

    async def open(self) -> None:
        """Start it, with all that its process runs."""
        self._stack, self._loops = contextlib.AsyncExitStack(), TaskSupervisor()
        db = await Database.connect(self.database.settings, application_name="test")
        self._stack.push_async_callback(db.close)
        settings = BankGatewaySettings.model_construct(
            **{
                "own_bic": OUR_BIC, "bank_bic": BANK_BIC, "currencies": ("EUR",), "hold_max_hours": 144.0, "mailbox_wait_seconds": 5.0,
                "inquiry_seconds": 0.4, "inquiry_seconds_max": 5.0, "poll_seconds": 0.05, "time_zone": "Europe/Berlin",
                "statement_due_hours": 12.0, "reconcile_seconds": 0.5, **self.changes,
            }
        )  # fmt: skip
        operations = BankOperations(settings, schemas(), self.agreement)
        participant = ParticipantSettings(signing_key_file=Path("unused"), registry_file=Path("unused"))
        key, registry = factories.key_of("bank-gateway"), factories.registry_of()
        self._engine = ParticipantEngine(
            db=db, name="bank-gateway", signing_key=key, registry=registry, operations=operations, settings=participant
        )
        http, files = HttpRailSettings(url=self.bank.rail_url, tls=self.tls, together=True), self.files
        way = RailSettings(http=http) if files is None else RailSettings(files=FileRailSettings(folder=files, look_seconds=0.02))
        rail = rail_of(settings.model_copy(update={"rail": way}), self.agreement, db)
        self._stack.push_async_callback(rail.close)
        lines = CreditLines(db, settings)
        await lines.limit()
        courier = Courier(db, self._engine, operations, rail)
        reconciler = Reconciler(db, self._engine, courier, settings, operations.schemas)
        self._loops.start(
            *self._engine.loops(), *courier.loops(), Readmission(db, courier, BANK_BIC).loop(), *lines.loops(), *reconciler.loops()
        )
        self._stack.push_async_callback(self._loops.stop)

    async def close(self) -> None:
        """Cut it off where it is."""
        await self._stack.aclose()

    async def ended(self) -> None:
        """Wait until a failpoint ended a loop."""
        await self._loops.wait()

    async def ended_within(self, seconds: float) -> None:
        """Wait for that a while."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended(), seconds)

    # -- Commands, as the servicer gives them --------------------------------------------------------------------------

    async def prepare(self, plan: PlanCase, **terms: Any) -> Answer:
        item = convert.read_prepare(commands.prepare(plan, self.leg_id, **terms))
        return (await self.engine.execute(item.command, [item], 0))[0]

    async def commit(self, plan: PlanCase, **terms: Any) -> Answer:
        signed = convert.stored_vote(await self.record(plan))
        assert signed is not None
        # What is promised can lapse, so the leg is soft, and the decision is delegated to it.
        certificate = plan.certificate(signed, decision=Decision.DELEGATED, delegated=self.leg_id)
        command = commands.commit(plan, self.leg_id, certificate, **terms)
        item = convert.read_commit(command, certificate, certificate_to_pb(certificate))
        return (await self.engine.execute(item.command, [item], 0))[0]

    async def abort(self, plan: PlanCase) -> Answer:
        item = convert.read_abort(commands.abort(plan, self.leg_id))
        return (await self.engine.execute(item.command, [item], 0))[0]

    async def reverse(self, plan: PlanCase) -> Answer:
        item = convert.read_reverse(commands.reverse(plan, self.leg_id))
        return (await self.engine.execute(item.command, [item], 0))[0]

    # -- What is known -------------------------------------------------------------------------------------------------

    async def record(self, plan: PlanCase) -> LegRecord:
        record = await self.engine.get((plan.plan_id, LegId(self.leg_id)), None)
        assert record is not None
        return record

    async def phase(self, plan: PlanCase) -> Phase | None:
        return (await self.record(plan)).fence.phase

    async def reaches(self, plan: PlanCase, phase: Phase, seconds_max: float = SECONDS_MAX) -> LegRecord:
        async def there() -> LegRecord | None:
            record = await self.record(plan)
            return record if record.fence.phase is phase else None

        found = await until(there, f"{phase}", seconds_max)
        assert found is not None
        return found

    async def troubled(self, plan: PlanCase) -> str:
        async def told() -> str | None:
            return (await self.record(plan)).trouble or None

        return str(await until(told, "trouble"))

    async def held(self, plan: PlanCase) -> None:
        """Prepare, until the bank holds the money and the leg has voted YES."""
        assert (await self.prepare(plan)).rejection is None
        await self.reaches(plan, Phase.PREPARED)

    async def matters(self) -> list[Any]:
        """Open matters, oldest first."""
        return await self.rows("select * from bank_matter where closed_at is null order by id")

    async def wrong_on_the_books(self) -> list[str]:
        """What is wrong with the ledger, its chain, and where the money of each leg stands."""
        db = await Database.connect(self.database.settings, application_name="test")
        try:
            return (await ledger.audit(db))[1]
        finally:
            await db.close()

    async def on_the_books(self, account: str) -> dict[str, int]:
        """What stands on the accounts of a debtor, kind by kind."""
        query = "select kind, balance from ledger_account where account like $1 || '/%' and balance <> 0"
        return {row["kind"]: row["balance"] for row in await self.rows(query, account)}

    async def rows(self, query: str, *arguments: Any) -> list[Any]:
        async with self.database.as_owner() as owner:
            return list(await owner.fetch(query, *arguments))

    async def kept(self, plan: PlanCase, direction: str) -> Sequence[Any]:
        """Messages as the gateway kept them, oldest first."""
        query = "select * from bank_message where direction = $1 and uetr = $2 order by id"
        return await self.rows(query, direction, references(plan.plan_id, LegId(LEG)).uetr)


def vote_of(record: LegRecord) -> Vote:
    assert record.vote is not None
    return vote_from_pb(convert.report_of(record).vote).vote


def promise_of(record: LegRecord) -> Promise:
    answer = vote_of(record).answer
    assert isinstance(answer, Promise)
    return answer


def refusal_of(record: LegRecord) -> Refusal:
    answer = vote_of(record).answer
    assert isinstance(answer, Refusal)
    return answer


def outcome_of(record: LegRecord) -> Outcome:
    assert record.outcome is not None
    return outcome_from_pb(convert.report_of(record).outcome).outcome


def evidence_of(record: LegRecord) -> BankEvidence:
    evidence = outcome_of(record).evidence
    assert isinstance(evidence, BankEvidence)
    return evidence


async def until(look: Callable[[], Awaitable[T]], what: str, seconds_max: float = SECONDS_MAX) -> T:
    """Look again until there is something."""
    end = asyncio.get_running_loop().time() + seconds_max
    while not (found := await look()):
        assert asyncio.get_running_loop().time() < end, f"no {what} within {seconds_max} s"
        await asyncio.sleep(0.03)
    return found


ACCEPTS_RISK: Final = Policy(accept_expiry_risk=True)
