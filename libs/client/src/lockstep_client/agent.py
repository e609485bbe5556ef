"""An agent: a person's stand-in with its own process, its own key and its own eyes.

For each plan that waits for its gate it inspects for itself what the gate is about, and signs once. The signed request is on disk before it is sent, so that
a restarted agent sends the very same request again and never a second one. Whatever does not hold keeps it from signing, and it says what; only when told so
by a setting does it sign a REJECT, and never for something that may come to hold by itself.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

import grpc
import structlog

from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1.settlement_service_pb2 import SignGateRequest
from lockstep_client.client import LockstepClient
from lockstep_client.convert import PlanView, plan_from_pb
from lockstep_client.evidence import JOURNAL_SILENT, Finding
from lockstep_client.gathering import Gathered
from lockstep_client.signers import SignerUnavailable
from lockstep_client.signing import gate_signature
from lockstep_client.standing_plans import StandingPlans
from lockstep_client.watching import Change
from lockstep_kit import ids
from lockstep_kit.convert import VERDICTS, enum_from_pb, gate_to_pb, time_from_pb
from lockstep_kit.errors import LockstepError
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import NONCE_BYTES, Digest
from lockstep_kit.participant.bell import heard
from lockstep_kit.rpc.arrows import BATCH_MAX
from lockstep_kit.signing import Signer
from lockstep_kit.statements import Gate, Verdict, votes_digest

_log = structlog.get_logger()

_UNREACHABLE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_IDLE_SECONDS: Final = 60.0
_UNDECIDED: Final = ("DRAFT", "INITIATED", "PRECONDITIONS_PENDING", "READY_FOR_PREPARE")


@dataclass(frozen=True, slots=True)
class Duty:
    """When a plan waits for an agent's gate."""

    #: State in which it does.
    state: str
    #: The same, in a request.
    number: settlement_pb2.PlanState.ValueType
    #: States from which it may still come to that.
    before: frozenset[str]
    #: Whether the signature must stand until the decision, rather than open the gate at once.
    stands: bool


#: The gates that agents sign.
DUTIES: Final = {
    Gate.APPROVE: Duty("READY_FOR_PREPARE", settlement_pb2.PLAN_STATE_READY_FOR_PREPARE, frozenset(_UNDECIDED), stands=True),
    Gate.RELEASE: Duty("PREPARED", settlement_pb2.PLAN_STATE_PREPARED, frozenset({*_UNDECIDED, "PREPARED"}), stands=False),
    Gate.VALIDATE: Duty(
        "VALIDATING",
        settlement_pb2.PLAN_STATE_VALIDATING,
        frozenset({*_UNDECIDED, "PREPARED", "EXECUTING", "PARTIALLY_EXECUTED", "VALIDATING"}),
        stands=False,
    ),
}
#: A signature that must stand until the decision outlives the deadline by this, since clocks differ.
_AFTER_DEADLINE: Final = timedelta(minutes=10)


class Eyes(Protocol):
    """How an agent sees for itself."""

    async def inspect(self, view: PlanView) -> Sequence[Finding]:
        """Everything that does not hold about a plan that waits for the agent; empty when all does."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How the agent works."""

    #: How long a signature opens the gate.
    signature_seconds: float = 300.0
    #: Pause between two looks at the plans that wait, where nothing is heard of any.
    poll_seconds: float = 0.2
    #: Plans that are looked at at one time.
    plans_max: int = 16
    #: First pause before a plan is inspected again; it doubles.
    again_seconds_min: float = 0.1
    #: Longest pause before a plan is inspected again.
    again_seconds_max: float = 10.0
    #: How long a journal that is late or down holds up a signature.
    journal_seconds_max: float = 10.0
    #: Whether evidence that cannot come to hold is answered with a signed REJECT.
    rejects: bool = False


class Conclusion(StrEnum):
    """What the agent did about a plan."""

    SIGNED = "SIGNED"
    REJECTED = "REJECTED"
    REFUSED = "REFUSED"
    WAITS = "WAITS"
    NOT_ASKED = "NOT_ASKED"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the agent found and did."""

    #: The plan.
    plan_id: str
    #: What was done.
    conclusion: Conclusion
    #: What does not hold.
    findings: tuple[Finding, ...] = ()
    #: One sentence, or "".
    detail: str = ""


@dataclass(slots=True)
class _Open:
    """A plan that is not done with."""

    #: When it was first seen, by the loop's clock.
    since: float
    #: Pause before the next look.
    pause: float
    #: When it is looked at next, by the loop's clock.
    next_at: float
    #: What was said of it last, so that it is said once.
    said: tuple[Finding, ...] = ()

    def wait(self, now: float, pause_max: float) -> None:
        """Look again after a pause, and twice as long the next time."""
        self.next_at, self.pause = now + self.pause, min(self.pause * 2, pause_max)


class GateAgent:
    """Signs one gate of plans with one key."""

    def __init__(
        self,
        client: LockstepClient,
        eyes: Eyes,
        key: Signer,
        requests: Path,
        settings: AgentSettings | None = None,
        report: Callable[[Judgement], None] = lambda _: None,
        *,
        gate: Gate = Gate.VALIDATE,
    ) -> None:
        """An agent that validates, unless told to approve or release."""
        self._gate = gate
        self._duty = DUTIES[gate]
        self._client = client
        self._eyes = eyes
        self._key = key
        self._requests = requests
        self._settings = settings or AgentSettings()
        self._report = report
        self._standing = StandingPlans(client, states=(self._duty.number,))
        self._read: dict[str, tuple[settlement_pb2.Plan, PlanView | None]] = {}
        self._open: dict[str, _Open] = {}
        self._done: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: Plans that wait for others to be looked at, as they stood last.
        self._late: deque[PlanView] = deque()
        self._signatures = Gathered(self._sent)
        #: Tasks that have looked, and wait for the answer to their signature.
        self._sending = 0

    async def run(self) -> None:
        """Sign whatever waits and holds, until cancelled. An unreachable coordinator is waited for.

        Raises:
            LockstepError: the coordinator does not let this agent see plans.
        """
        following = asyncio.create_task(self._standing.run(), name="standing-plans")
        told: LockstepError | None = None
        try:
            while not following.done():
                ticket = self._standing.bell.ticket()
                if self._standing.trouble is not None and self._standing.trouble is not told:
                    _log.warning("coordinator_unreachable", reason=self._standing.trouble.reason)
                told = self._standing.trouble
                self._begin(self._waiting())
                # A plan that is looked at again, or that had to wait for others, does not wait for news.
                pace = asyncio.create_task(heard(ticket, self._settings.poll_seconds if self._standing.plans else _IDLE_SECONDS))
                await asyncio.wait((pace, following), return_when=asyncio.FIRST_COMPLETED)
                pace.cancel()
            await following
        finally:
            self._late.clear()
            tasks = (following, *self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._signatures.close()

    def _waiting(self) -> list[PlanView]:
        """The plans that wait for the gate; each is read once as it stands."""
        standing, read = self._standing.plans, self._read
        self._read = {
            plan_id: read[plan_id] if plan_id in read and read[plan_id][0] is plan else (plan, _view(plan))
            for plan_id, plan in standing.items()
        }
        return [view for _, view in self._read.values() if view is not None]

    def _begin(self, waiting: Sequence[PlanView]) -> None:
        """Have every plan looked at whose time has come and that is not being looked at."""
        present = {view.header.plan_id for view in waiting}
        self._open = {plan_id: each for plan_id, each in self._open.items() if plan_id in present}
        self._done = {plan_id: place for plan_id, place in self._done.items() if plan_id in present}
        self._late = deque(waiting)
        self._begin_late()

    def _begin_late(self) -> None:
        """Begin with plans that waited, as long as there is room: whoever waits for an answer looks at nothing."""
        now = asyncio.get_running_loop().time()
        while self._late and len(self._tasks) - min(self._sending, BATCH_MAX) < self._settings.plans_max:
            view = self._late.popleft()
            plan_id = view.header.plan_id
            if plan_id in self._tasks or self._done.get(plan_id) == self._place(view):
                continue
            each = self._open.setdefault(plan_id, _Open(now, self._settings.again_seconds_min, now))
            if each.next_at <= now:
                self._tasks[plan_id] = asyncio.create_task(self._look_at(view, each), name=f"{self._gate.lower()}:{plan_id}")

    async def _look_at(self, view: PlanView, each: _Open) -> None:
        plan_id = view.header.plan_id
        try:
            await self._turn(view, each)
        except LockstepError as error:
            _log.warning("agent_interrupted", gate=self._gate.value, plan_id=plan_id, reason=error.reason)
        except SignerUnavailable as error:
            _log.warning("key_unavailable", plan_id=plan_id, source=error.source, error=str(error))
            each.wait(asyncio.get_running_loop().time(), self._settings.again_seconds_max)
        except Exception:  # noqa: BLE001 - one plan's trouble must not keep the others waiting; it is logged and tried again
            _log.exception("agent_failed", gate=self._gate.value, plan_id=plan_id)
            each.wait(asyncio.get_running_loop().time(), self._settings.again_seconds_max)
        finally:
            self._tasks.pop(plan_id, None)
            self._begin_late()

    async def _turn(self, view: PlanView, each: _Open) -> Judgement:
        loop = asyncio.get_running_loop()
        judgement = await self.attend(view, waited_seconds=loop.time() - each.since)
        if judgement.conclusion in (Conclusion.WAITS, Conclusion.REFUSED) and not judgement.detail:
            each.wait(loop.time(), self._settings.again_seconds_max)
            if judgement.findings == each.said:
                return judgement
            each.said = judgement.findings
        else:
            self._open.pop(view.header.plan_id, None)
            self._done[view.header.plan_id] = self._place(view)
        self._report(judgement)
        return judgement

    async def attend_one(self, plan_id: str) -> Judgement:
        """Follow one plan until its gate was signed, or can no longer be.

        Raises:
            LockstepError: there is no such plan, or the coordinator stays unreachable.
        """
        async for news in self._client.watch_plan(plan_id):
            if isinstance(news, Change) and news.event.WhichOneof("event") != "transition":
                continue
            state = plan_from_pb(await self._client.get_plan(plan_id)).state
            if state == self._duty.state:
                return await self._until_done(plan_id)
            if state not in self._duty.before:
                break
        return self._not_asked(plan_id)

    async def _until_done(self, plan_id: str) -> Judgement:
        loop = asyncio.get_running_loop()
        each = _Open(loop.time(), self._settings.again_seconds_min, loop.time())
        while True:
            view = plan_from_pb(await self._client.get_plan(plan_id))
            if view.state != self._duty.state:
                return self._not_asked(plan_id)
            judgement = await self._turn(view, each)
            if judgement.conclusion is not Conclusion.WAITS:
                return judgement
            await asyncio.sleep(max(each.next_at - loop.time(), 0.0))

    def _not_asked(self, plan_id: str) -> Judgement:
        return Judgement(plan_id, Conclusion.NOT_ASKED, detail=f"the plan does not wait for the gate {self._gate} any more")

    async def attend(self, view: PlanView, *, waited_seconds: float = 0.0) -> Judgement:
        """Inspect a plan and sign, once. What was signed before a crash is sent again as it was."""
        plan_id = view.header.plan_id
        stored = self._stored(view)
        if stored is not None:
            return await self._send(plan_id, stored, enum_from_pb(VERDICTS, stored.signature.verdict, "verdict"), ())
        findings = tuple(await self._eyes.inspect(view))
        if waited_seconds >= self._settings.journal_seconds_max:
            findings = tuple(each for each in findings if each.rule not in JOURNAL_SILENT)
        if not findings:
            return await self._send(plan_id, await asyncio.to_thread(self._signed, view, Verdict.APPROVE), Verdict.APPROVE, ())
        if any(each.may_pass for each in findings):
            return Judgement(plan_id, Conclusion.WAITS, findings)
        if self._settings.rejects:
            return await self._send(plan_id, await asyncio.to_thread(self._signed, view, Verdict.REJECT), Verdict.REJECT, findings)
        return Judgement(plan_id, Conclusion.REFUSED, findings)

    async def _send(self, plan_id: str, request: SignGateRequest, verdict: Verdict, findings: tuple[Finding, ...]) -> Judgement:
        done = Conclusion.SIGNED if verdict is Verdict.APPROVE else Conclusion.REJECTED
        self._sending += 1
        try:
            self._begin_late()
            await self._signatures.ask(request)
        except LockstepError as error:
            if error.code in _UNREACHABLE:
                raise
            return Judgement(plan_id, Conclusion.REFUSED, findings, f"the coordinator refused the signature: {error}")
        finally:
            self._sending -= 1
        return Judgement(plan_id, done, findings)

    async def _sent(self, requests: Sequence[SignGateRequest]) -> list[settlement_pb2.Plan | LockstepError]:
        """What became of signatures, in their order: of several in one call."""
        if len(requests) > 1:
            try:
                return await self._client.sign_gates(requests)
            except LockstepError as error:
                if error.code is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
        # One alone, or a coordinator of the release before, which takes no batches.
        return [await self._sent_alone(each) for each in requests]

    async def _sent_alone(self, request: SignGateRequest) -> settlement_pb2.Plan | LockstepError:
        try:
            return await self._client.send_gate(request)
        except LockstepError as error:
            return error

    def _signed(self, view: PlanView, verdict: Verdict) -> SignGateRequest:
        """A fresh request, on disk before anybody sees it."""
        statement = gate_signature(
            self._key,
            self._gate,
            view.header.digest,
            nonce=secrets.token_bytes(NONCE_BYTES),
            expires_at=self._until(view),
            verdict=verdict,
            votes_digest=_votes(view) if self._gate is Gate.RELEASE else None,
            evidence_digest=view.evidence_digest if self._gate is Gate.VALIDATE else None,
        )
        plan_id = view.header.plan_id
        request_id = ids.derived(self._gate.lower(), self._key.public.key_id, plan_id, statement.statement.nonce.hex())
        request = SignGateRequest(request_id=request_id, plan_id=plan_id, signature=gate_to_pb(statement))
        write_durably(self._file(view), request.SerializeToString(deterministic=True))
        return request

    def _stored(self, view: PlanView) -> SignGateRequest | None:
        """The request that was signed for this plan with this evidence, while it opens the gate."""
        try:
            request = SignGateRequest.FromString(self._file(view).read_bytes())
        except FileNotFoundError:
            return None
        return request if time_from_pb(request.signature.expire_time, "expire_time") > datetime.now(UTC) else None

    def _file(self, view: PlanView) -> Path:
        return self._requests / f"{self._place(view)}.request"

    def _until(self, view: PlanView) -> datetime:
        now = datetime.now(UTC)
        if self._duty.stands:
            return max(view.header.deadline, now) + _AFTER_DEADLINE
        return now + timedelta(seconds=self._settings.signature_seconds)

    def _place(self, view: PlanView) -> str:
        """A plan with what is signed over: after a leg was driven anew there is other evidence, and another signature is asked for."""
        match self._gate:
            case Gate.APPROVE:
                over: bytes = view.header.digest
            case Gate.RELEASE:
                over = _votes(view)
            case _:
                over = view.evidence_digest or b""
        return f"{view.header.plan_id}-{over.hex()[:16]}"


def _view(plan: settlement_pb2.Plan) -> PlanView | None:
    try:
        return plan_from_pb(plan)
    except FieldInvalid as error:
        _log.error("plan_malformed", field=error.field, rule=error.rule)
        return None


def _votes(view: PlanView) -> Digest:
    """The digest over the votes that are shown, worked out here; that they hold is the eyes' to say."""
    return votes_digest(each.vote for each in view.legs if each.vote is not None)


def write_durably(path: Path, octets: bytes) -> None:
    """Write a file whole or not at all, mode 0600, and have it outlive a loss of power."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
