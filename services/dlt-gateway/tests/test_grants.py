"""The service's role can do what its statements need, and nothing else."""

from __future__ import annotations

from lockstep_testkit.grants.conformance import GrantsConformance


class TestGrants(GrantsConformance):
    """Of the dlt-gateway."""

    SERVICE = "dlt_gateway"
    PACKAGES = ("dlt_gateway", "lockstep_chain", "lockstep_kit")
