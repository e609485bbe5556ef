"""An endpoint that answers with JSON nested as deeply as it likes ends no process, although the libraries of the chain raise the limit of recursion."""

from __future__ import annotations

import sys

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

# What the gateways import too, and what raises the limit.
from lockstep_chain.ports import EvmUnavailable
from lockstep_chain.rpc import JsonRpc
from lockstep_chain.signers import keystore

DEEP = 1_000_000


@pytest.mark.parametrize("octets", [b"[" * DEEP, b"[" * DEEP + b"]" * DEEP, b'{"result":' * DEEP, b'{"error":' * DEEP])
async def test_a_deep_answer_is_none(octets: bytes) -> None:
    """Such an answer is as good as none."""
    assert keystore
    assert sys.getrecursionlimit() > 10_000, "the limit is not raised any more: what is held here would be trivial"

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=octets, content_type="application/json")

    application = web.Application()
    application.router.add_post("/", answer)
    async with TestServer(application) as server:
        node = JsonRpc(str(server.make_url("/")), request_seconds_max=60)
        try:
            with pytest.raises(EvmUnavailable, match="gave no answer"):
                await node.call("eth_chainId")
        finally:
            await node.close()
