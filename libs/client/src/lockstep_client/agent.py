"""An agent: a person's stand-in with its own process, its own key and its own eyes.

For each plan that waits for its gate it inspects for itself what the gate is about, and signs once. The signed request is on disk before it is sent, so that
a restarted agent sends the very same request again and never a second one. Whatever does not hold keeps it from signing, and it says what; only when told so
by a setting does it sign a REJECT, and never for something that may come to hold by itself.

Plans that wait together are looked at together, each judged by itself: what they have in common outside is read once, and their requests go in one call.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import structlog

from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1.settlement_service_pb2 import SignGateRequest
from lockstep_client.calls import REFUSES
from lockstep_client.client import LockstepClient
from lockstep_client.convert import PlanView, plan_from_pb
from lockstep_client.evidence import JOURNAL_SILENT, Finding
from lockstep_client.signed_requests import SignedRequests, place_of
from lockstep_client.signers import SignerUnavailable
from lockstep_client.signing import gate_signature
from lockstep_client.standing_plans import StandingPlans
from lockstep_client.watching import Change
from lockstep_kit import ids
from lockstep_kit.convert import VERDICTS, enum_from_pb, gate_to_pb
from lockstep_kit.errors import LockstepError
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import NONCE_BYTES, Digest
from lockstep_kit.participant.bell import heard
from lockstep_kit.signing import Signer
from lockstep_kit.statements import Gate, Verdict, votes_digest
from lockstep_kit.values import dataclass

_log = structlog.get_logger()

_IDLE_SECONDS: Final = 60.0
#: Groups that are looked at at one time: another one is begun beside those that the outside holds up, once they took so long.
_GROUPS_MAX: Final = 4
_PATIENCE_SECONDS: Final = 1.0
#: What comes so soon behind a group is looked at together.
_REST_SECONDS: Final = 0.02
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

    async def inspect(self, views: Sequence[PlanView]) -> Sequence[Sequence[Finding]]:
        """Of each plan that waits for the agent everything that does not hold, in their order; empty when all does."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How the agent works."""

    #: How long a signature opens the gate.
    signature_seconds: float = 300.0
    #: Pause between two looks at the plans that wait, where nothing is heard of any.
    poll_seconds: float = 0.2
    #: Plans that are looked at together.
    plans_max: int = 128
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


#: A plan as it is looked at.
_Look: TypeAlias = tuple[PlanView, _Open]


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
        self._kept = SignedRequests(requests)
        self._settings = settings or AgentSettings()
        self._report = report
        self._standing = StandingPlans(client, states=(self._duty.number,))
        self._read: dict[str, tuple[settlement_pb2.Plan, PlanView | None]] = {}
        self._open: dict[str, _Open] = {}
        self._done: dict[str, str] = {}
        #: Groups that are being looked at, with when they were begun, and their plans.
        self._groups: dict[asyncio.Task[None], float] = {}
        self._busy: set[str] = set()

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
                await asyncio.wait((pace, following, *self._groups), return_when=asyncio.FIRST_COMPLETED)
                pace.cancel()
            await following
        finally:
            tasks = (following, *self._groups)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _waiting(self) -> list[PlanView]:
        """The plans that wait for the gate; each is read once as it stands."""
        standing, read = self._standing.plans, self._read
        self._read = {
            plan_id: read[plan_id] if plan_id in read and read[plan_id][0] is plan else (plan, _view(plan))
            for plan_id, plan in standing.items()
        }
        return [view for _, view in self._read.values() if view is not None]

    def _begin(self, waiting: Sequence[PlanView]) -> None:
        """Have the plans looked at whose time has come and that are not being looked at, together."""
        present = {view.header.plan_id for view in waiting}
        self._open = {plan_id: each for plan_id, each in self._open.items() if plan_id in present}
        self._done = {plan_id: place for plan_id, place in self._done.items() if plan_id in present}
        now = asyncio.get_running_loop().time()
        group: list[_Look] = []
        for view in waiting:
            plan_id = view.header.plan_id
            if plan_id in self._busy or self._done.get(plan_id) == self._place(view):
                continue
            each = self._open.setdefault(plan_id, _Open(now, self._settings.again_seconds_min, now))
            if each.next_at <= now and len(group) < self._settings.plans_max:
                group.append((view, each))
        held_up = all(now - begun > _PATIENCE_SECONDS for begun in self._groups.values())
        if group and held_up and len(self._groups) < _GROUPS_MAX:
            self._busy |= {view.header.plan_id for view, _ in group}
            self._groups[asyncio.create_task(self._look_at(group), name=f"{self._gate.lower()}.group")] = now

    async def _look_at(self, group: Sequence[_Look]) -> None:
        try:
            await self._look_or_part(group)
            await asyncio.sleep(_REST_SECONDS)
        finally:
            self._busy -= {view.header.plan_id for view, _ in group}
            task = asyncio.current_task()
            if task is not None:
                self._groups.pop(task, None)

    async def _look_or_part(self, group: Sequence[_Look]) -> None:
        """Look at plans together, and at each by itself where that fails: one plan's trouble must not keep the others waiting."""
        try:
            await self._turns(group)
        except LockstepError as error:
            _log.warning("agent_interrupted", gate=self._gate.value, count=len(group), reason=error.reason)
        except SignerUnavailable as error:
            _log.warning("key_unavailable", gate=self._gate.value, count=len(group), source=error.source, error=str(error))
            self._wait(group)
        except Exception:  # noqa: BLE001 - whatever it is, it is logged and tried again
            if len(group) > 1:
                for each in group:
                    await self._look_or_part([each])
                return
            _log.exception("agent_failed", gate=self._gate.value, plan_id=group[0][0].header.plan_id)
            self._wait(group)

    def _wait(self, group: Iterable[_Look]) -> None:
        now = asyncio.get_running_loop().time()
        for _, each in group:
            each.wait(now, self._settings.again_seconds_max)

    async def _turns(self, group: Sequence[_Look]) -> list[Judgement]:
        """What was found and done of each plan, in their order.

        Raises:
            LockstepError: of some plans it is not known whether their signature arrived; the others were seen to.
        """
        loop = asyncio.get_running_loop()
        judgements = await self._attend([view for view, _ in group], [loop.time() - each.since for _, each in group])
        for (view, each), judgement in zip(group, judgements, strict=True):
            if isinstance(judgement, LockstepError):
                self._wait([(view, each)])
            elif self._settled(view, each, judgement):
                self._report(judgement)
        lost = next((each for each in judgements if isinstance(each, LockstepError)), None)
        if lost is not None:
            raise lost
        return [each for each in judgements if isinstance(each, Judgement)]

    def _settled(self, view: PlanView, each: _Open, judgement: Judgement) -> bool:
        """Note what became of a plan; whether it is to be said."""
        if judgement.conclusion in (Conclusion.WAITS, Conclusion.REFUSED) and not judgement.detail:
            self._wait([(view, each)])
            if judgement.findings == each.said:
                return False
            each.said = judgement.findings
        else:
            self._open.pop(view.header.plan_id, None)
            self._done[view.header.plan_id] = self._place(view)
        return True

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
            (judgement,) = await self._turns([(view, each)])
            if judgement.conclusion is not Conclusion.WAITS:
                return judgement
            await asyncio.sleep(max(each.next_at - loop.time(), 0.0))

    def _not_asked(self, plan_id: str) -> Judgement:
        return Judgement(plan_id, Conclusion.NOT_ASKED, detail=f"the plan does not wait for the gate {self._gate} any more")

    async def _attend(self, views: Sequence[PlanView], waited: Sequence[float]) -> list[Judgement | LockstepError]:
        """Inspect plans and sign, each once; a plan whose signature may not have arrived has the error.

        What was signed before a crash is sent again as it was.
        """
        now = datetime.now(UTC)
        known = {view.header.plan_id: self._kept.find(self._place(view), now) for view in views}
        requests: dict[str, SignGateRequest] = {plan_id: request for plan_id, request in known.items() if request is not None}
        fresh = [(view, seconds) for view, seconds in zip(views, waited, strict=True) if view.header.plan_id not in requests]
        found = await self._eyes.inspect([view for view, _ in fresh]) if fresh else ()
        judged: dict[str, Judgement | LockstepError] = {}
        findings: dict[str, tuple[Finding, ...]] = {}
        wanted: list[tuple[PlanView, Verdict]] = []
        for (view, seconds), each in zip(fresh, found, strict=True):
            plan_id = view.header.plan_id
            late = seconds >= self._settings.journal_seconds_max
            kept = findings[plan_id] = tuple(one for one in each if not (late and one.rule in JOURNAL_SILENT))
            if not kept:
                wanted.append((view, Verdict.APPROVE))
            elif any(one.may_pass for one in kept):
                judged[plan_id] = Judgement(plan_id, Conclusion.WAITS, kept)
            elif self._settings.rejects:
                wanted.append((view, Verdict.REJECT))
            else:
                judged[plan_id] = Judgement(plan_id, Conclusion.REFUSED, kept)
        requests |= await asyncio.to_thread(self._signed, wanted) if wanted else {}
        judged |= await self._send(requests, findings)
        return [judged[view.header.plan_id] for view in views]

    async def _send(
        self, requests: Mapping[str, SignGateRequest], findings: Mapping[str, tuple[Finding, ...]]
    ) -> dict[str, Judgement | LockstepError]:
        """What became of each request."""
        if not requests:
            return {}
        answers: Sequence[settlement_pb2.Plan | LockstepError]
        try:
            answers = await self._client.sign_gates(list(requests.values()))
        except LockstepError as error:
            answers = [error] * len(requests)
        judged: dict[str, Judgement | LockstepError] = {}
        for (plan_id, request), answer in zip(requests.items(), answers, strict=True):
            found = findings.get(plan_id, ())
            if not isinstance(answer, LockstepError):
                verdict = enum_from_pb(VERDICTS, request.signature.verdict, "verdict")
                done = Conclusion.SIGNED if verdict is Verdict.APPROVE else Conclusion.REJECTED
                judged[plan_id] = Judgement(plan_id, done, found)
            elif answer.code in REFUSES:
                told = f"the coordinator refused the signature: {answer}"
                judged[plan_id] = Judgement(plan_id, Conclusion.REFUSED, found, told)
            else:
                judged[plan_id] = answer
        return judged

    def _signed(self, wanted: Sequence[tuple[PlanView, Verdict]]) -> dict[str, SignGateRequest]:
        """Fresh requests by plan, on disk before anybody sees them."""
        requests: dict[str, SignGateRequest] = {view.header.plan_id: self._request(view, verdict) for view, verdict in wanted}
        self._kept.keep(list(requests.values()))
        return requests

    def _request(self, view: PlanView, verdict: Verdict) -> SignGateRequest:
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
        return SignGateRequest(request_id=request_id, plan_id=plan_id, signature=gate_to_pb(statement))

    def _until(self, view: PlanView) -> datetime:
        now = datetime.now(UTC)
        if self._duty.stands:
            return max(view.header.deadline, now) + _AFTER_DEADLINE
        return now + timedelta(seconds=self._settings.signature_seconds)

    def _place(self, view: PlanView) -> str:
        over: bytes
        match self._gate:
            case Gate.RELEASE:
                over = _votes(view)
            case Gate.VALIDATE:
                over = view.evidence_digest or b""
            case _:
                over = view.header.digest
        return place_of(view.header.plan_id, over)


def _view(plan: settlement_pb2.Plan) -> PlanView | None:
    try:
        return plan_from_pb(plan)
    except FieldInvalid as error:
        _log.error("plan_malformed", field=error.field, rule=error.rule)
        return None


def _votes(view: PlanView) -> Digest:
    """The digest over the votes that are shown, worked out here; that they hold is the eyes' to say."""
    return votes_digest(each.vote for each in view.legs if each.vote is not None)
