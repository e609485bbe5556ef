"""Who may be a party of a plan. Pure: two lists, given by settings."""

from __future__ import annotations

from lockstep_kit.plan import PlanHeader
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Compliance:
    """Lists of parties, by party id or legal entity identifier."""

    #: When not empty: only these.
    allowed: frozenset[str] = frozenset()
    #: Never these.
    denied: frozenset[str] = frozenset()


def barred_party(header: PlanHeader, rules: Compliance) -> str:
    """Id of the first party that is not allowed, or ""."""
    for party in header.parties:
        names = {party.party_id, party.lei} - {""}
        if names & rules.denied or (rules.allowed and not names & rules.allowed):
            return party.party_id
    return ""
