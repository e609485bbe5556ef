"""Plans of several parties, clients that stand for some of them, and what each may be told: the model that answers are held against."""

from __future__ import annotations

import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import grpc

from coordinator.access import Client
from coordinator.pages import plan_token
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.coordinator.v1.settlement_service_pb2_grpc import SettlementServiceStub
from lockstep_kit.convert import gate_to_pb, header_to_pb, leg_to_pb
from lockstep_kit.errors import from_rpc
from lockstep_kit.ids import PartyId, PlanId
from lockstep_kit.plan import Journal, Notarisation, Party
from lockstep_kit.rpc.standings import CallerSettings
from lockstep_kit.standing import Desk
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import (
    BUYER,
    CHAIN,
    SELLER,
    PlanCase,
    address_of,
    credit_terms,
    leg_of,
    plan_of,
    token_terms,
)

SECONDS: Final = 60.0
PREFIX: Final = "spiffe://lockstep.local/client/"
THIRD: Final = Party(PartyId("third"), "Third NV")
PARTIES: Final = (BUYER, SELLER, THIRD)
READING: Final = ("GetPlan", "ListPlans", "ListTransitions", "GetAbortAuditLog", "WatchPlan", "WatchPlans")
OPERATORS_READING: Final = ("ListEscalations", "GetEscalation", "ListInDoubt", "ListDeadLetters")
#: Client -> its row.
ROWS: Final = {
    "test": CallerSettings(methods=("*",), parties=tuple(each.party_id for each in PARTIES), desk=Desk.OPERATOR),
    "buyer": CallerSettings(methods=("*",), parties=(BUYER.party_id,)),
    "seller": CallerSettings(methods=("*",), parties=(SELLER.party_id,)),
    "third": CallerSettings(methods=("*",), parties=(THIRD.party_id,)),
    "two": CallerSettings(methods=("*",), parties=(BUYER.party_id, THIRD.party_id)),
    "nobody": CallerSettings(methods=("*",)),
    "desk": CallerSettings(methods=("*",), desk=Desk.OPERATOR),
    "auditor": CallerSettings(methods=READING, desk=Desk.AUDITOR),
}
#: Settings of a coordinator with these clients.
TABLES: Final[dict[str, Any]] = {
    "clients": ROWS,
    "operators": {"test": ("*",), "desk": ("*",), "auditor": OPERATORS_READING},
}

#: What somebody is answered, as it is on the wire: code, message, and every trailer.
Refused: TypeAlias = tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]


@dataclass(frozen=True)
class Answered:
    """How a call ended."""

    #: The answer, where there was one.
    answer: Any = None
    #: The refusal, where there was one.
    refused: Refused | None = None
    #: Its reason, or "".
    reason: str = ""

    @property
    def hidden(self) -> bool:
        """Whether the caller was told that there is no such plan."""
        return self.reason == "PLAN_NOT_FOUND"


async def ask(call: Awaitable[Any]) -> Answered:
    """How a call ends."""
    try:
        return Answered(answer=await call)
    except grpc.aio.AioRpcError as error:
        trailers = tuple(sorted((str(key), value) for key, value in error.trailing_metadata() or ()))
        return Answered(None, (error.code(), error.details() or "", trailers), from_rpc(error).reason)


async def first(stub: SettlementServiceStub, request: messages.WatchPlanRequest) -> Any:
    """The first message of a watch."""
    call = stub.WatchPlan(request, timeout=SECONDS)
    try:
        return await call.read()
    finally:
        call.cancel()


def plan_for(payer: Party, payee: Party, *others: Party, plan_id: str | None = None) -> PlanCase:
    """Tokens from one party to another against cash."""
    token, credit = token_terms(), credit_terms()
    credit = replace(
        credit,
        debtor=replace(credit.debtor, party_id=payee.party_id, name=payee.name),
        creditor=replace(credit.creditor, party_id=payer.party_id, name=payer.name),
    )
    return plan_of(
        [
            leg_of("tokens", replace(token, payer_party=payer.party_id, payee_party=payee.party_id)),
            leg_of("cash", credit),
            leg_of("notarisation", Notarisation(CHAIN, address_of("registry"))),
            leg_of("journal", Journal()),
        ],
        parties=(payer, payee, *others),
        plan_id=plan_id,
    )


def create_request(plan: PlanCase) -> messages.CreatePlanRequest:
    return messages.CreatePlanRequest(
        request_id=str(uuid.uuid4()),
        header=header_to_pb(plan.header),
        legs=[leg_to_pb(leg) for leg in plan.legs],
        make=gate_to_pb(plan.gate(Gate.MAKE)),
    )


def requests_about(plan: PlanCase) -> dict[str, Any]:
    """One request of each method that names a plan, as good as it can be; each may be sent again as it is."""
    plan_id = plan.plan_id
    return {
        "GetPlan": messages.GetPlanRequest(plan_id=plan_id),
        "ListTransitions": messages.ListTransitionsRequest(plan_id=plan_id),
        "GetAbortAuditLog": messages.GetAbortAuditLogRequest(plan_id=plan_id),
        "WatchPlan": messages.WatchPlanRequest(plan_id=plan_id),
        "ExecutePlan": messages.ExecutePlanRequest(
            request_id=str(uuid.uuid4()),
            plan_id=plan_id,
            payer_signatures=[messages.PayerSignature(leg_id="tokens", signature=bytes(65))],
        ),
        "SignGate": messages.SignGateRequest(
            request_id=str(uuid.uuid4()), plan_id=plan_id, signature=gate_to_pb(plan.gate(Gate.APPROVE))
        ),
        "CancelPlan": messages.CancelPlanRequest(
            request_id=str(uuid.uuid4()), plan_id=plan_id, cancel=gate_to_pb(plan.gate(Gate.CANCEL, "alice")), etag="stale"
        ),
    }


async def send(stub: SettlementServiceStub, method: str, request: Any) -> Answered:
    """How a request is answered."""
    if method == "WatchPlan":
        return await ask(first(stub, request))
    return await ask(getattr(stub, method)(request, timeout=SECONDS))


@dataclass
class Model:
    """What there is, and who may be told of it."""

    #: Plans in the order of their creation, each with the client that brought it.
    plans: list[tuple[PlanCase, str]] = field(default_factory=list)

    def sees(self, client: str, plan: PlanCase) -> bool:
        row, creator = ROWS[client], next(who for each, who in self.plans if each is plan)
        parties = {each.party_id for each in plan.header.parties}
        return row.desk is not None or creator == client or not parties.isdisjoint(row.parties)

    def acts(self, client: str, plan: PlanCase) -> bool:
        return self.sees(client, plan) and ROWS[client].desk is not Desk.AUDITOR

    def brings(self, client: str, plan: PlanCase) -> bool:
        return not {each.party_id for each in plan.header.parties}.isdisjoint(ROWS[client].parties)

    def seen_by(self, client: str) -> list[str]:
        """Ids of what a client may see, newest first."""
        return [plan.plan_id for plan, _ in reversed(self.plans) if self.sees(client, plan)]


#: Stub of a client, by its name.
Stubs: TypeAlias = Callable[[str], SettlementServiceStub]


async def pages(stub: SettlementServiceStub, size: int) -> list[messages.ListPlansResponse]:
    """Every page of a client's list."""
    found: list[messages.ListPlansResponse] = []
    token = ""
    while not found or token:
        found.append(await stub.ListPlans(messages.ListPlansRequest(page_size=size, page_token=token), timeout=SECONDS))
        token = found[-1].next_page_token
    return found


async def check_model(stubs: Stubs, seed: int, calls: int) -> None:
    """Draw clients, plans and calls; every answer is the model's.

    Raises:
        AssertionError: one is not; the seed is in its text.
    """
    drawn, model = random.Random(seed), Model()
    sent: list[tuple[str, str, PlanCase, Any]] = []
    for number in range(calls):
        where, client = f"seed {seed}, call {number}", drawn.choice(list(ROWS))
        match drawn.choice(("create", "about", "about", "about", "list", "repeat", "token")):
            case "create" if client != "auditor":
                plan = plan_for(*drawn.sample(PARTIES, drawn.choice((2, 2, 3))))
                request = create_request(plan)
                found = await send(stubs(client), "CreatePlan", request)
                assert found.reason == ("" if model.brings(client, plan) else "CLIENT_NO_PARTY"), f"{where}: {client} brings"
                if not found.reason:
                    model.plans.append((plan, client))
                    sent.append((client, "CreatePlan", plan, request))
            case "about" if model.plans:
                plan, _ = drawn.choice(model.plans)
                method, request = drawn.choice(sorted(requests_about(plan).items()))
                if client == "auditor" and method not in READING:
                    continue
                found = await send(stubs(client), method, request)
                allowed = model.sees(client, plan) if method in READING else model.acts(client, plan)
                assert found.hidden is not allowed, f"{where}: {client} calls {method}: {found}"
                if allowed and method not in READING and not found.reason:
                    sent.append((client, method, plan, request))
            case "list":
                size = drawn.randint(1, 4)
                found_pages = await pages(stubs(client), size)
                listed = [[each.header.plan_id for each in page.plans] for page in found_pages]
                expected = model.seen_by(client)
                assert sum(listed, []) == expected, f"{where}: {client} lists"  # noqa: RUF017 - a few pages
                assert [len(page) for page in listed[:-1]] == [size] * (len(listed) - 1), f"{where}: pages of {client}"
                assert len(listed) == max(1, -(-len(expected) // size)), f"{where}: {client} has a page too many"
            case "repeat" if sent:
                sender, method, plan, request = drawn.choice(sent)
                if client == "auditor":
                    continue
                found = await send(stubs(client), method, request)
                told = _repeated(model, client, sender, method, plan)
                assert found.reason == told, f"{where}: {client} repeats {method} of {sender}: {found}"
            case "token" if model.plans:
                plan, _ = drawn.choice(model.plans)
                asking = Client(PREFIX + client, ROWS[client].standing)
                answers = [
                    await send(stubs(client), "ListPlans", messages.ListPlansRequest(page_token=plan_token(asking, each)))
                    for each in (plan.plan_id, PlanId(str(uuid.uuid4())))
                ]
                own = model.sees(client, plan)
                assert (answers[0].reason == "") is own, f"{where}: {client} goes on behind a plan"
                assert own or answers[0] == answers[1], f"{where}: {client} is told of a plan by a token"
            case _:
                continue


def _repeated(model: Model, client: str, sender: str, method: str, plan: PlanCase) -> str:
    """What somebody is told who sends another's request."""
    if method == "CreatePlan":
        if not model.brings(client, plan):
            return "CLIENT_NO_PARTY"
    elif not model.acts(client, plan):
        return "PLAN_NOT_FOUND"
    return "" if client == sender else "REQUEST_ID_REUSED"
