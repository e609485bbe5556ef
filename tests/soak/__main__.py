"""`make soak MINUTES=m`: plans of mixed shapes under all faults mixed; then everything is healed, read for the last time and judged.

PYTHONPATH=tests python -m soak [--minutes MINUTES] [--seed NUMBER] [--profile PROFILE] [--files]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path as File
from typing import Any, Final

import structlog

from bank_gateway.profiles import ProfileName
from lockstep_client.calls import CallSettings
from lockstep_sandbox.processes import cancel_on_signals
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.checker import INVARIANTS, Evidence, collect, judge, probe
from lockstep_testkit.checker.evidence import PlanRow
from lockstep_testkit.convoys import Batches
from lockstep_testkit.crew import Crew
from lockstep_testkit.miner import Miner
from soak.nemesis import Nemesis
from soak.traffic import Traffic, ends

#: From the healing until every plan is at its end or a person was called.
TERMINAL_SECONDS_MAX: Final = 30.0
#: How long the last plans are waited for before they are judged as they are.
ARRIVE_SECONDS_MAX: Final = 60.0
LEASE_SECONDS: Final = 2.0
REPLICAS: Final[Mapping[str, int]] = {"coordinator": 2, "dlt-gateway": 2, "bank-gateway": 2, "notary": 1, "event-journal": 2}
_CHAIN: Final = {"LOCKSTEP_CHAIN__FINALITY_DEPTH": "4", "LOCKSTEP_CHAIN__LEASE_SECONDS": "2"}
SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "coordinator": {
        "LOCKSTEP_LEASE_SECONDS": str(LEASE_SECONDS),
        "LOCKSTEP_RECOVERY_SECONDS": "0.5",
        "LOCKSTEP_CALL_SECONDS": "3",
        "LOCKSTEP_LIMITS__DEADLINE_SECONDS_MIN": "1",
    },
    "bank-gateway": {"LOCKSTEP_INQUIRY_SECONDS": "2", "LOCKSTEP_MAILBOX_WAIT_SECONDS": "2"},
    "dlt-gateway": _CHAIN,
    "notary": _CHAIN,
}


async def run(minutes: float, seed: int, profile: str, *, by_files: bool) -> int:
    """The soak; 1 when something does not hold."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    began = time.monotonic()
    print(f"seed {seed}", flush=True)
    with cancel_on_signals(), tempfile.TemporaryDirectory(prefix="soak-") as folder:
        async with AsyncExitStack() as stack:
            files = RuntimeDirectory.create(File(folder))
            changes = {"bank-gateway": {"profile": profile}}
            sandbox = await stack.enter_async_context(
                Sandbox(files, environ=SETTINGS, sampled_ratio=0.0, replicas=REPLICAS, changes=changes, by_files=by_files)
            )
            miner = Miner(sandbox)
            await stack.enter_async_context(miner.running())
            crew = await stack.enter_async_context(Crew(sandbox, CallSettings(deadline_seconds=4.0, pause_seconds_max=0.3)))
            desk = await stack.enter_async_context(Batches(crew.client))
            document, failures = await _soak(sandbox, miner, Traffic(crew, desk, random.Random(seed)), minutes, seed)
    document["seconds"] = round(time.monotonic() - began, 1)
    print("\n".join(failures))
    print(f"SOAK_RESULT {json.dumps(document)}", flush=True)
    return 1 if failures else 0


async def _soak(sandbox: Sandbox, miner: Miner, traffic: Traffic, minutes: float, seed: int) -> tuple[dict[str, Any], list[str]]:
    nemesis = Nemesis(sandbox, miner, random.Random(seed + 1), LEASE_SECONDS)
    harm = asyncio.create_task(nemesis.run(), name="nemesis")
    try:
        await traffic.run(minutes * 60)
    finally:
        harm.cancel()
        ended = (await asyncio.gather(harm, return_exceptions=True))[0]
    await nemesis.heal()
    healed = time.monotonic()
    print(f"healed after {sum(nemesis.done.values())} faults and {len(traffic.journeys)} plans", flush=True)
    await traffic.arrive(ARRIVE_SECONDS_MAX)
    late = [each.ended_at - healed for _, each in traffic.journeys if each.ended_at > healed]
    told = [told for _, each in traffic.journeys for told in each.told]
    evidence = await collect(sandbox)
    judgement = judge(await collect(sandbox, told=told, probes=await probe(sandbox, evidence)))
    failures = [*judgement.text().splitlines(), *traffic.failures]
    failures += [
        story for plan in evidence.plans.values() if not (plan.ended or plan.escalated) for story in _story(evidence, plan)
    ]
    if late and max(late) > TERMINAL_SECONDS_MAX:
        failures.append(f"the last plan ended {max(late):.1f} s after everything was healed")
    if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
        failures.append(f"the faults ended by themselves: {ended!r}")
    document = {
        "minutes": minutes,
        "seed": seed,
        "plans": len(evidence.plans),
        "plans_by_end": dict(judgement.plans),
        "plans_by_shape": dict(Counter(shape for shape, _ in traffic.journeys)),
        "told": dict(ends(traffic.journeys)),
        "escalated": sum(plan.escalated for plan in evidence.plans.values()),
        "faults": dict(sorted(nemesis.done.items())),
        "faults_total": sum(nemesis.done.values()),
        "quiet_periods": nemesis.quiet_periods,
        "invariants_checked": len(INVARIANTS),
        "violations": len(judgement.violations),
        "heal_to_terminal_ms_max": round(max(late, default=0.0) * 1000),
    }
    return document, failures


def _story(evidence: Evidence, plan: PlanRow) -> Iterator[str]:
    """Where each leg of a plan that is stuck stands at its participant."""
    for leg in plan.legs:
        found = evidence.record(plan.plan_id, leg.leg_id)
        if found is not None:
            name, row = found
            yield f"  {plan.plan_id} {leg.leg_id}: {name} has {row.fence.phase} since {row.since} {row.trouble}".rstrip()


def main() -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long faults and plans go on")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="decides every fault and every plan")
    parser.add_argument(
        "--profile", type=ProfileName, choices=ProfileName, default=ProfileName.CONDITIONAL, help="how payments are made"
    )
    parser.add_argument("--files", action="store_true", help="exchange files with the bank, and not over HTTPS")
    told = parser.parse_args()
    return asyncio.run(run(told.minutes, told.seed, told.profile.value, by_files=told.files))


if __name__ == "__main__":
    sys.exit(main())
