"""The sandbox as the bench measures it: everything on, tracing at the default sampling, and a client that may bring as much as it can."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from lockstep_bench.people import validating
from lockstep_kit.rpc.arrows import spiffe_id
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import CLIENT, Sandbox
from lockstep_sandbox.up import BASE

#: Share of new traces that is recorded, as by default.
SAMPLED_RATIO: Final = 0.01
#: All of the bench's people are one client to the services, and the load is to end at what Lockstep can do, not at what one client may.
LIMITS: Final = {
    "calls_per_second": 100_000.0,
    "calls_burst": 200_000.0,
    "calls_at_once_max": 8_192,
    "streams_per_second": 10_000.0,
    "streams_burst": 20_000.0,
    "streams_max": 8_192,
}
LISTEN: Final = {
    "concurrent_calls_max": 20_000,
    "connection_streams_max": 16_384,
    "limits": {"named": {spiffe_id(CLIENT): LIMITS}},
}
COORDINATOR: Final[Mapping[str, Any]] = {
    "quotas": {"open_plans_max": 100_000, "plans_per_minute": 1_000_000.0, "plan_watches_max": 8_192},
    "watchers_max": 8_192,
}


@asynccontextmanager
async def stage(*, sampled_ratio: float = SAMPLED_RATIO) -> AsyncIterator[Sandbox]:
    """Everything, with the validator agent."""
    run = RuntimeDirectory.create(BASE)
    async with (
        Sandbox(run, sampled_ratio=sampled_ratio, changes={"coordinator": COORDINATOR}, listen=LISTEN) as sandbox,
        validating(sandbox),
    ):
        yield sandbox
