"""Whom a caller stands for, and what of plans it may therefore see. Pure.

One rule for every server that plans can be read from: a plan is seen by who stands for one of its parties, by operators and by auditors. The coordinator
adds to it who brought the plan (`coordinator.access`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from lockstep_kit.ids import PartyId
from lockstep_kit.values import dataclass


class Desk(StrEnum):
    """What a caller is there for when it is there for every plan."""

    OPERATOR = "operator"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Standing:
    """Whom a caller stands for. Who stands for nobody sees nothing."""

    #: Parties, by the ids that plans name them by.
    parties: frozenset[PartyId] = frozenset()
    #: Whether it is there for every plan, and as what.
    desk: Desk | None = None

    @property
    def sees_all(self) -> bool:
        """Whether it sees every plan."""
        return self.desk is not None

    def sees(self, parties: Iterable[PartyId]) -> bool:
        """Whether it sees a plan of these parties."""
        return self.sees_all or not self.parties.isdisjoint(parties)


#: Of callers that no table says anything about.
NOBODY = Standing()
