"""What a transaction leaves to be sent, and the loops that send it.

All of it is rows. Within the process that wrote them, what is to be sent is handed on as well, so that nobody has to look for it: only what was not sent, or
not answered, is looked for, by one look for all.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Final

from coordinator.commands import REPEAT_MIN
from coordinator.convert.participant import Outgoing
from coordinator.store.outboxes import PendingEvent
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.values import dataclass

#: So many take-overs are remembered; of one that is forgotten, participants are told again, which changes nothing.
TAKEOVERS_MAX: Final = 10_000
#: Of so many plans it is remembered how far the journal has them; of one that is forgotten, the rows tell.
APPENDED_MAX: Final = 10_000
#: So many events are brought at once, without waiting for company.
URGENT_EVENTS: Final = 256


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a transaction leaves to be sent."""

    #: New commands, noted as being sent, each with its participant.
    given: tuple[tuple[str, Outgoing], ...] = ()
    #: Participants for which other commands are due.
    due: frozenset[str] = frozenset()
    #: Plans whose journal is to be closed once it has their events as far as that.
    closing: Mapping[PlanId, int] = field(default_factory=dict)
    #: New events for the journal.
    recorded: tuple[PendingEvent, ...] = ()
    #: Whether somebody waits to read them there.
    awaited: bool = False
    #: Plans that are to be checked.
    checks: frozenset[PlanId] = frozenset()
    #: Whether abort audit logs are to be stored.
    audited: bool = False
    #: Whether the notary is to be told of escalations.
    escalated: bool = False


class Takeovers:
    """Plans that this process took from another, which may live on; their participants are to be shown the new epoch."""

    def __init__(self) -> None:
        #: There is one that was not told of.
        self.wake: Final = asyncio.Event()
        self._known: Final[OrderedDict[PlanId, Epoch]] = OrderedDict()
        self._untold: dict[PlanId, Epoch] = {}

    def note(self, epochs: Mapping[PlanId, Epoch]) -> None:
        """Plans that are held under these epochs."""
        for plan_id, epoch in epochs.items():
            if epoch.counter == 1 or self._known.get(plan_id) == epoch:
                continue
            self._known[plan_id] = self._untold[plan_id] = epoch
            self._known.move_to_end(plan_id)
            if len(self._known) > TAKEOVERS_MAX:
                self._known.popitem(last=False)
            self.wake.set()

    def take(self) -> Mapping[PlanId, Epoch]:
        """Those that were not taken before."""
        taken, self._untold = self._untold, {}
        return taken


class Orders:
    """Commands to one participant that are to be sent now."""

    def __init__(self) -> None:
        #: There is something to be sent.
        self.wake: Final = asyncio.Event()
        self._given: dict[tuple[PlanId, LegId], tuple[float, Outgoing]] = {}
        self._looks = True

    def give(self, outgoing: Outgoing) -> None:
        """Have a command sent that was noted as being sent. The last one about a leg is the one in force."""
        key = (outgoing.command.plan_id, outgoing.command.leg_id)
        known = self._given.get(key)
        if known is None or known[1].dossier.version <= outgoing.dossier.version:
            self._given[key] = (asyncio.get_running_loop().time(), outgoing)
        self.wake.set()

    def look(self) -> None:
        """Have looked for commands that are due."""
        self._looks = True
        self.wake.set()

    def take(self, limit: int) -> list[Outgoing]:
        """Commands that were given, by plan, and each plan's in the order of its legs. What waited for so long that it is due again is found by a look."""
        keys = sorted(self._given, key=lambda key: (key[0], self._given[key][1].dossier.index(key[1])))[:limit]
        late = asyncio.get_running_loop().time() - REPEAT_MIN.total_seconds()
        return [outgoing for given_at, outgoing in map(self._given.pop, keys) if given_at > late]

    def takes_look(self) -> bool:
        """Whether commands that are due are to be looked for; then it is done."""
        looks, self._looks = self._looks, False
        return looks


class Records:
    """Events that the journal is to be brought."""

    def __init__(self) -> None:
        #: There is something to be brought.
        self.wake: Final = asyncio.Event()
        #: Somebody waits for it.
        self.urgent: Final = asyncio.Event()
        self._recorded: dict[tuple[PlanId, int], PendingEvent] = {}
        self._appended: Final[OrderedDict[PlanId, int]] = OrderedDict()
        self._stopped: set[PlanId] = set()
        self._closing: dict[PlanId, int] = {}
        self._looks = True

    def record(self, events: Iterable[PendingEvent], closing: Mapping[PlanId, int], *, awaited: bool = False) -> None:
        """Have new events brought soon; at once where somebody waits for them, or a plan's journal is to be closed and does not have all that is before."""
        for each in events:
            self._recorded[each.plan_id, each.event.sequence] = each
            self.wake.set()
        waiting = {plan_id: sequence for plan_id, sequence in closing.items() if not self.has(plan_id, sequence)}
        self._closing |= waiting
        if waiting or awaited or len(self._recorded) >= URGENT_EVENTS:
            self.urgent.set()

    def look(self) -> None:
        """Have looked for events that the journal does not have."""
        self._looks = True
        self.urgent.set()
        self.wake.set()

    def takes_look(self) -> bool:
        """Whether events are to be looked for; then it is done, and finds what was handed on before, too."""
        looks, self._looks = self._looks, False
        if looks:
            self._recorded.clear()
        return looks

    def take(self, limit: int) -> list[PendingEvent]:
        """Events that were handed on, each plan's in order."""
        found = [self._recorded.pop(key) for key in sorted(self._recorded)[:limit]]
        return [each for each in found if each.plan_id not in self._stopped]

    @property
    def waiting(self) -> bool:
        """Whether events were handed on that are not taken."""
        return bool(self._recorded)

    def appended(self, done: Mapping[PlanId, int]) -> bool:
        """The journal has plans' events so far; whether that is all before the closing of a plan's journal."""
        for plan_id, sequence in done.items():
            self._appended[plan_id] = max(sequence, self._appended.get(plan_id, 0))
            self._appended.move_to_end(plan_id)
        while len(self._appended) > APPENDED_MAX:
            self._appended.popitem(last=False)
        complete = [each for each in done if each in self._closing and self.has(each, self._closing[each])]
        for plan_id in complete:
            del self._closing[plan_id]
        return bool(complete)

    def has(self, plan_id: PlanId, sequence: int) -> bool:
        """Whether the journal is known to have a plan's events as far as that."""
        return self._appended.get(plan_id, 0) >= sequence

    def stop(self, plan_id: PlanId) -> None:
        """Bring nothing more of a plan: the journal has another chain."""
        self._stopped.add(plan_id)


class Checking:
    """Plans that are to be checked."""

    def __init__(self) -> None:
        #: There are some.
        self.wake: Final = asyncio.Event()
        self._plans: set[PlanId] = set()

    def add(self, plans: Iterable[PlanId]) -> None:
        """Have plans checked."""
        self._plans.update(plans)
        self.wake.set()

    @property
    def waiting(self) -> int:
        """How many plans are to be checked."""
        return len(self._plans)

    def take(self, limit: int) -> Sequence[PlanId]:
        """Plans that are to be checked; none: whichever are, are to be looked for."""
        taken = sorted(self._plans)[:limit]
        self._plans.difference_update(taken)
        if self._plans:
            self.wake.set()
        return taken


@dataclass(slots=True)
class Wakes:
    """What background loops wait for."""

    #: Commands: to each participant.
    orders: dict[str, Orders]
    #: The participant that closes journals.
    journal: str
    #: Events for the journal.
    records: Records = field(default_factory=Records)
    #: Plans are to be checked.
    checks: Checking = field(default_factory=Checking)
    #: Abort audit logs are to be stored.
    audits: asyncio.Event = field(default_factory=asyncio.Event)
    #: The notary is to be told of escalations.
    escalations: asyncio.Event = field(default_factory=asyncio.Event)
    #: Plans were taken from other replicas.
    takeovers: Takeovers = field(default_factory=Takeovers)

    def wake(self, flushed: Flushed) -> None:
        """Have what was written sent at once."""
        for name, outgoing in flushed.given:
            self.orders[name].give(outgoing)
        for name in flushed.due:
            self.orders[name].look()
        self.records.record(flushed.recorded, flushed.closing, awaited=flushed.awaited)
        if flushed.closing:
            # The journal may have everything without this process having brought it.
            self.orders[self.journal].look()
        if flushed.checks:
            self.checks.add(flushed.checks)
        if flushed.audited:
            self.audits.set()
        if flushed.escalated:
            self.escalations.set()

    def look(self) -> None:
        """Plans were taken from another process: whatever is to be done about them is looked for."""
        for each in self.orders.values():
            each.look()
        self.records.look()
        self.checks.wake.set()
        self.audits.set()

    def appended(self, done: Mapping[PlanId, int]) -> None:
        """The journal has plans' events so far; what waited for that goes on."""
        if self.records.appended(done):
            self.orders[self.journal].look()
