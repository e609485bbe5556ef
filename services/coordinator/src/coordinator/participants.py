"""Which participant serves which kind of leg. Pure: the table is a setting, given once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lockstep_kit.fields import require
from lockstep_kit.plan import LegKind


class Routes:
    """Leg kind -> name of the participant that serves it; every kind has exactly one."""

    def __init__(self, names: Mapping[LegKind, str]) -> None:
        """Take the table.

        Raises:
            FieldInvalid: a kind of leg has no participant.
        """
        for kind in LegKind:
            require(bool(names.get(kind)), f"participants.{kind.value}", "must name the participant that serves such legs")
        self._names: Final = dict(names)

    def of(self, kind: LegKind) -> str:
        """Who serves legs of that kind."""
        return self._names[kind]

    @property
    def names(self) -> tuple[str, ...]:
        """Every participant, once."""
        return tuple(dict.fromkeys(self._names.values()))

    @property
    def notary(self) -> str:
        """Who puts on chain what is said of escalations."""
        return self._names[LegKind.NOTARISATION]

    @property
    def journal(self) -> str:
        """Who keeps the plans' chains."""
        return self._names[LegKind.JOURNAL]
