"""Who does the harm: one fault after another, in a mix that shifts, with quiet windows between; and who heals everything at the end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import aiohttp

from lockstep_sandbox import outside
from lockstep_sandbox.chain import NAME as CHAIN
from lockstep_sandbox.evm import NodeRefused
from lockstep_sandbox.network import Weather
from lockstep_sandbox.processes import ProgramFailed
from lockstep_sandbox.stack import BANK, SERVICES, Sandbox
from lockstep_testkit.miner import Miner

#: How long one mix lasts.
PERIOD_SECONDS: Final = 8.0
#: Share of periods in which nothing happens.
QUIET: Final = 0.25
#: Kinds of fault that are mixed in one period.
MIXED_MAX: Final = 3
HEALS_MAX: Final = 20
#: Reorganisations stay within what is not final yet.
REORGANISED_BLOCKS_MAX: Final = 3


class Fault(StrEnum):
    """What can be done to a running system."""

    KILL = "kill"
    PAUSE = "pause"
    POWER = "postgres_kill"
    CUT = "network_cut"
    STALL = "network_stall"
    LOST_ANSWER = "network_lost_answers"
    LOST_REQUEST = "network_lost_requests"
    SLOW = "network_slow"
    BANK_KILL = "bank_kill"
    BANK_MISBEHAVES = "bank_misbehaviour"
    NODE_PAUSE = "chain_pause"
    REORGANISATION = "chain_reorganisation"
    DROPPED = "chain_dropped_transaction"
    STANDSTILL = "chain_standstill"
    DEAR = "chain_dear"


#: What the bank is told to do wrong; the rarer, the more it needs a person.
MISCHIEF: Final[Sequence[tuple[int, Mapping[str, Any]]]] = (
    (8, {"kind": "lose"}),
    (8, {"kind": "duplicate", "copies": 2}),
    (8, {"kind": "delay", "delay_ms": 1500}),
    (4, {"kind": "refuse", "reason": "AM04", "stage": "payment"}),
    (1, {"kind": "refuse", "reason": "AM04", "stage": "release"}),
    (1, {"kind": "contradict", "reason": "AC04", "stage": "release"}),
    (1, {"kind": "misbook", "field": "amount"}),
    (1, {"kind": "book_without_status"}),
)
_WEATHER: Final = {
    Fault.CUT: Weather.CUT,
    Fault.STALL: Weather.STALLED,
    Fault.LOST_ANSWER: Weather.DEAF,
    Fault.LOST_REQUEST: Weather.MUTE,
    Fault.SLOW: Weather.SLOW,
}


@dataclass
class Nemesis:
    """Does harm until told to stop. Everything that it draws, it draws from one seed."""

    #: What it is done to.
    sandbox: Sandbox
    #: Who mines.
    miner: Miner
    #: What decides.
    rng: random.Random
    #: A pause is longer than the coordinator's leases.
    lease_seconds: float
    #: What was done, by kind.
    done: Counter[str] = field(default_factory=Counter)
    #: Periods without harm.
    quiet_periods: int = 0

    async def run(self) -> None:
        """Do harm until cancelled."""
        while True:
            if self.rng.random() < QUIET:
                self.quiet_periods += 1
                await asyncio.sleep(PERIOD_SECONDS)
                continue
            mix = self.rng.sample(list(Fault), self.rng.randint(1, MIXED_MAX))
            ends = asyncio.get_running_loop().time() + PERIOD_SECONDS
            while asyncio.get_running_loop().time() < ends:
                fault = self.rng.choice(mix)
                # What cannot be done just now, such as to kill what is dead, is left.
                with contextlib.suppress(ProgramFailed, KeyError, NodeRefused, OSError, aiohttp.ClientError, RuntimeError):
                    await self._do(fault)
                await asyncio.sleep(self.rng.uniform(0.3, 2.0))

    async def heal(self) -> None:
        """Undo everything that does not pass by itself."""
        for door in self.sandbox.doors.values():
            await door.turn(Weather.FAIR)
        supervisor = self.sandbox.supervisor
        for name in supervisor.names():
            supervisor.resume(name)
        self.miner.mines, self.miner.dear = True, False
        self.sandbox.databases.server.start()
        for _ in range(HEALS_MAX):
            # Whoever lost its database may only now notice, and give up.
            for name in list(supervisor.ended()):
                await supervisor.restart(name)
            with contextlib.suppress(aiohttp.ClientError):
                headers = {"Authorization": f"Bearer {self.sandbox.control_token}"}
                async with (
                    aiohttp.ClientSession(headers=headers) as session,
                    session.delete(f"{self.sandbox.control_url}/misbehaviours") as answer,
                ):
                    answer.raise_for_status()
                return
            await asyncio.sleep(0.5)
        raise RuntimeError(f"the bank cannot be healed: {supervisor.log_tail(BANK)}")

    # -- The faults --------------------------------------------------------------------------------------------------

    async def _do(self, fault: Fault) -> None:
        doing: dict[Fault, Callable[[], Awaitable[None]]] = {
            Fault.KILL: lambda: self._kill(self.rng.choice(list(self.sandbox.replicas))),
            Fault.BANK_KILL: lambda: self._kill(BANK),
            Fault.PAUSE: lambda: self._pause(
                self.rng.choice(list(self.sandbox.replicas)), self.lease_seconds + self.rng.uniform(0.5, 2)
            ),
            Fault.NODE_PAUSE: lambda: self._pause(CHAIN, self.rng.uniform(0.5, 2)),
            Fault.POWER: self._power,
            Fault.BANK_MISBEHAVES: self._mischief,
            Fault.REORGANISATION: self._reorganise,
            Fault.DROPPED: self._drop,
            Fault.STANDSTILL: self._stand_still,
            Fault.DEAR: self._grow_dear,
        }
        work = doing[fault]() if fault in doing else self._weather(_WEATHER[fault])
        await work
        self.done[fault.value] += 1

    async def _kill(self, name: str) -> None:
        if not self.sandbox.supervisor.is_running(name):
            return
        await self.sandbox.supervisor.kill9(name)
        await asyncio.sleep(self.rng.uniform(0.0, 1.5))
        await self.sandbox.supervisor.start(self.sandbox.supervisor.program(name))

    async def _pause(self, name: str, seconds: float) -> None:
        self.sandbox.supervisor.pause(name)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.sandbox.supervisor.resume(name)

    async def _power(self) -> None:
        server = self.sandbox.databases.server
        server.kill9()
        try:
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        finally:
            server.start()
        for name in list(self.sandbox.supervisor.ended()):
            await self.sandbox.supervisor.restart(name)

    async def _weather(self, weather: Weather) -> None:
        door = self.sandbox.doors[self.rng.choice(SERVICES)]
        await door.turn(weather, self.rng.uniform(0.05, 0.5))
        try:
            await asyncio.sleep(self.rng.uniform(0.5, 4.0))
        finally:
            await door.turn(Weather.FAIR)

    async def _mischief(self) -> None:
        weights, scripts = zip(*MISCHIEF, strict=True)
        script = self.rng.choices(scripts, weights)[0]
        await outside.bank_command(self.sandbox, "/misbehaviours", {**script, "times": 1})

    async def _reorganise(self) -> None:
        await self.sandbox.chain.node.call("anvil_reorg", self.rng.randint(1, REORGANISED_BLOCKS_MAX), [])

    async def _drop(self) -> None:
        """Have the node forget a transaction that it has not mined yet."""
        pool = await self.sandbox.chain.node.call("txpool_content")
        waiting = sorted(each["hash"] for sent in pool["pending"].values() for each in sent.values())
        if waiting:
            await self.sandbox.chain.node.call("anvil_dropTransaction", self.rng.choice(waiting))

    async def _stand_still(self) -> None:
        self.miner.mines = False
        try:
            await asyncio.sleep(self.rng.uniform(0.5, 2.5))
        finally:
            self.miner.mines = True

    async def _grow_dear(self) -> None:
        self.miner.dear = True
        try:
            await asyncio.sleep(self.rng.uniform(0.5, 2.5))
        finally:
            self.miner.dear = False
