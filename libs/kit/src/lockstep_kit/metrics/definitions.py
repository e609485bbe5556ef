"""Definitions of metrics: name, kind, labels, and what the number says. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from lockstep_kit.fields import require
from lockstep_kit.values import dataclass

_NAME: Final = re.compile(r"lockstep(_[a-z][a-z0-9]*)+")
_LABEL: Final = re.compile(r"[a-z][a-z_]*")
#: Their values grow with the business: each would be a time series for ever, and some are nobody's business.
UNBOUNDED: Final = frozenset(
    {"plan", "plan_id", "leg", "leg_id", "trace_id", "request_id", "escalation_id", "uetr", "account", "iban", "actor_id", "key_id"}
)


class Kind(StrEnum):
    """How a number behaves."""

    #: Only grows while the process lives.
    COUNTER = "counter"
    #: Is what it is now.
    GAUGE = "gauge"
    #: How often something took how long.
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric."""

    #: As it is queried: unit last, and `_total` behind that of a counter.
    name: str
    #: How it behaves.
    kind: Kind
    #: One sentence, with the unit.
    text: str
    #: Names of its labels.
    labels: tuple[str, ...] = ()

    def check(self) -> None:
        """The name has its form, and no label has values without end.

        Raises:
            FieldInvalid: one does not hold.
        """
        require(_NAME.fullmatch(self.name) is not None, "name", f"must be lower case parts behind lockstep_, not {self.name}")
        counts = self.kind is Kind.COUNTER
        require(self.name.endswith("_total") == counts, "name", f"must end with _total if, and only if, it counts: {self.name}")
        if self.kind is Kind.HISTOGRAM:
            require(self.name.endswith("_seconds"), "name", f"must end with its unit: {self.name}")
        for label in self.labels:
            require(_LABEL.fullmatch(label) is not None, "labels", f"must be lower case words, not {label}")
            require(label not in UNBOUNDED, "labels", f"must have few values: {label} of {self.name} has not")

    @property
    def family(self) -> str:
        """Name of its family in OpenMetrics, where a counter's has no suffix."""
        return self.name.removesuffix("_total")


def check_all(definitions: Iterable[Definition]) -> tuple[Definition, ...]:
    """All of them, each name once.

    Raises:
        FieldInvalid: one breaks a rule, or a name stands twice.
    """
    found: dict[str, Definition] = {}
    for each in definitions:
        each.check()
        require(each.name not in found, "name", f"must stand once: {each.name}")
        found[each.name] = each
    return tuple(found.values())
