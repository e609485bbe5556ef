"""What the doctor concludes: of a sound installation that all is well; of each thing that is wrong, that it is, whose it is, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.installation.v1.installation_service_pb2 import GetInstallationResponse
from lockstep.notary.v1.anchor_pb2 import WitnessedCheckpoint
from lockstep.notary.v1.notary_service_pb2 import GetWitnessStatusResponse
from lockstep_client.diagnosis import CertificateSeen, Check, Seen, ServiceSeen, Verdict, WitnessSeen, diagnose, skew_of
from lockstep_kit.errors import LockstepError, permission_denied

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
NAMES = ("coordinator", "dlt-gateway", "bank-gateway", "notary", "event-journal")
REFUSED = LockstepError(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "failed to connect: Connection refused")


def at(moment: datetime) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(moment)
    return time


def ago(**span: float) -> Timestamp:
    return at(NOW - timedelta(**span))


def certificate(name: str, *, left: timedelta = timedelta(hours=20)) -> CertificateSeen:
    return CertificateSeen((f"spiffe://lockstep.local/{name}",), NOW + left - timedelta(hours=24), NOW + left)


def told(name: str) -> GetInstallationResponse:
    """What a service tells that is well."""
    response = GetInstallationResponse(service=name, registry_hash=b"\x01" * 32, start_time=ago(hours=2), clock_time=at(NOW))
    response.database.clock_time.CopyFrom(at(NOW))
    response.database.revision = response.database.revision_wanted = "0008"
    if name in ("dlt-gateway", "notary"):
        chain = response.chain
        chain.chain_id, chain.node_count, chain.counting_count, chain.head_number = 138, 2, 2, 77
        chain.head_time.CopyFrom(ago(seconds=2))
        chain.accounts.add(address="0xAA", balance_wei=str(10**18), mined_nonce=7, next_nonce=9)
    if name == "bank-gateway":
        response.bank.bank_bic = "SNDBDEFFXXX"
        response.bank.answer_time.CopyFrom(ago(seconds=3))
    if name == "event-journal":
        response.journal.entry_count = response.journal.checkpoint_size = 12
        response.journal.key_counts = True
    if name == "coordinator":
        response.coordinator.generation = response.coordinator.database_generation = 1
    return response


def sound() -> dict[str, ServiceSeen]:
    asked, answered = NOW - timedelta(milliseconds=5), NOW + timedelta(milliseconds=5)
    return {
        name: ServiceSeen(
            name, "127.0.0.1:1", certificate(name), serving=True, told=told(name), asked_at=asked, answered_at=answered
        )
        for name in NAMES
    }


def witnessed() -> WitnessSeen:
    status = GetWitnessStatusResponse(looked_at=ago(seconds=1))
    status.last.tree_size = 12
    status.last.witnessed_at.CopyFrom(ago(seconds=4))
    return WitnessSeen(status=status, anchored=status.last)


def judged(
    services: dict[str, ServiceSeen], *, witness: WitnessSeen | None = None, own: CertificateSeen | str | None = None
) -> list[Check]:
    """The checks that are not well."""
    seen = Seen(tuple(services.values()), witness or witnessed(), own or certificate("client/cli"), "eip155:138")
    return [each for each in diagnose(seen, NOW) if each.verdict is not Verdict.OK]


def test_a_sound_installation() -> None:
    """Everything is checked, and all of it is well; what is well asks for nothing."""
    assert judged(sound()) == []
    checks = diagnose(Seen(tuple(sound().values()), witnessed(), certificate("client/cli"), "eip155:138"), NOW)
    assert len(checks) == 1 + 4 * 5 + 2 * 2 + 1 + 2 + 3 + 2
    assert all(not each.advice for each in checks)
    assert all("\n" not in each.text for each in checks)


def _told(change: Callable[[GetInstallationResponse], Any]) -> Callable[[ServiceSeen], ServiceSeen]:
    def changed(service: ServiceSeen) -> ServiceSeen:
        response = GetInstallationResponse()
        assert service.told is not None
        response.CopyFrom(service.told)
        change(response)
        return replace(service, told=response)

    return changed


def _set(part: str, **fields: Any) -> Callable[[ServiceSeen], ServiceSeen]:
    def change(response: GetInstallationResponse) -> None:
        message = getattr(response, part)
        for name, value in fields.items():
            if isinstance(value, Timestamp):
                getattr(message, name).CopyFrom(value)
            else:
                setattr(message, name, value)

    return _told(change)


def _account(**fields: Any) -> Callable[[ServiceSeen], ServiceSeen]:
    def change(response: GetInstallationResponse) -> None:
        for name, value in fields.items():
            if name == "missing_nonces":
                response.chain.accounts[0].missing_nonces.extend(value)
            else:
                setattr(response.chain.accounts[0], name, value)

    return _told(change)


def _without(part: str, why: str) -> Callable[[ServiceSeen], ServiceSeen]:
    def change(response: GetInstallationResponse) -> None:
        response.ClearField(part)  # type: ignore[arg-type]  # a field's name
        response.troubles.add(part=part, message=why)

    return _told(change)


def _down(service: ServiceSeen) -> ServiceSeen:
    return ServiceSeen(service.name, service.address, "there was no handshake: Connection refused", failure=REFUSED)


FAILED, WARNING = Verdict.FAILED, Verdict.WARNING
#: (service, what is wrong with it, check that says so, its verdict, in its text, in its advice)
WRONGS: list[tuple[str, Callable[[ServiceSeen], ServiceSeen], str, Verdict, str, str]] = [
    ("notary", _down, "connection", FAILED, "Connection refused", "start notary"),
    ("notary", lambda each: replace(each, serving=False), "connection", FAILED, "NOT_SERVING", "log"),
    (
        "notary",
        lambda each: replace(each, told=None, failure=permission_denied("CALLER_NOT_ALLOWED", "you may not")),
        "connection", FAILED, "CALLER_NOT_ALLOWED", "certificate",
    ),
    ("dlt-gateway", lambda each: ServiceSeen(each.name, "", "-"), "connection", WARNING, "not looked at", "name dlt_gateway"),
    ("notary", lambda each: replace(each, certificate=certificate("coordinator")), "certificate", FAILED, "not for", "own certificate"),
    (
        "notary",
        lambda each: replace(each, certificate=certificate("notary", left=-timedelta(minutes=1))),
        "certificate", FAILED, "ran out 1m 0s ago", "renew",
    ),
    (
        "notary",
        lambda each: replace(each, certificate=certificate("notary", left=timedelta(hours=30))),
        "certificate", FAILED, "good only from", "clocks",
    ),
    (
        "notary",
        lambda each: replace(each, certificate=certificate("notary", left=timedelta(hours=2))),
        "certificate", WARNING, "another 2h 0m", "renew",
    ),
    (
        "notary",
        lambda each: replace(each, certificate="it is not trusted here: self-signed certificate", failure=REFUSED, told=None, serving=False),
        "certificate", FAILED, "self-signed", "tls in the configuration",
    ),
    ("notary", _told(lambda each: each.clock_time.CopyFrom(ago(seconds=3))), "clock", WARNING, "3.0 s", "NTP"),
    ("notary", _set("database", clock_time=at(NOW + timedelta(seconds=60))), "clock", FAILED, "60.0 s", "nothing is prepared"),
    ("notary", _set("database", revision="0007"), "database", FAILED, "at revision 0007, the code wants 0008", "notary.migrate"),
    ("notary", _set("database", revision="0009"), "database", FAILED, "at revision 0009", "newer"),
    ("notary", _set("database", revision=""), "database", WARNING, "does not say", "notary.migrate"),
    ("notary", _set("database", revision_wanted=""), "database", WARNING, "0008", "migrations"),
    ("notary", _without("database", "it does not answer"), "database", FAILED, "does not answer", "database"),
    ("notary", _without("chain", "endpoint 1: refused"), "chain", FAILED, "endpoint 1", "rpc_urls"),
    ("notary", _set("chain", chain_id=1), "chain", FAILED, "the configuration has eip155:138", "mend chain"),
    ("notary", _set("chain", counting_count=1), "chain", WARNING, "1 of 2 nodes", "left out"),
    ("notary", _set("chain", head_time=ago(minutes=11)), "chain", WARNING, "11m 0s old", "makes blocks"),
    ("notary", _set("chain", head_time=at(NOW + timedelta(minutes=1))), "chain", WARNING, "from the future", "clocks"),
    ("notary", _account(missing_nonces=[7, 8]), "account", FAILED, "nobody has nonce 7, 8", "never mined"),
    ("notary", _account(mined_nonce=10), "account", FAILED, "the chain is ahead", "nobody else may send"),
    ("notary", _account(balance_wei="9999999999999999"), "account", WARNING, "0.0100 ether", "fund it"),
    ("bank-gateway", _set("bank", failure="connection refused"), "bank", FAILED, "connection refused", "rail"),
    ("bank-gateway", _set("bank", answer_time=ago(minutes=3)), "bank", FAILED, "3m 0s ago", "rail"),
    ("bank-gateway", _told(lambda each: each.bank.ClearField("answer_time")), "bank", FAILED, "never answered", "rail"),
    ("bank-gateway", _set("bank", matter_count=2), "bank", WARNING, "2 matters", "bank_gateway.matters"),
    ("event-journal", _set("journal", key_counts=False), "log", FAILED, "may not sign", "rotate"),
    ("event-journal", _set("journal", entry_count=20, uncovered_since=ago(minutes=2)), "log", WARNING, "8 of them", "publishes"),
    ("coordinator", _set("coordinator", database_generation=2), "generation", FAILED, "the database is at 2", "newest generation"),
    ("coordinator", _set("coordinator", unappended_count=101), "outbox", WARNING, "101 events", "event-journal"),
    ("coordinator", _set("coordinator", escalation_count=1), "operators", WARNING, "1 escalations", "escalations list"),
    ("coordinator", _set("coordinator", dead_letter_count=1), "operators", WARNING, "1 dead letters", "dead-letters list"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil", "check", "verdict", "text", "advice"), WRONGS)
def test_what_is_wrong_is_named(
    name: str, spoil: Callable[[ServiceSeen], ServiceSeen], check: str, verdict: Verdict, text: str, advice: str
) -> None:
    """Each thing that is wrong with one service is found in the check that is about it, with what to do, and blamed on nobody else."""
    services = sound()
    services[name] = spoil(services[name])
    found = judged(services)
    (named,) = [each for each in found if (each.service, each.name) == (name, check)]
    assert named.verdict is verdict
    assert text in named.text
    assert advice in named.advice
    assert {each.service for each in found} <= {name, "all"}
    assert max((each.verdict is FAILED for each in found), default=False) is (verdict is FAILED)


def test_what_must_be_the_same_everywhere() -> None:
    """Clocks that are each near ours and far from one another, and registries that differ, are found."""
    services = sound()
    services["notary"] = _told(lambda each: each.clock_time.CopyFrom(ago(seconds=0.9)))(services["notary"])
    services["event-journal"] = _told(lambda each: each.clock_time.CopyFrom(at(NOW + timedelta(seconds=0.9))))(
        services["event-journal"]
    )
    services["dlt-gateway"] = _told(lambda each: setattr(each, "registry_hash", b"\x02" * 32))(services["dlt-gateway"])
    found = {each.name: each for each in judged(services)}
    assert set(found) == {"clock", "registry"}
    assert "notary" in found["clock"].text
    assert "event-journal" in found["clock"].text
    assert "020202020202… at dlt-gateway" in found["registry"].text


def test_the_way_is_no_skew() -> None:
    """A clock that reads something between asking and answering is not off at all; beyond that only what the way cannot explain counts."""
    asked, answered = NOW, NOW + timedelta(seconds=4)
    assert skew_of(at(NOW + timedelta(seconds=3)), asked, answered) == timedelta(0)
    assert skew_of(at(NOW - timedelta(seconds=2)), asked, answered) == timedelta(seconds=-2)
    assert skew_of(at(NOW + timedelta(seconds=5)), asked, answered) == timedelta(seconds=1)


def test_the_clients_own_certificate() -> None:
    """The client's own certificate is judged like the others', whatever its name."""
    (found,) = judged(sound(), own=certificate("client/cli", left=timedelta(minutes=30)))
    assert (found.service, found.verdict) == ("client", WARNING)
    (found,) = judged(sound(), own="it cannot be read: No such file or directory")
    assert found.verdict is FAILED


@pytest.mark.parametrize("case", ["alarm", "never", "late", "unanchored", "silent", "none"])
def test_the_witness(case: str) -> None:
    """An alarm fails; a witness that does not look, does not anchor or does not answer is warned of; one without anything to anchor is well."""
    status = GetWitnessStatusResponse()
    status.CopyFrom(witnessed().status)  # type: ignore[arg-type]  # it is there
    witness = WitnessSeen(status=status)
    expected: tuple[Verdict, str] | None
    match case:
        case "alarm":
            status.alarm.rule, status.alarm.message = "LOG_SHRANK", "the log is smaller"
            expected = FAILED, "LOG_SHRANK"
        case "never":
            status.ClearField("looked_at")
            expected = WARNING, "nothing yet"
        case "late":
            status.looked_at.CopyFrom(ago(minutes=5))
            expected = WARNING, "looked 5m 0s ago"
        case "unanchored":
            first = WitnessedCheckpoint(tree_size=3, witnessed_at=ago(hours=2))
            witness = replace(witness, unanchored=first)
            expected = WARNING, "not anchored yet"
        case "silent":
            witness = WitnessSeen(failure=REFUSED)
            expected = WARNING, "Connection refused"
        case _:
            expected = None
    found = judged(sound(), witness=witness)
    if expected is None:
        assert found == []
        return
    (named,) = found
    assert (named.service, named.name, named.verdict) == ("notary", "witness", expected[0])
    assert expected[1] in named.text
    assert named.advice
