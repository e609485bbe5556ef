"""The checks before Prepare: lint once more, what the participants say they can do, and who may be a party."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import grpc
import structlog

from coordinator import facts
from coordinator.clocks import CLOCK_SKEW, measure
from coordinator.compliance import Compliance, barred_party
from coordinator.cut_offs import CutOffMissed, check_cut_offs
from coordinator.dossier import Dossier
from coordinator.engine import Engine
from coordinator.lint import UNWIND_FIELD, Installation, check_capabilities, check_plan
from coordinator.model import CheckFailed, ChecksBegun, ChecksPassed, Event, State
from coordinator.participants import Routes
from coordinator.peers import Peers
from coordinator.store import reading
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import PlanId
from lockstep_kit.loops import Loop
from lockstep_kit.participant.ports import Capabilities
from lockstep_kit.statements import Gate
from lockstep_kit.values import dataclass

if TYPE_CHECKING:
    from coordinator.model import GateRecord

_log = structlog.get_logger()

BATCH_MAX: Final = 256
POLL_SECONDS: Final = 1.0
#: Plans that begin together stay together, and cost less together: so many at work from which on those that begin wait for others, and from which on as
#: long as it goes.
GATHERED_FROM: Final = 16
GATHERED_MOST: Final = 192
GATHER_SECONDS_MAX: Final = 2.0
#: Where one in so many of those at work is among them, few others are left who could come.
GATHERED_SHARE: Final = 2
#: They do not wait any longer when nobody has come for so long.
GATHER_PAUSE_SECONDS: Final = 0.5


class CapabilityCache:
    """What participants say of themselves, asked again when it is older than it may be. One whose clock is off counts as one that is silent."""

    def __init__(self, peers: Peers, seconds_max: float, clock: Callable[[], Awaitable[datetime]], skew_max: timedelta) -> None:
        """`clock` is the database's, by which deadlines are told; `skew_max` is how far a participant's may be off."""
        self._peers = peers
        self._seconds_max = seconds_max
        self._clock = clock
        self._skew_max = skew_max
        self._known: dict[str, tuple[float, Capabilities]] = {}

    def known(self) -> dict[str, Capabilities]:
        """What is known now, without asking anyone."""
        now = asyncio.get_running_loop().time()
        return {name: can for name, (since, can) in self._known.items() if now - since <= self._seconds_max}

    async def ask(self) -> dict[str, Capabilities]:
        """What is known after everybody was asked of whom nothing recent is known; who does not answer is left out."""
        missing = self._peers.keys() - self.known().keys()
        await asyncio.gather(*(self._ask(name) for name in missing))
        return self.known()

    async def _ask(self, name: str) -> None:
        try:
            before = await self._clock()
            can, told = await self._peers[name].describe()
            skew = measure(before, told, await self._clock(), self._skew_max)
        except (grpc.aio.AioRpcError, FieldInvalid) as error:
            _log.warning("participant_undescribed", participant=name, error=type(error).__name__)
            return
        if skew is None or skew.beyond(self._skew_max):
            told_skew = "" if skew is None else f"{skew.least.total_seconds():.3f} to {skew.most.total_seconds():.3f} s"
            _log.error("participant_clock", participant=name, reason=CLOCK_SKEW, ahead=told_skew or "not measured")
            self._known.pop(name, None)
            return
        self._known[name] = (asyncio.get_running_loop().time(), can)


@dataclass(frozen=True, slots=True)
class Rules:
    """What plans are checked against."""

    #: What this installation knows.
    installation: Installation
    #: Who may be a party.
    compliance: Compliance
    #: Who serves which legs.
    routes: Routes = field(repr=False)


def judge(dossier: Dossier, capabilities: Mapping[str, Capabilities], rules: Rules, now: datetime) -> Event | None:
    """What the checks say of a plan; None as long as a participant that it needs has not said what it can do."""
    make: GateRecord | None = facts.gate(dossier.plan, Gate.MAKE)
    if make is None:
        raise AssertionError(f"plan {dossier.plan_id} has no maker")
    party = barred_party(dossier.header, rules.compliance)
    if party:
        return CheckFailed("COMPLIANCE_FAILED", "", f"the party {party} is not allowed")
    if any(file.participant not in capabilities for file in dossier.files):
        return None
    margin = rules.installation.delivery_margin
    try:
        check_plan(dossier.header, dossier.legs, make.signed, rules.installation, now)
        check_capabilities(dossier.header, dossier.legs, capabilities, rules.routes, margin, now)
        check_cut_offs(dossier.header, dossier.legs, capabilities, rules.routes, margin, now, preparing=True)
    except CutOffMissed as finding:
        return CheckFailed("CUT_OFF_MISSED", finding.leg_id, str(finding))
    except FieldInvalid as finding:
        return CheckFailed(_reason_of(finding.field), _leg_of(dossier, finding.field), str(finding))
    return ChecksPassed()


def _reason_of(path: str) -> str:
    if path == UNWIND_FIELD:
        return "UNWIND_IMPOSSIBLE"
    return "STEP_DEPENDENCY_FAILED" if "depends_on" in path else "CHECK_FAILED"


def _leg_of(dossier: Dossier, path: str) -> str:
    for index, leg in enumerate(dossier.legs):
        if path.startswith(f"legs[{index}]"):
            return leg.leg_id
    return ""


def gather_seconds(at_work: int) -> float:
    """How long plans that begin wait for others to begin with them, where so many plans are at work: not at all where few are."""
    return GATHER_SECONDS_MAX * min(max((at_work - GATHERED_FROM) / (GATHERED_MOST - GATHERED_FROM), 0.0), 1.0)


class Checks:
    """Brings plans through PRECONDITIONS_PENDING."""

    def __init__(self, engine: Engine, cache: CapabilityCache, rules: Rules) -> None:
        self._engine = engine
        self._cache = cache
        self._rules = rules

    def loop(self) -> Loop:
        """The loop that checks."""
        return Loop("checks", self.run, poll_seconds=POLL_SECONDS, wake=self._engine.wakes.checks.wake)

    async def run(self) -> None:
        """Check what waits for it; what needs a silent participant waits on, until its deadline."""
        await self._gather()
        waiting = list(self._engine.wakes.checks.take(BATCH_MAX))
        if not waiting:
            async with self._engine.db.connection() as connection:
                waiting = await reading.checking(connection, self._engine.owner.name, BATCH_MAX)
        if waiting:
            await self.check(waiting, await self._cache.ask())

    async def _gather(self) -> None:
        """Wait for others as long as it is worth."""
        loop, checks = asyncio.get_running_loop(), self._engine.wakes.checks
        at_work = self._engine.pressure.at_work
        until, enough = loop.time() + gather_seconds(at_work), min(at_work // GATHERED_SHARE, BATCH_MAX)
        with contextlib.suppress(TimeoutError):
            while 0 < checks.waiting < enough and loop.time() < until:
                checks.wake.clear()
                async with asyncio.timeout_at(min(loop.time() + GATHER_PAUSE_SECONDS, until)):
                    await checks.wake.wait()

    async def check(self, waiting: list[PlanId], capabilities: Mapping[str, Capabilities]) -> None:
        """Check plans against what participants say."""

        def events(dossier: Dossier, now: datetime) -> list[Event]:
            if dossier.plan.state not in (State.INITIATED, State.PRECONDITIONS_PENDING):
                return []
            begun: list[Event] = [ChecksBegun()] if dossier.plan.state is State.INITIATED else []
            found = judge(dossier, capabilities, self._rules, now)
            return begun if found is None else [*begun, found]

        await self._engine.apply("checks", waiting, events)
