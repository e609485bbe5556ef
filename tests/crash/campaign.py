"""The crash campaign: every declared failpoint is a place where a process is killed with SIGKILL, on every path that leads through it.

One sandbox stays up for all of it: real processes, a real Postgres, a real chain. A survey sends one plan down each path and writes down which places it
passes; then, for each place and path, a plan is sent, the process dies there, is started again, and the plan must come to its end within the bound. The checker
judges what is left each time, and everything together at the end, with old epochs sent to every participant.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path as File
from statistics import median
from typing import Any, Final

from aiohttp import web

from crash.paths import LAPSE_SECONDS, Path, course, voyage
from lockstep_client.calls import CallSettings
from lockstep_kit.errors import LockstepError
from lockstep_kit.failpoints import FILE_ENVIRONMENT, failpoint_names
from lockstep_sandbox.ports import LOOPBACK, free_ports
from lockstep_sandbox.processes import ProgramFailed
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import SERVICES, Sandbox, package_of
from lockstep_testkit.checker import Told, collect, judge, probe
from lockstep_testkit.convoys import Convoy
from lockstep_testkit.crew import Crew
from lockstep_testkit.journeys import Journey
from lockstep_testkit.miner import Miner

#: From the restart of what was killed until the plan is at its end.
TERMINAL_SECONDS_MAX: Final = 10.0
#: Longest until a plan comes to the place where its process is to die.
DEATH_SECONDS_MAX: Final = 120.0
#: Longest that a plan may take after the restart before the run is given up; far above the bound, so that what is late is told from what is stuck.
STUCK_SECONDS_MAX: Final = 240.0
LOOK_SECONDS: Final = 0.02
#: Down which a service dies at every place of theirs.
MAIN: Final = (Path.COMMIT, Path.ABORT, Path.TOGETHER)
#: How often a path is tried until somebody on it comes by a place.
PLANS_MAX: Final = 4
#: Short leases and pauses, so that what a dead process held is soon taken up; one block of depth, so that "mined" and "final" are two things.
SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "coordinator": {
        "LOCKSTEP_LEASE_SECONDS": "1.5",
        "LOCKSTEP_RECOVERY_SECONDS": "0.3",
        "LOCKSTEP_LIMITS__DEADLINE_SECONDS_MIN": "1",
    },
    "dlt-gateway": {"LOCKSTEP_CHAIN__FINALITY_DEPTH": "1", "LOCKSTEP_CHAIN__LEASE_SECONDS": "1"},
    "notary": {"LOCKSTEP_CHAIN__FINALITY_DEPTH": "1", "LOCKSTEP_CHAIN__LEASE_SECONDS": "1"},
    "event-journal": {"LOCKSTEP_CHECKPOINT_SECONDS": "0.2"},
}


def declared() -> tuple[str, ...]:
    """Every failpoint of every service."""
    for service in SERVICES:
        importlib.import_module(f"{package_of(service)}.main")
    return failpoint_names()


@dataclass(frozen=True, slots=True)
class Run:
    """One crash."""

    #: Where a process died, or was to die.
    point: str
    #: On which path.
    path: Path
    #: Whether it died there.
    hit: bool
    #: From its restart until the plan was at its end; None: it never was.
    terminal_seconds: float | None
    #: What does not hold.
    violations: tuple[str, ...]

    def failures(self, seconds_max: float = TERMINAL_SECONDS_MAX) -> tuple[str, ...]:
        """What is wrong with this run, as sentences."""
        where = f"{self.point} on {self.path}"
        found = [f"{where}: {each}" for each in self.violations]
        if not self.hit:
            found.append(f"{where}: the place was not passed")
        if self.terminal_seconds is None:
            found.append(f"{where}: the plan did not come to its end")
        elif self.terminal_seconds > seconds_max:
            found.append(f"{where}: the plan ended {self.terminal_seconds:.1f} s after the restart")
        return tuple(found)


@dataclass
class Campaign:
    """Crashes over one running sandbox."""

    #: What runs.
    sandbox: Sandbox
    #: Who settles.
    crew: Crew
    #: Who mines.
    miner: Miner
    #: Every crash so far.
    runs: list[Run] = field(default_factory=list)
    #: Path -> places that a plan passes on it.
    reach: dict[Path, frozenset[str]] = field(default_factory=dict)
    #: What clients were told, over all runs.
    told: list[Told] = field(default_factory=list)
    #: Plans of all runs.
    plan_ids: list[str] = field(default_factory=list)

    # -- Arming ------------------------------------------------------------------------------------------------------

    def arm(self, point: str) -> None:
        """Have the service of a failpoint die there the next time that it comes by."""
        _file(self.sandbox, _service(point)).write_text(f"{point}=kill")

    def disarm(self) -> None:
        """Have nobody die any more, and forget what was passed."""
        for service in SERVICES:
            _file(self.sandbox, service).write_text("")
            _passed(self.sandbox, service).write_text("")

    def passed(self, service: str) -> frozenset[str]:
        """Places that a service passed since `disarm`."""
        return frozenset(_passed(self.sandbox, service).read_text().split())

    # -- Runs --------------------------------------------------------------------------------------------------------

    async def survey(self, paths: Iterable[Path] = tuple(Path)) -> None:
        """Send a plan down each path and note what it passes."""
        for path in paths:
            self.disarm()
            plan = voyage(self.crew, path)
            try:
                async with asyncio.timeout(STUCK_SECONDS_MAX):
                    await course(self.crew, self.miner, path, plan)()
            except TimeoutError as error:
                raise TimeoutError(f"no plan gets down the path {path}: {plan.plan_ids}") from error
            self.reach[path] = frozenset[str]().union(*(self.passed(service) for service in SERVICES))
            await self._judged(plan)

    async def strike(self, point: str, path: Path, *, again: str = "") -> Run:
        """Kill a service at a failpoint on a path, start it again, and see the plan to its end; `again` is where a process dies during that recovery.

        Not every plan of a path comes by every place of it: what is mined may be final by the time that anybody looks. Then another plan is sent. What is
        passed only where an answer is late may not be passed on a path any more at all: then a plan is sent down another that leads there.
        """
        others = [each for each, passed in self.reach.items() if point in passed and each is not path]
        for each in [path] * PLANS_MAX + others:
            run = await self._strike(point, each, again)
            if run.hit or run.violations or run.terminal_seconds is None:
                break
        self.runs.append(run)
        return run

    async def _strike(self, point: str, path: Path, again: str) -> Run:
        self.disarm()
        self.arm(point)
        plan = voyage(self.crew, path)
        going = asyncio.create_task(_outlived(course(self.crew, self.miner, path, plan)()), name=point)
        began = time.monotonic()
        hit = await self._dies(point, going)
        restarted = time.monotonic()
        if hit:
            await self._revive(point, again)
            if again and await self._dies(again, going):
                restarted = time.monotonic()
                await self._revive(again, "")
        if path is Path.LAPSE:
            # The plan's own time is not recovery's.
            restarted = max(restarted, began + LAPSE_SECONDS)
        terminal = await self._arrives(going, plan, restarted)
        return Run(f"{point} then {again}" if again else point, path, hit, terminal, await self._judged(plan))

    async def cut_power(self, path: Path, after_seconds: float) -> Run:
        """Kill Postgres with all its backends in the middle of a plan, start it again, and see the plan to its end."""
        self.disarm()
        plan = voyage(self.crew, path)
        going = asyncio.create_task(_outlived(course(self.crew, self.miner, path, plan)()), name="postgres")
        await asyncio.sleep(after_seconds)
        server = self.sandbox.databases.server
        server.kill9()
        restarted = time.monotonic()
        server.start()
        reviving = asyncio.create_task(self._reviving(), name="reviving")
        try:
            terminal = await self._arrives(going, plan, restarted)
        finally:
            reviving.cancel()
            await asyncio.gather(reviving, return_exceptions=True)
        run = Run(
            f"postgres after {after_seconds:.2f} s", path, hit=True, terminal_seconds=terminal, violations=await self._judged(plan)
        )
        self.runs.append(run)
        return run

    async def _dies(self, point: str, going: asyncio.Task[None]) -> bool:
        """Wait for a service to die at a place; False when the plan ends without it."""
        service, supervisor = _service(point), self.sandbox.supervisor
        give_up = time.monotonic() + DEATH_SECONDS_MAX
        while time.monotonic() < give_up:
            if not supervisor.is_running(service) and point in self.passed(service):
                return True
            if going.done() and point not in self.passed(service):
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return False

    async def _revive(self, point: str, again: str) -> None:
        """Start what died, armed for its recovery or not at all."""
        service, supervisor = _service(point), self.sandbox.supervisor
        _file(self.sandbox, service).write_text("")
        if again:
            _passed(self.sandbox, _service(again)).write_text("")
            self.arm(again)
        with contextlib.suppress(ProgramFailed, ValueError):
            await supervisor.start(supervisor.program(service))

    async def _reviving(self) -> None:
        """Whoever gives up without its database, at once or after a while, is started again, as any operator's machinery would."""
        supervisor = self.sandbox.supervisor
        while True:
            for service in supervisor.ended():
                with contextlib.suppress(ProgramFailed):
                    await supervisor.restart(service)
            await asyncio.sleep(LOOK_SECONDS)

    async def _arrives(self, going: asyncio.Task[None], plan: Journey | Convoy, restarted: float) -> float | None:
        """Seconds from a restart to the plan's end; None: it does not come."""
        try:
            async with asyncio.timeout(STUCK_SECONDS_MAX):
                await going
        except (TimeoutError, LockstepError):
            return None
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
        return max(plan.ended_at - restarted, 0.0)

    async def _judged(self, plan: Journey | Convoy) -> tuple[str, ...]:
        self.told += plan.told
        self.plan_ids += plan.plan_ids
        judgement = judge(await collect(self.sandbox, told=plan.told, focus=plan.plan_ids))
        return tuple(f"{each.invariant} {each.plan_id} {each.leg_id}: {each.sentence}" for each in judgement.violations)

    async def judged(self) -> tuple[str, ...]:
        """What does not hold of everything together, old epochs included."""
        self.disarm()
        evidence = await collect(self.sandbox)
        judgement = judge(await collect(self.sandbox, told=self.told, probes=await probe(self.sandbox, evidence)))
        return tuple(judgement.text().splitlines())

    # -- What came of it ---------------------------------------------------------------------------------------------

    def matrix(self, points: Sequence[str]) -> list[tuple[str, Path]]:
        """Every place on the paths that lead through it; commit, abort and both together in any case, the others where no other path does."""
        found: list[tuple[str, Path]] = []
        for point in points:
            through = [path for path, passed in self.reach.items() if point in passed]
            main = [path for path in through if path in MAIN]
            found += [(point, path) for path in main or through[:1]]
        return found

    def unreached(self, points: Sequence[str]) -> list[str]:
        """Places that no path leads through."""
        return sorted(set(points) - frozenset[str]().union(*self.reach.values()))


def result(campaign: Campaign, points: Sequence[str], final: Sequence[str], seconds: float) -> tuple[dict[str, Any], list[str]]:
    """What is printed last, and every failure as a sentence."""
    hit = {point for run in campaign.runs if run.hit for point in run.point.split(" then ")[:1]}
    times = [run.terminal_seconds for run in campaign.runs if run.terminal_seconds is not None]
    failures = [each for run in campaign.runs for each in run.failures()] + [f"at the end: {each}" for each in final]
    failures += [f"{point}: never hit" for point in points if point not in hit]
    violations = sum(len(run.violations) for run in campaign.runs) + len(final)
    document = {
        "failpoints_total": len(points),
        "failpoints_hit": len(hit & set(points)),
        "runs": len(campaign.runs),
        "violations": violations,
        "failures": len(failures),
        "restart_to_terminal_ms_max": round(max(times, default=0) * 1000),
        "restart_to_terminal_ms_p50": round(median(times or [0]) * 1000),
        "seconds": round(seconds, 1),
    }
    return document, failures


def pairs(campaign: Campaign, seed: int, count: int) -> list[tuple[str, str, Path]]:
    """Crashes during the recovery from crashes, drawn by a seed: the same place again, or any other of that path."""
    rng = random.Random(seed)
    paths = [path for path in MAIN if path in campaign.reach]
    drawn: list[tuple[str, str, Path]] = []
    for _ in range(count):
        path = rng.choice(paths)
        places = sorted(campaign.reach[path])
        drawn.append((rng.choice(places), rng.choice(places), path))
    return drawn


@asynccontextmanager
async def campaign_over(base: File, profile: str = "conditional", *, by_files: bool = False) -> AsyncIterator[Campaign]:
    """A campaign over a sandbox of its own, whose payments are made in a profile of the bank leg's, over HTTPS or by files."""
    run = RuntimeDirectory.create(base)
    environ = {
        service: {**SETTINGS.get(service, {}), FILE_ENVIRONMENT: str(run.path / "state" / f"{service}.failpoints")}
        for service in SERVICES
    }
    (port,) = free_ports(1)
    secret = run.write_secret("keys/webhook.secret", f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")
    webhook = {"name": "receiver", "url": f"http://{LOOPBACK}:{port}/", "secret_files": [str(secret)]}
    environ["coordinator"] |= {"LOCKSTEP_WEBHOOKS": json.dumps([webhook]), "LOCKSTEP_NOTICES__ALLOW_LOOPBACK": "true"}
    async with AsyncExitStack() as stack:
        changes = {"bank-gateway": {"profile": profile}}
        sandbox = await stack.enter_async_context(
            Sandbox(run, environ=environ, sampled_ratio=0.0, changes=changes, by_files=by_files)
        )
        await stack.enter_async_context(_receiving(port))
        miner = Miner(sandbox)
        await stack.enter_async_context(miner.running())
        crew = await stack.enter_async_context(Crew(sandbox, CallSettings(deadline_seconds=3.0, pause_seconds_max=0.2)))
        campaign = Campaign(sandbox, crew, miner)
        campaign.disarm()
        yield campaign


@asynccontextmanager
async def _receiving(port: int) -> AsyncIterator[None]:
    """Somebody who takes every notice."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    application = web.Application()
    application.router.add_post("/", take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def _outlived(course: Awaitable[object]) -> None:
    """A course whose end is all that counts."""
    await course


def _service(point: str) -> str:
    return point.partition(".")[0]


def _file(sandbox: Sandbox, service: str) -> File:
    return sandbox.run.path / "state" / f"{service}.failpoints"


def _passed(sandbox: Sandbox, service: str) -> File:
    path = sandbox.run.path / "state" / f"{service}.failpoints.passed"
    path.touch()
    return path
