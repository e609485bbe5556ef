"""Sends commands to one participant, many plans' in one call, and repeats them until they are answered.

A command is a row until the participant's signed report answers it. The transaction that gives it notes it as being sent and hands it on; what is due again
is looked for. Whatever a call ends with, the row is there: an error, a lost connection, a crash say nothing and are followed by a repeat. A rejection is no
outcome either: it is counted, and what becomes of it is `routing`'s to say. Commands are repeated here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, assert_never

import grpc
import structlog

from coordinator.commands import Command
from coordinator.convert.participant import CALLS, Answered, CallName, Outgoing, report_from_pb
from coordinator.engine import Engine
from coordinator.model import CheckFailed, Order
from coordinator.news import News
from coordinator.peers import Peer
from coordinator.routing import OVERTAKEN, Route, routed
from coordinator.sealing import KeySealed
from coordinator.store import letters, outboxes, plans, restores
from coordinator.store.outboxes import JOURNAL
from lockstep_kit import failpoints, leases
from lockstep_kit.failpoints import failpoint
from lockstep_kit.fence import Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.loops import Loop
from lockstep_kit.pace import Pace
from lockstep_kit.participant.records import Verdict
from lockstep_kit.spans import plan_spans
from lockstep_kit.values import replace

_log = structlog.get_logger()

BATCH_MAX: Final = 256
#: Legs of all plans in one message: with about a kilobyte each it stays well below the participants' limit.
CHUNK_LEGS_MAX: Final = 1_024
#: How often it is looked for what is due, of all participants and the journal at once.
POLL_SECONDS: Final = 1.0
#: Whoever is told what is due need not look for it.
UNTOLD_SECONDS: Final = 60.0

failpoints.declare(
    *(f"coordinator.{call.value.lower()}.{where}" for call in CallName for where in ("before_send", "after_send")),
    "coordinator.claim.in_tx",
    "coordinator.claim.after_commit",
)


class Due:
    """Looks for what is due and was handed on by nobody: repeats, and what another process left."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def loop(self) -> Loop:
        """The loop that looks."""
        return Loop("due", self.run, poll_seconds=POLL_SECONDS)

    async def run(self) -> None:
        """One look, for all participants and the journal."""
        wakes = self._engine.wakes
        async with self._engine.db.connection() as connection:
            due = await outboxes.due(connection, self._engine.owner.name)
        for name in due & wakes.orders.keys():
            wakes.orders[name].look()
        if JOURNAL in due:
            wakes.records.look()


class Relay:
    """The commands to one participant."""

    def __init__(self, engine: Engine, peer: Peer, news: News) -> None:
        self._engine = engine
        self._peer = peer
        self._news = news
        self._orders = engine.wakes.orders[peer.name]
        self._unanswered = False
        self._pace = Pace()

    def loop(self) -> Loop:
        """The loop that sends."""
        return Loop(f"relay.{self._peer.name}", self.run, poll_seconds=UNTOLD_SECONDS, wake=self._orders.wake)

    async def run(self) -> None:
        """Send what is due, until nothing is, or a call failed: the next look is soon enough for a participant that is down."""
        self._unanswered = False
        while not self._unanswered:
            # Under load, what is being ordered at this moment goes with what waits.
            await self._pace.linger()
            with self._pace.working():
                more = await self._send_due()
            if not more:
                # What was given meanwhile has woken the loop.
                return

    async def _send_due(self) -> bool:
        """Send what was given, or else what is due; whether there may be more."""
        given = self._orders.take(BATCH_MAX)
        if given:
            more, batch = True, await self._with_keys(given)
        elif self._orders.takes_look():
            more, batch = await self._claim()
        else:
            return False
        for chunk in _chunks(batch):
            calls = [(call, [each for each in chunk if CALLS[each.command.order] is call]) for call in CallName]
            await asyncio.gather(*(self._send(call, part) for call, part in calls if part))
        return more

    async def _claim(self) -> tuple[bool, list[Outgoing]]:
        """Due commands of plans that this replica holds, each noted as sent; and whether there may be more."""
        engine, name, owner = self._engine, self._peer.name, self._engine.owner
        left = owner.lease * leases.LEFT
        async with engine.db.connection() as connection:
            due = await outboxes.due_plans(connection, name, owner.name, owner.generation, left, BATCH_MAX)
        if not due:
            return False, []
        async with engine.db.transaction() as tx:
            if not all(due.values()):
                ending = [plan_id for plan_id, held in due.items() if not held]
                await leases.acquire(tx, ending, owner.name, owner.generation, owner.lease)
            locked = await outboxes.lock_due(tx, name, owner.name, owner.generation, left, due, BATCH_MAX)
            if not locked:
                return False, []
            commands, epochs = [each for each, _ in locked], {each.plan_id: epoch for each, epoch in locked}
            await outboxes.sent(tx, commands, [engine.repeat_after(each.attempts) for each in commands])
            dossiers = (await engine.dossiers.read(tx, epochs)).dossiers
            await failpoint("coordinator.claim.in_tx")
        await failpoint("coordinator.claim.after_commit")
        # A plan's in the order of its legs.
        ordered = sorted(commands, key=lambda each: (each.plan_id, dossiers[each.plan_id].index(each.leg_id)))
        batch = [Outgoing(each, dossiers[each.plan_id], epochs[each.plan_id], b"") for each in ordered]
        return len(commands) == BATCH_MAX, await self._with_keys(batch)

    async def _with_keys(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        """The batch with the plans' keys for what moves value; plans whose key cannot be opened call a person, and the others need not wait for them."""
        moving = {each.command.plan_id for each in batch if _moves_value(each)}
        if not moving:
            return list(batch)
        async with self._engine.db.connection() as connection:
            keys = self._opened(await plans.sealed_keys(connection, moving))
        for plan_id in sorted(moving - keys.keys()):
            await self._engine.call(plan_id, "PLAN_KEY_SEALED", "", "the plan's key cannot be opened with the keys of this service")
        return [
            replace(each, plan_key=keys[each.command.plan_id]) if _moves_value(each) else each
            for each in batch
            if not _moves_value(each) or each.command.plan_id in keys
        ]

    def _opened(self, sealed: Mapping[PlanId, tuple[str, bytes]]) -> dict[PlanId, bytes]:
        """The plans' keys; those that cannot be opened are left out."""
        found: dict[PlanId, bytes] = {}
        for plan_id, (key_id, octets) in sealed.items():
            try:
                found[plan_id] = self._engine.box.open(plan_id, key_id, octets)
            except KeySealed as error:
                _log.error("plan_key_sealed", error=str(error))
        return found

    async def _send(self, call: CallName, batch: Sequence[Outgoing]) -> None:
        ids = sorted({each.command.plan_id for each in batch})
        traces = {each.command.plan_id: each.command.traceparent for each in batch}
        with plan_spans(
            f"coordinator.{call.value.lower()}", traces, attributes={"lockstep.participant": self._peer.name}
        ) as inside:
            sent = [replace(each, traceparent=inside[each.command.plan_id]) for each in batch]
            await failpoint(f"coordinator.{call.value.lower()}.before_send", about=ids)
            try:
                with self._engine.pressure.timed(self._peer.name):
                    answers = await self._peer.command(call, sent, self._engine.limits.delivery_margin)
            except grpc.aio.AioRpcError as error:
                _log.warning("command_unanswered", participant=self._peer.name, call=call, code=error.code().name)
                await self._unanswered_by(batch, error.code().name)
                return
            except FieldInvalid as finding:
                _log.error("answer_malformed", participant=self._peer.name, call=call, field=finding.field)
                await self._unanswered_by(batch, "ANSWER_MALFORMED")
                return
            await failpoint(f"coordinator.{call.value.lower()}.after_send", about=ids)
            await self._take(batch, answers)

    async def _take(self, batch: Sequence[Outgoing], answers: Sequence[Answered]) -> None:
        told = [each.report for each in answers if each.report is not None and each.verdict is not Verdict.PENDING]
        await self._news.take_answers(self._peer.name, told)
        await self._end(batch, answers)
        rejected = [(each, answer) for each, answer in zip(batch, answers, strict=True) if answer.verdict is Verdict.REJECTED]
        if not rejected:
            return
        for each, answer in rejected:
            _log.warning(
                "command_rejected",
                participant=self._peer.name,
                plan_id=each.command.plan_id,
                leg_id=each.command.leg_id,
                reason=answer.reason,
            )
        stale = [each.command.plan_id for each, answer in rejected if answer.reason in OVERTAKEN]
        async with self._engine.db.transaction() as tx:
            await leases.release(tx, stale, self._engine.owner.name)
            counted = await outboxes.rejected(tx, [(each.command, answer.reason) for each, answer in rejected])
            routes = [routed(answer.reason, each.dossier.plan.decision, _often(counted, each)) for each, answer in rejected]
            dead = [
                (each.command, answer.reason, answer.message)
                for (each, answer), way in zip(rejected, routes, strict=True)
                if way is Route.DEAD_LETTER
            ]
            await letters.bury(tx, self._peer.name, dead)
        for (each, answer), way in zip(rejected, routes, strict=True):
            await self._follow(each, answer.reason, answer.message, way)

    async def _end(self, batch: Sequence[Outgoing], answers: Sequence[Answered]) -> None:
        """Repeats that are answered with nothing new end here: a participant that was put back shows again what was heard of it before.

        One that shows something else, and no news, was put back unnoticed: its outcome log had not been read that far.
        """
        shown = list(_shown(batch, answers))
        if not shown:
            return
        async with self._engine.db.connection() as connection:
            if await outboxes.end_shown(connection, shown):
                _log.warning("participant_restored", participant=self._peer.name)
                await restores.sweep(connection, [self._peer.name])

    async def _unanswered_by(self, batch: Sequence[Outgoing], code: str) -> None:
        """Nothing is known of any of them. They are repeated; what goes on and is not for time to resolve calls a person."""
        self._unanswered = True
        for each in batch:
            await self._follow(each, code, "the call failed", routed(code, each.dossier.plan.decision, each.command.attempts + 1))

    async def _follow(self, each: Outgoing, reason: str, message: str, way: Route) -> None:
        command, told = each.command, f"{self._peer.name} does not take {each.command.order}: {reason} {message}".rstrip()
        match way:
            case Route.RETRY:
                pass
            case Route.ABORT:
                failed = CheckFailed(reason, command.leg_id, told)
                await self._engine.apply("outcome", [command.plan_id], lambda _, __: [failed])
            case Route.PARK:
                await self._engine.call(command.plan_id, "COMMAND_REJECTED", command.leg_id, told)
            case Route.DEAD_LETTER:
                await self._engine.call(command.plan_id, "COMMAND_DEAD", command.leg_id, told)
            case unreachable:
                assert_never(unreachable)


def _moves_value(each: Outgoing) -> bool:
    """Whether the command is one that its leg's key goes with."""
    command = each.command
    return command.order is Order.COMMIT and each.dossier.files[each.dossier.index(command.leg_id)].leg.settling


def _often(counted: Mapping[tuple[PlanId, LegId], int], each: Outgoing) -> int:
    """How often a command was rejected by now; one that was answered meanwhile counts as new."""
    return counted.get((each.command.plan_id, each.command.leg_id), 1)


def _shown(batch: Sequence[Outgoing], answers: Sequence[Answered]) -> Iterator[tuple[Command, Phase, int]]:
    """What answers to repeats say: command, phase and revision."""
    for each, answer in zip(batch, answers, strict=True):
        if each.command.attempts and answer.report is not None and answer.verdict in (Verdict.DONE, Verdict.REFUSED):
            # One that cannot be read was logged when it was to be taken.
            with contextlib.suppress(FieldInvalid):
                report = report_from_pb(answer.report)
                yield each.command, report.phase, report.revision


def _chunks(batch: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """The batch in parts that fit a message: a certificate grows with its plan's legs."""
    chunk: list[Outgoing] = []
    legs = 0
    for each in batch:
        if chunk and legs + each.dossier.header.leg_count > CHUNK_LEGS_MAX:
            yield chunk
            chunk, legs = [], 0
        chunk.append(each)
        legs += each.dossier.header.leg_count
    if chunk:
        yield chunk
