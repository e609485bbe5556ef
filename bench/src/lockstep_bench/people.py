"""Everybody who takes part in a settlement but the validator: maker, payer, approver, releaser, all in one process; and the validator agent, in its own."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final, Self

from lockstep.coordinator.v1.settlement_pb2 import Plan, PlanEvent
from lockstep_bench.schedule import Work
from lockstep_bench.timelines import Timeline
from lockstep_bench.transport import OVERLOADED, News, Transport
from lockstep_client.configuration import read_configuration
from lockstep_client.convert import PlanView, plan_from_pb, state_name
from lockstep_client.making import MAKE_MARGIN, consent, token_payers, unlock
from lockstep_client.planfile import PlanFile, draft
from lockstep_client.signing import gate_signature
from lockstep_kit.convert import time_from_pb, vote_from_pb
from lockstep_kit.errors import LockstepError
from lockstep_kit.ids import NONCE_BYTES, SALT_BYTES
from lockstep_kit.key_files import read_signing_key
from lockstep_kit.statements import Gate, SignedVote, votes_digest
from lockstep_sandbox import scene
from lockstep_sandbox.processes import Program
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import Sandbox

#: The program that validates; it is on the client's side, and is not counted as Lockstep.
VALIDATOR: Final = "validator-agent"
#: States from which a phase has been reached.
_REACHED: Final = {"PREPARED": "prepared", "COMMITTED": "committed", "CLOSED": "closed"}
#: Where a plan that is on its way may be, in order; a snapshot that shows a later one has passed the earlier ones.
_ORDER: Final = ("READY_FOR_PREPARE", "PREPARED", "EXECUTING", "VALIDATING", "COMMITTED", "CLOSED")
_ASTRAY: Final = frozenset({"ABORTED", "PARTIALLY_EXECUTED", "UNWIND_PENDING"})


class SettlementFailed(Exception):
    """A plan did not settle."""


@asynccontextmanager
async def validating(sandbox: Sandbox) -> AsyncIterator[None]:
    """The validator agent runs inside: the command's, as anybody runs it, with its own checks of chain, bank and journal."""
    program = Path(sys.executable).with_name("lockstep")
    key, configuration = sandbox.keys["validator"].private_file, sandbox.client_configuration
    command = (str(program), "agent", "validate", "--key", str(key), "--config", str(configuration))
    await sandbox.supervisor.start(Program(VALIDATOR, command))
    try:
        yield
    finally:
        await sandbox.supervisor.stop(VALIDATOR)


class People:
    """Settle plans over one sandbox, from the folder of its run. An async context manager."""

    def __init__(self, run: Path) -> None:
        description = RuntimeDirectory(run).read_description()
        self._configuration = read_configuration(run / "client.yaml")
        self._keys = {name: read_signing_key(description.key_files[name]) for name in ("maker", "approver", "releaser")}
        self._addresses = description.chain.accounts
        self._accounts = unlock(self._configuration.payers, set(self._configuration.payers))
        self._transport = Transport(self._configuration)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__()

    async def settle(self, work: Work, timeline: Timeline, began: float) -> Timeline:
        """Settle one delivery-versus-payment plan; when it came to what is noted in its timeline as it happens, in seconds since `began` (monotonic).

        Raises:
            SettlementFailed: it was aborted, or went astray.
            LockstepError: a request was refused.
        """
        timeline.begun = time.monotonic() - began
        try:
            await _Settling(self, work, timeline, began).settle()
        except (LockstepError, SettlementFailed) as error:
            timeline.failure = str(error)
            timeline.turned_away = isinstance(error, LockstepError) and error.reason == OVERLOADED
            raise
        return timeline

    async def created(self, work: Work, draw: Callable[[int], bytes]) -> PlanView:
        """The plan as the coordinator accepted it."""
        file, venue = PlanFile.model_validate(self._document(work)), self._configuration.venue
        drawn = draft(file, venue, plan_id=work.plan_id, now=datetime.now(UTC), draw_salt=lambda: draw(SALT_BYTES))
        until = drawn.header.deadline + MAKE_MARGIN
        make = gate_signature(self._keys["maker"], Gate.MAKE, drawn.header.digest, nonce=draw(NONCE_BYTES), expires_at=until)
        return plan_from_pb(await self._transport.create(drawn, make))

    def _document(self, work: Work) -> dict[str, Any]:
        """The plan's file: a delivery versus payment, with deliveries added or the payment left out; two payments could lapse, which plans may not."""
        seller, buyer = self._addresses["seller"], self._addresses["buyer"]
        document = scene.delivery_versus_payment(seller, buyer, reference=work.reference, quantity=work.quantity, price=work.price)
        delivery, payment = document["legs"]
        added = [delivery | {"id": f"{delivery['id']}-{index}"} for index in range(2, work.legs)]
        return document | {"legs": [delivery, payment, *added][: work.legs]}

    async def executed(self, view: PlanView) -> None:
        """Start the plan with its payers' consent."""
        payers = {address: self._accounts[address] for address in token_payers(view).values()}
        await self._transport.execute(view.header.plan_id, consent(view, payers))

    async def approve(self, view: PlanView, nonce: bytes) -> None:
        """The approver's signature."""
        until = view.header.deadline + MAKE_MARGIN
        signed = gate_signature(self._keys["approver"], Gate.APPROVE, view.header.digest, nonce=nonce, expires_at=until)
        await self._transport.sign(view.header.plan_id, signed)

    async def release(self, view: PlanView, nonce: bytes, votes: list[SignedVote]) -> None:
        """The releaser's signature, over the votes in plan order."""
        over = votes_digest(votes)
        until = view.header.deadline + MAKE_MARGIN
        key, digest = self._keys["releaser"], view.header.digest
        signed = gate_signature(key, Gate.RELEASE, digest, nonce=nonce, expires_at=until, votes_digest=over)
        await self._transport.sign(view.header.plan_id, signed)

    def following(self, plan_id: str) -> AbstractContextManager[AsyncIterator[News]]:
        """What becomes of a plan."""
        return self._transport.following(plan_id)


class _Settling:
    """One plan on its way."""

    def __init__(self, people: People, work: Work, timeline: Timeline, began: float) -> None:
        self._people = people
        self._work = work
        self._timeline = timeline
        self._began = began
        self._draw = Random(f"{work.seed}/octets").randbytes  # noqa: S311 - a test's salts, the same for the same seed
        self._votes: dict[str, SignedVote] = {}
        self._signed: set[Gate] = set()
        self._cause = ""
        # The database's clock and this one are the same machine's.
        self._wall = time.time() - time.monotonic() + began

    async def settle(self) -> None:
        with self._people.following(self._work.plan_id) as news:
            self._view = await self._people.created(self._work, self._draw)
            self._note("created")
            await self._people.executed(self._view)
            self._note("executed")
            async for each in news:
                state = self._seen(each) if isinstance(each, Plan) else self._changed(each)
                if state in _ASTRAY:
                    raise SettlementFailed(f"plan {self._work.plan_id} did not settle: it is {state} ({self._cause})")
                if state is not None:
                    await self._sign(state)
                if state == "CLOSED":
                    return

    def _seen(self, plan: Plan) -> str:
        """Where the plan stands, after changes may have been missed."""
        self._votes = {each.leg.leg_id: vote_from_pb(each.vote) for each in plan.legs if each.HasField("vote")}
        state = state_name(plan.state)
        for passed in _ORDER[: _ORDER.index(state) + 1] if state in _ORDER else ():
            self._reached(passed)
        return state

    def _changed(self, event: PlanEvent) -> str | None:
        """The state that the plan entered, if it did."""
        if event.WhichOneof("event") == "leg" and event.leg.HasField("vote"):
            self._votes[event.leg.leg.leg_id] = vote_from_pb(event.leg.vote)
        if event.WhichOneof("event") != "transition":
            return None
        state, self._cause = state_name(event.transition.to_state), event.transition.cause
        self._timeline.entered[state] = time_from_pb(event.transition.transition_time, "time").timestamp() - self._wall
        self._reached(state)
        return state

    async def _sign(self, state: str) -> None:
        """Whoever has a gate to open in this state does."""
        if state == "READY_FOR_PREPARE" and Gate.APPROVE not in self._signed:
            self._signed.add(Gate.APPROVE)
            await self._people.approve(self._view, self._draw(NONCE_BYTES))
        elif state == "PREPARED" and Gate.RELEASE not in self._signed:
            self._signed.add(Gate.RELEASE)
            votes = [self._votes[each.leg.leg_id] for each in self._view.legs]
            await self._people.release(self._view, self._draw(NONCE_BYTES), votes)

    def _reached(self, state: str) -> None:
        if state in _REACHED and _REACHED[state] not in self._timeline.seen:
            self._note(_REACHED[state])

    def _note(self, phase: str) -> None:
        self._timeline.seen[phase] = time.monotonic() - self._began
