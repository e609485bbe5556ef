"""The same suite in the profile plain: nothing is promised but the best effort."""

from __future__ import annotations

from typing import Final

from test_conformance import TestConformance, harness, service, test_killed_while_it_stores_the_answer

__all__ = ["TestConformance", "harness", "service", "test_killed_while_it_stores_the_answer"]

PROFILE: Final = "plain"
