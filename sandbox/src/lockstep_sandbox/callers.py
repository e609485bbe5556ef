"""Who calls the sandbox's services, and whom each stands for: the demonstration's client, one of each party, a desk of operators, an auditor. Pure.

The demonstration's client stands for every party and is an operator, since one person plays everybody there; the others are as an installation would have
them. Each server is given its own table of them.
"""

from __future__ import annotations

from typing import Any, Final

from lockstep_sandbox import scene
from lockstep_sandbox.consoles import CONSOLE
from lockstep_sandbox.monitoring import MONITOR

#: Client of the demonstration.
DEMONSTRATION: Final = "cli"
#: Parties' clients have the parties' names.
PARTIES: Final = tuple(each.party_id for each in (scene.BUYER, scene.SELLER, scene.PAUPER, scene.BORROWER))
DESK: Final = "desk"
AUDITOR: Final = "auditor"
#: Clients, by the names that their certificates give them behind client/.
CLIENTS: Final = (DEMONSTRATION, *PARTIES, DESK, AUDITOR)

_OVERSEEING: Final = ["ListEscalations", "GetEscalation", "ListInDoubt", "ListDeadLetters"]
_READING: Final = ["GetPlan", "ListPlans", "ListTransitions", "GetAbortAuditLog", "WatchPlan", "WatchPlans"]


def _standing(name: str) -> dict[str, Any]:
    match name:
        case "cli":
            return {"parties": list(PARTIES), "desk": "operator"}
        case "desk":
            return {"desk": "operator"}
        case "auditor":
            return {"desk": "auditor"}
        case _:
            return {"parties": [name]}


def clients() -> dict[str, Any]:
    """The coordinator's `clients`. A desk of operators may cancel; it brings no plans and signs no gates."""
    methods = {DESK: [*_READING, "CancelPlan"], AUDITOR: _READING}
    console = {CONSOLE: {"methods": _READING, "desk": "auditor"}}
    return {name: {"methods": methods.get(name, ["*"]), **_standing(name)} for name in CLIENTS} | console


def operators() -> dict[str, list[str]]:
    """The coordinator's `operators`."""
    return {DEMONSTRATION: ["*"], DESK: ["*"], AUDITOR: _OVERSEEING, CONSOLE: _OVERSEEING}


def journal_readers() -> dict[str, Any]:
    """The event journal's `readers`."""
    readers = _readers("WatchEntries", "ListEntries", "GetCheckpoint", "GetInclusionProof", "GetConsistencyProof")
    return readers | {CONSOLE: {"methods": ["ListEntries"], "desk": "auditor"}}


def notary_readers() -> dict[str, Any]:
    """The notary's `readers`."""
    return _readers("GetWitnessedCheckpoint", "GetWitnessStatus")


def _readers(*monitored: str) -> dict[str, Any]:
    """The clients, and the monitor with the methods that it calls."""
    clients = {name: {"methods": ["*"], **_standing(name)} for name in CLIENTS}
    return {**clients, MONITOR: {"methods": list(monitored), "desk": "auditor"}}


def inspectors() -> list[str]:
    """Who may ask each service how it is installed."""
    return [DEMONSTRATION, DESK, AUDITOR]


def bank_readers() -> list[str]:
    """Who reads the bank's statements, which are of every plan."""
    return [DEMONSTRATION, DESK, AUDITOR]
