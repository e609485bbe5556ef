"""A client that floods: one process that calls a coordinator as fast as it can, in one way, until it is told to stop; then it says how often.

python -m lockstep_bench.flooding unary localhost:PORT PLAN_ID CERTIFICATE KEY AUTHORITY
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import grpc

from lockstep.coordinator.v1.settlement_service_pb2 import ListPlansRequest, WatchPlanRequest
from lockstep_kit.errors import from_rpc

CONNECTIONS: Final = 4
#: Calls that are under way on each connection.
AT_ONCE: Final = 48
SECONDS: Final = 20.0
SERVICE: Final = "/lockstep.coordinator.v1.SettlementService"
LARGEST: Final = os.urandom(262_100)
#: A connection of its own for each channel.
OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))

Once = Callable[[Any, str], Awaitable[None]]


async def unary(made: Any, plan_id: str) -> None:
    """The dearest of the calls that a client may make of plans."""
    del plan_id
    await made.unary_unary(f"{SERVICE}/ListPlans")(ListPlansRequest(page_size=200).SerializeToString(), timeout=SECONDS)


async def largest(made: Any, plan_id: str) -> None:
    """The largest message that is taken, which is no plan."""
    del plan_id
    await made.unary_unary(f"{SERVICE}/CreatePlan")(LARGEST, timeout=SECONDS)


async def streams(made: Any, plan_id: str) -> None:
    """A stream that is kept open."""
    watch = made.unary_stream(f"{SERVICE}/WatchPlan")(WatchPlanRequest(plan_id=plan_id).SerializeToString(), timeout=SECONDS)
    async for _ in watch:
        pass


async def slow(made: Any, plan_id: str) -> None:
    """A stream of which nothing is read."""
    watch = made.unary_stream(f"{SERVICE}/WatchPlan")(WatchPlanRequest(plan_id=plan_id).SerializeToString(), timeout=SECONDS)
    await watch.wait_for_connection()
    await asyncio.sleep(SECONDS)


async def resets(made: Any, plan_id: str) -> None:
    """A call that is taken back as soon as it is sent."""
    call = made.unary_unary(f"{SERVICE}/ListTransitions")(WatchPlanRequest(plan_id=plan_id).SerializeToString(), timeout=SECONDS)
    # A thousand of them a second from each connection are a flood; more would flood the client.
    await asyncio.sleep(AT_ONCE / 1_000)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call


KINDS: Final[Mapping[str, Once]] = {each.__name__: each for each in (unary, largest, streams, slow, resets)}


async def flood(once: Once, target: str, plan_id: str, credentials: grpc.ChannelCredentials) -> Counter[str]:
    """Call until SIGTERM; how often each answer came."""
    told, answers = asyncio.Event(), Counter[str]()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)

    async def worker(made: grpc.aio.Channel) -> None:
        while not told.is_set():
            try:
                await once(made, plan_id)
                answers["OK"] += 1
            except grpc.aio.AioRpcError as error:
                answers[from_rpc(error).reason] += 1

    channels = [grpc.aio.secure_channel(target, credentials, options=OPTIONS) for _ in range(CONNECTIONS)]
    workers = [asyncio.create_task(worker(made)) for made in channels for _ in range(AT_ONCE)]
    await told.wait()
    for each in workers:
        each.cancel()
    await asyncio.wait(workers, timeout=2)
    return Counter(answers)


def main() -> int:
    """Flood as the arguments say."""
    # A flood comes from another machine: it gets the processor time that nobody here wants, and gives it back at once, so that its own work slows no one.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    kind, target, plan_id, certificate, key, authority = sys.argv[1:]
    credentials = grpc.ssl_channel_credentials(Path(authority).read_bytes(), Path(key).read_bytes(), Path(certificate).read_bytes())
    print(json.dumps(dict(asyncio.run(flood(KINDS[kind], target, plan_id, credentials)))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
