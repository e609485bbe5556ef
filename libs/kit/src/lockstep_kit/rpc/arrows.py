"""Who may call what: every arrow between the services and their clients, method by method, and how much a call may carry. Data.

A caller is one of the services, by its SPIFFE id, or a client that the server's settings name for the method; settings add no other caller, and none to a
method without CLIENT in its row. What is not here is denied. Every server builds its table from this one (`access_of`), and starts only when it serves exactly
these methods.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from lockstep_kit.fields import require
from lockstep_kit.rpc.access import Access
from lockstep_kit.rpc.tls import TRUST_DOMAIN
from lockstep_kit.values import dataclass


class Caller(StrEnum):
    """Who may be named in a row: the name in the SPIFFE id, but for CLIENT."""

    COORDINATOR = "coordinator"
    NOTARY = "notary"
    JOURNAL_BRIDGE = "journal-bridge"
    #: A client that the server's settings name: spiffe://<trust domain>/client/<name>.
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Arrow:
    """A row: what may be said about one method of one server."""

    #: Who may call it.
    callers: frozenset[Caller]
    #: Largest request.
    request_bytes_max: int
    #: How many ordinary calls it counts for; a batch, each of its requests.
    cost: float
    #: How many requests a batch may hold, in its first field; 0 of a method that takes one.
    batch_max: int = 0


#: What a request of a method that is not here may carry; it is denied in any case.
REQUEST_BYTES_MAX_DEFAULT: Final = 4 << 10
_READ: Final = 4 << 10
_SIGNED: Final = 64 << 10
_PLAN: Final = 256 << 10
_BATCH: Final = 4 << 20
_CLIENT_BATCH: Final = 2 << 20
#: How many requests a client's batch may hold.
BATCH_MAX: Final = 256
#: The services, as certificates name them.
SERVICE_IDS: Final = frozenset(
    f"spiffe://{TRUST_DOMAIN}/{name}"
    for name in ("coordinator", "dlt-gateway", "bank-gateway", "notary", "event-journal", "journal-bridge")
)


def _rows(service: str, rows: Mapping[str, tuple[tuple[Caller, ...], int, float]]) -> dict[str, Arrow]:
    return {
        f"/{service}/{name}": Arrow(frozenset(callers), octets, cost, BATCH_MAX if octets == _CLIENT_BATCH else 0)
        for name, (callers, octets, cost) in rows.items()
    }


_CLIENT: Final = (Caller.CLIENT,)
_COORDINATOR: Final = (Caller.COORDINATOR,)

SETTLEMENT: Final = "lockstep.coordinator.v1.SettlementService"
OPERATOR: Final = "lockstep.coordinator.v1.OperatorService"
PARTICIPANT: Final = "lockstep.participant.v1.ParticipantService"
RECONCILIATION: Final = "lockstep.bank.v1.ReconciliationService"
NOTARY: Final = "lockstep.notary.v1.NotaryService"
JOURNAL: Final = "lockstep.journal.v1.JournalService"
JOURNAL_READER: Final = "lockstep.journal.v1.JournalReaderService"
INSTALLATION: Final = "lockstep.installation.v1.InstallationService"

#: Of every server: what it tells of itself.
_INSTALLATION: Final = _rows(INSTALLATION, {"GetInstallation": (_CLIENT, _READ, 5)})

_PARTICIPANT: Final = _INSTALLATION | _rows(
    PARTICIPANT,
    {
        "Describe": (_COORDINATOR, _READ, 1),
        "Prepare": (_COORDINATOR, _BATCH, 1),
        "Commit": (_COORDINATOR, _BATCH, 1),
        "Abort": (_COORDINATOR, _BATCH, 1),
        "Reverse": (_COORDINATOR, _BATCH, 1),
        "GetLeg": (_COORDINATOR, _BATCH, 1),
        "ListLegs": (_COORDINATOR, _READ, 1),
        "WatchOutcomes": (_COORDINATOR, _READ, 1),
    },
)

#: Server -> full name of a method -> its row.
ARROWS: Final[Mapping[str, Mapping[str, Arrow]]] = {
    "coordinator": {
        **_INSTALLATION,
        **_rows(
            SETTLEMENT,
            {
                "CreatePlan": (_CLIENT, _PLAN, 5),
                "ExecutePlan": (_CLIENT, _PLAN, 2),
                "CreatePlans": (_CLIENT, _CLIENT_BATCH, 5),
                "ExecutePlans": (_CLIENT, _CLIENT_BATCH, 2),
                "SignGates": (_CLIENT, _CLIENT_BATCH, 2),
                "GetPlan": (_CLIENT, _READ, 1),
                "ListPlans": (_CLIENT, _READ, 5),
                "CancelPlan": (_CLIENT, _SIGNED, 2),
                "SignGate": (_CLIENT, _SIGNED, 2),
                "ListTransitions": (_CLIENT, _READ, 2),
                "GetAbortAuditLog": (_CLIENT, _READ, 2),
                "WatchPlan": (_CLIENT, _READ, 1),
                # It begins with all that is open.
                "WatchPlans": (_CLIENT, _READ, 10),
            },
        ),
        **_rows(
            OPERATOR,
            {
                "ListEscalations": (_CLIENT, _READ, 5),
                "GetEscalation": (_CLIENT, _READ, 2),
                "SignResolution": (_CLIENT, _SIGNED, 2),
                "ListInDoubt": (_CLIENT, _READ, 10),
                "ListDeadLetters": (_CLIENT, _READ, 5),
                "ReplayDeadLetter": (_CLIENT, _READ, 2),
            },
        ),
    },
    "dlt-gateway": _PARTICIPANT,
    "bank-gateway": {
        **_PARTICIPANT,
        **_rows(RECONCILIATION, {"GetReconciliation": (_CLIENT, _READ, 3), "ListBookings": (_CLIENT, _READ, 3)}),
    },
    "notary": {
        **_PARTICIPANT,
        **_rows(
            NOTARY,
            {
                "RecordEscalations": (_COORDINATOR, _BATCH, 1),
                "GetEscalationRecords": (_CLIENT, _READ, 1),
                "GetNotarisation": (_CLIENT, _READ, 1),
                "GetWitnessedCheckpoint": (_CLIENT, _READ, 1),
                "GetWitnessStatus": (_CLIENT, _READ, 1),
            },
        ),
    },
    "event-journal": {
        **_PARTICIPANT,
        **_rows(JOURNAL, {"Append": (_COORDINATOR, _BATCH, 1), "RaiseFence": (_COORDINATOR, _READ, 1)}),
        **_rows(
            JOURNAL_READER,
            {
                # After a restore the coordinator reads what it had written.
                "ListEntries": ((Caller.COORDINATOR, Caller.CLIENT), _READ, 3),
                "WatchEntries": ((Caller.JOURNAL_BRIDGE, Caller.CLIENT), _READ, 1),
                "VerifyPlan": (_CLIENT, _READ, 10),
                # The notary is the journal's witness.
                "GetCheckpoint": ((Caller.NOTARY, Caller.CLIENT), _READ, 1),
                "GetInclusionProof": (_CLIENT, _READ, 2),
                "GetConsistencyProof": ((Caller.NOTARY, Caller.CLIENT), _READ, 2),
                "ExportBundle": (_CLIENT, _READ, 20),
                "GetKeyHistory": (_CLIENT, _READ, 1),
            },
        ),
    },
}

#: Full name of a method -> its row; what a request may carry does not depend on the server.
METHODS: Final[Mapping[str, Arrow]] = {method: arrow for rows in ARROWS.values() for method, arrow in rows.items()}


def spiffe_id(name: str) -> str:
    """SPIFFE id of a service."""
    return f"spiffe://{TRUST_DOMAIN}/{name}"


def client_id(name: str) -> str:
    """SPIFFE id of a client."""
    return spiffe_id(f"client/{name}")


def access_of(server: str, clients: Mapping[str, Collection[str]]) -> Access:
    """The server's table.

    `clients` is what the settings add: name of a client -> full names of methods, or "/service/*".

    Raises:
        FieldInvalid: a name that is none, or a method that is not there or that no client may call.
    """
    rows = ARROWS[server]
    found: dict[str, set[str]] = {}
    for method, arrow in rows.items():
        for caller in arrow.callers - {Caller.CLIENT}:
            found.setdefault(spiffe_id(caller), set()).add(method)
    for name, wanted in clients.items():
        require(bool(name) and "/" not in name, f"clients.{name}", "must be a client's name, without a slash")
        for each in wanted:
            found.setdefault(client_id(name), set()).update(_expanded(rows, name, each))
    return Access(found, rows=rows)


def _expanded(rows: Mapping[str, Arrow], name: str, wanted: str) -> list[str]:
    service, _, method = wanted.rpartition("/")
    matching = [each for each in rows if each == wanted or (service and method == "*" and each.startswith(f"{service}/"))]
    allowed = [each for each in matching if Caller.CLIENT in rows[each].callers]
    require(bool(allowed), f"clients.{name}", f"must name methods that clients may call here, not {wanted}")
    return allowed
