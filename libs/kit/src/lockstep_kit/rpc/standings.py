"""The tables that say what each caller may call and whom it stands for, as settings; and the caller's row, found by its certificate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc
from google.protobuf.descriptor import FileDescriptor
from pydantic import BaseModel, ConfigDict, Field

from lockstep_kit import ids
from lockstep_kit.fields import require
from lockstep_kit.ids import PartyId
from lockstep_kit.rpc.arrows import Caller, client_id, spiffe_id
from lockstep_kit.rpc.certificates import peer_id
from lockstep_kit.standing import NOBODY, Desk, Standing

#: In a row: every method of the service.
EVERY_METHOD: Final = "*"
#: Services that read what is of every plan: after a restore the coordinator reads what it had written, and the bridge carries every plan's entries on.
SERVICES: Final[Mapping[str, Standing]] = {
    spiffe_id(Caller.COORDINATOR): Standing(desk=Desk.AUDITOR),
    spiffe_id(Caller.JOURNAL_BRIDGE): Standing(desk=Desk.AUDITOR),
}


class CallerSettings(BaseModel):
    """One caller's row: what it may call, and whom it stands for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: tuple[str, ...] = Field(default=(), description="methods that it may call, or *")
    parties: tuple[str, ...] = Field(default=(), description="party ids that it stands for: it sees the plans of these parties")
    desk: Desk | None = Field(default=None, description="operator or auditor: it sees every plan, and an auditor changes none")

    @property
    def standing(self) -> Standing:
        """Whom it stands for."""
        return Standing(frozenset(PartyId(each) for each in self.parties), self.desk)

    def check(self, field: str, methods: Iterable[str], reading: Iterable[str]) -> None:
        """The row's methods are the service's, its parties have their form, and an auditor has methods that only read, and no party.

        Raises:
            FieldInvalid: a rule is broken.
        """
        known = frozenset(methods)
        for index, method in enumerate(self.methods):
            require(method == EVERY_METHOD or method in known, f"{field}.methods[{index}]", "must be a method of the service, or *")
        for index, party in enumerate(self.parties):
            ids.party_id(party, f"{field}.parties[{index}]")
        if self.desk is Desk.AUDITOR:
            require(not self.parties, f"{field}.parties", "must be empty: an auditor stands for nobody")
            changing = self.granted(known) - frozenset(reading)
            require(
                not changing, f"{field}.methods", f"must only read, as an auditor does; these change: {', '.join(sorted(changing))}"
            )

    def granted(self, methods: Iterable[str]) -> frozenset[str]:
        """Those of a service's methods that the row names."""
        return frozenset(methods) if EVERY_METHOD in self.methods else frozenset(self.methods)


def methods_of(file: FileDescriptor, service: str) -> tuple[str, ...]:
    """Names of a service's methods, as its definition has them."""
    return tuple(each.name for each in file.services_by_name[service].methods)


def check_readers(rows: Mapping[str, CallerSettings], field: str, methods: Iterable[str]) -> None:
    """Every row fits a service that only reads.

    Raises:
        FieldInvalid: a rule is broken.
    """
    methods = tuple(methods)
    for name, row in rows.items():
        row.check(f"{field}.{name}", methods, methods)


def granted(rows: Mapping[str, CallerSettings], service: str) -> dict[str, tuple[str, ...]]:
    """Name of a client -> methods by their full names, as `access_of` takes them."""
    return {name: tuple(f"/{service}/{each}" for each in row.methods) for name, row in rows.items()}


class Standings:
    """Whom each caller stands for, by its SPIFFE id. A caller without a row stands for nobody."""

    def __init__(self, rows: Mapping[str, Standing]) -> None:
        self._rows = dict(rows)

    def of(self, context: grpc.aio.ServicerContext[Any, Any]) -> tuple[str, Standing]:
        """The caller, by its certificate, and whom it stands for."""
        caller = peer_id(context)
        if caller is None:
            raise AssertionError("the guard lets nobody in without a certificate")
        return caller, self._rows.get(caller, NOBODY)


def standings_of(clients: Mapping[str, CallerSettings]) -> Standings:
    """Of a table of clients, by their names, and of the services."""
    return Standings({**SERVICES, **{client_id(name): row.standing for name, row in clients.items()}})
