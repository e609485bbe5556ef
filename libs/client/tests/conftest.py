"""A plan with everybody's keys, as it stands when a validator is asked; and a coordinator that says what a test has it say."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from grpc_status import rpc_status

from lockstep.coordinator.v1 import operator_service_pb2_grpc, settlement_pb2, settlement_service_pb2, settlement_service_pb2_grpc
from lockstep.journal.v1 import journal_reader_service_pb2_grpc
from lockstep.notary.v1 import notary_service_pb2_grpc
from lockstep_client.convert import PlanView, plan_from_pb
from lockstep_client.planfile import Asset, DraftPlan, PlanFile, Venue, draft
from lockstep_contracts.escrow import leg_key
from lockstep_kit import convert as kit
from lockstep_kit import ids
from lockstep_kit.errors import LockstepError, to_status
from lockstep_kit.ids import ActorId, Digest, leg_id, sha256
from lockstep_kit.plan import LegKind
from lockstep_kit.registry import Actor, Participant, RegisteredKey, Registry, Role, RoleLimits
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import (
    BankEvidence,
    ChainEvidence,
    Evidence,
    Gate,
    GateSignature,
    GateStatement,
    Outcome,
    OutcomeKind,
    Promise,
    PromiseKind,
    SignedOutcome,
    SignedVote,
    Verdict,
    Vote,
    evidence_digest,
    sign_gate,
    sign_outcome,
    sign_vote,
    votes_digest,
)
from lockstep_kit.strict_yaml import read
from lockstep_testkit.factories import MATRIX

EXAMPLE = Path(__file__).parents[1] / "examples" / "dvp.yaml"
NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
ALWAYS = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
TOKEN = "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB"
ESCROW = "0x8617E340B3D01FA5F11F306F4090FD50E238070D"
NOTARY_REGISTRY = "0x52908400098527886E0F7030069857D2E4169EE7"
VENUE = Venue(
    assets={"BOND": Asset(f"eip155:138/erc20:{TOKEN}", 2), "EUR": Asset("EUR", 2)},
    escrow=ESCROW,
    chain="eip155:138",
    registry=NOTARY_REGISTRY,
)
SERVICES = {
    LegKind.TOKEN_TRANSFER: "dlt-gateway",
    LegKind.CREDIT_TRANSFER: "bank-gateway",
    LegKind.NOTARISATION: "notary",
    LegKind.JOURNAL: "event-journal",
}
PEOPLE = {"maker": Role.MAKER, "approver": Role.APPROVER, "releaser": Role.RELEASER, "validator": Role.VALIDATOR}


def key_of(name: str) -> SigningKey:
    """A key that is the same in every test."""
    return SigningKey(sha256(name.encode()))


def registered(name: str) -> RegisteredKey:
    return RegisteredKey(key_of(name).public, *ALWAYS)


REGISTRY = Registry(
    actors=[
        Actor(ActorId(name), frozenset({role}), (registered(name),), (RoleLimits(role, None),)) for name, role in PEOPLE.items()
    ],
    participants=[Participant(name, (registered(name),)) for name in SERVICES.values()],
    matrices=[MATRIX],
)


def lock_of(leg_id: str) -> Digest:
    return sha256(b"lock of " + leg_id.encode())


@dataclass
class World:
    """A plan that waits for validation, before it is shown to anybody. Tests change a part and show the whole."""

    draft: DraftPlan
    votes: dict[str, SignedVote]
    outcomes: dict[str, SignedOutcome]
    gates: list[tuple[str, GateSignature]]
    registry: Registry = REGISTRY
    journal_sequence: int = 0

    def leg(self, leg_id: str) -> Any:
        return next(leg for leg in self.draft.legs if leg.leg_id == leg_id)

    def settle(self, leg_id: str, /, *, signer: str | None = None, **changes: Any) -> None:
        """Have a leg's participant (or somebody else) sign another outcome."""
        outcome = replace(self.outcomes[leg_id].outcome, **changes)
        self.outcomes[leg_id] = sign_outcome(outcome, key_of(signer or outcome.participant))

    def vote(self, leg_id: str, /, *, signer: str | None = None, **changes: Any) -> None:
        vote = replace(self.votes[leg_id].vote, **changes)
        self.votes[leg_id] = sign_vote(vote, key_of(signer or vote.participant))

    def evidence(self, leg_id: str) -> Any:
        return self.outcomes[leg_id].outcome.evidence

    def sign(self, name: str, gate: Gate, *, verdict: Verdict = Verdict.APPROVE, votes: Digest | None = None) -> None:
        statement = GateStatement(gate, verdict, self.draft.header.digest, b"n" * 16, NOW + timedelta(hours=1), votes)
        self.gates = [each for each in self.gates if each[1].statement.gate is not gate]
        self.gates.append((name, sign_gate(statement, key_of(name))))

    def release(self) -> None:
        """The releaser signs over the votes as they are."""
        self.sign("releaser", Gate.RELEASE, votes=votes_digest(self.votes[leg.leg_id] for leg in self.draft.legs))

    def message(self, **changes: Any) -> settlement_pb2.Plan:
        """The plan as a coordinator shows it."""
        header = self.draft.header
        settled = [self.outcomes[leg.leg_id] for leg in self.draft.legs if leg.leg_id in self.outcomes]
        plan = settlement_pb2.Plan(
            header=kit.header_to_pb(header),
            plan_digest=header.digest,
            state=settlement_pb2.PLAN_STATE_VALIDATING,
            votes_digest=votes_digest(self.votes[leg.leg_id] for leg in self.draft.legs if leg.leg_id in self.votes),
            evidence_digest=evidence_digest(settled),
            journal_sequence=self.journal_sequence,
            transition_no=7,
            etag="7",
            create_time=kit.time_to_pb(NOW),
            update_time=kit.time_to_pb(NOW),
        )
        for leg in self.draft.legs:
            shown = plan.legs.add(leg=kit.leg_to_pb(leg), lock=lock_of(leg.leg_id), participant=SERVICES[leg.kind])
            if leg.leg_id in self.votes:
                shown.vote.CopyFrom(kit.vote_to_pb(self.votes[leg.leg_id]))
            if leg.leg_id in self.outcomes:
                shown.outcome.CopyFrom(kit.outcome_to_pb(self.outcomes[leg.leg_id]))
        for name, signed in self.gates:
            plan.gates.add(signature=kit.gate_to_pb(signed), actor_id=name, sign_time=kit.time_to_pb(NOW))
        for name, value in changes.items():
            setattr(plan, name, value)
        return plan

    def view(self, **changes: Any) -> PlanView:
        """The plan as a validator reads it."""
        return plan_from_pb(self.message(**changes))


def make_world() -> World:
    salts = iter(range(100))
    drawn = draft(
        read(EXAMPLE, PlanFile), VENUE, plan_id=str(uuid.uuid4()), now=NOW, draw_salt=lambda: next(salts).to_bytes(16, "big")
    )
    header = drawn.header
    world = World(drawn, {}, {}, [])
    booked = BankEvidence("COBADEFFXXX", ids.uetr(header.plan_id, leg_id("payment")), "ACSC", booking_reference="B-1")
    held = replace(booked, status="ACFW", booking_reference="")
    key = leg_key(header.digest, "delivery")
    paid = ChainEvidence("eip155:138", ESCROW, key, "Committed", b"\x11" * 32, 42, b"\x42" * 32)
    shown: dict[LegKind, Evidence] = {LegKind.TOKEN_TRANSFER: paid, LegKind.CREDIT_TRANSFER: booked}
    for leg in drawn.legs:
        promise = Promise(PromiseKind.GUARANTEED, None, held if leg.kind is LegKind.CREDIT_TRANSFER else None)
        vote = Vote(
            SERVICES[leg.kind],
            header.plan_id,
            header.digest,
            leg.leg_id,
            lock_of(leg.leg_id),
            promise,
            NOW,
        )
        world.votes[leg.leg_id] = sign_vote(vote, key_of(vote.participant))
        if leg.settling:
            outcome = Outcome(
                SERVICES[leg.kind], header.plan_id, header.digest, leg.leg_id, OutcomeKind.DONE, shown[leg.kind], None, 3, NOW
            )
            world.outcomes[leg.leg_id] = sign_outcome(outcome, key_of(outcome.participant))
    world.sign("maker", Gate.MAKE)
    world.sign("approver", Gate.APPROVE)
    world.release()
    return world


@pytest.fixture
def new_world() -> Callable[[], World]:
    """Another plan whose evidence holds, each time."""
    return make_world


@pytest.fixture
def world() -> World:
    """A plan whose evidence holds."""
    return make_world()


# -- a coordinator and a journal that say what they are told to ------------------------------------------------------------------------


class Scripted(
    settlement_service_pb2_grpc.SettlementServiceServicer,
    operator_service_pb2_grpc.OperatorServiceServicer,
    journal_reader_service_pb2_grpc.JournalReaderServiceServicer,
    notary_service_pb2_grpc.NotaryServiceServicer,
):
    """Answers each call with the next of the answers that were put down for its method; an error is raised."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}
        self.requests: list[tuple[str, Any]] = []

    def will(self, method: str, *answers: Any) -> None:
        self.answers.setdefault(method, []).extend(answers)

    def asked(self, method: str) -> list[Any]:
        return [request for name, request in self.requests if name == method]

    async def _answer(self, method: str, request: Any, context: Any) -> Any:
        assert context.time_remaining() < 10**6, "every call carries a deadline"
        self.requests.append((method, request))
        queue = self.answers[method]
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, LockstepError):
            await context.abort_with_status(rpc_status.to_status(to_status(answer)))
        return answer(request) if callable(answer) else answer

    async def CreatePlan(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("CreatePlan", request, context)

    async def ExecutePlan(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ExecutePlan", request, context)

    async def CreatePlans(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("CreatePlans", request, context)

    async def ExecutePlans(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ExecutePlans", request, context)

    async def SignGates(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("SignGates", request, context)

    async def GetPlan(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetPlan", request, context)

    async def ListPlans(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ListPlans", request, context)

    async def CancelPlan(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("CancelPlan", request, context)

    async def SignGate(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("SignGate", request, context)

    async def ListTransitions(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ListTransitions", request, context)

    async def GetAbortAuditLog(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetAbortAuditLog", request, context)

    async def ListEscalations(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ListEscalations", request, context)

    async def GetEscalation(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetEscalation", request, context)

    async def SignResolution(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("SignResolution", request, context)

    async def ListInDoubt(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ListInDoubt", request, context)

    async def ListDeadLetters(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ListDeadLetters", request, context)

    async def ReplayDeadLetter(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ReplayDeadLetter", request, context)

    async def ListEntries(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ListEntries", request, context)

    async def VerifyPlan(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("VerifyPlan", request, context)

    async def GetCheckpoint(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetCheckpoint", request, context)

    async def GetInclusionProof(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetInclusionProof", request, context)

    async def GetConsistencyProof(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetConsistencyProof", request, context)

    async def ExportBundle(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ExportBundle", request, context)

    async def GetKeyHistory(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetKeyHistory", request, context)

    async def GetNotarisation(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetNotarisation", request, context)

    async def GetEscalationRecords(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetEscalationRecords", request, context)

    async def RecordEscalations(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("RecordEscalations", request, context)

    async def GetWitnessedCheckpoint(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetWitnessedCheckpoint", request, context)

    async def GetWitnessStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetWitnessStatus", request, context)

    async def WatchEntries(self, request: Any, context: Any) -> Any:  # noqa: N802
        for message in await self._answer("WatchEntries", request, context):
            if isinstance(message, LockstepError):
                await context.abort_with_status(rpc_status.to_status(to_status(message)))
            yield message

    async def WatchPlans(self, request: Any, context: Any) -> Any:  # noqa: N802
        for message in await self._answer("WatchPlans", request, context):
            if isinstance(message, LockstepError):
                await context.abort_with_status(rpc_status.to_status(to_status(message)))
            yield message
        # It has no end.
        await asyncio.Event().wait()

    async def WatchPlan(self, request: Any, context: Any) -> Any:  # noqa: N802
        for message in await self._answer("WatchPlan", request, context):
            if isinstance(message, LockstepError):
                await context.abort_with_status(rpc_status.to_status(to_status(message)))
            yield message


def _certificate(
    name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    uri = x509.UniformResourceIdentifier(f"spiffe://lockstep.local/{name}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([*names, uri]), critical=False)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    return certificate, key


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsSettings:
    """One certificate for both sides, and its authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = _certificate("authority", None)
    certificate, key = _certificate("coordinator", authority)
    (folder / "ca.pem").write_bytes(authority[0].public_bytes(Encoding.PEM))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return TlsSettings(certificate_file=folder / "cert.pem", key_file=folder / "key.pem", ca_file=folder / "ca.pem")


@dataclass
class Coordinator:
    """Where the scripted coordinator listens, and how to stop and start it."""

    script: Scripted
    tls: TlsSettings
    port: int = 0
    server: Any = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        pair = (self.tls.key_file.read_bytes(), self.tls.certificate_file.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], self.tls.ca_file.read_bytes(), require_client_auth=True)
        self.server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        settlement_service_pb2_grpc.add_SettlementServiceServicer_to_server(self.script, self.server)
        operator_service_pb2_grpc.add_OperatorServiceServicer_to_server(self.script, self.server)
        journal_reader_service_pb2_grpc.add_JournalReaderServiceServicer_to_server(self.script, self.server)
        notary_service_pb2_grpc.add_NotaryServiceServicer_to_server(self.script, self.server)
        self.port = self.server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(None)


@pytest.fixture
async def coordinator(tls: TlsSettings) -> AsyncIterator[Coordinator]:
    """A running coordinator with an empty script."""
    running = Coordinator(Scripted(), tls)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def watched() -> Callable[..., Any]:
    """Messages of a watch."""

    def message(*, snapshot: Any = None, sequence: int = 0, state: Any = 0, token: str = "") -> Any:
        response = settlement_service_pb2.WatchPlanResponse(resume_token=token)
        if snapshot is not None:
            response.snapshot.CopyFrom(snapshot)
        elif sequence:
            response.event.sequence = sequence
            response.event.transition.to_state = state
        else:
            response.heartbeat.clock_time.FromDatetime(NOW)
        return response

    return message
