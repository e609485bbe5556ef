"""Notices on their way to webhooks: signed, repeated, never lost, and never at the cost of a settlement."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from coordinator.model import PersonNeeded
from coordinator.notices import NoticeKind
from coordinator.webhook_settings import NoticeSettings, WebhookSettings, read_secret
from coordinator.webhooks import forbidden, signature
from lockstep.coordinator.v1 import operator_service_pb2
from lockstep.coordinator.v1.operator_service_pb2_grpc import OperatorServiceStub
from lockstep_kit import failpoints
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.rpc import channel
from lockstep_sandbox.ports import free_ports
from lockstep_testkit.factories import delivery_versus_payment

CLIENT = "spiffe://lockstep.local/client/test"
SECRET = bytes(range(32))
QUICK = NoticeSettings(allow_loopback=True, answer_seconds=60.0, pause_seconds_max=0.2, sweep_seconds=0.1)
#: For a receiver that never answers: longer than one that does takes on a slow machine.
HASTY = QUICK.model_copy(update={"answer_seconds": 3.0})
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def taken(_: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


async def failed(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="no")


async def slow(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(600)
    return web.Response()


async def lost(request: web.Request) -> web.StreamResponse:
    """Taken, and the connection cut before the answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    """Taken, with an answer that never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(1200):
        await response.write(bytes(65_536))
        await asyncio.sleep(0.1)
    return response


@dataclass
class Receiver:
    """A webhook that checks what a receiver must, and answers as its script says; what is behind the script is taken."""

    folder: Path
    name: str = "desk"
    script: list[Answer] = field(default_factory=list)
    always: Answer = taken
    got: list[dict[str, Any]] = field(default_factory=list)
    elsewhere: int = 0
    #: Nobody else is given it while the receiver is down.
    port: int = field(default_factory=lambda: free_ports(1)[0])
    runner: web.AppRunner | None = None

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        notice_id, stamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        assert abs(time.time() - int(stamp)) < 300
        wanted = base64.b64encode(hmac.new(SECRET, f"{notice_id}.{stamp}.".encode() + body, hashlib.sha256).digest()).decode()
        assert f"v1,{wanted}" in request.headers["webhook-signature"].split(" ")
        assert request.content_type == "application/cloudevents+json"
        event = json.loads(body)
        assert event["id"] == notice_id
        self.got.append(event)
        return await (self.script.pop(0) if self.script else self.always)(request)

    async def _elsewhere(self, _: web.Request) -> web.StreamResponse:
        self.elsewhere += 1
        return web.Response()

    async def up(self) -> None:
        application = web.Application()
        application.router.add_post("/hook", self._post)
        application.router.add_route("*", "/elsewhere", self._elsewhere)
        self.runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()

    async def down(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    def settings(self, **changes: Any) -> WebhookSettings:
        file = self.folder / f"{self.name}.secret"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(f"whsec_{base64.b64encode(SECRET).decode()}\n")
        told = {"name": self.name, "url": f"http://127.0.0.1:{self.port}/hook", "secret_files": (file,)}
        return WebhookSettings(**(told | changes))

    def types(self, plan: Any) -> list[str]:
        return [each["type"].removeprefix("lockstep.plan.") for each in self.got if each["subject"] == plan.plan_id]

    async def hears(self, count: int, seconds: float = 60) -> None:
        async def heard() -> bool:
            return len(self.got) >= count

        await eventually(heard, seconds)


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float) -> None:
    for _ in range(int(seconds / 0.05)):
        if await holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never held")


@asynccontextmanager
async def receivers(folder: Path, *names: str) -> AsyncIterator[list[Receiver]]:
    async with AsyncExitStack() as stack:
        made = [Receiver(folder, name) for name in names]
        for each in made:
            await each.up()
            stack.push_async_callback(each.down)
        yield made


async def aborted(world: Any) -> Any:
    """A plan that was cancelled and is closed."""
    plan = await world.started()
    await world.reaches(plan, "PREPARED")
    await world.cancel(plan)
    await world.reaches(plan, "CLOSED")
    return plan


async def dead_letters(world: Any) -> list[operator_service_pb2.DeadLetter]:
    """As operators see them."""
    async with operators(world) as stub:
        return list((await stub.ListDeadLetters(operator_service_pb2.ListDeadLettersRequest(), timeout=60)).dead_letters)


async def sent_again(world: Any, letter_id: str) -> operator_service_pb2.DeadLetter:
    """As operators have it done."""
    request = operator_service_pb2.ReplayDeadLetterRequest(request_id=str(uuid.uuid4()), dead_letter_id=letter_id)
    async with operators(world) as stub:
        answer: operator_service_pb2.ReplayDeadLetterResponse = await stub.ReplayDeadLetter(request, timeout=60)
        return answer.dead_letter


@asynccontextmanager
async def operators(world: Any) -> AsyncIterator[OperatorServiceStub]:
    made = channel(f"127.0.0.1:{world.port}", world.tls_for(CLIENT))
    try:
        yield OperatorServiceStub(made)
    finally:
        await made.close()


async def delivered(world: Any, seconds: float = 60) -> None:
    """Nothing waits in the outbox any more."""

    async def empty() -> bool:
        return not await world.rows("select from notice_outbox where done_at is null")

    await eventually(empty, seconds)


async def test_an_abort_is_told(world: Any, tmp_path: Path) -> None:
    """An aborted plan is told once, as a CloudEvent that says what happened and what to do, in the plan's trace, without a word of anybody's own."""
    async with receivers(tmp_path, "desk") as (desk,), world.coordinator(notices=QUICK, webhooks=(desk.settings(),)):
        plan = await aborted(world)
        await delivered(world)
        trace = (await world.get(plan)).trace_id
    (event,) = desk.got
    assert (event["specversion"], event["type"], event["subject"]) == ("1.0", "lockstep.plan.aborted", plan.plan_id)
    assert event["source"] == "urn:lockstep:coordinator"
    assert abs(datetime.fromisoformat(event["time"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert event.get("traceparent", f"00-{trace}").split("-")[1] == trace
    data = event["data"]
    assert (data["reason"], data["state"], data["action_required"]) == ("CANCELLED", "ABORTED", False)
    assert data["what_happened"]
    assert data["what_to_do"]
    assert "alice" not in json.dumps(event)


async def test_watchers_see_the_same(world: Any) -> None:
    """What webhooks are told stands on the watch stream, with the same id, also where there is no webhook."""
    async with world.coordinator():
        plan = await aborted(world)
    (row,) = await world.rows("select notice_id, kind from notice where plan_id = $1", plan.plan_id)
    events = await world.rows("select event from plan_event where plan_id = $1 order by sequence", plan.plan_id)
    from lockstep.coordinator.v1 import settlement_pb2

    seen = [settlement_pb2.PlanEvent.FromString(each["event"]) for each in events]
    (notice,) = [each.notice for each in seen if each.HasField("notice")]
    assert (notice.notice_id, notice.kind) == (row["notice_id"], settlement_pb2.NOTICE_KIND_ABORTED)
    assert seen[-1].HasField("transition")
    assert not await world.rows("select from notice_outbox")


async def test_a_ticket_is_told(world: Any, tmp_path: Path) -> None:
    """A failed execution is told, and each ticket once, with what is to be done about it."""
    from lockstep_kit.statements import Verdict

    async with receivers(tmp_path, "desk") as (desk,), world.coordinator(notices=QUICK, webhooks=(desk.settings(),)) as made:
        plan = await world.executing()
        await world.reaches(plan, "VALIDATING")
        await world.validate(plan, Verdict.REJECT)
        found = await world.reaches(plan, "PARTIALLY_EXECUTED")
        for _ in range(3):
            await made.engine.apply("tick", [plan.plan_id], lambda _, __: [PersonNeeded("EVIDENCE_REJECTED", "", "again")])
        await delivered(world)
    assert sorted(desk.types(plan)) == ["execution_failed", "intervention_required"]
    told = next(each["data"] for each in desk.got if each["type"].endswith("required"))
    assert (told["escalation_id"], told["action_required"]) == (found.escalations[0].escalation_id, True)


@pytest.mark.parametrize("answer", [failed, slow, lost, endless], ids=lambda each: each.__name__)
async def test_what_is_not_taken_is_sent_again(world: Any, tmp_path: Path, answer: Answer) -> None:
    """A receiver that fails, hangs, loses its answer or never ends it gets the same notice with the same id again, and the plan does not wait."""
    notices = HASTY if answer is slow else QUICK
    async with receivers(tmp_path, "desk") as (desk,), world.coordinator(notices=notices, webhooks=(desk.settings(),)):
        desk.script = [answer, answer]
        plan = await aborted(world)
        await delivered(world, 60)
    assert len({each["id"] for each in desk.got}) == 1
    assert desk.got[0] == desk.got[-1]
    # An answer that says 2xx is one, however long its body goes on.
    assert len(desk.got) == (1 if answer is endless else 3)
    assert desk.types(plan)[0] == "aborted"


async def test_redirects_are_refused(world: Any, tmp_path: Path) -> None:
    """A redirect is not followed: the notice is not taken, and goes nowhere else."""

    async def moved(_: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"location": "/elsewhere"})

    async with receivers(tmp_path, "desk") as (desk,), world.coordinator(notices=QUICK, webhooks=(desk.settings(),)):
        desk.script = [moved]
        await aborted(world)
        await delivered(world)
    assert (len(desk.got), desk.elsewhere) == (2, 0)


async def test_a_receiver_that_is_down(world: Any, tmp_path: Path) -> None:
    """With one receiver down for a while plans settle, the other receiver is told at once, and the first when it is back."""
    async with receivers(tmp_path, "desk", "archive") as (desk, archive):
        webhooks = (desk.settings(), archive.settings())
        await desk.down()
        async with world.coordinator(notices=QUICK, webhooks=webhooks):
            plan = await aborted(world)
            await archive.hears(1)
            settled = await world.settled()
            assert (await world.get(settled)).outcome == 1
            assert desk.got == []
            await desk.up()
            await delivered(world)
    assert desk.got == archive.got
    assert desk.types(plan) == ["aborted"]


async def test_kinds(world: Any, tmp_path: Path) -> None:
    """A webhook gets the kinds that it is configured for, and no others."""
    async with receivers(tmp_path, "desk") as (desk,):
        webhooks = (desk.settings(kinds=(NoticeKind.INTERVENTION_REQUIRED,)),)
        async with world.coordinator(notices=QUICK, webhooks=webhooks):
            await aborted(world)
    assert desk.got == []
    assert not await world.rows("select from notice_outbox")
    assert len(await world.rows("select from notice")) == 1


async def test_a_dead_letter(world: Any, tmp_path: Path) -> None:
    """What is not taken for too long becomes a dead letter with the event in it; so does what waits for a webhook that is configured no more."""
    brief = QUICK.model_copy(update={"give_up_seconds": 0.5})
    async with receivers(tmp_path, "desk", "gone") as (desk, gone):
        desk.always = gone.always = failed
        async with world.coordinator(notices=brief, webhooks=(desk.settings(), gone.settings())):
            plan = await aborted(world)
        await asyncio.sleep(0.6)
        async with world.coordinator(notices=brief, webhooks=(desk.settings(),)):
            await delivered(world)
            desk.always = taken
            listed = await dead_letters(world)
            assert [(each.command, each.leg_id, each.reason) for each in listed] == [("NOTICE", "", "NOTICE_UNDELIVERED")] * 2
            letter = next(each for each in listed if each.participant == "desk")
            seen = len(desk.got)
            replayed = [await sent_again(world, letter.dead_letter_id) for _ in range(2)]
            assert [each.replayed_by for each in replayed] == [CLIENT] * 2
            await delivered(world)
            assert len(desk.got) == seen + 1
            assert desk.got[-1] == desk.got[0]
            assert [each.participant for each in await dead_letters(world)] == ["gone"]
    letters = await world.rows(
        "select letter.webhook, letter.detail, notice.plan_id from notice_dead_letter as letter join notice using (notice_id)"
    )
    assert {row["webhook"] for row in letters} == {"desk", "gone"}
    assert {row["plan_id"] for row in letters} == {plan.plan_id}
    assert next(row["detail"] for row in letters if row["webhook"] == "desk") == "HTTP 500"


async def test_crashes(world: Any, tmp_path: Path) -> None:
    """A replica that dies anywhere around the sending leaves the notice to the next, which sends the same with the same id."""
    async with receivers(tmp_path, "desk") as (desk,):
        for place in ("before_send", "after_send", "after_done"):
            desk.got.clear()
            failpoints.arm(f"coordinator.notice.{place}=raise")
            async with world.coordinator(crash=True, notices=QUICK, webhooks=(desk.settings(),)):
                plan = delivery_versus_payment()
                await world.started(plan)
                await world.reaches(plan, "PREPARED")
                await world.cancel(plan)
                await asyncio.wait_for(asyncio.shield(world.ended), 60)
            failpoints.arm("")
            # The next one need not wait until what the dead one had claimed is anybody's again.
            await world.rows("update notice_outbox set due_at = clock_timestamp() where done_at is null")
            async with world.coordinator(notices=QUICK, webhooks=(desk.settings(),)):
                await world.reaches(plan, "CLOSED")
                await delivered(world, 60)
            events = [each for each in desk.got if each["type"] == "lockstep.plan.aborted"]
            assert len({each["id"] for each in events}) == 1, place
            assert len(events) == {"before_send": 1, "after_send": 2, "after_done": 1}[place], place


async def test_nothing_is_told_of_what_did_not_happen(world: Any, tmp_path: Path) -> None:
    """A transaction that is rolled back tells nobody anything."""
    async with receivers(tmp_path, "desk") as (desk,), world.coordinator(notices=QUICK, webhooks=(desk.settings(),)) as made:
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
        failpoints.arm("coordinator.tick.in_tx=raise")
        with pytest.raises(failpoints.FailpointRaised):
            await made.engine.apply("tick", [plan.plan_id], lambda _, __: [PersonNeeded("LEG_TROUBLE", "cash", "x")])
        failpoints.arm("")
        await asyncio.sleep(0.3)
        assert desk.got == []
        assert not await world.rows("select from notice")
        assert not await world.rows("select from notice_outbox")


def voted(plan: Any) -> int:
    """How many legs have voted."""
    return sum(leg.HasField("vote") for leg in plan.legs)


async def test_a_take_over_is_told_once(world: Any, tmp_path: Path) -> None:
    """That another replica goes on with a plan in flight is told once of each state; a plan at rest that changes hands is no news."""
    async with receivers(tmp_path, "desk") as (desk,):
        quick = {"notices": QUICK, "webhooks": (desk.settings(),)}
        bank = world.parties["bank-gateway"]
        bank.operations.at_once = False
        async with world.coordinator(crash=True, **quick):
            plan = await world.started()
            # The others' votes are in: what is news to the next replica would have it hold the plan before it takes over.
            await world.until(plan, lambda seen: len(bank.operations.begun) == 1 and voted(seen) == len(seen.legs) - 1)
        for counter in (2, 3):
            async with world.coordinator(crash=True, **quick):

                async def taken_over(at_least: int = counter) -> bool:
                    (lease,) = await world.rows("select counter from lease where resource_id = $1", plan.plan_id)
                    return bool(lease["counter"] >= at_least)

                await eventually(taken_over, 60)
                await delivered(world)
        bank.operations.at_once = True
        await bank.find(bank.operations.begun[0])
        async with world.coordinator(**quick):
            await world.reaches(plan, "PREPARED")
            await world.cancel(plan)
            await world.reaches(plan, "CLOSED")
            await delivered(world)
        (row,) = await world.rows("select octets from audit_log")
    assert desk.types(plan) == ["recovery_in_progress", "aborted"]
    assert desk.got[0]["data"]["reason"] == "TAKEN_OVER"
    recovery = json.loads(row["octets"])["recovery"]
    assert (recovery["take_overs"], recovery["tried"], recovery["ended"]) == (1, True, "RELEASED")


def test_signatures() -> None:
    """Every secret gives a signature, as the Standard Webhooks specification's own example has it."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = signature([secret, SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    first, second = made.split(" ")
    assert first == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert second != first


@pytest.mark.parametrize(
    ("url", "loopback", "accepted"),
    [
        ("https://hooks.example.com/lockstep", False, True),
        ("http://hooks.example.com/lockstep", False, False),
        ("http://127.0.0.1:8080/", True, True),
        ("https://127.0.0.1/", False, False),
        ("https://[::1]/", False, False),
        ("https://169.254.169.254/latest/meta-data", False, False),
        ("https://user:secret@hooks.example.com/", False, False),
        ("ftp://hooks.example.com/", True, False),
    ],
)
def test_addresses(tmp_path: Path, url: str, loopback: bool, accepted: bool) -> None:
    """Only https, and never this machine or its network, unless a sandbox says so."""
    settings = WebhookSettings(name="desk", url=url, secret_files=(tmp_path,))
    if accepted:
        settings.check("url", allow_loopback=loopback)
        return
    with pytest.raises(FieldInvalid):
        settings.check("url", allow_loopback=loopback)


def test_forbidden_addresses() -> None:
    """The same holds for what names resolve to, in every spelling."""
    assert all(forbidden(each) for each in ("127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1%eth0", "::ffff:127.0.0.1"))
    assert not any(forbidden(each) for each in ("10.1.2.3", "93.184.216.34", "2606:2800:220:1::1"))


async def test_names_of_this_machine(world: Any, tmp_path: Path) -> None:
    """A name that resolves to this machine gets nothing, unless a sandbox says so."""
    strict = QUICK.model_copy(update={"allow_loopback": False})
    async with receivers(tmp_path, "desk") as (desk,):
        webhook = desk.settings(url=f"https://localhost:{desk.port}/hook")
        async with world.coordinator(notices=strict, webhooks=(webhook,)):
            await aborted(world)

            async def tried() -> bool:
                return bool(await world.rows("select from notice_outbox where attempts >= 2"))

            await eventually(tried, 60)
    assert desk.got == []


@pytest.mark.parametrize("text", ["", "whsec_", "plain text", "whsec_!!!!", f"whsec_{base64.b64encode(bytes(8)).decode()}"])
def test_secrets(tmp_path: Path, text: str) -> None:
    """A file that holds no secret, or that others may read, is refused, and what it holds is not told."""
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    file.write_text(text)
    with pytest.raises(FieldInvalid) as refused:
        read_secret(file)
    assert text in ("", "whsec_") or text not in str(refused.value)
    file.write_text(f"whsec_{base64.b64encode(SECRET).decode()}")
    assert read_secret(file) == SECRET
    file.chmod(0o644)
    with pytest.raises(FieldInvalid):
        read_secret(file)
