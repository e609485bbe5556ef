"""Who sees what: every method, asked by every kind of client about every kind of plan, against a model; on the wire, and from the database."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from access_model import (
    PARTIES,
    PREFIX,
    ROWS,
    SECONDS,
    TABLES,
    THIRD,
    Model,
    Stubs,
    ask,
    check_model,
    create_request,
    pages,
    plan_for,
    requests_about,
    send,
)

import coordinator.admission
import coordinator.servicer
from coordinator.access import Belonging, Client, may_read
from coordinator.admission import Admission
from coordinator.migrate import MIGRATIONS
from coordinator.store import reading, requests
from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.coordinator.v1.operator_service_pb2_grpc import OperatorServiceStub
from lockstep.coordinator.v1.settlement_service_pb2_grpc import SettlementServiceStub
from lockstep_kit.errors import LockstepError
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.migrate import migrate
from lockstep_kit.rpc import channel
from lockstep_kit.rpc.standings import CallerSettings
from lockstep_kit.standing import Desk
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import BUYER, SELLER

#: Revision before plans were somebody's.
BEFORE = "0008"


@asynccontextmanager
async def serving(world: Any, **changes: Any) -> AsyncIterator[Stubs]:
    """A coordinator with the model's clients; gives their stubs."""
    async with world.coordinator(**(TABLES | changes)):
        made: dict[str, SettlementServiceStub] = {}

        def stub(name: str) -> SettlementServiceStub:
            if name not in made:
                made[name] = world.stub(world.port, PREFIX + name)
            return made[name]

        yield stub


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_answer_is_the_models(world: Any, seed: int) -> None:
    """Whatever is asked in whatever order: who may see a plan is answered, and to everybody else it is not there, not listed, not counted."""
    async with serving(world) as stubs:
        await check_model(stubs, seed, calls=150)


async def test_refusals_are_the_same_on_the_wire(world: Any) -> None:
    """The very same request is refused with the very same bytes while there is no such plan and when there is one, whatever its state; it changes nothing."""
    plan = plan_for(BUYER, SELLER)
    asked = requests_about(plan)
    about = [(client, method) for client in ("third", "nobody") for method in asked]
    async with serving(world) as stubs:
        before = [await send(stubs(client), method, asked[method]) for client, method in about]
        assert {each.reason for each in before} == {"PLAN_NOT_FOUND"}
        await stubs("buyer").CreatePlan(create_request(plan), timeout=SECONDS)
        assert [await send(stubs(client), method, asked[method]) for client, method in about] == before
        await world.execute(plan)
        await world.sign(plan, plan.gate(Gate.APPROVE))
        await world.reaches(plan, "PREPARED")
        assert [await send(stubs(client), method, asked[method]) for client, method in about] == before
        assert len((await world.get(plan)).gates) == 2
    theirs = [each.request_id for each in asked.values() if hasattr(each, "request_id")]
    assert not await world.rows("select from request where request_id = any($1)", theirs)


async def test_refusals_cost_the_same(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many statements are run for a plan that one may not see as for one that is not there."""
    counting: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("counting", default=None)
    for name in ("fetch", "fetchrow", "fetchval", "execute"):
        _count(monkeypatch, name, counting)

    class Context:
        def auth_context(self) -> dict[str, tuple[bytes, ...]]:
            return {"peer_spiffe_id": (f"{PREFIX}third".encode(),)}

    there, absent = plan_for(BUYER, SELLER), plan_for(BUYER, SELLER)
    async with world.coordinator(**TABLES) as made:
        await world.create(there)
        # Whose it is is known from then on, and makes no difference.
        await world.execute(there)
        run: dict[str, dict[str, list[str]]] = {}
        for plan in (there, absent):
            for method, request in requests_about(plan).items():
                counting.set([])
                answer = getattr(made.servicer, method)(request, Context())
                with pytest.raises(LockstepError) as refused:
                    await (anext(answer) if method == "WatchPlan" else answer)
                assert refused.value.reason == "PLAN_NOT_FOUND"
                run.setdefault(method, {})[plan.plan_id] = counting.get() or []
        counting.set(None)
    for method, statements in run.items():
        assert statements[there.plan_id] == statements[absent.plan_id] == [reading.BELONGINGS], method


def _count(monkeypatch: pytest.MonkeyPatch, name: str, counting: contextvars.ContextVar[list[str] | None]) -> None:
    method = getattr(asyncpg.Connection, name)

    async def counted(self: Any, query: str, *arguments: Any, **options: Any) -> Any:
        found = counting.get()
        # The pool resets a connection that is given back.
        if found is not None and "RESET ALL" not in query:
            found.append(query)
        return await method(self, query, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, name, counted)


async def test_lists_tell_nothing_of_others(world: Any) -> None:
    """A client's pages are the same bytes, tokens too, however many plans of others stand between its own; a token is of use to its client alone."""
    async with serving(world) as stubs:
        plans = [plan_for(BUYER, SELLER) for _ in range(3)]
        for plan in plans:
            await stubs("test").CreatePlan(create_request(plan), timeout=SECONDS)
        before = await pages(stubs("seller"), 1)
        for _ in range(3):
            await stubs("test").CreatePlan(create_request(plan_for(BUYER, THIRD)), timeout=SECONDS)
        assert await pages(stubs("seller"), 1) == before
        token = before[0].next_page_token
        malformed = await send(stubs("third"), "ListPlans", messages.ListPlansRequest(page_token="x"))
        assert malformed.reason == "FIELD_INVALID"
        for other in ("third", "buyer", "desk", "auditor"):
            assert await send(stubs(other), "ListPlans", messages.ListPlansRequest(page_token=token)) == malformed
        await world.execute(plans[0])
        request = messages.ListTransitionsRequest(plan_id=plans[0].plan_id, page_size=1)
        request.page_token = (await stubs("seller").ListTransitions(request, timeout=SECONDS)).next_page_token
        assert len((await stubs("seller").ListTransitions(request, timeout=SECONDS)).transitions) == 1
        assert await send(stubs("buyer"), "ListTransitions", request) == malformed
        request.plan_id = plans[1].plan_id
        assert await send(stubs("seller"), "ListTransitions", request) == malformed


async def test_watching_tells_nothing_of_others(world: Any) -> None:
    """Changes are numbered within their plan, whatever happens to others meanwhile; another's token makes nobody see the plan."""
    async with serving(world) as stubs:
        plan = plan_for(BUYER, SELLER)
        await world.create(plan)
        watch: Any = stubs("seller").WatchPlan(messages.WatchPlanRequest(plan_id=plan.plan_id), timeout=SECONDS)
        start = await watch.read()
        await world.create(plan_for(BUYER, THIRD))
        await world.execute(plan)
        await world.create(plan_for(BUYER, THIRD))
        await world.sign(plan, plan.gate(Gate.APPROVE))
        numbers: list[int] = []
        token = start.resume_token
        while len(numbers) < 4:
            message = await watch.read()
            if message.HasField("event"):
                numbers.append(message.event.sequence)
                token = message.resume_token
        watch.cancel()
        assert numbers == list(range(numbers[0], numbers[0] + 4))
        (row,) = await world.rows("select count(*) as count from plan_event where plan_id = $1", plan.plan_id)
        assert numbers[-1] <= row["count"]
        absent = await send(stubs("third"), "WatchPlan", messages.WatchPlanRequest(plan_id=plan.plan_id))
        resumed = await send(stubs("third"), "WatchPlan", messages.WatchPlanRequest(plan_id=plan.plan_id, resume_token=token))
        assert absent.hidden
        assert resumed == absent


async def test_ids_that_are_taken(world: Any) -> None:
    """Who brings a plan under an id that is taken is told that and no more, whosever the plan is; who may not bring it is not even told that."""
    async with serving(world) as stubs:
        first = plan_for(BUYER, SELLER)
        await stubs("buyer").CreatePlan(create_request(first), timeout=SECONDS)
        again = create_request(plan_for(BUYER, THIRD, plan_id=first.plan_id))
        own, foreign = [await send(stubs(each), "CreatePlan", again) for each in ("buyer", "third")]
        assert own.reason == "PLAN_EXISTS"
        assert foreign == own
        taken = create_request(plan_for(BUYER, SELLER, plan_id=first.plan_id))
        fresh = create_request(plan_for(BUYER, SELLER))
        assert (await send(stubs("third"), "CreatePlan", taken)).reason == "CLIENT_NO_PARTY"
        assert await send(stubs("third"), "CreatePlan", taken) == await send(stubs("third"), "CreatePlan", fresh)


async def test_requests_are_their_clients_own(world: Any) -> None:
    """A request's answer is given again to the client that sent it alone; one of before clients were written down to whoever may see the plan."""
    async with serving(world) as stubs:
        plan = plan_for(BUYER, SELLER)
        create, execute = create_request(plan), requests_about(plan)["ExecutePlan"]
        for method, request in (("CreatePlan", create), ("ExecutePlan", execute)):
            first = await send(stubs("buyer"), method, request)
            assert first.answer is not None
            assert await send(stubs("buyer"), method, request) == first
            assert (await send(stubs("seller"), method, request)).reason == "REQUEST_ID_REUSED"
        assert (await send(stubs("third"), "ExecutePlan", execute)).hidden
        # As a replica of before clients were written down left it; by itself the database lets nobody change a request.
        async with world.database.as_owner() as owner:
            await owner.execute("alter table request disable trigger user")
            await owner.execute("update request set client = '' where request_id = $1", execute.request_id)
            await owner.execute("alter table request enable trigger user")
        assert (await send(stubs("seller"), "ExecutePlan", execute)).answer == first.answer
        assert (await send(stubs("third"), "ExecutePlan", execute)).hidden


async def test_who_brought_a_plan_sees_it_still(world: Any) -> None:
    """Who brought a plan sees it and may act on it, also once it stands for none of its parties any more."""
    plan = plan_for(BUYER, SELLER)
    async with serving(world) as stubs:
        await stubs("two").CreatePlan(create_request(plan), timeout=SECONDS)
    moved = {**ROWS, "two": CallerSettings(methods=("*",), parties=(THIRD.party_id,))}
    async with serving(world, clients=moved) as stubs:
        assert [each.header.plan_id for page in await pages(stubs("two"), 1) for each in page.plans] == [plan.plan_id]
        assert (await send(stubs("two"), "ExecutePlan", requests_about(plan)["ExecutePlan"])).answer is not None
    assert [row["created_by"] for row in await world.rows("select created_by from plan")] == [f"{PREFIX}two"]


async def test_operators_methods(world: Any) -> None:
    """What is about every plan is for operators, and for auditors where it only reads; parties' clients are let to none of it."""
    async with serving(world):
        for name in ROWS:
            made = channel(f"127.0.0.1:{world.port}", world.tls_for(PREFIX + name))
            stub = OperatorServiceStub(made)
            listing = await ask(stub.ListEscalations(operators.ListEscalationsRequest(), timeout=SECONDS))
            replaying = await ask(stub.ReplayDeadLetter(operators.ReplayDeadLetterRequest(), timeout=SECONDS))
            await made.close()
            assert (listing.reason == "") is (ROWS[name].desk is not None), name
            operates = ROWS[name].desk is Desk.OPERATOR
            assert replaying.reason == ("FIELD_INVALID" if operates else "CALLER_NOT_ALLOWED"), name


@pytest.mark.parametrize(
    "operators_of", [{"buyer": ("ListInDoubt",)}, {"stranger": ("*",)}, {"auditor": ("SignResolution",)}, {"auditor": ("*",)}]
)
async def test_tables_that_are_refused(world: Any, operators_of: dict[str, tuple[str, ...]]) -> None:
    """A coordinator does not start with a table in which a party's client operates, or an auditor does more than read."""
    with pytest.raises(FieldInvalid) as refused:
        world.settings.model_copy(update={**TABLES, "operators": operators_of}).check()
    assert refused.value.field.startswith("operators.")


@pytest.mark.parametrize("inspectors", [("buyer",), ("stranger",), ("auditor", "buyer")])
async def test_inspectors_that_are_refused(world: Any, inspectors: tuple[str, ...]) -> None:
    """A coordinator does not start where somebody may ask how it is installed who neither operates nor audits."""
    world.settings.model_copy(update={**TABLES, "inspectors": ("auditor",)}).check()
    with pytest.raises(FieldInvalid) as refused:
        world.settings.model_copy(update={**TABLES, "inspectors": inspectors}).check()
    assert refused.value.field == f"inspectors[{len(inspectors) - 1}]"


# -- what the database does --------------------------------------------------------------------------------------------


async def test_the_statement_is_the_rule(world: Any) -> None:
    """The list that the statement gives is the list of what the rule lets a client see, for every client, place and size."""
    model = Model()
    async with serving(world) as stubs:
        for number in range(9):
            plan, sender = (
                plan_for(*(PARTIES[(number + each) % 3] for each in range(2 + (number == 4)))),
                ("test", "buyer", "third")[number % 3],
            )
            if model.brings(sender, plan):
                await stubs(sender).CreatePlan(create_request(plan), timeout=SECONDS)
    every = [(row["seq"], row["plan_id"]) for row in await world.rows("select seq, plan_id from plan order by seq desc")]
    async with world.coordinator(serve=False) as made, made.engine.db.connection() as connection:
        belongings = await reading.belongings(connection, [plan_id for _, plan_id in every])
        standings = [row.standing for row in ROWS.values()]
        for client in (Client(f"{PREFIX}{name}", standing) for name in (*ROWS, "other") for standing in standings):
            for before in (None, *(seq for seq, _ in every)):
                for size in (1, 3, 20):
                    found = await reading.page_of(connection, client, before, [], size)
                    rule = [
                        (each, seq)
                        for seq, each in every
                        if (before is None or seq < before) and may_read(client, belongings[each])
                    ]
                    assert found == rule[:size], (client, before, size)
    assert belongings[every[0][1]] is not None


async def test_whose_a_plan_is_stays(world: Any) -> None:
    """Whose a plan is and who brought it can be changed by nobody: not by the service's role, not by the owner."""
    async with world.coordinator():
        await world.create(plan_for(BUYER, SELLER))
    async with world.database.as_role() as role, world.database.as_owner() as owner:
        for statement in ("update plan_party set party_id = 'third'", "delete from plan_party", "truncate plan_party"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await role.execute(statement)
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(statement)
        for statement in ("update plan set created_by = 'third', version = version + 1", "update request set client = 'third'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await role.execute(statement)
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(statement)


async def test_plans_of_before_are_listed(world: Any) -> None:
    """The migration lists the plans that are there for their parties; nobody is said to have brought them."""
    async with serving(world) as stubs:
        plans = [plan_for(BUYER, SELLER), plan_for(THIRD, SELLER)]
        for plan in plans:
            await stubs("test").CreatePlan(create_request(plan), timeout=SECONDS)
    async with world.database.as_owner() as owner:
        for statement in (
            # What came after it.
            "drop function plan_write",
            "drop trigger plan_begun on plan",
            "drop trigger decision_key_resealed on decision_key",
            "drop function decision_key_resealed",
            "drop trigger open_plan_closed on plan",
            "drop function open_plan_closed",
            "drop table open_plan",
            "drop table client_quota",
            "drop table plan_party",
            "drop trigger plan_creator_kept on plan",
            "drop function plan_creator_kept",
            "drop trigger request_client_kept on request",
            "drop function request_client_kept",
            "alter table plan drop column created_by",
            "alter table request drop column client",
            f"update alembic_version set version_num = '{BEFORE}'",
        ):
            await owner.execute(statement)
    await asyncio.to_thread(migrate, MIGRATIONS, world.database.owner_url, world.database.role)
    async with serving(world) as stubs:
        for name, seen in (("buyer", plans[:1]), ("seller", plans), ("third", plans[1:]), ("nobody", []), ("desk", plans)):
            listed = [each.header.plan_id for page in await pages(stubs(name), 1) for each in page.plans]
            assert listed == [each.plan_id for each in reversed(seen)], name


# -- seeded bugs -------------------------------------------------------------------------------------------------------


async def _unchecked(self: Admission, context: Any, plan_id: Any) -> Client:
    return self.client(context)


async def _every_one(self: Admission, client: Client, ids: Any) -> frozenset[Any]:
    return frozenset(ids)


def _anybody_brings(self: Admission, client: Client, header: Any) -> None:
    return None


async def _every_plan(connection: Any, client: Client, before: int | None, states: Any, limit: int) -> Any:
    return await reading.page(connection, before, states, limit)


def _any_clients_answer(request: Any, row: Any) -> Any:
    same = (row["method"], row["digest"]) == (request.method, request.digest)
    return row["response"] if same else _ANSWER(request, row)


def _first_party_alone(client: Client, belonging: Belonging | None) -> bool:
    return belonging is not None and (client.standing.sees_all or min(belonging.parties) in client.standing.parties)


_ANSWER = requests._answer
BUGS = {
    "a reading method does not ask": (Admission, "read", _unchecked),
    "a changing method does not ask": (Admission, "act", _every_one),
    "anybody brings a plan": (Admission, "create", _anybody_brings),
    "the list is not filtered": (reading, "page_of", _every_plan),
    "a page token is not held against what its client may see": (coordinator.servicer, "may_read", lambda *_: True),
    "an answer is given to any client": (requests, "_answer", _any_clients_answer),
    "one party sees the plan, the others do not": (coordinator.admission, "may_read", _first_party_alone),
    "only operators act": (coordinator.admission, "may_act", lambda client, _: client.standing.sees_all),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_seeded_bugs(world: Any, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """The model notices each of these."""
    where, name, broken = BUGS[bug]
    monkeypatch.setattr(where, name, broken)
    async with serving(world) as stubs:
        with pytest.raises(AssertionError):
            await check_model(stubs, seed=1, calls=150)
