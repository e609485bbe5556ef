"""Services and nodes start in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lockstep_sandbox.processes import ProgramFailed
from lockstep_testkit.chains import SCALE, SettlementChain
from lockstep_testkit.participants import ParticipantProcess


async def test_starts_before_its_node(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain
) -> None:
    """A gateway that is started while its node does not answer waits for it and then serves; not for ever, if it is told how long."""
    chain = settlement_chain.settings("dlt-gateway") | {"request_seconds_max": 2.0}
    node = settlement_chain.chain.supervisor
    node.pause("chain")
    try:
        starting = asyncio.ensure_future(
            participant_for("dlt-gateway", chain=chain, escrow=settlement_chain.escrow, tokens={settlement_chain.asset: SCALE})
        )
        await asyncio.sleep(6)
        assert not starting.done()
    finally:
        node.resume("chain")
    service = await starting
    node.pause("chain")
    try:
        with pytest.raises(ProgramFailed):
            await service.restart(environ={"LOCKSTEP_CHAIN__CONNECT_SECONDS_MAX": "1"})
    finally:
        node.resume("chain")
    assert "EvmUnavailable" in service.supervisor.log_tail("dlt-gateway")
