"""The journal's log by itself: how fast it takes up entries, what a proof costs in a log that grows, and how fast bundles are verified.

Entries are put into the journal's table in bulk, as its owner; the log takes them up as it does after an upgrade, batch by batch, each with its checkpoint.
Proofs are asked of the servicer: what is timed is its check, its reads and its hashing, without the wire; beside it the processor time that this process
takes, which says the same on a machine with other things to do.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from event_journal.log.publishing import Rhythm
from event_journal.log.sequencer import Sequencer
from event_journal.log.servicer import LogServicer
from event_journal.payload_keys import PayloadVault
from event_journal.signing_keys import SigningKeys
from lockstep.journal.v1 import journal_reader_service_pb2 as reader_pb2
from lockstep_kit import merkle
from lockstep_kit.db import Database, DatabaseSettings
from lockstep_kit.participant.readers import PlanReaders
from lockstep_kit.registry import Participant, RegisteredKey, Registry
from lockstep_kit.rpc.standings import Standings
from lockstep_kit.signing import SigningKey
from lockstep_kit.standing import Desk, Standing
from lockstep_sandbox.databases import SandboxDatabases, ServiceLogin, migrate
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.up import BASE
from lockstep_testkit.bundles.reading import VECTORS
from lockstep_testkit.ownership import logged_in
from lockstep_verify.verifying import verify

PACKAGE: Final = "event_journal"
#: Entries of each plan.
CHAIN_LENGTH: Final = 16
#: Entries that are put in by one statement.
FILLED_TOGETHER: Final = 50_000
#: Proofs of each kind that are timed at each size.
PROOFS: Final = 1_000
#: How often a bundle is verified.
BUNDLES: Final = 200
#: How many are asked at a time where proofs per second are counted.
ASKERS: Final = 4
#: What a proof may take, in milliseconds (the median), at any size.
BAR_MS: Final = 2.0

FILL: Final = """
insert into journal_entry (plan_id, sequence, position, event_id, type, actor, actor_role, event_time, payload, previous_hash, entry_hash,
    canonical_bytes, key_id, signature)
select overlay(overlay(md5('plan' || (n - 1) / $3) placing '4' from 13) placing '8' from 17)::uuid::text, (n - 1) % $3 + 1, n, md5('event' || n)::uuid::text,
    case when (n - 1) % $3 = 0 then 'plan.created' else 'leg.prepared' end, 'bank-gateway', 'participant', now(), '{}',
    sha256(int8send(n)), sha256(signed.octets), signed.octets, 'bench', decode(repeat('00', 64), 'hex')
from generate_series($1::bigint, $2::bigint) as n, lateral (select convert_to(rpad('lockstep/entry/v1 ' || n, 420), 'UTF8') as octets) as signed
"""


async def fill(login: ServiceLogin, size: int) -> None:
    """Entries up to a size, in bulk; the tables' triggers, which look at each, are off meanwhile."""
    async with logged_in(login) as owner:
        await owner.execute("alter table journal_entry disable trigger user")
        first: int = await owner.fetchval("select next_position from journal_counter")
        for start in range(first, size + 1, FILLED_TOGETHER):
            await owner.execute(FILL, start, min(start + FILLED_TOGETHER - 1, size), CHAIN_LENGTH, timeout=600)
        await owner.execute("update journal_counter set next_position = $1", size + 1)
        await owner.execute("analyze journal_entry")


class _Auditor:
    """Stands in for the connection of a caller that sees every plan."""

    NAME: Final = "spiffe://lockstep.local/client/bench"

    def auth_context(self) -> dict[str, tuple[bytes, ...]]:
        return {"peer_spiffe_id": (self.NAME.encode(),)}


async def measure_size(db: Database, login: ServiceLogin, size: int, rng: random.Random) -> dict[str, float]:
    """What everything costs in a log of a size."""
    key, moment = SigningKey(bytes(range(32))), datetime.now(UTC)
    valid = RegisteredKey(key.public, moment - timedelta(days=1), moment + timedelta(days=1))
    keys = SigningKeys(key, Registry([], [Participant("event-journal", (valid,))]))
    sequencer = Sequencer(db, keys, "lockstep.local/journal", Rhythm(timedelta(seconds=1), entries=1))
    await fill(login, size)
    async with db.connection() as connection:
        before: int = await connection.fetchval("select tree_size from journal_tree")
        began = time.perf_counter()
        await sequencer.run()
        took = time.perf_counter() - began
        names = [row["plan_id"] for row in await connection.fetch("select distinct plan_id from journal_entry limit 2000")]
    # By itself: what else readers ask has no part in this.
    only_the_log: Any = LogServicer
    readers = PlanReaders(db, Standings({_Auditor.NAME: Standing(desk=Desk.AUDITOR)}))
    servicer = only_the_log(db, PayloadVault([bytes(range(32))]), readers)

    async def inclusion() -> None:
        request = reader_pb2.GetInclusionProofRequest(
            plan_id=rng.choice(names), sequence=rng.randint(1, CHAIN_LENGTH), tree_size=size
        )
        await servicer.GetInclusionProof(request, _Auditor())

    async def consistency() -> None:
        request = reader_pb2.GetConsistencyProofRequest(from_size=rng.randint(1, size), to_size=size)
        await servicer.GetConsistencyProof(request, _Auditor())

    async def bundle() -> None:
        await servicer.ExportBundle(reader_pb2.ExportBundleRequest(plan_id=rng.choice(names)), _Auditor())

    await hold(servicer, size, names[0])
    found = {"taken_up_per_second": (size - before) / took}
    for name, ask, count in (
        ("inclusion", inclusion, PROOFS),
        ("consistency", consistency, PROOFS),
        ("bundle", bundle, PROOFS // 10),
    ):
        used = time.process_time()
        p50, p99 = percentiles([await _timed(ask) for _ in range(count)])
        used = 1e3 * (time.process_time() - used) / count
        found |= {f"{name}_p50_ms": p50, f"{name}_p99_ms": p99, f"{name}_processor_ms": used}
        found[f"{name}_per_second"] = await _rate(ask, count)
    return found


async def hold(servicer: Any, size: int, plan_id: str) -> None:
    """What is timed is right: an entry's proof leads to the checkpoint's root."""
    bundle = await servicer.ExportBundle(reader_pb2.ExportBundleRequest(plan_id=plan_id), _Auditor())
    for entry, proof in zip(bundle.entries, bundle.proofs, strict=True):
        root = merkle.root_from_path(merkle.leaf_hash(entry.canonical_bytes), proof.leaf_index, size, proof.path)
        if root != bundle.checkpoint.root_hash:
            raise AssertionError(f"the proof of entry {entry.sequence} does not lead to the root")


async def _timed(ask: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await ask()
    return 1e3 * (time.perf_counter() - began)


async def _rate(ask: Callable[[], Awaitable[None]], count: int) -> float:
    async def asker() -> None:
        for _ in range(count // ASKERS):
            await ask()

    began = time.perf_counter()
    await asyncio.gather(*(asker() for _ in range(ASKERS)))
    return count // ASKERS * ASKERS / (time.perf_counter() - began)


def percentiles(took: Sequence[float]) -> tuple[float, float]:
    """The median, and what one in a hundred takes longer than."""
    ordered = sorted(took)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]


async def measure(sizes: Sequence[int]) -> dict[str, Any]:
    """Everything that is measured."""
    folder = RuntimeDirectory.create(BASE).path / "bench-journal-proofs"
    folder.mkdir(mode=0o700)
    rng = random.Random(7)  # noqa: S311 - which proofs are asked, no secret
    async with AsyncExitStack() as stack:
        databases = await stack.enter_async_context(SandboxDatabases(folder, "bench"))
        login = await databases.create(PACKAGE)
        await migrate([(PACKAGE, login)])
        settings = DatabaseSettings(url=login.url, password_file=login.password_file)
        db = await Database.connect(settings, application_name="event-journal")
        stack.push_async_callback(db.close)
        found = {str(size): await measure_size(db, login, size, rng) for size in sorted(sizes)}
    return {
        "verified": measure_bundles(),
        "by_entries": {size: {name: round(value, 2) for name, value in each.items()} for size, each in found.items()},
    }


def measure_bundles() -> dict[str, float]:
    """Bundles that are verified in a second, from bytes to report, and their entries."""
    bundle, trust = ((VECTORS / "committed" / name).read_bytes() for name in ("bundle.json", "trust.json"))
    if (report := verify(bundle, trust))["verdict"] != "PROVED":
        raise AssertionError(f"the bundle is not proved: {report}")
    began = time.perf_counter()
    for _ in range(BUNDLES):
        verify(bundle, trust)
    rate = BUNDLES / (time.perf_counter() - began)
    return {"bundles_per_second": round(rate, 1), "entries_per_second": round(rate * len(json.loads(bundle)["entries"]), 1)}


def missed(result: dict[str, Any]) -> list[str]:
    """What is promised and was not kept."""
    return [
        f"{name} at {size} entries: above {BAR_MS} ms"
        for size, found in result["by_entries"].items()
        for name in ("inclusion_p50_ms", "consistency_p50_ms")
        if found[name] > BAR_MS
    ]


def show(result: dict[str, Any]) -> None:
    """The tables."""
    for size, found in result["by_entries"].items():
        print(f"== The log at {int(size):,} entries ==")
        for name, value in found.items():
            print(f"  {name:24} {value:>12,.2f}   {f'bar {BAR_MS}' if name in ('inclusion_p50_ms', 'consistency_p50_ms') else ''}")
    print("== Bundles verified offline ==")
    for name, value in result["verified"].items():
        print(f"  {name:24} {value:>12,.1f}")
