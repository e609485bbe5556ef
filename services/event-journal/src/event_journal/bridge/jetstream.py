"""The stream that is published to: looked at, made where it is not there, and appended to with acknowledgements. Holds no rules."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import nats
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from event_journal.bridge.rules import NOTHING, Described, Halted, Published, headers, published, subject
from event_journal.bridge.settings import BridgeSettings, NatsSettings
from lockstep_kit.failpoints import declare, failpoint

declare("event-journal.bridge.before_publish")
declare("event-journal.bridge.after_publish")
declare("event-journal.bridge.after_acknowledgement")

_log = structlog.get_logger()

CONNECT_SECONDS_MAX: Final = 5
CALL_SECONDS_MAX: Final = 10.0
CLOSE_SECONDS_MAX: Final = 5.0
#: The server's code for a message that is not behind the one that it was to be behind.
WRONG_LAST_SEQUENCE: Final = 10_071


class Interrupted(Exception):
    """The stream or the way to it is not as it was a moment ago: look again where it ends, and go on there."""


@asynccontextmanager
async def opened(settings: BridgeSettings) -> AsyncIterator[Stream]:
    """The stream over a connection of its own, which is not made again when it is lost: what was under way on it is not known then.

    Raises:
        Halted: the stream is not one that the bridge can keep its promise in.
        OSError, nats.errors.Error: the servers cannot be reached, or refuse.
    """
    lost = asyncio.Event()

    async def note(*errors: object) -> None:
        _log.debug("nats_lost", error=" ".join(f"{type(each).__name__}: {each}" for each in errors))
        lost.set()

    arguments: dict[str, Any] = {"tls": _tls(settings.nats)} if settings.nats.tls is not None else {}
    client = await nats.connect(
        list(settings.nats.servers),
        name="lockstep-journal-bridge",
        allow_reconnect=False,
        connect_timeout=CONNECT_SECONDS_MAX,
        disconnected_cb=note,
        closed_cb=note,
        error_cb=note,
        **arguments,
    )
    try:
        yield Stream(client, settings, lost)
    finally:
        try:
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await client.close()
        except (TimeoutError, OSError, nats.errors.Error) as error:
            _log.warning("nats_not_closed", error=type(error).__name__)


def _tls(settings: NatsSettings) -> ssl.SSLContext:
    if settings.tls is None:
        raise AssertionError("asked for where there is none")
    context = ssl.create_default_context(cafile=str(settings.tls.ca_file))
    context.load_cert_chain(settings.tls.certificate_file, settings.tls.key_file)
    return context


class Stream:
    """The stream, as long as the connection lasts."""

    def __init__(self, client: Client, settings: BridgeSettings, lost: asyncio.Event) -> None:
        self._settings = settings
        self._name = settings.nats.stream
        self._lost = lost
        # Room for everything that the bridge has in flight: what holds it up is its own limit.
        self._js: JetStreamContext = client.jetstream(
            timeout=CALL_SECONDS_MAX, publish_async_max_pending=settings.in_flight_max + 1
        )
        self._room = asyncio.Semaphore(settings.in_flight_max)
        self._waiting: deque[tuple[Published, asyncio.Future[api.PubAck]]] = deque()
        self._sent = asyncio.Event()
        #: Messages that the stream has taken.
        self.acknowledged_count = 0

    async def last(self, *, from_start: bool) -> Published:
        """The stream's last message; makes the stream where it is not there.

        Raises:
            Halted: the stream is not the bridge's, or has lost its last message and nobody said to begin anew.
        """
        try:
            info = await self._js.stream_info(self._name)
        except NotFoundError:
            info = await self._make()
        self._check(info.config)
        if info.state.last_seq == 0:
            return NOTHING
        try:
            message = await self._js.get_msg(self._name, seq=info.state.last_seq)
        except NotFoundError:
            if from_start:
                return Published(info.state.last_seq, "", 0, "")
            raise Halted(
                "STREAM_POSITION_LOST",
                f"the stream's last message ({info.state.last_seq}) was removed, and with it where the bridge was. "
                "Start it with --from-start to publish the journal from its first entry on",
            ) from None
        return published(info.state.last_seq, dict(message.headers or {}))

    async def _make(self) -> api.StreamInfo:
        told = self._settings.nats
        if not told.create:
            raise Halted("STREAM_MISSING", f"there is no stream {told.stream}, and the settings say not to make it")
        _log.info("stream_made", stream=told.stream)
        return await self._js.add_stream(
            name=told.stream,
            subjects=[f"{told.subject_prefix}.>"],
            storage=api.StorageType.FILE,
            num_replicas=told.replicas,
            duplicate_window=told.duplicate_window_seconds,
        )

    def _check(self, config: api.StreamConfig) -> None:
        told = self._settings.nats
        rules = (
            (f"{told.subject_prefix}.>" in (config.subjects or ()), f"take the subjects {told.subject_prefix}.>"),
            (config.duplicate_window >= told.duplicate_window_seconds, f"know message ids for {told.duplicate_window_seconds} s"),
            (config.retention == api.RetentionPolicy.LIMITS, "keep messages whether they were read or not (retention limits)"),
            (config.storage == api.StorageType.FILE, "be kept in files"),
            (not config.no_ack, "acknowledge what is published"),
        )
        broken = [rule for holds, rule in rules if not holds]
        if broken:
            raise Halted("STREAM_UNFIT", f"the stream {told.stream} must {', and '.join(broken)}")

    async def publish(self, entry: Described, place: Published, octets: bytes) -> None:
        """Send a message, when there is room for one more that is not acknowledged.

        Raises:
            nats.errors.Error: it cannot be sent.
        """
        await self._room.acquire()
        await failpoint("event-journal.bridge.before_publish")
        told = headers(entry, place, self._name)
        future = await self._js.publish_async(subject(self._settings.nats.subject_prefix, entry.type), octets, headers=told)
        await failpoint("event-journal.bridge.after_publish")
        self._waiting.append((place, future))
        self._sent.set()

    async def acknowledged(self) -> None:
        """Take acknowledgements in the order of sending, until one is not what it must be.

        Raises:
            Interrupted: a message was not acknowledged in time, or not as the next of the stream, or the connection was lost.
        """
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            while True:
                self._sent.clear()
                while self._waiting:
                    await self._acknowledge(*self._waiting[0], lost)
                    self._waiting.popleft()
                    self._room.release()
                sent = asyncio.ensure_future(self._sent.wait())
                try:
                    await asyncio.wait((sent, lost), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    sent.cancel()
                if lost.done():
                    raise Interrupted("the connection was lost")
        finally:
            lost.cancel()
            for _, future in self._waiting:
                # Nobody asks for what it says any more.
                future.cancel()

    async def _acknowledge(self, place: Published, future: asyncio.Future[api.PubAck], lost: asyncio.Future[Any]) -> None:
        await asyncio.wait((future, lost), timeout=self._settings.acknowledge_seconds, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise Interrupted("the connection was lost" if lost.done() else "a message was not acknowledged in time")
        try:
            acknowledgement = future.result()
        except APIError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                raise Interrupted("another message came before") from error
            raise Interrupted(f"a message was refused: {error}") from error
        except nats.errors.Error as error:
            raise Interrupted(f"a message was not taken: {type(error).__name__}") from error
        # A repeat of what another bridge, or this one before, has published in this very place is as good.
        if acknowledgement.seq != place.sequence:
            raise Interrupted("a message stands in another place than it was sent for")
        self.acknowledged_count += 1
        await failpoint("event-journal.bridge.after_acknowledgement")
