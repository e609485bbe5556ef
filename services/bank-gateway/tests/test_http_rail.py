"""The HTTP rail over real TLS: what counts as the bank's answer, and that nothing is sent twice or elsewhere by itself."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiohttp import web
from cryptography import x509

from bank_gateway import http_rail
from bank_gateway.http_rail import HttpRail
from bank_gateway.rail import Accepted, Delivery, Handover, MailboxUnavailable, Message, NoAnswer, Release, Request, TurnedDown
from lockstep_kit.rpc import TlsSettings

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Tls = Callable[[str], TlsSettings]
UETR, KEY = "0e1c2d3a-1b2c-4d3e-8f4a-5b6c7d8e9f01", bytes(range(32))
TAKEN: Final[dict[str, Any]] = {"answers": [{"status": 202, "accepted": True, "name": "P1"}]}
TURNED = {"error": "the key was used for other content", "field": "Idempotency-Key", "rule": "SAME_CONTENT"}


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tls.ca_file)
    context.load_cert_chain(tls.certificate_file, tls.key_file)
    return context


@asynccontextmanager
async def answering(handler: Handler, tls_for: Tls, **changes: Any) -> AsyncIterator[tuple[HttpRail, list[web.BaseRequest]]]:
    """A rail whose other end answers everything with one handler, and the requests that it got."""
    requests: list[web.BaseRequest] = []

    async def noted(request: web.BaseRequest) -> web.StreamResponse:
        requests.append(request)
        await request.read()
        return await handler(request)

    runner = web.ServerRunner(web.Server(noted))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(tls_for("spiffe://lockstep.local/bank-simulator")))
    await site.start()
    port = runner.addresses[0][1]
    rail = HttpRail(f"https://127.0.0.1:{port}/", tls_for("spiffe://lockstep.local/bank-gateway"), **changes)
    try:
        yield rail, requests
    finally:
        await rail.close()
        await runner.cleanup()


def saying(status: int, told: Any, **headers: str) -> Handler:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, text=told if isinstance(told, str) else json.dumps(told), headers=headers)

    return handler


def delivered(cursor: int, octets: bytes, **changes: Any) -> dict[str, Any]:
    digest, body = hashlib.sha256(octets).hexdigest(), base64.b64encode(octets).decode()
    return {"cursor": cursor, "sha256": digest, "body_base64": body} | changes


async def handed_over(rail: HttpRail, key: str = "P1") -> Handover:
    (told,) = await rail.hand_over([Message(b"<a/>", key)])
    return told


async def test_messages_and_keys_go_as_agreed(tls_for: Tls) -> None:
    """Octets unchanged, the idempotency keys, the key in upper-case hex, in one request; each has its own answer, in the rail's form."""
    answers = [{"status": 202, "accepted": True, "name": "P1"}, {"status": 422} | TURNED, {"status": 500} | TURNED, 7, {}]
    requests: list[Request] = [
        Message(b"<a/>", "P1"),
        Release(UETR, KEY, "I1-release"),
        *(Message(b"<b/>", f"P{n}") for n in (2, 3, 4)),
    ]
    async with answering(saying(200, {"answers": answers}), tls_for) as (rail, sent):
        accepted, refused, *unknown = await rail.hand_over(requests)
        assert (accepted, refused) == (Accepted(), TurnedDown("422", "Idempotency-Key", "SAME_CONTENT"))
        assert [type(each) for each in unknown] == [NoAnswer] * 3
        (request,) = sent
        assert (request.method, request.path, request.content_type) == ("POST", "/rail/v1/requests", "application/json")
        listed = (await request.json())["requests"]
        assert listed[0] == {"idempotency_key": "P1", "body_base64": base64.b64encode(b"<a/>").decode()}
        assert listed[1] == {"idempotency_key": "I1-release", "uetr": UETR, "key": KEY.hex().upper()}
        assert [each["idempotency_key"] for each in listed[2:]] == ["P2", "P3", "P4"]


async def test_a_bank_that_takes_one_at_a_time(tls_for: Tls) -> None:
    """Each goes by itself: octets and keys in the form that such a bank agreed to, and each has its own answer."""

    async def bank(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers["Idempotency-Key"] == "P2":
            return web.json_response(TURNED, status=409)
        return web.json_response({"accepted": True}, status=202 if request.headers["Idempotency-Key"] != "P3" else 200)

    async with answering(bank, tls_for, together=False) as (rail, sent):
        requests: list[Request] = [
            Message(b"<a/>", "P1"),
            Release(UETR, KEY, "I1-release"),
            Message(b"<b/>", "P2"),
            Message(b"<c/>", "P3"),
        ]
        refused = TurnedDown("409", "Idempotency-Key", "SAME_CONTENT", differs=True)
        assert await rail.hand_over(requests) == [Accepted(), Accepted(), refused, NoAnswer("HTTP 200")]
        by_key = {request.headers["Idempotency-Key"]: request for request in sent}
        message, release = by_key["P1"], by_key["I1-release"]
        assert (message.path, message.content_type, await message.read()) == ("/rail/v1/messages", "application/xml", b"<a/>")
        assert (release.path, await release.json()) == (f"/rail/v1/holds/{UETR}/release", {"key": KEY.hex().upper()})


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_refusal_in_the_rail_s_form_is_the_bank_s(status: int, tls_for: Tls) -> None:
    """Field and rule come through; 409 alone says that the bank knows the key by other content."""
    async with answering(saying(200, {"answers": [{"status": status} | TURNED]}), tls_for) as (rail, _):
        told = await handed_over(rail)
        assert told == TurnedDown(str(status), "Idempotency-Key", "SAME_CONTENT", differs=status == 409)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, "<html>no such host</html>"),
        (413, "too large"),
        (400, TURNED),
        (403, TURNED),
        (429, TURNED),
        (500, TURNED),
        (503, ""),
        (202, TAKEN),
        (200, "queued by the proxy"),
        (200, {"answers": []}),
        (200, {"answers": [*TAKEN["answers"], *TAKEN["answers"]]}),
        (200, {"answers": [{"status": 202, "accepted": False}]}),
        (200, {"answers": [{"status": 429} | TURNED]}),
        (200, {"answers": [{"status": 400, "message": "bad gateway request"}]}),
    ],
)
async def test_anything_else_is_no_answer(status: int, told: Any, tls_for: Tls) -> None:
    """What a proxy may say, and what the rail does not say, leaves open whether the bank has it."""
    async with answering(saying(status, told), tls_for) as (rail, requests):
        assert isinstance(await handed_over(rail), NoAnswer)
        assert len(requests) == 1


async def test_redirect_is_not_followed(tls_for: Tls) -> None:
    """A key goes where it was meant to go, and nowhere else."""
    async with answering(saying(200, TAKEN), tls_for) as (_, elsewhere):
        async with answering(saying(307, "", Location="https://127.0.0.1:9/elsewhere"), tls_for) as (rail, requests):
            assert await rail.hand_over([Release(UETR, KEY, "R")]) == [NoAnswer("HTTP 307")]
            with pytest.raises(MailboxUnavailable):
                await rail.receive(0, 0)
            with pytest.raises(MailboxUnavailable):
                await rail.acknowledge(1)
            assert len(requests) == 3
        assert elsewhere == []


async def test_lost_connection_and_silence_are_no_answer(tls_for: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off after the request, or never answered: nobody knows, and nothing was sent a second time."""
    monkeypatch.setattr(http_rail, "REQUEST_SECONDS_MAX", 5.0)
    over = asyncio.Event()

    async def cut(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def silent(_: web.BaseRequest) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    for handler in (cut, silent):
        async with answering(handler, tls_for) as (rail, requests):
            assert isinstance(await handed_over(rail), NoAnswer)
            over.set()
            assert len(requests) == 1
            over.clear()


async def test_nobody_there_and_a_stranger_there_are_no_answer(tls_for: Tls, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A closed port, and a server whose certificate another authority made: nothing is handed over."""
    from lockstep_sandbox.authority import Authority

    rail = HttpRail("https://127.0.0.1:9", tls_for("spiffe://lockstep.local/bank-gateway"))
    assert isinstance(await handed_over(rail), NoAnswer)
    await rail.close()
    stranger = TlsSettings.model_validate(Authority(tmp_path_factory.mktemp("stranger")).issue("bank-simulator").settings())

    def strange(name: str) -> TlsSettings:
        return stranger if name.endswith("simulator") else tls_for(name)

    async with answering(saying(200, TAKEN), strange) as (rail, requests):
        assert isinstance(await handed_over(rail), NoAnswer)
        assert requests == []


async def test_mailbox_is_read_in_order_and_acknowledged(tls_for: Tls) -> None:
    """Deliveries come with their places; the question says from where, how long and how many."""

    async def mailbox(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/ack"):
            return web.json_response({"acknowledged": 9})
        return web.json_response({"messages": [delivered(8, b"one"), delivered(9, b"two")]})

    async with answering(mailbox, tls_for) as (rail, requests):
        assert await rail.receive(7, 15.0) == [Delivery(8, b"one"), Delivery(9, b"two")]
        await rail.acknowledge(9)
        assert dict(requests[0].query) == {"after": "7", "wait": "15", "limit": str(http_rail.DELIVERIES_MAX)}
        assert await requests[1].json() == {"upto": 9}


@pytest.mark.parametrize(
    "told",
    [
        {"messages": [delivered(9, b"one"), delivered(8, b"two")]},
        {"messages": [delivered(7, b"already seen")]},
        {"messages": ["one"]},
        {"messages": [{}]},
        {"messages": [delivered(8 + number, b"") for number in range(http_rail.DELIVERIES_MAX + 1)]},
        {},
        [],
        "no JSON",
    ],
)
async def test_damaged_mailbox_is_not_read(told: Any, tls_for: Tls) -> None:
    """Another form or another order: nothing is taken, and so nothing is acknowledged."""
    async with answering(saying(200, told), tls_for) as (rail, _):
        with pytest.raises(MailboxUnavailable):
            await rail.receive(7, 0)


@pytest.mark.parametrize(
    ("changes", "kept", "damage"),
    [
        ({"sha256": "0" * 64}, b"one", "has another hash"),
        ({"body_base64": "?"}, b"?", "is no base64"),
        ({"sha256": None}, None, "is not in the rail's form"),
        ({"body_base64": 7}, None, "is not in the rail's form"),
    ],
)
async def test_damaged_delivery_is_told_by_its_place(
    changes: dict[str, Any], kept: bytes | None, damage: str, tls_for: Tls
) -> None:
    """One delivery that is not whole keeps its place and says so; the ones beside it are whole."""
    told = {"messages": [delivered(8, b"one", **changes), delivered(9, b"two")]}
    async with answering(saying(200, told), tls_for) as (rail, _):
        damaged, whole = await rail.receive(7, 0)
        assert (damaged.cursor, damaged.damage, whole) == (8, damage, Delivery(9, b"two"))
        assert kept is None or damaged.octets == kept


async def test_a_mailbox_that_is_too_large_is_read_by_less(tls_for: Tls) -> None:
    """Where so many deliveries are more than is read of an answer, fewer are asked for, which are always read; then many again."""
    large = delivered(8, bytes(http_rail.MAILBOX_BYTES_MAX // 2))

    async def mailbox(request: web.BaseRequest) -> web.StreamResponse:
        few = int(request.query["limit"]) <= http_rail.DELIVERIES_SURE
        return web.json_response({"messages": [large] if few else [large, large]})

    async with answering(mailbox, tls_for) as (rail, requests):
        with pytest.raises(MailboxUnavailable):
            await rail.receive(7, 0)
        assert [each.cursor for each in await rail.receive(7, 0)] == [8]
        with pytest.raises(MailboxUnavailable):
            await rail.receive(7, 0)
        many, sure = str(http_rail.DELIVERIES_MAX), str(http_rail.DELIVERIES_SURE)
        assert [request.query["limit"] for request in requests] == [many, sure, many]


async def test_certificate_is_renewed_while_requests_are_under_way(tmp_path_factory: pytest.TempPathFactory) -> None:
    """New files: the next request shows the new certificate, the one under way ends on the old; a pair that does not match changes nothing."""
    from lockstep_sandbox.authority import Authority

    serials: list[int] = []
    waiting, going_on = asyncio.Event(), asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        octets = request.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        serials.append(x509.load_der_x509_certificate(octets).serial_number)
        if (await request.json())["requests"][0]["idempotency_key"] == "SLOW":
            waiting.set()
            await going_on.wait()
        return web.json_response(TAKEN)

    authority = Authority(tmp_path_factory.mktemp("renewed"))
    bank = TlsSettings.model_validate(authority.issue("bank-simulator").settings())
    own, next_own = (TlsSettings.model_validate(authority.issue(name).settings()) for name in ("bank-gateway", "dlt-gateway"))
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(bank))
    await site.start()
    rail = HttpRail(f"https://127.0.0.1:{runner.addresses[0][1]}", own, look_seconds=0)
    try:
        slow = asyncio.create_task(handed_over(rail, "SLOW"))
        await waiting.wait()
        own.certificate_file.write_bytes(next_own.certificate_file.read_bytes())
        assert await handed_over(rail) == Accepted()
        own.key_file.write_bytes(next_own.key_file.read_bytes())
        assert await handed_over(rail, "P2") == Accepted()
        going_on.set()
        assert await slow == Accepted()
    finally:
        await rail.close()
        await runner.cleanup()
    first, unmatched, renewed = serials
    assert first == unmatched != renewed


async def test_answer_is_read_up_to_a_limit(tls_for: Tls) -> None:
    """An endless answer fills no memory."""

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=200)
        await response.prepare(request)
        for _ in range(1_000):
            await response.write(b" " * 65_536)
        return response

    async with answering(endless, tls_for) as (rail, _):
        assert isinstance(await handed_over(rail), NoAnswer)
