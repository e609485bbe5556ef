"""`python -m event_journal.audit --config FILE`: reads the whole journal, and says whether all of it is as it was written.

Prints one JSON object a line: first what was read, then what is wrong: the rule, the plan and the entry's place in its chain, or the position in the log over
all chains, that it is about. Exits with 1 if anything is. Beside what VerifyPlan finds of one chain: every chain has a head and every head its chain, no plan
that the journal has voted on is without its chain, and the history of the journal's keys holds; the log has no hole, and its tree and its checkpoints, computed
anew from every entry, are those that are stored and signed. What is read is of one moment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, field
from typing import Final

from event_journal import audit_store, key_store, store
from event_journal.appending import against_head
from event_journal.chain import NO_HISTORY, verify
from event_journal.log.reading import audit_log, newest_checkpoint
from event_journal.payload_keys import PayloadVault, read_vault
from event_journal.settings import JournalSettings
from lockstep_kit.db import Connection, Database
from lockstep_kit.ids import PlanId
from lockstep_kit.key_history import HistoryFinding
from lockstep_kit.logs import configure_logs
from lockstep_kit.registry import Registry
from lockstep_kit.registry_file import load_registry
from lockstep_kit.settings import load
from lockstep_kit.values import dataclass

PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that does not hold."""

    #: UPPER_SNAKE name of the rule.
    rule: str
    #: One sentence.
    message: str
    #: Plan that it is about; "": none by itself.
    plan_id: str = ""
    #: Entry of its chain; 0: none by itself.
    sequence: int = 0
    #: Position in the log over all chains, of a checkpoint its size; 0: none.
    position: int = 0


@dataclass
class Audited:
    """What was read, and what is wrong."""

    #: Plans with entries or a head.
    plans: int = 0
    #: Entries of their chains.
    entries: int = 0
    #: Leaves of the newest checkpoint; 0: there is none.
    newest_checkpoint: int = 0
    #: What does not hold.
    wrong: list[Wrong] = field(default_factory=list)


async def audit(db: Database, registry: Registry, vault: PayloadVault) -> Audited:
    """Read everything."""
    found = Audited()
    async with db.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        keys = await key_store.history(connection)
        if isinstance(keys, HistoryFinding):
            told = f"statement {keys.number} on the journal's keys: {keys.rule}: {keys.message}"
            found.wrong.append(Wrong("KEY_HISTORY_BROKEN", told))
            # Said once, and not of each plan again.
            keys = NO_HISTORY
        async for plan_id in _plans(connection):
            head, chain = (await store.whole_chains(connection, [plan_id], vault))[plan_id]
            found.plans += 1
            found.entries += len(chain)
            if not chain and head is not None and head.entry_count == 0:
                # Its fence was raised before anything was sent, or what was sent was refused.
                continue
            verified = against_head(verify(chain, registry, keys), head)
            found.wrong += [Wrong(each.rule, each.message, plan_id, each.sequence) for each in verified.findings]
        for plan_id in await audit_store.without_chain(connection):
            missing = "the journal voted on the plan, or sealed it, and has no chain of it"
            found.wrong.append(Wrong("PLAN_MISSING", missing, plan_id))
        newest = await newest_checkpoint(connection)
        found.newest_checkpoint = newest.tree_size if newest is not None else 0
        found.wrong += [Wrong(each.rule, each.message, position=each.position) async for each in audit_log(connection, registry)]
    return found


async def _plans(tx: Connection) -> AsyncIterator[PlanId]:
    after = ""
    while page := await audit_store.plans(tx, after, PAGE):
        for plan_id in page:
            yield plan_id
        after = page[-1]


async def run(settings: JournalSettings) -> int:
    """Do what was asked; returns the exit status."""
    configure_logs("event-journal-audit", settings.log_level)
    db = await Database.connect(settings.database, application_name="event-journal-audit")
    try:
        found = await audit(db, load_registry(settings.participant.registry_file), read_vault(settings.payload_key_files))
    finally:
        await db.close()
    read = {"plans": found.plans, "entries": found.entries, "newest_checkpoint": found.newest_checkpoint, "wrong": len(found.wrong)}
    sys.stdout.write(f"{json.dumps(read)}\n")
    sys.stdout.writelines(f"{json.dumps(asdict(each))}\n" for each in found.wrong)
    return 1 if found.wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="event_journal.audit", description="Says whether the whole journal is as it was written.")
    parser.add_argument("--config", required=True, help="settings of the event journal, YAML")
    given = parser.parse_args(argv)
    return asyncio.run(run(load(JournalSettings, ["--config", given.config])))


if __name__ == "__main__":
    sys.exit(main())
