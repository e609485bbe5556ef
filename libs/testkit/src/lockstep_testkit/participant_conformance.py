"""What every participant must do, whatever its outside world: one suite over gRPC, run by each service against itself.

    class TestConformance(ParticipantConformance):
        @pytest_asyncio.fixture
        async def harness(self, …) -> AsyncIterator[ParticipantHarness]:
            …start the service with `factories.registry_of()` and the key `factories.key_of("bank-gateway")`…
            yield ParticipantHarness("bank-gateway", stub, "cash", plan)

The service runs for real, against its real outside world; the harness says how to get a plan whose leg can be prepared, executed and released there.
"""

# ruff: noqa: S101 - a suite of tests asserts

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import grpc
import pytest

from lockstep.participant.v1 import leg_pb2, participant_service_pb2
from lockstep_kit.certificate import Certificate, DeadlinePassed
from lockstep_kit.convert import epoch_to_pb, outcome_from_pb, vote_from_pb
from lockstep_kit.errors import from_rpc
from lockstep_kit.fence import Epoch
from lockstep_kit.participant.ports import Closing, PlanOutcome
from lockstep_kit.registry import Registry
from lockstep_kit.reversals import ReverseAuthority, order_digest
from lockstep_kit.statements import OutcomeKind
from lockstep_testkit import commands, factories
from lockstep_testkit.factories import PlanCase

if TYPE_CHECKING:
    from lockstep.participant.v1 import participant_service_pb2_grpc

CALL_SECONDS: Final = 60.0
DONE, REFUSED, REJECTED, PENDING = (
    leg_pb2.COMMAND_VERDICT_DONE,
    leg_pb2.COMMAND_VERDICT_REFUSED,
    leg_pb2.COMMAND_VERDICT_REJECTED,
    leg_pb2.COMMAND_VERDICT_PENDING,
)


async def _default_closing(plan: PlanCase, outcome: PlanOutcome) -> Closing:
    return plan.closing(outcome)


async def _default_prepare(plan: PlanCase, leg_id: str) -> leg_pb2.PrepareCommand:
    return commands.prepare(plan, leg_id)


@dataclass(frozen=True)
class ParticipantHarness:
    """A running participant and how to ask it."""

    #: Name that its votes carry.
    participant: str
    #: As the coordinator.
    stub: participant_service_pb2_grpc.ParticipantServiceStub
    #: Its leg in the plans.
    leg_id: str
    #: A new plan whose leg here can be prepared: whatever that needs outside is in place.
    plan: Callable[[], Awaitable[PlanCase]]
    #: The Prepare of a plan's leg, with a payer's signature where one is checked.
    prepare_command: Callable[[PlanCase, str], Awaitable[leg_pb2.PrepareCommand]] = _default_prepare
    #: Whether its leg, once executed, can be reversed.
    reversible: bool = False
    #: How a plan is closed; whatever must have been journalled before is.
    closing: Callable[[PlanCase, PlanOutcome], Awaitable[Closing]] = _default_closing
    #: Longest time that the outside world takes for one step.
    step_seconds: float = 120.0
    #: Registry to verify its signatures with.
    registry: Registry = field(default_factory=factories.registry_of)

    async def prepare(self, plan: PlanCase) -> leg_pb2.CommandAnswer:
        """Prepare the leg, and wait until it has voted."""
        command = await self.prepare_command(plan, self.leg_id)
        return await self.settled(lambda: self.send_prepare(command))

    async def commit(self, plan: PlanCase, vote: leg_pb2.LegReport, epoch: Epoch = commands.FIRST_EPOCH) -> leg_pb2.CommandAnswer:
        """Commit the leg with a certificate that holds its own vote, and wait until it is executed."""
        certificate = plan.certificate(vote_from_pb(vote.vote))
        command = await self.commit_command(plan, certificate, epoch)
        return await self.settled(lambda: self.send_commit(command, certificate))

    async def commit_command(
        self, plan: PlanCase, certificate: Certificate, epoch: Epoch = commands.FIRST_EPOCH
    ) -> leg_pb2.CommitCommand:
        """The Commit of the leg."""
        closing = None if plan.leg(self.leg_id).settling else await self.closing(plan, PlanOutcome.COMMITTED)
        return commands.commit(plan, self.leg_id, certificate, epoch=epoch, closing=closing)

    async def abort(self, plan: PlanCase, epoch: Epoch = commands.FIRST_EPOCH) -> leg_pb2.CommandAnswer:
        """Abort the leg because the maker cancelled, and wait until it is released."""
        closing = None if plan.leg(self.leg_id).settling else await self.closing(plan, PlanOutcome.ABORTED)
        command = commands.abort(plan, self.leg_id, epoch=epoch, closing=closing)
        return await self.settled(lambda: self.send_abort(command))

    async def reverse(
        self, plan: PlanCase, authority: ReverseAuthority, epoch: Epoch = commands.FIRST_EPOCH
    ) -> leg_pb2.CommandAnswer:
        """Reverse the leg, and wait until it is reversed or that is refused."""
        command = commands.reverse(plan, self.leg_id, authority, epoch=epoch)
        return await self.settled(lambda: self.send_reverse(command))

    async def settled(self, send: Callable[[], Awaitable[leg_pb2.CommandAnswer]]) -> leg_pb2.CommandAnswer:
        """Repeat a command, which changes nothing, until its answer is no longer PENDING."""
        clock = asyncio.get_running_loop()
        until = clock.time() + self.step_seconds
        while True:
            answer = await send()
            if answer.verdict != PENDING:
                return answer
            assert clock.time() < until, (
                f"the leg does not leave {leg_pb2.LegPhase.Name(answer.report.phase)}: {answer.report.trouble}"
            )

    async def send_prepare(self, command: leg_pb2.PrepareCommand) -> leg_pb2.CommandAnswer:
        """One Prepare of one leg."""
        response = await self.stub.Prepare(commands.prepare_request(command, wait=1.0), timeout=CALL_SECONDS)
        return response.answers[0]

    async def send_commit(self, command: leg_pb2.CommitCommand, certificate: Certificate) -> leg_pb2.CommandAnswer:
        """One Commit of one leg."""
        response = await self.stub.Commit(commands.commit_request([command], certificate, wait=1.0), timeout=CALL_SECONDS)
        return response.answers[0]

    async def send_abort(self, command: leg_pb2.AbortCommand) -> leg_pb2.CommandAnswer:
        """One Abort of one leg."""
        response = await self.stub.Abort(commands.abort_request(command, wait=1.0), timeout=CALL_SECONDS)
        return response.answers[0]

    async def send_reverse(self, command: leg_pb2.ReverseCommand) -> leg_pb2.CommandAnswer:
        """One Reverse of one leg."""
        response = await self.stub.Reverse(commands.reverse_request(command, wait=1.0), timeout=CALL_SECONDS)
        return response.answers[0]

    async def get(self, plan: PlanCase, raise_to: Epoch | None = None) -> leg_pb2.LegReport | None:
        """What is known of the leg."""
        request = participant_service_pb2.GetLegRequest(plan_id=plan.plan_id, leg_id=self.leg_id)
        if raise_to is not None:
            request.raise_to.CopyFrom(epoch_to_pb(raise_to))
        response = await self.stub.GetLeg(request, timeout=CALL_SECONDS)
        return response.report if response.HasField("report") else None


class ParticipantConformance:
    """The suite; a service's test class inherits it and gives the fixture `harness`."""

    async def test_describes_itself(self, harness: ParticipantHarness) -> None:
        """A participant says under which name and key it votes, and which legs it serves."""
        found = await harness.stub.Describe(participant_service_pb2.DescribeRequest(), timeout=CALL_SECONDS)
        plan = await harness.plan()
        assert found.participant == harness.participant
        assert plan.leg(harness.leg_id).kind in found.leg_kinds
        keys = [key.public.key_id for each in harness.registry.participants if each.name == found.participant for key in each.keys]
        assert found.key_id in keys

    async def test_votes_once(self, harness: ParticipantHarness) -> None:
        """A YES is signed by the participant over plan, leg and lock, and a replay returns the very same bytes."""
        plan = await harness.plan()
        answer = await harness.prepare(plan)
        assert answer.verdict == DONE, answer
        signed = vote_from_pb(answer.report.vote)
        voter = harness.registry.participant_of(signed.signature, signed.vote.signed_bytes(), signed.vote.voted_at)
        assert voter is not None
        assert voter.name == harness.participant
        assert signed.vote.promise is not None
        assert (signed.vote.plan_digest, signed.vote.lock) == (plan.header.digest, plan.lock(harness.leg_id))
        again = await harness.prepare(plan)
        assert again == answer

    async def test_executes_once(self, harness: ParticipantHarness) -> None:
        """A commit with the certificate is executed and signed, and a replay returns the very same bytes."""
        plan = await harness.plan()
        vote = await harness.prepare(plan)
        done = await harness.commit(plan, vote.report)
        assert done.verdict == DONE, done
        assert done.report.phase == leg_pb2.LEG_PHASE_COMMITTED
        signed = outcome_from_pb(done.report.outcome)
        who = harness.registry.participant_of(signed.signature, signed.outcome.signed_bytes(), signed.outcome.settled_at)
        assert who is not None
        assert who.name == harness.participant
        assert signed.outcome.kind is OutcomeKind.DONE
        assert signed.outcome.evidence is not None
        again = await harness.commit(plan, vote.report)
        assert again.report == done.report

    async def test_releases(self, harness: ParticipantHarness) -> None:
        """A prepared leg whose plan was cancelled is released, signed, and can never be committed."""
        plan = await harness.plan()
        vote = await harness.prepare(plan)
        released = await harness.abort(plan)
        assert released.verdict == DONE, released
        assert released.report.phase == leg_pb2.LEG_PHASE_RELEASED
        assert outcome_from_pb(released.report.outcome).outcome.kind is OutcomeKind.RELEASED
        late = await harness.commit(plan, vote.report)
        assert (late.verdict, late.rejection.reason) == (REJECTED, "LEG_RELEASED")

    async def test_executed_is_not_released(self, harness: ParticipantHarness) -> None:
        """An executed leg stays executed, whatever authority an Abort shows."""
        plan = await harness.plan()
        vote = await harness.prepare(plan)
        await harness.commit(plan, vote.report)
        answer = await harness.abort(plan)
        assert (answer.verdict, answer.rejection.reason) == (REJECTED, "LEG_COMMITTED")
        assert answer.report.phase == leg_pb2.LEG_PHASE_COMMITTED

    async def test_reverses_once(self, harness: ParticipantHarness) -> None:
        """An order of two operators is answered for good: reversed with evidence, or refused with a reason; a replay returns the same bytes."""
        plan = await harness.plan()
        if not plan.leg(harness.leg_id).settling:
            pytest.skip("evidence legs are never reversed")
        done = await harness.commit(plan, (await harness.prepare(plan)).report)
        authority = plan.reversal()
        answer = await harness.reverse(plan, authority)
        signed = outcome_from_pb(answer.report.reversal)
        who = harness.registry.participant_of(signed.signature, signed.outcome.signed_bytes(), signed.outcome.settled_at)
        assert who is not None
        assert (who.name, signed.outcome.order) == (harness.participant, order_digest(authority))
        assert answer.report.outcome == done.report.outcome
        if harness.reversible:
            assert (answer.verdict, answer.report.phase) == (DONE, leg_pb2.LEG_PHASE_REVERSED)
            assert signed.outcome.kind is OutcomeKind.REVERSED
            assert signed.outcome.evidence is not None
        else:
            assert (answer.verdict, answer.report.phase) == (REFUSED, leg_pb2.LEG_PHASE_COMMITTED)
            assert signed.outcome.kind is OutcomeKind.REVERSAL_REFUSED
            assert signed.outcome.refusal is not None
            assert signed.outcome.refusal.reason == "REVERSAL_UNSUPPORTED"
        assert (await harness.reverse(plan, authority)).report == answer.report
        assert await harness.get(plan) == answer.report

    async def test_only_executed_legs_are_reversed(self, harness: ParticipantHarness) -> None:
        """Reverse of a leg that is not known, or prepared and no more, changes nothing."""
        plan = await harness.plan()
        unknown = await harness.reverse(plan, plan.reversal())
        assert (unknown.verdict, unknown.rejection.reason) == (REJECTED, "LEG_UNKNOWN")
        assert await harness.get(plan) is None
        prepared = await harness.prepare(plan)
        early = await harness.reverse(plan, plan.reversal())
        assert (early.verdict, early.rejection.reason) == (REJECTED, "LEG_NOT_EXECUTED")
        assert await harness.get(plan) == prepared.report

    async def test_reverse_without_authority(self, harness: ParticipantHarness) -> None:
        """One operator twice, somebody of the plan's gates, or an order that ran out reverse nothing; neither does anybody an evidence leg."""
        plan = await harness.plan()
        done = await harness.commit(plan, (await harness.prepare(plan)).report)
        early = datetime.now(UTC) - timedelta(hours=1)
        if plan.leg(harness.leg_id).settling:
            orders = {
                "RESOLUTION_SAME_PERSON": plan.reversal("erin", "erin"),
                "RESOLUTION_ROLE": plan.reversal("erin", "bob"),
                "RESOLUTION_SIGNERS": plan.reversal("erin"),
                "RESOLUTION_EXPIRED": plan.reversal(expires_at=early),
                "RESOLUTION_PLAN_DIGEST": factories.delivery_versus_payment().reversal(),
            }
        else:
            orders = {"REVERSE_LEG_KIND": plan.reversal()}
        for reason, authority in orders.items():
            answer = await harness.reverse(plan, authority)
            assert (answer.verdict, answer.rejection.reason) == (REJECTED, reason)
        assert await harness.get(plan) == done.report

    async def test_abort_bars_unknown_leg(self, harness: ParticipantHarness) -> None:
        """Abort of a leg that was never prepared leaves a tombstone, which bars the Prepare that comes late."""
        plan = await harness.plan()
        released = await harness.abort(plan)
        assert released.verdict == DONE, released
        late = await harness.prepare(plan)
        assert (late.verdict, late.rejection.reason) == (REJECTED, "LEG_RELEASED")

    async def test_commit_of_unknown_leg(self, harness: ParticipantHarness) -> None:
        """Commit of a leg that is not known and not voted for is Rejected, never Refused, and leaves nothing."""
        plan = await harness.plan()
        other = "dlt-gateway" if harness.participant != "dlt-gateway" else "bank-gateway"
        certificate = plan.certificate(plan.vote(harness.leg_id, participant=other))
        answer = await harness.send_commit(await harness.commit_command(plan, certificate), certificate)
        assert answer.verdict == REJECTED
        assert await harness.get(plan) is None

    async def test_stale_epoch(self, harness: ParticipantHarness) -> None:
        """A command of an owner that has been replaced changes nothing; raising the fence works before the leg is known."""
        plan = await harness.plan()
        assert await harness.get(plan, raise_to=Epoch(2, 7)) is None
        command = await harness.prepare_command(plan, harness.leg_id)
        stale = await harness.send_prepare(command)
        assert (stale.verdict, stale.rejection.reason) == (REJECTED, "EPOCH_STALE")
        assert await harness.get(plan) is None
        command.epoch.CopyFrom(epoch_to_pb(Epoch(2, 8)))
        assert (await harness.settled(lambda: harness.send_prepare(command))).verdict == DONE
        assert (await harness.abort(plan, Epoch(2, 7))).rejection.reason == "EPOCH_STALE"

    async def test_other_lock(self, harness: ParticipantHarness) -> None:
        """A leg that is known with one lock is never touched under another."""
        plan = await harness.plan()
        before = await harness.prepare(plan)
        other = plan.with_lock_of(factories.delivery_versus_payment())
        answer = await harness.send_abort(commands.abort(other, harness.leg_id))
        assert (answer.verdict, answer.rejection.reason) == (REJECTED, "DIGEST_MISMATCH")
        assert await harness.get(plan) == before.report

    async def test_commit_without_authority(self, harness: ParticipantHarness) -> None:
        """A certificate whose releaser signed over other votes, or a wrong key, moves nothing."""
        plan = await harness.plan()
        before = await harness.prepare(plan)
        vote = vote_from_pb(before.report.vote)
        good, other = plan.certificate(vote), plan.certificate()
        forged = replace(good, release=other.release)
        answer = await harness.send_commit(await harness.commit_command(plan, forged), forged)
        assert (answer.verdict, answer.rejection.reason) == (REJECTED, "CERTIFICATE_VOTES_DIGEST")
        if plan.leg(harness.leg_id).settling:
            command = await harness.commit_command(plan, good)
            command.key = bytes(32)
            answer = await harness.send_commit(command, good)
            assert (answer.verdict, answer.rejection.reason) == (REJECTED, "KEY_WRONG")
        assert await harness.get(plan) == before.report

    async def test_abort_without_authority(self, harness: ParticipantHarness) -> None:
        """A prepared leg is not released because a deadline is said to have passed that has not."""
        plan = await harness.plan()
        before = await harness.prepare(plan)
        answer = await harness.send_abort(commands.abort(plan, harness.leg_id, DeadlinePassed()))
        assert (answer.verdict, answer.rejection.reason) == (REJECTED, "ABORT_DEADLINE")
        assert await harness.get(plan) == before.report

    async def test_one_bad_item(self, harness: ParticipantHarness) -> None:
        """One bad item of a batch is Rejected by itself, with the field at fault; the others are done."""
        good, bad = await harness.plan(), await harness.plan()
        commands_sent = [await harness.prepare_command(plan, harness.leg_id) for plan in (bad, good)]
        commands_sent[0].binding.lock = b"short"
        response = await harness.stub.Prepare(commands.prepare_request(*commands_sent, commands_sent[1]), timeout=CALL_SECONDS)
        first, second, third = response.answers
        assert (first.verdict, first.rejection.reason, first.rejection.field) == (REJECTED, "FIELD_INVALID", "binding.lock")
        assert second.verdict in {DONE, PENDING}
        assert (third.verdict, third.rejection.reason) == (REJECTED, "LEG_TWICE")
        assert await harness.get(bad) is None
        assert (await harness.prepare(good)).verdict == DONE

    async def test_foreign_leg(self, harness: ParticipantHarness) -> None:
        """A leg of a kind that the participant does not serve is Rejected."""
        plan = await harness.plan()
        described = await harness.stub.Describe(participant_service_pb2.DescribeRequest(), timeout=CALL_SECONDS)
        foreign = next((leg for leg in plan.legs if leg.kind not in described.leg_kinds), None)
        if foreign is None:
            pytest.skip("every leg of the plan is served here")
        answer = await harness.send_prepare(commands.prepare(plan, foreign.leg_id))
        assert (answer.verdict, answer.rejection.reason) == (REJECTED, "LEG_KIND_NOT_SERVED")

    @pytest.mark.parametrize("count", [0, 257])
    async def test_batch_size(self, harness: ParticipantHarness, count: int) -> None:
        """A batch holds 1 to 256 items; another request is refused as a whole, with the field at fault."""
        request = participant_service_pb2.AbortRequest(commands=[leg_pb2.AbortCommand()] * count)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await harness.stub.Abort(request, timeout=CALL_SECONDS)
        error = from_rpc(caught.value)
        assert (error.code, error.reason, error.metadata["field"]) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "FIELD_INVALID",
            "commands",
        )

    async def test_watch_resumes(self, harness: ParticipantHarness) -> None:
        """A watcher that resumes after its cursor is told of every leg that has changed since, and of none before."""
        before, after = await harness.plan(), await harness.plan()
        await harness.prepare(before)
        cursor = await self._cursor_at(harness, before)
        await harness.prepare(after)
        seen: list[leg_pb2.LegReport] = []
        call = harness.stub.WatchOutcomes(participant_service_pb2.WatchOutcomesRequest(after=cursor), timeout=CALL_SECONDS)
        async for message in call:
            seen += list(message.reports)
            if any(report.plan_id == after.plan_id and report.phase == leg_pb2.LEG_PHASE_PREPARED for report in seen):
                break
        call.cancel()
        assert before.plan_id not in {report.plan_id for report in seen}

    @staticmethod
    async def _cursor_at(harness: ParticipantHarness, plan: PlanCase) -> participant_service_pb2.OutcomeCursor:
        report = await harness.get(plan)
        call = harness.stub.WatchOutcomes(participant_service_pb2.WatchOutcomesRequest(), timeout=CALL_SECONDS)
        async for message in call:
            if report in message.reports:
                call.cancel()
                return message.cursor
        raise AssertionError("the stream ended before the change came")

    async def test_lists_every_leg(self, harness: ParticipantHarness) -> None:
        """Paging through all legs meets each once, in the order of their first record."""
        plans = [await harness.plan() for _ in range(3)]
        for plan in plans:
            await harness.prepare(plan)
        seen: list[str] = []
        token = ""
        for _ in range(1_000):
            request = participant_service_pb2.ListLegsRequest(page_size=2, page_token=token)
            page = await harness.stub.ListLegs(request, timeout=CALL_SECONDS)
            seen += [report.plan_id for report in page.reports]
            token = page.next_page_token
            if not token:
                break
        ours = [plan_id for plan_id in seen if plan_id in {plan.plan_id for plan in plans}]
        assert ours == [plan.plan_id for plan in plans]
