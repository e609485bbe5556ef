"""A coordinator in hostile hands: its certificate, its database, and no code of ours, against the participants of a real sandbox.

It can send any command to any participant, as the coordinator, and write any event into the journal. It has the persons' signatures that a test gives it, and
a test gives it what that person would have been brought to sign; it has no person's key, and no participant's.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from lockstep.journal.v1 import journal_service_pb2, journal_service_pb2_grpc
from lockstep.participant.v1 import leg_pb2, participant_service_pb2, participant_service_pb2_grpc
from lockstep_client.signing import payer_signature
from lockstep_kit.canonical import Document, canonical, time_text
from lockstep_kit.certificate import AbortAuthority, Certificate, Decision
from lockstep_kit.convert import certificate_to_pb, epoch_to_pb, time_to_pb, vote_from_pb
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import journal_event_id, sha256
from lockstep_kit.plan import LegKind, TokenTransfer
from lockstep_kit.rpc import channel
from lockstep_kit.signing import Signature, SigningKey
from lockstep_kit.statements import (
    Gate,
    GateSignature,
    SignedOutcome,
    SignedVote,
)
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit import commands
from lockstep_testkit.crew import Crew
from lockstep_testkit.factories import PARTICIPANTS, PlanCase

CALL_SECONDS: Final = 60.0
STEP_SECONDS_MAX: Final = 300.0
#: Who opens each gate in the sandbox.
PERSONS: Final[Mapping[Gate, str]] = {Gate.MAKE: "maker", Gate.APPROVE: "approver", Gate.RELEASE: "releaser", Gate.CANCEL: "maker"}
EPOCH: Final = Epoch(1, 1)


@dataclass(frozen=True, slots=True)
class SandboxPlan(PlanCase):
    """A plan of a sandbox, with the signatures of its people."""

    #: Persons' keys.
    keys: Mapping[str, SigningKey] = field(repr=False, default_factory=dict)

    def signing_key(self, gate: Gate, who: str | None) -> SigningKey:
        """The key of a person: of who signs at the gate in the sandbox, unless told who."""
        return self.keys[who or PERSONS[gate]]


@dataclass(frozen=True)
class Held:
    """A plan that every participant has prepared for real."""

    #: The plan.
    plan: SandboxPlan
    #: Who is to get the tokens.
    payee: str
    #: The participants' own votes, by leg.
    votes: dict[str, SignedVote]
    #: What would be right.
    certificate: Certificate


class HostileCoordinator:
    """What whoever holds the coordinator's certificate can send. An async context manager."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.sandbox: Sandbox = crew.sandbox
        self._stack = AsyncExitStack()
        self._written: dict[str, int] = {}
        self._made: dict[str, GateSignature] = {}
        self._stubs: dict[str, participant_service_pb2_grpc.ParticipantServiceStub] = {}

    async def __aenter__(self) -> Self:
        tls = self.sandbox.tls("coordinator")
        for name in set(PARTICIPANTS.values()):
            opened = await self._stack.enter_async_context(channel(self.sandbox.address(name), tls))
            self._stubs[name] = participant_service_pb2_grpc.ParticipantServiceStub(opened)
        journal = await self._stack.enter_async_context(channel(self.sandbox.address("event-journal"), tls))
        self._journal = journal_service_pb2_grpc.JournalServiceStub(journal)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    def plan(self, document: Mapping[str, Any]) -> SandboxPlan:
        """A plan that no coordinator's database knows, with a plan key of the hostile one's own."""
        draft = self.crew.draft(document)
        names = ("maker", "approver", "releaser", "validator", "deputy", "operator-one", "operator-two")
        return SandboxPlan(draft.header, draft.legs, secrets.token_bytes(32), {name: self.crew.key(name) for name in names})

    def stub(self, plan: PlanCase, leg_id: str) -> participant_service_pb2_grpc.ParticipantServiceStub:
        """Whoever serves a leg."""
        return self._stubs[PARTICIPANTS[plan.leg(leg_id).kind]]

    # -- commands ----------------------------------------------------------------------------------------------------

    def prepare_command(self, plan: PlanCase, leg_id: str, *, epoch: Epoch = EPOCH) -> leg_pb2.PrepareCommand:
        """The Prepare of a leg, with the token payer's consent to this very leg and lock."""
        leg, signature = plan.leg(leg_id), b""
        if isinstance(leg.terms, TokenTransfer):
            accounts = {str(account.address): account for account in self.sandbox.chain.accounts.values()}
            signature = payer_signature(plan.header, leg, plan.lock(leg_id), accounts[leg.terms.payer])
        return commands.prepare(plan, leg_id, epoch=epoch, payer_signature=signature)

    async def prepared(self, plan: PlanCase) -> dict[str, SignedVote]:
        """Every leg prepared for real; the participants' votes.

        Raises:
            AssertionError: a participant does not vote YES.
        """
        # Who promises to close the plan's chain wants to see that it has begun.
        moved: dict[str, Document] = {"transition_no": 1, "from": "", "to": "DRAFT", "decision": "", "cause": "CREATED"}
        made = gate_document(self._made.setdefault(plan.plan_id, plan.gate(Gate.MAKE)), "maker")
        await self.append(plan, [("plan.created", "maker", "maker", {"transition": moved, "gate": made})])
        votes = {}
        for leg in plan.legs:
            command = self.prepare_command(plan, leg.leg_id)
            report = await self._settled(plan, leg.leg_id, command)
            votes[str(leg.leg_id)] = vote_from_pb(report.vote)
        return votes

    async def _settled(self, plan: PlanCase, leg_id: str, command: leg_pb2.PrepareCommand) -> leg_pb2.LegReport:
        async with asyncio.timeout(STEP_SECONDS_MAX):
            while True:
                answer = await self.prepare(plan, leg_id, command)
                if answer.verdict != leg_pb2.COMMAND_VERDICT_PENDING:
                    if answer.verdict != leg_pb2.COMMAND_VERDICT_DONE:
                        raise AssertionError(f"leg {leg_id} is not prepared: {answer}")
                    return answer.report

    async def prepare(self, plan: PlanCase, leg_id: str, command: leg_pb2.PrepareCommand) -> leg_pb2.CommandAnswer:
        """One Prepare, as it is."""
        request = commands.prepare_request(command, wait=1.0)
        return (await self.stub(plan, leg_id).Prepare(request, timeout=CALL_SECONDS)).answers[0]

    async def commit(
        self,
        plan: PlanCase,
        leg_id: str,
        certificate: Certificate,
        *,
        key: bytes | None = None,
        bound: PlanCase | None = None,
        epoch: Epoch = EPOCH,
    ) -> leg_pb2.CommandAnswer:
        """One Commit of a leg with this certificate; with another key, or bound to another plan, where that is told."""
        command = commands.commit(bound or plan, leg_id, certificate, epoch=epoch)
        if key is not None:
            command.key = key
        return await self.send_commit(plan, leg_id, command, certificate)

    async def send_commit(
        self, plan: PlanCase, leg_id: str, command: leg_pb2.CommitCommand, certificate: Certificate
    ) -> leg_pb2.CommandAnswer:
        """One Commit, as it is."""
        request = participant_service_pb2.CommitRequest(
            commands=[command], certificates=[certificate_to_pb(certificate)], wait=commands.duration(1.0)
        )
        return (await self.stub(plan, leg_id).Commit(request, timeout=CALL_SECONDS)).answers[0]

    async def abort(self, plan: PlanCase, leg_id: str, authority: AbortAuthority, *, epoch: Epoch = EPOCH) -> leg_pb2.CommandAnswer:
        """One Abort of a leg with this authority."""
        request = commands.abort_request(commands.abort(plan, leg_id, authority, epoch=epoch), wait=1.0)
        return (await self.stub(plan, leg_id).Abort(request, timeout=CALL_SECONDS)).answers[0]

    async def get(self, plan: PlanCase, leg_id: str, *, raise_to: Epoch | None = None) -> leg_pb2.LegReport:
        """What the participant says of a leg."""
        request = participant_service_pb2.GetLegRequest(plan_id=plan.plan_id, leg_id=leg_id)
        if raise_to is not None:
            request.raise_to.CopyFrom(epoch_to_pb(raise_to))
        return (await self.stub(plan, leg_id).GetLeg(request, timeout=CALL_SECONDS)).report

    async def phase(self, plan: PlanCase, leg_id: str, phase: leg_pb2.LegPhase.ValueType) -> leg_pb2.LegReport:
        """The report of a leg, once it is in a phase."""
        async with asyncio.timeout(STEP_SECONDS_MAX):
            while True:
                report = await self.get(plan, leg_id)
                if report.phase == phase:
                    return report
                await asyncio.sleep(0.2)

    def certificate(self, plan: SandboxPlan, votes: Mapping[str, SignedVote], *, decided_at: datetime | None = None) -> Certificate:
        """What an honest coordinator would send: the bank's promise can lapse, so the decision is delegated to it."""
        given = tuple(votes[leg.leg_id] for leg in plan.legs)
        soft = next((each.vote.leg_id for each in given if each.vote.promise is not None and each.vote.promise.soft), "")
        return Certificate(
            header=plan.header,
            make=self._made[plan.plan_id],
            approve=plan.gate(Gate.APPROVE),
            release=plan.gate(Gate.RELEASE, votes=given),
            votes=given,
            decision=Decision.DELEGATED if soft else Decision.COMMIT,
            delegated_leg_id=soft,
            delegated_outcome=None,
            decided_at=decided_at or datetime.now(UTC),
        )

    async def released(self, plan: SandboxPlan) -> None:
        """Let go of what is held, as the maker wants it."""
        for leg in plan.legs:
            if leg.kind not in (LegKind.JOURNAL, LegKind.NOTARISATION):
                await self.abort(plan, leg.leg_id, plan.gate(Gate.CANCEL))

    # -- the journal -------------------------------------------------------------------------------------------------

    async def append(self, plan: PlanCase, events: Sequence[tuple[str, str, str, Mapping[str, Document]]]) -> None:
        """Write events (type, actor, role, payload) behind those of the plan that were written before.

        Raises:
            AssertionError: the journal does not take one.
        """
        told = [
            journal_service_pb2.Event(
                plan_id=plan.plan_id,
                sequence=number,
                event_id=journal_event_id(plan.plan_id, number),
                type=kind,
                actor=actor,
                actor_role=role,
                event_time=time_to_pb(datetime.now(UTC)),
                payload=canonical({"version": 1, "plan_digest": plan.header.digest.hex(), **payload}),
                epoch=epoch_to_pb(EPOCH),
            )
            for number, (kind, actor, role, payload) in enumerate(events, self._written.get(plan.plan_id, 0) + 1)
        ]
        self._written[plan.plan_id] = self._written.get(plan.plan_id, 0) + len(events)
        answer = await self._journal.Append(journal_service_pb2.AppendRequest(events=told), timeout=CALL_SECONDS)
        if any(each.verdict != journal_service_pb2.APPEND_VERDICT_APPENDED for each in answer.answers):
            raise AssertionError(str(answer))


def gate_document(signed: GateSignature, actor: str) -> dict[str, Document]:
    """A gate's signature as a payload records it."""
    told = signed.statement
    document: dict[str, Document] = {
        "gate": told.gate.value,
        "verdict": told.verdict.value,
        "actor": actor,
        "nonce": told.nonce.hex(),
        "expires_at": time_text(told.expires_at),
        "key_id": signed.signature.key_id,
        "signature": signed.signature.octets.hex(),
    }
    if told.votes_digest is not None:
        document["votes_digest"] = told.votes_digest.hex()
    return document


def leg_document(plan: PlanCase, vote: SignedVote, outcome: SignedOutcome | None = None) -> dict[str, Document]:
    """A leg with what its participant has signed, as a payload records it."""
    leg = plan.leg(vote.vote.leg_id)
    document: dict[str, Document] = {
        "leg_id": leg.leg_id,
        "kind": leg.kind.value,
        "vote": {**_signed(vote.vote.signed_bytes(), vote.signature), "vote": "YES"},
    }
    if outcome is not None:
        document["outcome"] = {**_signed(outcome.outcome.signed_bytes(), outcome.signature), "kind": outcome.outcome.kind.value}
    return document


def _signed(octets: bytes, signature: Signature) -> dict[str, Document]:
    return {
        "statement": octets.decode(),
        "statement_sha256": sha256(octets).hex(),
        "key_id": signature.key_id,
        "signature": signature.octets.hex(),
    }
