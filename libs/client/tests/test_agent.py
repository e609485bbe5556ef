"""The validator agent: it signs once, for what holds, and says what does not."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_client.agent import AgentSettings, Conclusion, GateAgent, Judgement
from lockstep_client.calls import CallSettings
from lockstep_client.client import LockstepClient
from lockstep_client.evidence import Finding, check_plan
from lockstep_kit.convert import gate_from_pb
from lockstep_kit.errors import LockstepError, permission_denied, unavailable
from lockstep_kit.ids import sha256
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import Gate, Verdict, evidence_digest

KEY = SigningKey(sha256(b"validator"))
FAST = CallSettings(deadline_seconds=60.0, attempts_max=2, pause_seconds_max=0.02)
CONTRADICTS = Finding("CHAIN_AMOUNT_DIFFERS", "delivery", "the escrow paid 1 minor units, not 10000")
NOT_YET = Finding("BANK_BOOKINGS", "payment", "the book has 0 bookings", may_pass=True)
SILENT = Finding("JOURNAL_BEHIND", "", "the journal holds 1 of 9 entries", may_pass=True)


class Eyes:
    """An inspector whose findings a test chooses, after the real check of the plan itself."""

    def __init__(self, world: Any, *found: Sequence[Finding]) -> None:
        self._registry = world.registry
        self._found = list(found) or [()]
        self.looks = 0

    async def inspect(self, view: Any) -> Sequence[Finding]:
        self.looks += 1
        found = self._found.pop(0) if len(self._found) > 1 else self._found[0]
        return [*check_plan(view, self._registry), *found]


class Blind:
    """An inspector who finds nothing wrong."""

    async def inspect(self, view: Any) -> Sequence[Finding]:
        return ()


class Desk:
    """An agent at its desk, with what it said."""

    def __init__(self, coordinator: Any, eyes: Eyes | Blind, folder: Path, **settings: Any) -> None:
        self.said: list[Judgement] = []
        self.client = LockstepClient(coordinator.target, coordinator.tls, FAST)
        pace = {"poll_seconds": 0.02, "again_seconds_min": 0.01, "again_seconds_max": 0.05} | settings
        self.agent = GateAgent(self.client, eyes, KEY, folder, AgentSettings(**pace), self.said.append)

    async def work(self, seconds: float, done: Callable[[Desk], bool] = lambda _: True) -> None:
        """It works for so long, and on until what it is to come to is done."""
        running = asyncio.create_task(self.agent.run())
        await asyncio.sleep(seconds)
        async with asyncio.timeout(120):
            while not done(self):  # noqa: ASYNC110 - it says nothing when it is done
                await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await self.client.close()


def told(desk: Desk) -> bool:
    return len(desk.said) >= 1


def told_twice(desk: Desk) -> bool:
    return len(desk.said) >= 2


def waits(coordinator: Any, world: Any) -> None:
    """The plan waits for validation, and goes on waiting: the worst that a coordinator can do to whoever must sign once."""
    plan = world.message()
    shown = messages.PlanNews(plan_id=plan.header.plan_id, sequence=1, plan=plan)
    coordinator.script.will(
        "WatchPlans", lambda _: [messages.WatchPlansResponse(news=[shown], snapshot_complete=True, resume_token="a")]
    )
    coordinator.script.will("GetPlan", messages.GetPlanResponse(plan=plan))
    coordinator.script.will("SignGate", messages.SignGateResponse(plan=plan))


async def test_it_signs_once(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """For evidence that holds it signs the recomputed digest, once, however often the plan is shown to it."""
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world), tmp_path)
    await desk.work(0.5, told)
    (request,) = coordinator.script.asked("SignGate")
    signed = gate_from_pb(request.signature)
    assert (signed.statement.gate, signed.statement.verdict) == (Gate.VALIDATE, Verdict.APPROVE)
    assert signed.statement.plan_digest == world.draft.header.digest
    assert signed.statement.evidence_digest == evidence_digest(world.outcomes[leg] for leg in ("delivery", "payment"))
    assert KEY.public.verifies(signed.statement.signed_bytes(), signed.signature.octets)
    assert [each.conclusion for each in desk.said] == [Conclusion.SIGNED]
    (file,) = tmp_path.glob("*.request")  # noqa: ASYNC240 - a folder of one file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_it_survives_a_restart(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """An agent that starts again sends the very request that it had signed before, and inspects nothing anew."""
    waits(coordinator, world)
    await Desk(coordinator, Eyes(world), tmp_path).work(0.3, told)
    eyes = Eyes(world, (CONTRADICTS,))
    await Desk(coordinator, eyes, tmp_path).work(0.3, told)
    first, second = coordinator.script.asked("SignGate")
    assert first == second
    assert eyes.looks == 0


async def test_a_lost_answer(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """When the coordinator is lost while it signs, it goes on with the same request until it is answered."""
    coordinator.script.will("SignGate", *[unavailable("STARTING", "starting")] * 5)
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world), tmp_path)
    await desk.work(0.5, told)
    sent = coordinator.script.asked("SignGate")
    assert len(sent) == 6
    assert all(request == sent[0] for request in sent)
    assert [each.conclusion for each in desk.said] == [Conclusion.SIGNED]


@pytest.mark.parametrize("batches", [True, False])
async def test_signatures_go_together(coordinator: Any, world: Any, tmp_path: Path, batches: bool) -> None:
    """What several plans wait for goes in few calls, each signature once; a coordinator that takes no batches is sent one after the other."""
    plans = []
    for number in range(12):
        plan = world.message()
        plan.header.plan_id = f"00000000-0000-4000-8000-{number:012}"
        plans.append(plan)
    ids = [plan.header.plan_id for plan in plans]
    news = [messages.PlanNews(plan_id=plan.header.plan_id, sequence=1, plan=plan) for plan in plans]
    shown = messages.WatchPlansResponse(news=news, snapshot_complete=True, resume_token="a")
    coordinator.script.will("WatchPlans", lambda _: [shown])
    # The first is held up, and what comes meanwhile goes together.
    coordinator.script.will("SignGate", unavailable("STARTING", "starting"), messages.SignGateResponse(plan=plans[0]))
    taken = lambda request: messages.SignGatesResponse(answers=[messages.PlanAnswer(plan=plans[0])] * len(request.requests))  # noqa: E731
    refused = LockstepError(grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN", "there is no such method")
    coordinator.script.will("SignGates", taken if batches else refused)
    desk = Desk(coordinator, Blind(), tmp_path, plans_max=3)
    await desk.work(0.0, lambda desk: len(desk.said) == len(plans))
    alone = [each.plan_id for each in coordinator.script.asked("SignGate")][1:]
    together = [[each.plan_id for each in request.requests] for request in coordinator.script.asked("SignGates")]
    assert together
    assert all(len(each) > 1 for each in together)
    answered = [*alone, *(plan_id for each in together for plan_id in each)] if batches else alone
    assert sorted(answered) == ids
    assert {each.conclusion for each in desk.said} == {Conclusion.SIGNED}


async def test_a_lost_stream(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """It goes on from where it was when its stream is lost, however often, and signs what came to wait meanwhile; it asks for no list."""
    waits(coordinator, world)
    (shows,) = coordinator.script.answers.pop("WatchPlans")
    (standing,) = shows(None)
    later = messages.WatchPlansResponse(news=standing.news, resume_token="b")
    coordinator.script.will(
        "WatchPlans",
        lambda _: [messages.WatchPlansResponse(snapshot_complete=True, resume_token="a"), unavailable("DRAINING", "draining")],
        *[unavailable("STARTING", "starting")] * 3,
        lambda _: [later],
    )
    desk = Desk(coordinator, Eyes(world), tmp_path)
    await desk.work(0.0, told)
    assert [each.conclusion for each in desk.said] == [Conclusion.SIGNED]
    asked = coordinator.script.asked("WatchPlans")
    assert [each.resume_token for each in asked] == ["", *["a"] * 4]
    assert {tuple(each.filter.states) for each in asked} == {(settlement.PLAN_STATE_VALIDATING,)}
    assert not coordinator.script.asked("ListPlans")


async def test_it_refuses_to_sign(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """Over evidence that contradicts it signs nothing, says why once, and looks again later."""
    waits(coordinator, world)
    eyes = Eyes(world, (CONTRADICTS,))
    desk = Desk(coordinator, eyes, tmp_path)
    await desk.work(0.4, lambda _: eyes.looks > 2)
    assert coordinator.script.asked("SignGate") == []
    assert desk.said == [Judgement(world.draft.header.plan_id, Conclusion.REFUSED, (CONTRADICTS,))]
    assert eyes.looks > 2


async def test_it_rejects_when_told_so(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """With the setting it signs a REJECT over a contradiction, but never over what may still come to hold."""
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world, (CONTRADICTS, NOT_YET), (CONTRADICTS,)), tmp_path, rejects=True)
    await desk.work(0.4, told_twice)
    (request,) = coordinator.script.asked("SignGate")
    assert gate_from_pb(request.signature).statement.verdict is Verdict.REJECT
    assert [each.conclusion for each in desk.said] == [Conclusion.WAITS, Conclusion.REJECTED]


async def test_it_waits_for_what_may_come(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """A booking that is not there yet is waited for, and then it signs."""
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world, (NOT_YET,), (NOT_YET,), ()), tmp_path)
    await desk.work(0.4, told_twice)
    assert [each.conclusion for each in desk.said] == [Conclusion.WAITS, Conclusion.SIGNED]


@pytest.mark.parametrize(("limit", "signatures"), [(0.1, 1), (3600.0, 0)])
async def test_a_silent_journal(coordinator: Any, world: Any, tmp_path: Path, limit: float, signatures: int) -> None:
    """A journal that is late holds up a signature for as long as is set and no longer: a decided plan settles without it."""
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world, (SILENT,)), tmp_path, journal_seconds_max=limit)
    await desk.work(0.5, lambda _: len(coordinator.script.asked("SignGate")) >= signatures)
    assert len(coordinator.script.asked("SignGate")) == signatures


async def test_tampered_plans_are_not_signed(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """A plan whose outcome somebody else signed is refused by the real check of the plan."""
    world.settle("payment", signer="dlt-gateway")
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world), tmp_path)
    await desk.work(0.3, told)
    assert coordinator.script.asked("SignGate") == []
    assert desk.said[0].findings[0].rule == "OUTCOME_SIGNATURE"


async def test_the_coordinator_refuses(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """A refusal by the coordinator is said and not asked for again."""
    coordinator.script.will("SignGate", permission_denied("GATE_SAME_PERSON", "one person may not act twice"))
    waits(coordinator, world)
    coordinator.script.answers["SignGate"] = coordinator.script.answers["SignGate"][:1]
    desk = Desk(coordinator, Eyes(world), tmp_path)
    await desk.work(0.3, told)
    assert len(coordinator.script.asked("SignGate")) == 1
    assert desk.said[0].conclusion is Conclusion.REFUSED
    assert "GATE_SAME_PERSON" in desk.said[0].detail


async def test_one_plan(coordinator: Any, world: Any, tmp_path: Path, watched: Any) -> None:
    """Told to follow one plan, it waits until that plan is to be validated, signs, and ends."""
    executing = world.message(state=settlement.PLAN_STATE_EXECUTING)
    plan = world.message()
    coordinator.script.will("GetPlan", messages.GetPlanResponse(plan=executing), messages.GetPlanResponse(plan=plan))
    coordinator.script.will("SignGate", messages.SignGateResponse(plan=plan))
    coordinator.script.will(
        "WatchPlan",
        lambda _: [watched(snapshot=executing, token="a"), watched(sequence=1, state=settlement.PLAN_STATE_VALIDATING, token="b")],
    )
    desk = Desk(coordinator, Eyes(world), tmp_path)
    judgement = await desk.agent.attend_one(plan.header.plan_id)
    await desk.client.close()
    assert judgement.conclusion is Conclusion.SIGNED
    assert len(coordinator.script.asked("SignGate")) == 1


async def test_a_plan_that_is_over(coordinator: Any, world: Any, tmp_path: Path, watched: Any) -> None:
    """A plan that no longer waits for validation is left alone."""
    closed = world.message(state=settlement.PLAN_STATE_CLOSED)
    coordinator.script.will("GetPlan", messages.GetPlanResponse(plan=closed))
    coordinator.script.will("WatchPlan", lambda _: [watched(snapshot=closed, token="a")])
    desk = Desk(coordinator, Eyes(world), tmp_path)
    assert (await desk.agent.attend_one(closed.header.plan_id)).conclusion is Conclusion.NOT_ASKED
    await desk.client.close()
