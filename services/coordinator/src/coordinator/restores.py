"""After a database was put back: finds again what was lost, before anything is decided or sent. The rules are `restoring` and `orphans`.

The coordinator's own: nobody holds a plan until every participant was asked about every leg of it, with its fence raised, and the journal was read.
A participant's: all its legs are listed, and where it knows less than was heard of it, the last command is sent again, from which its row is restored.
The journal's: its chains are filled from the rows, and its seals ordered again. Everything is rows, so that any replica goes on with it at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import grpc
import structlog

from coordinator import escalating, facts, orphans, reports
from coordinator.convert.participant import report_from_pb
from coordinator.convert.restores import Everything
from coordinator.dossier import Dossier, FiledTicket, LegFile
from coordinator.engine import Engine, Work
from coordinator.journal_relay import JournalRelay
from coordinator.model import Restored, Ticket
from coordinator.peers import JournalPeer, Peers
from coordinator.restoring import Contradicted, Heard, PayloadsErased, Written, adopt
from coordinator.sealing import KeySealed
from coordinator.store import escalation_documents, operators, restores
from coordinator.store.outboxes import PendingEvent
from coordinator.store.restores import Sweep
from lockstep_kit.certificate import DeadlinePassed
from lockstep_kit.errors import LockstepError
from lockstep_kit.fence import Epoch, Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.loops import Loop
from lockstep_kit.plan import CreditTransfer, TokenTransfer
from lockstep_kit.spans import PLAN_ID, span

_log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
BATCH_MAX: Final = 64
ASKED_AT_ONCE_MAX: Final = 16
#: A journal that does not close a chain after it was told so often may have lost entries of it.
CLOSINGS_MAX: Final = 3
#: What a call to a participant or the journal may end with, beside its answer.
_UNANSWERED: Final = (grpc.aio.AioRpcError, FieldInvalid)


class Restores:
    """Notices that a database was put back, and finds again what was lost."""

    def __init__(self, engine: Engine, peers: Peers, journal: JournalPeer, relay: JournalRelay) -> None:
        self._engine = engine
        self._peers = peers
        self._journal = journal
        self._relay = relay
        self._wake = asyncio.Event()

    async def begin(self) -> None:
        """Hold the generation that this process was started with against the database's. Before anything else is done, and before anything is served.

        Raises:
            GenerationStale: the file is older than the database.
        """
        generation = self._engine.owner.generation
        async with self._engine.db.transaction() as tx:
            restored = await restores.begin(tx, generation, self._engine.routes.names)
        if restored:
            _log.warning("database_restored", generation=generation)

    def loop(self) -> Loop:
        """The loop that finds again what was lost, first of all at once."""
        return Loop("restores", self.run, poll_seconds=POLL_SECONDS, wake=self._wake)

    async def run(self) -> None:
        """One look at everything that is to be found again."""
        async with self._engine.db.connection() as connection:
            if not await restores.anything(connection, CLOSINGS_MAX):
                return
        await self._find_plans()
        async with self._engine.db.connection() as connection:
            listings = await restores.sweeps(connection)
        await asyncio.gather(*(self._sweep(each) for each in listings))
        await self._refill()
        if not listings:
            await self._settle_orphans()

    async def participant_restored(self, name: str) -> None:
        """A participant's outcome log is not the one that was followed: have everything compared."""
        _log.warning("participant_restored", participant=name)
        async with self._engine.db.transaction() as tx:
            await restores.sweep(tx, [name])
            if name == self._engine.routes.notary:
                await escalation_documents.tell_again(tx)
        self._wake.set()

    # -- the coordinator's own plans ---------------------------------------------------------------------------------

    async def _find_plans(self) -> None:
        after = ""
        while True:
            async with self._engine.db.connection() as connection:
                batch = await restores.unrestored(connection, after, BATCH_MAX)
            if not batch:
                return
            dossiers = await self._engine.read(plan_id for plan_id, _ in batch)
            gate = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

            async def find(plan_id: PlanId, generation: int) -> None:
                async with gate:  # noqa: B023 - gathered below, within the same round
                    await self._find(dossiers[plan_id], generation)  # noqa: B023

            await asyncio.gather(*(find(*each) for each in batch))
            after = batch[-1][0]

    async def _find(self, dossier: Dossier, generation: int) -> None:
        """Find one plan again; what keeps it from being found is tried again at the next look."""
        plan_id = dossier.plan_id
        with span("coordinator.restore", traceparent=dossier.traceparent, attributes={PLAN_ID: plan_id}):
            try:
                told = await asyncio.gather(*(self._ask(dossier, index, generation) for index in range(len(dossier.files))))
                chain = await self._journal.chain(plan_id, Epoch(generation, 1))
            except _UNANSWERED as error:
                _log.warning("restore_waits", plan_id=plan_id, error=type(error).__name__)
                return
            except Contradicted as found:
                await self._call(dossier, found.detail)
                return
            heard = {file.leg.leg_id: each for file, each in zip(dossier.files, told, strict=True)}
            try:
                await self._take(dossier, chain, heard, generation)
            except Contradicted as found:
                await self._call(dossier, found.detail)

    async def _ask(self, dossier: Dossier, index: int, generation: int) -> Heard:
        """What a leg's participant knows, after its fence was raised: no older command is obeyed from then on.

        Raises:
            Contradicted: what it answers is not to be believed.
        """
        file = dossier.files[index]
        known = dossier.plan.legs[index].revision
        peer = self._peers[file.participant]
        found = await peer.everything(dossier.plan_id, file.leg.leg_id, Epoch(generation, 1), known)
        if found is None:
            return Heard(None, None)
        refusal = reports.unbelievable(found.report, file.participant, dossier, self._engine.registry)
        if refusal is not None:
            raise Contradicted(f"{file.participant} reports leg {file.leg.leg_id}: {refusal}")
        return found.heard

    async def _take(self, dossier: Dossier, chain: Sequence[Written], heard: dict[LegId, Heard], generation: int) -> None:
        """Adopt what was found, then let the plan go on: undecided, it is given up."""
        plan_id, engine = dossier.plan_id, self._engine
        try:
            async with engine.db.transaction() as tx:
                if not await restores.lock(tx, plan_id, generation):
                    return
                keys = (await engine.leg_keys(tx, [dossier]))[plan_id]
                if isinstance(keys, KeySealed):
                    raise keys
                now = await tx.fetchval("select clock_timestamp()")
                adopted = adopt(dossier, chain, heard, keys, engine.registry, now)
                await restores.save(tx, dossier, adopted, generation, now)
            async with engine.work("takeover") as work:
                if not await restores.lock(work.tx, plan_id, generation):
                    return
                await restores.end(work.tx, plan_id)
                if plan_id not in await work.load([plan_id]):
                    raise AssertionError(f"plan {plan_id} was found again, but its lease is not free")
                work.step(plan_id, Restored())
                for file in dossier.files:
                    self._hear(work, plan_id, file, heard[file.leg.leg_id])
        except KeySealed as error:
            raise Contradicted(str(error)) from error
        except LockstepError as error:
            if error.reason != "PLAN_CHANGED":
                raise
        _log.info("plan_restored", plan_id=plan_id, state=adopted.plan.state, entries=len(adopted.written))

    def _hear(self, work: Work, plan_id: PlanId, file: LegFile, heard: Heard) -> None:
        """What a participant reported is news like any other, once the plan stands again."""
        if heard.report is None:
            return
        for event in reports.admit(heard.report, file.participant, work.dossier(plan_id), self._engine.registry):
            work.step(plan_id, event)

    async def _call(self, dossier: Dossier, detail: str) -> None:
        """Call a person about a plan that cannot be found again as things are. It stays held, and is looked at again and again."""
        plan_id = dossier.plan_id
        async with self._engine.db.transaction() as tx:
            if not await restores.note(tx, plan_id, detail):
                return
            place = len(dossier.tickets)
            now: datetime = await tx.fetchval("select clock_timestamp()")
            filed: tuple[FiledTicket, ...] = operators.filed(plan_id, place, [Ticket("RESTORE_CONTRADICTED", "", detail, now)])
            await operators.insert_tickets(tx, [(plan_id, place + 1, filed[0])])
            await escalation_documents.insert(tx, [escalating.opened(dossier, filed[0])], now)
        _log.error("restore_contradicted", plan_id=plan_id, detail=detail)

    # -- what participants know --------------------------------------------------------------------------------------

    async def _sweep(self, told: Sweep) -> None:
        """List all legs of a participant, then compare: orphans are kept, and where it is behind it is told again."""
        peer, engine = self._peers[told.participant], self._engine
        token = told.page_token
        while True:
            try:
                page, token = await peer.legs(token)
                legs = [report_from_pb(each) for each in page]
            except _UNANSWERED as error:
                _log.warning("sweep_waits", participant=told.participant, error=type(error).__name__)
                return
            async with engine.db.transaction() as tx:
                rows = [(each.plan_id, each.leg_id, each.revision, each.phase) for each in legs]
                if not await restores.swept(tx, told, rows, token):
                    return
            if not token:
                break
        async with engine.db.transaction() as tx:
            await restores.listed_orphans(tx, told.participant)
            if told.participant == engine.routes.journal:
                await restores.refill(tx, told.participant)
        if not await self._bring_up(told.participant):
            return
        async with engine.db.transaction() as tx:
            await restores.end_sweep(tx, told)
        _log.info("participant_swept", participant=told.participant)

    async def _bring_up(self, participant: str) -> bool:
        """Raise fences and revisions where the participant is behind, and have the last command sent again; whether all was done."""
        engine, after = self._engine, ("", "")
        while True:
            async with engine.db.connection() as connection:
                batch = await restores.behind(connection, participant, after, BATCH_MAX)
            if not batch:
                engine.wakes.orders[participant].look()
                return True
            dossiers = await engine.read({each.plan_id for each in batch})
            try:
                for each in batch:
                    # Beyond what was heard, so that what it says now is news.
                    found = await self._peers[participant].everything(each.plan_id, each.leg_id, each.epoch, each.revision + 1)
                    refusal = facts.refused_at_once(dossiers[each.plan_id].plan, each.leg_id)
                    if found is not None and refusal is not None and found.report.phase in (Phase.PREPARING, Phase.PREPARED):
                        # It forgot that it had refused, and there is no command to send again.
                        await self._peers[participant].release(found.binding, each.epoch, refusal)
            except _UNANSWERED as error:
                _log.warning("sweep_waits", participant=participant, error=type(error).__name__)
                return False
            async with engine.db.connection() as connection:
                # Sent by whoever had the plan last; where that one is gone, by the replica that finds it left behind.
                await restores.revive(connection, batch)
            _log.warning("participant_behind", participant=participant, legs=len(batch))
            after = (batch[-1].plan_id, batch[-1].leg_id)

    async def _refill(self) -> None:
        """Fill the chains that the journal may have lost entries of, from the first entry on."""
        async with self._engine.db.connection() as connection:
            await restores.refill_waiting(connection, CLOSINGS_MAX)
            waiting = await restores.to_refill(connection, BATCH_MAX)
        for plan_id in waiting:
            if await self._relay.refill(plan_id):
                async with self._engine.db.connection() as connection:
                    await restores.refilled(connection, plan_id)

    # -- legs of plans that nobody knows -----------------------------------------------------------------------------

    async def _settle_orphans(self) -> None:
        """Release what may be released, and call out the rest. Only once every participant has listed all its legs."""
        after = ""
        while True:
            async with self._engine.db.connection() as connection:
                batch = await restores.orphans(connection, after, BATCH_MAX)
            for plan_id in batch:
                try:
                    await self._settle_orphan(plan_id)
                except _UNANSWERED as error:
                    _log.warning("orphan_waits", plan_id=plan_id, error=type(error).__name__)
            if len(batch) < BATCH_MAX:
                return
            after = batch[-1]

    async def _settle_orphan(self, plan_id: PlanId) -> None:
        async with self._engine.db.connection() as connection:
            known = await restores.orphan_legs(connection, plan_id)
        epoch = Epoch(self._engine.owner.generation, 1)
        legs: dict[LegId, Everything] = {}
        for leg_id, (participant, _) in known.items():
            found = await self._peers[participant].everything(plan_id, leg_id, epoch, 0)
            if found is not None:
                legs[leg_id] = found
        try:
            chain = await self._journal.chain(plan_id, epoch)
            judged = orphans.judge(legs, chain, await self._engine.db.now())
        except PayloadsErased as found_erased:
            judged = orphans.Called(found_erased.detail)
        finding = judged.finding if isinstance(judged, orphans.Called) else ""
        for leg_id, each in legs.items():
            if finding and finding != known[leg_id][1]:
                _log.error("orphan_leg", plan_id=plan_id, leg_id=leg_id, participant=known[leg_id][0], finding=finding)
            async with self._engine.db.connection() as connection:
                await restores.note_orphan(
                    connection,
                    plan_id,
                    leg_id,
                    phase=each.report.phase,
                    deadline=each.binding.header.deadline,
                    amount=_at_risk(each),
                    finding=finding,
                    settled=not finding and each.report.phase in (Phase.RELEASED, Phase.REFUSED),
                )
        if isinstance(judged, orphans.Released):
            await self._release(plan_id, judged, legs, known, epoch)

    async def _release(
        self,
        plan_id: PlanId,
        judged: orphans.Released,
        legs: dict[LegId, Everything],
        known: Mapping[LegId, tuple[str, str]],
        epoch: Epoch,
    ) -> None:
        if judged.event is not None:
            await self._journal.append([PendingEvent(plan_id, judged.event, await self._engine.db.now(), None, epoch)])
        for leg_id, closing in judged.legs:
            _log.warning("orphan_released", plan_id=plan_id, leg_id=leg_id, participant=known[leg_id][0])
            await self._peers[known[leg_id][0]].release(legs[leg_id].binding, epoch, DeadlinePassed(), closing)


def _at_risk(each: Everything) -> str:
    """What a settling leg moves, for a person; "" for evidence legs."""
    terms = each.binding.leg.terms
    return (
        f"{terms.amount.minor_units} {terms.amount.asset}"
        if isinstance(terms, TokenTransfer | CreditTransfer | IssueInstrument)
        else ""
    )
