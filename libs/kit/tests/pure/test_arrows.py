"""The table of who may call what, against the protocol's definitions and the picture of the design."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.rpc.access import Access
from lockstep_kit.rpc.arrows import ARROWS, METHODS, SERVICE_IDS, Caller, access_of, client_id, spiffe_id

PROTOS = next(folder / "protos" for folder in Path(__file__).parents if (folder / "protos" / "lockstep").is_dir())

#: gRPC service -> where it is served, as the picture has it; ParticipantService is every participant's.
SERVED = {
    "lockstep.coordinator.v1.SettlementService": {"coordinator"},
    "lockstep.coordinator.v1.OperatorService": {"coordinator"},
    "lockstep.participant.v1.ParticipantService": {"dlt-gateway", "bank-gateway", "notary", "event-journal"},
    "lockstep.bank.v1.ReconciliationService": {"bank-gateway"},
    "lockstep.notary.v1.NotaryService": {"notary"},
    "lockstep.journal.v1.JournalService": {"event-journal"},
    "lockstep.journal.v1.JournalReaderService": {"event-journal"},
    "lockstep.installation.v1.InstallationService": {"coordinator", "dlt-gateway", "bank-gateway", "notary", "event-journal"},
}
#: (caller, server) -> gRPC services of which it calls anything. There is no other arrow.
PICTURE = {
    ("client", "coordinator"): {"SettlementService", "OperatorService", "InstallationService"},
    ("client", "dlt-gateway"): {"InstallationService"},
    ("coordinator", "dlt-gateway"): {"ParticipantService"},
    ("coordinator", "bank-gateway"): {"ParticipantService"},
    ("coordinator", "notary"): {"ParticipantService", "NotaryService"},
    ("coordinator", "event-journal"): {"ParticipantService", "JournalService", "JournalReaderService"},
    ("notary", "event-journal"): {"JournalReaderService"},
    ("journal-bridge", "event-journal"): {"JournalReaderService"},
    ("client", "event-journal"): {"JournalReaderService", "InstallationService"},
    ("client", "notary"): {"NotaryService", "InstallationService"},
    ("client", "bank-gateway"): {"ReconciliationService", "InstallationService"},
}


def defined() -> dict[str, set[str]]:
    """GRPC service -> its methods, as the definitions say."""
    found: dict[str, set[str]] = {}
    for path in (PROTOS / "lockstep").rglob("*.proto"):
        text = re.sub(r"//[^\n]*", "", path.read_text())
        package = re.search(r"^package ([\w.]+);", text, re.MULTILINE)
        for name, body in re.findall(r"^service (\w+) \{(.*?)^\}", text, re.MULTILINE | re.DOTALL):
            assert package is not None
            found[f"{package[1]}.{name}"] = set(re.findall(r"\brpc (\w+)\(", body))
    return found


def test_every_method_has_a_row_and_no_row_is_about_nothing() -> None:
    """Server by server, the rows are exactly the methods of the services that it serves."""
    methods = defined()
    assert methods.keys() == SERVED.keys()
    for server, rows in ARROWS.items():
        expected = {f"/{name}/{each}" for name, where in SERVED.items() if server in where for each in methods[name]}
        assert set(rows) == expected
    assert set(METHODS) == {f"/{name}/{each}" for name, each_of in methods.items() for each in each_of}


def test_the_table_is_the_picture() -> None:
    """Who calls anything of whom is exactly what the design's picture has; nobody's row is empty."""
    found: dict[tuple[str, str], set[str]] = {}
    for server, rows in ARROWS.items():
        for method, row in rows.items():
            assert row.callers
            for caller in row.callers:
                found.setdefault((caller.value, server), set()).add(method.split("/")[1].rpartition(".")[2])
    assert found == PICTURE


def test_what_moves_money_comes_from_the_coordinator_alone() -> None:
    """Every method that commands a participant, or writes the journal, has the coordinator for its only caller."""
    for rows in ARROWS.values():
        for method, row in rows.items():
            if "ParticipantService" in method or "/lockstep.journal.v1.JournalService/" in method:
                assert row.callers == {Caller.COORDINATOR}


def test_a_request_carries_what_its_method_needs() -> None:
    """Whatever clients send is small, but for their batches, and only what the coordinator sends in batches is larger than those."""
    for row in METHODS.values():
        assert row.cost >= 1
        clients = 2 << 20 if row.batch_max else 256 << 10
        assert row.request_bytes_max <= (clients if Caller.CLIENT in row.callers else 4 << 20)


def test_a_request_of_a_batch_counts_as_it_does_alone() -> None:
    """Every batch of clients is of the method that takes one, and each request in it has that method's weight."""
    service = "/lockstep.coordinator.v1.SettlementService"
    batches = {name: row for name, row in METHODS.items() if row.batch_max}
    assert set(batches) == {f"{service}/CreatePlans", f"{service}/ExecutePlans", f"{service}/SignGates"}
    for name, row in batches.items():
        assert (row.cost, row.batch_max) == (METHODS[name.removesuffix("s")].cost, 256)


def test_settings_add_named_clients_and_nothing_else() -> None:
    """A client gets the methods that its row names; not the services' methods, and none that are not there."""
    reading = "/lockstep.journal.v1.JournalReaderService"
    access = access_of("event-journal", {"audit": (f"{reading}/VerifyPlan",), "all": (f"{reading}/*",)})
    access.check(ARROWS["event-journal"])
    for method in ARROWS["event-journal"]:
        assert access.allows(client_id("audit"), method) is (method == f"{reading}/VerifyPlan")
        assert access.allows(client_id("all"), method) is method.startswith(f"{reading}/")
        for service in SERVICE_IDS:
            expected = service.rpartition("/")[2] in {each.value for each in METHODS[method].callers}
            assert access.allows(service, method) is expected
    for wrong in (
        "/lockstep.journal.v1.JournalService/Append",
        f"{reading}/Rewrite",
        "/lockstep.journal.v1.JournalService/*",
        "*",
        "/*",
    ):
        with pytest.raises(FieldInvalid):
            access_of("event-journal", {"audit": (wrong,)})
    for name in ("", "a/b", "../coordinator"):
        with pytest.raises(FieldInvalid):
            access_of("event-journal", {name: ()})
    assert not access.allows(spiffe_id("client/"), f"{reading}/VerifyPlan")


def test_a_server_that_is_not_the_tables_does_not_start() -> None:
    """A method without a row, and a row without a method, are each found before the server takes calls."""
    access = access_of("notary", {})
    access.check(ARROWS["notary"])
    with pytest.raises(RuntimeError, match="GetEverything"):
        access.check([*ARROWS["notary"], "/lockstep.notary.v1.NotaryService/GetEverything"])
    with pytest.raises(RuntimeError, match="GetWitnessStatus"):
        access.check([each for each in ARROWS["notary"] if not each.endswith("GetWitnessStatus")])
    with pytest.raises(RuntimeError, match="methods that are not served"):
        Access({"x": ("/lockstep.Nothing/Here",)}).check([])
