"""`make bench-journal`: the event journal's own work by itself: signed entries per second, by batch, and what an append costs in a log that grows.

Events go through the journal's own appender, as calls of its RPC do once they are read: checked, hashed, linked, signed, stored, each batch durable before
it is answered. Eight writers send at a time, of many plans each; or one does, of one plan.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from event_journal.appender import Appender, JournalOperations
from event_journal.appending import Submission, Verdict
from event_journal.chain import Event
from event_journal.payload_keys import PayloadVault
from event_journal.signing_keys import SigningKeys
from lockstep_bench import journal_proofs
from lockstep_bench.costs import postgres_processor_seconds
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_kit.db import Database, DatabaseSettings
from lockstep_kit.fence import Epoch
from lockstep_kit.garbage import collect_seldom
from lockstep_kit.ids import PlanId, journal_event_id
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.registry import Participant, RegisteredKey, Registry
from lockstep_kit.signing import SigningKey
from lockstep_sandbox.databases import SandboxDatabases, migrate
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.up import BASE
from lockstep_testkit.journal_events import payload_of

PACKAGE: Final = "event_journal"
NAME: Final = "event-journal"
BATCHES: Final = (1, 16, 64, 256)
WRITERS: Final = 8
#: Entries of each plan, where there are many.
CHAIN_LENGTH: Final = 16
#: What is promised on two cores: entries in a second, in batches of 64 and of 256, of many plans.
BAR: Final = 12_000
#: An append to the largest log may cost so many times the processor time that it costs to the smallest.
GROWTH_MAX: Final = 1.5
#: Appends by which the cost at a size is measured.
PROBES: Final = 40
NOW: Final = datetime(2031, 3, 3, 9, 0, tzinfo=UTC)
_EPOCH: Final = Epoch(1, 1)


@dataclass(frozen=True, slots=True)
class Rate:
    """What was measured of one way to append."""

    #: Entries in a second.
    per_second: float
    #: Processor time of an entry, in microseconds: of the appender's process, and of Postgres.
    appender_us: float
    postgres_us: float


class Source:
    """Events that were never sent before, as a coordinator's are: of many plans, each chain as long as a settled plan's."""

    def __init__(self) -> None:
        self._plans = 0
        self._payloads = {kind: payload_of(kind) for kind in ("plan.created", "leg.prepared")}

    def plan(self) -> PlanId:
        """A plan that nobody has heard of."""
        self._plans += 1
        return PlanId(str(UUID(int=(self._plans * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128, version=4)))

    def chain(self, plan_id: PlanId, first: int, count: int) -> list[Submission]:
        """Events of one plan."""
        return [self._event(plan_id, sequence) for sequence in range(first, first + count)]

    def many(self, count: int) -> list[Submission]:
        """Events of many plans, in order."""
        chains = [self.chain(self.plan(), 1, CHAIN_LENGTH) for _ in range(-(-count // CHAIN_LENGTH))]
        return [event for chain in chains for event in chain][:count]

    def _event(self, plan_id: PlanId, sequence: int) -> Submission:
        kind = "plan.created" if sequence == 1 else "leg.prepared"
        event_id = journal_event_id(plan_id, sequence)
        return Submission(
            Event(plan_id, sequence, event_id, kind, "bank-gateway", "participant", NOW, self._payloads[kind]), _EPOCH
        )


@asynccontextmanager
async def journal(folder: Path) -> AsyncIterator[tuple[Appender, Database]]:
    """A journal's appender over a database of its own."""
    key, vault = SigningKey(bytes(range(32))), PayloadVault([bytes(range(32))])
    valid = RegisteredKey(key.public, NOW - timedelta(days=3650), NOW + timedelta(days=3650))
    registry = Registry([], [Participant(NAME, (valid,))])
    settings = ParticipantSettings(signing_key_file=folder / "none", registry_file=folder / "none")
    async with AsyncExitStack() as stack:
        databases = await stack.enter_async_context(SandboxDatabases(folder, "bench"))
        login = await databases.create(PACKAGE)
        await migrate([(PACKAGE, login)])
        db = await Database.connect(DatabaseSettings(url=login.url, password_file=login.password_file), application_name=NAME)
        stack.push_async_callback(db.close)
        keys = SigningKeys(key, registry)
        operations = JournalOperations(keys, registry, vault)
        engine = ParticipantEngine(db=db, name=NAME, signing_key=key, registry=registry, operations=operations, settings=settings)
        yield Appender(db, engine, operations, keys, vault), db


async def _append(appender: Appender, batches: Sequence[Sequence[Submission]]) -> None:
    for batch in batches:
        # What a call is read into is made anew for each: checks are part of the work.
        answers = await appender.append([Submission(each.event, each.epoch) for each in batch])
        if any(answer.verdict is not Verdict.APPENDED for answer in answers):
            raise AssertionError(f"not appended: {answers[0]}")


async def measure_rates(appender: Appender, source: Source, count: int) -> dict[str, Rate]:
    """By the size of batches: of many plans, by eight writers; of one plan, whose writer waits for each answer."""
    found: dict[str, Rate] = {}
    for size in BATCHES:
        total = max(count // (1 if size >= 64 else 8 if size == 16 else 64), 4 * size)
        shares = [source.many(total // WRITERS) for _ in range(WRITERS)]
        found[f"many_plans_by_{size}"] = await _rate(appender, [_parted(share, size) for share in shares])
        total = max(total // 4, size)
        found[f"one_plan_by_{size}"] = await _rate(appender, [_parted(source.chain(source.plan(), 1, total), size)])
    return found


def _parted(events: Sequence[Submission], size: int) -> list[Sequence[Submission]]:
    return [events[at : at + size] for at in range(0, len(events), size)]


async def _rate(appender: Appender, shares: Sequence[Sequence[Sequence[Submission]]]) -> Rate:
    count = sum(len(batch) for share in shares for batch in share)
    began = time.perf_counter(), time.process_time(), postgres_processor_seconds()
    await asyncio.gather(*(_append(appender, share) for share in shares))
    took = time.perf_counter() - began[0]
    appender_used, postgres_used = time.process_time() - began[1], postgres_processor_seconds() - began[2]
    return Rate(count / took, 1e6 * appender_used / count, 1e6 * postgres_used / count)


async def measure_growth(appender: Appender, source: Source, db: Database, sizes: Sequence[int]) -> dict[str, dict[str, float]]:
    """What an append of 64 events costs in logs of these sizes: milliseconds (the fastest of some, and the median), and an entry's processor time."""
    found: dict[str, dict[str, float]] = {}
    for size in sizes:
        async with db.connection() as connection:
            there: int = await connection.fetchval("select count(*) from journal_entry")
        missing = size - there
        while missing > 0:
            part = min(missing, 20_000)
            await asyncio.gather(*(_append(appender, _parted(source.many(part // WRITERS), 256)) for _ in range(WRITERS)))
            missing -= part
        took: list[float] = []
        used = time.process_time() + postgres_processor_seconds()
        for _ in range(PROBES):
            batch = source.many(64)
            began = time.perf_counter()
            await _append(appender, [batch])
            took.append(1e3 * (time.perf_counter() - began))
        used = 1e6 * (time.process_time() + postgres_processor_seconds() - used) / (64 * PROBES)
        found[str(size)] = {
            "fastest_ms": round(min(took), 2),
            "median_ms": round(statistics.median(took), 2),
            "processor_us_per_entry": round(used, 1),
        }
    return found


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured."""
    folder = RuntimeDirectory.create(BASE).path / "bench-journal"
    folder.mkdir(mode=0o700)
    source = Source()
    async with journal(folder) as (appender, db):
        # As the service does once it is put together.
        collect_seldom()
        await _append(appender, _parted(source.many(2_000), 64))
        growth = await measure_growth(appender, source, db, [int(each) for each in options.sizes.split(",")])
        rates = await measure_rates(appender, source, options.entries)
        async with db.connection() as connection:
            entries: int = await connection.fetchval("select count(*) from journal_entry")
    return {
        "cores": os.cpu_count(),
        "log": await journal_proofs.measure([int(each) for each in options.sizes.split(",")]),
        "entries": entries,
        "entries_per_second": {name: round(rate.per_second, 1) for name, rate in rates.items()},
        "processor_us_per_entry": {
            name: {"appender": round(rate.appender_us, 1), "postgres": round(rate.postgres_us, 1)} for name, rate in rates.items()
        },
        "append_of_64": growth,
    }


def missed(result: dict[str, Any]) -> list[str]:
    """What is promised and was not kept."""
    rates, growth = result["entries_per_second"], [each["processor_us_per_entry"] for each in result["append_of_64"].values()]
    found = [f"many_plans_by_{size}: below {BAR:,}" for size in (64, 256) if rates[f"many_plans_by_{size}"] < BAR]
    if growth[-1] > GROWTH_MAX * growth[0]:
        found.append(f"an append to the largest log costs more than {GROWTH_MAX} times what one to the smallest costs")
    return [*found, *journal_proofs.missed(result["log"])]


def show(result: dict[str, Any]) -> None:
    """The tables."""
    print(f"\n== Signed entries per second, {result['cores']} cores; {result['entries']:,} entries in the end ==")
    for name, value in result["entries_per_second"].items():
        used = result["processor_us_per_entry"][name]
        bar = f"bar {BAR:,}" if name in ("many_plans_by_64", "many_plans_by_256") else ""
        print(
            f"  {name:20} {value:>10,.0f}   processor us: {used['appender']:>6.0f} appender, {used['postgres']:>6.0f} Postgres   {bar}"
        )
    print("== An append of 64, by the size of the log ==")
    for name, took in result["append_of_64"].items():
        told = f"{took['fastest_ms']:>8.2f} ms fastest {took['median_ms']:>8.2f} ms median"
        print(f"  {int(name):>20,} {told} {took['processor_us_per_entry']:>8.1f} us of processor time an entry")
    journal_proofs.show(result["log"])


async def bench(options: argparse.Namespace) -> int:
    """The exit code: 1 where a bar is missed."""
    result = await unless_stopped(measure(options))
    if result is None:
        return STOPPED
    show(result)
    failures = missed(result)
    for each in failures:
        print(f"MISSED {each}")
    print(f"BENCH_JOURNAL_RESULT {json.dumps(result)}", flush=True)
    return 1 if failures else 0


def main() -> int:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="lockstep_bench.journal", description=__doc__)
    options.add_argument("--entries", type=int, default=40_000, help="entries that are appended in batches of 64 and of 256")
    options.add_argument(
        "--sizes", default="10000,100000", help="sizes of the log at which an append and proofs are timed, growing"
    )
    return asyncio.run(bench(options.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
