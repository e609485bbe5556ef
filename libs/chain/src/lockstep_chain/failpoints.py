"""Names of the places at which the machine can be made to die; each is prefixed by the name of the service that embeds it."""

from __future__ import annotations

from typing import Final

from lockstep_kit.failpoints import declare

PLACES: Final = (
    "chain.assign.before_tx",
    "chain.assign.in_tx",
    "chain.assign.after_commit",
    "chain.broadcast.after_send",
    "chain.broadcast.in_tx",
    "chain.broadcast.after_commit",
    "chain.replace.in_tx",
    "chain.replace.after_commit",
    "chain.mined.in_tx",
    "chain.mined.after_commit",
    "chain.confirm.before_tx",
    "chain.confirm.in_tx",
    "chain.confirm.after_commit",
)

#: Where legs are queued for the machine. What follows the commit is `chain.assign.before_tx`.
CARRIER_PLACES: Final = ("chain.carry.in_tx",)


def declare_failpoints(service: str) -> None:
    """Make the machine's and the carrier's failpoints known under a service's name; call it when the service's module is imported, before any is armed."""
    declare(*(f"{service}.{place}" for place in (*PLACES, *CARRIER_PLACES)))
