"""What is well with an installation and what is not, from what was seen of it. Pure: the moment is an argument.

A check that failed keeps plans from settling, or will; a warning is for somebody to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.installation.v1 import installation_service_pb2 as messages
from lockstep.notary.v1.anchor_pb2 import WitnessedCheckpoint
from lockstep.notary.v1.notary_service_pb2 import GetWitnessStatusResponse
from lockstep_client.commands.failures import explained
from lockstep_client.fitting import span_text
from lockstep_kit.errors import LockstepError
from lockstep_kit.rpc.arrows import spiffe_id
from lockstep_kit.values import dataclass

#: Clocks that are further apart are looked at; with those of the last the coordinator prepares nothing (`clock_skew_seconds_max`).
SKEW_WARNED: Final = timedelta(seconds=1)
SKEW_MAX: Final = timedelta(seconds=30)
#: A certificate with less than this share of its life left should have been renewed.
LIFE_LEFT_MIN: Final = 0.1
#: A head that is older: the chain stands, or nobody has a transaction for it.
HEAD_AGE_MAX: Final = timedelta(minutes=10)
#: An account with less soon signs nothing, in wei: 0.01 ether.
BALANCE_MIN_WEI: Final = 10**16
#: The gateway reads the bank's mailbox all the time.
BANK_AGE_MAX: Final = timedelta(minutes=2)
#: What is written is under a checkpoint, and seen by the witness, within seconds.
LOG_AGE_MAX: Final = timedelta(minutes=1)
#: What is cosigned is anchored within minutes.
ANCHOR_AGE_MAX: Final = timedelta(hours=1)
#: Events that wait for the journal for a moment are nothing.
UNAPPENDED_MAX: Final = 100


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    #: Whom it is about.
    service: str
    #: What was looked at.
    name: str
    #: How it ended.
    verdict: Verdict
    #: What was seen, one line.
    text: str
    #: What to do next, one line; "" where all is well.
    advice: str = ""


@dataclass(frozen=True, slots=True)
class CertificateSeen:
    """What counts of a certificate."""

    #: Its URI names.
    uris: tuple[str, ...]
    #: From when on it is good.
    not_before: datetime
    #: Until when.
    not_after: datetime


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """What was seen of one service."""

    #: Its name.
    name: str
    #: Where it was looked for; "" where the configuration does not say.
    address: str
    #: What it showed, or why there was nothing to see.
    certificate: CertificateSeen | str
    #: Whether its server says that it takes calls.
    serving: bool = False
    #: What it told; None where it did not.
    told: messages.GetInstallationResponse | None = None
    #: Why it told nothing.
    failure: LockstepError | None = None
    #: When it was asked and when it had answered, by our clock; with `told`.
    asked_at: datetime | None = None
    answered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WitnessSeen:
    """How the journal's witness stands."""

    #: What it told; None where it did not.
    status: GetWitnessStatusResponse | None = None
    #: The last checkpoint whose root is anchored; None where there is none.
    anchored: WitnessedCheckpoint | None = None
    #: The first checkpoint behind that one; None where all are anchored.
    unanchored: WitnessedCheckpoint | None = None
    #: Why it told nothing.
    failure: LockstepError | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of an installation."""

    #: The services, in the order in which they are shown.
    services: tuple[ServiceSeen, ...]
    #: The journal's witness; None where the notary was not reached.
    witness: WitnessSeen | None
    #: The client's own certificate, or why it could not be read.
    own: CertificateSeen | str
    #: CAIP-2 id of the chain, as the configuration has it.
    chain: str


def diagnose(seen: Seen, moment: datetime) -> list[Check]:
    """Every check, service by service."""
    checks = [_certificate("client", seen.own, "", moment)]
    for service in seen.services:
        checks.extend(_service(service, seen, moment))
    checks.extend(_between(seen.services))
    return checks


def _service(service: ServiceSeen, seen: Seen, moment: datetime) -> Iterator[Check]:
    if not service.address:
        field = service.name.replace("-", "_")
        yield Check(service.name, "connection", Verdict.WARNING, "it was not looked at", f"name {field} in the configuration")
        return
    yield _connection(service)
    unreached = isinstance(service.certificate, str) and service.failure is not None and not service.serving
    if not unreached or "not trusted" in str(service.certificate):
        yield _certificate(service.name, service.certificate, spiffe_id(service.name), moment)
    if service.told is None:
        return
    yield _clock(service, service.told)
    yield _database(service.name, service.told)
    for each in service.told.troubles:
        if each.part != "database":
            yield Check(service.name, each.part, Verdict.FAILED, each.message, _PART_ADVICE.get(each.part, "see the service's log"))
    yield from _parts(service.name, service.told, seen, moment)


_PART_ADVICE: Final[Mapping[str, str]] = {
    "chain": "look at the nodes in chain.rpc_urls of the service's settings",
    "bank": "look at the service's database",
    "journal": "look at the service's database",
    "coordinator": "look at the service's database",
}


def _connection(service: ServiceSeen) -> Check:
    if service.failure is not None:
        failure = explained(service.failure)
        # The advice is the doctor's own.
        advice = failure.advice if service.serving else f"start {service.name}, or mend its address in the configuration"
        if isinstance(service.certificate, str) and "not trusted" in service.certificate:
            advice = "see its certificate below"
        return Check(service.name, "connection", Verdict.FAILED, f"{service.address}: {failure.reason}: {failure.cause}", advice)
    if not service.serving:
        return Check(
            service.name,
            "connection",
            Verdict.FAILED,
            f"{service.address}: it takes no calls (NOT_SERVING)",
            "see the service's log",
        )
    took = ""
    if service.asked_at is not None and service.answered_at is not None:
        took = f", answered within {(service.answered_at - service.asked_at).total_seconds() * 1_000:.0f} ms"
    started = ""
    if service.told is not None:
        up = service.told.clock_time.ToDatetime(UTC) - service.told.start_time.ToDatetime(UTC)
        started = f", up for {span_text(up.total_seconds())}"
    return Check(service.name, "connection", Verdict.OK, f"{service.address}: serving{started}{took}")


def _certificate(name: str, certificate: CertificateSeen | str, wanted: str, moment: datetime) -> Check:
    def made(verdict: Verdict, text: str, advice: str = "") -> Check:
        return Check(name, "certificate", verdict, text, advice)

    if isinstance(certificate, str):
        return made(Verdict.FAILED, certificate, "compare its authority, names and dates with tls in the configuration")
    shown = ", ".join(certificate.uris) or "no URI name"
    if wanted and certificate.uris != (wanted,):
        return made(
            Verdict.FAILED, f"it is for {shown}, not for {wanted}", "give the service its own certificate, or mend the address"
        )
    left = certificate.not_after - moment
    if left <= timedelta(0):
        return made(Verdict.FAILED, f"{shown}: it ran out {span_text(-left.total_seconds())} ago", "renew it")
    if certificate.not_before > moment:
        return made(Verdict.FAILED, f"{shown}: it is good only from {certificate.not_before.isoformat()} on", "look at both clocks")
    text = f"{shown}: good for another {span_text(left.total_seconds())}"
    if left < LIFE_LEFT_MIN * (certificate.not_after - certificate.not_before):
        return made(Verdict.WARNING, text, "renew it: nine tenths of its life are over")
    return made(Verdict.OK, text)


def skew_of(clock: Timestamp, asked_at: datetime, answered_at: datetime) -> timedelta:
    """By how much a clock is ahead of ours at the least: what the way and the work can explain is not counted."""
    time = clock.ToDatetime(UTC)
    if time > answered_at:
        return time - answered_at
    return time - asked_at if time < asked_at else timedelta(0)


def _skews(service: ServiceSeen) -> list[tuple[str, timedelta]]:
    if service.told is None or service.asked_at is None or service.answered_at is None:
        return []
    clocks = [(service.name, service.told.clock_time)]
    if service.told.HasField("database"):
        clocks.append((f"{service.name}'s database", service.told.database.clock_time))
    return [(name, skew_of(clock, service.asked_at, service.answered_at)) for name, clock in clocks]


def _apart(service: str, what: str, skew: timedelta) -> Check:
    seconds = skew.total_seconds()
    if skew > SKEW_MAX:
        return Check(
            service,
            "clock",
            Verdict.FAILED,
            f"{what} {seconds:.1f} s",
            "set the clocks (NTP): nothing is prepared while they differ so",
        )
    if skew > SKEW_WARNED:
        return Check(service, "clock", Verdict.WARNING, f"{what} {seconds:.1f} s", "set the clocks (NTP)")
    return Check(service, "clock", Verdict.OK, f"{what} less than {max(seconds, 0.1):.1f} s")


def _clock(service: ServiceSeen, told: messages.GetInstallationResponse) -> Check:
    del told
    worst = max((abs(skew) for _, skew in _skews(service)), default=timedelta(0))
    return _apart(service.name, "it and its database differ from our clock by", worst)


def _between(services: Sequence[ServiceSeen]) -> Iterator[Check]:
    """What must be the same everywhere."""
    skews = [each for service in services for each in _skews(service)]
    if len(skews) > 1:
        first, last = min(skews, key=lambda each: each[1]), max(skews, key=lambda each: each[1])
        yield _apart("all", f"clocks ({first[0]}, {last[0]}) differ from one another by", last[1] - first[1])
    registries: dict[bytes, list[str]] = {}
    for service in services:
        if service.told is not None:
            registries.setdefault(service.told.registry_hash, []).append(service.name)
    if len(registries) > 1:
        groups = "; ".join(f"{key.hex()[:12]}… at {', '.join(names)}" for key, names in registries.items())
        yield Check(
            "all",
            "registry",
            Verdict.WARNING,
            f"not all were started with the same registry: {groups}",
            "give all the newest, and restart",
        )
    elif registries:
        yield Check("all", "registry", Verdict.OK, f"all were started with {next(iter(registries)).hex()[:12]}…")


def _database(name: str, told: messages.GetInstallationResponse) -> Check:
    def made(verdict: Verdict, text: str, advice: str = "") -> Check:
        return Check(name, "database", verdict, text, advice)

    run = f"run `python -m {name.replace('-', '_')}.migrate`"
    if not told.HasField("database"):
        why = next((each.message for each in told.troubles if each.part == "database"), "it is not known")
        return made(Verdict.FAILED, why, "look at the database in the service's settings")
    found, wanted = told.database.revision, told.database.revision_wanted
    if not wanted:
        return made(
            Verdict.WARNING, f"at revision {found or 'unknown'}", "install the service with its migrations, to have them compared"
        )
    if not found:
        return made(Verdict.WARNING, "it does not say which revision it is at", f"{run}, which writes it down")
    if found != wanted:
        advice = run if found < wanted else "roll the service forward: its database is newer"
        return made(Verdict.FAILED, f"at revision {found}, the code wants {wanted}", advice)
    return made(Verdict.OK, f"at revision {found}, as the code wants")


def _parts(name: str, told: messages.GetInstallationResponse, seen: Seen, moment: datetime) -> Iterator[Check]:
    if told.HasField("chain"):
        yield _chain(name, told.chain, seen.chain, told.clock_time.ToDatetime(UTC))
        for account in told.chain.accounts:
            yield from _account(name, account)
    if told.HasField("bank"):
        yield _bank(name, told.bank, told.clock_time.ToDatetime(UTC))
    if told.HasField("journal"):
        yield _log(name, told.journal, told.clock_time.ToDatetime(UTC))
    if name == "notary" and seen.witness is not None:
        yield _witness(name, seen.witness, moment)
    if told.HasField("coordinator"):
        yield from _coordinator(name, told.coordinator)


def _chain(name: str, chain: messages.ChainState, wanted: str, moment: datetime) -> Check:
    age = moment - chain.head_time.ToDatetime(UTC)
    reach = f"{chain.counting_count} of {chain.node_count} nodes"
    text = f"eip155:{chain.chain_id}, {reach}, block {chain.head_number}, {span_text(age.total_seconds())} old"
    if f"eip155:{chain.chain_id}" != wanted:
        return Check(name, "chain", Verdict.FAILED, f"{text}; the configuration has {wanted}", "mend chain in the configuration")
    if chain.counting_count < chain.node_count:
        return Check(name, "chain", Verdict.WARNING, text, "look at the nodes that are left out: the service's log names them")
    if age > HEAD_AGE_MAX:
        return Check(name, "chain", Verdict.WARNING, text, "look whether the chain makes blocks; a quiet one makes none")
    if age < -SKEW_MAX:
        return Check(name, "chain", Verdict.WARNING, f"{text}: from the future", "look at the clocks of the validators and ours")
    return Check(name, "chain", Verdict.OK, text)


def _account(name: str, account: messages.AccountState) -> Iterator[Check]:
    balance = int(account.balance_wei)
    ether = f"{Decimal(balance).scaleb(-18).quantize(Decimal('0.0001'))} ether"
    text = f"{account.address}: {ether}, next nonce {account.mined_nonce} on chain, {account.next_nonce} by the book"
    if account.missing_nonces:
        missing = ", ".join(map(str, account.missing_nonces))
        yield Check(
            name,
            "account",
            Verdict.FAILED,
            f"{text}; nobody has nonce {missing}",
            "what follows is never mined: see the service's log",
        )
    elif account.next_nonce < account.mined_nonce:
        yield Check(
            name,
            "account",
            Verdict.FAILED,
            f"{text}: the chain is ahead",
            "nobody else may send from this account; after a restore the book catches up with the next transaction",
        )
    elif balance < BALANCE_MIN_WEI:
        yield Check(name, "account", Verdict.WARNING, text, "fund it, unless gas is free on this chain")
    else:
        yield Check(name, "account", Verdict.OK, text)


def _bank(name: str, bank: messages.BankState, moment: datetime) -> Check:
    heard = "never answered this replica"
    age = None
    if bank.HasField("answer_time"):
        age = moment - bank.answer_time.ToDatetime(UTC)
        heard = f"last answered {span_text(age.total_seconds())} ago"
    text = f"{bank.bank_bic} {heard}, {bank.waiting_count} orders wait for it, {bank.matter_count} matters are open"
    if bank.failure or age is None or age > BANK_AGE_MAX:
        why = f"; the last attempt: {bank.failure}" if bank.failure else ""
        return Check(name, "bank", Verdict.FAILED, text + why, "look at rail in the service's settings, and at the bank")
    if bank.matter_count:
        return Check(name, "bank", Verdict.WARNING, text, "look at them: `python -m bank_gateway.matters list`")
    return Check(name, "bank", Verdict.OK, text)


def _log(name: str, journal: messages.JournalState, moment: datetime) -> Check:
    behind = journal.entry_count - journal.checkpoint_size
    text = f"{journal.entry_count} entries, {behind} of them under no checkpoint"
    if not journal.key_counts:
        return Check(
            name,
            "log",
            Verdict.FAILED,
            f"{text}; its key may not sign",
            "rotate the key (`python -m event_journal.keys rotate`), restart",
        )
    if journal.HasField("uncovered_since"):
        age = moment - journal.uncovered_since.ToDatetime(UTC)
        if age > LOG_AGE_MAX:
            stands = f"{text}, for {span_text(age.total_seconds())}"
            return Check(name, "log", Verdict.WARNING, stands, "see the service's log: it publishes none")
    return Check(name, "log", Verdict.OK, text)


def _witness(name: str, witness: WitnessSeen, moment: datetime) -> Check:
    def made(verdict: Verdict, text: str, advice: str = "") -> Check:
        return Check(name, "witness", verdict, text, advice)

    if witness.status is None:
        failure = explained(witness.failure) if witness.failure is not None else None
        return made(Verdict.WARNING, failure.cause if failure else "it was not asked", failure.advice if failure else "")
    status = witness.status
    if status.HasField("alarm"):
        return made(
            Verdict.FAILED, f"{status.alarm.rule}: {status.alarm.message}", "see `lockstep witness status`; nothing is cosigned"
        )
    if not status.HasField("looked_at"):
        return made(Verdict.WARNING, "the journal has shown it nothing yet", "look at journal in the notary's settings")
    age = moment - status.looked_at.ToDatetime(UTC)
    size = status.last.tree_size if status.HasField("last") else 0
    anchored = witness.anchored
    told = f"anchored at {anchored.tree_size}" if anchored is not None else "not anchored yet"
    text = f"cosigned {size} entries, looked {span_text(age.total_seconds())} ago, {told}"
    if age > LOG_AGE_MAX:
        return made(Verdict.WARNING, text, "look whether the notary reaches the journal")
    if witness.unanchored is not None and moment - witness.unanchored.witnessed_at.ToDatetime(UTC) > ANCHOR_AGE_MAX:
        return made(Verdict.WARNING, text, "look at the notary's chain and accounts: what is cosigned is not anchored")
    return made(Verdict.OK, text)


def _coordinator(name: str, state: messages.CoordinatorState) -> Iterator[Check]:
    if state.generation != state.database_generation:
        text = f"started with {state.generation}, the database is at {state.database_generation}"
        advice = (
            "restart every replica with the newest generation file"
            if state.generation < state.database_generation
            else "see its log"
        )
        yield Check(name, "generation", Verdict.FAILED, text, advice)
    else:
        yield Check(name, "generation", Verdict.OK, f"{state.generation}, as the database's")
    text = f"{state.unappended_count} events wait for the journal"
    late = state.unappended_count > UNAPPENDED_MAX
    yield Check(name, "outbox", Verdict.WARNING if late else Verdict.OK, text, "look at the event-journal" if late else "")
    counts = f"{state.escalation_count} escalations open, {state.dead_letter_count} dead letters"
    if state.escalation_count or state.dead_letter_count:
        yield Check(name, "operators", Verdict.WARNING, counts, "see `lockstep escalations list` and `lockstep dead-letters list`")
    else:
        yield Check(name, "operators", Verdict.OK, counts)
