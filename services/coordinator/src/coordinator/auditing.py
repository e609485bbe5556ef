"""Stores abort audit logs beside the database, and lets their plans go on: the evidence legs are told a log's hash only once both have it.

A crash anywhere repeats harmlessly: the row is the order to store, the store takes the same bytes any number of times, and the plan takes the hash once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog

from coordinator.audit import FORMAT, AuditLog, CopyState, Shown
from coordinator.audit_store import AuditStore, CopyCorrupt
from coordinator.dossier import Dossier
from coordinator.engine import Engine
from coordinator.facts import notarisations
from coordinator.model import AuditWritten, Event
from coordinator.store import audits
from lockstep_kit import failpoints
from lockstep_kit.canonical import time_from_text
from lockstep_kit.errors import not_found
from lockstep_kit.failpoints import failpoint
from lockstep_kit.foreign_json import read_json
from lockstep_kit.ids import Digest, PlanId, sha256
from lockstep_kit.loops import Loop
from lockstep_kit.spans import PLAN_ID, span

_log = structlog.get_logger()

BATCH_MAX: Final = 64
POLL_SECONDS: Final = 1.0

failpoints.declare("coordinator.audit_copy.before_put", "coordinator.audit_copy.after_put")


class Auditing:
    """The store of abort audit logs, and what is still to be put there."""

    def __init__(self, engine: Engine, store: AuditStore) -> None:
        self._engine = engine
        self._store = store

    def loop(self) -> Loop:
        """The loop that stores."""
        return Loop("auditing", self.run, poll_seconds=POLL_SECONDS, wake=self._engine.wakes.audits)

    async def run(self) -> None:
        """Store what is pending; a log that cannot be stored keeps no other from it.

        Raises:
            OSError: the store could not be written; the loop comes back to it.
        """
        async with self._engine.db.connection() as connection:
            logs = await audits.pending(connection, self._engine.owner.name, BATCH_MAX)
        trouble: OSError | None = None
        stored: list[AuditLog] = []
        for log in logs:
            try:
                if await self._put(log):
                    stored.append(log)
            except OSError as error:
                trouble = error
        await self._tell(stored)
        if trouble is not None:
            raise trouble
        if len(logs) == BATCH_MAX:
            self._engine.wakes.audits.set()

    async def _put(self, log: AuditLog) -> bool:
        with span("coordinator.audit", traceparent=log.traceparent, attributes={PLAN_ID: log.plan_id}):
            await failpoint("coordinator.audit_copy.before_put")
            try:
                await self._store.put(log.digest, log.octets)
            except CopyCorrupt as finding:
                _log.error("audit_copy_corrupt", plan_id=log.plan_id, sha256=finding.digest.hex())
                await self._engine.call(log.plan_id, "AUDIT_LOG_CORRUPT", "", str(finding))
                return False
            await failpoint("coordinator.audit_copy.after_put")
            return True

    async def _tell(self, stored: Sequence[AuditLog]) -> None:
        """The plans go on, each with its log, unless another was ordered since."""
        if not stored:
            return
        logs = {log.plan_id: log for log in stored}

        def written(dossier: Dossier, _: datetime) -> list[Event]:
            log = logs[dossier.plan_id]
            return [AuditWritten(log.digest)] if dossier.plan.auditing_since == log.ordered_at else []

        await self._engine.apply("audit", list(logs), written)

    async def show(self, plan_id: PlanId, wanted: bytes) -> Shown:
        """A plan's last log, or the one whose digest is wanted, also where only the store has it any more.

        Raises:
            LockstepError: PLAN_NOT_FOUND, or AUDIT_LOG_NOT_FOUND.
        """
        found = await self._engine.read([plan_id])
        if plan_id not in found:
            raise not_found("plan", plan_id)
        async with self._engine.db.connection() as connection:
            logs = await audits.logs(connection, plan_id)
        log = next((each for each in reversed(logs) if wanted in (b"", each.digest)), None)
        copy = await self._copy(Digest(wanted or (log.digest if log else b"")))
        if log is None and isinstance(copy, bytes):
            log = _restored(plan_id, copy)
        if log is None:
            raise not_found("audit_log", plan_id)
        signed = (each.outcome for each in notarisations(found[plan_id].plan))
        earlier = tuple(each.digest for each in logs if each.ordinal < log.ordinal)
        state = CopyState.INTACT if isinstance(copy, bytes) else copy
        return Shown(log, earlier, state, tuple(each for each in signed if each is not None))

    async def _copy(self, digest: Digest) -> bytes | CopyState:
        """The bytes that the store has under a hash, or why it has none that could be shown."""
        try:
            kept = await self._store.get(digest) if digest else None
        except CopyCorrupt:
            _log.error("audit_copy_corrupt", sha256=digest.hex())
            return CopyState.CORRUPT
        except OSError as error:
            _log.warning("audit_store_unreadable", error=f"{type(error).__name__}: {error}")
            return CopyState.MISSING
        return CopyState.MISSING if kept is None else kept


def _restored(plan_id: PlanId, octets: bytes) -> AuditLog | None:
    """A log of the plan that the database lost, as the store has it; None where it is another plan's."""
    document = read_json(octets)
    if document["format"] != FORMAT or document["plan_id"] != plan_id:
        return None
    return AuditLog(plan_id, document["ordinal"], sha256(octets), octets, time_from_text(document["written_at"]))
