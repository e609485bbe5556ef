"""A console over services that say what a test has them say, over mutual TLS and real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest_asyncio
import yaml

from lockstep.coordinator.v1 import (
    operator_service_pb2,
    operator_service_pb2_grpc,
    settlement_service_pb2,
    settlement_service_pb2_grpc,
)
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.journal.v1 import entry_pb2, journal_reader_service_pb2, journal_reader_service_pb2_grpc
from lockstep.type.v1 import signature_pb2
from lockstep_client.journal_chain import GENESIS, Entry, signed_bytes
from lockstep_console.server import Console
from lockstep_console.settings import ConsoleListen, ConsoleSettings
from lockstep_kit import convert as kit
from lockstep_kit.canonical import canonical
from lockstep_kit.ids import sha256
from lockstep_kit.rpc import Access, ListenSettings, Server, TlsSettings
from lockstep_kit.statements import Gate, votes_digest
from lockstep_testkit.factories import PARTICIPANTS, PlanCase, delivery_versus_payment, key_of
from lockstep_testkit.participants import registry_document

CONSOLE = "spiffe://lockstep.local/client/console"
TOKEN = "t" * 40
Context = grpc.aio.ServicerContext[Any, Any]


def shown(case: PlanCase, state: str = "PREPARED", *, etag: str = "1", reference: str | None = None) -> settlement.Plan:
    """A plan as an honest coordinator shows it: every leg has voted, and the releaser is awaited."""
    votes = case.votes()
    plan = settlement.Plan(
        header=kit.header_to_pb(case.header),
        plan_digest=case.header.digest,
        state=settlement.PlanState.Value(f"PLAN_STATE_{state}"),
        votes_digest=votes_digest(votes),
        etag=etag,
        transition_no=5,
    )
    if reference is not None:
        plan.header.reference = reference
    plan.create_time.FromDatetime(datetime.now(UTC))
    for leg, vote in zip(case.legs, votes, strict=True):
        one = plan.legs.add(leg=kit.leg_to_pb(leg), lock=case.lock(leg.leg_id), participant=PARTICIPANTS[leg.kind])
        one.vote.CopyFrom(kit.vote_to_pb(vote))
    for gate, who in ((Gate.MAKE, "alice"), (Gate.APPROVE, "bob")):
        plan.gates.add(signature=kit.gate_to_pb(case.gate(gate)), actor_id=who, sign_time=kit.time_to_pb(datetime.now(UTC)))
    plan.waiting.add(kind=settlement.WAITING_KIND_GATE, gate=signature_pb2.GATE_RELEASE, who=["carol"], signatures_missing=1)
    return plan


def chain_of(case: PlanCase, *, by: str = "event-journal") -> list[entry_pb2.Entry]:
    """Three entries of the plan's chain."""
    entries: list[entry_pb2.Entry] = []
    previous = GENESIS
    for sequence, type_ in enumerate(("plan.created", "plan.initiated", "plan.ready"), start=1):
        payload = canonical({"plan_digest": case.header.digest.hex(), "n": sequence})
        at = datetime(2026, 6, 1, 12, 0, sequence, tzinfo=UTC)
        blank = Entry(
            case.plan_id, sequence, f"event-{sequence}", type_, "coordinator", "service", at, payload, sha256(payload), previous,
            GENESIS, b"", key_of(by).sign(b""),
        )  # fmt: skip
        octets = signed_bytes(blank)
        made = replace(blank, canonical_bytes=octets, entry_hash=sha256(octets), signature=key_of(by).sign(octets))
        previous = made.entry_hash
        entries.append(
            entry_pb2.Entry(
                plan_id=made.plan_id,
                sequence=sequence,
                position=sequence + 100,
                event_id=made.event_id,
                type=type_,
                actor=made.actor,
                actor_role=made.actor_role,
                event_time=kit.time_to_pb(at),
                payload=payload,
                payload_hash=made.payload_hash,
                previous_hash=made.previous_hash,
                entry_hash=made.entry_hash,
                canonical_bytes=octets,
                signature=kit.signature_to_pb(made.signature),
            )
        )
    return entries


@dataclass
class Services(
    settlement_service_pb2_grpc.SettlementServiceServicer,
    operator_service_pb2_grpc.OperatorServiceServicer,
    journal_reader_service_pb2_grpc.JournalReaderServiceServicer,
):
    """Coordinator and journal that show what they are given."""

    plans: list[settlement.Plan] = field(default_factory=list)
    entries: list[entry_pb2.Entry] = field(default_factory=list)
    escalation: operator_service_pb2.GetEscalationResponse | None = None
    #: Streams of all plans that were begun, and those that are open.
    looks: int = 0
    looking: int = 0
    #: What a watch brings, each with its token; then it stays open.
    news: list[settlement_service_pb2.WatchPlanResponse] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    watching: int = 0
    failing: grpc.StatusCode | None = None

    async def GetPlan(self, request: Any, context: Context) -> Any:  # noqa: N802
        for each in self.plans:
            if each.header.plan_id == request.plan_id:
                return settlement_service_pb2.GetPlanResponse(plan=each)
        await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such plan")
        raise AssertionError

    async def ListPlans(self, request: Any, context: Context) -> Any:  # noqa: N802
        if self.failing is not None:
            await context.abort(self.failing, "not now")
        found = [each for each in self.plans if not request.states or each.state in request.states]
        first = int(request.page_token or "0")
        rest = str(first + request.page_size) if len(found) > first + request.page_size else ""
        return settlement_service_pb2.ListPlansResponse(plans=found[first : first + request.page_size], next_page_token=rest)

    async def WatchPlans(self, request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: N802
        """Whole plans, each as often as it is another; that one is there no more is told as its leaving."""
        self.looks += 1
        self.looking += 1
        told: dict[str, str] = {}
        begun, number = bool(request.resume_token), 0
        try:
            while self.failing is None:
                number += 1
                plans = {each.header.plan_id: each for each in self.plans}
                news = [
                    settlement_service_pb2.PlanNews(plan_id=plan_id, sequence=number, plan=plan)
                    for plan_id, plan in plans.items()
                    if told.get(plan_id) != plan.etag
                ]
                news += [settlement_service_pb2.PlanNews(plan_id=each, left=True) for each in told if each not in plans]
                told = {plan_id: plan.etag for plan_id, plan in plans.items()}
                yield settlement_service_pb2.WatchPlansResponse(news=news, snapshot_complete=not begun, resume_token="there")
                begun = True
                await asyncio.sleep(0.02)
            await context.abort(self.failing, "not now")
        finally:
            self.looking -= 1

    async def ListTransitions(self, request: Any, context: Context) -> Any:  # noqa: N802
        return settlement_service_pb2.ListTransitionsResponse()

    async def WatchPlan(self, request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: N802
        self.tokens.append(request.resume_token)
        self.watching += 1
        try:
            for each in self.news:
                yield each
            if self.failing is not None:
                await context.abort(self.failing, "not now")
            await asyncio.Event().wait()
        finally:
            self.watching -= 1

    async def ListEscalations(self, request: Any, context: Context) -> Any:  # noqa: N802
        found = [] if self.escalation is None else [self.escalation.escalation]
        return operator_service_pb2.ListEscalationsResponse(escalations=found)

    async def GetEscalation(self, request: Any, context: Context) -> Any:  # noqa: N802
        return self.escalation

    async def ListInDoubt(self, request: Any, context: Context) -> Any:  # noqa: N802
        return operator_service_pb2.ListInDoubtResponse()

    async def ListEntries(self, request: Any, context: Context) -> Any:  # noqa: N802
        return journal_reader_service_pb2.ListEntriesResponse(entries=self.entries)


@dataclass
class World:
    """A console, and the services that it reads."""

    services: Services
    settings: ConsoleSettings
    console: Console
    browser: aiohttp.ClientSession

    def url(self, path: str) -> str:
        return f"{self.console.url.rstrip('/')}{path}"

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and document of an answer."""
        async with self.browser.get(self.url(path), headers={"Authorization": f"Bearer {TOKEN}"} | headers) as answer:
            return answer.status, await answer.json(content_type=None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served(tls_for: Callable[[str], TlsSettings]) -> AsyncIterator[tuple[Services, int]]:
    """The services, which let the console read and nothing else."""
    services = Services()  # type: ignore[abstract]  # the rest is as generated, unimplemented
    reading: dict[Any, tuple[Any, tuple[str, ...]]] = {
        settlement_service_pb2: (
            settlement_service_pb2_grpc.add_SettlementServiceServicer_to_server,
            ("GetPlan", "ListPlans", "ListTransitions", "WatchPlan", "WatchPlans"),
        ),
        operator_service_pb2: (
            operator_service_pb2_grpc.add_OperatorServiceServicer_to_server,
            ("ListEscalations", "GetEscalation", "ListInDoubt"),
        ),
        journal_reader_service_pb2: (journal_reader_service_pb2_grpc.add_JournalReaderServiceServicer_to_server, ("ListEntries",)),
    }
    descriptors = {module: _descriptor(module) for module in reading}
    named = [f"/{descriptors[module].full_name}/{method}" for module, (_, methods) in reading.items() for method in methods]
    rows = [f"/{each.full_name}/*" for each in descriptors.values()]
    server = Server(
        ListenSettings(drain_seconds=0.5), tls_for("spiffe://lockstep.local/coordinator"), Access({CONSOLE: named}, rows=rows)
    )
    for module, (add, _) in reading.items():
        server.add(add, services, descriptors[module])
    await server.start()
    yield services, server.port
    await server.stop()


def _descriptor(module: Any) -> Any:
    (found,) = module.DESCRIPTOR.services_by_name.values()
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def world(served: tuple[Services, int], tls_for: Callable[[str], TlsSettings], tmp_path: Path) -> AsyncIterator[World]:
    """A console that asks for a token, over services that show one plan."""
    services, port = served
    services.__init__()  # type: ignore[misc]  # as it was made
    registry, token = tmp_path / "registry.yaml", tmp_path / "token"
    registry.write_text(yaml.safe_dump(registry_document()))
    token.write_text(f"{TOKEN}\n")
    settings = ConsoleSettings(
        coordinator=f"localhost:{port}",
        journal=f"localhost:{port}",
        tls=tls_for(CONSOLE),
        registry_file=registry,
        listen=ConsoleListen(token_file=token, streams_max=3, drain_seconds=2),
        look_seconds=0.05,
        heartbeat_seconds=0.5,
    )
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(aiohttp.ClientSession())
        console = await stack.enter_async_context(Console(settings))
        yield World(services, settings, console, browser)
    # A stream that ends after the services were made anew would be counted among the next test's.
    async with asyncio.timeout(60.0):
        while services.looking or services.watching:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


def escalated(
    case: PlanCase, plan: settlement.Plan, options: Sequence[tuple[int, str]]
) -> operator_service_pb2.GetEscalationResponse:
    """An open escalation of a plan, and what may be done about it."""
    answer = operator_service_pb2.GetEscalationResponse(plan=plan)
    file = answer.escalation
    file.escalation.escalation_id, file.escalation.reason, file.escalation.detail = "escalation-1", "UNKNOWN_TOO_OLD", "no answer"
    file.escalation.raise_time.FromDatetime(datetime.now(UTC))
    file.plan_id, file.plan_digest, file.state = case.plan_id, case.header.digest, plan.state
    file.age.FromTimedelta(timedelta(minutes=5))
    for verb, leg_id in options:
        file.options.add(verb=verb, leg_id=leg_id)
    return answer


def a_plan() -> PlanCase:
    """Tokens against cash."""
    return delivery_versus_payment()
