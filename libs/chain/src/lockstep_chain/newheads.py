"""New blocks as an endpoint announces them (WebSocket, eth_subscribe "newHeads"): a reason to look now instead of at the next poll, and nothing else.

What is announced is not read: polling stays the truth. A socket that is lost, silent or lying costs time or a look too many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import aiohttp
import orjson
import structlog

from lockstep_kit.loops import Loop

_log = structlog.get_logger()

#: A lost socket is opened again after so long.
REOPEN_SECONDS: Final = 5.0
#: A socket that does not answer a ping for so long is lost.
HEARTBEAT_SECONDS: Final = 20.0
#: A header is small; a longer message ends the socket.
MESSAGE_BYTES_MAX: Final = 256 * 1024
OPEN_SECONDS_MAX: Final = 10.0

_SUBSCRIBE: Final = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}).decode()


class NewHeads:
    """Listens to the announcements of endpoints."""

    def __init__(self, urls: Sequence[str], announced: Callable[[], None], *, reopen_seconds: float = REOPEN_SECONDS) -> None:
        """Nothing happens before the loops run.

        Args:
            urls: ws or wss; in logs they go by their place, from 1, since they may hold keys.
            announced: called at every announcement.
            reopen_seconds: pause before a lost socket is opened again.
        """
        self._urls = tuple(urls)
        self._announced = announced
        self._reopen_seconds = reopen_seconds

    def loops(self) -> tuple[Loop, ...]:
        """What runs beside whoever is woken."""
        return tuple(self._loop(place, url) for place, url in enumerate(self._urls, start=1))

    def _loop(self, place: int, url: str) -> Loop:
        async def listen() -> None:
            try:
                async with aiohttp.ClientSession() as session:
                    await self._listen(session, url)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                # Only the kind of the error: its text may hold the URL, and the URL a key.
                _log.info("announcements_lost", endpoint=place, error=type(error).__name__)
            else:
                _log.info("announcements_lost", endpoint=place, error="closed")

        return Loop(f"chain.newheads.{place}", listen, poll_seconds=self._reopen_seconds)

    async def _listen(self, session: aiohttp.ClientSession, url: str) -> None:
        timeout = aiohttp.ClientWSTimeout(ws_close=OPEN_SECONDS_MAX)
        async with session.ws_connect(url, timeout=timeout, heartbeat=HEARTBEAT_SECONDS, max_msg_size=MESSAGE_BYTES_MAX) as socket:
            await socket.send_str(_SUBSCRIBE)
            async for _ in socket:
                self._announced()
