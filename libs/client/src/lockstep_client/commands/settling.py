"""What `settle`, `plan create`, `plan execute` and `watch` share: sending a plan, and following one."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep_client.calls import CallSettings
from lockstep_client.client import LockstepClient
from lockstep_client.commands.context import Refused, console, emit
from lockstep_client.configuration import ClientConfiguration
from lockstep_client.convert import PlanView, plan_from_pb, state_name
from lockstep_client.documents import event_document, outcome_name, plan_document
from lockstep_client.fitting import span_text
from lockstep_client.making import consent, create, draw_plan, permits, token_payers, unlock
from lockstep_client.planfile import DraftPlan, PlanFile
from lockstep_client.rendering import event_text, plan_renderable, waiting_text
from lockstep_client.signers import open_signer
from lockstep_client.watching import PlanNews, Snapshot
from lockstep_kit.errors import LockstepError
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.ids import LegId
from lockstep_kit.permits import Permit
from lockstep_kit.spans import span
from lockstep_kit.strict_yaml import read
from lockstep_kit.telemetry import configure

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

#: States in which nothing moves until people decide.
_STUCK: Final = frozenset({"PARTIALLY_EXECUTED"})


#: Whoever follows a plan outwaits a coordinator that is started anew for so long.
PATIENCE_SECONDS: Final = 120.0
#: How often a live view is drawn anew, so that what is left of a deadline is seen to run down.
DRAWN_PER_SECOND: Final = 4


def client_of(configuration: ClientConfiguration, settings: CallSettings | None = None) -> LockstepClient:
    """A client of the configured coordinator. Call it inside a running event loop."""
    return LockstepClient(configuration.coordinator, configuration.tls, settings)


def drawn(configuration: ClientConfiguration, file: Path) -> DraftPlan:
    """The plan that a file asks for.

    Raises:
        FieldInvalid: the first rule that is broken; nothing was sent.
    """
    return draw_plan(read(file, PlanFile), configuration.venue, datetime.now(UTC))


async def sent(client: LockstepClient, configuration: ClientConfiguration, draft: DraftPlan, key: str | None) -> settlement.Plan:
    """The plan, signed by its maker and accepted."""
    maker_key = key or configuration.maker_key
    if maker_key is None:
        raise Refused(
            "MAKER_KEY_MISSING", "nobody is configured to make plans; name a key with --key, or maker_key in the configuration"
        )
    return await create(client, draft, open_signer(maker_key, option="--key" if key else "maker_key"))


async def executed(
    client: LockstepClient, configuration: ClientConfiguration, plan: settlement.Plan, request_id: str | None
) -> settlement.Plan:
    """The plan, started with the consent of every token payer whose keystore is configured."""
    view = plan_from_pb(plan)
    payers = set(token_payers(view).values())
    accounts = await asyncio.to_thread(unlock, configuration.payers, payers)
    permitting = {address: account for address, account in accounts.items() if configuration.payers[address].permit}
    return await client.execute_plan(
        view.header.plan_id, consent(view, accounts), await _permits(configuration, view, permitting), request_id=request_id
    )


async def _permits(
    configuration: ClientConfiguration, view: PlanView, accounts: Mapping[str, LocalAccount]
) -> Mapping[LegId, Permit]:
    if not accounts:
        return {}
    url = configuration.chain_rpc_url
    if url is None:
        raise FieldInvalid("chain_rpc_url", "must name a node where a payer gives permits")
    from lockstep_client.chain_reader import ChainReader

    async with ChainReader(url) as reader:
        return await permits(view, accounts, reader)


async def settled(configuration: ClientConfiguration, file: Path, *, json_wanted: bool) -> settlement.Plan:
    """Create a plan, execute it, and follow it until it is closed or people must decide; returns how it stands then."""
    draft = drawn(configuration, file)
    telemetry = configure("lockstep-client", configuration.telemetry) if configuration.telemetry is not None else None
    try:
        async with client_of(configuration) as client:
            with span("settle", attributes={"lockstep.plan_id": draft.header.plan_id}):
                plan = await sent(client, configuration, draft, None)
                plan = await executed(client, configuration, plan, None)
            return await followed(client, plan.header.plan_id, json_wanted=json_wanted, until_stuck=True)
    finally:
        if telemetry is not None:
            await asyncio.to_thread(telemetry.shutdown)


def require_settled(plan: settlement.Plan) -> None:
    """Pass if the plan ended as it should.

    Raises:
        Refused: it ended otherwise, or waits for operators.
    """
    state, outcome, plan_id = state_name(plan.state), outcome_name(plan), plan.header.plan_id
    if state == "CLOSED" and outcome == "COMMITTED":
        return
    why = " ".join(part for part in (plan.reason, plan.reason_leg_id, plan.reason_detail) if part)
    if state in _STUCK:
        raise Refused(
            "PLAN_PARTIALLY_EXECUTED", f"operators must decide: {why}; go on with `lockstep watch {plan_id}`", {"plan_id": plan_id}
        )
    raise Refused(f"PLAN_{outcome or state}", f"the plan did not settle: {why or 'no reason is given'}", {"plan_id": plan_id})


async def followed(client: LockstepClient, plan_id: str, *, json_wanted: bool, until_stuck: bool) -> settlement.Plan:
    """Show a plan's changes until its last; returns how it stands then."""
    live = sys.stdout.isatty() and not json_wanted
    picture = _Picture(await client.get_plan(plan_id))
    display = Live(get_renderable=picture.drawn, console=console(), refresh_per_second=DRAWN_PER_SECOND) if live else nullcontext()
    with display:
        asked = ""
        async for news in client.watch_plan(plan_id, lost=picture.lost):
            picture.plan = plan = news.plan if isinstance(news, Snapshot) else await _present(client, plan_id, picture.lost)
            if json_wanted:
                _emit(news)
            elif not live:
                asked = _print(news, plan, asked)
            if until_stuck and state_name(plan.state) in _STUCK:
                break
        picture.plan = plan = await _present(client, plan_id, picture.lost)
    if not live and not json_wanted:
        console().print(plan_renderable(plan))
    return plan


async def _present(client: LockstepClient, plan_id: str, lost: Callable[[LockstepError | None], None]) -> settlement.Plan:
    """The plan as it stands, once somebody answers.

    Raises:
        LockstepError: it was refused, or nobody answered for `PATIENCE_SECONDS`.
    """
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            plan = await client.get_plan(plan_id)
        except LockstepError as error:
            if error.code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) or time.monotonic() > give_up:
                raise
            lost(error)
        else:
            lost(None)
            return plan


class _Picture:
    """What a live view shows: the plan as it was last heard of, and whether that is still so."""

    def __init__(self, plan: settlement.Plan) -> None:
        self.plan = plan
        self._lost_at: datetime | None = None

    def lost(self, error: LockstepError | None) -> None:
        """Nobody answers, or somebody does again."""
        self._lost_at = None if error is None else self._lost_at or datetime.now(UTC)

    def drawn(self) -> RenderableType:
        """The picture now."""
        moment = datetime.now(UTC)
        shown = plan_renderable(self.plan, moment)
        if self._lost_at is None:
            return shown
        age = span_text((moment - self._lost_at).total_seconds())
        return Group(shown, Text(f"  as of {age} ago: the coordinator does not answer; it is tried again", style="bold red"))


def _emit(news: PlanNews) -> None:
    if isinstance(news, Snapshot):
        emit({"snapshot": plan_document(news.plan), "resume_token": news.resume_token})
    else:
        emit({"event": event_document(news.event), "resume_token": news.resume_token})


def _print(news: PlanNews, plan: settlement.Plan, asked: str) -> str:
    """One line of a change; who is awaited is said when it changes. Returns what was said of that."""
    if isinstance(news, Snapshot):
        console().print(plan_renderable(plan))
    else:
        console().print(event_text(news.event), markup=False)
    people = "; ".join(waiting_text(each) for each in plan.waiting if each.kind != settlement.WAITING_KIND_PARTICIPANT)
    if people and people != asked:
        console().print(f"              waits for {people}", markup=False)
    return people


def check_plan_id(text: str) -> str:
    """A plan id as the command was given it.

    Raises:
        FieldInvalid: it has another form.
    """
    from lockstep_kit import ids

    require(text == text.strip().lower(), "PLAN", "must be a lower-case UUID")
    return ids.plan_id(text, "PLAN")
