"""What is paid so that nobody can do what he may not: processor time of the guard around a call, and of the checks of a certificate's signatures.

A real server answers the same calls over mutual TLS with the guard's interceptors and, here in the bench alone, without them; the checks of signatures are the
participants' own functions. Both are put beside the processor time of a settlement.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep_kit.certificate import check_commit, check_gate, check_prepare
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.rpc.arrows import SERVICE_IDS, access_of
from lockstep_kit.rpc.certificates import Certificates
from lockstep_kit.rpc.gate import Gate as GateInterceptor
from lockstep_kit.rpc.guard import Guard
from lockstep_kit.rpc.limits import Limiter, ServingLimits
from lockstep_kit.rpc.tls import Identity, server_credentials
from lockstep_kit.sod import scope_of
from lockstep_kit.statements import Gate
from lockstep_sandbox.authority import Authority
from lockstep_testkit.factories import delivery_versus_payment, registry_of

CALLS: Final = 1_500
ROUNDS: Final = 6
METHOD: Final = "/lockstep.journal.v1.JournalReaderService/GetCheckpoint"
CALLER: Final = "notary"
CHECKS: Final = 200
#: As `make bench` counts them; see docs/performance.md.
CALLS_PER_SETTLEMENT: Final = 50.5
#: Gates that the coordinator checks: maker, approver, releaser, validator.
GATES_PER_SETTLEMENT: Final = 4
#: Participants of a plan with tokens, money, notarisation and journal: each checks the maker at Prepare and the certificate at Commit.
PARTICIPANTS_PER_SETTLEMENT: Final = 4


async def guard_costs(settlement_milliseconds: float) -> dict[str, Any]:
    """Microseconds of processor time each, and their share of a settlement."""
    with tempfile.TemporaryDirectory() as folder:
        bare, guarded = await _calls(Path(folder))
    checks = _checks()
    per_settlement = (guarded - bare) * CALLS_PER_SETTLEMENT + checks["gate_us"] * GATES_PER_SETTLEMENT
    per_settlement += (checks["prepare_us"] + checks["certificate_us"]) * PARTICIPANTS_PER_SETTLEMENT
    whole = settlement_milliseconds * 1_000
    found = {
        "call_bare_us": round(bare, 1),
        "call_guarded_us": round(guarded, 1),
        "call_ratio": round(guarded / bare, 3),
        **{name: round(value, 1) for name, value in checks.items()},
        "checks_per_settlement_ms": round(per_settlement / 1_000, 2),
        "settlement_ms": settlement_milliseconds,
        "settlement_ratio": round(whole / (whole - per_settlement), 3),
    }
    print("  guard      " + "  ".join(f"{name} {value}" for name, value in found.items()), flush=True)
    return found


async def _calls(folder: Path) -> tuple[float, float]:
    """Processor time of one call, client and server together: without the guard and with it; the least of several rounds, taken in turn."""
    authority = Authority(folder)
    served = TlsSettings.model_validate(authority.issue("event-journal").settings())
    caller = Identity.read(TlsSettings.model_validate(authority.issue(CALLER).settings()))
    certificates = Certificates(90_000)
    gate = GateInterceptor(
        access_of("event-journal", {}),
        Limiter(ServingLimits(), 1_000, SERVICE_IDS),
        certificates,
        call_seconds_max=300,
        stream_seconds_max=300,
    )
    least = []
    guard = Guard(certificates)
    servers = [
        await _serving(served, each) for each in (lambda each: each, lambda each: gate.around(METHOD, guard.around(METHOD, each)))
    ]
    channels = [grpc.aio.secure_channel(f"localhost:{port}", caller.channel_credentials()) for _, port in servers]
    try:
        rounds = [[await _spent(made) for made in channels] for _ in range(ROUNDS)]
        least = [min(each[kind] for each in rounds) for kind in range(2)]
    finally:
        for made in channels:
            await made.close()
        for server, _ in servers:
            await server.stop(0)
    return least[0], least[1]


async def _serving(tls: TlsSettings, around: Callable[[Any], Any]) -> tuple[grpc.aio.Server, int]:
    async def answer(_: Any, __: Any) -> messages.GetCheckpointResponse:
        return messages.GetCheckpointResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        answer, messages.GetCheckpointRequest.FromString, messages.GetCheckpointResponse.SerializeToString
    )
    service, _, name = METHOD[1:].partition("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: around(handler)}),))
    port = server.add_secure_port("localhost:0", server_credentials(tls))
    await server.start()
    return server, port


async def _spent(made: Any) -> float:
    call = made.unary_unary(METHOD)
    await call(b"", timeout=60)
    began = time.process_time()
    for _ in range(CALLS):
        await call(b"", timeout=60)
    return (time.process_time() - began) / CALLS * 1e6


def _checks() -> dict[str, float]:
    """Processor time of the checks of signatures, of a plan of four legs."""
    plan, registry, now = delivery_versus_payment(), registry_of(), datetime.now(UTC)
    binding, certificate, make = plan.binding("cash"), plan.certificate(), plan.gate(Gate.MAKE)
    key, scope = plan.key("cash"), scope_of(plan.header, plan.legs)
    return {
        "gate_us": _each(lambda: check_gate(make, Gate.MAKE, scope, registry, now)),
        "prepare_us": _each(lambda: check_prepare(binding, make, registry, now)),
        "certificate_us": _each(lambda: check_commit(certificate, binding, key, "bank-gateway", registry)),
    }


def _each(check: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(CHECKS):
        check()
    return (time.process_time() - began) / CHECKS * 1e6


if __name__ == "__main__":
    asyncio.run(guard_costs(257.0))
