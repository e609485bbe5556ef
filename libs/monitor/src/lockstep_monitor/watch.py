"""The monitor's rules over the whole journal: entries in order of position, checkpoints, and the clock, in; findings out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from lockstep_kit.registry import Registry
from lockstep_monitor.entries import Delivered, read_entry
from lockstep_monitor.findings import Finding, Rule
from lockstep_monitor.log import LogWatch, Names, Tree
from lockstep_monitor.plans import Patience, PlanChain


class JournalWatch:
    """What the journal has said so far."""

    def __init__(self, registry: Registry, names: Names, patience: Patience, tree: Tree | None = None) -> None:
        """Begin at an empty log, or behind a tree that was read before; then `adopt` each plan before its next entry."""
        self._registry = registry
        self._patience = patience
        self.log = LogWatch(names, registry, tree)
        self._plans: dict[str, PlanChain] = {}
        #: Nothing behind what was read was written before this time.
        self.floor: datetime | None = None

    @property
    def position(self) -> int:
        """Place of the last entry that was read."""
        return self.log.tree.size

    def open_plans(self) -> list[str]:
        """Plans that are not sealed."""
        return [plan_id for plan_id, chain in self._plans.items() if not chain.sealed]

    def knows(self, plan_id: str, sequence: int) -> bool:
        """Whether an entry of a plan can be read: its chain begins with it, or what stands before it was read."""
        return sequence <= 1 or plan_id in self._plans

    def adopt(self, entries: Iterable[Delivered]) -> Iterator[Finding]:
        """A plan's entries of before the place where reading goes on: the same findings again, and no place in the tree."""
        for given in entries:
            if given.position <= self.position:
                yield from self._in_plan(given)

    def read(self, given: Delivered, now: datetime) -> Iterator[Finding]:
        """The next entry of the log."""
        place = (given.plan_id, given.sequence, given.position)
        if given.position != self.position + 1:
            yield Finding(Rule.POSITION_GAP, f"the log's entry {self.position + 1} was delivered as {given.position}", *place)
        if given.event_time > now + self._patience.skew:
            yield Finding(Rule.ENTRY_AHEAD, f"the entry is of {given.event_time.isoformat()}, which is to come", *place)
        self.log.add(given.canonical_bytes)
        yield from self._in_plan(given)
        if given.event_time <= now + self._patience.skew:
            self.floor = given.event_time if self.floor is None else max(self.floor, given.event_time)

    def checkpoint(self, note: bytes, now: datetime) -> Iterator[Finding]:
        """The journal's newest checkpoint, once its size was read."""
        yield from self.log.checkpoint(note, now)

    def witnessed(self, note: bytes, now: datetime) -> Iterator[Finding]:
        """The witness's newest checkpoint, once its size was read."""
        yield from self.log.witnessed(note, now)
        seen = self.log.witnessed_at(note)
        if seen is not None and seen[0] <= self.position:
            self.floor = seen[1] if self.floor is None else max(self.floor, seen[1])

    def overdue(self, now: datetime) -> Iterator[Finding]:
        """What is missing by now, of every plan that is open."""
        for chain in self._plans.values():
            yield from chain.overdue(now, self._patience)

    def _in_plan(self, given: Delivered) -> Iterator[Finding]:
        entry, broken = read_entry(given, self._registry)
        for each in broken:
            yield Finding(each.rule, each.message, given.plan_id, given.sequence, given.position)
        if entry is None:
            return
        chain = self._plans.get(given.plan_id)
        if chain is None:
            chain = self._plans[given.plan_id] = PlanChain(given.plan_id)
        yield from chain.read(entry, self._registry, self._patience, self.floor)

    def forget_sealed(self) -> None:
        """Drop what is over: an entry behind a seal is read with its plan's chain again."""
        self._plans = {plan_id: chain for plan_id, chain in self._plans.items() if not chain.sealed}
