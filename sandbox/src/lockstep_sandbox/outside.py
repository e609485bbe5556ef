"""Looking at the outside world as an auditor would: the chain's balances and the bank's book, never a service's word."""

from __future__ import annotations

from typing import Any

import aiohttp

from lockstep_contracts import escrow, token
from lockstep_sandbox.stack import Sandbox


async def token_balance(sandbox: Sandbox, symbol: str, owner: str) -> int:
    """Minor units of a token that an address holds."""
    return token.decode_count(await sandbox.chain.node.read(sandbox.chain.tokens[symbol], token.encode_balance_of(owner)))


async def escrowed(sandbox: Sandbox, symbol: str) -> int:
    """Minor units of a token that the escrow holds for plans."""
    data = escrow.LOCKED_TOTAL.encode(sandbox.chain.tokens[symbol])
    return token.decode_count(await sandbox.chain.node.read(sandbox.chain.contracts["SettlementEscrow"], data))


async def leg_status(sandbox: Sandbox, plan_digest: bytes, leg_id: str) -> escrow.LegStatus:
    """Where a leg stands on the escrow."""
    data = escrow.encode_status_of(escrow.leg_key(plan_digest, leg_id))
    return escrow.decode_status_of(await sandbox.chain.node.read(sandbox.chain.contracts["SettlementEscrow"], data))


async def bank(sandbox: Sandbox, path: str, **query: str) -> Any:
    """What the bank's inspection interface says."""
    headers = {"Authorization": f"Bearer {sandbox.control_token}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(sandbox.control_url + path, params=query) as answer:
        answer.raise_for_status()
        return await answer.json()


async def bank_command(sandbox: Sandbox, path: str, document: dict[str, Any]) -> Any:
    """Tell the bank to misbehave, or otherwise."""
    headers = {"Authorization": f"Bearer {sandbox.control_token}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(sandbox.control_url + path, json=document) as answer:
        answer.raise_for_status()
        return await answer.json()


async def spans_of(sandbox: Sandbox, plan_id: str) -> list[dict[str, Any]]:
    """Traces that touch a plan, newest first: its own is the oldest; whoever asks about the plan, or signs for it, may have traces of their own."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sandbox.spans_url}/traces", params={"plan_id": plan_id, "limit": "100"}) as answer,
    ):
        answer.raise_for_status()
        found: list[dict[str, Any]] = (await answer.json())["traces"]
        return found
