"""The console's HTTP side. Every answer is JSON, a stream of events, or a file of the page; every refusal says why and what to do next.

GET /                                      the page; /static/NAME its files
GET /health                                whether the process serves
GET /api/events                            the board, then its changes                          (server-sent events)
GET /api/plans/{plan}                      a plan: transitions, legs, gates, who is awaited
GET /api/plans/{plan}/events               that it changed; ids are the coordinator's resume tokens    (server-sent events)
GET /api/plans/{plan}/journal              its chain, and whether it holds
GET /api/plans/{plan}/gates/{gate}         the bytes to sign                                    ?verdict=APPROVE|REJECT
GET /api/escalations                       escalations                                          ?which=open|closed|all&plan=
GET /api/escalations/{id}                  one, with what every verb would do
GET /api/escalations/{id}/resolution       the bytes to sign                                    ?verb=&leg=&executed=&evidence=&detail=
GET /api/in-doubt                          money at risk
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import orjson
import structlog
from aiohttp import web

from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep_client.commands.context import Refused
from lockstep_client.documents import event_document
from lockstep_client.watching import Change
from lockstep_console import signing, views
from lockstep_console.answers import Unanswered, unanswered
from lockstep_console.assets import PAGE, Asset, read_assets
from lockstep_console.feed import Feed
from lockstep_console.guard import HEADERS, NO_STORE, Guard, own_names, read_token
from lockstep_console.settings import ConsoleSettings
from lockstep_console.streams import Streams, cursor_of, frame, with_heartbeats
from lockstep_console.upstream import Upstream
from lockstep_kit import ids
from lockstep_kit.errors import LockstepError
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.registry_file import load_registry

_log = structlog.get_logger()

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_NOT_THERE: Final = Unanswered(404, "NOT_FOUND", "there is no such page", "begin at /")
_FAILED: Final = Unanswered(500, "INTERNAL", "the console failed", "see its log; what it showed before is not wrong for that")
_WHICH: Final = {
    "open": operators.ESCALATION_FILTER_OPEN,
    "closed": operators.ESCALATION_FILTER_CLOSED,
    "all": operators.ESCALATION_FILTER_ALL,
}


class Console:
    """The process's parts, put together. An async context manager that serves meanwhile."""

    def __init__(self, settings: ConsoleSettings) -> None:
        """Read what it needs.

        Raises:
            FieldInvalid: one of the files cannot be read, or others would reach it without a token.
        """
        self._settings = settings
        self._token = read_token(settings.listen.token_file, settings.listen.host)
        self._registry = load_registry(settings.registry_file)
        self._assets = read_assets()
        self._streams = Streams(settings.listen.streams_max)
        self._stack = AsyncExitStack()
        #: Where it is reached; known once it serves.
        self.port = 0

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._streams.close()
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """The page's address, without the token."""
        host = self._settings.listen.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    async def _start(self) -> None:
        told = self._settings
        self._upstream = await self._stack.enter_async_context(Upstream(told))
        self._feed = Feed(
            lambda: self._upstream.standing(timedelta(seconds=told.look_seconds)),
            plans_max=told.plans_max,
            retry_seconds=told.look_seconds,
            heartbeat_seconds=told.heartbeat_seconds,
        )
        self._stack.push_async_callback(self._feed.close)
        # What is answered depends on the port, so that requests wait for the guard.
        self._guard: asyncio.Future[Guard] = asyncio.get_running_loop().create_future()
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=told.listen.drain_seconds)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, told.listen.host, told.listen.port)
        await site.start()
        self.port = int(runner.addresses[0][1])
        self._guard.set_result(Guard(own_names(told.listen.host, self.port, told.listen.names), self._token))
        _log.info("console_serves", address=self.url)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._judged], client_max_size=0)
        application.on_response_prepare.append(_put_headers)
        for path, handler in (
            ("/", self._page),
            ("/static/{name}", self._file),
            ("/health", self._health),
            ("/api/events", self._board_events),
            ("/api/plans/{plan}", self._plan),
            ("/api/plans/{plan}/events", self._plan_events),
            ("/api/plans/{plan}/journal", self._journal),
            ("/api/plans/{plan}/gates/{gate}", self._gate),
            ("/api/escalations", self._escalations),
            ("/api/escalations/{id}", self._escalation),
            ("/api/escalations/{id}/resolution", self._resolution),
            ("/api/in-doubt", self._in_doubt),
        ):
            application.router.add_get(path, handler, allow_head=False)
        return application

    @web.middleware
    async def _judged(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer, or say why not. Nothing of a failure's text is told."""
        try:
            (await self._guard).check(request.method, request.path, request.headers)
            return await handler(request)
        except Unanswered as error:
            return _refused(error)
        except (LockstepError, FieldInvalid, Refused) as error:
            return _refused(unanswered(error))
        except web.HTTPException as error:
            return _refused(
                _NOT_THERE
                if error.status in (404, 405)
                else Unanswered(error.status, "REQUEST_INVALID", "the request is malformed", "begin at /")
            )
        except Exception:  # noqa: BLE001 - what is served is told nothing of it, and the log everything
            _log.exception("request_failed")
            return _refused(_FAILED)

    # -- the page ----------------------------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return _served(request, self._assets[PAGE])

    async def _file(self, request: web.Request) -> web.StreamResponse:
        found = self._assets.get(request.match_info["name"])
        if found is None:
            raise _NOT_THERE
        return _served(request, found)

    async def _health(self, request: web.Request) -> web.StreamResponse:
        return _json({"serving": True})

    # -- what it shows -----------------------------------------------------------------------------------------------

    async def _plan(self, request: web.Request) -> web.StreamResponse:
        plan_id = _plan_id(request)
        plan, transitions = await asyncio.gather(self._upstream.plan(plan_id), self._upstream.transitions(plan_id))
        return _json(await asyncio.to_thread(views.plan_view, plan, transitions, self._registry))

    async def _journal(self, request: web.Request) -> web.StreamResponse:
        plan_id = _plan_id(request)
        # The plan first: what it says was recorded, the journal may hold by the time it is asked; the other way about it would seem to be behind.
        plan = await self._upstream.plan(plan_id)
        entries = await self._upstream.entries(plan_id)
        return _json(await asyncio.to_thread(views.journal_view, plan, entries, self._registry))

    async def _gate(self, request: web.Request) -> web.StreamResponse:
        plan = await self._upstream.plan(_plan_id(request))
        verdict = request.query.get("verdict", "APPROVE")
        return _json(signing.gate_to_sign(plan, request.match_info["gate"], verdict, self._registry))

    async def _escalations(self, request: web.Request) -> web.StreamResponse:
        which = request.query.get("which", "open")
        require(which in _WHICH, "which", "must be open, closed or all")
        plan_id = request.query.get("plan", "")
        found = await self._upstream.escalations(_WHICH[which], ids.plan_id(plan_id, "plan") if plan_id else "")
        return _json(views.escalations_view(found))

    async def _escalation(self, request: web.Request) -> web.StreamResponse:
        return _json(views.escalation_view(await self._upstream.escalation(request.match_info["id"])))

    async def _resolution(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        asked = signing.asked_for(
            request.match_info["id"],
            query.get("verb", ""),
            query.get("leg", ""),
            query.get("executed", ""),
            query.get("evidence", ""),
            query.get("detail", ""),
        )
        return _json(signing.resolution_to_sign(await self._upstream.escalation(asked.escalation_id), asked))

    async def _in_doubt(self, request: web.Request) -> web.StreamResponse:
        return _json(views.in_doubt_view(*await self._upstream.in_doubt()))

    # -- live --------------------------------------------------------------------------------------------------------

    async def _board_events(self, request: web.Request) -> web.StreamResponse:
        async def events() -> AsyncGenerator[bytes]:
            async with aclosing(self._feed.watch(cursor_of(request))) as news:
                async for event, document, cursor in news:
                    yield frame(event, document, cursor)

        return await self._streams.serve(request, events())

    async def _plan_events(self, request: web.Request) -> web.StreamResponse:
        plan_id = _plan_id(request)
        return await self._streams.serve(
            request, with_heartbeats(self._changes(plan_id, cursor_of(request)), self._settings.heartbeat_seconds)
        )

    async def _changes(self, plan_id: str, cursor: str) -> AsyncGenerator[bytes]:
        try:
            async for news in self._upstream.watch(plan_id, cursor):
                document = event_document(news.event) if isinstance(news, Change) else {}
                yield frame("changed" if document else "snapshot", document, news.resume_token)
            yield frame("end", {}, "")
        except LockstepError as error:
            # The head of the answer is sent already: the refusal is an event, and the last one.
            yield frame("refused", unanswered(error).document(), "")


def _plan_id(request: web.Request) -> str:
    return ids.plan_id(request.match_info["plan"])


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(document), status=status, content_type="application/json", headers={"Cache-Control": NO_STORE}
    )


def _refused(error: Unanswered) -> web.Response:
    answer = _json(error.document(), error.status)
    if error.status == 405:
        answer.headers["Allow"] = "GET"
    if error.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _served(request: web.Request, asset: Asset) -> web.Response:
    """A file, or that the browser's own copy is still right; it asks each time."""
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
    if asset.etag in (each.strip() for each in request.headers.get("If-None-Match", "").split(",")):
        return web.Response(status=304, headers=headers)
    return web.Response(body=asset.octets, headers=headers | {"Content-Type": asset.content_type})


async def _put_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
