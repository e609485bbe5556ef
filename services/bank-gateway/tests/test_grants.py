"""The service's role can do what its statements need, and nothing else."""

from __future__ import annotations

from lockstep_testkit.grants.conformance import GrantsConformance


class TestGrants(GrantsConformance):
    """Of the bank-gateway."""

    SERVICE = "bank_gateway"
    PACKAGES = ("bank_gateway", "lockstep_kit")
