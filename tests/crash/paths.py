"""The ways that a plan can take through the system in the campaign, and what stands around them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import grpc

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1.settlement_service_pb2 import SignGateRequest
from lockstep.participant.v1 import leg_pb2
from lockstep.participant.v1.participant_service_pb2 import ReverseRequest
from lockstep.participant.v1.participant_service_pb2_grpc import ParticipantServiceStub
from lockstep.type.v1.resolution_pb2 import ReverseAuthority
from lockstep_client.client import draw_request_id
from lockstep_client.operators import OperatorClient
from lockstep_kit.convert import epoch_to_pb, gate_to_pb, reverse_authority_to_pb
from lockstep_kit.ids import NONCE_BYTES, Digest
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.reversals import OperatorsResolution
from lockstep_kit.rpc import channel
from lockstep_kit.statements import Verdict
from lockstep_sandbox import outside, scene
from lockstep_sandbox.processes import ProgramFailed
from lockstep_sandbox.stack import CLIENT
from lockstep_testkit.checker.collecting import leg_rows
from lockstep_testkit.convoys import Batches, Convoy
from lockstep_testkit.crew import Crew, awaited
from lockstep_testkit.journeys import Desk, Journey, closed, until_answered
from lockstep_testkit.miner import Miner

LOOK_SECONDS: Final = 0.1
#: Longest that nothing is mined, so that transactions lie in the pool when the price goes up.
STUCK_SECONDS_MAX: Final = 120.0
#: How long the lease of a coordinator that was killed holds, so that the next one has started by then, also on a busy machine.
HELD_SECONDS: Final = 6.0
HOLD: Final = "update lease set expires_at = clock_timestamp() + $2::interval where resource_id = $1"
#: How long a plan that lost its coordinator is left alone at the most; longer than the campaign's leases, also on a busy machine.
UNTOUCHED_SECONDS_MAX: Final = 20.0
LAPSE_SECONDS: Final = 4
#: Longest until a day's statements are reconciled, a gateway that is started again included.
STATED_SECONDS_MAX: Final = 180.0
#: Kinds of legs that need a block before they vote.
ON_CHAIN: Final = ("token_transfer", "notarisation")
CALL_SECONDS: Final = 3.0
ANSWERS_MAX: Final = 200
SIGNED_FOR: Final = timedelta(minutes=20)


class Path(StrEnum):
    """What becomes of a plan."""

    #: It settles.
    COMMIT = "COMMIT"
    #: Its maker stops it once everything is held.
    ABORT = "ABORT"
    #: The bank votes NO, while tokens are held.
    REFUSE = "REFUSE"
    #: Nobody releases it before its deadline.
    LAPSE = "LAPSE"
    #: Its coordinator dies while it waits for its release, and another process goes on with it.
    TAKEOVER = "TAKEOVER"
    #: Its transactions lie in the pool, too cheap to be mined.
    STUCK = "STUCK"
    #: It is executed, its validator refuses the evidence, and two operators have it reversed.
    REVERSE = "REVERSE"
    #: It settles, and then its evidence legs are told to reverse, which they refuse.
    STRAY = "STRAY"
    #: It settles, and goes on chain in batches.
    BATCHED = "BATCHED"
    #: It settles, the bank's day ends, and its statements are reconciled.
    STATED = "STATED"
    #: It goes with others, in batches: most settle, one is stopped by its maker, to one the bank votes NO.
    TOGETHER = "TOGETHER"


#: Of the plans that go together, each one's own path.
TOGETHER: Final = (Path.COMMIT, Path.COMMIT, Path.ABORT, Path.COMMIT, Path.REFUSE, Path.COMMIT)


def document(crew: Crew, path: Path) -> dict[str, Any]:
    """The plan of a path: all payments go to the same buyer, so that balances stay few."""
    sandbox = crew.sandbox
    plan = scene.delivery_versus_payment(
        sandbox.chain.address("seller"),
        sandbox.chain.address("buyer"),
        reference=path.value,
        quantity="0.10",
        price="30.00" if path is Path.REFUSE else "1.00",
        payer=scene.PAUPER if path is Path.REFUSE else scene.BUYER,
        deadline=f"{LAPSE_SECONDS}s" if path is Path.LAPSE else "30m",
    )
    if path is Path.REVERSE:
        # Money that is booked stays booked: only tokens can be taken back.
        del plan["legs"][1]
    if path is Path.BATCHED:
        plan["anchoring"] = "batched"
    return plan


def journey(crew: Crew, path: Path, desk: Desk | None = None) -> Journey:
    """A plan that will take a path by itself."""
    gates = ("approve",) if path in (Path.ABORT, Path.LAPSE) else ("approve", "release")
    return Journey(crew, document(crew, path), gates=gates, cancels=path is Path.ABORT, desk=desk)


def voyage(crew: Crew, path: Path) -> Journey | Convoy:
    """What will be sent down a path: one plan, or several."""
    if path is not Path.TOGETHER:
        return journey(crew, path)
    desk = Batches(crew.client)
    return Convoy(desk, [journey(crew, each, desk) for each in TOGETHER])


def course(crew: Crew, miner: Miner, path: Path, plan: Journey | Convoy) -> Callable[[], Awaitable[object]]:
    """What has to be done so that what is sent takes its path."""
    if isinstance(plan, Convoy):
        return plan.travel
    match path:
        case Path.TAKEOVER:
            return lambda: _taken_over(crew, miner, plan)
        case Path.STUCK:
            return lambda: _stuck(miner, plan)
        case Path.REVERSE:
            return lambda: _reversed(crew, plan)
        case Path.STRAY:
            return lambda: _stray(crew, plan)
        case Path.STATED:
            return lambda: _stated(crew, plan)
        case _:
            return plan.travel


async def _taken_over(crew: Crew, miner: Miner, plan: Journey) -> settlement.Plan:
    """Nothing is mined meanwhile, so that some legs owe an answer and no news of them arrives: news alone would have the plan taken up."""
    supervisor, owner = crew.sandbox.supervisor, "select owner from lease where resource_id = $1"
    miner.mines = False
    try:
        await plan.begin()
        await plan.drive(until=_heard_of_all_but_the_chain)
        await supervisor.kill9("coordinator")
        async with crew.database("coordinator") as database:
            # A process that starts reads again what was reported, and has a plan that nobody holds by then taken up by that.
            await database.execute(HOLD, plan.plan_id, timedelta(seconds=HELD_SECONDS))
            former = await database.fetchval(owner, plan.plan_id)
        # One that dies before it was seen to be ready did what it was told.
        with contextlib.suppress(ProgramFailed):
            await supervisor.start(supervisor.program("coordinator"))
        # Whoever asks about a plan that nobody holds has it taken up at once: nobody asks until recovery had its time.
        give_up = time.monotonic() + UNTOUCHED_SECONDS_MAX
        async with crew.database("coordinator") as database:
            while supervisor.is_running("coordinator") and time.monotonic() < give_up:
                if await database.fetchval(owner, plan.plan_id) != former:
                    break
                await asyncio.sleep(LOOK_SECONDS)
    finally:
        miner.mines = True
    return await plan.go_on()


async def _stated(crew: Crew, plan: Journey) -> settlement.Plan:
    """The bank states a day account by account; all of it is reconciled, whatever dies meanwhile."""
    seen = await plan.travel()
    ended = await outside.bank_command(crew.sandbox, "/end-of-day", {})
    stated = "select count(*) from bank_reconciliation where booking_date = $1"
    async with crew.database("bank-gateway") as database:
        give_up = time.monotonic() + STATED_SECONDS_MAX
        while time.monotonic() < give_up:
            if await database.fetchval(stated, date.fromisoformat(ended["day"])) == len(scene.HOLDERS):
                return seen
            await asyncio.sleep(LOOK_SECONDS)
    raise TimeoutError(f"the bank's statements of {ended['day']} are not reconciled")


def _heard_of_all_but_the_chain(plan: settlement.Plan) -> bool:
    """What is said of the legs on chain until they are mined is heard as well: it may come a while after."""
    voted = sum(each.HasField("vote") for each in plan.legs)
    return voted == len(plan.legs) - len(ON_CHAIN) and all(each.phase for each in plan.legs)


async def _reversed(crew: Crew, plan: Journey) -> settlement.Plan:
    await plan.begin()
    async with crew.paused_validator():
        seen = await plan.drive(until=lambda each: "validate" in awaited(each) and bool(each.evidence_digest))
        signed = crew.signature(seen, "validate", person="validator", verdict=Verdict.REJECT)
        request = SignGateRequest(request_id=draw_request_id(), plan_id=plan.plan_id, signature=gate_to_pb(signed))
        await until_answered(lambda: crew.client.send_gate(request))
        stuck = await plan.drive()
    (called,) = (each for each in stuck.escalations if each.reason == "EVIDENCE_REJECTED")
    async with OperatorClient(crew.sandbox.address("coordinator"), crew.sandbox.tls(CLIENT)) as desk:
        for signature in _operators(crew, seen.plan_digest, called.escalation_id).signatures:
            request_id = draw_request_id()
            await until_answered(lambda: desk.sign_resolution(signature, request_id=request_id))  # noqa: B023 - awaited here
    return await plan.go_on(closed)


def _operators(crew: Crew, plan_digest: bytes, escalation_id: str) -> OperatorsResolution:
    """Two operators' order to reverse a plan."""
    resolution = Resolution(Digest(plan_digest), escalation_id, Verb.REVERSE, detail="the validator refused the evidence")
    until = datetime.now(UTC).replace(microsecond=0) + SIGNED_FOR
    return OperatorsResolution(
        tuple(
            sign_resolution(ResolutionStatement(resolution, secrets.token_bytes(NONCE_BYTES), until), crew.key(person))
            for person in ("operator-one", "operator-two")
        )
    )


async def _stray(crew: Crew, plan: Journey) -> settlement.Plan:
    settled = await plan.travel()
    authority = reverse_authority_to_pb(_operators(crew, settled.plan_digest, "none"))
    for service in ("notary", "event-journal"):
        for row in await leg_rows(crew.sandbox, service):
            if row.plan_id == plan.plan_id:
                await _sent(crew, service, row, authority)
    plan.ended_at = time.monotonic()
    return settled


async def _sent(crew: Crew, service: str, row: LegRecord, authority: ReverseAuthority) -> None:
    """A Reverse that a participant has no business with, sent until it is answered."""
    command = leg_pb2.ReverseCommand(
        epoch=epoch_to_pb(row.fence.epoch), binding=leg_pb2.LegBinding.FromString(row.binding or b""), authority=authority
    )
    async with channel(crew.sandbox.address(service), crew.sandbox.tls("coordinator")) as bare:
        stub = ParticipantServiceStub(bare)
        for _ in range(ANSWERS_MAX):
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await stub.Reverse(ReverseRequest(commands=[command]), timeout=CALL_SECONDS)
                verdict = answer.answers[0].verdict
                if verdict != leg_pb2.COMMAND_VERDICT_REJECTED:
                    raise AssertionError(f"{service} answers a stray Reverse with {leg_pb2.CommandVerdict.Name(verdict)}")
                return
            await asyncio.sleep(LOOK_SECONDS)
    raise TimeoutError(f"{service} does not answer")


async def _stuck(miner: Miner, plan: Journey) -> settlement.Plan:
    miner.mines = False
    going = asyncio.create_task(plan.travel())
    try:
        async with asyncio.timeout(STUCK_SECONDS_MAX):
            # One transaction of each signer.
            while await miner.waiting() < 2:  # noqa: ASYNC110 - the node tells nobody
                await asyncio.sleep(LOOK_SECONDS)
        miner.dear, miner.mines = True, True
        return await going
    finally:
        miner.dear, miner.mines = False, True
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
