"""The page as a scraper sees it: over a real socket, with rows of a real database, and calls over mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep_kit.db import Connection, Database, DatabaseSettings
from lockstep_kit.errors import precondition
from lockstep_kit.metrics import server as serving
from lockstep_kit.metrics.definitions import Definition, Kind
from lockstep_kit.metrics.instruments import Instruments
from lockstep_kit.metrics.readings import ROWS_MAX, Connected, Measure, Query, Reading, Sampled
from lockstep_kit.metrics.sampling import ROUNDS_SHOWN, Sampler
from lockstep_kit.metrics.serving import Metrics, exposed
from lockstep_kit.metrics.settings import MetricsSettings
from lockstep_kit.rpc import TlsSettings
from lockstep_testkit.serving import COORDINATOR, SERVER, STRANGER, Context, Served, refusal
from lockstep_testkit.serving import SERVICE as NAME

pytestmark = pytest.mark.integration

SECONDS_MAX = 60.0
THINGS = Query(
    "things",
    "select kind, count(*) as things, max(n) as most from thing group by kind",
    ("kind",),
    (Measure("things", "lockstep_things", "Things."), Measure("most", "lockstep_things_most", "The most.")),
    known=(("red",), ("blue",)),
)


@pytest.fixture
async def database(database_for: Any) -> Any:
    made = await database_for("runtime_metrics")
    async with made.as_owner() as owner:
        await owner.execute("create table thing (kind text not null, n int)")
        await owner.execute("insert into thing values ('red', 2), ('red', 5), ('green', null)")
        await owner.execute(f"grant select, insert on thing to {made.role}")
    return made


@contextlib.asynccontextmanager
async def connected(database: Any, **changes: Any) -> AsyncIterator[Database]:
    settings = DatabaseSettings.model_validate(database.settings.model_dump() | changes)
    db = await Database.connect(settings, application_name="metrics-test")
    try:
        yield db
    finally:
        await db.close()


def page_families(octets: bytes) -> dict[str, Metric]:
    """Families of a page by name."""
    found: list[Metric] = list(parser.text_string_to_metric_families(octets.decode()))  # type: ignore[no-untyped-call]  # the library's
    return {each.name: each for each in found}


def sampler(db: Database, readings: Sequence[Reading], **told: Any) -> Sampler:
    return Sampler(db, readings, **{"sample_seconds": 1.0, "read_seconds_max": SECONDS_MAX} | told)


def shown(page: Sampler) -> dict[tuple[str, ...], float]:
    """Every number on it, by its name and labels."""
    return {(sample.name, *sample.labels.values()): sample.value for family in page.collect() for sample in family.samples}


async def asked(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to some octets."""
    async with asyncio.timeout(SECONDS_MAX):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    return int(head.split()[1]), body


GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n"


async def test_rows_become_numbers_and_what_is_known_is_never_missing(database: Any) -> None:
    """Each row and measure is one number; absent rows and nulls are zeros."""
    async with connected(database) as db:
        page = sampler(db, [THINGS])
        assert shown(page) == {}
        await page.round()
        assert shown(page) == {
            ("lockstep_things", "red"): 2.0,
            ("lockstep_things_most", "red"): 5.0,
            ("lockstep_things", "blue"): 0.0,
            ("lockstep_things_most", "blue"): 0.0,
            ("lockstep_things", "green"): 1.0,
            ("lockstep_things_most", "green"): 0.0,
        }
        await page.close()


async def test_a_reading_writes_nothing_and_takes_no_more_rows_than_it_may(database: Any) -> None:
    """A statement that writes fails, and one with too many labels is cut."""

    async def write(connection: Connection) -> Sequence[Sampled]:
        await connection.execute("insert into thing values ('black', 1)")
        return [Sampled("lockstep_written", (), 1.0)]

    written = Connected("written", (Definition("lockstep_written", Kind.GAUGE, "Never."),), write)
    many = Query(
        "many", "select n::text as kind, n from generate_series(1, 1000) as n", ("kind",), (Measure("n", "lockstep_many", "Many."),)
    )
    async with connected(database) as db:
        page = sampler(db, [written, many])
        await page.round()
        found = shown(page)
        assert len(found) == ROWS_MAX
        assert all(name == "lockstep_many" for name, *_ in found)
        async with db.connection() as connection:
            assert await connection.fetchval("select count(*) from thing where kind = 'black'") == 0
        await page.close()


async def test_one_reading_that_fails_costs_no_other(database: Any) -> None:
    """Others are read in the same round, over a new connection; its own numbers stay for some rounds and then are not shown any more."""
    now, broken = 0.0, False

    async def read(connection: Connection) -> Sequence[Sampled]:
        if broken:
            await connection.execute("select nothing")
        return [Sampled("lockstep_first", (), 1.0)]

    first = Connected("first", (Definition("lockstep_first", Kind.GAUGE, "First."),), read)
    async with connected(database) as db:
        page = sampler(db, [first, THINGS], clock=lambda: now)
        await page.round()
        assert ("lockstep_first",) in shown(page)
        broken = True
        now = float(ROUNDS_SHOWN)
        await page.round()
        assert shown(page).keys() >= {("lockstep_first",), ("lockstep_things", "red")}
        now += 0.5
        assert ("lockstep_first",) not in shown(page)
        assert ("lockstep_things", "red") in shown(page)
        await page.close()


async def test_a_reading_that_hangs_is_left_out(database: Any) -> None:
    """It takes no longer than it may, and the next round reads over a new connection."""
    hangs = True

    async def read(connection: Connection) -> Sequence[Sampled]:
        await connection.execute("select pg_sleep($1)", 3_600.0 if hangs else 0.0)
        return [Sampled("lockstep_slow", (), 1.0)]

    slow = Connected("slow", (Definition("lockstep_slow", Kind.GAUGE, "Slow."),), read)
    async with connected(database) as db:
        page = sampler(db, [slow], read_seconds_max=0.5)
        async with asyncio.timeout(SECONDS_MAX):
            await page.round()
            assert shown(page) == {}
            hangs = False
            while not shown(page):
                await page.round()
        await page.close()


async def test_rows_are_read_though_the_pool_is_taken(database: Any) -> None:
    """Metrics wait for no connection of the pool, and the pool says who waits."""
    async with connected(database, pool_size_max=1) as db, db.connection():
        page = sampler(db, [THINGS])
        await page.round()
        assert shown(page)
        waiting = asyncio.create_task(db.now())
        async with asyncio.timeout(SECONDS_MAX):
            while db.use().waiting == 0:  # noqa: ASYNC110 - the wait is for another task's state
                await asyncio.sleep(0.01)
        assert (db.use().in_use, db.use().idle, db.use().size_max) == (1, 0, 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert db.use().waiting == 0
        await page.close()


async def test_the_page_is_openmetrics_and_holds_what_is_defined(
    database: Any, tls_for: Callable[[str], TlsSettings], tmp_path: Path
) -> None:
    """A scrape parses strictly, and has every family that is defined, with an exemplar where a trace was recorded; then nobody listens."""
    group = Instruments()
    group.histogram("lockstep_work_seconds", "Work.").observe(0.2, {"trace_id": "a" * 32})
    metrics = Metrics((group,), (THINGS,))
    port_file = tmp_path / "port"
    settings = MetricsSettings(port=0, port_file=port_file, sample_seconds=0.2)
    async with connected(database) as db, exposed("event-journal", settings, tls_for(SERVER), db, metrics):
        port = int(port_file.read_text())
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                status, body = await asked(port, GET)
                assert status == 200
                families = page_families(body)
                if families["lockstep_things"].samples:
                    break
        assert {each.family for each in metrics.definitions()} <= families.keys()
        assert {name for name in families if name.startswith("lockstep_")} == {each.family for each in metrics.definitions()}
        observed = [each for each in families["lockstep_work_seconds"].samples if each.exemplar is not None]
        assert [each.exemplar.labels for each in observed if each.exemplar] == [{"trace_id": "a" * 32}]
        assert families["lockstep_certificate_expiry_timestamp_seconds"].samples[0].value > 0
        assert families["lockstep_build"].samples[0].labels["service"] == "event-journal"
        assert "process_cpu_seconds" in families
    with pytest.raises(OSError, match=r".*"):
        await asked(port, GET)


async def test_without_a_port_nobody_listens(database: Any, tls_for: Callable[[str], TlsSettings]) -> None:
    """Metrics are served where they are asked for."""
    async with connected(database) as db, exposed("x", MetricsSettings(), tls_for(SERVER), db, Metrics()) as running:
        assert running is None


@pytest.mark.parametrize(
    ("request_octets", "status"),
    [
        (GET, 200),
        (b"GET /metrics?name=x HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_only_the_page_is_served(request_octets: bytes, status: int) -> None:
    """Another path, method or protocol, or too long a head, is refused, and the server goes on."""
    server = serving.MetricsServer("127.0.0.1", 0, lambda: b"# EOF\n")
    await server.start()
    try:
        assert (await asked(server.port, request_octets))[0] == status
        assert await asked(server.port, GET) == (200, b"# EOF\n")
    finally:
        await server.close()


async def test_an_idle_connection_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says nothing is let go, and told why."""
    monkeypatch.setattr(serving, "REQUEST_SECONDS_MAX", 0.5)
    server = serving.MetricsServer("127.0.0.1", 0, lambda: b"# EOF\n")
    await server.start()
    try:
        assert (await asked(server.port, b"GET /metrics"))[0] == 408
    finally:
        await server.close()


async def test_too_many_connections_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no more than so many at a time, and those that are there are served."""
    monkeypatch.setattr(serving, "REQUEST_SECONDS_MAX", SECONDS_MAX)
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 2)
    server = serving.MetricsServer("127.0.0.1", 0, lambda: b"# EOF\n")
    await server.start()
    try:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        for _ in range(4):
            assert (await asked(server.port, GET))[0] == 503
        async with asyncio.timeout(SECONDS_MAX):
            for reader, writer in idle:
                writer.write(GET)
                assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
                writer.close()
    finally:
        await server.close()


async def counted(port: int, method: str) -> dict[str, float]:
    """Calls of a method by code."""
    families = page_families((await asked(port, GET))[1])
    return {
        each.labels["code"]: each.value
        for each in families["lockstep_rpc_server_requests"].samples
        if each.labels.get("method") == method and each.name.endswith("_total")
    }


async def test_every_call_counts_by_method_and_code(
    database: Any, tls_for: Callable[[str], TlsSettings], guarded_server: Callable[..., Awaitable[Served]]
) -> None:
    """Answers, refusals by a handler and by the gate, and streams; a method that is not there is one, whatever its name."""
    world = await guarded_server()
    stub, stranger = await world.stub_as(), await world.stub_as(STRANGER)

    async def refuse(_: messages.VerifyPlanRequest, __: Context) -> messages.VerifyPlanResponse:
        raise precondition("PLAN_STATE", "not now")

    async with connected(database) as db, exposed("x", MetricsSettings(port=0), tls_for(SERVER), db, Metrics()) as running:
        assert running is not None
        before = {name: await counted(running.port, name) for name in (f"{NAME}/VerifyPlan", f"{NAME}/WatchEntries", "other")}
        await stub.VerifyPlan(messages.VerifyPlanRequest(plan_id="p"), timeout=SECONDS_MAX)
        world.servicer.verify = refuse
        await refusal(stub.VerifyPlan(messages.VerifyPlanRequest(plan_id="p"), timeout=SECONDS_MAX))
        await refusal(stranger.VerifyPlan(messages.VerifyPlanRequest(plan_id="p"), timeout=SECONDS_MAX))
        async for _ in stub.WatchEntries(messages.WatchEntriesRequest(), timeout=SECONDS_MAX):
            pass
        channel: Any = await world.channel_as(COORDINATOR)
        for name in ("a", "b"):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(f"/no.such.Service/{name}")(b"", timeout=SECONDS_MAX)
        wanted = {
            f"{NAME}/VerifyPlan": {"OK": 1.0, "FAILED_PRECONDITION": 1.0, "PERMISSION_DENIED": 1.0},
            f"{NAME}/WatchEntries": {"OK": 1.0},
            "other": {"UNIMPLEMENTED": 2.0},
        }
        async with asyncio.timeout(SECONDS_MAX):
            # The page is written anew only now and then, and a call is counted after its caller has the answer.
            while True:
                now = {name: await counted(running.port, name) for name in wanted}
                grown = {
                    name: {
                        code: value - before[name].get(code, 0.0)
                        for code, value in codes.items()
                        if value != before[name].get(code)
                    }
                    for name, codes in now.items()
                }
                if grown == wanted:
                    break
                await asyncio.sleep(0.1)
