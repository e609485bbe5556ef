"""Who may call what, asked of the running services: every method of every one of them as every identity; and certificates that change under their feet."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from lockstep_kit.errors import from_rpc
from lockstep_kit.rpc import TlsSettings, channel
from lockstep_kit.rpc.arrows import ARROWS, Caller
from lockstep_sandbox.authority import Authority
from lockstep_sandbox.stack import BANK, CLIENT, SERVICES, Sandbox
from lockstep_testkit.crew import Crew

#: Whoever has a certificate of the sandbox's authority, and two who were never configured.
IDENTITIES = (*SERVICES, BANK, CLIENT, "journal-bridge", "client/nobody")
STREAMS = ("WatchPlan", "WatchPlans", "WatchEntries", "WatchOutcomes")
SECONDS = 60.0
#: A stream that was let in and has nothing to say is left after this; who is not let in hears so long before, on a slow machine too.
STREAM_SECONDS = 20.0


def allowed(caller: str, callers: frozenset[Caller]) -> bool:
    """What the table says; of the clients the settings name one."""
    return (caller == CLIENT and Caller.CLIENT in callers) or caller in {each.value for each in callers - {Caller.CLIENT}}


async def answered(made: Any, method: str) -> str:
    """The reason that an empty request of a method is answered with; nothing where it is served."""
    call: Any
    try:
        if method.rpartition("/")[2] in STREAMS:
            call = made.unary_stream(method)(b"", timeout=STREAM_SECONDS)
            await call.read()
            call.cancel()
        else:
            await made.unary_unary(method)(b"", timeout=SECONDS)
    except grpc.aio.AioRpcError as error:
        return from_rpc(error).reason
    return ""


@pytest.mark.parametrize("caller", IDENTITIES)
async def test_every_method_as_every_identity(sandbox: Sandbox, crew: Crew, tmp_path: Path, caller: str) -> None:
    """Each running service lets each identity call exactly what the table says, and nothing else."""
    del crew, tmp_path
    known = caller in (*SERVICES, BANK, CLIENT)
    tls = sandbox.tls(caller) if known else TlsSettings.model_validate(sandbox.authority.issue(caller).settings())
    wrong = []
    for server, rows in ARROWS.items():
        async with channel(sandbox.address(server), tls) as made:
            for method, row in rows.items():
                reason = await answered(made, method)
                assert reason not in ("CALLS_TOO_FAST", "UNAVAILABLE", "INTERNAL"), (server, method, reason)
                if (reason != "CALLER_NOT_ALLOWED") is not allowed(caller, row.callers):
                    wrong.append((server, method, reason))
    assert wrong == []


async def test_who_shows_nothing_reaches_nobody(sandbox: Sandbox, tmp_path: Path) -> None:
    """Without a certificate, without TLS, or with another authority's, no service answers any method."""
    trusted = sandbox.tls(CLIENT).ca_file.read_bytes()
    foreign = Authority(tmp_path).issue("coordinator")
    files = foreign.key_file.read_bytes(), foreign.certificate_file.read_bytes()
    for server, rows in ARROWS.items():
        target = sandbox.address(server)
        for made in (
            grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(trusted)),
            grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(trusted, *files)),
            grpc.aio.insecure_channel(target),
        ):
            async with made:
                for method in rows:
                    assert await answered(made, method) == "UNAVAILABLE"


async def test_certificates_are_renewed_while_plans_settle(sandbox: Sandbox, crew: Crew) -> None:
    """Every service's and the client's certificates change again and again while a plan settles, to the end, with no service started anew."""
    pids = {name: sandbox.supervisor.pid(name) for name in SERVICES}
    before = sandbox.tls("coordinator").certificate_file.read_bytes()
    stop = time.monotonic() + 25

    async def renewing() -> None:
        while time.monotonic() < stop:
            sandbox.renew_certificates()
            await asyncio.sleep(2)

    async def settling() -> None:
        while time.monotonic() < stop:
            plan = await crew.started(crew.payments())
            await crew.driven(plan.header.plan_id)

    await asyncio.gather(renewing(), settling())
    assert sandbox.tls("coordinator").certificate_file.read_bytes() != before
    assert {name: sandbox.supervisor.pid(name) for name in SERVICES} == pids
