"""I9: whoever reads the journal alone, with nothing but keys, finds nothing to raise about honest services, whatever goes wrong around them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final, cast

import asyncpg

from event_journal.payload_store import opened
from lockstep_kit.plan import LegKind
from lockstep_monitor.entries import Delivered
from lockstep_monitor.log import Names
from lockstep_monitor.plans import Patience
from lockstep_monitor.watch import JournalWatch
from lockstep_testkit.factories import PARTICIPANTS
from lockstep_testkit.simulation.world import World, registry

#: Clocks jump by an hour in either direction.
PATIENCE: Final = Patience(skew=timedelta(hours=3), silent=timedelta(hours=6), late=timedelta(hours=3))


def findings(world: World) -> Iterator[str]:
    """What the monitor raises over the whole journal; warnings are none."""
    tables = world.servers[PARTICIPANTS[LegKind.JOURNAL]].tables
    stored = sorted(tables["journal_entry"].values(), key=lambda row: row["position"])
    keys = [{**each, "erased": False} for each in tables["journal_payload_key"].values()]
    entries = opened(cast("list[asyncpg.Record]", stored), cast("list[asyncpg.Record]", keys), world.vault)
    watch = JournalWatch(registry(), Names("lockstep.local/journal", "lockstep.local/notary"), PATIENCE)
    now = world.servers[PARTICIPANTS[LegKind.JOURNAL]].now()
    for row, entry in zip(stored, entries, strict=True):
        event = entry.event
        given = Delivered(
            position=row["position"],
            plan_id=event.plan_id,
            sequence=event.sequence,
            type=event.type,
            actor=event.actor,
            event_time=event.event_time,
            payload=event.payload,
            canonical_bytes=entry.canonical_bytes,
            signature=entry.signature,
        )
        for found in watch.read(given, now):
            if not found.rule.warns:
                yield f"I9: {found.rule}: {found.message} (plan {found.plan_id}, entry {found.sequence}, leg {found.leg_id or '-'})"
