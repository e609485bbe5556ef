"""The same suite in the profile reservation: the money is reserved apart from the payment."""

from __future__ import annotations

from typing import Final

from test_conformance import TestConformance, harness, service, test_killed_while_it_stores_the_answer

__all__ = ["TestConformance", "harness", "service", "test_killed_while_it_stores_the_answer"]

PROFILE: Final = "reservation"
