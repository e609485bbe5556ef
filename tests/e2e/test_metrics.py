"""What the services show of themselves while plans settle, as a scraper reads it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser

from lockstep_client.convert import state_name
from lockstep_sandbox import scene
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import PARTICIPANTS, SERVICES, Sandbox
from lockstep_testkit.crew import Crew, draw_address

SECONDS_MAX = 180.0
DOCUMENTED = Path(__file__).parents[2] / "docs" / "metrics.md"
#: Counters whose first step is an incident: service -> name and labels. What is not shown as zero before is not seen to step.
SHOWN_FROM_THE_START: Mapping[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "coordinator": (("lockstep_settlements_total", {"outcome": "MIXED"}), ("lockstep_lease_takeovers_total", {})),
    "bank-gateway": (
        ("lockstep_bank_messages_sent_total", {"action": "SEND", "answer": "TurnedDown"}),
        ("lockstep_bank_messages_quarantined_total", {}),
    ),
    **{
        service: (
            *(("lockstep_chain_transactions_total", {"state": state}) for state in ("manual", "dead", "reverted")),
            ("lockstep_chain_foreign_nonces_total", {}),
            ("lockstep_chain_nonce_gaps_filled_total", {}),
            ("lockstep_chain_reorganised_transactions_total", {}),
        )
        for service in ("dlt-gateway", "notary")
    },
    "event-journal": (
        ("lockstep_rpc_server_requests_total", {"method": "lockstep.journal.v1.JournalService/Append", "code": "INTERNAL"}),
    ),
}
Page = Mapping[str, Metric]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A sandbox of its own: what others leave in doubt would be shown here."""
    async with Sandbox(RuntimeDirectory.create(tmp_path_factory.mktemp("measured"))) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crew(sandbox: Sandbox) -> AsyncIterator[Crew]:
    """The people around it; the coordinator begins their traces."""
    async with Crew(sandbox) as people:
        yield people


async def scraped(sandbox: Sandbox, service: str) -> Page:
    """A service's page: family -> its samples."""
    async with aiohttp.ClientSession() as session, session.get(sandbox.metrics_url(service)) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/openmetrics-text"
        text = await answer.text()
    families: list[Metric] = list(parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]  # the library's
    return {each.name: each for each in families}


def total(page: Page, name: str, **labels: str) -> float:
    """Sum of the samples of a name that have these labels."""
    family = page.get(name.removesuffix("_total").removesuffix("_count"))
    found = () if family is None else family.samples
    return sum(each.value for each in found if each.name == name and labels.items() <= each.labels.items())


async def until(sandbox: Sandbox, service: str, holds: Callable[[Page], bool]) -> Page:
    """A page of which something holds; rows are read now and then."""
    give_up = time.monotonic() + SECONDS_MAX
    while True:
        page = await scraped(sandbox, service)
        if holds(page):
            return page
        assert time.monotonic() < give_up, {name: each.samples for name, each in page.items() if name.startswith("lockstep_")}
        await asyncio.sleep(0.5)


def readings(page: Page) -> list[str]:
    """What is read from rows."""
    return [each.labels["reading"] for each in page["lockstep_sample_failures"].samples if each.name.endswith("_total")]


async def test_a_settlement_is_counted_where_it_happens(sandbox: Sandbox, crew: Crew) -> None:
    """One more is settled, its states have taken time with its trace as exemplar, its messages and transactions are counted, and nothing is in doubt."""
    before = {service: await scraped(sandbox, service) for service in SERVICES}
    plan = await crew.settled(crew.payments(payee=draw_address()))
    assert state_name(plan.state) == "CLOSED"

    def grown(service: str, page: Page, name: str, **labels: str) -> float:
        return total(page, name, **labels) - total(before[service], name, **labels)

    def settled(page: Page) -> bool:
        return (
            grown("coordinator", page, "lockstep_settlements_total", outcome="COMMITTED") == 1
            and total(page, "lockstep_in_doubt_legs") == 0
            and total(page, "lockstep_in_doubt_amount", asset=scene.CURRENCY) == 0
            and total(page, "lockstep_journal_lag_events") == 0
            and total(page, "lockstep_plans_open") == 0
        )

    page = await until(sandbox, "coordinator", settled)
    assert grown("coordinator", page, "lockstep_plan_transitions_total", entered="CLOSED") == 1
    for gate in ("APPROVE", "RELEASE", "VALIDATE"):
        assert grown("coordinator", page, "lockstep_gate_wait_seconds_count", gate=gate) == 1
    traces = [each.exemplar.labels for each in page["lockstep_plan_state_duration_seconds"].samples if each.exemplar is not None]
    assert traces
    assert all(re.fullmatch(r"[0-9a-f]{32}", labels["trace_id"]) for labels in traces)
    assert len(page["lockstep_in_doubt_amount"].samples) >= 3 * 3
    assert (
        total(page, "lockstep_rpc_server_requests_total", method="lockstep.coordinator.v1.SettlementService/CreatePlan", code="OK")
        >= 1
    )

    bank = await scraped(sandbox, "bank-gateway")
    assert grown("bank-gateway", bank, "lockstep_bank_messages_sent_total", action="SEND", answer="Accepted") >= 1
    assert grown("bank-gateway", bank, "lockstep_bank_messages_received_total", status="ACSC") >= 1
    chain = await until(
        sandbox, "dlt-gateway", lambda page: grown("dlt-gateway", page, "lockstep_chain_transactions_total", state="final") >= 2
    )
    assert total(chain, "lockstep_chain_head_block") > 0
    assert total(chain, "lockstep_chain_finality_contradicted") == 0
    journal = await until(sandbox, "event-journal", lambda page: total(page, "lockstep_journal_entries_outside_tree") == 0)
    assert total(journal, "lockstep_journal_entries") > 0


async def test_what_nobody_answers_for_is_shown_as_in_doubt(sandbox: Sandbox, crew: Crew) -> None:
    """The tokens of a plan whose gateway was killed before it could deliver stand there by asset, until it is back and has."""
    bond = sandbox.token_asset(scene.BOND.symbol)
    started = await crew.started(crew.payments(payee=draw_address()))
    waiting = await crew.awaiting(started.header.plan_id, "release")
    await sandbox.supervisor.kill9("dlt-gateway")
    try:
        await crew.client.sign_gate(started.header.plan_id, crew.signature(waiting, "release"))
        page = await until(sandbox, "coordinator", lambda page: total(page, "lockstep_in_doubt_amount", asset=bond) == 10.0)
        assert total(page, "lockstep_in_doubt_legs", doubt="EXECUTION_UNKNOWN") == 1
        assert total(page, "lockstep_in_doubt_amount", asset=scene.CURRENCY) == 0
        assert total(page, "lockstep_in_doubt_oldest_age_seconds") > 0
        assert total(page, "lockstep_commands_unanswered", participant="dlt-gateway", command="COMMIT") == 1
        with pytest.raises(aiohttp.ClientConnectionError):
            await scraped(sandbox, "dlt-gateway")
    finally:
        await sandbox.supervisor.restart("dlt-gateway")
    closed = await crew.driven(started.header.plan_id, gates=("validate",))
    assert state_name(closed.state) == "CLOSED"
    page = await until(sandbox, "coordinator", lambda page: total(page, "lockstep_plans_open") == 0)
    await until(sandbox, "coordinator", lambda page: total(page, "lockstep_in_doubt_legs") == 0)
    assert total(await scraped(sandbox, "dlt-gateway"), "lockstep_chain_head_block") > 0


async def test_what_is_shown_is_what_is_documented(sandbox: Sandbox) -> None:
    """Every service shows every family that docs/metrics.md gives it, and no other; all rows could be read with the service's own role."""
    sections = re.split(r"(?m)^## ", DOCUMENTED.read_text())[1:]
    documented = {
        title: {name.removesuffix("_total") for name in re.findall(r"(?m)^\| `(lockstep_\w+)`", section)}
        for title, _, section in (each.partition("\n") for each in sections)
    }
    began = time.time()
    for service in SERVICES:
        titles = ["Every service", *(["Every participant"] if service in PARTICIPANTS else [])]
        titles += [title for title in documented if service in title.split(" and ")]
        wanted = set().union(*(documented[title] for title in titles))
        page = await until(
            sandbox,
            service,
            lambda page: all(total(page, "lockstep_sample_timestamp_seconds", reading=name) > began for name in readings(page)),
        )
        assert {name for name in page if name.startswith("lockstep_")} == wanted, service
        for name, labels in SHOWN_FROM_THE_START[service]:
            shown = [
                each
                for each in page[name.removesuffix("_total")].samples
                if each.name == name and labels.items() <= each.labels.items()
            ]
            assert shown, (service, name)
        assert total(page, "lockstep_certificate_expiry_timestamp_seconds") > time.time()
        assert total(page, "lockstep_database_pool_connections", use="max") > 0
