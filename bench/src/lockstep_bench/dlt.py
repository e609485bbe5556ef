"""`make bench-dlt`: the way onto the chain by itself, on a real node with 1 s blocks and a real Postgres; and what legs cost in gas.

Intents are queued, signed, stored, sent and followed to finality by the transaction machine as it runs in the services. What is timed is seen from its
edges: the database transactions that queue, the calls to the node, and the word that transactions came to their end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from lockstep_bench.gas import measure_gas
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_chain.endpoints import EvmEndpoints
from lockstep_chain.ports import Answer, Block
from lockstep_chain.sender import Intent, OnSettled, SettledTransaction, TransactionMachine
from lockstep_chain.settings import ChainSettings
from lockstep_chain.signers.opening import opened
from lockstep_kit.db import Connection, Database, DatabaseSettings
from lockstep_sandbox.chain import CHAIN_ID, Chain
from lockstep_sandbox.databases import SandboxDatabases, migrate
from lockstep_sandbox.deployment import DLT_SIGNER, TokenTerms, deploy_settlement
from lockstep_sandbox.processes import Supervisor
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.up import BASE

SERVICE: Final = "dlt-gateway"
PACKAGE: Final = "dlt_gateway"
BLOCK_SECONDS: Final = 1
#: Intents that are queued in one database transaction.
ENQUEUED_TOGETHER: Final = 100
#: A measured transaction: a call of an account without code, with as many bytes as a leg's terms have.
DATA_BYTES: Final = 256
GAS_LIMIT: Final = 60_000
SECONDS_MAX: Final = 180.0
#: Rates of the prototype on the same kind of machine, per second, and gas per leg at the batch sizes that it was measured at.
PROTOTYPE: Final = {"enqueue": 5_700, "assign_sign_persist": 1_950, "broadcast": 4_800}
PROTOTYPE_GAS: Final = {
    "prepare": {1: 123_067, 10: 82_571, 100: 78_530},
    "commit": {1: 58_987, 10: 26_258, 100: 19_584},
}


@dataclass
class Watch:
    """When the machine did what, by the monotonic clock."""

    #: How many transactions there are; set once all came to their end.
    count: int
    done: asyncio.Event = field(default_factory=asyncio.Event)
    #: Of each round: the node's word before nonces are given; then the first byte sent, the last answer, and how many were sent.
    told: list[float] = field(default_factory=list)
    sent: list[tuple[float, float, int]] = field(default_factory=list)
    #: Calls for receipts, and the ends of telling what came of them.
    asked: list[float] = field(default_factory=list)
    settled: list[tuple[float, int]] = field(default_factory=list)

    async def foresee(self, settled: Sequence[SettledTransaction], final: Block | None) -> OnSettled:
        """Nothing is to be read before they are settled."""
        del settled, final
        return self.on_settled

    async def on_settled(self, tx: Connection, settled: Sequence[SettledTransaction]) -> None:
        """Count what came to its end."""
        del tx
        self.settled.append((time.monotonic(), len(settled)))
        if sum(count for _, count in self.settled) >= self.count:
            self.done.set()


class TimedEvm(EvmEndpoints):
    """The chain, with a watch on what the machine asks of it."""

    watch: Watch

    async def conditions(self, address: str) -> Any:
        """As `Evm.conditions`."""
        found = await super().conditions(address)
        self.watch.told.append(time.monotonic())
        return found

    async def broadcast(self, raws: Sequence[bytes]) -> Sequence[Answer]:
        """As `Evm.broadcast`."""
        began = time.monotonic()
        answers = await super().broadcast(raws)
        self.watch.sent.append((began, time.monotonic(), len(raws)))
        return answers

    async def receipts(self, hashes: Sequence[bytes]) -> Any:
        """As `Evm.receipts`."""
        if hashes:
            self.watch.asked.append(time.monotonic())
        return await super().receipts(hashes)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured."""
    run = RuntimeDirectory.create(BASE)
    folder = run.path / "bench-dlt"
    folder.mkdir(mode=0o700)
    async with AsyncExitStack() as stack:
        databases = await stack.enter_async_context(SandboxDatabases(folder, "bench"))
        supervisor = await stack.enter_async_context(Supervisor(run.path / "logs"))
        chain = await stack.enter_async_context(Chain(supervisor, folder))
        stack.push_async_callback(supervisor.stop_all)
        login = await databases.create(PACKAGE)
        await migrate([(PACKAGE, login)])
        await deploy_settlement(chain, [TokenTerms("BOND", "Bench bond", 2, {"payer": 10**15}, allowing=("payer",))])
        gas = await measure_gas(chain, options.batch)
        await chain.begin_mining(BLOCK_SECONDS)
        # The machine is measured, not how much gas a block of this chain holds.
        await chain.node.call("evm_setBlockGasLimit", hex(options.transactions * GAS_LIMIT))
        database = DatabaseSettings(url=login.url, password_file=login.password_file)
        db = await Database.connect(database, application_name=SERVICE)
        stack.push_async_callback(db.close)
        found = await measure_rates(db, chain, options.transactions)
    return {"cores": os.cpu_count(), "transactions": options.transactions, "rates_per_second": found, "gas_per_leg": gas}


async def measure_rates(db: Database, chain: Chain, count: int) -> dict[str, float]:
    """What the machine does in a second, step by step."""
    settings = ChainSettings.model_validate(
        {
            "rpc_urls": [chain.node.url],
            "single_endpoint": True,
            "chain_id": CHAIN_ID,
            "finality_depth": 0,
            "signers": [chain.signer_settings(DLT_SIGNER)],
            "unmined_max": 10_000,
        }
    )
    watch = Watch(count)
    evm = await TimedEvm.connect(settings.rpc_urls, CHAIN_ID, rules=settings.endpoint_rules)
    evm.watch = watch
    try:
        async with opened(settings.signers) as signers:
            machine = TransactionMachine(db, evm, signers, settings, watch.foresee, service=SERVICE)
            began = time.monotonic()
            for start in range(0, count, ENQUEUED_TOGETHER):
                async with db.transaction() as tx:
                    numbers = range(start, min(start + ENQUEUED_TOGETHER, count))
                    await machine.enqueue(tx, [intent(number, chain.address("payer")) for number in numbers])
            queued = time.monotonic()
            running = asyncio.create_task(machine.run())
            try:
                await asyncio.wait_for(watch.done.wait(), SECONDS_MAX)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
    finally:
        await evm.close()
    return rates(watch, count, began, queued)


def intent(number: int, to: str) -> Intent:
    """One of many that differ."""
    return Intent(f"bench/{number}", to, number.to_bytes(DATA_BYTES), GAS_LIMIT, purpose="bench")


def rates(watch: Watch, count: int, began: float, queued: float) -> dict[str, float]:
    """Per second, from what the watch saw."""
    # Between the node's word and the first byte lies one database transaction: nonces, signatures, bytes.
    assigning = sum(first - max(told for told in watch.told if told <= first) for first, _, _ in watch.sent)
    sending = sum(last - first for first, last, _ in watch.sent)
    found = {
        "enqueue": count / (queued - began),
        "assign_sign_persist": sum(each for _, _, each in watch.sent) / assigning,
        "broadcast": sum(each for _, _, each in watch.sent) / sending,
        "confirm": count / confirming(watch),
        "queued_to_final": count / (watch.settled[-1][0] - queued),
    }
    return {name: round(value, 1) for name, value in found.items()}


def confirming(watch: Watch) -> float:
    """Seconds in which receipts were asked for, judged and stored; the waits between blocks are not among them."""
    ends = [moment for moment, _ in watch.settled]
    bounds = [*watch.asked, float("inf")]
    return sum(
        max(told) - asked for asked, following in pairwise(bounds) if (told := [end for end in ends if asked <= end < following])
    )


def show(result: dict[str, Any]) -> None:
    """The tables."""
    print(f"\n== Per second, {result['transactions']} transactions, {result['cores']} cores ==")
    for name, value in result["rates_per_second"].items():
        print(f"  {name:24} {value:>10,.0f}   {f'prototype {PROTOTYPE[name]:,}' if name in PROTOTYPE else ''}")
    for name, sizes in result["gas_per_leg"].items():
        print(f"\n== Gas per leg: {name} ==")
        for size, value in sizes.items():
            bar = PROTOTYPE_GAS.get(name, {}).get(size)
            print(f"  {size:>4} legs {value:>12,}   {f'prototype {bar:,}' if bar else ''}")


async def bench(options: argparse.Namespace) -> int:
    """The exit code."""
    result = await unless_stopped(measure(options))
    if result is None:
        return STOPPED
    show(result)
    print(f"BENCH_DLT_RESULT {json.dumps(result)}", flush=True)
    return 0


def main() -> int:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="lockstep_bench.dlt", description=__doc__)
    options.add_argument("--transactions", type=int, default=3_000, help="transactions that are brought onto the chain")
    options.add_argument("--batch", type=int, nargs="+", default=[1, 10, 100, 200], help="legs in one transaction")
    return asyncio.run(bench(options.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
