"""Who may see a plan, act on it, bring one. Pure.

A plan is seen by who stands for one of its parties, by who brought it, by operators and by auditors. Whoever sees a plan may bring a person's signature or
a payer's to it, since signatures speak for themselves; auditors alone only read. What somebody may not see is to them as if it were not there.
"""

from __future__ import annotations

from collections.abc import Iterable

from lockstep_kit.ids import PartyId
from lockstep_kit.standing import Desk, Standing
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """A caller."""

    #: SPIFFE id of its certificate.
    client_id: str
    #: Whom it stands for.
    standing: Standing


@dataclass(frozen=True, slots=True)
class Belonging:
    """Whose a plan is. Never changes."""

    #: Its parties, as its maker signed them.
    parties: frozenset[PartyId]
    #: Client that brought it; "" where nobody wrote it down.
    creator: str


def may_read(client: Client, belonging: Belonging | None) -> bool:
    """Whether a client may see a plan; no plan at all is seen by nobody."""
    if belonging is None:
        return False
    return client.standing.sees(belonging.parties) or client.client_id == belonging.creator


def may_act(client: Client, belonging: Belonging | None) -> bool:
    """Whether a client may have a plan executed or cancelled, or bring a signature to it."""
    return client.standing.desk is not Desk.AUDITOR and may_read(client, belonging)


def may_create(client: Client, parties: Iterable[PartyId]) -> bool:
    """Whether a client may bring a plan of these parties: it stands for one of them. Being there for every plan is not enough."""
    return client.standing.desk is not Desk.AUDITOR and not client.standing.parties.isdisjoint(parties)
