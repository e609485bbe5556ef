"""Reads the span store."""

from __future__ import annotations

from typing import Any, Final

import aiohttp

from lockstep_client.reading import ReadingFailed
from lockstep_kit.foreign_json import read_json

READ_SECONDS: Final = 10.0


async def read_traces(url: str, plan_id: str) -> list[dict[str, Any]]:
    """The traces that touch a plan, newest first, each with its spans.

    Raises:
        ReadingFailed: the store cannot be asked, or answers with something else.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=READ_SECONDS)) as session:
        listed = await _get(session, f"{url.rstrip('/')}/traces", {"plan_id": plan_id, "limit": "100"})
        found = []
        for each in listed.get("traces", ()):
            trace = await _get(session, f"{url.rstrip('/')}/traces/{each['trace_id']}", {})
            found.append({**each, "spans": trace.get("spans", [])})
    return found


async def _get(session: aiohttp.ClientSession, url: str, query: dict[str, str]) -> dict[str, Any]:
    try:
        async with session.get(url, params=query) as response:
            if response.status != 200:
                raise ReadingFailed("spans", f"the span store answered with HTTP {response.status}")
            answer = read_json(await response.read())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ReadingFailed("spans", f"the span store cannot be read: {type(error).__name__}") from error
    if not isinstance(answer, dict):
        raise ReadingFailed("spans", "the span store answered in another form")
    return answer
