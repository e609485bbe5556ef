"""Instruments that code counts with where things happen. They cost a lock and an addition, and know nothing of who looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lockstep_kit.metrics.definitions import Definition, Kind

#: From a local call to a person who comes back from lunch.
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0)
#: What happens within one process, or between two.
CALL_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Instruments:
    """What one module counts with. Whoever serves them puts them on its page; until then they count for nobody."""

    def __init__(self) -> None:
        #: What there is.
        self.definitions: list[Definition] = []
        self._collectors: list[Counter | Gauge | Histogram] = []

    def counter(self, name: str, text: str, labels: Sequence[str] = (), *, known: Sequence[Sequence[str]] = ()) -> Counter:
        """A number that grows. `known` values of its labels are shown from the start, so that the first one of a kind is seen as a change."""
        made = Counter(self._defined(name, Kind.COUNTER, text, labels), text, labels, registry=None)
        for values in known:
            made.labels(*values)
        self._collectors.append(made)
        return made

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """A number that is what it is now."""
        made = Gauge(self._defined(name, Kind.GAUGE, text, labels), text, labels, registry=None)
        self._collectors.append(made)
        return made

    def histogram(self, name: str, text: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = SECONDS) -> Histogram:
        """How often something took how long."""
        made = Histogram(self._defined(name, Kind.HISTOGRAM, text, labels), text, labels, registry=None, buckets=buckets)
        self._collectors.append(made)
        return made

    def register(self, registry: CollectorRegistry) -> None:
        """Put all of them on a page."""
        for each in self._collectors:
            registry.register(each)

    def _defined(self, name: str, kind: Kind, text: str, labels: Sequence[str]) -> str:
        definition = Definition(name, kind, text, tuple(labels))
        definition.check()
        self.definitions.append(definition)
        return name


def exemplar(traceparent: str | None) -> dict[str, str] | None:
    """The trace of one observation (W3C trace context), by which it can be looked up; None where it is not recorded anywhere."""
    parts = (traceparent or "").split("-")
    if len(parts) != 4 or len(parts[1]) != 32 or parts[3][-1:] not in "13579bdf" or not parts[3]:
        return None
    return {"trace_id": parts[1]}
