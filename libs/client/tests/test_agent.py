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
from lockstep_client import agent
from lockstep_client.agent import AgentSettings, Conclusion, GateAgent, Judgement
from lockstep_client.calls import CallSettings
from lockstep_client.client import LockstepClient
from lockstep_client.evidence import Finding, check_plan
from lockstep_kit.convert import gate_from_pb
from lockstep_kit.errors import LockstepError, permission_denied, to_status, unavailable
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

    async def inspect(self, views: Sequence[Any]) -> list[list[Finding]]:
        self.looks += 1
        found = self._found.pop(0) if len(self._found) > 1 else self._found[0]
        return [[*check_plan(view, self._registry), *found] for view in views]


class Desk:
    """An agent at its desk, with what it said."""

    def __init__(self, coordinator: Any, eyes: Eyes, folder: Path, **settings: Any) -> None:
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


def waits(coordinator: Any, *worlds: Any) -> None:
    """The plans wait for validation, and go on waiting: the worst that a coordinator can do to whoever must sign once."""
    plans = {world.draft.header.plan_id: world.message() for world in worlds}
    shown = [messages.PlanNews(plan_id=plan_id, sequence=1, plan=plan) for plan_id, plan in plans.items()]
    coordinator.script.will(
        "WatchPlans", lambda _: [messages.WatchPlansResponse(news=shown, snapshot_complete=True, resume_token="a")]
    )
    coordinator.script.will("SignGates", lambda request: taken(request, plans))


def taken(request: messages.SignGatesRequest, plans: dict[str, Any]) -> messages.SignGatesResponse:
    """Every signature is taken; one of a plan that is not among these is refused."""
    refused = refusal(permission_denied("GATE_SAME_PERSON", "one person may not act twice"))
    known = [plans.get(each.plan_id) for each in request.requests]
    return messages.SignGatesResponse(answers=[refused if plan is None else messages.PlanAnswer(plan=plan) for plan in known])


def refusal(error: LockstepError) -> messages.PlanAnswer:
    """What a batch answers of one plan."""
    status = to_status(error)
    return messages.PlanAnswer(refusal=messages.Refusal(code=status.code, message=status.message, details=status.details))


def answered(error: LockstepError) -> messages.SignGatesResponse:
    """A batch of one plan, answered with an error."""
    return messages.SignGatesResponse(answers=[refusal(error)])


def asked(coordinator: Any) -> list[Any]:
    """The requests to take a signature, of all calls."""
    return [each for call in coordinator.script.asked("SignGates") for each in call.requests]


async def test_it_signs_once(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """For evidence that holds it signs the recomputed digest, once, however often the plan is shown to it."""
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world), tmp_path)
    await desk.work(0.5, told)
    (request,) = asked(coordinator)
    signed = gate_from_pb(request.signature)
    assert (signed.statement.gate, signed.statement.verdict) == (Gate.VALIDATE, Verdict.APPROVE)
    assert signed.statement.plan_digest == world.draft.header.digest
    assert signed.statement.evidence_digest == evidence_digest(world.outcomes[leg] for leg in ("delivery", "payment"))
    assert KEY.public.verifies(signed.statement.signed_bytes(), signed.signature.octets)
    assert [each.conclusion for each in desk.said] == [Conclusion.SIGNED]
    (file,) = tmp_path.glob("*.requests")  # noqa: ASYNC240 - a folder of one file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_it_survives_a_restart(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """An agent that starts again sends the very request that it had signed before, and inspects nothing anew."""
    waits(coordinator, world)
    await Desk(coordinator, Eyes(world), tmp_path).work(0.3, told)
    eyes = Eyes(world, (CONTRADICTS,))
    await Desk(coordinator, eyes, tmp_path).work(0.3, told)
    first, second = asked(coordinator)
    assert first == second
    assert eyes.looks == 0


async def test_what_has_expired(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """A signature that opens the gate no more is not sent again: another one is made."""
    waits(coordinator, world)
    await Desk(coordinator, Eyes(world), tmp_path, signature_seconds=-1.0).work(0.3, told)
    eyes = Eyes(world)
    await Desk(coordinator, eyes, tmp_path).work(0.3, told)
    first, second = asked(coordinator)
    assert first.signature.nonce != second.signature.nonce
    assert eyes.looks == 1


async def signs_after(coordinator: Any, world: Any, folder: Path, *, requests: int) -> None:
    """The very same request is sent so many times, and the signature is said to be taken once."""
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world), folder)
    await desk.work(0.5, told)
    sent = asked(coordinator)
    assert len(sent) == requests
    assert all(request == sent[0] for request in sent)
    assert [each.conclusion for each in desk.said] == [Conclusion.SIGNED]


async def test_a_lost_answer(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """When the coordinator is lost while it signs, it goes on with the same request until it is answered."""
    coordinator.script.will("SignGates", *[unavailable("STARTING", "starting")] * 5)
    await signs_after(coordinator, world, tmp_path, requests=6)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
@pytest.mark.parametrize("alone", [False, True], ids=["the-call", "one-plan-of-it"])
async def test_an_answer_that_says_nothing(
    coordinator: Any, world: Any, tmp_path: Path, code: grpc.StatusCode, *, alone: bool
) -> None:
    """What is no refusal leaves open whether the signature was taken: the same request is sent until it is known."""
    trouble = LockstepError(code, "TROUBLE", "it went wrong inside")
    coordinator.script.will("SignGates", *[(lambda _: answered(trouble)) if alone else trouble] * 3)
    await signs_after(coordinator, world, tmp_path, requests=4)


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
    assert asked(coordinator) == []
    assert desk.said == [Judgement(world.draft.header.plan_id, Conclusion.REFUSED, (CONTRADICTS,))]
    assert eyes.looks > 2


async def test_it_rejects_when_told_so(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """With the setting it signs a REJECT over a contradiction, but never over what may still come to hold."""
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world, (CONTRADICTS, NOT_YET), (CONTRADICTS,)), tmp_path, rejects=True)
    await desk.work(0.4, told_twice)
    (request,) = asked(coordinator)
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
    await desk.work(0.5, lambda _: len(asked(coordinator)) >= signatures)
    assert len(asked(coordinator)) == signatures


async def test_tampered_plans_are_not_signed(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """A plan whose outcome somebody else signed is refused by the real check of the plan."""
    world.settle("payment", signer="dlt-gateway")
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world), tmp_path)
    await desk.work(0.3, told)
    assert asked(coordinator) == []
    assert desk.said[0].findings[0].rule == "OUTCOME_SIGNATURE"


async def test_the_coordinator_refuses(coordinator: Any, world: Any, tmp_path: Path) -> None:
    """A refusal by the coordinator is said and not asked for again."""
    coordinator.script.will("SignGates", lambda request: taken(request, {}))
    waits(coordinator, world)
    desk = Desk(coordinator, Eyes(world), tmp_path)
    await desk.work(0.3, told)
    assert len(asked(coordinator)) == 1
    assert desk.said[0].conclusion is Conclusion.REFUSED
    assert "GATE_SAME_PERSON" in desk.said[0].detail


async def test_plans_that_wait_together(coordinator: Any, new_world: Callable[[], Any], tmp_path: Path) -> None:
    """Plans that wait together are looked at and signed together; one that is tampered with, or refused, is so by itself."""
    worlds = [new_world() for _ in range(5)]
    refused, tampered = (world.draft.header.plan_id for world in worlds[:2])
    worlds[1].settle("payment", signer="dlt-gateway")
    waits(coordinator, *worlds)
    plans = {world.draft.header.plan_id: world.message() for world in worlds if world.draft.header.plan_id != refused}
    coordinator.script.answers["SignGates"] = [lambda request: taken(request, plans)]
    eyes = Eyes(worlds[0])
    desk = Desk(coordinator, eyes, tmp_path, again_seconds_min=600.0, again_seconds_max=600.0)
    await desk.work(0.3, lambda desk: len(desk.said) >= 5)
    assert eyes.looks == 1
    assert len(coordinator.script.asked("SignGates")) == 1
    for world, request in zip((worlds[0], *worlds[2:]), asked(coordinator), strict=True):
        assert request.plan_id == world.draft.header.plan_id
        assert gate_from_pb(request.signature).statement.plan_digest == world.draft.header.digest
    expected = dict.fromkeys(plans, Conclusion.SIGNED) | {refused: Conclusion.REFUSED, tampered: Conclusion.REFUSED}
    assert {each.plan_id: each.conclusion for each in desk.said} == expected
    (file,) = tmp_path.glob("*.requests")  # noqa: ASYNC240 - a folder of one file
    assert [each.plan_id for each in messages.SignGatesRequest.FromString(file.read_bytes()).requests] == [
        each.plan_id for each in asked(coordinator)
    ]


async def test_one_spoils_the_look(coordinator: Any, new_world: Callable[[], Any], tmp_path: Path) -> None:
    """A plan over which the look itself breaks keeps no other from being signed."""

    class Fragile(Eyes):
        async def inspect(self, views: Sequence[Any]) -> list[list[Finding]]:
            if any(view.header.plan_id == broken for view in views):
                raise RuntimeError("nobody thought of this")
            return await super().inspect(views)

    worlds = [new_world() for _ in range(3)]
    broken = worlds[1].draft.header.plan_id
    waits(coordinator, *worlds)
    desk = Desk(coordinator, Fragile(worlds[0]), tmp_path)
    await desk.work(0.0, told_twice)
    assert sorted(each.plan_id for each in desk.said) == sorted(world.draft.header.plan_id for world in (worlds[0], worlds[2]))


async def test_what_is_held_up(coordinator: Any, new_world: Callable[[], Any], tmp_path: Path, monkeypatch: Any) -> None:
    """Plans that the outside does not answer about hold up those that come later for a moment, and no longer."""
    monkeypatch.setattr(agent, "_PATIENCE_SECONDS", 0.1)
    first, later = new_world(), new_world()

    class Stuck(Eyes):
        async def inspect(self, views: Sequence[Any]) -> list[list[Finding]]:
            if any(view.header.plan_id == first.draft.header.plan_id for view in views):
                await asyncio.Event().wait()
            return await super().inspect(views)

    waits(coordinator, first)
    (shows,) = coordinator.script.answers.pop("WatchPlans")
    (standing,) = shows(None)
    plan = later.message()
    news = messages.WatchPlansResponse(
        news=[messages.PlanNews(plan_id=plan.header.plan_id, sequence=1, plan=plan)], resume_token="b"
    )
    coordinator.script.will("WatchPlans", lambda _: [standing, unavailable("DRAINING", "draining")], lambda _: [news])
    coordinator.script.answers["SignGates"] = [lambda request: taken(request, {plan.header.plan_id: plan})]
    desk = Desk(coordinator, Stuck(first), tmp_path)
    await desk.work(0.0, told)
    assert [(each.plan_id, each.conclusion) for each in desk.said] == [(plan.header.plan_id, Conclusion.SIGNED)]


async def test_one_plan(coordinator: Any, world: Any, tmp_path: Path, watched: Any) -> None:
    """Told to follow one plan, it waits until that plan is to be validated, signs, and ends."""
    executing = world.message(state=settlement.PLAN_STATE_EXECUTING)
    plan = world.message()
    coordinator.script.will("GetPlan", messages.GetPlanResponse(plan=executing), messages.GetPlanResponse(plan=plan))
    coordinator.script.will("SignGates", lambda request: taken(request, {plan.header.plan_id: plan}))
    coordinator.script.will(
        "WatchPlan",
        lambda _: [watched(snapshot=executing, token="a"), watched(sequence=1, state=settlement.PLAN_STATE_VALIDATING, token="b")],
    )
    desk = Desk(coordinator, Eyes(world), tmp_path)
    judgement = await desk.agent.attend_one(plan.header.plan_id)
    await desk.client.close()
    assert judgement.conclusion is Conclusion.SIGNED
    assert len(asked(coordinator)) == 1


async def test_a_plan_that_is_over(coordinator: Any, world: Any, tmp_path: Path, watched: Any) -> None:
    """A plan that no longer waits for validation is left alone."""
    closed = world.message(state=settlement.PLAN_STATE_CLOSED)
    coordinator.script.will("GetPlan", messages.GetPlanResponse(plan=closed))
    coordinator.script.will("WatchPlan", lambda _: [watched(snapshot=closed, token="a")])
    desk = Desk(coordinator, Eyes(world), tmp_path)
    assert (await desk.agent.attend_one(closed.header.plan_id)).conclusion is Conclusion.NOT_ASKED
    await desk.client.close()
