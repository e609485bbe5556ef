"""The console over HTTP: who is answered, what stands in every answer's head, and streams that resume, are counted, and end."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from console_world import TOKEN, World, a_plan, chain_of, escalated, shown

from lockstep.coordinator.v1 import settlement_service_pb2
from lockstep.type.v1 import resolution_pb2
from lockstep_console.guard import HEADERS, Guard, own_names, read_token
from lockstep_console.server import Console
from lockstep_console.settings import ConsoleListen
from lockstep_kit.fields import FieldInvalid

SECONDS_MAX = 60.0
SHOWN = {"Authorization": f"Bearer {TOKEN}"}


async def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < give_up, "it does not come to hold"
        await asyncio.sleep(0.02)


class Stream:
    """A browser's stream, read event by event."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def next(self, *wanted: str) -> tuple[str, str, Any]:
        """The next event that is one of those: event, id, document."""
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                fields: dict[str, str] = {}
                while line := (await self.answer.content.readline()).decode().rstrip("\n"):
                    name, _, value = line.partition(": ")
                    fields[name] = value
                assert fields, "the stream ended"
                if fields["event"] in wanted:
                    return fields["event"], fields.get("id", ""), json.loads(fields["data"])

    async def ended(self) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while await self.answer.content.read(1 << 16):
                pass


async def opened(world: World, path: str, cursor: str = "") -> Stream:
    headers = SHOWN | ({"Last-Event-ID": cursor} if cursor else {})
    answer = await world.browser.get(world.url(path), headers=headers)
    assert answer.status == 200, await answer.text()
    return Stream(answer)


# -- who is answered --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "reason"),
    [
        ("GET", "/api/in-doubt", {}, 401, "TOKEN_REQUIRED"),
        ("GET", "/api/in-doubt", {"Authorization": "Bearer wrong"}, 401, "TOKEN_REQUIRED"),
        ("GET", "/api/in-doubt", {"Authorization": f"Basic {TOKEN}"}, 401, "TOKEN_REQUIRED"),
        ("GET", f"/api/in-doubt?token={TOKEN}", {}, 401, "TOKEN_REQUIRED"),
        ("GET", "/api/events", {}, 401, "TOKEN_REQUIRED"),
        ("GET", "/", {"Host": "rebound.example"}, 421, "HOST_UNKNOWN"),
        ("GET", "/api/in-doubt", SHOWN | {"Host": "rebound.example"}, 421, "HOST_UNKNOWN"),
        ("GET", "/api/in-doubt", SHOWN | {"Host": "127.0.0.1"}, 421, "HOST_UNKNOWN"),
        ("GET", "/api/in-doubt", SHOWN | {"Sec-Fetch-Site": "cross-site"}, 403, "CROSS_SITE"),
        ("POST", "/api/in-doubt", SHOWN, 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/", {}, 405, "METHOD_NOT_ALLOWED"),
        ("HEAD", "/", {}, 405, ""),
        ("OPTIONS", "/api/in-doubt", SHOWN, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/nothing", SHOWN, 404, "NOT_FOUND"),
        ("GET", "/static/..%2fserver.py", {}, 404, "NOT_FOUND"),
        ("GET", "/api/plans/not-an-id", SHOWN, 400, "FIELD_INVALID"),
        ("GET", "/api/plans/5b8f2c1e-3d47-4a6b-9c0d-7e1f2a3b4c5d", SHOWN, 404, "NOT_FOUND"),
        ("GET", "/api/escalations?which=some", SHOWN, 400, "FIELD_INVALID"),
        ("GET", "/api/in-doubt", SHOWN, 200, ""),
        ("GET", "/", {}, 200, ""),
        ("GET", "/health", {}, 200, ""),
    ],
)  # fmt: skip
async def test_who_is_answered(world: World, method: str, path: str, headers: dict[str, str], status: int, reason: str) -> None:
    """Every answer has the headers that keep other origins out; what is refused says why and what to do, and nothing of a plan is kept by a browser."""
    async with world.browser.request(method, world.url(path), headers=headers) as answer:
        assert answer.status == status
        assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
        if reason:
            told = await answer.json(content_type=None)
            assert told["reason"] == reason
            assert told["message"]
            assert told["next"]
        if path.startswith("/api/"):
            assert answer.headers["Cache-Control"] == "no-store"


async def test_localhost_is_the_consoles_own_name(world: World) -> None:
    """By the name localhost with its port it is reached too."""
    assert (await world.get("/api/in-doubt", Host=f"LocalHost:{world.console.port}"))[0] == 200


async def test_files_are_asked_for_again(world: World) -> None:
    """A browser that has a file as it is gets it not again; one that has another does."""
    async with world.browser.get(world.url("/static/app.js")) as answer:
        etag = answer.headers["ETag"]
        assert (answer.headers["Cache-Control"], answer.content_type) == ("no-cache", "text/javascript")
    async with world.browser.get(world.url("/static/app.js"), headers={"If-None-Match": etag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with world.browser.get(world.url("/static/app.js"), headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    """No script or style stands in the page, no markup is made of text, and no address of another place is in any of its files."""
    static = Path(__file__).parents[1] / "src" / "lockstep_console" / "static"
    page = (static / "index.html").read_text()
    assert page.count("<script") == page.count('<script type="module" src="/static/')
    assert "<style" not in page
    assert " style=" not in page
    for path in static.iterdir():
        text = path.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "javascript:"):
            assert word not in text, (path.name, word)
        elsewhere = re.findall(r"""["'(](?:https?:)?//[a-z0-9][^"')]*""", text.replace("http://www.w3.org/2000/svg", ""))
        assert elsewhere == [], path.name


@pytest.mark.parametrize(
    ("host", "names", "accepted"),
    [
        ("127.0.0.1", [], ["127.0.0.1:80", "localhost:80", "[::1]:80"]),
        ("::1", [], ["[::1]:80", "localhost:80"]),
        ("10.0.0.7", ["console.example"], ["10.0.0.7:80", "console.example"]),
    ],
)
def test_names(host: str, names: list[str], accepted: list[str]) -> None:
    """The address with its port, localhost on loopback alone, and what is configured."""
    own = own_names(host, 80, names)
    assert set(accepted) <= set(own)
    assert ("localhost:80" in own) is (host != "10.0.0.7")


def test_others_need_a_token(tmp_path: Path) -> None:
    """An address that is not loopback takes a token; one that is too short, or none at all, is refused when it starts."""
    with pytest.raises(FieldInvalid, match="token_file must be given"):
        read_token(None, "0.0.0.0")
    assert read_token(None, "127.0.0.1") is None
    for text in ("short", "t" * 31, "t" * 20 + " " + "t" * 20):
        (tmp_path / "token").write_text(text)
        with pytest.raises(FieldInvalid, match="32 or more"):
            read_token(tmp_path / "token", "0.0.0.0")
    with pytest.raises(FieldInvalid, match="readable"):
        read_token(tmp_path / "none", "127.0.0.1")


def test_without_a_token_loopback_is_served() -> None:
    """Where no token is set, nobody is asked for one; the other rules stay."""
    Guard(["localhost:80"], None).check("GET", "/api/in-doubt", {"Host": "localhost:80"})


# -- what it shows ----------------------------------------------------------------------------------------------------


async def test_a_plan_and_its_chain(world: World) -> None:
    """The plan is shown with its legs and gates, its chain with the console's own verdict, and the bytes to sign with the command."""
    case = a_plan()
    world.services.plans, world.services.entries = [shown(case)], chain_of(case)
    status, plan = await world.get(f"/api/plans/{case.plan_id}")
    assert status == 200
    assert [each["leg_id"] for each in plan["legs"]] == [each.leg_id for each in case.legs]
    assert (await world.get(f"/api/plans/{case.plan_id}/journal"))[1]["verdict"] == "HOLDS"
    status, told = await world.get(f"/api/plans/{case.plan_id}/gates/RELEASE")
    assert (status, told["command"].split()[:4]) == (200, ["lockstep", "sign", case.plan_id, "--gate"])
    world.services.plans[0].legs[0].ClearField("vote")
    status, told = await world.get(f"/api/plans/{case.plan_id}/gates/RELEASE")
    assert (status, told["reason"]) == (409, "VOTES_INCOMPLETE")
    world.services.plans[0].votes_digest = bytes(32)
    world.services.plans[0].legs[0].CopyFrom(shown(case).legs[0])
    assert (await world.get(f"/api/plans/{case.plan_id}/gates/RELEASE"))[0] == 409


async def test_an_escalation_and_its_bytes(world: World) -> None:
    """An escalation is shown with what may be done; the resolution's bytes are shown, and a form that breaks a rule is refused by its field."""
    case = a_plan()
    world.services.escalation = escalated(case, shown(case), [(resolution_pb2.VERB_RETRY, "")])
    assert [each["verb"] for each in (await world.get("/api/escalations/escalation-1"))[1]["options"]] == ["RETRY"]
    assert (await world.get("/api/escalations"))[1]["escalations"][0]["reason"] == "UNKNOWN_TOO_OLD"
    status, told = await world.get("/api/escalations/escalation-1/resolution?verb=RETRY&detail=again")
    assert (status, "--verb retry" in told["command"]) == (200, True)
    status, told = await world.get("/api/escalations/escalation-1/resolution?verb=RETRY")
    assert (status, told["reason"]) == (400, "FIELD_INVALID")
    assert "detail" in told["message"]
    status, told = await world.get("/api/escalations/escalation-2/resolution?verb=RETRY&detail=again")
    assert (status, told["reason"]) == (409, "ESCALATION_DIFFERS")


async def test_a_service_that_does_not_answer(world: World) -> None:
    """What a service's silence leaves unknown is said to be unknown."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = world.settings.model_copy(update={"coordinator": f"127.0.0.1:{nobody.getsockname()[1]}"})
        async with Console(settings) as alone:
            status, told = await World(world.services, settings, alone, world.browser).get("/api/in-doubt")
    assert (status, told["reason"]) == (503, "UNAVAILABLE")
    assert "nothing is known" in told["next"]


# -- live -------------------------------------------------------------------------------------------------------------


async def test_the_board_moves(world: World) -> None:
    """A browser is told the whole board, then each change; one that comes back is told what it missed and no more."""
    one, two = a_plan(), a_plan()
    world.services.plans = [shown(one)]
    stream = await opened(world, "/api/events")
    _, cursor, document = await stream.next("board")
    assert [each["plan_id"] for each in document["plans"]] == [one.plan_id]
    world.services.plans = [shown(one, "EXECUTING", etag="2")]
    _, cursor, document = await stream.next("plan")
    assert (document["plan_id"], document["state"]) == (one.plan_id, "EXECUTING")
    stays = await opened(world, "/api/events")
    await stays.next("board")
    stream.answer.close()
    world.services.plans = [shown(two), shown(one, "EXECUTING", etag="2")]
    assert (await stays.next("plan"))[2]["plan_id"] == two.plan_id
    back = await opened(world, "/api/events", cursor)
    event, _, document = await back.next("board", "plan", "gone")
    assert (event, document["plan_id"]) == ("plan", two.plan_id)
    elsewhere = await opened(world, "/api/events", "0123456789abcdef-1")
    assert (await elsewhere.next("board", "plan"))[0] == "board"
    for each in (stays, back, elsewhere):
        each.answer.close()


async def test_one_look_for_everybody(world: World) -> None:
    """While nobody watches nothing is asked; however many do, there is one stream, and after the last browser went it ends."""
    await asyncio.sleep(0.3)
    assert world.services.looks == 0
    streams = [await opened(world, "/api/events") for _ in range(3)]
    for each in streams:
        await each.next("board")
    await until(lambda: (world.services.looks, world.services.looking) == (1, 1))
    assert len([each for each in asyncio.all_tasks() if each.get_name() == "board"]) == 1
    for each in streams:
        each.answer.close()
    await until(lambda: world.console._streams.count == 0)
    await until(lambda: world.services.looking == 0)
    await until(lambda: not [each for each in asyncio.all_tasks() if each.get_name() == "board"])


async def test_an_old_board_says_so(world: World) -> None:
    """While the coordinator does not answer, the board is said to be old, and heartbeats go on; afterwards it is fresh again."""
    world.services.plans = [shown(a_plan())]
    stream = await opened(world, "/api/events")
    await stream.next("board")
    world.services.failing = grpc.StatusCode.PERMISSION_DENIED
    told = (await stream.next("stale"))[2]
    assert told["next"]
    assert (await stream.next("heartbeat"))[2]["as_of"]
    world.services.failing = None
    assert (await stream.next("fresh"))[2]["as_of"]
    stream.answer.close()


async def test_a_heartbeat_comes(world: World) -> None:
    """While nothing happens, a browser hears that the console lives."""
    stream = await opened(world, "/api/events")
    await stream.next("board")
    assert (await stream.next("heartbeat"))[2]["as_of"]
    stream.answer.close()


async def test_a_plan_is_watched_from_where_the_browser_stands(world: World) -> None:
    """The browser's last event is the coordinator's resume token; the watch ends at the coordinator when the browser goes."""
    case = a_plan()
    snapshot = settlement_service_pb2.WatchPlanResponse(snapshot=shown(case), resume_token="token-1")
    event = settlement_service_pb2.WatchPlanResponse(resume_token="token-2")
    event.event.plan_id, event.event.sequence, event.event.transition.transition_no = case.plan_id, 1, 1
    world.services.news = [snapshot, event]
    stream = await opened(world, f"/api/plans/{case.plan_id}/events")
    assert [(await stream.next("snapshot", "changed"))[:2] for _ in range(2)] == [("snapshot", "token-1"), ("changed", "token-2")]
    await stream.next("heartbeat")
    stream.answer.close()
    await until(lambda: world.services.watching == 0)
    again = await opened(world, f"/api/plans/{case.plan_id}/events", "token-2")
    await again.next("snapshot")
    assert world.services.tokens == ["", "token-2"]
    again.answer.close()


async def test_a_watch_that_is_refused(world: World) -> None:
    """A refusal of a watch is its stream's last event, with the reason and what to do."""
    world.services.failing = grpc.StatusCode.PERMISSION_DENIED
    stream = await opened(world, f"/api/plans/{a_plan().plan_id}/events")
    assert (await stream.next("refused"))[2]["next"]
    await stream.ended()


async def test_streams_are_counted(world: World) -> None:
    """One stream too many is refused; one that ends makes room."""
    streams = [await opened(world, "/api/events") for _ in range(3)]
    async with asyncio.timeout(SECONDS_MAX):
        status, told = await world.get("/api/events")
    assert (status, told["reason"]) == (503, "STREAMS_MAX")
    streams[0].answer.close()
    await until(lambda: world.console._streams.count == 2)
    streams[0] = await opened(world, "/api/events")
    for each in streams:
        each.answer.close()


async def test_a_browser_that_takes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser that opens a stream and reads nothing is given up, and holds no place for ever."""
    monkeypatch.setattr("lockstep_console.streams.WRITE_SECONDS_MAX", 0.5)
    world.services.plans = [shown(a_plan(), reference="x" * 60) for _ in range(190)]
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(slow.connect, ("127.0.0.1", world.console.port))
        head = f"GET /api/events HTTP/1.1\r\nHost: localhost:{world.console.port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        slow.sendall(head.encode())
        await until(lambda: world.console._streams.count == 1)
        number = 1
        give_up = time.monotonic() + SECONDS_MAX
        while world.console._streams.count:
            assert time.monotonic() < give_up
            number += 1
            for each in world.services.plans:
                each.etag = str(number)
            await asyncio.sleep(0.05)


async def test_it_ends_though_it_is_watched(world: World) -> None:
    """When it is told to stop, streams end, and it is gone within its time."""
    other = Console(world.settings.model_copy(update={"listen": world.settings.listen.model_copy(update={"port": 0})}))
    async with other:
        watched = World(world.services, world.settings, other, world.browser)
        stream = await opened(watched, "/api/events")
        await stream.next("board")
        began = time.monotonic()
    await stream.ended()
    assert time.monotonic() - began < SECONDS_MAX
    with pytest.raises(aiohttp.ClientConnectionError):
        await watched.get("/health")


def test_settings_are_strict() -> None:
    """A name that no browser would send, or a port that is none, is refused."""
    for wrong in ({"names": ["Console.Example"]}, {"names": ["http://x"]}, {"port": 70_000}, {"streams_max": 0}):
        with pytest.raises(ValueError, match="validation error"):
            ConsoleListen.model_validate(wrong)
