"""What services and chain tell of themselves while a sandbox runs: calls by the services' own counters, gas and transactions by the chain's blocks."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any, Final

import aiohttp

from lockstep_sandbox.stack import Sandbox

#: Calls that ended, and streams that are open: together the calls that were begun, but for those under way.
_CALLS: Final = re.compile(
    r'^lockstep_rpc_server_(?:requests_total|streams_open)\{(?:[^}]*,)?method="([^"]+)"[^}]*\} ([0-9.e+]+)', re.MULTILINE
)
#: Blocks asked for at one time.
_BLOCKS_AT_ONCE: Final = 32
#: Of a block's transactions.
_HASHES_ALONE: Final = False


def calls_of(page: str) -> Counter[str]:
    """Method -> calls, from a page of metrics."""
    found: Counter[str] = Counter()
    for method, value in _CALLS.findall(page):
        found[method] += int(float(value))
    return found


async def calls(sandbox: Sandbox) -> dict[str, Counter[str]]:
    """Service -> method -> calls so far, of all its replicas. Every service counts every call but those about its health."""
    found: dict[str, Counter[str]] = {}
    async with aiohttp.ClientSession() as session:
        for replica, service in sandbox.replicas.items():
            async with session.get(sandbox.metrics_url(replica)) as answer:
                answer.raise_for_status()
                found[service] = found.get(service, Counter()) + calls_of(await answer.text())
    return found


async def height(sandbox: Sandbox) -> int:
    """The latest block."""
    return int(str(await sandbox.chain.node.call("eth_blockNumber")), 16)


async def blocks(sandbox: Sandbox, after: int, last: int) -> dict[str, int]:
    """Blocks above one height up to another, and what is in them."""
    found = Counter({"blocks": 0, "transactions": 0, "gas": 0})
    numbers = range(after + 1, last + 1)
    for start in range(0, len(numbers), _BLOCKS_AT_ONCE):
        some = numbers[start : start + _BLOCKS_AT_ONCE]
        read = await asyncio.gather(*(sandbox.chain.node.call("eth_getBlockByNumber", hex(each), _HASHES_ALONE) for each in some))
        for block in read:
            found.update(_block(block))
    return dict(found)


def _block(block: dict[str, Any]) -> dict[str, int]:
    return {"blocks": 1, "transactions": len(block["transactions"]), "gas": int(block["gasUsed"], 16)}
