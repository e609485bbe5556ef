"""One seed: a world, its faults, the healing, and what was found."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from lockstep_testkit.simulation import checking
from lockstep_testkit.simulation.chance import Seeded
from lockstep_testkit.simulation.loop import START_SECONDS, LoopStuck, VirtualLoop, run
from lockstep_testkit.simulation.nemesis import Nemesis
from lockstep_testkit.simulation.world import COORDINATOR, Shape, World

#: Virtual seconds from the healing to the end of everything.
HEALED_SECONDS_MAX: Final = 300.0
LOOK_SECONDS: Final = 1.0
#: Share of the seeds in which databases are put back.
RESTORES: Final = 0.2
#: Share of the seeds in which gateways have a second process.
STANDBYS: Final = 0.2
#: After the last plan's end, until what the chain did is final.
AFTERMATH_SECONDS: Final = 5.0
#: The same where databases were put back: until who followed a log that fell silent has asked again, and what was forgotten is told again.
RESTORED_SECONDS: Final = 30.0
#: So long after the healing every participant is heard: a stream that was cut is noticed by its silence, and begun again after a pause.
HEARD_SECONDS_MAX: Final = 40.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a seed."""

    #: The seed.
    seed: int
    #: What does not hold; empty when all does.
    findings: tuple[str, ...]
    #: Plans that were made.
    plans: int
    #: How many plans ended how: state and outcome.
    ends: dict[str, int]
    #: Faults by kind.
    faults: dict[str, int]
    #: Virtual seconds.
    seconds: float
    #: Virtual seconds from the healing to rest.
    healing_seconds: float
    #: Facts of the timeline, as text, when asked for.
    lines: tuple[str, ...]


def shape_of(chance: random.Random, *, restores: bool) -> Shape:
    """What a seed's world is made of."""
    return Shape(
        replicas=chance.choice((1, 1, 2)),
        plans=chance.choice((1, 1, 2, 3)),
        span=chance.choice((10.0, 25.0, 40.0)),
        promise_seconds=chance.choice((None, None, 600.0, 60.0)),
        restores=chance.random() < RESTORES or restores,
        standbys=chance.random() < STANDBYS,
    )


def simulate(seed: int, *, told: bool = False, restores: bool = False, watch: Callable[[World], None] | None = None) -> Result:
    """Run a seed; `watch` is shown the world once it has its climate, before anything runs."""
    with _uncollected(), Seeded(seed) as seeded:
        loop = VirtualLoop(seeded.stream("order"))
        world = World(seeded, loop, shape_of(seeded.stream("shape"), restores=restores))
        healing, stuck = 0.0, tuple[str, ...]()
        try:
            healing = run(loop, _live(world, watch))
        except LoopStuck as error:
            stuck = (f"I5: {error}",)
        findings = (*stuck, *checking.findings(world))
    ends: dict[str, int] = {}
    for row in checking.rows(world, "plan"):
        name = row["outcome"] if row["state"] == "CLOSED" else f"{row['state']} with a ticket"
        ends[name] = ends.get(name, 0) + 1
    return Result(
        seed=seed,
        findings=findings,
        plans=len(world.people.cases),
        ends=ends,
        faults=dict(world.faults),
        seconds=loop.time() - START_SECONDS,
        healing_seconds=healing,
        lines=tuple(world.timeline.lines()) if told else (),
    )


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing is collected in the middle of a seed: when that happens is not the seed's to say, and a task that is runs its `finally` blocks."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


async def _live(world: World, watch: Callable[[World], None] | None) -> float:
    """Faults, then healing; seconds from the healing to rest."""
    nemesis = Nemesis(world, world.seeded.stream("nemesis"))
    nemesis.climate()
    if watch is not None:
        watch(world)
    world.begin()
    await nemesis.rage()
    nemesis.heal()
    healed = world.loop.time()
    over = await _rest(world, healed)
    await asyncio.sleep(RESTORED_SECONDS if world.restored else AFTERMATH_SECONDS)
    if not _over(world):
        # A copy of a request that was refused arrived late, and was not refused.
        over = await _rest(world, healed)
    while any(checking.unheard(world)) and world.loop.time() < healed + HEARD_SECONDS_MAX:  # noqa: ASYNC110 - nobody would set an event
        await asyncio.sleep(LOOK_SECONDS)
    world.timeline.closed = True
    return over - healed


async def _rest(world: World, healed: float) -> float:
    """Wait for everything to come to rest, within the bound; when it had."""
    while world.loop.time() < healed + HEALED_SECONDS_MAX and not _over(world):  # noqa: ASYNC110 - nobody would set an event
        await asyncio.sleep(LOOK_SECONDS)
    return world.loop.time()


def _over(world: World) -> bool:
    """Whether every plan is at rest, and every person has had their say."""
    plans = world.servers[COORDINATOR].tables["plan"]
    for case in world.people.cases:
        row = plans.get((case.plan.plan_id,))
        lost = case.created and world.generation > 1
        if row is None and not (case.refused or lost):
            return False
        if row is not None and not checking.at_rest(world, row):
            return False
    return True
