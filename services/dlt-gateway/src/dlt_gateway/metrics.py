"""What the dlt-gateway shows beside what every participant shows: its chain and its transactions."""

from __future__ import annotations

from typing import Final

from lockstep_chain import metrics as chain
from lockstep_kit.metrics.serving import Metrics

METRICS: Final = Metrics((chain.INSTRUMENTS,), chain.READINGS)
