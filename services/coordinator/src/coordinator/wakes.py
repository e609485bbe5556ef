"""What a transaction leaves to be sent, and the loops that send it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from lockstep_kit.fence import Epoch
from lockstep_kit.ids import PlanId

#: So many take-overs are remembered; of one that is forgotten, participants are told again, which changes nothing.
TAKEOVERS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a transaction leaves to be sent."""

    #: Participants that have new commands.
    told: frozenset[str] = frozenset()
    #: Whether the journal lacks events.
    recorded: bool = False
    #: Whether plans are to be checked.
    checks: bool = False
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


@dataclass(slots=True)
class Wakes:
    """Events that background loops wait for."""

    #: Commands are due: one of each participant.
    relays: dict[str, asyncio.Event]
    #: The journal lacks events.
    journal: asyncio.Event = field(default_factory=asyncio.Event)
    #: Plans are to be checked.
    checks: asyncio.Event = field(default_factory=asyncio.Event)
    #: Abort audit logs are to be stored.
    audits: asyncio.Event = field(default_factory=asyncio.Event)
    #: The notary is to be told of escalations.
    escalations: asyncio.Event = field(default_factory=asyncio.Event)
    #: Plans were taken from other replicas.
    takeovers: Takeovers = field(default_factory=Takeovers)

    def wake(self, flushed: Flushed) -> None:
        """Have what was written sent at once."""
        for name in flushed.told:
            self.relays[name].set()
        if flushed.recorded:
            self.journal.set()
        if flushed.checks:
            self.checks.set()
        if flushed.audited:
            self.audits.set()
        if flushed.escalated:
            self.escalations.set()
