"""Bugs that are put in on purpose, into servers that exist for these tests alone: the campaign sees each of them, and nothing in a server without."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from fuzz.callers import STRANGERS, callers, channels_to
from fuzz.campaign import Campaign
from fuzz.corpus import Corpus
from fuzz.effects import State
from fuzz.judging import Judge, Reasons
from fuzz.running import ERRORS_PAGE
from fuzz.surface import Method, SurfaceUnknown, methods_of, services
from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep_kit import ids
from lockstep_kit.errors import not_found, permission_denied
from lockstep_kit.rpc.arrows import spiffe_id
from lockstep_kit.rpc.limits import ServingLimits
from lockstep_sandbox.authority import Authority
from lockstep_sandbox.stack import BANK, CLIENT, SERVICES
from lockstep_testkit.participants import ROOMY
from lockstep_testkit.serving import COORDINATOR, SERVICE, VERIFY, Served

pytestmark = pytest.mark.integration

KNOWN = "6f0d3c5e-8a41-4d0e-9c77-2f1b7a3e4d10"
CALLS = 400
Context = grpc.aio.ServicerContext[Any, Any]
Serve = Callable[..., Awaitable[Served]]
#: Whoever reads the journal may call it, as in the real table.
INSIDE = (*SERVICES, BANK, CLIENT, *STRANGERS)
TABLE: Mapping[str, tuple[str, ...]] = {spiffe_id(each): (f"/{SERVICE}/*",) for each in (CLIENT, "notary")}
EVERYBODY: Mapping[str, tuple[str, ...]] = {spiffe_id(each): (f"/{SERVICE}/*",) for each in INSIDE}
ROOM = ServingLimits(clients=ROOMY)


@dataclass
class Shelf:
    """Where the servers below write what they must not."""

    rows: set[str] = field(default_factory=set)

    async def state(self) -> State:
        return {("shelf", "rows"): frozenset(self.rows)}

    async def money(self) -> State:
        return {}


async def found(served: Served, authority: Authority, shelf: Shelf, folder: Path) -> list[str]:
    """What a campaign against one method of a server finds."""
    who = callers(authority, folder)
    corpus = Corpus()
    corpus.harvest(messages.VerifyPlanRequest(plan_id=KNOWN))
    targets = {"server": served.target}
    async with channels_to(who, targets, authority.ca_file) as channels:
        described = services()[SERVICE].methods_by_name["VerifyPlan"]
        method = Method("server", VERIFY, described.input_type, described.output_type, described.server_streaming)
        judge = Judge(Reasons.read(ERRORS_PAGE))
        campaign = Campaign(3, [method], who, channels, corpus, judge, shelf, lambda: (), batch=CALLS)
        await campaign.run(CALLS)
    return campaign.findings


async def right(request: messages.VerifyPlanRequest, _: Context) -> messages.VerifyPlanResponse:
    plan_id = ids.plan_id(request.plan_id)
    if plan_id != KNOWN:
        raise not_found("plan", plan_id)
    return messages.VerifyPlanResponse()


async def test_nothing_is_found_where_nothing_is_wrong(guarded_server: Serve, authority: Authority, tmp_path: Path) -> None:
    """A server that does as it should passes."""
    served = await guarded_server(table=TABLE, limits=ROOM)
    served.servicer.verify = right
    assert await found(served, authority, Shelf(), tmp_path) == []


async def test_a_handler_that_raises_is_seen(guarded_server: Serve, authority: Authority, tmp_path: Path) -> None:
    """What ends as INTERNAL is a finding, with the request that shows it."""

    async def raises(request: messages.VerifyPlanRequest, _: Context) -> messages.VerifyPlanResponse:
        return messages.VerifyPlanResponse(entry_count=int(request.plan_id, 16))

    served = await guarded_server(table=TABLE, limits=ROOM)
    served.servicer.verify = raises
    findings = await found(served, authority, Shelf(), tmp_path)
    assert any("INTERNAL" in each and "request " in each for each in findings), findings


async def test_existence_before_authorisation_is_seen(guarded_server: Serve, authority: Authority, tmp_path: Path) -> None:
    """A handler that looks for the plan first, and asks who calls afterwards, tells strangers which plans there are."""

    async def looks_first(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        await right(request, context)
        raise permission_denied("CALLER_NOT_ALLOWED", "this caller may not call this method")

    served = await guarded_server(table=EVERYBODY, limits=ROOM)
    served.servicer.verify = looks_first
    findings = await found(served, authority, Shelf(), tmp_path)
    assert any("a caller that may not call was answered otherwise" in each for each in findings), findings


async def test_denials_that_tell_something_are_seen(guarded_server: Serve, authority: Authority, tmp_path: Path) -> None:
    """The same code and reason in other words is an answer too."""

    async def words(request: messages.VerifyPlanRequest, _: Context) -> messages.VerifyPlanResponse:
        known = "" if request.plan_id == KNOWN else ", nor is there such a plan"
        raise permission_denied("CALLER_NOT_ALLOWED", f"this caller may not call this method{known}")

    served = await guarded_server(table=EVERYBODY, limits=ROOM)
    served.servicer.verify = words
    findings = await found(served, authority, Shelf(), tmp_path)
    assert any("a denial tells something" in each for each in findings), findings


async def test_a_write_on_a_refused_call_is_seen(guarded_server: Serve, authority: Authority, tmp_path: Path) -> None:
    """A row that a refused call leaves is borne out by nothing."""
    shelf = Shelf()

    async def writes(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        shelf.rows.add(f"asked for {request.plan_id}")
        return await right(request, context)

    served = await guarded_server(table=TABLE, limits=ROOM)
    served.servicer.verify = writes
    findings = await found(served, authority, shelf, tmp_path)
    assert any("shelf.rows: a row is new" in each for each in findings), findings


async def test_a_reason_that_is_not_listed_is_seen(guarded_server: Serve, authority: Authority, tmp_path: Path) -> None:
    """Callers are told only what docs/errors.md explains, with the code that it names."""

    async def unlisted(_: messages.VerifyPlanRequest, __: Context) -> messages.VerifyPlanResponse:
        raise permission_denied("NEVER_HEARD_OF", "no")

    async def other_code(_: messages.VerifyPlanRequest, __: Context) -> messages.VerifyPlanResponse:
        raise permission_denied("ETAG_MISMATCH", "no")

    served = await guarded_server(table=TABLE, limits=ROOM)
    for handler, words in ((unlisted, "NEVER_HEARD_OF is not in docs/errors.md"), (other_code, "ETAG_MISMATCH came with")):
        served.servicer.verify = handler
        findings = await found(served, authority, Shelf(), tmp_path)
        assert any(words in each for each in findings), findings


async def test_a_service_that_nobody_serves_is_seen(guarded_server: Serve) -> None:
    """The campaign does not begin where a service of the protocol is left out."""
    served = await guarded_server(table={**TABLE, COORDINATOR: (f"/{SERVICE}/*",)}, limits=ROOM)
    channel = await served.channel_as(COORDINATOR)
    with pytest.raises(SurfaceUnknown, match="nobody serves"):
        await methods_of({"server": channel})
