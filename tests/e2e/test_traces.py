"""A settlement is one trace, from its client's call to the last confirmation: judged by the span store alone."""

from __future__ import annotations

import asyncio
import html.parser
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep_client.convert import state_name
from lockstep_sandbox.stack import SERVICES, Sandbox
from lockstep_testkit.command_line import lockstep
from lockstep_testkit.crew import Crew, draw_address

SPANS_SECONDS_MAX = 180.0
LOOK_SECONDS = 0.5

Span = dict[str, Any]


async def spans_of(sandbox: Sandbox, trace_id: str) -> list[Span]:
    """What the store holds of a trace by now."""
    async with aiohttp.ClientSession() as session, session.get(f"{sandbox.spans_url}/traces/{trace_id}") as answer:
        found: list[Span] = (await answer.json())["spans"]
        return found


async def spans_when(sandbox: Sandbox, plan: settlement.Plan, holds: Callable[[list[Span]], object]) -> list[Span]:
    """The plan's trace, once it holds what it must: each process sends its spans in batches of its own."""
    give_up = time.monotonic() + SPANS_SECONDS_MAX
    while True:
        spans = await spans_of(sandbox, plan.trace_id)
        if holds(spans):
            return spans
        assert time.monotonic() < give_up, {each["service"]: each["name"] for each in spans}
        await asyncio.sleep(LOOK_SECONDS)


def roots(spans: list[Span]) -> list[str]:
    return [each["name"] for each in spans if not each["parent_span_id"]]


def orphans(spans: list[Span]) -> list[tuple[str, str]]:
    known = {"", *(each["span_id"] for each in spans)}
    return [(each["service"], each["name"]) for each in spans if each["parent_span_id"] not in known]


def is_tree(spans: list[Span]) -> bool:
    """Whether every parent is there, and one span has none."""
    return len(roots(spans)) == 1 and not orphans(spans)


def named(spans: list[Span], service: str, name: str) -> list[Span]:
    return [each for each in spans if (each["service"], each["name"]) == (service, name)]


def with_attribute(spans: list[Span], service: str, name: str, value: str) -> list[Span]:
    return [each for each in spans if each["service"] == service and each["attributes"].get(name) == value]


def closed(spans: list[Span]) -> bool:
    """Whether the span that tells of the plan's last transition is there."""
    told = [each["attributes"] for span in spans if span["service"] == "coordinator" for each in span["events"]]
    return any(each.get("lockstep.to") == "CLOSED" for each in told)


def plans_of(span: Span) -> set[str]:
    told = span["attributes"]
    return {told["lockstep.plan_id"]} if "lockstep.plan_id" in told else set(told.get("lockstep.plan_ids", ()))


async def test_a_settlement_is_one_trace(sandbox: Sandbox, crew: Crew) -> None:
    """The five services, their databases, the chain and the bank are in one tree below the client's span, and each span names the plan."""
    plan = await crew.settled(crew.payments())
    spans = await spans_when(sandbox, plan, lambda found: closed(found) and is_tree(found))
    plan_id = plan.header.plan_id
    assert roots(spans) == ["settle"]
    assert {each["service"] for each in spans} == {"lockstep-client", *SERVICES}
    for service in SERVICES:
        assert with_attribute(spans, service, "db.operation.name", "COMMIT"), service
        assert with_attribute(spans, service, "rpc.system.name", "grpc"), service
    for service in ("dlt-gateway", "notary"):
        life = [named(spans, service, name) for name in ("chain.send", "chain.confirm", "chain.judge")]
        assert all(life), service
        # Each was sent before it was final, and final before it was judged.
        firsts = [min(each["start_unix_nano"] for each in part) for part in life]
        assert firsts == sorted(firsts), service
        assert with_attribute(spans, service, "rpc.method", "eth_sendRawTransaction"), service
    assert with_attribute(spans, "bank-gateway", "http.route", "/rail/v1/requests")
    assert {each["attributes"]["iso20022.uetr"] for each in named(spans, "bank-gateway", "bank.send")} == {
        each["attributes"]["iso20022.uetr"] for each in named(spans, "bank-gateway", "bank.receive")
    }
    # What participants report on their streams is told in the plan's trace, like what they answer.
    assert named(spans, "coordinator", "coordinator.vote")
    assert named(spans, "coordinator", "coordinator.append")
    nameless = {(each["service"], each["name"]) for each in spans if plan_id not in plans_of(each)}
    assert not nameless
    statements = [each for each in spans if each["attributes"].get("db.system.name") == "postgresql"]
    assert all("'" not in each["name"] and "$" not in each["name"] for each in statements)


async def test_who_signs_has_a_trace_that_the_plans_links_to(sandbox: Sandbox, crew: Crew) -> None:
    """A gate that somebody signs is told in the plan's trace, with a link to that of the signer's call."""
    plan = await crew.settled(crew.payments())
    spans = await spans_when(sandbox, plan, lambda found: closed(found) and is_tree(found))
    gates = named(spans, "coordinator", "coordinator.gate")
    assert gates
    for each in gates:
        (link,) = each["links"]
        assert link["trace_id"] != plan.trace_id
        theirs = await spans_of(sandbox, link["trace_id"])
        (called,) = [span["name"].rpartition("/")[2] for span in theirs if span["span_id"] == link["span_id"]]
        # People sign one by one, an agent all that wait together.
        assert called in ("SignGate", "SignGates")


async def test_a_restart_breaks_no_trace(sandbox: Sandbox, crew: Crew) -> None:
    """The notary is killed while the plan waits for its release, called in vain, and started again: the trace goes on where it was."""
    plan = await crew.started(crew.payments())
    waiting = await crew.awaiting(plan.header.plan_id, "release")
    before = await spans_when(sandbox, waiting, lambda found: named(found, "notary", "chain.judge") and is_tree(found))
    await sandbox.supervisor.kill9("notary")
    try:
        driving = asyncio.create_task(crew.driven(plan.header.plan_id))
        await spans_when(sandbox, waiting, in_vain)
    finally:
        await sandbox.supervisor.restart("notary")
    ended = await driving
    assert state_name(ended.state) == "CLOSED"
    count = len(named(before, "notary", "chain.confirm"))

    def goes_on(found: list[Span]) -> bool:
        return bool(closed(found)) and is_tree(found) and len(named(found, "notary", "chain.confirm")) > count

    spans = await spans_when(sandbox, waiting, goes_on)
    assert roots(spans) == ["settle"]
    assert {each["span_id"] for each in before} <= {each["span_id"] for each in spans}


def in_vain(spans: list[Span]) -> list[Span]:
    """Calls of the coordinator that nobody answered."""
    return with_attribute(spans, "coordinator", "rpc.response.status_code", "UNAVAILABLE")


async def test_an_abort_is_one_trace_too(sandbox: Sandbox, crew: Crew) -> None:
    """A plan that cannot settle ends in the trace that it began in."""
    plan = await crew.started(crew.payments(payee=draw_address(), payer="issuer"))
    ended = await crew.driven(plan.header.plan_id)
    spans = await spans_when(sandbox, ended, lambda found: closed(found) and is_tree(found))
    assert roots(spans) == ["settle"]
    assert named(spans, "coordinator", "coordinator.abort")


class Page(html.parser.HTMLParser):
    """What a page would load, and what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "action")]
        if tag in ("script", "link", "iframe", "object"):
            self.loaded.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


async def test_the_command_shows_it(sandbox: Sandbox, crew: Crew, tmp_path: Path) -> None:
    """`lockstep trace` draws the plan's trace, and writes a page of it that stands alone."""
    plan = await crew.settled(crew.payments())
    spans = await spans_when(sandbox, plan, lambda found: closed(found) and is_tree(found))
    code, out, errors = await lockstep("trace", plan.header.plan_id, sandbox=sandbox)
    assert (code, errors) == (0, "")
    assert out.startswith(f"trace {plan.trace_id}: ")
    assert all(service in out for service in SERVICES)
    assert "coordinator.prepare" in out
    file = tmp_path / "trace.html"
    code, out, errors = await lockstep("trace", plan.header.plan_id, "--html", str(file), sandbox=sandbox)
    assert (code, out, errors) == (0, f"wrote {file}\n", "")
    page = Page()
    page.feed(file.read_text())
    assert page.loaded == []
    said = set(page.text)
    assert {"PREPARED", "COMMITTED", "gate RELEASE", "leg bonds · dlt-gateway", plan.header.plan_id} <= said
    assert {each["span_id"] for each in spans} <= said
