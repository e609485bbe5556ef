"""The service's role can do what its statements need, and nothing else."""

from __future__ import annotations

from lockstep_testkit.grants.conformance import GrantsConformance


class TestGrants(GrantsConformance):
    """Of the notary."""

    SERVICE = "notary"
    PACKAGES = ("notary", "lockstep_chain", "lockstep_kit")
    OWNERS = ("lockstep_kit.participant.schema", "notary.witness.schema")
