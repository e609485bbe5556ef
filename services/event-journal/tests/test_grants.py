"""The service's role can do what its statements need, and nothing else."""

from __future__ import annotations

from lockstep_testkit.grants.conformance import GrantsConformance


class TestGrants(GrantsConformance):
    """Of the event-journal."""

    SERVICE = "event_journal"
    PACKAGES = ("event_journal", "lockstep_kit")
    OWNERS = (
        "event_journal.erasing",
        "event_journal.erase",
        "event_journal.rewrap",
        "event_journal.keys",
        "event_journal.key_store.INSERT_KEY",
        "lockstep_kit.participant.schema",
    )
