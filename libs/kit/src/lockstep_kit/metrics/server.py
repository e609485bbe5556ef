"""GET /metrics over plain HTTP/1.1, and nothing else: no body is read, no connection is kept, and everything has a limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

_log = structlog.get_logger()

PATH: Final = "/metrics"
REQUEST_BYTES_MAX: Final = 8_192
REQUEST_SECONDS_MAX: Final = 5.0
CONNECTIONS_MAX: Final = 16
#: What a refused caller still sends is read for so long, and so much of it: a connection that is closed before loses the answer.
LINGER_SECONDS_MAX: Final = 1.0
LINGER_BYTES_MAX: Final = 65_536
_PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class MetricsServer:
    """Serves one page between `start` and `close`."""

    def __init__(self, host: str, port: int, page: Callable[[], bytes]) -> None:
        self._host = host
        self._port = port
        self._page = page
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None:
            raise AssertionError("it was not started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken, or the address is none of this machine.
        """
        self._server = await asyncio.start_server(self._begun, self._host, self._port, limit=REQUEST_BYTES_MAX)
        _log.info("serving_metrics", host=self._host, port=self.port)

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        if self._server is None:
            return
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _begun(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= 2 * CONNECTIONS_MAX:
            # Not even an answer.
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="metrics.serve")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                status = 503 if len(self._open) > CONNECTIONS_MAX else await _asked(reader)
                writer.write(_answer(status, self._page() if status == 200 else f"{_PHRASES[status]}\n".encode()))
                await writer.drain()
            if status != 200:
                await _linger(reader, writer)
        except TimeoutError:
            writer.write(_answer(408, b""))
        except OSError:
            # The other side is gone.
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _asked(reader: asyncio.StreamReader) -> int:
    """Status that a request deserves."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return 431
    except asyncio.IncompleteReadError:
        return 400
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    target, _, version = rest.partition(" ")
    if not version.startswith("HTTP/1."):
        return 400
    if target.partition("?")[0] != PATH:
        return 404
    return 200 if method == "GET" else 405


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let a refused caller read its answer."""
    writer.write_eof()
    taken = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS_MAX):
            while taken < LINGER_BYTES_MAX and (octets := await reader.read(REQUEST_BYTES_MAX)):
                taken += len(octets)


def _answer(status: int, body: bytes) -> bytes:
    kind = CONTENT_TYPE_LATEST if status == 200 else "text/plain; charset=utf-8"
    allow = "Allow: GET\r\n" if status == 405 else ""
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"{allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
