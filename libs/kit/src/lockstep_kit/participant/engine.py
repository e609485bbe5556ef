"""The engine: runs batches of commands through the fence, one transaction each, and takes the participant's findings.

What it guarantees: a command's effect on the fence, the participant's own durable record of what it is about to do, and the change's number in the
outcome log are one transaction. Signatures are checked before it, outside any lock. Only the fence decides what begins; a replay is answered from the
row. What was signed once is stored and answered byte for byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from lockstep_kit import failpoints, fence
from lockstep_kit.certificate import NotAuthorised
from lockstep_kit.failpoints import failpoint
from lockstep_kit.fence import Action, Command, Epoch, Phase, Ruling
from lockstep_kit.ids import KeyId, LegId, PlanId
from lockstep_kit.loops import Loop
from lockstep_kit.participant import rules, store
from lockstep_kit.participant.bell import Bell, heard
from lockstep_kit.participant.completing import Signer
from lockstep_kit.participant.convert import stored_certificate, work_of
from lockstep_kit.participant.ports import Capabilities, Completion, LegWork, Operations
from lockstep_kit.participant.records import Answer, Item, LegKey, LegRecord, Rejection, Verdict
from lockstep_kit.participant.schema import OUTCOME_CHANNEL
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.participant.verifying import VerifyingRegistry
from lockstep_kit.participant.watching import Changes, Cursor, watch
from lockstep_kit.registry import Registry
from lockstep_kit.signing import SigningKey
from lockstep_kit.spans import cause_traceparent, plan_spans
from lockstep_kit.values import dataclass, replace

if TYPE_CHECKING:
    from lockstep_kit.db import Connection, Database

_log = structlog.get_logger()

#: A batch is done again when another one began the same unknown leg at the same moment, or the database broke a circle of locks.
ATTEMPTS_MAX: Final = 5
#: From this many items on, signatures are checked in a thread: it costs a tenth of a millisecond, and the loop goes on serving.
INLINE_ITEMS_MAX: Final = 8
_OPEN_PHASES: Final = frozenset({Phase.PREPARING, Phase.PREPARED, Phase.COMMITTING, Phase.ABORTING, Phase.REVERSING})


def declare_failpoints(name: str) -> None:
    """Declare the failpoints of a participant; a service's main does so when it is imported, so that a campaign can count them."""
    commands = ("prepare", "commit", "abort", "reverse")
    failpoints.declare(
        *(f"{name}.{each}.{where}" for each in commands for where in ("before_tx", "in_tx", "after_commit")),
        f"{name}.complete.in_tx",
    )


class Overtaken(Exception):
    """Another transaction has begun a leg that was not known a moment ago, or executed one by a certificate that was not looked at."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """What an item's signatures show, found before the transaction."""

    #: Why it may not be done; None when it may.
    refusal: NotAuthorised | None
    #: Whether its certificate holds this participant's own YES.
    own_yes: bool
    #: Reverse: the certificate by which the leg was executed, as it was when that was asked.
    certificate: bytes | None


@dataclass(frozen=True, slots=True)
class Held:
    """Legs that are locked until the transaction ends."""

    #: Their rows.
    records: Mapping[LegKey, LegRecord]
    #: The database's clock after the last lock was won.
    now: datetime

    def works(self, phases: Collection[Phase]) -> list[LegWork]:
        """Those that stand in some phases, as their participant's own code is told of them."""
        return [work_of(record) for record in self.records.values() if record.fence.phase in phases]


class ParticipantEngine:
    """One participant's half of the protocol, over its own database."""

    def __init__(
        self,
        *,
        db: Database,
        name: str,
        signing_key: SigningKey,
        registry: Registry,
        operations: Operations,
        settings: ParticipantSettings,
    ) -> None:
        """Raise if nobody could verify what this participant would sign.

        Raises:
            ValueError: the registry does not list the key as this participant's.
        """
        key_id = signing_key.public.key_id
        own = [each for each in registry.participants if each.name == name]
        if not any(key.public.key_id == key_id for each in own for key in each.keys):
            raise ValueError(f"the registry does not list the key {key_id} as one of {name}")
        self.name: Final = name
        self.key_id: Final[KeyId] = key_id
        self.settings: Final = settings
        self.bell: Final = Bell()
        self._db = db
        self._signer = Signer(name, signing_key)
        self._registry = VerifyingRegistry(registry)
        self._operations = operations
        self._changed = asyncio.Event()
        self._draining = False
        declare_failpoints(name)

    def capabilities(self) -> Capabilities:
        """What the participant can do, as of now."""
        return self._operations.capabilities()

    def loops(self) -> tuple[Loop, ...]:
        """Loops to run beside the server: one that passes the database's notifications on to whoever waits."""
        self._db.listen(OUTCOME_CHANNEL, self._changed)
        return (Loop("participant.outcomes", self._ring, poll_seconds=self.settings.poll_seconds, wake=self._changed),)

    async def _ring(self) -> None:
        self.bell.ring()

    async def drain(self) -> None:
        """End open streams and waits: the process is about to stop."""
        self._draining = True
        self.bell.ring()

    # -- Commands ----------------------------------------------------------------------------------------------------

    async def execute(self, command: Command, entries: Sequence[Item | Answer], wait_seconds: float) -> list[Answer]:
        """Answers to a batch in its order; entries that could not be read come as their answers already.

        Waits for items to leave PENDING, as long as it was asked to and no longer than the settings allow.
        """
        entries = rules.once_each(entries)
        items = [entry for entry in entries if isinstance(entry, Item)]
        if not items:
            return [entry for entry in entries if isinstance(entry, Answer)]
        traces = {item.binding.header.plan_id: item.traceparent for item in items}
        with plan_spans(f"participant.{command.lower()}", traces, attributes={"lockstep.leg_count": len(items)}):
            ticket = self.bell.ticket()
            batch = await self._run(command, items)
            if any(isinstance(ruled, Ruling) and ruled.action is Action.BEGIN for _, ruled in batch.values()):
                self._operations.wake()
            seconds = min(wait_seconds, self.settings.wait_seconds_max)
            answers = await self._settled(items, batch, ticket, seconds)
        return [answers[entry.key_of_leg] if isinstance(entry, Item) else entry for entry in entries]

    async def _run(self, command: Command, items: Sequence[Item]) -> dict[LegKey, tuple[LegRecord | None, Ruling | Rejection]]:
        point = f"{self.name}.{command.lower()}"
        await failpoint(f"{point}.before_tx")
        for attempt in range(1, ATTEMPTS_MAX + 1):
            shown = await self._authorise(items)
            try:
                async with self._db.transaction() as tx:
                    batch = await self._decide(tx, items, shown)
                    await failpoint(f"{point}.in_tx")
                break
            except (Overtaken, asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                if attempt == ATTEMPTS_MAX:
                    raise
        await failpoint(f"{point}.after_commit")
        return batch

    async def _authorise(self, items: Sequence[Item]) -> dict[LegKey, _Shown]:
        now = await self._db.now()
        executed: dict[LegKey, LegRecord] = {}
        if items[0].command is Command.REVERSE:
            async with self._db.connection() as connection:
                executed = await store.read(connection, [item.key_of_leg for item in items])
        if len(items) > INLINE_ITEMS_MAX:
            return await asyncio.to_thread(self._shown_by_all, items, executed, now)
        return self._shown_by_all(items, executed, now)

    def _shown_by_all(self, items: Sequence[Item], executed: Mapping[LegKey, LegRecord], now: datetime) -> dict[LegKey, _Shown]:
        return {item.key_of_leg: self._shown_by(item, executed.get(item.key_of_leg), now) for item in items}

    def _shown_by(self, item: Item, executed: LegRecord | None, now: datetime) -> _Shown:
        refusal: NotAuthorised | None = None
        certificate = None if executed is None else stored_certificate(executed)
        try:
            rules.authorise(item, self.name, self._registry, now, certificate)
        except NotAuthorised as found:
            refusal = found
        own_yes = rules.holds_own_yes(item, self.name, self._registry)
        return _Shown(refusal, own_yes, None if executed is None else executed.certificate)

    async def _decide(
        self, tx: Connection, items: Sequence[Item], shown: Mapping[LegKey, _Shown]
    ) -> dict[LegKey, tuple[LegRecord | None, Ruling | Rejection]]:
        """Lock, rule, store, let the participant record its work; everything inside the caller's transaction."""
        known, now = await store.lock(tx, [item.key_of_leg for item in items])
        records: dict[LegKey, LegRecord] = dict(known)
        ruled: dict[LegKey, Ruling | Rejection] = {}
        begun: list[tuple[Item, LegRecord]] = []
        raised: dict[LegKey, Epoch] = {}
        cause = cause_traceparent()
        for item in items:
            key = item.key_of_leg
            record = known.get(key)
            ruling = rules.judge(record, item, shown[key].refusal, now, own_yes=shown[key].own_yes)
            ruled[key] = ruling
            if isinstance(ruling, Rejection) or ruling.row is None:
                continue
            if ruling.action is Action.BEGIN:
                if item.command is Command.REVERSE and record is not None and record.certificate != shown[key].certificate:
                    raise Overtaken
                records[key] = rules.begun(record, item, ruling.row, now, item.traceparent or cause)
                begun.append((item, records[key]))
            elif record is not None:
                records[key] = replace(record, fence=ruling.row)
                raised[key] = ruling.row.epoch
        await self._store_begun(tx, known, [record for _, record in begun])
        await store.raise_epochs(tx, raised)
        if begun:
            works = [work_of(record, item.binding) for item, record in begun]
            completions = await self._operations.begin(tx, works, now)
            records |= await self._complete(tx, completions, records, now)
        return {key: (records.get(key), ruling) for key, ruling in ruled.items()}

    async def _store_begun(self, tx: Connection, known: Mapping[LegKey, LegRecord], begun: Sequence[LegRecord]) -> None:
        def standing(record: LegRecord) -> Phase | None:
            before = known.get(record.key_of_leg)
            return None if before is None else before.fence.phase

        fresh = [record for record in begun if standing(record) is None]
        await store.update_begun(tx, [record for record in begun if standing(record) is not None])
        if await store.insert_begun(tx, fresh) != len(fresh):
            raise Overtaken

    async def _settled(
        self,
        items: Sequence[Item],
        batch: Mapping[LegKey, tuple[LegRecord | None, Ruling | Rejection]],
        ticket: asyncio.Event,
        seconds: float,
    ) -> dict[LegKey, Answer]:
        answers = {item.key_of_leg: rules.answer(item, *batch[item.key_of_leg]) for item in items}
        clock = asyncio.get_running_loop()
        until = clock.time() + seconds
        while not self._draining and (left := until - clock.time()) > 0:
            pending = [item for item in items if answers[item.key_of_leg].verdict is Verdict.PENDING]
            if not pending:
                break
            await heard(ticket, min(left, self.settings.poll_seconds))
            ticket = self.bell.ticket()
            async with self._db.connection() as connection:
                records = await store.read(connection, [item.key_of_leg for item in pending])
            for item in pending:
                key = item.key_of_leg
                answers[key] = rules.answer(item, records[key], batch[key][1])
        return answers

    # -- What the participant's own code calls -----------------------------------------------------------------------

    async def complete(self, tx: Connection, completions: Sequence[Completion], held: Held | None = None) -> None:
        """Store findings, and sign what they lead to, in the caller's own transaction; `held` are the legs where they are locked already.

        A finding that says what is known already, or that was overtaken, changes nothing. One that contradicts what is known changes no phase and
        becomes the leg's trouble.

        Raises:
            ValueError: a finding lacks what shows it, or is about a leg that is not known here.
        """
        if not completions:
            return
        if held is None:
            held = await self.lock(tx, {(each.plan_id, each.leg_id) for each in completions})
        await self._complete(tx, completions, held.records, held.now)

    async def lock(self, tx: Connection, legs: Collection[LegKey]) -> Held:
        """Lock the legs that are known here."""
        return Held(*await store.lock(tx, legs))

    async def _complete(
        self, tx: Connection, completions: Sequence[Completion], records: Mapping[LegKey, LegRecord], now: datetime
    ) -> dict[LegKey, LegRecord]:
        changed: dict[LegKey, LegRecord] = {}
        for completion in completions:
            key = completion.plan_id, completion.leg_id
            record = changed.get(key) or records.get(key)
            if record is None:
                raise ValueError(f"a finding about leg {completion.leg_id} of plan {completion.plan_id}, which is not known here")
            after = self._signer.found(record, completion, now)
            if after is None:
                continue
            changed[key] = after
            if after.trouble:
                _log.error("finding_contradicts", plan_id=record.plan_id, leg_id=record.leg_id, trouble=after.trouble)
        await store.update_found(tx, list(changed.values()))
        await failpoint(f"{self.name}.complete.in_tx")
        return changed

    async def load(
        self, tx: Connection, legs: Sequence[LegKey], *, lock: bool = False, phases: Collection[Phase] | None = None
    ) -> list[LegWork]:
        """The legs that are known here, locked if asked, in the order asked; only those that are in some phases, if told.

        Whoever has looked for legs in these phases before has to ask for them again: another replica may have seen to one meanwhile.
        """
        if not legs:
            return []
        records = await store.read_work(tx, legs, lock=lock)
        found = [records[key] for key in legs if key in records]
        return [
            work_of(record)
            for record in found
            if record.fence.phase is not None and (phases is None or record.fence.phase in phases)
        ]

    async def hold(self, tx: Connection, work: Sequence[LegWork]) -> list[LegWork]:
        """Lock legs that were loaded; those that still stand as they did then."""
        revisions = await store.hold(tx, [(each.plan_id, each.leg_id) for each in work])
        return [each for each in work if revisions.get((each.plan_id, each.leg_id)) == each.revision]

    async def working(
        self, tx: Connection, phases: Collection[Phase], *, after: LegKey | None = None, limit: int = 256
    ) -> list[LegWork]:
        """A page of the legs in these phases, in the order (plan, leg), after one of them.

        Raises:
            ValueError: a final phase is asked for; nothing is owed there.
        """
        if not _OPEN_PHASES.issuperset(phases):
            raise ValueError("only legs for which something is still owed can be asked for")
        return [work_of(record) for record in await store.working(tx, phases, after, limit)]

    async def trouble(self, tx: Connection, plan_id: PlanId, leg_id: LegId, text: str) -> None:
        """Say in one sentence what a person should know about a leg; "" clears it."""
        await store.set_trouble(tx, (plan_id, leg_id), text)

    # -- What may be asked -------------------------------------------------------------------------------------------

    async def get(self, leg: LegKey, raise_to: Epoch | None, known_revision: int = 0) -> LegRecord | None:
        """What is known of a leg; its fence is raised first when asked, known or not, and its revision to the highest that the sender has seen.

        A revision that is raised is a change like any other: whoever follows the outcome log hears of it.
        """
        if raise_to is None:
            async with self._db.connection() as connection:
                record = (await store.read(connection, [leg])).get(leg)
        else:
            record = await self._raise(leg, raise_to, known_revision)
        return record if record is not None and record.fence.phase is not None else None

    async def _raise(self, leg: LegKey, epoch: Epoch, known_revision: int) -> LegRecord | None:
        for _ in range(ATTEMPTS_MAX):
            async with self._db.transaction() as tx:
                record = (await store.lock(tx, [leg]))[0].get(leg)
                if record is None:
                    if await store.insert_epoch(tx, leg, epoch, known_revision):
                        return None
                    continue
                row = fence.raised(record.fence, epoch, known_revision)
                if row is None:
                    return record
                await store.raise_fence(tx, leg, row)
                return replace(record, fence=row)
        raise Overtaken

    async def page(self, after_seq: int, limit: int) -> list[tuple[int, LegRecord]]:
        """A page of all known legs, in the order of their first record, with their places."""
        async with self._db.connection() as connection:
            return await store.page(connection, after_seq, limit)

    async def log_head(self) -> tuple[Cursor, datetime]:
        """The end of the outcome log, and the database's clock."""
        async with self._db.connection() as connection:
            incarnation, sequence, now = await store.log_head(connection)
        return Cursor(incarnation, sequence), now

    def watch(self, after: Cursor | None) -> AsyncGenerator[Changes]:
        """Every change after a cursor, then live, with heartbeats, until the process drains."""
        return watch(self._db, self.bell, after, self.settings.heartbeat_seconds, lambda: self._draining)
