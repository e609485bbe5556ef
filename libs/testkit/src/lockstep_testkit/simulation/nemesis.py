"""What goes wrong: for each seed other things, as hard and as often as the seed says; then all of it stops.

A seed draws which kinds of faults it has at all (so that each kind meets a world that is otherwise well) and how strong they are; then the faults of one
moment (a crash, a pause, a cut, a jump of a clock) at times of their own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from lockstep_testkit.factories import address_of
from lockstep_testkit.simulation.chain_parties import ACCOUNTS
from lockstep_testkit.simulation.database import IDLE_SECONDS_MAX
from lockstep_testkit.simulation.node import GWEI
from lockstep_testkit.simulation.people import CALL_SECONDS
from lockstep_testkit.simulation.world import World

#: A share of this many seeds has no fault of a kind.
KIND_CHANCE: Final = 0.45
#: Somebody else has a gateway's key in this share of the seeds.
INTRUDER_CHANCE: Final = 0.04
JUMP: Final = timedelta(hours=1)
#: Kinds of trouble on the chain that last a while: what of it changes, to what, and back to what.
_CHAIN: Final[Mapping[str, tuple[str, Any, Any]]] = {
    "chain_halted": ("halted", True, False),
    "node_down": ("down", True, False),
    "node_behind": ("lag", 3, 0),
    "node_far_behind": ("lag", 12, 0),
    "fees_high": ("base_fee", 60 * GWEI, GWEI),
    "fees_above_ceiling": ("base_fee", 2_000 * GWEI, GWEI),
    "escrow_paused": ("paused", True, False),
    "payouts_fail": ("unpaid", frozenset({address_of("seller"), address_of("buyer")}), frozenset()),
}


class Nemesis:
    """The faults of one seed."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._healed = False
        #: Every fault of one moment that this seed has.
        self._moments: list[Callable[[], None]] = [
            each
            for each in (
                self._crash,
                self._pause,
                self._cut,
                self._clog,
                self._jump,
                self._database_down,
                self._disk,
                self._chain_trouble,
                self._pool,
            )
            if self._has()
        ]
        if chance.random() < INTRUDER_CHANCE:
            self._moments.append(self._intrude)
        if world.shape.restores:
            self._moments.append(self._restore)

    def _has(self) -> bool:
        return self._chance.random() < KIND_CHANCE

    def _share(self, most: float) -> float:
        """How strong a fault of this seed is: often a little, sometimes all that there may be."""
        return most * self._chance.random() ** 2 if self._has() else 0.0

    def climate(self) -> None:
        """What is wrong all the time."""
        world = self._world
        weather = world.weather
        weather.loss, weather.replay = self._share(0.3), self._share(0.5)
        weather.replay_seconds_max = self._chance.choice((0.1, 2.0, 30.0))
        weather.slow, weather.slow_seconds_max = self._share(0.3), self._chance.choice((0.05, 1.0, 5.0))
        weather.broken = self._share(0.2)
        self._bank_climate()
        self._chain_climate()
        slow, lost, commits = self._share(0.5), self._share(0.02), self._share(0.1)
        for trouble_ in world.troubles.values():
            trouble_.slow, trouble_.slow_seconds_max = slow, self._chance.choice((0.002, 0.02, 0.5))
            trouble_.lost, trouble_.lost_at_commit = lost, commits

    def _bank_climate(self) -> None:
        """A bank and the line to it, from a stream of their own; now and then a bank that does nothing right."""
        chance = self._world.seeded.stream("bank climate")
        often = 0.8 if chance.random() < 0.2 else KIND_CHANCE

        def share(most: float) -> float:
            return most * chance.uniform(0.3, 1.0) if chance.random() < often else 0.0

        desk, rail = self._world.bank.desk.trouble, self._world.bank.trouble
        rail.loses, rail.times_out, rail.repeats = share(0.3), share(0.3), share(0.5)
        rail.mailbox_fails, rail.damages = share(0.3), share(0.2)
        desk.loses, desk.repeats, desk.delays = share(0.3), share(0.5), share(0.5)
        desk.delay_seconds_max = chance.choice((0.5, 5.0, 20.0))
        desk.refuses, desk.refuses_release, desk.refuses_cancellation = share(0.3), share(0.3), share(0.5)
        desk.ends_early, desk.turns_away, desk.forgets = share(0.3), share(0.1), share(0.2)
        desk.contradicts, desk.rejects_repeats = share(0.3), share(0.8)

    def _chain_climate(self) -> None:
        """A chain and the line to its node, from a stream of their own."""
        chance = self._world.seeded.stream("chain climate")

        def share(most: float) -> float:
            return most * chance.random() ** 2 if chance.random() < KIND_CHANCE else 0.0

        trouble = self._world.chain.node.trouble
        trouble.lost, trouble.doubled = share(0.3), share(0.5)
        trouble.slow, trouble.slow_seconds_max = share(0.3), chance.choice((0.01, 0.3, 2.0))
        trouble.dropped, trouble.stuck, trouble.reorganised = share(0.5), share(0.5), share(0.3)
        trouble.unfunded, trouble.unindexed, trouble.out_of_gas = share(0.3), share(0.5), share(0.3)
        trouble.impossible = share(0.1)
        self._world.people.missigns = share(0.4)

    async def rage(self) -> None:
        """Break things until the time is up."""
        if not self._moments:
            await asyncio.sleep(self._world.shape.span)
            return
        pace = self._chance.choice((1.0, 2.0, 5.0))
        until = self._world.loop.time() + self._world.shape.span
        while True:
            wait = self._chance.expovariate(1 / pace)
            if self._world.loop.time() + wait > until:
                await asyncio.sleep(max(0.0, until - self._world.loop.time()))
                return
            await asyncio.sleep(wait)
            self._chance.choice(self._moments)()

    # -- faults of one moment ----------------------------------------------------------------------------------------

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._world.loop.call_later(seconds, what, context=self._world.outside.context())

    def _tell(self, kind: str, **about: object) -> None:
        self._world.count(kind)
        self._world.timeline.tell("nemesis", kind, **about)

    def _crash(self) -> None:
        name = self._chance.choice(self._world.names)
        process = self._world.processes[name]
        if not process.alive:
            return
        self._tell("crash", target=name)
        process.kill()
        self._later(self._chance.choice((0.05, 1.0, 8.0)) * self._chance.random(), lambda: self._restart(name))

    def _restart(self, name: str) -> None:
        if not self._world.processes[name].alive:
            self._world.start(name)

    def _pause(self) -> None:
        name = self._chance.choice(self._world.names)
        process = self._world.processes[name]
        if not process.running:
            return
        seconds = self._chance.choice((0.5, 6.0, 15.0, 40.0)) * self._chance.random()
        self._tell("pause", target=name, seconds=round(seconds, 3))
        process.pause()
        if seconds > IDLE_SECONDS_MAX:
            self._later(IDLE_SECONDS_MAX, process.abandon)
        self._later(seconds, process.resume)

    def _link(self) -> tuple[str, str]:
        coordinator = self._chance.choice(self._world.replicas)
        others = [*self._world.names[len(self._world.replicas) :], "people"]
        return coordinator, self._chance.choice(others)

    def _cut(self) -> None:
        one, other = self._link()
        kind = self._chance.random()
        cut = {(one, other), (other, one)} if kind < 0.5 else {(one, other)} if kind < 0.75 else {(other, one)}
        seconds = self._chance.choice((0.5, 5.0, 20.0)) * self._chance.random()
        self._tell("cut", links=sorted(cut), seconds=round(seconds, 3))
        self._world.weather.cut |= cut
        self._later(seconds, lambda: self._world.weather.cut.difference_update(cut))

    def _clog(self) -> None:
        one, other = self._link()
        link = (one, other) if self._chance.random() < 0.5 else (other, one)
        seconds = 2 * CALL_SECONDS * self._chance.random()
        self._tell("clog", link=link, seconds=round(seconds, 3))
        self._world.weather.clogged[link] = self._world.loop.time() + seconds

    def _jump(self) -> None:
        name = self._chance.choice(list(self._world.servers))
        server = self._world.servers[name]
        jump = JUMP * self._chance.choice((-1, 1)) * (1.0 if self._chance.random() < 0.5 else self._chance.random())
        self._tell("clock_jump", target=name, seconds=round(jump.total_seconds(), 3))
        server.skew += jump

    def _database_down(self) -> None:
        name = self._chance.choice(list(self._world.servers))
        server, trouble = self._world.servers[name], self._world.troubles[name]
        seconds = 3 * self._chance.random()
        self._tell("database_down", target=name, seconds=round(seconds, 3))
        trouble.down = True
        server.lose(list(server.open))
        self._later(seconds, lambda: setattr(trouble, "down", False))

    def _chain_trouble(self) -> None:
        """For a while the chain, or its node, or what its contracts are allowed to do, is not as it was."""
        trouble, kind = self._world.chain.node.trouble, self._chance.choice(list(_CHAIN))
        name, value, back = _CHAIN[kind]
        self._tell(kind)
        setattr(trouble, name, value)
        self._later(10 * self._chance.random(), lambda: setattr(trouble, name, back))

    def _pool(self) -> None:
        """The node starts again with an empty pool."""
        self._tell("pool_lost")
        self._world.chain.node.forget()

    def _intrude(self) -> None:
        """Somebody else uses the key of one of a gateway's accounts."""
        name = self._chance.choice(ACCOUNTS)
        self._tell("nonce_used_elsewhere", target=name)
        self._world.chain.node.use_nonce(self._chance.choice(self._world.chain.signers[name]))

    def _disk(self) -> None:
        self._tell("audit_store_full")
        self._world.audits.full = True
        self._later(8 * self._chance.random(), lambda: setattr(self._world.audits, "full", False))

    def _restore(self) -> None:
        """A database is lost, and what comes back is what it was a while before."""
        name = self._chance.choice(list(self._world.servers))
        snapshot = self._world.servers[name].snapshot()
        seconds = self._chance.choice((0.5, 5.0, 15.0)) * self._chance.random()
        since = self._world.loop.time()
        until = since + seconds

        def put_back() -> None:
            # What is lost with a database stays lost: nothing is put back once everything is said to be well.
            if not self._healed:
                self._tell("database_restored", target=name, lost_seconds=round(seconds, 3), moment=round(until, 3))
                self._world.put_back(name, snapshot, since)

        self._later(seconds, put_back)

    # -- and then ----------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything is well from now on: who was killed starts again, clocks agree."""
        world = self._world
        world.timeline.tell("nemesis", "heal")
        self._healed = True
        world.healed_at = world.loop.time()
        world.weather.clear()
        world.bank.desk.trouble.clear()
        world.bank.trouble.clear()
        world.audits.full = False
        world.chain.node.trouble.clear()
        world.people.missigns = 0.0
        # A clock that is behind is put right; one that is ahead is waited for, and the others agree with the coordinator's.
        now = max(world.servers["coordinator"].skew, timedelta(0))
        for name, trouble_ in world.troubles.items():
            world.count_by("database_connection_lost", trouble_.lost_count)
            trouble_.slow = trouble_.lost = trouble_.lost_at_commit = 0.0
            trouble_.down = False
            world.servers[name].skew = now
        for name in world.names:
            process = world.processes[name]
            process.resume()
            self._restart(name)
